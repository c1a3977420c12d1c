"""`OpenAIClient`: settings, key, and requests to any endpoint, with retries.

Every request goes through `send`, which returns a reply with a 2xx status or raises.
https://platform.openai.com/docs/api-reference/introduction
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from .connections import Connections, Limits
from .errors import APIError, ConfigError, HTTPError, OpenAIError, QuotaExceededError, is_transient
from .exchange import Exchange
from .redaction import Secret, Secrets, hides_variables, secrets_in, secrets_of_session, shown_url
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
    path_segment,
    required_setting,
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

__version__ = "0.2.0"

_LONGEST_WAIT = 60.0  # seconds; if a server asks for more, the error is raised instead

_JSON = "application/json"
EVENT_STREAM = "text/event-stream"

_log = logging.getLogger(__name__)


class OpenAIClient:
    """The settings for requests to an API: its address, the key, timeouts and retries.

    One client serves any number of threads, and can be used after a fork. It keeps
    connections open between calls; `close()` or the end of a `with` block closes them. Its
    repr and its errors never show the key. A pickled client contains the key.

    api_key: the key, or a function that returns it, which is called once for each call and
        not for its retries. The default is OPENAI_API_KEY, then OPENAI_ADMIN_KEY. Only
        api.openai.com needs a key; without one, none is sent.
    base_url: the address of the API, with its `/v1`. The default is OPENAI_BASE_URL, then
        https://api.openai.com/v1.
    organization, project: ids that OpenAI bills. The default is OPENAI_ORG_ID and
        OPENAI_PROJECT_ID; "" sends none.
    timeout: seconds to wait for a connection, and between two reads or writes: a number for
        both, or a pair. None means (10, 600), `math.inf` no limit.
    deadline: seconds for a complete call: name lookup, retries, waits and the stream. None
        means no limit.
    max_retries: how often a call is repeated where that is safe: if no connection was made, if
        the connection was lost within a second, and for the statuses 408, 409, 429 and 5xx
        except 501. The wait is the one that the server asks for, or else 0.5 s, doubled each
        time up to 8 s. If the server asks for more than 60 s, the error is raised at once.
        Even with 0, a call is repeated once, without a wait, if the connection of an earlier
        call is lost within a second before a reply begins: the server had most likely closed it.
    headers, query: sent with every request. A header Authorization or api-key replaces the key.
    verify, cert, proxies: as in `requests`: a CA bundle, or False for no check; a client
        certificate, or a pair of it and its key; proxies by scheme. They replace the
        settings of the environment.
    session: a `requests.Session` to send requests with, and its own settings.
    max_response_bytes: the limit in bytes for a compressed reply after decompression.

    A subclass has to accept the same settings, since copies of a client are made with them.

    Raises ConfigError for settings that cannot work.
    """

    _sleep: Callable[[float], object] = staticmethod(time.sleep)

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
            settings["api_key"] = ""  # so that a copy takes no key from the environment
        urls = (proxies or {}).values()
        self._secrets = secrets_in(self._api_key, self._query, self._headers, urls)
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

        endpoint: `https://NAME.openai.azure.com`. The default is AZURE_OPENAI_ENDPOINT.
        deployment: the name of the deployment.
        api_version: as `2024-10-21`. The default is OPENAI_API_VERSION.
        api_key: the key, or a function that returns a token of Entra ID, which is called once
            for each call and not for its retries. The default is AZURE_OPENAI_API_KEY.
        settings: any other setting of OpenAIClient.

        OPENAI_API_KEY and the organization and project of the environment are not sent. The
        results of Azure's content filter are in `.extra` of the response, its choices and
        chunks. For Azure's newer API without deployments and versions, use
        `OpenAIClient(key, base_url=f"{endpoint}/openai/v1")`.

        Raises ConfigError for settings that are missing or cannot work.
        https://learn.microsoft.com/azure/ai-services/openai/reference
        """
        check_types(settings)
        if "base_url" in settings:
            raise ConfigError("azure() takes an endpoint, not a base_url")
        endpoint = required_setting("endpoint", endpoint, "AZURE_OPENAI_ENDPOINT").rstrip("/")
        if "?" in endpoint or "#" in endpoint:
            raise ConfigError(f"endpoint must have no query or fragment: {shown_url(endpoint)!r}")
        version = required_setting("api_version", api_version, "OPENAI_API_VERSION")
        headers = settings.get("headers") or {}
        if not callable(api_key):
            key = checked_key(required_setting("api_key", api_key, "AZURE_OPENAI_API_KEY"))
            headers, api_key = with_headers(headers, {"api-key": key}), ""
        all_settings: ClientSettings = {
            "organization": "",
            "project": "",
            **settings,
            "api_key": api_key,
            "base_url": f"{endpoint}/openai/deployments/{path_segment('deployment', deployment)}",
            "headers": headers,
            "query": {**(settings.get("query") or {}), "api-version": version},
        }
        return cls(**all_settings)

    @hides_variables
    def with_options(self, *, path: str | None = None, **changes: Unpack[ClientSettings]) -> Self:
        """A copy of the client with other settings, for one call or many.

            create_chat_completion(client.with_options(timeout=5), request)

        path: replaces the path of every request; relative to the base URL.
        changes: settings of OpenAIClient. `headers` and `query` are added to those of the
            client, and replace those of the same name. A new `api_key` is sent where the old
            one was. Any other setting is replaced.

        The copy shares the connections, unless `session`, `verify`, `cert` or `proxies` changes.

        Raises TypeError for an unknown setting, ConfigError for one that cannot work.
        """
        unknown = changes.keys() - self._settings.keys()
        if unknown:
            changes = {}  # so that no traceback shows them
            raise TypeError(f"with_options() got unknown settings: {', '.join(sorted(unknown))}")
        other = type(self)(**changed_settings(self._settings, changes))
        other._path = self._path if path is None else checked_path(path)
        if not changes.keys() & {"session", "verify", "cert", "proxies"}:
            other._connections = self._connections
        return other

    # Endpoints without a function of their own

    def get(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        into: type[AnswerT] | None = None,
    ) -> AnswerT:
        """Send a GET request to any endpoint: `client.get("models")`.

        path: relative to the base URL, as in the API reference: `"files/file-1/content"`.
        query: a value of None is left out, a list repeats its key, and a mapping is sent as
            `key[name]=value`.
        into: a dataclass to read a JSON reply into.

        Returns JSON as dicts and lists, any other content (such as audio or a file) as bytes,
        and an empty reply as None. Raises ConfigError for a request that cannot be sent,
        HTTPError if no complete reply arrived, APIError if the server reported an error,
        DeserializeError for a reply that should be JSON and is not.
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
        """Send a POST request to any endpoint. Results and errors are those of `get`.

            client.post("embeddings", {"model": "text-embedding-3-small", "input": "Hi"})
            client.post("files", {"purpose": "batch"}, files={"file": "batch.jsonl"})

        path, query, into: as for `get`.
        body: a mapping, a dataclass, or any other value that JSON can represent.
        files: sent as a form together with the members of `body`; an object in it becomes
            fields `name[key]`, a list `name[]`. A file is a path, bytes, a file open in
            binary mode, or a tuple of a file name, one of these and, if needed, a media type;
            or it is a list of files. Files are read into memory. One that cannot be read is
            a ConfigError.
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
        """Send a DELETE request to any endpoint. Arguments, results and errors as for `get`."""
        from .extras.rest import asked

        return asked(self, "DELETE", path, query, into)

    def stream(
        self, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None
    ) -> EventStream:
        """Send a POST request to any endpoint, and return the reply as a stream of events.

            with client.stream("responses", {"model": "gpt-4o-mini", "input": "Hi"}) as events:
                for event in events: ...

        The arguments are those of `post`. `"stream": true` is added to the body, unless it has
        another value. An error status is raised here; see EventStream for errors while
        iterating.
        https://platform.openai.com/docs/api-reference/responses-streaming
        """
        from .extras.rest import streamed

        return streamed(self, path, query, body)

    def close(self) -> None:
        """Close the idle connections. The client can still be used."""
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

    # For `send`

    def _template(self, method: str, path: str, accept: str) -> tuple[Any, Secrets]:
        """The part of a request that is the same for each body, and the secrets in it."""
        template = self._templates.get((method, path, accept))
        if template is not None:
            return template
        from urllib.parse import parse_qsl, urlencode

        target = path
        if self._path is not None:  # replaces the path, but not the query
            target = with_query(self._path, path.partition("?")[2])
        query = dict(parse_qsl(target.partition("?")[2], keep_blank_values=True))
        rest = {name: value for name, value in self._query.items() if name not in query}
        url = with_query(f"{self.base_url}/{target.lstrip('/')}", urlencode(rest))
        # A proxy that compresses a stream delays its events.
        encoding = "identity" if accept == EVENT_STREAM else "gzip, deflate"
        headers = with_headers({"Accept": accept, "Accept-Encoding": encoding}, self._headers)
        if len(self._templates) > 100:  # many paths have an id in them
            self._templates.clear()
        secrets = self._secrets | secrets_in(None, {}, query)
        template = self._connections.prepare(method, url, headers), secrets
        self._templates[method, path, accept] = template
        return template

    def _key(self) -> Secret | None:
        """The key for one call and its retries."""
        if self._api_key is None:
            return None
        key = checked_key(self._api_key() if callable(self._api_key) else self._api_key)
        if key is None:
            raise ConfigError("the function given as api_key returned no key")
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


# Sending


def send(
    client: OpenAIClient,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    accept: str = _JSON,
    content_type: str | None = None,
) -> Exchange:
    """Send a request, retry it where that is safe, and return a reply with a 2xx status.

    All traffic of the library goes through here. `content_type` is for a body that is not
    JSON. Raises ConfigError for a request that can't be sent, APIError for any other status,
    HTTPError if no complete reply arrived.
    """
    due = None if client.deadline is None else time.monotonic() + client.deadline
    limits, body_limit = Limits(*client.timeout, due), client.max_response_bytes
    connections, key = client._connections, client._key()
    template, secrets = client._template(method, path, accept)
    secrets = secrets if key is None else secrets | Secrets(key.text)
    if connections.session is not None:  # its credentials may change between calls
        secrets |= secrets_of_session(connections.session)
    attempt, fresh = 0, False
    while True:
        started = time.monotonic()
        request = client._request(template, body, content_type, key)
        exchange = Exchange(connections, request, limits, secrets=secrets, body_limit=body_limit)
        try:
            exchange.open(fresh=fresh)
            error: OpenAIError | None = _status_error(client, exchange, started)
        except HTTPError as failure:
            error = failure
        if error is None:
            return exchange
        delay = None
        if exchange.reused and not fresh and isinstance(error, HTTPError) and error.may_retry:
            delay, fresh = 0.0, True  # the server had most likely closed the idle connection
        elif attempt < client.max_retries:
            delay = retry_delay(error, attempt, os.urandom(1)[0] / 255)
        if delay is None or (due is not None and time.monotonic() + delay >= due):
            raise error
        attempt += 1
        why = f"status {error.status_code}" if isinstance(error, APIError) else error
        details = (attempt, max(attempt, client.max_retries), delay, why, error.request_id)
        _log.info("retry %d of %d in %.2f s after %s (request %s)", *details)
        client._sleep(delay)


def _status_error(client: OpenAIClient, exchange: Exchange, started: float) -> APIError | None:
    """The error for the status of a reply; None for 2xx."""
    if _log.isEnabledFor(logging.DEBUG):
        seconds = time.monotonic() - started
        details = (exchange.where, exchange.status_code, seconds, exchange.request_id)
        _log.debug("%s -> %d in %.3f s (request %s)", *details)
    if 200 <= exchange.status_code < 300:
        return None
    if exchange.status_code < 200:
        exchange.close()  # the final reply may follow, and must not reach another call
    return error_of_status(exchange, client.base_url)


# Retries


def retry_delay(error: OpenAIError, attempt: int, jitter: float) -> float | None:
    """Seconds to wait before a retry after `error`; None if it must not be retried.

    `attempt` is the number of retries so far. The wait is what the server asks for, up to a
    minute, or else 0.5 s, doubled each time up to 8 s. `jitter` (0 to 1) shortens the latter
    by up to a quarter, so that many clients do not retry at the same time.
    """
    backoff = min(0.5 * 2.0 ** min(attempt, 10), 8.0) * (1 - jitter / 4)
    if isinstance(error, HTTPError):
        return backoff if error.may_retry else None
    if not isinstance(error, APIError) or isinstance(error, QuotaExceededError):
        return None
    advice = error.headers.get("x-should-retry")
    if advice == "false" or not (advice == "true" or is_transient(error.status_code)):
        return None
    if error.retry_after is None:
        return backoff
    return error.retry_after if error.retry_after <= _LONGEST_WAIT else None
