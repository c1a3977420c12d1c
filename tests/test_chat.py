"""The two chat functions: what they send, what they return, what they reject before sending."""

import contextlib
import json
from dataclasses import dataclass
from enum import Enum
from typing import TypedDict

import pytest
import responses

from . import lib
from .wire import CLOSE, Reply, chunk, completion, http, sse, streamed

URL = "https://api.openai.com/v1/chat/completions"


@pytest.fixture
def mocked():
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def client():
    with lib.OpenAIClient("sk-secret-key", max_retries=0) as client:
        yield client


def test_a_request_is_posted_and_its_response_returned(mocked, client):
    mocked.post(URL, json=completion("Hi!"), headers={"X-Request-Id": "req_1"})
    request = lib.CreateChatCompletionRequest(
        model=lib.Model.GPT_4O_MINI,
        messages=[lib.ChatMessage.system("Be brief."), {"role": "user", "content": "Hi"}],
        temperature=0.7,
        extra={"top_k": 5},
    )
    response = lib.create_chat_completion(client, request)
    sent = mocked.calls[0].request
    assert json.loads(sent.body) == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ],
        "temperature": 0.7,
        "top_k": 5,
    }
    assert sent.headers["Authorization"] == "Bearer sk-secret-key"
    assert response.text == "Hi!"
    assert response.usage.total_tokens == 3
    assert response.request_id == "req_1"
    assert response.headers["x-request-id"] == "req_1"


def test_a_received_message_can_be_sent_in_the_next_request(mocked, client, question):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    mocked.post(URL, json=completion(None, tool_calls=[call], reasoning_content="hm"))
    message = lib.create_chat_completion(client, question).choices[0].message
    lib.create_chat_completion(client, {"model": "m", "messages": [message]})
    assert json.loads(mocked.calls[1].request.body)["messages"] == [
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"}
    ]


class Style(Enum):
    BRIEF = "brief"


@dataclass
class Part:
    type: str
    text: str
    note: str | None = None


@dataclass
class MyMessage:
    role: str
    content: list[Part]


@dataclass
class MyRequest:
    model: str
    messages: list[MyMessage]
    top_k: int | None = None
    seed: int | None = None
    style: Style = Style.BRIEF


@dataclass
class MyAnswer:
    id: str
    choices: list


class MyDict(TypedDict):
    id: str


def test_any_dataclass_can_be_a_request_and_any_class_a_response(mocked, client, question):
    mocked.post(URL, json=completion())
    request = MyRequest("m", [MyMessage("user", [Part("text", "Hi")])], top_k=3)
    answer = lib.create_chat_completion(client, request, into=MyAnswer)
    assert json.loads(mocked.calls[0].request.body) == {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "top_k": 3,
        "style": "brief",
    }
    assert answer == MyAnswer("chatcmpl-1", completion()["choices"])
    assert lib.create_chat_completion(client, question, into=dict) == completion()
    assert lib.create_chat_completion(client, question, into=MyDict)["id"] == "chatcmpl-1"


@pytest.mark.parametrize("function", ["create_chat_completion", "create_chat_completion_stream"])
@pytest.mark.parametrize("request_", [None, 5, "Hi", [], MyRequest])
def test_a_request_that_is_neither_dataclass_nor_mapping_is_rejected(client, function, request_):
    with pytest.raises(lib.ConfigError, match="a dataclass or a mapping"):
        getattr(lib, function)(client, request_)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "Out of range float values are not JSON compliant"),
        (b"0.5", "bytes has no JSON form"),
        (object(), "object has no JSON form"),
    ],
)
def test_a_value_without_a_json_form_is_rejected_with_its_path_before_sending(
    mocked, client, value, words
):
    mocked.assert_all_requests_are_fired = False
    mocked.post(URL, json=completion())
    request = lib.CreateChatCompletionRequest(model="m", messages=[], temperature=value)
    with pytest.raises(lib.ConfigError) as caught:
        lib.create_chat_completion(client, request)
    assert str(caught.value).startswith(f"cannot be written as JSON: $.temperature: {words}")
    assert not mocked.calls


@pytest.mark.parametrize(
    "request_",
    [
        lib.CreateChatCompletionRequest(model="m", messages=[], stream=True),
        lib.CreateChatCompletionRequest(model="m", messages=[], extra={"stream": True}),
        {"model": "m", "messages": [], "stream": True},
    ],
    ids=["field", "extra", "mapping"],
)
def test_stream_true_is_rejected_by_create_chat_completion(client, request_):
    with pytest.raises(lib.ConfigError, match="create_chat_completion_stream"):
        lib.create_chat_completion(client, request_)


@pytest.mark.parametrize("stream", [None, False, True])
def test_the_stream_function_sends_stream_true_and_leaves_the_request_unchanged(ask, stream):
    client = ask(streamed(chunk("a", finish_reason="stop")))
    messages = [lib.ChatMessage.user("Hi")]
    request = lib.CreateChatCompletionRequest(model="m", messages=messages, stream=stream)
    lib.create_chat_completion_stream(client, request).close()
    assert client.wire.requests[0].json["stream"] is True
    assert client.wire.requests[0].headers["accept"] == "text/event-stream"
    assert request.stream is stream


def test_an_unsupported_into_class_is_rejected_before_sending(client, question):
    for function in (lib.create_chat_completion, lib.create_chat_completion_stream):
        with pytest.raises(lib.ConfigError, match="cannot decode into"):
            function(client, question, into=str)


def test_an_api_error_has_the_servers_message_and_the_request_id(mocked, client, question):
    for status, name in ((400, "BadRequestError"), (401, "AuthenticationError")):
        body = {"error": {"message": "Model m is gone", "type": "t", "param": "model", "code": "c"}}
        mocked.post(URL, json=body, status=status, headers={"x-request-id": "req_9"})
        for function in (lib.create_chat_completion, lib.create_chat_completion_stream):
            with pytest.raises(getattr(lib, name)) as caught:
                function(client, question)
            error = caught.value
            assert str(error) == (f"{status}: Model m is gone [POST {URL}] (request req_9)")
            assert (error.type, error.param, error.code) == ("t", "model", "c")
            assert (error.message, error.body) == ("Model m is gone", body)
            assert (error.status_code, error.request_id) == (status, "req_9")
            assert error.headers["X-Request-ID"] == "req_9"
        mocked.reset()


@pytest.mark.parametrize("path", ["/", "/api", "/v2"])
def test_a_404_or_405_under_a_base_url_without_v1_adds_a_hint(ask, question, path):
    for status in ("404 Not Found", "405 Method Not Allowed"):
        found = ask(http({"error": {"message": "no such way"}}, status))
        bare = found.base_url.removesuffix("/v1") + path
        for url, asked in ((found.base_url, False), (bare, True)):
            with lib.OpenAIClient(base_url=url) as other, pytest.raises(lib.APIError) as caught:
                lib.create_chat_completion(other, question)
            assert str(caught.value).startswith(f"{status[:3]}: no such way")
            assert ("Does base_url lack its /v1?" in str(caught.value)) is asked


def test_a_stream_works_through_a_mock(mocked, client, question):
    mocked.post(URL, body=sse(chunk("a"), chunk("b", finish_reason="stop")))
    assert list(lib.create_chat_completion_stream(client, question).text_deltas()) == ["a", "b"]


def test_an_unrequested_stream_is_added_up_to_a_response(ask, question):
    client = ask(
        http(sse(chunk("a", role="assistant"), chunk("b", finish_reason="stop")), "200 OK",
             "Content-Type: application/json")
    )  # fmt: skip
    assert lib.create_chat_completion(client, question).text == "ab"


def test_an_unrequested_stream_without_an_end_is_an_error_with_its_partial(ask, question):
    client = ask(http(sse(chunk("a"), done=False)))
    with pytest.raises(lib.StreamInterruptedError) as caught:
        lib.create_chat_completion(client, question)
    assert caught.value.partial.text == "a"


def test_an_unrequested_stream_that_loses_its_connection_keeps_its_partial(ask, question):
    whole = http(sse(chunk("a"), done=False))
    cut = whole.replace(b"Content-Length: ", b"Content-Length: 9")
    with pytest.raises(lib.HTTPError, match="lost in the middle") as caught:
        lib.create_chat_completion(ask(Reply(cut, CLOSE)), question)
    assert caught.value.partial.text == "a"


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"role": "assistant", "content": "Hi!"}},
        {"message": None, "delta": {"content": "Hi!"}},
        {"message": {}, "delta": {"content": "Hi!"}},
        {"text": "Hi!"},
        {"message": {"role": "assistant", "content": "Hi!"}, "delta": {"content": ""}},
    ],
    ids=str,
)
def test_a_message_under_another_key_is_read(ask, question, choice):
    answer = {"id": "c", "choices": [{"index": 0, **choice, "finish_reason": "stop"}]}
    client = ask(http(answer))
    response = lib.create_chat_completion(client, question)
    assert response.text == "Hi!"
    assert not {"delta", "text"} & response.choices[0].to_dict().keys()
    assert lib.create_chat_completion(client, question, into=dict) == answer


@pytest.mark.parametrize("into", [lib.CreateChatCompletionResponse, dict])
@pytest.mark.parametrize(
    "answer",
    [{}, {"id": "c"}, {"choices": []}, {"choices": None}, {"id": "c", "choices": [], "usage": {}},
     {"choices": [{}]}, {"choices": [{"index": 0, "message": None}]}, {"code": 0, "msg": "ok"}],
    ids=str,
)  # fmt: skip
def test_a_reply_without_a_message_is_an_error_that_quotes_it(ask, question, answer, into):
    client = ask(http(answer, "200 OK", "x-request-id: req_5"))
    with pytest.raises(lib.DeserializeError) as caught:
        lib.create_chat_completion(client, question, into=into)
    error = caught.value
    assert error.path == "$.choices"
    assert str(error) == (
        f"$.choices: empty: the reply holds no answer: {json.dumps(answer)} "
        f"[POST {client.base_url}/chat/completions] (request req_5)"
    )


@pytest.mark.parametrize("odd", [{"content": "B", "finish_reason": "stop"}, {"answer": "B"}, "B"])
def test_a_choice_with_text_at_an_unknown_place_is_never_dropped(ask, question, odd):
    whole = {"index": 0, "message": {"content": "A"}, "finish_reason": "stop"}
    with pytest.raises(lib.DeserializeError) as caught:
        lib.create_chat_completion(ask(http({"choices": [whole, odd]})), question)
    assert caught.value.path == "$.choices[1]"
    assert '"B"' in str(caught.value)
    assert caught.value.partial.text == "A"


def test_a_filtered_choice_without_a_message_is_a_choice(ask, question):
    whole = {"index": 0, "message": {"content": "A"}, "finish_reason": "stop"}
    odd = {"index": 1, "message": None, "finish_reason": "content_filter", "stop_reason": "SAFETY"}
    response = lib.create_chat_completion(ask(http({"choices": [whole, odd]})), question)
    assert [choice.finish_reason for choice in response.choices] == ["stop", "content_filter"]


def test_an_empty_choice_beside_another_is_left_out(ask, question):
    whole = {"index": 0, "message": {"content": "A"}, "finish_reason": "stop"}
    for empty in (None, {}, {"index": 1, "message": None, "finish_reason": None, "logprobs": None}):
        response = lib.create_chat_completion(ask(http({"choices": [whole, empty]})), question)
        assert [choice.message.text for choice in response.choices] == ["A"]


@pytest.mark.parametrize("reason", ["null", "None", ""])
def test_a_finish_reason_of_null_as_text_is_read_as_none_except_into_a_dict(ask, question, reason):
    answer = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": reason}]}
    client = ask(http(answer))
    assert lib.create_chat_completion(client, question).choices[0].finish_reason is None
    assert lib.create_chat_completion(client, question, into=dict) == answer


@pytest.mark.parametrize("message", [{}, None])
def test_the_text_of_a_choice_is_used_where_its_message_is_empty(ask, question, message):
    answer = {"choices": [{"message": message, "text": "Hi", "finish_reason": "stop"}]}
    assert lib.create_chat_completion(ask(http(answer)), question).text == "Hi"


def test_a_choice_with_only_a_finish_reason_is_accepted(ask, question):
    client = ask(http({"choices": [{"index": 0, "finish_reason": "content_filter"}]}))
    assert lib.create_chat_completion(client, question).text == ""


@pytest.mark.parametrize(
    "failure",
    [
        {"finish_reason": "abort"},
        {"finish_reason": "network_error"},
        {"error": {"message": "busy"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["message", "delta"])
def test_a_response_that_reports_a_failure_is_an_error_with_its_partial(
    ask, question, failure, key
):
    client = ask(http({"choices": [{"index": 0, key: {"content": "Half of"}, **failure}]}))
    with pytest.raises(lib.APIError) as caught:
        lib.create_chat_completion(client, question)
    assert caught.value.partial.text == "Half of"


def test_a_byte_order_mark_before_the_json_is_ignored(ask, question):
    client = ask(http(b"\xef\xbb\xbf" + json.dumps(completion()).encode()))
    assert lib.create_chat_completion(client, question).text == "Hi!"


def test_white_space_before_the_json_is_ignored(ask, question):
    client = ask(http(b"\n\n  \r\n" + json.dumps(completion()).encode()))
    assert lib.create_chat_completion(client, question).text == "Hi!"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"<html><h1>Welcome</h1></html>", "is HTML: <html><h1>Welcome</h1></html>"),
        (b'{"choices": [{"mess', 'is broken or cut JSON: {"choices": [{"mess'),
        (b"upstream says no", "is not JSON: upstream says no"),
        (b"[" * 200_000, "is broken or cut JSON"),
        (b"\xff\xfd\x00", "is not JSON"),
        (b"null", "the reply holds no answer: null"),
        (b"[]", "the reply holds no answer: []"),
        (b'"text"', 'the reply holds no answer: "text"'),
        (b"{}", "the reply holds no answer: {}"),
        (b'{"choices": null}', 'the reply holds no answer: {"choices": null}'),
        (b'{"choices": "none"}', 'the reply holds no answer: {"choices": "none"}'),
        (b'{"choices": [null]}', 'the reply holds no answer: {"choices": [null]}'),
    ],
    ids=repr,
)
def test_a_200_without_a_completion_is_a_deserialize_error(ask, question, body, words):
    client = ask(http(body, "200 OK", "Content-Type: text/x", "x-request-id: req_5"))
    with pytest.raises(lib.DeserializeError) as caught:
        lib.create_chat_completion(client, question)
    assert words in str(caught.value)
    assert caught.value.request_id == "req_5"
    assert caught.value.headers["content-type"] == "text/x"
    assert caught.value.body.strip() == body.decode("utf-8", "replace").strip()
    assert len(client.wire.requests) == 1, "the server has done its work: not tried again"


def hostile_replies():
    """Replies with a value at each place that no honest server sends there."""
    odd = {
        "deep": "[" * 500 + "]" * 500,
        "deeper": "[" * 5_000 + "]" * 5_000,
        "deep-object": '{"content":' * 500 + "1" + "}" * 500,
        "deep-tokens": '{"content":[{"top_logprobs":[' * 40 + "]}]}" * 40,
        "long-int": "9" * 5000,
        "long-negative-int": "-" + "9" * 5000,
        "huge-float": "1e999",
        "nan": "NaN",
        "half-a-character": r'"\ud83d"',
        "half-in-a-key": r'{"\udc4b": "\ud83d"}',
        "a-key-twice": '{"role": "a", "role": 5, "content": "a", "content": [null]}',
        "not-utf-8": b'"\xff"'.decode("latin-1"),
    }
    places = [
        "%s",
        '{"choices": %s}',
        '{"choices": [%s]}',
        '{"choices": [{"message": %s}]}',
        '{"choices": [{"delta": %s, "text": %s}]}',
        '{"choices": [{"index": %s, "finish_reason": %s, "message": {"content": %s, "role": %s}}]}',
        '{"choices": [{"logprobs": %s, "usage": %s, "message": {"thinking": %s}}], "created": %s}',
        '{"choices": [{"message": {"tool_calls": [{"function": %s, "index": %s}]}}], "usage": %s}',
        '{"choices": [], "choices": null, "error": {"message": %s, "code": %s, "type": %s}}',
        '{"base_resp": {"status_code": %s}, "code": %s, "msg": %s, "detail": %s}',
    ]
    for name, value in odd.items():
        for number, place in enumerate(places):
            body = place.replace("%s", value).encode("latin-1")
            yield pytest.param(body, id=f"{name}-{number}")


def used(response):
    """What users do with a response."""
    return [response.text, repr(response), response == response, response.to_dict()] + [
        (choice.message.text, choice.message.reasoning) for choice in response.choices
    ]


@pytest.mark.parametrize("body", list(hostile_replies()))
def test_a_hostile_reply_is_read_or_raises_an_openai_error(mocked, client, question, body):
    mocked.post(URL, body=body, content_type="application/json")
    with contextlib.suppress(lib.OpenAIError):
        used(lib.create_chat_completion(client, question))
    mocked.reset()
    mocked.post(URL, body=b"data: " + body + b"\n\n")
    with contextlib.suppress(lib.OpenAIError):
        used(lib.create_chat_completion_stream(client, question).response())
    mocked.reset()
    mocked.post(URL, body=body, status=400)
    with pytest.raises(lib.BadRequestError):
        lib.create_chat_completion(client, question)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "busy", "code": "rate_limit_exceeded"}},
        {"error": "busy"},
        {"error": {"message": "busy"}, "choices": None},
        {"error": {"message": "busy"}, "choices": completion()["choices"]},
        [{"error": {"message": "busy"}}],
        {"choices": [{"error": {"message": "busy"}, "message": {}}]},
        {"choices": [{"finish_reason": "error", "message": {"content": "busy"}}]},
        {"object": "error", "message": "busy"},
        {"type": "error", "message": "busy"},
        {"detail": "busy"},
        {"code": 429, "message": "busy"},
        {"error_code": 336100, "error_msg": "busy"},
        {"base_resp": {"status_code": 1008, "status_msg": "busy"}, "choices": None},
        {"__type": "ThrottlingException", "message": "busy"},
    ],
    ids=str,
)
def test_an_error_reported_in_a_200_is_raised(ask, question, body):
    client = ask(http(body, "200 OK", "x-request-id: req_5"))
    with pytest.raises(lib.APIError, match="busy") as caught:
        lib.create_chat_completion(client, question)
    assert (caught.value.status_code, caught.value.request_id) == (200, "req_5")


# Stored completions


def test_stored_completions_are_read_changed_and_deleted(ask):
    client = ask(
        http({"id": "c1", "choices": [], "metadata": {"a": "b"}}),
        http({"id": "c1", "choices": []}),
        http({"id": "c1", "object": "chat.completion.deleted", "deleted": True}),
        http(
            {
                "object": "list",
                "data": [{"role": "user", "content": "Hi", "id": "m1"}],
                "has_more": False,
            }
        ),
    )
    assert lib.retrieve_chat_completion(client, "c1").metadata == {"a": "b"}
    assert lib.update_chat_completion(client, "c1", {"a": "c"}).id == "c1"
    assert lib.delete_chat_completion(client, "c1").deleted is True
    page = lib.list_chat_completion_messages(client, "c1", limit=1, order="desc")
    assert [message.text for message in page] == ["Hi"]
    assert (page.data[0].text, page.data[0].extra) == ("Hi", {"id": "m1"})
    assert [request.line.removesuffix(" HTTP/1.1") for request in client.wire.requests] == [
        "GET /v1/chat/completions/c1",
        "POST /v1/chat/completions/c1",
        "DELETE /v1/chat/completions/c1",
        "GET /v1/chat/completions/c1/messages?limit=1&order=desc",
    ]
    assert client.wire.requests[1].json == {"metadata": {"a": "c"}}
    assert client.wire.requests[0].body == b""


def test_all_pages_are_iterated_over_and_filters_sent_with_each(ask):
    def page(*ids, more):
        return http(
            {"data": [{"id": i, "choices": []} for i in ids], "last_id": ids[-1], "has_more": more}
        )

    client = ask(page("a", "b", more=True), page("c", more=False))
    found = lib.iterate_chat_completions(client, model="m", metadata={"k&": "v="}, limit=2)
    assert [completion.id for completion in found] == ["a", "b", "c"]
    assert [request.line.split()[1] for request in client.wire.requests] == [
        "/v1/chat/completions?model=m&limit=2&metadata%5Bk%26%5D=v%3D",
        "/v1/chat/completions?model=m&after=b&limit=2&metadata%5Bk%26%5D=v%3D",
    ]


def test_iteration_stops_when_a_server_repeats_the_same_page(ask):
    client = ask(http({"data": [{"id": "a", "choices": []}], "has_more": True}))
    assert len(list(lib.iterate_chat_completions(client))) == 2


@pytest.mark.parametrize(
    ("id", "step"),
    [
        ("a/b", "a%2Fb"),
        ("../../admin", "..%2F..%2Fadmin"),
        ("a?b=c#d", "a%3Fb%3Dc%23d"),
        ("a\r\nX: y", "a%0D%0AX%3A%20y"),
        ("a%2Fb", "a%252Fb"),
        ("...", "..."),
        ("é 👋", "%C3%A9%20%F0%9F%91%8B"),
    ],
)
def test_an_id_is_quoted_as_one_path_segment(ask, id, step):
    client = ask(http({"id": id, "choices": []}))
    lib.retrieve_chat_completion(client, id)
    assert client.wire.requests[0].line == f"GET /v1/chat/completions/{step} HTTP/1.1"


@pytest.mark.parametrize("id", ["", ".", "..", None, 5])
def test_an_invalid_id_is_rejected_before_sending(ask, id):
    client = ask(http({}))
    with pytest.raises(lib.ConfigError, match="not a usable completion id"):
        lib.delete_chat_completion(client, id)
    assert client.wire.requests == []


@pytest.mark.parametrize(
    "stored",
    [
        lambda client: client.get("chat/completions", into=int),
        lambda client: client.post("chat/completions/c1", {}, into=int),
        lambda client: client.delete("chat/completions/c1", into=int),
        lambda client: lib.retrieve_chat_completion(client, "a\ud800"),
        lambda client: lib.list_chat_completions(client, after="a\ud800"),
        lambda client: lib.list_chat_completions(client, metadata={"a": "\ud800"}),
    ],
)
def test_invalid_arguments_for_stored_completions_are_rejected_before_sending(ask, stored):
    client = ask(http({"object": "list", "data": []}))
    with pytest.raises(lib.ConfigError):
        stored(client)
    assert client.wire.requests == []


def test_get_and_delete_read_the_response_into_the_given_class(ask):
    client = ask(http({"object": "list", "data": [{"id": "c1", "choices": []}], "has_more": True}))
    page = client.get("chat/completions", {"limit": 1}, into=lib.ChatCompletionList)
    assert (type(page), page.has_more, page.data[0].id) == (lib.ChatCompletionList, True, "c1")
    assert client.wire.requests[0].line == "GET /v1/chat/completions?limit=1 HTTP/1.1"
    with pytest.raises(lib.DeserializeError, match=r"\$\.choices: missing"):
        client.delete("chat/completions/c1", into=lib.CreateChatCompletionResponse)
