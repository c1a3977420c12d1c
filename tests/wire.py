"""A server that sends exact bytes and ends in exact ways.

    with Wire(Reply(b"HTTP/1.1 200 OK\\r\\n...", end=RESET)) as wire:
        ...  # talk to wire.url; wire.requests holds what came

The server takes the replies in order, one per request, on any connection, and repeats the
last one. A reply may be a function that takes the Request. `tls` is an SSLContext.
"""

import json
import socket
import struct
import threading
from dataclasses import dataclass

KEEP = "keep"  # the connection waits for the next request
CLOSE = "close"  # the connection is closed after all that was sent has arrived
RESET = "reset"  # the connection is reset: the client gets an error
SILENCE = "silence"  # the connection stays open, and nothing more is sent


@dataclass
class Reply:
    """Bytes, in one write or several, and what happens after them.

    The server waits for the event `hold` before the last write.
    """

    writes: bytes | list
    end: str = KEEP
    hold: threading.Event | None = None


@dataclass
class Request:
    line: str
    headers: dict
    body: bytes
    connection: int

    @property
    def json(self):
        return json.loads(self.body)


class Wire:
    def __init__(self, *replies, tls=None):
        self.replies = [Reply(r) if isinstance(r, (bytes, list)) else r for r in replies]
        self.requests = []
        self.connections = 0  # the number that was accepted
        self._used = 0
        self._lock = threading.Lock()
        self.stopped = threading.Event()
        self._open = set()
        self._threads = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/v1"
        self._tls = tls
        self.closed_by_client = threading.Event()  # set when a client closes a connection
        self._start(self._accept)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stopped.set()
        self._cut(self._listener)
        for conn in list(self._open):
            self._cut(conn)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def drop_connections(self):
        """Close every connection, as servers do with idle ones."""
        with self._lock:
            for conn in list(self._open):
                self._cut(conn)

    def _start(self, target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _cut(self, sock):
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _accept(self):
        while not self.stopped.is_set():
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                number = self.connections
                self._open.add(conn)
            self._start(self._serve, conn, number)

    def _serve(self, conn, number):
        try:
            if self._tls:
                plain, conn = conn, self._tls.wrap_socket(conn, server_side=True)
                self._open.add(conn)
                self._open.discard(plain)
            with conn, conn.makefile("rb") as incoming:
                self.serve(conn, incoming, number)
        except OSError:
            self.closed_by_client.set()
        finally:
            self._open.discard(conn)

    def serve(self, conn, incoming, number):
        """Answer the requests of one connection. A subclass may do something else."""
        while request := read_request(incoming, number):
            with self._lock:
                self.requests.append(request)
                reply = self.replies[min(self._used, len(self.replies) - 1)]
                self._used += 1
            if not self.send(conn, reply):
                return
        self.closed_by_client.set()

    def send(self, conn, reply):
        """Send one reply. Returns whether the connection stays open."""
        if callable(reply):
            reply = reply(self.requests[-1])
        writes = reply.writes if isinstance(reply.writes, list) else [reply.writes]
        for i, data in enumerate(writes):
            if reply.hold and i == len(writes) - 1:
                reply.hold.wait(10)
            conn.sendall(data)
        if reply.end == RESET:
            # With a linger of 0, closing sends a reset.
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if reply.end == SILENCE:
            # Until the client closes the connection, or the test ends.
            if not conn.recv(1):
                self.closed_by_client.set()
            return False
        return reply.end == KEEP


def read_request(incoming, number):
    if incoming.peek(1)[:1] == b"\x16":  # a TLS handshake with a server without TLS
        return Request("TLS", {}, b"", number)
    line = incoming.readline().decode("latin-1").rstrip("\r\n")
    if not line:
        return None
    headers = {}
    while (header := incoming.readline().decode("latin-1").rstrip("\r\n")) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    body = incoming.read(int(headers.get("content-length", 0)))
    return Request(line, headers, body, number)


def http(body=b"", status="200 OK", *headers, framing="length"):
    """The bytes of an HTTP response. `framing` is length, chunked or close.

    `body` is bytes, a tuple of bytes (one chunk each), or a value to send as JSON.
    """
    if not isinstance(body, (bytes, tuple)):
        body = json.dumps(body).encode()
    pieces = body if isinstance(body, tuple) else (body,)
    lines = [f"HTTP/1.1 {status}", *headers]
    if framing == "length":
        lines.append(f"Content-Length: {sum(map(len, pieces))}")
    elif framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece]
        pieces += [b"0\r\n\r\n"]
    else:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + b"".join(pieces)


def sse(*values, done=True):
    """The bytes of events, one for each value, which is sent as JSON; bytes are sent as they are."""
    events = [
        value if isinstance(value, bytes) else b"data: %s\n\n" % json.dumps(value).encode()
        for value in values
    ]
    return b"".join([*events, b"data: [DONE]\n\n"] if done else events)


def streamed(*values, done=True, framing="chunked", headers=()):
    """A complete streamed response."""
    body = sse(*values, done=done)
    return http(body, "200 OK", "Content-Type: text/event-stream", *headers, framing=framing)


def chunk(content=None, *, index=0, finish_reason=None, **delta):
    """A chunk with one choice."""
    if content is not None:
        delta["content"] = content
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "m",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish_reason}],
    }


def completion(content="Hi!", **message):
    """A completion with one choice."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
