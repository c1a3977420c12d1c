"""Connections to servers: open them, send requests, receive bytes, each step with a time limit.

    route = connections.route_to(request)
    connection = route.take_idle() or route.connect(limits)
    connection.send(request, limits)
    connection.read_head(method);  connection.receive()
    connection.release(reusable=True)  or  connection.close()

urllib3 opens the connections: addresses, proxies, TLS. This module sends and receives over
their sockets itself, so that each wait has its limit and no byte stays in a buffer.

Where the user's session or a mock has to send the request, `SessionResponse` reads the
response that it returns.
"""

from __future__ import annotations

import contextvars
import io
import os
import re
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import ConfigError
from .redaction import Secrets, credentials_in, shown_url

if TYPE_CHECKING:
    import http.client
    from concurrent.futures import Future

    import requests

R = TypeVar("R")

_READ_SIZE = 65536
_WRITE_SIZE = 65536  # a TLS socket returns when all is sent: more could exceed the time limit
_HEAD_LIMIT = 262_144  # bytes
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_NO_HEADER = re.compile(rb"\n(?![!-9;-~]+:|[ \t\r\n])[^\n]*(?=\n)")
_INTERIM = re.compile(rb"HTTP/1\.\d 1(?!01)")  # a 1xx status; but 101 is final
# The URL of a proxy that can be used here, by a tunnel. requests handles the others: forwarding,
# SOCKS and TLS to the proxy. It also raises the error for an invalid URL.
_TUNNEL = re.compile("(?i)(http://(.*@)?)?[^/@]+/?")
_IDLE_SECONDS = 30.0  # servers and routers may drop a connection that is idle for longer

# The variables from which requests takes proxies and CA bundles.
_ENVIRONMENT = (
    "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip


class Limits:
    """How long each step of an exchange may take, in seconds: `connect` to open a connection,
    `read` from one read or write to the next. All steps end at `deadline`, a time of
    `time.monotonic()`. None means no limit."""

    def __init__(self, connect: float | None, read: float | None, deadline: float | None) -> None:
        self.connect = connect
        self.read = read
        self.deadline = deadline

    @property
    def expired(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def timeout(self, limit: float | None = None) -> float | None:
        """The timeout of a step with this limit. Raises TimeoutError after the deadline."""
        if self.deadline is None:
            return limit
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds if limit is None else min(seconds, limit)


# Routes to servers


class Connections:
    """The routes to servers, with their idle connections. A client shares them between threads,
    and with the clients that `with_options` makes from it."""

    def __init__(
        self,
        session: requests.Session | None,
        verify: bool | str | None,
        cert: str | tuple[str, str] | None,
        proxies: Mapping[str, str] | None,
    ) -> None:
        self.session = session
        self._settings: dict[str, Any] = {
            "proxies": dict(proxies or {}), "stream": True, "verify": verify, "cert": cert,
        }  # fmt: skip
        # The id of the process that opened the routes, and these: a forked child opens its own.
        self._routes: tuple[int, dict[tuple[str | None, ...], Route]] = (0, {})

    def prepare(self, method: str, url: str, headers: Mapping[str, str]) -> Any:
        """A request without body, to copy for each call. Raises ConfigError for a bad URL."""
        import requests

        try:
            return requests.Request(method, url, headers=dict(headers)).prepare()
        except (requests.RequestException, ValueError):
            pass  # its message holds the query, and that may hold a key
        raise ConfigError(f"not a usable URL: {shown_url(url)!r}")

    def route_to(self, request: requests.PreparedRequest) -> Route:
        """The route to the server of this request, by the environment as it is now."""
        pid, routes = self._routes
        if pid != os.getpid():
            pid, routes = self._routes = os.getpid(), {}
        origin = (request.url or "").split("/", 3)[:3]
        key = (*origin, *map(os.environ.get, _ENVIRONMENT))
        if key not in routes:
            # Several threads may get here at once: all use the route that is set first.
            routes.setdefault(key, Route(request.url or "", self._settings))
        return routes[key]

    def close(self) -> None:
        """Close the idle connections; those in use close when they are released."""
        self._routes = (0, {})  # a connection closes when nothing refers to it

    def needs_session(self, route: Route) -> bool:
        """Whether requests has to send the request: by the user's session, through a proxy that
        only requests supports, or because a mock, recorder or tracer has replaced a method by
        which requests or urllib3 sends or connects."""
        from requests import Session
        from requests.adapters import HTTPAdapter
        from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

        methods: list[tuple[type[Any], str]] = [
            (HTTPAdapter, "send"), (HTTPConnectionPool, "urlopen"),
            (Session, "send"), (Session, "get_adapter"),
        ]  # fmt: skip
        pools = (HTTPConnectionPool, HTTPSConnectionPool)
        return (
            self.session is not None
            or route.needs_session
            or not all(_is_original(owner, name) for owner, name in methods)
            or not all(pool.ConnectionCls.__module__.startswith("urllib3.") for pool in pools)
        )

    def send_by_session(
        self, request: requests.PreparedRequest, limits: Limits
    ) -> requests.Response:
        """Send a request by the user's session, or else by a new one, and return the response.

        The session's own User-Agent, auth, hooks and `verify` are kept."""
        import requests
        from requests.utils import default_user_agent

        def remember(response: requests.Response, **_: Any) -> None:
            received.add(response)

        received: weakref.WeakSet[requests.Response] = weakref.WeakSet()
        session, headers, settings = self.session, dict(request.headers), dict(self._settings)
        session = session or requests.Session()
        if session.headers.get("User-Agent") not in (None, default_user_agent()):
            headers.pop("User-Agent", None)
        if settings["verify"] is None and session.verify is not True:
            settings["verify"] = session.verify  # otherwise the environment would override it
        try:
            return session.request(
                request.method or "GET",
                request.url or "",
                data=request.body,
                headers=headers,
                auth=session.auth or (lambda sent: sent),  # otherwise requests reads ~/.netrc
                timeout=(limits.connect, limits.read),
                allow_redirects=False,
                hooks={"response": [remember, *session.hooks["response"]]},
                **settings,
            )
        except BaseException as error:
            if isinstance(error, requests.HTTPError) and error.response is not None:
                return error.response  # a hook called raise_for_status()
            for response in received:  # a hook raised something else
                response.close()
            raise
        finally:
            if session is not self.session:
                session.close()


def _is_original(owner: Any, name: str) -> bool:
    """Whether a method is the library's own: it is defined in the file of its class."""
    code = getattr(getattr(owner, name), "__code__", None)
    return code is not None and code.co_filename == owner.__init__.__code__.co_filename


class Route:
    """A way to a server, direct or through a proxy, and the idle connections to it."""

    def __init__(self, url: str, settings: Mapping[str, Any]) -> None:
        import requests

        with requests.Session() as session:
            found: Any = session.merge_environment_settings(
                url, dict(settings["proxies"]), True, settings["verify"], settings["cert"]
            )
        self._url, self._verify, self._cert = url, found["verify"], found["cert"]
        self._proxy: str = requests.utils.select_proxy(url, found["proxies"]) or ""
        self.proxied: bool = self._proxy != ""
        tunnels = url.startswith("https:") and _TUNNEL.fullmatch(self._proxy)
        self.needs_session: bool = self.proxied and not tunnels
        self.secrets = Secrets(*credentials_in(found["proxies"].values()))
        # A deque, since no signal handler can run in the middle of its methods.
        self._idle: deque[Connection] = deque()

    def take_idle(self) -> Connection | None:
        """An idle connection that can be used again, if there is one."""
        oldest = time.monotonic() - _IDLE_SECONDS
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.idle_since >= oldest and connection.is_reusable():
                return connection
            connection.close()

    def put_idle(self, connection: Connection) -> None:
        """Keep a connection for the next request, and drop those that are idle for too long."""
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        while self._idle and self._idle[0].idle_since < connection.idle_since - _IDLE_SECONDS:
            self._idle.popleft()

    def connect(self, limits: Limits) -> Connection:
        """Open a connection. Raises what urllib3 raises, and TimeoutError after the deadline."""

        def connect() -> Connection:
            pool = self._pool()
            conn = pool._new_conn()
            conn.timeout = limits.timeout(limits.connect)
            try:
                if self.proxied:
                    pool._prepare_proxy(conn)  # opens a tunnel
                pool._validate_conn(conn)  # connects if the URL is https
                if conn.sock is None:
                    conn.connect()
            except BaseException:
                conn.close()
                raise
            return Connection(conn.sock, self)

        return with_deadline(limits, connect)

    def _pool(self) -> Any:
        """urllib3's pool for the server, used only to open connections."""
        from requests.adapters import HTTPAdapter

        adapter: Any = HTTPAdapter()
        manager: Any = adapter.poolmanager
        if self.proxied:
            scheme = "" if "//" in self._proxy else "http://"
            manager = adapter.proxy_manager_for(scheme + self._proxy)
        pool: Any = manager.connection_from_url(self._url)
        adapter.cert_verify(pool, self._url, self._verify, self._cert)
        return pool


# What an exchange receives from: a connection, or the response of a session


class Connection:
    """A connection to a server, used by one exchange at a time."""

    idle_since = 0.0

    def __init__(self, sock: Any, route: Route) -> None:
        self.sock = sock
        # Weak, so that closing the client also frees its idle connections.
        self._route = weakref.ref(route)
        # Also called when nothing refers to the connection any more, as after an interruption.
        self.close: Callable[[], object] = weakref.finalize(self, sock.close)

    def send(self, request: requests.PreparedRequest, limits: Limits) -> None:
        """Send a request. The limits hold until the connection is released."""
        self._limits = limits
        self._unread = b""  # received together with the head
        self.received_any = self._keep_alive = False
        content: Any = request.body or b""
        body = memoryview(content)
        begin = memoryview(self._head_of(request) + body[:_WRITE_SIZE])
        try:
            for unsent in (begin, body[_WRITE_SIZE:]):
                while unsent:
                    self.sock.settimeout(limits.timeout(limits.read))
                    unsent = unsent[self.sock.send(unsent[:_WRITE_SIZE]) :]
            self._keep_alive = True
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server may have responded without reading the whole request

    def _head_of(self, request: requests.PreparedRequest) -> bytes:
        url, headers = request.url or "", dict(request.headers)
        if "host" not in map(str.lower, headers):
            port = ":443" if url.startswith("https") else ":80"
            headers["Host"] = url.split("/", 3)[2].removesuffix(port)
        lines = [f"{request.method} {request.path_url} HTTP/1.1"]
        lines += [f"{name}: {value!s}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def read_head(self, method: str | None) -> http.client.HTTPResponse:
        """Receive the head of the response, and skip interim responses."""
        from http.client import BadStatusLine, HTTPException, HTTPResponse, RemoteDisconnected

        data, end, received = b"", None, 0
        while end is None:
            more = self._receive()
            data += more
            received += len(more)
            if not more:
                where = "in the head of its reply" if data else "without a reply"
                raise RemoteDisconnected(f"the server closed the connection {where}")
            if not b"HTTP/".startswith(data[:5]):
                raise BadStatusLine(repr(data))
            if received > _HEAD_LIMIT:  # with the interim responses
                raise HTTPException(f"the head of the reply has more than {_HEAD_LIMIT} bytes")
            while (end := _HEAD_END.search(data)) and _INTERIM.match(data):
                data = data[end.end() :]
        # http.client would also ignore the lines after one that is not a header.
        head = io.BytesIO(_NO_HEADER.sub(b"", data[: end.end()]))
        self._unread = data[end.end() :]
        source: Any = SimpleNamespace(makefile=lambda _: head)  # pyright: ignore[reportUnknownLambdaType]
        response = HTTPResponse(source, method=method)
        response.begin()
        response.close()  # here, since a Ctrl-C that arrives during its finalizer would be lost
        self._keep_alive &= response.version == 11
        return response

    def receive(self) -> bytes:
        """The next bytes, as soon as any arrive; b"" if the server has closed the connection."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        return self._receive()

    def _receive(self) -> bytes:
        self.sock.settimeout(self._limits.timeout(self._limits.read))
        data: bytes = self.sock.recv(_READ_SIZE)
        self.received_any = self.received_any or bool(data)
        return data

    def release(self, reusable: bool) -> None:
        """End the use by an exchange: keep the connection for another, or close it."""
        route = self._route()
        if reusable and self._keep_alive and not self._unread and route is not None:
            route.put_idle(self)
        else:
            self.close()

    def is_reusable(self) -> bool:
        """Whether the server has neither closed the connection nor sent bytes on it."""
        from ssl import SSLWantReadError

        try:
            self.sock.settimeout(0)
            self.sock.recv(1)
        except (BlockingIOError, SSLWantReadError, TimeoutError):
            return True
        except OSError:
            pass
        return False


class SessionResponse:
    """The response of a session, with the interface of Connection.

    It is read from the socket's file below http.client, which would take a truncated body for a
    complete one. The response of a mock or an adapter is read from whatever file it holds.
    """

    received_any = False  # not known

    def __init__(self, response: requests.Response, limits: Limits) -> None:
        self._response = response
        self._limits = limits
        # What `Body` needs to know of the file: how its bytes are framed and compressed.
        self.headers: Mapping[str, str] = response.headers
        self._raw: Any = response.raw
        file: Any = getattr(getattr(self._raw, "_fp", None), "fp", None)
        self.sock: Any = getattr(getattr(file, "raw", None), "_sock", None)
        if vars(response).get("_content", False) is not False:  # a hook has read the body
            self.headers, file = {}, io.BytesIO(response.content)
        elif self.sock is None:
            coding = response.headers.get("content-encoding", "")
            self.headers, file = {"content-encoding": coding}, self._raw
            if hasattr(file, "decode_content"):  # a response of urllib3
                file.decode_content = False
        self._file = file

    def receive(self) -> bytes:
        """The next bytes, as soon as any arrive; b"" at the end of the file."""
        timeout = self._limits.timeout(self._limits.read)
        if self.sock is not None:
            self.sock.settimeout(timeout)
        # A file without `read1`, such as an old urllib3's, waits for all the bytes asked for.
        read1 = getattr(self._file, "read1", None)
        data: bytes = self._file.read(1) if read1 is None else read1(_READ_SIZE)
        return data or b""

    def release(self, reusable: bool) -> None:
        if self.sock is not None and reusable:
            self._raw._fp.close()  # http.client now regards the response as read
            self._raw.release_conn()
        else:
            self.close()

    def close(self) -> None:
        try:
            self._response.close()
        except Exception:
            pass  # the adapter's own file may fail to close


def shut_down(sock: Any) -> None:
    """Wake the thread that reads from the socket; that thread closes it.

    Not by its own `shutdown`: that of a TLS socket changes the object that the other thread is
    using. `sock` may also be None, or of a class of gevent, eventlet or urllib3.
    """
    import _socket

    try:
        if isinstance(sock, _socket.socket):
            _socket.socket.shutdown(sock, _socket.SHUT_RDWR)
        else:
            duplicate = _socket.socket(fileno=_socket.dup(sock.fileno()))
            duplicate.shutdown(_socket.SHUT_RDWR)
            duplicate.close()
    except (AttributeError, OSError, ValueError):
        pass  # no socket, or one that is closed already


def with_deadline(limits: Limits, step: Callable[[], R]) -> R:
    """Call `step`, and raise TimeoutError if it has not returned by the deadline.

    With a deadline, the step runs in a thread of its own: a timeout of the socket bounds only
    each wait, and the name lookup has none. A result that comes too late is closed.
    """
    if limits.deadline is None:
        return step()
    from concurrent.futures import Future

    def work() -> None:
        try:
            future.set_result(context.run(step))
        except BaseException as error:
            future.set_exception(error)
        ended.release()

    future: Future[R] = Future()
    # A plain lock: Ctrl-C in `concurrent.futures.wait` may unlock what the thread has locked.
    ended = threading.Lock()
    ended.acquire()
    context, seconds = contextvars.copy_context(), limits.timeout()
    try:
        threading.Thread(target=work, daemon=True).start()
        if not ended.acquire(timeout=seconds or -1):
            raise TimeoutError
        return future.result()
    except BaseException:
        future.add_done_callback(_close_result)
        raise


def _close_result(future: Future[Any]) -> None:
    if future.exception() is None:
        future.result().close()
