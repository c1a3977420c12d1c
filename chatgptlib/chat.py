"""One function per endpoint: path, body, type, nothing else.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, overload

from .client import EVENT_STREAM, OpenAIClient, answer_json, send, with_answer
from .codec import T, decoder, encode, members
from .errors import ConfigError, DeserializeError
from .messages import (
    CreateChatCompletionChunk,
    CreateChatCompletionRequest,
    CreateChatCompletionResponse,
)
from .stream import ChatCompletionStream, collected
from .transport import Answer

_COMPLETIONS = "chat/completions"


@overload
def create_chat_completion(
    client: OpenAIClient, request: CreateChatCompletionRequest | Mapping[str, Any] | Any
) -> CreateChatCompletionResponse: ...


@overload
def create_chat_completion(
    client: OpenAIClient,
    request: CreateChatCompletionRequest | Mapping[str, Any] | Any,
    *,
    into: type[T],
) -> T: ...


def create_chat_completion(
    client: OpenAIClient,
    request: CreateChatCompletionRequest | Mapping[str, Any] | Any,
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
    body = _body(request)
    if body.get("stream"):
        raise ConfigError("stream=True is for create_chat_completion_stream()")
    read = decoder(into)
    answer = send(client, "POST", _COMPLETIONS, encode(body))
    content = answer.read()
    if content[:6].lstrip().startswith((b"data:", b"event:", b":")):  # a stream, unasked
        value = collected(answer, content).to_dict()
    else:
        value = answer_json(answer, content)
    return _finished(read, value, answer, content)


@overload
def create_chat_completion_stream(
    client: OpenAIClient, request: CreateChatCompletionRequest | Mapping[str, Any] | Any
) -> ChatCompletionStream[CreateChatCompletionChunk]: ...


@overload
def create_chat_completion_stream(
    client: OpenAIClient,
    request: CreateChatCompletionRequest | Mapping[str, Any] | Any,
    *,
    into: type[T],
) -> ChatCompletionStream[T]: ...


def create_chat_completion_stream(
    client: OpenAIClient,
    request: CreateChatCompletionRequest | Mapping[str, Any] | Any,
    *,
    into: type[Any] = CreateChatCompletionChunk,
) -> ChatCompletionStream[Any]:
    """Ask for an answer, and return it as a stream of chunks.

    The request is sent, and a refusal raised, here; see ChatCompletionStream for what
    iterating raises. `request` and `into` are as for create_chat_completion; `into` is
    the class of the chunks.
    https://platform.openai.com/docs/api-reference/chat-streaming
    """
    body = _body(request)
    body["stream"] = True
    decoder(into)  # a class that can't be read into is refused before anything is sent
    answer = send(client, "POST", _COMPLETIONS, encode(body), accept=EVENT_STREAM)
    n, options = body.get("n"), body.get("stream_options")
    return ChatCompletionStream(
        answer,
        into,
        choices=n if isinstance(n, int) else 1,
        usage=isinstance(options, Mapping) and options.get("include_usage") is True,
    )


def _body(request: Any) -> dict[str, Any]:
    if isinstance(request, Mapping):
        return dict(request)
    if dataclasses.is_dataclass(request) and not isinstance(request, type):
        return members(request)
    raise ConfigError(f"a request is a dataclass or a mapping, not {type(request).__name__}")


def _finished(read: Any, value: Any, answer: Answer, content: bytes) -> Any:
    try:
        response = read(value)
    except DeserializeError as error:
        error.body = answer.redacted(content.decode("utf-8", "replace"))
        with_answer(error, answer)
        raise
    if isinstance(response, CreateChatCompletionResponse):
        response.request_id, response.headers = answer.request_id, answer.headers
    return response
