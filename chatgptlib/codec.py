"""One walk over type hints: dataclass to JSON, JSON to dataclass.

    body = encode(request)                      # bytes, strict
    answer = decode(SomeDataclass, json_value)  # lenient

Writing is strict: what JSON has no word for is a `ConfigError` with the path to it.
A field at None is not written. A field called `extra` is written last, key by key; a field that
is set wins over it.

Reading is lenient: unknown keys go to `extra`, values are kept as they came, null is
the field's default. Two things are errors: a required key that is missing, and a value
that is not the object (or list of objects) its hint names. Where the hint also says
`| None`, such a value goes to `extra` as it came.

What a class needs is worked out once, when the first object of it is read.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError, DeserializeError, JSONValue

T = TypeVar("T")


class JSONObject:
    """What the objects of the API share. Each is a dataclass, and a JSON object on the wire."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON object as plain dicts and lists: what was set or came, nothing else.

        Raises ConfigError for a value that JSON cannot represent.
        """
        plain: dict[str, Any] = json.loads(_dump(self, _LENIENT))
        return plain

    @classmethod
    def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
        """The object that `data` holds. Raises DeserializeError if it cannot."""
        return decode(cls, data)

    def __repr__(self) -> str:  # without the fields at None, of which a request has thirty
        cls: Any = type(self)
        shown = (
            f"{name}={value!r}"
            for name in _field_names(cls)
            if (value := getattr(self, name)) is not None and not (name == "extra" and not value)
        )
        return f"{cls.__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:  # one for all: to make each takes time at import
        if type(self) is not type(other):
            return NotImplemented
        return members(self) == members(other)


# What a user gives may hold anything, which `isinstance` alone does not tell a checker.
# A value that came as JSON is a `JSONValue`, and needs none of these.


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Any mapping, whatever its keys."""
    return isinstance(value, Mapping)


def is_dict(value: object) -> TypeGuard[dict[Any, Any]]:
    """A dict, whatever its keys."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """A list or a tuple: what JSON has an array for."""
    return isinstance(value, (list, tuple))


# Writing


def encode(value: Any) -> bytes:
    """`value` as ASCII JSON: dataclasses, mappings, sequences, enums and JSON's own types.

    Raises ConfigError, with the path, for anything else.
    """
    return _dump(value, _STRICT).encode("ascii")


def members(value: Any) -> dict[str, Any]:
    """The keys that a dataclass instance puts on the wire, values as they are: the fields that
    are set, then the keys of `extra` that no field has set."""
    cls = value.__class__
    found = {name: item for name in _field_names(cls) if (item := getattr(value, name)) is not None}
    extra = found.pop("extra", None)
    if is_mapping(extra):
        never_extra = getattr(cls, "_never_extra", ())
        for key, item in extra.items():
            if key not in found and key not in never_extra:
                found[key] = item
    elif extra is not None:
        found["extra"] = extra
    if finish := getattr(cls, "_finish_members", None):
        finish(value, found)
    return found


def object_members(value: Any) -> dict[str, Any] | None:
    """The keys of a dataclass instance or a mapping, values as they are; else None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return members(value)
    return dict(value) if is_mapping(value) else None


def as_json(value: Any) -> Any:
    """What `json` should write for a value of a type it does not know."""
    found = object_members(value)
    if found is not None:
        return found
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _as_sent(value: Any) -> Any:
    """What to write for a value in a request, where a message differs from what came."""
    own = getattr(value, "_as_sent", None)
    return as_json(value) if own is None else own()


_STRICT = json.JSONEncoder(default=_as_sent, allow_nan=False, separators=(",", ":"))
_LENIENT = json.JSONEncoder(default=as_json)  # what a server sent may hold -Infinity


def _dump(value: Any, encoder: json.JSONEncoder) -> str:
    try:
        return encoder.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error)
    try:
        path, reason = _fault(value, "$") or ("$", reason)
    except RecursionError:
        path, reason = "$", "nested too deeply, or inside itself"
    raise ConfigError(f"cannot be sent as JSON: {path}: {reason}")


def _fault(value: Any, path: str) -> tuple[str, str] | None:
    """Where `value` is not JSON, and why. The slow walk, for the message only."""
    if value is None or isinstance(value, (str, bool, int)):
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else (path, f"{value} is not a JSON number")
    if is_list(value):
        faults = (_fault(item, f"{path}[{i}]") for i, item in enumerate(value))
        return next(filter(None, faults), None)
    if is_dict(value):
        for key, item in value.items():
            if not isinstance(key, (str, int, float)) and key is not None:
                return path, f"a key of type {type(key).__name__}; JSON keys are strings"
            if fault := _fault(item, f"{path}.{key}"):
                return fault
        return None
    try:
        return _fault(as_json(value), path)
    except TypeError as error:
        return path, str(error)


@functools.cache
def _field_names(cls: Any) -> tuple[str, ...]:
    """The fields that are part of the JSON: those that the constructor takes."""
    return tuple(field.name for field in dataclasses.fields(cls) if field.init)


# Reading


def decode(into: type[T], value: Any) -> T:
    """`value`, as `json.loads` gives it, as an instance of `into`.

    `into` is a dataclass, or `dict` for the value as it is. Raises DeserializeError
    with the path to what does not fit.
    """
    read: Callable[[Any], T] = decoder(into)
    try:
        return read(dict(value) if is_mapping(value) else value)
    except RecursionError:
        raise DeserializeError("$: nested too deeply") from None


def decoder(into: Any) -> Callable[[Any], Any]:
    """The function that makes an `into` of a JSON value; made once per class."""
    into = get_origin(into) or into
    if into is dict or hasattr(into, "__required_keys__"):  # a TypedDict
        return _read_dict
    if not isinstance(into, type) or not dataclasses.is_dataclass(into):
        raise ConfigError(f"cannot decode into {into!r}: give a dataclass, a TypedDict, or dict")
    return _object_reader(into)


_Reader = Callable[[Any], Any]
_JSON_NAMES = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}


def type_mismatch(expected: str, value: Any) -> DeserializeError:
    """The error for a value of another JSON type than the expected one."""
    found = _JSON_NAMES.get(value.__class__, "number")
    return DeserializeError(f"$: expected {expected}, got {found}")


def prefixed(error: DeserializeError, step: str) -> DeserializeError:
    """The error with `step` put before its path."""
    path = "$" + step + error.path[1:]
    return DeserializeError(path + str(error)[len(error.path) :], path=path)


def _missing(cls: type, name: str) -> DeserializeError:
    return DeserializeError(f"$.{name}: missing, and {cls.__name__} needs it", path=f"$.{name}")


def _read_dict(value: JSONValue) -> Any:
    if not isinstance(value, dict):
        raise type_mismatch("object", value)
    return value


def _read_needed(read: _Reader, value: Any, step: str) -> Any:
    try:
        return read(value)
    except DeserializeError as error:
        raise prefixed(error, step) from None


def _read_wanted(read: _Reader, value: Any, name: str, extra: dict[str, Any]) -> Any:
    try:
        return read(value)
    except DeserializeError:
        extra[name] = value
        return None


def _read_list(read_item: _Reader, value: JSONValue) -> list[Any]:
    if not isinstance(value, list):
        raise type_mismatch("list", value)
    found: list[Any] = []
    try:
        for item in value:
            found.append(read_item(item))
    except DeserializeError as error:  # `len(found)` is the index of the item that failed
        raise prefixed(error, f"[{len(found)}]") from None
    return found


def _read_union(options: list[tuple[Any, _Reader | None]], value: JSONValue) -> Any:
    """Read by JSON type: an object by a dataclass of the union, a list by its list."""
    failed = None
    for kind, read in options:
        if isinstance(value, kind):
            try:
                return read(value) if read else value
            except DeserializeError as error:
                failed = error
    raise failed or type_mismatch(
        " or ".join(_JSON_NAMES[kind] for kind, read in options if read), value
    )


def _json_type(hint: Any) -> type:
    """What `json.loads` gives for a value of type `hint`: a class for `isinstance`."""
    kind = get_origin(hint) or hint
    if dataclasses.is_dataclass(kind):
        return dict
    if kind is Sequence:
        return list
    return kind if isinstance(kind, type) else object  # such as Literal


def _reader(hint: Any) -> _Reader | None:
    """The function that reads a value of type `hint`; None where it is kept as it came."""
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return lambda value: _object_reader(hint)(value)  # later: a class may hold itself
    if origin in (list, Sequence) and args and (read_item := _reader(args[0])):
        return functools.partial(_read_list, read_item)
    if origin in (Union, types.UnionType):
        kinds = [arg for arg in args if arg is not type(None)]
        if len(kinds) == 1:
            return _reader(kinds[0])
        options = [(_json_type(arg), _reader(arg)) for arg in args]
        if any(read for _, read in options):
            return functools.partial(_read_union, sorted(options, key=lambda option: not option[1]))
    return None


FILLED_DIRECTLY: set[str] = set()
"""The modules whose constructors reading skips, which is faster: they set the fields, and check
only what people write. Any other class may be frozen, or have a `__post_init__` to be run."""

WHEN_MISSING = "when_missing"
"""The key of a field's metadata for its value where the JSON lacks it, if not the default."""


@functools.cache
def _object_reader(cls: Any) -> _Reader:
    """Write and compile the reader of one dataclass, the way `dataclass` makes `__init__`.

    A loop over the fields needs fewer lines and more than twice the time (measured), and three
    objects are made for each chunk of a stream.

    `cls._never_extra` names keys to pass over. `cls._known_form(data)` gives data that has keys
    of other names in the form that has those of the fields.
    """
    hints = _hints_of(cls)
    fields = [field for field in dataclasses.fields(cls) if field.init]
    keeps_extra = "extra" in hints
    direct = getattr(cls.__init__, "__module__", None) in FILLED_DIRECTLY
    known = frozenset(field.name for field in fields) - {"extra"}
    names: dict[str, Any] = {
        "cls": cls,
        "known_form": getattr(cls, "_known_form", dict),
        "never_extra": known.union(getattr(cls, "_never_extra", ())),
        "new": object.__new__,
        "known": known,
        "type_mismatch": type_mismatch,
        "missing": _missing,
        "needed": _read_needed,
        "wanted": _read_wanted,
    }
    lines = [
        "def read(data):",
        " if not isinstance(data, dict): raise type_mismatch('object', data)",
        " self = new(cls)" if direct else " made = {}",
        " if known.issuperset(data): extra = {}",
        " else:",
        "  data = known_form(data)",
        "  extra = {key: data[key] for key in data if key not in never_extra}",
        " get = data.get",
    ]
    for field in fields:
        name = field.name
        names[f"default_{name}"], default = _default(field)
        if name == "extra":
            code = "extra"
        else:
            if not default:
                lines.append(f" if {name!r} not in data: raise missing(cls, {name!r})")
            code = _field_code(name, default, hints[name], names, keeps_extra)
        lines.append(f" self.{name} = {code}" if direct else f" made[{name!r}] = {code}")
    lines.append(" return self" if direct else " return cls(**made)")
    exec("\n".join(lines), names)  # all that is filled in is names of fields
    read: _Reader = names["read"]
    return read


def _hints_of(cls: Any) -> dict[str, Any]:
    try:
        # A class that is defined in a function may still hold itself.
        return get_type_hints(cls, localns={cls.__name__: cls})
    except (NameError, TypeError, SyntaxError, AttributeError) as error:
        raise ConfigError(f"cannot decode into {cls!r}: its type hints: {error}") from None


def _default(field: dataclasses.Field[Any]) -> tuple[Any, str]:
    """What a missing field is, and the code that gives it; no code if it may not be missing."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory, f"default_{field.name}()"
    default = field.metadata.get(WHEN_MISSING, field.default)
    if default is dataclasses.MISSING:
        return None, ""
    return default, "None" if default is None else f"default_{field.name}"


def _field_code(
    name: str, default: str, hint: Any, names: dict[str, Any], keeps_extra: bool
) -> str:
    """The code that reads one field: missing, null, read as its hint says, or as it came."""
    optional = type(None) in get_args(hint)
    names[f"read_{name}"] = reader = _reader(hint)
    if not reader and default in ("", "None"):
        return f"get({name!r})"
    if not optional and not default:
        return f"needed(read_{name}, get({name!r}), '.{name}')"
    read = "value"
    if reader and optional and keeps_extra:
        read = f"wanted(read_{name}, value, {name!r}, extra)"
    elif reader:
        read = f"needed(read_{name}, value, '.{name}')"
    null = default
    if optional:
        null = "None" if default in ("", "None") else f"(None if {name!r} in data else {default})"
    return f"{null} if (value := get({name!r})) is None else {read}"
