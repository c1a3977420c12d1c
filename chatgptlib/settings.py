"""Completes and checks the settings of a client and the paths of requests before sending.

No error message shows the key or the value of a header.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .codec import is_list, is_mapping
from .errors import ConfigError
from .redaction import shown_url

if TYPE_CHECKING:  # creating these classes takes longer than the rest of the module
    from typing import TypedDict

    import requests

    class SharedSettings(TypedDict, total=False):
        """The settings of both OpenAIClient() and OpenAIClient.azure(); see OpenAIClient."""

        organization: str | None
        project: str | None
        timeout: float | tuple[float, float] | None
        deadline: float | None
        max_retries: int
        headers: Mapping[str, str] | None
        query: Mapping[str, str] | None
        verify: bool | str | None
        cert: str | tuple[str, str] | None
        proxies: Mapping[str, str] | None
        session: requests.Session | None
        max_response_bytes: int

    class ClientSettings(SharedSettings, total=False):
        """All settings of OpenAIClient."""

        api_key: str | Callable[[], str] | None
        base_url: str | None


# Settings that are used as they are: their types, and what the error says that they must be.
_TYPES: dict[str, tuple[Any, str]] = {
    "headers": (Mapping, "map names to text"),
    "query": (Mapping, "map names to text"),
    "proxies": (Mapping, "map schemes to URLs"),
    "verify": ((bool, str), "be True, False or the path of a CA bundle"),
    "cert": ((str, tuple, list), "be the path of a client certificate, or (certificate, key)"),
}
_BASE_URL = r"https?://([\w.-]+|\[[\w:.%]+\])(:0*[1-9][0-9]*)?(/[^\s\x00-\x1f\x7f@\\]*)?"
_NOT_IN_A_PATH = r"^//|^[a-z][a-z0-9+.-]*://|[#\\\s\x00-\x1f\x7f-\x9f\ud800-\udfff]"
_KEY_HEADERS = frozenset({"authorization", "api-key"})
NO_KEY = (
    "no API key: set the environment variable OPENAI_API_KEY, or pass api_key=..., "
    "or base_url=... of a server that needs none"
)
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 600.0
_LONGEST_SECONDS = 2_000_000  # poll() takes milliseconds, in 31 bits


def with_environment(settings: ClientSettings) -> ClientSettings:
    """The settings, with values from the environment in place of None."""
    key, url = settings.get("api_key"), settings.get("base_url")
    organization, project = settings.get("organization"), settings.get("project")
    if key is None:
        key = from_env("OPENAI_API_KEY") or from_env("OPENAI_ADMIN_KEY")
    return {
        **settings,
        "api_key": key,
        "base_url": url or from_env("OPENAI_BASE_URL") or "https://api.openai.com/v1",
        "organization": from_env("OPENAI_ORG_ID") if organization is None else organization,
        "project": from_env("OPENAI_PROJECT_ID") if project is None else project,
    }


def required_setting(name: str, value: str | None, variable: str) -> str:
    """A setting, or the environment variable for it. Raises ConfigError if both are empty."""
    found = checked_text(name, value or "").strip() or from_env(variable)
    if not found:
        raise ConfigError(f"no {name}: pass {name}=..., or set {variable}")
    return found


def from_env(name: str) -> str:
    """The value of an environment variable; "" if it is not set."""
    return os.environ.get(name, "").strip()


def client_headers(settings: ClientSettings, user_agent: str) -> dict[str, str]:
    """The headers of every request. The user's own replace those of the same name."""
    found = {"User-Agent": user_agent}
    if organization := _checked_value("organization", settings.get("organization")):
        found["OpenAI-Organization"] = organization
    if project := _checked_value("project", settings.get("project")):
        found["OpenAI-Project"] = project
    given = settings.get("headers") or {}
    own = {_checked_name(name): _checked_value(name, value) for name, value in given.items()}
    return with_headers(found, own)


def client_query(own: Mapping[str, str], in_url: Mapping[str, str]) -> dict[str, str]:
    """The query of every request. Raises ConfigError for text that no URL can hold."""
    from urllib.parse import urlencode

    found = {**in_url, **own}
    try:
        urlencode(found)
    except UnicodeEncodeError as error:
        raise ConfigError(f"query cannot be sent: {error}") from None  # `error` has the value
    return found


def with_headers(own: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """`own` headers and `added` ones, which replace those of the same name in any case."""
    replaced = {str(name).lower() for name in added}
    return {name: own[name] for name in own if str(name).lower() not in replaced} | dict(added)


def key_to_send(
    settings: ClientSettings, headers: Mapping[str, str], base_url: str
) -> str | Callable[[], str] | None:
    """The key, or the function that returns it; None if a header has it or none is needed."""
    key = settings.get("api_key")
    found = key if callable(key) else checked_key(key)
    if not _KEY_HEADERS.isdisjoint(map(str.lower, headers)):
        return None
    if found is None and re.match("https?://api[.]openai[.]com(?![^:/])", base_url, re.I):
        raise ConfigError(NO_KEY)
    return found


def changed_settings(settings: ClientSettings, changes: ClientSettings) -> ClientSettings:
    """The settings for a copy of a client; see OpenAIClient.with_options."""
    check_types(changes)
    headers: Mapping[str, Any] = settings.get("headers") or {}
    if (key := changes.get("api_key")) is not None:  # replaces the old one
        in_header = "api-key" in map(str.lower, headers) and isinstance(key, str) and key.strip()
        kept = {name: headers[name] for name in headers if name.lower() not in _KEY_HEADERS}
        headers = {**kept, "api-key": key} if in_header else kept
    return {
        **settings,
        **changes,
        "headers": with_headers(headers, changes.get("headers") or {}),
        "query": {**(settings.get("query") or {}), **(changes.get("query") or {})},
    }


# Checks


def check_types(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError if one of the settings in `_TYPES` has another type."""
    for name, (types, meaning) in _TYPES.items():
        value = settings.get(name)
        parts = value.values() if is_mapping(value) else value if is_list(value) else ()
        # client_headers() checks each header, and its errors name the header.
        fits = name == "headers" or all(isinstance(part, str) for part in parts)
        if value is not None and not (isinstance(value, types) and fits):
            raise ConfigError(f"{name} must {meaning}")


def checked_base_url(url: object) -> tuple[str, dict[str, str]]:
    """The base URL without `/chat/completions` at its end, and the query in it."""
    from urllib.parse import parse_qsl

    url, _, query = checked_text("base_url", url).partition("#")[0].strip().partition("?")
    if not re.fullmatch(_BASE_URL, url, re.IGNORECASE):
        # The message does not show the URL, which may hold a password or a key.
        raise ConfigError(
            "base_url must be http:// or https://, a host, a port if needed, and a path, as in "
            "http://localhost:8000/v1. For a user and password, use headers= or session="
        )
    url = url.rstrip("/").removesuffix("/chat/completions")
    return url, dict(parse_qsl(query, keep_blank_values=True))


def checked_text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be text, not {type(value).__name__}")
    return value


def checked_key(key: object) -> str | None:
    """The key; None if it is None or blank."""
    if key is None:
        return None
    return _sendable("api_key", checked_text("api_key", key).strip(), "[^!-~]") or None


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):
        shown = repr(name) if not isinstance(name, str) or len(name) < 20 else "a long text"
        raise ConfigError(f"not a header name: {shown}")
    return name


def _checked_value(name: str, value: object) -> str:
    text = checked_text(f"header {name}", value).strip(" \t")
    return _sendable(f"header {name}", text, r"^\s|[^\t\x20-\x7e\x80-\xff]")


def _sendable(name: str, text: str, forbidden: str) -> str:
    """Return `text`. Raises ConfigError if it has a character that matches `forbidden`."""
    if found := re.search(forbidden, text):
        import unicodedata

        which = f"U+{ord(found[0]):04X} ({unicodedata.name(found[0], 'a control character')})"
        raise ConfigError(
            f"{name}: the character at position {found.start()} is {which}, which cannot be sent. "
            "Copy the value again"
        )
    return text


def checked_timeout(timeout: object) -> tuple[float | None, float | None]:
    """The seconds to wait for a connection, and between two reads; None for no limit."""
    pair = timeout if is_list(timeout) else (timeout, timeout)
    if len(pair) != 2:
        raise ConfigError(f"timeout must be seconds, or (connect, read), not {timeout!r}")
    connect, read = pair
    return (
        checked_seconds("timeout", _CONNECT_SECONDS if connect is None else connect),
        checked_seconds("timeout", _READ_SECONDS if read is None else read),
    )


def checked_seconds(name: str, value: object) -> float | None:
    """Seconds, or None for no limit."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(f"{name} must be seconds, more than 0, not {value!r}")
    return None if value > _LONGEST_SECONDS else value


def checked_count(name: str, value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ConfigError(f"{name} must be 0 or more, not {value!r}")
    return value


# Paths. Whatever a path holds, the request goes to the host of base_url, which gets the key.


def checked_path(path: object) -> str:
    """A path, quoted. Raises ConfigError if it could lead outside of base_url."""
    from urllib.parse import quote, unquote

    path = checked_text("path", path)
    # A quoted dot is still read as the segment "..".
    segments = re.split(r"[/\\]", unquote(path.partition("?")[0]))
    if re.search(_NOT_IN_A_PATH, path, re.IGNORECASE) or {".", ".."} & {*segments}:
        raise ConfigError(
            "a path is relative to base_url, with no '.' or '..' segment, fragment, backslash, "
            f"blank or control character: {shown_url(path)!r}"
        )
    return re.sub("[^!-~]+", lambda found: quote(found[0]), path)


def path_segment(name: str, value: object) -> str:
    """A value, quoted as one segment of a path. Raises ConfigError if that is not possible."""
    from urllib.parse import quote

    if isinstance(value, str) and value not in ("", ".", ".."):
        try:
            return quote(value, safe="")
        except UnicodeEncodeError:
            pass  # a lone surrogate
    raise ConfigError(f"not a usable {name}: {value!r}")


def with_query(path: str, query: str) -> str:
    """Add a query to `path`, which may have one already."""
    return f"{path}{'&' if '?' in path else '?'}{query}" if query else path
