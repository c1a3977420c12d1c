"""Everything this library raises, and what each error carries.

    OpenAIError
    ├── ConfigError               set up or asked wrongly; what is wrong was not sent
    ├── HTTPError                 no complete answer arrived: connect, TLS, reset
    │   ├── RequestTimeoutError       a connect, read or deadline limit ran out
    │   └── StreamInterruptedError    the stream ended early: .partial
    ├── APIError                  the server refused: .status_code .message .code .body
    │   ├── BadRequestError 400, AuthenticationError 401, PermissionDeniedError 403,
    │   │   NotFoundError 404, ConflictError 409, UnprocessableEntityError 422,
    │   │   InternalServerError 5xx
    │   └── RateLimitError 429        .retry_after
    │       └── QuotaExceededError 402    the account is out of money: never retried
    ├── DeserializeError          the answer was not what the API promises: .body .path
    ├── RefusalError              the model refused a structured answer: .response
    ├── OutputTruncatedError      a structured answer or a tool call was cut off: .response
    ├── ToolError                 a tool call could not be carried out: .call
    └── WebhookError              a webhook's signature or time does not hold

What the network or a server does raises one of these, and each pickles. What a user's hook,
signal handler, job runner or callback raises passes as it is.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from .models import ChatMessage, CreateChatCompletionResponse, ToolCall

F = TypeVar("F", bound=Callable[..., Any])

JSONValue: TypeAlias = "dict[str, JSONValue] | list[JSONValue] | str | int | float | bool | None"
"""What `json.loads` gives: declared where a value is then looked into with `isinstance`."""


class OpenAIError(Exception):
    """The base of every error here.

    `partial` is the answer, or as much of it as came, if any did; `messages` the exchange so
    far when the error ended run_tools() or stream_tools().
    `request_id` and `headers` are the server's, where it had answered.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        # On the instance: frameworks that wrap an error copy its `__dict__`.
        self.partial: CreateChatCompletionResponse | None = None
        self.messages: Sequence[ChatMessage | Mapping[str, Any]] | None = None
        self.request_id: str | None = None
        self.headers: Mapping[str, str] | None = None


class ConfigError(OpenAIError):
    """The client was set up, or a request put together, wrongly: it was not sent. Or a file that
    was given can't be used."""


class HTTPError(OpenAIError):
    """No complete answer arrived: the connection failed, or was lost on the way.

    `may_retry` is True where the server can hardly have done the work: no connection was
    made, or it was lost within a second of the request. The client has then asked again,
    `max_retries` times.
    """

    def __init__(self, text: str = "", *, may_retry: bool = False) -> None:
        super().__init__(text)
        self.may_retry = may_retry


class RequestTimeoutError(HTTPError, TimeoutError):
    """A connect, read or deadline limit ran out. The server may have done the work, unless
    `may_retry` says that there was no connection."""


class StreamInterruptedError(HTTPError):
    """A stream ended before its answer did. What had arrived of a chat completion is in
    `partial`."""


class DeserializeError(OpenAIError):
    """The server's answer was not what the API promises.

    `body` is the text that came; `path` says where in it, as `$.choices[0].message`.
    """

    def __init__(self, message: str, *, body: str | None = None, path: str = "$") -> None:
        super().__init__(message)
        self.body = body
        self.path = path


class RefusalError(OpenAIError):
    """The model refused to give a structured answer, in the words of the message; or a content
    filter stopped it.

    `response` is the whole answer.
    """

    def __init__(self, text: str = "", response: Any = None) -> None:
        super().__init__(text)
        self.response: CreateChatCompletionResponse = response


class OutputTruncatedError(OpenAIError):
    """A structured answer, or a tool call, reached a limit on tokens before its end.

    `response` is the whole answer, with the beginning of the text and the usage.
    """

    def __init__(self, text: str = "", response: Any = None) -> None:
        super().__init__(text)
        self.response: CreateChatCompletionResponse = response


class ToolError(OpenAIError):
    """A tool call could not be carried out.

    `call` is the call; `messages` is the exchange up to it, which can be taken up again once the
    calls that have no answer in it are answered.
    """

    def __init__(self, text: str = "", call: Any = None) -> None:
        super().__init__(text)
        self.call: ToolCall = call


class WebhookError(OpenAIError):
    """A webhook was not signed with the secret, or not now: do not act on it."""


class APIError(OpenAIError):
    """The server refused, in words of its own.

    `status_code` is the HTTP status: 200 when the refusal came inside a good answer or
    a stream. `message`, `type`, `param` and `code` are what the server said, in
    whatever JSON type it said it; `body` is all of it, parsed where it was JSON.
    `retry_after` is how many seconds the server asks to wait, if it does.
    https://platform.openai.com/docs/guides/error-codes
    """

    def __init__(
        self,
        text: str,
        *,
        status_code: int = 200,
        message: str = "",
        type: Any = None,
        param: Any = None,
        code: Any = None,
        body: Any = None,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text)
        self.status_code = status_code
        self.message: str = message or text
        self.type = type
        self.param = param
        self.code = code
        self.body = body
        self.request_id = request_id
        self.headers = headers or {}
        self.retry_after = retry_after


class BadRequestError(APIError):
    """400: the request is not valid for this model or server."""


class AuthenticationError(APIError):
    """401: the key is missing, wrong or revoked."""


class PermissionDeniedError(APIError):
    """403: the key may not do this, or not from here."""


class NotFoundError(APIError):
    """404: no such model, completion or path."""


class ConflictError(APIError):
    """409: the request conflicts with another."""


class UnprocessableEntityError(APIError):
    """422: well-formed, but refused by the server's own checks."""


class RateLimitError(APIError):
    """429: too many requests or tokens; `retry_after` says how long to wait, if told."""


class QuotaExceededError(RateLimitError):
    """402, or another status because the account has no quota left. Waiting does not help."""


class InternalServerError(APIError):
    """5xx: the server, or a gateway before it, failed."""


# What tells the class: the status, or what servers write into `code` or `type`.
_SIGNS: dict[tuple[int | str, ...], type[APIError]] = {
    (400, "invalid_request_error", "context_length_exceeded"): BadRequestError,
    (401, "invalid_api_key", "authentication_error"): AuthenticationError,
    (402,): QuotaExceededError,
    (403, "permission_error"): PermissionDeniedError,
    (404, "not_found_error", "model_not_found"): NotFoundError,
    (409,): ConflictError,
    (422,): UnprocessableEntityError,
    (429, "rate_limit_exceeded", "rate_limit_error", "too_many_requests"): RateLimitError,
    (500, "server_error", "internal_error", "internal_server_error"): InternalServerError,
    ("overloaded_error", "service_unavailable"): InternalServerError,
}
_CLASS_OF: dict[Any, type[APIError]] = {
    sign: kind for signs, kind in _SIGNS.items() for sign in signs
}
_NO_MONEY = re.compile("(?i)insufficient_?(user_)?(quota|balance|credit|fund)|billing_hard_limit")

# How servers call the parts of an error, in lower case.
CODE_KEYS = ("code", "error_code", "errorcode", "errcode", "__type", "status_code")
TEXT_KEYS = ("message", "msg", "error_msg", "errmsg", "error_message", "errormessage", "status_msg")

_EXCERPT = 1000  # characters of a body quoted in a message; the whole is in `.body`


def excerpt(text: str) -> str:
    """The beginning of `text` on one line, for use in a message."""
    begin = text[: 4 * _EXCERPT]
    line = " ".join(begin.split())
    return line if len(line) <= _EXCERPT and begin == text else line[:_EXCERPT] + "..."


def api_error(body: JSONValue, *, where: str = "", hint: str = "", **evidence: Any) -> APIError:
    """The error that `body` tells of: parsed JSON of any shape, or text.

    `evidence` is what else the error carries, by the names that APIError has for it. Never
    raises, whatever is in `body`: servers differ, and proxies more so.
    """
    status_code, request_id = evidence.get("status_code", 200), evidence.get("request_id")
    detail = _error_object(body)
    message = _words(body) or "no reason given"
    kind, code = detail.get("type"), _code_in(detail)
    at = f" [{where}]" if where else ""
    named = f" (request {request_id})" if request_id else ""
    text = f"{status_code}: {message}{at}{named}" + (f". {hint}" if hint else "")
    param = detail.get("param")
    return _class_for(status_code, code, kind)(
        text, message=message, type=kind, param=param, code=code, body=body, **evidence
    )


def is_passing(status_code: int) -> bool:
    """Whether a status tells of a failure that may be over when the request is made again."""
    return status_code in (408, 409, 429) or (status_code >= 500 and status_code != 501)


def _class_for(status_code: int, *told: Any) -> type[APIError]:
    """The class by the status; but by what the body tells inside a good answer, or of a quota."""
    if any(isinstance(word, str) and _NO_MONEY.match(word) for word in told):
        return QuotaExceededError
    by_body = [kind for value in told if (kind := _CLASS_OF.get(_sign(value)))]
    by_status = _CLASS_OF.get(_sign(status_code), APIError)
    return by_body[0] if by_body and status_code < 400 else by_status


def _sign(value: Any) -> int | str | None:
    """`value` as the table has it: a status may be text, and one of 5xx stands for all."""
    if isinstance(value, str) and re.fullmatch("[45][0-9][0-9]", value):
        value = int(value)
    if isinstance(value, int) and 500 <= value < 600:
        return 500
    return value if isinstance(value, (int, str)) else None


def _error_object(body: JSONValue) -> dict[str, JSONValue]:
    """The object in `body` that holds message, type, param and code."""
    found: dict[str, JSONValue] = {}
    for _ in range(8):  # deeper wrapping than this is nobody's error format
        if isinstance(body, list):
            body = next((item for item in body if isinstance(item, dict)), None)
        if not isinstance(body, dict):
            break
        found, body = body, body.get("error") or body.get("detail")
    return found


def _code_in(detail: dict[str, JSONValue]) -> JSONValue:
    """The code in an error object, or in the list or object of errors that it holds."""
    errors = detail.get("errors")
    places = [detail, detail.get("base_resp"), *(errors if isinstance(errors, list) else ())]
    found = [folded(place) for place in places if isinstance(place, dict)]
    codes = (place.get(key) for key in CODE_KEYS for place in found)
    return next((code for code in codes if code not in (None, "")), None)


def folded(value: dict[str, JSONValue]) -> dict[str, JSONValue]:
    """`value` with its keys in lower case."""
    return {key.lower(): item for key, item in value.items()}


def _words(value: JSONValue, depth: int = 0) -> str:
    """What `value` says, for people: the message in it, or its text."""
    if not value or value is True:
        return ""
    if isinstance(value, str):
        return _text_of_page(value) if value.lstrip()[:1] == "<" else excerpt(value)
    if isinstance(value, list) and depth < 4:
        return excerpt("; ".join(filter(None, (_words(item, depth + 1) for item in value))))
    if isinstance(value, dict) and depth < 4:
        # FastAPI's validation report: where, and what.
        if isinstance(text := value.get("msg"), str) and isinstance(at := value.get("loc"), list):
            return f"{'.'.join(map(str, at))}: {text}"
        named = folded(value)
        if isinstance(metadata := value.get("metadata"), dict):
            named["raw"] = metadata.get("raw")  # OpenRouter keeps the provider's own words here
        keys = ("error", "message", "detail", "title", "errors", "base_resp", *TEXT_KEYS, "raw")
        found = filter(None, (_words(named.get(key), depth + 1) for key in keys))
        if words := ": ".join(dict.fromkeys(found)):
            return excerpt(words)
    try:
        return excerpt(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):
        return excerpt(repr(type(value)))


def _text_of_page(page: str) -> str:
    """The text of an HTML page, its tags, styles and scripts left out."""
    page = re.sub(r"(?i)<(?:script|style)[^<>]*>[^<]*", " ", page[:100_000])
    return excerpt(re.sub(r"<[^<>]*>", " ", page)) or excerpt(page)


def shown_url(url: str) -> str:
    """`url` as messages show it: without query, fragment and user, which may hold a key."""
    return re.sub(r"//[^/]*@", "//", re.split("[?#]", url)[0])


def hides_variables(function: F) -> F:
    """Let the errors of a function show neither its variables nor those of what it calls: the
    settings of a client are among them, and what a server sent, which may repeat the key."""

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        try:
            return function(*args, **named)
        except OpenAIError as error:
            raise without_traceback(error) from error.__cause__
        finally:
            del args, named

    return cast("F", call)


def without_traceback(error: OpenAIError) -> OpenAIError:
    """`error` without the frames that it came through."""
    error.__context__ = error.__traceback__ = None
    return error


class Secret:
    """The key, out of sight of whoever prints the variables of a traceback."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "Secret(...)"


class Secrets:
    """The texts that no error may show: the key, and what works like one."""

    def __init__(self, *texts: str) -> None:
        # A local server's stand-in key, such as "none", is a word that a message may need.
        self._texts = frozenset(t for t in texts if len(t) >= 8 or t.startswith("sk-"))

    def __or__(self, other: Secrets) -> Secrets:
        return Secrets(*self._texts, *other._texts)

    def found_in(self, text: str) -> bool:
        return _pattern_of(self._texts).search(text) is not None

    def redacted(self, value: JSONValue) -> Any:
        """Text, or JSON with texts in it, with each secret struck out."""
        if isinstance(value, str):
            return _pattern_of(self._texts).sub("***", value)
        if isinstance(value, list):
            return [self.redacted(item) for item in value]
        if isinstance(value, dict):
            return {self.redacted(key): self.redacted(item) for key, item in value.items()}
        return value


@functools.lru_cache(maxsize=8)
def _pattern_of(texts: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(map(re.escape, texts), key=len, reverse=True)
    return re.compile("|".join(longest_first) or "(?!)", re.IGNORECASE)  # "(?!)" is nowhere
