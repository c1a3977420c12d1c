"""`OpenAIClient`: settings, the key, any endpoint, and when to try again.

Every request goes through `send`, which returns an answer with a good status or raises.
https://platform.openai.com/docs/api-reference/introduction
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from .answers import answer_value, refusal
from .codec import encode, members
from .errors import (
    APIError,
    ConfigError,
    HTTPError,
    OpenAIError,
    QuotaExceededError,
    shown_url,
)
from .transport import Answer, Transport

if TYPE_CHECKING:
    import requests

    from .events import EventStream

__version__ = "0.1.0"

_OFFICIAL_HOST = "api.openai.com"
_OFFICIAL_URL = "https://api.openai.com/v1"
_TIMEOUT = (10.0, 600.0)  # to connect, and between two reads, in seconds
_LONGEST_WAIT = 60.0  # a server that asks for more is not waited for
_RETRIED_STATUS = frozenset({408, 409, 429})
_KEY_HEADERS = frozenset({"authorization", "api-key"})

_JSON = "application/json"
_ANYTHING = "application/json, */*"
EVENT_STREAM = "text/event-stream"

_log = logging.getLogger(__name__)


class OpenAIClient:
    """Where requests go, with which key, and how long to wait.

    One client serves any number of threads, and survives a fork. It keeps connections
    open between calls; `close()`, or a `with` block, closes them. Its repr and its
    errors never show the key, but a pickled client holds it.

    api_key: the key, or a function that returns it, called for each request. Given
        neither it nor OPENAI_API_KEY nor OPENAI_ADMIN_KEY, no key is sent, which is an
        error for api.openai.com alone.
    base_url: where the API is, up to and with `/v1`; else OPENAI_BASE_URL, else OpenAI.
    organization, project: else OPENAI_ORG_ID, OPENAI_PROJECT_ID; "" for none.
    timeout: seconds to wait for a connection and then between two reads, together or as
        a pair; 10 and 600 if None, no limit if `math.inf`.
    deadline: seconds a call may take in all: tries, waits and the stream; None for no
        limit. (Looking a name up can't be cut short; each of a host's addresses has the
        connect timeout to itself.)
    max_retries: how often a call is tried again where that is safe: no connection, 408,
        409, 429 and 5xx, after the wait the server asks for, up to 60 s.
    headers, query: sent with every request. A header `Authorization` or `api-key` (Azure)
        replaces the key.
    verify, proxies: as in `requests`; what is given here wins over the environment.
    session: a `requests.Session` to send through, with all its own settings.

    Raises ConfigError for settings that can't work.
    """

    sleep = staticmethod(time.sleep)  # for tests, which wait for nothing

    def __init__(
        self,
        api_key: str | Callable[[], str] | None = None,
        *,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        timeout: float | tuple[float, float] | None = None,
        deadline: float | None = None,
        max_retries: int = 2,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        verify: bool | str | None = None,
        proxies: Mapping[str, str] | None = None,
        session: requests.Session | None = None,
    ) -> None:
        _check_kinds(headers=headers, query=query, proxies=proxies)
        for name, text in (("organization", organization), ("project", project)):
            if text is not None and not isinstance(text, str):
                raise ConfigError(f"{name} must be text, not {type(text).__name__}")
        environment = os.environ.get
        if api_key is None:
            api_key = environment("OPENAI_API_KEY", "").strip() or environment("OPENAI_ADMIN_KEY")
        base_url = base_url or environment("OPENAI_BASE_URL", "").strip() or _OFFICIAL_URL
        if organization is None:
            organization = environment("OPENAI_ORG_ID", "")
        if project is None:
            project = environment("OPENAI_PROJECT_ID", "")

        self.base_url, in_url = _checked_base_url(base_url)
        self.timeout = _checked_timeout(timeout)
        self.deadline = _checked_seconds("deadline", deadline) if deadline is not None else None
        if not isinstance(max_retries, int) or max_retries < 0:
            raise ConfigError(f"max_retries must be 0 or more, not {max_retries!r}")
        self.max_retries = max_retries
        self._api_key = api_key if callable(api_key) else _checked_key(api_key)
        self._query = {**in_url, **(query or {})}
        own = {_checked_name(name): _checked_value(name, v) for name, v in (headers or {}).items()}
        named = {name.lower() for name in own}
        if named & _KEY_HEADERS:
            api_key, self._api_key = "", None
        self.sends_key = self._api_key is not None or bool(named & _KEY_HEADERS)
        if not self.sends_key and _host(self.base_url) == _OFFICIAL_HOST:
            raise ConfigError(
                "no API key: set the environment variable OPENAI_API_KEY, or pass api_key=..., "
                "or base_url=... of a server that needs none"
            )
        self._headers = {"User-Agent": f"chatgptlib/{__version__}"}
        if organization.strip():
            self._headers["OpenAI-Organization"] = _checked_value("organization", organization)
        if project.strip():
            self._headers["OpenAI-Project"] = _checked_value("project", project)
        self._headers = {k: v for k, v in self._headers.items() if k.lower() not in named} | own
        self._secrets = tuple(filter(_is_secret, self._hidden(own)))
        self._path: str | None = None
        self._settings: dict[str, Any] = {
            "api_key": api_key,
            "base_url": base_url,
            "organization": organization,
            "project": project,
            "timeout": timeout,
            "deadline": deadline,
            "max_retries": max_retries,
            "headers": headers,
            "query": query,
            "verify": verify,
            "proxies": proxies,
            "session": session,
        }
        self.transport = Transport(session, verify, proxies)
        self._templates: dict[tuple[str, str, str], Any] = {}

    def _hidden(self, headers: Mapping[str, str]) -> Iterator[str]:
        """The settings that no message may show: the key, and what works like one."""
        if isinstance(self._api_key, str):
            yield self._api_key
        from urllib.parse import quote, quote_plus

        for name, value in (*headers.items(), *self._query.items()):
            if re.search("(?i)auth|key|token|secret|password|cookie|sig", name):
                yield from (value, quote(value, safe=""), quote_plus(value))
                yield value.rpartition(" ")[2]  # what follows "Bearer" or "Basic"

    @classmethod
    def azure(
        cls,
        endpoint: str | None = None,
        *,
        deployment: str,
        api_version: str | None = None,
        api_key: str | Callable[[], str] | None = None,
        **settings: Any,
    ) -> OpenAIClient:
        """A client for one deployment of Azure OpenAI.

        endpoint: `https://NAME.openai.azure.com`; else AZURE_OPENAI_ENDPOINT.
        api_version: as `2024-10-21`; else OPENAI_API_VERSION.
        api_key: the key, else AZURE_OPENAI_API_KEY; or a function that returns a token of
            Entra ID, called for each request.
        settings: any other setting of OpenAIClient.

        Nothing that is meant for OpenAI is sent: not OPENAI_API_KEY, nor the organization
        and project of the environment. What Azure's content filter says is in `.extra` of
        the response, its choices and chunks. The endpoints without deployments and
        versions need no more than `OpenAIClient(key, base_url=f"{endpoint}/openai/v1")`.

        Raises ConfigError for settings that are missing, or can't work.
        https://learn.microsoft.com/azure/ai-services/openai/reference
        """
        endpoint = _set_or_given("endpoint", endpoint, "AZURE_OPENAI_ENDPOINT").rstrip("/")
        if "?" in endpoint or "#" in endpoint:
            raise ConfigError(f"endpoint has neither query nor fragment: {shown_url(endpoint)!r}")
        version = _set_or_given("api_version", api_version, "OPENAI_API_VERSION")
        headers, query = settings.pop("headers", None) or {}, settings.pop("query", None) or {}
        _check_kinds(headers=headers, query=query)
        if not callable(api_key):
            key = _checked_key(_set_or_given("api_key", api_key, "AZURE_OPENAI_API_KEY"))
            headers, api_key = _with_headers(headers, {"api-key": key}), ""
        return cls(
            api_key,
            base_url=f"{endpoint}/openai/deployments/{path_step('deployment', deployment)}",
            headers=headers,
            query={**query, "api-version": version},
            **{"organization": "", "project": "", **settings},
        )

    def with_options(self, *, path: str | None = None, **changes: Any) -> OpenAIClient:
        """A client that differs in these settings and shares the connections.

        For one call or many: `create_chat_completion(client.with_options(timeout=5), ...)`.
        `headers` and `query` are added to the client's own, in place of those of the same
        name; any other setting is replaced. A new `api_key` goes where the old one went.
        `path`, under the base URL, takes the place of a function's own path.

        Raises TypeError for what is no setting, ConfigError for what can't work.
        """
        unknown = changes.keys() - self._settings.keys()
        if unknown:
            raise TypeError(f"with_options() got unknown settings: {', '.join(sorted(unknown))}")
        settings = self._settings | changes
        headers, query = changes.get("headers") or {}, changes.get("query") or {}
        _check_kinds(headers=headers, query=query)
        own = self._settings["headers"] or {}
        if changes.get("api_key") is not None:
            own = _with_new_key(own, changes["api_key"])
        settings["headers"] = _with_headers(own, headers)
        settings["query"] = {**(self._settings["query"] or {}), **query}
        other = type(self)(**settings)
        other._path = self._path if path is None else _checked_path(path)
        if not changes.keys() & {"session", "verify", "proxies"}:
            other.transport = self.transport
        return other

    # Every other endpoint

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Ask any endpoint of the API with GET: `client.get("models")`.

        path: under the base URL, as the API's pages have it: `"files/file-1/content"`.
        query: of its values, None is left out, a list is sent as the same key several
            times, and a mapping as `key[name]=value`.

        Returns the answer: JSON as dicts and lists, anything else (audio, the content of
        a file) as bytes, an empty one as None. It is sent and tried again as chat
        completions are.

        Raises ConfigError for what can't be sent, HTTPError when no whole answer came,
        APIError when the server refused, DeserializeError for an answer that should be
        JSON and is not.
        https://platform.openai.com/docs/api-reference
        """
        return self._ask("GET", path, query)

    def post(
        self,
        path: str,
        body: Any = None,
        *,
        files: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        """Ask any endpoint of the API with POST; arguments, answer and errors as for `get`.

            client.post("embeddings", {"model": "text-embedding-3-small", "input": "Hi"})
            client.post("files", {"purpose": "batch"}, files={"file": "batch.jsonl"})

        body: a mapping, a dataclass, or anything that JSON can say.
        files: sent as a form, together with the members of `body`, whose objects go as
            fields `name[key]` and whose lists as `name[]`. A file is a path, bytes, a
            file open in binary mode, or a tuple of file name, one of those, and perhaps a
            media type; or a list of such. It is read into memory, so that a retry sends
            the same. One that can't be read is a ConfigError.
        https://platform.openai.com/docs/api-reference
        """
        if files is None:
            return self._ask("POST", path, query, None if body is None else encode(body))
        from .forms import form_of

        values = {} if body is None else json.loads(encode(body))
        if not isinstance(values, dict):
            raise ConfigError(f"a form is a mapping or a dataclass, not {type(body).__name__}")
        form, content_type = form_of(values, files)
        return self._ask("POST", path, query, form, content_type)

    def delete(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Ask any endpoint of the API with DELETE; arguments, answer and errors as for `get`.

        https://platform.openai.com/docs/api-reference
        """
        return self._ask("DELETE", path, query)

    def stream(
        self, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None
    ) -> EventStream:
        """Ask any endpoint of the API with POST, and return its answer as a stream of events.

            with client.stream("responses", {"model": "gpt-4o-mini", "input": "Hi"}) as events:
                for event in events: ...

        The arguments are those of `post`; `"stream": true` is sent unless the body says
        otherwise. The request is sent, and a refusal raised, here; see EventStream for what
        iterating raises.
        https://platform.openai.com/docs/api-reference/responses-streaming
        """
        from .events import EventStream

        if dataclasses.is_dataclass(body) and not isinstance(body, type):
            body = members(body)
        if isinstance(body, Mapping):
            body = {"stream": True, **body}
        content = None if body is None else encode(body)
        return EventStream(
            send(self, "POST", _whole_path(path, query), content, accept=EVENT_STREAM)
        )

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: bytes | None = None,
        content_type: str | None = None,
    ) -> Any:
        whole = _whole_path(path, query)
        return answer_value(
            send(self, method, whole, body, accept=_ANYTHING, content_type=content_type)
        )

    def close(self) -> None:
        """Close the connections that are kept open. The client can still be used."""
        self.transport.close()

    def __enter__(self) -> OpenAIClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self._settings, "path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["settings"])  # type: ignore[misc]
        self._path = state["path"]

    # What `send` needs of a client; not for users.

    def template(self, method: str, path: str, accept: str) -> Any:
        """The part of a request that is the same every time, made at the first."""
        template = self._templates.get((method, path, accept))
        if template is not None:
            return template
        from urllib.parse import parse_qsl, urlencode

        asked = path
        if self._path is not None:  # in place of the function's own, whose query stays
            asked = _with_query(self._path, path.partition("?")[2])
        told = dict(parse_qsl(asked.partition("?")[2], keep_blank_values=True))
        rest = {name: value for name, value in self._query.items() if name not in told}
        url = _with_query(f"{self.base_url}/{asked.lstrip('/')}", urlencode(rest))
        headers = {"Accept": accept}
        if method == "POST":
            headers["Content-Type"] = _JSON
        # A stream not compressed, unless wished: a proxy that compresses holds events back.
        headers["Accept-Encoding"] = "identity" if accept == EVENT_STREAM else "gzip, deflate"
        headers = _with_headers(headers, self._headers)
        if len(self._templates) > 100:  # paths with ids in them
            self._templates.clear()
        template = self.transport.prepare(method, url, headers)
        self._templates[method, path, accept] = template
        return template

    def authorization(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """The header with the key, and the texts that no message may show."""
        if self._api_key is None:
            return {}, self._secrets
        key = self._api_key
        if callable(key):
            try:
                given = key()
            except Exception as error:
                raise ConfigError(f"api_key() raised {type(error).__name__}: {error}") from error
            fresh = _checked_key(given)
            if fresh is None:
                raise ConfigError("api_key() returned no key")
            return {"Authorization": f"Bearer {fresh}"}, (*self._secrets, fresh)
        return {"Authorization": f"Bearer {key}"}, self._secrets


# The one door to the network


def send(
    client: OpenAIClient,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    accept: str = _JSON,
    content_type: str | None = None,
) -> Answer:
    """Send a request, and again where that is safe; an answer whose status is good.

    `content_type` is that of a body that is not JSON.
    Raises APIError for a refusal, HTTPError where no answer came.
    """
    started = time.monotonic()
    template = client.template(method, path, accept)
    headers, secrets = client.authorization()
    if content_type is not None:
        headers["Content-Type"] = content_type
    attempt = 0
    while True:
        left = None
        if client.deadline is not None:
            left = max(client.deadline - (time.monotonic() - started), 0.001)
        try:
            answer = client.transport.send(
                template, body, headers, timeout=client.timeout, seconds_left=left, secrets=secrets
            )
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug(
                    "%s -> %d in %.3f s (request %s)",
                    answer.where,
                    answer.status_code,
                    time.monotonic() - started,
                    answer.request_id,
                )
            if 200 <= answer.status_code < 300:
                return answer
            if answer.status_code < 200:
                answer.close()  # the real answer may follow, and is no other call's
            error: OpenAIError = refusal(answer, client.base_url, client.sends_key)
        except HTTPError as no_answer:
            error = no_answer
        delay = retry_delay(error, attempt, _jitter()) if attempt < client.max_retries else None
        if delay is None or (
            client.deadline is not None and time.monotonic() + delay >= started + client.deadline
        ):
            raise error
        attempt += 1
        _log.info(
            "retry %d of %d in %.2f s after %s (request %s)",
            attempt,
            client.max_retries,
            delay,
            f"status {error.status_code}" if isinstance(error, APIError) else error,
            error.request_id,
        )
        client.sleep(delay)


# When to try again


def retry_delay(error: OpenAIError, attempt: int, jitter: float) -> float | None:
    """Seconds to wait before trying again after `error`; None for not at all.

    `attempt` counts the retries so far. What the server asks for is obeyed, up to a
    minute; else it is 0.5 s, doubling up to 8 s, of which `jitter` (0 to 1) takes off
    up to a quarter, so that many clients do not come back as one.
    """
    backoff = min(0.5 * 2.0 ** min(attempt, 10), 8.0) * (1 - jitter / 4)
    if isinstance(error, HTTPError):
        return backoff if error.may_retry else None
    if not isinstance(error, APIError) or isinstance(error, QuotaExceededError):
        return None
    advice = (error.headers or {}).get("x-should-retry", "")
    if advice == "false":
        return None
    if advice != "true" and error.status_code not in _RETRIED_STATUS and error.status_code < 500:
        return None
    if error.retry_after is None:
        return backoff
    return error.retry_after if error.retry_after <= _LONGEST_WAIT else None


def _jitter() -> float:
    from random import random

    return random()


# Paths and queries


def _whole_path(path: str, query: Mapping[str, Any] | None) -> str:
    from urllib.parse import urlencode

    if query is not None and not isinstance(query, Mapping):
        raise ConfigError(f"query must be a mapping, not {type(query).__name__}")
    try:
        told = urlencode(list(_query_pairs(query or {})))
    except UnicodeEncodeError as error:
        raise ConfigError(f"query cannot be sent: {error}") from error
    return _with_query(_checked_path(path), told)


def _with_query(path: str, query: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{query}" if query else path


def _checked_path(path: object) -> str:
    """A path under the base URL, as it can be sent.

    With an id in it that came from elsewhere, it must not lead to another host, whose
    the key is not, nor to another endpoint.
    """
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

    # Dots can't be quoted: they would be read as steps up the path all the same.
    if not isinstance(value, str) or value in ("", ".", ".."):
        raise ConfigError(f"not a usable {name}: {value!r}")
    return quote(value, safe="")


def _query_pairs(query: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in query.items():
        if not isinstance(value, Mapping):
            yield from _pairs_of(name, value)
            continue
        for inner, item in value.items():
            yield from _pairs_of(f"{name}[{inner}]", item)


def _pairs_of(name: object, value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(name, str):
        raise ConfigError(f"query: a name is text, not {type(name).__name__}")
    for item in value if isinstance(value, (list, tuple)) else (value,):
        plain = item.value if isinstance(item, Enum) else item
        if isinstance(plain, bool):
            plain = str(plain).lower()
        if plain is not None and not isinstance(plain, (str, int, float)):
            raise ConfigError(f"query: {name} cannot be of type {type(plain).__name__}")
        if plain is not None:
            yield name, str(plain)


# Settings, checked


def _set_or_given(name: str, value: str | None, variable: str) -> str:
    """A setting that is needed, else the variable of the environment."""
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{name} must be text, not {type(value).__name__}")
    found = (value or "").strip() or os.environ.get(variable, "").strip()
    if not found:
        raise ConfigError(f"no {name}: pass {name}=..., or set {variable}")
    return found


def _with_headers(own: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """Headers, of which the later win; names are the same in upper and lower case."""
    named = {str(name).lower() for name in added}
    return {name: own[name] for name in own if str(name).lower() not in named} | dict(added)


def _with_new_key(own: Mapping[str, str], key: object) -> dict[str, str]:
    """The client's own headers without the old key, and with the new one if it goes there."""
    kept = {name: value for name, value in own.items() if name.lower() not in _KEY_HEADERS}
    in_header = "api-key" in map(str.lower, own)
    return kept | {"api-key": key} if in_header and isinstance(key, str) and key.strip() else kept


def _check_kinds(**settings: object) -> None:
    for name, value in settings.items():
        if value is None:
            continue
        texts = value.values() if isinstance(value, Mapping) else (None,)
        if name == "headers" and isinstance(value, Mapping):
            continue  # each is looked at by itself
        if not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"{name} must map names to text")


def _checked_base_url(url: str) -> tuple[str, dict[str, str]]:
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
    return f"{parts.scheme}://{parts.netloc}{path}", dict(parse_qsl(parts.query))


def _host(base_url: str) -> str:
    return base_url.split("/")[2].lower().partition(":")[0]


def _checked_key(key: object) -> str | None:
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


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):
        raise ConfigError(f"not a header name: {name!r}")
    return name


def _checked_value(name: str, value: object) -> str:
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


def _checked_timeout(timeout: object) -> tuple[float | None, float | None]:
    if timeout is None:
        return _TIMEOUT
    pair = timeout if isinstance(timeout, (tuple, list)) else (timeout, timeout)
    if len(pair) != 2:
        raise ConfigError(f"timeout must be seconds, or (connect, read), not {timeout!r}")
    connect, read = (
        default if value is None else _checked_seconds("timeout", value)
        for value, default in zip(pair, _TIMEOUT, strict=True)
    )
    return connect, read


def _checked_seconds(name: str, value: object) -> float | None:
    """Seconds, or None for no limit."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(f"{name} must be seconds, more than 0, not {value!r}")
    return None if math.isinf(value) else value


def _is_secret(value: str) -> bool:
    """Worth striking out. A local server's stand-in key, such as "none", is a word that
    may well stand in a message."""
    return len(value) >= 8 or value.startswith("sk-")
