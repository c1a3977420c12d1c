"""Find JSON in an answer: between other text, or while it is still incomplete. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ..errors import JSONValue
from ..replies import check_depth, parsed

_MOST_VALUES = 100  # in one answer
_FENCE = re.compile(r"^\s*```(?:[a-zA-Z]+(?=[\s{\[]))?|```\s*$")
_OPENING = re.compile(r"[{\[]")


def json_in(text: str) -> Iterator[JSONValue]:
    """The JSON values in an answer: the answer itself, or else those in a Markdown fence, after
    the model's thoughts, or between other text."""
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


_PIECE = re.compile(
    r"""(?x) \s* (?: (?P<opening>[{\[]) | (?P<closing>[}\]]) | (?P<between>[,:])
    | (?P<word>[\w.+-]+) (?=\s*[,}\]])
    | "(?: [^"\\]+ | \\[^u]                            # a string; it may be cut, also in an escape
        | \\u(?![dD][89abAB])[0-9a-fA-F]{4}
        | \\u[dD][89abAB][0-9a-fA-F]{2} \\u[dD][c-fC-F][0-9a-fA-F]{2}
    )* (?P<quote>"?) )
    """
)


def json_so_far(text: str) -> dict[str, Any]:
    """The object in an answer that is still incomplete.

    A text is included as far as it has arrived; a number or a word only when it is complete,
    since its beginning is another value: 12 of 123.
    """
    text = _without_thoughts(text)
    begin = at = text.find("{")
    found, closing, before = "{}", "", ":"
    while at >= 0 and (piece := _PIECE.match(text, at)):
        at, kind = piece.end(), piece.lastgroup
        if kind == "between":
            before = piece["between"]
            continue
        if kind == "opening":
            closing = ("}" if piece["opening"] == "{" else "]") + closing
        elif kind == "closing":
            closing = closing[1:]
        is_name = kind == "quote" and closing[:1] == "}" and before != ":"
        is_cut = kind == "quote" and not piece["quote"]
        if not is_name:
            found = text[begin:at] + '"' * is_cut + closing
        if is_cut or not closing:
            break
        before = ""
    value, _ = parsed(found)
    return value if isinstance(value, dict) else {}


def _without_thoughts(text: str) -> str:
    """An answer without the thoughts before it. Some servers omit their opening tag, and a
    string in the JSON may contain the closing one."""
    text = text.lstrip()
    thoughts, end, answer = text.partition("</think>")
    if text.startswith("<think"):
        return answer
    has_thoughts = end and text[0] not in "{[`" and ("{" in answer or "{" not in thoughts)
    return answer if has_thoughts else text
