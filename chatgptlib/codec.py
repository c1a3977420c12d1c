"""Converts dataclasses to JSON and JSON to dataclasses, by their type hints.

    body = encode(request)                     # bytes, strict
    reply = decode(SomeDataclass, json_value)  # lenient

Writing is strict: a value that JSON cannot represent is a `ConfigError` with its path.
A field at None is left out. The keys of a field called `extra` are written last, each unless
a field of that name is set.

Reading is lenient: unknown keys go to `extra`, values are not converted or checked, and null
means the default of the field. There are two errors: a required key is missing, or a value is
not the object, or list of objects, that the hint requires. If the hint also allows None and the
class has a field `extra`, such a value goes there instead.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError, DeserializeError, JSONValue

T = TypeVar("T")


class JSONObject:
    """The base class of the API's objects: dataclasses that are sent and received as JSON."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object as plain dicts and lists, without the fields at None.

        Raises ConfigError for a value that JSON cannot represent.
        """
        plain: dict[str, Any] = json.loads(_dump(self, _LENIENT))
        return plain

    @classmethod
    def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
        """Read the object from its JSON. Raises DeserializeError for JSON of another form."""
        return decode(cls, data)

    def __repr__(self) -> str:  # leaves out the fields at None: a request has thirty of them
        cls: Any = type(self)
        shown = (
            f"{name}={value!r}"
            for name in _field_names(cls)
            if (value := getattr(self, name)) is not None and not (name == "extra" and not value)
        )
        return f"{cls.__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:  # not made by `dataclass`, which takes time at import
        if type(self) is not type(other):
            return NotImplemented
        return members(self) == members(other)


# Type guards for values from users. `isinstance` alone would leave the type of the items
# unknown to a type checker. A value from JSON is a `JSONValue` and needs no guard.


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


def is_dict(value: object) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Whether `value` is a list or a tuple: both are arrays in JSON."""
    return isinstance(value, (list, tuple))


# Writing


def encode(value: Any) -> bytes:
    """Write `value` as JSON in ASCII.

    It may consist of dataclasses, mappings, lists, tuples, enums and JSON's own types. Raises
    ConfigError with the path of any other value.
    """
    return _dump(value, _STRICT).encode("ascii")


def members(value: Any) -> dict[str, Any]:
    """The JSON members of a dataclass instance, with values that are not converted yet: the
    fields that are not None, then the keys of `extra` that no field has set."""
    cls = value.__class__
    found = {name: item for name in _field_names(cls) if (item := getattr(value, name)) is not None}
    extra = found.pop("extra", None)
    if is_mapping(extra):
        dropped = getattr(cls, "_dropped_keys", ())
        found |= {key: extra[key] for key in extra if key not in found and key not in dropped}
    elif extra is not None:
        found["extra"] = extra
    if finish := getattr(cls, "_finish_members", None):
        finish(value, found)
    return found


def object_members(value: Any) -> dict[str, Any] | None:
    """The JSON members of a dataclass instance or a mapping; None for any other value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return members(value)
    return dict(value) if is_mapping(value) else None


def as_json(value: Any) -> Any:
    """Convert a value for `json`, which calls this for each type that it does not know."""
    found = object_members(value)
    if found is not None:
        return found
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _as_sent(value: Any) -> Any:
    """Like `as_json`, for a request: a class may define `_as_sent` to differ from `to_dict`."""
    own = getattr(value, "_as_sent", None)
    return as_json(value) if own is None else own()


_STRICT = json.JSONEncoder(default=_as_sent, allow_nan=False, separators=(",", ":"))
_LENIENT = json.JSONEncoder(default=as_json)  # allows NaN and Infinity, which servers send


def _dump(value: Any, encoder: json.JSONEncoder) -> str:
    try:
        return encoder.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        fault: Exception = error
    try:
        path, fault = _find_fault(value, "$", fault, encoder)
    except RecursionError:
        path, fault = "$", ValueError("nested too deeply, or inside itself")
    raise ConfigError(f"cannot be written as JSON: {path}: {fault}")


def _find_fault(
    value: Any, path: str, fault: Exception, encoder: json.JSONEncoder
) -> tuple[str, Exception]:
    """The path of the first value that is not JSON, and the exception for it."""
    members = object_members(value)
    if members is None:
        places = [(f"{path}[{i}]", item) for i, item in enumerate(value if is_list(value) else ())]
    else:
        places = [(f"{path}.{key}", item) for key, item in members.items()]
    for place, item in places:
        try:
            encoder.encode(item)
        except (TypeError, ValueError) as error:
            return _find_fault(item, place, error, encoder)
    return path, fault


@functools.cache
def _field_names(cls: Any) -> tuple[str, ...]:
    """The fields that the constructor takes: only these are part of the JSON."""
    return tuple(field.name for field in dataclasses.fields(cls) if field.init)


# Reading


def decode(into: type[T], value: Any) -> T:
    """Read a JSON value, as `json.loads` returns it, into a class.

    `into` is a dataclass, a TypedDict, or `dict`; the last two return the value as it is.
    Raises DeserializeError with the path of the value that does not fit.
    """
    read: Callable[[Any], T] = decoder(into)
    try:
        return read(dict(value) if is_mapping(value) else value)
    except RecursionError:
        raise DeserializeError("$: nested too deeply") from None


def decoder(into: Any) -> Callable[[Any], Any]:
    """The function that reads a JSON value into `into`. Raises ConfigError for another type."""
    into = get_origin(into) or into
    if into is dict or hasattr(into, "__required_keys__"):  # a TypedDict
        return _read_dict
    if not isinstance(into, type) or not dataclasses.is_dataclass(into):
        raise ConfigError(f"cannot decode into {into!r}: give a dataclass, a TypedDict, or dict")
    return _object_reader(into)


_Reader = Callable[[Any], Any]
_JSON_NAMES = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}


def type_mismatch(expected: str, value: Any) -> DeserializeError:
    """The error for a value that is not of the expected JSON type."""
    found = _JSON_NAMES.get(value.__class__, "number")
    return DeserializeError(f"$: expected {expected}, got {found}")


def prefixed(error: DeserializeError, step: str) -> DeserializeError:
    """The error with `step` added at the front of its path."""
    path = "$" + step + error.path[1:]
    return DeserializeError(path + str(error)[len(error.path) :], path=path)


def _missing(cls: type, name: str) -> DeserializeError:
    return DeserializeError(f"$.{name}: missing, and {cls.__name__} needs it", path=f"$.{name}")


def _read_dict(value: JSONValue) -> Any:
    if not isinstance(value, dict):
        raise type_mismatch("object", value)
    return value


def _read_strictly(read: _Reader, value: Any, step: str) -> Any:
    """Read a field. An error gets the path of the field."""
    try:
        return read(value)
    except DeserializeError as error:
        raise prefixed(error, step) from None


def _read_or_keep(read: _Reader, value: Any, name: str, extra: dict[str, Any]) -> Any:
    """Read a field; a value that does not fit goes to `extra` as it is."""
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
    """Read a value of a union by the first option that fits; a plain type keeps the value."""
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
    """The type that `json.loads` returns for a hint, for use with `isinstance`."""
    kind = get_origin(hint) or hint
    if dataclasses.is_dataclass(kind):
        return dict
    if kind is Sequence:
        return list
    return kind if isinstance(kind, type) else object  # such as Literal


def _reader(hint: Any) -> _Reader | None:
    """The function that reads a value with this hint; None if the value is kept as it is."""
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        # Not called before a value is read, since a class may have fields of its own type.
        return lambda value: _object_reader(hint)(value)
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
"""The modules whose classes are read without a call of `__init__`, which is faster. Other classes
may be frozen, or may have a `__post_init__` that has to run."""

WHEN_MISSING = "when_missing"
"""In a field's metadata: the value to use if the key is missing, in place of the default."""


@functools.cache
def _object_reader(cls: Any) -> _Reader:
    """Generate the function that reads a dataclass, as `dataclass` generates `__init__`.

    A loop over the fields takes twice the time, and each chunk of a stream is three objects.

    The function `_normalize` of a class, if any, turns JSON with unknown keys into the API's form.
    Its `_dropped_keys`, if any, are keys of `extra` that are not written.
    """
    hints = _hints_of(cls)
    fields = [field for field in dataclasses.fields(cls) if field.init]
    has_extra = "extra" in hints
    filled_directly = getattr(cls.__init__, "__module__", None) in FILLED_DIRECTLY
    known = frozenset(field.name for field in fields) - {"extra"}
    names: dict[str, Any] = {
        "cls": cls,
        "normalize": getattr(cls, "_normalize", dict),
        "new": object.__new__,
        "known": known,
        "type_mismatch": type_mismatch,
        "missing": _missing,
        "strictly": _read_strictly,
        "or_keep": _read_or_keep,
    }
    lines = [
        "def read(data):",
        " if not isinstance(data, dict): raise type_mismatch('object', data)",
        " self = new(cls)" if filled_directly else " made = {}",
        " if known.issuperset(data): extra = {}",
        " else:",
        "  data = normalize(data)",
        "  extra = {key: data[key] for key in data if key not in known}",
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
            code = _field_code(name, default, hints[name], names, has_extra)
        lines.append(f" self.{name} = {code}" if filled_directly else f" made[{name!r}] = {code}")
    lines.append(" return self" if filled_directly else " return cls(**made)")
    exec("\n".join(lines), names)  # safe: only names of fields are filled in
    read: _Reader = names["read"]
    return read


def _hints_of(cls: Any) -> dict[str, Any]:
    try:
        return get_type_hints(cls, localns=names_in(cls))
    except (NameError, TypeError, SyntaxError, AttributeError) as error:
        raise ConfigError(f"cannot decode into {cls!r}: its type hints: {error}") from None


def names_in(cls: Any) -> dict[str, Any]:
    """The names that the hints of a class may use and that its module may lack: itself, if it is
    defined in a function, and its type parameters, before Python 3.13."""
    parameters: Any = getattr(cls, "__type_params__", ())
    return {cls.__name__: cls} | {parameter.__name__: parameter for parameter in parameters}


def _default(field: dataclasses.Field[Any]) -> tuple[Any, str]:
    """The default of a field, or its factory, and the code that returns the default.

    The code is empty if the field is required.
    """
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory, f"default_{field.name}()"
    default = field.metadata.get(WHEN_MISSING, field.default)
    if default is dataclasses.MISSING:
        return None, ""
    return default, "None" if default is None else f"default_{field.name}"


def _field_code(name: str, default: str, hint: Any, names: dict[str, Any], has_extra: bool) -> str:
    """The code that reads one field, also if its value is missing or null."""
    optional = type(None) in get_args(hint)
    names[f"read_{name}"] = reader = _reader(hint)
    if not reader and default in ("", "None"):
        return f"get({name!r})"
    if not optional and not default:
        return f"strictly(read_{name}, get({name!r}), '.{name}')"
    read = "value"
    if reader and optional and has_extra:
        read = f"or_keep(read_{name}, value, {name!r}, extra)"
    elif reader:
        read = f"strictly(read_{name}, value, '.{name}')"
    return f"{default or None} if (value := get({name!r})) is None else {read}"
