"""Describe Python types by JSON Schema, and read JSON values as those types.

    schema = json_schema(Recipe)
    recipe = SchemaBuilder().shape(Recipe, "Recipe").read(value)

Supported are `str`, `int`, `float`, `bool`, `None`, `Any`, `Literal`, `Enum`, unions, `list`,
`tuple`, `set`, `dict`, dataclasses, `TypedDict`, `NamedTuple`, the types in formats.py,
`Annotated[..., "description"]` with limits, `type` aliases, and the models and dataclasses of
Pydantic if it is installed. Any other type is a ConfigError with the place and the reason.

https://json-schema.org/draft/2020-12
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from enum import Enum
from typing import Annotated, Any, ForwardRef, Literal, TypeGuard, Union, get_args, get_origin

from ..codec import names_in
from .docstrings import parameter_notes, prose_of
from .formats import limits_in, needs_pydantic, note_in, string_formats
from .shapes import (
    Property,
    Shape,
    annotated,
    anything,
    array,
    dictionary,
    enumeration,
    fixed_tuple,
    formatted_string,
    object_schema,
    object_shape,
    pydantic_methods,
    pydantic_shape,
    scalar,
    union,
)
from .strict import SCALARS, cannot_describe, strict_schema


def json_schema(of: Any, *, strict: bool = True) -> dict[str, Any]:
    """Describe a type by JSON Schema.

    A `strict` schema is for structured output. It has only the keywords that the API accepts;
    others become part of a description. Every property is required, and null stands for its
    default. In a schema that is not strict, a property with a default may be missing.

    Raises ConfigError for a type that JSON Schema can't describe, or not strictly: the root of
    a strict schema must be an object.
    https://platform.openai.com/docs/guides/structured-outputs
    """
    builder, where = SchemaBuilder(), shown_type(of)
    schema = builder.schema(builder.shape(of, where), where, strict)
    if strict and schema.get("type") != "object":
        reason = "the root of a strict schema must be an object: put it into a dataclass"
        raise cannot_describe(where, reason)
    return schema


_LISTS = (list, Sequence, MutableSequence, Iterable)
_MAPS = (dict, Mapping, MutableMapping)
# Compared by name: `typing_extensions` has those that an older Python lacks.
_WRAPPERS = ("Required", "NotRequired", "ReadOnly", "Final")
_PYDANTIC = ("model_json_schema", "__pydantic_validator__", "__get_pydantic_core_schema__")
_TYPED_DICT, _NAMED_TUPLE = "__required_keys__", "_field_defaults"
_OBJECTS = ("__dataclass_fields__", _TYPED_DICT, _NAMED_TUPLE)
_MISSING: Any = inspect.Parameter.empty


class SchemaBuilder:
    """Makes the shapes of type hints, and the definitions that their schemas refer to."""

    def __init__(self, names: Mapping[str, Any] = {}) -> None:
        self._names = names  # for hints that are strings
        self._definitions: dict[str, dict[str, Any]] = {}
        self._shapes: dict[Any, Shape] = {}  # of classes and aliases
        self._references: dict[Any, dict[str, Any]] = {}  # to definitions, by class or alias

    def schema(self, shape: Shape, where: str, strict: bool) -> dict[str, Any]:
        """The schema of a shape, with the definitions."""
        schema, definitions = dict(shape.schema), dict(self._definitions)
        for _ in self._definitions:  # an alias may refer to another alias
            if reference := schema.pop("$ref", None):  # the API rejects it at the root
                name = reference.removeprefix("#/$defs/")
                schema = {**definitions[name], **schema}
                rest = json.dumps([schema, *definitions.values()], default=str)
                if json.dumps(reference) not in rest:
                    del definitions[name]
        if definitions:
            schema = {**schema, "$defs": definitions}
        return strict_schema(schema, where) if strict else schema

    def property_of(
        self, name: str, hint: Any, where: str, default: Any = _MISSING, note: str = ""
    ) -> Property:
        """Describe a parameter or a field. A default that is a Pydantic FieldInfo is read as
        metadata of the hint, and the property is required."""
        if hasattr(default, "is_required") and hasattr(default, "metadata"):
            hint, default = Annotated[hint, default], _MISSING
        required = default is _MISSING
        default = None if required else default
        return Property(name, self.shape(hint, where), required, default, note)

    def shape(self, hint: Any, where: str) -> Shape:
        """The shape of a hint. Raises ConfigError for a type that has no JSON form."""
        if isinstance(hint, (str, ForwardRef)):
            hint = _evaluated(hint, where, self._names)
        try:
            found = self._special(hint, where) or self._container(hint, where)
            return found or self._class(hint, where)
        except RecursionError:
            reason = f"{shown_type(hint)} refers to itself: use a dataclass or a type statement"
            raise cannot_describe(where, reason) from None

    def _special(self, hint: Any, where: str) -> Shape | None:
        """The shape of a scalar, or of one of the special forms of `typing`."""
        if hint is None:
            return scalar(type(None))
        if hint is Any:
            return anything()
        if _is_class(hint) and hint in SCALARS:
            return scalar(hint)
        origin, args = get_origin(hint), get_args(hint)
        if hasattr(hint, "__metadata__"):  # Annotated
            metadata = hint.__metadata__
            if any(map(needs_pydantic, metadata)):
                return annotated(self._pydantic(hint, where), note_in(metadata), [])
            return annotated(self.shape(args[0], where), note_in(metadata), limits_in(metadata))
        if getattr(origin, "_name", None) in _WRAPPERS:
            return self.shape(args[0], where)
        if origin is Literal:
            return enumeration(where, ((getattr(arg, "value", arg), arg) for arg in args))
        if origin in (Union, types.UnionType):
            return union([self.shape(arg, where) for arg in args])
        if hasattr(hint, "__supertype__"):  # NewType
            return self.shape(hint.__supertype__, where)
        if hasattr(hint, "__value__"):  # a `type` statement
            return self._alias(hint, where)
        return None

    def _container(self, hint: Any, where: str) -> Shape | None:
        kind, args = get_origin(hint) or hint, get_args(hint)
        if kind not in (tuple, set, frozenset, *_LISTS, *_MAPS):
            return None
        if not args:
            example = "dict[str, int]" if kind in _MAPS else f"{shown_type(kind)}[str]"
            reason = f"{shown_type(kind)} needs the type of its items, as in {example}"
            raise cannot_describe(where, reason)
        if kind in _MAPS:
            if args[0] is not str:
                raise cannot_describe(where, f"JSON keys must be str, not {shown_type(args[0])}")
            return dictionary(self.shape(args[1], where))
        if any(getattr(arg, "__unpacked__", False) for arg in args):
            raise cannot_describe(where, "list its items: it can't be unpacked from another tuple")
        if kind is tuple and args[1:] != (Ellipsis,):
            return fixed_tuple([self.shape(arg, where) for arg in args])
        is_set = kind in (set, frozenset)
        if is_set and getattr(get_origin(args[0]) or args[0], "__hash__", 1) is None:
            raise cannot_describe(where, f"a set can't hold {shown_type(args[0])}: use a list")
        return array(self.shape(args[0], where), kind if is_set or kind is tuple else list)

    def _class(self, hint: Any, where: str) -> Shape:
        kind: Any = get_origin(hint) or hint
        if _is_class(kind):
            if hint in self._shapes:
                return self._shapes[hint]
            if issubclass(kind, Enum):
                return enumeration(where, ((member.value, member) for member in kind))
            if kind in string_formats():
                return formatted_string(string_formats()[kind])
            if any(hasattr(kind, name) for name in _PYDANTIC):
                return self._pydantic(hint, where)
            if any(hasattr(kind, name) for name in _OBJECTS):
                return self._object(hint, kind)
        reason = f"{shown_type(hint)} has no JSON form: use a dataclass or a TypedDict"
        raise cannot_describe(where, reason)

    def _object(self, hint: Any, cls: Any) -> Shape:
        doc: str = cls.__doc__ or ""  # unlike inspect.getdoc, never that of a base class
        if doc.startswith(f"{cls.__name__}("):  # written by `dataclass`
            doc = ""
        properties: dict[str, Property] = {}
        reference = self._reserved(hint, cls.__name__)
        shape = object_shape(properties, dict if hasattr(cls, _TYPED_DICT) else cls, reference)
        self._shapes[hint] = shape  # before the properties, since the class may refer to itself
        hints, notes, arguments = _annotations_of(cls), dict[str, str](), _arguments_of(hint)
        for base in reversed(cls.__mro__):
            notes |= parameter_notes(base.__doc__ or "")
        outside, self._names = self._names, names_around(cls)
        for name, default in _defaults_of(cls, hints).items():
            where = f"{cls.__name__}.{name}"
            if name not in hints:
                raise cannot_describe(where, "it has no type hint")
            field, note = _substituted(hints[name], arguments), notes.get(name, "")
            properties[name] = self.property_of(name, field, where, default, note)
        self._names = outside
        self._definition(reference).update(object_schema(properties, prose_of(doc)))
        return shape

    def _alias(self, hint: Any, where: str) -> Shape:
        """The shape of a `type` statement, which may refer to itself."""
        if hint in self._shapes:
            return self._shapes[hint]
        title: str = (get_origin(hint) or hint).__name__
        alias = self._shapes[hint] = Shape(
            title,
            self._reserved(hint, title),
            lambda value, seen: inner.read(value, seen),
            lambda value: inner.is_exactly(value),
        )
        self._names = {**self._names, title: hint}  # for a string inside it
        inner = self.shape(_substituted(hint.__value__, _arguments_of(hint)), where)
        self._definition(alias.schema).update(inner.schema)
        alias.match_score, alias.is_discriminator = inner.match_score, inner.is_discriminator
        return alias

    def _pydantic(self, model: Any, where: str) -> Shape:
        """The shape of a model, a dataclass or a type of Pydantic's."""
        key: Any = object() if hasattr(model, "__metadata__") else model  # may have no hash
        try:
            describe, validate = pydantic_methods(model)
            text = json.dumps(describe())
        except Exception as error:
            raise cannot_describe(where, str(error).partition("\n")[0]) from error

        def reserved(match: re.Match[str]) -> str:
            return json.dumps(self._reserved((key, match[1]), match[1])["$ref"])

        schema = json.loads(re.sub(r'"#/\$defs/([^"]*)"', reserved, text))
        for name, inner in schema.pop("$defs", {}).items():
            self._definition(self._reserved((key, name), name)).update(inner)
        if schema.keys() == {"allOf"}:  # of a recursive model, before Pydantic 2.9
            schema = schema["allOf"][0]
        if "$ref" not in schema and key is model:
            reference = self._reserved(model, getattr(model, "__name__", ""))
            self._definition(reference).update(schema)
            schema = reference
        self._shapes[key] = pydantic_shape(schema, validate)
        return self._shapes[key]

    def _reserved(self, key: Any, name: str) -> dict[str, Any]:
        """A reference to a definition, which is empty at first."""
        if key not in self._references:
            name = title = re.sub("[^a-zA-Z0-9_.-]+", "_", name).strip("_") or "object"
            number = 1
            while name in self._definitions:  # of another class
                number += 1
                name = f"{title}_{number}"
            self._definitions[name] = {}
            self._references[key] = {"$ref": f"#/$defs/{name}"}
        return self._references[key]

    def _definition(self, reference: Mapping[str, Any]) -> dict[str, Any]:
        return self._definitions[reference["$ref"].removeprefix("#/$defs/")]


# Classes and their type hints


def _defaults_of(cls: Any, hints: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a class with their defaults: None for a default_factory, and for a key that
    a TypedDict may lack."""
    if hasattr(cls, _TYPED_DICT):
        needed = cls.__required_keys__
        return {n: _MISSING if _is_required(h, n in needed) else None for n, h in hints.items()}
    if hasattr(cls, _NAMED_TUPLE):
        return {name: cls._field_defaults.get(name, _MISSING) for name in cls._fields}
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.init:
            missing = field.default is dataclasses.MISSING
            made = field.default_factory is not dataclasses.MISSING
            found[field.name] = (None if made else _MISSING) if missing else field.default
    for name, hint in hints.items():
        if isinstance(hint, dataclasses.InitVar) and not hasattr(cls, name):
            reason = "an InitVar is not a field: give it a default"
            raise cannot_describe(f"{cls.__name__}.{name}", reason)
    return found


def _is_required(hint: Any, else_: bool) -> bool:
    """Look for Required and NotRequired: `__required_keys__` ignores them in string annotations."""
    wrapper = getattr(get_origin(hint), "_name", None)
    if hasattr(hint, "__metadata__") or wrapper == "ReadOnly":
        return _is_required(get_args(hint)[0], else_)
    return wrapper == "Required" if wrapper in ("Required", "NotRequired") else else_


def _annotations_of(cls: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, localns=names_in(cls), include_extras=True)
    except (NameError, TypeError, SyntaxError, AttributeError) as error:
        reason = f"its type hints can't be evaluated: {error}"
        raise cannot_describe(shown_type(cls), reason) from None


def _arguments_of(hint: Any) -> dict[Any, Any]:
    """The values of the type variables of a generic class and of its bases."""
    origin: Any = get_origin(hint) or hint
    variables = getattr(origin, "__parameters__", ()) or getattr(origin, "__type_params__", ())
    found: dict[Any, Any] = dict(zip(variables, get_args(hint), strict=False))
    bases = getattr(origin, "__bases__", ())
    for base in getattr(origin, "__dict__", {}).get("__orig_bases__", bases):
        for variable, argument in _arguments_of(base).items():
            found.setdefault(variable, _substituted(argument, found))
    return found


def _substituted(hint: Any, arguments: Mapping[Any, Any]) -> Any:
    """A hint with its type variables replaced."""
    if isinstance(hint, typing.TypeVar):
        return arguments.get(hint, hint)
    variables = getattr(hint, "__parameters__", ()) if get_origin(hint) else ()
    return hint[tuple(arguments.get(one, one) for one in variables)] if variables else hint


def _is_class(hint: Any) -> TypeGuard[type[Any]]:
    return isinstance(hint, type)


def names_around(cls: Any) -> dict[str, Any]:
    """The names that a string in a hint of a class may use."""
    module = sys.modules.get(getattr(cls, "__module__", ""))
    return {**vars(module), cls.__name__: cls} if module else {cls.__name__: cls}


def _evaluated(hint: Any, where: str, names: Mapping[str, Any]) -> Any:
    """Evaluate a hint that is a string inside another hint."""
    text = hint.__forward_arg__ if isinstance(hint, ForwardRef) else hint
    try:
        return eval(text, dict(names))  # the annotation of the program's author
    except Exception as error:
        raise cannot_describe(where, f"{text!r} can't be evaluated: {error}") from None


def shown_type(hint: Any) -> str:
    """The name of a type for messages."""
    return getattr(hint, "__name__", None) or str(hint)
