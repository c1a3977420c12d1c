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
TREE = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}}


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
        (5, {"minimum": 5, "maximum": 5}),
        (0.3, {"multipleOf": 0.1}),
        (10**400, {"multipleOf": 5}),
        (True, {"minimum": 5}),
        ("three", {"minimum": 5, "minItems": 9}),
        ("\u00e9\U0001f98b", {"minLength": 2, "maxLength": 2}),
        ("a-ABC", {"pattern": "[A-Z]{3}"}),
        ([1], {"minItems": 1, "maxItems": 1}),
        ({"kids": [{"kids": []}]}, TREE),
        ({"name": "a"}, {"allOf": [{"type": "object"}, NAMED]}),
        ({"name": "a"}, {"oneOf": [{"type": "string"}, NAMED]}),
        (["x", 1, 2], {"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}),
        (["x"], {"prefixItems": [{"type": "string"}, {"type": "integer"}]}),
        ([1, "1", {"a": 1}], {"uniqueItems": True}),
        ([1, 1], {"uniqueItems": False}),
        ({"a/b": 1}, {"properties": {"a/b": {"$ref": "#/$defs/a~1b"}}, "$defs": {"a/b": {}}}),
    ],
)
def test_a_matching_value_has_no_mismatch(value, schema):
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
        (99, {"minimum": 1, "maximum": 5}, "$ violates maximum 5"),
        (0, {"minimum": 1}, "$ violates minimum 1"),
        (1.0, {"exclusiveMinimum": 1}, "$ violates exclusiveMinimum 1"),
        (5, {"exclusiveMaximum": 5}, "$ violates exclusiveMaximum 5"),
        (0.35, {"multipleOf": 0.1}, "$ violates multipleOf 0.1"),
        ("ab", {"pattern": "^[A-Z]$"}, '$ violates pattern "^[A-Z]$"'),
        ("ab", {"minLength": 3}, "$ violates minLength 3"),
        ("ab", {"maxLength": 1}, "$ violates maxLength 1"),
        ([], {"minItems": 1}, "$ violates minItems 1"),
        ([[3, 4]], {"items": {"maxItems": 1}}, "$[0] violates maxItems 1"),
        ({}, {"allOf": [{"type": "object"}, NAMED]}, "$ lacks 'name'"),
        (3, {"oneOf": [{"type": "string"}, NAMED]}, "$ is not of type string"),
        (3, {"oneOf": [{"type": "integer"}, {"minimum": 1}]}, "$ matches several options of oneOf"),
        (["x", "y"], {"prefixItems": [{}, {"type": "integer"}]}, "$[1] is not of type integer"),
        ([{"a": 1}, {"a": 1}], {"uniqueItems": True}, "$ violates uniqueItems true"),
        ({"kids": [{"kids": 3}]}, TREE, "$.kids[0].kids is not of type array"),
    ],
)
def test_a_mismatch_is_reported_with_its_path_and_keyword(value, schema, words):
    assert words in lib.schema_mismatch(value, schema)


@pytest.mark.parametrize(
    "schema",
    [
        3,
        {"properties": {"a": "string"}},
        {"$ref": "#"},
        {"$ref": "#/$defs/missing"},
        {"properties": {"a": {"minimum": "1"}}},
        {"properties": {"a": {"multipleOf": 0}}},
        {"properties": {"a": {"multipleOf": "x"}}},
        {"properties": {"b": {"pattern": "["}}},
    ],
    ids=str,
)
def test_an_invalid_schema_is_reported_as_unusable(schema):
    assert "the schema can't be used: " in lib.schema_mismatch({"a": 1, "b": "x"}, schema)


@pytest.mark.parametrize("keyword", ["not", "patternProperties", "contains"])
def test_a_keyword_that_is_not_checked_is_ignored_and_named(keyword):
    schema = {"properties": {"a": {keyword: {}, "additionalProperties": False}}}
    assert (
        lib.schema_mismatch({"a": {"b": 1} if keyword == "patternProperties" else {}}, schema) == ""
    )
    assert lib.unchecked_keywords(schema) == [keyword]


def test_equal_objects_are_not_unique_in_whatever_order_their_keys_are():
    items = [{"a": 1, "b": 2}, {"b": 2, "a": 1}]
    assert lib.schema_mismatch(items, {"uniqueItems": True}) == "$ violates uniqueItems true"


def test_a_reference_may_be_quoted_and_lead_into_a_list():
    schema = {"$defs": {"My Type": {"anyOf": [{"type": "string"}]}}}
    for reference in ("#/$defs/My%20Type", "#/$defs/My%20Type/anyOf/0"):
        assert lib.schema_mismatch("a", {**schema, "$ref": reference}) == ""
        assert "type string" in lib.schema_mismatch(1, {**schema, "$ref": reference})


def test_options_with_an_unchecked_keyword_may_all_match():
    schema = {"oneOf": [{"type": "string", "not": {"const": "a"}}, {"const": "a"}]}
    assert lib.schema_mismatch("a", schema) == ""
