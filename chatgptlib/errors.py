"""Every error that this library raises, and what each one carries.

    OpenAIError
    ├── ConfigError               a setting, a request or a call is not valid
    ├── HTTPError                 no complete reply arrived: connection, TLS, reset
    │   ├── RequestTimeoutError       a connect, read or total time limit ran out
    │   └── StreamInterruptedError    the stream ended early: .partial
    ├── APIError                  the server reported an error: .status_code .message .code .body
    │   ├── BadRequestError 400, AuthenticationError 401, PermissionDeniedError 403,
    │   │   NotFoundError 404, ConflictError 409, UnprocessableEntityError 422,
    │   │   InternalServerError 5xx
    │   └── RateLimitError 429        .retry_after
    │       └── QuotaExceededError 402, 429   the account has no quota left: never retried
    ├── DeserializeError          the reply was not what the API documents: .body .path
    ├── RefusalError              the model refused to give a structured answer: .response
    ├── OutputTruncatedError      a structured answer or a tool call was cut off: .response
    ├── ToolError                 a tool call could not be carried out: .call
    └── WebhookError              the signature or the time of a webhook is not valid

Whatever the network or a server does raises one of these errors, and each can be pickled.
An exception of the user's own code (a hook, signal handler, job runner or callback) is
raised unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from .models import ChatMessage, CreateChatCompletionResponse, ToolCall

JSONValue: TypeAlias = "dict[str, JSONValue] | list[JSONValue] | str | int | float | bool | None"
"""What `json.loads` returns. Code that takes one checks its type with `isinstance`."""


class OpenAIError(Exception):
    """The base class of every error that this library raises.

    partial: the response as far as it arrived, or None
    messages: the conversation so far, if the error ended run_tools() or stream_tools()
    request_id, headers: those of the HTTP response; None if there was none
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        # Set on the instance, since frameworks that wrap an error copy its `__dict__`.
        self.partial: CreateChatCompletionResponse | None = None
        self.messages: Sequence[ChatMessage | Mapping[str, Any]] | None = None
        self.request_id: str | None = None
        self.headers: Mapping[str, str] | None = None


class ConfigError(OpenAIError):
    """A setting, a request, a file or a call is not valid. An invalid request is not sent."""


class HTTPError(OpenAIError):
    """No complete reply arrived: the connection failed, or was lost.

    may_retry: True if the server has very likely not processed the request, because no
        connection was made, or the connection was lost within a second. The client has already
        retried such a request, at most `max_retries` times.
    """

    def __init__(self, text: str = "", *, may_retry: bool = False) -> None:
        super().__init__(text)
        self.may_retry = may_retry


class RequestTimeoutError(HTTPError, TimeoutError):
    """A connect or read timeout or the deadline ran out. The server may have processed the
    request, unless `may_retry` is True."""


class StreamInterruptedError(HTTPError):
    """A stream ended before it was complete. `partial` has what arrived of a chat completion."""


class DeserializeError(OpenAIError):
    """The reply was not what the API documents.

    body: the text of the reply, or None
    path: the place of the fault in the JSON, such as `$.choices[0].message`
    """

    def __init__(self, message: str, *, body: str | None = None, path: str = "$") -> None:
        super().__init__(message)
        self.body = body
        self.path = path


class RefusalError(OpenAIError):
    """The model refused to give a structured answer, or a content filter stopped it.

    The message is the model's refusal. `response` is the complete response.
    """

    def __init__(self, text: str = "", response: Any = None) -> None:
        super().__init__(text)
        self.response: CreateChatCompletionResponse = response


class OutputTruncatedError(OpenAIError):
    """A structured answer or a tool call was cut off by a token limit.

    `response` is the response, with the beginning of the text and the usage.
    """

    def __init__(self, text: str = "", response: Any = None) -> None:
        super().__init__(text)
        self.response: CreateChatCompletionResponse = response


class ToolError(OpenAIError):
    """A tool call could not be carried out.

    call: the tool call
    messages: the conversation up to the call, to continue once each of its calls has a result
    """

    def __init__(self, text: str = "", call: Any = None) -> None:
        super().__init__(text)
        self.call: ToolCall = call


class WebhookError(OpenAIError):
    """A webhook has a wrong signature, or is too old: do not act on it."""


class APIError(OpenAIError):
    """The server reported an error.

    status_code: the HTTP status; 200 if the error came in a 2xx reply or in a stream
    message: the text of the error
    type, param, code: as the server sent them, of any JSON type; None if it sent none
    body: the complete error: parsed if it was JSON, else text
    retry_after: seconds that the server asks to wait before a retry; None if it does not say
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
        self.headers: Mapping[str, str] = headers or {}  # pyright: ignore[reportIncompatibleVariableOverride]
        self.retry_after = retry_after


class BadRequestError(APIError):
    """400: the request is not valid for this model or server."""


class AuthenticationError(APIError):
    """401: the key is missing, wrong or revoked."""


class PermissionDeniedError(APIError):
    """403: the key has no permission for this request, or not in this region."""


class NotFoundError(APIError):
    """404: there is no such model, completion or path."""


class ConflictError(APIError):
    """409: the request conflicts with another one."""


class UnprocessableEntityError(APIError):
    """422: the request is well-formed, but a value in it is not valid."""


class RateLimitError(APIError):
    """429: too many requests or tokens. `retry_after` may say how long to wait."""


class QuotaExceededError(RateLimitError):
    """402, or any status with a code such as insufficient_quota: waiting does not help."""


class InternalServerError(APIError):
    """5xx: the server, or a gateway in front of it, failed."""


# The error class for a status, or for a value that servers send as `code` or `type`.
_CLASSES: dict[tuple[int | str, ...], type[APIError]] = {
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
    status_or_word: kind for group, kind in _CLASSES.items() for status_or_word in group
}
_NO_QUOTA = re.compile("(?i)insufficient_?(user_)?(quota|balance|credit|fund)|billing_hard_limit")


def error_class(status_code: int, code: JSONValue, type_: JSONValue) -> type[APIError]:
    """The class for a status; in a 2xx reply, the class for the `code` or `type` of the error."""
    if any(isinstance(word, str) and _NO_QUOTA.match(word) for word in (code, type_)):
        return QuotaExceededError
    values = [status_code] if status_code >= 400 else [code, type_]
    found = (_CLASS_OF.get(_table_key(value)) for value in values)
    return next(filter(None, found), APIError)


def _table_key(value: JSONValue) -> int | str | None:
    """The key of `_CLASS_OF` for a status or a word: "429" stands for 429, and 5xx for 500."""
    if isinstance(value, str) and re.fullmatch("[45][0-9][0-9]", value):
        value = int(value)
    if isinstance(value, int) and 500 <= value < 600:
        return 500
    return value if isinstance(value, (int, str)) else None


def is_transient(status_code: int) -> bool:
    """Whether a request with this status may succeed when it is sent again."""
    return status_code in (408, 409, 429) or (status_code >= 500 and status_code != 501)


_EXCERPT = 1000  # characters of a body in a message; `.body` has all of it


def excerpt(text: str) -> str:
    """The beginning of `text` on one line, for use in a message."""
    begin = text[: 4 * _EXCERPT]
    line = " ".join(begin.split())
    return line if len(line) <= _EXCERPT and begin == text else line[:_EXCERPT] + "..."
