"""Turns an HTTP reply into JSON, or into the error that it reports.

A reply may report an error by its status, or inside a 2xx reply, or may not be JSON at all.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any, TypeVar

from .errors import APIError, DeserializeError, JSONValue, OpenAIError, error_class, excerpt
from .exchange import Exchange

E = TypeVar("E", bound=OpenAIError)

_DEEPEST = 100  # levels of nesting that a reply may have


# The error in the JSON or the text of a reply

# The keys that servers use for the code and the text of an error, in lower case.
_CODE_KEYS = ("code", "error_code", "errorcode", "errcode", "__type", "status_code")
_TEXT_KEYS = (
    "message", "msg", "error_msg", "errmsg", "error_message", "errormessage", "status_msg",
)  # fmt: skip


def api_error(body: JSONValue, *, where: str = "", hint: str = "", **attributes: Any) -> APIError:
    """Make the error that `body` reports: parsed JSON of any shape, or text.

    `where` is the request, as "POST URL"; `attributes` are other arguments of APIError.
    Never raises, whatever `body` holds.
    """
    status_code, request_id = attributes.get("status_code", 200), attributes.get("request_id")
    detail = _error_object(body)
    message = _message_in(body) or "no reason given"
    kind, param, code = detail.get("type"), detail.get("param"), _code_in(detail)
    at = f" [{where}]" if where else ""
    request = f" (request {request_id})" if request_id else ""
    text = f"{status_code}: {message}{at}{request}" + (f". {hint}" if hint else "")
    return error_class(status_code, code, kind)(
        text, message=message, type=kind, param=param, code=code, body=body, **attributes
    )


def _error_object(body: JSONValue) -> dict[str, JSONValue]:
    """The innermost object of the error in `body`, which has its type, param and code."""
    found: dict[str, JSONValue] = {}
    for _ in range(8):  # no server nests an error more deeply
        if isinstance(body, list):
            body = next((item for item in body if isinstance(item, dict)), None)
        if not isinstance(body, dict):
            break
        found, body = body, body.get("error") or body.get("detail")
    return found


def _code_in(detail: dict[str, JSONValue]) -> JSONValue:
    """The code in an error object, or in an object or list of errors inside it."""
    errors = detail.get("errors")
    places = [detail, detail.get("base_resp"), *(errors if isinstance(errors, list) else ())]
    objects = [_lower_keys(place) for place in places if isinstance(place, dict)]
    codes = (place.get(key) for key in _CODE_KEYS for place in objects)
    return next((code for code in codes if code not in (None, "")), None)


def _lower_keys(value: dict[str, JSONValue]) -> dict[str, JSONValue]:
    return {key.lower(): item for key, item in value.items()}


def _message_in(value: JSONValue, depth: int = 0) -> str:
    """A message for people: the texts under the usual keys in `value`, or else all of it."""
    if not value or value is True:
        return ""
    if isinstance(value, str):
        return _text_of_page(value) if value.lstrip()[:1] == "<" else excerpt(value)
    if isinstance(value, list) and depth < 4:
        return excerpt("; ".join(filter(None, (_message_in(item, depth + 1) for item in value))))
    if isinstance(value, dict) and depth < 4:
        # FastAPI reports a validation error as its place and a message.
        if isinstance(text := value.get("msg"), str) and isinstance(at := value.get("loc"), list):
            return f"{'.'.join(map(str, at))}: {text}"
        members = _lower_keys(value)
        if isinstance(metadata := value.get("metadata"), dict):
            members["raw"] = metadata.get("raw")  # where OpenRouter puts the provider's message
        keys = ("error", "message", "detail", "title", "errors", "base_resp", *_TEXT_KEYS, "raw")
        texts = filter(None, (_message_in(members.get(key), depth + 1) for key in keys))
        if message := ": ".join(dict.fromkeys(texts)):
            return excerpt(message)
    try:
        return excerpt(json.dumps(value, ensure_ascii=False))
    except (ValueError, RecursionError):
        return ""


def _text_of_page(page: str) -> str:
    """The text of an HTML page without tags, styles and scripts."""
    page = re.sub(r"(?is)<(script|style)\b.*?(?:</\1[^<>]*>|\Z)", " ", page[:100_000])
    return excerpt(re.sub(r"<[^<>]*>", " ", page)) or excerpt(page)


# Errors in 2xx replies

_FAILURE = re.compile("(?i)error|abort|fail|insufficient_system")
# Values in lower case that mean "no error" as a code, or under `error`.
_NO_ERROR = {"none", "", "false", "0", "200", "ok", "success", "[]", "{}"}


def find_error(data: JSONValue) -> dict[str, Any] | None:
    """Find the error in the JSON of a 2xx reply to chat, or in one event of its stream.

    Returns the object that reports the error, for `api_error`, or None if there is no error.

    These are errors: an `error` that is not empty, here or in `x_groq`, a `base_resp` whose code
    is not a success, a choice that has an `error` or whose finish reason names a failure. If the
    object has no choices, these are errors too: a type or status that names a failure,
    `success: false`, and the keys of _CODE_KEYS and _TEXT_KEYS, unless a code means success.
    """
    if isinstance(data, list):  # some gateways send a list that holds the error
        return next((found for item in data if (found := find_error(item))), None)
    if not isinstance(data, dict):
        return None
    base, choices = data.get("base_resp"), data.get("choices")
    for place in (data, data.get("x_groq")):
        if isinstance(place, dict) and _is_error_value(place.get("error")):
            return place
    if isinstance(base, dict) and _is_error_object(base):
        return data
    if not choices or not isinstance(choices, list):
        return data if _is_error_object(data) else None
    failed = next((found for choice in choices if (found := _failed_choice(choice))), None)
    return data if data.get("errors") else failed


def _is_error_value(value: JSONValue) -> bool:
    """Whether the value of a key `error` reports an error: it is not empty or a success."""
    values = value.values() if isinstance(value, dict) else [value]
    return not _NO_ERROR.issuperset(str(item).lower() for item in values)


def _is_error_object(data: dict[str, JSONValue]) -> bool:
    """Whether an object without choices has the keys of an error."""
    members = _lower_keys(data)
    kinds = [members.get(key) for key in ("type", "object", "status")]
    if members.get("success") is False or any(map(_names_failure, kinds)):
        return True
    codes = [str(members[key]).lower() for key in _CODE_KEYS if members.get(key) is not None]
    if any(codes):
        return not _NO_ERROR.issuperset(codes)
    # A `message` that is an object is the model's.
    texts = [members.get(key) for key in _TEXT_KEYS]
    has_text = any(isinstance(text, str) and text for text in texts)
    return bool(has_text or members.get("detail") or members.get("errors"))


def _names_failure(value: JSONValue) -> bool:
    return isinstance(value, str) and _FAILURE.search(value) is not None


def _failed_choice(choice: JSONValue) -> dict[str, Any] | None:
    """The error that a choice reports, as an object for `api_error`."""
    if not isinstance(choice, dict):
        return None
    for place in (choice, choice.get("message"), choice.get("delta")):
        if isinstance(place, dict) and _is_error_value(place.get("error")):
            return place
    reasons = (choice.get("finish_reason"), choice.get("native_finish_reason"))
    reason = next(filter(_names_failure, reasons), None)
    if reason is None:
        return None
    text = f"the server ended the answer with the finish reason {reason!r}"
    message = choice.get("message") or choice.get("delta")
    if isinstance(message, dict) and isinstance(content := message.get("content"), str) and content:
        text += f": {content}"
    return {"error": {"message": text}, "choice": choice}


# The JSON of a reply


def reply_json(exchange: Exchange, content: bytes) -> Any:
    """The JSON of a reply. Raises DeserializeError if it is not JSON."""
    value, broken = parsed(content)
    if broken is not None:  # it may be JSON in another charset, or with an invalid character
        value, broken = parsed(body_text(exchange, content))
    if broken is not None:
        raise not_json(exchange, content)
    return value


def body_text(exchange: Exchange, content: bytes) -> str:
    """The text of a body, without the key: read as UTF-8, or else in the declared charset."""
    charsets = re.findall(r'charset="?([\w.:-]+)', exchange.headers.get("content-type", ""), re.I)
    text = content.decode("utf-8-sig", "replace")
    for charset in ("utf-8-sig", *charsets):
        try:
            text = content.decode(charset)
            break
        except (LookupError, ValueError):
            pass  # another charset, or an unknown one
    return str(exchange.redacted(text))


def parsed(text: str | bytes) -> tuple[JSONValue, Exception | None]:
    """The JSON in `text` and None; or None and the exception, if it is not JSON."""
    try:
        value = json.loads(text)
        check_depth(text, value)
        return value, None
    except (ValueError, RecursionError) as error:
        return None, error


def check_depth(text: str | bytes, value: Any) -> None:
    """Raise ValueError if `value`, the JSON of `text`, is nested too deeply for recursion."""
    opened: tuple[Any, Any] = (b"{", b"[") if isinstance(text, bytes) else ("{", "[")
    if text.count(opened[0]) + text.count(opened[1]) <= _DEEPEST:
        return  # it cannot be that deep, and the walk below is slow
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            item
            for outer in level
            if isinstance(outer, (dict, list))
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError("nested too deeply")


# The error for a reply


def error_in_reply(body: JSONValue, exchange: Exchange, *, hint: str = "") -> APIError:
    """The error that a reply reports in `body`, without the key."""
    body = exchange.redacted(body)
    status_code, text = exchange.status_code, body if isinstance(body, str) else json.dumps(body)
    return api_error(
        body,
        status_code=status_code,
        where=exchange.where,
        hint=hint,
        headers=exchange.safe_headers,
        request_id=exchange.request_id,
        retry_after=retry_after(exchange.headers, time.time(), text=text, status_code=status_code),
    )


def error_event(value: JSONValue, text: str, exchange: Exchange) -> APIError:
    """The error that an event reports: `text` is its data, `value` the JSON of that."""
    return error_in_reply(find_error(value) or {"error": value or text}, exchange)


def error_of_status(exchange: Exchange, base_url: str) -> APIError:
    """The error for a reply whose status is not 2xx."""
    text = body_text(exchange, exchange.read_error())
    value, broken = parsed(text)
    status, hint = exchange.status_code, ""
    if 300 <= status < 400:
        hint = (
            f"The server redirects to {exchange.safe_headers.get('location')!r}. Redirects are "
            "not followed: set base_url to the address of the API"
        )
    elif status in (404, 405) and "/v1" not in base_url and "/deployments/" not in base_url:
        hint = "Does base_url lack its /v1?"
    body = (text if broken else value) or exchange.reason
    return error_in_reply(body, exchange, hint=hint)


def not_json(exchange: Exchange, content: bytes) -> DeserializeError:
    """The error for a body that is not JSON."""
    begin = body_text(exchange, content).lstrip()[:1]
    broken = "is broken or cut JSON"
    found = {"": "is empty", "<": "is HTML", "{": broken, "[": broken}.get(begin, "is not JSON")
    hint = ". Does base_url end in /v1?" if begin == "<" else ""
    kind = exchange.redacted(exchange.headers.get("content-type"))
    what = f"the reply ({exchange.status_code}, {kind}) {found}"
    return unusable(exchange, content, what, hint=hint)


def unusable(
    exchange: Exchange, content: bytes, what: str, *, hint: str = "", path: str = "$"
) -> DeserializeError:
    """The error for a 2xx reply whose body cannot be used; `what` is the reason."""
    text = body_text(exchange, content)
    quoted = f": {excerpt(text)}" if text.strip() else ""
    request = f" (request {exchange.request_id})" if exchange.request_id else ""
    message = f"{what}{quoted} [{exchange.where}]{request}{hint}"
    return with_reply(DeserializeError(message, body=text, path=path), exchange)


def with_reply(error: E, exchange: Exchange) -> E:
    """Return `error` with the headers and the request id of the reply."""
    error.headers, error.request_id = exchange.safe_headers, exchange.request_id
    return error


# How long to wait before a retry

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}  # seconds
_RETRY_INFO = re.compile(r'"retryDelay\\*":\s*\\*"([\w.]+)')  # in the details of Google's errors
_RESET = re.compile("(?i).*rate-?limit.*reset.*")


def retry_after(
    headers: Mapping[str, str], now: float, *, text: str = "", status_code: int = 429
) -> float | None:
    """Seconds that the server asks to wait; None if it names no time that can be read.

    The first of these counts: the headers `retry-after-ms` and `retry-after`, a RetryInfo in
    the body `text`, and for a 429 the headers that say when a rate limit is reset. If limits
    have 0 remaining, only these count. `now` is Unix time.
    """
    places = [
        re.sub("[^ ,]+", r"\g<0>ms", headers.get("retry-after-ms", "")),
        headers.get("retry-after", ""),
        ",".join(_RETRY_INFO.findall(text)),
    ]
    if status_code == 429:
        resets = [name.lower() for name in headers if _RESET.fullmatch(name)]
        spent = [name for name in resets if headers.get(name.replace("reset", "remaining")) == "0"]
        places.append(",".join(headers[name] for name in spent or resets))
    waits = (_longest_wait(place, now) for place in places)
    return next((wait for wait in waits if wait is not None), None)


def _longest_wait(text: str, now: float) -> float | None:
    """The longest wait in a header that may hold several, separated by commas."""
    # A comma in a date only separates the day of the week, which is not needed.
    parts = text.split(",") if len(text) < 500 else []
    waits = [_seconds(part.strip(), now) for part in parts]
    return max((wait for wait in waits if wait is not None), default=None)


def _seconds(text: str, now: float) -> float | None:
    """Seconds from `now`. `text` is seconds, a duration, a Unix time or an HTTP date."""
    try:
        number = float(text)
    except ValueError:
        if text and not _DURATION.sub("", text):
            return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
        return _seconds_until(text, now)
    if not number >= 0:
        return None
    if number < 1e9:
        return number
    return max(0.0, (number / 1000 if number > 1e11 else number) - now)  # Unix time in s or ms


def _seconds_until(date: str, now: float) -> float | None:
    """Seconds from `now` until an HTTP date; None if `date` is not one."""
    from datetime import timezone
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(date)
        return max(0.0, moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None
