"""Types as JSON Schema, as a careful person would write it; and values as those types."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NewType, Optional, TypedDict, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import lib


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Step:
    """One thing to do.

    More about it, which is no part of the description.
    """

    text: str
    minutes: int = 5


@dataclass
class Tree:
    name: str
    branches: "list[Tree]"
    parent: Optional["Tree"] = None


@dataclass(frozen=True)
class Recipe:
    title: Annotated[str, "as in a book"]
    steps: list[Step]
    first: Step | None = None
    tags: list[str] = field(default_factory=list)


class Point(TypedDict):
    x: float
    y: float


class Wish(TypedDict, total=False):
    colour: Colour


@dataclass
class Even:
    number: int

    def __post_init__(self):
        if self.number % 2:
            raise ValueError("odd")


@dataclass
class Maybe:
    grams: float | None


Id = NewType("Id", str)

STEP = {
    "type": "object",
    "description": "One thing to do.",
    "properties": {"text": {"type": "string"}, "minutes": {"type": "integer"}},
    "required": ["text", "minutes"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("of", "schema"),
    [
        (str, {"type": "string"}),
        (bool, {"type": "boolean"}),
        (float, {"type": "number"}),
        (None, {"type": "null"}),
        (Id, {"type": "string"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (Sequence[int], {"type": "array", "items": {"type": "integer"}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (int | None, {"type": ["integer", "null"]}),
        (Union[int, str], {"type": ["integer", "string"]}),  # noqa: UP007  (as older code says it)
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal["a", 1, None], {"type": ["string", "integer", "null"], "enum": ["a", 1, None]}),
        (Literal["a"] | None, {"type": ["string", "null"], "enum": ["a", None]}),
        (Colour, {"type": "string", "enum": ["red", "blue"]}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (list[str] | None, {"type": ["array", "null"], "items": {"type": "string"}}),
        (
            list[str] | int,
            {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "integer"}]},
        ),
        (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
        (Step, STEP),
        (
            list[Step],
            {"type": "array", "items": {"$ref": "#/$defs/Step"}, "$defs": {"Step": STEP}},
        ),
        (
            Step | None,
            {"anyOf": [{"$ref": "#/$defs/Step"}, {"type": "null"}], "$defs": {"Step": STEP}},
        ),
        (
            Wish,
            {
                "type": "object",
                "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
                "required": ["colour"],
                "additionalProperties": False,
            },
        ),
    ],
    ids=str,
)
def test_a_type_has_the_strict_schema_one_would_write(of, schema):
    assert lib.json_schema(of) == schema


@pytest.mark.parametrize(
    ("of", "schema"),
    [
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Mapping[str, bool], {"type": "object", "additionalProperties": {"type": "boolean"}}),
        (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (Any, {}),
        (
            Step,
            {
                "type": "object",
                "description": "One thing to do.",
                "properties": {
                    "text": {"type": "string"},
                    "minutes": {"type": "integer", "default": 5},
                },
                "required": ["text"],
                "additionalProperties": False,
            },
        ),
        (
            Wish,
            {
                "type": "object",
                "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
                "additionalProperties": False,
            },
        ),
    ],
    ids=str,
)
def test_what_need_not_be_strict_may_be_left_out_or_free(of, schema):
    assert lib.json_schema(of, strict=False) == schema


def test_a_class_that_holds_itself_refers_to_its_definition():
    tree = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "branches": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
            "parent": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]},
        },
        "required": ["name", "branches", "parent"],
        "additionalProperties": False,
    }
    assert lib.json_schema(Tree) == {**tree, "$defs": {"Tree": tree}}


def test_classes_of_one_name_have_a_definition_each():
    def another():
        @dataclass
        class Step:
            other: bool

        return Step

    both = lib.json_schema(list[Step] | list[another()])
    assert list(both["$defs"]) == ["Step", "Step_2"]
    assert both["$defs"]["Step_2"]["properties"] == {"other": {"type": "boolean"}}


def test_a_described_reference_stands_alone_where_it_is_strict():
    @dataclass
    class Cook:
        """Cook(does): written by hand."""

        does: Annotated[Step, "next"]

    definitions = {"$ref": "#/$defs/Step"}
    strict = lib.json_schema(Cook)["properties"]["does"]
    assert strict == {"anyOf": [definitions], "description": "next"}
    free = lib.json_schema(Cook, strict=False)["properties"]["does"]
    assert free == {**definitions, "description": "next"}


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (bytes, "cannot describe bytes: bytes has no JSON form"),
        (list, "a list of what? Write list[str]"),
        (dict, "a dict of what?"),
        (dict[int, str], "JSON's keys are text, not int"),
        (dict[str, int], "a strict schema has no free keys"),
        (tuple[int, str], "a strict schema has no tuples"),
        (Any, "Any is too little to say"),
        (object, "object has no JSON form"),
        (list["Nowhere"], "'Nowhere' can't be understood"),  # noqa: F821
        (Literal[b"x"], "b'x' is no JSON scalar"),
    ],
    ids=str,
)
def test_what_cannot_be_described_is_refused_with_the_reason(of, words):
    with pytest.raises(lib.ConfigError) as caught:
        lib.json_schema(of)
    assert words in str(caught.value)


def test_the_place_of_what_cannot_be_described_is_named():
    @dataclass
    class Photo:
        pixels: list[bytes]

    with pytest.raises(lib.ConfigError, match=r"cannot describe Photo\.pixels: bytes has no"):
        lib.json_schema(Photo)


@pytest.mark.parametrize(
    ("of", "value", "expected"),
    [
        (int, 3.0, 3),
        (float, 3, 3.0),
        (int | float, 3.5, 3.5),
        (float | int, 3, 3),
        (str | None, None, None),
        (Colour, "red", Colour.RED),
        (Literal["a", Colour.BLUE], "blue", Colour.BLUE),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[str], ["a", "a"], {"a"}),
        (dict[str, Step], {"a": {"text": "x"}}, {"a": Step("x")}),
        (Point, {"x": 1, "y": 2.5}, {"x": 1.0, "y": 2.5}),
        (Step | Point, {"x": 1, "y": 2}, {"x": 1.0, "y": 2.0}),
        (Tree, {"name": "a", "branches": [{"name": "b", "branches": []}]},
         Tree("a", [Tree("b", [])])),
        (Any, {"a": [1]}, {"a": [1]}),
        (Maybe, {}, Maybe(None)),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_becomes_an_instance_of_its_type(of, value, expected):
    found = lib.read_as(of, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("of", "value", "words"),
    [
        (int, "3", "$: expected integer, got string"),
        (int, 3.5, "$: expected integer, got number"),
        (int, True, "$: expected integer, got boolean"),
        (float, 10**400, "$: expected number, got number"),
        (str | None, [], "$: expected string or null, got list"),
        (Colour, "green", '$: expected one of "red", "blue", got "green"'),
        (Literal[1], True, "$: expected one of 1, got true"),
        (Recipe, {"title": "t", "steps": [{"text": 1}]}, "$.steps[0].text: expected string"),
        (Recipe, {"title": "t"}, "$.steps: missing"),
        (Recipe, {"title": "t", "steps": [], "x": 1}, "$.x: there is no such key"),
        (Step | Point, {"text": "a", "minutes": "b"}, "$.minutes: expected integer"),
        (tuple[int, str], [1], "$: expected 2 items, got 1"),
        (Even, {"number": 3}, "$: ValueError: odd"),
        (dict[str, int], [], "$: expected object, got list"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_an_error_with_its_path(of, value, words):
    with pytest.raises(lib.DeserializeError) as caught:
        lib.read_as(of, value)
    assert words in str(caught.value)
    assert caught.value.path == words.partition(": ")[0]


trees = st.recursive(
    st.builds(Tree, st.text(max_size=3), st.just([])),
    lambda inner: st.builds(Tree, st.text(max_size=3), st.lists(inner, max_size=3), inner),
    max_leaves=8,
)


@given(trees)
def test_what_is_written_reads_as_what_it_was(tree):
    assert lib.read_as(Tree, lib.JSONObject.to_dict(tree)) == tree
