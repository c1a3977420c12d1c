"""Structured answers as models write them: text around the JSON, further attempts, streaming."""

import json
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import pytest

from . import lib
from .test_structured import RECIPE, Recipe, as_text


@dataclass
class Dish:
    title: str
    minutes: int
    tags: list[str] = field(default_factory=list)


TOAST = Dish("Toast", 5)
TEXT = '{"title": "Toast", "minutes": 5, "tags": null}'


# Text around the JSON


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{TEXT}\n```",
        f"```JSON\n{TEXT}\n```",
        f"```Json5 {TEXT} ```",
        f"```{TEXT}```",
        f"```json{TEXT}```",
        f"Here it is:\n```json\n{TEXT}\n```\nEnjoy!",
        f"Here it is: {TEXT} Enjoy!",
        f"Say {{please}} first. {TEXT} [done]",
        f"\ufeff{TEXT}",
        f"\ufeff```json\n{TEXT}\n```",
        f"<think>Perhaps {{\"title\": \"Pie\"}}?</think>{TEXT}",
        f"<think>\nHm {{\n</think>\n\n```json\n{TEXT}\n```",
        f"Hm.</think>{TEXT}",
        f"Hm, {TEXT.replace('5', '6')}?</think>{TEXT}",
        f"\n {TEXT} \n",
        json.dumps(TEXT),
    ],
)  # fmt: skip
def test_an_answer_is_read_whatever_stands_around_its_json(offline, question, text):
    assert lib.parse_chat_completion(offline(text), question, Dish) == TOAST


@pytest.mark.parametrize(
    ("text", "into", "value"),
    [
        ("3", int, 3),
        ("```\n3\n```", int, 3),
        ('["a"]', list[str], ["a"]),
        ('Sure: ["a"].', list[str], ["a"]),
        ('"red"', Literal["red", "blue"], "red"),
        ("red", Literal["red", "blue"], "red"),
        ("2024-12-31", date, date(2024, 12, 31)),
        ("Paris", str, "Paris"),
        ("See the atlas [1].", str, "See the atlas [1]."),
        ("[1] and {2}", str, "[1] and {2}"),
        ('"Paris" it is.', str, '"Paris" it is.'),
        ("[1]", str, "[1]"),
        ("42", str | None, "42"),
        ('{"value": "Paris"}', str, "Paris"),
        ("null", int | None, None),
        ('{"value": null}', int | None, None),
    ],
)
def test_an_answer_without_the_wrapper_object_is_read(offline, question, text, into, value):
    assert lib.parse_chat_completion(offline(text), question, into) == value


@pytest.mark.parametrize(
    ("text", "into", "value"),
    [
        ('As source [1] says: {"value": [40, 50]}', list[int], [40, 50]),
        ('["a"] was my first idea. Final: {"value": ["b"]}', list[str], ["b"]),
        ("As source [1] says, all.", list[int], [1]),
    ],
)
def test_the_requested_wrapper_object_is_preferred_to_json_before_it(
    offline, question, text, into, value
):
    assert lib.parse_chat_completion(offline(text), question, into) == value


CALLED = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize("reply", [{"content": ""}, {"content": None, "tool_calls": CALLED}])
def test_an_answer_without_text_is_not_read_as_null(offline, question, reply):
    client = offline(reply, reply)
    with pytest.raises(lib.DeserializeError):
        lib.parse_chat_completion(client, question, int | None)
    with pytest.raises(lib.DeserializeError):
        lib.stream_parsed(client, question, int | None).result()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"title": "Toast"}', "$.minutes: missing"),
        ('{"title": "Toast", "minutes": 5, "x": 1}', "$.x: unknown key"),
        ('Here: {"title": 1, "minutes": 5}', "$.title: expected string, got number"),
        ('{"title": "Toast"', "the answer is not JSON"),
        ("[" * 100_000, "the answer is not JSON"),
        ("{" * 100_000, "the answer is not JSON"),
        ('{"' * 100_000, "the answer is not JSON"),
    ],
)
def test_an_invalid_answer_is_still_an_error(offline, question, text, words):
    with pytest.raises(lib.DeserializeError) as caught:
        lib.parse_chat_completion(offline(text), question, Dish)
    assert words in str(caught.value)
    assert caught.value.body == text


def test_a_json_object_with_a_wrong_key_is_not_taken_for_a_requested_text(offline, question):
    with pytest.raises(lib.DeserializeError, match=r"\$\.valu: unknown key"):
        lib.parse_chat_completion(offline('{"valu": "x"}'), question, str)


# Further attempts


def answer(text, tokens):
    message = {"role": "assistant", "content": text}
    usage = {"total_tokens": tokens, "completion_tokens": tokens}
    return {"id": f"c{tokens}", "choices": [{"message": message}], "usage": usage}


def test_an_answer_that_does_not_fit_is_asked_for_again_with_the_path_and_the_reason(
    offline, question
):
    client = offline('{"title": "Toast", "minutes": "five"}', "Five!", TEXT)
    assert lib.parse_chat_completion(client, question, Dish, attempts=3) == TOAST
    first, second, third = (request.body for request in client.server.requests)
    assert first["response_format"] == second["response_format"] == third["response_format"]
    *_, wrong, again = second["messages"]
    assert (wrong["role"], wrong["content"]) == (
        "assistant", '{"title": "Toast", "minutes": "five"}',
    )  # fmt: skip
    assert again["role"] == "user"
    assert "$.minutes: expected integer, got string" in again["content"]
    assert "the answer is not JSON: Five!" in third["messages"][-1]["content"]
    assert len(third["messages"]) == 5
    assert len(question["messages"]) == 1


@pytest.mark.parametrize("key", ["tool_calls", "function_call"])
def test_an_answer_with_a_call_is_asked_for_again_without_the_call(offline, question, key):
    function = {"name": "look", "arguments": "{}"}
    made = {"tool_calls": [{"id": "1", "type": "function", "function": function}]}
    made["function_call"] = function
    client = offline({"content": None, key: made[key]}, TEXT)
    assert lib.parse_chat_completion(client, question, Dish, attempts=2) == TOAST
    *_, wrong, again = client.server.requests[1].body["messages"]
    assert wrong == {"role": "assistant", "content": ""}
    assert again["role"] == "user"


def test_the_closing_tag_of_thoughts_may_stand_in_a_string_of_the_answer(offline, question):
    for text in ("{}", "Here: {}", "<think>Hm.</think>{}", "```json\n{}\n```"):
        reply = text.replace("{}", '{"title": "a </think> b", "minutes": 5}')
        dish = lib.parse_chat_completion(offline(reply), question, Dish)
        assert dish == Dish("a </think> b", 5)


def test_the_error_at_the_end_has_the_usage_of_all_attempts(offline, question):
    client = offline(answer("{}", 1), answer("{}", 2), answer("{}", 4))
    with pytest.raises(lib.DeserializeError, match="missing") as caught:
        lib.parse_chat_completion(client, question, Dish, attempts=3)
    assert caught.value.partial.usage.total_tokens == 7
    assert caught.value.partial.id == "c4"
    assert caught.value.body == "{}"
    assert len(client.server.requests) == 3


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_answer_that_was_stopped_is_not_asked_for_again(offline, question, reason):
    stopped = answer("{", 2)
    stopped["choices"][0]["finish_reason"] = reason
    client = offline(answer("{}", 1), stopped)
    with pytest.raises((lib.OutputTruncatedError, lib.RefusalError)) as caught:
        lib.parse_chat_completion(client, question, Dish, attempts=3)
    assert caught.value.response.usage.total_tokens == 3
    assert caught.value.partial is caught.value.response


@pytest.mark.parametrize("attempts", [0, -1, 1.5, True, "2"])
def test_an_invalid_number_of_attempts_is_rejected(offline, question, attempts):
    client = offline(TEXT)
    with pytest.raises(lib.ConfigError, match="attempts must be 1 or more"):
        lib.parse_chat_completion(client, question, Dish, attempts=attempts)
    assert client.server.requests == []


def test_with_response_returns_the_response_and_the_usage_of_all_attempts(offline, question):
    client = offline(answer("{}", 1), answer(TEXT, 2))
    parsed = lib.parse_chat_completion(client, question, Dish, attempts=2, with_response=True)
    assert parsed.value == TOAST
    assert parsed.response.id == "c2"
    assert parsed.response.usage.total_tokens == 2
    assert parsed.usage.total_tokens == 3


# Streaming


def test_an_answer_grows_as_plain_dicts_and_at_its_end_is_the_instance(offline, question):
    client = offline(as_text(RECIPE))
    *parts, recipe = lib.stream_parsed(client, question, Recipe)
    assert recipe == RECIPE
    assert "Pie".startswith(parts[0]["title"])
    assert parts[-1]["title"] == "Pie"
    assert all(type(part) is dict for part in parts)
    asked = client.server.requests[0].body
    assert asked["stream"] is True
    assert asked["response_format"]["json_schema"]["name"] == "Recipe"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", {}),
        ("{", {}),
        ('{"ti', {}),
        ('{"title"', {}),
        ('{"title":', {}),
        ('{"title": "', {"title": ""}),
        ('{"title": "To', {"title": "To"}),
        ('{"title": "To\\', {"title": "To"}),
        ('{"title": "To\\u00e', {"title": "To"}),
        ('{"title": "To\\ud83d', {"title": "To"}),
        ('{"title": "To\\ud83d\\ude00', {"title": "To😀"}),
        ('{"title": "To\\\\u00', {"title": "To\\u00"}),
        ('{"title": "Toast"', {"title": "Toast"}),
        ('{"title": "Toast", "min', {"title": "Toast"}),
        ('{"a": 1', {}),
        ('{"a": 12,', {"a": 12}),
        ('{"a": tru', {}),
        ('{"a": null}', {"a": None}),
        ('{"a": [', {"a": []}),
        ('{"a": [1, 2', {"a": [1]}),
        ('{"a": [{"b": "c', {"a": [{"b": "c"}]}),
        ('{"a": {"b": {}}, "c', {"a": {"b": {}}}),
        ('{"a": 1} and {"b": 2}', {"a": 1}),
        ('```json\n{"a": "b', {"a": "b"}),
        ('<think>{"a": "no"', {}),
        ('<think>{"a": "no"}</think> {"a": "b', {"a": "b"}),
        ('Hm {no}.</think> {"a": "b', {"a": "b"}),
        ('{"a": "<b></think></b>', {"a": "<b></think></b>"}),
        ('```json\n{"a": "</think>{"', {"a": "</think>{"}),
        ('Here: {"a": "</think>', {"a": "</think>"}),
        ('<think>no</think>{"a": "</think>{', {"a": "</think>{"}),
        ('{"a": nonsense, "b": 1}', {}),
        ('{"a":' * 5000, None),
    ],
)
def test_a_truncated_answer_is_parsed_as_far_as_it_goes(text, part):
    assert part is None or lib.json_so_far(text) == part
    lib.json_so_far(text)


def test_every_beginning_of_an_answer_is_a_beginning_of_its_value():
    text = json.dumps({"a": ['x\\"é😀', 1.5, {"b": [True, None]}], "c": {"d": "", "e": "\n"}})

    def begins(part, whole):
        if isinstance(part, dict):
            return all(key in whole and begins(part[key], whole[key]) for key in part)
        if isinstance(part, list):
            return all(begins(*pair) for pair in zip(part, whole, strict=False))
        return whole.startswith(part) if isinstance(part, str) else part == whole

    for end in range(len(text) + 1):
        assert begins(lib.json_so_far(text[:end]), json.loads(text)), text[:end]
    assert lib.json_so_far(text) == json.loads(text)


def test_a_streamed_type_that_is_not_an_object_grows_under_the_key_value(offline, question):
    *parts, value = lib.stream_parsed(offline('{"value": ["a", "b"]}'), question, list[str])
    assert value == ["a", "b"]
    assert parts[-1] == {"value": ["a", "b"]}


def test_a_long_answer_yields_far_fewer_parts_than_it_has_chunks(offline, question):
    dish = Dish("x " * 5_000, 1)
    stream = lib.stream_parsed(offline(as_text(dish)), question, Dish)
    parts = list(stream)
    assert stream.result() == dish
    assert len(parts) < 1000 < 5_000


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ({"content": None, "refusal": "No."}, "RefusalError"),
        ('{"title": "Toast"}', "DeserializeError"),
        (500, "InternalServerError"),
    ],
)
def test_an_invalid_streamed_answer_raises_the_same_error_as_a_call(offline, question, reply, kind):
    with pytest.raises(getattr(lib, kind)) as caught:
        list(lib.stream_parsed(offline(reply), question, Dish))
    assert kind == "InternalServerError" or caught.value.partial.choices


def test_stream_parsed_rejects_invalid_arguments_before_sending(offline, question):
    client = offline("{}")
    with pytest.raises(lib.ConfigError, match="a strict schema can't have free keys"):
        lib.stream_parsed(client, question, dict[str, int])
    with pytest.raises(lib.ConfigError, match="leave it out"):
        lib.stream_parsed(client, {**question, "response_format": {"type": "text"}}, Dish)
    assert client.server.requests == []
