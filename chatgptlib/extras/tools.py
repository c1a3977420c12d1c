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
import sys
import types
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from ..chat import (
    ChatRequest,
    create_chat_completion,
    create_chat_completion_stream,
    request_members,
)
from ..client import OpenAIClient
from ..codec import is_mapping, object_members
from ..errors import ConfigError, DeserializeError, OutputTruncatedError, ToolError
from ..exchange import raised_by_signal
from ..models import (
    ChatCompletionChoice,
    ChatCompletionUsage,
    ChatMessage,
    CreateChatCompletionChunk,
    CreateChatCompletionResponse,
    ToolCall,
)
from ..replies import parsed
from .docstrings import parameter_notes, prose_of
from .results import (
    ResultStream,
    about_response,
    added_usage,
    check_at_least,
    json_form,
    without_secrets,
)
from .schema import Hints
from .shapes import Member, object_schema, object_shape


def function_tool(function: Callable[..., Any], *, strict: bool = False) -> dict[str, Any]:
    """The entry of a request's `tools` that describes a Python function.

    The docstring, up to its first section, is the description. A parameter's description
    is that of `Annotated[int, "how many"]` or of Pydantic's Field, or the one in the
    docstring, in the style of Google, NumPy or reST. A parameter with a default may be
    left out; `strict` holds the model to the schema, where it may be null instead. What
    `functools.partial` has bound is neither told to the model nor taken from it.

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
    """Let a model call Python functions until it has its answer.

    Each round asks the model, and carries out the calls in its first choice. What a
    function returns is told to the model, as text, or as the JSON of anything else. A call
    that does not fit the function is told to it too, so that it can mend it. So is what a
    function raises; with `raise_errors` that is a ToolError.

    The request may have `tools` of its own, of any kind: a call to one of those ends the
    run, and is the caller's to carry out. Its `tool_choice` holds for the first round;
    later the model may choose, or a demand would never end.

    max_rounds: how many answers without an end are a ToolError
    strict: describe the functions as function_tool does
    on_chunk: stream the answers, and call this with each chunk; see also stream_tools
    before_call: called with each call that fits, before it is carried out. None lets it go
        on; a text is told to the model in place of the result. What it raises reaches you
    jobs: how many calls of a round are carried out at once, each in a thread of its own;
        they are answered in their order

    Raises ConfigError for a function that can't be described, OutputTruncatedError for a
    call that was cut off, ToolError, and what create_chat_completion raises. An error has
    the exchange so far as `messages`, one that passes through from elsewhere, too.
    """
    settings = _Settings(max_rounds, raise_errors, before_call, jobs)
    exchange = _Exchange(client, request, functions, settings, strict)
    return ResultStream(exchange.rounds(on_chunk)).result()


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
    """The same as a stream: of the chunks of each answer, as they arrive, and between the
    answers of each ToolCall, before it is carried out.

        with stream_tools(client, request, [get_weather]) as stream:
            for item in stream:
                if isinstance(item, ToolCall): ...      # else a chunk
            run = stream.result()

    Arguments are those of run_tools; iterating raises what that raises. Left before its
    end, the stream asks and carries out nothing more.
    """
    settings = _Settings(max_rounds, raise_errors, before_call, jobs)
    exchange = _Exchange(client, request, functions, settings, strict)
    return ResultStream(exchange.rounds(lambda chunk: None))


@dataclass
class _Settings:
    max_rounds: int
    raise_errors: bool
    before_call: BeforeCall | None
    jobs: int

    def __post_init__(self) -> None:
        check_at_least(1, max_rounds=self.max_rounds, jobs=self.jobs)


class _Exchange:
    """A request, and what it comes to when the model's calls are carried out."""

    def __init__(
        self,
        client: OpenAIClient,
        request: ChatRequest,
        functions: Sequence[Callable[..., Any]],
        settings: _Settings,
        strict: bool,
    ) -> None:
        self._client, self._settings = client, settings
        self._tools = _by_name(functions)
        self._body = body = request_members(request)
        for key in ("tools", "messages"):
            value: object = body.get(key) or ()
            if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
                raise ConfigError(f"the {key} of a request are a list, not {type(value).__name__}")
        self._own = _names_in(body.get("tools") or ())
        for name in self._own & self._tools.keys():
            raise ConfigError(f"two tools are named {name!r}: one in the request, one a function")
        described = [tool.described(strict) for tool in self._tools.values()]
        if described:  # an empty list is refused by some servers
            body["tools"] = [*(body.get("tools") or ()), *described]
        self._messages: list[ChatMessage | Mapping[str, Any]] = list(body.get("messages") or ())
        self._given = len(self._messages)
        self._ids = _ids_in(self._messages)
        self._numbers = count()

    def rounds(
        self, on_chunk: OnChunk | None
    ) -> Generator[CreateChatCompletionChunk | ToolCall, None, ToolRun]:
        """Ask and carry out until there is an answer; the chunks and the calls on the way.

        Answers are streamed where somebody wants the chunks.
        """
        usage: ChatCompletionUsage | None = None
        body, messages, most = self._body, self._messages, self._settings.max_rounds
        calls: list[ToolCall] = []
        try:
            for number in range(1, most + 1):
                response = yield from self._answer({**body, "messages": messages}, on_chunk)
                usage = added_usage(usage, response.usage)
                choice = response.choices[0]
                calls = self._whole_calls(choice, response)
                messages.append(choice.message)
                stopped = choice.finish_reason == "content_filter"
                if not calls or stopped or any(_name_called(call) in self._own for call in calls):
                    return ToolRun(response, messages, usage, number)
                yield from calls
                self._carry_out(calls)
                if body.get("tool_choice") is not None:
                    body["tool_choice"] = _without_demand(body["tool_choice"])
            raise ToolError(f"the model still calls tools after {most} answers", calls[0])
        except GeneratorExit:
            raise
        except BaseException as error:  # also Ctrl-C: what was done is not to be lost
            if isinstance(error, ToolError):
                error.call = without_secrets(error.call, self._client)
            with suppress(Exception):  # an exception of the user's may be frozen
                error.messages = self._safe_messages()  # type: ignore[attr-defined]
            raise

    def _safe_messages(self) -> list[ChatMessage | Mapping[str, Any]]:
        """The exchange for an error to carry."""
        new = self._messages[self._given :]
        safe = (without_secrets(one, self._client) for one in new if isinstance(one, ChatMessage))
        return [*self._messages[: self._given], *safe]

    def _answer(
        self, body: dict[str, Any], on_chunk: OnChunk | None
    ) -> Generator[CreateChatCompletionChunk, None, CreateChatCompletionResponse]:
        if on_chunk is None:
            return create_chat_completion(self._client, body)
        with create_chat_completion_stream(self._client, body) as stream:
            for chunk in stream:
                on_chunk(chunk)
                yield chunk
            return stream.response()

    def _whole_calls(
        self, choice: ChatCompletionChoice, response: CreateChatCompletionResponse
    ) -> list[ToolCall]:
        """The calls of an answer, with what servers leave out and yet want to see when they come
        back: arguments, and ids of which no two in the exchange are the same."""
        calls = choice.message.tool_calls or []
        if choice.finish_reason == "length" and any(map(_is_cut, calls)):
            words = "the answer was cut off in a tool call: raise max_completion_tokens"
            raise about_response(OutputTruncatedError(words), response, self._client)
        for call in calls:
            while not call.id or call.id in self._ids:
                call.id = f"call_{next(self._numbers)}"
            self._ids.add(call.id)
            if call.function is not None and call.function.arguments is None:
                call.function.arguments = "{}"
        return calls

    def _carry_out(self, calls: list[ToolCall]) -> None:
        """Add the results of the calls to the messages, in their order: of those that are done
        when one of them fails, too."""
        if self._settings.jobs == 1:
            for call in calls:
                self._add_result(call, self._prepared(call)())
            return
        from concurrent.futures import Future, ThreadPoolExecutor
        from contextvars import copy_context

        prepared = [self._prepared(call) for call in calls]
        threads = ThreadPoolExecutor(self._settings.jobs)
        futures: list[Future[str]] = []
        try:
            for one in prepared:
                futures.append(threads.submit(copy_context().run, one))
            for future in futures:
                future.result()
        finally:
            threads.shutdown(cancel_futures=True)
            for call, future in zip(calls, futures, strict=False):
                if not future.cancelled() and not future.exception():
                    self._add_result(call, future.result())

    def _add_result(self, call: ToolCall, text: str) -> None:
        self._messages.append(ChatMessage.tool(str(call.id), text))

    def _prepared(self, call: ToolCall) -> Callable[[], str]:
        """What carries out a call that fits, and that `before_call` lets go on; and returns
        what to tell the model."""
        name, function = _name_called(call), call.function
        tool = self._tools.get(name or "")
        if tool is None or function is None:
            return lambda: _told(f"there is no function named {name!r}")
        try:
            arguments = tool.arguments(function.arguments)
        except DeserializeError as error:
            words = f"the call does not fit {name}: {error}"
            return lambda: _told(words)
        instead = self._settings.before_call and self._settings.before_call(call)
        if instead is not None:
            return lambda: _result_text(instead, "before_call", call)
        return lambda: self._carried_out(tool, arguments, call)

    def _carried_out(self, tool: _Tool, arguments: inspect.BoundArguments, call: ToolCall) -> str:
        try:
            result = tool.function(*arguments.args, **arguments.kwargs)
            if hasattr(result, "__next__"):
                result = list(result)  # a generator works only now
        except Exception as error:
            if raised_by_signal(error):  # a time limit of the program's, say: not for the model
                raise
            words = f"{type(error).__name__}: {error}"
            if not self._settings.raise_errors:
                return _told(words)
            secrets = self._client._secrets
            cause = None if secrets.found_in(repr(call)) else error
            raise ToolError(secrets.redacted(f"{tool.name}() raised {words}"), call) from cause
        return _result_text(result, tool.name, call)


def _is_cut(call: ToolCall) -> bool:
    return call.function is not None and parsed(call.function.arguments or "")[1] is not None


def _without_demand(choice: Any) -> Any:
    """A `tool_choice` that lets the model choose where this one demands a call."""
    if not is_mapping(choice):
        return "auto" if choice == "required" else choice
    allowed = choice.get("allowed_tools")
    if choice.get("type") != "allowed_tools" or not is_mapping(allowed):
        return "auto"
    return {**choice, "allowed_tools": {**allowed, "mode": "auto"}}


def _names_in(tools: Any) -> set[str]:
    """The names of the tools that a request has of its own."""
    found: set[str] = set()
    for tool in tools:
        members = request_members(tool)
        kind = members.get(str(members.get("type")))
        if is_mapping(kind):
            found.add(str(kind.get("name")))
    return found


def _ids_in(messages: Sequence[Any]) -> set[str]:
    """The ids of the calls in an exchange."""
    calls = ((object_members(message) or {}).get("tool_calls") or () for message in messages)
    return {str((object_members(call) or {}).get("id")) for made in calls for call in made}


def _name_called(call: ToolCall) -> str | None:
    called = call.function or call.custom
    return called.name if called and isinstance(called.name, str) else None


def _result_text(result: Any, name: str, call: ToolCall) -> str:
    """What a function returned, as it is told to the model. It is done, so this never fails, but
    for what is not done yet: then no model could tell, and its author has to."""
    if inspect.isawaitable(result) or hasattr(result, "__anext__"):
        if close := getattr(result, "close", None):
            close()  # or Python warns that nobody awaited it
        kind = type(result).__name__
        raise ToolError(f"{name}() returned a {kind}, which has to be awaited", call)
    if isinstance(result, str):
        return result
    try:
        return json.dumps(
            json_form(result), ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
    except Exception as error:
        if raised_by_signal(error):
            raise
    try:
        return str(result)
    except Exception:
        return object.__repr__(result)


def _told(reason: str) -> str:
    return json.dumps({"error": reason}, ensure_ascii=False)


# Functions


class _Tool:
    """A function, as a model sees it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = _name_of(function)
        behind = _behind_partials(function)
        doc = inspect.getdoc(behind) or ""
        if sys.flags.optimize > 1 and not doc:
            warnings.warn("python -OO drops the docstrings that describe tools", stacklevel=1)
        self._about = prose_of(doc)
        self.signature = _signature_of(function, self.name)
        self._hints = Hints(getattr(inspect.unwrap(behind), "__globals__", {}))
        members = _parameters(self._hints, self.name, self.signature, parameter_notes(doc))
        self._shape = object_shape(members, dict, object_schema(members))

    def described(self, strict: bool) -> dict[str, Any]:
        function: dict[str, Any] = {"name": self.name}
        if self._about:
            function["description"] = self._about
        function["parameters"] = self._hints.schema(self._shape, self.name, strict)
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
    named = (getattr(one, "__name__", None) for one in (function, _behind_partials(function)))
    name = next(filter(None, named), None)
    if not isinstance(name, str) or not re.fullmatch("[a-zA-Z0-9_-]{1,64}", name):
        shown = name or type(function).__name__
        raise ConfigError(
            f"cannot describe {shown}: a tool needs a name, of up to 64 letters, digits, _ and -, "
            "so wrap it in a def"
        )
    if _is_async(function):
        raise ConfigError(f"cannot describe {name}: it is asynchronous")
    return name


def _is_async(function: Any) -> bool:
    function = _behind_partials(function)
    if _own_signature(function) is None and hasattr(function, "__wrapped__"):  # of lru_cache, say
        return _is_async(function.__wrapped__)
    called = (function, type(function).__call__)  # which may be an object's own
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


_PASSING_ON = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def _described_one(function: Any) -> Any:
    """The callable whose parameters are described: the one that will be called, or what it
    wraps where it passes all of its arguments on."""
    if isinstance(function, functools.partial):
        inner = _described_one(function.func)
        return functools.partial(inner, *function.args, **function.keywords)
    own, inner = _own_signature(function), getattr(function, "__wrapped__", None)
    kinds = {parameter.kind for parameter in own.parameters.values()} if own else _PASSING_ON
    if inner is None or not kinds or kinds - _PASSING_ON:
        return function
    if inspect.ismethod(function):
        inner = types.MethodType(inner, function.__self__)
    return _described_one(inner)


def _signature_of(function: Any, name: str) -> inspect.Signature:
    """The parameters that a model is to fill in: without those that a partial has bound."""
    one: Any = _described_one(function)
    signature = _own_signature(one)
    if signature is None:
        raise ConfigError(f"cannot describe {name}: Python does not know its parameters")
    bound = one.keywords if isinstance(one, functools.partial) else {}
    parameters = signature.parameters.values()
    return signature.replace(parameters=[p for p in parameters if p.name not in bound])


def _parameters(
    hints: Hints, name: str, signature: inspect.Signature, notes: Mapping[str, str]
) -> dict[str, Member]:
    found: dict[str, Member] = {}
    for parameter in signature.parameters.values():
        where = f"{name}({parameter.name})"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigError(f"cannot describe {where}: name each parameter instead")
        if parameter.annotation is parameter.empty:
            raise ConfigError(f"cannot describe {where}: it has no type hint")
        note = notes.get(parameter.name, "")
        found[parameter.name] = hints.member(
            parameter.name, parameter.annotation, where, parameter.default, note
        )
    return found
