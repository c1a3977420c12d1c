"""Connections to servers: open them, send requests, receive bytes, each step with a limit.

    route = connections.route_to(request)
    connection = route.take_idle() or route.connect(limits)
    connection.begin(route, limits)
    connection.send(route.head_of(request), request.body)
    connection.read_head(method);  connection.receive()
    connection.give_back(clean=True)  or  connection.close()

urllib3 opens the connections: addresses, proxies, TLS. What goes over them is sent and read
here, so that each wait has its limit, and no byte is left behind in a buffer.
"""

from __future__ import annotations

import contextvars
import functools
import io
import os
import re
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import ConfigError, Secrets, shown_url

if TYPE_CHECKING:
    import http.client
    from concurrent.futures import Future

    import requests

R = TypeVar("R")

_READ_SIZE = 65536
_WRITE_SIZE = 65536  # TLS sends all that it is given, so write in pieces to keep the limit
_HEAD_LIMIT = 262_144  # bytes
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_INTERIM = re.compile(rb"HTTP/1\.\d 1(?!01)")  # 101 is final
_IDLE_SECONDS = 30.0  # after which servers and routers may have forgotten a connection

# The private names that this module uses. A test says which a release has dropped.
PRIVATE_NAMES = {
    "urllib3.connectionpool.HTTPConnectionPool": ["_new_conn", "_prepare_proxy", "_validate_conn"],
    "urllib3._collections": ["HTTPHeaderDict"],  # urllib3 1.26 has it nowhere else
    "requests.adapters.HTTPAdapter": ["cert_verify"],
    "requests.Response()": ["_content"],  # False until somebody has read the body
}

# What `requests` looks at for proxies and CA bundles.
_ENVIRONMENT = (
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)


class Limits:
    """How long a step may take: to connect, to the next bytes, and to the deadline `due`, a
    time of `time.monotonic`; None for no limit."""

    def __init__(self, connect: float | None, read: float | None, due: float | None) -> None:
        self.connect = connect
        self.read = read
        self.due = due

    @property
    def late(self) -> bool:
        return self.due is not None and time.monotonic() >= self.due

    def left(self, limit: float | None = None) -> float | None:
        """The seconds of a step that has this limit. Raises TimeoutError after the deadline."""
        if self.due is None:
            return limit
        left = self.due - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left if limit is None else min(left, limit)


# Routes to servers


class Connections:
    """The routes to servers, and the idle connections, of a client and of those made from it;
    for any number of threads."""

    def __init__(
        self,
        session: requests.Session | None,
        verify: bool | str | None,
        cert: str | tuple[str, str] | None,
        proxies: Mapping[str, str] | None,
    ) -> None:
        self.session = session
        self._verify = verify
        self._cert = cert
        self._proxies = dict(proxies or {})
        # Connections belong to one process: a child of it makes its own.
        self._routes: tuple[int, dict[tuple[str | None, ...], Route]] = (0, {})

    def prepare(self, method: str, url: str, headers: Mapping[str, str]) -> Any:
        """The part of a request that is the same every time."""
        import requests

        try:
            return requests.Request(method, url, headers=dict(headers)).prepare()
        except (requests.RequestException, ValueError):
            pass  # its text would show the query, where a key may be
        raise ConfigError(f"not a usable URL: {shown_url(url)!r}")

    def route_to(self, request: requests.PreparedRequest) -> Route:
        """How to reach the server of this request, as the environment is now."""
        pid, routes = self._routes
        if pid != os.getpid():
            pid, routes = self._routes = os.getpid(), {}
        there = [name for name in _ENVIRONMENT if name in os.environ]
        origin = (request.url or "").split("/", 3)[:3]
        key = (*origin, *there, *map(os.environ.get, there))
        if key not in routes:
            # If several threads get here at once, they share the first one's route.
            routes.setdefault(key, Route(request, self._verify, self._cert, self._proxies))
        return routes[key]

    def close(self) -> None:
        """Close the connections that are idle; those in use close at the end of their use."""
        _, routes = self._routes
        self._routes = (0, {})
        for route in list(routes.values()):
            route.close_idle(for_good=True)

    def needs_session(self) -> bool:
        """Whether requests has to send: over the user's session, or because a mock or recorder has
        replaced a method with which requests and urllib3 send or connect."""
        from requests import Session
        from requests.adapters import HTTPAdapter
        from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

        methods: list[tuple[type[Any], str]] = [
            *((HTTPAdapter, "send"), (HTTPConnectionPool, "urlopen")),
            *((Session, "send"), (Session, "get_adapter")),
        ]
        pools = (HTTPConnectionPool, HTTPSConnectionPool)
        return (
            self.session is not None
            or not all(_is_original(owner, name) for owner, name in methods)
            or not all(pool.ConnectionCls.__module__.startswith("urllib3.") for pool in pools)
        )

    def ask_session(self, request: requests.PreparedRequest, timeout: Any) -> requests.Response:
        import requests
        from requests.utils import default_user_agent

        def note(response: requests.Response, **_: Any) -> None:
            came.append(response)

        came: list[requests.Response] = []
        session, headers, verify = self.session, dict(request.headers), self._verify
        session = session or requests.Session()
        headers.pop("Content-Length", None)
        if session.headers.get("User-Agent") not in (None, default_user_agent()):
            headers.pop("User-Agent", None)
        if verify is None and session.verify is not True:
            verify = session.verify  # else a CA bundle of the environment takes precedence
        try:
            return session.request(
                request.method or "GET",
                request.url or "",
                data=request.body,
                headers=headers,
                auth=session.auth or (lambda asked: asked),  # else requests reads ~/.netrc
                timeout=timeout,
                allow_redirects=False,
                proxies=self._proxies,
                hooks={"response": [note, *session.hooks["response"]]},
                verify=verify,
                cert=self._cert,
                stream=True,
            )
        except BaseException as error:  # a hook's
            if isinstance(error, requests.HTTPError) and error.response is not None:
                return error.response  # it called raise_for_status()
            for response in came:
                response.close()
            raise
        finally:
            came.clear()  # the response holds `note`


def _is_original(owner: Any, name: str) -> bool:
    """Whether a method of a class stands in the same file as its constructor."""
    code = getattr(getattr(owner, name), "__code__", None)
    return code is not None and code.co_filename == owner.__init__.__code__.co_filename


class Route:
    """How to reach a server, and the connections to it that are idle."""

    def __init__(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,
        cert: str | tuple[str, str] | None,
        proxies: dict[str, str],
    ) -> None:
        import requests

        with requests.Session() as session:  # finds what the environment says
            found: Any = session.merge_environment_settings(
                request.url or "", dict(proxies), True, verify, cert
            )
        self._verify, self._cert, self._proxies = found["verify"], found["cert"], found["proxies"]
        self.proxied: bool = bool(requests.utils.select_proxy(request.url or "", self._proxies))
        self.secrets = Secrets(*credentials_in(self._proxies.values()))
        self._url = request.url or ""
        self._made: Any = None
        self._idle: deque[Connection] = deque()  # no signal handler can interrupt its methods

    @property
    def _pool(self) -> Any:
        """urllib3's pool for the server, which knows how to connect. Nothing else of it is used."""
        # Not a `cached_property`: before Python 3.12 that has a lock, which a fork may find held.
        if self._made is None:
            self._made = self._new_pool()
        return self._made

    def _new_pool(self) -> Any:
        import requests
        from requests.adapters import HTTPAdapter

        adapter: Any = HTTPAdapter()
        url, verify, cert, proxies = self._url, self._verify, self._cert, self._proxies
        if hasattr(adapter, "get_connection_with_tls_context"):
            request = requests.Request("GET", url).prepare()
            pool: Any = adapter.get_connection_with_tls_context(request, verify, proxies, cert)
        else:  # before requests 2.32
            pool = adapter.get_connection(url, proxies)
        adapter.cert_verify(pool, url, verify, cert)
        pool.ConnectionCls = limited(pool.ConnectionCls)
        return pool

    @property
    def _proxy_scheme(self) -> str:
        """Scheme of the HTTP proxy, or "". SOCKS is left to urllib3."""
        return self._pool.proxy.scheme if getattr(self._pool, "proxy", None) else ""

    @property
    def _tunnels(self) -> bool:
        return self._proxy_scheme != "" and self._url.startswith("https:")

    def take_idle(self) -> Connection | None:
        """A connection that has served before and can serve again."""
        oldest = time.monotonic() - _IDLE_SECONDS
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.idle_since >= oldest and connection.is_reusable():
                return connection
            connection.close()

    def give_back(self, connection: Connection) -> None:
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        while self._idle and self._idle[0].idle_since < connection.idle_since - _IDLE_SECONDS:
            self._idle.popleft()  # left from a time with more threads

    def close_idle(self, *, for_good: bool = False) -> None:
        """Close the idle connections; if it is for good, those that are given back too."""
        self._idle.clear()  # each closes itself when it is garbage
        if for_good:
            self._idle = deque(maxlen=0)

    def connect(self, limits: Limits) -> Connection:
        def connect() -> Connection:
            conn = pool._new_conn()
            conn.limits, conn.timeout = limits, limits.left(limits.connect)
            try:
                if self._tunnels:
                    pool._prepare_proxy(conn)
                pool._validate_conn(conn)  # makes TLS connections
                if conn.sock is None:
                    conn.connect()
            except BaseException:
                conn.close()
                raise
            return Connection(conn.sock, tls_in_tls)

        pool = self._pool
        tls_in_tls = self._tunnels and self._proxy_scheme == "https"
        socks = self.proxied and not self._proxy_scheme
        return with_deadline(limits if tls_in_tls or socks else None, connect, close_abandoned)

    def head_of(self, request: requests.PreparedRequest) -> bytes:
        """The request up to its body, as it is sent."""
        url, target = request.url or "", request.path_url
        headers: dict[str, Any] = dict(request.headers)
        if "host" not in map(str.lower, headers):
            port = ":443" if url.startswith("https") else ":80"
            headers["Host"] = url.split("/", 3)[2].removesuffix(port)
        if self._proxy_scheme and not self._tunnels:
            target = url
            headers.update(self._pool.proxy_headers)
        lines = [f"{request.method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def credentials_in(urls: Iterable[str]) -> Iterator[str]:
    """The users and passwords in URLs, whether these can be parsed or not."""
    from base64 import b64encode
    from urllib.parse import unquote

    for url in urls:
        user = url.rpartition("@")[0].rpartition("//")[2]
        if user:
            yield f"//{user}@"  # also where it is too short to be struck out by itself
        for text in (user, unquote(user)):
            yield from (text, *text.split(":"), b64encode(text.encode()).decode())


@functools.cache
def limited(connection_class: type[http.client.HTTPConnection]) -> type[Any]:
    """A connection class of urllib3, made to keep to the limits of an exchange in each step
    of connecting: TCP, the proxy's TLS, its answer to CONNECT, the server's TLS."""
    from http.client import HTTPResponse

    class Limited(connection_class):  # type: ignore[misc, valid-type]  # not known earlier
        limits = Limits(None, None, None)

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "sock" and value is not None:
                value.settimeout(self.limits.left(self.limits.connect))

        def response_class(self, sock: Any, *args: Any, **kwargs: Any) -> HTTPResponse:  # pyright: ignore[reportIncompatibleVariableOverride]  # it makes one
            """Reads the answer to CONNECT."""
            limits = self.limits
            head, _ = _read_head(lambda: _receive(sock, limits.left(limits.connect)))
            return HTTPResponse(_as_socket(head), *args, **kwargs)

    return Limited


# Channels: a connection, or the response of a session


class Connection:
    """A connection to a server, used by one exchange at a time."""

    can_hurry = True
    idle_since = 0.0

    def __init__(self, sock: Any, tls_in_tls: bool) -> None:
        self._sock = sock
        self._tls_in_tls = tls_in_tls  # urllib3's, which keeps to no limit in all
        # Also runs when the connection is garbage, as after an interruption.
        self.close: Callable[[], object] = weakref.finalize(self, sock.close)

    def begin(self, route: Route, limits: Limits) -> None:
        """Serve an exchange."""
        self._route = route
        self._limits = limits
        self._unread = b""  # received, and not taken yet
        self.received_any = False
        self.may_keep = False

    def send(self, head: bytes, body: Any) -> None:
        """Send a request, with the read limit between two writes."""
        body, limits = body or b"", self._limits
        try:
            for data in (head + body,) if len(body) < _WRITE_SIZE else (head, body):
                at, view = 0, memoryview(data)
                while at < len(view):
                    self._sock.settimeout(limits.left(limits.read))
                    at += self._sock.send(view[at : at + _WRITE_SIZE])
            self.may_keep = True
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server may have answered without reading the full request

    def read_head(self, method: str | None) -> http.client.HTTPResponse:
        """The head of the response, after any interim ones."""
        from http.client import HTTPResponse

        head, self._unread = self._bounded(functools.partial(_read_head, self._receive))
        response = HTTPResponse(_as_socket(head), method=method)
        response.begin()
        response.close()  # its finalizer would swallow a Ctrl-C
        return response

    def receive(self) -> bytes:
        """The next bytes; b"" when the connection has ended."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        return self._bounded(self._receive)

    def _receive(self) -> bytes:
        data = _receive(self._sock, self._limits.left(self._limits.read))
        self.received_any = self.received_any or bool(data)
        return data

    def _bounded(self, step: Callable[[], R]) -> R:
        return with_deadline(
            self._limits if self._tls_in_tls else None, step, lambda _: self.close()
        )

    def give_back(self, clean: bool) -> None:
        """Serve others, or close if bytes that belong to no response are left (not `clean`)."""
        if clean and self.may_keep and not self._unread:
            self._route.give_back(self)
        else:
            self.close()

    def is_reusable(self) -> bool:
        """Nothing has come since it was given back: neither bytes, nor its end."""
        from ssl import SSLWantReadError

        try:
            self._sock.settimeout(0)
            self._sock.recv(1)
        except (BlockingIOError, SSLWantReadError, TimeoutError):
            return True
        except OSError:
            pass
        return False

    def shut_down(self) -> None:
        shut_down(self._sock)


def _receive(sock: Any, limit: float | None) -> bytes:
    """The next bytes, however many have arrived; b"" at the end of the connection."""
    sock.settimeout(limit)
    data: bytes = sock.recv(_READ_SIZE)
    return data


def _read_head(receive: Callable[[], bytes]) -> tuple[bytes, bytes]:
    """The head of a response, without interim ones, and the bytes that came after it."""
    from http.client import BadStatusLine, HTTPException, RemoteDisconnected

    data, end, received = b"", None, 0
    while end is None:
        more = receive()
        data += more
        received += len(more)
        if not more and not data:
            raise RemoteDisconnected("the server closed the connection")
        if not more:
            raise ConnectionAbortedError("the connection ended in the head of the answer")
        if not b"HTTP/".startswith(data[:5]):
            raise BadStatusLine(repr(data))
        if received > _HEAD_LIMIT:  # interim ones too
            raise HTTPException(f"the head of the answer has more than {_HEAD_LIMIT} bytes")
        while (end := _HEAD_END.search(data)) and _INTERIM.match(data):
            data = data[end.end() :]
    return data[: end.end()], data[end.end() :]


def _as_socket(head: bytes) -> Any:
    """What http.client takes for a socket over which this head comes."""
    return SimpleNamespace(makefile=functools.partial(_file_of, head))


def _file_of(head: bytes, mode: str) -> io.BytesIO:
    return io.BytesIO(head)


class SessionResponse:
    """The response of a user's session, or of a mock: whatever file it holds."""

    def __init__(self, response: requests.Response, limits: Limits) -> None:
        self._response = response
        self._limits = limits
        self._deadline = None if limits.due is None else limits
        self._raw = raw = response.raw
        self._connection = getattr(raw, "connection", None)
        self._sock: Any = getattr(self._connection, "sock", None)
        if self._sock is None:  # http.client has dropped it: nothing comes after this answer
            for name in ("_fp", "fp", "raw", "_sock"):
                raw = getattr(raw, name, None)
            self._sock, raw = raw, response.raw
        self.is_decoded = vars(response).get("_content", False) is not False  # read by a hook
        self._unread = response.content if self.is_decoded else b""
        # Without `read1`, as in an old urllib3, the only prompt read is one byte.
        self.can_hurry = hasattr(raw, "read1")
        for name, value in (("decode_content", False), ("enforce_content_length", True)):
            if hasattr(raw, name):  # urllib3's
                setattr(raw, name, value)

    def receive(self) -> bytes:
        """The next bytes of the body; b"" at its end."""
        if self.is_decoded:
            data, self._unread = self._unread, b""
            return data
        return with_deadline(self._deadline, self._read, lambda _: self.close())

    def _read(self) -> bytes:
        if self._limits.due is not None and self._sock is not None:
            self._sock.settimeout(self._limits.left(self._limits.read))
        data: bytes = self._raw.read1(_READ_SIZE) if self.can_hurry else self._raw.read(1)
        return data or b""

    def give_back(self, clean: bool) -> None:
        self._sock = None  # it may belong to another request from here on
        if release := getattr(self._raw, "release_conn", None):
            release()

    def shut_down(self) -> None:
        # urllib3 releases the connection together with the last bytes.
        released = getattr(self._raw, "connection", None) is not self._connection
        if self._sock is not None and not released:
            shut_down(self._sock)

    def close(self) -> None:
        try:
            self._response.close()
        except Exception:
            pass  # closing what is broken


def shut_down(sock: Any) -> None:
    """Wake the thread that reads from the socket; that thread closes it.

    Not by `sock.shutdown`: on TLS that changes the object under its reader.
    """
    import _socket

    sock = getattr(sock, "socket", sock)  # inside of urllib3's TLS in TLS
    try:
        if isinstance(sock, _socket.socket):
            _socket.socket.shutdown(sock, _socket.SHUT_RDWR)
        else:  # one of gevent's or eventlet's
            twin = _socket.socket(fileno=os.dup(sock.fileno()))
            twin.shutdown(_socket.SHUT_RDWR)
            twin.close()
    except (OSError, ValueError):
        pass  # it is gone already


class Abandoned(TimeoutError):
    """The deadline passed; the step goes on in its thread."""


def with_deadline(
    limits: Limits | None, step: Callable[[], R], discard: Callable[[Any], object]
) -> R:
    """What `step` returns. If there is a deadline, it is run in a thread that can be left,
    since nothing else bounds it; `discard` then gets the future with what comes of it."""
    if limits is None or limits.due is None:
        return step()
    from concurrent.futures import Future, wait

    def work() -> None:
        try:
            future.set_result(context.run(step))
        except BaseException as error:
            future.set_exception(error)

    future: Future[R] = Future()
    context, seconds = contextvars.copy_context(), limits.left()
    try:
        threading.Thread(target=work, daemon=True).start()
    except RuntimeError:  # the interpreter is ending
        return step()
    in_time = False
    try:
        in_time = bool(wait([future], seconds).done)
    finally:
        if not in_time:
            future.add_done_callback(discard)
    if not in_time:
        raise Abandoned
    return future.result()


def close_abandoned(future: Future[Any]) -> None:
    """Close the result of an abandoned step."""
    if future.exception() is None:
        future.result().close()
