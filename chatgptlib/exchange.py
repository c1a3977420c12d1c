"""One request and its answer.

    exchange = Exchange(connections, request, limits, ...)
    exchange.open()                # connect, send, and read the head of the answer
    exchange.read()                # or: for data in exchange.iter_bytes(): ...

An exchange has one state at a time (protocol.py). Only the thread whose move succeeds returns
the connection or closes it, so that happens once. Nothing is found through the current thread,
so green threads change nothing.

A session of the user's, or a mock, brings an answer of its own, read through the same states.
Exceptions of requests, urllib3, http.client and ssl are translated here, and nowhere else.
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
    Secrets,
    StreamInterruptedError,
    excerpt,
    is_passing,
    shown_url,
)
from .protocol import MOVES, Body, Incomplete, State, Undecodable

if TYPE_CHECKING:
    from types import FrameType

    import requests

_LOST_SECONDS = 1.0  # lost within this, a request was hardly worked on
_GRACE_SECONDS = 0.05  # for the end of a body whose last event has come
_ERROR_BODY_LIMIT = 1_000_000
# How the headers end in which servers name a request, the best one first.
_REQUEST_IDS = (
    "x-request-id", "request-id", "requestid", "trace-id", "logid", "trace-context", "cf-ray",
)  # fmt: skip


class Exchange:
    """One request and its answer: the status and headers after `open`, the body as it is read."""

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
        self.reused: bool = False  # its connection had served another exchange
        self.status_code: int = 0
        self.reason: str = ""
        self.headers: Mapping[str, str] = {}
        self.where: str = f"{request.method} {shown_url(request.url or '')}"
        self._connections = connections
        self._request = request
        self._limits = limits
        self._deadline = limits.deadline  # by the deadline
        self._secrets = secrets
        self._body_limit = body_limit
        self._lock = threading.RLock()  # a signal handler may close what its thread is reading
        self._channel: Connection | SessionResponse | None = None
        self._proxied = False
        self._pid = os.getpid()

    # Sending

    def open(self, *, fresh: bool = False) -> None:
        """Send the request, and read the head of the answer, whatever its status.

        `fresh`: not over a connection that has served before.
        Raises ConfigError for what can't be sent and HTTPError when no answer came.
        """
        connections, limits, request = self._connections, self._limits, self._request
        handled = sys.exc_info()[1]
        self._sent_at = time.monotonic()  # set again after sending
        try:
            route = connections.route_to(request)
            self._secrets |= route.secrets
            self._proxied = route.proxied
            if connections.needs_session(route):
                self._move("sent")
                ask = functools.partial(connections.send_by_session, request, limits)
                self._use(ask() if limits.deadline is None else with_deadline(limits, ask))
            else:
                self._send_over(route, fresh)
            return
        except BaseException as error:
            made = self._ended_by(error, HTTPError, handled)
            if made is error:
                raise
        raise made

    def _send_over(self, route: Route, fresh: bool) -> None:
        """Send the request over a connection of ours, and read the head of the answer."""
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
        """Read the response of a session or a mock from here on."""
        self._channel = channel = SessionResponse(response, self._limits)
        self.status_code, self.reason = response.status_code, str(response.reason or "")
        self.headers = response.headers
        self._body = Body(self.status_code, channel.headers, limit=self._body_limit)
        self._move("head")

    # Reading

    def read(self) -> bytes:
        """The whole body. Raises HTTPError if it breaks off."""
        return b"".join(self.iter_bytes(HTTPError))

    def iter_bytes(self, kind: type[HTTPError] = StreamInterruptedError) -> Iterator[bytes]:
        """The body, in the pieces in which it arrives, each as soon as it is there.

        Raises a `kind` if it breaks off, RequestTimeoutError if it stops.
        """
        # Not a generator, whose finalizer can swallow a Ctrl-C.
        return iter(functools.partial(self._receive, kind), b"")

    def read_error(self) -> bytes:
        """The body of an error: as much of it as came, up to a megabyte."""
        found, reason = bytearray(), ""
        try:
            for data in self.iter_bytes():
                found += data
                if len(found) > _ERROR_BODY_LIMIT:
                    break
        except OpenAIError as error:
            reason = str(error)  # a part of the body is still worth showing
        self.close()
        return bytes(found) or reason.encode("utf-8", "replace")

    def _receive(self, kind: type[HTTPError]) -> bytes:
        """The next bytes of the body; b"" at its end. Raises a `kind` if it breaks off."""
        if self.state == "done":
            return b""
        if not self._move("reading"):
            raise self._broken_off([], kind)
        handled = sys.exc_info()[1]
        try:
            return self._next()
        except BaseException as error:
            made = self._ended_by(error, kind, handled)
            if made is error:
                raise
        raise made

    def _next(self) -> bytes:
        # Not a part of `_receive`, whose variables an interruption keeps alive: a connection
        # that it found between two owners is closed at once.
        channel, body, data = self._channel, self._body, b""
        assert channel is not None
        while not data and not body.ended:
            data = body.feed(channel.receive())
        if not self._move("done" if body.ended else "body"):
            raise Incomplete("closed by another thread")
        if body.ended:
            self._channel = None
            channel.release(reusable=body.keep_alive and not body.trailing_data)
        return data

    def finish(self) -> None:
        """The last event has come. Take the end of the body too, if it is at hand, so that
        the connection serves again; else close it."""
        self.end_within(_GRACE_SECONDS)
        try:
            while self._channel is not None and self._channel.sock is not None:
                self._receive(HTTPError)
        except OpenAIError:
            pass  # no end at hand
        finally:
            self.close()

    def close(self) -> None:
        """Leave the answer. Returns at once, and may be called from any thread: one that
        waits for the body is woken."""
        if os.getpid() != self._pid:
            self._close_channel()  # a child's copy: the parent's goes on, and may have its lock
            return
        channel, before = self._channel, self._move("left")
        if before == "reading" and channel is not None:
            shut_down(channel.sock)  # the reader closes it when it is awake
        elif before:
            self._close_channel()

    def end_within(self, seconds: float | None) -> None:
        """Give the rest of the body so many seconds at most; None for what the deadline allows."""
        ends = [self._deadline, None if seconds is None else time.monotonic() + seconds]
        self._limits.deadline = min(filter(None, ends), default=None)

    def check_deadline(self) -> None:
        """Raise RequestTimeoutError if the deadline has passed."""
        if self._limits.expired:
            self._move("expired")
            self._close_channel()
            raise self._broken_off([], HTTPError)

    # States

    def _move(self, state: State) -> str:
        """Go to `state`. Returns the state before; "" where no such move is allowed."""
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

    def _ended_by(
        self, error: BaseException, kind: type[HTTPError], handled: BaseException | None
    ) -> BaseException:
        """End the exchange, which this thread was busy with. Returns what is to be raised: an
        error of ours, or what a user's hook, signal handler or job runner has raised."""
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
            made = self._no_answer(links, before, channel is None or not channel.received_any)
        else:
            made = self._broken_off(links, kind)
        made.__cause__ = self._cause(links)
        return made

    # Errors

    @property
    def request_id(self) -> str | None:
        """The server's name for this request, to quote to its support."""
        pairs = [(name.lower(), value) for name, value in self.headers.items() if value]
        found = (value for end in _REQUEST_IDS for name, value in pairs if name.endswith(end))
        told: str | None = self.redacted(next(found, None))
        return told

    @property
    def safe_headers(self) -> Mapping[str, str]:
        """The headers, for an error to carry: a server may repeat the key there too."""
        kind: Any = type(self.headers)  # which knows that their case does not matter
        redacted: Mapping[str, str] = kind(self.redacted(dict(self.headers)))
        return redacted

    def redacted(self, value: Any) -> Any:
        """Text, or JSON with texts in it, without the key, for the server that repeats it."""
        return self._secrets.redacted(value)

    def _no_answer(self, links: list[BaseException], before: str, untouched: bool) -> OpenAIError:
        """The error of ours for a request that got no answer; not a byte if `untouched`."""
        error = links[0]
        names = _names_of(links)
        lost = not _LOSSES.isdisjoint(names)
        where, reason = f"[{self.where}]", self._reason(links)
        connecting = before == "connecting" or "NewConnectionError" in names
        tunnel = re.search(r"Tunnel connection failed: (\d+)", reason)
        proxied = "ProxyError" in names or (before == "connecting" and self._proxied)
        if self.state == "expired":
            return RequestTimeoutError(f"the deadline ran out before an answer came {where}")
        if _is_timeout(links):
            connecting = connecting or "ConnectTimeout" in names
            limit = self._limits.connect if connecting else self._limits.read
            within = f"within {limit:g} s" if limit else "in time"  # an adapter's own limit
            text = f"no {'connection' if connecting else 'answer'} {within} {where}"
            return RequestTimeoutError(text, may_retry=connecting)
        # urllib3 1.26 has a class of its own for a wrong name in a certificate.
        if not names.isdisjoint({"SSLCertVerificationError", "CertificateError"}):
            return HTTPError(
                f"the server's certificate was not accepted: {reason} {where}. For a company's "
                "own CA set REQUESTS_CA_BUNDLE, or verify='/path/to/ca.pem'"
            )
        # A CA bundle that is not there is an OSError without a number.
        no_file = before == "connecting" and type(error) is OSError and not (error.errno or tunnel)
        if no_file or isinstance(error, (ValueError, TypeError)) or "InvalidSchema" in names:
            return ConfigError(f"cannot be sent: {reason} {where}")
        if proxied and (before == "connecting" or not lost):
            may_retry = not tunnel or is_passing(int(tunnel[1]))
            text = f"no connection through the proxy: {reason} {where}"
            return HTTPError(text, may_retry=may_retry)
        if connecting or ("SSLError" in names and not lost):
            return HTTPError(f"no connection: {reason} {where}", may_retry=connecting)
        if lost:
            quick = time.monotonic() - self._sent_at < _LOST_SECONDS
            text = f"the connection was lost before an answer came: {reason} {where}"
            return HTTPError(text, may_retry=quick and untouched)
        return HTTPError(f"no usable answer: {reason} {where}")

    def _broken_off(self, links: list[BaseException], kind: type[HTTPError]) -> OpenAIError:
        """The error of ours for an answer that did not come to its end: a `kind`, mostly.

        `links` is empty for one that is read after its end.
        """
        where, reason = f"[{self.where}]", f": {self._reason(links)}" if links else ""
        made: OpenAIError
        if self.state == "expired" or (self.state == "done" and not links):
            made = RequestTimeoutError(f"the deadline ran out while the answer came {where}")
        elif self.state == "left":
            made = kind(f"closed before the answer was complete {where}")
        elif _is_timeout(links):
            made = RequestTimeoutError(f"the server fell silent in its answer {where}")
        elif links and isinstance(links[0], Undecodable):
            made = DeserializeError(f"the answer could not be decompressed{reason} {where}")
        else:
            made = kind(f"the connection was lost in the middle of the answer{reason} {where}")
        made.headers, made.request_id = self.safe_headers, self.request_id
        return made

    def _reason(self, links: list[BaseException]) -> str:
        link = _innermost(links)
        words = link.strerror if isinstance(link, OSError) and link.strerror else str(link)
        shown = excerpt(self.redacted(words))  # in this order: an excerpt may cut a key
        return f"{type(link).__name__}: {shown}".removesuffix(": ")

    def _cause(self, links: list[BaseException]) -> BaseException | None:
        """What was behind it all, to be shown alone; None if it would show a secret."""
        link: Any = _innermost(links)
        known = isinstance(link, (Incomplete, Undecodable))  # our text says it all
        holds_key = hasattr(link, "request") or self._secrets.found_in(f"{link} {link!r}")
        if known or holds_key:
            return None
        link.__cause__ = link.__context__ = link.__traceback__ = None
        cause: BaseException = link
        return cause


# Exceptions of others

# Packages whose exceptions are translated.
_NETWORK_PACKAGES = frozenset(
    ("eventlet", "gevent", "http", "json", "requests", "socket", "ssl", "urllib", "urllib3")
)
# Classes of exceptions that mean that the server closed or reset the connection.
_LOSSES = {
    "ConnectionResetError", "ConnectionAbortedError", "BrokenPipeError",
    "SSLEOFError", "SSLZeroReturnError",
}  # fmt: skip


def _is_of_network(error: BaseException) -> bool:
    """Whether what this module stands on raised `error`: by the classes that it is of, or, for
    one of Python's own, by the place."""
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
    """The error and its causes, however `requests` wrapped them. What the caller was
    handling when it called is not one of them, although Python chains it as well."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    for link in waiting:  # which grows
        if isinstance(link, BaseException) and not any(
            link is other for other in (handled, *found)
        ):
            found.append(link)
            waiting += [*link.args, getattr(link, "reason", None), link.__cause__, link.__context__]
    return found


def _frames_of(error: BaseException) -> Iterator[FrameType]:
    """The frames that an exception came through, the innermost last."""
    return (frame for frame, _ in traceback.walk_tb(error.__traceback__))


def _clear_frames(links: list[BaseException]) -> None:
    """Clear the local variables of network code and of this module: some hold the key."""
    for frame in itertools.chain(*map(_frames_of, links)):
        module = frame.f_globals.get("__name__", "")
        if module in (__name__, Limits.__module__) or _is_network(module):
            try:
                frame.clear()
            except RuntimeError:
                pass  # it is running: one of ours, further up


def _raised_by_user(error: BaseException) -> bool:
    """A signal handler raised it, or a hook of the user's session."""
    modules = [frame.f_globals.get("__name__") for frame in _frames_of(error)]
    return "requests.hooks" in modules or raised_by_signal(error)


def raised_by_signal(error: BaseException) -> bool:
    """Whether a signal handler raised it, into whatever was running then.

    Only a signal handler is passed its caller's frame.
    """
    for frame in _frames_of(error):
        given: list[Any] = list(frame.f_locals.values())
        for value in frame.f_locals.values():
            given += value if type(value) is tuple else ()  # of `*args`
        if frame.f_back is not None and any(value is frame.f_back for value in given):
            return True
    return False


def _names_of(links: list[BaseException]) -> set[str]:
    """The names of their classes: while Python ends, these can't be imported any more."""
    return {kind.__name__ for link in links for kind in type(link).__mro__}


def _is_timeout(links: list[BaseException]) -> bool:
    # ETIMEDOUT is the system's own limit, not one of ours.
    ours = [x for x in links if not (isinstance(x, OSError) and x.errno)]
    told = not {"Timeout", "ReadTimeoutError"}.isdisjoint(_names_of(ours))  # of requests, urllib3
    return told or any(isinstance(link, TimeoutError) for link in ours)


def _innermost(links: list[BaseException]) -> BaseException:
    """The original exception: the first OSError with a number, else the deepest with a text."""
    by_system = (link for link in links if isinstance(link, OSError) and link.errno)
    # A TypeError is urllib3 1.26 finding out how old Python is.
    told = (link for link in reversed(links) if str(link) and type(link) is not TypeError)
    return next(by_system, None) or next(told, links[0])
