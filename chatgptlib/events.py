"""The events of any endpoint that streams, under the names the server gives them.

    with client.stream("responses", {"model": "gpt-4o-mini", "input": "Hi"}) as events:
        for event in events:
            if event.event == "response.output_text.delta":
                print(event.data["delta"], end="")

Chat completions have a stream of their own, which knows what is in their chunks.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import ConfigError, OpenAIError, StreamInterruptedError, without_traceback
from .exchange import Exchange
from .replies import error_event, not_json, only_error, parsed, told_in_answer, with_answer
from .sse import EventDecoder

if TYPE_CHECKING:
    from typing_extensions import Self


ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class ServerSentEvent:
    """An event: its name, "" where it has none, and its data, text where it is no JSON."""

    event: str
    data: Any


class ResponseStream(Generic[ItemT]):
    """What arrives in a response, as it arrives: an iterator, and a context manager.

    `items` returns True when it has come to the end of the stream. Left before that, the
    stream closes its connection: at the end of a `with` block, by `close()`, or when it is
    forgotten.
    """

    def __init__(self, exchange: Exchange, items: Generator[ItemT, None, bool]) -> None:
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

    def __iter__(self) -> Iterator[ItemT]:
        return self

    def __next__(self) -> ItemT:
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
        return _interrupted("was closed, or failed, before its end", self._exchange)


class EventStream(ResponseStream[ServerSentEvent]):
    """The events of an answer, as they arrive: an iterator, and a context manager.

    The server has accepted the request when this exists. It ends at `[DONE]`, or with
    the body of the answer; the endpoint's page says which event is the last.

    Iterating raises APIError for an event that is an error, StreamInterruptedError when
    the connection is lost, RequestTimeoutError when the server falls silent or the
    deadline runs out, DeserializeError for a page in place of a stream.
    """

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange, _events(exchange))


def _events(exchange: Exchange) -> Generator[ServerSentEvent, None, bool]:
    """The events, and True when they have ended well.

    A function, not a method: a generator that held the stream would keep it, and its
    connection, alive after the user has forgotten it."""
    decoder = EventDecoder()
    done = False
    try:
        # None stands for the end of the body, which may complete an event too.
        for piece in chain(exchange.iter_bytes(), (None,)):
            for name, data in decoder.close() if piece is None else decoder.feed(piece):
                if done := data.strip() == "[DONE]":
                    break
                event = _event(name, data, decoder.closed, exchange)
                exchange.check_deadline()
                yield event
            if done:
                break
        if stray := decoder.stray.strip():  # an error, a page, or the whole answer at once
            value, broken = parsed(stray)
            if told := only_error(value):
                raise told_in_answer(told, exchange)
            if broken is not None and not decoder.any_came:
                content = stray.encode("utf-8", "replace")
                raise not_json(exchange, content)
            if not decoder.any_came:
                yield ServerSentEvent("", value)
        exchange.finish()
        return True
    finally:
        exchange.close()


def _event(name: str, data: str, cut: bool, exchange: Exchange) -> ServerSentEvent:
    """`cut`: the body ended in this event, perhaps before all of it had come."""
    value, broken = parsed(data)
    if name == "error":
        raise error_event(value, data, exchange)
    if told := only_error(value):
        raise told_in_answer(told, exchange)
    if broken is None:
        return ServerSentEvent(name, value)
    if cut and data.lstrip().startswith(("{", "[")):
        raise _interrupted("ended in the middle of an event", exchange)
    return ServerSentEvent(name, data)


def _interrupted(how: str, exchange: Exchange) -> StreamInterruptedError:
    return with_answer(StreamInterruptedError(f"the stream {how} [{exchange.where}]"), exchange)
