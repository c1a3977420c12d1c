"""Python functions as tools of a model.

    run = run_tools(client, request, [get_weather, book_table])
    print(run.text)

The model sees a function's name, docstring and type hints. Its calls are decoded into those
types and carried out, and the results are sent back, until it makes no more calls.
`run.messages` is the complete exchange.
https://platform.openai.com/docs/guides/function-calling
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import re
import sys
import types
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, MappingView, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from itertools import count
from typing import Any, cast

from ..chat import (
    ChatRequest,
    create_chat_completion,
    create_chat_completion_stream,
    request_members,
)
from ..client import OpenAIClient
from ..codec import JSONObject, is_list, is_mapping, members, object_members
from ..errors import ConfigError, DeserializeError, OutputTruncatedError, ToolError
from ..exchange import raised_by_signal
from ..models import (
    ChatCompletionUsage,
    ChatMessage,
    CreateChatCompletionChunk,
    CreateChatCompletionResponse,
    ToolCall,
)
from ..replies import parsed
from .docstrings import parameter_notes, prose_of
from .formats import format_of
from .results import ResultStream, about_response, added_usage, check_at_least, without_secrets
from .schema import SchemaBuilder, names_around
from .shapes import Property, object_schema, object_shape, shown_error


def function_tool(function: Callable[..., Any], *, strict: bool = False) -> dict[str, Any]:
    """Describe a Python function, as an entry of a request's `tools`.

    The description is the docstring up to its first section. A parameter is described by
    `Annotated[int, "how many"]`, by Pydantic's Field, or in the docstring, in the style of
    Google, NumPy or reST. The model may omit a parameter that has a default. With `strict`
    it must follow the schema exactly, and null stands for the default. Arguments bound by
    `functools.partial` are neither described nor accepted.

    Raises ConfigError, with the reason, for a function that can't be described, such as an
    asynchronous one, or one with `*args` or a parameter without a type hint.
    https://platform.openai.com/docs/guides/function-calling
    """
    return _Tool(function).described(strict)


@dataclass
class ToolRun:
    """The outcome of run_tools.

    `response` is the last response, `messages` the complete exchange, which begins with the
    request's messages. `usage` is the sum over all responses, if the server reports it, and
    `rounds` the number of responses.
    """

    response: CreateChatCompletionResponse
    messages: list[ChatMessage | Mapping[str, Any]]
    usage: ChatCompletionUsage | None
    rounds: int

    @property
    def text(self) -> str:
        """The text of the last response."""
        return self.response.text


BeforeCall = Callable[[ToolCall], str | None]
OnChunk = Callable[[CreateChatCompletionChunk], object]


def run_tools(
    client: OpenAIClient,
    request: ChatRequest,
    functions: Sequence[Callable[..., Any]],
    *,
    max_rounds: int = 10,
    raise_errors: bool = False,
    strict: bool = False,
    on_chunk: OnChunk | None = None,
    before_call: BeforeCall | None = None,
    jobs: int = 1,
) -> ToolRun:
    """Let a model call Python functions until it answers.

    Each round sends the messages and carries out the calls in the first choice of the
    response. The model receives what a function returns: text as it is, anything else as
    JSON. It also receives the reason why a call does not match the function, and what a
    function raises; with `raise_errors` the latter is a ToolError.

    The request may have other `tools`, of any kind: a call of one of those ends the run, and
    the caller carries it out. Its `tool_choice` applies to the first round only, since a
    model that must call a tool never answers.

    max_rounds: the maximum number of responses. If the last still has calls, the run fails
        with a ToolError, and those calls are not carried out
    strict: as for function_tool
    on_chunk: stream the responses, and call this with each chunk; see also stream_tools
    before_call: called with each valid call before it is carried out. If it returns a text,
        the model receives that, and the call is skipped; None lets the call run. Its
        exceptions reach the caller
    jobs: the number of calls of a round that run at once, in threads. Results keep the order
        of the calls

    Raises ConfigError for a function that can't be described and for any other result of
    `before_call`, OutputTruncatedError for a call that was cut off, ToolError, and what
    create_chat_completion raises. Every exception has the exchange so far as `messages`,
    including one that a callback raised.
    """
    run = _Run(client, request, functions, max_rounds, raise_errors, strict, before_call, jobs)
    return ResultStream(run.rounds(on_chunk)).result()


def stream_tools(
    client: OpenAIClient,
    request: ChatRequest,
    functions: Sequence[Callable[..., Any]],
    *,
    max_rounds: int = 10,
    raise_errors: bool = False,
    strict: bool = False,
    before_call: BeforeCall | None = None,
    jobs: int = 1,
) -> ResultStream[CreateChatCompletionChunk | ToolCall, ToolRun]:
    """Let a model call Python functions, and stream the chunks of each response, and each
    ToolCall before it is carried out.

        with stream_tools(client, request, [get_weather]) as stream:
            for item in stream:
                if isinstance(item, ToolCall): ...      # else a chunk
            run = stream.result()

    Arguments and errors are those of run_tools; errors are raised while iterating. A stream
    that is closed early sends no request and carries out no call after that.
    """
    run = _Run(client, request, functions, max_rounds, raise_errors, strict, before_call, jobs)
    return ResultStream(run.rounds(lambda chunk: None))


@dataclass
class _Run:
    """A request, and the messages that the run adds to it."""

    client: OpenAIClient
    request: ChatRequest
    functions: Sequence[Callable[..., Any]]
    max_rounds: int
    raise_errors: bool
    strict: bool
    before_call: BeforeCall | None
    jobs: int

    def __post_init__(self) -> None:
        check_at_least(1, max_rounds=self.max_rounds, jobs=self.jobs)
        self._tools = _by_name(self.functions)
        self._body = body = request_members(self.request)
        for key in ("tools", "messages"):
            value: object = body.get(key) or ()
            if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
                raise ConfigError(f"{key} must be a list, not {type(value).__name__}")
        self._request_tools = _names_in(body.get("tools") or ())
        for name in self._request_tools & self._tools.keys():
            raise ConfigError(f"two tools are named {name!r}: one in the request, one a function")
        described = [tool.described(self.strict) for tool in self._tools.values()]
        if described:  # an empty list is rejected by some servers
            body["tools"] = [*(body.get("tools") or ()), *described]
        self._messages: list[ChatMessage | Mapping[str, Any]] = list(body.get("messages") or ())
        self._given = len(self._messages)
        self._ids = _ids_in(self._messages)
        self._numbers = count()

    def rounds(
        self, on_chunk: OnChunk | None
    ) -> Generator[CreateChatCompletionChunk | ToolCall, None, ToolRun]:
        """Run until a response needs no more calls; yield the chunks, if any, and the calls."""
        usage: ChatCompletionUsage | None = None
        body, messages, most = self._body, self._messages, self.max_rounds
        number = 0
        try:
            while True:
                number += 1
                response = yield from self._answer({**body, "messages": messages}, on_chunk)
                usage = added_usage(usage, response.usage)
                choice = response.choices[0]
                calls = self._calls_in(response)
                messages.append(choice.message)
                legacy = ToolCall(function=choice.message.function_call)
                if (name := _name_called(legacy)) and not calls and not body.get("functions"):
                    raise ToolError(f"{name} came as a legacy function_call: it is not run", legacy)
                stopped = choice.finish_reason == "content_filter"
                names = {*map(_name_called, calls)}
                if not calls or stopped or names & self._request_tools:
                    return ToolRun(response, messages, usage, number)
                if number == most:
                    raise ToolError(f"the model still calls tools after {most} answers", calls[0])
                yield from calls
                self._execute_all(calls)
                if body.get("tool_choice") is not None:
                    body["tool_choice"] = _later_tool_choice(body["tool_choice"])
        except BaseException as error:  # Ctrl-C too: results so far must not be lost
            with suppress(Exception):  # a callback's exception may be a frozen dataclass
                if isinstance(error, ToolError):
                    error.call = without_secrets(error.call, self.client)
                added = (m for m in messages[self._given :] if isinstance(m, ChatMessage))
                new = (without_secrets(message, self.client) for message in added)
                error.messages = [*messages[: self._given], *new]  # type: ignore[attr-defined]
            raise

    def _answer(
        self, body: dict[str, Any], on_chunk: OnChunk | None
    ) -> Generator[CreateChatCompletionChunk, None, CreateChatCompletionResponse]:
        if on_chunk is None:
            return create_chat_completion(self.client, body)
        with create_chat_completion_stream(self.client, body) as stream:
            for chunk in stream:
                on_chunk(chunk)
                yield chunk
            return stream.response()

    def _calls_in(self, response: CreateChatCompletionResponse) -> list[ToolCall]:
        """The calls in a response, each with an id that is unique in the exchange, and with
        arguments. Some servers omit these, but require them in the next request."""
        choice = response.choices[0]
        calls = choice.message.tool_calls or []
        written: list[Any] = [call.function.arguments for call in calls if call.function]
        texts = [text or "" for text in written if text is None or isinstance(text, str)]
        if choice.finish_reason == "length" and any(parsed(text)[1] for text in texts):
            reason = "the response was cut off in a tool call: raise max_completion_tokens"
            raise about_response(OutputTruncatedError(reason), response, self.client)
        for call in calls:
            while not call.id or call.id in self._ids:
                call.id = f"call_{next(self._numbers)}"
            self._ids.add(call.id)
            if call.function is not None and call.function.arguments is None:
                call.function.arguments = "{}"
        return calls

    def _execute_all(self, calls: list[ToolCall]) -> None:
        """Append the result of each call to the messages, in order. If one fails, append those
        of the calls that completed."""
        if self.jobs == 1:
            for call in calls:
                text = self._prepare(call)()
                self._messages.append(ChatMessage.tool(str(call.id), text))
            return
        from concurrent.futures import ThreadPoolExecutor
        from contextvars import copy_context

        prepared = [self._prepare(call) for call in calls]
        threads = ThreadPoolExecutor(self.jobs)
        futures: list[Any] = []
        try:
            for one in prepared:
                futures.append(threads.submit(copy_context().run, one))
            for future in futures:
                future.result()
        finally:
            threads.shutdown(cancel_futures=True)
            for call, future in zip(calls, futures, strict=False):
                if not future.cancelled() and not future.exception():
                    self._messages.append(ChatMessage.tool(str(call.id), future.result()))

    def _prepare(self, call: ToolCall) -> Callable[[], str]:
        """A function that carries out a call, and returns the text for the model."""
        name, function = _name_called(call), call.function
        tool = self._tools.get(name or "")
        if tool is None or function is None:
            return lambda: _error_text(f"there is no function named {name!r}")
        try:
            arguments = tool.arguments(function.arguments)
        except DeserializeError as error:
            reason = f"the call does not match {name}: {error}"
            return lambda: _error_text(reason)
        instead: object = self.before_call and self.before_call(call)
        if isinstance(instead, str):
            return lambda: instead
        if instead is not None:
            kind = type(instead).__name__
            raise ConfigError(f"before_call must return a text for the model or None, not {kind}")
        return lambda: self._execute(tool, arguments, call)

    def _execute(self, tool: _Tool, arguments: inspect.BoundArguments, call: ToolCall) -> str:
        try:
            result = tool.function(*arguments.args, **arguments.kwargs)
            if hasattr(result, "__next__"):
                result = list(result)  # runs the generator
        except Exception as error:
            if raised_by_signal(error):  # such as a time limit of the program
                raise
            reason = shown_error(error)
            if not self.raise_errors:
                return _error_text(reason)
            secrets = self.client._secrets
            shown = f"{call!r} {reason}"
            cause = error if secrets.redacted(shown) == shown else None
            raise ToolError(secrets.redacted(f"{tool.name}() raised {reason}"), call) from cause
        return _result_text(result, tool.name, call)


def _later_tool_choice(choice: Any) -> Any:
    """The `tool_choice` for later rounds, which does not require a call."""
    if not is_mapping(choice):
        return "auto" if choice == "required" else choice
    if is_mapping(allowed := choice.get("allowed_tools")):
        return {**choice, "allowed_tools": {**allowed, "mode": "auto"}}
    return "auto"


def _names_in(tools: Any) -> set[str]:
    """The names of the tools in a request."""
    described = [object_members(tool) for tool in tools]
    if None in described:
        raise ConfigError(f"tools[{described.index(None)}] must be a dataclass or a mapping")
    kinds = [tool.get(str(tool.get("type"))) for tool in described if tool]
    return {str(kind.get("name")) for kind in kinds if is_mapping(kind)}


def _ids_in(messages: Sequence[Any]) -> set[str]:
    """The ids of the tool calls in messages of any kind."""
    lists = ((object_members(message) or {}).get("tool_calls") for message in messages)
    calls = (call for made in filter(is_list, lists) for call in made)
    return {str((object_members(call) or {}).get("id")) for call in calls}


def _name_called(call: ToolCall) -> str | None:
    called = call.function or call.custom
    return called.name if called and isinstance(called.name, str) else None


def _result_text(result: Any, name: str, call: ToolCall) -> str:
    """The text for the model. The function has run, so this must not fail. Only an awaitable is
    an error: it has not run, and the author has to change the function."""
    if inspect.isawaitable(result) or hasattr(result, "__anext__"):
        if close := getattr(result, "close", None):
            close()  # otherwise Python warns that it was never awaited
        kind = type(result).__name__
        raise ToolError(f"{name}() returned a {kind}, which must be awaited", call)
    if isinstance(result, str):
        return result
    try:
        return json.dumps(json_form(result), ensure_ascii=False, separators=(",", ":"))
    except Exception as error:
        if raised_by_signal(error):
            raise
        return object.__repr__(result)


def _error_text(reason: str) -> str:
    return json.dumps({"error": reason}, ensure_ascii=False)


# Results as JSON


def json_form(value: Any) -> Any:
    """Convert any value to dicts, lists, text and numbers that JSON can hold.

    Objects become dicts of all their fields, iterators become lists, and NumPy's arrays and
    numbers become Python's. Anything else becomes its text, since a tool that has run must not
    fail because of what it returned.
    """
    if isinstance(value, Enum):
        return json_form(value.value)
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if known := format_of(value):
        return known.write(value)
    if (found := _object_in(value)) is not None:
        keyed = {_key(key): json_form(item) for key, item in found.items()}
        return keyed if len(keyed) == len(found) else str(value)  # two keys with the same text
    if isinstance(value, (Iterator, Sequence, Set, MappingView)):
        return [json_form(item) for item in cast("Sequence[Any]", value)]
    for name in ("tolist", "item"):  # NumPy's arrays, and its scalars
        if callable(convert := getattr(value, name, None)):
            return json_form(convert())
    return str(value)


def _object_in(value: Any) -> Mapping[Any, Any] | None:
    """The members of a value that is an object in JSON, else None. Fields at None are kept,
    except in the API's own objects."""
    if isinstance(value, JSONObject):
        return members(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if is_mapping(value):
        return value
    if isinstance(value, type):
        return None
    found: Any = None
    if hasattr(value, "model_dump"):  # a Pydantic model
        found = value.model_dump(mode="json")
    elif hasattr(value, "_asdict"):  # a NamedTuple
        found = value._asdict()
    return found if is_mapping(found) else None


def _key(key: Any) -> str:
    written = json_form(key)
    return written if isinstance(written, str) else json.dumps(written)


# Functions


class _Tool:
    """A function and its description for the model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = _name_of(function)
        if _is_async(function):
            raise ConfigError(f"cannot describe {self.name}: it is asynchronous")
        behind = _behind_partials(function)
        doc = inspect.getdoc(behind) or ""
        if sys.flags.optimize > 1 and not doc:
            warnings.warn("python -OO drops the docstrings that describe tools", stacklevel=1)
        self._about = prose_of(doc)
        self.signature = _signature_of(function, self.name)
        called = inspect.unwrap(behind)
        around = names_around(called if isinstance(called, type) else type(called))
        self._builder = SchemaBuilder(getattr(called, "__globals__", around))
        parameters = _parameters(self._builder, self.name, self.signature, parameter_notes(doc))
        self._shape = object_shape(parameters, dict, object_schema(parameters))

    def described(self, strict: bool) -> dict[str, Any]:
        function = {
            "name": self.name,
            **({"description": self._about} if self._about else {}),
            "parameters": self._builder.schema(self._shape, self.name, strict),
            **({"strict": True} if strict else {}),
        }
        return {"type": "function", "function": function}

    def arguments(self, written: Any) -> inspect.BoundArguments:
        """The arguments that a model wrote. Raises DeserializeError if they don't match."""
        value, broken = parsed(written or "{}") if isinstance(written, str) else (written, None)
        if broken is not None:
            raise DeserializeError(f"$: the arguments are not JSON: {broken}")
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
    named = (getattr(one, "__name__", None) for one in (function, _behind_partials(function)))
    name = next(filter(None, named), None)
    if not isinstance(name, str) or not re.fullmatch("[a-zA-Z0-9_-]{1,64}", name):
        shown = name or type(function).__name__
        raise ConfigError(
            f"cannot describe {shown}: a tool needs a name of up to 64 letters, digits, _ and -: "
            "wrap it in a def"
        )
    return name


def _is_async(function: Any) -> bool:
    function = _behind_partials(function)
    if _own_signature(function) is None and hasattr(function, "__wrapped__"):  # of lru_cache, say
        return _is_async(function.__wrapped__)
    called = (function, type(function).__call__)  # a callable object has its own
    return any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in called)


def _behind_partials(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _own_signature(function: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError, NameError):
        return None


_VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def _described_callable(function: Any) -> Any:
    """The callable whose parameters are described: the one that will be called, or the one it
    wraps if it forwards all its arguments."""
    if isinstance(function, functools.partial):
        inner = _described_callable(function.func)
        return functools.partial(inner, *function.args, **function.keywords)
    own, inner = _own_signature(function), getattr(function, "__wrapped__", None)
    kinds = {parameter.kind for parameter in own.parameters.values()} if own else _VARIADIC
    if inner is None or not kinds or kinds - _VARIADIC:
        return function
    if inspect.ismethod(function):
        inner = types.MethodType(inner, function.__self__)
    return _described_callable(inner)


def _signature_of(function: Any, name: str) -> inspect.Signature:
    """The parameters for the model, without those that a partial has bound."""
    target: Any = _described_callable(function)
    signature = _own_signature(target)
    if signature is None:
        raise ConfigError(f"cannot describe {name}: Python can't tell its parameters")
    bound = target.keywords if isinstance(target, functools.partial) else {}
    parameters = signature.parameters.values()
    return signature.replace(parameters=[p for p in parameters if p.name not in bound])


def _parameters(
    builder: SchemaBuilder, name: str, signature: inspect.Signature, notes: Mapping[str, str]
) -> dict[str, Property]:
    found: dict[str, Property] = {}
    for parameter in signature.parameters.values():
        where = f"{name}({parameter.name})"
        if parameter.kind in _VARIADIC:
            raise ConfigError(f"cannot describe {where}: name each parameter instead")
        if parameter.annotation is parameter.empty:
            raise ConfigError(f"cannot describe {where}: it has no type hint")
        note = notes.get(parameter.name, "")
        found[parameter.name] = builder.property_of(
            parameter.name, parameter.annotation, where, parameter.default, note
        )
    return found
