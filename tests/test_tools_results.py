"""The result of a tool is sent to the model in a form that it can read, and never as an error."""

import collections
import functools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from . import lib
from .test_tools import call, calls, tool_results


class Colour(Enum):
    RED = "red"


@dataclass
class Booking:
    at: datetime
    guests: list["Booking"] | None = None


class Point(NamedTuple):
    x: int
    y: Decimal


class Scalar:
    """A scalar with only the method of NumPy's scalars that the library uses."""

    def __init__(self, value):
        self.value = value

    def item(self):
        return self.value


class Odd:
    def __str__(self):
        return "odd"


class Mute:
    def __repr__(self):
        raise ValueError("no text")


def count_to(most):
    yield from range(1, most + 1)


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
NOON = datetime(2024, 12, 31, 12, tzinfo=timezone.utc)


def text_sent_for(offline, question, result, **options):
    """The text that the model gets from a tool that returns this."""

    def look() -> Any:
        return result

    client = offline(calls(call("look", {})), "Done.")
    lib.run_tools(client, question, [look], **options)
    [answer] = tool_results(client)
    return answer["content"]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (NOON, '"2024-12-31T12:00:00+00:00"'),
        (date(2024, 12, 31), '"2024-12-31"'),
        (time(12, 30), '"12:30:00"'),
        (timedelta(days=1, seconds=1.5), '"P1DT1.5S"'),
        (timedelta(seconds=-90), '"-P0DT90S"'),
        (Decimal("1.50"), '"1.50"'),
        (UUID(int=5), '"00000000-0000-0000-0000-000000000005"'),
        (Path("a/b"), '"a/b"'),
        (b"\x00\xff", '"AP8="'),
        ({NOON.date(): 1, (1, 2): 2, Colour.RED: 3, None: 4, 5: 6}, None),
        (float("nan"), '"nan"'),
        ([1.5, float("-inf")], '[1.5,"-inf"]'),
        (count_to(3), "[1,2,3]"),
        ({"all": map(str, [1])}, '{"all":["1"]}'),
        ({"a": 1}.values(), "[1]"),
        (collections.deque([1]), "[1]"),
        (range(2), "[0,1]"),
        (Scalar(3), "3"),
        ([Scalar(2.5), Scalar(NOON.date())], '[2.5,"2024-12-31"]'),
        (Booking(NOON, [Booking(NOON)]), None),
        (Point(1, Decimal("2.5")), '{"x":1,"y":"2.5"}'),
        ([Colour.RED], '["red"]'),
        (Odd(), '"odd"'),
        ({"a": Odd}, None),
        ({1: "a", "1": "b"}, "\"{1: 'a', '1': 'b'}\""),
        (10**5000, None),
        (lib.ChatMessage.user("Hi"), '{"role":"user","content":"Hi"}'),
        ({"text": "\ud800"}, '{"text":"\ud800"}'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_result_of_a_tool_is_sent_and_never_as_an_error(offline, question, result, text):
    found = text_sent_for(offline, question, result, raise_errors=True)
    assert not found.startswith('{"error"')
    assert text is None or found == text


def test_keys_of_any_type_are_sent_as_text(offline, question):
    result = {NOON.date(): 1, (1, 2): 2, Colour.RED: 3, None: 4, 5: 6, True: 7}
    assert json.loads(text_sent_for(offline, question, result)) == {
        "2024-12-31": 1, "[1, 2]": 2, "red": 3, "null": 4, "5": 6, "true": 7,
    }  # fmt: skip


@pytest.mark.parametrize("result", [CYCLE, Mute(), [Mute()]], ids=["inside-itself", "mute", "list"])
def test_a_result_without_a_json_or_text_form_is_still_sent(offline, question, result):
    found = text_sent_for(offline, question, result, raise_errors=True)
    assert found
    assert not found.startswith('{"error"')


def test_numpy_numbers_and_arrays_are_sent_as_numbers(offline, question):
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
    result = {
        "a": numpy.float32(1.5), "b": numpy.int64(3), "c": numpy.bool_(True),
        "d": numpy.arange(3), "e": numpy.float64("nan"), "f": numpy.datetime64("2024-12-31"),
    }  # fmt: skip
    assert json.loads(text_sent_for(offline, question, result)) == {
        "a": 1.5, "b": 3, "c": True, "d": [0, 1, 2], "e": "nan", "f": "2024-12-31",
    }  # fmt: skip


def test_an_exception_of_a_generator_is_reported_to_the_model(offline, question):
    def look() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    client = offline(calls(call("look", {})), "Sorry.")
    lib.run_tools(client, question, [look])
    assert json.loads(tool_results(client)[0]["content"]) == {"error": "OSError: gone"}


# Asynchronous functions


async def later(x: int = 1) -> int:
    return x


class Later:
    __name__ = "later"

    async def __call__(self, x: int = 1) -> int:
        return x

    async def method(self, x: int = 1) -> int:
        return x

    async def items(self) -> Any:
        yield 1


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize("raise_errors", [False, True])
@pytest.mark.parametrize("function", [later, Later().items], ids=["coroutine", "generator"])
def test_an_awaitable_result_is_a_tool_error_and_not_sent_to_the_model(
    offline, question, function, raise_errors
):
    client = offline(calls(call(function.__name__, {})))
    with pytest.raises(
        lib.ToolError, match=r"\(\) returned an? .*, which must be awaited"
    ) as caught:
        lib.run_tools(client, question, [logged(function)], raise_errors=raise_errors)
    assert caught.value.call.id == "call_1"
    assert len(client.server.requests) == 1


@pytest.mark.parametrize(
    "function",
    [
        later,
        functools.partial(later, 1),
        functools.partial(functools.partial(later), x=1),
        functools.lru_cache(later),
        functools.partial(functools.lru_cache(later)),
        Later(),
        Later().method,
        Later().items,
        functools.partial(Later().method),
        staticmethod(later),
    ],
    ids=str,
)
def test_an_asynchronous_callable_in_any_wrapping_is_rejected_when_the_tool_is_made(function):
    with pytest.raises(lib.ConfigError, match="it is asynchronous"):
        lib.function_tool(function)


def test_a_synchronous_wrapper_that_awaits_by_itself_is_a_tool(offline, question):
    import asyncio

    def run_now(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return asyncio.run(function(*args, **kwargs))

        return wrapper

    client = offline(calls(call("later", {"x": 4})), "Done.")
    lib.run_tools(client, question, [run_now(later)])
    assert tool_results(client)[0]["content"] == "4"


# Bound arguments, and wrappers


SECRET = "sk-the-authors-own"


def search(query: str, api_key: str, most: int = 3) -> str:
    """Search the web.

    Args:
        query: what for
        api_key: of the search engine
    """
    return f"{query} {most} {api_key == SECRET}"


@pytest.mark.parametrize(
    "hidden",
    [
        functools.partial(search, api_key=SECRET),
        functools.partial(functools.partial(search, api_key="sk-old"), api_key=SECRET),
        functools.partial(logged(search), api_key=SECRET),
        logged(functools.partial(search, api_key=SECRET)),
    ],
    ids=["partial", "twice", "around-a-wrapper", "in-a-wrapper"],
)
@pytest.mark.parametrize("strict", [False, True])
def test_arguments_bound_by_a_partial_are_neither_sent_to_the_model_nor_accepted_from_it(
    offline, question, hidden, strict
):
    hidden.__name__ = "search"
    forged = {"query": "x", "most": 5, "api_key": "sk-forged"}
    client = offline(
        calls(call("search", forged)),
        calls(call("search", {"query": "x", "most": 5}, "2")),
        "Done.",
    )
    lib.run_tools(client, question, [hidden], strict=strict)
    sent = json.dumps([request.body for request in client.server.requests[:1]])
    assert "api_key" not in sent
    assert SECRET not in json.dumps([request.body for request in client.server.requests])
    assert "unknown key" in tool_results(client)[0]["content"]
    assert tool_results(client, 2)[1]["content"] == "x 5 True"


def test_a_partial_takes_its_name_and_notes_from_its_function():
    function = lib.function_tool(functools.partial(search, api_key=SECRET))["function"]
    assert function["name"] == "search"
    assert function["description"] == "Search the web."
    assert function["parameters"]["properties"]["query"]["description"] == "what for"


def test_arguments_bound_by_position_are_hidden_and_the_rest_arrive(offline, question):
    bound = functools.partial(search, "x")
    parameters = lib.function_tool(bound)["function"]["parameters"]
    assert list(parameters["properties"]) == ["api_key", "most"]
    client = offline(calls(call("search", {"api_key": "k", "most": 7})), "Done.")
    lib.run_tools(client, question, [bound])
    assert tool_results(client)[0]["content"] == "x 7 False"


def test_a_wrapper_with_its_own_parameters_is_described_by_them(offline, question):
    @functools.wraps(search)
    def search_safely(query: str) -> str:
        return search(query, SECRET)

    parameters = lib.function_tool(search_safely)["function"]["parameters"]
    assert list(parameters["properties"]) == ["query"]
    nothing = functools.wraps(search)(lambda: "found")
    assert lib.function_tool(nothing)["function"]["parameters"]["properties"] == {}
    client = offline(calls(call("search", {"query": "x"})), "Done.")
    lib.run_tools(client, question, [search_safely])
    assert tool_results(client)[0]["content"] == "x 3 True"


class Shop:
    @logged
    def sell(self, many: int = 1) -> int:
        return many * 2


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        (logged(search), {"query": "x", "api_key": "k"}, "x 3 False"),
        (functools.lru_cache(search), {"query": "x", "api_key": "k"}, "x 3 False"),
        (Shop().sell, {"many": 4}, "8"),
        (staticmethod(search), {"query": "x", "api_key": "k"}, "x 3 False"),
    ],
    ids=["decorator", "cache", "method", "static"],
)
def test_a_wrapper_that_passes_all_on_is_described_by_what_it_wraps(
    offline, question, function, arguments, text
):
    name = function.__name__
    parameters = lib.function_tool(function)["function"]["parameters"]
    assert set(arguments) <= parameters["properties"].keys()
    assert "self" not in parameters["properties"]
    client = offline(calls(call(name, arguments)), "Done.")
    lib.run_tools(client, question, [function])
    assert tool_results(client)[0]["content"] == text


# Docstrings


def test_all_prose_before_the_first_section_is_the_description():
    def plan(x: int) -> None:
        """Plan a trip
        by train.

        Call it once:
        - for each person
        - for each day

        Args:
            x: how many

        Returns:
            nothing
        """

    assert lib.function_tool(plan)["function"]["description"] == (
        "Plan a trip by train.\n\nCall it once:\n- for each person\n- for each day"
    )


def test_a_docstring_that_begins_with_a_section_keeps_its_notes():
    def plan(x: int, y: int) -> None:
        """Args:
        x: how many,
            at most
        y: how far
        """

    function = lib.function_tool(plan)["function"]
    assert "description" not in function
    notes = {n: one["description"] for n, one in function["parameters"]["properties"].items()}
    assert notes == {"x": "how many, at most", "y": "how far"}


def test_a_single_warning_says_that_python_drops_the_docstrings():
    import os
    import subprocess

    code = f"""
from {lib.function_tool.__module__} import function_tool
def add(a: int) -> int:
    "Add."
def sub(a: int) -> int:
    "Subtract."
print(*(function_tool(tool)["function"].get("description") for tool in (add, sub, add)))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("PYTHONWARNINGS", None)  # which may turn warnings into errors
    command = [sys.executable, "-OO", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout.split() == ["None"] * 3
    assert done.stderr.count("UserWarning: python -OO drops the docstrings") == 1
