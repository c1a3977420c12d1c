"""The settings of a client, checked: what can't work is refused before anything is sent.

No message shows the key, nor the value of a header.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .codec import is_list, is_mapping
from .errors import ConfigError, shown_url

if TYPE_CHECKING:  # to make these classes takes longer than the rest of the module
    from typing import TypedDict

    import requests

    class SharedSettings(TypedDict, total=False):
        """What OpenAIClient() and OpenAIClient.azure() both take, as OpenAIClient says."""

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
        """All that OpenAIClient takes."""

        api_key: str | Callable[[], str] | None
        base_url: str | None


KEY_HEADERS = frozenset({"authorization", "api-key"})
_TIMEOUT = (10.0, 600.0)  # to connect, and between two reads, in seconds


def set_or_given(name: str, value: object, variable: str) -> str:
    """A setting that is needed, else the variable of the environment."""
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{name} must be text, not {type(value).__name__}")
    found = (value or "").strip() or os.environ.get(variable, "").strip()
    if not found:
        raise ConfigError(f"no {name}: pass {name}=..., or set {variable}")
    return found


def with_headers(own: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """Headers, of which the later win; names are the same in upper and lower case."""
    named = {str(name).lower() for name in added}
    return {name: own[name] for name in own if str(name).lower() not in named} | dict(added)


def with_new_key(own: Mapping[str, str], key: object) -> dict[str, str]:
    """The client's own headers without the old key, and with the new one if it goes there."""
    kept = {name: value for name, value in own.items() if name.lower() not in KEY_HEADERS}
    in_header = "api-key" in map(str.lower, own)
    return kept | {"api-key": key} if in_header and isinstance(key, str) and key.strip() else kept


def check_texts(**settings: object) -> None:
    for name, value in settings.items():
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{name} must be text, not {type(value).__name__}")


def check_mappings(**settings: object) -> None:
    for name, value in settings.items():
        if value is None or (name == "headers" and is_mapping(value)):
            continue  # each header is looked at by itself
        if not is_mapping(value) or not all(isinstance(text, str) for text in value.values()):
            raise ConfigError(f"{name} must map names to text")


def checked_base_url(url: object) -> tuple[str, dict[str, str]]:
    """The base URL without its tail, and the query that stood in it."""
    from urllib.parse import parse_qsl, urlsplit

    if not isinstance(url, str):
        raise ConfigError(f"base_url must be text, not {type(url).__name__}")
    url = url.strip()
    if "@" in url.partition("?")[0]:
        raise ConfigError("base_url may not hold a user or password: use headers= or session=")
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"base_url is not a URL: {shown_url(url)!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"base_url must start with http:// or https://: {shown_url(url)!r}")
    if any(character <= " " or character in "\x7f\\" or character.isspace() for character in url):
        raise ConfigError(f"base_url holds a blank or control character: {shown_url(url)!r}")
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return f"{parts.scheme}://{parts.netloc}{path}", query


def host_of(base_url: str) -> str:
    return base_url.split("/")[2].lower().partition(":")[0]


def checked_key(key: object) -> str | None:
    """The key without white space around it; None for none. No message shows it."""
    if key is None:
        return None
    if not isinstance(key, str):
        raise ConfigError(f"api_key must be text, not {type(key).__name__}")
    key = key.strip()
    for position, character in enumerate(key):
        if not "!" <= character <= "~":
            raise ConfigError(
                f"api_key: the character at position {position} is {_described(character)}, "
                "which no key has: copy it again"
            )
    return key or None


def _described(character: str) -> str:
    import unicodedata

    name = unicodedata.name(character, "a control character")
    return f"U+{ord(character):04X} ({name})"


def checked_name(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):
        raise ConfigError(f"not a header name: {name!r}")
    return name


def checked_value(name: str, value: object) -> str:
    """A header's value without white space around it. No message shows it."""
    if not isinstance(value, str):
        raise ConfigError(f"header {name} must be text, not {type(value).__name__}")
    value = value.strip(" \t")
    if value[:1].isspace():
        raise ConfigError(f"header {name}: begins with {_described(value[0])}")
    for position, character in enumerate(value):
        if (character < " " and character != "\t") or character == "\x7f" or character > "\xff":
            raise ConfigError(
                f"header {name}: the character at position {position} is {_described(character)}, "
                "which no header can hold"
            )
    return value


def checked_timeout(timeout: object) -> tuple[float | None, float | None]:
    if timeout is None:
        return _TIMEOUT
    pair = timeout if is_list(timeout) else (timeout, timeout)
    if len(pair) != 2:
        raise ConfigError(f"timeout must be seconds, or (connect, read), not {timeout!r}")
    connect, read = (
        default if value is None else checked_seconds("timeout", value)
        for value, default in zip(pair, _TIMEOUT, strict=True)
    )
    return connect, read


def checked_seconds(name: str, value: object) -> float | None:
    """Seconds, or None for no limit."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(f"{name} must be seconds, more than 0, not {value!r}")
    return None if value > threading.TIMEOUT_MAX else value  # more no system can count


def check_certificates(verify: object, cert: object) -> None:
    if not (verify is None or isinstance(verify, (bool, str))):
        kind = type(verify).__name__
        raise ConfigError(f"verify must be True, False or the path of a CA bundle, not {kind}")
    files = cert if is_list(cert) else (cert,)
    usable = len(files) in (1, 2) and all(isinstance(file, str) for file in files)
    if cert is not None and not usable:
        raise ConfigError("cert must be the path of a client certificate, or (certificate, key)")


def checked_count(name: str, value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ConfigError(f"{name} must be 0 or more, not {value!r}")
    return value
