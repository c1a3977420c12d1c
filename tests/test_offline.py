"""OfflineServer sends what the API would send, from a script, and leaves nothing behind."""

import gc
import http.client
import itertools
import json
import re
import socket
import struct
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from . import lib, loaded_by, waits_of

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Say hi."}]}
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
CALLS = [
    {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Ōsaka", "days": 3}'},
        "extra_content": {"signature": "abc"},
    },
    {"id": "call_2", "type": "custom", "custom": {"name": "sql", "input": "SELECT  1"}},
    {"id": "call_3", "type": "function", "function": {"name": "now", "arguments": ""}},
]


def token(text, logprob=-0.5):
    told = {"token": text, "logprob": logprob, "bytes": list(text.encode())}
    return {**told, "top_logprobs": [dict(told)]}


def full_response(*choices, **more):
    return {
        "id": "chatcmpl-mine",
        "object": "chat.completion",
        "created": 1,
        "model": "mine",
        "choices": [{"index": i, **choice} for i, choice in enumerate(choices)],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 7,
            "total_tokens": 12,
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        **more,
    }


def choice_with(content, reason="stop", **more):
    message = {"role": "assistant", "content": content, "refusal": None}
    return {"message": message, "logprobs": None, "finish_reason": reason, **more}


def completions(server):
    return f"{server.url}/chat/completions"


def ask(server, **more):
    return requests.post(completions(server), json={**QUESTION, **more}, timeout=10)


def text_of_answer(server, **more):
    return ask(server, **more).json()["choices"][0]["message"]["content"]


def chunks(answer):
    """The chunks in the body of a stream, which must have the form of the API's streams."""
    *events, done, rest = answer.content.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    assert all(event.startswith(b"data: {") and b"\n" not in event for event in events)
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


def comparable(response):
    return {k: v for k, v in response.to_dict().items() if k not in ("id", "created")}


def both_ways(client, **more):
    """The response to a call, and the response added up from a stream."""
    request = {**QUESTION, **more}
    response = lib.create_chat_completion(client, request)
    with lib.create_chat_completion_stream(client, {**request, **WITH_USAGE}) as stream:
        return response, stream.response()


@pytest.fixture(scope="module")
def scripted():
    """A client of a server that serves many tests; `client.script` has its next replies."""
    script = deque()
    server = lib.OfflineServer(iter(script.popleft, None))
    with server, lib.OpenAIClient(base_url=server.url, max_retries=0) as client:
        client.script = script
        yield client


@pytest.fixture
def quiet(capfd):
    """Fails a test that writes to stderr, for example from a thread that died."""
    yield
    assert capfd.readouterr().err == ""


# The script


def test_replies_are_given_in_order_and_then_the_question_comes_back():
    with lib.OfflineServer(["One.", {"content": "Two."}]) as server:
        assert [text_of_answer(server) for _ in range(2)] == ["One.", "Two."]
        assert text_of_answer(server).endswith("not a model. You asked: Say hi.")


PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


@pytest.mark.parametrize(
    ("messages", "question"),
    [
        pytest.param([("system", "Be brief."), ("user", "Hi, 世界!")], "Hi, 世界!", id="text"),
        pytest.param([("user", "a"), ("assistant", "b"), ("user", " c\n")], "c", id="last-user"),
        pytest.param(
            [("user", [{"type": "text", "text": "What is it?"}, PICTURE])],
            "What is it?",
            id="parts",
        ),
        pytest.param([("system", "Be brief.")], "(no text)", id="no-user-message"),
    ],
)
def test_the_stand_in_says_that_it_is_not_a_model(messages, question):
    with lib.OfflineServer() as server:
        asked = [{"role": role, "content": content} for role, content in messages]
        answer = ask(server, messages=asked).json()
    text = f"This is the offline stand-in of chatgptlib, not a model. You asked: {question}"
    assert answer["choices"] == [{"index": 0, **choice_with(text)}]
    assert (answer["model"], answer["system_fingerprint"]) == ("m", "offline")


@pytest.mark.parametrize(
    ("reply", "message", "reason"),
    [
        pytest.param("Hi!", {"content": "Hi!"}, "stop", id="a-text"),
        pytest.param({"refusal": "No."}, {"refusal": "No."}, "stop", id="a-refusal"),
        pytest.param({"tool_calls": CALLS}, {"tool_calls": CALLS}, "tool_calls", id="calls"),
        pytest.param({"content": "x", "y": [1]}, {"content": "x", "y": [1]}, "stop", id="own-keys"),
        pytest.param(lambda body: body["model"], {"content": "m"}, "stop", id="a-function"),
    ],
)
def test_a_reply_becomes_the_message_of_the_response(reply, message, reason):
    with lib.OfflineServer([reply]) as server:
        (choice,) = ask(server).json()["choices"]
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None, **message}
    assert choice["finish_reason"] == reason


def test_a_complete_response_is_sent_unchanged():
    answer = full_response(choice_with("Hi!"), provider={"region": "eu"})
    with lib.OfflineServer([answer]) as server:
        assert ask(server).json() == answer


def test_an_endless_script_is_fine():
    with lib.OfflineServer(itertools.cycle(["tick", "tock"])) as server:
        assert [text_of_answer(server) for _ in range(5)] == ["tick", "tock"] * 2 + ["tick"]


def test_usage_counts_words():
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hi."}]
    with lib.OfflineServer(["Hi to you!"]) as server:
        usage = ask(server, messages=asked, n=2).json()["usage"]
    assert usage == {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}


@pytest.mark.parametrize("limits", [{"max_tokens": 3}, {"max_completion_tokens": 3}])
def test_max_tokens_truncates_only_the_text_of_the_stand_in(limits):
    with lib.OfflineServer(["A text of the script is never cut."]) as server:
        assert text_of_answer(server, **limits) == "A text of the script is never cut."
        (choice,) = ask(server, **limits).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("This is the", "length")


@pytest.mark.parametrize(
    ("replies", "error"),
    [
        pytest.param("Hi!", TypeError, id="a-text-alone"),
        pytest.param({"content": "Hi!"}, TypeError, id="a-message-alone"),
        pytest.param(429, TypeError, id="a-status-alone"),
        pytest.param([None], TypeError, id="none"),
        pytest.param([b"Hi!"], TypeError, id="bytes"),
        pytest.param([1.5], TypeError, id="a-float"),
        pytest.param([(429, {}, {}, {})], TypeError, id="a-tuple-of-four"),
        pytest.param([(429, {}, "Retry-After: 1")], TypeError, id="headers-as-text"),
        pytest.param([lib.Cut(answer=None)], TypeError, id="a-fault-without-a-reply"),
        pytest.param([lib.Cut(after="3")], TypeError, id="a-position-as-text"),
        pytest.param([lib.Inject({1, 2})], TypeError, id="an-event-without-a-json-form"),
        pytest.param([lib.Pieces([0])], ValueError, id="pieces-of-size-0"),
        pytest.param([lib.Stall("long")], ValueError, id="a-time-as-text"),
        pytest.param([("429", {})], TypeError, id="a-status-as-text"),
        pytest.param([{"content": {1, 2}}], TypeError, id="content-without-a-json-form"),
        pytest.param([(500, object())], TypeError, id="a-body-without-a-json-form"),
        pytest.param([{"tool_calls": ["f"]}], TypeError, id="calls-as-text"),
        pytest.param([{"choices": "Hi!"}], TypeError, id="choices-as-text"),
        pytest.param([{"choices": None}], TypeError, id="choices-null"),
        pytest.param([{"choices": [{"text": "Hi!"}]}], TypeError, id="a-choice-without-message"),
        pytest.param([True], ValueError, id="a-bool"),
        pytest.param([42], ValueError, id="an-unknown-status"),
        pytest.param([204], ValueError, id="a-status-without-body"),
        pytest.param([(101, {})], ValueError, id="an-interim-status"),
    ],
)
def test_an_invalid_reply_is_rejected_at_construction(replies, error):
    with pytest.raises(error):
        lib.OfflineServer(replies)


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf")])
def test_an_invalid_delay_is_rejected(delay):
    with pytest.raises(ValueError, match="delay"):
        lib.OfflineServer(delay=delay)


# Streams


REPLIES = [
    pytest.param("Hi!", id="text"),
    pytest.param("", id="no-text"),
    pytest.param(" \n Many\u2028kinds\x85of\tspace  \r\n ", id="space"),
    pytest.param("👩‍👩‍👧‍👦 e\u0301 שלום 𝔘𝔫𝔦" + "漢字かな" * 20, id="scripts"),
    pytest.param('data: [DONE]\n\n{"error": 1}', id="text-like-the-wire"),
    pytest.param({"tool_calls": CALLS}, id="calls"),
    pytest.param({"content": "I will look.", "tool_calls": CALLS[:1]}, id="text-beside-calls"),
    pytest.param({"function_call": {"name": "f", "arguments": '{"a": 1}'}}, id="function-call"),
    pytest.param({"refusal": "I can't help with that."}, id="refusal"),
    pytest.param({"content": "4", "reasoning_content": "2 and 2 is ..."}, id="reasoning"),
    pytest.param({"content": "Hi", "provider": {"a": [1, "x"]}, "score": 0.5}, id="own-keys"),
    pytest.param(
        {
            "content": "See there.",
            "annotations": [{"type": "url_citation", "url_citation": {"url": "u", "title": "t"}}],
        },
        id="annotations",
    ),
    pytest.param(
        {"audio": {"id": "a", "data": "AAAA", "transcript": "Hi there", "expires_at": 9}},
        id="audio",
    ),
    pytest.param({"content": [{"type": "text", "text": "Hi"}]}, id="content-in-parts"),
    pytest.param(
        full_response(choice_with("Hi there"), service_tier="flex", provider={"a": 1}),
        id="full-response",
    ),
    pytest.param(
        full_response(choice_with("One"), choice_with("Two of them", "length")), id="choices"
    ),
    pytest.param(
        full_response(choice_with("", "content_filter", filtered={"hate": True})), id="choice-keys"
    ),
    pytest.param(
        full_response(choice_with("Hi you", logprobs={"content": [token("Hi"), token(" you")]})),
        id="logprobs",
    ),
]


@pytest.mark.parametrize("reply", REPLIES)
def test_a_stream_adds_up_to_the_response_sent_without_a_stream(scripted, reply):
    scripted.script.extend([reply, reply])
    response, streamed = both_ways(scripted)
    assert comparable(streamed) == comparable(response)
    assert all(re.fullmatch(r"chatcmpl-(offline-\d+|mine)", x.id) for x in (response, streamed))


names = st.text(min_size=1)
messages = st.fixed_dictionaries(
    {},
    optional={
        "content": names,
        "refusal": names,
        "reasoning_content": names,
        "tool_calls": st.lists(
            st.builds(
                lambda name, text: {
                    "type": "function",
                    "function": {"name": name, "arguments": text},
                },
                names,
                st.text(),
            ),
            min_size=1,
        ).map(lambda calls: [{"id": f"call_{i}", **call} for i, call in enumerate(calls)]),
    },
)


@given(messages, st.integers(1, 3))
def test_any_message_survives_streaming(scripted, message, n):
    scripted.script.extend([message, message])
    response, streamed = both_ways(scripted, n=n)
    assert comparable(streamed) == comparable(response)
    assert response.choices[0].message.content == message.get("content")


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_arrives_unchanged_even_with_lone_surrogates(scripted, text):
    scripted.script.append(text)
    with lib.create_chat_completion_stream(scripted, QUESTION) as stream:
        deltas = [chunk.choices[0].delta.content for chunk in stream]
    assert "".join(filter(None, deltas)) == text


def test_a_stream_has_the_shape_of_the_apis():
    with lib.OfflineServer(["Hi to you!"]) as server:
        answer = ask(server, **WITH_USAGE)
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["Transfer-Encoding"] == "chunked"
    first, *texts, last, usage = chunks(answer)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert [chunk["choices"][0]["delta"] for chunk in texts] == [
        {"content": piece} for piece in ("Hi", " to", " you!")
    ]
    ends = [chunk["choices"][0]["finish_reason"] for chunk in (first, *texts, last)]
    assert ends == [None] * 4 + ["stop"]
    assert last["choices"][0]["delta"] == {}
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    for chunk in (first, *texts, last):
        assert chunk["usage"] is None
        same = ("id", "created", "model", "object", "system_fingerprint")
        assert [chunk[key] for key in same] == [usage[key] for key in same]
    assert usage["object"] == "chat.completion.chunk"


def test_a_stream_reports_usage_only_if_requested():
    with lib.OfflineServer() as server:
        assert not any("usage" in chunk for chunk in chunks(ask(server, stream=True)))


def test_calls_come_as_a_name_and_then_pieces_of_arguments():
    with lib.OfflineServer([{"tool_calls": CALLS}]) as server:
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks(ask(server, stream=True))]
    pieces = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert [piece["index"] for piece in pieces] == sorted(piece["index"] for piece in pieces)
    for number, call in enumerate(CALLS):
        first, *rest = [piece for piece in pieces if piece["index"] == number]
        kind, key = ("custom", "input") if "custom" in call else ("function", "arguments")
        assert first == {**call, kind: {**call[kind], key: ""}, "index": number}
        assert all(piece.keys() == {"index", kind} for piece in rest)
        assert "".join(piece[kind][key] for piece in rest) == call[kind][key]


def test_choices_are_interleaved_in_a_stream():
    with lib.OfflineServer(["Hi you"]) as server:
        indexes = [chunk["choices"][0]["index"] for chunk in chunks(ask(server, stream=True, n=3))]
    assert indexes == [0, 1, 2] * 4


# Recorded requests


def test_requests_are_recorded():
    with lib.OfflineServer() as server:
        body = {**QUESTION, "n": 0}
        requests.post(f"{completions(server)}?a=b", json=body, headers={"X-Mine": "1"}, timeout=10)
        requests.get(f"{server.url}/models", timeout=10)
        refused, other = server.requests
    assert (refused.method, refused.path) == ("POST", "/v1/chat/completions?a=b")
    assert (refused.headers["x-mine"], refused.body) == ("1", body)
    assert (other.method, other.path, other.body) == ("GET", "/v1/models", b"")


def test_a_repeated_header_is_recorded_as_one_joined_value():
    head = b"GET /v1/models HTTP/1.1\r\nAccept: a\r\nACCEPT: b\r\nConnection: close\r\n\r\n"
    with lib.OfflineServer() as server:
        exchange(server, head)
        assert server.requests[0].headers["accept"] == "a, b"


def test_the_repr_of_a_request_does_not_show_the_key():
    with lib.OfflineServer() as server:
        with lib.OpenAIClient("sk-secret-key", base_url=server.url) as client:
            lib.create_chat_completion(client, QUESTION)
        (request,) = server.requests
    assert request.headers["authorization"] == "Bearer sk-secret-key"
    assert "sk-secret-key" not in repr(request)


def test_many_clients_at_once_get_a_reply_each():
    replies = [f"reply {i}" for i in range(100)]
    with lib.OfflineServer(iter(replies)) as server, ThreadPoolExecutor(32) as pool:
        texts = list(pool.map(lambda _: text_of_answer(server), replies))
        assert sorted(texts) == sorted(replies)
        assert len(server.requests) == 100


# Errors


@pytest.mark.parametrize(
    ("change", "param"),
    [
        pytest.param({"model": None}, "model", id="no-model"),
        pytest.param({"model": ""}, "model", id="empty-model"),
        pytest.param({"messages": None}, "messages", id="no-messages"),
        pytest.param({"messages": []}, "messages", id="empty-messages"),
        pytest.param({"messages": "Hi"}, "messages", id="messages-as-text"),
        pytest.param({"messages": [QUESTION["messages"][0], "Hi"]}, "messages[1]", id="a-text"),
        pytest.param({"messages": [{"content": "Hi"}]}, "messages[0]", id="no-role"),
        pytest.param({"n": 0}, "n", id="n-0"),
        pytest.param({"n": 129}, "n", id="n-129"),
        pytest.param({"n": True}, "n", id="n-true"),
        pytest.param({"n": "2"}, "n", id="n-as-text"),
        pytest.param({"max_tokens": 0}, "max_tokens", id="no-tokens"),
        pytest.param({"max_completion_tokens": 1.5}, "max_completion_tokens", id="half-a-token"),
    ],
)
def test_a_wrong_parameter_is_named_and_uses_no_reply(change, param):
    with lib.OfflineServer(["Hi!"]) as server:
        answer = ask(server, **change)
        assert text_of_answer(server) == "Hi!"
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"].startswith(param)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"Hi"', b"\xff\xfe\x00", b"[" * 100_000, b"9" * 10_000],
    ids=["empty", "cut", "list", "text", "bytes", "deep", "huge-number"],
)
def test_a_body_that_is_not_a_json_object_is_a_400(body):
    with lib.OfflineServer() as server:
        answer = requests.post(completions(server), data=body, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
@pytest.mark.parametrize(("path", "status"), [("/embeddings/x", 404), ("/responses", 404)])
def test_unknown_paths_are_a_404(method, path, status):
    with lib.OfflineServer() as server:
        answer = requests.request(method, server.url + path, json=QUESTION, timeout=10)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_missing_or_wrong_key_is_an_authentication_error():
    with lib.OfflineServer(["Hi!"], api_key="sk-right") as server:
        for key in (None, "sk-wrong"):
            with lib.OpenAIClient(key, base_url=server.url) as client:
                with pytest.raises(lib.AuthenticationError) as caught:
                    lib.create_chat_completion(client, QUESTION)
                assert caught.value.code == "invalid_api_key"
        with lib.OpenAIClient("sk-right", base_url=server.url) as client:
            assert lib.create_chat_completion(client, QUESTION).text == "Hi!"


@pytest.mark.parametrize(
    ("reply", "error", "code"),
    [
        pytest.param(401, lib.AuthenticationError, "invalid_api_key", id="401"),
        pytest.param(HTTPStatus.NOT_FOUND, lib.NotFoundError, "model_not_found", id="404"),
        pytest.param(429, lib.RateLimitError, "rate_limit_exceeded", id="429"),
        pytest.param(503, lib.InternalServerError, None, id="503"),
        pytest.param(
            (429, {"error": {"message": "no money", "code": "insufficient_quota"}}),
            lib.QuotaExceededError,
            "insufficient_quota",
            id="a-body",
        ),
        pytest.param(lambda body: (409, {"error": {}}), lib.ConflictError, None, id="a-function"),
    ],
)
@pytest.mark.parametrize("function", ["create_chat_completion", "create_chat_completion_stream"])
def test_a_status_as_a_reply_raises_the_matching_error(scripted, reply, error, code, function):
    scripted.script.append(reply)
    with pytest.raises(error) as caught:
        getattr(lib, function)(scripted, QUESTION)
    assert caught.value.code == code


def test_a_client_tries_again_and_gets_the_next_reply():
    with lib.OfflineServer([500, 429, "Hi!"]) as server:
        with lib.OpenAIClient(base_url=server.url) as client:
            waits_of(client)
            assert lib.create_chat_completion(client, QUESTION).text == "Hi!"
        assert len(server.requests) == 3


def failing(body):
    assert body["model"] == "another", "wrong model"


@pytest.mark.parametrize("function", ["create_chat_completion", "create_chat_completion_stream"])
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        pytest.param(failing, "AssertionError: wrong model", id="an-assertion"),
        pytest.param(lambda body: pytest.fail("never"), "Failed: never", id="a-failed-test"),
        pytest.param(lambda body: None, "TypeError: a reply must be", id="no-reply"),
        pytest.param(lambda body: {"content": {1}}, "TypeError: Object of type set", id="a-set"),
    ],
)
def test_an_exception_of_a_reply_function_is_reported_and_not_retried(
    quiet, reply, words, function
):
    server = lib.OfflineServer([reply, "Hi!"])
    with server, lib.OpenAIClient(base_url=server.url) as client:
        with pytest.raises(lib.InternalServerError) as caught:
            getattr(lib, function)(client, QUESTION)
        assert caught.value.message.startswith(words)
        assert lib.create_chat_completion(client, QUESTION).text == "Hi!"


# On the wire


def exchange(server, sent):
    """Send these bytes. Returns what the server sends until it closes the connection."""
    with socket.create_connection(address(server), timeout=10) as line:
        line.sendall(sent)
        try:
            line.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server, having read enough, was faster
        return b"".join(iter(lambda: line.recv(65536), b""))


def address(server):
    host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
    return host, int(port)


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", id="tls"),
        pytest.param(b"POST\r\n", id="half-a-line"),
        pytest.param(b"POST /v1/chat/completions HTTP/9.9\r\n\r\n", id="another-version"),
        pytest.param(b"POST /v1/chat/completions HTTP/1.0\r\n\r\n", id="an-old-version"),
        pytest.param(b"POST /v1/chat/completions HTTP/x\r\n\r\n", id="an-invalid-version"),
        pytest.param(b"POST /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", id="a-long-line"),
        pytest.param(HEAD + b"a: " + b"x" * 70_000 + b"\r\n\r\n", id="a-long-header"),
        pytest.param(HEAD + b"a: b\r\n" * 200 + b"\r\n", id="many-headers"),
        pytest.param(HEAD + b"Content-Length: -1\r\n\r\n", id="a-negative-length"),
        pytest.param(HEAD + b"Content-Length: 1e3\r\n\r\n", id="an-invalid-length"),
        pytest.param(HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", id="a-huge-length"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="chunks"),
        pytest.param(HEAD + b"\xff\xfe: \x00\r\nno colon\r\n\r\n", id="broken-headers"),
        pytest.param(b"GET /%ff\xff/../v1 HTTP/1.1\r\n\r\n", id="a-broken-path"),
    ],
)
def test_an_invalid_http_request_is_an_error_in_the_format_of_the_api(quiet, sent):
    with lib.OfflineServer() as server:
        head, _, body = exchange(server, sent).partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1.1 [45]\d\d ", head)
    assert b"x-request-id: req-offline-1" in head
    assert json.loads(body)["error"].keys() == {"message", "type", "param", "code"}


parts = st.sampled_from([HEAD, b"\r\n", b"{}", b"Content-Length: 2\r\n"]) | st.binary()


@given(st.lists(parts).map(b"".join))
def test_no_bytes_make_the_server_fail(sent):
    with lib.OfflineServer() as server:
        raw = exchange(server, sent)
        assert raw == b"" or raw.startswith(b"HTTP/1.1 4")
        assert ask(server).ok


def test_the_server_survives_clients_that_disconnect_and_prints_nothing(quiet):
    body = json.dumps({**QUESTION, "stream": True}).encode()
    head = HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    reset = struct.pack("ii", 1, 0)
    with lib.OfflineServer(itertools.repeat("word " * 50_000)) as server:
        for sent, answered in ((b"", 0), (HEAD, 0), (head + body[:9], 0), (head + body, 1)):
            line = socket.create_connection(address(server), timeout=10)
            line.sendall(sent)
            assert len(line.recv(answered)) == answered
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            line.close()
        assert text_of_answer(server).startswith("word")


def test_a_connection_serves_many_requests_good_and_bad():
    with lib.OfflineServer(["Hi!", 500, "Hi!", "Hi!"]) as server:
        line = http.client.HTTPConnection(*address(server), timeout=10)
        line.connect()
        port = line.sock.getsockname()
        ids = set()
        for method, more in (
            ("POST", {}), ("POST", {}), ("POST", {"stream": True}), ("POST", {"n": 0}),
            ("GET", {}), ("POST", {}),
        ):  # fmt: skip
            line.request(method, "/v1/chat/completions", json.dumps({**QUESTION, **more}))
            answer = line.getresponse()
            answer.read()
            ids.add(answer.headers["x-request-id"])
            assert line.sock.getsockname() == port
        line.close()
    assert len(ids) == 6


def test_the_answer_to_a_head_request_has_no_body():
    with lib.OfflineServer() as server:
        line = http.client.HTTPConnection(*address(server), timeout=10)
        for method, body in (("HEAD", False), ("GET", True)):
            line.request(method, "/v1/models")
            assert bool(line.getresponse().read()) == body
        line.close()


# Start and end


def alive():
    return {thread for thread in threading.enumerate() if thread.is_alive()}


def test_nothing_is_left_after_close():
    before = alive()
    server = lib.OfflineServer().start()
    idle = socket.create_connection(address(server), timeout=10)
    with requests.Session() as kept:
        assert kept.post(completions(server), json=QUESTION, timeout=10).ok
        assert alive() > before
        server.close()
        assert alive() == before
        assert idle.recv(1) == b""
        idle.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address(server), timeout=10)
    server.close()
    del server
    gc.collect()  # a socket still open is a ResourceWarning, and that an error


def test_a_machine_out_of_files_for_a_while_does_not_end_the_server(monkeypatch, caplog):
    accept, failures = socket.socket.accept, [OSError(24, "Too many open files")] * 2

    def accept_later(listener):
        if failures:
            raise failures.pop()
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", accept_later)
    with lib.OfflineServer(["Hi!"]) as server:
        assert text_of_answer(server) == "Hi!"
    assert not failures
    assert "Too many open files" in caplog.text


def test_close_ends_a_stream_that_waits():
    server = lib.OfflineServer(["Hi!"], delay=3600)
    with server, lib.OpenAIClient(base_url=server.url) as client:
        stream = lib.create_chat_completion_stream(client, QUESTION)
        next(stream)
        server.close()
        with pytest.raises(lib.StreamInterruptedError):
            stream.response()


def test_close_ends_all_connections_before_it_waits_for_a_reply():
    running, ended, in_time = threading.Barrier(3), [threading.Event(), threading.Event()], []

    def reply(body):
        running.wait(10)
        in_time.append(all(end.wait(2) for end in ended))

    def asking(end):
        with pytest.raises(requests.ConnectionError):
            ask(server)
        end.set()

    server = lib.OfflineServer([reply] * 2).start()
    clients = [threading.Thread(target=asking, args=[end]) for end in ended]
    for client in clients:
        client.start()
    running.wait(10)
    server.close()
    for client in clients:
        client.join(10)
    assert in_time == [True, True]


def test_a_function_may_close_the_server():
    server = lib.OfflineServer([lambda body: server.close() or "Hi!"])
    with server, pytest.raises(requests.ConnectionError):
        ask(server)


def test_a_server_starts_once_and_has_a_url_from_then_on():
    server = lib.OfflineServer()
    with pytest.raises(RuntimeError):
        _ = server.url
    with server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", server.url)
        with pytest.raises(RuntimeError):
            server.start()
    unused = lib.OfflineServer()
    unused.close()
    with pytest.raises(RuntimeError):
        unused.start()


@pytest.mark.skipif(lib.name != "chatgptlib", reason="only the package has it")
def test_importing_the_offline_module_does_not_import_http_server():
    loaded = loaded_by(f"import {lib.OfflineServer.__module__}")
    assert lib.OfflineServer.__module__ in loaded
    assert "http.server" not in loaded
