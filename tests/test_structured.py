"""Structured output: the class goes out as a strict schema, and comes back as an instance."""

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import pytest

from . import lib


class Course(Enum):
    MAIN = "main"
    DESSERT = "dessert"


@dataclass
class Ingredient:
    name: str
    grams: float | None


@dataclass
class Recipe:
    """A dish."""

    title: str
    course: Course
    heat: Literal["low", "high"]
    rows: list[list[Ingredient]]
    beside: "list[Recipe]" = field(default_factory=list)
    note: str | None = None


RECIPE = Recipe(
    "Pie",
    Course.DESSERT,
    "low",
    [[Ingredient("flour", 200.5)], [], [Ingredient("salt", None)]],
    [Recipe("Cream", Course.DESSERT, "high", [])],
)


def as_text(value):
    return lib.encode(value).decode()


def test_a_class_is_sent_as_a_strict_schema_and_the_answer_becomes_an_instance(offline, question):
    client = offline(as_text(RECIPE))
    assert lib.parse_chat_completion(client, question, Recipe) == RECIPE
    asked = client.server.requests[0].body["response_format"]
    assert asked == {
        "type": "json_schema",
        "json_schema": {"name": "Recipe", "schema": lib.json_schema(Recipe), "strict": True},
    }
    assert asked["json_schema"]["schema"]["required"] == [
        "title", "course", "heat", "rows", "beside", "note",
    ]  # fmt: skip


def test_a_type_that_is_not_an_object_is_wrapped_in_one(offline, question):
    client = offline('{"value": [{"name": "a", "grams": 1}]}')
    found = lib.parse_chat_completion(client, question, list[Ingredient])
    assert found == [Ingredient("a", 1.0)]
    asked = client.server.requests[0].body["response_format"]["json_schema"]
    assert asked["name"] == "list"
    assert asked["schema"]["required"] == ["value"]
    assert asked["schema"]["properties"]["value"]["items"] == {"$ref": "#/$defs/Ingredient"}
    assert list(asked["schema"]["$defs"]) == ["Ingredient"]


def test_the_request_object_is_not_changed(offline):
    client = offline('{"value": 3}')
    request = lib.CreateChatCompletionRequest(model="m", messages=[lib.ChatMessage.user("Hi")])
    assert lib.parse_chat_completion(client, request, int) == 3
    assert request.response_format is None


def test_markdown_around_the_json_is_taken_off(offline, question):
    client = offline('```json\n{"value": true}\n```')
    assert lib.parse_chat_completion(client, question, bool) is True


def test_a_refusal_is_an_error_with_the_answer(offline, question):
    client = offline({"content": None, "refusal": "I can't."})
    with pytest.raises(lib.RefusalError, match=r"the model refused: I can't\.") as caught:
        lib.parse_chat_completion(client, question, Recipe)
    assert caught.value.response.choices[0].message.refusal == "I can't."
    assert caught.value.response.usage is not None


@pytest.mark.parametrize(
    ("reason", "kind", "words"),
    [
        ("length", "OutputTruncatedError", "cut off after 8 tokens: raise max_completion_tokens"),
        ("content_filter", "RefusalError", "the content filter stopped the answer"),
    ],
)
def test_a_truncated_or_filtered_answer_is_an_error_with_its_partial(
    offline, question, reason, kind, words
):
    choice = {"index": 0, "message": {"role": "assistant", "content": '{"title": "P'}}
    client = offline(
        {"choices": [{**choice, "finish_reason": reason}], "usage": {"completion_tokens": 8}}
    )
    with pytest.raises(getattr(lib, kind), match=words) as caught:
        lib.parse_chat_completion(client, question, Recipe)
    assert caught.value.response.text == '{"title": "P'
    assert caught.value.partial is caught.value.response


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Here you are!", "the answer is not JSON: Here you are!"),
        ('{"value": "three"}', "$.value: expected integer, got string"),
        ("{}", "$.value: missing"),
        ("[3]", "$: expected object, got list"),
    ],
)
def test_an_answer_that_violates_the_schema_is_an_error_with_the_complete_answer(
    offline, question, text, words
):
    with pytest.raises(lib.DeserializeError) as caught:
        lib.parse_chat_completion(offline(text), question, int)
    assert words in str(caught.value)
    assert caught.value.body == text
    assert caught.value.partial.text == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("```json\n3\n```", 3, id="named"),
        pytest.param("```\n3\n```\n", 3, id="unnamed"),
        pytest.param(" \n```json \n3", 3, id="unclosed"),
        pytest.param("3", 3, id="no-fence"),
    ],
)
def test_a_fence_around_the_json_is_taken_off(offline, question, text, value):
    reply = json.dumps({"value": value}).join(text.split("3"))
    assert lib.parse_chat_completion(offline(reply), question, int) == value


def test_an_unclosed_fence_with_many_line_ends_is_an_error(offline, question):
    with pytest.raises(lib.DeserializeError):
        lib.parse_chat_completion(offline("```" + "\n" * 100_000 + "x"), question, int)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        pytest.param({"content": ""}, "$: the answer is empty", id="empty"),
        pytest.param({"content": None}, "$: the answer is empty", id="null"),
        pytest.param(
            {"content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
            "$: the model called a tool instead of answering",
            id="a-call",
        ),
    ],
)
def test_the_error_for_an_answer_without_text_says_what_the_model_did(
    offline, question, reply, words
):
    with pytest.raises(lib.DeserializeError) as caught:
        lib.parse_chat_completion(offline(reply), question, int)
    assert str(caught.value) == words
    assert caught.value.partial.choices


def test_a_response_without_choices_is_an_error(offline, question):
    with pytest.raises(lib.DeserializeError, match=r"\$\.choices: empty"):
        lib.parse_chat_completion(offline({"choices": []}), question, int)


@pytest.mark.parametrize("own", [{"type": "json_object"}, {"type": "text"}])
def test_a_response_format_in_the_request_is_rejected_before_sending(offline, question, own):
    client = offline("{}")
    with pytest.raises(lib.ConfigError, match="leave it out"):
        lib.parse_chat_completion(client, {**question, "response_format": own}, Recipe)
    assert client.server.requests == []


def test_a_type_without_a_strict_schema_is_rejected_before_sending(offline, question):
    client = offline("{}")
    with pytest.raises(lib.ConfigError, match="a strict schema can't have free keys"):
        lib.parse_chat_completion(client, question, dict[str, int])
    assert client.server.requests == []


class Weather:
    """A model with only the methods of Pydantic's models that the library uses."""

    def __init__(self, city):
        self.city = city

    @classmethod
    def model_json_schema(cls):
        inner = {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
        }
        return {
            "type": "object",
            "properties": {"city": {"type": "string"}, "inner": {"$ref": "#/$defs/Inner"}},
            "required": ["city", "inner"],
            "$defs": {"Inner": inner},
        }  # fmt: skip

    @classmethod
    def model_validate_json(cls, text):
        value = json.loads(text)
        if "city" not in value:
            raise ValueError("city: field required")
        return cls(value["city"])


def test_a_pydantic_model_describes_and_validates_itself(offline, question):
    client = offline('{"city": "Rome"}', "{}")
    assert lib.parse_chat_completion(client, question, Weather).city == "Rome"
    schema = client.server.requests[0].body["response_format"]["json_schema"]["schema"]
    assert schema == {
        "type": "object",
        "properties": {"city": {"type": "string"}, "inner": {"$ref": "#/$defs/Inner"}},
        "required": ["city", "inner"],
        "additionalProperties": False,
        "$defs": {
            "Inner": {
                "type": "object",
                "properties": {"a": {"type": "integer"}},
                "required": ["a"],
                "additionalProperties": False,
            }
        },
    }
    with pytest.raises(lib.DeserializeError, match="city: field required"):
        lib.parse_chat_completion(client, question, Weather)
