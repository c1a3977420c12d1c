"""Structured output: an answer as an instance of a class.

    recipe = parse_chat_completion(client, request, Recipe)

The request says by a strict JSON Schema what the answer has to look like; the answer is
read into the class, or there is an error that holds it.
https://platform.openai.com/docs/guides/structured-outputs
"""

from __future__ import annotations

import re
from types import UnionType
from typing import Any, TypeVar, overload

from ..chat import ChatRequest, create_chat_completion, request_members
from ..client import OpenAIClient
from ..errors import ConfigError, DeserializeError, OutputTruncatedError, RefusalError, excerpt
from ..models import CreateChatCompletionResponse
from ..replies import first_choice, parsed, with_response
from .schema import Member, ObjectShape, Shape, described, shape_of

V = TypeVar("V")


@overload
def parse_chat_completion(client: OpenAIClient, request: ChatRequest, into: type[V]) -> V: ...


@overload
def parse_chat_completion(client: OpenAIClient, request: ChatRequest, into: UnionType) -> Any: ...


def parse_chat_completion(client: OpenAIClient, request: ChatRequest, into: Any) -> Any:
    """Ask for an answer that is an instance of `into`, and return that.

    `into` is a dataclass, a TypedDict, a list of them, or whatever else `json_schema`
    describes; also a model of Pydantic's. The request has no `response_format` of its own.

    Raises RefusalError when the model refuses, OutputTruncatedError when a limit on
    tokens ended its answer, DeserializeError, with the response as `partial`, when the
    answer is not what was asked for, and what create_chat_completion raises.
    https://platform.openai.com/docs/guides/structured-outputs
    """
    body = request_members(request)
    if body.get("response_format") is not None:
        raise ConfigError("parse_chat_completion() makes the response_format itself: leave it out")
    shape = _object(into)
    body["response_format"] = _format(shape, _title(into))
    response = create_chat_completion(client, body)
    text = _whole_text(response)
    value, broken = parsed(_without_fence(text))
    try:
        if broken is not None:
            raise DeserializeError(f"$: {_not_said(response, text)}") from broken
        return shape.read(value)
    except DeserializeError as error:
        error.body = text
        with_response(error, response)
        raise


def _object(of: Any) -> Shape:
    shape = shape_of(of, _title(of))
    if shape.is_object:
        return shape

    def alone(value: Any) -> Any:
        return value

    return ObjectShape(lambda: [Member("value", shape)], alone)


def _title(of: Any) -> str:
    return re.sub("[^a-zA-Z0-9_-]", "_", getattr(of, "__name__", ""))[:64] or "answer"


def _format(shape: Shape, title: str) -> dict[str, Any]:
    named = {"name": title, "schema": described(shape, strict=True), "strict": True}
    return {"type": "json_schema", "json_schema": named}


def _whole_text(response: CreateChatCompletionResponse) -> str:
    """The text of the first choice, if it has come to its end."""
    choice = first_choice(response)
    error: RefusalError | OutputTruncatedError
    if choice.message.refusal:
        error = RefusalError(f"the model refused: {choice.message.refusal}", response)
    elif choice.finish_reason == "content_filter":
        error = RefusalError("the content filter stopped the answer", response)
    elif choice.finish_reason == "length":
        error = OutputTruncatedError(_cut_off(response), response)
    else:
        return response.text
    raise with_response(error, response)


def _not_said(response: CreateChatCompletionResponse, text: str) -> str:
    if text:
        return f"the answer is no JSON: {excerpt(text)}"
    calls = response.choices[0].message.tool_calls
    return "the model called a tool instead of answering" if calls else "the answer is empty"


def _cut_off(response: CreateChatCompletionResponse) -> str:
    used = response.usage.completion_tokens if response.usage else None
    after = f" after {used} tokens" if used else ""
    return f"the answer was cut off{after}: raise max_completion_tokens"


def _without_fence(text: str) -> str:
    """JSON out of the Markdown that models without a grammar like to put around it."""
    first, _, rest = text.strip().partition("\n")
    return rest.removesuffix("```") if first.rstrip() in ("```", "```json") else text
