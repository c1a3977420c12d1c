"""The stream object that the user holds.

    for chunk in stream: ...            # or stream.text_deltas()
    response = stream.response()        # what the call would have given without a stream

A stream ended well if `[DONE]` came, or if every choice seen has its finish reason, and
nothing in between told of a failure. Any other end is a `StreamInterruptedError`, with the
response so far.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeGuard, TypeVar

from .accumulate import ResponseAccumulator
from .codec import decode, decoder
from .dialects import with_whole_characters
from .errors import (
    ConfigError,
    DeserializeError,
    HTTPError,
    OpenAIError,
    StreamInterruptedError,
    excerpt,
    without_traceback,
)
from .exchange import Exchange
from .models import CreateChatCompletionChunk, CreateChatCompletionResponse
from .replies import (
    check_depth,
    error_event,
    error_in_reply,
    find_error,
    not_json,
    parsed,
    with_answer,
)
from .sse import EventDecoder

if TYPE_CHECKING:
    from typing_extensions import Self

C = TypeVar("C")


class ResponseStream(Generic[C]):
    """What arrives in a response, as it arrives: an iterator, and a context manager.

    `items` returns True when it has come to the end of the stream. Left before that, the
    stream closes its connection: at the end of a `with` block, by `close()`, or when it is
    forgotten.
    """

    def __init__(self, exchange: Exchange, items: Generator[C, None, bool]) -> None:
        self._exchange = exchange
        self._items = items
        self._closed = False
        self._complete = False

    @property
    def request_id(self) -> str | None:
        """The server's name for the request, to quote to its support."""
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
        """Leave the stream and free its connection.

        Returns at once, and may be called from any thread: one that waits for the next
        item is woken, with StreamInterruptedError.
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
    return with_answer(StreamInterruptedError(f"the stream {how} [{exchange.where}]"), exchange)


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

    def __init__(self, exchange: Exchange, into: type[C], *, choices: int = 1) -> None:
        self._total = ResponseAccumulator()
        pieces = exchange.iter_bytes()
        super().__init__(exchange, _chunks(exchange, pieces, self._total, decoder(into), choices))

    def text_deltas(self) -> Iterator[str]:
        """The text of the first choice alone, piece by piece, no character ever split."""
        return with_whole_characters(map(_text_of_chunk, self))

    def response(self) -> CreateChatCompletionResponse:
        """Read what is left and return the whole answer, as a call without a stream would.

        Raises what iterating raises; an answer that is not whole is never returned.
        """
        deque(self, maxlen=0)  # not a loop, whose variable would show the last chunk
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


def collected(exchange: Exchange, pieces: Iterator[bytes]) -> CreateChatCompletionResponse:
    """The response in the body of an answer that came as a stream, unasked."""
    total = ResponseAccumulator()
    for _ in _chunks(exchange, pieces, total, decoder(dict)):
        pass
    return total.response()


_NO_EVENT = "no event"  # the name, which no server can send, of a body without events
_MOST_REMARKS, _LONGEST_REMARK = 10, 10_000  # characters: enough to say what went wrong
_AFTER_FINISH_SECONDS = 4.9  # for `[DONE]` and the usage: five in all


def _chunks(
    exchange: Exchange,
    pieces: Iterator[bytes],
    total: ResponseAccumulator,
    read: Callable[[Any], C],
    asked: int = 1,
) -> Generator[C, None, bool]:
    """The chunks of a stream, added up in `total` on their way, and True at its end.

    A function of its own, not a method: a generator that held the stream would keep it,
    and its connection, alive after the user has forgotten it.
    """
    read_chunk = decoder(CreateChatCompletionChunk)
    body = _Body(exchange)
    value: dict[str, Any] = {}
    try:
        for value in body.chunks(pieces):
            chunk: Any = read_chunk(value)
            shown = total.take(value)
            if not total.only_deltas and (failure := find_error(value)):
                raise error_in_reply(failure, exchange)
            exchange.check_deadline()
            if shown is not value or read is not read_chunk:
                chunk = read(shown)
            yield chunk
            if not total.only_deltas and value.get("choices"):
                # More of the answer may follow even on a finish reason: the time starts anew.
                exchange.end_within(_AFTER_FINISH_SECONDS if total.is_complete(asked) else None)
        body.check_end(total)
        exchange.finish()
        return True
    except OpenAIError as error:
        if isinstance(error, HTTPError) and exchange.state != "left" and total.is_complete(asked):
            return True  # it does not matter how the body ended
        if isinstance(error, DeserializeError) and error.body is None:
            error.body = exchange.redacted(json.dumps(value))
        error.partial = _partial(total, exchange)
        with_answer(error, exchange)
        raise
    finally:
        exchange.close()


def _partial(total: ResponseAccumulator, exchange: Exchange) -> CreateChatCompletionResponse:
    """What came so far, for an error to carry: without the key, if the server repeats it."""
    return CreateChatCompletionResponse.from_dict(exchange.redacted(total.response().to_dict()))


class _Body:
    """The chunks in the body of a stream; and what else it said, which may be of a failure."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._events = EventDecoder()
        self._names = {"", "message", _NO_EVENT}  # of events that bring chunks
        self._remarks: list[str] = []  # what was said in place of chunks
        self._done = False  # `[DONE]` came

    def chunks(self, pieces: Iterator[bytes]) -> Iterator[dict[str, Any]]:
        """The JSON objects of the chunks."""
        scan = json.JSONDecoder().raw_decode
        # None stands for the end of the body, which may complete an event too.
        for piece in chain(pieces, (None,)):
            for name, data in self._last() if piece is None else self._events.feed(piece):
                try:
                    value, end = scan(data)  # without the search for white space around it
                    if end > 200:  # less is not deep enough to matter
                        check_depth(data, value)
                except (ValueError, RecursionError):
                    value, end = None, -1
                if name or end != len(data) or not _is_chunk(value):
                    yield from self._objects_in(name, data)
                else:
                    yield value
                if self._done:
                    return

    def _last(self) -> list[tuple[str, str]]:
        """The event that the end of the body completes; or a body that held none, as one."""
        found = self._events.close()
        text = self._events.non_sse_text.strip()
        return found or ([(_NO_EVENT, text)] if text and not self._events.any_came else [])

    def _objects_in(self, name: str, data: str) -> list[dict[str, Any]]:
        """The JSON objects of the chunks in an event: mostly one, or none."""
        value, broken = parsed(data)
        text = data.strip()
        lines = text.split("\n")
        if broken and len(lines) > 1 and all(_is_whole_event(line) for line in lines):
            return [found for line in lines for found in self._objects_in(name, line)]
        if name.lower() in ("error", "exception") and not _is_chunk(value):
            raise error_event(value, text, self._exchange)
        if _is_chunk(value):
            if len(self._names) < _MOST_REMARKS:
                self._names.add(name)
            self._done = self._done or name is _NO_EVENT  # the whole answer at once
            return [value]
        if text == "[DONE]":
            self._done = True
            return []
        if name not in self._names or not text:
            return []  # an event of some other kind
        if found := find_error(value):
            raise error_in_reply(found, self._exchange)
        if name is _NO_EVENT and not isinstance(value, dict):
            raise not_json(self._exchange, text.encode("utf-8", "replace"))
        cut = broken and self._events.closed  # no fault but the end
        if isinstance(value, list) or (broken and not cut and re.search(r"[{}]|^\[", text)):
            shown = self._exchange.redacted(text)
            words = f"an event of the stream is no JSON object: {excerpt(shown)}"
            raise DeserializeError(f"{words} [{self._exchange.where}]", body=shown)
        if isinstance(value, dict):
            is_remark = bool(value) and "usage" not in value
        else:  # one word may be a heartbeat; more may be all that is said of a failure
            is_remark = not (cut or text.startswith(":")) and re.search(r"\s", text) is not None
        if is_remark and len(self._remarks) < _MOST_REMARKS:
            self._remarks.append(text[:_LONGEST_REMARK])
        return [value] if isinstance(value, dict) else []

    def check_end(self, total: ResponseAccumulator) -> None:
        """Raise unless the stream, whose body is over, or which said that it is, ended well."""
        exchange, remarks = self._exchange, self._remarks
        if self._events.any_came:
            remarks.append(self._events.non_sse_text)
        said = "\n".join(remarks).strip()
        for remark in remarks:
            if found := find_error(parsed(remark)[0]):
                raise error_in_reply(found, exchange)
        if total.is_complete() or (total.has_choices and self._done and not said):
            return
        if said and not total.has_choices:
            raise not_json(exchange, said.encode("utf-8", "replace"))
        if total.has_choices:
            missing = " and ".join(f"the finish reason of choice {i}" for i in total.unfinished[:3])
            reason = (
                f"{missing} did not come" if self._done else f"neither [DONE] came, nor {missing}"
            )
            before, quoted = ", but: ", said
        else:
            came = {key: value for key, value in total.response().to_dict().items() if value}
            del came["object"]  # which is ours
            reason, quoted, before = (
                "it held no answer",
                json.dumps(came) if came else "",
                ", only ",
            )
        # Redacted first: the beginning of a key that an excerpt cuts off would not be found.
        reason += before + excerpt(exchange.redacted(quoted)) if quoted else ""
        raise StreamInterruptedError(f"the stream ended early: {reason} [{exchange.where}]")


def _is_whole_event(line: str) -> bool:
    return line.strip() in ("", "[DONE]") or isinstance(parsed(line)[0], dict)


def _is_chunk(value: Any) -> TypeGuard[dict[str, Any]]:
    return type(value) is dict and "choices" in value
