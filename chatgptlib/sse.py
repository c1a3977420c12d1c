"""Server-sent events: bytes in, events out. No I/O.

    decoder = EventDecoder()
    for data in anything_that_yields_bytes:
        for name, payload in decoder.feed(data): ...
    for name, payload in decoder.close(): ...

An event is a name (from `event:`, else "") and data; `[DONE]` is the last. `id`, `retry` and
comments are ignored. Other lines are kept in `non_sse_text`: a server may send a page, or a
complete reply, instead of a stream. After the first event, they are kept until the text has
65,536 characters.
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from io import StringIO

_BOM = "\ufeff"
_NON_SSE_LIMIT = 65536  # characters
ERROR_NAMES = ("error", "exception")  # of events, in lower case


class EventDecoder:
    """Reads server-sent events from bytes. However the bytes are split, the events are the same.

    Lines end at LF, CR and CRLF only, and are cut before they are decoded: a read may end inside
    a character, and JSON may hold line separators at which `str.splitlines` would cut.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # the beginning of a line, in the pieces that it came in
        self._after_cr = False  # the last byte was a CR, so an LF that follows is part of it
        self._at_line_start = True  # nothing is pending, so the fast path is safe
        self._name = ""
        self._data: list[str] = []
        self._done = False  # `[DONE]` came, after which nothing is read
        self._non_sse = StringIO()
        self.any_came: bool = False  # whether there has been an event
        self.closed: bool = False

    @property
    def non_sse_text(self) -> str:
        """The lines that do not belong to a server-sent event."""
        return self._non_sse.getvalue().removesuffix("\n")

    def feed(self, data: bytes) -> list[tuple[str, str]]:
        """Take some bytes; return the name and data of each event they complete."""
        if self._done:
            return []
        if not self._at_line_start or data[-1:] != b"\n" or b"\r" in data:
            data = self._complete_lines(data)
        events: list[tuple[str, str]] = []
        values = self._data
        # The lines are complete, so no character is cut; invalid bytes affect only their line.
        lines = data.decode("utf-8", "replace").split("\n")
        lines.pop()  # the empty text after the last LF
        for line in lines:
            if line[:6] == "data: ":
                values.append(line[6:])
            elif line:
                self._take(line)
            else:  # an empty line ends the event
                value = "\n".join(values)
                if value or self._name.lower() in ERROR_NAMES:  # some errors come without data
                    events.append((self._name, value))
                    self.any_came = True
                values.clear()
                self._name = ""
                if value.strip() == "[DONE]":
                    self._done = True
                    break
        return events

    def close(self) -> list[tuple[str, str]]:
        """Take the end of the body; return the event that lacks its empty line, if any."""
        self.closed = True
        return self.feed(b"\n\n")

    def _complete_lines(self, data: bytes) -> bytes:
        """The lines that these bytes complete, each ended by LF. The rest is kept for later."""
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
                self._at_line_start = False
            return b""
        lines = b"".join([*self._pieces, data[:end]])
        self._pieces = [data[end:]] if end < len(data) else []
        self._at_line_start = not self._pieces and not self._after_cr
        return lines

    def _take(self, line: str) -> None:
        field, _, value = line.removeprefix(_BOM).partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "error":  # sent by llama.cpp until 2025
            self._name = "error"
            self._data.append(value)
        elif field not in ("", "id", "retry"):
            room = max(0, _NON_SSE_LIMIT - self._non_sse.tell()) if self.any_came else None
            self._non_sse.write((line + "\n")[:room])
