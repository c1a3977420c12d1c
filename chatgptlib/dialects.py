"""Where servers differ in the JSON of chat: readers that accept each of the known forms.

They find the text and the reasoning of a message, the message of a choice, the usage, and an
index, and join characters that were cut in half.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .codec import is_list, is_mapping, object_members

_THOUGHTS = ("thinking", "reasoning")  # types of content parts that hold reasoning
_REASONING = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details")


def text_of(content: Any, *, thoughts: bool = False) -> str:
    """The text in the content of a message or a delta; with `thoughts`, that of its reasoning."""
    if isinstance(content, str) or type(content) in (int, float):  # some servers send a number
        return "" if thoughts else str(content)
    found: list[str] = []
    for item in content if is_list(content) else [content]:
        part = {"text": item} if isinstance(item, str) else object_members(item) or {}
        if (part.get("type") in _THOUGHTS) == thoughts:
            found.append(_text_in(part))
    return "".join(found)


def reasoning_of(extra: Mapping[str, Any], content: Any) -> str:
    """The reasoning in a message or a delta, from the first key that has some, or its content."""
    named = (_text_in(extra.get(key)) for key in _REASONING)
    return next(filter(None, named), "") or text_of(content, thoughts=True)


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
    """A choice with its message under the key `form`, which is "message" or "delta".

    Some servers send it under the key `other`, which is left out beside `form`, or only its
    text, under `text`.
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
    """A response or a chunk with its usage where the API has it, not in a choice or `x_groq`."""
    choices = data.get("choices")
    places = [*(choices if is_list(choices) else ()), data.get("x_groq")]
    found = (place.get("usage") for place in places if is_mapping(place))
    usage = next((usage for usage in found if usage and is_mapping(usage)), None)
    return data if data.get("usage") or not usage else {**data, "usage": usage}


def whole_characters(text: str) -> str:
    """Join surrogate pairs, which some servers cut in two, with an escape in each of two chunks."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def with_whole_characters(texts: Iterable[str]) -> Iterator[str]:
    """Pieces of text, each at once, but for a surrogate half, which waits for the other one."""
    half = ""
    for text in texts:
        text = half + text
        half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""  # the other half follows
        if text := text.removesuffix(half):
            yield whole_characters(text)
    if half:
        yield half


def index_of(value: Any) -> int | None:
    """The index from 0 to 10,000 that 1, 1.0 or "1" stands for; None for any other value."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6:
        value = int(value)
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= 10_000 else None
