"""Replies: what counts as an error, how long to wait, request ids, and charsets."""

import json
from datetime import datetime, timezone
from email.utils import formatdate

import pytest

from . import lib
from .wire import completion, http, sse

SAID = "busy"
HALF = {"index": 0, "message": {"role": "assistant", "content": "Half of"}}
GOOD = {"choices": [{**HALF, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    "reply",
    [
        {"error": SAID},
        {"error": {"message": SAID}},
        {"error": {"message": SAID, "code": 0}},
        {"error": [{"message": SAID}]},
        {"error": True, "message": SAID},
        {"error": {"message": SAID}, "choices": []},
        {"error": {"message": SAID}, **GOOD},
        {"choices": [{**HALF, "error": {"message": SAID}}]},
        {"choices": [GOOD["choices"][0], {**HALF, "error": SAID}]},
        {"choices": [{"finish_reason": "error", "delta": {"content": SAID}}]},
        {"choices": [{"finish_reason": "error", "message": {"content": SAID}}]},
        {"type": "error", "message": SAID},
        {"object": "error", "message": SAID},
        {"type": "error", "said": SAID},
        {"status": "failure", "reason": SAID},
        {"success": False, "reason": SAID},
        {"success": False, "errors": [{"code": 10000, "message": SAID}]},
        {"detail": SAID},
        {"detail": [{"loc": ["body"], "msg": SAID}]},
        {"errors": [SAID]},
        {"code": 429, "message": SAID},
        {"code": "429", "message": SAID},
        {"code": 500, "msg": SAID, "success": False},
        {"code": "Throttling", "said": SAID},
        {"code": None, "message": SAID},
        {"code": 1301, "message": SAID, "choices": None},
        {"error_code": 336100, "error_msg": SAID},
        {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": SAID},
        {"errorCode": "x", "errorMessage": SAID},
        {"errcode": 40001, "errmsg": SAID},
        {"Code": "InvalidApiKey", "Message": SAID},
        {"__type": "ThrottlingException", "message": SAID},
        {"message": SAID},
        {"id": "1", "message": SAID},
        {"msg": SAID},
        {"error_msg": SAID},
        {"base_resp": {"status_code": 1008, "status_msg": SAID}},
        {"base_resp": {"status_code": 1008, "status_msg": SAID}, "choices": None},
        {"base_resp": {"status_code": 1027, "status_msg": SAID}, **GOOD},
        {"x_groq": {"id": "req_1", "error": SAID}, "choices": []},
        {"x_groq": {"id": "req_1", "error": SAID}, **GOOD},
        [{"error": {"message": SAID}}],
        [{"code": 429, "message": SAID}],
    ],
    ids=str,
)
def test_an_error_in_a_reply_with_status_200_is_found(reply):
    error = lib.api_error(lib.find_error(reply))
    assert error.status_code == 200
    assert SAID in error.message


@pytest.mark.parametrize("key", ["finish_reason", "native_finish_reason"])
@pytest.mark.parametrize(
    "reason",
    ["error", "abort", "aborted", "network_error", "insufficient_system_resource", "failed",
     "ERROR", "server_error"],
)  # fmt: skip
def test_a_finish_reason_that_names_a_failure_is_an_error(key, reason):
    found = lib.find_error({"choices": [{**HALF, key: reason}]})
    assert lib.api_error(found).message == (
        f"the server ended the answer with the finish reason {reason!r}: Half of"
    )


@pytest.mark.parametrize(
    "reason",
    ["stop", "length", "tool_calls", "content_filter", "function_call", "eos", "null", "", None,
     "cancelled", "STOP", 5, "malformed_function_call"],
)  # fmt: skip
def test_any_other_finish_reason_is_not_an_error(reason):
    assert lib.find_error({"choices": [{**HALF, "finish_reason": reason}]}) is None


NOTHING = (None, "", {}, [], False)


@pytest.mark.parametrize(
    "reply",
    [
        None, 5, "error", [], {}, [[]], [None, 5],
        GOOD,
        *[{"error": none} for none in NOTHING],
        *[{"error": none, **GOOD} for none in NOTHING],
        *[{key: none} for none in NOTHING for key in ("code", "message", "errors", "detail")],
        *[{"choices": [{**HALF, "error": none}]} for none in NOTHING],
        {"error": {"code": None, "message": ""}, **GOOD},
        *[{"code": code, "message": "success"} for code in (0, 200, "0", "200", "ok", "Success")],
        {"code": 0, "msg": "ok", "data": {}},
        {"code": 429, "message": "slow", **GOOD},
        {"base_resp": {"status_code": 0, "status_msg": ""}, **GOOD},
        {"base_resp": {"status_code": 0, "status_msg": "success"}},
        {"base_resp": None, **GOOD},
        *[{"x_groq": {"id": "req_1", "error": none}, **GOOD} for none in NOTHING],
        {"choices": [None, 5, []]}, {"choices": 5},
        {"type": "ping"}, {"object": "chat.completion.chunk", "choices": []},
        {"message": {"role": "assistant", "content": "Hi"}, "done": True},
        {"choices": [], "usage": {"total_tokens": 3}, "prompt_filter_results": []},
        {"object": "list", "data": [], "success": True, "status": "completed"},
    ],
    ids=str,
)  # fmt: skip
def test_no_error_is_found_in_a_reply_without_one(reply):
    assert lib.find_error(reply) is None


# How long to wait

NOW = 1_700_000_000.0
IN_7_S = datetime.fromtimestamp(NOW + 7, timezone.utc).replace(tzinfo=None)
HTTP_DATE = formatdate(NOW + 7, usegmt=True)


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("5", 5), ("0", 0), ("2.5", 2.5), ("5, 5", 5), ("5,5,5", 5), ("5, 9", 9), ("5, later", 5),
        ("250ms", 0.25), ("1s", 1), ("6m0s", 360), ("1m30s", 90), ("1m 30s", 90),
        ("1h2m3.5s", 3723.5), ("1d", 86400), ("5 s", 5),
        (f"{NOW + 7:.0f}", 7), (f"{NOW + 7:.3f}", 7), (f"{1000 * (NOW + 7):.0f}", 7),
        (f"{NOW - 7:.0f}", 0),
        (HTTP_DATE, 7), (f"{HTTP_DATE}, {HTTP_DATE}", 7), (formatdate(NOW - 7, usegmt=True), 0),
        (IN_7_S.strftime("%A, %d-%b-%y %H:%M:%S GMT"), 7), (IN_7_S.strftime("%a %b %d %H:%M:%S %Y"), 7),
        ("inf", float("inf")),
        ("", None), ("later", None), ("-5", None), ("nan", None), ("5x", None), ("1.2.3s", None), ("ms", None),
        ("Mon, 99 Xxx 2026 00:00:00 GMT", None), ("2026-11-26T00:00:00Z", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "name", ["retry-after", "x-ratelimit-reset", "anthropic-ratelimit-tokens-reset"]
)
def test_a_wait_is_read_in_every_form_that_headers_have(name, value, wait):
    assert lib.retry_after({name: value}, NOW) == (wait if wait is None else pytest.approx(wait))


def test_an_error_in_a_200_has_the_retry_delay_of_its_retry_info(ask, question):
    error = {"error": {"code": 429, "message": SAID, "details": [RETRY_INFO]}}
    client = ask(http(error), http(sse(error)))
    with pytest.raises(lib.RateLimitError, match=SAID) as caught:
        lib.create_chat_completion(client, question)
    assert caught.value.retry_after == 3.5
    with pytest.raises(lib.RateLimitError, match=SAID) as caught:
        list(lib.create_chat_completion_stream(client, question))
    assert caught.value.retry_after == 3.5


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}
GOOGLE = json.dumps([{"error": {"code": 429, "message": SAID, "details": [RETRY_INFO]}}])


@pytest.mark.parametrize(
    ("headers", "text", "status", "wait"),
    [
        ({"retry-after-ms": "120", "retry-after": "9"}, "", 429, 0.12),
        ({"retry-after-ms": "120, 120"}, "", 429, 0.12),
        ({"retry-after": "9", "x-ratelimit-reset": "5"}, GOOGLE, 429, 9),
        ({"x-ratelimit-reset": "5"}, GOOGLE, 429, 3.5),
        ({}, GOOGLE, 503, 3.5),
        ({}, json.dumps({"error": {"message": GOOGLE}}), 429, 3.5),
        ({}, GOOGLE.replace("3.5s", "soon"), 429, None),
        ({"x-ratelimit-reset": "5"}, "", 503, None),
        ({"x-ratelimit-reset-requests": "2s", "x-ratelimit-reset-tokens": "30ms"}, "", 429, 2),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "99",
          "x-ratelimit-reset-tokens": "30ms", "x-ratelimit-remaining-tokens": "0"}, "", 429, 0.03),
        ({"x-ratelimit-remaining": "0"}, "", 429, None),
    ],
)  # fmt: skip
def test_the_sources_of_a_wait_have_a_fixed_precedence(headers, text, status, wait):
    assert lib.retry_after(headers, NOW, text=text, status_code=status) == wait


def test_a_header_that_came_twice_and_a_delay_in_the_body_are_waited_for(ask, question):
    refusals = [
        http({}, "429 Slow", "Retry-After: 2", "Retry-After: 2"),
        http(GOOGLE.encode(), "429 Slow"),
    ]
    client = ask(*refusals, http(completion()))
    assert lib.create_chat_completion(client, question).text == "Hi!"
    assert client.waits == [2, 3.5]


@pytest.mark.parametrize(
    "value", ["9" * 60_000 + "x", "1s" * 30_000 + "x", "9." * 30_000, "," * 60_000]
)
def test_a_huge_invalid_wait_is_ignored(value):
    assert lib.retry_after({"retry-after": value}, NOW) is None
    assert lib.retry_after({}, NOW, text=f'{{"retryDelay": "{value}"}}') is None


# Request ids


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        (["x-request-id: a"], "a"),
        (["apim-request-id: b", "x-request-id: a", "cf-ray: c"], "a"),
        (["x-request-id:", "cf-ray: c"], "c"),
        *[([f"{header}: a", "cf-ray: c"], "a") for header in (
            "request-id", "x-amzn-requestid", "X-Amzn-RequestId", "apim-request-id",
            "x-ms-request-id", "x-goog-request-id", "x-ds-trace-id", "x-tt-logid",
            "X-Cloud-Trace-Context", "x-siliconcloud-trace-id")],
        (["CF-RAY: c-FRA"], "c-FRA"),
        (["x-other: d"], None),
    ],
)  # fmt: skip
def test_the_request_id_is_found_under_the_header_names_of_other_clouds(
    ask, question, headers, name
):
    client = ask(http(completion(), "200 OK", *headers), http({"error": SAID}, "400 Bad", *headers))
    assert lib.create_chat_completion(client, question).request_id == name
    with pytest.raises(lib.BadRequestError) as caught:
        lib.create_chat_completion(client, question)
    assert caught.value.request_id == name
    assert (f"(request {name})" in str(caught.value)) is (name is not None)


# Charsets

WORDS = "余额不足, é"
FRENCH = "échec"


@pytest.mark.parametrize(
    ("text", "kind", "encoding"),
    [
        (WORDS, "text/plain; charset=GBK", "gb18030"),
        (WORDS, 'text/plain; charset="gb18030"; x=y', "gb18030"),
        (FRENCH, "text/plain; charset=iso-8859-1", "latin-1"),
        (WORDS, "text/plain; charset=iso-8859-1", "utf-8"),
        (WORDS, "text/plain; charset=no-such", "utf-8"),
        (WORDS, "text/plain", "utf-8-sig"),
        (WORDS, "text/plain; charset=utf-16le", "utf-16le"),
    ],
)
def test_bytes_that_are_not_utf_8_are_read_in_the_charset_that_the_server_declares(
    ask, question, text, kind, encoding
):
    said, json_kind = text.encode(encoding), kind.replace("text/plain", "application/json")
    error = json.dumps({"error": {"message": text}}, ensure_ascii=False).encode(encoding)
    answer = json.dumps(completion(text), ensure_ascii=False).encode(encoding)
    page = f"<html><body>{text}</body></html>".encode(encoding)
    for body, header in ((said, kind), (error, json_kind), (page, kind)):
        with pytest.raises(lib.NotFoundError) as caught:
            lib.create_chat_completion(
                ask(http(body, "404 No", f"Content-Type: {header}")), question
            )
        assert caught.value.message == text
    client = ask(http(answer, "200 OK", f"Content-Type: {json_kind}"))
    assert lib.create_chat_completion(client, question).text == text
    with pytest.raises(lib.DeserializeError, match=text):
        lib.create_chat_completion(ask(http(said, "200 OK", f"Content-Type: {kind}")), question)


def test_valid_utf_8_is_decoded_as_utf_8_whatever_charset_is_declared(ask, question):
    reply = http("é \ufffd".encode(), "404 No", "Content-Type: text/plain; charset=iso-8859-1")
    with pytest.raises(lib.NotFoundError, match="é \ufffd"):
        lib.create_chat_completion(ask(reply), question)


@pytest.mark.parametrize("charset", ["no-such", "hex", "idna", "undefined", "utf-8", "", '"', "%"])
def test_an_unusable_charset_is_ignored(ask, question, charset):
    header = f"Content-Type: text/plain; charset={charset}"
    with pytest.raises(lib.NotFoundError, match="said: \ufffd"):
        lib.create_chat_completion(ask(http(b"said: \xff", "404 No", header)), question)
