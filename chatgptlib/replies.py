"""From the server's answer to JSON, or to the error that it is. No I/O of its own.

An answer may refuse by its status, tell of an error in a good answer, or be no JSON.
"""

from __future__ import annotations

import codecs
import json
import re
import time
from collections.abc import Mapping
from typing import Any, TypeVar

from .errors import (
    CODE_KEYS,
    MESSAGE_KEYS,
    APIError,
    DeserializeError,
    JSONValue,
    OpenAIError,
    api_error,
    excerpt,
    lower_keys,
)
from .exchange import Exchange

E = TypeVar("E", bound=OpenAIError)

_DEEPEST = 100  # levels of nesting in an answer


# What counts as a failure

_FAILURE = re.compile("(?i)error|abort|fail|insufficient_system")
_SUCCESS_CODES = {"none", "", "false", "0", "200", "ok", "success", "[]", "{}"}


def find_error(data: JSONValue) -> dict[str, Any] | None:
    """The failure that the JSON of a 2xx reply to chat tells of, or of one event of its stream;
    None if there is none. What is found is for `api_error`, which reads its words and code.

    A failure is, anywhere, an `error` that is not empty, a `base_resp` with a code that is not
    a success, a choice with an `error` or with a finish reason that names a failure. In an
    object without choices it is also a type or status that names one, `success: false`, and
    any other key under which servers tell of an error, unless a code says that all is well.
    """
    if isinstance(data, list):  # some gateways wrap the one error in a list
        return next((found for item in data if (found := find_error(item))), None)
    if not isinstance(data, dict):
        return None
    base, choices = data.get("base_resp"), data.get("choices")
    if _has_content(data.get("error")) or (isinstance(base, dict) and _tells_of_error(base)):
        return data
    if not choices or not isinstance(choices, list):
        return data if _tells_of_error(data) else None
    failed = next((found for choice in choices if (found := _failed_choice(choice))), None)
    return data if data.get("errors") else failed


def _has_content(value: JSONValue) -> bool:
    """Whether what stands under `error` is one: not empty, and no words or codes of success."""
    words = value.values() if isinstance(value, dict) else [value]
    return not _SUCCESS_CODES.issuperset(str(word).lower() for word in words)


def _tells_of_error(data: dict[str, JSONValue]) -> bool:
    """Whether an object without choices has a key that only errors have."""
    named = lower_keys(data)
    if named.get("success") is False or any(
        _names_failure(named.get(key)) for key in ("type", "object", "status")
    ):
        return True
    codes = [str(named[key]).lower() for key in CODE_KEYS if named.get(key) is not None]
    if any(codes):
        return not _SUCCESS_CODES.issuperset(codes)
    texts = (named.get(key) for key in MESSAGE_KEYS)  # an object is a message of the model
    return bool(
        any(isinstance(text, str) and text for text in texts)
        or named.get("detail")
        or named.get("errors")
    )


def _names_failure(word: JSONValue) -> bool:
    return isinstance(word, str) and _FAILURE.search(word) is not None


def _failed_choice(choice: JSONValue) -> dict[str, Any] | None:
    if not isinstance(choice, dict):
        return None
    for place in (choice, choice.get("message"), choice.get("delta")):
        if isinstance(place, dict) and _has_content(place.get("error")):
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


# The JSON of a whole answer


def answer_json(exchange: Exchange, content: bytes) -> Any:
    """The JSON of a whole reply."""
    value, broken = parsed(content)
    if broken is not None:  # perhaps by no more than its charset, or one bad character
        value, broken = parsed(body_text(exchange, content))
    if broken is not None:
        raise not_json(exchange, content)
    return value


def body_text(exchange: Exchange, content: bytes) -> str:
    """The text of a body: UTF-8, else UTF-16 with its mark, else in the charset that the
    server declares. What can't be read is replaced, and the key struck out."""
    charsets = re.findall(r'charset="?([\w.:-]+)', exchange.headers.get("content-type", ""), re.I)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        charsets = ["utf-16"]
    text = content.decode("utf-8-sig", "replace")
    for charset in ("utf-8-sig", *charsets):
        try:
            text = content.decode(charset)
            break
        except (LookupError, ValueError):
            pass  # not these bytes, or no charset at all
    return str(exchange.redacted(text))


def parsed(text: str | bytes) -> tuple[JSONValue, Exception | None]:
    """The JSON in `text`, or None and why there is none."""
    try:
        value = json.loads(text)
        check_depth(text, value)
        return value, None
    except (ValueError, RecursionError) as error:
        return None, error


def check_depth(text: str | bytes, value: Any) -> None:
    """Raise ValueError if `value`, which `text` held, is nested deeper than any answer is,
    and than the recursion that walks it may go."""
    opened: tuple[Any, Any] = (b"{", b"[") if isinstance(text, bytes) else ("{", "[")
    if text.count(opened[0]) + text.count(opened[1]) <= _DEEPEST:
        return  # before the costly walk
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            item
            for one in level
            if isinstance(one, (dict, list))
            for item in (one.values() if isinstance(one, dict) else one)
        ]
    if level:
        raise ValueError("nested too deeply")


# What an answer that is no answer raises


def error_in_reply(
    told: Any, exchange: Exchange, *, hint: str = "", retry_after: float | None = None
) -> APIError:
    """The error that an answer tells of, with the key struck out."""
    return api_error(
        exchange.redacted(told),
        status_code=exchange.status_code,
        where=exchange.where,
        hint=hint,
        headers=exchange.safe_headers,
        request_id=exchange.request_id,
        retry_after=retry_after,
    )


def error_event(value: JSONValue, text: str, exchange: Exchange) -> APIError:
    """The error in an event named "error": `value` is its JSON, `text` what came."""
    return error_in_reply(value if find_error(value) else {"error": value or text}, exchange)


def error_of_status(exchange: Exchange, base_url: str) -> APIError:
    """The error for an answer whose status is not 2xx."""
    text = body_text(exchange, exchange.read_error())
    body, broken = parsed(text)
    status, hint = exchange.status_code, ""
    if 300 <= status < 400:
        hint = (
            f"It points to {exchange.safe_headers.get('location')!r}; redirects are not followed, "
            "so set base_url to where the API is"
        )
    elif status in (404, 405) and "/v1" not in base_url and "/deployments/" not in base_url:
        hint = "Does base_url lack its /v1?"
    told = text if broken else body
    wait = retry_after(exchange.headers, time.time(), text=text, status_code=status)
    return error_in_reply(told or exchange.reason, exchange, hint=hint, retry_after=wait)


def not_json(exchange: Exchange, content: bytes) -> DeserializeError:
    """The error for a body that should have been JSON."""
    begin = body_text(exchange, content).lstrip()[:1]
    broken = "is broken or cut JSON"
    found = {"": "is empty", "<": "is HTML", "{": broken, "[": broken}.get(begin, "is not JSON")
    hint = ". Does base_url end in /v1?" if begin == "<" else ""
    kind = exchange.redacted(exchange.headers.get("content-type"))
    what = f"the answer ({exchange.status_code}, {kind}) {found}"
    return unusable(exchange, content, what, hint=hint)


def unusable(
    exchange: Exchange, content: bytes, what: str, *, hint: str = "", path: str = "$"
) -> DeserializeError:
    """The error for a good status with a body that is no good; `what` says why."""
    text = body_text(exchange, content)
    quoted = f": {excerpt(text)}" if text.strip() else ""
    request = f" (request {exchange.request_id})" if exchange.request_id else ""
    message = f"{what}{quoted} [{exchange.where}]{request}{hint}"
    return with_answer(DeserializeError(message, body=text, path=path), exchange)


def with_answer(error: E, exchange: Exchange) -> E:
    """`error` with what is known of the answer it was found in."""
    error.headers, error.request_id = exchange.safe_headers, exchange.request_id
    return error


# How long the server asks to wait

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s|m|h|d)\s*")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}
_RETRY_INFO = re.compile(r'"retryDelay\\*":\s*\\*"([\w.]+)')  # in the details of Google's errors
_RESET = re.compile("(?i).*rate-?limit.*reset.*")


def retry_after(
    headers: Mapping[str, str], now: float, *, text: str = "", status_code: int = 429
) -> float | None:
    """Seconds the server asks to wait; None where it does not say, or nothing sensible.

    They are read from `retry-after-ms`, `retry-after`, the RetryInfo in the body `text`, and
    for a 429 from when a rate limit is reset, of a limit that is used up rather than of
    others. `now` is Unix time.
    """
    places = [
        re.sub("[^ ,]+", r"\g<0>ms", headers.get("retry-after-ms", "")),
        headers.get("retry-after", ""),
        ",".join(_RETRY_INFO.findall(text)),
    ]
    if status_code == 429:
        resets = [name.lower() for name in headers if _RESET.fullmatch(name)]
        used_up = [
            name for name in resets if headers.get(name.replace("reset", "remaining")) == "0"
        ]
        places.append(",".join(headers[name] for name in used_up or resets))
    waits = (_longest_wait(place, now) for place in places)
    return next((wait for wait in waits if wait is not None), None)


def _longest_wait(text: str, now: float) -> float | None:
    """The longest wait in a header, which may have come several times."""
    # The comma in a date only cuts off the day of the week, which says nothing.
    parts = text.split(",") if len(text) < 500 else []
    waits = [_seconds(part.strip(), now) for part in parts]
    return max((wait for wait in waits if wait is not None), default=None)


def _seconds(text: str, now: float) -> float | None:
    """Seconds from `now`: `text` is a number of seconds, a duration, or a point in time."""
    try:
        number = float(text)
    except ValueError:
        if text and not _DURATION.sub("", text):
            return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
        moment = _unix_time(text)
        return None if moment is None else max(0.0, moment - now)
    if not number >= 0:
        return None
    if number < 1e9:
        return number
    return max(0.0, (number / 1000 if number > 1e11 else number) - now)  # since 1970, in s or ms


def _unix_time(text: str) -> float | None:
    """The time that a date of HTTP or ISO 8601 means; without a zone it is UTC."""
    from datetime import datetime, timezone
    from email.utils import parsedate_to_datetime

    try:
        if re.match(r"\d{4}-", text):
            # Python 3.10 knows neither "Z" nor fractions of any length.
            moment = datetime.fromisoformat(re.sub(r"\.\d+", "", text.upper().rstrip("Z")))
        else:
            moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
