"""`OpenAIClient`: settings, the key, and when to try again.

Every request goes through `send`, which returns an answer with a good status or raises.
https://platform.openai.com/docs/api-reference/introduction
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .errors import (
    APIError,
    ConfigError,
    DeserializeError,
    HTTPError,
    OpenAIError,
    QuotaExceededError,
    api_error,
    excerpt,
    told_error,
)
from .transport import Answer, Transport, shown_url

if TYPE_CHECKING:
    import requests

__version__ = "0.1.0"

_OFFICIAL_HOST = "api.openai.com"
_OFFICIAL_URL = "https://api.openai.com/v1"
_TIMEOUT = (10.0, 600.0)  # to connect, and between two reads, in seconds
_DEEPEST = 100  # levels of nesting in an answer
_LONGEST_WAIT = 60.0  # a server that asks for more is not waited for
_RETRIED_STATUS = frozenset({408, 409, 429})

_JSON = "application/json"
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
    organization, project: else OPENAI_ORG_ID, OPENAI_PROJECT_ID; sent if set.
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
        organization = organization or environment("OPENAI_ORG_ID")
        project = project or environment("OPENAI_PROJECT_ID")

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
        if named & {"authorization", "api-key"}:
            self._api_key = None
        self.sends_key = self._api_key is not None or bool(named & {"authorization", "api-key"})
        if not self.sends_key and _host(self.base_url) == _OFFICIAL_HOST:
            raise ConfigError(
                "no API key: set the environment variable OPENAI_API_KEY, or pass api_key=..., "
                "or base_url=... of a server that needs none"
            )
        self._headers = {"User-Agent": f"chatgptlib/{__version__}"}
        if organization and organization.strip():
            self._headers["OpenAI-Organization"] = _checked_value("organization", organization)
        if project and project.strip():
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

    def with_options(self, *, path: str | None = None, **changes: Any) -> OpenAIClient:
        """A client that differs in these settings and shares the connections.

        For one call or many: `create_chat_completion(client.with_options(timeout=5), ...)`.
        `path`, under the base URL, takes the place of a function's own path.
        """
        unknown = changes.keys() - self._settings.keys()
        if unknown:
            raise TypeError(f"with_options() got unknown settings: {', '.join(sorted(unknown))}")
        if path is not None and "#" in path:
            raise ConfigError(f"a path has no fragment: {path!r}")
        other = type(self)(**(self._settings | changes))
        other._path = path if path is not None else self._path
        if not changes.keys() & {"session", "verify", "proxies"}:
            other.transport = self.transport
        return other

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
        from urllib.parse import urlencode

        if self._path is not None:  # in place of the function's own, whose query stays
            path = self._path + path[len(path.partition("?")[0]) :]
        url = f"{self.base_url}/{path.lstrip('/')}"
        if self._query:
            url += ("&" if "?" in url else "?") + urlencode(self._query)
        headers = {"Accept": accept, **self._headers}
        if method == "POST":
            headers.setdefault("Content-Type", "application/json")
        # A stream not compressed, unless wished: a proxy that compresses holds events back.
        encoding = "identity" if accept == EVENT_STREAM else "gzip, deflate"
        headers.setdefault("Accept-Encoding", encoding)
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
    client: OpenAIClient, method: str, path: str, body: bytes | None = None, *, accept: str = _JSON
) -> Answer:
    """Send a request, and again where that is safe; an answer whose status is good.

    Raises APIError for a refusal, HTTPError where no answer came.
    """
    started = time.monotonic()
    template = client.template(method, path, accept)
    headers, secrets = client.authorization()
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
            error: OpenAIError = _refusal(client, answer)
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


def answer_json(answer: Answer, content: bytes) -> Any:
    """The JSON of a whole answer. An error told in it is raised like any other."""
    value, broken = parsed(content)
    if broken is not None:  # perhaps by no more than a byte order mark, or one bad character
        value, broken = parsed(content.decode("utf-8-sig", "replace"))
    if broken is not None:
        raise not_json(answer, content) from answer.safe_cause(broken)
    if told := told_error(value):
        raise told_in_answer(told, answer)
    return value


def parsed(text: str | bytes) -> tuple[Any, Exception | None]:
    """The JSON in `text`, or None and why there is none."""
    try:
        value = json.loads(text)
        if len(text) > 500:  # less can't be deep
            check_depth(text, value)
        return value, None
    except (ValueError, RecursionError) as error:
        return None, error


def check_depth(text: str | bytes, value: Any) -> None:
    """Raise ValueError if `value`, which `text` held, is nested deeper than any answer is,
    and than the recursion that walks it may go."""
    opening: Any = (b"{", b"[") if isinstance(text, bytes) else ("{", "[")
    if sum(map(text.count, opening)) <= _DEEPEST:
        return
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            item
            for one in level
            if isinstance(one, (dict, list))
            for item in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise ValueError("nested too deeply")


# What an answer that is no answer raises


def told_in_answer(told: Any, answer: Answer) -> APIError:
    """The error that a 2xx answer tells of, with the key struck out."""
    told = answer.redacted(told)
    return api_error(
        told,
        status_code=answer.status_code,
        where=answer.where,
        headers=answer.told_headers,
        request_id=answer.request_id,
    )


def _refusal(client: OpenAIClient, answer: Answer) -> APIError:
    """The error for an answer whose status is not 2xx."""
    text = answer.read_error()
    body, broken = parsed(text)
    # Once more where it is JSON, for a key that was written with escapes.
    body = text if broken else answer.redacted(body)
    status, hint = answer.status_code, ""
    if 300 <= status < 400:
        hint = (
            f"It points to {answer.told_headers.get('location')!r}; redirects are not followed, "
            "so set base_url to where the API is"
        )
    elif status == 401 and not client.sends_key:
        hint = "No API key was sent"
    elif status == 404 and "/v1" not in client.base_url:
        hint = "Does base_url lack its /v1?"
    return api_error(
        body or answer.redacted(answer.reason),
        status_code=status,
        where=answer.where,
        hint=hint,
        headers=answer.told_headers,
        request_id=answer.request_id,
        retry_after=retry_after(answer.headers, time.time()),
    )


def not_json(answer: Answer, content: bytes) -> DeserializeError:
    """The error for a body that should have been JSON."""
    text = answer.redacted(content.decode("utf-8", "replace"))
    hint = ""
    if not text.strip():
        found = "is empty"
    elif text.lstrip().startswith("<"):
        found, hint = f"is HTML: {excerpt(text)}", ". Does base_url end in /v1?"
    elif text.lstrip()[:1] in "{[":
        found = f"is broken or cut JSON: {excerpt(text)}"
    else:
        found = f"is not JSON: {excerpt(text)}"
    return with_answer(
        DeserializeError(
            f"the answer ({answer.status_code}, {answer.headers.get('content-type')}) "
            f"{found} [{answer.where}]{hint}",
            body=text,
        ),
        answer,
    )


def with_answer(error: DeserializeError, answer: Answer) -> DeserializeError:
    """`error` with what is known of the answer it was found in."""
    error.headers, error.request_id = answer.told_headers, answer.request_id
    return error


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


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds the server asks to wait: `retry-after-ms`, or `retry-after` as a number or
    a date; None where it does not say, or nothing sensible. `now` is Unix time."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if seconds >= 0:
            return seconds
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None


def _jitter() -> float:
    from random import random

    return random()


# Settings, checked


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
