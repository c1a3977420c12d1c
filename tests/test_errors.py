"""Errors have the right class and the server's message, and survive pickling."""

import pickle

import pytest

from . import lib

WORDS = "the pump is broken"
TREE = {
    "OpenAIError": Exception,
    "ConfigError": "OpenAIError",
    "HTTPError": "OpenAIError",
    "RequestTimeoutError": "HTTPError",
    "StreamInterruptedError": "HTTPError",
    "APIError": "OpenAIError",
    "BadRequestError": "APIError",
    "AuthenticationError": "APIError",
    "PermissionDeniedError": "APIError",
    "NotFoundError": "APIError",
    "ConflictError": "APIError",
    "UnprocessableEntityError": "APIError",
    "InternalServerError": "APIError",
    "RateLimitError": "APIError",
    "QuotaExceededError": "RateLimitError",
    "DeserializeError": "OpenAIError",
    "RefusalError": "OpenAIError",
    "OutputTruncatedError": "OpenAIError",
    "ToolError": "OpenAIError",
    "WebhookError": "OpenAIError",
}


@pytest.mark.parametrize("name", TREE)
def test_the_tree_of_errors_is_the_documented_one(name):
    parent = TREE[name]
    parent = getattr(lib, parent) if isinstance(parent, str) else parent
    assert getattr(lib, name).__bases__[0] is parent
    assert getattr(lib, name).__doc__


def test_a_request_timeout_error_is_a_builtin_timeout_error():
    assert issubclass(lib.RequestTimeoutError, TimeoutError)


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BadRequestError"), (401, "AuthenticationError"), (403, "PermissionDeniedError"),
        (404, "NotFoundError"), (409, "ConflictError"), (422, "UnprocessableEntityError"),
        (429, "RateLimitError"), (500, "InternalServerError"), (502, "InternalServerError"),
        (529, "InternalServerError"), (402, "QuotaExceededError"), (418, "APIError"), (302, "APIError"),
    ],
)  # fmt: skip
def test_the_status_decides_the_class(status, name):
    error = lib.api_error({"error": {"message": "no", "type": "x"}}, status_code=status)
    assert type(error) is getattr(lib, name)
    assert error.status_code == status


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ({"code": "insufficient_quota"}, "QuotaExceededError"),
        ({"type": "insufficient_quota"}, "QuotaExceededError"),
        ({"code": "rate_limit_exceeded"}, "RateLimitError"),
        ({"type": "overloaded_error"}, "InternalServerError"),
        ({"code": "invalid_api_key"}, "AuthenticationError"),
        ({"code": 429}, "RateLimitError"),
        ({"code": "503"}, "InternalServerError"),
        ({"code": 429, "type": "insufficient_quota"}, "QuotaExceededError"),
        ({"code": 10000}, "APIError"),
        ({"code": 10**5000}, "APIError"),
        ({"code": 1e999, "type": "\ud83d"}, "APIError"),
        ({"code": 400}, "BadRequestError"),
        ({"code": "new_code"}, "APIError"),
        ({"code": {"a": 1}, "type": [2]}, "APIError"),
        ({"code": True, "type": 4.5}, "APIError"),
    ],
)
def test_inside_a_200_the_code_decides_the_class(told, name):
    error = lib.api_error({"error": {"message": "no", **told}})
    assert type(error) is getattr(lib, name)
    assert (error.status_code, error.code, error.type) == (200, told.get("code"), told.get("type"))


@pytest.mark.parametrize("key", ["code", "type"])
@pytest.mark.parametrize(
    "word",
    ["insufficient_quota", "insufficient_user_quota", "insufficient_balance_error",
     "InsufficientBalance", "insufficient_credits", "billing_hard_limit_reached"],
)  # fmt: skip
def test_an_exhausted_quota_is_distinguished_from_a_rate_limit_and_a_forbidden_key(word, key):
    for status in (403, 429):
        error = lib.api_error({"error": {key: word}}, status_code=status)
        assert type(error) is lib.QuotaExceededError


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": {"code": "c", "message": WORDS}}, "c"),
        ({"error": WORDS, "code": "c"}, "c"),
        ({"success": False, "errors": [{"code": 10000, "message": WORDS}], "messages": []}, 10000),
        ({"errors": [{"code": "c", "message": WORDS}], "trace": "t", "status_code": 400}, "c"),
        ({"error_code": "BAD_REQUEST", "message": WORDS}, "BAD_REQUEST"),
        ({"error_code": 336003, "error_msg": WORDS}, 336003),
        ({"__type": "ThrottlingException", "message": WORDS}, "ThrottlingException"),
        ({"Code": "InvalidApiKey", "Message": WORDS}, "InvalidApiKey"),
        ({"errorCode": "c", "errorMessage": WORDS}, "c"),
        ({"errcode": 40001, "errmsg": WORDS}, 40001),
        ({"error": {"code": 429, "message": WORDS, "status": "RESOURCE_EXHAUSTED"}}, 429),
        ([{"error": {"code": 429, "message": WORDS, "status": "RESOURCE_EXHAUSTED"}}], 429),
        ({"base_resp": {"status_code": 1008, "status_msg": WORDS}, "choices": None}, 1008),
        ({"detail": {"error_code": 7, "message": WORDS}}, 7),
        ({"code": None, "error_code": "c", "msg": WORDS}, "c"),
        ({"message": WORDS}, None),
        ({"errors": WORDS}, None),
        ({"errors": [WORDS]}, None),
    ],
    ids=str,
)
def test_code_and_message_are_found_under_any_known_name(body, code):
    error = lib.api_error(body, status_code=400)
    assert (error.code, error.message) == (code, WORDS)


BODIES = [
    {"error": {"message": WORDS, "type": "t", "param": "p", "code": "c"}},
    {"error": WORDS},
    {"error": WORDS, "status": 500},
    {"error": {"message": {"deep": WORDS}}},
    {"error": {"message": [WORDS, 5]}},
    {"error": {"message": None, "other": WORDS}},
    {"error": {"error": {"message": WORDS}}},
    {"error": [{"message": WORDS}]},
    {"error": [WORDS]},
    {"error": {"message": "Provider returned error", "metadata": {"raw": WORDS}}},
    {"error": "Bad Request", "message": WORDS},
    {"error": True, "message": WORDS},
    [{"error": {"message": WORDS}}],
    [WORDS],
    {"detail": WORDS},
    {"detail": [{"loc": ["body", "model"], "msg": WORDS, "type": "missing"}]},
    {"detail": {"error": {"message": WORDS}}},
    {"detail": {"message": WORDS}},
    {"message": WORDS},
    {"object": "error", "message": WORDS, "code": 40303},
    {"errors": [{"message": WORDS}]},
    {"title": "Oops", "detail": WORDS},
    {"fault": {"faultstring": WORDS}},
    WORDS,
    f"<html><head><style>a {{}}</style></head><body><h1>502</h1>{WORDS}</body></html>",
    f"upstream: {WORDS}\n",
]


@pytest.mark.parametrize("body", BODIES, ids=str)
def test_the_servers_message_is_in_the_text_whatever_the_shape_of_the_body(body):
    error = lib.api_error(body, status_code=500, where="POST http://host/v1", request_id="req_1")
    assert WORDS in str(error)
    assert WORDS in error.message
    assert "500" in str(error)
    assert "req_1" in str(error)
    assert "POST http://host/v1" in str(error)
    assert error.body == body


@pytest.mark.parametrize(
    "body",
    [None, "", {}, [], 0, True, 4.5, {"error": None}, {"error": {}}, {"error": 5}, [[[]]],
     {"error": {"message": "", "code": [], "type": {}}}, {"detail": [{"loc": 5, "msg": []}]},
     {"error": {"metadata": 5, "message": 7}}, "<", "<<<<", "<script>"],
    ids=repr,
)  # fmt: skip
def test_any_body_gives_an_error_with_a_message(body):
    error = lib.api_error(body, status_code=500)
    assert type(error) is lib.InternalServerError
    assert str(error).startswith("500: ")
    assert error.message


def deeply(key, depth=5000):
    value = {key: WORDS}
    for _ in range(depth):
        value = {key: value}
    return value


@pytest.mark.parametrize("key", ["error", "message", "detail", "x"])
def test_a_deeply_nested_body_gives_an_error(key):
    assert lib.api_error(deeply(key), status_code=500).status_code == 500


@pytest.mark.parametrize("kind", ["script", "STYLE"])
@pytest.mark.parametrize("end", ["</{}>", "</{} >", ""])
def test_the_text_of_a_page_has_no_scripts_and_no_styles(kind, end):
    page = f"<html><p>Sorry<{kind} type=x>if(a<b){{c()}} // <i>{end.format(kind.lower())}"
    assert lib.api_error(page, status_code=500).message == "Sorry"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:1/v1?key=k#f", "http://host:1/v1"),
        ("http://u:p@host/v1", "http://host/v1"),
        ("http://u:p/ss@host/v1", "http://host/v1"),
        ("http://u:p?s#s@host/v1?key=k", "http://host/v1"),
        ("http://u@x:p/ss@host/v1", "http://host/v1"),
        ("http://host/files/a@b", "http://host/files/a@b"),
        ("http://host:8000/files/a@b", "http://host:8000/files/a@b"),
        ("http://[::1]:8000/files/a@b?c@d", "http://[::1]:8000/files/a@b"),
        ("files/a@b", "files/a@b"),
    ],
)
def test_a_url_is_shown_without_user_password_and_query(url, shown):
    assert lib.shown_url(url) == shown


def test_a_long_page_is_quoted_in_part():
    assert len(str(lib.api_error("x" * 100_000, status_code=500))) < 2000


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_errors_pickle_with_all_they_carry(protocol):
    partial = lib.CreateChatCompletionResponse([lib.ChatCompletionChoice(index=0)])
    errors = [getattr(lib, name)("text") for name in TREE]
    errors.append(
        lib.api_error({"error": {"message": "m", "code": 1}}, status_code=429, retry_after=3.0,
                      headers={"a": "b"}, request_id="r")
    )  # fmt: skip
    errors.append(lib.DeserializeError("text", body="b", path="$.a"))
    for error in errors:
        error.partial = partial
        same = pickle.loads(pickle.dumps(error, protocol))
        assert type(same) is type(error)
        assert str(same) == str(error)
        assert vars(same) == vars(error)
