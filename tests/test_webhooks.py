"""verify_webhook accepts what OpenAI signed just now, and rejects everything else."""

import hmac
import json
import time
import traceback
from base64 import b64encode
from email.message import Message

import pytest

from . import lib

NOW = 1_800_000_000
KEY = b"0123456789abcdef01234567"
SECRET = "whsec_" + b64encode(KEY).decode()
BODY = '{"object": "event", "type": "response.completed", "data": {"id": "ä"}}'
EVENT = json.loads(BODY)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.delenv("OPENAI_WEBHOOK_SECRET", raising=False)
    monkeypatch.setattr(time, "time", lambda: NOW + 0.9)


def signature(body=BODY, key=KEY, at=NOW, sent_id="wh_1"):
    body = body.encode() if isinstance(body, str) else body
    digest = hmac.new(key, f"{sent_id}.{at}.".encode() + body, "sha256").digest()
    return "v1," + b64encode(digest).decode()


def signed(body=BODY, key=KEY, at=NOW):
    return {
        "webhook-id": "wh_1",
        "webhook-timestamp": str(at),
        "webhook-signature": signature(body, key, at),
    }


def error_text(error, *args, **kwargs):
    with pytest.raises(error) as caught:
        lib.verify_webhook(*args, **kwargs)
    assert type(caught.value) is error
    told = "".join(traceback.format_exception(caught.value, chain=True))
    assert "\n" not in str(caught.value)
    assert SECRET not in told
    assert SECRET.removeprefix("whsec_") not in told
    return str(caught.value)


def test_a_signed_webhook_gives_its_event():
    assert lib.verify_webhook(BODY, signed(), SECRET) == EVENT
    assert lib.verify_webhook(BODY.encode(), signed(), SECRET) == EVENT
    assert lib.verify_webhook(bytearray(BODY.encode()), signed(), SECRET) == EVENT


def test_the_example_of_the_standard_is_let_through(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1614265330)
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    event = lib.verify_webhook('{"test": 2432232314}', headers, secret)
    assert event == {"test": 2432232314}


def message():
    headers = Message()
    for name, value in signed().items():
        headers[name.title()] = value
    return headers


HEADERS = {
    "lower case": signed(),
    "title case": {name.title(): value for name, value in signed().items()},
    "upper case": {name.upper(): value for name, value in signed().items()},
    "lists": {name: [value] for name, value in signed().items()},
    "a number": signed() | {"webhook-timestamp": NOW},
    "bytes": {name.encode(): value.encode() for name, value in signed().items()},
    "http.server": message(),
    "WSGI": {
        "wsgi.version": (1, 0),
        "REQUEST_METHOD": "POST",
        "HTTP_WEBHOOK_ID": "wh_1",
        "HTTP_WEBHOOK_TIMESTAMP": str(NOW),
        "HTTP_WEBHOOK_SIGNATURE": signature(),
    },
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_headers_are_found_in_any_case_and_form(headers):
    assert lib.verify_webhook(BODY, headers, SECRET) == EVENT


# Secrets


def test_the_secret_is_taken_from_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", f"whsec_YWJj {SECRET}\n")
    assert lib.verify_webhook(BODY, signed(), None) == EVENT
    assert lib.verify_webhook(BODY, signed()) == EVENT


def test_a_given_secret_goes_before_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", SECRET)
    assert "does not match" in error_text(lib.WebhookError, BODY, signed(), "other")
    assert "no webhook secret" in error_text(lib.ConfigError, BODY, signed(), "")


def test_a_secret_without_the_prefix_is_the_key_itself():
    assert lib.verify_webhook(BODY, signed(key=b"plain words"), "plain words\n") == EVENT


@pytest.mark.parametrize(
    "secret",
    [[SECRET, "old"], ["old", SECRET], ("whsec_YWJj", "", SECRET)],
    ids=["first", "second", "third"],
)
def test_while_secrets_rotate_any_of_them_will_do(secret):
    assert lib.verify_webhook(BODY, signed(), secret) == EVENT


@pytest.mark.parametrize(
    "signatures",
    [
        f"{signature(key=b'other')} {signature()}",
        f"{signature()} {signature(key=b'other')}",
        [signature(key=b"other"), signature()],
        f"v1a,YWJj v2,YWJj v1 , v1,é {signature()}",
    ],
)
def test_while_secrets_rotate_any_of_the_signatures_will_do(signatures):
    headers = signed() | {"webhook-signature": signatures}
    assert lib.verify_webhook(BODY, headers, SECRET) == EVENT


@pytest.mark.parametrize("secret", [None, "", [], [""], ()], ids=repr)
def test_a_missing_secret_is_a_config_error(secret):
    text = error_text(lib.ConfigError, BODY, signed(), secret)
    assert text == "no webhook secret: give one, or set OPENAI_WEBHOOK_SECRET"


@pytest.mark.parametrize("secret", ["whsec_", " ", ["whsec_", SECRET]], ids=repr)
def test_an_empty_secret_is_rejected_since_anyone_can_sign_with_it(secret):
    assert "empty" in error_text(lib.ConfigError, BODY, signed(key=b""), secret)


@pytest.mark.parametrize("end", ["!", "=", "é", " "])
def test_a_secret_that_is_not_base64_is_rejected_and_not_shown(end):
    secret = SECRET + end + "A"
    text = error_text(lib.ConfigError, BODY, signed(), secret)
    assert text == "the webhook secret is not base64 after its whsec_"


@pytest.mark.parametrize("secret", [SECRET.encode(), [SECRET.encode()], [5]], ids=type)
def test_a_secret_of_a_wrong_type_is_rejected(secret):
    assert "a webhook secret must be a str, not " in error_text(
        lib.ConfigError, BODY, signed(), secret
    )


# Rejected webhooks


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        (BODY + " ", {}),
        (BODY.replace("completed", "failed"), {}),
        (BODY.encode("utf-16"), {}),
        (BODY + "\ud800", {}),
        ("", {}),
        (BODY, {"webhook-id": "wh_2"}),
        (BODY, {"webhook-id": "wh_1."}),
        (BODY, {"webhook-timestamp": str(NOW + 1)}),
        (BODY, {"webhook-timestamp": f"0{NOW}"}),
        (BODY, {"webhook-signature": signature(key=b"other")}),
        (BODY, {"webhook-signature": signature().removeprefix("v1,")}),
        (BODY, {"webhook-signature": signature().replace("v1,", "v2,")}),
        (BODY, {"webhook-signature": signature()[:-1]}),
        (BODY, {"webhook-signature": signature() + "="}),
        (BODY, {"webhook-signature": signature().lower()}),
        (BODY, {"webhook-signature": "v1,"}),
        (BODY, {"webhook-signature": "v1"}),
        (BODY, {"webhook-signature": "v1,é\ud800"}),
    ],
)
def test_what_was_changed_on_the_way_does_not_match(body, changes):
    text = error_text(lib.WebhookError, body, signed() | changes, SECRET)
    assert text == "the webhook's signature does not match its body and this secret"


@pytest.mark.parametrize("name", signed())
@pytest.mark.parametrize("value", [..., "", " ", None, []], ids=repr)
def test_a_missing_header_is_named(name, value):
    headers = signed() | {name: value}
    if value is ...:
        del headers[name]
    assert (
        error_text(lib.WebhookError, BODY, headers, SECRET) == f"the webhook has no {name} header"
    )


@pytest.mark.parametrize("at", ["soon", "1.8e9", f"{NOW}.5", f"-{NOW}", "1_800_000_000", "٣", "9" * 5000])  # fmt: skip
def test_a_timestamp_that_is_not_a_number_is_rejected(at):
    text = error_text(lib.WebhookError, BODY, signed(at=at), SECRET)
    assert text == "the webhook-timestamp header is not a number of seconds"


@pytest.mark.parametrize("away", [0, 1, 300, -300])
def test_a_webhook_within_tolerance_is_let_through(away):
    assert lib.verify_webhook(BODY, signed(at=NOW - away), SECRET) == EVENT


@pytest.mark.parametrize(
    ("away", "words"),
    [
        (86400, "the webhook is too old: sent 86400 s ago, 300 s are allowed"),
        (301, "the webhook is too old: sent 301 s ago, 300 s are allowed"),
        (-301, "the webhook is from the future: 301 s ahead of this clock, 300 s are allowed"),
    ],
)
def test_a_webhook_out_of_tolerance_is_rejected_with_its_distance_in_seconds(away, words):
    assert error_text(lib.WebhookError, BODY, signed(at=NOW - away), SECRET) == words


def test_tolerance_can_be_wider_or_none():
    old = signed(at=NOW - 86400)
    assert lib.verify_webhook(BODY, old, SECRET, tolerance=86400) == EVENT
    assert lib.verify_webhook(BODY, old, SECRET, tolerance=None) == EVENT


def test_a_tolerance_of_zero_is_this_very_second():
    assert lib.verify_webhook(BODY, signed(), SECRET, tolerance=0) == EVENT
    for at in (NOW - 1, NOW + 1):
        assert "0 s are allowed" in error_text(
            lib.WebhookError, BODY, signed(at=at), SECRET, tolerance=0
        )


def test_a_tolerance_of_nan_rejects_the_webhook():
    assert error_text(lib.WebhookError, BODY, signed(), SECRET, tolerance=float("nan"))


@pytest.mark.parametrize(
    ("body", "words"),
    [("", "not JSON"), ("{", "not JSON"), (b"\xff", "not JSON"), ("[" * 100_000, "not JSON"),
     ("[]", "not an object"), ("null", "not an object"), ("5", "not an object")],
)  # fmt: skip
def test_a_signed_body_that_is_not_a_json_object_is_rejected(body, words):
    assert words in error_text(lib.WebhookError, body, signed(body), SECRET)


@pytest.mark.parametrize("body", [EVENT, None, 5], ids=type)
def test_a_parsed_body_is_rejected_with_the_reason(body):
    text = error_text(lib.ConfigError, body, signed(), SECRET)
    assert text.startswith("the webhook's body must be the raw bytes or str, not ")


WRONGLY_SIGNED = {"webhook-id": "a", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}


@pytest.mark.parametrize("headers", [{}, WRONGLY_SIGNED], ids=["unsigned", "wrongly-signed"])
def test_no_frame_of_a_rejected_webhook_shows_the_secret(monkeypatch, headers):
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", "-".join(["secret"] * 3))
    with pytest.raises(lib.WebhookError) as caught:
        lib.verify_webhook(b"{}", headers)
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    assert not [frame for frame in frames if "secret-secret" in repr(frame.f_locals)]
