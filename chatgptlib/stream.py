"""The stream object that the user holds.

    for chunk in stream: ...            # or stream.text_deltas()
    response = stream.response()        # what the call would have given without a stream

A stream ended well if `[DONE]` came, or if every choice seen has its finish reason.
Any other end is a `StreamInterruptedError`, with the response so far.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from itertools import chain
from typing import Any, TypeVar

from .accumulate import ResponseAccumulator, joined_text
from .codec import decode, decoder
from .errors import (
    ConfigError,
    DeserializeError,
    HTTPError,
    OpenAIError,
    StreamInterruptedError,
    excerpt,
)
from .events import ResponseStream
from .exchange import Exchange
from .models import (
    CreateChatCompletionChunk,
    CreateChatCompletionResponse,
)
from .protocol import LEFT
from .replies import (
    check_depth,
    error_event,
    find_error,
    not_json,
    parsed,
    told_in_answer,
    with_answer,
)
from .sse import EventDecoder

C = TypeVar("C")


class ChatCompletionStream(ResponseStream[C]):
    """The chunks of an answer, as they arrive: an iterator, and a context manager.

    The server has accepted the request when this exists. Left before its end, it closes
    its connection: at the end of a `with` block, by `close()`, or when it is forgotten.

    Iterating raises StreamInterruptedError when the stream ends early, APIError when the
    server tells of an error in it, RequestTimeoutError when it falls silent or the
    deadline runs out, DeserializeError for what is no chunk. Each has the response so
    far as `partial`.
    https://platform.openai.com/docs/api-reference/chat-streaming
    """

    def __init__(
        self, exchange: Exchange, into: type[C], *, choices: int = 1, usage: bool = False
    ) -> None:
        self._total = ResponseAccumulator(choices=choices, usage=usage)
        pieces = exchange.iter_bytes()
        super().__init__(exchange, _chunks(exchange, pieces, self._total, decoder(into)))

    def text_deltas(self) -> Iterator[str]:
        """The text of the first choice alone, piece by piece, no character ever split."""
        half = ""
        for chunk in self:
            text: Any
            if isinstance(chunk, dict):
                whole = decode(CreateChatCompletionChunk, chunk)
                ResponseAccumulator().add(whole)  # makes a delta of a message
                text = whole.text
            else:
                text = getattr(chunk, "text", None)
                if not isinstance(text, str):
                    raise ConfigError(f"text_deltas() needs {type(chunk).__name__}.text")
            text = half + text
            half = ""
            if "\ud800" <= text[-1:] <= "\udbff":  # its other half is in the next chunk
                text, half = text[:-1], text[-1]
            if text:
                yield joined_text([text])
        if half:
            yield half

    def response(self) -> CreateChatCompletionResponse:
        """Read what is left and return the whole answer, as a call without a stream would.

        Raises what iterating raises; an answer that is not whole is never returned.
        """
        for _ in self:
            pass
        response = self._total.response()
        response.request_id, response.headers = self.request_id, self.headers
        return response

    def _cut(self) -> StreamInterruptedError:
        error = super()._cut()
        error.partial = self._total.response()
        return error


def collected(exchange: Exchange, body: bytes) -> CreateChatCompletionResponse:
    """The response in the body of an answer that came as a stream, unasked."""
    total = ResponseAccumulator()
    for _ in _chunks(exchange, iter([body]), total, decoder(dict)):
        pass
    return total.response()


_DONE: dict[str, Any] = {}  # known by identity
_STRAY = "no event"  # the name, which no server can send, of a body without events


def _chunks(
    exchange: Exchange,
    pieces: Iterator[bytes],
    total: ResponseAccumulator,
    read: Callable[[Any], C],
) -> Generator[C, None, bool]:
    """The chunks of a stream, added up in `total` on their way, and True at its end.

    A function of its own, not a method: a generator that held the stream would keep it,
    and its connection, alive after the user has forgotten it.
    """
    events = EventDecoder()
    read_chunk = decoder(CreateChatCompletionChunk)
    typed: Any = read is read_chunk
    done, data = False, ""
    feed, add = events.feed, total.add
    # What `json.loads` comes down to, without its look at white space around the value;
    # an event with such, or with anything else behind it, is looked at more closely.
    scan: Any = vars(json.JSONDecoder())["scan_once"]
    try:
        # None stands for the end of the body, which may complete an event too.
        for piece in chain(pieces, (None,)):
            for name, data in _at_end(events) if piece is None else feed(piece):
                try:
                    value, end = scan(data, 0)
                    if len(data) > 500:  # less is not deep enough to matter
                        check_depth(data, value)
                except (StopIteration, ValueError, RecursionError):
                    value, end = None, -1
                if name or end != len(data) or type(value) is not dict:
                    value = _unusual(name, data, events.closed, exchange)
                    if value is _DONE:
                        done = True
                        break
                    if not value:
                        continue
                if "error" in value or "choices" not in value:
                    _raise_if_told(value, exchange)
                chunk = read_chunk(value)
                if add(chunk):
                    _raise_if_told(value, exchange)
                exchange.check_deadline()
                yield chunk if typed else read(value)
            if done:
                break
        _check_end(done, events, total, exchange)
        exchange.finish()
        return True
    except OpenAIError as error:
        if isinstance(error, HTTPError) and exchange.state != LEFT and not total.missing:
            return True  # all of it is here; it does not matter how the body ended
        if isinstance(error, DeserializeError) and error.body is None:
            error.body = exchange.redacted(data)
        error.partial = total.response()
        with_answer(error, exchange)
        raise
    finally:
        exchange.close()


def _at_end(events: EventDecoder) -> list[tuple[str, str]]:
    """The event that the end of the body completes; or a body that held none, as one."""
    found = events.close()
    if not found and not events.any_came and (stray := events.stray.strip()):
        return [(_STRAY, stray)]
    return found


def _unusual(name: str, data: str, cut: bool, exchange: Exchange) -> dict[str, Any] | None:
    """What an event says that is not simply a JSON object; None where it says nothing.

    `cut`: the body ended in it, so what can't be read is no fault but the end.
    """
    text = data.strip()
    if text == "[DONE]":
        return _DONE
    if not text or text.startswith(":"):  # a comment, wrapped into an event by a proxy
        return None
    value, _ = parsed(text)
    if value is None and "\n" in text:  # an event for each line, which lost its blank lines
        lines = [line for line in text.split("\n") if line.strip() not in ("", "[DONE]")]
        value, _ = parsed(lines[0]) if len(lines) == 1 else (None, None)
    if name == "error":
        raise error_event(value, text, exchange)
    if isinstance(value, dict):
        return value
    if value is not None:
        _raise_if_told(value, exchange)
    if name is _STRAY:
        raise not_json(exchange, text.encode("utf-8", "replace"))
    if cut and value is None:
        return None
    shown = exchange.redacted(text)
    raise DeserializeError(
        f"an event of the stream is no JSON object: {excerpt(shown)} [{exchange.where}]", body=shown
    )


def _raise_if_told(value: Any, exchange: Exchange) -> None:
    if told := find_error(value):
        raise told_in_answer(told, exchange)


def _check_end(
    done: bool, events: EventDecoder, total: ResponseAccumulator, exchange: Exchange
) -> None:
    """Raise unless the stream, whose body is over, or which said that it is, ended well."""
    if stray := events.stray.strip():  # perhaps an error, told outside of any event
        _raise_if_told(parsed(stray)[0], exchange)
    if total.has_choices and (done or not total.missing):
        return
    if total.has_choices:
        reason = f"neither [DONE] came, nor {', nor '.join(total.missing)}"
    else:
        extra = total.response().extra
        reason = "it held no answer" + (f", only {excerpt(json.dumps(extra))}" if extra else "")
    raise StreamInterruptedError(
        f"the stream ended early: {exchange.redacted(reason)} [{exchange.where}]"
    )
