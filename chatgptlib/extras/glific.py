"""The webhook function parse_via_chat_gpt of a Glific flow.

    fields = {"question_text": "@results.question", "prompt": "Answer in Hindi."}
    parse_via_chat_gpt(client, fields)  # {"success": True, "parsed_msg": "..."}

https://glific.github.io/docs/ "Call a webhook: parse_via_chat_gpt"
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..chat import create_chat_completion
from ..client import OpenAIClient
from ..codec import encode, is_mapping
from ..errors import APIError, ConfigError, OpenAIError
from ..models import ChatMessage, CreateChatCompletionRequest, CreateChatCompletionResponse
from ..replies import parsed

_FLOW_MODEL = "gpt-4o"
_FLOW_FORMATS = ("text", "json_object", "json_schema")


def parse_via_chat_gpt(client: OpenAIClient, fields: Any) -> dict[str, Any]:
    """Answer the question of a flow: `{"success": True, "parsed_msg": the answer}`.

    `fields` are those that the flow sent: `question_text`, and optionally `prompt` (the system
    message), `gpt_model` or `model` (default "gpt-4o"), `temperature` (default 0) and
    `response_format` (an object). A blank field counts as missing. Numbers and objects may be
    written as text.

    An answer that is a JSON object or list is returned parsed, any other as text. If there is
    no answer, or a field is invalid, the result is `{"success": False, "parsed_msg": the
    reason}`: no field that a flow sends raises an error. The result can always be sent as JSON.
    """
    try:
        response = create_chat_completion(client, _flow_request(fields))
        answer = _answer_of(response)
    except APIError as error:
        return {"success": False, "parsed_msg": error.message}
    except OpenAIError as error:
        return {"success": False, "parsed_msg": str(error)}
    return {"success": True, "parsed_msg": answer}


def _flow_request(fields: Any) -> CreateChatCompletionRequest:
    if not is_mapping(fields):
        raise ConfigError("the fields of the webhook must be a JSON object")
    given = {
        name: value
        for name, value in fields.items()
        if value is not None and not (isinstance(value, str) and not value.strip())
    }
    question, prompt = _flow_text(given, "question_text"), _flow_text(given, "prompt")
    if not question:
        raise ConfigError("question_text is empty")
    messages = [ChatMessage.system(prompt)] if prompt else []
    return CreateChatCompletionRequest(
        model=_flow_text(given, "gpt_model") or _flow_text(given, "model") or _FLOW_MODEL,
        messages=[*messages, ChatMessage.user(question)],
        temperature=_flow_temperature(given.get("temperature", 0)),
        response_format=_flow_format(given.get("response_format")),
    )


def _flow_text(given: Mapping[str, Any], name: str) -> str:
    """A field as text, or "" if it is missing. A flow may send a number."""
    value = given.get(name, "")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ConfigError(f"{name} must be text")
    return str(value)


def _flow_temperature(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError("temperature must be a number")
    return number


def _flow_format(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        value = parsed(value)[0]
    if not is_mapping(value):
        raise ConfigError("response_format must be a JSON object")
    if value.get("type") not in _FLOW_FORMATS:
        raise ConfigError(f"response_format: its type must be one of {', '.join(_FLOW_FORMATS)}")
    return value


def _answer_of(response: CreateChatCompletionResponse) -> Any:
    """The answer, parsed if it is JSON. Raises OpenAIError if there is none."""
    choice, text = response.choices[0], response.text
    if not text.strip():
        raise OpenAIError(str(choice.message.refusal or "the model gave no answer"))
    if choice.finish_reason in ("length", "content_filter"):
        raise OpenAIError(f"the answer is cut off (finish_reason {choice.finish_reason!r})")
    value, _ = parsed(text)
    if not isinstance(value, (dict, list)):
        return text
    try:
        encode(value)
    except ConfigError:  # NaN and Infinity, which only Python accepts in JSON
        return text
    return value
