"""Check parsed JSON against a JSON Schema, by the keywords of structured output. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..codec import is_dict, is_list
from ..extras.strict import is_same_json

_TYPES_OF_JSON: dict[type, set[str]] = {
    str: {"string"}, bool: {"boolean"}, int: {"integer", "number"}, float: {"number"},
    list: {"array"}, dict: {"object"}, type(None): {"null"},
}  # fmt: skip


def schema_mismatch(value: Any, schema: Any) -> str:
    """The reason why a JSON value does not match a schema, or "".

    It checks the keywords of structured output, and ignores others.
    """
    return next(_mismatches(value, schema, schema, "$"), "")


def _mismatches(value: Any, schema: Any, root: Any, at: str) -> Iterator[str]:
    """The mismatches of a value; `at` is its path, and `root` resolves references."""
    if schema is False:
        yield f"{at} is not in the schema"
    if not is_dict(schema):
        return
    if "$ref" in schema:
        target: Any = root
        for step in str(schema["$ref"]).split("/")[1:]:
            target = target.get(step) if is_dict(target) else None
        yield from _mismatches(value, target, root, at)
    options = [next(_mismatches(value, one, root, at), "") for one in schema.get("anyOf", ())]
    if "" not in options:
        yield from options[:1]
    types = schema.get("type", ())
    wanted = {types} if isinstance(types, str) else set(types)
    is_whole = isinstance(value, float) and value.is_integer() and "integer" in wanted
    if wanted and not wanted & _TYPES_OF_JSON[type(value)] and not is_whole:
        yield f"{at} is not of type {' or '.join(sorted(wanted))}"
    allowed = schema.get("enum", [schema.get("const", value)])
    if not any(is_same_json(value, one) for one in allowed):
        yield f"{at} is not one of the values allowed"
    if is_list(value):
        for place, item in enumerate(value):
            yield from _mismatches(item, schema.get("items"), root, f"{at}[{place}]")
    if is_dict(value):
        missing = (name for name in schema.get("required", ()) if name not in value)
        yield from (f"{at} lacks {name!r}" for name in missing)
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, item in value.items():
            yield from _mismatches(item, known.get(name, others), root, f"{at}.{name}")
