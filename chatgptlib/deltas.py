"""JSON objects that come in pieces, added up. No I/O, and nothing is guessed.

    total: dict[str, Any] = {}
    for delta in deltas:
        merge(total, delta, "message")      # never changes `delta`
    message = plain(total)

Null and what is empty change nothing, nor does what is no list where a list has come. Objects
are merged key by key. For the rest, the first of these rules that fits holds:

    key                                          rule
    a key of RUNNING_TEXT, in its place          text is appended
    name, in CALLED                              text is appended, until arguments have come
    TOKENS, and every list in `logprobs`         lists are extended
    SOURCES                                      lists are extended by what is not in them yet
    content, tool_calls, and lists whose         an item is joined to the one that it is a piece
    objects have an index, type or id            of, or appended
    role                                         the first holds
    everything else                              the last holds
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from io import StringIO
from typing import Any

from .codec import is_dict, is_list
from .dialects import index_of, whole_characters

_MESSAGE_TEXT = {
    "content",
    "refusal",
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "thinking",
}
RUNNING_TEXT: dict[str, set[str]] = {  # by the key of the object that it stands in
    "message": _MESSAGE_TEXT,
    "provider_specific_fields": _MESSAGE_TEXT,
    "reasoning": {"text", "content", "summary"},
    "thinking": {"text", "content", "summary"},
    "audio": {"data", "transcript"},
    "function": {"arguments"},
    "function_call": {"arguments"},
    "custom": {"input"},
    "item": _MESSAGE_TEXT | {"text", "summary", "arguments", "input", "transcript"},  # of any list
}
CALLED = frozenset({"function", "custom", "function_call"})
TOKENS = frozenset({"token_ids", "output_token_ids", "completion_token_ids", "output_ids"})
SOURCES = frozenset({"annotations", "citations"})
_IDENTITY = ("index", "type", "id")


def merge(total: dict[str, Any], added: Mapping[str, Any], place: str) -> None:
    """Add the keys of an object, which is itself under the key `place`, to the sum."""
    for key, value in added.items():
        so_far = total.get(key)
        if type(so_far) is StringIO and type(value) is str:
            so_far.write(value)  # what most chunks bring
        elif value is not None or key not in total:
            add(total, key, value, place)


def add(total: dict[str, Any], key: str, value: Any, place: str) -> None:
    """Add what came under one key to the sum."""
    so_far: Any = total.get(key)
    if key == "content" and is_dict(value):
        value = [value]
    if value in (None, "", [], {}) or (is_list(so_far) and not is_list(value)):
        if so_far is None:
            total[key] = plain(value)
    elif isinstance(value, str) and key in RUNNING_TEXT.get(place, ()):
        if isinstance(so_far, _Items):
            so_far.extend([_text_part(value)])
            return
        if not isinstance(so_far, StringIO):  # a list of the pieces takes ten times as much
            so_far = total[key] = StringIO()
        so_far.write(value)
    elif is_dict(value):
        if not is_dict(so_far):
            so_far = total[key] = dict[str, Any]()
        merge(so_far, _news_of_call(value, so_far) if key in CALLED else value, key)
    elif not is_list(value):
        if key != "role" or not so_far:
            total[key] = value
    elif key in TOKENS or place == "logprobs":
        extended: list[Any] = total[key] if is_list(so_far) else []
        extended.extend(plain(value))
        total[key] = extended
    elif key in _IS_PIECE or any(map(_is_item, value)):
        if not isinstance(so_far, _Items):
            before, so_far = so_far, _Items(_IS_PIECE.get(key, _is_piece))
            total[key] = so_far
            so_far.extend([_text_part(before.getvalue())] if isinstance(before, StringIO) else [])
        so_far.extend(
            [_text_part(i) for i in value if i is not None] if key == "content" else value
        )
    else:
        total[key] = plain(value)


def plain(value: Any) -> Any:
    """A sum as JSON that shares nothing with it."""
    if isinstance(value, StringIO):
        return whole_characters(value.getvalue())
    if isinstance(value, _Items):
        return [plain(item) for item in value.items]
    if is_dict(value):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if is_list(value) else value


# Lists


class _Items:
    """A list of items that may come in pieces; `is_piece` says which belongs to which."""

    def __init__(self, is_piece: Callable[[dict[str, Any], dict[str, Any]], bool]) -> None:
        self.items: list[Any] = []
        self._is_piece = is_piece
        self._latest: dict[Any, dict[str, Any]] = {}  # by id, by all of _IDENTITY, by index
        self._seen: set[str] = set()  # sources, as JSON

    def extend(self, added: Iterable[Any]) -> None:
        last = self.items[-1] if self.items else None
        for item in added:
            if self._is_piece is _never:
                text = json.dumps(item, sort_keys=True)
                if text not in self._seen:
                    self._seen.add(text)
                    self.items.append(plain(item))
            elif is_dict(item):
                self._join(item, last)
            else:
                self.items.append(plain(item))
            last = None  # two items that come together are two

    def _join(self, item: dict[str, Any], last: Any) -> None:
        keys: list[Any] = [("id", str(item["id"]))] if item.get("id") else []
        if (index := index_of(item.get("index"))) is not None:
            keys += [(index, str(item.get("type")), str(item.get("id"))), index]
            last = None
        known = [*map(self._latest.get, keys), last]
        total = next((x for x in known if is_dict(x) and self._is_piece(item, x)), None)
        if total is None:
            total = {}
            self.items.append(total)
        merge(total, item, "item")
        self._latest.update(dict.fromkeys(keys, total))


def _is_item(value: Any) -> bool:
    return is_dict(value) and bool(value.keys() & set(_IDENTITY))


def _has_text(item: dict[str, Any]) -> bool:
    if item.keys() & RUNNING_TEXT["item"]:
        return True
    return any(is_dict(part) and part.keys() & RUNNING_TEXT["item"] for part in item.values())


def _text_part(value: Any) -> Any:
    return {"type": "text", "text": value} if isinstance(value, str) else value


def _agree(one: dict[str, Any], other: dict[str, Any], keys: Iterable[str]) -> bool:
    """Whether they have the same under each of these keys that both of them have."""
    none = (None, "")
    both = (key for key in keys if one.get(key) not in none and other.get(key) not in none)
    return all(one[key] == other[key] for key in both)


def _is_piece(piece: dict[str, Any], item: dict[str, Any]) -> bool:
    """A piece agrees with the item in index, type and id. It has text, unless the item is signed
    and thereby complete; or it has the item's id; or it contradicts the item in nothing."""
    if not _agree(piece, item, _IDENTITY):
        return False
    if _has_text(piece):
        is_signed = item.get("signature") not in (None, "", piece.get("signature"))
        return not (is_signed and any(map(piece.get, RUNNING_TEXT["item"])))
    return bool(piece.get("id")) or _agree(piece, item, piece)


def _never(piece: dict[str, Any], item: dict[str, Any]) -> bool:
    return False


# Tool calls, whose pieces servers number and name in many ways


def _is_piece_of_call(piece: dict[str, Any], call: dict[str, Any]) -> bool:
    """Whether a piece with the id or the index of a call, or next to it, belongs to it."""
    new, old = _called(piece), _called(call)
    index, its_index = index_of(piece.get("index")), index_of(call.get("index"))
    numbered = index is not None
    begun = isinstance(old.get("arguments"), StringIO)
    is_other_name = bool(new.get("name")) and new["name"] != (old.get("name") or new["name"])
    if numbered and its_index is not None and index != its_index:
        return False  # the name of the function, as the id of two calls
    if piece.get("id") and call.get("id"):
        # Without a name, another id at the same index is but another id of the same call.
        return piece["id"] == call["id"] or (numbered and not new.get("name"))
    if is_other_name or (piece.get("id") and not numbered):
        # The name comes in pieces, or the id late; but not after the arguments.
        return not begun and (numbered or not is_other_name)
    is_another = new.get("name") and _is_restart(new, old)
    return not is_another or (numbered and _is_again(new, old))


_IS_PIECE = {
    "content": _is_piece,
    "tool_calls": _is_piece_of_call,
    **dict.fromkeys(SOURCES, _never),
}


def _called(call: dict[str, Any]) -> dict[str, Any]:
    for key in CALLED:
        if is_dict(called := call.get(key)):
            return called
    return {}


def _is_restart(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether arguments begin anew: no JSON object goes on with another behind its end."""
    text, so_far = new.get("arguments"), old.get("arguments")
    if not isinstance(so_far, StringIO) or not str(text).startswith("{"):
        return is_dict(text) and so_far is not None
    so_far.seek(so_far.tell() - 1)
    return so_far.read() == "}"


def _is_again(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether arguments come again, or in place of empty ones that stood in for them."""
    text, so_far = new.get("arguments"), old.get("arguments")
    if is_dict(text):
        text = json.dumps(text)
    if not text or not isinstance(so_far, StringIO) or so_far.tell() > max(len(text), 4):
        return False
    before = so_far.getvalue().strip()
    if before == text.strip():
        return text.startswith("{") and before.endswith("}")
    return text.startswith("{") and before in ("{}", "{ }", "null")


def _news_of_call(called: dict[str, Any], so_far: dict[str, Any]) -> dict[str, Any]:
    """What a piece of a function adds: some servers repeat the name, send the arguments twice,
    as an object, or after a `{}` that stood in for them."""
    news = dict(called)
    text: Any = news.get("arguments")
    if is_dict(text):
        news["arguments"] = json.dumps(text)
    if news.get("name") and so_far.get("name"):
        name = news.pop("name")
        if name != so_far["name"] and not isinstance(so_far.get("arguments"), StringIO):
            news["name"] = f"{so_far['name']}{name}"
    if _is_again(news, so_far):
        so_far["arguments"] = None  # and what comes takes their place
    return news
