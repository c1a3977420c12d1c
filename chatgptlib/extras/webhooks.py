"""Verify webhooks from OpenAI, and read their events. No network.

    event = verify_webhook(request.body, request.headers)  # both unchanged
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
from ..redaction import hides_variables
from ..replies import parsed

_WEBHOOK_SECRET = "OPENAI_WEBHOOK_SECRET"


class WebhookHeaders(Protocol):
    """A mapping, or the headers object of a framework."""

    def items(self) -> Iterable[tuple[str, object]]: ...  # a value is text or a list


@hides_variables
def verify_webhook(
    body: bytes | str,
    headers: WebhookHeaders,
    secret: str | Sequence[str] | None = None,
    *,
    tolerance: float | None = 300,
) -> dict[str, Any]:
    """Verify the signature and the time of a webhook, and return its event.

    `body` is the raw body, since the signature covers its bytes. `headers` are those of the
    request, or a WSGI environ. `secret` is the secret of the endpoint, or several during a
    rotation; if None, it is read from OPENAI_WEBHOOK_SECRET, where spaces separate several.
    `tolerance` is the maximum difference in seconds between the time of sending and this
    clock; None allows any. A webhook may arrive more than once, with the same `webhook-id`
    header.

    Raises WebhookError if the webhook can't be trusted, ConfigError if there is no secret.
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
        raise ConfigError(f"a webhook secret must be a str, not {type(secret).__name__}")
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
        return text.encode("utf-8", "surrogatepass")  # invalid text then fails the signature check
    if isinstance(text, (bytes, bytearray, memoryview)):
        return bytes(text)
    kind = type(text).__name__
    raise ConfigError(f"the webhook's body must be the raw bytes or str, not {kind}")


def _webhook_header(headers: WebhookHeaders, name: str) -> str:
    """The value of a header, joined if repeated. In WSGI its name is HTTP_WEBHOOK_ID."""
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
    if isinstance(value, bytes):  # in ASGI
        return value.decode("latin-1")
    return "" if value is None else str(value)


def _is_signed(signed: bytes, signatures: str, keys: list[bytes]) -> bool:
    """Whether any signature matches any key. All are compared, in constant time."""
    from base64 import b64encode
    from hmac import compare_digest, digest

    versions = (one.partition(",") for one in signatures.split())
    given = [_webhook_bytes(value) for version, _, value in versions if version == "v1"]
    made = [b64encode(digest(key, signed, "sha256")) for key in keys]
    matches = [compare_digest(one, other) for one in made for other in given]
    return any(matches)


def _check_webhook_age(sent_at: int, tolerance: float | None) -> None:
    age = int(time.time()) - sent_at
    if tolerance is None or abs(age) <= tolerance:
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
        raise WebhookError("the webhook's body is JSON, but not an object")
    return event
