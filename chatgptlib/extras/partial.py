"""JSON in an answer: among other words, or while it is still being written. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..errors import JSONValue
from ..replies import check_depth, parsed

_MOST_VALUES = 100  # that are looked for in one answer
_FENCE = re.compile(r"^\s*```(?:[a-zA-Z]+(?=[\s{\[]))?|```\s*$")
_OPENING = re.compile(r"[{\[]")


def json_in(text: str) -> Iterator[JSONValue]:
    """The JSON values in an answer: the whole of it, or else what stands in a Markdown fence,
    behind the model's thoughts, and between other words."""
    text = text.lstrip("\ufeff").rstrip()
    value, broken = parsed(text)
    if broken is not None:
        text = _FENCE.sub("", _without_thoughts(text))
        value, broken = parsed(text)
    if broken is None:
        yield value
        return
    at = 0
    for _ in range(_MOST_VALUES):
        opening = _OPENING.search(text, at)
        if opening is None:
            return
        try:
            value, at = json.JSONDecoder().raw_decode(text, opening.start())
            check_depth(text, value)
        except (ValueError, RecursionError) as error:
            at = max(getattr(error, "pos", 0), opening.end())
        else:
            yield value


def first_block_in(text: str) -> str | None:
    """The first code block of an answer, or else the JSON in it; None if there is neither."""
    if block := re.search(r"(?ms)^[ \t]*(```+|~~~+)[^\n`]*\n(.*?)^[ \t]*\1", text):
        return block[2].removesuffix("\n")
    found = (json.dumps(value, indent=2, ensure_ascii=False) for value in json_in(text))
    return next(found, None)


def json_so_far(text: str) -> dict[str, Any]:
    """The object that an answer has begun to write.

    Text is there as far as it came; numbers and words only when they are whole, since what
    is cut off of them changes what they say.
    """
    text = _without_thoughts(text)
    begin = text.find("{")
    found: list[dict[str, Any]] = [{}]
    if begin >= 0:
        try:
            _read_beginning(text, begin, found.append)
        except (_Cut, RecursionError):
            pass
    return found[-1]


def _without_thoughts(text: str) -> str:
    """An answer without the thoughts before it, whose opening tag some servers leave out. A
    string in the JSON may hold the closing tag too."""
    text = text.lstrip()
    thoughts, end, answer = text.partition("</think>")
    if text.startswith("<think"):
        return answer
    is_thought = end and text[0] not in "{[`" and ("{" in answer or "{" not in thoughts)
    return answer if is_thought else text


class _Cut(Exception):
    """The text ends here, or goes on with what is no JSON."""


_BETWEEN = re.compile(r"[\s,:]*")
_TEXT = re.compile(r'"((?:[^"\\]|\\u[0-9a-fA-F]{4}|\\[^u])*)')  # up to its end, or to a cut escape
_WORD = re.compile(r'[^\s,:{}\[\]"]+')


def _read_beginning(text: str, at: int, put: Callable[[Any], object]) -> int:
    """Give the value at a place to `put`, as soon as anything of it is there; return its end."""
    if text.startswith("{", at):
        members: dict[str, Any] = {}
        put(members)
        at = _skipped(text, at + 1)
        while not text.startswith("}", at):
            key: list[str] = []
            at = _skipped(text, _read_text(text, at, key.append))
            at = _skipped(text, _read_beginning(text, at, partial(members.__setitem__, key[0])))
        return at + 1
    if text.startswith("[", at):
        items: list[Any] = []
        put(items)
        at = _skipped(text, at + 1)
        while not text.startswith("]", at):
            at = _skipped(text, _read_beginning(text, at, items.append))
        return at + 1
    if text.startswith('"', at):
        return _read_text(text, at, put)
    word = _WORD.match(text, at)
    value, broken = parsed(word[0]) if word else (None, None)
    if word is None or word.end() == len(text) or broken is not None:
        raise _Cut
    put(value)
    return word.end()


def _read_text(text: str, at: int, put: Callable[[str], object]) -> int:
    match = _TEXT.match(text, at)
    said, _ = parsed(f'"{match[1]}"') if match else (None, None)
    if match is None or not isinstance(said, str):
        raise _Cut
    is_whole = text.startswith('"', match.end())
    if not is_whole and "\ud800" <= said[-1:] <= "\udbff":
        said = said[:-1]  # half of a character
    put(said)
    if not is_whole:
        raise _Cut
    return match.end() + 1


def _skipped(text: str, at: int) -> int:
    between = _BETWEEN.match(text, at)
    return between.end() if between else at
