"""Types become JSON Schema as one would write it by hand, and values become those types."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field, make_dataclass
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NewType, Optional, TypedDict, TypeVar, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import lib
from .test_codec import Sum


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Step:
    """One thing to do.

    More about it, which is a part of the description.
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


@dataclass
class Picky:
    count: int

    def __post_init__(self):
        if self.count > 3:
            raise ValueError("count is more than 3")


@dataclass
class Lost:
    where: "Nowhere"  # noqa: F821


class Nothing(Enum):
    pass


@dataclass
class Cat:
    name: str
    lives: int


@dataclass
class Dog:
    name: str
    toy: str


Id = NewType("Id", str)
Json = Union[int, list["Json"]]  # noqa: UP007  (text cannot stand beside |)

NULL = {"type": "null"}
STEP = {
    "type": "object",
    "description": "One thing to do.\n\nMore about it, which is a part of the description.",
    "properties": {
        "text": {"type": "string"},
        "minutes": {
            "anyOf": [{"type": "integer"}, NULL],
            "description": "null means the default, 5",
        },
    },
    "required": ["text", "minutes"],
    "additionalProperties": False,
}


def strict_form(of):
    """The strict schema of a type; if it can't be the root, then that of a property with it."""
    if lib.json_schema(of, strict=False).get("type") == "object":
        return lib.json_schema(of)
    root = lib.json_schema(make_dataclass("Holder", [("value", of)]))
    definitions = {key: root[key] for key in ("$defs",) if key in root}
    return {**root["properties"]["value"], **definitions}


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
        (int | None, {"anyOf": [{"type": "integer"}, NULL]}),
        (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),  # noqa: UP007  (as older code says it)
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (
            Literal["a", 1, None],
            {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "integer", "enum": [1]}, NULL]},
        ),
        (Literal["a"] | None, {"anyOf": [{"type": "string", "enum": ["a"]}, NULL]}),
        (Colour, {"type": "string", "enum": ["red", "blue"]}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (list[int] | tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (
            list[str] | None,
            {"anyOf": [{"type": "array", "items": {"type": "string"}}, NULL]},
        ),
        (
            list[str] | int,
            {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "integer"}]},
        ),
        (Id | str | None, {"anyOf": [{"type": "string"}, NULL]}),
        (
            Annotated[int | None, "x"] | str,
            {
                "anyOf": [
                    {"anyOf": [{"type": "integer"}, NULL], "description": "x"},
                    {"type": "string"},
                ]
            },
        ),
        (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
        (Step, STEP),
        (
            Sum,
            {
                "type": "object",
                "properties": {"parts": {"type": "array", "items": {"type": "integer"}}},
                "required": ["parts"],
                "additionalProperties": False,
            },
        ),
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
                "properties": {
                    "colour": {"anyOf": [{"type": "string", "enum": ["red", "blue"]}, NULL]}
                },
                "required": ["colour"],
                "additionalProperties": False,
            },
        ),
    ],
    ids=str,
)
def test_a_type_has_the_strict_schema_one_would_write(of, schema):
    assert strict_form(of) == schema


@pytest.mark.parametrize("of", [int, list[Step], Step | None, Colour], ids=str)
def test_a_type_whose_strict_schema_would_not_be_an_object_is_rejected(of):
    with pytest.raises(lib.ConfigError, match="the root of a strict schema must be an object"):
        lib.json_schema(of)


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
                "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (Any, {}),
        (
            Step,
            {
                "type": "object",
                "description": STEP["description"],
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
def test_a_schema_that_is_not_strict_allows_optional_fields_and_free_keys(of, schema):
    assert lib.json_schema(of, strict=False) == schema


def test_a_recursive_class_refers_to_its_definition():
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


@dataclass
class Scaled:
    size: int
    by: InitVar[int]
    to: InitVar[int] = 0


def test_a_class_with_a_required_init_var_is_rejected():
    with pytest.raises(lib.ConfigError, match=r"cannot describe Scaled\.by: .*InitVar"):
        lib.json_schema(Scaled)


@dataclass
class Kennel:
    dogs: "list[Puppy]"


@dataclass
class Puppy:
    home: Annotated["Kennel", "where it lives"]
    name: str


@pytest.mark.parametrize("strict", [True, False])
def test_a_reference_that_is_described_still_has_its_definition(strict):
    schema = lib.json_schema(Kennel, strict=strict)
    assert schema["$defs"].keys() == {"Kennel", "Puppy"}
    assert schema["properties"] == schema["$defs"]["Kennel"]["properties"]
    assert lib.json_schema(Puppy, strict=strict)["$defs"].keys() == {"Kennel", "Puppy"}


def test_a_root_with_a_description_is_not_a_reference():
    schema = lib.json_schema(Annotated[Kennel, "all of it"])
    assert (schema["type"], schema["description"]) == ("object", "all of it")


def test_not_required_keys_are_recognized_in_string_annotations():
    source = """
from __future__ import annotations
from typing import Annotated, TypedDict
from typing_extensions import NotRequired
"""
    source = source if sys.version_info < (3, 11) else source.replace("typing_extensions", "typing")
    names = {"__name__": __name__}
    try:
        exec(source, names)
    except ImportError:
        pytest.skip("Python 3.10 has no NotRequired")
    exec("class Some(TypedDict):\n a: int\n b: Annotated[NotRequired[str], 'x']\n", names)
    schema = lib.json_schema(names["Some"], strict=False)
    assert schema["required"] == ["a"]
    assert lib.SchemaBuilder().shape(names["Some"], "it").read({"a": 1}) == {"a": 1}


def test_classes_of_one_name_have_a_definition_each():
    def another():
        @dataclass
        class Step:
            other: bool

        return Step

    both = strict_form(list[Step] | list[another()])
    assert list(both["$defs"]) == ["Step", "Step_2"]
    assert both["$defs"]["Step_2"]["properties"] == {"other": {"type": "boolean"}}


def test_a_class_whose_name_has_no_ascii_letter_has_a_named_definition():
    first = make_dataclass("食谱", [("name", str)])
    second = make_dataclass("菜单", [("dish", first)])
    found = lib.json_schema(make_dataclass("Both", [("a", first), ("b", second)]))
    assert found["properties"]["a"] == {"$ref": "#/$defs/object"}
    assert found["properties"]["b"] == {"$ref": "#/$defs/object_2"}
    assert found["$defs"].keys() == {"object", "object_2"}


def test_a_described_reference_is_wrapped_in_any_of_in_a_strict_schema():
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
        (complex, "cannot describe complex: complex has no JSON form"),
        (list, "list needs the type of its items, as in list[str]"),
        (dict, "dict needs the type of its items"),
        (dict[int, str], "JSON keys must be str, not int"),
        (dict[str, int], "a strict schema can't have free keys"),
        (Any, "a strict schema needs a type instead of Any"),
        (object, "object has no JSON form"),
        ({"type": "object"}, "has no JSON form"),
        (TypeVar("T"), "cannot describe T: T has no JSON form"),
        (Lost, "cannot describe Lost: its type hints can't be evaluated: name 'Nowhere'"),
        (list["Nowhere"], "'Nowhere' can't be evaluated"),  # noqa: F821
        (Literal[b"x"], "b'x' is not a JSON scalar"),
        (Nothing, "it has no members"),
        (set[Step], "a set can't hold Step: use a list"),
    ],
    ids=str,
)
def test_a_type_that_cannot_be_described_is_rejected_with_the_reason(of, words):
    with pytest.raises(lib.ConfigError) as caught:
        lib.json_schema(of)
    assert words in str(caught.value)


def test_a_type_statement_stands_for_its_type():
    if sys.version_info >= (3, 12):
        from typing import TypeAliasType
    else:
        TypeAliasType = pytest.importorskip("typing_extensions").TypeAliasType
    Row = TypeAliasType("Row", list[Id])  # as `type Row = list[Id]` makes it
    row = {"type": "array", "items": {"type": "string"}}
    assert strict_form(Row) == {"$ref": "#/$defs/Row", "$defs": {"Row": row}}
    assert lib.json_schema(Row, strict=False) == row
    assert lib.SchemaBuilder().shape(tuple[Row, Id], "it").read([["a"], "b"]) == (["a"], "b")


def test_a_recursive_alias_is_rejected():
    with pytest.raises(lib.ConfigError, match="refers to itself: use a dataclass"):
        lib.SchemaBuilder(globals()).shape(Json, "Json")


def test_the_error_for_an_unsupported_field_names_its_class_and_field():
    @dataclass
    class Photo:
        pixels: list[complex]

    with pytest.raises(lib.ConfigError, match=r"cannot describe Photo\.pixels: complex has no"):
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
        (Level, 2.0, Level.HIGH),
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
        (Sum, {"parts": [1, 2]}, Sum([1, 2])),
        (float | Literal[3], 3, 3),
        (float | Annotated[int, "whole"], 3, 3),
        (Literal["all"] | int, 3.0, 3),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_becomes_an_instance_of_its_type(of, value, expected):
    found = lib.SchemaBuilder().shape(of, "it").read(value)
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
        (Recipe, {"title": "t", "steps": [], "x": 1}, "$.x: unknown key"),
        (Step | Point, {"text": "a", "minutes": "b"}, "$.minutes: expected integer"),
        (tuple[int, str], [1], "$: expected 2 items, got 1"),
        (Even, {"number": 3}, "$: ValueError: odd"),
        (float, float("nan"), "$: expected number, got nan"),
        (Cat | Dog, {"name": "a", "toy": 3}, "$.toy: expected string, got number"),
        (dict[str, int], [], "$: expected object, got list"),
        (list[int], {}, "$: expected list, got object"),
        (list[int] | tuple[int, ...], None, "$: expected list, got null"),
        (Picky | None, {"count": 9}, "$: ValueError: count is more than 3"),
        (
            Annotated[Cat, "a cat"] | Annotated[Sum, "a sum"],
            {"parts": "1"},
            "$.parts: expected list, got string",
        ),
        (tuple[int, str], "ab", "$: expected list, got string"),
        (set[Any], [[1]], "$: unhashable type: 'list'"),
        (Literal["a"], ["a"], '$: expected one of "a", got list'),
        (Cat | Dog, "Tom", "$: expected object, got string"),
        (Sum, {"parts": [], "total": 3}, "$.total: unknown key"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_an_error_with_its_path(of, value, words):
    with pytest.raises(lib.DeserializeError) as caught:
        lib.SchemaBuilder().shape(of, "it").read(value)
    assert words in str(caught.value)
    assert caught.value.path == words.partition(": ")[0]


def model(schema, errors=()):
    """A model with only the methods of Pydantic's models that the library uses."""

    class Invalid(ValueError):
        def errors(self):
            return list(errors)

    def validate(text):
        if errors:
            raise Invalid("1 validation error for M\nand more")
        return text

    methods = {"model_json_schema": lambda: schema, "model_validate_json": validate}
    return type("M", (), {name: staticmethod(method) for name, method in methods.items()})


# As Pydantic 2 makes them.
NODE = {
    "properties": {
        "name": {"title": "Name", "type": "string"},
        "kids": {
            "default": [],
            "items": {"$ref": "#/$defs/Node"},
            "title": "Kids",
            "type": "array",
        },
    },
    "required": ["name"],
    "title": "Node",
    "type": "object",
}


def test_a_recursive_model_refers_to_its_definition():
    node = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "kids": {
                "anyOf": [{"items": {"$ref": "#/$defs/Node"}, "type": "array"}, NULL],
                "description": "null means the default, []",
            },
        },
        "required": ["name", "kids"],
        "additionalProperties": False,
    }
    found = lib.json_schema(model({"$defs": {"Node": NODE}, "$ref": "#/$defs/Node"}))
    assert found == {**node, "$defs": {"Node": node}}


def test_keywords_that_a_strict_schema_does_not_allow_are_removed_from_that_of_a_model():
    cat = {
        "properties": {"kind": {"const": "cat", "type": "string"}},
        "required": ["kind"],
        "title": "Cat",
        "type": "object",
    }
    found = lib.json_schema(
        model(
            {
                "$defs": {"Box[int]": cat},
                "properties": {
                    "default": {"type": "string", "default": "x"},
                    "inner": {"$ref": "#/$defs/Box[int]", "description": "which"},
                    "pet": {
                        "discriminator": {"propertyName": "kind"},
                        "oneOf": [{"$ref": "#/$defs/Box[int]"}, {"type": "null"}],
                    },
                },
                "required": ["inner", "pet"],
                "type": "object",
            }
        )
    )
    assert found["properties"] == {
        "default": {
            "anyOf": [{"type": "string"}, NULL],
            "description": "null means the default, x",
        },
        "inner": {"anyOf": [{"$ref": "#/$defs/Box_int"}], "description": "which"},
        "pet": {"anyOf": [{"$ref": "#/$defs/Box_int"}, {"type": "null"}]},
    }
    assert found["required"] == ["default", "inner", "pet"]
    assert found["$defs"]["Box_int"] == {
        "properties": {"kind": {"type": "string", "enum": ["cat"]}},
        "required": ["kind"],
        "type": "object",
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "can't have free keys"),
        ({"title": "Anything"}, "a strict schema needs a type instead of Any"),
    ],
)
def test_a_model_that_cannot_be_strict_is_rejected(member, words):
    with pytest.raises(lib.ConfigError, match=words):
        lib.json_schema(model({"type": "object", "properties": {"a": member}}))


def test_a_model_that_cannot_describe_itself_is_rejected_with_the_reason():
    def fail():
        raise TypeError("no schema for Callable\nFor further information visit ...")

    broken = model({})
    broken.model_json_schema = staticmethod(fail)
    with pytest.raises(lib.ConfigError) as caught:
        lib.json_schema(list[broken])
    assert str(caught.value) == "cannot describe list: no schema for Callable"
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_models_definitions_do_not_take_the_place_of_others():
    @dataclass
    class Both:
        first: Step
        second: model({
            "$defs": {"Step": {"title": "Other"}}, "type": "object", "properties": {"a": {"$ref": "#/$defs/Step"}},
        })  # fmt: skip

    found = lib.json_schema(Both, strict=False)["$defs"]
    assert found["M"]["properties"] == {"a": {"$ref": "#/$defs/Step_2"}}
    assert found["Step_2"] == {"title": "Other"}


def test_a_generated_docstring_computed_on_access_is_not_a_description():
    class Later:  # as dataclass leaves it from Python 3.15 on
        def __get__(self, instance, cls):
            return f"{cls.__name__}(text: str, minutes: int = 5)"

    @dataclass
    class Task:
        text: str

    Task.__doc__ = Later()
    assert "description" not in lib.json_schema(Task)


def test_a_models_errors_are_one_line_with_the_path():
    told = [{"loc": ("inner", 0, "a"), "msg": "Input should be an integer"}]
    with pytest.raises(lib.DeserializeError) as caught:
        lib.SchemaBuilder().shape(list[model({"type": "object"}, told)], "it").read([{}])
    assert str(caught.value) == "$[0].inner[0].a: Input should be an integer"
    assert caught.value.path == "$[0].inner[0].a"


trees = st.recursive(
    st.builds(Tree, st.text(max_size=3), st.just([])),
    lambda inner: st.builds(Tree, st.text(max_size=3), st.lists(inner, max_size=3), inner),
    max_leaves=8,
)


@given(trees)
def test_a_written_tree_reads_back_equal(tree):
    assert lib.SchemaBuilder().shape(Tree, "it").read(lib.JSONObject.to_dict(tree)) == tree
