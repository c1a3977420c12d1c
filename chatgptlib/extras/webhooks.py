"""Webhooks: whether one comes from OpenAI, and what it says. No I/O.

    event = verify_webhook(request.body, request.headers)  # as they came
    if event["type"] == "response.completed": ...

https://platform.openai.com/docs/guides/webhooks and
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from ..codec import is_list
from ..errors import ConfigError, WebhookError
from ..replies import parsed

_WEBHOOK_SECRET = "OPENAI_WEBHOOK_SECRET"


class WebhookHeaders(Protocol):
    """Any mapping, and what frameworks have that is not quite one."""

    def items(self) -> Iterable[tuple[str, object]]: ...  # a value is text, or a list of it


def verify_webhook(
    body: bytes | str,
    headers: WebhookHeaders,
    secret: str | Sequence[str] | None = None,
    *,
    tolerance: float | None = 300,
) -> dict[str, Any]:
    """The event in a webhook, once its signature and time are found to hold.

    `body` is the body as it came, not parsed: the signature is over its bytes. `headers`
    are those of the request; a WSGI environ does as well. `secret` is the endpoint's, or
    several while one takes the place of another; it is taken from OPENAI_WEBHOOK_SECRET
    if None, where several are separated by spaces. `tolerance` is how many seconds the
    time of sending may lie back, or ahead; None is any number. A webhook may come more
    than once: its `webhook-id` header stays the same.

    Raises WebhookError where the webhook is not to be trusted, ConfigError where there
    is no secret to tell by.
    https://platform.openai.com/docs/guides/webhooks
    """
    keys = _webhook_keys(secret)
    content = _webhook_bytes(body)
    sent_id = _webhook_header(headers, "webhook-id")
    sent_at = _webhook_header(headers, "webhook-timestamp")
    signatures = _webhook_header(headers, "webhook-signature")
    signed = _webhook_bytes(f"{sent_id}.{sent_at}.") + content
    if not re.fullmatch("[0-9]{1,15}", sent_at):
        raise WebhookError("the webhook-timestamp header is not a number of seconds")
    if not _is_signed(signed, signatures, keys):
        raise WebhookError("the webhook's signature does not match its body and this secret")
    _check_webhook_age(int(sent_at), tolerance)
    return _webhook_event(content)


def _webhook_keys(secret: str | Sequence[str] | None) -> list[bytes]:
    if secret is None:
        secret = os.environ.get(_WEBHOOK_SECRET, "").split()
    given = secret if is_list(secret) else [secret]
    keys = [_webhook_key(one) for one in given if one]
    if not keys:
        raise ConfigError(f"no webhook secret: give one, or set {_WEBHOOK_SECRET}")
    return keys


def _webhook_key(secret: object) -> bytes:
    from base64 import b64decode

    if not isinstance(secret, str):
        raise ConfigError(f"a webhook secret is a str, not {type(secret).__name__}")
    secret = secret.strip()
    key = _webhook_bytes(secret)
    if secret.startswith("whsec_"):
        try:
            key = b64decode(secret.removeprefix("whsec_"), validate=True)
        except ValueError:
            raise ConfigError("the webhook secret is not base64 after its whsec_") from None
    if not key:  # anyone can sign with an empty key
        raise ConfigError("the webhook secret is empty")
    return key


def _webhook_bytes(text: bytes | bytearray | memoryview | str | None) -> bytes:
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")  # odd text then fails by its signature
    if isinstance(text, (bytes, bytearray, memoryview)):
        return bytes(text)
    kind = type(text).__name__
    raise ConfigError(f"give the webhook's body as it came, as bytes or str, not {kind}")


def _webhook_header(headers: WebhookHeaders, name: str) -> str:
    """The value of a header, several joined; WSGI calls it HTTP_WEBHOOK_ID."""
    found: list[str] = []
    for key, value in headers.items():
        if _webhook_text(key).lower().replace("_", "-").removeprefix("http-") == name:
            several = value if is_list(value) else [value]
            found += [_webhook_text(one) for one in several]
    text = " ".join(found).strip()
    if not text:
        raise WebhookError(f"the webhook has no {name} header")
    return text


def _webhook_text(value: object) -> str:
    if isinstance(value, bytes):  # as ASGI has them
        return value.decode("latin-1")
    return "" if value is None else str(value)


def _is_signed(signed: bytes, signatures: str, keys: list[bytes]) -> bool:
    """Whether any signature is of any key; all are compared, so that time tells nothing."""
    from base64 import b64encode
    from hmac import compare_digest, digest

    versions = (one.partition(",") for one in signatures.split())
    given = [_webhook_bytes(value) for version, _, value in versions if version == "v1"]
    made = [b64encode(digest(key, signed, "sha256")) for key in keys]
    matches = [compare_digest(one, other) for one in made for other in given]
    return any(matches)


def _check_webhook_age(sent_at: int, tolerance: float | None) -> None:
    if tolerance is None:
        return
    age = int(time.time()) - sent_at
    if abs(age) <= tolerance:
        return
    if age > 0:
        raise WebhookError(f"the webhook is too old: sent {age} s ago, {tolerance} s are allowed")
    raise WebhookError(
        f"the webhook is from the future: {-age} s ahead of this clock, {tolerance} s are allowed"
    )


def _webhook_event(content: bytes) -> dict[str, Any]:
    event, broken = parsed(content)
    if broken is not None:
        raise WebhookError("the webhook's body is not JSON") from broken
    if not isinstance(event, dict):
        raise WebhookError("the webhook's body is JSON, but no object")
    return event
