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


def whole_path(path: str, query: Mapping[str, Any] | None) -> str:
    """A path with its query, as the user gave both. Raises ConfigError for what can't be."""
    return with_query(checked_path(path), query_text(query))


def query_text(query: Mapping[str, Any] | None) -> str:
    """A query as a URL has it, None left out. Raises ConfigError for what can't be."""
    from urllib.parse import urlencode

    if query is not None and not is_mapping(query):
        raise ConfigError(f"query must be a mapping, not {type(query).__name__}")
    try:
        return urlencode(list(_query_pairs(query or {})))
    except UnicodeEncodeError as error:
        raise ConfigError(f"query cannot be sent: {error}") from None  # it holds the value


def with_query(path: str, query: str) -> str:
    """`path`, which may have a query already, with this one too."""
    return f"{path}{'&' if '?' in path else '?'}{query}" if query else path


def checked_path(path: object) -> str:
    """A path as it can be sent. Raises ConfigError for one that leads anywhere else."""
    from urllib.parse import quote, unquote

    if not isinstance(path, str):
        raise ConfigError(f"a path is text, not {type(path).__name__}")
    if path.startswith("//") or re.match("[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise ConfigError(f"a path is relative to base_url: {shown_url(path)!r}")
    if "#" in path:
        raise ConfigError(f"a path has no fragment: {shown_url(path)!r}")
    if re.search(r"[\x00-\x20\x7f-\x9f\\\ud800-\udfff]|\s", path):
        raise ConfigError(
            f"a path has no backslashes, blanks or control characters: {shown_url(path)!r}"
        )
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


def _query_pairs(query: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in query.items():
        if not is_mapping(value):
            yield from _pairs_of(name, value)
            continue
        for inner, item in value.items():
            yield from _pairs_of(f"{name}[{inner}]", item)


def _pairs_of(name: object, value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(name, str):
        raise ConfigError(f"query: a name is text, not {type(name).__name__}")
    for item in value if is_list(value) else (value,):
        plain = item.value if isinstance(item, Enum) else item
        if isinstance(plain, bool):
            plain = str(plain).lower()
        if plain is not None and not isinstance(plain, (str, int, float)):
            raise ConfigError(f"query: {name} cannot be of type {type(plain).__name__}")
        if plain is not None:
            yield name, str(plain)
