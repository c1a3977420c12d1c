"""Python types as JSON Schema, and JSON values as those types.

    schema = json_schema(Recipe)             # what a model is to fill in
    recipe = read_as(Recipe, value)          # what it filled in, or DeserializeError

Known are `str`, `int`, `float`, `bool`, `None`, `Any`, `Literal`, `Enum`, unions, `list`,
`tuple`, `set`, `dict`, dataclasses, `TypedDict`, `Annotated[..., "description"]`, and
Pydantic's models where it is installed. For anything else there is a ConfigError that
names the place and the reason.

The codec reads what servers send, and is lenient. This reads what a model wrote: all of
it is checked, and nothing is passed over.
https://json-schema.org/draft/2020-12
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from enum import Enum
from typing import Any, ForwardRef, Literal, TypeGuard, Union, get_args, get_origin

from ..codec import is_dict, misfit, under
from ..errors import ConfigError, DeserializeError, JSONValue, excerpt


def json_schema(of: Any, *, strict: bool = True) -> dict[str, Any]:
    """The JSON Schema of a type.

    `strict` is for structured output: every property is required, with null where the
    type allows None, and no other is allowed. Otherwise a property that has a default may
    be left out, as for the parameters of a tool.

    Raises ConfigError for a type that JSON Schema can't describe, or not strictly.
    https://platform.openai.com/docs/guides/structured-outputs
    """
    return described(shape_of(of, _shown(of)), strict)


def described(shape: Shape, strict: bool) -> dict[str, Any]:
    """The schema of a shape, with the definitions that it refers to."""
    definitions = _Definitions(strict)
    schema = shape.describe(definitions)
    # The root must be an object by itself, not a reference to one.
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    if name:
        again = definitions.uses[name] > 1
        schema = dict(definitions.found[name])
        if not again:
            del definitions.found[name]
    if definitions.found:
        schema["$defs"] = definitions.found
    return schema


class _Definitions:
    """The `$defs` of a schema that is being made."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.found: dict[str, dict[str, Any]] = {}
        self.uses: dict[str, int] = {}
        self._name_of: dict[Any, str] = {}

    def refer(self, key: Any, name: str, describe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A reference to the definition of `key`, which is made at the first."""
        known = self._name_of.get(key)
        if known is None:
            known, number = name, 1
            while known in self.found:  # of another class
                number += 1
                known = f"{name}_{number}"
            self._name_of[key] = known
            self.found[known] = {}  # for what refers to itself
            self.found[known].update(describe())
        self.uses[known] = self.uses.get(known, 0) + 1
        return {"$ref": f"#/$defs/{known}"}


# What types look like in JSON. A shape describes itself, and reads values of its type


class Shape(ABC):
    """How the values of a type look in JSON."""

    name = "value"  # in messages
    note = ""  # the description that goes with it
    is_object = False  # with known keys, so that it can be the root of a schema

    @abstractmethod
    def describe(self, definitions: _Definitions) -> dict[str, Any]:
        """The schema. Raises ConfigError for what a strict one can't say."""

    @abstractmethod
    def read(self, value: JSONValue) -> Any:
        """The Python value of a JSON value. Raises DeserializeError."""

    def is_exactly(self, value: JSONValue) -> bool:
        """`value` need not be converted to be of this type."""
        return False

    def nearness(self, value: JSONValue) -> int:
        """How likely it is that this shape was meant, of several that `value` does not fit."""
        return 0


_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


class _Scalar(Shape):
    def __init__(self, kind: type) -> None:
        self.kind, self.name = kind, _SCALARS[kind]

    def describe(self, definitions: _Definitions) -> dict[str, Any]:
        return {"type": self.name}

    def read(self, value: JSONValue) -> Any:
        if type(value) is float and not math.isfinite(value):
            raise DeserializeError(f"$: expected {self.name}, got {value}")
        if type(value) is self.kind:
            return value
        if self.kind is float and type(value) is int and abs(value) < 1 << 1023:
            return float(value)
        if self.kind is int and type(value) is float and value.is_integer():
            return int(value)  # a model that writes 3.0 means 3
        raise misfit(self.name, value)

    def is_exactly(self, value: JSONValue) -> bool:
        return type(value) is self.kind


class _Anything(Shape):
    def __init__(self, where: str) -> None:
        self.where = where

    def describe(self, definitions: _Definitions) -> dict[str, Any]:
        if definitions.strict:
            raise _cannot(self.where, "Any is too little to say in a strict schema")
        return {}

    def read(self, value: JSONValue) -> Any:
        return value


class _OneOf(Shape):
    """One of some values, by what stands for each in JSON."""

    def __init__(self, where: str, values: Iterable[tuple[Any, Any]]) -> None:
        self.values = list(values)
        for plain, _ in self.values:
            if type(plain) not in _SCALARS:
                raise _cannot(where, f"{plain!r} is no JSON scalar")
        if not self.values:
            raise _cannot(where, "it has no members")
        shown = ", ".join(json.dumps(plain) for plain, _ in self.values)
        self.name = f"one of {shown}"

    def describe(self, definitions: _Definitions) -> dict[str, Any]:
        kinds = list(dict.fromkeys(_SCALARS[type(plain)] for plain, _ in self.values))
        kind = kinds[0] if len(kinds) == 1 else kinds
        return {"type": kind, "enum": [plain for plain, _ in self.values]}

    def read(self, value: JSONValue) -> Any:
        for plain, python in self.values:
            if _is_same(plain, value):
                return python
        if type(value) in _SCALARS:
            raise DeserializeError(f"$: expected {self.name}, got {excerpt(json.dumps(value))}")
        raise misfit(self.name, value)

    def is_exactly(self, value: JSONValue) -> bool:
        return any(_is_same(plain, value) for plain, _ in self.values)


def _is_same(plain: Any, value: Any) -> bool:
    """Equal, as JSON has it: where 1 is 1.0, and True is not 1."""
    return plain == value and isinstance(plain, bool) is isinstance(value, bool)


class _Array(Shape):
    name = "list"

    def __init__(self, item: Shape, make: Callable[[list[Any]], Any]) -> None:
        self.item, self.make = item, make

    def describe(self, definitions: _Definitions) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "array", "items": self.item.describe(definitions)}
        if self.make in (set, frozenset) and not definitions.strict:
            schema["uniqueItems"] = True
        return schema

    def read(self, value: JSONValue) -> Any:
        if not isinstance(value, list):
            raise misfit(self.name, value)
        found = [_read_at(f"[{index}]", self.item, item) for index, item in enumerate(value)]
        try:
            return self.make(found)
        except TypeError as error:  # what a set cannot hold
            raise DeserializeError(f"$: {error}") from None


class _Tuple(Shape):
    name = "list"

    def __init__(self, where: str, items: list[Shape]) -> None:
        self.where, self.items = where, items

    def describe(self, definitions: _Definitions) -> dict[str, Any]:
        if definitions.strict:
            raise _cannot(self.where, "a strict schema has no tuples: use a dataclass")
        items = [item.describe(definitions) for item in self.items]
        return {
            "type": "array",
            "prefixItems": items,
            "minItems": len(items),
            "maxItems": len(items),
        }

    def read(self, value: JSONValue) -> Any:
        if not isinstance(value, list):
            raise misfit(self.name, value)
        if len(value) != len(self.items):
            raise DeserializeError(f"$: expected {len(self.items)} items, got {len(value)}")
        pairs = enumerate(zip(self.items, value, strict=True))
        return tuple(_read_at(f"[{index}]", shape, item) for index, (shape, item) in pairs)


class _Map(Shape):
    name = "object"

    def __init__(self, where: str, item: Shape) -> None:
        self.where, self.item = where, item

    def describe(self, definitions: _Definitions) -> dict[str, Any]:
        if definitions.strict:
            reason = "a strict schema has no free keys: use a list of dataclasses"
            raise _cannot(self.where, reason)
        return {"type": "object", "additionalProperties": self.item.describe(definitions)}

    def read(self, value: JSONValue) -> Any:
        if not isinstance(value, dict):
            raise misfit(self.name, value)
        return {key: _read_at(f".{key}", self.item, item) for key, item in value.items()}


class _Either(Shape):
    def __init__(self, options: list[Shape]) -> None:
        self.options = options
        self.name = " or ".join(dict.fromkeys(option.name for option in options))

    def describe(self, definitions: _Definitions) -> dict[str, Any]:
        schemas: list[dict[str, Any]] = []
        for option in self.options:
            schema = option.describe(definitions)
            if schema not in schemas:
                schemas.append(schema)
        if len(schemas) == 1:
            return schemas[0]
        if all(schema.keys() == {"type"} for schema in schemas):
            return {"type": [schema["type"] for schema in schemas]}
        others = [schema for schema in schemas if schema != {"type": "null"}]
        if len(others) == 1 and isinstance(kind := others[0].get("type"), str):
            nullable = {**others[0], "type": [kind, "null"]}
            if "enum" in nullable:
                nullable["enum"] = [*nullable["enum"], None]
            return nullable
        return {"anyOf": schemas}

    def read(self, value: JSONValue) -> Any:
        misfits: list[tuple[int, int, DeserializeError]] = []
        # A number that is whole already is not to become a float because that came first.
        for option in sorted(self.options, key=lambda option: not option.is_exactly(value)):
            try:
                return option.read(value)
            except DeserializeError as error:
                depth = len(re.findall(r"[.\[]", error.path))
                misfits.append((option.nearness(value), depth, error))
        _, depth, nearest = max(misfits, key=lambda misfit: misfit[:2])
        if depth or nearest.__cause__:  # the cause: what the class itself has against it
            raise nearest
        raise misfit(self.name, value)

    def is_exactly(self, value: JSONValue) -> bool:
        return any(option.is_exactly(value) for option in self.options)


class _Noted(Shape):
    """A shape with a description."""

    def __init__(self, shape: Shape, text: str) -> None:
        self.shape, self.note, self.name = shape, text, shape.name

    def describe(self, definitions: _Definitions) -> dict[str, Any]:
        return _with_note(self.shape.describe(definitions), self.note, definitions.strict)

    def read(self, value: JSONValue) -> Any:
        return self.shape.read(value)

    def is_exactly(self, value: JSONValue) -> bool:
        return self.shape.is_exactly(value)

    def nearness(self, value: JSONValue) -> int:
        return self.shape.nearness(value)


@dataclasses.dataclass(frozen=True)
class Member:
    """A property of an object: a field, or a parameter of a function."""

    name: str
    shape: Shape
    required: bool = True
    default: Any = None  # None also where it is made anew each time
    note: str = ""


class ObjectShape(Shape):
    """An object with known properties.

    `members` are asked for when they are needed, since a class may hold itself. `make`
    makes the Python value of those that came. `key` is what it is a definition of.
    """

    name = "object"
    is_object = True

    def __init__(
        self,
        members: Callable[[], list[Member]],
        make: Callable[..., Any],
        *,
        key: Any = None,
        title: str = "",
        about: str = "",
    ) -> None:
        self._members, self._make, self._key = members, make, key
        self._title, self._about = title, about

    @functools.cached_property
    def members(self) -> list[Member]:
        return self._members()

    def describe(self, definitions: _Definitions) -> dict[str, Any]:
        if self._key is None:
            return self._described(definitions)
        return definitions.refer(self._key, self._title, lambda: self._described(definitions))

    def _described(self, definitions: _Definitions) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "object"}
        if self._about:
            schema["description"] = self._about
        schema["properties"] = properties = {}
        for member in self.members:
            found = member.shape.describe(definitions)
            if member.note:
                found = _with_note(found, member.note, definitions.strict)
            plain = _plain(member.default)
            if plain is not None and not definitions.strict:
                found = {**found, "default": plain}
            properties[member.name] = found
        required = [m.name for m in self.members if definitions.strict or m.required]
        if required:
            schema["required"] = required
        schema["additionalProperties"] = False
        return schema

    def read(self, value: JSONValue) -> Any:
        if not isinstance(value, dict):
            raise misfit(self.name, value)
        known = {member.name: member for member in self.members}
        for key in value:
            if key not in known:
                raise DeserializeError(f"$.{key}: there is no such key", path=f"$.{key}")
        found = {}
        for name, member in known.items():
            if name in value:
                found[name] = _read_at(f".{name}", member.shape, value[name])
            elif member.required and member.shape.is_exactly(None):
                found[name] = None  # servers that do not hold the model to the schema
            elif member.required:
                raise DeserializeError(f"$.{name}: missing", path=f"$.{name}")
        try:
            return self._make(**found)
        except Exception as error:  # a class that checks itself
            raise DeserializeError(f"$: {type(error).__name__}: {error}") from error

    def nearness(self, value: JSONValue) -> int:
        if not isinstance(value, dict):
            return 0
        known = {member.name for member in self.members}
        return 2 * len(known & value.keys()) - len(value)


class _Model(Shape):
    """A model of Pydantic's, which describes and reads itself."""

    name = "object"

    def __init__(self, model: Any, where: str) -> None:
        self.model, self.where = model, where
        try:
            self.schema: dict[str, Any] = model.model_json_schema()
        except Exception as error:
            raise _cannot(where, str(error).partition("\n")[0]) from error
        self.inner: dict[str, Any] = self.schema.get("$defs", {})
        self.root = self.schema.get("$ref", "").removeprefix("#/$defs/")  # of one that holds itself
        self.is_object = self.inner.get(self.root, self.schema).get("type") == "object"

    def describe(self, definitions: _Definitions) -> dict[str, Any]:
        if self.root:
            return self._referred(self.root, definitions)
        whole = {key: value for key, value in self.schema.items() if key != "$defs"}
        return definitions.refer(
            self.model, _plain_name(self.model), lambda: self._taken_over(whole, definitions)
        )

    def _referred(self, name: str, definitions: _Definitions) -> dict[str, Any]:
        inner = self.inner[name]
        return definitions.refer(
            (self.model, name), _plain_name(name), lambda: self._taken_over(inner, definitions)
        )

    def _taken_over(self, schema: dict[str, Any], definitions: _Definitions) -> dict[str, Any]:
        """A schema of Pydantic's among ours: its references renamed, and strict where asked."""
        strict = definitions.strict
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/$defs/")
            reference, note = self._referred(name, definitions), schema.get("description")
            return _with_note(reference, note, strict) if note else reference
        found: dict[str, Any] = {}
        for key, value in schema.items():
            if strict and key in ("default", "discriminator"):
                continue
            if key == "properties":
                value = {name: self._taken_over(one, definitions) for name, one in value.items()}
            elif key in ("anyOf", "oneOf", "allOf", "prefixItems"):
                value = [self._taken_over(one, definitions) for one in value]
            elif is_dict(value) and key in ("items", "additionalProperties"):
                value = self._taken_over(value, definitions)
            found["anyOf" if strict and key == "oneOf" else key] = value
        if strict:
            self._make_strict(found)
        return found

    def _make_strict(self, schema: dict[str, Any]) -> None:
        if not schema.keys() & {"type", "anyOf", "allOf", "enum", "const"}:
            raise _cannot(self.where, "Any is too little to say in a strict schema")
        if "prefixItems" in schema:
            raise _cannot(self.where, "a strict schema has no tuples: use a model")
        if schema.get("type") == "object":
            if schema.get("additionalProperties") or "properties" not in schema:
                raise _cannot(self.where, "a strict schema has no free keys: use a list of models")
            schema["required"] = list(schema["properties"])
            schema["additionalProperties"] = False

    def read(self, value: JSONValue) -> Any:
        try:
            return self.model.model_validate_json(json.dumps(value))
        except ValueError as error:
            errors: Any = getattr(error, "errors", None)
            told: dict[str, Any] = errors()[0] if errors else {}
            steps = (
                f"[{step}]" if type(step) is int else f".{step}" for step in told.get("loc", ())
            )
            path = "$" + "".join(steps)
            words = told.get("msg") or str(error).partition("\n")[0]
            raise DeserializeError(f"{path}: {words}", path=path) from error


def _plain_name(of: Any) -> str:
    return re.sub("[^a-zA-Z0-9_.-]+", "_", of if isinstance(of, str) else of.__name__).strip("_")


def _with_note(schema: dict[str, Any], note: str, strict: bool) -> dict[str, Any]:
    if strict and "$ref" in schema:  # which strictly stands alone
        return {"anyOf": [schema], "description": note}
    return {**schema, "description": note}


def _plain(default: Any) -> Any:
    """A default as JSON; None where it has no short form there, or is null."""
    if isinstance(default, Enum):
        default = default.value
    if type(default) is float and not math.isfinite(default):
        return None
    return default if type(default) in (str, int, float, bool) else None


def _read_at(step: str, shape: Shape, value: JSONValue) -> Any:
    try:
        return shape.read(value)
    except DeserializeError as error:
        raise under(error, step) from error.__cause__


# From type hints to shapes

_LISTS = (list, Sequence, MutableSequence, Iterable)
_MAPS = (dict, Mapping, MutableMapping)
# By name, since not all of them are in every Python; `typing_extensions` has the others.
_WRAPPERS = ("Required", "NotRequired", "ReadOnly", "Final")


def shape_of(hint: Any, where: str, names: Mapping[str, Any] | None = None) -> Shape:
    """The shape of a type's values. `where` says in errors where the type stands; `names` are
    what a hint written as text may refer to.

    Raises ConfigError for what has no JSON form.
    """
    try:
        return _shape_of(hint, where, names)
    except RecursionError:  # an alias; a class may
        raise _cannot(where, f"{_shown(hint)} refers to itself: use a dataclass") from None


def _shape_of(hint: Any, where: str, names: Mapping[str, Any] | None) -> Shape:
    if isinstance(hint, (str, ForwardRef)):
        hint = _evaluated(hint, where, names or {})
    if hint is None:
        hint = type(None)
    if hint is Any:
        return _Anything(where)
    if _is_class(hint) and hint in _SCALARS:
        return _Scalar(hint)
    origin, args = get_origin(hint), get_args(hint)
    if hasattr(hint, "__metadata__"):  # Annotated
        shape = shape_of(args[0], where, names)
        note = next((note for note in hint.__metadata__ if isinstance(note, str)), "")
        return _Noted(shape, note) if note else shape
    if getattr(origin, "_name", None) in _WRAPPERS:
        return shape_of(args[0], where, names)
    if origin is Literal:
        return _OneOf(where, ((_value_of(arg), arg) for arg in args))
    if origin in (Union, types.UnionType):
        return _either([shape_of(arg, where, names) for arg in args])
    if hasattr(hint, "__supertype__"):  # NewType
        return shape_of(hint.__supertype__, where, names)
    if hasattr(hint, "__value__"):  # a `type` statement
        return shape_of(hint.__value__, where, names)
    kind: Any = origin or hint
    if kind in (tuple, set, frozenset, *_LISTS):
        return _shape_of_array(kind, args, where, names)
    if kind in _MAPS:
        if not args:
            raise _cannot(where, f"a {_shown(hint)} of what? Write dict[str, int], or whatever")
        if args[0] is not str:
            raise _cannot(where, f"JSON's keys are text, not {_shown(args[0])}")
        return _Map(where, shape_of(args[1], where, names))
    if _is_class(kind):
        if issubclass(kind, Enum):
            return _OneOf(where, ((member.value, member) for member in kind))
        if hasattr(kind, "model_json_schema") and hasattr(kind, "model_validate_json"):
            return _Model(kind, where)
        if dataclasses.is_dataclass(kind) or _is_typed_dict(kind):
            return _class_shape(kind)
    raise _cannot(where, f"{_shown(hint)} has no JSON form")


def _either(shapes: list[Shape]) -> Shape:
    """One of the shapes, of which some may be a choice themselves."""
    flat: list[Shape] = []
    for shape in shapes:
        flat += shape.options if isinstance(shape, _Either) else [shape]
    return _Either(flat)


def _shape_of_array(kind: Any, args: Any, where: str, names: Any) -> Shape:
    if not args:
        raise _cannot(where, f"a {_shown(kind)} of what? Write {_shown(kind)}[str], or whatever")
    if kind is tuple and args[-1] is not Ellipsis:
        return _Tuple(where, [shape_of(arg, where, names) for arg in args])
    if kind in (set, frozenset) and getattr(get_origin(args[0]) or args[0], "__hash__", 1) is None:
        raise _cannot(where, f"a set can't hold {_shown(args[0])}: use a list")
    make = kind if kind in (tuple, set, frozenset) else list
    return _Array(shape_of(args[0], where, names), make)


def _is_class(hint: Any) -> TypeGuard[type[Any]]:
    return isinstance(hint, type)


def _is_typed_dict(cls: type) -> bool:
    return hasattr(cls, "__required_keys__")  # also one of `typing_extensions`


def _class_shape(cls: Any) -> ObjectShape:
    doc: str = cls.__doc__ or ""  # a class does not inherit it
    if doc.startswith(f"{cls.__name__}("):  # written by `dataclass`
        doc = ""
    typed_dict = _is_typed_dict(cls)
    return ObjectShape(
        functools.partial(_keys_of if typed_dict else _fields_of, cls),
        dict if typed_dict else cls,
        key=cls,
        title=cls.__name__,
        about=first_paragraph(doc),
    )


def _fields_of(cls: Any) -> list[Member]:
    hints, names = hints_of(cls), _names_around(cls)
    found: list[Member] = []
    for field in dataclasses.fields(cls):
        if field.init:
            missing = dataclasses.MISSING
            required = field.default is missing and field.default_factory is missing
            default = None if field.default is missing else field.default
            shape = shape_of(hints[field.name], f"{cls.__name__}.{field.name}", names)
            found.append(Member(field.name, shape, required, default))
    _check_constructor(cls, {member.name for member in found})
    return found


def _check_constructor(cls: Any, names: set[str]) -> None:
    """Refuse a class that can't be made from its fields alone: it would fail when paid for."""
    from inspect import signature

    for parameter in signature(cls).parameters.values():
        free = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.name not in names and parameter.default is parameter.empty and not free:
            raise _cannot(cls.__name__, f"its constructor needs {parameter.name}, no field")


def _keys_of(cls: Any) -> list[Member]:
    names = _names_around(cls)
    return [
        Member(
            name,
            shape_of(hint, f"{cls.__name__}.{name}", names),
            required=_is_required(hint, name in cls.__required_keys__),
        )
        for name, hint in hints_of(cls).items()
    ]


def _is_required(hint: Any, else_: bool) -> bool:
    """`__required_keys__` can't tell where the annotations were text."""
    wrapper = getattr(get_origin(hint), "_name", None)
    if hasattr(hint, "__metadata__") or wrapper == "ReadOnly":
        return _is_required(get_args(hint)[0], else_)
    return wrapper == "Required" if wrapper in ("Required", "NotRequired") else else_


def hints_of(cls: Any) -> dict[str, Any]:
    """The type hints of a class. Raises ConfigError for names that are not found."""
    try:
        # A class that is defined in a function may still hold itself.
        return typing.get_type_hints(cls, localns={cls.__name__: cls}, include_extras=True)
    except (NameError, TypeError, SyntaxError, AttributeError) as error:
        raise _cannot(_shown(cls), f"its type hints can't be understood: {error}") from None


def _names_around(thing: Any) -> dict[str, Any]:
    import sys

    module = sys.modules.get(getattr(thing, "__module__", ""))
    return {**vars(module), thing.__name__: thing} if module else {thing.__name__: thing}


def _evaluated(hint: Any, where: str, names: Mapping[str, Any]) -> Any:
    """A hint that stands as text inside another, where Python leaves it so."""
    text = hint.__forward_arg__ if isinstance(hint, ForwardRef) else hint
    try:
        return eval(text, dict(names))  # the author's own annotation, as Python evaluates it
    except Exception as error:
        raise _cannot(where, f"{text!r} can't be understood: {error}") from None


def _value_of(member: Any) -> Any:
    return member.value if isinstance(member, Enum) else member


def _cannot(where: str, reason: str) -> ConfigError:
    return ConfigError(f"cannot describe {where}: {reason}")


def _shown(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint)


_SECTION = re.compile(
    r"(?:Args|Arguments|Params|Parameters|Returns|Raises|Yields|Examples?|Notes?):\s*$|:\w|-{3,}$"
)


def first_paragraph(doc: str | None) -> str:
    """The first paragraph of a docstring, as one line: up to a blank line or a section."""
    paragraph: list[str] = []
    for line in map(str.strip, (doc or "").strip().splitlines()):
        if line.startswith("---") and _SECTION.match(line):
            if len(paragraph) > 1 or _SECTION.match(f"{''.join(paragraph)}:"):
                paragraph.pop()  # the title of a section; else it is what the whole is called
            elif not paragraph:
                continue
            break
        if not line or _SECTION.match(line):
            break
        paragraph.append(line)
    return " ".join(paragraph)
