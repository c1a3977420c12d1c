"""The two functions that create a chat completion, and the check of a reply that is no stream.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeGuard, overload

from .client import EVENT_STREAM, OpenAIClient, send
from .codec import T, decode, decoder, encode, is_dict, object_members
from .dialects import finish_reason_of, in_form, with_usage
from .errors import ConfigError, DeserializeError, HTTPError, JSONValue, OpenAIError
from .exchange import Exchange
from .models import (
    CreateChatCompletionChunk,
    CreateChatCompletionRequest,
    CreateChatCompletionResponse,
)
from .redaction import without_traceback
from .replies import E, error_in_reply, find_error, reply_json, unusable

if TYPE_CHECKING:
    from .stream import ChatCompletionStream

_COMPLETIONS = "chat/completions"

_BLANK = b"\xef\xbb\xbf \r\n"  # a byte order mark and white space
_EVENT_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


class DataclassInstance(Protocol):
    """An instance of any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


ChatRequest = CreateChatCompletionRequest | Mapping[str, Any] | DataclassInstance
"""A request for the functions here: CreateChatCompletionRequest, another dataclass, a mapping."""


@overload
def create_chat_completion(
    client: OpenAIClient, request: ChatRequest
) -> CreateChatCompletionResponse: ...


@overload
def create_chat_completion(
    client: OpenAIClient, request: ChatRequest, *, into: type[dict[str, Any]]
) -> dict[str, Any]: ...


@overload
def create_chat_completion(client: OpenAIClient, request: ChatRequest, *, into: type[T]) -> T: ...


def create_chat_completion(
    client: OpenAIClient,
    request: ChatRequest,
    *,
    into: type[Any] = CreateChatCompletionResponse,
) -> Any:
    """Create a chat completion, and return the complete response.

    For many at once, share one client: `ThreadPoolExecutor(8).map(partial(
    create_chat_completion, client), requests)`. Clients, requests, responses and errors
    pickle, so the same works in a ProcessPoolExecutor, or under Ray or Dask (with pure=False).

    request: a CreateChatCompletionRequest, another dataclass, or a mapping
    into: the class of the response, a dataclass or a TypedDict; `dict` for the JSON as it is

    Raises ConfigError for a request that cannot be sent, HTTPError if no complete reply
    arrived, APIError if the server reported an error, DeserializeError if the reply is not a
    chat completion.
    https://platform.openai.com/docs/api-reference/chat/create
    """
    body = request_members(request)
    if body.get("stream"):
        raise ConfigError("for stream=True, call create_chat_completion_stream()")
    read = decoder(into)
    content = encode(body)

    def read_answer(value: Any) -> Any:
        answer = _normalized_reply(value)
        choices: Any = answer.get("choices") if is_dict(answer) else None
        if not choices or not isinstance(choices, list):
            raise DeserializeError("$.choices: empty: the reply holds no answer", path="$.choices")
        for position, choice in enumerate(value["choices"]):
            if not _has_answer(choice) and _has_text(choice):  # perhaps its answer
                path = f"$.choices[{position}]"
                raise DeserializeError(f"{path}: no message", path=path)
        return read(value if into is dict else answer)

    try:
        return read_reply(read_answer, send(client, "POST", _COMPLETIONS, content), _n_of(body))
    except OpenAIError as error:
        raise without_traceback(error) from error.__cause__


@overload
def create_chat_completion_stream(
    client: OpenAIClient, request: ChatRequest
) -> ChatCompletionStream[CreateChatCompletionChunk]: ...


@overload
def create_chat_completion_stream(
    client: OpenAIClient, request: ChatRequest, *, into: type[dict[str, Any]]
) -> ChatCompletionStream[dict[str, Any]]: ...


@overload
def create_chat_completion_stream(
    client: OpenAIClient, request: ChatRequest, *, into: type[T]
) -> ChatCompletionStream[T]: ...


def create_chat_completion_stream(
    client: OpenAIClient,
    request: ChatRequest,
    *,
    into: type[Any] = CreateChatCompletionChunk,
) -> ChatCompletionStream[Any]:
    """Create a chat completion, and return it as a stream of chunks.

    request: as for create_chat_completion; `stream` is set here
    into: the class of each chunk; `dict` for its JSON

    The request is sent here. An error before the stream begins is raised here, as by
    create_chat_completion. See ChatCompletionStream for errors while iterating.
    https://platform.openai.com/docs/api-reference/chat-streaming
    """
    from .stream import ChatCompletionStream

    body = request_members(request)
    body["stream"] = True
    decoder(into)  # raises ConfigError before anything is sent
    content = encode(body)
    try:
        exchange = send(client, "POST", _COMPLETIONS, content, accept=EVENT_STREAM)
    except OpenAIError as error:
        raise without_traceback(error) from error.__cause__
    return ChatCompletionStream(exchange, into, choices=_n_of(body))


def request_members(request: Any) -> dict[str, Any]:
    """The JSON members of a request. Raises ConfigError for one of another type."""
    found = object_members(request)
    if found is None:
        raise ConfigError(f"a request is a dataclass or a mapping, not {type(request).__name__}")
    return found


def _n_of(body: Mapping[str, Any]) -> int:
    n = body.get("n")
    return n if isinstance(n, int) else 1


def _normalized_reply(value: JSONValue) -> Any:
    """The JSON of a response, with the messages and the usage at the keys that the API documents.

    A choice without an answer is left out. JSON without choices is returned unchanged.
    """
    if not isinstance(value, dict) or not isinstance(choices := value.get("choices"), list):
        return value
    found: list[Any] = []
    for choice in choices:
        if _has_answer(choice):
            reason = finish_reason_of(choice)
            found.append(in_form({**choice, "finish_reason": reason}, "message", "delta"))
    return with_usage({**value, "choices": found})


def _has_answer(choice: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a choice has a message, or only a finish reason, such as "content_filter"."""
    if not is_dict(choice):
        return False
    if any(choice.get(key) is not None for key in ("message", "delta", "text")):
        return True
    return bool(choice.get("finish_reason")) and not _has_text(choice)


def _has_text(choice: Any) -> bool:
    """Whether a choice is text or has text, other than a reason, at a key of its own."""
    if is_dict(choice):
        keys = (key for key in choice if isinstance(choice[key], str) and choice[key])
        return not all(key in ("id", "index", "object") or key.endswith("reason") for key in keys)
    return isinstance(choice, str)


# Reading the reply of this or another endpoint for completions


def read_reply(read: Callable[[Any], Any], exchange: Exchange, n: int = 1) -> Any:
    """Read the body of a reply with `n` choices; `read` turns its JSON into the result.

    Raises the error that the reply reports, or DeserializeError for a body that is not valid.
    """
    pieces = exchange.iter_bytes(HTTPError)
    content = b""
    while len(content) < len("event:") and (piece := next(pieces, b"")):
        content = (content + piece).lstrip(_BLANK)
    if content.startswith(_EVENT_FIELDS):  # a stream that was not requested
        from .stream import collected

        value: JSONValue = collected(exchange, chain([content], exchange.iter_bytes()), n).to_dict()
    else:
        content = b"".join([content, *pieces])
        value = reply_json(exchange, content)
    if failure := find_error(value):
        raise _with_partial(error_in_reply(failure, exchange), value, exchange)
    try:
        response = read(value)
    except DeserializeError as error:
        made = unusable(exchange, content, str(error), path=error.path)
        raise _with_partial(made, value, exchange) from None
    if isinstance(response, CreateChatCompletionResponse):
        response.request_id, response.headers = exchange.request_id, exchange.headers
    return response


def _with_partial(error: E, value: JSONValue, exchange: Exchange) -> E:
    """Return `error` with the response that came with it, if there is one, as its `partial`."""
    try:
        response = decode(CreateChatCompletionResponse, _normalized_reply(exchange.redacted(value)))
    except DeserializeError:
        return error
    response.request_id, response.headers = error.request_id, error.headers or {}
    error.partial = response
    return error
