"""The replies of the offline server: its answers, their faults, and the checks of requests.

A scripted reply becomes an `OfflineAnswer`, a list of steps that the server performs. No I/O.
The usage counts words, since there is no model that has tokens.
"""

from __future__ import annotations

import io
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from itertools import chain, count, groupby, repeat, takewhile, zip_longest
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..codec import is_dict, is_list
from ..dialects import text_of
from ..models import ChatMessage, ChatRole, CreateChatCompletionRequest


@dataclass(slots=True)
class OfflineAnswer:
    """An HTTP response as steps: "head" to send the head, pieces of the body, pauses in
    seconds, and "close" or "reset" to break the connection."""

    status: int
    headers: dict[str, str]  # lower-case names
    steps: list[bytes | float | str]
    is_chunked: bool = False  # whether each piece is an HTTP chunk
    completion: dict[str, Any] | None = None  # the completion in the body, if it holds one

    def place(self, after: int | None) -> int:
        """The index in `steps` where a fault after `after` pieces goes; 0, before the head, for
        None. A number beyond either end gives the first or the last piece."""
        pieces = [i for i, step in enumerate(self.steps) if isinstance(step, bytes)]
        if after is None or not pieces:
            return 0 if after is None else len(self.steps)
        return pieces[max(-len(pieces), min(after, len(pieces) - 1))]


class OfflineError(Exception):
    """An error response of the API; `reply` is the status and the body."""

    def __init__(self, status: int, message: str, **more: str) -> None:
        super().__init__(message)
        kind = "server_error" if status >= 500 else "invalid_request_error"
        error = {"message": message, "type": kind, "param": None, "code": None, **more}
        self.reply = (status, {"error": error})


def stand_in(body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request without a scripted reply.

    It states that no model is involved and repeats the question. For a `response_format` it is
    the smallest JSON that fits.
    """
    asked = (text_of(m.get("content")) for m in reversed(body["messages"]) if m["role"] == "user")
    question = next(asked, "").strip() or "(no text)"
    text = f"This is the offline stand-in of chatgptlib, not a model. You asked: {question}"
    wanted = body.get("response_format")
    if is_dict(wanted) and wanted.get("type") in ("json_object", "json_schema"):
        schema = wanted.get("json_schema", {}).get("schema", {"type": "object"})
        text = json.dumps(_smallest_json(schema, schema))
    words = re.findall(r"\s*\S+", text)
    limits = (body.get("max_completion_tokens"), body.get("max_tokens"))
    kept = words[: min((limit for limit in limits if limit is not None), default=None)]
    reason = "length" if len(kept) < len(words) else "stop"
    return _offline_completion({"content": "".join(kept)}, body, reason)


# Faults


@dataclass(frozen=True)
class Fault:
    """A fault in the delivery of `answer`, which is any reply, even one with another fault. The
    default is the stand-in answer.

    `after` is the number of pieces that are sent before the fault. The pieces of a stream are
    its events; any other answer has two, its first byte and the rest. None puts the fault
    before the head. A negative number counts pieces from the end, so -1 puts it before the
    last. A number beyond either end puts it before the first or the last piece.
    """

    answer: OfflineReply = field(default=stand_in, kw_only=True, repr=False)

    def _apply(self, answer: OfflineAnswer) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Cut(Fault):
    """An answer that is cut off: `Cut(after=3)`.

    `Cut()` closes the connection without an answer. `Cut(after=-2)` omits a stream's finish
    reason and `[DONE]`, unless the stream includes usage.

    how: "end" ends the body properly, "close" closes the connection before the body's end,
        "reset" resets it.
    """

    after: int | None = None
    how: Literal["end", "close", "reset"] = "end"

    def _apply(self, answer: OfflineAnswer) -> None:
        place = answer.place(self.after)
        if self.how == "end" and self.after is not None:
            del answer.steps[place:]
        else:
            answer.steps.insert(place, "reset" if self.how == "reset" else "close")


@dataclass(frozen=True)
class Stall(Fault):
    """An answer with a pause: `Stall(2.0)` before the head, or `Stall(2.0, after=1)`."""

    seconds: float
    after: int | None = None

    def _apply(self, answer: OfflineAnswer) -> None:
        answer.steps.insert(answer.place(self.after), float(self.seconds))


@dataclass(frozen=True)
class Inject(Fault):
    """A stream with an additional event: a dict, such as an error, or a text that need not be
    valid JSON, as in `Inject('{"a', after=2)`."""

    event: dict[str, Any] | str
    after: int = 0

    def _apply(self, answer: OfflineAnswer) -> None:
        data = self.event.encode() if isinstance(self.event, str) else _json_bytes(self.event)
        answer.steps.insert(answer.place(self.after), _sse_event(data))


@dataclass(frozen=True)
class Pieces(Fault):
    """A body in HTTP chunks of these sizes in bytes; the last size repeats: `Pieces([1, 500])`."""

    sizes: Sequence[int]

    def _apply(self, answer: OfflineAnswer) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"sizes must be numbers from 1, not {self.sizes!r}")
        sizes = chain(self.sizes, repeat(self.sizes[-1]))
        steps, answer.steps, answer.is_chunked = answer.steps, [], True
        for is_body, group in groupby(steps, lambda step: isinstance(step, bytes)):
            part: list[Any] = list(group)
            if is_body:
                part = list(takewhile(len, map(io.BytesIO(b"".join(part)).read, sizes)))
            answer.steps += part


OfflineReply = (
    str | int | dict[str, Any] | tuple[int, Any] | tuple[int, Any, Mapping[str, Any]]
    | Callable[[dict[str, Any]], Any] | Fault
)  # fmt: skip


# From replies to answers

_USUAL_ERRORS = {
    401: {"message": "Incorrect API key provided: KEY.", "code": "invalid_api_key"},
    404: {"message": "The model does not exist.", "code": "model_not_found"},
    429: {"message": "Rate limit reached.", "code": "rate_limit_exceeded", "type": "requests"},
}
# A request to validate replies with. A reply that is a function is not called for it.
_DRY_RUN: dict[str, Any] = {"model": "", "messages": [], "stream": True}


def check_reply(reply: Any) -> None:
    """Raise TypeError or ValueError for an invalid reply."""
    try:
        answer_for(reply, _DRY_RUN)
    except (AttributeError, LookupError, TypeError) as error:
        raise TypeError(f"invalid reply {reply!r}: {error}") from error


def answer_for(reply: Any, body: dict[str, Any], delay: float = 0.0) -> OfflineAnswer:
    """The answer that a reply gives to a request. Raises TypeError or ValueError."""
    if isinstance(reply, Fault):
        answer = answer_for(reply.answer, body, delay)
        reply._apply(answer)
        return answer
    if callable(reply):
        return answer_for("" if body is _DRY_RUN else reply(body), body, delay)
    if isinstance(reply, int):
        message = f"the script rejects this request with {reply:d}"
        reply = OfflineError(reply, **{"message": message, **_USUAL_ERRORS.get(reply, {})}).reply
    if is_list(reply):
        return plain_answer(*reply)
    given = {"content": reply} if isinstance(reply, str) else reply
    if not is_dict(given):
        kinds = "a text, a dict, a status, (status, body, headers), a fault or a function"
        raise TypeError(f"a reply must be {kinds}, not {type(reply).__name__}")
    completion = given if "choices" in given else _offline_completion(given, body)
    answer = plain_answer(200, completion)
    if body.get("stream") is True:
        options: Any = body.get("stream_options") or {}
        chunks = map(_json_bytes, _offline_chunks(completion, options.get("include_usage") is True))
        answer.headers["content-type"], answer.is_chunked = "text/event-stream", True
        answer.steps = ["head"]
        for data in (*chunks, b"[DONE]"):
            pause = [delay] if delay and len(answer.steps) > 1 else []
            answer.steps += [*pause, _sse_event(data)]
    answer.completion = completion
    return answer


def plain_answer(status: Any, body: Any, headers: Mapping[str, Any] = {}) -> OfflineAnswer:
    """An answer that is not streamed. A body of bytes is sent unchanged, any other as JSON."""
    if not isinstance(status, int):
        raise TypeError(f"a status must be a number, not {status!r}")
    if not 200 <= status <= 599 or status in (204, 304):
        raise ValueError(f"a status must be 200 to 599, and not 204 or 304, not {status!r}")
    content = body if isinstance(body, bytes) else _json_bytes(body)
    named = {name.lower(): str(value) for name, value in headers.items()}
    named.setdefault("content-type", "application/json")
    return OfflineAnswer(status, named, ["head", content[:1], content[1:]])


def _json_bytes(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False)
    return text.encode(errors="backslashreplace")  # lone surrogates, as JSON escapes


def _sse_event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


_completion_numbers = count(1)


def _offline_completion(
    given: dict[str, Any], body: dict[str, Any], reason: str = ""
) -> dict[str, Any]:
    """The complete response with this message."""
    message = {"role": "assistant", "content": None, "refusal": None, **given}
    calls = (key for key in ("tool_calls", "function_call") if message.get(key))
    same = {"message": message, "logprobs": None, "finish_reason": reason or next(calls, "stop")}
    n = body.get("n") or 1
    asked, answered = sum(map(_words_in, body["messages"])), n * _words_in(message)
    usage = {"prompt_tokens": asked, "completion_tokens": answered}
    return {
        "id": f"chatcmpl-offline-{next(_completion_numbers)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "system_fingerprint": "offline",
        "choices": [{"index": index, **same} for index in range(n)],
        "usage": {**usage, "total_tokens": asked + answered},
    }


def _words_in(message: dict[str, Any]) -> int:
    return sum(len(text_of(message.get(key)).split()) for key in ("content", "refusal"))


_UNSUPPORTED_KEYWORDS = {
    "pattern", "format", "multipleOf", "allOf", "oneOf", "not", "if", "prefixItems", "contains",
    "uniqueItems", "minProperties", "propertyNames", "patternProperties", "dependentRequired",
}  # fmt: skip
_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}


def _smallest_json(schema: Any, root: Any, inside: tuple[str, ...] = ()) -> Any:
    """The smallest JSON that fits a schema. Raises OfflineError for unsupported keywords."""
    reference: str = schema.get("$ref", "")
    least = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf) + 1)
    most = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf) - 1)
    unsupported = schema.keys() & _UNSUPPORTED_KEYWORDS
    unsupported |= schema.keys() & _BOUNDS if least > most else set()
    if unsupported or reference in inside:
        what = ", ".join(sorted(unsupported)) or reference
        reason = f"response_format: the stand-in does not support {what}: script a reply"
        raise OfflineError(400, reason, param="response_format")
    if reference:
        found = root if reference == "#" else root["$defs"][reference.rpartition("/")[2]]
        return _smallest_json(found, root, (*inside, reference))
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    kind: Any = schema.get("type", "null")
    if options := schema.get("anyOf"):
        null = {"type": "null"}
        return _smallest_json(null if null in options else options[0], root, inside)
    if isinstance(kind, list):
        kind = "null" if "null" in kind else schema["type"][0]
    if kind == "object":
        needed = {name: schema["properties"][name] for name in schema.get("required", ())}
        return {name: _smallest_json(part, root, inside) for name, part in needed.items()}
    if kind == "array":
        return [
            _smallest_json(schema["items"], root, inside) for _ in range(schema.get("minItems", 0))
        ]
    number = min(max(0, least), most)
    text = "x" * schema.get("minLength", 0)
    return {"string": text, "boolean": False, "integer": number, "number": number}.get(kind)


# From a response to its chunks


def _offline_chunks(answer: dict[str, Any], with_usage: bool) -> Iterator[dict[str, Any]]:
    """The chunks that add up to a response; those of several choices alternate."""
    head = {key: value for key, value in answer.items() if key not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"
    if with_usage:
        head["usage"] = None
    cut = [_offline_deltas(choice, index) for index, choice in enumerate(answer["choices"])]
    for turn in zip_longest(*cut):
        yield from ({**head, "choices": [choice]} for choice in turn if choice is not None)
    if with_usage and answer.get("usage") is not None:
        yield {**head, "choices": [], "usage": answer["usage"]}


def _offline_deltas(choice: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    """The deltas of one choice: its role, its texts and tool calls, its finish reason.

    Other keys of the message are in the first delta, other keys of the choice in the last.
    """
    message = choice["message"]
    same = {"index": choice.get("index", index), "logprobs": None, "finish_reason": None}
    in_pieces = ("content", "refusal", "reasoning_content", "reasoning")
    texts = {key: message[key] for key in in_pieces if isinstance(message.get(key), str)}
    later = {*texts, "tool_calls", "function_call"}
    first = {key: value for key, value in message.items() if key not in later}
    yield {**same, "delta": {"role": "assistant", **first, **dict.fromkeys(texts, "")}}
    for key, text in texts.items():
        yield from ({**same, "delta": {key: part}} for part in _text_pieces(text))
    for number, call in enumerate(message.get("tool_calls") or ()):
        for part in _call_pieces(call):
            yield {**same, "delta": {"tool_calls": [{**part, "index": number}]}}
    if message.get("function_call") is not None:
        for part in _call_pieces({"function": message["function_call"]}):
            yield {**same, "delta": {"function_call": part["function"]}}
    last = {key: value for key, value in choice.items() if key != "message"}
    yield {**same, "delta": {}, **last}


def _call_pieces(call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A call with empty arguments or input, then their text in pieces."""
    for kind, key in (("function", "arguments"), ("custom", "input")):
        called: Any = call.get(kind) or {}
        if isinstance(text := called.get(key), str):
            yield {**call, kind: {**called, key: ""}}
            yield from ({kind: {key: part}} for part in _text_pieces(text))
            return
    yield call


def _text_pieces(text: str) -> list[str]:
    """`text` in pieces of about a word; a limit splits scripts that have no spaces."""
    return re.findall(r"\s*\S{1,12}|\s+", text)


# Checks of requests

OfflineCondition = str | re.Pattern[str] | Mapping[str, Any] | Callable[[dict[str, Any]], Any]


def condition_holds(condition: OfflineCondition, body: dict[str, Any]) -> bool:
    """Whether a rule's condition holds for a request's body; `OfflineServer` has the forms."""
    if callable(condition):
        return bool(condition(body))
    if isinstance(condition, str):
        condition = {"text": condition}
    elif isinstance(condition, re.Pattern):
        condition = {"regex": condition}
    text = text_of(body["messages"][-1].get("content"))
    tools = [tool.get(tool["type"], {}).get("name") for tool in body.get("tools") or ()]
    tests: dict[str, Callable[[Any], Any]] = {
        "text": lambda wanted: wanted in text,
        "regex": lambda wanted: re.search(wanted, text),
        "model": lambda wanted: wanted == body["model"],
        "tool": lambda wanted: wanted in tools,
    }
    results = [tests[key](wanted) for key, wanted in condition.items()]
    return all(results)  # of a list, since check_rule() relies on each test being run


def check_rule(condition: Any, reply: Any) -> None:
    """Raise TypeError or ValueError for an invalid condition or reply."""
    try:
        if not callable(condition):
            condition_holds(condition, {"model": "", "messages": [{"content": ""}]})
    except (AttributeError, LookupError, TypeError, re.error) as error:
        raise TypeError(f"invalid condition {condition!r}: {error}") from error
    check_reply(reply)


_PARAMETER_RANGES: dict[str, tuple[float, float]] = {  # of a number, or of a list's length
    "max_tokens": (1, math.inf), "max_completion_tokens": (1, math.inf), "n": (1, 128),
    "temperature": (0, 2), "top_p": (0, 1), "top_logprobs": (0, 20), "stop": (1, 4),
    "frequency_penalty": (-2, 2), "presence_penalty": (-2, 2), "functions": (1, 128),
}  # fmt: skip
_ALWAYS_CHECKED = ("model", "messages", "n", "max_tokens", "max_completion_tokens")
_JSON_TYPES: dict[Any, tuple[type, ...]] = {
    Any: (dict, NoneType), Sequence: (list,), Mapping: (dict,), float: (float, int)
}  # fmt: skip


_NEEDS = {  # a parameter, and the one without which the API rejects it
    "stream_options": "stream", "tool_choice": "tools", "parallel_tool_calls": "tools",
    "top_logprobs": "logprobs",
}  # fmt: skip


def check_request(body: dict[str, Any], strict: bool) -> None:
    """Raise OfflineError for a request that the API rejects.

    Unless `strict`, only the parameters that the answer depends on are checked.
    """
    checked = body if strict else {key: body[key] for key in _ALWAYS_CHECKED if key in body}
    _check_members(checked, CreateChatCompletionRequest, "")
    for name, needed in _NEEDS.items() if strict else ():
        if body.get(name) is not None and not body.get(needed):
            raise _error_about(name, f"only allowed with {needed!r}", "invalid_value")
    for name in ("model", "messages"):
        if not body.get(name):
            raise _error_about(name, "it is missing", "missing_required_parameter")
    calls: set[Any] = set()  # ids of tool calls that have no answer yet
    messages: list[Any] = body["messages"]
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        if not is_dict(message) or not isinstance(message.get("role"), str):
            raise _error_about(path, "expected an object with a role", "invalid_type")
        if strict:
            _check_members(message, ChatMessage, f"{path}.")
            calls = _unanswered(calls, message, path)
    if calls:
        raise _error_about("messages", f"the tool calls {calls} have no answer", "invalid_value")


def _check_members(given: Mapping[str, Any], of: Any, path: str) -> None:
    types = _json_types(of)
    for key, value in given.items():
        if key not in types:
            raise _error_about(f"{path}{key}", "unknown parameter", "unknown_parameter")
        if type(value) not in types[key]:
            raise _error_about(f"{path}{key}", f"wrong type: {value!r:.80}", "invalid_type")
        size: Any = len(value) if is_list(value) else value
        least, most = _PARAMETER_RANGES.get(key, (-math.inf, math.inf))
        if isinstance(size, (int, float)) and not least <= size <= most:
            raise _error_about(f"{path}{key}", f"expected {least} to {most}", "invalid_value")


@cache
def _json_types(of: Any) -> dict[str, set[type]]:
    """The JSON types that each field of a class accepts."""
    found: dict[str, set[type]] = {}
    for name, hint in get_type_hints(of).items():
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        for kind in (get_origin(option) or option for option in options):
            plain = (dict,) if is_dataclass(kind) else (kind,)
            found.setdefault(name, set()).update(_JSON_TYPES.get(kind, plain))
    del found["extra"]
    return found


def _unanswered(calls: set[Any], message: Mapping[str, Any], path: str) -> set[Any]:
    """The tool calls that are unanswered after a message, given those before it."""
    if message["role"] not in list(ChatRole):
        raise _error_about(f"{path}.role", "unknown role", "invalid_value")
    if message["role"] == "tool":
        if (answered := message.get("tool_call_id")) not in calls:
            raise _error_about(path, "its tool_call_id is that of no tool call", "invalid_value")
        return calls - {answered}
    if calls:
        raise _error_about(path, f"the tool calls {calls} are not answered yet", "invalid_value")
    return {call.get("id") for call in message.get("tool_calls") or ()}


def _error_about(path: str, reason: str, code: str) -> OfflineError:
    return OfflineError(400, f"{path}: {reason}", param=path, code=code)
