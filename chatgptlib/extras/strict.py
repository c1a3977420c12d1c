"""The subset of JSON Schema that strict structured output accepts.

A keyword outside the subset is moved into the description, and is checked when the answer is
read. Every property is required; an optional property may be null instead.
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from ..codec import is_list
from ..errors import ConfigError

SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
# The accepted keywords, by type.
_KEYWORDS_OF_NUMBERS = {"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_KEYWORDS_OF_TYPE = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"pattern", "format"},
    "integer": _KEYWORDS_OF_NUMBERS,
    "number": _KEYWORDS_OF_NUMBERS,
}
_KEYWORDS_OF_ANY_TYPE = {"type", "enum", "anyOf", "$ref"}
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_UNSUPPORTED_PATTERN = re.compile(r"(?<!\\)\(\?(?!:)|\\[AZ]")  # look-around, or Python only
# Keywords that become no note: the first two are left out, strict_schema() handles the others.
_NOT_NOTED = {"title", "discriminator", "description", "$defs"}


def cannot_describe(where: str, reason: str) -> ConfigError:
    """The error for a type that has no schema, or no strict schema."""
    return ConfigError(f"cannot describe {where}: {reason}")


def any_of(schemas: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The schema of a union: `anyOf`, since not every server accepts a list of types."""
    different: list[dict[str, Any]] = []
    for schema in schemas:
        for one in schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]:
            if one not in different:
                different.append(one)
    return different[0] if len(different) == 1 else {"anyOf": different}


def strict_schema(schema: dict[str, Any], where: str) -> dict[str, Any]:
    """Convert a schema to the strict subset. `where` names the described type in errors.

    Raises ConfigError for free keys and values of any type, which the subset excludes.
    """
    schema = _simplified(schema)
    found: dict[str, Any] = {
        key: value for key, value in schema.items() if _is_accepted(key, value, schema)
    }
    is_nullable = {"type": "null"} in schema.get("anyOf", ())  # then null is a value of its own
    labels = {} if is_nullable else {"default": "null means the default,"}
    notes = [
        f"{labels.get(key, f'{key}:')} {_json(value)}"
        for key, value in schema.items()
        if key not in found and key not in _NOT_NOTED and value is not None
    ]
    if not found.keys() & _KEYWORDS_OF_ANY_TYPE:
        raise cannot_describe(where, "a strict schema needs a type instead of Any")
    if "anyOf" in found:
        found["anyOf"] = [strict_schema(one, where) for one in found["anyOf"]]
    if found.get("type") == "array":
        found["items"] = strict_schema(found.get("items", {}), where)
    if found.get("type") == "object":
        found |= _closed(found, where)
    if description := with_notes(schema, notes).get("description"):
        if "$ref" in found:  # the subset allows no keyword beside it
            found = {"anyOf": [found]}
        found["description"] = description
    if "$defs" in schema:
        found["$defs"] = {name: strict_schema(one, name) for name, one in schema["$defs"].items()}
    return found


def enum_schema(values: Iterable[Any]) -> dict[str, Any]:
    """The schema of an enumeration of JSON scalars."""
    by_kind: dict[str, list[Any]] = {}
    for value in values:
        by_kind.setdefault(SCALARS[type(value)], []).append(value)
    return any_of(
        {"type": kind} if kind == "null" else {"type": kind, "enum": members}
        for kind, members in by_kind.items()
    )


def with_notes(schema: dict[str, Any], notes: Iterable[str]) -> dict[str, Any]:
    """A schema with notes added to its description."""
    description, more = schema.get("description"), ", ".join(notes)
    if not more:
        return schema
    return {**schema, "description": f"{description} ({more})" if description else more}


def _simplified(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with allOf, oneOf, const and the like replaced by accepted keywords."""
    found: dict[str, Any] = {**schema}
    if len(found.get("allOf", ())) == 1:
        found = {**found.pop("allOf")[0], **found}
    if "oneOf" in found:
        found["anyOf"] = found.pop("oneOf")
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if "enum" in found and "type" not in found:
        found |= enum_schema(found.pop("enum"))
    if "prefixItems" in found:
        found.setdefault("items", any_of(found["prefixItems"]))
        if "anyOf" not in found["items"]:  # all items are of one type
            del found["prefixItems"]
    if is_list(kinds := found.get("type")):
        del found["type"]
        found["anyOf"] = [{"type": kind} for kind in kinds]
    return found


def _is_accepted(key: str, value: Any, schema: dict[str, Any]) -> bool:
    if key == "format" and value not in _FORMATS:
        return False
    if key == "pattern" and _UNSUPPORTED_PATTERN.search(value):
        return False
    return key in _KEYWORDS_OF_ANY_TYPE or key in _KEYWORDS_OF_TYPE.get(schema.get("type", ""), ())


def _closed(schema: dict[str, Any], where: str) -> dict[str, Any]:
    """The members of a strict object: every property is required, and no other is allowed."""
    if schema.get("additionalProperties") or "properties" not in schema:
        raise cannot_describe(where, "a strict schema can't have free keys: use a list of objects")
    properties: dict[str, Any] = {}
    for name, one in schema["properties"].items():
        found = strict_schema(one, f"{where}.{name}")
        if name not in schema.get("required", ()):
            about = {key: found.pop(key) for key in ("description",) if key in found}
            found = {**any_of([found, {"type": "null"}]), **about}
        properties[name] = found
    closed = {"properties": properties, "additionalProperties": False}
    return {**closed, "required": list(properties)} if properties else closed


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def is_same_json(one: Any, other: Any) -> bool:
    """Whether two values are equal in JSON, where True is not 1."""
    return one == other and isinstance(one, bool) is isinstance(other, bool)
