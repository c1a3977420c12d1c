"""Paths under the base URL, and the queries after them.

An id in a path may come from elsewhere. Whatever is in it, the request goes to the host
that the key is for, and to the endpoint that was meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from .codec import is_list, is_mapping
from .errors import ConfigError, shown_url

# What a path does not have, and how to find it there.
_FAULTS = {
    "is relative to base_url": r"^//|^[A-Za-z][A-Za-z0-9+.-]*://",
    "has no fragment": r"#",
    "has no backslashes, blanks or control characters": r"[\x00-\x20\x7f-\x9f\\\ud800-\udfff]|\s",
}


def whole_path(path: str, query: Mapping[str, Any] | None) -> str:
    """A path with its query, as the user gave both. Raises ConfigError for what can't be."""
    return with_query(checked_path(path), query_text(query))


def checked_path(path: object) -> str:
    """A path as it can be sent. Raises ConfigError for one that leads anywhere else."""
    from urllib.parse import quote, unquote

    if not isinstance(path, str):
        raise ConfigError(f"a path is text, not {type(path).__name__}")
    for rule, fault in _FAULTS.items():
        if re.search(fault, path):
            raise ConfigError(f"a path {rule}: {shown_url(path)!r}")
    # Dots can't be quoted: they would be read as steps up the path all the same.
    steps = re.split(r"[/\\]", unquote(path.partition("?")[0]))
    if "." in steps or ".." in steps:
        raise ConfigError(f"a path has no steps up or in place: {shown_url(path)!r}")
    return re.sub("[^!-~]+", lambda found: quote(found[0]), path)


def path_step(name: str, value: object) -> str:
    """A value as one step of a path, whatever is in it. Raises ConfigError for what can't be."""
    from urllib.parse import quote

    if isinstance(value, str) and value not in ("", ".", ".."):
        try:
            return quote(value, safe="")
        except UnicodeEncodeError:
            pass  # half a character
    raise ConfigError(f"not a usable {name}: {value!r}")


def with_query(path: str, query: str) -> str:
    """`path`, which may have a query already, with this one too."""
    return f"{path}{'&' if '?' in path else '?'}{query}" if query else path


def query_text(query: Mapping[str, Any] | None) -> str:
    """A query as a URL has it, None left out. Raises ConfigError for what can't be."""
    from urllib.parse import urlencode

    if query is not None and not is_mapping(query):
        raise ConfigError(f"query must be a mapping, not {type(query).__name__}")
    try:
        return urlencode(list(_query_pairs(query or {})))
    except UnicodeEncodeError as error:
        raise ConfigError(f"query cannot be sent: {error}") from None  # it holds the value


def _query_pairs(query: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    for name, value in query.items():
        if not isinstance(name, str):
            raise ConfigError(f"query: a name is text, not {type(name).__name__}")
        named = (
            {f"{name}[{k}]": v for k, v in value.items()} if is_mapping(value) else {name: value}
        )
        for key, item in named.items():
            for one in item if is_list(item) else (item,):
                if (text := _query_value(key, one)) is not None:
                    yield key, text


def _query_value(name: str, value: Any) -> str | None:
    plain = value.value if isinstance(value, Enum) else value
    if isinstance(plain, bool):
        return str(plain).lower()
    if plain is not None and not isinstance(plain, (str, int, float)):
        raise ConfigError(f"query: {name} cannot be of type {type(plain).__name__}")
    return None if plain is None else str(plain)
