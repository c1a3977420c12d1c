"""Chunks of a stream, added up to the response that a call without a stream gives. No I/O.

total = ResponseAccumulator()
for chunk in chunks:
    total.add(chunk)
response = total.response()     # at any time: the response so far
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from io import StringIO
from typing import Any, TypeGuard, cast

from .codec import decode
from .errors import JSONValue
from .models import (
    ChatCompletionChoice,
    ChatCompletionChunkChoice,
    ChatCompletionDelta,
    ChatCompletionLogprobs,
    ChatCompletionUsage,
    ChatMessage,
    ChatRole,
    CreateChatCompletionChunk,
    CreateChatCompletionResponse,
    ToolCall,
)


class ResponseAccumulator:
    """Adds chunks up into the response that the call would have given without a stream.

        total = ResponseAccumulator()
        for chunk in chunks:
            total.add(chunk)
        response = total.response()     # at any time: the response so far

    Text and arguments are appended; of ids, names, roles and finish reasons the first that
    is not empty holds; of usage and the like the last. Choices are told apart by their
    index, however they arrive.

    `choices` is how many were asked for, `usage` whether it was: without them the
    response is not complete.
    """

    def __init__(self, *, choices: int = 1, usage: bool = False) -> None:
        self._asked = max(choices, 1)
        self._asked_usage = usage
        self._choices: dict[int, _Choice] = {}
        self._id: str | None = None
        self._created: int | None = None
        self._model: str | None = None
        self._service_tier: str | None = None
        self._system_fingerprint: str | None = None
        self._moderation: dict[str, Any] | None = None
        self._usage: ChatCompletionUsage | None = None
        self._extra: dict[str, Any] = {}

    @property
    def missing(self) -> list[str]:
        """What a complete response would have and this one has not yet."""
        unfinished = sorted(i for i, one in self._choices.items() if not one.finish_reason)
        missing = [f"the finish reason of choice {index}" for index in unfinished]
        if len(self._choices) < self._asked:
            missing.append(f"{self._asked - len(self._choices)} of {self._asked} choices")
        if self._asked_usage and self._usage is None:
            missing.append("the usage")
        return missing

    @property
    def has_choices(self) -> bool:
        """Some of an answer has arrived."""
        return bool(self._choices)

    def add(self, chunk: CreateChatCompletionChunk) -> bool:
        """Add the next chunk. True if a choice in it ended or holds unusual keys, which may
        tell of an error.

        A choice that holds a message in place of a delta, as in a whole completion, is
        turned into what it would be in a stream.
        """
        unusual = False
        # Called for every chunk: what most chunks do not have is passed over quickly.
        if not self._id:
            self._id = chunk.id
        if not self._created:
            self._created = chunk.created
        if not self._model:
            self._model = chunk.model
        if chunk.service_tier is not None:
            self._service_tier = chunk.service_tier
        if chunk.system_fingerprint is not None:
            self._system_fingerprint = chunk.system_fingerprint
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.moderation is not None:
            self._moderation = chunk.moderation
        if chunk.extra:
            _keep_last(self._extra, chunk.extra)
        for choice in chunk.choices:
            index = choice.index
            if type(index) is not int:
                index = 0
            so_far = self._choices.get(index)
            if so_far is None:
                so_far = self._choices[index] = _Choice()
            if choice.extra:
                unusual = True
                # Beside a delta, as some servers send it, it is but the sum so far.
                if isinstance(choice.extra.get("message"), dict) and not choice.delta.to_dict():
                    _make_delta(choice)
                    chunk.object = "chat.completion.chunk"
            if choice.finish_reason is not None:
                unusual = True
            so_far.add(choice)
        return unusual

    def response(self) -> CreateChatCompletionResponse:
        """The response so far."""
        return CreateChatCompletionResponse(
            id=self._id,
            object="chat.completion",
            created=self._created,
            model=self._model,
            choices=[choice.whole(index) for index, choice in sorted(self._choices.items())],
            usage=self._usage,
            service_tier=self._service_tier,
            system_fingerprint=self._system_fingerprint,
            moderation=self._moderation,
            extra=dict(self._extra),
        )


def _make_delta(choice: ChatCompletionChunkChoice) -> None:
    message: JSONValue = choice.extra.pop("message")
    if isinstance(message, dict) and isinstance(calls := message.get("tool_calls"), list):
        numbered: list[JSONValue] = [
            {"index": index, **call} if isinstance(call, dict) else call
            for index, call in enumerate(calls)
        ]
        message = {**message, "tool_calls": numbered}
    choice.delta = decode(ChatCompletionDelta, message)


class _Choice:
    """One choice, as far as it has come."""

    __slots__ = (
        "calls",
        "extra",
        "finish_reason",
        "function_call",
        "logprobs",
        "message_extra",
        "parts",
        "refusal",
        "role",
        "text",
    )

    def __init__(self) -> None:
        self.role: str | None = None
        self.text: StringIO | None = None  # a list of its pieces would take ten times as much
        self.parts: list[Any] = []  # from servers that send some content in parts
        self.refusal: list[str] = []
        self.calls = _Calls()
        self.function_call: _Call | None = None
        self.finish_reason: str | None = None
        self.logprobs: dict[str, JSONValue] = {}
        self.extra: dict[str, Any] = {}
        self.message_extra: dict[str, Any] = {}

    def add(self, choice: ChatCompletionChunkChoice) -> None:
        delta = choice.delta
        content: Any = delta.content
        if type(content) is str:
            if self.text is None:
                self.text = StringIO()
            self.text.write(content)
        elif content is not None:
            self._end_text()
            self.parts.append(content)
        if delta.role and not self.role:
            self.role = delta.role
        if delta.refusal is not None:
            self.refusal.append(delta.refusal)
        if delta.tool_calls:
            for piece in delta.tool_calls:
                self.calls.add(piece)
        if delta.function_call is not None:
            if self.function_call is None:
                self.function_call = _Call()
            self.function_call.add(ToolCall(function=delta.function_call))
        if delta.extra:
            _merge(self.message_extra, delta.extra)
        if choice.finish_reason is not None and not self.finish_reason:
            self.finish_reason = choice.finish_reason
        if choice.logprobs is not None:
            told: dict[str, JSONValue] = choice.logprobs.to_dict()
            for key, value in told.items():
                so_far = self.logprobs.get(key)
                if isinstance(value, list):
                    if not isinstance(so_far, list):
                        so_far = self.logprobs[key] = []
                    so_far.extend(value)
                elif not isinstance(so_far, list):
                    self.logprobs[key] = value
        if choice.extra:
            _keep_last(self.extra, choice.extra)

    def _end_text(self) -> None:
        if self.text is not None:
            self.parts.append(self.text.getvalue())
            self.text = None

    def whole(self, index: int) -> ChatCompletionChoice:
        message: dict[str, Any] = dict(_settled(self.message_extra))
        message["role"] = self.role or ChatRole.ASSISTANT.value
        if calls := self.calls.whole():
            message["tool_calls"] = calls
        if self.function_call is not None:
            message["function_call"] = self.function_call.whole().get("function")
        message["refusal"] = joined_text(self.refusal) or None
        text = None if self.text is None else self.text.getvalue()
        message["content"] = content = _content([*self.parts, text])
        if content == "" and (calls or self.function_call or message["refusal"]):
            message["content"] = None  # as beside calls in a whole answer
        return ChatCompletionChoice(
            index=index,
            message=decode(ChatMessage, message),
            finish_reason=self.finish_reason,
            logprobs=decode(ChatCompletionLogprobs, self.logprobs) if self.logprobs else None,
            extra=dict(self.extra),
        )


class _Calls:
    """The tool calls of one choice. Servers number and name their pieces in many routes."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int, _Call] = {}  # the last with that index

    def add(self, piece: ToolCall) -> None:
        """Add a piece to the call it belongs to.

        A known id says which. Else the index does, unless another call has it: some
        servers number every call 0. With neither, it goes on with the last call.
        """
        named = piece.id if isinstance(piece.id, str) and piece.id else None
        index = piece.index if type(piece.index) is int else None
        call = self._by_id.get(named) if named else None
        if call is None:
            if index is not None:
                call = self._by_index.get(index)
            elif self._calls:
                call = self._calls[-1]
            # One that has another id, or is whole already, this piece does not go on with.
            if call is not None and (
                call.id or (index is None and call.parts)
                if named
                else call.is_complete_beside(piece)
            ):
                call = None
        if call is None:
            call = _Call()
            call.index = index
            self._calls.append(call)
        if named:
            self._by_id[named] = call
        if index is not None:
            self._by_index[index] = call
        call.add(piece)

    def whole(self) -> list[dict[str, Any]]:
        return [call.whole() for call in sorted(self._calls, key=lambda call: call.index or 0)]


class _Call:
    """One tool call, as far as it has come."""

    __slots__ = ("extra", "id", "index", "name", "part_extra", "parts", "type")

    def __init__(self) -> None:
        self.index: int | None = None
        self.id: str | None = None
        self.type: str | None = None
        self.name: str | None = None
        self.parts: list[str] = []  # of the arguments, or of a custom tool's input
        self.extra: dict[str, Any] = {}
        self.part_extra: dict[str, Any] = {}

    def add(self, piece: ToolCall) -> None:
        self.id = self.id or piece.id
        self.type = self.type or piece.type or ("custom" if piece.custom else None)
        _merge(self.extra, piece.extra)
        for called in (piece.function, piece.custom):
            if called is None:
                continue
            self.name = self.name or called.name
            text: Any = called.input if called is piece.custom else called.arguments  # type: ignore[union-attr]
            if text is not None:
                # Some servers send the arguments as an object, all at once.
                self.parts.append(text if isinstance(text, str) else json.dumps(text))
            _merge(self.part_extra, called.extra)

    def is_complete_beside(self, piece: ToolCall) -> bool:
        """`piece`, which has no id, begins another call: it has a name and arguments of
        its own, while the arguments here are whole already."""
        function = piece.function
        if function is None or not function.name or not function.arguments or not self.name:
            return False
        if not self.parts or self.parts[-1].rstrip()[-1:] not in ("}", "]"):
            return False  # before the costly look
        try:
            json.loads("".join(self.parts))
        except (ValueError, RecursionError):
            return False
        return True

    def whole(self) -> dict[str, Any]:
        kind = "custom" if self.type == "custom" else "function"
        key = "input" if kind == "custom" else "arguments"
        called = {**_settled(self.part_extra), "name": self.name, key: joined_text(self.parts)}
        whole = {**_settled(self.extra), "id": self.id, "type": self.type or kind}
        if self.name or self.parts or self.part_extra:
            whole[kind] = called
        return whole


def _keep_last(so_far: dict[str, Any], added: Mapping[str, Any]) -> None:
    """Take the new values; but null, as for keys that are known, changes nothing."""
    for key, value in added.items():
        if value is not None or key not in so_far:
            so_far[key] = value


# Keys whose text names something. Other text in a delta is a piece of a longer one.
_NAMES = frozenset({"id", "type", "role", "name", "format", "object", "model", "status"})


def _merge(so_far: dict[str, Any], added: Mapping[str, JSONValue]) -> None:
    """Add the keys of a delta that this library does not know, by what they hold."""
    for key, value in added.items():
        if value is None:
            continue
        before: Any = so_far.get(key)
        if isinstance(value, str) and key not in _NAMES:
            if isinstance(before, _Pieces):
                before.append(value)
            else:
                so_far[key] = _Pieces([value])
        elif isinstance(value, str):
            so_far[key] = before or value
        elif isinstance(value, dict):
            if type(before) is not dict:
                before = so_far[key] = {}
            _merge(cast("dict[str, Any]", before), value)
        elif isinstance(value, list):
            if not isinstance(before, _Items):
                before = so_far[key] = _Items()
            for item in value:
                _merge_item(before, item)
        else:
            so_far[key] = value


class _Items(list[Any]):
    """A list that is still being added to; of those with an index, the items by that."""

    def __init__(self) -> None:
        super().__init__()
        self.numbered: dict[int, dict[str, Any]] = {}


def _merge_item(items: _Items, item: JSONValue) -> None:
    """Add an item of a list, to the item of the same index where they are numbered."""
    if not isinstance(item, dict):
        items.append(item)
        return
    index = item.get("index")
    same = items.numbered.get(index) if type(index) is int else None
    if same is None:
        same = {}
        items.append(same)
        if type(index) is int:
            items.numbered[index] = same
    _merge(same, item)


class _Pieces(list[str]):
    """Text that is still being added to."""


def _settled(value: JSONValue) -> Any:
    """What `_merge` has gathered, as plain JSON."""
    if isinstance(value, _Pieces):
        return joined_text(value)
    if isinstance(value, dict):
        return {key: _settled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_settled(item) for item in value]
    return value


def _content(pieces: list[JSONValue]) -> Any:
    """The content of a message from that of its deltas: text, or a list of parts."""
    pieces = [piece for piece in pieces if piece is not None]
    if not pieces:
        return None
    if all(isinstance(piece, str) for piece in pieces):
        return joined_text(pieces)
    parts: list[Any] = []
    for piece in pieces:
        for part in piece if isinstance(piece, list) else [piece]:
            said: JSONValue = {"type": "text", "text": part} if isinstance(part, str) else part
            last = parts[-1] if parts else None
            if last is not None and _is_text(said) and _is_text(last):
                parts[-1] = {**last, "text": joined_text([last["text"], said["text"]])}
            else:
                parts.append(said)
    return parts


def _is_text(part: JSONValue) -> TypeGuard[dict[str, Any]]:
    return isinstance(part, dict) and part.keys() == {"type", "text"} and part["type"] == "text"


def joined_text(pieces: Iterable[Any]) -> str:
    """Pieces of text as one; a character that was split between two of them is whole again.

    Servers that cut text by UTF-16 units send each half as an escape of its own.
    """
    text = "".join(piece if isinstance(piece, str) else json.dumps(piece) for piece in pieces)
    if text.isascii():
        return text
    return re.sub(
        "[\ud800-\udbff][\udc00-\udfff]",
        lambda halves: halves[0].encode("utf-16", "surrogatepass").decode("utf-16"),
        text,
    )
