"""`OpenAIClient`: the settings, the key, any endpoint, and when to try again.

Every request goes through `send`, which returns an answer with a good status or raises.
https://platform.openai.com/docs/api-reference/introduction
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from .codec import is_list, is_mapping
from .connections import Connections, Limits, credentials_in
from .errors import (
    APIError,
    ConfigError,
    HTTPError,
    OpenAIError,
    QuotaExceededError,
    Secret,
    Secrets,
    hides_variables,
    is_passing,
    shown_url,
)
from .exchange import Exchange
from .replies import error_of_status
from .settings import (
    changed_settings,
    check_types,
    checked_base_url,
    checked_count,
    checked_key,
    checked_path,
    checked_seconds,
    checked_timeout,
    client_headers,
    client_query,
    key_to_send,
    path_step,
    required_setting,
    secrets_in,
    with_environment,
    with_headers,
    with_query,
)

if TYPE_CHECKING:
    import requests
    import typing_extensions
    from typing_extensions import Self, Unpack

    from .extras.rest import EventStream
    from .settings import ClientSettings, SharedSettings

    AnswerT = typing_extensions.TypeVar("AnswerT", default=Any)

__version__ = "0.1.0"

_LONGEST_WAIT = 60.0  # a server that asks for more is not waited for

_JSON = "application/json"
EVENT_STREAM = "text/event-stream"

_log = logging.getLogger(__name__)


class OpenAIClient:
    """Where requests go, with which key, and how long to wait.

    One client serves any number of threads, and survives a fork. It keeps connections
    open between calls; `close()`, or a `with` block, closes them. Its repr and its
    errors never show the key, but a pickled client holds it.

    api_key: the key, or a function that returns it, called once for each call, not again
        for its retries. Given neither it nor OPENAI_API_KEY nor OPENAI_ADMIN_KEY, no key
        is sent, which is an error for api.openai.com alone.
    base_url: where the API is, up to and with `/v1`; else OPENAI_BASE_URL, else OpenAI.
    organization, project: else OPENAI_ORG_ID, OPENAI_PROJECT_ID; "" for none.
    timeout: seconds to wait for a connection, and between two reads or writes: one
        number for both, or a pair; 10 and 600 if None, no limit if `math.inf`.
    deadline: seconds a call may take in all: name lookup, tries, waits and the stream; None
        for no limit.
    max_retries: how often a call is tried again where that is safe: no connection, or one
        lost within a second of the request, 408, 409, 429, 5xx but 501, after the wait the
        server asks for, up to 60 s.
    headers, query: sent with every request. A header `Authorization` or `api-key` (Azure)
        replaces the key.
    verify, cert, proxies: as in `requests`: a CA bundle, or False for none; a client
        certificate, or it and its key; proxies by scheme. They win over the environment.
    session: a `requests.Session` to send through, with all its own settings.
    max_response_bytes: how many bytes a compressed answer may have when it is decompressed.

    A subclass takes the same settings: copies of it are made with them.

    Raises ConfigError for settings that can't work.
    """

    _sleep: Callable[[float], object] = staticmethod(time.sleep)  # tests wait for nothing

    @hides_variables
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
        cert: str | tuple[str, str] | None = None,
        proxies: Mapping[str, str] | None = None,
        session: requests.Session | None = None,
        max_response_bytes: int = 2**30,
    ) -> None:
        given = dict(locals())
        del given["self"]
        check_types(given)
        self._settings = settings = with_environment(cast("ClientSettings", given))
        self.base_url: str
        self.base_url, in_url = checked_base_url(settings.get("base_url"))
        self.timeout: tuple[float | None, float | None] = checked_timeout(timeout)
        self.deadline: float | None = checked_seconds("deadline", deadline)
        self.max_retries: int = checked_count("max_retries", max_retries)
        self.max_response_bytes: int = checked_count("max_response_bytes", max_response_bytes)
        self._query = client_query(query or {}, in_url)
        self._headers = client_headers(settings, f"chatgptlib/{__version__}")
        self._api_key = key_to_send(settings, self._headers, self.base_url)
        if self._api_key is None:
            settings["api_key"] = ""  # for copies, which may find another in their environment
        self._secrets = Secrets(
            *secrets_in(self._api_key, self._query, self._headers),
            *credentials_in((proxies or {}).values()),
        )
        self._path: str | None = None
        self._connections = Connections(session, verify, cert, proxies)
        self._templates: dict[tuple[str, str, str], tuple[Any, Secrets]] = {}

    @classmethod
    @hides_variables
    def azure(
        cls,
        endpoint: str | None = None,
        *,
        deployment: str,
        api_version: str | None = None,
        api_key: str | Callable[[], str] | None = None,
        **settings: Unpack[SharedSettings],
    ) -> Self:
        """A client for one deployment of Azure OpenAI.

        endpoint: `https://NAME.openai.azure.com`; else AZURE_OPENAI_ENDPOINT.
        api_version: as `2024-10-21`; else OPENAI_API_VERSION.
        api_key: the key, else AZURE_OPENAI_API_KEY; or a function that returns a token of
            Entra ID, called once for each call, not again for its retries.
        settings: any other setting of OpenAIClient.

        Nothing that is meant for OpenAI is sent: not OPENAI_API_KEY, nor the organization
        and project of the environment. What Azure's content filter says is in `.extra` of
        the response, its choices and chunks. The endpoints without deployments and
        versions need no more than `OpenAIClient(key, base_url=f"{endpoint}/openai/v1")`.

        Raises ConfigError for settings that are missing, or can't work.
        https://learn.microsoft.com/azure/ai-services/openai/reference
        """
        check_types(settings)
        if "base_url" in settings:
            raise TypeError("azure() takes an endpoint, not a base_url")
        endpoint = required_setting("endpoint", endpoint, "AZURE_OPENAI_ENDPOINT").rstrip("/")
        if "?" in endpoint or "#" in endpoint:
            raise ConfigError(f"endpoint has neither query nor fragment: {shown_url(endpoint)!r}")
        version = required_setting("api_version", api_version, "OPENAI_API_VERSION")
        headers = settings.get("headers") or {}
        if not callable(api_key):
            key = checked_key(required_setting("api_key", api_key, "AZURE_OPENAI_API_KEY"))
            headers, api_key = with_headers(headers, {"api-key": key}), ""
        whole: ClientSettings = {
            "organization": "",
            "project": "",
            **settings,
            "api_key": api_key,
            "base_url": f"{endpoint}/openai/deployments/{path_step('deployment', deployment)}",
            "headers": headers,
            "query": {**(settings.get("query") or {}), "api-version": version},
        }
        return cls(**whole)

    @hides_variables
    def with_options(self, *, path: str | None = None, **changes: Unpack[ClientSettings]) -> Self:
        """A client that differs in these settings, and shares the connections unless `session`,
        `verify`, `cert` or `proxies` is among them.

        For one call or many: `create_chat_completion(client.with_options(timeout=5), ...)`.
        `headers` and `query` are added to the client's own, in place of those of the same
        name; any other setting is replaced. A new `api_key` goes where the old one went.
        `path`, under the base URL, takes the place of a function's own path.

        Raises TypeError for what is no setting, ConfigError for what can't work.
        """
        unknown = changes.keys() - self._settings.keys()
        if unknown:
            changes = {}  # no traceback shows them
            raise TypeError(f"with_options() got unknown settings: {', '.join(sorted(unknown))}")
        other = type(self)(**changed_settings(self._settings, changes))
        other._path = self._path if path is None else checked_path(path)
        if not changes.keys() & {"session", "verify", "cert", "proxies"}:
            other._connections = self._connections
        return other

    # Every other endpoint

    def get(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        into: type[AnswerT] | None = None,
    ) -> AnswerT:
        """Ask any endpoint of the API with GET: `client.get("models")`.

        path: under the base URL, as the API's pages have it: `"files/file-1/content"`.
        query: None is left out of it, a list repeats its key, and a mapping is sent as
            `key[name]=value`.
        into: a dataclass to read an answer in JSON into.

        Returns JSON as dicts and lists, anything else (audio, the content of a file) as
        bytes, an empty answer as None. Raises ConfigError for what can't be sent, HTTPError
        when no whole answer came, APIError when the server refused, DeserializeError for an
        answer that should be JSON and is not.
        https://platform.openai.com/docs/api-reference
        """
        from .extras.rest import asked

        return asked(self, "GET", path, query, into)

    def post(
        self,
        path: str,
        body: Any = None,
        *,
        files: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        into: type[AnswerT] | None = None,
    ) -> AnswerT:
        """Ask any endpoint of the API with POST; arguments, answer and errors as for `get`.

            client.post("embeddings", {"model": "text-embedding-3-small", "input": "Hi"})
            client.post("files", {"purpose": "batch"}, files={"file": "batch.jsonl"})

        body: a mapping, a dataclass, or anything that JSON can say.
        files: sent as a form with the members of `body`, whose objects are fields `name[key]`
            and whose lists `name[]`. A file is a path, bytes, a file open in binary mode, or
            a tuple of file name, one of those, and perhaps a media type; or a list of such.
            It is read into memory. One that can't be read is a ConfigError.
        https://platform.openai.com/docs/api-reference
        """
        from .extras.rest import asked

        return asked(self, "POST", path, query, into, body, files)

    def delete(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        into: type[AnswerT] | None = None,
    ) -> AnswerT:
        """Ask any endpoint of the API with DELETE; arguments, answer and errors as for `get`.

        https://platform.openai.com/docs/api-reference
        """
        from .extras.rest import asked

        return asked(self, "DELETE", path, query, into)

    def stream(
        self, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None
    ) -> EventStream:
        """Ask any endpoint of the API with POST, and return its answer as a stream of events.

            with client.stream("responses", {"model": "gpt-4o-mini", "input": "Hi"}) as events:
                for event in events: ...

        The arguments are those of `post`; `"stream": true` is sent unless the body says
        otherwise. A refusal is raised here; see EventStream for what iterating raises.
        https://platform.openai.com/docs/api-reference/responses-streaming
        """
        from .extras.rest import streamed

        return streamed(self, path, query, body)

    def close(self) -> None:
        """Close the connections that are kept open. The client can still be used."""
        self._connections.close()

    def __enter__(self) -> Self:
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

    def _template(self, method: str, path: str, accept: str) -> tuple[Any, Secrets]:
        """The part of a request that is the same every time, made at the first; and the secrets
        of it."""
        template = self._templates.get((method, path, accept))
        if template is not None:
            return template
        from urllib.parse import parse_qsl, urlencode

        asked = path
        if self._path is not None:  # in place of the function's own, whose query stays
            asked = with_query(self._path, path.partition("?")[2])
        query = dict(parse_qsl(asked.partition("?")[2], keep_blank_values=True))
        rest = {name: value for name, value in self._query.items() if name not in query}
        url = with_query(f"{self.base_url}/{asked.lstrip('/')}", urlencode(rest))
        # A stream not compressed, unless wished: a proxy that compresses holds events back.
        encoding = "identity" if accept == EVENT_STREAM else "gzip, deflate"
        headers = with_headers({"Accept": accept, "Accept-Encoding": encoding}, self._headers)
        if len(self._templates) > 100:  # paths with ids in them
            self._templates.clear()
        secrets = self._secrets | Secrets(*secrets_in(None, {}, query))
        template = self._connections.prepare(method, url, headers), secrets
        self._templates[method, path, accept] = template
        return template

    def _key(self) -> Secret | None:
        """The key, for all tries of one call."""
        if self._api_key is None:
            return None
        key = checked_key(self._api_key() if callable(self._api_key) else self._api_key)
        if key is None:
            raise ConfigError("api_key() returned no key")
        return Secret(key)

    def _request(
        self, template: Any, body: bytes | None, content_type: str | None, key: Secret | None
    ) -> Any:
        request = template.copy()
        own_type = request.headers.pop("Content-Type", _JSON)
        if body is not None:
            request.body = body
            request.headers["Content-Length"] = str(len(body))
            request.headers["Content-Type"] = content_type or own_type
        if key is not None:
            request.headers["Authorization"] = f"Bearer {key.text}"
        return request


# The one door to the network


def send(
    client: OpenAIClient,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    accept: str = _JSON,
    content_type: str | None = None,
) -> Exchange:
    """Send a request, and again where that is safe; an answer whose status is good.

    `content_type` is that of a body that is not JSON.
    Raises APIError for a refusal, HTTPError where no answer came.
    """
    started = time.monotonic()
    due = None if client.deadline is None else started + client.deadline
    limits, limit = Limits(*client.timeout, due), client.max_response_bytes
    key = client._key()
    template, secrets = client._template(method, path, accept)
    secrets = secrets if key is None else secrets | Secrets(key.text)
    if client._connections.session is not None:  # which may have changed since the last call
        secrets |= _secrets_of(client._connections.session)
    attempt, fresh = 0, False
    while True:
        request = client._request(template, body, content_type, key)
        exchange = Exchange(client._connections, request, limits, secrets=secrets, body_limit=limit)
        try:
            exchange.open(fresh=fresh)
            error: OpenAIError | None = _judged(client, exchange, started)
        except HTTPError as no_answer:
            error = no_answer
            if exchange.reused and no_answer.may_retry and not fresh:
                # A kept-alive connection was dead: not the server, and nothing to wait for.
                attempt, fresh = attempt + 1, True
                continue
        if error is None:
            return exchange
        jitter = os.urandom(1)[0] / 255
        delay = retry_delay(error, attempt, jitter) if attempt < client.max_retries else None
        if delay is None or (due is not None and time.monotonic() + delay >= due):
            raise error
        attempt += 1
        why = f"status {error.status_code}" if isinstance(error, APIError) else error
        said = (attempt, client.max_retries, delay, why, error.request_id)
        _log.info("retry %d of %d in %.2f s after %s (request %s)", *said)
        client._sleep(delay)


def _secrets_of(session: requests.Session) -> Secrets:
    """What a session of the user's sends of its own that works like a key."""
    auth: Any = session.auth
    user = auth if is_list(auth) else [getattr(auth, key, "") for key in ("username", "password")]
    urls = [*session.proxies.values(), f"//{':'.join(map(str, user))}@"]
    headers, query = (
        {str(name): str(value) for name, value in found.items()} if is_mapping(found) else {}
        for found in (session.headers, session.params)
    )
    return Secrets(*secrets_in(None, query, headers), *credentials_in(urls))


def _judged(client: OpenAIClient, exchange: Exchange, started: float) -> APIError | None:
    """The error that an answer's status tells of; None if it is good."""
    if _log.isEnabledFor(logging.DEBUG):
        seconds = time.monotonic() - started
        said = (exchange.where, exchange.status_code, seconds, exchange.request_id)
        _log.debug("%s -> %d in %.3f s (request %s)", *said)
    if 200 <= exchange.status_code < 300:
        return None
    if exchange.status_code < 200:
        exchange.close()  # the real answer may follow, and is no other call's
    return error_of_status(exchange, client.base_url)


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
    if advice != "true" and not is_passing(error.status_code):
        return None
    if error.retry_after is None:
        return backoff
    return error.retry_after if error.retry_after <= _LONGEST_WAIT else None
