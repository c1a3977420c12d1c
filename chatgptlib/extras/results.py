"""Results of calls: a stream that has a result, errors with their response, the sum of usages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from ..client import OpenAIClient
from ..codec import JSONObject, is_dict
from ..errors import (
    ConfigError,
    DeserializeError,
    OpenAIError,
    OutputTruncatedError,
    RefusalError,
    StreamInterruptedError,
)
from ..models import ChatCompletionUsage, CreateChatCompletionResponse
from ..redaction import without_traceback
from ..replies import E

if TYPE_CHECKING:
    from typing_extensions import Self

StepT = TypeVar("StepT")
EndT = TypeVar("EndT")
ObjectT = TypeVar("ObjectT", bound=JSONObject)
MovedT = TypeVar("MovedT")


class ResultStream(Generator[StepT, None, EndT]):
    """Items as they arrive, then a result: a generator and a context manager.

        for item in stream: ...
        result = stream.result()

    In a generator, `result = yield from stream` passes the items on. Iterating and result()
    raise what the function that made the stream documents, ConfigError while another thread
    reads the stream, and StreamInterruptedError after it was closed or failed.
    """

    def __init__(self, items: Generator[StepT, None, EndT]) -> None:
        self._items = items
        self._result: list[EndT] = []  # empty until the end
        self._open = True

    def __next__(self) -> StepT:
        return self._step(self._items.__next__)

    def send(self, value: None = None, /) -> StepT:
        """Return the next item, as `next()` does."""
        return self._step(self._items.__next__)

    def throw(self, *exception: Any) -> StepT:
        """Raise an exception inside the stream, for `yield from`."""
        return self._step(self._items.throw, *exception)

    def result(self) -> EndT:
        """Read the remaining items, and return the result.

        Raises what iterating raises.
        """
        deque(self, maxlen=0)  # a loop variable would keep the last item alive
        return self._result[0]

    def close(self) -> None:
        """Close the stream and free its connection. No further request is sent."""
        self._step(self._items.close)
        self._open = False

    def _step(self, move: Callable[..., MovedT], *arguments: Any) -> MovedT:
        """Call a method of the generator, and record how it ended."""
        try:
            return move(*arguments)
        except StopIteration as end:
            if self._open:
                self._result.append(end.value)
            self._open = False
            if self._result:
                raise StopIteration(self._result[0]) from None
            words = "the stream was closed, or failed, before its end"
            raise StreamInterruptedError(words) from None
        except BaseException as error:
            if _is_already_running(error):
                raise ConfigError("another thread is reading this stream") from None
            self._open = False
            if isinstance(error, OpenAIError):
                raise without_traceback(error) from error.__cause__
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _is_already_running(error: BaseException) -> bool:
    """Whether Python could not enter a generator that is running. The traceback then has no
    inner frame, unlike that of the same error raised by the generator itself."""
    is_value_error = isinstance(error, ValueError) and "already executing" in str(error)
    trace = error.__traceback__
    return is_value_error and trace is not None and trace.tb_next is None


def about_response(error: E, response: CreateChatCompletionResponse, client: OpenAIClient) -> E:
    """Attach to an error the response that it is about. The client's secrets are removed from
    both, since a server may repeat them."""
    redacted = client._secrets.redacted
    kind: Any = type(response.headers)  # a mapping that ignores case
    error.headers, error.request_id = kind(redacted(dict(response.headers))), response.request_id
    error.partial = safe = without_secrets(response, client)
    safe.headers, safe.request_id = error.headers or {}, error.request_id
    error.args = tuple(map(redacted, error.args))
    if isinstance(error, DeserializeError):
        error.body, error.path = map(redacted, (error.body, error.path))
    if isinstance(error, (RefusalError, OutputTruncatedError)):
        error.response = safe
    return error


def without_secrets(value: ObjectT, client: OpenAIClient) -> ObjectT:
    """A copy of an object that a server sent, without the client's secrets."""
    return type(value).from_dict(client._secrets.redacted(value.to_dict()))


def check_at_least(least: int, **numbers: Any) -> None:
    """Raise ConfigError for an argument that is not an int of at least `least`."""
    for name, value in numbers.items():
        if type(value) is not int or value < least:
            raise ConfigError(f"{name} must be {least} or more, not {value!r}")


def added_usage(
    so_far: ChatCompletionUsage | None, more: ChatCompletionUsage | None
) -> ChatCompletionUsage | None:
    """The sum of two usages, either of which may be missing."""
    if so_far is None or more is None:
        return so_far or more
    return ChatCompletionUsage.from_dict(_sum(so_far.to_dict(), more.to_dict()))


def _sum(one: Any, other: Any) -> Any:
    """Add the numbers at every level; keep the later of any other two values."""
    if is_dict(one) and is_dict(other):
        both = {key: _sum(one[key], other[key]) for key in one.keys() & other.keys()}
        return {**one, **other, **both}
    if isinstance(other, bool) or not all(
        isinstance(value, (int, float)) for value in (one, other)
    ):
        return other
    try:
        return one + other
    except OverflowError:  # of a float and an int that is too large for a float
        return max(one, other)
