"""What a user gives a client, checked before anything is sent: its settings, and paths.

No message shows the key, nor the value of a header.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
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


# What a path does not have, and how to find it there.
_FAULTS = {
    "is relative to base_url": r"^//|^[A-Za-z][A-Za-z0-9+.-]*://",
    "has no fragment": r"#",
    "has no backslashes, blanks or control characters": r"[\x00-\x20\x7f-\x9f\\\ud800-\udfff]|\s",
}
_KEY_HEADERS = frozenset({"authorization", "api-key"})
NO_KEY = (
    "no API key: set the environment variable OPENAI_API_KEY, or pass api_key=..., "
    "or base_url=... of a server that needs none"
)
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 600.0


def completed(settings: ClientSettings) -> ClientSettings:
    """The settings, with what is None taken from the environment where it says something."""
    key, url = settings.get("api_key"), settings.get("base_url")
    organization, project = settings.get("organization"), settings.get("project")
    if key is None:
        key = variable("OPENAI_API_KEY") or variable("OPENAI_ADMIN_KEY")
    return {
        **settings,
        "api_key": key,
        "base_url": url or variable("OPENAI_BASE_URL") or "https://api.openai.com/v1",
        "organization": variable("OPENAI_ORG_ID") if organization is None else organization,
        "project": variable("OPENAI_PROJECT_ID") if project is None else project,
    }


def needed(name: str, value: str | None, name_of_variable: str) -> str:
    """A setting that is needed, else the variable of the environment."""
    found = checked_text(name, value or "").strip() or variable(name_of_variable)
    if not found:
        raise ConfigError(f"no {name}: pass {name}=..., or set {name_of_variable}")
    return found


def variable(name: str) -> str:
    return os.environ.get(name, "").strip()


def all_headers(settings: ClientSettings, user_agent: str) -> dict[str, str]:
    """The headers of every request, of which the user's own win."""
    found = {"User-Agent": user_agent}
    if organization := _checked_value("organization", settings.get("organization")):
        found["OpenAI-Organization"] = organization
    if project := _checked_value("project", settings.get("project")):
        found["OpenAI-Project"] = project
    given = settings.get("headers") or {}
    own = {_checked_name(name): _checked_value(name, value) for name, value in given.items()}
    return with_headers(found, own)


def all_query(own: Mapping[str, str], in_url: Mapping[str, str]) -> dict[str, str]:
    """The query of every request. Raises ConfigError for what no URL can hold."""
    from urllib.parse import urlencode

    found = {**in_url, **own}
    try:
        urlencode(found)
    except UnicodeEncodeError as error:
        raise ConfigError(f"query cannot be sent: {error}") from None  # it holds the value
    return found


def with_headers(own: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """Headers, of which the later win; names are the same in upper and lower case."""
    named = {str(name).lower() for name in added}
    return {name: own[name] for name in own if str(name).lower() not in named} | dict(added)


def has_key(headers: Mapping[str, str]) -> bool:
    return not _KEY_HEADERS.isdisjoint(map(str.lower, headers))


def key_to_send(
    settings: ClientSettings, headers: Mapping[str, str], base_url: str
) -> str | Callable[[], str] | None:
    """The key, or what gives it; None where a header has one, or none is needed."""
    key = settings.get("api_key")
    found = key if callable(key) else checked_key(key)
    if has_key(headers):
        return None
    if found is None and re.match("https?://api[.]openai[.]com(?![^:/])", base_url, re.I):
        raise ConfigError(NO_KEY)
    return found


def changed(settings: ClientSettings, changes: ClientSettings) -> ClientSettings:
    """The settings of a copy, as OpenAIClient.with_options says."""
    check_kinds(changes)
    headers: Mapping[str, Any] = settings.get("headers") or {}
    if (key := changes.get("api_key")) is not None:  # it goes where the old one went
        in_header = "api-key" in map(str.lower, headers) and isinstance(key, str) and key.strip()
        kept = {name: headers[name] for name in headers if name.lower() not in _KEY_HEADERS}
        headers = {**kept, "api-key": key} if in_header else kept
    return {
        **settings,
        **changes,
        "headers": with_headers(headers, changes.get("headers") or {}),
        "query": {**(settings.get("query") or {}), **(changes.get("query") or {})},
    }


def secrets_in(key: object, query: Mapping[str, str], headers: Mapping[str, str]) -> Iterator[str]:
    """What works like a key: no message may show it."""
    from urllib.parse import quote, quote_plus

    if isinstance(key, str):
        yield key
    # A parameter in a query may be a key however it is called.
    found = [value for name, value in query.items() if name != "api-version"]
    secret = re.compile("(?i)auth|key|token|secret|password|cookie|sig")
    found += [value for name, value in headers.items() if secret.search(name)]
    for value in found:
        yield from (value, quote(value, safe=""), quote_plus(value))
        yield value.rpartition(" ")[2]  # what follows "Bearer" or "Basic"


# Checked


def check_kinds(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for a setting of a wrong type, of those that are used as they are."""
    for name in ("headers", "query", "proxies"):
        value = settings.get(name)
        if value is None or (name == "headers" and is_mapping(value)):
            continue  # each header is checked by itself
        if not is_mapping(value) or not all(
            isinstance(text, str) for pair in value.items() for text in pair
        ):
            raise ConfigError(f"{name} must map names to text")
    verify, cert = settings.get("verify"), settings.get("cert")
    if not (verify is None or isinstance(verify, (bool, str))):
        kind = type(verify).__name__
        raise ConfigError(f"verify must be True, False or the path of a CA bundle, not {kind}")
    files = cert if is_list(cert) else (cert,)
    if cert is not None and not (len(files) in (1, 2) and all(isinstance(f, str) for f in files)):
        raise ConfigError("cert must be the path of a client certificate, or (certificate, key)")


def checked_base_url(url: object) -> tuple[str, dict[str, str]]:
    """The base URL without its tail, and the query that stood in it."""
    from urllib.parse import parse_qsl, urlsplit

    url = checked_text("base_url", url).strip()
    if "@" in url.partition("?")[0]:
        raise ConfigError("base_url may not hold a user or password: use headers= or session=")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # whose text repeats what may be a key
        raise ConfigError("base_url is not a URL: its host or port can't be read") from None
    if parts.scheme not in ("http", "https") or not host:
        shown = f": {shown_url(url)!r}" if "://" in url else ""
        raise ConfigError(f"base_url must start with http:// or https://{shown}")
    if re.search(r"[\x00-\x20\x7f\\]|\s", url):
        raise ConfigError(f"base_url holds a blank or control character: {shown_url(url)!r}")
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return f"{parts.scheme}://{parts.netloc}{path}", query


def checked_text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be text, not {type(value).__name__}")
    return value


def checked_key(key: object) -> str | None:
    """The key; None for none."""
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


def _sendable(name: str, text: str, refused: str) -> str:
    """`text`, in which nothing matches `refused`."""
    if found := re.search(refused, text):
        import unicodedata

        which = f"U+{ord(found[0]):04X} ({unicodedata.name(found[0], 'a control character')})"
        raise ConfigError(
            f"{name}: the character at position {found.start()} is {which}, which can't be sent: "
            "copy it again"
        )
    return text


def checked_timeout(timeout: object) -> tuple[float | None, float | None]:
    """The limits on connecting, and between two reads, in seconds; None for no limit."""
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
    return None if value > threading.TIMEOUT_MAX else value  # more no system can count


def checked_count(name: str, value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ConfigError(f"{name} must be 0 or more, not {value!r}")
    return value


# Paths: whatever is in one, the request goes to the host that the key is for


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
