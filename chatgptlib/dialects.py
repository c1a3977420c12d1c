"""Reads the forms of chat JSON in which servers differ: text, reasoning, choices, usage, index.

Also joins surrogate pairs that a server has split between two chunks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .codec import is_list, is_mapping, object_members

_REASONING_TYPES = ("thinking", "reasoning")  # types of content parts that hold reasoning
REASONING_KEYS = (
    "reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details",
)  # fmt: skip


def text_of(content: Any, *, reasoning: bool = False) -> str:
    """The text in the content of a message or a delta; with `reasoning`, that of its reasoning."""
    if isinstance(content, str):
        return "" if reasoning else content
    if isinstance(content, (int, float)):  # some servers send the token 5 or true as a JSON value
        return "" if reasoning else json.dumps(content)
    found: list[str] = []
    for item in content if is_list(content) else [content]:
        part = {"text": item} if isinstance(item, str) else object_members(item) or {}
        if (part.get("type") in _REASONING_TYPES) == reasoning:
            found.append(_text_in(part))
    return "".join(found)


def reasoning_of(extra: Mapping[str, Any], content: Any) -> str:
    """The reasoning in a message or a delta, from the first key that has some, or its content."""
    named = (_text_in(extra.get(key)) for key in REASONING_KEYS)
    return next(filter(None, named), "") or text_of(content, reasoning=True)


def _text_in(value: Any, depth: int = 0) -> str:
    """The text of a part or of a list of parts, which may be nested."""
    if isinstance(value, str):
        return value
    if value is None or depth > 8:
        return ""
    if is_list(value):
        return "".join(_text_in(item, depth + 1) for item in value)
    part = object_members(value) or {}
    keys = ("text", "thinking", "reasoning", "summary")
    return next((text for key in keys if (text := _text_in(part.get(key), depth + 1))), "")


def in_form(choice: Mapping[str, Any], form: str, other: str) -> Mapping[str, Any]:
    """Move the message of a choice to the key `form`: "message" in a response, "delta" in a chunk.

    Some servers send it under the key of the other form, or send only its text, under `text`.
    `form` takes precedence over `other`, and `other` over `text`.
    """
    found = {key: value for key, value in choice.items() if key != other}
    message = choice.get(form) or choice.get(other)
    if not message and isinstance(found.get("text"), str):
        message = {"content": found.pop("text")}
    return {**found, form: message} if message else found


def finish_reason_of(choice: Mapping[str, Any]) -> str | None:
    """The finish reason; None also where a server sends null as text."""
    reason: str | None = choice.get("finish_reason")
    return None if reason in ("", "null", "None") else reason


def with_usage(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Copy the usage to the top level; some servers send it only in a choice or in `x_groq`."""
    choices = data.get("choices")
    places = [*(choices if is_list(choices) else ()), data.get("x_groq")]
    found = (place.get("usage") for place in places if is_mapping(place))
    usage = next((usage for usage in found if usage and is_mapping(usage)), None)
    return data if data.get("usage") or not usage else {**data, "usage": usage}


def join_surrogates(text: str) -> str:
    """Join surrogate pairs, which some servers cut in two, with an escape in each of two chunks."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def join_split_surrogates(texts: Iterable[str]) -> Iterator[str]:
    """Pass each piece on at once, but hold back half of a surrogate pair until the other comes."""
    half = ""
    for text in texts:
        text = half + text
        half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""  # the other half follows
        if text := text.removesuffix(half):
            yield join_surrogates(text)
    if half:
        yield half


def index_of(value: Any) -> int | None:
    """The index from 0 to 10,000 that 1, 1.0 or "1" stands for; None for any other value."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6:
        value = int(value)
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= 10_000 else None
