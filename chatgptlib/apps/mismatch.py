"""Check parsed JSON against a JSON Schema: its common keywords, except `format`."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain, repeat
from typing import Any
from urllib.parse import unquote

from ..codec import is_dict, is_list
from ..extras.strict import is_same_json

_TYPES_OF_JSON: dict[type, set[str]] = {
    str: {"string"}, bool: {"boolean"}, int: {"integer", "number"}, float: {"number"},
    list: {"array"}, dict: {"object"}, type(None): {"null"},
}  # fmt: skip


def _are_unique(items: list[Any]) -> bool:
    return len({json.dumps(item, sort_keys=True) for item in items}) == len(items)


# The keywords that limit a value of a type, and whether a value is within a limit.
_LIMITS: dict[str, dict[str, Callable[[Any, Any], bool]]] = {
    "number": {
        "minimum": operator.ge,
        "maximum": operator.le,
        "exclusiveMinimum": operator.gt,
        "exclusiveMaximum": operator.lt,
        # 0.3 % 0.1 is not 0 in floats.
        "multipleOf": lambda number, of: Fraction(str(number)) % Fraction(str(of)) == 0,
    },
    "string": {
        "minLength": lambda text, limit: len(text) >= limit,
        "maxLength": lambda text, limit: len(text) <= limit,
        "pattern": lambda text, pattern: re.search(pattern, text) is not None,
    },
    "array": {
        "minItems": lambda items, limit: len(items) >= limit,
        "maxItems": lambda items, limit: len(items) <= limit,
        "uniqueItems": lambda items, is_set: not is_set or _are_unique(items),
    },
}
_UNCHECKED = {
    "not", "if", "contains", "patternProperties", "propertyNames", "minProperties", "maxProperties",
    "dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems",
}  # fmt: skip


def unchecked_keywords(schema: Any) -> list[str]:
    """The keywords of a schema that `schema_mismatch` ignores."""
    text = json.dumps(schema)
    return sorted(keyword for keyword in _UNCHECKED if f'"{keyword}":' in text)


def schema_mismatch(value: Any, schema: Any) -> str:
    """Why a JSON value does not match a schema, or why the schema can't be used; else ""."""
    try:
        return next(_mismatches(value, schema, schema, "$"), "")
    except Exception as error:  # its kind depends on what is wrong with the schema
        return f"the schema can't be used: {type(error).__name__}: {error}"


def _mismatches(value: Any, schema: Any, root: Any, at: str) -> Iterator[str]:
    """The mismatches of a value; `at` is its path, and `root` resolves references."""
    if schema is False:
        yield f"{at} is not in the schema"
    if schema is None or isinstance(schema, bool):
        return
    if not is_dict(schema):
        raise TypeError(f"{schema!r:.40} is not a schema")
    if "$ref" in schema:
        target: Any = root
        for step in unquote(schema["$ref"]).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            target = target[int(key) if is_list(target) else key]
        yield from _mismatches(value, target, root, at)
    for part in schema.get("allOf", ()):
        yield from _mismatches(value, part, root, at)
    for keyword in ("anyOf", "oneOf"):
        options = [next(_mismatches(value, one, root, at), "") for one in schema.get(keyword, ())]
        if "" not in options:
            yield from options[:1]
        elif keyword == "oneOf" and options.count("") > 1 and not unchecked_keywords(schema):
            yield f"{at} matches several options of oneOf"
    types = schema.get("type", ())
    wanted = {types} if isinstance(types, str) else set(types)
    is_whole = isinstance(value, float) and value.is_integer() and "integer" in wanted
    if wanted and not wanted & _TYPES_OF_JSON[type(value)] and not is_whole:
        yield f"{at} is not of type {' or '.join(sorted(wanted))}"
    allowed = schema.get("enum", [schema.get("const", value)])
    if not any(is_same_json(value, one) for one in allowed):
        yield f"{at} is not one of the values allowed"
    for kind in _TYPES_OF_JSON[type(value)] & _LIMITS.keys():
        for keyword, is_within in _LIMITS[kind].items():
            if keyword in schema and not is_within(value, schema[keyword]):
                yield f"{at} violates {keyword} {json.dumps(schema[keyword])}"
    if is_list(value):
        expected = chain(schema.get("prefixItems", ()), repeat(schema.get("items")))
        for place, (item, one) in enumerate(zip(value, expected, strict=False)):
            yield from _mismatches(item, one, root, f"{at}[{place}]")
    if is_dict(value):
        missing = (name for name in schema.get("required", ()) if name not in value)
        yield from (f"{at} lacks {name!r}" for name in missing)
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        if "patternProperties" in schema:  # which are not checked
            others = None
        for name, item in value.items():
            yield from _mismatches(item, known.get(name, others), root, f"{at}.{name}")
