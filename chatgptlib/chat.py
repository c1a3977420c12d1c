"""The two functions that create a chat completion, and what a reply without a stream must hold.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeGuard, overload

from .client import EVENT_STREAM, OpenAIClient, send
from .codec import T, decode, decoder, encode, is_dict, object_members
from .dialects import in_form, with_usage
from .errors import (
    ConfigError,
    DeserializeError,
    HTTPError,
    JSONValue,
    OpenAIError,
    without_traceback,
)
from .exchange import Exchange
from .models import (
    CreateChatCompletionChunk,
    CreateChatCompletionRequest,
    CreateChatCompletionResponse,
)
from .replies import E, answer_json, error_in_reply, find_error, unusable

if TYPE_CHECKING:
    from .stream import ChatCompletionStream

_COMPLETIONS = "chat/completions"

_BLANK = b"\xef\xbb\xbf \r\n"
_EVENT_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


class DataclassInstance(Protocol):
    """An instance of any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


ChatRequest = CreateChatCompletionRequest | Mapping[str, Any] | DataclassInstance
"""What the create functions take: the library's request, any other dataclass, or a mapping."""


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
    """Ask for an answer, and return the whole of it.

    `request` is a CreateChatCompletionRequest, another dataclass, or a mapping. `into` is
    the class to read the answer into; `dict` gives the JSON as it came.

    Raises ConfigError for a request that can't be sent, HTTPError when no whole answer
    came, APIError when the server refused, DeserializeError when its answer is none.
    https://platform.openai.com/docs/api-reference/chat/create
    """
    body = request_members(request)
    if body.get("stream"):
        raise ConfigError("stream=True is for create_chat_completion_stream()")
    read = decoder(into)
    content = encode(body)

    def read_answer(value: JSONValue) -> Any:
        answer = _with_messages(value)
        return read(value if into is dict else answer)

    try:
        return finished(read_answer, send(client, "POST", _COMPLETIONS, content))
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
    """Ask for an answer, and return it as a stream of chunks.

    The request is sent, and a refusal raised, here; see ChatCompletionStream for what
    iterating raises. `request` and `into` are as for create_chat_completion; `into` is
    the class of the chunks.
    https://platform.openai.com/docs/api-reference/chat-streaming
    """
    from .stream import ChatCompletionStream

    body = request_members(request)
    body["stream"] = True
    decoder(into)  # a class that can't be read into is refused before anything is sent
    content = encode(body)
    try:
        exchange = send(client, "POST", _COMPLETIONS, content, accept=EVENT_STREAM)
    except OpenAIError as error:
        raise without_traceback(error) from error.__cause__
    n = body.get("n")
    return ChatCompletionStream(exchange, into, choices=n if isinstance(n, int) else 1)


def request_members(request: Any) -> dict[str, Any]:
    """The keys of a request, which is a dataclass or a mapping, values as they are."""
    found = object_members(request)
    if found is None:
        raise ConfigError(f"expected a dataclass or a mapping, not {type(request).__name__}")
    return found


def _with_messages(value: JSONValue) -> Mapping[str, Any]:
    """The JSON of a response with each choice's message and the usage in the API's own places.

    A choice that says nothing is left out. Raises DeserializeError if no choice is left.
    """
    data = value if isinstance(value, dict) else {}
    choices = data.get("choices")
    found: list[Any] = []
    for choice in choices if isinstance(choices, list) else ():
        if _says_something(choice):
            reason = choice.get("finish_reason")
            reason = None if reason == "null" else reason  # which some servers send as text
            found.append(in_form({**choice, "finish_reason": reason}, "message", "delta"))
    if not found:
        raise DeserializeError("$.choices: empty: the reply holds no answer", path="$.choices")
    return with_usage({**data, "choices": found})


def _says_something(choice: Any) -> TypeGuard[dict[str, Any]]:
    if not is_dict(choice):
        return False
    if any(choice.get(form) is not None for form in ("message", "delta", "text")):
        return True
    others = (choice[key] for key in choice if key not in ("index", "finish_reason"))
    return bool(choice.get("finish_reason")) and not any(isinstance(x, str) for x in others)


# The reply to any of the completions' endpoints


def finished(read: Callable[[Any], Any], exchange: Exchange) -> Any:
    """The object in the body of a reply, made by `read` from its JSON."""
    pieces = exchange.iter_bytes(HTTPError)
    content = b""
    while len(content) < len("event:") and (piece := next(pieces, b"")):
        content = (content + piece).lstrip(_BLANK)
    if content.startswith(_EVENT_FIELDS):  # a stream, unasked
        from .stream import collected

        value: JSONValue = collected(exchange, chain([content], exchange.iter_bytes())).to_dict()
    else:
        content = b"".join([content, *pieces])
        value = answer_json(exchange, content)
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
    """`error` with as much of an answer as came beside it."""
    try:
        response = decode(CreateChatCompletionResponse, _with_messages(exchange.redacted(value)))
    except DeserializeError:
        return error  # nothing came
    response.request_id, response.headers = error.request_id, error.headers or {}
    error.partial = response
    return error
