"""The stream object that the user holds.

    for chunk in stream: ...            # or stream.text_deltas()
    response = stream.response()        # what the call would have given without a stream

A stream is complete if `[DONE]` came or every choice has its finish reason, and no event
was an error. Any other end raises `StreamInterruptedError`, with the response so far.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeGuard, TypeVar

from .accumulate import ResponseAccumulator
from .codec import decode, decoder, is_dict, is_list
from .dialects import join_split_surrogates
from .errors import (
    ConfigError,
    DeserializeError,
    HTTPError,
    OpenAIError,
    StreamInterruptedError,
    excerpt,
)
from .exchange import Exchange
from .models import CreateChatCompletionChunk, CreateChatCompletionResponse
from .redaction import without_traceback
from .replies import (
    check_depth,
    error_event,
    error_in_reply,
    find_error,
    not_json,
    parsed,
    unusable,
    with_reply,
)
from .sse import ERROR_NAMES, EventDecoder

if TYPE_CHECKING:
    from typing_extensions import Self

C = TypeVar("C")


class ResponseStream(Generic[C]):
    """The items of a streamed response as they arrive: an iterator, and a context manager.

    `items` returns True at the end of the stream. Before that, the connection is closed at the
    end of a `with` block, by `close()`, or when the stream is garbage collected.
    """

    def __init__(self, exchange: Exchange, items: Generator[C, None, bool]) -> None:
        self._exchange = exchange
        self._items = items
        self._closed = False
        self._complete = False

    @property
    def request_id(self) -> str | None:
        """The server's id for this request, to quote to its support."""
        return self._exchange.request_id

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the HTTP response."""
        return self._exchange.headers

    def __iter__(self) -> Iterator[C]:
        return self

    def __next__(self) -> C:
        try:
            if not self._closed:
                return next(self._items)
        except StopIteration as end:
            self._complete = self._complete or end.value is True
        except ValueError as error:
            if "already executing" not in str(error):
                raise
            raise ConfigError("another thread is reading this stream") from None
        except OpenAIError as error:
            raise without_traceback(error) from error.__cause__
        if self._complete:
            raise StopIteration
        raise self._cut()

    def close(self) -> None:
        """Stop reading and close the connection, unless the stream has ended.

        May be called from any thread, and returns at once. A thread that waits for the next
        item gets a StreamInterruptedError.
        """
        self._closed = True
        self._exchange.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _cut(self) -> StreamInterruptedError:
        return interrupted("was closed, or failed, before its end", self._exchange)


def interrupted(how: str, exchange: Exchange) -> StreamInterruptedError:
    """The error for a stream that ended early; `how` completes "the stream ..."."""
    return with_reply(StreamInterruptedError(f"the stream {how} [{exchange.where}]"), exchange)


class ChatCompletionStream(ResponseStream[C]):
    """The chunks of an answer as they arrive: an iterator, and a context manager.

    The server has already accepted the request. Before the end of the stream, the connection
    is closed at the end of a `with` block, by `close()`, or on garbage collection.

    Iterating raises StreamInterruptedError when the stream ends early, APIError when the
    server sends an error in it, RequestTimeoutError when the server sends nothing in time or
    the deadline passes, DeserializeError for an event that cannot be read. Each has the
    response so far as `partial`.
    https://platform.openai.com/docs/api-reference/chat-streaming
    """

    def __init__(self, exchange: Exchange, into: type[C], *, choices: int = 1) -> None:
        self._total = ResponseAccumulator()
        pieces = exchange.iter_bytes()
        super().__init__(exchange, _chunks(exchange, pieces, self._total, decoder(into), choices))

    def text_deltas(self) -> Iterator[str]:
        """The text of the choice with index 0, piece by piece. No character is cut in two."""
        return join_split_surrogates(map(_text_of_chunk, self))

    def response(self) -> CreateChatCompletionResponse:
        """Read to the end, and return the answer as a call without a stream would.

        Raises what iterating raises: an incomplete answer is only in the error's `partial`.
        """
        deque(self, maxlen=0)  # a loop variable would be in the frame, for tracebacks to print
        response = self._total.response()
        response.request_id, response.headers = self.request_id, self.headers
        return response

    def _cut(self) -> StreamInterruptedError:
        error = super()._cut()
        error.partial = _partial(self._total, self._exchange)
        return error


def _text_of_chunk(chunk: Any) -> str:
    if isinstance(chunk, dict):
        return decode(CreateChatCompletionChunk, chunk).text
    text = getattr(chunk, "text", None)
    if not isinstance(text, str):
        raise ConfigError(f"text_deltas() needs {type(chunk).__name__}.text")
    return text


def collected(exchange: Exchange, pieces: Iterator[bytes], n: int) -> CreateChatCompletionResponse:
    """The response with `n` choices, where a server streams it though no stream was requested."""
    total = ResponseAccumulator()
    deque(_chunks(exchange, pieces, total, decoder(dict), n), maxlen=0)
    return total.response()


_HEARTBEAT = re.compile(r':.*|null|true|false|-?[\d.]+|"\S*"', re.DOTALL)
_LONGEST_REMARK = 10_000  # characters, of text that may become part of an error message
_AFTER_FINISH_SECONDS = 4.9  # to wait for `[DONE]` and the usage; the promise is 5


def _chunks(
    exchange: Exchange,
    pieces: Iterator[bytes],
    total: ResponseAccumulator,
    read: Callable[[Any], C],
    n: int,  # choices, as the request has it
) -> Generator[C, None, bool]:
    """Read the chunks of a stream and add them to `total`; return True at the end.

    Not a method: a generator that refers to the stream would keep it from garbage collection.
    """
    read_chunk = decoder(CreateChatCompletionChunk)
    body = _EventReader(exchange)
    value: dict[str, Any] = {}
    complete = False
    try:
        for value in body.chunks(pieces):
            if not complete:  # a complete answer is passed on, even after the deadline
                exchange.check_deadline()
            chunk: Any = read_chunk(value)
            shown = total.take(value)
            if total.needs_check and (failure := find_error(value)):
                raise error_in_reply(failure, exchange)
            if shown is not value or read is not read_chunk:
                chunk = read(shown)
            yield chunk
            if total.needs_check and value.get("choices"):
                # Some servers continue after a finish reason, so each choice restarts the time.
                complete = total.is_complete(n)
                exchange.end_within(_AFTER_FINISH_SECONDS if complete else None)
        body.check_end(total)
        exchange.finish()
        return True
    except OpenAIError as error:
        if isinstance(error, HTTPError) and exchange.state != "left" and total.is_complete(n):
            return True  # the answer is complete, however the body ended
        if isinstance(error, DeserializeError) and error.body is None:
            error.body = exchange.redacted(json.dumps(value))
        error.partial = _partial(total, exchange)
        with_reply(error, exchange)
        raise
    finally:
        exchange.close()


def _partial(total: ResponseAccumulator, exchange: Exchange) -> CreateChatCompletionResponse:
    """The response so far, for an error; the API key is struck out where a server repeats it."""
    partial = CreateChatCompletionResponse.from_dict(exchange.redacted(total.response().to_dict()))
    partial.request_id, partial.headers = exchange.request_id, exchange.safe_headers
    return partial


class _EventReader:
    """Sorts the events of a stream: yields chunks, raises errors, and judges the end."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._events = EventDecoder()
        self._name = ""  # of the last event that brought a chunk
        self._remark = ""  # the last text, or other object, that may explain an early end
        self._done = False  # `[DONE]` came

    def chunks(self, pieces: Iterator[bytes]) -> Iterator[dict[str, Any]]:
        """The JSON objects of the chunks, up to `[DONE]` or the end of the body."""
        events = self._events
        scan = json.JSONDecoder().raw_decode
        # None stands for the end of the body, which may complete one more event.
        for piece in chain(pieces, (None,)):
            for name, data in events.close() if piece is None else events.feed(piece):
                try:
                    value, end = scan(data)  # faster than json.loads
                    if end > 500:  # shorter JSON is not nested too deeply for recursion
                        check_depth(data, value)
                except (ValueError, RecursionError):
                    value, end = None, -1
                if name or end != len(data) or not _is_chunk(value):
                    yield from self._chunks_in(name, data)
                else:
                    yield value
                if self._done:
                    return
        if not events.any_came and (text := events.non_sse_text.strip()):
            found = self._chunks_in("", text)
            if not found and parsed(text)[1]:
                raise not_json(self._exchange, text.encode("utf-8", "replace"))
            # One JSON object, unless it has a delta, is an answer without a stream.
            self._done = len(found) == 1 and '"delta"' not in text
            yield from found

    def _chunks_in(self, name: str, data: str) -> list[dict[str, Any]]:
        """The chunks in an event: usually one or none. Raises APIError if it is an error."""
        text = data.strip()
        value: Any
        value, broken = parsed(text)
        lines = [line for line in text.split("\n") if line.strip()]
        are_events = (line.strip() == "[DONE]" or is_dict(parsed(line)[0]) for line in lines)
        if broken and len(lines) > 1 and all(are_events):
            return [chunk for line in lines for chunk in self._chunks_in(name, line)]
        kind = self._kind_of(name, text, value)
        if kind == "failure":
            raise error_event(value, text, self._exchange)
        if kind == "broken":
            raise self._unusable("an event is not a JSON object", text)
        if kind == "remark":
            self._remark = text[:_LONGEST_REMARK]
        self._done = self._done or kind == "done"
        if kind != "chunk":
            return []
        self._name = name
        return [value]

    def _kind_of(self, name: str, text: str, value: Any) -> str:
        """The kind of an event. `value` is the JSON in `text`; None if that is not JSON."""
        is_object = is_dict(value)
        like_json = value is None and re.search(r"[{}]|^\[", text)
        is_foreign, error = name not in ("", "message", self._name), find_error(value)
        kinds: tuple[tuple[str, Any], ...] = (  # the first that fits decides
            ("failure", name.lower() in ERROR_NAMES),
            ("chunk", _is_chunk(value)),
            ("done", text == "[DONE]"),
            ("failure", error and is_object and is_dict(value.get("error"))),  # under any name
            ("remark", error and is_foreign),  # perhaps the error of something else
            ("other", not text or is_foreign),
            ("failure", error),
            ("chunk", is_object and "usage" in value),
            ("other", like_json and self._events.closed),  # the end of the body cut it
            ("broken", like_json or is_list(value)),
            ("remark", re.search(r"\w", text) if is_object else not _HEARTBEAT.fullmatch(text)),
        )
        return next((kind for kind, fits in kinds if fits), "other")

    def check_end(self, total: ResponseAccumulator) -> None:
        """Raise the error of a stream that has ended and is not complete."""
        outside = self._events.non_sse_text if self._events.any_came else ""
        for text in (outside, *outside.split("\n")):
            if failure := find_error(parsed(text)[0]):
                raise error_in_reply(failure, self._exchange)
        if '"choices"' in outside:
            raise self._unusable("a part of the answer is not a server-sent event", outside)
        evidence = f"{self._remark}\n{outside}".strip()
        if total.is_complete() or (total.has_choices and self._done and not evidence):
            return
        if total.has_choices:
            choices = ", ".join(map(str, sorted(total.unfinished)[:3]))
            end = "" if self._done else ", and [DONE] did not come"
            reason = f"choice {choices} has no finish reason{end}"
        elif evidence:
            raise self._unusable("the stream holds no answer", evidence)
        else:
            reason = "it holds no answer"
            came = {key: item for key, item in total.response().to_dict().items() if item}
            del came["object"]  # set by the accumulator
            evidence = json.dumps(came) if came else ""
        # Strike out the key before the excerpt may cut it in two.
        sent = excerpt(self._exchange.redacted(evidence))
        quoted = f"; the server sent: {sent}" if sent else ""
        raise interrupted(f"ended early: {reason}{quoted}", self._exchange)

    def _unusable(self, what: str, text: str) -> DeserializeError:
        return unusable(self._exchange, text.encode("utf-8", "replace"), what)


def _is_chunk(value: Any) -> TypeGuard[dict[str, Any]]:
    return type(value) is dict and "choices" in value
