"""Structured output: an answer as an instance of a class.

    recipe = parse_chat_completion(client, request, Recipe)

The request describes the class by a strict JSON Schema. The answer is read into the class, or
an error holds it.
https://platform.openai.com/docs/guides/structured-outputs
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, overload

from ..chat import (
    ChatRequest,
    create_chat_completion,
    create_chat_completion_stream,
    request_members,
)
from ..client import OpenAIClient
from ..errors import (
    ConfigError,
    DeserializeError,
    OpenAIError,
    OutputTruncatedError,
    RefusalError,
    excerpt,
)
from ..models import ChatCompletionUsage, ChatMessage, CreateChatCompletionResponse
from ..redaction import without_traceback
from ..replies import parsed
from .partial import json_in, json_so_far
from .results import ResultStream, about_response, added_usage, check_at_least
from .schema import SchemaBuilder
from .shapes import Property, object_schema, object_shape

V = TypeVar("V")


@dataclass
class ParsedCompletion(Generic[V]):
    """The result of parse_chat_completion with `with_response=True`.

    `value` is the instance, and `response` the response that it was read from. `usage` is the
    sum over all attempts, if the server reports it.
    """

    value: V
    response: CreateChatCompletionResponse
    usage: ChatCompletionUsage | None


@overload
def parse_chat_completion(
    client: OpenAIClient,
    request: ChatRequest,
    into: type[V],
    *,
    attempts: int = 1,
    with_response: Literal[False] = False,
) -> V: ...


@overload
def parse_chat_completion(
    client: OpenAIClient,
    request: ChatRequest,
    into: type[V],
    *,
    attempts: int = 1,
    with_response: Literal[True],
) -> ParsedCompletion[V]: ...


@overload
def parse_chat_completion(
    client: OpenAIClient,
    request: ChatRequest,
    into: object,
    *,
    attempts: int = 1,
    with_response: bool = False,
) -> Any: ...


def parse_chat_completion(
    client: OpenAIClient,
    request: ChatRequest,
    into: Any,
    *,
    attempts: int = 1,
    with_response: bool = False,
) -> Any:
    """Ask for an answer of type `into`, and return it as an instance.

    `into` is a dataclass, a TypedDict, a Pydantic model, a list of one of them, or any other
    type that `json_schema` describes. The request must not have a `response_format`.

    attempts: the maximum number of requests. After an answer that does not match, the model
        receives the reason. The client's limits apply to each request
    with_response: return a ParsedCompletion, which also has the response and the usage

    Raises RefusalError if the model refuses, OutputTruncatedError if a token limit ended the
    answer, DeserializeError if the last answer does not match `into`, and what
    create_chat_completion raises. The first three have the response as `partial`, with the
    usage of all attempts.
    https://platform.openai.com/docs/guides/structured-outputs
    """
    check_at_least(1, attempts=attempts)
    try:
        found = _parsed(client, request, into, attempts)
    except OpenAIError as error:
        raise without_traceback(error) from error.__cause__
    return found if with_response else found.value


def _parsed(
    client: OpenAIClient, request: ChatRequest, into: Any, attempts: int
) -> ParsedCompletion[Any]:
    answer = _AnswerType(client, into)
    body = answer.body(request)
    usage: ChatCompletionUsage | None = None
    while True:
        response = create_chat_completion(client, body)
        usage = added_usage(usage, response.usage)
        try:
            value = answer.read(response, usage)
        except DeserializeError as error:
            attempts -= 1
            if not attempts:
                raise
            again = f"That does not match the schema: {error}. Give the complete answer again."
            # Only the text: a tool call in the message would need an answer.
            wrong = ChatMessage.assistant(response.text)
            body["messages"] = [*(body.get("messages") or ()), wrong, ChatMessage.user(again)]
        else:
            return ParsedCompletion(value, response, usage)


@overload
def stream_parsed(
    client: OpenAIClient, request: ChatRequest, into: type[V]
) -> ResultStream[dict[str, Any] | V, V]: ...


@overload
def stream_parsed(
    client: OpenAIClient, request: ChatRequest, into: object
) -> ResultStream[Any, Any]: ...


def stream_parsed(client: OpenAIClient, request: ChatRequest, into: Any) -> ResultStream[Any, Any]:
    """Ask for an answer of type `into`, and stream its parts while the model writes it.

        with stream_parsed(client, request, Recipe) as stream:
            for part in stream: ...         # {"title": "Pi"}, ... and at last the Recipe
            recipe = stream.result()

    The parts are plain dicts that hold the answer so far, unchecked: a text may be cut at any
    character, a number appears when it is complete. The last item is the instance, which is
    checked. A type that is not an object comes under the key "value". A long answer has fewer
    parts than chunks.

    The request is sent when the first item is read. Iterating raises what
    parse_chat_completion and a ChatCompletionStream raise.
    """
    answer = _AnswerType(client, into)
    return ResultStream(_parsed_parts(client, answer.body(request), answer))


def _parsed_parts(
    client: OpenAIClient, body: dict[str, Any], answer: _AnswerType
) -> Generator[Any, None, Any]:
    text, last, next_length = "", dict[str, Any](), 1
    with create_chat_completion_stream(client, body) as stream:
        for piece in stream.text_deltas():
            text += piece
            if len(text) < next_length:
                continue
            # Each part takes a pass over all the text. The work stays linear if the length grows
            # by a factor from one part to the next.
            next_length = len(text) * 65 // 64 + 1
            part = json_so_far(text)
            if part != last:
                last = part
                yield part
        response = stream.response()
    value = answer.read(response, response.usage)
    yield value
    return value


class _AnswerType:
    """The type of an answer: its schema for the request, and its reader."""

    def __init__(self, client: OpenAIClient, into: Any) -> None:
        self._client = client
        title = re.sub("[^a-zA-Z0-9_-]", "_", getattr(into, "__name__", ""))[:64] or "answer"
        builder = SchemaBuilder()
        self._shape = self._bare = builder.shape(into, title)
        if "properties" not in builder.schema(self._shape, title, strict=False):
            properties = {"value": Property("value", self._bare)}
            self._shape = object_shape(properties, _unwrapped, object_schema(properties))
        schema = builder.schema(self._shape, title, strict=True)
        named = {"name": title, "schema": schema, "strict": True}
        self._response_format = {"type": "json_schema", "json_schema": named}

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """The members of the request, with the schema."""
        body = request_members(request)
        if body.get("response_format") is not None:
            raise ConfigError("response_format is set by this function: leave it out")
        return {**body, "response_format": self._response_format}

    def read(
        self, response: CreateChatCompletionResponse, usage: ChatCompletionUsage | None
    ) -> Any:
        """The instance in a response. Errors carry the response, with this usage."""
        text = ""
        try:
            text = _complete_text(response)
            return self._found_in(text, response)
        except (DeserializeError, RefusalError, OutputTruncatedError) as error:
            if isinstance(error, DeserializeError):
                error.body = text
            response.usage = usage
            is_safe = self._client._secrets.redacted(text) == text
            cause = error.__cause__ if is_safe else None
            raise about_response(error, response, self._client) from cause

    def _found_in(self, text: str, response: CreateChatCompletionResponse) -> Any:
        misfit: DeserializeError | None = None
        for shape in dict.fromkeys((self._shape, self._bare)):
            for value in json_in(text):
                try:
                    return shape.read(value)
                except DeserializeError as error:
                    misfit = misfit or error
        # An object was meant to fit the schema; any other text may be the value itself.
        may_be_bare = self._bare is not self._shape and text.strip()
        if may_be_bare and not isinstance(parsed(text)[0], dict):
            try:
                return self._bare.read(text.strip())
            except DeserializeError:
                pass
        text = self._client._secrets.redacted(text)  # before excerpt() can cut a secret
        raise misfit or DeserializeError(f"$: {_why_no_json(response, text)}")


def _unwrapped(value: Any) -> Any:
    return value


def _complete_text(response: CreateChatCompletionResponse) -> str:
    """The text of the first choice. Raises if it is a refusal or was cut off."""
    choice = response.choices[0]
    if choice.message.refusal:
        raise RefusalError(f"the model refused: {choice.message.refusal}")
    if choice.finish_reason == "content_filter":
        raise RefusalError("the content filter stopped the answer")
    if choice.finish_reason == "length":
        used = response.usage.completion_tokens if response.usage else None
        after = f" after {used} tokens" if used else ""
        raise OutputTruncatedError(f"the answer was cut off{after}: raise max_completion_tokens")
    return response.text


def _why_no_json(response: CreateChatCompletionResponse, text: str) -> str:
    if text:
        return f"the answer is not JSON: {excerpt(text)}"
    calls = response.choices[0].message.tool_calls
    return "the model called a tool instead of answering" if calls else "the answer is empty"
