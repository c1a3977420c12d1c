"""One request out, one answer in. The only module that knows `requests`.

    template = transport.prepare("POST", url, headers)       # once
    answer = transport.send(template, body, headers, ...)    # every time
    answer.read()  or  for data in answer.pieces(): ...

`requests` is imported when the first request is made, since importing it takes longer
than the rest of a short script. All its exceptions, and those of what lies under it,
are turned into ours here and nowhere else.

A session of the user's own is used as `requests` documents it. Without one, requests
go straight to an `HTTPAdapter`, which spares each of them the work that gives the same
result every time: merging settings, looking at the environment, cookies, redirects.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .errors import (
    ConfigError,
    DeserializeError,
    HTTPError,
    OpenAIError,
    RequestTimeoutError,
    StreamInterruptedError,
    excerpt,
)

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter

_IDLE_SECONDS = 30.0  # after which servers and routers may have forgotten a connection
_LOST_SECONDS = 1.0  # lost within this, a request was hardly worked on
_GRACE_SECONDS = 0.05  # for the end of a body whose last event has come
_READ_SIZE = 65536
_LINE_LIMIT = 65536  # bytes, of the lines between the chunks of a body
_ERROR_BODY_LIMIT = 1_000_000

# What `requests` looks at for proxies and CA bundles.
_ENVIRONMENT = (
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)


class Line:
    """The connection that one request uses, and what ended it.

    It lets others cut the connection while a thread waits for the server: a deadline,
    or `close()` in another thread.
    """

    def __init__(self) -> None:
        self.sock: Any = None  # None where it is not ours to know: mocks, a user's session
        self.watched = False  # its connection tells us of its socket
        self.reused = False  # it had served a request before
        self.sent_at: float | None = None
        self.chunks: Callable[[], Iterator[bytes]] | None = None  # reads a chunked body
        self.expired = False  # cut by the deadline
        self.over = False  # nothing is left to cut
        self._timer: threading.Timer | None = None
        self._due = math.inf
        self._pid = os.getpid()  # a child's copy of a socket is not the child's to shut down

    @property
    def connecting(self) -> bool:
        """A connection of ours was not made yet."""
        return self.watched and self.sock is None

    def start_deadline(self, seconds: float) -> None:
        """Cut the connection `seconds` from now, unless `end()` comes first."""
        self._due = time.monotonic() + seconds
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True
        self._timer.start()

    @property
    def late(self) -> bool:
        """The deadline has passed, whether it or another limit noticed first."""
        return self.expired or time.monotonic() >= self._due

    def use(self, sock: Any) -> None:
        """From now on it is this socket."""
        self.sock = sock
        if self.expired:
            self.cut()

    def cut(self) -> None:
        """Wake whoever reads from the connection, now."""
        if self.sock is None or self.over or os.getpid() != self._pid:
            return
        try:
            import socket  # fails while Python shuts down

            # Not `self.sock.shutdown`: on TLS that changes the object under its reader.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except (OSError, TypeError, ImportError):
            pass  # it is gone already

    def end(self) -> None:
        """The connection is another's from here on; leave it alone."""
        self.over = True
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        if not self.over:
            self.expired = True
            self.cut()


_at_work = threading.local()  # .line: that of the request this thread is sending


@functools.cache
def _watched(connection_class: type[Any]) -> type[Any]:
    """A connection of `urllib3` that shows its socket to the line of its request."""
    import http.client

    class WatchedResponse(http.client.HTTPResponse):
        def _read_status(self) -> tuple[str, int, str]:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            # 102 and 103 are like 100: the answer is still to come.
            return version, (100 if 101 < status < 200 else status), reason

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            line: Line = _at_work.line
            line.chunks = self.chunks

        def chunks(self) -> Iterator[bytes]:
            """The body of a chunked answer, whatever of it has come as soon as it has.

            `read1` of this class and of urllib3 do the same at several times the cost, and
            urllib3's `stream` waits for the whole of a chunk and its line end.
            """
            yield from _dechunked(self.fp.read1)
            self.close()  # this answer; the connection is free

    class WatchedConnection(connection_class):  # type: ignore[misc]
        is_watched = True
        line: Line | None = None  # of the request it serves, or served last
        response_class = WatchedResponse

        def connect(self) -> None:
            line: Line = _at_work.line
            line.watched = True
            super().connect()
            line.reused = False
            line.use(self.sock)

        def request(self, *args: Any, **kwargs: Any) -> None:
            line: Line = _at_work.line
            line.watched = True
            if before := self.line:
                before.end()  # the last answer's; it may not cut this one's connection
            self.line = line
            if self.sock is not None and line.sock is None:
                line.reused = True
                line.use(self.sock)
            super().request(*args, **kwargs)
            line.sent_at = time.monotonic()

    return WatchedConnection


def _dechunked(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The data in a chunked body, joined where one read brings several chunks.

    Raises IncompleteRead where the body breaks off, or is no such body.
    https://www.rfc-editor.org/rfc/rfc9112.html#name-chunked-transfer-coding
    """
    from http.client import IncompleteRead

    rest = b""  # came with the last read, and is the beginning of what follows
    before = b""  # stands before the size of a chunk: the line end of the last one
    left = 0  # bytes of this chunk that have not come
    size = 1
    while size > 0:
        data = rest + read(_READ_SIZE)
        if len(data) == len(rest) or len(rest) > _LINE_LIMIT:
            raise IncompleteRead(b"")
        rest, at = b"", 0
        found: list[bytes] = []
        while True:
            if left:
                piece = data[at : at + left]
                found.append(piece)
                at += len(piece)
                left -= len(piece)
                if left:
                    break
                before = b"\r\n"
            end = data.find(b"\n", at + len(before))
            if end < 0:
                rest = data[at:]
                break
            try:  # `int` passes over the line ends
                size = int(data[at:end], 16) if data.startswith(before, at) else -1
            except ValueError:
                size = _size_before_semicolon(data[at:end])
            at = end + 1
            if size <= 0:
                rest = data[at:]
                break
            left = size
        if any(found):
            yield b"".join(found)  # a single one is not copied
    # There may be trailers after the last chunk, but at last an empty line.
    while size == 0 and not re.match(rb"(?s)(?:.*\n)?\r?\n", rest):
        data = read(_READ_SIZE)
        size = 0 if data and len(rest) <= _LINE_LIMIT else -1
        rest += data
    if size < 0:
        raise IncompleteRead(b"")


def _size_before_semicolon(line: bytes) -> int:
    """The size of a chunk whose line says more than that; -1 if it says something else."""
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        return -1


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
                    _at_work.line = line
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
                line.end()
                raise
            quick = line.sent_at is None or time.monotonic() - line.sent_at < _LOST_SECONDS
            if not (line.reused and quick and not line.expired and _is_lost(failure)):
                break
            self._pools.pop(os.getpid(), None)  # its other connections are as old
            line.reused, line.sock, line.sent_at, line.chunks = False, None, None, None
        line.end()
        # Raised here, not where it was caught: there Python would chain the original
        # to it as well, whose text may hold what ours must not.
        raise _translated(failure, request, line, timeout, quick, secrets) from _safe(
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

        def get_connection(self, url: Any, proxies: Any = None) -> Any:  # before requests 2.32
            return _as_we_need_it(super().get_connection(url, proxies))

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
        pool.ConnectionCls = _watched(pool.ConnectionCls)
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
        self._settings: dict[tuple[str, ...], dict[str, Any]] = {}

    def settings(self, request: requests.PreparedRequest) -> dict[str, Any]:
        """`verify` and `proxies` for this request, as a session would find them.

        Looked up anew only when the host or the environment is another.
        """
        host = request.url.split("/", 3)[2] if request.url else ""
        there = [name for name in _ENVIRONMENT if name in os.environ]
        key = (host, *there, *map(os.environ.get, there)) if there else (host,)
        found = self._settings.get(key)  # type: ignore[arg-type]
        if found is None:
            found = self._settings[key] = self._look_up(request)  # type: ignore[index]
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
    finished = False  # the last event of a stream has come

    def __init__(
        self,
        response: requests.Response | _Reply,
        line: Line,
        transport: Transport,
        secrets: tuple[str, ...],
    ) -> None:
        self.status_code = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.where = f"{response.request.method} {shown_url(response.request.url or '')}"
        self._response = response
        self._line = line
        self._transport = transport
        self._secrets = secrets
        self._source: Iterator[bytes] | None = None
        self._reading = False
        self.closed = False
        self.left = False  # closed from outside, before its end
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
        raise self._broken(failure, HTTPError) from _safe(failure, self._secrets)

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
        return _redacted(found.decode("utf-8-sig", "replace"), self._secrets)

    @property
    def told_headers(self) -> Mapping[str, str]:
        """The headers, for an error to carry: a server may repeat the key there too."""
        if not any(secret in value for value in self.headers.values() for secret in self._secrets):
            return self.headers
        headers = self._response.headers.copy()
        for name, value in headers.items():
            headers[name] = self.redacted(value)
        return headers

    def safe_cause(self, error: Exception) -> BaseException | None:
        """`error` to be chained as a cause; None if it would show the key."""
        return _safe(error, self._secrets)

    def redacted(self, value: Any) -> Any:
        """Text, or JSON with texts in it, without the key, for the server that repeats it."""
        if isinstance(value, str):
            return _redacted(value, self._secrets)
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
            _safe(failure, self._secrets) if failure else None
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
        from requests.exceptions import ContentDecodingError
        from urllib3.exceptions import DecodeError

        made: OpenAIError
        if self._line.late and not self.left:
            made = RequestTimeoutError(f"the deadline ran out while the answer came [{self.where}]")
        elif self.left:
            made = kind(f"closed before the answer was complete [{self.where}]")
        elif error is not None and _is_timeout(error):
            made = RequestTimeoutError(f"the server fell silent in its answer [{self.where}]")
        elif isinstance(error, (ContentDecodingError, DecodeError)):
            made = DeserializeError(f"the answer could not be decompressed [{self.where}]")
        else:
            made = kind(
                f"the connection was lost in the middle of the answer: "
                f"{_redacted(_innermost(error), self._secrets)} [{self.where}]"
            )
        made.headers, made.request_id = self.told_headers, self.request_id
        return made


def _arriving(response: requests.Response | _Reply, line: Line) -> Iterator[bytes]:
    """The body of a response as it arrives, decompressed, never waiting for more of it.

    `iter_content` would wait for a piece to be full where the body is not chunked, and
    for the end of each chunk, however slowly it comes, where it is.
    """
    from requests import Response
    from urllib3.response import HTTPResponse

    raw, headers = response.raw, response.headers
    if getattr(response, "_content", False) is not False:  # a hook of the session's has read it
        return iter([response.content])
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    if chunked and line.chunks is not None and "content-encoding" not in headers:
        return line.chunks()
    if isinstance(raw, HTTPResponse) and hasattr(raw, "read1"):
        return _released_with_its_last(
            iter(lambda: raw.read1(_READ_SIZE, decode_content=True) or b"", b""), raw, line
        )
    pieces: Any = response.iter_content(1) if isinstance(response, Response) else raw.stream(1)
    return _released_with_its_last(pieces, raw, line)


def _released_with_its_last(pieces: Iterator[bytes], raw: Any, line: Line) -> Iterator[bytes]:
    """The pieces; urllib3 gives the connection back with the last, and it is ours no more."""
    for data in pieces:
        if getattr(raw, "connection", raw) is None:
            line.end()
        yield data


# Files to upload


def form_of(members: Mapping[str, Any], files: Mapping[str, Any]) -> tuple[bytes, str]:
    """The body of a form with these JSON values and files in it, and its Content-Type.

    Made whole, in memory, so that a retry sends the same bytes.
    """
    from urllib3.filepost import encode_multipart_formdata

    if not isinstance(files, Mapping):
        raise ConfigError(f"files must map names to files, not {type(files).__name__}")
    fields = [*_numbered(members, _field_text), *_numbered(files, _upload_part)]
    try:
        return encode_multipart_formdata(fields)
    except UnicodeEncodeError as error:
        raise ConfigError(f"cannot be sent in a form: {error}") from error


def _numbered(
    values: Mapping[str, Any], made: Callable[[str, Any], Any]
) -> Iterator[tuple[str, Any]]:
    """The fields of a form; those of a list have one name, as the API wants it: `name[]`."""
    for name, value in values.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"not the name of a form's field: {name!r}")
        if isinstance(value, list):
            many = name if name.endswith("[]") else f"{name}[]"
            yield from ((many, made(name, item)) for item in value if item is not None)
        elif value is not None:
            yield name, made(name, value)


def _field_text(name: str, value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _upload_part(name: str, given: Any) -> tuple[str, bytes] | tuple[str, bytes, str]:
    """The file name, content and media type of what a user gave as a file."""
    filename: Any = None
    media: list[Any] = []
    if isinstance(given, tuple):
        if len(given) not in (2, 3) or isinstance(given[1], str):
            raise ConfigError(
                f"files[{name!r}]: a tuple is (file name, bytes or open file[, media type])"
            )
        filename, given, *media = given
    found, content = _upload_read(name, given)
    filename = filename or found or name
    if not isinstance(filename, str):
        raise ConfigError(f"files[{name!r}]: a file name is text, not {type(filename).__name__}")
    if media and media[0] is not None:
        if not isinstance(media[0], str) or not re.fullmatch("[!-~]+/[ -~]+", media[0]):
            raise ConfigError(f"files[{name!r}]: not a media type: {media[0]!r}")
        return filename, content, media[0]
    return filename, content  # its media type is that of the file name


def _upload_read(name: str, given: Any) -> tuple[str | None, bytes]:
    """The name of a file, if it has one, and its content."""
    if isinstance(given, (bytes, bytearray, memoryview)):
        return None, bytes(given)
    is_path = isinstance(given, (str, os.PathLike))
    path = os.fspath(given) if is_path else getattr(given, "name", None)
    try:
        if is_path:
            with open(given, "rb") as file:
                content = file.read()
        elif hasattr(given, "read"):
            content = given.read()
        else:
            content = given
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"files[{name!r}]: {path!r} can't be read: {reason}") from error
    if not isinstance(content, bytes):
        raise ConfigError(
            f"files[{name!r}]: a file is a path, bytes, or a file open in binary mode, "
            f"not {type(given).__name__}"
        )
    return os.path.basename(os.fsdecode(path)) if isinstance(path, (str, bytes)) else None, content


# From their exceptions to ours


def shown_url(url: str) -> str:
    """`url` as messages show it: without its query, which may hold a key."""
    return url.partition("?")[0]


def _translated(
    error: Exception,
    request: requests.PreparedRequest,
    line: Line,
    timeout: Any,
    quick: bool,
    secrets: tuple[str, ...],
) -> OpenAIError:
    """The error of ours for a request that got no answer."""
    import ssl

    from requests import exceptions as theirs

    where = f"[{request.method} {shown_url(request.url or '')}]"
    reason = _redacted(_innermost(error), secrets)
    links = list(_chain(error))
    made: HTTPError
    if line.late:
        return RequestTimeoutError(f"the deadline ran out before an answer came {where}")
    if isinstance(error, (theirs.InvalidURL, theirs.InvalidSchema, UnicodeError)):
        return ConfigError(f"cannot be sent: {reason} {where}")
    if isinstance(error, OSError) and not isinstance(
        error, (theirs.RequestException, TimeoutError)
    ):
        return ConfigError(f"cannot be sent: {reason} {where}")  # no such CA bundle
    if _is_timeout(error):
        if isinstance(error, theirs.ConnectTimeout) or line.connecting:
            made = RequestTimeoutError(f"no connection within {timeout[0]:g} s {where}")
            made.may_retry = True
        else:
            made = RequestTimeoutError(f"no answer within {timeout[1]:g} s {where}")
    elif any(isinstance(link, ssl.SSLCertVerificationError) for link in links):
        made = HTTPError(
            f"the server's certificate was not accepted: {reason} {where}. For a company's own "
            "CA set REQUESTS_CA_BUNDLE, or verify='/path/to/ca.pem'"
        )
    elif isinstance(error, theirs.SSLError):
        made = HTTPError(f"no TLS connection: {reason} {where}")
        made.may_retry = line.connecting
    elif _is_lost(error) and line.sent_at is not None:
        made = HTTPError(f"the connection was lost before an answer came: {reason} {where}")
        made.may_retry = quick
    elif isinstance(error, theirs.ProxyError):
        made = HTTPError(f"no connection through the proxy: {reason} {where}")
        made.may_retry = True
    elif _is_lost(error):
        made = HTTPError(f"the connection was lost before an answer came: {reason} {where}")
        made.may_retry = quick
    elif line.connecting or any(type(link).__name__ in _NOT_CONNECTED for link in links):
        made = HTTPError(f"no connection: {reason} {where}")
        made.may_retry = isinstance(error, theirs.ConnectionError)
    else:
        made = HTTPError(f"no usable answer: {reason} {where}")
    return made


# By name, since the second is not in every version of urllib3.
_NOT_CONNECTED = ("NewConnectionError", "NameResolutionError")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it was made from, however `requests` wrapped it."""
    seen: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting and len(seen) < 50:
        link = waiting.pop(0)
        if isinstance(link, BaseException) and not any(link is other for other in seen):
            seen.append(link)
            yield link
            waiting += [*link.args, getattr(link, "reason", None), link.__cause__, link.__context__]


def _is_timeout(error: BaseException) -> bool:
    from requests.exceptions import Timeout
    from urllib3.exceptions import ReadTimeoutError

    kinds = (TimeoutError, ReadTimeoutError, Timeout)
    return any(isinstance(link, kinds) for link in _chain(error))


def _is_lost(error: BaseException) -> bool:
    """The other side hung up: without a word, or in the middle of our request."""
    from ssl import SSLEOFError

    kinds = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, SSLEOFError)
    return any(isinstance(link, kinds) for link in _chain(error))


def _innermost(error: BaseException | None) -> str:
    """What went wrong, in the words of whoever saw it first."""
    if error is None:
        return "nobody knows why"
    links = list(_chain(error))
    by_system = (link for link in links if isinstance(link, OSError) and link.errno)
    # A TypeError is urllib3 1.26 finding out how old Python is.
    told = (link for link in reversed(links) if str(link) and type(link) is not TypeError)
    link = next(by_system, None) or next(told, error)
    words = link.strerror if isinstance(link, OSError) and link.strerror else str(link)
    return f"{type(link).__name__}: {excerpt(words)}".removesuffix(": ")


def _redacted(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _safe(error: BaseException, secrets: tuple[str, ...]) -> BaseException | None:
    """`error` to be chained as a cause; None if a text in its chain holds a secret."""
    for link in _chain(error):
        shown = f"{link} {link!r} {getattr(link, 'doc', '')}"  # what broken JSON was
        if any(secret in shown for secret in secrets):
            return None
        if getattr(link, "request", None) is not None:
            link.request = None  # type: ignore[attr-defined]  # its headers hold the key
    return error


def _at_most(limit: float | None, seconds: float) -> float:
    return seconds if limit is None else min(limit, seconds)
