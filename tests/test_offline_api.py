"""The offline server as the API: replies by rules, strict checks, other endpoints."""

import base64
import http.client
import json
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Literal, Optional

import pytest
import requests

from . import lib

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Say hi."}]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
ASSISTANT = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "Rain."}


def post(server, path="chat/completions", /, headers=None, **body):
    return requests.post(f"{server.url}/{path}", json=body, headers=headers, timeout=10)


def ask(server, **more):
    return post(server, **{**QUESTION, **more})


def text_for(server, text, **more):
    answer = ask(server, messages=[{"role": "user", "content": text}], **more).json()
    return answer["choices"][0]["message"]["content"]


# Rules


@pytest.mark.parametrize(
    ("condition", "fits", "fits_not"),
    [
        pytest.param("rain", {"text": "Will it rain?"}, {"text": "Will it snow?"}, id="text"),
        pytest.param(re.compile("^will", re.I), {"text": "Will it?"}, {"text": "It will."}, id="regex"),
        pytest.param({"text": "a", "model": "big"}, {"text": "a", "model": "big"}, {"text": "a"}, id="text-and-model"),
        pytest.param({"regex": "^a$"}, {"text": "a"}, {"text": "ab"}, id="regex-as-text"),
        pytest.param({"tool": "weather"}, {"text": "a", "tools": [WEATHER]}, {"text": "weather"}, id="tool"),
        pytest.param(lambda body: body.get("n") == 2, {"text": "a", "n": 2}, {"text": "a"}, id="function"),
    ],
)  # fmt: skip
def test_a_rule_answers_what_its_condition_describes(condition, fits, fits_not):
    with lib.OfflineServer(["in order"], rules=[(condition, "by rule")]) as server:
        assert text_for(server, **fits) == "by rule"
        assert text_for(server, **fits_not) == "in order"
        assert text_for(server, **fits) == "by rule"


def test_the_first_rule_that_holds_counts():
    rules = [("a", "first"), ("ab", "second"), ("b", 429)]
    with lib.OfflineServer(rules=rules) as server:
        assert text_for(server, "ab") == "first"
        assert ask(server, messages=[{"role": "user", "content": "b"}]).status_code == 429
        assert "not a model" in text_for(server, "c")


def test_parallel_callers_get_the_reply_to_their_question():
    rules = [(f"<{i}>", f"reply {i}") for i in range(40)]
    with lib.OfflineServer(rules=rules) as server, ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(lambda i: text_for(server, f"<{i}>"), range(40)))
    assert texts == [f"reply {i}" for i in range(40)]


def test_an_invalid_reply_of_a_rule_is_rejected_at_construction():
    with pytest.raises(TypeError):
        lib.OfflineServer(rules=[("a", None)])


@pytest.mark.parametrize(
    "condition",
    [5, None, {"regex": "("}, {"model": "m", "txt": "a"}, {"text": 5}],
    ids=["number", "none", "broken-regex", "unknown-key", "number-as-text"],
)
def test_an_invalid_condition_of_a_rule_is_rejected_at_construction(condition):
    with pytest.raises(TypeError, match="invalid condition"):
        lib.OfflineServer(rules=[(condition, "Hi!")])


# Strict


def test_a_strict_script_answers_an_extra_request_with_an_error():
    with lib.OfflineServer(["Hi!"], strict=True) as server:
        assert ask(server).ok
        client = lib.OpenAIClient(base_url=server.url)
        with client, pytest.raises(lib.InternalServerError, match="no reply left"):
            lib.create_chat_completion(client, QUESTION)
        assert len(server.requests) == 2  # it was not tried again


@pytest.mark.parametrize(
    "script", [{"replies": ["used", "left"]}, {"rules": [("hi", "used"), ("x", "left")]}]
)
def test_a_strict_server_fails_for_replies_that_nobody_asked_for(script):
    server = lib.OfflineServer(**script, strict=True)
    with pytest.raises(AssertionError, match="left"), server:
        ask(server)


def test_verify_can_be_asked_at_any_time_and_more_replies_added():
    with lib.OfflineServer([]) as server:
        server.verify()
        server.replies.append("later")
        with pytest.raises(AssertionError, match="later"):
            server.verify()
        assert text_for(server, "a") == "later"
        server.verify()


def test_a_strict_server_does_not_hide_the_error_of_the_test():
    with pytest.raises(ZeroDivisionError), lib.OfflineServer(["left"], strict=True):
        _ = 1 / 0


def test_a_strict_server_without_a_script_has_the_stand_in():
    with lib.OfflineServer(strict=True) as server:
        assert "not a model" in text_for(server, "a")


REFUSED = [
    pytest.param({"temprature": 1}, "temprature", id="unknown"),
    pytest.param({"extra": {}}, "extra", id="a-field-of-this-library"),
    pytest.param({"temperature": "1"}, "temperature", id="number-as-text"),
    pytest.param({"temperature": True}, "temperature", id="number-as-boolean"),
    pytest.param({"temperature": 2.1}, "temperature", id="too-warm"),
    pytest.param({"top_p": -0.1}, "top_p", id="below-0"),
    pytest.param({"seed": 1.5}, "seed", id="fractional-seed"),
    pytest.param({"stop": list("abcde")}, "stop", id="five-stops"),
    pytest.param({"stream": "true"}, "stream", id="boolean-as-text"),
    pytest.param({"tools": WEATHER}, "tools", id="a-tool-for-tools"),
    pytest.param({"logit_bias": [1]}, "logit_bias", id="list-for-object"),
    pytest.param({"metadata": "a"}, "metadata", id="text-for-object"),
    pytest.param({"response_format": "json"}, "response_format", id="text-for-a-format"),
    pytest.param({"messages": [{"role": "boss", "content": "a"}]}, "messages[0].role", id="role"),
    pytest.param({"messages": [{"role": "user", "content": 1}]}, "messages[0].content", id="content"),
    pytest.param({"messages": [{"role": "user", "txt": "a"}]}, "messages[0].txt", id="unknown-key"),
    pytest.param({"messages": [RESULT]}, "messages[0]", id="orphan-tool-message"),
    pytest.param({"messages": [ASSISTANT, RESULT, RESULT]}, "messages[2]", id="answered-twice"),
    pytest.param({"messages": [ASSISTANT, *QUESTION["messages"]]}, "messages[1]", id="unanswered"),
    pytest.param({"messages": [ASSISTANT]}, "messages", id="unanswered-at-the-end"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "param"), REFUSED)
def test_a_strict_server_rejects_what_the_api_rejects(change, param):
    with lib.OfflineServer(strict=True) as strict, lib.OfflineServer() as lenient:
        refused, taken = ask(strict, **change), ask(lenient, **change)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param
    assert taken.ok


EVERYTHING = {
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": [{"type": "text", "text": "Rain?"}], "name": "ann"},
        ASSISTANT,
        RESULT,
        {"role": "assistant", "content": "Yes.", "refusal": None, "audio": {"id": "a"}, "annotations": []},
        {"role": "user", "content": "Thanks."},
    ],
    "max_completion_tokens": 9, "max_tokens": 9, "temperature": 1, "top_p": 0.5, "n": 2, "seed": -1,
    "frequency_penalty": -2, "presence_penalty": 2.0, "logit_bias": {"50256": -100}, "stop": "a long stop",
    "reasoning_effort": "low", "verbosity": "low", "response_format": {"type": "text"},
    "modalities": ["text"], "audio": {"voice": "alloy", "format": "mp3"},
    "prediction": {"type": "content", "content": "a"}, "logprobs": True, "top_logprobs": 20,
    "tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "parallel_tool_calls": False, "web_search_options": {}, "functions": [{"name": "f"}],
    "function_call": "auto", "stream": False, "stream_options": None, "store": False, "metadata": {"a": "b"},
    "service_tier": "auto", "prompt_cache_key": "a", "prompt_cache_options": {"ttl": "30m"},
    "prompt_cache_retention": "24h", "safety_identifier": "a", "moderation": {"model": "m"}, "user": "u",
}  # fmt: skip


def test_strict_takes_every_parameter_of_the_api():
    known = {field.name for field in fields(lib.CreateChatCompletionRequest)} - {"extra"}
    assert {"model", *EVERYTHING} == known
    with lib.OfflineServer(strict=True) as server:
        answer = ask(server, **EVERYTHING)
        assert answer.ok, answer.json()
        assert ask(server, **dict.fromkeys(known - {"model", "messages"})).ok


def test_strict_takes_what_this_library_sends():
    def weather() -> str:
        """The weather."""
        return "Rain."

    server = lib.OfflineServer([{"tool_calls": [CALL]}, "Rain."], strict=True)
    with server, lib.OpenAIClient(base_url=server.url) as client:
        question = {**QUESTION, "messages": [lib.ChatMessage.user("Rain?")]}
        assert lib.run_tools(client, question, [weather]).response.text == "Rain."


# As the API


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, "invalid_request_error", "invalid_api_key"),
        (404, "invalid_request_error", "model_not_found"),
        (429, "requests", "rate_limit_exceeded"),
        (400, "invalid_request_error", None),
        (503, "server_error", None),
    ],
)
def test_a_status_has_the_body_of_the_api(status, kind, code):
    with lib.OfflineServer([status]) as server:
        error = ask(server).json()["error"]
    assert (error["type"], error["code"], error["param"]) == (kind, code, None)


def test_the_error_for_a_wrong_key_shows_only_its_first_letters():
    with lib.OfflineServer(api_key="sk-right") as server:
        answer = post(server, headers={"Authorization": "Bearer sk-wrong"}, **QUESTION)
        assert post(server, headers={"api-key": "sk-right"}, **QUESTION).ok  # as Azure's clients do
    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == "Incorrect API key provided: sk-***."


@pytest.mark.parametrize("stream", [False, True])
def test_the_requested_model_is_in_the_response(stream):
    with lib.OfflineServer() as server:
        assert '"model": "gpt-5"' in ask(server, model="gpt-5", stream=stream).text


NODE = {
    "type": "object", "required": ["next"], "additionalProperties": False,
    "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "smallest"),
    [
        pytest.param({"type": "object", "properties": {"a": {"type": "string"}}}, {}, id="nothing-required"),
        pytest.param(lib.json_schema(dict[str, int], strict=False), {}, id="free-keys"),
        pytest.param({"$ref": "#/$defs/Node", "$defs": {"Node": NODE}}, {"next": None}, id="recursive"),
        pytest.param({"type": "array", "items": {"type": "integer", "minimum": 3}, "minItems": 2}, [3, 3], id="array"),
        pytest.param({"enum": ["a", "b"]}, "a", id="enum"),
        pytest.param({"const": False}, False, id="const"),
        pytest.param({"type": ["string", "null"]}, None, id="null"),
        pytest.param({"type": "string", "minLength": 2}, "xx", id="a-length"),
        pytest.param({"type": "number", "exclusiveMinimum": 0}, 1, id="above"),
        pytest.param({"type": "integer", "maximum": -5}, -5, id="below"),
        pytest.param({"type": "integer", "exclusiveMaximum": 0}, -1, id="strictly-below"),
        pytest.param({"type": "integer", "minimum": -9, "exclusiveMaximum": 9}, 0, id="between"),
        pytest.param({"type": "boolean"}, False, id="boolean"),
    ],
)  # fmt: skip
def test_the_stand_in_answers_with_the_smallest_json_of_a_schema(schema, smallest):
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    with lib.OfflineServer() as server:
        assert json.loads(text_for(server, "a", response_format=wanted)) == smallest


def test_the_stand_in_answers_in_the_requested_response_format():
    with lib.OfflineServer() as server:
        assert text_for(server, "a", response_format={"type": "json_object"}) == "{}"
        assert "not a model" in text_for(server, "a", response_format={"type": "text"})


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"pattern": "^a$"}, "pattern"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2, "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "prefixItems": [{"type": "integer"}], "minItems": 1}, "prefixItems"),
        ({"type": "object", "minProperties": 1}, "minProperties"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "exclusiveMaximum"),
    ],
)  # fmt: skip
def test_the_error_for_a_schema_that_the_stand_in_cannot_satisfy_names_the_keyword(value, name):
    schema = {"type": "object", "required": ["a"], "properties": {"a": value}}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    with lib.OfflineServer() as server:
        answer = ask(server, response_format=wanted)
    assert answer.status_code == 400
    assert name in answer.json()["error"]["message"]


@dataclass
class Recipe:
    title: str
    kind: Literal["sweet", "sour"]
    steps: list[str]
    minutes: float | None
    variant: Optional["Recipe"] = None


def test_the_stand_ins_answer_to_the_schema_of_a_class_parses_into_the_class():
    with lib.OfflineServer() as server, lib.OpenAIClient(base_url=server.url) as client:
        recipe = lib.parse_chat_completion(client, QUESTION, Recipe)
    assert recipe == Recipe("", "sweet", [], None)


@pytest.mark.parametrize(
    "pieces", [[b'{"model": "m", "messa', b'ges": [{"role": "user", ', b'"content": "a"}]}'], []]
)
def test_a_request_may_come_in_chunks(pieces):
    with lib.OfflineServer() as server:
        host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
        line = http.client.HTTPConnection(host, int(port), timeout=10)
        for _ in range(2):  # over the same connection
            line.request("POST", "/v1/chat/completions", iter(pieces), encode_chunked=True,
                         headers={"Transfer-Encoding": "chunked"})  # fmt: skip
            answer = line.getresponse()
            answer.read()
            assert answer.status == (200 if pieces else 400)
        line.close()


# Other endpoints


def test_models_are_listed():
    with lib.OfflineServer() as server, lib.OpenAIClient(base_url=server.url) as client:
        models = client.get("models")["data"]
    assert lib.Model.GPT_4O_MINI in [model["id"] for model in models]


def test_embeddings_are_the_same_for_the_same_text_and_of_length_1():
    with lib.OfflineServer() as server, lib.OpenAIClient(base_url=server.url) as client:
        body = {"model": "e", "input": ["ice cream", "rain", "ice cream"], "dimensions": 8}
        found = client.post("embeddings", body)
        short = client.post("embeddings", {**body, "input": "rain", "encoding_format": "base64"})
        tokens = client.post("embeddings", {"model": "e", "input": [1, 2, 3]})
    first, second, third = (one["embedding"] for one in found["data"])
    assert first == third != second
    assert sum(number * number for number in first) == pytest.approx(1)
    unpacked = struct.unpack("<8f", base64.b64decode(short["data"][0]["embedding"]))
    assert unpacked == pytest.approx(second)
    assert len(tokens["data"][0]["embedding"]) == 1536
    assert found["usage"] == {"prompt_tokens": 5, "total_tokens": 5}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model"),
        ({"model": "e"}, "input"),
        ({"model": "e", "input": []}, "input"),
        ({"model": "e", "input": "a", "dimensions": 0.5}, "dimensions"),
        ({"model": "e", "input": "a", "dimensions": 5000}, "dimensions"),
    ],
)
def test_invalid_embedding_requests_are_a_400_that_names_the_parameter(body, param):
    with lib.OfflineServer() as server:
        answer = post(server, "embeddings", **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_stored_completions_are_listed_changed_and_deleted():
    with lib.OfflineServer() as server, lib.OpenAIClient(base_url=server.url) as client:
        for number in range(5):
            body = {
                **QUESTION,
                "model": f"m{number % 2}",
                "store": True,
                "metadata": {"n": str(number)},
            }
            lib.create_chat_completion(client, body)
        lib.create_chat_completion(client, QUESTION)  # not stored
        stored = list(lib.iterate_chat_completions(client, limit=2))
        assert [one.metadata["n"] for one in stored] == ["0", "1", "2", "3", "4"]
        newest = lib.list_chat_completions(client, order="desc", limit=1, model="m1")
        assert (newest.data[0].metadata["n"], newest.has_more) == ("3", True)
        (found,) = lib.list_chat_completions(client, metadata={"n": "2"})
        assert lib.retrieve_chat_completion(client, found.id) == found
        changed = lib.update_chat_completion(client, found.id, {"n": "two"})
        assert changed.metadata == {"n": "two"}
        (message,) = lib.list_chat_completion_messages(client, found.id)
        assert (message.role, message.content) == ("user", "Say hi.")
        assert lib.delete_chat_completion(client, found.id).deleted
        with pytest.raises(lib.NotFoundError):
            lib.retrieve_chat_completion(client, found.id)
        with pytest.raises(lib.BadRequestError):
            lib.list_chat_completions(client, after="nowhere")


def test_a_streamed_completion_is_stored_too():
    with lib.OfflineServer(["Hi!"]) as server, lib.OpenAIClient(base_url=server.url) as client:
        lib.create_chat_completion_stream(client, {**QUESTION, "store": True}).response()
        (stored,) = lib.iterate_chat_completions(client)
    assert stored.text == "Hi!"


def test_a_response_without_an_id_is_not_stored():
    with lib.OfflineServer([{"choices": []}]) as server:
        assert ask(server, store=True).ok
        assert requests.get(f"{server.url}/chat/completions", timeout=10).json()["data"] == []


def test_azures_paths_name_the_model():
    with lib.OfflineServer(api_key="key") as server:
        endpoint = server.url.removesuffix("/v1")
        settings = {"deployment": "mine", "api_version": "2024-10-21", "api_key": "key"}
        with lib.OpenAIClient.azure(endpoint, **settings) as client:
            answer = lib.create_chat_completion(
                client, {"messages": QUESTION["messages"], "model": ""}
            )
        with lib.OpenAIClient("key", base_url=f"{endpoint}/openai/v1") as client:
            assert lib.create_chat_completion(client, QUESTION).model == "m"
    assert answer.model == "mine"


# Bounds


@pytest.mark.gate
def test_requests_are_kept_up_to_a_limit_and_can_be_cleared():
    with lib.OfflineServer() as server, requests.Session() as session:
        for number in range(1005):
            session.get(f"{server.url}/{number}", timeout=10)
        kept = [request.path for request in server.requests]
        server.requests.clear()
        session.get(f"{server.url}/last", timeout=10)
        assert [request.path for request in server.requests] == ["/v1/last"]
    assert kept == [f"/v1/{number}" for number in range(5, 1005)]


@pytest.mark.gate
def test_stored_completions_are_kept_up_to_a_limit():
    with lib.OfflineServer() as server, requests.Session() as session:
        body = {**QUESTION, "store": True}
        made = [
            session.post(f"{server.url}/chat/completions", json=body, timeout=10).json()["id"]
            for _ in range(1002)
        ]
        query = {"limit": "2000"}
        kept = session.get(f"{server.url}/chat/completions", params=query, timeout=10).json()
    assert [one["id"] for one in kept["data"]] == made[2:]


@pytest.mark.gate
def test_connections_beyond_the_limit_are_closed():
    with lib.OfflineServer() as server:
        host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
        lines = [http.client.HTTPConnection(host, int(port), timeout=10) for _ in range(501)]
        for line in lines:
            line.connect()
        assert lines[-1].sock.recv(1) == b""
        lines[0].close()
        lines[1].request("GET", "/v1/models")
        assert lines[1].getresponse().status == 200
        for line in lines:
            line.close()


def test_a_port_can_be_chosen_and_a_taken_one_is_an_error():
    with lib.OfflineServer() as first:
        port = int(first.url.removesuffix("/v1").rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            lib.OfflineServer(port=port).start()
    with lib.OfflineServer(port=port) as second:
        assert second.url == first.url
        assert ask(second).ok


@pytest.mark.parametrize(
    ("name", "value"),
    [("stream_options", {"include_usage": True}), ("tool_choice", "auto"),
     ("parallel_tool_calls", True), ("top_logprobs", 3)],
)  # fmt: skip
def test_a_strict_server_rejects_a_parameter_without_the_one_that_it_needs(name, value):
    with lib.OfflineServer(strict=True) as server:
        answer = post(server, "chat/completions", **QUESTION, **{name: value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
