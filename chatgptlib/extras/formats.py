"""The JSON text of dates and other common types, and the limits that Annotated sets."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..codec import is_list


class StringFormat(NamedTuple):
    """A type whose values are text in JSON.

    `read` raises ValueError or ArithmeticError for text that is not valid.
    """

    name: str  # in messages
    schema: dict[str, Any]  # besides "type"
    read: Callable[[str], Any]
    write: Callable[[Any], str]
    json_types: tuple[type, ...] = (str,)  # types that `read` accepts


def format_of(value: object) -> StringFormat | None:
    """The entry for the class of a value, or for a base of it."""
    types = string_formats()
    return next((types[base] for base in type(value).__mro__ if base in types), None)


@functools.cache
def string_formats() -> dict[type, StringFormat]:
    """The table of types. Their modules are imported at the first call."""
    from base64 import b64decode, b64encode
    from datetime import date, datetime, time, timedelta
    from decimal import Decimal
    from pathlib import Path, PurePath
    from uuid import UUID

    def known(name: str, read: Callable[[str], Any], write: Callable[[Any], str]) -> StringFormat:
        return StringFormat(name, {"format": name}, read, write)

    def decimal(text: str) -> Decimal:
        if not (found := Decimal(text)).is_finite():
            raise ValueError(text)
        return found

    def from_base64(text: str) -> bytes:
        return b64decode(text, validate=True)

    def base64(value: bytes) -> str:
        return b64encode(value).decode()

    return {
        datetime: known("date-time", lambda t: datetime.fromisoformat(_iso(t)), datetime.isoformat),
        date: known("date", date.fromisoformat, date.isoformat),
        time: known("time", lambda t: time.fromisoformat(_iso(t)), time.isoformat),
        timedelta: known("duration", lambda t: timedelta(**_duration_parts(t)), _duration),
        UUID: known("uuid", UUID, str),
        Path: known("path", Path, str),
        PurePath: known("path", PurePath, str),
        Decimal: StringFormat(
            "number as text", {"pattern": r"^-?[0-9]+(\.[0-9]+)?$"}, decimal, str, (str, int, float)
        ),
        bytes: StringFormat("base64", {"contentEncoding": "base64"}, from_base64, base64),
    }


def _iso(text: str) -> str:
    """Rewrite a time for Python 3.10, which accepts no "Z" and only 3 or 6 digits after the
    point."""
    text = re.sub(r"\.(\d+)", lambda digits: f".{digits[1]:0<6.6}", text)
    return re.sub("[Zz]$", "+00:00", text)


# Without months and years, whose length varies.
_ISO_DURATION = re.compile(
    r"""(?x) (?P<sign>[+-]?) P (?=.*\d) (?:(?P<weeks>N)W)? (?:(?P<days>N)D)?
    (?:T (?:(?P<hours>N)H)? (?:(?P<minutes>N)M)? (?:(?P<seconds>N)S)? )?
    """.replace("N", r"\d+(?:\.\d+)?")
)


def _duration_parts(text: str) -> dict[str, float]:
    match = _ISO_DURATION.fullmatch(text)
    if match is None:
        raise ValueError(text)
    sign = -1 if match["sign"] == "-" else 1
    return {name: sign * float(n) for name, n in match.groupdict().items() if n and name != "sign"}


def _duration(length: Any) -> str:
    sign, length = ("-", -length) if length.days < 0 else ("", length)
    seconds = f"{length.seconds}.{length.microseconds:06}".rstrip("0").rstrip(".")
    return f"{sign}P{length.days}DT{seconds}S"


# Limits


@dataclass(frozen=True)
class Limit:
    """A limit on values, and its keyword in JSON Schema."""

    keyword: str
    bound: Any
    check: Callable[[Any, Any], Any]  # called with the bound and a value

    def holds(self, value: Any) -> bool:
        """Whether a value is within the limit. True for a type that it does not apply to."""
        try:
            return bool(self.check(self.bound, value))
        except (TypeError, ArithmeticError):
            return True


def _is_multiple(of: Any, value: Any) -> bool:
    from decimal import Context, Decimal

    # Decimal, because the float 0.3 is not a multiple of 0.1. The precision exceeds the longest
    # integer that Python parses, which has 4,300 digits.
    exact = Context(prec=5000, traps=[])
    return exact.remainder(Decimal(str(value)), Decimal(str(of))) == 0


# By the attribute names that annotated-types and Pydantic share.
_LIMITS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "gt": ("exclusiveMinimum", operator.lt),
    "ge": ("minimum", operator.le),
    "lt": ("exclusiveMaximum", operator.gt),
    "le": ("maximum", operator.ge),
    "multiple_of": ("multipleOf", _is_multiple),
    "min_length": ("minLength", lambda bound, value: bound <= len(value)),
    "max_length": ("maxLength", lambda bound, value: bound >= len(value)),
    "pattern": ("pattern", re.search),
}


def limits_in(metadata: Iterable[Any]) -> list[Limit]:
    """The limits in the metadata of Annotated, including Pydantic Fields."""
    found: list[Limit] = []
    for one in metadata:
        inner: object = getattr(one, "metadata", ())
        found += limits_in(inner if is_list(inner) else ())
        for name, (keyword, check) in _LIMITS.items():
            if (bound := getattr(one, name, None)) is not None:
                found.append(Limit(keyword, bound, check))
    return found


def needs_pydantic(one: Any) -> bool:
    """Whether an item of the metadata has a check that only Pydantic can make."""
    if is_list(inner := getattr(one, "metadata", None)):  # a Field
        return any(map(needs_pydantic, inner))
    names = {name for name in dir(one) if not name.startswith("_")} - {*_LIMITS, "unit"}
    is_theirs = type(one).__module__.startswith(("annotated_types", "pydantic"))
    has_hook = hasattr(one, "__get_pydantic_core_schema__")
    return has_hook or (is_theirs and any(getattr(one, name) for name in names))


def note_in(metadata: Sequence[Any]) -> str:
    """The last description in the metadata of Annotated, or ""."""
    for one in reversed(metadata):
        for text in (one, getattr(one, "description", None), getattr(one, "documentation", None)):
            if isinstance(text, str):
                return text
    return ""
