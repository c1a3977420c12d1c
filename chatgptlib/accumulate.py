"""The chunks of a stream, added up to the response that a call without a stream gives. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any

from .codec import is_dict, is_list
from .deltas import TOKENS, add, merge, plain
from .dialects import find_usage, index_of
from .models import CreateChatCompletionChunk, CreateChatCompletionResponse

_OF_CHOICE = frozenset({"index", "delta", "finish_reason", "logprobs"})


class ResponseAccumulator:
    """Adds chunks up into the response that the call would have given without a stream.

        total = ResponseAccumulator()
        for chunk in chunks:
            total.add(chunk)
        response = total.response()     # at any time: the response so far

    Choices are told apart by their index, in whatever order they arrive. What is added is
    never changed. https://platform.openai.com/docs/api-reference/chat-streaming
    """

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._beside: dict[str, Any] = {}  # what stood beside the choices of the last chunk
        self._others: dict[str, Any] = {}  # what stood there in all
        self._finished = 0  # choices that have a finish reason
        self._has_tokens = False  # beside the choices, where each chunk may bring the same
        self.may_have_failed = False  # the last chunk has what find_error() should look at

    @property
    def has_choices(self) -> bool:
        """Whether some choice has begun: with a delta, or with a message in place of one."""
        return any(choice.has_begun for choice in self._choices.values())

    @property
    def unfinished(self) -> list[int]:
        """The indexes of the choices that have no finish reason yet."""
        return sorted(i for i, choice in self._choices.items() if not choice.finish_reason)

    def is_complete(self, choices: int = 1) -> bool:
        """Whether so many choices, and all that have begun, have a finish reason."""
        return choices <= len(self._choices) == self._finished and self.has_choices

    def add(self, chunk: CreateChatCompletionChunk | Mapping[str, Any]) -> dict[str, Any]:
        """Add the next chunk, and return its JSON object. Raises DeserializeError for no chunk.

        Where a choice has a `message`, or a `text`, in place of a delta, that is a copy with a
        delta of what is new: a message after its parts is the same message, not more of it.
        """
        if isinstance(chunk, CreateChatCompletionChunk):
            return self.take(chunk.to_dict())
        CreateChatCompletionChunk.from_dict(chunk)
        return self.take(dict(chunk))

    def take(self, value: dict[str, Any]) -> dict[str, Any]:
        """The same for an object that was read as a chunk already."""
        choices: list[dict[str, Any]] = value.get("choices") or []
        self.may_have_failed = False
        shown = [self._take_choice(choice) for choice in choices]
        beside = {**value, "choices": bool(choices)}
        beside.pop("obfuscation", None)
        if beside != self._beside or self._has_tokens:
            self._beside = beside  # in most chunks it is what it was in the last
            self._add_beside(beside)
            self.may_have_failed = True
        if self.may_have_failed and not value.get("usage") and (usage := find_usage(value)):
            value = {**value, "usage": usage}
        if shown == choices:
            return value
        return {**value, "object": "chat.completion.chunk", "choices": shown}

    def _take_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        index = choice.get("index")
        so_far = self._choices.get(index) if type(index) is int else None
        if so_far is None:
            so_far = self._choices.setdefault(index_of(index) or 0, _Choice())
        had_finished = so_far.finish_reason
        shown = so_far.add(choice)
        if so_far.finish_reason or so_far.others:
            self._finished += bool(so_far.finish_reason and not had_finished)
            self.may_have_failed = True
        return shown

    def _add_beside(self, beside: dict[str, Any]) -> None:
        self._has_tokens = not TOKENS.isdisjoint(beside)
        for key, value in beside.items():
            if key in ("id", "created", "model"):
                if beside["choices"]:  # else it may be of something else
                    self._others[key] = self._others.get(key) or value
            elif key != "choices":
                add(self._others, key, value, "chunk")

    def response(self) -> CreateChatCompletionResponse:
        """The response so far."""
        usage: dict[str, Any] = {}
        choices = [choice.whole(index) for index, choice in sorted(self._choices.items())]
        whole = {**plain(self._others), "object": "chat.completion", "choices": choices}
        for place in (*choices, whole.get("x_groq"), whole):
            merge(usage, _as_object(_as_object(place).get("usage")), "usage")
        return CreateChatCompletionResponse.from_dict({**whole, "usage": plain(usage) or None})


class _Choice:
    """One choice, as far as it has come."""

    __slots__ = ("_message", "_parts_came", "finish_reason", "has_begun", "others")

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.has_begun = False
        self._message: dict[str, Any] = {}
        self.others: dict[str, Any] = {}
        self._parts_came = False

    def add(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Add what came of it. Returns that, in the form with a delta."""
        if "message" in choice or "text" in choice:
            choice = self._with_delta(choice)
        elif not self._parts_came:
            self._parts_came = _has_more_than_role(choice.get("delta"))
        if (delta := choice.get("delta")) is not None:
            self.has_begun = True
            merge(self._message, delta, "message")
        reason = choice.get("finish_reason")
        if reason and reason != "null" and not self.finish_reason:
            self.finish_reason = reason
        if logprobs := choice.get("logprobs"):
            add(self.others, "logprobs", logprobs, "choice")
        if not _OF_CHOICE.issuperset(choice):
            for key, value in choice.items():
                if key not in _OF_CHOICE:
                    add(self.others, key, value, "choice")
        return choice

    def _with_delta(self, choice: dict[str, Any]) -> dict[str, Any]:
        delta, message = _as_object(choice.get("delta")), choice.get("message")
        if _has_more_than_role(delta):
            self._parts_came = True  # a message beside a delta is all that came so far
        elif is_dict(message):
            delta = {key: new for key in message if (new := self._new_in(key, message[key]))}
        else:  # `text`, as in the older completions
            delta = {**delta, "content": choice.get("text")}
        others = {key: choice[key] for key in choice if key not in ("message", "text")}
        return {**others, "delta": delta}

    def _new_in(self, key: str, value: Any) -> Any:
        """What a whole message has under `key` that did not come before; "" if nothing."""
        before = self._message.get(key)
        if isinstance(before, StringIO) and isinstance(value, str):
            size = before.tell()  # compared first, since it costs nothing
            if len(value) >= size and value.startswith(before.getvalue()):
                return value[size:]
            return "" if self._parts_came else value
        if before:
            return ""
        if key == "tool_calls":
            return [{"index": index, **call} for index, call in enumerate(_objects(value))]
        return value

    def whole(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", **plain(self._message)}
        calls = _objects(message.get("tool_calls"))
        if calls and len(calls) == len(message["tool_calls"]):
            calls.sort(key=lambda call: index_of(call.get("index")) or 0)
            message["tool_calls"] = calls
        for call in calls:
            call.pop("index", None)
            call.setdefault("type", "custom" if "custom" in call else "function")
            for kind, text in (("function", "arguments"), ("custom", "input")):
                if is_dict(call.get(kind)):
                    call[kind][text] = call[kind].get(text) or ""
        message["refusal"] = message.get("refusal") or None
        if calls or "function_call" in message or message["refusal"]:
            message["content"] = message.get("content") or None  # as in a whole answer
        return {
            **plain(self.others),
            "index": index,
            "message": message,
            "finish_reason": self.finish_reason,
        }


def _has_more_than_role(delta: Any) -> bool:
    return is_dict(delta) and any(delta[key] for key in delta if key != "role")


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if is_dict(item)] if is_list(value) else []


def _as_object(value: Any) -> dict[str, Any]:
    return value if is_dict(value) else {}
