"""Replies: what counts as a failure, how long to wait, and which text is in the bytes."""

import pytest

from . import lib

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
        [{"error": {"message": SAID}}],
        [{"code": 429, "message": SAID}],
    ],
    ids=str,
)
def test_a_failure_in_a_reply_with_a_good_status_is_found(reply):
    error = lib.api_error(lib.find_error(reply))
    assert error.status_code == 200
    assert SAID in error.message


@pytest.mark.parametrize("key", ["finish_reason", "native_finish_reason"])
@pytest.mark.parametrize(
    "reason",
    ["error", "abort", "aborted", "network_error", "insufficient_system_resource", "failed",
     "ERROR", "server_error"],
)  # fmt: skip
def test_a_finish_reason_that_names_a_failure_is_one(key, reason):
    found = lib.find_error({"choices": [{**HALF, key: reason}]})
    assert lib.api_error(found).message == (
        f"the server ended the answer with the finish reason {reason!r}: Half of"
    )


@pytest.mark.parametrize(
    "reason",
    ["stop", "length", "tool_calls", "content_filter", "function_call", "eos", "null", "", None,
     "cancelled", "STOP", 5, "malformed_function_call"],
)  # fmt: skip
def test_any_other_finish_reason_is_none(reason):
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
        {"choices": [None, 5, []]}, {"choices": 5},
        {"type": "ping"}, {"object": "chat.completion.chunk", "choices": []},
        {"message": {"role": "assistant", "content": "Hi"}, "done": True},
        {"choices": [], "usage": {"total_tokens": 3}, "prompt_filter_results": []},
        {"object": "list", "data": [], "success": True, "status": "completed"},
    ],
    ids=str,
)  # fmt: skip
def test_nothing_is_found_where_nothing_failed(reply):
    assert lib.find_error(reply) is None
