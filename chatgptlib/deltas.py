"""The rules by which the deltas of a stream add up to a message. No I/O.

    total: dict[str, Any] = {}
    for delta in deltas:
        merge(total, delta, "message")
    message = plain(total)

A delta is never changed. What each value in it does, by the first rule that fits:

    value                                           what it does
    null, or empty                                  nothing
    of another type than what came before           nothing
    an object                                       is merged key by key
    a list under a key of TOKENS, or in `logprobs`  extends the list
    annotations, citations                          add the items that are new
    tool_calls, content, a list of objects that     each item is joined to the one that it
      have an index, type or id                       continues, or appended
    text under a key of RUNNING_TEXT                is appended
    the name of a called function                   is appended, until arguments come
    the role of a message, the id of an item        is set once
    anything else                                   replaces what came before
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from io import StringIO
from itertools import chain, count, islice
from typing import Any

from .codec import is_dict, is_list
from .dialects import index_of, whole_characters

_MESSAGE_TEXT = {
    "content", "refusal", "reasoning_content", "reasoning", "reasoning_text", "thinking",
}  # fmt: skip
RUNNING_TEXT: dict[str, set[str]] = {  # the keys with text, by the object that has them
    "message": _MESSAGE_TEXT,
    "provider_specific_fields": _MESSAGE_TEXT,
    "reasoning": {"text", "content", "summary"},
    "thinking": {"text", "content", "summary"},
    "audio": {"data", "transcript"},
    "function": {"arguments"},
    "function_call": {"arguments"},
    "custom": {"input"},
    "item": {*_MESSAGE_TEXT, "text", "summary", "arguments", "input", "transcript"},  # of a list
}
CALLED = {"function", "custom", "function_call"}
TOKENS = frozenset({"token_ids", "output_token_ids", "completion_token_ids", "output_ids"})
_IDENTITY = frozenset({"index", "type", "id"})
_SET_ONCE = {("message", "role"), ("item", "id")}
_PLACEHOLDERS = {"{}", "{ }", "null"}  # sent by some servers before the arguments
_EMPTY: tuple[Any, ...] = (None, "", [], {})


def merge(total: dict[str, Any], added: Mapping[str, Any], place: str) -> None:
    """Add an object to the sum. `place` is its own key: "message", "function", "item" ..."""
    for key, value in added.items():
        so_far = total.get(key)
        if type(so_far) is StringIO and type(value) is str:
            so_far.write(value)  # the fast path: text that continues
        elif value is not None or key not in total:
            add(total, key, value, place)


def add(total: dict[str, Any], key: str, value: Any, place: str) -> None:
    """Add one value of an object to the sum."""
    if key == "content" and place != "logprobs":
        value = _in_parts(total, value)
    so_far: Any = total.get(key)
    is_text = isinstance(so_far, StringIO)
    if value in _EMPTY or (so_far and _is_of_other_type(value, so_far)):
        if so_far is None:
            total[key] = plain(value)
    elif is_dict(value):
        so_far = total[key] = so_far if is_dict(so_far) else {}
        merge(so_far, _news_of_call(value, so_far) if key in CALLED else value, key)
    elif is_list(value) and (kind := _kind_of_list(key, value, place)):
        if not isinstance(so_far, kind):
            total[key] = kind()
        total[key].extend(plain(value))
    elif key == "arguments" and not is_text and str(value).strip() in _PLACEHOLDERS:
        total[key] = value  # not a StringIO, so the arguments will replace it
    elif isinstance(value, str) and key in RUNNING_TEXT.get(place, ()):
        if not is_text:  # a StringIO takes a tenth of the memory of a list of pieces
            so_far = total[key] = StringIO()
        so_far.write(value)
    elif (place, key) not in _SET_ONCE or not so_far:
        total[key] = plain(value)


def _in_parts(total: dict[str, Any], content: Any) -> Any:
    """The content as a list of parts, if it has parts now or had some before."""
    so_far = total.get("content")
    if isinstance(so_far, StringIO) and (is_dict(content) or is_list(content)) and content:
        total["content"] = _Items()
        total["content"].extend([{"type": "text", "text": so_far.getvalue()}])
    if content and (is_dict(content) or (isinstance(so_far, _Items) and isinstance(content, str))):
        content = [content]
    if not is_list(content):
        return content
    parts = (item for item in content if item is not None)
    return [{"type": "text", "text": x} if isinstance(x, str) else x for x in parts]


def _is_of_other_type(value: Any, so_far: Any) -> bool:
    """Whether `so_far` is text, a list or an object, and `value` is not."""
    types: tuple[tuple[type, Any], ...] = ((StringIO, str), (list, (list, tuple)), (dict, dict))
    return any(isinstance(so_far, came) and not isinstance(value, kind) for came, kind in types)


def plain(value: Any) -> Any:
    """A copy of a sum as plain JSON."""
    if isinstance(value, StringIO):
        return whole_characters(value.getvalue())
    if is_dict(value):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if is_list(value) else value


def missing_part(so_far: Any, complete: Any, deltas_came: bool) -> Any:
    """What to add to `so_far`, for a server that sends a complete message after its deltas.

    Text that does not begin with the text so far is ignored if deltas came: servers trim or
    moderate the final text. If none came, the server streams its deltas under `message`.
    """
    if is_dict(so_far) and is_dict(complete):
        begun = {"tool_calls": _Calls(), **so_far}
        complete = {**complete, "content": _in_parts(begun, complete.get("content"))}
        found = {key: missing_part(begun.get(key), complete[key], deltas_came) for key in complete}
        return {key: value for key, value in found.items() if value}
    if isinstance(so_far, _Items) and is_list(complete):
        return so_far.missing_part(complete, deltas_came)
    if isinstance(so_far, StringIO) and isinstance(complete, str):
        size = so_far.tell()  # compared first, which avoids the copy
        continues = size <= len(complete) and complete.startswith(so_far.getvalue())
    elif isinstance(so_far, _Tokens) and is_list(complete):
        size = len(so_far)
        continues = complete[:size] == so_far
    else:
        is_missing = so_far in _EMPTY or str(so_far).strip() in _PLACEHOLDERS
        return complete if is_missing or isinstance(so_far, _Sources) else None
    return complete[size:] if continues else complete[:0] if deltas_came else complete


# Lists: `extend` adds the items of the next delta


class _Tokens(list[Any]):
    """A list that every delta extends."""


class _Sources(list[Any]):
    """A list that holds each item once."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()  # as JSON

    def extend(self, added: Iterable[Any]) -> None:
        for item in added:
            text = json.dumps(item, sort_keys=True)
            if text not in self._seen:
                self._seen.add(text)
                self.append(item)


class _Items(list[Any]):
    """A list of objects. A piece of an object is merged into it."""

    def __init__(self) -> None:
        super().__init__()
        self.latest: dict[Any, dict[str, Any]] = {}  # items by each of their _keys_of()

    def extend(self, added: Iterable[Any]) -> None:
        last = self[-1] if self else None
        for item in added:
            if is_dict(item):
                self._join(item, last)
            else:
                self.append(item)
            last = None  # items of one delta are separate, unless an id or index says otherwise

    def _join(self, piece: dict[str, Any], last: Any) -> None:
        known = [*map(self.latest.get, _keys_of(piece)), last]
        item = next((x for x in known if is_dict(x) and self.continues(piece, x)), None)
        if item is None:
            item = dict[str, Any]()
            self.latest.setdefault(len(self), item)  # the index may follow in a later piece
            self.append(item)
        merge(item, _news_of_call(piece, item) if "arguments" in piece else piece, "item")
        self.latest.update(dict.fromkeys(_keys_of(item), item))

    def missing_part(self, complete: Iterable[Any], deltas_came: bool) -> list[dict[str, Any]]:
        """What a complete list adds to this one: pieces of its items, and more items."""
        pieces: list[dict[str, Any]] = []
        rest = {at: item for at, item in enumerate(self) if is_dict(item)}
        numbers = count(len(self))  # of items that are not in this list yet
        keys = _IDENTITY - {"id"} if deltas_came else _IDENTITY  # some servers change the ids
        for item in filter(is_dict, complete):
            near = list(islice(rest.items(), 100))  # all of them would take quadratic time
            same_id = (at for at, x in near if x.get("id") and x["id"] == item.get("id"))
            similar = (at for at, x in near if _agree(x, item, keys))
            at = next(chain(same_id, similar, numbers))
            begun = rest.pop(at, {})
            identity = {key: x for key, x in (begun or item).items() if key in _IDENTITY}
            if isinstance(self, _Calls):
                identity.setdefault("index", at)
            new = missing_part(begun, item, deltas_came)
            can_be_joined = _keys_of(identity) or at >= len(self) - 1
            if can_be_joined and new.keys() - (identity if begun else ()):
                pieces.append({**new, **identity})
        return pieces

    def continues(self, piece: dict[str, Any], item: dict[str, Any]) -> bool:
        """Whether a piece belongs to an item.

        Their index, type and id must agree. Text is then appended, unless the item is signed,
        which makes it complete. A piece without text needs the id, or no value that differs.
        """
        if not _agree(piece, item, _IDENTITY):
            return False
        places = [piece, *filter(is_dict, piece.values())]
        if any(not RUNNING_TEXT["item"].isdisjoint(place) for place in places):
            is_signed = item.get("signature") not in (None, "", piece.get("signature"))
            return not (is_signed and any(map(piece.get, RUNNING_TEXT["item"])))
        return bool(piece.get("id")) or _agree(piece, item, piece)


class _Calls(_Items):
    """Tool calls. Servers differ in how they repeat ids, indexes, names and arguments."""

    def continues(self, piece: dict[str, Any], item: dict[str, Any]) -> bool:
        """Whether a piece belongs to a call that has its id or index, or came before it."""
        new, old = _called(piece), _called(item)
        id_, index, name = piece.get("id"), index_of(piece.get("index")), new.get("name")
        its_id, its_index, its_name = item.get("id"), index_of(item.get("index")), old.get("name")
        text, so_far = new.get("arguments"), old.get("arguments")
        begun, has_index = bool(so_far), index is not None
        again = _repeats(text, so_far) if name else None
        rules = (  # the first that fits decides
            (has_index and its_index is not None and index != its_index, False),
            (id_ and id_ == its_id, True),
            (id_ and its_id, has_index and not name),
            (name and its_name and name != its_name, has_index and not begun),
            (id_ and not has_index, not begun),
            (again is not None, has_index and bool(again)),
        )
        return next((verdict for fits, verdict in rules if fits), True)


_KINDS_OF_LIST: dict[str, type[list[Any]]] = {
    "content": _Items,
    "tool_calls": _Calls,
    **dict.fromkeys(("annotations", "citations"), _Sources),
    **dict.fromkeys(TOKENS, _Tokens),
}


def _kind_of_list(key: str, value: Iterable[Any], place: str) -> type[list[Any]] | None:
    """The class by which a list adds up; None if the next list replaces it."""
    if place == "logprobs":
        return _Tokens
    has_identity = any(is_dict(item) and not _IDENTITY.isdisjoint(item) for item in value)
    return _KINDS_OF_LIST.get(key, _Items if has_identity else None)


def _keys_of(item: dict[str, Any]) -> list[Any]:
    """The keys under which to look up the item that a piece belongs to, the surest first."""
    id_, index = item.get("id"), index_of(item.get("index"))
    keys: list[Any] = [("id", str(id_))] if id_ else []
    return keys if index is None else [*keys, (index, str(item.get("type")), str(id_)), index]


def _agree(one: dict[str, Any], other: dict[str, Any], keys: Iterable[str]) -> bool:
    """Whether two objects have equal values under these keys, as far as both have any."""
    pairs = ((one.get(key), other.get(key)) for key in keys)
    return all(a == b or a in (None, "") or b in (None, "") for a, b in pairs)


def _called(call: dict[str, Any]) -> dict[str, Any]:
    found: Any = call.get("function") or call.get("custom")
    return found if is_dict(found) else {}


def _repeats(text: Any, so_far: Any) -> bool | None:
    """Whether `text` repeats the arguments so far; None unless it begins after their end."""
    if not isinstance(so_far, StringIO) or not str(text).startswith("{"):
        return None
    so_far.seek(so_far.tell() - 1)
    if so_far.read() != "}":
        return None
    return so_far.tell() == len(text) and text == so_far.getvalue()  # a copy only if need be


def _news_of_call(called: dict[str, Any], so_far: dict[str, Any]) -> dict[str, Any]:
    """A piece of a called function without what the server repeats: the name or the arguments."""
    news = dict(called)
    name, begin = news.get("name"), so_far.get("name")
    if name and begin and not str(name).startswith(str(begin)):
        news["name"] = begin if so_far.get("arguments") else f"{begin}{name}"
    arguments = news.get("arguments")
    if is_dict(arguments):
        news["arguments"] = json.dumps(arguments)
        so_far["arguments"] = None  # an object is complete
    elif _repeats(arguments, so_far.get("arguments")):
        del news["arguments"]
    return news
