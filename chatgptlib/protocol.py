"""The rules of one HTTP exchange: its states, and how a body is framed and coded. No I/O.

    body = Body(status, headers, limit=2**30)
    while not body.ended:
        data = body.feed(bytes_from_a_connection)
    body.trailing_data      # bytes after the end of the body, which belong to no response

Any split of the same bytes gives the same body. A truncated body raises `Incomplete` or
`Undecodable`; it is never returned as complete.
https://www.rfc-editor.org/rfc/rfc9112.html#name-message-body
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

# Plain strings: comparing them runs no Python code, so no signal handler can run between
# reading the state and changing it.
State: TypeAlias = Literal[
    "connecting", "sent", "head", "reading", "body", "done", "left", "expired", "broken"
]

# Until it is done, an exchange can be closed by its user, exceed its deadline, or fail.
_ENDS: tuple[State, ...] = ("left", "expired", "broken")

MOVES: dict[State, tuple[State, ...]] = {
    "connecting": ("sent", *_ENDS),  # choosing a connection, or opening one
    "sent": ("head", *_ENDS),  # sending the request, or waiting for the response
    "head": ("reading", *_ENDS),  # the status and the headers have arrived
    "reading": ("body", "done", *_ENDS),  # a thread is waiting for bytes of the body
    "body": ("reading", *_ENDS),  # part of the body has arrived, and no thread is waiting
    "done": (),  # the complete body has arrived; the connection can serve another exchange
    **dict.fromkeys(_ENDS, ()),
}

_LINE_LIMIT = 65536  # bytes, for a line with the size of a chunk, or a trailer
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")

# Servers send other names too, such as "utf-8", which do not change the body.
_UNSUPPORTED = ("br", "compress", "x-compress", "zstd")
_CODINGS = ("gzip", "x-gzip", "deflate", *_UNSUPPORTED)

_ZLIB, _RAW_DEFLATE, _GZIP = 15, -15, 31  # zlib's `wbits`
_PADDING = b"\0"  # may follow a gzip member


class Incomplete(Exception):
    """The connection closed in the middle of the body, or its framing is invalid."""


class Undecodable(Exception):
    """The body can't be decompressed."""


class Body:
    """Turns the bytes received from a connection into those of one body.

    The framing is removed first, then each coding, the one applied last first.
    """

    trailing_data: bytes = b""  # the bytes after the end of the body

    def __init__(self, status: int, headers: Mapping[str, str], *, limit: int) -> None:
        transfer = _tokens(headers.get("transfer-encoding"))
        names = [*_tokens(headers.get("content-encoding")), *transfer]
        if status in (204, 304):
            self._framing: _LengthReader | _ChunkedReader = _LengthReader(0)
        elif "chunked" in transfer:  # servers repeat it, or name it first
            self._framing = _ChunkedReader()
        elif "content-length" in headers:
            self._framing = _LengthReader(_length(headers["content-length"]))
        else:
            self._framing = _LengthReader(None)
        self._codings = [_Decompressor(name, limit) for name in reversed(names) if name in _CODINGS]
        self.ended: bool = self._framing.ended
        # After a body that ends with its connection, no other response can follow.
        keep_alive = "close" not in _tokens(headers.get("connection"))
        self.keep_alive: bool = keep_alive and not self._framing.ends_with_connection

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the connection, b"" if it has closed; return the bytes of the
        body that they complete."""
        if not data and not self._framing.ends_with_connection:
            raise Incomplete("the connection closed before the end of the body")
        data = self._framing.feed(data)
        for coding in self._codings:
            data = coding.feed(data)
        self.ended, self.trailing_data = self._framing.ended, self._framing.trailing_data
        if self.ended and not all(coding.ended for coding in self._codings):
            raise Incomplete("the compressed data ends too early")
        return data


def _tokens(value: str | None) -> list[str]:
    """The items of a header that holds a list."""
    return [item.strip().lower() for item in (value or "").split(",")]


def _length(value: str) -> int:
    """The number in a Content-Length, which a proxy may have repeated."""
    lengths = set(_tokens(value))
    if len(lengths) != 1 or not re.fullmatch("[0-9]{1,18}", length := lengths.pop()):
        raise Incomplete("Content-Length is not a single number")
    return int(length)


# Framing


class _LengthReader:
    """A body whose length is known, or, if `length` is None, that ends with the connection."""

    trailing_data: bytes = b""

    def __init__(self, length: int | None) -> None:
        self._remaining = length
        self.ends_with_connection: bool = length is None
        self.ended: bool = length == 0

    def feed(self, data: bytes) -> bytes:
        if self._remaining is None:
            self.ended = not data
            return data
        data, self.trailing_data = data[: self._remaining], data[self._remaining :]
        self._remaining -= len(data)
        self.ended = not self._remaining
        return data


class _ChunkedReader:
    """A body in chunks, each after a line with its size. The chunks in one read are joined.

    https://www.rfc-editor.org/rfc/rfc9112.html#name-chunked-transfer-coding
    """

    ends_with_connection: bool = False
    ended: bool = False
    trailing_data: bytes = b""

    def __init__(self) -> None:
        self._line: bytes = b""  # the start of a line whose end has not arrived
        self._remaining = 0  # bytes of the current chunk
        self._expected = "size"  # the kind of the next line: "size", "empty" or "trailer"

    def feed(self, data: bytes) -> bytes:
        found: list[bytes] = []
        data = self._line + data
        self._line, at = b"", 0
        while at < len(data) and not self.ended:
            if self._remaining:
                piece = data[at : at + self._remaining]
                found.append(piece)
                at += len(piece)
                self._remaining -= len(piece)
            elif end := data.find(b"\n", at) + 1:
                self._take_line(data[at:end].strip())
                at = end
            elif len(data) - at > _LINE_LIMIT:
                raise Incomplete(f"a line between chunks has more than {_LINE_LIMIT} bytes")
            else:
                self._line = data[at:]
                break
        if self.ended:
            self.trailing_data = data[at:]
        return b"".join(found)

    def _take_line(self, line: bytes) -> None:
        if self._expected == "size":
            size = line.partition(b";")[0].strip()  # an extension may follow
            if not _CHUNK_SIZE.fullmatch(size):
                raise Incomplete("a chunk has no valid size")
            self._remaining = int(size, 16)
            self._expected = "empty" if self._remaining else "trailer"
        elif self._expected == "trailer":
            self.ended = not line
        elif line:
            raise Incomplete("a chunk is longer than its size")
        else:
            self._expected = "size"


# Codings


class _Decompressor:
    """Undoes one coding. Data without the signature of gzip is returned unchanged: some servers
    declare a compression that they do not apply."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._remaining = limit  # bytes that may still be returned
        self._wbits: int | None = None  # None before the first byte; 0 if it is not compressed
        self._zlib: Any = None
        self.ended = True  # at the start, and after each complete gzip member

    def feed(self, data: bytes) -> bytes:
        if data and self._wbits is None:
            self._wbits = self._wbits_for(data[0])
        if not self._wbits:
            return data
        found: list[bytes] = []
        if self.ended and self._zlib:
            data = data.lstrip(_PADDING)
        while data:
            if self.ended:  # a gzip body may have several members
                self._zlib = zlib.decompressobj(self._wbits)
            try:
                found.append(self._zlib.decompress(data, self._remaining + 1))
            except zlib.error as error:
                raise Undecodable(f"invalid compressed data: {error}") from None
            self._remaining -= len(found[-1])
            if self._remaining < 0:
                raise Undecodable(f"more than {self._limit:,} bytes (max_response_bytes)")
            self.ended = self._zlib.eof
            data = self._zlib.unused_data.lstrip(_PADDING)
        return b"".join(found)

    def _wbits_for(self, first: int) -> int:
        if self._name in _UNSUPPORTED:
            raise Undecodable(f"its content coding is {self._name!r}, which is not supported")
        if self._name == "deflate":  # some servers leave out the header, whose low bits are 8
            return _ZLIB if first & 15 == 8 else _RAW_DEFLATE
        return _GZIP if first == 0x1F else 0
