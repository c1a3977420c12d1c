"""Python functions as tools of a model.

    run = run_tools(client, request, [get_weather, book_table])
    print(run.text)

A function is described to the model by its name, its docstring and its type hints. The
model's calls are decoded into those types, carried out, and answered, until it has
nothing more to call. `run.messages` is the whole exchange.
https://platform.openai.com/docs/guides/function-calling
"""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeGuard

from ..chat import (
    ChatRequest,
    create_chat_completion,
    create_chat_completion_stream,
    request_members,
)
from ..client import OpenAIClient
from ..codec import JSONObject, as_json, is_dict, is_mapping
from ..errors import ConfigError, DeserializeError, OpenAIError, ToolError
from ..exchange import raised_by_signal
from ..models import (
    ChatCompletionUsage,
    ChatMessage,
    CreateChatCompletionChunk,
    CreateChatCompletionResponse,
    ToolCall,
)
from ..replies import first_choice, parsed
from .schema import Member, ObjectShape, described, first_paragraph, shape_of


def function_tool(function: Callable[..., Any], *, strict: bool = False) -> dict[str, Any]:
    """The entry of a request's `tools` that describes a Python function.

    The first paragraph of the docstring is the description. A parameter's description is
    that of `Annotated[int, "how many"]`, or the one in the docstring, in the style of
    Google, NumPy or reST. A parameter with a default may be left out, unless `strict`,
    which holds the model to the schema and has all parameters required.

    Raises ConfigError, with the reason, for a function that can't be described: without
    a name, asynchronous, with `*args` or `**kwargs`, or with a parameter that has no type
    hint, or one that JSON has no form for.
    https://platform.openai.com/docs/guides/function-calling
    """
    return _Tool(function).described(strict)


@dataclass
class ToolRun:
    """What came of run_tools.

    `response` is the last answer; `messages` the whole exchange, those of the request
    included; `usage` the tokens of all answers together, where the server tells them;
    `rounds` how many answers there were.
    """

    response: CreateChatCompletionResponse
    messages: list[ChatMessage | Mapping[str, Any]]
    usage: ChatCompletionUsage | None
    rounds: int

    @property
    def text(self) -> str:
        """The text of the last answer."""
        return self.response.text


def run_tools(
    client: OpenAIClient,
    request: ChatRequest,
    functions: Sequence[Callable[..., Any]],
    *,
    max_rounds: int = 10,
    raise_errors: bool = False,
    strict: bool = False,
    on_chunk: Callable[[CreateChatCompletionChunk], object] | None = None,
) -> ToolRun:
    """Let a model call Python functions until it has its answer.

    Each round asks the model, and carries out the calls in its first choice, in their
    order. What a function returns is told to the model, as text, or as the JSON of
    anything else. A call that does not fit the function is told to it too, so that it
    can mend it. So is what a function raises; with `raise_errors` that is a ToolError.

    The request may have `tools` of its own, of any kind: a call to one of those ends the
    run, and is the caller's to carry out. Its `tool_choice` holds for the first round;
    later the model may choose, or a demand would never end.

    `max_rounds` answers without an end are a ToolError. `strict` describes the functions
    as function_tool does. With `on_chunk` the answers are streamed, and it is called with
    each chunk.

    Raises ConfigError for a function that can't be described, ToolError, and what
    create_chat_completion raises.
    """
    if max_rounds < 1:
        raise ConfigError(f"max_rounds must be 1 or more, not {max_rounds!r}")
    tools = _by_name(functions)
    body = request_members(request)
    for key in ("tools", "messages"):
        value: object = body.get(key) or ()
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise ConfigError(f"the {key} of a request are a list, not {type(value).__name__}")
    own = _names_in(body.get("tools") or ())
    for name in own & tools.keys():
        raise ConfigError(f"two tools are named {name!r}: one in the request, one a function")
    described_tools = [tool.described(strict) for tool in tools.values()]
    if described_tools:  # an empty list is refused by some servers
        body["tools"] = [*(body.get("tools") or ()), *described_tools]
    messages: list[ChatMessage | Mapping[str, Any]] = list(body.get("messages") or ())
    calls: list[ToolCall] = []
    usage: ChatCompletionUsage | None = None
    try:
        for number in range(1, max_rounds + 1):
            response = _answer(client, {**body, "messages": messages}, on_chunk)
            usage = added_usage(usage, response.usage)
            choice = first_choice(response)
            messages.append(choice.message)
            calls = choice.message.tool_calls or []
            stopped = choice.finish_reason == "content_filter"
            if not calls or stopped or any(_name_called(call) in own for call in calls):
                return ToolRun(response, messages, usage, number)
            _complete(calls)
            for call in calls:
                text = _carried_out(call, tools, raise_errors)
                messages.append(ChatMessage.tool(str(call.id), text))
            if body.get("tool_choice") is not None:
                body["tool_choice"] = _without_demand(body["tool_choice"])
        raise _tool_error(f"the model still calls tools after {max_rounds} answers", calls[0])
    except OpenAIError as error:
        error.messages = messages
        raise


def _complete(calls: list[ToolCall]) -> None:
    """Give calls what servers leave out, and yet want to see when they come back."""
    for number, call in enumerate(calls):
        call.id = call.id or f"call_{number}"
        if call.function is not None and call.function.arguments is None:
            call.function.arguments = "{}"


def _answer(
    client: OpenAIClient,
    body: dict[str, Any],
    on_chunk: Callable[[CreateChatCompletionChunk], object] | None,
) -> CreateChatCompletionResponse:
    if on_chunk is None:
        return create_chat_completion(client, body)
    with create_chat_completion_stream(client, body) as stream:
        for chunk in stream:
            on_chunk(chunk)
        return stream.response()


def _without_demand(choice: Any) -> Any:
    """A `tool_choice` that lets the model choose where this one demands a call."""
    if not is_mapping(choice):
        return "auto" if choice == "required" else choice
    allowed = choice.get("allowed_tools")
    if choice.get("type") != "allowed_tools" or not is_mapping(allowed):
        return "auto"
    return {**choice, "allowed_tools": {**allowed, "mode": "auto"}}


def added_usage(
    so_far: ChatCompletionUsage | None, more: ChatCompletionUsage | None
) -> ChatCompletionUsage | None:
    """The tokens of both, where they were told."""
    if so_far is None or more is None:
        return so_far or more
    return ChatCompletionUsage.from_dict(_sum(so_far.to_dict(), more.to_dict()))


def _sum(one: Any, other: Any) -> Any:
    """Numbers added, at every level; of anything else the later."""
    if is_dict(one) and is_dict(other):
        both = {key: _sum(one[key], other[key]) for key in one.keys() & other.keys()}
        return {**one, **other, **both}
    numbers = all(isinstance(value, (int, float)) for value in (one, other))
    return one + other if numbers and not isinstance(other, bool) else other


# Calls


def _names_in(tools: Any) -> set[str]:
    """The names of the tools that a request has of its own."""
    found: set[str] = set()
    for tool in tools:
        plain = request_members(tool)
        kind = plain.get(str(plain.get("type")))
        if is_mapping(kind):
            found.add(str(kind.get("name")))
    return found


def _name_called(call: ToolCall) -> str | None:
    called = call.function or call.custom
    return called.name if called and isinstance(called.name, str) else None


def _carried_out(call: ToolCall, tools: Mapping[str, _Tool], raise_errors: bool) -> str:
    """What to tell the model that its call came to."""
    name = _name_called(call)
    tool = tools.get(name or "")
    if tool is None or call.function is None:
        return _told(f"there is no function named {name!r}")
    try:
        arguments = tool.arguments(call.function.arguments)
    except DeserializeError as error:
        return _told(f"the call does not fit {name}: {error}")
    try:
        result = tool.function(*arguments.args, **arguments.kwargs)
    except Exception as error:
        if raised_by_signal(error):  # a time limit of the program's, say: not for the model
            raise
        words = f"{type(error).__name__}: {error}"
        if not raise_errors:
            return _told(words)
        raise _tool_error(f"{name}() raised {words}", call) from error
    if isinstance(result, str):
        return result
    try:
        return _TOLD.encode(result)
    except (TypeError, ValueError, RecursionError) as error:
        words = f"{name}() returned what has no JSON form: {error}"
        if not raise_errors:
            return _told(words)
        raise _tool_error(words, call) from error


def _as_told(value: Any) -> Any:
    """A result as JSON. Unlike in a request, a field at None says something."""
    if is_dataclass(value) and not isinstance(value, (type, JSONObject)):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if _is_set(value):
        return list(value)
    if dump := getattr(value, "model_dump", None):  # a model of Pydantic's
        return dump(mode="json")
    return as_json(value)


def _is_set(value: object) -> TypeGuard[set[Any] | frozenset[Any]]:
    return isinstance(value, (set, frozenset))


_TOLD = json.JSONEncoder(
    default=_as_told, ensure_ascii=False, allow_nan=False, separators=(",", ":")
)


def _told(reason: str) -> str:
    return json.dumps({"error": reason}, ensure_ascii=False)


def _tool_error(text: str, call: ToolCall) -> ToolError:
    return ToolError(text, call)


# Functions


class _Tool:
    """A function, as a model sees it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = _name_of(function)
        self.signature = _signature_of(function, self.name)
        doc = inspect.getdoc(_behind_partials(function)) or ""
        self._note = first_paragraph(doc)
        members = _parameters(function, self.name, self.signature, parameter_notes(doc))
        self._shape = ObjectShape(lambda: members, dict)

    def described(self, strict: bool = False) -> dict[str, Any]:
        function: dict[str, Any] = {"name": self.name}
        if self._note:
            function["description"] = self._note
        function["parameters"] = described(self._shape, strict)
        if strict:
            function["strict"] = True
        return {"type": "function", "function": function}

    def arguments(self, written: Any) -> inspect.BoundArguments:
        """The arguments that a model wrote. Raises DeserializeError where they don't fit."""
        value, broken = parsed(written or "{}") if isinstance(written, str) else (written, None)
        if broken is not None:
            raise DeserializeError(f"$: the arguments are no JSON: {broken}")
        arguments = inspect.BoundArguments(self.signature, self._shape.read(value))
        arguments.apply_defaults()
        return arguments


def _by_name(functions: Sequence[Callable[..., Any]]) -> dict[str, _Tool]:
    tools: dict[str, _Tool] = {}
    for function in functions:
        tool = _Tool(function)
        if tools.setdefault(tool.name, tool) is not tool:
            raise ConfigError(f"two tools are named {tool.name!r}")
    return tools


def _name_of(function: Any) -> str:
    name = getattr(function, "__name__", None)
    if name is None or not re.fullmatch("[a-zA-Z0-9_-]{1,64}", name):
        shown = name or type(function).__name__
        raise ConfigError(
            f"cannot describe {shown}: a tool needs a name, of up to 64 letters, digits, _ and -, "
            "so wrap it in a def"
        )
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(f"cannot describe {name}: it is asynchronous")
    return str(name)


def _signature_of(function: Any, name: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"cannot describe {name}: {error}") from None


def _parameters(
    function: Any, name: str, signature: inspect.Signature, notes: Mapping[str, str]
) -> list[Member]:
    names = _names_in_sight(function)
    found: list[Member] = []
    for parameter in signature.parameters.values():
        where = f"{name}({parameter.name})"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigError(f"cannot describe {where}: name each parameter instead")
        if parameter.annotation is parameter.empty:
            raise ConfigError(f"cannot describe {where}: it has no type hint")
        required = parameter.default is parameter.empty
        default = None if required else parameter.default
        shape = shape_of(parameter.annotation, where, names)
        note = "" if shape.note else notes.get(parameter.name, "")
        found.append(Member(parameter.name, shape, required, default, note))
    return found


def _names_in_sight(function: Any) -> dict[str, Any]:
    """What type hints that stand as text may refer to."""
    function = inspect.unwrap(_behind_partials(function))
    names: dict[str, Any] = getattr(function, "__globals__", {})
    return names


def _behind_partials(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


# Docstrings

_GOOGLE_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:\s*(.*)")
_NUMPY_ENTRY = re.compile(r"(\w+(?:\s*,\s*\w+)*)\s*(?::.*)?$")
_REST_ENTRY = re.compile(
    r"^:(?:param|parameter|arg|argument)\s+(?:[^:\n]*\s)?(\w+)\s*:[ \t]*(.*(?:\n[ \t]+\S.*)*)", re.M
)


def parameter_notes(doc: str) -> dict[str, str]:
    """What a docstring says about each parameter, in the style of Google, NumPy or reST."""
    lines = inspect.cleandoc(doc).splitlines()
    found = {name: " ".join(text.split()) for name, text in _REST_ENTRY.findall("\n".join(lines))}
    for number, line in enumerate(lines):
        following = lines[number + 1 :]
        if re.fullmatch(r"(?:Args|Arguments|Params|Parameters):", line.strip()):
            found |= _section_notes(_indented(following), _GOOGLE_ENTRY)
        elif line == "Parameters" and following and re.fullmatch("-{3,}", following[0]):
            found |= _section_notes(_until_next_title(following[1:]), _NUMPY_ENTRY)
    return {name: text for name, text in found.items() if text}


def _indented(lines: list[str]) -> list[str]:
    """The lines of a section that is indented, up to its end."""
    body: list[str] = []
    for line in lines:
        if line and not line[0].isspace():
            break
        body.append(line)
    return inspect.cleandoc("\n" + "\n".join(body)).splitlines()


def _until_next_title(lines: list[str]) -> list[str]:
    titles = (i for i, line in enumerate(lines[1:]) if re.fullmatch("-{3,}", line))
    return lines[: next(titles, len(lines))]


def _section_notes(lines: list[str], entry: re.Pattern[str]) -> dict[str, str]:
    """The entries of a section: each begins at the margin, and goes on indented."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line and not line[0].isspace():
            match = entry.match(line)
            names = re.split(r"\s*,\s*", match[1]) if match else []
            text = match[2].strip() if match and entry is _GOOGLE_ENTRY else ""
            found |= dict.fromkeys(names, text)
        else:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return found
