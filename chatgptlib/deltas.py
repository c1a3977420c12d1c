"""The rules by which the deltas of a stream add up to a message. No I/O.

`merge` adds a delta to a sum and never changes the delta. `plain` copies the sum as JSON.
Each value of a delta is added by the first rule that fits:

    value                                           what it does
    null, or empty                                  sets a key that is missing, else nothing
    of another type than what came before           nothing
    an object                                       is merged key by key
    a list under a key of TOKENS, or in `logprobs`  extends the list
    annotations, citations                          add the items that are new
    tool_calls, content, a list of objects that     each item is joined to the one that it
      have an index, type or id                       continues, or appended
    `{}` or `null` before any arguments             is replaced by the arguments
    text under a key of _RUNNING_TEXT               is appended, and so is a number or a boolean
                                                      under `content`
    the name of a called function                   replaces a name that it begins with; else is
                                                      appended, until arguments come
    the role of a message, the id of an item        is set once
    anything else                                   replaces what came before
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from itertools import chain, count, islice
from typing import Any

from .codec import is_dict, is_list
from .dialects import REASONING_KEYS, index_of, join_surrogates

_MESSAGE_TEXT = {"content", "refusal", *REASONING_KEYS}
_RUNNING_TEXT: dict[str, set[str]] = {  # by the key that holds the object; "item" if a list does
    "message": _MESSAGE_TEXT,
    "provider_specific_fields": _MESSAGE_TEXT,
    **{key: {"text", "thinking", "reasoning", "summary", "content"} for key in REASONING_KEYS},
    "audio": {"data", "transcript"},
    **{key: {"arguments"} for key in ("function", "function_call")},
    "custom": {"input"},
    "item": {*_MESSAGE_TEXT, "text", "summary", "arguments", "input", "transcript"},
}
_CALLED = {"function", "custom", "function_call"}
TOKENS = frozenset({"token_ids", "output_token_ids", "completion_token_ids", "output_ids"})
_IDENTITY = frozenset({"index", "type", "id"})
_SET_ONCE = {("message", "role"), ("item", "id")}
_PLACEHOLDERS = {"{}", "{ }", "null"}  # some servers send one before the arguments
_EMPTY: tuple[Any, ...] = (None, "", [], {})


def merge(total: dict[str, Any], added: Mapping[str, Any], place: str) -> None:
    """Add an object to the sum. `place` is the key that holds it, or "item" if a list does."""
    for key, value in added.items():
        so_far = total.get(key)
        if type(so_far) is StringIO and type(value) is str:
            so_far.write(value)  # the fast path, for most chunks
        elif value is not None or key not in total:
            add(total, key, value, place)


def add(total: dict[str, Any], key: str, value: Any, place: str) -> None:
    """Add one value of an object to the sum."""
    if key == "content" and place in _RUNNING_TEXT:
        value = _in_parts(total, value)
    so_far: Any = total.get(key)
    is_text = isinstance(so_far, StringIO)
    if value in _EMPTY or (so_far and _is_of_other_type(value, so_far)):
        if so_far is None:
            total[key] = plain(value)
    elif is_dict(value):
        so_far = total[key] = so_far if is_dict(so_far) else {}
        merge(so_far, _without_repeats(value, so_far) if key in _CALLED else value, key)
    elif is_list(value) and (kind := _kind_of_list(key, value, place)):
        if not isinstance(so_far, kind):
            total[key] = kind()
        total[key].extend(plain(value))
    elif key == "arguments" and not is_text and str(value).strip() in _PLACEHOLDERS:
        total[key] = value  # not a StringIO, so the arguments replace it
    elif isinstance(value, str) and key in _RUNNING_TEXT.get(place, ()):
        if not is_text:  # a StringIO takes a tenth of the memory of a list of pieces
            so_far = total[key] = StringIO()
        so_far.write(value)
    elif (place, key) not in _SET_ONCE or not so_far:
        total[key] = plain(value)


def _in_parts(total: dict[str, Any], content: Any) -> Any:
    """The content as a list of parts, if it has parts now or had some before, else as text."""
    if isinstance(content, (int, float)):  # some servers send the token 5 or true as a JSON value
        content = json.dumps(content)
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
    accepted = next((new for old, new in types if isinstance(so_far, old)), object)
    return not isinstance(value, accepted)


def plain(value: Any) -> Any:
    """A copy of a sum as plain JSON."""
    if isinstance(value, StringIO):
        return join_surrogates(value.getvalue())
    if is_dict(value):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if is_list(value) else value


def missing_part(so_far: Any, complete: Any, deltas_came: bool) -> Any:
    """The part of a cumulative message, or of a value in it, that the sum does not have yet.

    Text that does not begin with the text so far is ignored if deltas came, because servers
    trim or moderate the final text. If no delta came, it is new text: the server sends its
    deltas under `message`.
    """
    if is_dict(so_far) and is_dict(complete):
        begun = {"tool_calls": _Calls(), **so_far}
        complete = {**complete, "content": _in_parts(begun, complete.get("content"))}
        found = {key: missing_part(begun.get(key), complete[key], deltas_came) for key in complete}
        return {key: value for key, value in found.items() if value}
    if isinstance(so_far, _Items) and is_list(complete):
        return list(so_far.missing_pieces(complete, deltas_came))
    if isinstance(so_far, StringIO) and isinstance(complete, str):
        size = so_far.tell()  # compared first, which avoids the copy
        continues = size <= len(complete) and complete.startswith(so_far.getvalue())
    elif isinstance(so_far, _Tokens) and is_list(complete):
        size = len(so_far)
        continues = complete[:size] == so_far
    else:
        is_open = so_far in _EMPTY or str(so_far).strip() in _PLACEHOLDERS
        is_open = is_open or isinstance(so_far, _Sources)
        return complete if is_open and complete != so_far else None
    return complete[size:] if continues else complete[:0] if deltas_came else complete


class _Tokens(list[Any]):
    """A list that each delta extends."""


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
    """A list of objects that arrive in pieces."""

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
            last = None  # the items of one delta are separate, unless their id or index agrees

    def _join(self, piece: dict[str, Any], last: Any) -> None:
        known = [*map(self.latest.get, _keys_of(piece)), last]
        item = next((x for x in known if is_dict(x) and self.continues(piece, x)), None)
        if item is None:
            item = dict[str, Any]()
            self.latest.setdefault(len(self), item)  # the index may follow in a later piece
            self.append(item)
        merge(item, _without_repeats(piece, item) if "arguments" in piece else piece, "item")
        self.latest.update(dict.fromkeys(_keys_of(item), item))

    def missing_pieces(self, complete: Iterable[Any], deltas_came: bool) -> Iterator[Any]:
        """What a complete list adds to this one: the rest of items, and new items."""
        unmatched = {index: item for index, item in enumerate(self) if is_dict(item)}
        new_indexes = count(len(self))
        keys = _IDENTITY - {"id"} if deltas_came else _IDENTITY  # some servers change the id
        for item in filter(is_dict, complete):
            candidates = list(islice(unmatched.items(), 100))  # or the time would be quadratic
            same_id = (at for at, x in candidates if x.get("id") and x["id"] == item.get("id"))
            similar = (at for at, x in candidates if _agree(x, item, keys))
            index = next(chain(same_id, similar, new_indexes))
            known = unmatched.pop(index, {})
            identity = {key: x for key, x in (known or item).items() if key in _IDENTITY}
            if isinstance(self, _Calls):
                identity.setdefault("index", index)
            new = missing_part(known, item, deltas_came)
            # Without an id or index, extend() finds only the last item.
            is_found_by_join = _keys_of(identity) or index >= len(self) - 1
            if is_found_by_join and new.keys() - (identity if known else ()):
                yield {**new, **identity}

    def continues(self, piece: dict[str, Any], item: dict[str, Any]) -> bool:
        """Whether a piece belongs to an item: their index, type and id must agree.

        A signed item takes no more text. A piece without text needs an id, or equal values.
        """
        if not _agree(piece, item, _IDENTITY):
            return False
        places = [piece, *filter(is_dict, piece.values())]
        if any(not _RUNNING_TEXT["item"].isdisjoint(place) for place in places):
            is_signed = item.get("signature") not in (None, "", piece.get("signature"))
            return not (is_signed and any(map(piece.get, _RUNNING_TEXT["item"])))
        return bool(piece.get("id")) or _agree(piece, item, piece)


class _Calls(_Items):
    """Tool calls. Servers differ in how they repeat ids, indexes, names and arguments."""

    def continues(self, piece: dict[str, Any], item: dict[str, Any]) -> bool:
        """Whether a piece belongs to a call with the same id or index, or to the last call."""
        new, old = _called(piece), _called(item)
        id_, index, name = piece.get("id"), index_of(piece.get("index")), new.get("name")
        its_id, its_index, its_name = item.get("id"), index_of(item.get("index")), old.get("name")
        has_index, begun = index is not None, bool(old.get("arguments"))
        again = _repeats(new.get("arguments"), old.get("arguments")) if name else None
        rules = (  # the first that fits decides
            # Different indexes are different calls, even if a server uses the name as the id
            (has_index and its_index is not None and index != its_index, False),
            # Servers that repeat the id in each piece
            (id_ and id_ == its_id, True),
            # Servers that change the id in each piece; a name begins another call
            (id_ and its_id, has_index and not name),
            # Servers that split the name; after arguments, another name begins another call
            (name and its_name and name != its_name, has_index and not begun),
            # Servers without indexes: an id after arguments begins another call
            (id_ and not has_index, not begun),
            # Servers that send a call twice; other arguments begin another call
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
    """The class whose `extend` adds a list to the sum; None if the list replaces the sum."""
    if place == "logprobs":
        return _Tokens
    has_identity = any(is_dict(item) and not _IDENTITY.isdisjoint(item) for item in value)
    return _KINDS_OF_LIST.get(key, _Items if has_identity else None)


def _keys_of(item: dict[str, Any]) -> list[Any]:
    """The keys of an item in `_Items.latest`, the most specific first."""
    id_, index = item.get("id"), index_of(item.get("index"))
    keys: list[Any] = [("id", str(id_))] if id_ else []
    return keys if index is None else [*keys, (index, str(item.get("type")), str(id_)), index]


def _agree(one: dict[str, Any], other: dict[str, Any], keys: Iterable[str]) -> bool:
    """Whether two objects have equal values under the keys that both have."""
    pairs = ((one.get(key), other.get(key)) for key in keys)
    return all(a == b or a in (None, "") or b in (None, "") for a, b in pairs)


def _called(call: dict[str, Any]) -> dict[str, Any]:
    found: Any = call.get("function") or call.get("custom")
    return found if is_dict(found) else {}


def _repeats(text: Any, so_far: Any) -> bool | None:
    """Whether `text` repeats the arguments so far; None unless it begins a new JSON object."""
    if not isinstance(so_far, StringIO) or not str(text).startswith("{"):
        return None
    so_far.seek(so_far.tell() - 1)
    if so_far.read() != "}":
        return None
    return so_far.tell() == len(text) and text == so_far.getvalue()  # a copy only if need be


def _without_repeats(called: dict[str, Any], so_far: dict[str, Any]) -> dict[str, Any]:
    """A piece of a called function without a name or arguments that the server sent before."""
    piece = dict(called)
    name, begun = piece.get("name"), so_far.get("name")
    if name and begun and not str(name).startswith(str(begun)):
        piece["name"] = begun if so_far.get("arguments") else f"{begun}{name}"
    arguments = piece.get("arguments")
    if is_dict(arguments):
        piece["arguments"] = json.dumps(arguments)
        so_far["arguments"] = None  # an object is complete
    elif _repeats(arguments, so_far.get("arguments")):
        del piece["arguments"]
    return piece
