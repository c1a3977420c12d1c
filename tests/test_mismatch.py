"""Parsed JSON against a schema, by the keywords of structured output."""

import pytest

from . import lib

pytestmark = pytest.mark.skipif(lib.name != "chatgptlib", reason="only the package has it")

NAMED = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
}
DEFINED = {
    "$ref": "#/$defs/Named",
    "required": ["age"],
    "$defs": {"Named": NAMED},
}


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (3, {"type": "integer"}),
        (3.0, {"type": "integer"}),
        (3, {"type": "number"}),
        (1.0, {"enum": [1]}),
        (True, {"enum": [1, True]}),
        (None, {"type": ["string", "null"]}),
        ("x", {}),
        ("x", {"const": "x"}),
        ({"name": "a", "age": 1}, DEFINED),
        ([{"name": "a"}], {"type": "array", "items": NAMED}),
        ({"name": "a"}, {"anyOf": [{"type": "string"}, NAMED]}),
    ],
)
def test_a_value_fits(value, schema):
    assert lib.schema_mismatch(value, schema) == ""


@pytest.mark.parametrize(
    ("value", "schema", "words"),
    [
        (3.5, {"type": "integer"}, "$ is not of type integer"),
        (True, {"type": "integer"}, "$ is not of type integer"),
        (True, {"enum": [1]}, "$ is not one of the values allowed"),
        (0, {"enum": [False]}, "$ is not one of the values allowed"),
        (True, {"const": 1}, "$ is not one of the values allowed"),
        ({"name": "a"}, DEFINED, "$ lacks 'age'"),
        ({"age": 1}, DEFINED, "$ lacks 'name'"),
        ("b", {"anyOf": [{"type": "string"}], "enum": ["a"]}, "$ is not one of the values"),
        ({}, {"anyOf": [{"type": "object"}, NAMED], "required": ["x"]}, "$ lacks 'x'"),
        ([{}], {"items": NAMED}, "$[0] lacks 'name'"),
        ({"x": 1}, {"additionalProperties": False}, "$.x is not in the schema"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_place(value, schema, words):
    assert words in lib.schema_mismatch(value, schema)
