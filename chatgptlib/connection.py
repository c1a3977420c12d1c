"""The connection that a request goes over: how it is cut from outside, and read at once.

`watched` makes of a connection class of urllib3 one that tells the request it serves,
its `Line`, which socket that is. The body of a chunked answer is taken apart here too,
since what lies below waits for whole chunks.
"""

from __future__ import annotations

import functools
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from http.client import HTTPConnection

READ_SIZE = 65536
_LINE_LIMIT = 65536  # bytes, of the lines between the chunks of a body


class Line:
    """The connection that one request uses, and what ended it.

    It lets others cut the connection while a thread waits for the server: a deadline,
    or `close()` in another thread.
    """

    def __init__(self) -> None:
        self.sock: Any = None  # None where it is not ours to know: mocks, a user's session
        self.watched: bool = False  # its connection tells us of its socket
        self.reused: bool = False  # it had served a request before
        self.sent_at: float | None = None
        self.chunks: Callable[[], Iterator[bytes]] | None = None  # reads a chunked body
        self.expired: bool = False  # cut by the deadline
        self.over: bool = False  # nothing is left to cut
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


at_work: threading.local = threading.local()  # .line: that of the request this thread is sending


@functools.cache
def watched(connection_class: type[HTTPConnection]) -> type[HTTPConnection]:
    """A connection of `urllib3` that shows its socket to the line of its request."""
    import http.client

    class WatchedResponse(http.client.HTTPResponse):
        def _read_status(self) -> tuple[str, int, str]:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # no stub has it
            # 102 and 103 are like 100: the answer is still to come.
            return version, (100 if 101 < status < 200 else status), reason  # pyright: ignore[reportUnknownVariableType]

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            line: Line = at_work.line
            line.chunks = self.chunks

        def chunks(self) -> Iterator[bytes]:
            """The body of a chunked answer, whatever of it has come as soon as it has.

            `read1` of this class and of urllib3 do the same at several times the cost, and
            urllib3's `stream` waits for the whole of a chunk and its line end.
            """
            yield from _dechunked(self.fp.read1)
            self.close()  # this answer; the connection is free

    class WatchedConnection(connection_class):  # type: ignore[misc, valid-type]  # not known earlier
        is_watched = True
        line: Line | None = None  # of the request it serves, or served last
        response_class = WatchedResponse

        def connect(self) -> None:
            line: Line = at_work.line
            line.watched = True
            super().connect()
            line.reused = False
            line.use(self.sock)

        def request(self, *args: Any, **kwargs: Any) -> None:
            line: Line = at_work.line
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
        data = rest + read(READ_SIZE)
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
        data = read(READ_SIZE)
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
