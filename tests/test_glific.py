"""parse_via_chat_gpt: whatever a flow sends, it gets an answer or a reason, as JSON."""

import json
import math

import pytest

from . import lib
from .wire import completion, http

QUESTION = {"question_text": "Where is Pune?"}


def sent(client):
    [request] = client.server.requests
    return request.body


def test_a_question_alone_is_asked_with_the_defaults(offline):
    client = offline("In India.")
    found = lib.parse_via_chat_gpt(client, QUESTION)
    assert found == {"success": True, "parsed_msg": "In India."}
    assert sent(client) == {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "Where is Pune?"}],
        "temperature": 0,
    }


def test_all_supported_fields_are_sent(offline):
    client = offline("Hier.")
    fields = {
        **QUESTION,
        "prompt": "Answer in German.",
        "gpt_model": "gpt-4o-mini",
        "model": "not this one",
        "temperature": 0.5,
        "response_format": {"type": "text"},
        "organization_id": "1",
    }
    assert lib.parse_via_chat_gpt(client, fields)["success"] is True
    assert sent(client) == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "Answer in German."},
            {"role": "user", "content": "Where is Pune?"},
        ],
        "temperature": 0.5,
        "response_format": {"type": "text"},
    }


@pytest.mark.parametrize(
    ("fields", "key", "value"),
    [
        pytest.param({"model": "o3"}, "model", "o3", id="model-by-its-other-name"),
        pytest.param({"gpt_model": " ", "model": None}, "model", "gpt-4o", id="blank-model"),
        pytest.param({"temperature": "0.5"}, "temperature", 0.5, id="number-as-text"),
        pytest.param({"temperature": " "}, "temperature", 0, id="blank-number"),
        pytest.param({"temperature": None}, "temperature", 0, id="null-number"),
        pytest.param(
            {"response_format": '{"type": "json_object"}'},
            "response_format",
            {"type": "json_object"},
            id="object-as-text",
        ),
        pytest.param({"response_format": ""}, "response_format", None, id="blank-object"),
        pytest.param({"response_format": None}, "response_format", None, id="null-object"),
    ],
)
def test_fields_are_accepted_in_the_forms_that_flows_send(offline, fields, key, value):
    client = offline("Hi")
    assert lib.parse_via_chat_gpt(client, {**QUESTION, **fields})["success"] is True
    assert sent(client).get(key) == value


def test_a_number_is_accepted_as_a_question(offline):
    client = offline("The answer.")
    assert lib.parse_via_chat_gpt(client, {"question_text": 42})["success"] is True
    assert sent(client)["messages"] == [{"role": "user", "content": "42"}]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({}, "question_text is empty", id="nothing"),
        pytest.param({"question_text": ""}, "question_text is empty", id="empty"),
        pytest.param({"question_text": " \n"}, "question_text is empty", id="blank"),
        pytest.param({"question_text": None}, "question_text is empty", id="null"),
        pytest.param({"question_text": ["Hi"]}, "question_text must be text", id="list"),
        pytest.param({"question_text": True}, "question_text must be text", id="bool"),
        pytest.param({**QUESTION, "prompt": {}}, "prompt must be text", id="prompt-object"),
        pytest.param({**QUESTION, "model": []}, "model must be text", id="model-list"),
        pytest.param(None, "the fields of the webhook must be a JSON object", id="no-fields"),
        pytest.param([1], "the fields of the webhook must be a JSON object", id="fields-list"),
        *(
            pytest.param(
                {**QUESTION, "temperature": value}, "temperature must be a number", id=f"t-{value}"
            )
            for value in (math.nan, math.inf, "nan", "warm", True, [0], {}, 10**400)
        ),
        *(
            pytest.param(
                {**QUESTION, "response_format": value},
                "response_format must be a JSON object",
                id=f"format-{value}",
            )
            for value in ("json", "{", "[1]", "null", 1, [{}])
        ),
    ],
)
def test_invalid_fields_are_reported_and_nothing_is_sent(offline, fields, reason):
    client = offline("Hi")
    assert lib.parse_via_chat_gpt(client, fields) == {"success": False, "parsed_msg": reason}
    assert client.server.requests == []


@pytest.mark.parametrize(
    "value",
    [{}, {"type": "json"}, {"type": "JSON_OBJECT"}, {"type": None}, {"type": ["text"]},
     {"type": {}}, '{"type": "xml"}', {"schema": {"type": "object"}}],
    ids=str,
)  # fmt: skip
def test_an_unknown_response_format_type_is_reported_with_its_field(offline, value):
    client = offline("Hi")
    found = lib.parse_via_chat_gpt(client, {**QUESTION, "response_format": value})
    assert found == {
        "success": False,
        "parsed_msg": "response_format: its type must be one of text, json_object, json_schema",
    }
    assert client.server.requests == []


@pytest.mark.parametrize(
    "value", [{"x": math.nan}, {1: b""}, {"x": object()}], ids=["nan", "bytes", "object"]
)
def test_a_response_format_without_a_json_form_is_reported(offline, value):
    fields = {**QUESTION, "response_format": {"type": "text", **value}}
    found = lib.parse_via_chat_gpt(offline("Hi"), fields)
    assert found["success"] is False
    assert "cannot be written as JSON" in found["parsed_msg"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ('{"a": [1, null]}', {"a": [1, None]}),
        (' [1, "x"]\n', [1, "x"]),
        ("42", "42"),
        ('"quoted"', '"quoted"'),
        ("{not json", "{not json"),
        ('{"a": NaN}', '{"a": NaN}'),
        ("[1e999]", "[1e999]"),
        ("[" * 5000, "[" * 5000),
        ("हाँ", "हाँ"),
    ],
    ids=["object", "list", "number", "string", "broken", "nan", "infinite", "deep", "hindi"],
)
def test_an_answer_that_is_an_object_or_a_list_comes_parsed(offline, answer, told):
    found = lib.parse_via_chat_gpt(offline(answer), QUESTION)
    assert found == {"success": True, "parsed_msg": told}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


REFUSED = {"error": {"message": "Invalid schema", "type": "invalid_request_error"}}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((400, REFUSED), "Invalid schema"),
        ((503, "<h1>Down</h1>"), "Down"),
        ({"content": None, "refusal": "I can't help."}, "I can't help."),
        ({"content": None}, "the model gave no answer"),
    ],
    ids=["client-error", "server-error", "refusal", "no-text"],
)
def test_without_an_answer_the_reason_is_returned(offline, reply, reason):
    found = lib.parse_via_chat_gpt(offline(reply), QUESTION)
    assert found == {"success": False, "parsed_msg": reason}


def test_a_reply_without_choices_is_quoted(offline):
    found = lib.parse_via_chat_gpt(offline({"choices": []}), QUESTION)
    assert found["success"] is False
    assert found["parsed_msg"].startswith("$.choices: empty: the reply holds no answer")


def test_an_unreachable_server_is_reported_as_a_reason(offline):
    client = offline()
    client.server.close()
    found = lib.parse_via_chat_gpt(client, QUESTION)
    assert found["success"] is False
    assert found["parsed_msg"]


def test_no_reason_shows_the_key(ask):
    body = b'{"error": {"message": "Incorrect API key provided: sk-secret-key."}}'
    head = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    found = lib.parse_via_chat_gpt(ask(head + length + body), QUESTION)
    assert found["success"] is False
    assert "Incorrect API key" in found["parsed_msg"]
    assert "sk-secret-key" not in found["parsed_msg"]


def test_a_programming_error_is_raised_and_not_returned():
    with pytest.raises(AttributeError):
        lib.parse_via_chat_gpt(None, QUESTION)


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_truncated_answer_is_no_success(ask, reason):
    answer = completion("Take 2 tabl")
    answer["choices"][0]["finish_reason"] = reason
    found = lib.parse_via_chat_gpt(ask(http(answer)), QUESTION)
    assert found["success"] is False
    assert reason in found["parsed_msg"]
