"""The JSON form of a type's values: a schema, and a reader.

The codec reads what servers send, leniently. This module reads what a model wrote, and is
strict: it checks every value and accepts no unknown key.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from ..codec import is_dict, is_list, prefixed, type_mismatch
from ..errors import DeserializeError, JSONValue, excerpt
from ..replies import parsed
from .formats import Limit, StringFormat, format_of
from .strict import SCALARS, any_of, cannot_describe, enum_schema, is_same_json, with_notes

Seen = dict[tuple[int, int], tuple[JSONValue, Any, DeserializeError | None]]
"""The results of reading a list or an object by a shape, by the ids of shape and value. It also
keeps the value, since an id may be used again. Without it, nested unions would read a subtree
once for every combination of options."""


@dataclass(eq=False)
class Shape:
    """The JSON form of a type's values.

    `convert` turns a JSON value into a Python value, or raises DeserializeError. `is_exactly`
    says whether a value is of this type without conversion. `match_score` is a score, to choose
    which error of a union to report.
    """

    name: str  # in messages
    bare_schema: dict[str, Any]  # not limited to strict keywords
    convert: Callable[[Any, Seen], Any]
    is_exactly: Callable[[Any], bool] = lambda value: False
    match_score: Callable[[Any], int] = lambda value: 0
    is_discriminator: bool = False  # a few fixed values, which identify the option of a union
    notes: Sequence[str] = ()  # of limits, for which the schema has no keyword

    @property
    def schema(self) -> dict[str, Any]:
        return with_notes(self.bare_schema, self.notes)

    def read(self, value: JSONValue, seen: Seen | None = None) -> Any:
        """Convert a JSON value. `seen` holds the values that were read before in the same
        answer. Raises DeserializeError."""
        seen = {} if seen is None else seen
        if not isinstance(value, (dict, list)):
            return self.convert(value, seen)
        key = id(self), id(value)
        if key not in seen:
            try:
                seen[key] = value, self.convert(value, seen), None
            except DeserializeError as error:
                seen[key] = value, None, error
        _, found, mismatch = seen[key]
        if mismatch is not None:
            raise mismatch.with_traceback(None)
        return found


@dataclass(frozen=True)
class Property:
    """A property of an object: a field, or a parameter of a function."""

    name: str
    shape: Shape
    required: bool = True
    default: Any = None  # None also for a default_factory
    note: str = ""

    @property
    def schema(self) -> dict[str, Any]:
        """The schema of the shape, with description and default."""
        about = {"description": self.note} if self.note else {}
        found = with_notes({**about, **self.shape.bare_schema}, self.shape.notes)
        default = _short_form(self.default)
        return found if default is None else {**found, "default": default}


def _short_form(default: Any) -> Any:
    """A default as a JSON scalar; None if it is null or not a scalar."""
    if isinstance(default, Enum):
        return _short_form(default.value)
    if type(default) is float and not math.isfinite(default):
        return None
    if known := format_of(default):
        return known.write(default)
    return default if isinstance(default, (str, int, float)) else None


# Scalars


def scalar(kind: type) -> Shape:
    name = SCALARS[kind]

    def convert(value: Any, seen: Seen) -> Any:
        if type(value) is float and not math.isfinite(value):
            raise DeserializeError(f"$: expected {name}, got {value}")
        if type(value) is kind:
            return value
        if kind is float and type(value) is int and abs(value) < 1 << 1023:
            return float(value)
        if kind is int and type(value) is float and value.is_integer():
            return int(value)  # models may write 3.0 for 3
        raise type_mismatch(name, value)

    return Shape(name, {"type": name}, convert, lambda value: type(value) is kind)


def anything() -> Shape:
    return Shape("value", {}, lambda value, seen: value, lambda value: True)


def formatted_string(kind: StringFormat) -> Shape:
    """The shape of a type whose values are text in JSON, such as dates."""

    def convert(value: Any, seen: Seen) -> Any:
        is_rounded = type(value) is float and float(f"{value:.15g}") != value  # over 15 digits
        if type(value) not in kind.json_types or is_rounded:
            raise type_mismatch(kind.name, value)
        try:
            return kind.read(str(value))
        except (ValueError, ArithmeticError):
            shown = excerpt(str(value))
            raise DeserializeError(f"$: expected {kind.name}, got {shown!r}") from None

    def is_exactly(value: Any) -> bool:
        try:
            convert(value, {})
        except DeserializeError:
            return False
        # fromisoformat() accepts a date as midnight, but in datetime | date a date must stay one.
        is_only_date = kind.name == "date-time" and len(value) <= len("2024-01-01")
        return type(value) is str and not is_only_date

    return Shape(kind.name, {"type": "string", **kind.schema}, convert, is_exactly)


def enumeration(where: str, values: Iterable[tuple[Any, Any]]) -> Shape:
    """The shape of fixed values: pairs of a JSON scalar and the value it stands for."""
    pairs = list(values)
    for known, _ in pairs:
        if type(known) not in SCALARS:
            raise cannot_describe(where, f"{known!r} is not a JSON scalar")
    if not pairs:
        raise cannot_describe(where, "it has no members")
    name = f"one of {', '.join(json.dumps(known) for known, _ in pairs)}"

    def convert(value: Any, seen: Seen) -> Any:
        for known, one in pairs:
            if is_same_json(known, value):
                return one
        if type(value) in SCALARS:
            raise DeserializeError(f"$: expected {name}, got {excerpt(json.dumps(value))}")
        raise type_mismatch(name, value)

    def is_exactly(value: Any) -> bool:
        return any(is_same_json(known, value) for known, _ in pairs)

    schema = enum_schema(known for known, _ in pairs)
    return Shape(name, schema, convert, is_exactly, is_discriminator=True)


# Lists and objects


def _opened(value: Any, name: str) -> Any:
    """A list or an object, which some models write as a string that holds JSON."""
    kind: type[Any] = list if name == "list" else dict
    inner: Any = parsed(value)[0] if isinstance(value, str) else value
    if not isinstance(inner, kind):
        raise type_mismatch(name, value)
    return inner


def _read_at(step: str, shape: Shape, value: JSONValue, seen: Seen) -> Any:
    try:
        return shape.read(value, seen)
    except DeserializeError as error:
        raise prefixed(error, step) from error.__cause__


def array(item: Shape, make: Callable[[list[Any]], Any]) -> Shape:
    def convert(value: Any, seen: Seen) -> Any:
        items = [
            _read_at(f"[{i}]", item, one, seen) for i, one in enumerate(_opened(value, "list"))
        ]
        try:
            return make(items)
        except TypeError as error:  # an item that is not hashable
            raise DeserializeError(f"$: {error}") from None

    unique = {"uniqueItems": True} if make in (set, frozenset) else {}
    return Shape("list", {"type": "array", "items": item.schema, **unique}, convert)


def fixed_tuple(items: list[Shape]) -> Shape:
    count = len(items)

    def convert(value: Any, seen: Seen) -> Any:
        values = _opened(value, "list")
        if len(values) != count:
            raise DeserializeError(f"$: expected {count} items, got {len(values)}")
        pairs = enumerate(zip(items, values, strict=True))
        return tuple(_read_at(f"[{i}]", shape, one, seen) for i, (shape, one) in pairs)

    schemas = [item.schema for item in items]
    schema = {"type": "array", "prefixItems": schemas, "minItems": count, "maxItems": count}
    return Shape("list", {**schema, "items": any_of(schemas)} if items else schema, convert)


def dictionary(item: Shape) -> Shape:
    def convert(value: Any, seen: Seen) -> Any:
        found = _opened(value, "object").items()
        return {key: _read_at(f".{key}", item, one, seen) for key, one in found}

    return Shape("object", {"type": "object", "additionalProperties": item.schema}, convert)


def object_shape(
    properties: Mapping[str, Property], make: Callable[..., Any], schema: dict[str, Any]
) -> Shape:
    """The shape of an object with known properties; `make` is called with those present.

    `properties` may be filled later, since a class may refer to itself.
    """

    def given_in(value: dict[str, Any]) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for name, one in properties.items():
            nullable = one.shape.is_exactly(None)
            if name in value and (value[name] is not None or nullable or one.required):
                given[name] = value[name]  # otherwise null stands for the default
            elif one.required and nullable:
                given[name] = None  # a server may not enforce the schema
            elif one.required:
                raise DeserializeError(f"$.{name}: missing", path=f"$.{name}")
        return given

    def convert(value: Any, seen: Seen) -> Any:
        value = _opened(value, "object")
        for key in value:
            if key not in properties:
                raise DeserializeError(f"$.{key}: unknown key", path=f"$.{key}")
        given = given_in(value)
        found = {
            name: _read_at(f".{name}", properties[name].shape, given[name], seen)
            # Discriminators first: a wrong one explains every other error.
            for name in sorted(given, key=lambda name: not properties[name].shape.is_discriminator)
        }
        try:
            return make(**found)
        except Exception as error:  # a check in the constructor
            raise DeserializeError(f"$: {shown_error(error)}") from error

    def match_score(value: Any) -> int:
        if not is_dict(value):
            return 0
        right = sum(
            one.shape.is_discriminator and one.shape.is_exactly(value.get(name))
            for name, one in properties.items()
        )
        known = len(properties.keys() & value.keys())
        unknown = len(value) - known
        return 100 * right + known - unknown  # keys alone only suggest an option

    return Shape("object", schema, convert, match_score=match_score)


def shown_error(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # a faulty __str__
        return type(error).__name__


def object_schema(properties: Mapping[str, Property], about: str = "") -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", **({"description": about} if about else {})}
    schema["properties"] = {name: one.schema for name, one in properties.items()}
    required = [name for name, one in properties.items() if one.required]
    if required:
        schema["required"] = required
    return {**schema, "additionalProperties": False}


# Shapes made of others


def union(options: Sequence[Shape]) -> Shape:
    name = " or ".join(dict.fromkeys(option.name for option in options))

    def convert(value: Any, seen: Seen) -> Any:
        mismatches: list[tuple[int, int, DeserializeError]] = []
        # Exact types first, so that float | int keeps 3 an int.
        for option in sorted(options, key=lambda option: not option.is_exactly(value)):
            try:
                return option.read(value, seen)
            except DeserializeError as error:
                depth = len(re.findall(r"[.\[]", error.path))
                mismatches.append((option.match_score(value), depth, error))
        _, depth, nearest = max(mismatches, key=lambda mismatch: mismatch[:2])
        # An error inside the value, or from a constructor, says more than "expected A or B".
        if depth or nearest.__cause__:
            raise nearest
        raise type_mismatch(name, value)

    def is_exactly(value: Any) -> bool:
        return any(option.is_exactly(value) for option in options)

    schema = any_of(option.schema for option in options)
    return Shape(name, schema, convert, is_exactly)


_LENGTHS = {"array": "Items", "object": "Properties"}  # replaces Length in minLength


def annotated(shape: Shape, note: str, limits: list[Limit]) -> Shape:
    """A shape with a description, and limits on its values."""
    schema: dict[str, Any] = {**shape.bare_schema, **({"description": note} if note else {})}
    notes = [*shape.notes]
    # The limit holds for the converted value, not for its JSON text, so it is only described.
    is_converted = bool(schema.keys() & {"format", "contentEncoding"})
    kinds = {option.get("type") for option in schema.get("anyOf", [schema])}
    length = next((_LENGTHS[kind] for kind in _LENGTHS if kind in kinds), "Length")
    for limit in limits:
        bound: Any = getattr(limit.bound, "pattern", limit.bound)  # of a compiled pattern, its text
        known = format_of(bound)
        if known or is_converted:
            notes.append(f"{limit.keyword}: {known.write(bound) if known else bound}")
        else:
            schema[limit.keyword.replace("Length", length)] = bound

    def convert(value: Any, seen: Seen) -> Any:
        found = shape.read(value, seen)
        for limit in limits:
            if found is not None and not limit.holds(found):
                words = f"expected {limit.keyword} {limit.bound}, got {excerpt(str(found))}"
                raise DeserializeError(f"$: {words}")
        return found

    return replace(shape, bare_schema=schema, notes=notes, convert=convert)


# Pydantic


def pydantic_methods(model: Any) -> tuple[Callable[[], Any], Callable[[str], Any]]:
    """The functions by which a type of Pydantic's describes itself and reads JSON text."""
    if hasattr(model, "model_json_schema") and not hasattr(model, "__metadata__"):
        return model.model_json_schema, model.model_validate_json
    from importlib import import_module

    adapter = import_module("pydantic").TypeAdapter(model)
    return adapter.json_schema, adapter.validate_json


def pydantic_shape(schema: dict[str, Any], validate: Callable[[str], Any]) -> Shape:
    def convert(value: Any, seen: Seen) -> Any:
        try:
            return validate(json.dumps(value))
        except ValueError as error:
            inner = parsed(value)[0] if isinstance(value, str) else None
            if isinstance(inner, (list, dict)):
                return convert(inner, seen)
            errors: list[dict[str, Any]] = getattr(error, "errors", list)()
            if _leave_out_nulls(value := json.loads(json.dumps(value)), errors):
                return convert(value, seen)
            first = errors[0] if errors else {}
            steps = (f"[{s}]" if type(s) is int else f".{s}" for s in first.get("loc", ()))
            path = "$" + "".join(steps)
            words = first.get("msg") or str(error).partition("\n")[0]
            raise DeserializeError(f"{path}: {words}", path=path) from error

    is_nullable = {"type": "null"} in schema.get("anyOf", ())
    return Shape("object", schema, convert, lambda value: value is None and is_nullable)


def _leave_out_nulls(value: Any, errors: Iterable[Mapping[str, Any]]) -> bool:
    """Delete the nulls that Pydantic rejected, which stand for defaults in a strict answer.
    Returns whether there were any."""
    found = False
    for *steps, last in (e["loc"] for e in errors if e["loc"] and e.get("input", "") is None):
        at: Any = value
        for step in steps:  # a step may also name an option of a union
            if (is_dict(at) and step in at) or (is_list(at) and step in range(len(at))):
                at = at[step]
        if is_dict(at) and at.get(last, "") is None:
            del at[last]
            found = True
    return found
