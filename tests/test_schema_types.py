"""Everyday types, strict schemas, unions, limits: described as servers accept it, and read back."""

import json
import re
import sys
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import lib
from .test_schema import strict_form

if sys.version_info >= (3, 12):
    from typing import TypeAliasType
else:
    try:
        from typing_extensions import TypeAliasType
    except ImportError:
        TypeAliasType = None

pydantic = None
try:
    import pydantic
except ImportError:
    pass
needs_pydantic = pytest.mark.skipif(pydantic is None, reason="Pydantic is not installed")

T = TypeVar("T")
S = TypeVar("S")
NULL = {"type": "null"}


def read(of, value):
    return lib.SchemaBuilder().shape(of, "it").read(value)


# What strict structured output accepts, as OpenAI documents it

KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"pattern", "format", "enum"},
    "number": {"multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "enum"},
    "integer": {"multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "enum"},
    "boolean": {"enum"},
    "null": set(),
}
FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}


def assert_strict(schema, root=True):
    """Fail unless all parts of a schema are in the documented subset."""
    schema = dict(schema)
    if root:
        assert schema["type"] == "object"
        for one in schema.pop("$defs", {}).values():
            assert_strict(one, root=False)
    assert isinstance(schema.pop("description", ""), str)
    if "$ref" in schema:
        assert schema.keys() == {"$ref"}
    elif "anyOf" in schema:
        assert schema.keys() == {"anyOf"}
        for one in schema["anyOf"]:
            assert_strict(one, root=False)
    else:
        kind = schema.pop("type")
        assert schema.keys() <= KEYWORDS[kind], schema
        assert schema.get("format", "date") in FORMATS
        assert not re.search(r"\(\?<?[=!]", schema.get("pattern", ""))
        if kind == "array":
            assert_strict(schema["items"], root=False)
        if kind == "object":
            assert schema["additionalProperties"] is False
            assert schema.get("required", []) == list(schema["properties"])
            for one in schema["properties"].values():
                assert_strict(one, root=False)


# Everyday types


class Point(NamedTuple):
    """Where it is."""

    x: float
    y: float = 2.0


@dataclass
class Box(Generic[T]):
    item: T
    more: list[T]
    inner: Optional["Box[T]"] = None


@dataclass
class Labelled(Box[S]):
    label: S | None = None


@dataclass
class DateBox(Box[date]):
    pass


class Pair(TypedDict):
    at: time
    place: Point


@dataclass
class Everyday:
    at: datetime
    day: date
    hour: time
    length: timedelta
    id: UUID
    price: Decimal
    file: Path
    data: bytes
    place: Point
    box: Box[date]


NOON = datetime(2024, 12, 31, 12, tzinfo=timezone.utc)
EVERYDAY = Everyday(
    NOON, NOON.date(), time(12, 30), timedelta(hours=1, seconds=5), UUID(int=5), Decimal("1.50"),
    Path("a/b"), b"\x00\xff", Point(1.0, 3.0), Box(NOON.date(), [NOON.date()]),
)  # fmt: skip


@pytest.mark.parametrize(
    ("of", "strict", "free"),
    [
        (datetime, {"format": "date-time"}, None),
        (date, {"format": "date"}, None),
        (time, {"format": "time"}, None),
        (timedelta, {"format": "duration"}, None),
        (UUID, {"format": "uuid"}, None),
        (Decimal, {"pattern": r"^-?[0-9]+(\.[0-9]+)?$"}, None),
        (Path, {"description": "format: path"}, {"format": "path"}),
        (bytes, {"description": "contentEncoding: base64"}, {"contentEncoding": "base64"}),
    ],
    ids=str,
)
def test_an_everyday_type_is_text_with_the_format_that_servers_know(of, strict, free):
    assert strict_form(of) == {"type": "string", **strict}
    assert lib.json_schema(of, strict=False) == {"type": "string", **(free or strict)}


def test_everyday_types_survive_a_round_trip(offline, question):
    text = json.dumps(lib.json_form(EVERYDAY))
    client = offline(text)
    assert lib.parse_chat_completion(client, question, Everyday) == EVERYDAY
    sent = client.server.requests[0].body["response_format"]["json_schema"]["schema"]
    assert_strict(sent)
    assert sent["$defs"]["Point"]["description"] == "Where it is."


@pytest.mark.parametrize(
    ("of", "value", "expected"),
    [
        (datetime, "2024-12-31T12:00:00Z", NOON),
        (datetime, "2024-12-31T12:00:00.5z", NOON.replace(microsecond=500_000)),
        (datetime, "2024-12-31T12:00:00.123456789+00:00", NOON.replace(microsecond=123_456)),
        (datetime, "2024-12-31 12:00", NOON.replace(tzinfo=None)),
        (time, "12:30Z", time(12, 30, tzinfo=timezone.utc)),
        (timedelta, "P1W2DT3H4M5.5S", timedelta(9, 3 * 3600 + 4 * 60 + 5.5)),
        (timedelta, "-PT90M", timedelta(minutes=-90)),
        (Decimal, 12, Decimal("12")),
        (Decimal, 12.5, Decimal("12.5")),
        (Decimal, "12345678901234567.89", Decimal("12345678901234567.89")),
        (Decimal, 1234567890.12345, Decimal("1234567890.12345")),
        (date | str, "2024-12-31", NOON.date()),
        (date | str, "soon", "soon"),
        (str | date, "2024-12-31", "2024-12-31"),
        (date | None, None, None),
        (datetime, "2024-12-31", datetime(2024, 12, 31)),
        (datetime | date, "2024-12-31", NOON.date()),
        (datetime | date, "2024-12-31T12:00:00Z", NOON),
        (date | datetime, "2024-12-31T12:00:00Z", NOON),
        (list[date] | date, ["2024-12-31"], [NOON.date()]),
        (Point, {"x": 1}, Point(1.0)),
        (Point, {"x": 1, "y": None}, Point(1.0)),
        (Box[int], {"item": 1, "more": [2]}, Box(1, [2])),
        (Box[Box[date]], {"item": {"item": "2024-12-31", "more": []}, "more": []},
         Box(Box(NOON.date(), []), [])),
        (Labelled[date], {"item": "2024-12-31", "more": [], "label": "2024-12-31"},
         Labelled(NOON.date(), [], None, NOON.date())),
        (DateBox, {"item": "2024-12-31", "more": []}, DateBox(NOON.date(), [])),
        (Pair, {"at": "12:30:00", "place": {"x": 1}}, {"at": time(12, 30), "place": Point(1.0)}),
    ],
    ids=str,
)  # fmt: skip
def test_every_spelling_of_an_everyday_value_is_read(of, value, expected):
    found = read(of, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("of", "value", "words"),
    [
        (date, "soon", "$: expected date, got 'soon'"),
        (date, 5, "$: expected date, got number"),
        (datetime, "2024-13-01T00:00:00", "$: expected date-time, got '2024-13-01T00:00:00'"),
        (timedelta, "P1Y", "$: expected duration, got 'P1Y'"),
        (timedelta, "P", "$: expected duration, got 'P'"),
        (timedelta, "P" + "9" * 400 + "D", "$: expected duration"),
        (Decimal, "NaN", "$: expected number as text, got 'NaN'"),
        (Decimal, True, "$: expected number as text, got boolean"),
        (Decimal, 12345678901234567.89, "$: expected number as text, got number"),
        (Decimal, 1e999, "$: expected number as text, got 'inf'"),
        (bytes, "no base64!", "$: expected base64, got 'no base64!'"),
        (UUID, "5", "$: expected uuid, got '5'"),
        (Box[int], {"item": "x", "more": []}, "$.item: expected integer, got string"),
    ],
    ids=str,
)
def test_an_invalid_everyday_value_is_an_error_with_its_path(of, value, words):
    with pytest.raises(lib.DeserializeError) as caught:
        read(of, value)
    assert words in str(caught.value)


@given(
    st.builds(
        Everyday, st.datetimes(timezones=st.just(timezone.utc)), st.dates(), st.times(),
        st.timedeltas(timedelta(-9999), timedelta(9999)), st.uuids(),
        st.decimals(allow_nan=False, allow_infinity=False), st.just(Path("a")), st.binary(),
        st.builds(Point, st.floats(-9, 9), st.floats(-9, 9)),
        st.builds(Box, st.dates(), st.lists(st.dates())),
    )
)  # fmt: skip
def test_any_written_everyday_value_reads_back_equal(value):
    found = read(Everyday, json.loads(json.dumps(lib.json_form(value))))
    assert abs(found.length - value.length) < timedelta(microseconds=2)  # seconds are rounded
    found.length = value.length
    assert found == value


def test_the_default_of_an_everyday_type_is_in_its_json_form():
    def plan(day: date = date(2024, 12, 31), price: Decimal = Decimal("1.5")) -> None: ...

    found = lib.function_tool(plan)["function"]["parameters"]["properties"]
    assert [one["default"] for one in found.values()] == ["2024-12-31", "1.5"]


def test_a_generic_class_without_type_arguments_is_rejected():
    with pytest.raises(lib.ConfigError, match=r"cannot describe Box\.item: T has no JSON form"):
        lib.json_schema(Box)


@pytest.mark.skipif(TypeAliasType is None, reason="no typing_extensions is installed")
def test_a_recursive_type_alias_has_a_definition():
    # As `type Tree = int | list[Tree]` makes it.
    tree = TypeAliasType("Tree", Union[int, list["Tree"]])  # noqa: UP007, F821

    @dataclass
    class Forest:
        first: tree
        second: tree

    found = lib.json_schema(Forest)
    reference = {"$ref": "#/$defs/Tree"}
    assert found["properties"] == {"first": reference, "second": reference}
    assert found["$defs"] == {
        "Tree": {"anyOf": [{"type": "integer"}, {"type": "array", "items": reference}]}
    }
    assert_strict(found)
    assert read(tree, [1, [2, []]]) == [1, [2, []]]
    with pytest.raises(lib.DeserializeError, match=r"^\$\[1\]\[0\]: expected integer or list"):
        read(tree, [1, ["x"]])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a type statement needs Python 3.12")
def test_type_statements_with_and_without_parameters_stand_for_their_types():
    names = {"date": date}
    exec("type Json = dict[str, Json] | list[Json] | str | int\n"
         "type Span[A] = tuple[A, A]\n"
         "type Day = date", names)  # fmt: skip
    assert read(names["Json"], {"a": [1, {"b": "c"}]}) == {"a": [1, {"b": "c"}]}
    assert read(names["Span"][date], ["2024-12-31"] * 2) == (NOON.date(), NOON.date())
    assert lib.json_schema(names["Day"], strict=False) == {"type": "string", "format": "date"}


def test_an_attrs_class_is_rejected_with_a_hint_to_use_a_dataclass():
    attrs = pytest.importorskip("attrs", reason="attrs is not installed")

    @attrs.define
    class Cat:
        name: str

    with pytest.raises(lib.ConfigError, match="Cat has no JSON form: use a dataclass"):
        lib.json_schema(Cat)


# Limits and descriptions


class Limited:
    """Metadata with the attributes of annotated-types and Pydantic that the library uses."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("of", "metadata", "free", "strict", "good", "bad"),
    [
        (int, {"le": 7}, {"maximum": 7}, {"maximum": 7}, 7, 8),
        (int, {"gt": 0, "lt": 3}, {"exclusiveMinimum": 0, "exclusiveMaximum": 3}, None, 2, 3),
        (float, {"ge": 0.5}, {"minimum": 0.5}, None, 0.5, 0.4),
        (float, {"multiple_of": 0.1}, {"multipleOf": 0.1}, None, 0.3, 0.35),
        (float, {"multiple_of": 0.1}, {"multipleOf": 0.1}, None, 1e300, 1e9 + 0.01),
        pytest.param(int, {"multiple_of": 2}, {"multipleOf": 2}, None, 10**400, 10**400 + 1, id="huge"),
        (int, {"multiple_of": 2}, {"multipleOf": 2}, None, -4, 1_000_000_001),
        (Decimal, {"multiple_of": 2}, {"multipleOf": 2}, {"description": "multipleOf: 2"}, "1e400", "1.5"),
        (str, {"min_length": 2}, {"minLength": 2}, {"description": "minLength: 2"}, "ab", "a"),
        (list[int], {"max_length": 1}, {"maxItems": 1}, None, [1], [1, 2]),
        (str, {"pattern": "^a+$"}, {"pattern": "^a+$"}, None, "aa", "ab"),
        (str, {"pattern": re.compile("^a")}, {"pattern": "^a"}, None, "ab", "b"),
        (str, {"pattern": "^(?!a)"}, {"pattern": "^(?!a)"}, {"description": "pattern: ^(?!a)"},
         "b", "a"),
        (date, {"ge": date(2024, 1, 1)}, {"description": "minimum: 2024-01-01"}, None,
         "2024-12-31", "2023-12-31"),
        (bytes, {"max_length": 1}, {"description": "maxLength: 1"},
         {"description": "maxLength: 1 (contentEncoding: base64)"}, "AA==", "AAAA"),
        (str, {"pattern": "^(?P<x>a)"}, {"pattern": "^(?P<x>a)"},
         {"description": "pattern: ^(?P<x>a)"}, "a", "b"),
        (str, {"pattern": r"a\Z"}, {"pattern": r"a\Z"}, {"description": r"pattern: a\Z"}, "a", "a\n"),
        (str, {"pattern": "(?i)^a"}, {"pattern": "(?i)^a"}, {"description": "pattern: (?i)^a"}, "A", "b"),
        (str, {"pattern": r"^\(?(?:a|b)"}, {"pattern": r"^\(?(?:a|b)"}, None, "(a", "c"),
        (Decimal, {"le": 7}, {"maximum": 7}, {"description": "maximum: 7"}, "7.00", "7.01"),
    ],
    ids=str,
)  # fmt: skip
def test_limits_are_in_the_schema_and_are_checked(of, metadata, free, strict, good, bad):
    hint = Annotated[of, Limited(**metadata)]
    plain = lib.json_schema(of, strict=False)
    assert lib.json_schema(hint, strict=False) == {**plain, **free}
    found = strict_form(hint)
    assert found == {**strict_form(of), **(free if strict is None else strict)}
    read(hint, good)
    keyword = r"expected \w+ "
    with pytest.raises(lib.DeserializeError, match=keyword):
        read(hint, bad)
    assert read(Annotated[of | None, Limited(**metadata)], None) is None
    with pytest.raises(lib.DeserializeError, match=keyword):
        read(Annotated[of | None, Limited(**metadata)], bad)


def test_the_length_of_an_optional_list_is_limited_by_the_keywords_of_lists():
    schema = lib.json_schema(Annotated[list[int] | None, Limited(min_length=2)], strict=False)
    assert schema["minItems"] == 2
    assert "minLength" not in schema


@pytest.mark.parametrize(
    "metadata",
    [
        ["how many", Limited(le=7)],
        [Limited(description="how many", metadata=[Limited(le=7)])],
        [Limited(documentation="how many"), Limited(gt=None, ge=None, lt=None, le=7)],
    ],
)
def test_a_description_and_limits_stand_together(metadata):
    hint = Annotated[(int, *metadata)]
    assert strict_form(hint) == {"type": "integer", "description": "how many", "maximum": 7}


def test_limits_and_descriptions_of_pydantic_and_annotated_types_are_read():
    pytest.importorskip("pydantic", reason="Pydantic is not installed")
    import annotated_types
    from pydantic import Field, StringConstraints

    def rate(
        stars: Annotated[int, Field(description="how good", ge=1, le=5)],
        words: Annotated[str, StringConstraints(max_length=9)],
        tags: Annotated[list[str], annotated_types.Len(1, 2)],
        pace: Annotated[float, annotated_types.Interval(gt=0, le=2)] = 1.0,
        again: int = Field(description="how often", gt=0),
    ) -> None: ...

    found = lib.function_tool(rate)["function"]["parameters"]
    assert found["properties"] == {
        "stars": {"type": "integer", "description": "how good", "minimum": 1, "maximum": 5},
        "words": {"type": "string", "maxLength": 9},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
        "pace": {"type": "number", "exclusiveMinimum": 0, "maximum": 2, "default": 1.0},
        "again": {"type": "integer", "description": "how often", "exclusiveMinimum": 0},
    }
    assert found["required"] == ["stars", "words", "tags", "again"]
    assert_strict(lib.function_tool(rate, strict=True)["function"]["parameters"])


def test_an_argument_beyond_its_limit_is_reported_to_the_model(offline, question):
    from .test_tools import call, calls, tool_results

    def rate(stars: Annotated[int, Limited(le=5)]) -> str:
        return "rated"

    client = offline(calls(call("rate", {"stars": 6})), "Sorry.")
    lib.run_tools(client, question, [rate])
    assert "$.stars: expected maximum 5, got 6" in tool_results(client)[0]["content"]


def test_the_attributes_in_a_class_docstring_describe_its_fields():
    @dataclass
    class Step:
        """One thing to do.

        Attributes:
            text: what to do
        """

        text: str

    found = lib.json_schema(Step)
    assert found["description"] == "One thing to do."
    assert found["properties"]["text"]["description"] == "what to do"


def test_a_generated_note_stands_beside_the_description_and_does_not_replace_it():
    Money = NewType("Money", Annotated[Decimal, Limited(ge=Decimal("0.5"))])

    @dataclass
    class Order:
        """An order.

        Attributes:
            day: The day of arrival.
            price: Without tax.
            size: not this one
        """

        day: Annotated[date, Limited(ge=date(2024, 1, 1))]
        price: Money
        paid: Annotated[Money, "in euro"]
        size: Annotated[bytes, "how big", Limited(max_length=9)]
        bare: Money

    found = lib.json_schema(Order, strict=False)["properties"]
    assert {name: one["description"] for name, one in found.items()} == {
        "day": "The day of arrival. (minimum: 2024-01-01)",
        "price": "Without tax. (minimum: 0.5)",
        "paid": "in euro (minimum: 0.5)",
        "size": "how big (maxLength: 9)",
        "bare": "minimum: 0.5",
    }


def test_the_outer_of_two_descriptions_in_annotated_wins():
    city = Annotated[str, "a city"]
    found = strict_form(
        Annotated[city, Limited(description="where the flight lands"), Limited(pattern="a")]
    )
    assert found["description"] == "where the flight lands"


def test_the_attributes_in_the_docstring_of_a_base_class_describe_its_fields():
    @dataclass
    class Base:
        """A base.

        Attributes:
            name: the full name
            age: in days
        """

        name: str
        age: int

    @dataclass
    class Person(Base):
        """A person.

        Attributes:
            age: in years
        """

    found = lib.json_schema(Person)
    notes = {name: one["description"] for name, one in found["properties"].items()}
    assert notes == {"name": "the full name", "age": "in years"}
    assert found["description"] == "A person."


# Strict schemas


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Options:
    size: int = 5
    colour: Colour = Colour.RED
    tags: list[str] = field(default_factory=lambda: ["new"])
    note: str | None = "none"
    inner: Optional["Options"] = None
    span: tuple[int, str] = (1, "a")
    pair: tuple[float, float] = (0.0, 1.0)
    all: set[str] = field(default_factory=set)


def test_null_means_the_default_in_a_strict_schema():
    schema = lib.json_schema(Options)
    assert_strict(schema)
    assert schema["properties"]["size"] == {
        "anyOf": [{"type": "integer"}, NULL], "description": "null means the default, 5",
    }  # fmt: skip
    assert schema["properties"]["tags"] == {
        "anyOf": [{"type": "array", "items": {"type": "string"}}, NULL]
    }
    nulls = dict.fromkeys(schema["properties"])
    assert read(Options, nulls) == Options(note=None)


@pytest.mark.parametrize("schema", [{"type": ["string", "null"]}, {"enum": ["a", None]}], ids=str)
def test_the_default_of_a_nullable_property_is_named_but_null_does_not_stand_for_it(schema):
    nullable = {"anyOf": [{"type": "string"}, NULL], "description": "default: none"}
    assert lib.json_schema(Options)["properties"]["note"] == nullable
    assert read(Options, {"note": None}).note is None
    model = lib.json_schema(foreign({**schema, "default": "a"}))
    assert model["properties"]["a"]["description"] == "default: a"


def test_a_null_where_there_is_no_default_is_an_error():
    with pytest.raises(lib.DeserializeError, match=r"\$\.item: expected integer, got null"):
        read(Box[int], {"item": None, "more": []})


def test_a_tuple_is_a_list_of_its_length_and_checked_item_by_item():
    schema = lib.json_schema(Options)["properties"]
    assert schema["pair"]["anyOf"][0] == {
        "type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2,
    }  # fmt: skip
    assert schema["span"]["anyOf"][0] == {
        "type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "minItems": 2, "maxItems": 2,
    }  # fmt: skip
    described = 'prefixItems: [{"type": "integer"}, {"type": "string"}]'
    assert schema["span"]["description"] == described
    with pytest.raises(lib.DeserializeError, match=r"\$\.span\[0\]: expected integer"):
        read(Options, {"span": ["a", 1]})


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the syntax is of Python 3.11")
@pytest.mark.parametrize("hint", ["tuple[int, *tuple[str, ...]]", "tuple[*tuple[int, str]]"])
def test_a_tuple_with_an_unpacked_item_is_rejected_with_the_reason(hint):
    with pytest.raises(lib.ConfigError, match="can't be unpacked from another tuple"):
        lib.SchemaBuilder().shape(eval(hint), "it")


def test_a_tuple_of_several_types_and_an_ellipsis_is_rejected():
    with pytest.raises(lib.ConfigError, match="has no JSON form"):
        lib.SchemaBuilder().shape(tuple[int, str, ...], "it")


def test_unique_items_goes_into_the_description():
    assert strict_form(set[str]) == {
        "type": "array", "items": {"type": "string"}, "description": "uniqueItems: true",
    }  # fmt: skip


def foreign(schema):
    """A model like Pydantic's, whose only property has this schema."""
    whole = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    methods = {"model_json_schema": lambda: whole, "model_validate_json": json.loads}
    return type("M", (), {name: staticmethod(method) for name, method in methods.items()})


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "string", "format": "uri"}, {"type": "string", "description": "format: uri"}),
        ({"type": "string", "format": "email"}, {"type": "string", "format": "email"}),
        (
            {"type": "string", "allOf": [{"pattern": "a"}, {"pattern": "b"}]},
            {"type": "string", "description": 'allOf: [{"pattern": "a"}, {"pattern": "b"}]'},
        ),
        ({"allOf": [{"type": "string"}], "description": "x"},
         {"type": "string", "description": "x"}),
        ({"type": ["string", "null"]}, {"anyOf": [{"type": "string"}, NULL]}),
        ({"const": 1, "type": "integer"}, {"enum": [1], "type": "integer"}),
        ({"enum": ["a", None]}, {"anyOf": [{"enum": ["a"], "type": "string"}, NULL]}),
        ({"const": "a"}, {"enum": ["a"], "type": "string"}),
        (
            {"type": "integer", "description": "x", "examples": [1, 2], "title": "A"},
            {"type": "integer", "description": "x (examples: [1, 2])"},
        ),
        (
            {"type": "array", "prefixItems": [{"type": "string"}, {"type": "string"}]},
            {"type": "array", "items": {"type": "string"}},
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_strict_output_does_not_take_goes_into_the_description(schema, strict):
    found = lib.json_schema(foreign(schema))
    assert_strict(found)
    assert found["properties"]["a"] == strict


# Pydantic


@needs_pydantic
def test_a_pydantic_model_has_a_strict_schema_and_null_means_its_defaults(offline, question):
    from pydantic import BaseModel, EmailStr, Field, HttpUrl  # noqa: F401

    class Cat(BaseModel):
        kind: Literal["cat"] = "cat"
        lives: int = 9

    class Dog(BaseModel):
        kind: Literal["dog"]
        toys: list[str] = Field(default_factory=lambda: ["ball"], max_length=3)

    class Home(BaseModel):
        """Who lives where."""

        at: HttpUrl
        name: str = Field(min_length=2, pattern="^[ab]")
        pet: Cat | Dog = Field(discriminator="kind")
        others: list[Cat | Dog] = []
        when: datetime
        price: Decimal = Decimal("1.5")
        inner: Optional["Home"] = None
        place: tuple[float, float] = (0.0, 0.0)

    pet = {"kind": "dog", "toys": None}
    answer = {
        "at": "https://example.com", "name": "ab", "pet": pet,
        "others": [pet, {"kind": "cat", "lives": None}], "when": "2024-12-31T12:00:00Z",
        "price": None, "inner": None, "place": None,
    }  # fmt: skip
    client = offline(json.dumps(answer))
    home = lib.parse_chat_completion(client, question, Home)
    assert home.pet == Dog(kind="dog")
    assert home.others == [Dog(kind="dog"), Cat()]
    assert (home.price, home.place, home.inner) == (Decimal("1.5"), (0.0, 0.0), None)
    schema = client.server.requests[0].body["response_format"]["json_schema"]["schema"]
    assert_strict(schema)
    assert "minLength: 2" in schema["properties"]["name"]["description"]
    assert "format: uri" in schema["properties"]["at"]["description"]


@needs_pydantic
def test_a_pydantic_dataclass_describes_and_validates_itself(offline, question):
    from pydantic import Field
    from pydantic.dataclasses import dataclass as checked

    @checked
    class Rated:
        stars: int = Field(description="how good", le=5)
        text: str = "none"

    schema = lib.json_schema(Rated)
    assert_strict(schema)
    assert schema["properties"]["stars"] == {
        "type": "integer", "description": "how good", "maximum": 5,
    }  # fmt: skip
    found = lib.parse_chat_completion(offline('{"stars": 5, "text": null}'), question, Rated)
    assert found == Rated(5)
    with pytest.raises(lib.DeserializeError, match=r"\$\.stars: "):
        lib.parse_chat_completion(offline('{"stars": 6, "text": "x"}'), question, Rated)
    with pytest.raises(lib.DeserializeError, match=r"\$\.stars: "):  # no default of its own
        lib.parse_chat_completion(offline('{"text": "x"}'), question, Rated)


@needs_pydantic
def test_a_pydantic_type_has_a_strict_schema_and_validates_itself():
    from pydantic import IPvAnyAddress

    @dataclass
    class Host:
        at: IPvAnyAddress

    assert_strict(lib.json_schema(Host))
    assert str(read(Host, {"at": "127.0.0.1"}).at) == "127.0.0.1"
    with pytest.raises(lib.DeserializeError, match=r"\$\.at: "):
        read(Host, {"at": "nowhere"})


class Validator:
    """Metadata of Pydantic's kind."""

    def __get_pydantic_core_schema__(self, source, handler): ...


Predicate = type("Predicate", (Limited,), {"__module__": "annotated_types.any"})


@pytest.mark.parametrize(
    "metadata", [Validator(), Predicate(func=bool), Limited(le=7, metadata=[Predicate(func=bool)])]
)
def test_a_check_that_needs_pydantic_is_rejected_without_it(metadata, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(lib.ConfigError, match=r"^cannot describe f\(x\): .*pydantic") as caught:
        read_parameter(metadata)
    assert isinstance(caught.value.__cause__, ImportError)


def read_parameter(metadata):
    def f(x: Annotated[int, metadata]): ...

    return lib.function_tool(f)


def test_metadata_that_is_not_a_check_needs_no_pydantic(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)
    items = Predicate(unit="m"), Predicate(ge=0, le=None), Limited(func=bool)
    assert strict_form(Annotated[(int, *items)]) == {"type": "integer", "minimum": 0}


@needs_pydantic
def test_a_check_that_only_pydantic_can_make_is_made_by_pydantic(offline, question):
    from annotated_types import Ge, Predicate
    from pydantic import AfterValidator, Field, FilePath, StringConstraints

    from .test_tools import call, calls, tool_results

    def code(text):
        assert len(text) == 3, "not an airport"
        return text.upper()

    Code = Annotated[str, "an airport", AfterValidator(code)]

    def fly(
        to: Code,
        via: Annotated[list[Code] | None, Field(max_length=2, description="at most two stops")],
        note: Annotated[str, StringConstraints(strip_whitespace=True)] = "",
        seats: Annotated[int, Predicate(lambda n: n % 2 == 0), Ge(0)] = 2,
        row: int = Field(strict=True),
        doc: FilePath | None = None,
        bags: Annotated[int | None, AfterValidator(lambda n: n)] = 1,
    ) -> list[Any]:
        return [to, via, note, seats, row, bags]

    function = lib.function_tool(fly, strict=True)["function"]
    assert_strict(function["parameters"])
    assert function["parameters"]["properties"]["to"] == {
        "type": "string", "description": "an airport",
    }  # fmt: skip
    right = {"to": "[1]", "via": ["fco"], "note": " x ", "seats": 4, "row": 1, "bags": None}
    wrong = [{"to": "rome"}, {"via": ["rome"]}, {"seats": 3}, {"row": "1"}, {"doc": "/no/such"}]
    made = [call("fly", {**right, **change}, str(i)) for i, change in enumerate([{}, *wrong])]
    client = offline(calls(*made), "Done.")
    lib.run_tools(client, question, [fly])
    done, *errors = (result["content"] for result in tool_results(client))
    assert json.loads(done) == ["[1]", ["FCO"], "x", 4, 1, None]
    for error, change in zip(errors, wrong, strict=True):
        assert f"$.{next(iter(change))}" in error
    assert "not an airport" in errors[0]


@needs_pydantic
def test_a_pydantic_field_is_not_taken_for_a_default_of_a_dataclass():
    from pydantic import Field

    @dataclass
    class Rated:
        stars: int = Field(description="how good", le=5)

    found = lib.json_schema(Rated, strict=False)
    assert found["required"] == ["stars"]
    assert found["properties"]["stars"] == {
        "type": "integer", "description": "how good", "maximum": 5,
    }  # fmt: skip


@needs_pydantic
def test_pydantic_models_work_as_parameters_and_results_of_tools(offline, question):
    from .test_tools import call, calls, tool_results

    class Seat(pydantic.BaseModel):
        row: int
        side: Literal["a", "b"] = "a"

    def book(seat: Seat, also: list[Seat] | None = None) -> Seat:
        return seat

    client = offline(calls(call("book", {"seat": {"row": "3"}, "also": "[]"})), "Booked.")
    lib.run_tools(client, question, [book])
    assert tool_results(client)[0]["content"] == '{"row":3,"side":"a"}'
    assert_strict(lib.function_tool(book, strict=True)["function"]["parameters"])


# Unions


@dataclass
class Add:
    left: "Expr"
    right: "Expr"


@dataclass
class Scale:
    left: "Expr"
    right: str


Expr = Union[Add, Scale, float]  # noqa: UP007  (text cannot stand beside |)


@dataclass
class Leaf:
    kind: Literal["leaf"]
    value: int


@dataclass
class Branch:
    kind: Literal["branch"]
    nodes: list[Union["Branch", Leaf]]


def nested(depth, leaf):
    value = leaf
    for _ in range(depth):
        value = {"left": value, "right": "twice"}
    return value


@pytest.mark.parametrize("leaf", ["x", 1.0], ids=["wrong", "right"])
def test_the_attempts_to_read_a_union_grow_linearly_with_its_depth(leaf, monkeypatch):
    """Add is tried first, and fails only after all of its `left` was read; then Scale is tried."""
    attempts = []
    real = lib.type_mismatch
    monkeypatch.setattr(sys.modules[lib.Shape.__module__], "type_mismatch",
                        lambda *arguments: attempts.append(arguments) or real(*arguments))  # fmt: skip

    def attempts_for(depth):
        attempts.clear()
        shape, value = lib.SchemaBuilder(globals()).shape(Expr, "it"), nested(depth, leaf)
        if leaf == "x":
            with pytest.raises(lib.DeserializeError):
                shape.read(value)
        else:
            assert isinstance(shape.read(value), Scale)
        return len(attempts)

    assert 20 < attempts_for(20) < attempts_for(40) < 2.5 * attempts_for(20)


def test_a_union_member_is_chosen_by_its_tag_and_errors_refer_to_that_member():
    of = Branch | Leaf
    assert read(of, {"kind": "leaf", "value": 1}) == Leaf("leaf", 1)
    tree = {"kind": "branch", "nodes": [{"kind": "leaf", "value": "x"}]}
    with pytest.raises(lib.DeserializeError, match=r"^\$\.nodes\[0\]\.value: expected integer"):
        read(of, tree)
    with pytest.raises(lib.DeserializeError, match=r"^\$\.nodes: missing"):
        read(of, {"kind": "branch"})


def test_the_choice_of_a_union_member_is_not_reused_for_similar_values():
    of = list[Add | Leaf]
    found = read(of, [{"kind": "leaf", "value": n} for n in range(3)])
    assert [leaf.value for leaf in found] == [0, 1, 2]


def test_nullable_types_are_described_with_any_of_and_accept_null():
    hints: list[Any] = [int | None, Literal[1, None], Annotated[int | None, "x"], date | None]
    for hint in hints:
        shown = json.dumps(strict_form(hint))
        assert '"type": [' not in shown
        assert read(hint, None) is None
