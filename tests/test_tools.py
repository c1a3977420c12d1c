"""Tools: functions are described as one would by hand, and called with objects of their types."""

import functools
import json
import math
import sys
import types
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal, Optional, TypedDict

import pytest

from . import lib
from .wire import http


class Unit(Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


@dataclass
class Stop:
    """A place on the way."""

    city: str
    nights: int = 1


class Budget(TypedDict):
    amount: float
    currency: str


def plan_trip(
    kind: Literal["fast", "scenic"],
    unit: Unit,
    guide: Optional[str],  # noqa: UP045  (as older code says it)
    stops: list[Stop],
    seats: dict[str, int],
    budget: Budget,
    start: int | str,
    pace: Annotated[float, "1 is usual"] = 1.0,
) -> str:
    """Plan a trip
    by train.

    Long explanations are for models as well.

    Args:
        kind: how to go; fast is the
            shorter way
        stops (list): in this order
        pace: not this one
    """
    planned.append((kind, unit, guide, stops, seats, budget, start, pace))
    return "planned"


planned: list[Any] = []

PLAN_TRIP = {
    "type": "function",
    "function": {
        "name": "plan_trip",
        "description": "Plan a trip by train.\n\nLong explanations are for models as well.",
        "parameters": {
            "type": "object",
            "properties": {
                "kind": {
                    "type": "string",
                    "enum": ["fast", "scenic"],
                    "description": "how to go; fast is the shorter way",
                },
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "guide": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "stops": {
                    "type": "array",
                    "items": {"$ref": "#/$defs/Stop"},
                    "description": "in this order",
                },
                "seats": {"type": "object", "additionalProperties": {"type": "integer"}},
                "budget": {"$ref": "#/$defs/Budget"},
                "start": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
                "pace": {"type": "number", "description": "1 is usual", "default": 1.0},
            },
            "required": ["kind", "unit", "guide", "stops", "seats", "budget", "start"],
            "additionalProperties": False,
            "$defs": {
                "Stop": {
                    "type": "object",
                    "description": "A place on the way.",
                    "properties": {
                        "city": {"type": "string"},
                        "nights": {"type": "integer", "default": 1},
                    },
                    "required": ["city"],
                    "additionalProperties": False,
                },
                "Budget": {
                    "type": "object",
                    "properties": {"amount": {"type": "number"}, "currency": {"type": "string"}},
                    "required": ["amount", "currency"],
                    "additionalProperties": False,
                },
            },
        },
    },
}


def call(name, arguments, id="call_1"):
    arguments = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*made):
    return {"content": None, "tool_calls": list(made)}


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def tool_results(client, number=1):
    """The results of calls that were sent with a request."""
    messages = client.server.requests[number].body["messages"]
    return [message for message in messages if message["role"] == "tool"]


# Describing


def test_the_schema_of_a_function_covers_its_types_docstring_and_defaults():
    assert lib.function_tool(plan_trip) == PLAN_TRIP


def test_a_strict_tool_requires_all_parameters():
    function = lib.function_tool(add, strict=True)["function"]
    assert function["strict"] is True
    assert function["parameters"] == {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {
                "anyOf": [{"type": "integer"}, {"type": "null"}],
                "description": "null means the default, 1",
            },
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    }


GOOGLE = """Do it.

    Args:
        first: one,
            and more
        *second (Optional[tuple[int, (str)]]): two

    Returns:
        third: no parameter
    """
NUMPY = """
    Do it.

    Parameters
    ----------
    first : int
        one,
        and more
    second
        two

    Returns
    -------
    third : int
        no parameter
    """
REST = """Do it.

    :param first: one,
        and more
    :param int second: two
    :returns third: no parameter
    """


@pytest.mark.parametrize("doc", [GOOGLE, NUMPY, REST], ids=["google", "numpy", "rest"])
def test_parameters_are_described_by_the_docstring_in_any_style(doc):
    assert lib.parameter_notes(doc) == {"first": "one, and more", "second": "two"}


@pytest.mark.parametrize(
    "doc",
    [GOOGLE, NUMPY, REST, "Do it.\nArgs:\n    x: y", "Do\nit.\n:param x: y", "Do it.\n\n:x",
     "Do it.\nParameters\n----------\nx : int", "------\nDo it.", "------\nDo it.\n------"],
)  # fmt: skip
def test_the_prose_ends_at_a_section(doc):
    assert lib.prose_of(doc) == "Do it."


@pytest.mark.parametrize(
    "doc",
    ["Args:\n  - first: one\n  * second (str): two", "Args:\n  `first`: one\n  **second**: two",
     "Parameters\n---\n`first` : int\n  one\n**second**\n  two",
     "Other Parameters\n---\n  first, _ : int\n    one\n\n  second\n    two",
     ":keyword first: one\n:param second:\ntwo"],
)  # fmt: skip
def test_common_deviations_from_a_docstring_style_are_read(doc):
    notes = lib.parameter_notes(f"Do it.\n\n{doc}")
    assert (notes["first"], notes["second"]) == ("one", "two")
    assert lib.prose_of(f"Do it.\n\n{doc}") == "Do it."


@pytest.mark.parametrize(
    ("doc", "prose"),
    [
        ("Args:\n  city - Where.\n  day: When.\n  guests - How\n    many.",
         "city - Where. guests - How many."),
        ("Args:\n  All are in metres.\n\n  x: one\nKeyword Args:\n  or in feet",
         "All are in metres. or in feet"),
        ("Parameters\n---\nx : int\n  one\n\nAll are in metres.\n\nNotes\n---\nNone.",
         "All are in metres."),
        (":func:`free` must be called first,\n:py:func:`lock` too.\n\n:param x: one",
         ":func:`free` must be called first,\n:py:func:`lock` too."),
    ],
)  # fmt: skip
def test_a_line_of_a_parameter_section_that_describes_no_parameter_is_prose(doc, prose):
    assert lib.prose_of(f"Do it.\n\n{doc}") == f"Do it.\n\n{prose}"


def test_the_later_of_two_notes_on_a_parameter_replaces_the_earlier():
    doc = "Args:\n    x: one\nAttributes:\n    x: two"
    assert lib.parameter_notes(doc) == {"x": "two"}


@pytest.mark.parametrize("doc", ["", "Args:", "Parameters\n---", "No section.\nfirst: one"])
def test_a_docstring_without_a_section_describes_no_parameter(doc):
    assert lib.parameter_notes(doc) == {}


def test_a_function_without_a_docstring_has_no_description():
    def bare(x: int):
        pass

    assert "description" not in lib.function_tool(bare)["function"]


def test_only_simple_defaults_are_in_the_schema():
    def rate(
        unit: Unit = Unit.CELSIUS,
        most: float = math.inf,
        least: float = math.nan,
        stop: Stop = Stop("Bern"),  # noqa: B008
        note: str | None = None,
        strict: bool = False,
    ) -> None: ...

    found = lib.function_tool(rate)["function"]["parameters"]
    defaults = {k: v["default"] for k, v in found["properties"].items() if "default" in v}
    assert defaults == {"unit": "celsius", "strict": False}
    assert "required" not in found


def untyped(x):
    pass


def scattered(*args: int):
    pass


def named(**kwargs: int):
    pass


def odd(x: complex):
    pass


def lost(x: "Nowhere"):  # noqa: F821
    pass


async def later(x: int):
    pass


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (untyped, "cannot describe untyped(x): it has no type hint"),
        (scattered, "cannot describe scattered(args): name each parameter"),
        (named, "cannot describe named(kwargs): name each parameter"),
        (odd, "cannot describe odd(x): complex has no JSON form"),
        (lost, "cannot describe lost(x): 'Nowhere' can't be evaluated"),
        (later, "cannot describe later: it is asynchronous"),
        (lambda: 1, "cannot describe <lambda>: a tool needs a name"),
        (Stop("a"), "cannot describe Stop: a tool needs a name"),
        (json, "cannot describe json: "),  # has a name, and can't be called
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_function_that_cannot_be_described_is_rejected_when_the_tool_is_made(function, words):
    with pytest.raises(lib.ConfigError) as caught:
        lib.function_tool(function)
    assert words in str(caught.value)


# Running


def test_a_function_is_called_with_objects_of_its_types(offline, question):
    arguments = {
        "kind": "scenic", "unit": "celsius", "guide": None, "stops": [{"city": "Bern"}],
        "seats": {"a": 2}, "budget": {"amount": 5, "currency": "EUR"}, "start": "noon",
    }  # fmt: skip
    client = offline(calls(call("plan_trip", arguments)), "Done.")
    planned.clear()
    run = lib.run_tools(client, question, [plan_trip])
    assert planned == [
        ("scenic", Unit.CELSIUS, None, [Stop("Bern", 1)], {"a": 2},
         {"amount": 5.0, "currency": "EUR"}, "noon", 1.0),
    ]  # fmt: skip
    assert client.server.requests[0].body["tools"] == [PLAN_TRIP]
    assert run.text == "Done."
    assert run.rounds == 2


def test_parallel_calls_are_answered_in_their_order(offline, question):
    client = offline(calls(call("add", {"a": 1}, "x"), call("add", {"a": 2, "b": 3}, "y")), "3, 5")
    run = lib.run_tools(client, question, [add])
    assert tool_results(client) == [
        {"role": "tool", "tool_call_id": "x", "content": "2"},
        {"role": "tool", "tool_call_id": "y", "content": "5"},
    ]
    roles = [dict(lib.members(m)) if not isinstance(m, dict) else m for m in run.messages]
    assert [str(message["role"]) for message in roles] == [
        "user", "assistant", "tool", "tool", "assistant",
    ]  # fmt: skip


def test_the_exchange_can_go_on_where_it_ended(offline, question):
    client = offline(calls(call("add", {"a": 1})), "2", "Still 2.")
    run = lib.run_tools(client, question, [add])
    messages = [*run.messages, lib.ChatMessage.user("Sure?")]
    assert lib.create_chat_completion(client, {"model": "m", "messages": messages}).text
    assert len(client.server.requests[2].body["messages"]) == 5
    assert question["messages"] == [{"role": "user", "content": "Hi"}]


def test_the_usage_of_all_rounds_is_added_up(offline, question):
    def answer(message, tokens):
        usage = {"total_tokens": tokens, "cost": 0.5,
                 "completion_tokens_details": {"reasoning_tokens": tokens}}  # fmt: skip
        return {"choices": [{"index": 0, "message": {"role": "assistant", **message},
                             "finish_reason": "stop"}], "usage": usage}  # fmt: skip

    client = offline(answer(calls(call("add", {"a": 1})), 5), answer({"content": "2"}, 7))
    usage = lib.run_tools(client, question, [add]).usage
    assert usage.total_tokens == 12
    assert usage.completion_tokens_details.reasoning_tokens == 12
    assert usage.extra == {"cost": 1.0}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            call("add", {"a": "one"}),
            "the call does not match add: $.a: expected integer, got string",
        ),
        (call("add", {}), "the call does not match add: $.a: missing"),
        (call("add", {"a": 1, "c": 2}), "the call does not match add: $.c: unknown key"),
        (call("add", "{"), "the call does not match add: $: the arguments are not JSON"),
        (call("add", "[1]"), "the call does not match add: $: expected object, got list"),
        (call("sub", {"a": 1}), "there is no function named 'sub'"),
        (call("add", ""), "$.a: missing"),
    ],
    ids=str,
)
def test_an_invalid_call_is_reported_to_the_model(offline, question, made, words):
    client = offline(calls(made), "Sorry.")
    assert lib.run_tools(client, question, [add]).text == "Sorry."
    [answer] = tool_results(client)
    assert words in json.loads(answer["content"])["error"]


def test_the_result_of_a_function_is_sent_as_text_or_json(offline, question):
    class Model:
        """A model with the only method of Pydantic's models that is used here."""

        def model_dump(self, mode):
            return {"mode": mode}

    returned = iter(["as it is", None, Stop("Bern"), [Unit.CELSIUS], {"é": 1}, [Model()]])

    def look() -> Any:
        return next(returned)

    client = offline(calls(*(call("look", {}, str(i)) for i in range(6))), "Done.")
    lib.run_tools(client, question, [look])
    assert [answer["content"] for answer in tool_results(client)] == [
        "as it is", "null", '{"city":"Bern","nights":1}', '["celsius"]', '{"é":1}',
        '[{"mode":"json"}]',
    ]  # fmt: skip


def divide(a: int, b: int) -> float:
    return a / b


def test_an_exception_of_a_function_is_reported_to_the_model(offline, question):
    client = offline(calls(call("divide", {"a": 1, "b": 0})), "Not possible.")
    assert lib.run_tools(client, question, [divide]).text == "Not possible."
    [answer] = tool_results(client)
    assert json.loads(answer["content"]) == {"error": "ZeroDivisionError: division by zero"}


def test_with_raise_errors_an_exception_of_a_function_is_a_tool_error(offline, question):
    client = offline(calls(call("add", {"a": 1}, "x"), call("divide", {"a": 1, "b": 0}, "y")))
    with pytest.raises(lib.ToolError, match=r"divide\(\) raised ZeroDivisionError") as caught:
        lib.run_tools(client, question, [add, divide], raise_errors=True)
    assert caught.value.call.id == "y"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert [getattr(message, "content", "") for message in caught.value.messages[2:]] == ["2"]


def test_an_exception_that_contains_the_key_is_not_the_cause_of_the_tool_error(offline, question):
    def ask_server() -> str:
        raise ValueError("no answer for sk-abcdefgh12345678")

    client = lib.OpenAIClient(
        "sk-abcdefgh12345678", base_url=offline(calls(call("ask_server", {}))).base_url
    )
    with (
        client,
        pytest.raises(lib.ToolError, match=r"raised ValueError: no answer for \*\*\*") as caught,
    ):
        lib.run_tools(client, question, [ask_server], raise_errors=True)
    assert caught.value.__cause__ is None


@dataclass
class Found:
    total: int
    note: str | None = None
    tax: float = field(init=False, default=0.5)


def test_a_result_is_sent_with_its_nulls_and_computed_fields(offline, question):
    def look() -> Any:
        return [Found(1), {"a"}]

    client = offline(calls(call("look", {})), "Done.")
    lib.run_tools(client, question, [look])
    assert tool_results(client)[0]["content"] == '[{"total":1,"note":null,"tax":0.5},["a"]]'


def test_a_model_that_keeps_calling_tools_is_stopped_after_max_rounds(offline, question):
    client = offline(*[calls(call("add", {"a": 1}))] * 3)
    with pytest.raises(lib.ToolError, match="still calls tools after 3 answers") as caught:
        lib.run_tools(client, question, [add], max_rounds=3)
    assert len(client.server.requests) == 3
    assert len(caught.value.messages) == 6


@pytest.mark.parametrize("run", [lib.run_tools, lambda *a, **k: list(lib.stream_tools(*a, **k))])
def test_the_calls_of_the_last_round_are_not_carried_out(offline, question, run):
    seats, asked = [], []

    def book(seat: int) -> None:
        seats.append(seat)

    made = [calls(call("book", {"seat": seat}, f"id{seat}")) for seat in (1, 2)]
    with pytest.raises(lib.ToolError, match="still calls tools after 2 answers") as caught:
        run(offline(*made), question, [book], max_rounds=2, before_call=asked.append)
    assert seats == [1]
    assert len(asked) == 1
    assert caught.value.call.id == "id2"
    assert caught.value.messages[-1].tool_calls[0].id == "id2"


def test_an_error_in_a_later_round_keeps_the_exchange(offline, question):
    client = offline(calls(call("add", {"a": 1})), 400)
    with pytest.raises(lib.BadRequestError) as caught:
        lib.run_tools(client, question, [add])
    assert [str(getattr(m, "role", "user")) for m in caught.value.messages] == [
        "user", "assistant", "tool",
    ]  # fmt: skip


OWN = [
    {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}},
    {"type": "custom", "custom": {"name": "write"}},
]


@pytest.mark.parametrize(
    "made",
    [
        call("lookup", {}, "own"),
        {"id": "own", "type": "custom", "custom": {"name": "write", "input": "text"}},
    ],
    ids=["function", "custom"],
)
def test_a_call_of_a_tool_in_the_request_is_left_to_the_caller(offline, question, made):
    client = offline(calls(call("add", {"a": 1}), made))
    run = lib.run_tools(client, {**question, "tools": OWN}, [add])
    assert [tool["type"] for tool in client.server.requests[0].body["tools"]] == [
        "function", "custom", "function",
    ]  # fmt: skip
    assert run.response.choices[0].message.tool_calls[1].to_dict() == made
    assert run.messages[-1] is run.response.choices[0].message


def test_tools_of_the_request_that_have_no_name_are_sent_as_they_are(offline, question):
    own = [{"type": "web_search"}, {"type": "custom", "custom": None}, {}]
    client = offline(calls(call("add", {"a": 1})), "2")
    run = lib.run_tools(client, {**question, "tools": own}, [add])
    assert run.text == "2"
    assert client.server.requests[0].body["tools"] == [*own, lib.function_tool(add)]


@pytest.mark.parametrize(
    ("choice", "later"),
    [
        ("required", "auto"),
        ("auto", "auto"),
        ({"type": "function", "function": {"name": "add"}}, "auto"),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}},
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
        ),
    ],
    ids=str,
)
def test_a_required_tool_choice_applies_only_to_the_first_round(offline, question, choice, later):
    client = offline(calls(call("add", {"a": 1})), "2")
    lib.run_tools(client, {**question, "tool_choice": choice}, [add])
    sent = [request.body["tool_choice"] for request in client.server.requests]
    assert sent == [choice, later]


def test_streamed_calls_are_carried_out_and_every_chunk_is_shown(offline, question):
    client = offline(calls(call("add", {"a": 1}, "x"), call("add", {"a": 2}, "y")), "Two, three.")
    shown = []
    run = lib.run_tools(client, question, [add], on_chunk=shown.append)
    assert run.text == "Two, three." == "".join(chunk.text for chunk in shown)
    assert [answer["content"] for answer in tool_results(client)] == ["2", "3"]
    assert [request.body["stream"] for request in client.server.requests] == [True, True]


def test_what_servers_leave_out_of_a_call_is_filled_in(offline, question):
    bare = {"type": "function", "function": {"name": "look", "arguments": None}}

    def look() -> str:
        return "seen"

    client = offline(
        {"choices": [{"message": {"role": "assistant", "tool_calls": [bare, bare]}}]}, "Done."
    )
    lib.run_tools(client, question, [look])
    sent = client.server.requests[1].body["messages"]
    assert [made["id"] for made in sent[1]["tool_calls"]] == ["call_0", "call_1"]
    assert sent[1]["tool_calls"][0]["function"] == {"name": "look", "arguments": "{}"}
    assert [answer["tool_call_id"] for answer in tool_results(client)] == ["call_0", "call_1"]


def test_calls_that_a_filter_stopped_are_not_carried_out(offline, question):
    message = {"role": "assistant", **calls(call("add", {"a": 1}))}
    client = offline({"choices": [{"message": message, "finish_reason": "content_filter"}]})
    run = lib.run_tools(client, question, [add])
    assert run.response.choices[0].finish_reason == "content_filter"
    assert len(run.messages) == 2


def test_a_response_without_choices_is_an_error(offline, question):
    with pytest.raises(lib.DeserializeError, match="empty"):
        lib.run_tools(offline({"choices": []}), question, [add])


def test_without_functions_no_tools_are_sent(offline, question):
    client = offline("Hi")
    assert lib.run_tools(client, question, []).text == "Hi"
    assert "tools" not in client.server.requests[0].body


def test_max_rounds_of_0_is_rejected(offline, question):
    with pytest.raises(lib.ConfigError, match="max_rounds must be 1 or more"):
        lib.run_tools(offline("Hi"), question, [add], max_rounds=0)


def test_the_strict_option_describes_functions_strictly(offline, question):
    client = offline("Hi")
    lib.run_tools(client, question, [add], strict=True)
    assert client.server.requests[0].body["tools"] == [lib.function_tool(add, strict=True)]


def test_an_exception_of_post_init_is_reported_to_the_model(offline, question):
    @dataclass
    class Some:
        n: int

        def __post_init__(self):
            assert self.n > 0, "none"

    def take(some: Some) -> str:
        return "taken"

    client = offline(calls(call("take", {"some": {"n": -1}})), "Sorry.")
    lib.run_tools(client, question, [take])
    assert "$.some: AssertionError: none" in tool_results(client)[0]["content"]


class Unprintable(Exception):
    def __str__(self):
        return self.detail["text"]


@dataclass
class Refused:
    n: int

    def __post_init__(self):
        raise Unprintable


def test_an_exception_whose_text_cannot_be_made_is_reported_by_its_type(offline, question):
    def pay(n: int) -> None:
        raise Unprintable

    def take(one: Refused) -> None: ...

    made = [call("pay", {"n": 1}, "x"), call("take", {"one": {"n": 1}}, "y")]
    client = offline(calls(*made), "Sorry.")
    lib.run_tools(client, question, [pay, take])
    paid, taken = (json.loads(result["content"])["error"] for result in tool_results(client))
    assert paid == "Unprintable"
    assert taken.endswith("$.one: Unprintable")
    with pytest.raises(lib.ToolError, match=r"pay\(\) raised Unprintable"):
        lib.run_tools(offline(calls(made[0])), question, [pay], raise_errors=True)


def test_string_annotations_of_a_method_are_resolved(offline, question):
    source = """
from __future__ import annotations
class Shop:
    def list(self, ids: list[str], many: int = 1) -> Nowhere:
        "List."
        return ids * many
"""
    names = {}
    exec(source, names)
    client = offline(calls(call("list", {"ids": ["a"]})), "Done.")
    lib.run_tools(client, question, [names["Shop"]().list])
    assert tool_results(client)[0]["content"] == '["a"]'


def test_string_annotations_of_callable_objects_and_classes_are_resolved(offline, question):
    module = types.ModuleType("module_of_tools")
    source = """
from __future__ import annotations
import dataclasses, typing
Names = list[str]
class Repeat:
    __name__ = "repeat"
    def __call__(self, ids: Names) -> str:
        return "+".join(ids)
@dataclasses.dataclass
class Order:
    ids: Names
class Plain:
    def __init__(self, ids: Names) -> None:
        self.ids = ids
class Row(typing.NamedTuple):
    ids: Names
"""
    sys.modules[module.__name__] = module
    try:
        exec(source, vars(module))
        functions = [module.Repeat(), module.Order, module.Plain, module.Row]
        for name, function in zip(("repeat", "Order", "Plain", "Row"), functions, strict=True):
            client = offline(calls(call(name, {"ids": ["a", "b"]})), "Done.")
            lib.run_tools(client, question, [function])
            assert "error" not in tool_results(client)[0]["content"]
    finally:
        del sys.modules[module.__name__]


def test_a_partial_is_described_by_the_function_behind_it():
    def repeat(text: str, many: int) -> str:
        """Say it again.

        Args:
            text: what to say
        """
        return text * many

    twice = functools.partial(functools.partial(repeat), many=2)
    twice.__name__ = "twice"
    function = lib.function_tool(twice)["function"]
    assert (function["name"], function["description"]) == ("twice", "Say it again.")
    assert function["parameters"]["properties"]["text"]["description"] == "what to say"


def test_string_annotations_behind_a_partial_are_resolved(offline, question):
    source = """
from __future__ import annotations
Names = list[str]
def repeat(ids: Names, many: int) -> Names:
    return ids * many
"""
    names = {}
    exec(source, names)
    twice = functools.partial(functools.partial(names["repeat"]), many=2)
    twice.__name__ = "twice"
    client = offline(calls(call("twice", {"ids": ["a"]})), "Done.")
    lib.run_tools(client, question, [twice])
    assert tool_results(client)[0]["content"] == '["a","a"]'


def test_a_positional_only_parameter_may_be_omitted_before_another(offline, question):
    def take(a: int = 1, b: int = 2, /) -> list[int]:
        return [a, b]

    client = offline(calls(call("take", {"b": 5})), "Done.")
    lib.run_tools(client, question, [take])
    assert tool_results(client)[0]["content"] == "[1,5]"


def test_two_tools_of_the_same_name_are_rejected_before_sending(offline, question):
    client = offline("Hi")
    with pytest.raises(lib.ConfigError, match="two tools are named 'add'"):
        lib.run_tools(client, question, [add, add])

    def lookup() -> None: ...

    with pytest.raises(lib.ConfigError, match="two tools are named 'lookup'"):
        lib.run_tools(client, {**question, "tools": OWN}, [lookup])
    assert client.server.requests == []


def test_a_method_is_called_on_its_object(offline, question):
    class Shop:
        sold = 0

        def sell(self, many: int, /, price: float = 1.0) -> float:
            """Sell some."""
            self.sold += many
            return many * price

    shop = Shop()
    client = offline(calls(call("sell", {"many": 3, "price": 2})), "Sold.")
    lib.run_tools(client, question, [shop.sell])
    assert shop.sold == 3
    assert tool_results(client)[0]["content"] == "6.0"


@pytest.mark.parametrize(
    ("key", "value"), [("tools", 5), ("tools", "x"), ("tools", ["x"]), ("messages", 5), ("messages", {"a": 1})]
)  # fmt: skip
def test_tools_and_messages_that_are_not_lists_of_objects_are_rejected(
    offline, question, key, value
):
    client = offline("Hi")
    with pytest.raises(lib.ConfigError):
        lib.run_tools(client, {**question, key: value}, [add])
    assert client.server.requests == []


def test_the_error_for_a_response_without_choices_has_the_response_and_request_id(ask, question):
    client = ask(http({"id": "c1", "choices": []}, "200 OK", "x-request-id: req-1"))
    with pytest.raises(lib.DeserializeError, match=r"^\$\.choices: empty") as caught:
        lib.run_tools(client, question, [add])
    assert caught.value.partial.id == "c1"
    assert caught.value.request_id == "req-1"
