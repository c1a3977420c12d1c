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
from typing import Any, Literal, TypeAlias

# Plain strings: comparing them runs no Python code, so no signal handler can run between
# reading the state and changing it.
State: TypeAlias = Literal[
    "connecting", "sent", "head", "reading", "body", "done", "left", "expired", "broken"
]

# Under way, an exchange can always be closed by its user, pass its deadline, or fail.
_ENDS: tuple[State, ...] = ("left", "expired", "broken")

MOVES: dict[State, tuple[State, ...]] = {
    "connecting": ("sent", *_ENDS),  # looking for a connection, or making one
    "sent": ("head", *_ENDS),  # the request is on its way, or waits for its answer
    "head": ("reading", *_ENDS),  # the status and the headers are here
    "reading": ("body", "done", *_ENDS),  # a thread waits for bytes of the body
    "body": ("reading", *_ENDS),  # some of the body is here, and no thread waits for more
    "done": (),  # all of the body is here; the connection serves others
    "left": (),
    "expired": (),
    "broken": (),
}

_LINE_LIMIT = 65536  # bytes, of a line between two chunks
_HEX = re.compile(rb"[0-9A-Fa-f]{1,16}")
# Any other name is no coding, as the "utf-8" that some servers send.
_UNSUPPORTED = ("br", "compress", "x-compress", "zstd")
_CODINGS = ("gzip", "x-gzip", "deflate", *_UNSUPPORTED)


class Incomplete(Exception):
    """The body ended before its end, or is not framed as its headers say."""


class Undecodable(Exception):
    """The body can't be decompressed."""


class Body:
    """Takes the bytes of a connection, and returns those of the body.

    The framing comes first, then each coding is undone, the last applied first.
    """

    left_over: bytes = b""  # what came behind the end of the body

    def __init__(self, status: int, headers: Mapping[str, str], *, limit: int) -> None:
        transfer = _tokens(headers.get("transfer-encoding"))
        codings = [*_tokens(headers.get("content-encoding")), *transfer]
        if status in (204, 304):
            self._framing: _Length | _Chunked = _Length(0)
        elif "chunked" in transfer:  # applied once and last, wherever and however often it stands
            self._framing = _Chunked()
        elif "content-length" in headers:
            self._framing = _Length(_length(headers["content-length"]))
        else:
            self._framing = _Length(None)
        self._codings = [_Inflate(name, limit) for name in reversed(codings) if name in _CODINGS]
        self.ended: bool = self._framing.ended
        # A connection whose end is the end of the body carries no other response after it.
        keep = "close" not in _tokens(headers.get("connection"))
        self.may_keep: bool = keep and self._framing.has_end

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the connection, b"" at its end; return what they add."""
        if not data and self._framing.has_end:
            raise Incomplete("the connection ended too early")
        data = self._framing.feed(data)
        for coding in self._codings:
            data = coding.feed(data)
        self.ended, self.left_over = self._framing.ended, self._framing.left_over
        if self.ended and not all(coding.ended for coding in self._codings):
            raise Incomplete("the compressed data ends too early")
        return data


def _tokens(value: str | None) -> list[str]:
    return [item.strip().lower() for item in (value or "").split(",")]


def _length(value: str) -> int:
    """A Content-Length, which a proxy may have doubled."""
    lengths = set(_tokens(value))
    if len(lengths) != 1 or not re.fullmatch("[0-9]{1,18}", length := lengths.pop()):
        raise Incomplete("Content-Length is not one number")
    return int(length)


# Framing


class _Length:
    """A body of a known length; if it is None, one that ends with the connection."""

    left_over: bytes = b""

    def __init__(self, length: int | None) -> None:
        self._missing = length
        self.has_end: bool = length is not None  # marked in the bytes themselves
        self.ended: bool = length == 0

    def feed(self, data: bytes) -> bytes:
        if self._missing is None:
            self.ended = not data
            return data
        data, self.left_over = data[: self._missing], data[self._missing :]
        self._missing -= len(data)
        self.ended = not self._missing
        return data


class _Chunked:
    """A body in chunks, each after a line with its size; those that come together are joined.

    https://www.rfc-editor.org/rfc/rfc9112.html#name-chunked-transfer-coding
    """

    has_end: bool = True
    ended: bool = False
    left_over: bytes = b""

    def __init__(self) -> None:
        self._line: bytes = b""  # the start of a line whose end has not arrived
        self._missing = 0  # bytes of the current chunk
        self._expected = "size"  # what the next line is: "size", "empty" or "trailer"

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
        if self._expected == "size":
            size = line.partition(b";")[0].strip()
            if not _HEX.fullmatch(size):
                raise Incomplete("a chunk has no size")
            self._missing = int(size, 16)
            self._expected = "empty" if self._missing else "trailer"
        elif self._expected == "trailer":
            self.ended = not line
        elif line:
            raise Incomplete("a chunk is longer than its size")
        else:
            self._expected = "size"


# Codings


class _Inflate:
    """A compressed body: its bytes, decompressed. One that only claims to be so is plain."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._bytes_left = limit  # bytes that may still come out
        self._window: int | None = None  # what zlib is to expect; 0 if it is not compressed
        self._inflater: Any = None
        self.ended = True  # until something has come

    def feed(self, data: bytes) -> bytes:
        if data and self._window is None:
            self._window = self._window_of(data[0])
        if not self._window:
            return data
        found: list[bytes] = []
        while data:
            if self.ended:  # a gzip body may have several members
                self._inflater = zlib.decompressobj(self._window)
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

    def _window_of(self, first: int) -> int:
        if self._name == "deflate":  # some servers leave out zlib's header, which ends in 8
            return 15 if first & 15 == 8 else -15
        if self._name in _UNSUPPORTED:
            raise Undecodable(f"its coding is {self._name!r}, which is not supported")
        return 31 if first == 0x1F else 0
