"""The promises of this library: one test for each, named after the promise."""

import copy
import json
import logging
import pickle
import subprocess
import sys
import threading
import traceback
from dataclasses import is_dataclass

import pytest
import requests
import responses

from . import lib
from .batches import wait_until
from .wire import CLOSE, RESET, SILENCE, Reply, chunk, completion, http, sse, streamed

call = lib.create_chat_completion
open_stream = lib.create_chat_completion_stream
ANSWER = http(completion())


def test_01_a_stream_without_done_and_finish_reason_raises_with_its_partial(ask, question):
    cut = ask(streamed(chunk("a"), done=False))
    with pytest.raises(lib.StreamInterruptedError) as caught:
        open_stream(cut, question).response()
    assert caught.value.partial.text == "a"
    only_done = streamed(chunk("a"))
    only_reason = streamed(chunk("a", finish_reason="stop"), done=False)
    for raw in (only_done, only_reason):
        assert open_stream(ask(raw), question).response().text == "a"


def test_02_an_error_inside_a_200_raises_with_the_servers_message(ask, question):
    body = {"error": {"message": "out of cheese"}}
    for raw, function in (
        (http(body), call),
        (http(body), lambda *a: open_stream(*a).response()),
        (streamed(chunk("a"), body), lambda *a: open_stream(*a).response()),
        (
            streamed(chunk("a"), b"event: error\ndata: out of cheese\n\n"),
            lambda *a: list(open_stream(*a)),
        ),
    ):
        with pytest.raises(lib.APIError, match="out of cheese"):
            function(ask(raw), question)


def test_03_network_faults_raise_only_our_exceptions_and_silence_is_a_timeout(ask, question):
    begun = streamed(chunk("a"), done=False)[:-5]
    with pytest.raises(lib.RequestTimeoutError):
        list(open_stream(ask(Reply(begun, SILENCE), timeout=(5, 0.1)), question))
    for raw in (
        begun[:-10],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"\x00",
    ):
        for end in (CLOSE, RESET):
            with pytest.raises(lib.OpenAIError):
                list(open_stream(ask(Reply(raw, end), max_retries=0), question))


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_04_the_first_token_reaches_the_caller_when_it_reaches_the_socket(ask, question, framing):
    hold = threading.Event()
    whole = http((sse(chunk("a"), done=False), sse(chunk("b"))), framing=framing)
    at = whole.index(b'"a"') + whole[whole.index(b'"a"') :].index(b"\n\n") + 2
    client = ask(Reply([whole[:at], whole[at:]], CLOSE, hold))
    stream = open_stream(client, question)
    assert next(stream).text == "a"
    assert not hold.is_set()
    hold.set()
    assert stream.response().text == "ab"


def test_05_events_are_decoded_in_every_valid_form_and_any_split(ask, question):
    text = "a\u2028\x85b👋"
    one = json.dumps(chunk(text), ensure_ascii=False).encode()
    for raw in (
        b"\xef\xbb\xbfdata:" + one + b"\r\n\r\n: comment\r\n\r\ndata: [DONE]",
        b"event: message\rid: 1\rdata: " + one + b"\r\rdata: [DONE]\r\r",
        b"data: " + one.replace(b", ", b",\ndata: ", 1) + b"\n\ndata:[DONE]\n\n",
    ):
        for size in (1, 7, 10**6):
            pieces = tuple(raw[i : i + size] for i in range(0, len(raw), size))
            client = ask(http(pieces, framing="chunked"))
            assert open_stream(client, question).response().text == text


def test_06_choices_is_always_a_list_and_delta_an_object_and_text_never_raises(ask, question):
    odd = [{"choices": []}, {"choices": None}, {}, {"choices": [{"delta": None}]},
           {"choices": [{"index": 0}]}, {"choices": [{"delta": {"content": None}}]}]  # fmt: skip
    for data in odd:
        read = lib.CreateChatCompletionChunk.from_dict(data)
        assert isinstance(read.choices, list)
        assert all(isinstance(c.delta, lib.ChatCompletionDelta) for c in read.choices)
        assert read.text == ""
    assert "".join(c.text for c in open_stream(ask(streamed(*odd, chunk("a"))), question)) == "a"


def test_07_every_wait_is_bounded_and_a_deadline_bounds_the_complete_call(ask, question):
    assert lib.OpenAIClient("sk-x").timeout == (10, 600)
    keep_alive = Reply([streamed(done=False)[:-5], b"8\r\n: ping\n\n\r\n"], SILENCE)
    with pytest.raises(lib.RequestTimeoutError, match="deadline"):
        list(open_stream(ask(keep_alive, deadline=0.2, timeout=60), question))
    busy = ask(http(b"", "503 Busy", "retry-after: 50"), deadline=40)
    with pytest.raises(lib.InternalServerError):
        call(busy, question)
    assert busy.waits == []


def test_08_the_key_is_in_no_log_repr_exception_or_cause(ask, question, caplog):
    key = "sk-secret-key"
    client = ask(http({"error": {"message": f"no such key: {key}"}}, "401 No"), Reply(b"", CLOSE))
    shown = [repr(client)]
    with caplog.at_level(logging.DEBUG):
        for _ in range(2):
            with pytest.raises(lib.OpenAIError) as caught:
                call(client, question)
            shown += ["".join(traceback.format_exception(caught.value)), repr(vars(caught.value)),
                      str(pickle.dumps(caught.value)), repr(caught.value.__cause__)]  # fmt: skip
    assert key not in "".join([*shown, caplog.text])


def test_09_netrc_never_changes_our_authorization(ask, question, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login x password y\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    client = ask(ANSWER)
    assert requests.utils.get_netrc_auth(client.base_url) == ("x", "y")
    call(client, question)
    assert client.wire.requests[0].headers["authorization"] == "Bearer sk-secret-key"


def test_10_an_exhausted_quota_fails_at_once(ask, question):
    client = ask(http({"error": {"code": "insufficient_quota"}}, "429 Too Many"))
    with pytest.raises(lib.QuotaExceededError):
        call(client, question)
    assert len(client.wire.requests) == 1


def test_11_nothing_is_tried_again_whose_outcome_is_unknown(ask, question):
    for reply in (Reply(b"", SILENCE), Reply(ANSWER[:-1], RESET)):
        client = ask(reply, timeout=(5, 0.1))
        with pytest.raises(lib.HTTPError):
            call(client, question)
        wait_until(lambda wire=client.wire: wire.requests)  # the server may be slower than 0.1 s
        assert len(client.wire.requests) == 1


def test_12_retry_after_is_obeyed_up_to_a_minute_and_reported_beyond_it(ask, question):
    client = ask(http(b"", "429 Too Many", "retry-after: 60"), ANSWER)
    assert call(client, question).text == "Hi!"
    assert client.waits == [60]
    client = ask(http(b"", "429 Too Many", "retry-after: 61"))
    with pytest.raises(lib.RateLimitError) as caught:
        call(client, question)
    assert (client.waits, caught.value.retry_after) == ([], 61)


def test_13_leaving_a_stream_and_an_http_error_free_the_connection(ask, question):
    client = ask(http(b"no", "400 Bad"), http(b"no", "400 Bad"),
                 Reply(streamed(chunk("a"), done=False)[:-5], SILENCE))  # fmt: skip
    for _ in range(2):
        with pytest.raises(lib.BadRequestError):
            open_stream(client, question)
    for _ in open_stream(client, question):
        break
    assert client.wire.connections == 1, "refusals left it in use"
    assert client.wire.closed_by_client.wait(30)


def test_14_http_errors_of_a_streaming_call_are_raised_at_the_call(ask, question):
    with pytest.raises(lib.NotFoundError, match="no such model"):
        open_stream(ask(http({"error": "no such model"}, "404 Not Found")), question)


def test_15_unknown_values_fields_and_types_never_fail_parsing(ask, question):
    answer = completion()
    answer["choices"][0] |= {"finish_reason": "eos", "stop_reason": 5, "logprobs": 7}
    answer["choices"][0]["message"]["role"] = "oracle"
    answer |= {"service_tier": "on_demand", "created": "now", "new": {"a": [1]}, "usage": "much"}
    response = call(ask(http(answer)), question)
    assert response.choices[0].finish_reason == "eos"
    assert response.choices[0].message.role == "oracle"
    assert response.to_dict() == answer


def test_16_a_received_message_can_be_sent_back_unchanged(ask, question):
    message = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "sig": "s"}]}  # fmt: skip
    client = ask(http(completion(**message)))
    received = call(client, question).choices[0].message
    call(client, {"model": "m", "messages": [received]})
    assert client.wire.requests[1].json["messages"] == [message]


def test_17_unset_fields_are_not_sent_and_false_zero_and_extra_are(ask):
    client = ask(ANSWER)
    call(client, lib.CreateChatCompletionRequest(
        model="m", messages=[{"role": "user", "content": ""}], temperature=0, store=False, tools=[],
        extra={"top_k": None}))  # fmt: skip
    assert client.wire.requests[0].json == {
        "model": "m", "messages": [{"role": "user", "content": ""}], "temperature": 0,
        "store": False, "tools": [], "top_k": None,
    }  # fmt: skip


def test_18_tool_calls_assemble_however_they_are_numbered_and_named(ask, question):
    pieces = [
        {"index": 0, "id": "1", "function": {"name": "f", "arguments": None}},
        {"index": 0, "id": "1", "function": {"name": "f", "arguments": "{"}},
        {"index": None, "id": None, "function": {"name": None, "arguments": "}"}},
        {"index": 0, "id": "2", "function": {"name": "g", "arguments": "{}"}},
    ]
    raw = streamed(*(chunk(tool_calls=[piece]) for piece in pieces))
    calls = open_stream(ask(raw), question).response().choices[0].message.tool_calls
    assert [(c.id, c.function.name, c.function.arguments) for c in calls] == [
        ("1", "f", "{}"), ("2", "g", "{}"),
    ]  # fmt: skip


def test_19_choices_stay_apart_and_usage_is_the_last_one(ask, question):
    raw = streamed(*({**chunk(text, index=index), "usage": {"total_tokens": n}}
                     for n, (index, text) in enumerate([(1, "b"), (0, "a"), (1, "B"), (0, "A")])))  # fmt: skip
    response = open_stream(ask(raw), question).response()
    assert [choice.message.text for choice in response.choices] == ["aA", "bB"]
    assert response.usage.total_tokens == 3


def test_20_error_text_says_what_happened_where_and_carries_the_evidence(ask, question):
    raw = http(
        {"error": {"message": "model is gone", "code": 7}}, "404 Not Found", "x-request-id: req_1"
    )
    client = ask(raw)
    with pytest.raises(lib.NotFoundError) as caught:
        call(client, question)
    for words in ("404", "model is gone", f"{client.base_url}/chat/completions", "req_1"):
        assert words in str(caught.value)
    assert caught.value.body == {"error": {"message": "model is gone", "code": 7}}
    assert (caught.value.request_id, caught.value.headers["X-Request-Id"]) == ("req_1", "req_1")


def test_21_keys_and_urls_are_normalized_or_rejected_at_construction(ask, question, monkeypatch):
    client = ask(ANSWER)
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    for key, url in (
        (" sk-a\n", client.base_url + "/"),
        ("", client.base_url + "/chat/completions"),
    ):
        with lib.OpenAIClient(key, base_url=url) as one:
            call(one, question)
    assert [r.line for r in client.wire.requests] == ["POST /v1/chat/completions HTTP/1.1"] * 2
    assert [r.headers.get("authorization") for r in client.wire.requests] == ["Bearer sk-a", None]
    for bad in ({"api_key": "sk-’"}, {"base_url": "localhost"}, {"headers": {"a": "\n b"}}):
        with pytest.raises(lib.ConfigError):
            lib.OpenAIClient(**{"api_key": "sk-a", **bad})


def test_22_a_redirect_is_an_error_that_names_its_location(ask, question):
    target = ask(ANSWER)
    client = ask(http(b"", "301 Moved", f"Location: {target.base_url}"))
    with pytest.raises(lib.APIError, match=target.base_url) as caught:
        call(client, question)
    assert caught.value.status_code == 301
    assert target.wire.requests == []


@pytest.mark.skipif(lib.name != "chatgptlib", reason="a copy stands for itself")
def test_23_import_is_cheap_and_pure():
    code = """
import sys, chatgptlib
print({*chatgptlib.__all__} <= {*dir(chatgptlib)})
print('requests' in sys.modules, 'ssl' in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\nFalse False\n"


def test_24_one_client_serves_threads_pickles_and_copies(ask, question):
    client = ask(ANSWER)
    threads = [threading.Thread(target=call, args=(client, question)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(client.wire.requests) == 8
    plain = lib.OpenAIClient("sk-secret-key", base_url=client.base_url)
    for other in (pickle.loads(pickle.dumps(plain)), copy.deepcopy(plain), plain.with_options()):
        with other:
            assert call(other, question).text == "Hi!"


def test_25_user_code_is_easy_to_test(question):
    assert is_dataclass(lib.CreateChatCompletionResponse)
    by_hand = lib.CreateChatCompletionResponse(
        [lib.ChatCompletionChoice(message=lib.ChatMessage.assistant("Hi!"))]
    )
    assert by_hand.text == "Hi!"
    with responses.RequestsMock() as mock, lib.OpenAIClient("sk-a") as client:
        mock.post("https://api.openai.com/v1/chat/completions", json=completion())
        assert call(client, question).text == "Hi!"
    with lib.OfflineServer(["Hi!"]) as server, lib.OpenAIClient(base_url=server.url) as client:
        assert open_stream(client, question).response().text == "Hi!"
