"""Connections to servers: open them, send requests, receive bytes, each step with a limit.

    route = connections.route_to(request)
    connection = route.take_idle() or route.connect(limits)
    connection.send(request, limits)
    connection.read_head(method);  connection.receive()
    connection.give_back(clean=True)  or  connection.close()

urllib3 opens the connections: addresses, proxies, TLS. What goes over them is sent and read
here, so that each wait has its limit, and no byte is left behind in a buffer.

A session of the user's, or a mock, sends by itself; its response is read as a connection is.
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
# A proxy through which a connection is made here; forwarding, SOCKS and TLS in TLS are left to
# requests, which also says what is wrong with the URL of a proxy.
_TUNNEL = re.compile("(?i)(http://(.*@)?)?[^/@]+/?")
_IDLE_SECONDS = 30.0  # after which servers and routers may have forgotten a connection

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
        self._settings: dict[str, Any] = {
            "proxies": dict(proxies or {}), "stream": True, "verify": verify, "cert": cert,
        }  # fmt: skip
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
        origin = (request.url or "").split("/", 3)[:3]
        key = (*origin, *map(os.environ.get, _ENVIRONMENT))
        if key not in routes:
            # If several threads get here at once, they share the first one's route.
            routes.setdefault(key, Route(request.url or "", self._settings))
        return routes[key]

    def close(self) -> None:
        """Close the connections that are idle; those in use close at the end of their use."""
        self._routes = (0, {})  # a connection that is garbage closes

    def needs_session(self, route: Route) -> bool:
        """Whether requests has to send: over the user's session, through a proxy that it alone
        can talk to, or because a mock or recorder has replaced a method with which requests
        and urllib3 send or connect."""
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
            or route.needs_session
            or not all(_is_original(owner, name) for owner, name in methods)
            or not all(pool.ConnectionCls.__module__.startswith("urllib3.") for pool in pools)
        )

    def ask_session(self, request: requests.PreparedRequest, limits: Limits) -> requests.Response:
        import requests
        from requests.utils import default_user_agent

        def note(response: requests.Response, **_: Any) -> None:
            came.add(response)

        came: weakref.WeakSet[requests.Response] = weakref.WeakSet()
        session, headers, settings = self.session, dict(request.headers), dict(self._settings)
        session = session or requests.Session()
        if session.headers.get("User-Agent") not in (None, default_user_agent()):
            headers.pop("User-Agent", None)
        if settings["verify"] is None and session.verify is not True:
            settings["verify"] = session.verify  # else the environment's CA bundle goes first
        try:
            return session.request(
                request.method or "GET",
                request.url or "",
                data=request.body,
                headers=headers,
                auth=session.auth or (lambda asked: asked),  # else requests reads ~/.netrc
                timeout=(limits.connect, limits.read),
                allow_redirects=False,
                hooks={"response": [note, *session.hooks["response"]]},
                **settings,
            )
        except BaseException as error:  # a hook's
            if isinstance(error, requests.HTTPError) and error.response is not None:
                return error.response  # it called raise_for_status()
            for response in came:
                response.close()
            raise
        finally:
            if session is not self.session:
                session.close()


def _is_original(owner: Any, name: str) -> bool:
    """Whether a method of a class stands in the same file as its constructor."""
    code = getattr(getattr(owner, name), "__code__", None)
    return code is not None and code.co_filename == owner.__init__.__code__.co_filename


class Route:
    """How to reach a server, and the connections to it that are idle."""

    def __init__(self, url: str, settings: Mapping[str, Any]) -> None:
        import requests

        with requests.Session() as session:  # finds what the environment says
            found: Any = session.merge_environment_settings(
                url, dict(settings["proxies"]), True, settings["verify"], settings["cert"]
            )
        self._url, self._verify, self._cert = url, found["verify"], found["cert"]
        self._proxy: str = requests.utils.select_proxy(url, found["proxies"]) or ""
        self.proxied: bool = self._proxy != ""
        tunnels = url.startswith("https:") and _TUNNEL.fullmatch(self._proxy)
        self.needs_session: bool = self.proxied and not tunnels
        self.secrets = Secrets(*credentials_in(found["proxies"].values()))
        self._idle: deque[Connection] = deque()  # no signal handler can interrupt its methods

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

    def connect(self, limits: Limits) -> Connection:
        def connect() -> Connection:
            pool = self._pool()
            conn = pool._new_conn()
            conn.timeout = limits.left(limits.connect)
            try:
                if self.proxied:
                    pool._prepare_proxy(conn)  # makes a tunnel
                pool._validate_conn(conn)  # makes TLS connections
                if conn.sock is None:
                    conn.connect()
            except BaseException:
                conn.close()
                raise
            return Connection(conn.sock, self)

        return with_deadline(limits, connect)

    def _pool(self) -> Any:
        """urllib3's pool for the server, which knows how to connect. Nothing else of it is used."""
        from requests.adapters import HTTPAdapter

        adapter: Any = HTTPAdapter()
        manager: Any = adapter.poolmanager
        if self.proxied:
            scheme = "" if "//" in self._proxy else "http://"
            manager = adapter.proxy_manager_for(scheme + self._proxy)
        pool: Any = manager.connection_from_url(self._url)
        adapter.cert_verify(pool, self._url, self._verify, self._cert)
        return pool


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


# Channels: a connection, or the response of a session


class Connection:
    """A connection to a server, used by one exchange at a time."""

    idle_since = 0.0

    def __init__(self, sock: Any, route: Route) -> None:
        self.sock = sock
        self._route = weakref.ref(route)  # which may be dropped while this is in use
        # Also runs when the connection is garbage, as after an interruption.
        self.close: Callable[[], object] = weakref.finalize(self, sock.close)

    def send(self, request: requests.PreparedRequest, limits: Limits) -> None:
        """Begin an exchange: send a request, with the read limit between two writes."""
        self._limits = limits
        self._unread = b""  # received, and not taken yet
        self.received_any = self.may_keep = False
        content: Any = request.body or b""
        body = memoryview(content)
        begin = memoryview(self._head_of(request) + body[:_WRITE_SIZE])
        try:
            for unsent in (begin, body[_WRITE_SIZE:]):
                while unsent:
                    self.sock.settimeout(limits.left(limits.read))
                    unsent = unsent[self.sock.send(unsent[:_WRITE_SIZE]) :]
            self.may_keep = True
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server may have answered without reading the full request

    def _head_of(self, request: requests.PreparedRequest) -> bytes:
        url, headers = request.url or "", dict(request.headers)
        if "host" not in map(str.lower, headers):
            port = ":443" if url.startswith("https") else ":80"
            headers["Host"] = url.split("/", 3)[2].removesuffix(port)
        lines = [f"{request.method} {request.path_url} HTTP/1.1"]
        lines += [f"{name}: {value!s}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def read_head(self, method: str | None) -> http.client.HTTPResponse:
        """The head of the response, after any interim ones."""
        from http.client import BadStatusLine, HTTPException, HTTPResponse, RemoteDisconnected

        data, end, received = b"", None, 0
        while end is None:
            more = self._receive()
            data += more
            received += len(more)
            if not more:
                where = "in the head of the answer" if data else "without an answer"
                raise RemoteDisconnected(f"the server closed the connection {where}")
            if not b"HTTP/".startswith(data[:5]):
                raise BadStatusLine(repr(data))
            if received > _HEAD_LIMIT:  # interim ones too
                raise HTTPException(f"the head of the answer has more than {_HEAD_LIMIT} bytes")
            while (end := _HEAD_END.search(data)) and _INTERIM.match(data):
                data = data[end.end() :]
        head, self._unread = io.BytesIO(data[: end.end()]), data[end.end() :]
        source: Any = SimpleNamespace(makefile=lambda _: head)  # pyright: ignore[reportUnknownLambdaType]
        response = HTTPResponse(source, method=method)
        response.begin()
        response.close()  # its finalizer would swallow a Ctrl-C
        self.may_keep &= response.version == 11
        return response

    def receive(self) -> bytes:
        """The next bytes, however many have arrived; b"" when the connection has ended."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        return self._receive()

    def _receive(self) -> bytes:
        self.sock.settimeout(self._limits.left(self._limits.read))
        data: bytes = self.sock.recv(_READ_SIZE)
        self.received_any = self.received_any or bool(data)
        return data

    def give_back(self, clean: bool) -> None:
        """Serve others, or close if bytes that belong to no response are left (not `clean`)."""
        route = self._route()
        if clean and self.may_keep and not self._unread and route is not None:
            route.give_back(self)
        else:
            self.close()

    def is_reusable(self) -> bool:
        """Nothing has come since it was given back: neither bytes, nor its end."""
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
    """The response of a session, read from under http.client, which would take a body cut short
    for a complete one; or that of a mock, whatever file it holds."""

    received_any = False  # not known

    def __init__(self, response: requests.Response, limits: Limits) -> None:
        self._response = response
        self._limits = limits
        self.headers: Mapping[str, str] = response.headers  # of what is read here
        self._raw: Any = response.raw
        file: Any = getattr(getattr(self._raw, "_fp", None), "fp", None)
        self.sock: Any = getattr(getattr(file, "raw", None), "_sock", None)
        if vars(response).get("_content", False) is not False:  # a hook has read it
            self.headers, file = {}, io.BytesIO(response.content)
        elif self.sock is None:
            coding = response.headers.get("content-encoding", "")
            self.headers, file = {"content-encoding": coding}, self._raw
            if hasattr(file, "decode_content"):  # urllib3's
                file.decode_content = False
        self._file = file

    def receive(self) -> bytes:
        """The next bytes; b"" at the end."""
        limit = self._limits.left(self._limits.read)
        if self.sock is not None:
            self.sock.settimeout(limit)
        # Without `read1`, as in an old urllib3, the only prompt read is one byte.
        read1 = getattr(self._file, "read1", None)
        data: bytes = self._file.read(1) if read1 is None else read1(_READ_SIZE)
        return data or b""

    def give_back(self, clean: bool) -> None:
        if self.sock is not None and clean:
            self._raw._fp.close()  # http.client then takes the answer for read
            self._raw.release_conn()
        else:
            self.close()

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

    try:  # by another object, whatever the class of this one: of gevent, or of TLS in TLS
        twin = _socket.socket(fileno=_socket.dup(sock.fileno()))
        twin.shutdown(_socket.SHUT_RDWR)
        twin.close()
    except (AttributeError, OSError, ValueError):
        pass  # it is gone already


def with_deadline(limits: Limits, step: Callable[[], R]) -> R:
    """What `step` returns. If there is a deadline, it runs in a thread that can be left, since
    no timeout of a socket bounds it in all; what comes of it later is closed."""
    if limits.due is None:
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
    context, seconds = contextvars.copy_context(), limits.left()
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
