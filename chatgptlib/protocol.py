"""The rules of one HTTP exchange: its states, and how a body is coded. No I/O.

    body = Body(status, headers, limit=2**30)
    while not body.ended:
        data = body.feed(bytes_from_a_connection)
    body.left_over      # what came behind it, and belongs to no answer

Any split of the same bytes gives the same body. A body that is cut short raises `Incomplete`
or `Undecodable`; it is never returned as complete.
https://www.rfc-editor.org/rfc/rfc9112.html#name-message-body
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

# The states of an exchange. Plain strings: comparing them runs no Python code, so no signal
# handler can run between reading the state and changing it.
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

_LINE_LIMIT = 65536  # bytes, of a line between two chunks
_HEX = re.compile(rb"[0-9A-Fa-f]{1,16}")
_SIZE, _EMPTY, _TRAILER = "size", "empty", "trailer"  # the lines of a chunked body


class Incomplete(Exception):
    """The body ended before its end, or is not framed as its headers say."""


class Undecodable(Exception):
    """The body can't be decompressed."""


class Body:
    """Takes the bytes of a connection, and returns those of the body.

    The framing comes first, then each coding is undone, the last applied first.
    """

    def __init__(self, status: int, headers: Mapping[str, str], *, limit: int) -> None:
        transfer = _tokens(headers.get("transfer-encoding"))
        framing: _UntilClose
        if status in (204, 304):
            framing = _Length(0)
        elif transfer[-1:] == ["chunked"]:
            framing = _Chunked()
            while transfer[-1:] == ["chunked"]:  # said twice by some; it is applied once
                transfer.pop()
        elif "content-length" in headers and not transfer:
            framing = _Length(_length(headers["content-length"]))
        else:
            framing = _UntilClose()
        self._framing = framing
        codings = [*_tokens(headers.get("content-encoding")), *transfer]
        self._codings: list[_Chunked | _Inflate] = [
            _Chunked() if name == "chunked" else _Inflate(name, limit) for name in reversed(codings)
        ]
        self.ended: bool = framing.ended
        # A connection whose end is the end of the body carries no other response after it.
        self.may_keep: bool = framing.has_end and "close" not in _tokens(headers.get("connection"))

    @property
    def left_over(self) -> bytes:
        """The bytes behind the end of the body."""
        return self._framing.left_over

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the connection, b"" at its end; return what they add."""
        if not data and self._framing.has_end:
            raise Incomplete("the connection ended too early")
        data = self._framing.feed(data)
        for coding in self._codings:
            data = coding.feed(data)
        self.ended = self._framing.ended
        if self.ended and not all(coding.ended for coding in self._codings):
            raise Incomplete("the compressed data ends too early")
        return data


def _tokens(value: str | None) -> list[str]:
    """The items of a header that is a list; "identity" stands for no coding."""
    items = [item.strip().lower() for item in (value or "").split(",")]
    return [item for item in items if item not in ("", "identity")]


def _length(value: str) -> int:
    """A Content-Length, which a proxy may have doubled."""
    lengths = set(_tokens(value))
    if len(lengths) != 1 or not re.fullmatch("[0-9]{1,18}", length := lengths.pop()):
        raise Incomplete("Content-Length is not a number")
    return int(length)


# Framing


class _UntilClose:
    """A body that ends with the connection."""

    has_end: bool = False  # marked in the bytes themselves
    ended: bool = False
    left_over: bytes = b""

    def feed(self, data: bytes) -> bytes:
        self.ended = not data
        return data


class _Length(_UntilClose):
    """A body of a known length."""

    has_end = True

    def __init__(self, length: int) -> None:
        self._missing = length
        self.ended = not length

    def feed(self, data: bytes) -> bytes:
        data, self.left_over = data[: self._missing], data[self._missing :]
        self._missing -= len(data)
        self.ended = not self._missing
        return data


class _Chunked(_UntilClose):
    """A body in chunks, each after a line with its size; those that come together are joined.

    https://www.rfc-editor.org/rfc/rfc9112.html#name-chunked-transfer-coding
    """

    has_end = True

    def __init__(self) -> None:
        self._line: bytes = b""  # the start of a line whose end has not arrived
        self._missing = 0  # bytes of the current chunk
        self._expected = _SIZE  # the kind of the next line

    def feed(self, data: bytes) -> bytes:
        found: list[bytes] = []
        data = self._line + data
        self._line, at = b"", 0
        while at < len(data) and not self.ended:
            if self._missing:
                piece = data[at : at + self._missing]
                found.append(piece)
                at += len(piece)
                self._missing -= len(piece)
            elif end := data.find(b"\n", at) + 1:
                self._take(data[at:end].strip())
                at = end
            elif len(data) - at > _LINE_LIMIT:
                raise Incomplete("a line between two chunks has no end")
            else:
                self._line = data[at:]
                break
        if self.ended:
            self.left_over = data[at:]
        return b"".join(found)

    def _take(self, line: bytes) -> None:
        if self._expected is _SIZE:
            size = line.partition(b";")[0].strip()
            if not _HEX.fullmatch(size):
                raise Incomplete("a chunk has no size")
            self._missing = int(size, 16)
            self._expected = _EMPTY if self._missing else _TRAILER
        elif self._expected is _TRAILER:
            self.ended = not line
        elif line:
            raise Incomplete("a chunk is longer than its size")
        else:
            self._expected = _SIZE


# Codings


class _Inflate:
    """A compressed body: its bytes, decompressed. One that only claims to be gzip is plain."""

    def __init__(self, name: str, limit: int) -> None:
        if name not in ("gzip", "x-gzip", "deflate"):
            raise Undecodable(f"the server used the coding {name!r}, which is not supported")
        self._window = 15 if name == "deflate" else 31  # the header that zlib is to expect
        self._limit = limit
        self._bytes_left = limit  # bytes that may still come out
        self._inflater: Any = None
        self._over = False
        self.ended = True  # until something has come

    def feed(self, data: bytes) -> bytes:
        found: list[bytes] = []
        if self._inflater is None and self._window == 31 and data[:1] not in (b"", b"\x1f"):
            return data
        while data and not self._over:
            if self._inflater is None:
                # Some servers send deflate without zlib's header, whose first byte ends in 8.
                raw = self._window == 15 and data[0] & 15 != 8
                self._inflater = zlib.decompressobj(-15 if raw else self._window)
            elif self._inflater.eof:
                if data[0] != 0x1F:  # not another member: padding
                    self._over = True
                    break
                self._inflater = zlib.decompressobj(31)
            try:
                found.append(self._inflater.decompress(data, self._bytes_left + 1))
            except zlib.error as error:
                raise Undecodable(f"it is broken: {error}") from None
            self._bytes_left -= len(found[-1])
            if self._bytes_left < 0:
                raise Undecodable(f"it has more than {self._limit:,} bytes (max_response_bytes)")
            self.ended = self._inflater.eof
            data = self._inflater.unused_data
        return b"".join(found)
