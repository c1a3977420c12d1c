"""One function per endpoint: path, body, type, nothing else.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, overload

from .client import EVENT_STREAM, OpenAIClient, send
from .codec import T, decoder, encode, object_members
from .errors import ConfigError, DeserializeError, OpenAIError, without_traceback
from .exchange import Exchange
from .models import (
    CreateChatCompletionChunk,
    CreateChatCompletionRequest,
    CreateChatCompletionResponse,
)
from .replies import answer_json, body_text, with_answer

if TYPE_CHECKING:
    from .stream import ChatCompletionStream

_COMPLETIONS = "chat/completions"


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
def create_chat_completion(
    client: OpenAIClient,
    request: ChatRequest,
    *,
    into: type[T],
) -> T: ...


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
    try:
        return finished(read, send(client, "POST", _COMPLETIONS, content))
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
    client: OpenAIClient,
    request: ChatRequest,
    *,
    into: type[T],
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


def finished(read: Any, exchange: Exchange) -> Any:
    """The response in the body of an answer, made by `read`."""
    content = exchange.read()
    begin = content[:64].lstrip(b"\xef\xbb\xbf \r\n")
    if begin.startswith((b"data:", b"event:", b"id:", b"retry:", b":")):  # a stream, unasked
        from .stream import collected

        value = collected(exchange, content).to_dict()
    else:
        value = answer_json(exchange, content)
    try:
        response = read(value)
    except DeserializeError as error:
        error.body = body_text(exchange, content)
        with_answer(error, exchange)
        raise
    if isinstance(response, CreateChatCompletionResponse):
        response.request_id, response.headers = exchange.request_id, exchange.headers
    return response
