"""Server-sent events: bytes in, events out. No I/O.

    decoder = EventDecoder()
    for data in anything_that_yields_bytes:
        for name, payload in decoder.feed(data): ...
    for name, payload in decoder.close(): ...

An event is its name (from `event:`, else "") and its data. `id`, `retry` and comments
are passed over. Lines that are no server-sent events are kept in `non_sse_text`: where a page,
or a whole answer, stands in place of a stream, they are what the server said. Once an
event has come, no more are kept beyond 65,536 characters.
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from io import StringIO

_BOM = "\ufeff"
_NON_SSE_LIMIT = 65536  # characters


class EventDecoder:
    """Turns any split of the same bytes into the same events, in time linear in the bytes.

    Lines are cut from bytes, at LF, CR and CRLF alone: a character may be split between
    two reads, and JSON may hold line separators that `str.splitlines` would cut at.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # the start of a line whose end has not come
        self._after_cr = False  # a "\n" that comes next belongs to a line end already seen
        self._at_line = False  # a line begins with the next byte, and none of the above holds
        self._name = ""
        self._data: list[str] = []
        self._non_sse = StringIO()
        self.any_came: bool = False  # an event has come
        self.closed: bool = False

    @property
    def non_sse_text(self) -> str:
        """The lines that were no server-sent events, as text."""
        return self._non_sse.getvalue().removesuffix("\n")

    def feed(self, data: bytes) -> list[tuple[str, str]]:
        """Take some bytes; return the name and data of each event they complete."""
        if not self._at_line or data[-1:] != b"\n" or b"\r" in data:
            data = self._whole_lines(data)
        events: list[tuple[str, str]] = []
        values = self._data
        # These are whole lines, so no character is cut, and a bad one stays in its line.
        lines = data.decode("utf-8", "replace").split("\n")
        lines.pop()  # what follows the last line end: nothing
        for line in lines:
            if line[:6] == "data: ":
                values.append(line[6:])
            elif line:
                self._take(line)
            else:  # the event is over
                value = "\n".join(values)
                if value or self._name == "error":  # which some servers send without data
                    events.append((self._name, value))
                values.clear()
                self._name = ""
        if events:
            self.any_came = True
        return events

    def close(self) -> list[tuple[str, str]]:
        """The body is over; return the event it ended in without a blank line, if any."""
        self.closed = True
        return self.feed(b"\n\n")

    def _whole_lines(self, data: bytes) -> bytes:
        """The lines that these bytes complete, each ended by LF; what is left is kept."""
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = data.rfind(b"\n") + 1
        if not end:
            if data:
                self._pieces.append(data)  # joined once, when the line ends
                self._at_line = False
            return b""
        lines = b"".join([*self._pieces, data[:end]])
        self._pieces = [data[end:]] if end < len(data) else []
        self._at_line = not self._pieces and not self._after_cr
        return lines

    def _take(self, line: str) -> None:
        field, _, value = line.removeprefix(_BOM).partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "error":  # how llama.cpp told errors until 2025
            self._name = "error"
            self._data.append(value)
        elif field not in ("", "id", "retry") and (
            not self.any_came or self._non_sse.tell() < _NON_SSE_LIMIT
        ):
            self._non_sse.write(line + "\n")
