"""One request and its response.

    exchange = Exchange(connections, request, limits, ...)
    exchange.open()                # connect, send, and receive the head of the response
    exchange.read()                # or: for data in exchange.iter_bytes(): ...

An exchange has one state at a time (protocol.py). Only the thread whose move to the next state
succeeds may release or close the connection, so that happens once. Nothing depends on which
thread is running, so green threads need no code of their own.

The response of the user's session or of a mock goes through the same states. Whatever requests,
urllib3, http.client or ssl raise in an exchange is translated here.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .connections import (
    Connection,
    Connections,
    Limits,
    Route,
    SessionResponse,
    shut_down,
    with_deadline,
)
from .errors import (
    ConfigError,
    DeserializeError,
    HTTPError,
    OpenAIError,
    RequestTimeoutError,
    StreamInterruptedError,
    excerpt,
    is_transient,
)
from .protocol import MOVES, Body, Incomplete, State, Undecodable
from .redaction import Secrets, shown_url

if TYPE_CHECKING:
    from types import FrameType

    import requests

_LOST_SECONDS = 1.0  # if the connection is lost this soon, the server has hardly begun to work
_GRACE_SECONDS = 0.05  # to wait for the end of a body after its last event
_ERROR_BODY_LIMIT = 1_000_000  # bytes
# The ends of the names of headers that hold the id of a request, the best first.
_REQUEST_IDS = (
    "x-request-id", "request-id", "requestid", "trace-id", "logid", "trace-context", "cf-ray",
)  # fmt: skip


class Exchange:
    """One request and its response: status and headers after `open`, the body as it is read."""

    def __init__(
        self,
        connections: Connections,
        request: requests.PreparedRequest,
        limits: Limits,
        *,
        secrets: Secrets,
        body_limit: int,
    ) -> None:
        self.state: State = "connecting"
        self.reused: bool = False  # the connection has served another exchange before
        self.status_code: int = 0
        self.reason: str = ""
        self.headers: Mapping[str, str] = {}
        self.where: str = f"{request.method} {shown_url(request.url or '')}"
        self._connections = connections
        self._request = request
        self._limits = limits
        self._deadline = limits.deadline  # of the call; `end_within` restores it
        self._secrets = secrets
        self._body_limit = body_limit
        # Reentrant, since a signal handler may call `close` while its thread holds the lock.
        self._lock = threading.RLock()
        self._channel: Connection | SessionResponse | None = None
        self._proxied = False
        self._pid = os.getpid()

    # Sending

    def open(self, *, fresh: bool = False) -> None:
        """Send the request, and receive the head of the response, whatever its status.

        `fresh`: use a new connection, not an idle one.
        Raises ConfigError for a request that can't be sent, HTTPError if no response arrives.
        """
        connections, limits, request = self._connections, self._limits, self._request
        handled = sys.exc_info()[1]
        self._sent_at = time.monotonic()  # `_send_over` sets it again when the request is sent
        try:
            route = connections.route_to(request)
            self._secrets |= route.secrets
            self._proxied = route.proxied
            if connections.needs_session(route):
                self._move("sent")
                send = functools.partial(connections.send_by_session, request, limits)
                # Without a deadline, `with_deadline` would only lengthen tracebacks.
                self._use(send() if limits.deadline is None else with_deadline(limits, send))
            else:
                self._send_over(route, fresh)
            return
        except BaseException as error:
            try:
                raised = self._fail(error, HTTPError, handled)
            finally:
                self._close_channel()  # also if an interruption comes meanwhile
            if raised is error:
                raise
        raise raised  # outside the except block, so that Python does not chain `error` to it

    def _send_over(self, route: Route, fresh: bool) -> None:
        """Send the request over a connection of this library, and receive the head."""
        from urllib3._collections import HTTPHeaderDict

        connection = None if fresh else route.take_idle()
        self.reused = connection is not None
        if connection is None:
            connection = route.connect(self._limits)
        self._channel = connection
        self._move("sent")
        connection.send(self._request, self._limits)
        self._sent_at = time.monotonic()
        head = connection.read_head(self._request.method)
        self.status_code, self.reason = head.status, head.reason
        self.headers = HTTPHeaderDict(head.headers.items())
        self._body = Body(head.status, self.headers, limit=self._body_limit)
        self._move("head")

    def _use(self, response: requests.Response) -> None:
        """Go on with the response of a session or a mock."""
        self._channel = channel = SessionResponse(response, self._limits)
        self.status_code, self.reason = response.status_code, str(response.reason or "")
        self.headers = response.headers
        self._body = Body(self.status_code, channel.headers, limit=self._body_limit)
        self._move("head")

    # Reading

    def read(self) -> bytes:
        """The complete body. Raises as `iter_bytes` does, HTTPError if it is cut off."""
        return b"".join(self.iter_bytes(HTTPError))

    def iter_bytes(self, kind: type[HTTPError] = StreamInterruptedError) -> Iterator[bytes]:
        """The body, in pieces, each as soon as it arrives.

        Raises `kind` if the body is cut off, RequestTimeoutError if no more of it arrives,
        DeserializeError if it cannot be decompressed.
        """
        # Not a generator: a Ctrl-C during its finalizer would be lost.
        return iter(functools.partial(self._receive, kind), b"")

    def read_error(self) -> bytes:
        """The body of an error: as much of it as arrives, up to a megabyte."""
        found, reason = bytearray(), ""
        try:
            for data in self.iter_bytes():
                found += data
                if len(found) > _ERROR_BODY_LIMIT:
                    break
        except OpenAIError as error:
            reason = str(error)  # used only if no part of the body arrived
        self.close()
        return bytes(found) or reason.encode("utf-8", "replace")

    def _receive(self, kind: type[HTTPError]) -> bytes:
        """The next bytes of the body; b"" at its end. Raises `kind` if the body is cut off."""
        if self.state == "done":
            return b""
        if not self._move("reading"):
            raise self._incomplete([], kind)
        handled = sys.exc_info()[1]
        try:
            return self._next()
        except BaseException as error:
            try:
                raised = self._fail(error, kind, handled)
            finally:
                self._close_channel()
            if raised is error:
                raise
        raise raised

    def _next(self) -> bytes:
        # A separate function, so that `_fail` can clear its variables: if an interruption comes
        # just before `release`, only they refer to the connection, and clearing them closes it.
        channel, body, data = self._channel, self._body, b""
        assert channel is not None
        while not data and not body.ended:
            data = body.feed(channel.receive())
        if not self._move("done" if body.ended else "body"):
            raise Incomplete  # another thread has closed the exchange
        if body.ended:
            self._channel = None
            channel.release(reusable=body.keep_alive and not body.trailing_data)
        return data

    def finish(self) -> None:
        """End the exchange after the last event. If the end of the body arrives at once, the
        connection can serve again; otherwise close it."""
        self.end_within(_GRACE_SECONDS)
        try:
            while self._channel is not None and self._channel.sock is not None:
                self._receive(HTTPError)
        except OpenAIError:
            pass  # the body did not end at once
        finally:
            self.close()

    def close(self) -> None:
        """Give up the rest of the response. Returns at once, and wakes a thread that waits for
        the body; any thread may call it."""
        if os.getpid() != self._pid:
            # After a fork, the parent goes on reading. The child must not wait for its lock,
            # which a thread of the parent may have held.
            self._close_channel()
            return
        channel, before = self._channel, self._move("left")
        if before == "reading" and channel is not None:
            shut_down(channel.sock)  # the reader, once awake, closes it
        elif before:
            self._close_channel()

    def end_within(self, seconds: float | None) -> None:
        """Limit the time for the rest of the body, in seconds; None removes this limit. The
        deadline of the call remains."""
        ends = [self._deadline, None if seconds is None else time.monotonic() + seconds]
        self._limits.deadline = min(filter(None, ends), default=None)

    def check_deadline(self) -> None:
        """Raise RequestTimeoutError if the deadline has passed."""
        if self._limits.expired:
            self._move("expired")
            self._close_channel()
            raise self._incomplete([], HTTPError)

    # States

    def _move(self, state: State) -> str:
        """Go to `state`, and return the previous state; if the move is not allowed, return ""."""
        with self._lock:
            before = self.state
            if state in MOVES[before]:
                self.state = state
                return before
        return ""

    def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _fail(
        self, error: BaseException, kind: type[HTTPError], handled: BaseException | None
    ) -> BaseException:
        """End the exchange because of `error`, and return what to raise: an error of this
        library, or what a hook, signal handler or job runner of the user has raised.

        `handled` is the exception that the caller of the library was handling."""
        before, channel = self.state, self._channel
        self._move("expired" if self._limits.expired else "broken")
        self._close_channel()
        links = _chain(error, handled)
        _clear_frames(links)
        for link in reversed(links):
            if _raised_by_user(link):
                return link
        if not _is_of_network(error):
            return error
        if before in ("connecting", "sent"):
            untouched = channel is None or not channel.received_any
            raised = self._no_response(links, before, untouched)
        else:
            raised = self._incomplete(links, kind)
        raised.__cause__ = self._cause(links)
        return raised

    # Errors

    @property
    def request_id(self) -> str | None:
        """The server's id for this request, to quote to its support."""
        pairs = [(name.lower(), value) for name, value in self.headers.items() if value]
        found = (value for end in _REQUEST_IDS for name, value in pairs if name.endswith(end))
        request_id: str | None = self.redacted(next(found, None))
        return request_id

    @property
    def safe_headers(self) -> Mapping[str, str]:
        """The headers for an error: without the key, which a server may repeat."""
        kind: Any = type(self.headers)  # a mapping that ignores case
        redacted: Mapping[str, str] = kind(self.redacted(dict(self.headers)))
        return redacted

    def redacted(self, value: Any) -> Any:
        """A string, or JSON that holds strings, without the key, which a server may repeat."""
        return self._secrets.redacted(value)

    def _no_response(self, links: list[BaseException], before: str, untouched: bool) -> OpenAIError:
        """The error for a request that failed in the state `before`, without a response.

        `untouched`: not a single byte of a response has arrived."""
        error = links[0]
        names = _names_of(links)
        lost = not _LOSSES.isdisjoint(names)
        where, reason = f"[{self.where}]", self._reason(links)
        connecting = before == "connecting" or "NewConnectionError" in names
        tunnel = re.search(r"Tunnel connection failed: (\d+)", reason)
        proxied = "ProxyError" in names or (before == "connecting" and self._proxied)
        if self.state == "expired":
            return RequestTimeoutError(f"the deadline ran out before a reply came {where}")
        if _is_timeout(links):
            connecting = connecting or "ConnectTimeout" in names
            limit = self._limits.connect if connecting else self._limits.read
            within = f"within {limit:g} s" if limit else "in time"  # an adapter's own limit
            text = f"no {'connection' if connecting else 'reply'} {within} {where}"
            return RequestTimeoutError(text, may_retry=connecting)
        # urllib3 1.26 raises a CertificateError if the name in the certificate is wrong.
        if not names.isdisjoint({"SSLCertVerificationError", "CertificateError"}):
            return HTTPError(
                f"the server's certificate was not accepted: {reason} {where}. For a company's "
                "own CA set REQUESTS_CA_BUNDLE, or verify='/path/to/ca.pem'"
            )
        # requests raises an OSError without a number if a CA bundle does not exist.
        is_missing_file = type(error) is OSError and not (error.errno or tunnel)
        invalid = isinstance(error, (ValueError, TypeError)) or "InvalidSchema" in names
        if invalid or (before == "connecting" and is_missing_file):
            return ConfigError(f"the request cannot be sent: {reason} {where}")
        if proxied and (before == "connecting" or not lost):
            may_retry = not tunnel or is_transient(int(tunnel[1]))
            text = f"no connection through the proxy: {reason} {where}"
            return HTTPError(text, may_retry=may_retry)
        if connecting or ("SSLError" in names and not lost):
            return HTTPError(f"no connection: {reason} {where}", may_retry=connecting)
        if lost:
            quick = time.monotonic() - self._sent_at < _LOST_SECONDS
            text = f"the connection was lost before a reply came: {reason} {where}"
            return HTTPError(text, may_retry=quick and untouched)
        return HTTPError(f"no usable reply: {reason} {where}")

    def _incomplete(self, links: list[BaseException], kind: type[HTTPError]) -> OpenAIError:
        """The error for a response that did not arrive completely, usually a `kind`.

        `links` is empty if the exchange had already ended.
        """
        where, reason = f"[{self.where}]", f": {self._reason(links)}" if links else ""
        error: OpenAIError
        if self.state == "expired" or (self.state == "done" and not links):
            error = RequestTimeoutError(f"the deadline ran out while the reply came {where}")
        elif self.state == "left":
            error = kind(f"closed before the reply was complete {where}")
        elif _is_timeout(links):
            error = RequestTimeoutError(f"the server was silent in the middle of its reply {where}")
        elif links and isinstance(links[0], Undecodable):
            error = DeserializeError(f"the reply could not be decompressed{reason} {where}")
        else:
            error = kind(f"the connection was lost in the middle of the reply{reason} {where}")
        error.headers, error.request_id = self.safe_headers, self.request_id
        return error

    def _reason(self, links: list[BaseException]) -> str:
        link = _innermost(links)
        words = link.strerror if isinstance(link, OSError) and link.strerror else str(link)
        shown = excerpt(self.redacted(words))  # in this order: an excerpt may cut a key in two
        return f"{type(link).__name__}: {shown}".removesuffix(": ")

    def _cause(self, links: list[BaseException]) -> BaseException | None:
        """The original exception, without its own causes; None if it adds nothing to the message
        of ours, or would show a secret."""
        link: Any = _innermost(links)
        adds_nothing = isinstance(link, (Incomplete, Undecodable))
        # Exceptions of requests hold the request, whose headers include the key.
        shown = f"{link} {link!r}"
        shows_key = hasattr(link, "request") or self.redacted(shown) != shown
        if adds_nothing or shows_key:
            return None
        link.__cause__ = link.__context__ = link.__traceback__ = None
        cause: BaseException = link
        return cause


# Foreign exceptions. `links` are the exceptions of one chain, the outermost first.

# Packages whose exceptions are translated.
_NETWORK_PACKAGES = frozenset(
    ("eventlet", "gevent", "http", "json", "requests", "socket", "ssl", "urllib", "urllib3")
)
# Exceptions that are raised if the server has closed or reset the connection.
_LOSSES = {
    "ConnectionResetError", "ConnectionAbortedError", "BrokenPipeError",
    "SSLEOFError", "SSLZeroReturnError",
}  # fmt: skip


def _is_of_network(error: BaseException) -> bool:
    """Whether the network packages raised `error`: judged by its classes or, if its class is a
    builtin, by the module that raised it."""
    if isinstance(error, (Incomplete, Undecodable)):
        return True
    modules = [kind.__module__ for kind in type(error).__mro__]
    if modules[0] == "builtins" and not isinstance(error, (RecursionError, MemoryError)):
        if isinstance(error, OSError):
            return True
        *_, frame = _frames_of(error)
        modules.append(frame.f_globals.get("__name__", ""))
    return isinstance(error, Exception) and any(map(_is_network, modules))


def _is_network(module: str) -> bool:
    return module.partition(".")[0] in _NETWORK_PACKAGES


def _chain(error: BaseException, handled: BaseException | None) -> list[BaseException]:
    """The error and all its causes, as `raise from`, or requests and urllib3, chain them.

    `handled` is left out: Python chains it too, but it happened before the call."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    for link in waiting:  # the list grows meanwhile
        if isinstance(link, BaseException) and not any(link is old for old in (handled, *found)):
            found.append(link)
            waiting += [*link.args, getattr(link, "reason", None), link.__cause__, link.__context__]
    return found


def _frames_of(error: BaseException) -> Iterator[FrameType]:
    """The frames of an exception's traceback, the innermost last."""
    return (frame for frame, _ in traceback.walk_tb(error.__traceback__))


def _clear_frames(links: list[BaseException]) -> None:
    """Clear the local variables in the frames of network code and of ours: some hold the key."""
    for frame in itertools.chain(*map(_frames_of, links)):
        module = frame.f_globals.get("__name__", "")
        if module in (__name__, Limits.__module__) or _is_network(module):
            try:
                frame.clear()
            except RuntimeError:
                pass  # a frame of ours that is still running


def _raised_by_user(error: BaseException) -> bool:
    """Whether a signal handler raised it, or a hook of the user's session."""
    modules = [frame.f_globals.get("__name__") for frame in _frames_of(error)]
    return "requests.hooks" in modules or raised_by_signal(error)


def raised_by_signal(error: BaseException) -> bool:
    """Whether a signal handler raised it, in whatever code it interrupted.

    A handler is recognised by its argument: the frame that it interrupted, and that called it.
    """
    for frame in _frames_of(error):
        values: list[Any] = list(frame.f_locals.values())
        for value in frame.f_locals.values():
            values += value if type(value) is tuple else ()  # `*args`
        if frame.f_back is not None and any(value is frame.f_back for value in values):
            return True
    return False


def _names_of(links: list[BaseException]) -> set[str]:
    """The names of their classes, which can't be imported while Python shuts down."""
    return {kind.__name__ for link in links for kind in type(link).__mro__}


def _is_timeout(links: list[BaseException]) -> bool:
    # A number means a limit of the operating system, ETIMEDOUT, not one of the client's.
    ours = [link for link in links if not (isinstance(link, OSError) and link.errno)]
    foreign = not {"Timeout", "ReadTimeoutError"}.isdisjoint(_names_of(ours))  # requests, urllib3
    return foreign or any(isinstance(link, TimeoutError) for link in ours)


def _innermost(links: list[BaseException]) -> BaseException:
    """The original exception: the first OSError with a number, else the last with a message."""
    by_system = (link for link in links if isinstance(link, OSError) and link.errno)
    # A TypeError only shows that urllib3 1.26 tried an argument of Python 2.
    by_message = (link for link in reversed(links) if str(link) and type(link) is not TypeError)
    return next(by_system, None) or next(by_message, links[0])
