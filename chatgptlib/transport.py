"""One request out, one answer in; with what it stands on, the only part that knows `requests`.

    template = transport.prepare("POST", url, headers)       # once
    answer = transport.send(template, body, headers, ...)    # every time
    answer.read()  or  for data in answer.pieces(): ...

`requests` is imported when the first request is made, since importing it takes longer
than the rest of a short script.

A session of the user's own is used as `requests` documents it. Without one, requests
go straight to an `HTTPAdapter`, which spares each of them the work that gives the same
result every time: merging settings, looking at the environment, cookies, redirects.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .connection import READ_SIZE, Line, at_work, watched
from .errors import (
    ConfigError,
    HTTPError,
    JSONValue,
    OpenAIError,
    StreamInterruptedError,
    redacted,
    shown_url,
)

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter

_IDLE_SECONDS = 30.0  # after which servers and routers may have forgotten a connection
_LOST_SECONDS = 1.0  # lost within this, a request was hardly worked on
_GRACE_SECONDS = 0.05  # for the end of a body whose last event has come
_ERROR_BODY_LIMIT = 1_000_000

# What `requests` looks at for proxies and CA bundles.
_ENVIRONMENT = (
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)


class Transport:
    """The connections of a client and of those made from it; for any number of threads."""

    def __init__(
        self,
        session: requests.Session | None,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None,
    ) -> None:
        self._session = session
        self._verify = verify
        self._proxies = dict(proxies or {})
        # By process, so that a fork never shares a socket. A pool is replaced rather
        # than emptied: requests under way in other threads keep theirs to their end.
        self._pools: dict[int, _Pool] = {}

    def prepare(self, method: str, url: str, headers: Mapping[str, str]) -> Any:
        """The part of a request that is the same every time."""
        import requests

        _check_versions()
        try:
            return requests.Request(method, url, headers=dict(headers)).prepare()
        except Exception:
            pass  # its text would show the query, where a key may be
        raise ConfigError(f"not a usable URL: {shown_url(url)!r}")

    def send(
        self,
        template: requests.PreparedRequest,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        timeout: Any,
        seconds_left: float | None,
        secrets: tuple[str, ...],
    ) -> Answer:
        """Send one request and return the answer, its body unread, whatever its status.

        Raises ConfigError for what can't be sent and HTTPError when no answer came. A
        kept-alive connection that turns out to be dead is replaced without a word.
        """
        line = Line()
        if seconds_left is not None:
            line.start_deadline(seconds_left)
            timeout = _at_most(timeout[0], seconds_left), _at_most(timeout[1], seconds_left)
        request = template.copy()
        request.body = body
        request.headers.update(headers)
        if body is not None:
            request.headers["Content-Length"] = str(len(body))
        else:
            request.headers.pop("Content-Type", None)
        while True:
            try:
                if self._session is not None:
                    line.sent_at = time.monotonic()  # or a little later
                    response = self._send_through_session(self._session, request, timeout)
                else:
                    pool = self._pool()
                    at_work.line = line
                    response = pool.adapter.send(
                        request, stream=True, timeout=timeout, **pool.settings(request)
                    )
                answer = Answer(response, line, self, secrets)
                if not line.late:
                    return answer
                answer.close()  # its head may be no more than what came until the deadline
                raise TimeoutError
            except Exception as error:
                failure = error
            except BaseException:  # Ctrl-C while waiting
                line.cut()
                line.end()
                raise
            from .failures import is_lost, no_answer, safe_cause

            quick = line.sent_at is None or time.monotonic() - line.sent_at < _LOST_SECONDS
            if not (line.reused and quick and not line.expired and is_lost(failure)):
                break
            self._pools.pop(os.getpid(), None)  # its other connections are as old
            line.reused, line.sock, line.sent_at, line.chunks = False, None, None, None
        line.end()
        # Raised here, not where it was caught: there Python would chain the original
        # to it as well, whose text may hold what ours must not.
        raise no_answer(failure, request, line, timeout, quick, secrets) from safe_cause(
            failure, secrets
        )

    def close(self) -> None:
        """Close the connections that are idle; those in use close at the end of their use."""
        for pid, pool in list(self._pools.items()):
            if pid == os.getpid():
                pool.adapter.close()
        self._pools.clear()

    def used(self) -> None:
        """A connection has just been used to its end."""
        if pool := self._pools.get(os.getpid()):
            pool.used_at = time.monotonic()

    def _pool(self) -> _Pool:
        pid, now = os.getpid(), time.monotonic()
        pool = self._pools.get(pid)
        if pool is not None and now - pool.used_at > _IDLE_SECONDS:
            self._pools.pop(pid, None)
            pool = None
        if pool is None:
            # Of several threads that come here at once, one's pool is everybody's.
            pool = self._pools.setdefault(pid, _Pool(self._verify, self._proxies))
        pool.used_at = now
        return pool

    def _send_through_session(
        self, session: requests.Session, request: requests.PreparedRequest, timeout: Any
    ) -> requests.Response:
        from requests.utils import default_user_agent

        headers = dict(request.headers)
        headers.pop("Content-Length", None)
        headers.pop("Accept-Encoding", None)  # the session's own
        if session.headers.get("User-Agent") not in (None, default_user_agent()):
            headers.pop("User-Agent", None)
        verify = self._verify
        if verify is None and session.verify is not True:
            verify = session.verify  # else a CA bundle of the environment would win
        return session.request(
            request.method or "GET",
            request.url or "",
            data=request.body,
            headers=headers,
            auth=session.auth or _leave_alone,  # without one, ~/.netrc would be asked
            timeout=timeout,
            allow_redirects=False,
            proxies=self._proxies,
            verify=verify,
            stream=True,
        )


def _leave_alone(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An `auth` for `requests` that changes nothing."""
    return request


@functools.cache
def _check_versions() -> None:
    """Refuse what is too old, since a copy in one file has no setup.cfg to do so."""
    import requests
    import urllib3
    from requests.adapters import HTTPAdapter

    if not (
        hasattr(HTTPAdapter, "get_connection_with_tls_context")
        and hasattr(urllib3.HTTPResponse, "read1")
    ):
        raise ConfigError(
            f"requests {vars(requests)['__version__']} and urllib3 {vars(urllib3)['__version__']} "
            "are too old together: needed are requests 2.32.2 and urllib3 2.2, or newer"
        )


@functools.cache
def _adapter_class() -> type[HTTPAdapter]:
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        """An `HTTPAdapter` that remembers the way to a URL, and reads no cookies.

        To find the way anew, and to make a whole `requests.Response`, takes a fifth of
        the time of a call.
        """

        def __init__(self) -> None:
            super().__init__(pool_connections=1000)  # hosts
            self._found: dict[tuple[Any, ...], Any] = {}

        def get_connection_with_tls_context(
            self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
        ) -> Any:
            key = (request.url, verify, *proxies.items())
            pool = self._found.get(key)
            if pool is None:
                pool = super().get_connection_with_tls_context(request, verify, proxies)
                self._keep(key, _as_we_need_it(pool))
            return pool

        def request_url(self, request: Any, proxies: Any) -> str:
            key = ("what to ask for", request.url, *proxies.items())
            target: str | None = self._found.get(key)
            if target is None:
                target = super().request_url(request, proxies)
                self._keep(key, target)
            return target

        def _keep(self, key: tuple[Any, ...], found: Any) -> None:
            if len(self._found) > 100:  # URLs with ids in them
                self._found.clear()
            self._found[key] = found

        def build_response(self, req: Any, resp: Any) -> Any:
            return _Reply(req, resp)

    return Adapter


def _as_we_need_it(pool: Any) -> Any:
    """A pool of urllib3's, whose connections can be cut, and are never thrown away."""
    pool.pool.maxsize = 0  # no limit; a large one it would take a millisecond to get ready for
    if not getattr(pool.ConnectionCls, "is_watched", False):
        pool.ConnectionCls = watched(pool.ConnectionCls)
    return pool


class _Reply:
    """As much of a `requests.Response` as an `Answer` needs."""

    def __init__(self, request: requests.PreparedRequest, raw: Any) -> None:
        self.request = request
        self.raw = raw
        self.status_code: int = raw.status
        self.reason: str | None = raw.reason
        self.headers: Any = raw.headers

    @property
    def content(self) -> bytes:
        body: bytes = self.raw.read(decode_content=True)
        return body

    def close(self) -> None:
        self.raw.close()
        self.raw.release_conn()


class _Pool:
    """An adapter and its connections, with what the environment says about the way out."""

    def __init__(self, verify: bool | str | None, proxies: dict[str, str]) -> None:
        self.adapter = _adapter_class()()
        self.used_at = time.monotonic()
        self._verify = verify
        self._proxies = proxies
        self._settings: dict[tuple[str | None, ...], dict[str, Any]] = {}

    def settings(self, request: requests.PreparedRequest) -> dict[str, Any]:
        """`verify` and `proxies` for this request, as a session would find them.

        Looked up anew only when the host or the environment is another.
        """
        host = request.url.split("/", 3)[2] if request.url else ""
        there = [name for name in _ENVIRONMENT if name in os.environ]
        key = (host, *there, *map(os.environ.get, there))
        found = self._settings.get(key)
        if found is None:
            found = self._settings[key] = self._look_up(request)
        return found

    def _look_up(self, request: requests.PreparedRequest) -> dict[str, Any]:
        import requests

        with requests.Session() as session:
            merged = session.merge_environment_settings(
                request.url or "", dict(self._proxies), True, self._verify, None
            )
        return {"verify": merged["verify"], "proxies": merged["proxies"]}


class Answer:
    """The server's answer to one request: status and headers now, the body when read.

    Its connection serves the next request once the body has been read to its end, and
    is closed if the body is left before that.
    """

    _released = True  # until there is something to release
    finished: bool = False  # the last event of a stream has come

    def __init__(
        self,
        response: requests.Response | _Reply,
        line: Line,
        transport: Transport,
        secrets: tuple[str, ...],
    ) -> None:
        self.status_code: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.where: str = f"{response.request.method} {shown_url(response.request.url or '')}"
        self._response = response
        self._line = line
        self._transport = transport
        self._secrets = secrets
        self._source: Iterator[bytes] | None = None
        self._reading = False
        self.closed: bool = False
        self.left: bool = False  # closed from outside, before its end
        self._release_lock = threading.Lock()
        if line.sock is None:  # a session's: what urllib3 tells of it
            line.sock = getattr(getattr(response.raw, "connection", None), "sock", None)
        self._released = False

    @property
    def request_id(self) -> str | None:
        """The server's name for this request, to quote to its support."""
        told: str | None = self.redacted(self.headers.get("x-request-id"))
        return told

    @property
    def reason(self) -> str:
        """The words beside the status code."""
        return str(self._response.reason or "")

    def read(self) -> bytes:
        """The whole body. Raises HTTPError if it breaks off."""
        try:
            body = self._response.content
        except Exception as error:
            failure = error
        else:
            if not self._line.expired:
                self._end()
                return body
            failure = TimeoutError()
        self._close()
        raise self._broken(failure, HTTPError) from self.safe_cause(failure)

    def read_error(self) -> str:
        """The body of a refusal, as text: as much of it as came, up to a megabyte."""
        found = bytearray()
        try:
            for data in self.pieces():
                found += data
                if len(found) > _ERROR_BODY_LIMIT:
                    break
        except OpenAIError:
            pass  # half of an explanation is better than none
        self._close()
        return redacted(found.decode("utf-8-sig", "replace"), self._secrets)

    @property
    def safe_headers(self) -> Mapping[str, str]:
        """The headers, for an error to carry: a server may repeat the key there too."""
        if not any(secret in value for value in self.headers.values() for secret in self._secrets):
            return self.headers
        headers = self._response.headers.copy()
        for name, value in headers.items():
            headers[name] = self.redacted(value)
        return headers

    def safe_cause(self, error: Exception) -> BaseException | None:
        """`error` to be chained as a cause; None if it would show the key."""
        from .failures import safe_cause

        return safe_cause(error, self._secrets)

    def redacted(self, value: JSONValue) -> Any:
        """Text, or JSON with texts in it, without the key, for the server that repeats it."""
        if isinstance(value, str):
            return redacted(value, self._secrets)
        if isinstance(value, list):
            return [self.redacted(item) for item in value]
        if isinstance(value, dict):
            return {self.redacted(key): self.redacted(item) for key, item in value.items()}
        return value

    def pieces(self) -> Iterator[bytes]:
        """The body, in the pieces in which it arrives, each as soon as it is there.

        Raises StreamInterruptedError if it breaks off, RequestTimeoutError if it stops.
        """
        if self._source is None:
            self._source = _arriving(self._response, self._line)
        failure: Exception | None = None
        self._reading = True
        try:
            for data in self._source:
                self._reading = False
                yield data
                self._reading = True
                if self.closed:
                    break
        except Exception as error:
            failure = error
        finally:
            self._reading = False
        if failure is None and not self.closed and not self._line.expired:
            self._end()
            return
        self._close()
        raise self._broken(failure, StreamInterruptedError) from (
            self.safe_cause(failure) if failure else None
        )

    def finish(self) -> None:
        """The last event has come. Take the end of the body too, if it is at hand, so
        that the connection serves again; else close it."""
        self.finished = True
        sock = self._line.sock
        if self._source is not None and sock is not None and not self._line.over:
            # The limit set on the socket is for each read, and a line may take many.
            timer = threading.Timer(2 * _GRACE_SECONDS, self._line.cut)
            timer.daemon = True
            timer.start()
            stop = time.monotonic() + _GRACE_SECONDS
            try:
                before = sock.gettimeout()
                sock.settimeout(_GRACE_SECONDS)
                at_end = False
                while not at_end and time.monotonic() < stop:
                    at_end = not next(self._source, b"")
                # At the end urllib3 may have handed the connection on: not ours any more.
                if getattr(self._response.raw, "connection", None) is not None:
                    sock.settimeout(before)
                if at_end:
                    self._end()
            except Exception:
                pass  # no end at hand
            finally:
                timer.cancel()
        self._close()

    def close(self) -> None:
        """Leave the answer. Returns at once, and may be called from any thread: one that
        waits for the body is woken."""
        self.left = self.left or not self.closed
        self._close()

    def _close(self) -> None:
        self.closed = True
        if not self._line.over:
            if self._line.sock is not None:
                self._line.cut()
            elif shutdown := getattr(self._response.raw, "shutdown", None):
                try:
                    shutdown()
                except Exception:
                    pass  # there is nothing to shut down
        if not self._reading:  # else that thread does it, as soon as it is awake
            self._release()

    def __del__(self) -> None:
        if not self._released:
            self._released = True
            try:
                # Not `_close()`: the collector may run anywhere, and handing a connection
                # back to its pool takes a lock that this thread may be holding.
                self._line.cut()
                self._line.end()
                self._response.raw.close()
            except Exception:
                pass  # a mock's

    def _end(self) -> None:
        """The body is over; its connection is free for others."""
        self._line.end()
        if release := getattr(self._response.raw, "release_conn", None):
            release()
        self._transport.used()

    def _release(self) -> None:
        with self._release_lock:
            if self._released:
                return
            self._released = True
        self._line.end()
        try:
            self._response.close()
        except Exception:
            pass  # closing what is broken

    def _broken(self, error: Exception | None, kind: type[HTTPError]) -> OpenAIError:
        """The error for a body that did not come to its end."""
        from .failures import broken_off

        late = self._line.late and not self.left
        made = broken_off(error, kind, self.where, late=late, left=self.left, secrets=self._secrets)
        made.headers, made.request_id = self.safe_headers, self.request_id
        return made


def _arriving(response: requests.Response | _Reply, line: Line) -> Iterator[bytes]:
    """The body of a response as it arrives, decompressed, never waiting for more of it.

    `iter_content` would wait for a piece to be full where the body is not chunked, and
    for the end of each chunk, however slowly it comes, where it is.
    """
    from urllib3.response import HTTPResponse

    raw, headers = response.raw, response.headers
    if getattr(response, "_content", False) is not False:  # a hook of the session's has read it
        return iter([response.content])
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    if chunked and line.chunks is not None and "content-encoding" not in headers:
        return line.chunks()
    pieces: Iterator[bytes]
    if isinstance(response, _Reply) or isinstance(raw, HTTPResponse):
        pieces = iter(lambda: raw.read1(READ_SIZE, decode_content=True) or b"", b"")
    else:  # what an adapter of the user's made up
        pieces = response.iter_content(1)
    return _released_with_its_last(pieces, raw, line)


def _released_with_its_last(pieces: Iterator[bytes], raw: Any, line: Line) -> Iterator[bytes]:
    """The pieces; urllib3 gives the connection back with the last, and it is ours no more."""
    for data in pieces:
        if getattr(raw, "connection", raw) is None:
            line.end()
        yield data


def _at_most(limit: float | None, seconds: float) -> float:
    return seconds if limit is None else min(limit, seconds)
