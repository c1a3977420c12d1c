"""The rules of one HTTP exchange: its states, and how a body is coded. No I/O.

    body = Body(status, headers, limit=2**30)
    while not body.ended:
        data = body.feed(bytes_from_a_connection)
    body.left_over      # what came behind it, and belongs to no answer

Any split of the same bytes gives the same body. A body that does not come to the end that
its codings have raises `Incomplete` or `Undecodable`; it never passes for a whole one.
https://www.rfc-editor.org/rfc/rfc9112.html#name-message-body
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

# The states of an exchange. Plain text, so that to look one up runs no Python code: a
# signal handler can't run between the look at a state and the move to the next.
CONNECTING = "connecting"  # looking for a connection, or making one
SENT = "sent"  # the request is on its way, or waits for its answer
HEAD = "head"  # the status and the headers are here
READING = "reading"  # a thread waits for bytes of the body
BODY = "body"  # some of the body is here, and no thread waits for more
DONE = "done"  # all of the body is here; the connection serves others
LEFT = "left"  # closed by its user before the end
EXPIRED = "expired"  # the deadline has passed
BROKEN = "broken"  # the connection, or what came over it, failed; or an exception passed

MOVES: dict[str, frozenset[str]] = {
    CONNECTING: frozenset({SENT, LEFT, EXPIRED, BROKEN}),
    SENT: frozenset({HEAD, LEFT, EXPIRED, BROKEN}),
    HEAD: frozenset({READING, LEFT, EXPIRED, BROKEN}),
    READING: frozenset({BODY, DONE, LEFT, EXPIRED, BROKEN}),
    BODY: frozenset({READING, LEFT, EXPIRED, BROKEN}),
    DONE: frozenset(),
    LEFT: frozenset(),
    EXPIRED: frozenset(),
    BROKEN: frozenset(),
}

_LINE_LIMIT = 65536  # bytes, of a line between two chunks, and of all trailers


class Incomplete(Exception):
    """The body ended before its end, or is not framed as its headers say."""


class Undecodable(Exception):
    """The body can't be decompressed."""


class _Decoder(Protocol):
    """One coding of a body, undone."""

    ended: bool  # the end that the coding marks has come

    def feed(self, data: bytes) -> bytes: ...


class Body:
    """Takes the bytes of a connection, and gives those of the body.

    The framing comes first, then each coding undone, the last applied first.
    """

    def __init__(self, status: int, headers: Mapping[str, str], *, limit: int) -> None:
        transfer = _tokens(headers.get("transfer-encoding"))
        framing: _Framing
        if status in (204, 304):
            framing = _Length(0)
        elif transfer:
            framing = _Chunked() if transfer[-1] == "chunked" else _Framing()
            transfer = transfer[: -1 if framing.has_end else None]
        elif "content-length" in headers:
            framing = _Length(_length(headers["content-length"]))
        else:
            framing = _Framing()
        self._framing = framing
        codings = [*_tokens(headers.get("content-encoding")), *transfer]
        self._codings = [_coding(name, limit) for name in reversed(codings) if name != "identity"]
        self.ended: bool = framing.ended
        # A connection whose end is the end of the body has no other answer after it.
        self.may_keep: bool = framing.has_end and "close" not in _tokens(headers.get("connection"))

    @property
    def left_over(self) -> bytes:
        """What came behind the end of the body."""
        return self._framing.left_over

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the connection, b"" when it has ended; as much of the
        body as they complete."""
        if not data:
            self._framing.close()
        data = self._framing.feed(data)
        for decoder in self._codings:
            data = decoder.feed(data)
        if self._framing.ended:
            self.ended = True
            if not all(decoder.ended for decoder in self._codings):
                raise Incomplete("the compressed data ends too early")
        return data


def _tokens(value: str | None) -> list[str]:
    """The items of a header that is a list."""
    return [token for item in (value or "").split(",") if (token := item.strip().lower())]


def _length(value: str) -> int:
    """A Content-Length, which a proxy may have doubled."""
    told = set(_tokens(value))
    length = told.pop() if len(told) == 1 else ""
    if not (length.isascii() and length.isdigit()):
        raise Incomplete("Content-Length is not a number")
    return int(length)


# Framing


class _Framing:
    """Where a body ends: here, where the connection does."""

    has_end = False  # marked in the bytes themselves
    ended = False
    left_over = b""

    def feed(self, data: bytes) -> bytes:
        return data

    def close(self) -> None:
        """The connection has ended."""
        if self.has_end:
            raise Incomplete("the connection ended too early")
        self.ended = True


class _Length(_Framing):
    """A body of so many bytes."""

    has_end = True

    def __init__(self, length: int) -> None:
        self._missing = length
        self.ended = not length

    def feed(self, data: bytes) -> bytes:
        if len(data) > self._missing:
            data, self.left_over = data[: self._missing], data[self._missing :]
        self._missing -= len(data)
        self.ended = not self._missing
        return data


class _Chunked(_Framing):
    """A body in chunks, each behind a line with its size; joined where several come at once.

    https://www.rfc-editor.org/rfc/rfc9112.html#name-chunked-transfer-coding
    """

    has_end = True

    def __init__(self) -> None:
        self._rest = b""  # the start of a line whose end has not come
        self._before = b""  # what a size stands behind: the line end of the last chunk
        self._missing = 0  # bytes of the chunk that is coming
        self._in_trailers = False
        self._trailers = 0  # bytes

    def feed(self, data: bytes) -> bytes:
        found: list[bytes] = []
        if self._rest:
            data, self._rest = self._rest + data, b""
        at, missing, before = 0, self._missing, self._before
        while at < len(data) and not self._in_trailers:
            if missing:
                piece = data[at : at + missing]
                found.append(piece)
                at += len(piece)
                missing -= len(piece)
                before = b"\r\n"
                continue
            end = data.find(b"\n", at + len(before))
            if end < 0:
                self._keep(data[at:])
                at = len(data)
                break
            try:  # `int` passes over the line ends
                missing = int(data[at:end], 16) if data.startswith(before, at) else -1
            except ValueError:
                missing = _size_before_semicolon(data[at:end])
            if missing < 0:
                raise Incomplete("a chunk has no size")
            at = end + 1
            self._in_trailers = not missing
        self._missing, self._before = missing, before
        if self._in_trailers:
            self._take_trailers(data[at:])
        return found[0] if len(found) == 1 else b"".join(found)

    def _take_trailers(self, data: bytes) -> None:
        """Pass over what stands behind the last chunk, up to an empty line."""
        while not self.ended:
            line, end, data = data.partition(b"\n")
            self._trailers += len(line)
            if not end:
                self._keep(line)
                return
            if line in (b"", b"\r"):
                self.ended, self.left_over = True, data

    def _keep(self, line: bytes) -> None:
        if len(line) > _LINE_LIMIT or self._trailers > _LINE_LIMIT:
            raise Incomplete("a line between two chunks has no end")
        self._rest = line


def _size_before_semicolon(line: bytes) -> int:
    """The size of a chunk whose line says more than that; -1 if it says something else."""
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        return -1


# Codings

# How zlib is told which header to expect; deflate means zlib's to the standard, and none
# at all to some servers.
_WINDOWS = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}


def _coding(name: str, limit: int) -> _Decoder:
    if name == "chunked":
        return _Chunked()
    if name in _WINDOWS:
        return _Inflate(name, limit)
    raise Undecodable(f"it is coded as {name!r}, which was not asked for")


class _Inflate:
    """A compressed body; one that only claims to be compressed passes as it is."""

    def __init__(self, name: str, limit: int) -> None:
        self._windows = _WINDOWS[name]
        self._limit = limit
        self._room = limit  # bytes that may still come out
        self._begun = b""  # too little to tell what it is
        self._inflater: Any = None
        self._plain = False
        self.ended: bool = True  # until something has come

    def feed(self, data: bytes) -> bytes:
        if self._plain or not data:
            return data
        if self._inflater is not None:
            return self._inflate(data)
        data = self._begun + data
        if len(data) < 2:  # the length of the shortest header
            self._begun, self.ended = data, False
            return b""
        return self._begin(data)

    def _begin(self, data: bytes) -> bytes:
        import zlib

        if data.startswith(b"\x1f\x8b") == (31 in self._windows):
            for window in self._windows:
                self._inflater = zlib.decompressobj(window)
                try:
                    return self._inflate(data)
                except Undecodable:
                    if self._room < 0 or window == 31:
                        raise
        self._plain = self.ended = True
        return data

    def _inflate(self, data: bytes) -> bytes:
        import zlib

        found: list[bytes] = []
        while data:
            if self._inflater.eof:  # what follows is another member, or padding
                if not data.startswith(b"\x1f"):
                    break
                self._inflater = zlib.decompressobj(31)
            try:
                found.append(self._inflater.decompress(data, self._room + 1))
            except zlib.error as error:
                raise Undecodable(f"it is broken: {error}") from None
            self._room -= len(found[-1])
            if self._room < 0:
                raise Undecodable(f"it has more than {self._limit:,} bytes (max_response_bytes)")
            data = self._inflater.unused_data
        self.ended = self._inflater.eof
        return b"".join(found)
