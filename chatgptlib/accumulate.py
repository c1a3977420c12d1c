"""Adds up the chunks of a stream to the response that the same call gives without streaming."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .codec import is_dict, is_list
from .deltas import TOKENS, add, merge, missing_part, plain
from .dialects import finish_reason_of, index_of, with_usage
from .models import CreateChatCompletionChunk, CreateChatCompletionResponse

_CHOICE_KEYS = frozenset({"index", "delta", "finish_reason", "logprobs"})


class ResponseAccumulator:
    """Builds, from the chunks of a stream, the response of the same call without a stream.

        total = ResponseAccumulator()
        for chunk in chunks:
            total.add(chunk)
        response = total.response()     # at any time: the response so far

    Choices may come in any order; their index tells them apart. A chunk is never changed.
    https://platform.openai.com/docs/api-reference/chat-streaming
    """

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self.unfinished: set[int] = set()  # indexes of the choices without a finish reason
        self._others: dict[str, Any] = {}  # the keys beside the choices
        self._latest: dict[str, Any] = {}  # those of the last chunk, which usually repeats them
        self.needs_check = False  # the last chunk may hold an error, or a choice in it has ended

    @property
    def has_choices(self) -> bool:
        """Whether any choice has begun, with a delta or with a message in place of one."""
        return any(choice.has_begun for choice in self._choices.values())

    def is_complete(self, choices: int = 1) -> bool:
        """Whether at least this many choices have come, and each has a finish reason."""
        return len(self._choices) >= choices and not self.unfinished and self.has_choices

    def add(self, chunk: CreateChatCompletionChunk | Mapping[str, Any]) -> dict[str, Any]:
        """Add the next chunk, and return its JSON object.

        Some servers send a `message` or `text` instead of a delta, and may repeat in it what
        came before. The object returned then has a delta with only the new part.
        Raises DeserializeError for an object that is not a chunk.
        """
        if isinstance(chunk, CreateChatCompletionChunk):
            chunk = chunk.to_dict()
        else:
            CreateChatCompletionChunk.from_dict(chunk)
        return dict(self.take(chunk))

    def take(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add a JSON object that is known to be a valid chunk, as `add` does."""
        choices: list[dict[str, Any]] = value.get("choices") or []
        self.needs_check = False
        shown = [self._take_choice(choice) for choice in choices]
        others = {**value, "choices": bool(choices), "obfuscation": None}
        if others != self._latest:
            self._take_others(others)
        if self.needs_check:
            value = with_usage(value)
        if shown == choices:
            return value
        return {**value, "object": "chat.completion.chunk", "choices": shown}

    def _take_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        index = choice.get("index")
        if type(index) is not int or index not in self._choices:
            index = index_of(index) or 0
        if index not in self._choices:
            self._choices[index] = _Choice()
            self.unfinished.add(index)
        so_far = self._choices[index]
        shown = so_far.add(choice)
        if so_far.needs_check:
            self.needs_check = True
            if so_far.finish_reason:
                self.unfinished.discard(index)
        return shown

    def _take_others(self, others: dict[str, Any]) -> None:
        self.needs_check = True
        self._latest = others if TOKENS.isdisjoint(others) else {}
        for key, value in others.items():
            if key in ("id", "created", "model"):
                if others["choices"]:  # an event without choices may have an id of its own
                    self._others[key] = self._others.get(key) or value
            elif key not in ("choices", "obfuscation"):
                add(self._others, key, value, "chunk")

    def response(self) -> CreateChatCompletionResponse:
        """The response so far."""
        usage: dict[str, Any] = {}
        choices = [choice.as_response(index) for index, choice in sorted(self._choices.items())]
        found = {**plain(self._others), "object": "chat.completion", "choices": choices}
        for place in (*choices, found.get("x_groq"), found):
            merge(usage, _as_object(_as_object(place).get("usage")), "usage")
        return CreateChatCompletionResponse.from_dict({**found, "usage": plain(usage) or None})


class _Choice:
    """The sum of one choice."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.has_begun = False
        self.needs_check = False  # the last chunk may hold an error, or the choice has ended
        self._others: dict[str, Any] = {}
        self._message: dict[str, Any] = {}
        self._deltas_came = False  # there was a delta with more than a role

    def add(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Add the choice of a chunk, and return it with a delta, whatever its form was."""
        if "message" in choice or "text" in choice:
            choice = self._with_delta(choice)
        elif not self._deltas_came:
            self._deltas_came = _has_more_than_role(choice.get("delta"))
        if (delta := choice.get("delta")) is not None:
            self.has_begun = True
            merge(self._message, delta, "message")
        if choice.get("finish_reason") and not self.finish_reason:
            self.finish_reason = finish_reason_of(choice)
        if logprobs := choice.get("logprobs"):
            add(self._others, "logprobs", logprobs, "choice")
        if has_others := not _CHOICE_KEYS.issuperset(choice):
            for key in choice:
                if key not in _CHOICE_KEYS:
                    add(self._others, key, choice[key], "choice")
        self.needs_check = has_others or "error" in (delta or ()) or bool(self.finish_reason)
        return choice

    def _with_delta(self, choice: dict[str, Any]) -> dict[str, Any]:
        delta, message = _as_object(choice.get("delta")), choice.get("message")
        others = {key: choice[key] for key in choice if key not in ("message", "text")}
        if _has_more_than_role(delta):
            self._deltas_came = True  # `message` is cumulative; ignore it beside a delta
        elif is_dict(message):
            delta = missing_part(self._message, message, self._deltas_came)
            for key in others.keys() & {"logprobs", *TOKENS}:
                others[key] = missing_part(self._others.get(key), others[key], self._deltas_came)
        else:  # `text`, as in the older completions
            delta = {**delta, "content": choice.get("text")}
        return {**others, "delta": delta}

    def as_response(self, index: int) -> dict[str, Any]:
        """The choice so far, as a response has it."""
        message: dict[str, Any] = plain(self._message)
        message["role"] = message.get("role") or "assistant"
        items: Any = message.get("tool_calls")
        found = enumerate(filter(is_dict, items if is_list(items) else ()))
        calls: list[dict[str, Any]] = [{"index": position, **call} for position, call in found]
        if calls and len(calls) == len(items):
            message["tool_calls"] = sorted(calls, key=lambda call: index_of(call["index"]) or 0)
        for call in calls:
            call["type"] = call.get("type") or ("custom" if "custom" in call else "function")
            for kind, text in (("function", "arguments"), ("custom", "input")):
                if is_dict(call.get(kind)):
                    call[kind][text] = call[kind].get(text) or ""
            call.pop("index", None)
        message["refusal"] = message.get("refusal") or None
        if calls or "function_call" in message or message["refusal"]:
            message["content"] = message.get("content") or None  # as without a stream
        known = {"index": index, "message": message, "finish_reason": self.finish_reason}
        return {**plain(self._others), **known}


def _has_more_than_role(delta: Any) -> bool:
    return is_dict(delta) and any(delta[key] for key in delta if key != "role")


def _as_object(value: Any) -> dict[str, Any]:
    return value if is_dict(value) else {}
