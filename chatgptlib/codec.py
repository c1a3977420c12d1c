"""One walk over type hints: dataclass to JSON, JSON to dataclass.

    body = encode(request)                      # bytes, strict
    answer = decode(SomeDataclass, json_value)  # lenient

Writing is strict: what JSON has no word for is a `ConfigError` with the path to it.
A field at None is not written, and a field called `extra` is written last, key by key.

Reading is lenient: unknown keys go to `extra`, values are kept as they came, null is
the field's default. Two things are errors: a required key that is missing, and a value
that is not the object (or list of objects) its hint names. Where the hint also says
`| None`, such a value goes to `extra` as it came.

What a class needs is worked out once, when it is first met.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import (
    TYPE_CHECKING,
    Any,
    TypeGuard,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from .errors import ConfigError, DeserializeError, JSONValue

T = TypeVar("T")


if not TYPE_CHECKING:  # checkers know it as `dataclass`: messages.py
    noun = functools.partial(dataclasses.dataclass, init=False, repr=False, eq=False)
    """`dataclass` for a JSONObject, which has what this leaves out: to write two dozen
    `__init__`s took longer than all the rest of the import."""

new_dict: Callable[[], dict[str, Any]] = cast(Any, dict)
"""`dict` itself, as a `default_factory`. Checkers can't tell what a bare `dict` is to hold,
and `dict[str, Any]` takes seven times as long to call."""


class _Signature:
    """The signature of a class, for `help()`; made when it is asked for."""

    def __get__(self, instance: object, cls: Any) -> Any:
        from inspect import Parameter, Signature

        if not dataclasses.is_dataclass(cls):  # JSONObject itself
            raise AttributeError("__signature__")
        parameters = [
            Parameter(
                field.name,
                Parameter.KEYWORD_ONLY if field.kw_only else Parameter.POSITIONAL_OR_KEYWORD,
                default=_shown_default(field),
                annotation=field.type,
            )
            for field in dataclasses.fields(cls)
            if field.init
        ]
        return Signature(parameters)


def _shown_default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    from inspect import Parameter

    return Parameter.empty if field.default is dataclasses.MISSING else field.default


class JSONObject:
    """What the nouns share: a dataclass that is a JSON object on the wire."""

    __slots__ = ()

    if not TYPE_CHECKING:  # checkers know it as `dataclass` makes it

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made = f"{type(self).__name__}.__init__()"
            fields = dataclasses.fields(self)
            places = (field.name for field in fields if field.init and not field.kw_only)
            given = dict(zip(places, args, strict=False))
            if len(given) < len(args):
                raise TypeError(f"{made} takes {len(given)} positional arguments, not {len(args)}")
            for name in given.keys() & kwargs.keys():
                raise TypeError(f"{made} got multiple values for argument {name!r}")
            given.update(kwargs)
            for field in fields:
                name = field.name
                if field.init and name in given:
                    value = given.pop(name)
                elif field.default_factory is not dataclasses.MISSING:
                    value = field.default_factory()
                elif field.default is not dataclasses.MISSING:
                    value = field.default
                else:
                    raise TypeError(f"{made} missing a required argument: {name!r}")
                setattr(self, name, value)
            for name in given:
                raise TypeError(f"{made} got an unexpected keyword argument {name!r}")

        __signature__ = _Signature()

    def to_dict(self) -> dict[str, Any]:
        """The JSON object as plain dicts and lists: what was set or came, nothing else.

        Raises ConfigError for a value that JSON has no word for.
        """
        plain: dict[str, Any] = json.loads(_dump(self, _LENIENT))
        return plain

    @classmethod
    def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
        """The object that `data` holds. Raises DeserializeError if it cannot."""
        return decode(cls, data)

    # One for all classes, in place of one that `dataclass` writes for each. And a repr
    # without its thirty `None`s can be read.
    def __repr__(self) -> str:
        shown = (
            f"{name}={value!r}"
            for name in _field_names(type(self))
            if (value := getattr(self, name)) is not None and not (name == "extra" and not value)
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        names = _field_names(type(self))
        return all(getattr(self, name) == getattr(other, name) for name in names)


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
    """The keys a dataclass instance puts on the wire, values as they are."""
    own = getattr(value, "_members", None)
    if own is not None:
        result: dict[str, Any] = own()
        return result
    return plain_members(value)


def plain_members(value: Any) -> dict[str, Any]:
    """The fields of a dataclass instance that are set, then its `extra`."""
    found = {
        name: item
        for name in _field_names(type(value))
        if (item := getattr(value, name)) is not None
    }
    extra = found.pop("extra", None)
    if is_mapping(extra):
        found.update(extra)
    elif extra is not None:
        found["extra"] = extra
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


_STRICT = json.JSONEncoder(default=as_json, allow_nan=False, separators=(",", ":"))
_LENIENT = json.JSONEncoder(default=as_json)  # what a server sent may hold -Infinity


def _dump(value: Any, encoder: json.JSONEncoder) -> str:
    try:
        return encoder.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        try:
            path, reason = _fault(value, "$") or ("$", str(error))
        except RecursionError:
            path, reason = "$", "nested too deeply, or inside itself"
    raise ConfigError(f"cannot be sent as JSON: {path}: {reason}")


def _fault(value: Any, path: str) -> tuple[str, str] | None:
    """Where `value` is not JSON, and why. The slow walk, for the message only."""
    if value is None or isinstance(value, (str, bool, int)):
        return None
    if isinstance(value, float):
        finite = value == value and value not in (float("inf"), float("-inf"))
        return None if finite else (path, f"{value} is not a JSON number")
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


_NAMES_OF: dict[type, tuple[str, ...]] = {}


def _field_names(cls: Any) -> tuple[str, ...]:
    """The fields that are part of the JSON: not those that the constructor does not take."""
    names = _NAMES_OF.get(cls)
    if names is None:
        names = tuple(field.name for field in dataclasses.fields(cls) if field.init)
        _NAMES_OF[cls] = names
    return names


# Reading


def decode(into: type[T], value: Any) -> T:
    """`value`, as `json.loads` gives it, as an instance of `into`.

    `into` is a dataclass, or `dict` for the value as it is. Raises DeserializeError
    with the path to what does not fit.
    """
    read: Callable[[Any], T] = decoder(into)
    return read(dict(value) if is_mapping(value) else value)


_READER_OF: dict[type, Callable[[Any], Any]] = {}


def decoder(into: Any) -> Callable[[Any], Any]:
    """The function that makes an `into` of a JSON value; made once per class."""
    into = get_origin(into) or into
    if into is dict or hasattr(into, "__required_keys__"):  # a TypedDict
        return _read_dict
    if not isinstance(into, type) or not dataclasses.is_dataclass(into):
        raise ConfigError(f"cannot decode into {into!r}: give a dataclass, a TypedDict, or dict")
    reader = _READER_OF.get(into)
    if reader is None:
        reader = _READER_OF[into] = _object_reader(into)
    return reader


_Reader = Callable[[Any], Any]
_JSON_NAMES: dict[type, str] = {
    dict: "object",
    list: "list",
    str: "string",
    bool: "boolean",
    type(None): "null",
}


def misfit(expected: str, value: object) -> DeserializeError:
    found = _JSON_NAMES.get(type(value), "number")
    return DeserializeError(f"$: expected {expected}, got {found}")


def _missing(cls: type, name: str) -> DeserializeError:
    return DeserializeError(f"$.{name}: missing, and {cls.__name__} needs it", path=f"$.{name}")


def under(error: DeserializeError, step: str) -> DeserializeError:
    """The same error, seen from one level further out."""
    path = "$" + step + error.path[1:]
    return DeserializeError(path + str(error)[len(error.path) :], path=path)


def _read_dict(value: JSONValue) -> Any:
    if not isinstance(value, dict):
        raise misfit("object", value)
    return value


def _is_noun(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _reader(hint: Any) -> _Reader | None:
    """The function that reads a value of type `hint`; None where it is kept as it came."""
    args = get_args(hint)
    if _is_noun(hint):
        return _made_at_first_use(hint)
    if get_origin(hint) in (list, Sequence) and args and (item := _reader(args[0])):
        return functools.partial(_read_list, item)
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [arg for arg in args if arg is not type(None)]
        if len(kinds) == 1:
            return _reader(kinds[0])
        members = [(get_origin(arg) or arg, _reader(arg)) for arg in args]
        if any(reader for _, reader in members):
            return _union_reader(members)
    return None


def _made_at_first_use(cls: type) -> _Reader:
    """The reader of a class, made when its first object comes, which for most never does."""
    reader: _Reader | None = None

    def read(value: Any) -> Any:
        nonlocal reader
        if reader is None:
            reader = decoder(cls)
        return reader(value)

    return read


def _read_needed(read: _Reader, value: Any, step: str) -> Any:
    try:
        return read(value)
    except DeserializeError as error:
        raise under(error, step) from None


def _read_wanted(read: _Reader, value: Any, name: str, extra: dict[str, Any]) -> Any:
    try:
        return read(value)
    except DeserializeError:
        extra[name] = value
        return None


def _read_list(item: _Reader, value: JSONValue) -> list[Any]:
    if not isinstance(value, list):
        raise misfit("list", value)
    found: list[Any] = []
    try:
        for one in value:
            found.append(item(one))  # how many went well is the place of one that does not
    except DeserializeError as error:
        raise under(error, f"[{len(found)}]") from None
    return found


def _union_reader(members: list[tuple[Any, _Reader | None]]) -> _Reader:
    """Reads by JSON type: an object by the dataclass of the union, a list by its list."""
    structured = [
        (list if kind in (list, Sequence) else dict, reader) for kind, reader in members if reader
    ]
    plain = tuple(kind for kind, reader in members if not reader and isinstance(kind, type))

    def read(value: JSONValue) -> Any:
        last: DeserializeError | None = None
        for kind, reader in structured:
            if isinstance(value, kind):
                try:
                    return reader(value)
                except DeserializeError as error:
                    last = error
        if isinstance(value, plain):
            return value
        raise last or misfit(" or ".join(_JSON_NAMES[kind] for kind, _ in structured), value)

    return read


def _object_reader(cls: Any) -> _Reader:
    """Write and compile the reader of one dataclass, the way `dataclass` makes `__init__`.

    A loop over the fields would say the same in fewer lines and take half as long again
    per object, and three objects are made for each chunk of a stream.
    """
    try:
        # A class that is defined in a function may still hold itself.
        hints = get_type_hints(cls, localns={cls.__name__: cls})
    except (NameError, TypeError, SyntaxError, AttributeError) as error:
        raise ConfigError(f"cannot decode into {cls!r}: its type hints: {error}") from None
    fields = dataclasses.fields(cls)
    keeps_extra = "extra" in hints
    # The nouns are filled in directly. A class of the user's goes through its
    # constructor, since it may be frozen, or check itself.
    ours = cls.__init__ is JSONObject.__init__
    names: dict[str, Any] = {
        "cls": cls,
        "new": object.__new__,
        "known": frozenset(field.name for field in fields if field.init) - {"extra"},
        "misfit": misfit,
        "missing": _missing,
        "needed": _read_needed,
        "wanted": _read_wanted,
    }
    lines = [
        "def read(data):",
        " try: get = data.get",
        " except AttributeError: raise misfit('object', data) from None",
        " self = new(cls)" if ours else " made = {}",
    ]
    if keeps_extra:
        lines += [
            " if known.issuperset(data): extra = {}",
            " else: extra = {key: data[key] for key in data if key not in known}",
        ]
    for field in fields:
        target = f"self.{field.name}" if ours else f"made[{field.name!r}]"
        names[f"default_{field.name}"], default = _default(field)
        if field.name == "extra":
            lines.append(f" {target} = extra")
        elif field.init:
            if not default:
                lines.append(f" if {field.name!r} not in data: raise missing(cls, {field.name!r})")
            code = _field_code(field.name, default, hints[field.name], names, keeps_extra)
            lines.append(f" {target} = {code}")
        elif ours:
            lines.append(f" {target} = {default}")
    lines.append(" return self" if ours else " return cls(**made)")
    exec("\n".join(lines), names)  # all that is filled in is names of fields
    read: _Reader = names["read"]
    return read


def _default(field: dataclasses.Field[Any]) -> tuple[Any, str]:
    """The default of a field, and the code that gives it; no code where there is none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory, f"default_{field.name}()"
    if field.default is None:
        return None, "None"
    if field.default is not dataclasses.MISSING:
        return field.default, f"default_{field.name}"
    return None, ""


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
