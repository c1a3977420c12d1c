"""Azure: deployment paths, the API version, the key in `api-key`, and no OpenAI settings."""

import copy
import pickle
import traceback

import pytest

from . import lib
from .test_transport import texts_of
from .wire import chunk, completion, http, streamed

KEY = "azure-secret-key"
FILTERED = {"hate": {"filtered": False, "severity": "safe"}}


@pytest.fixture(autouse=True)
def no_settings_of_azure(monkeypatch):
    for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def azure(ask):
    """A client for a deployment on a server that gives these replies."""

    def client_for(*replies, **settings):
        wire = ask(*replies).wire
        settings = {"deployment": "gpt", "api_version": "2024-10-21", "api_key": KEY} | settings
        client = lib.OpenAIClient.azure(f"http://127.0.0.1:{wire.port}", timeout=10, **settings)
        client.wire = wire
        opened.append(client)
        return client

    opened = []
    yield client_for
    for client in opened:
        client.close()


def test_a_call_goes_to_the_deployment_with_the_version_and_the_key(azure, question):
    client = azure(http(completion()))
    assert lib.create_chat_completion(client, question).text == "Hi!"
    request = client.wire.requests[0]
    assert request.line == (
        "POST /openai/deployments/gpt/chat/completions?api-version=2024-10-21 HTTP/1.1"
    )
    assert request.headers["api-key"] == KEY
    assert "authorization" not in request.headers


def test_openai_settings_are_neither_sent_to_azure_nor_pickled(azure, question, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "openais-own")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://openais-own.example/v1")
    for key in (KEY, lambda: "token-secret"):
        client = azure(http(completion()), api_key=key)
        for one in (client, client.with_options(max_retries=0), client.with_options(api_key=key)):
            lib.create_chat_completion(one, question)
        for request in client.wire.requests:
            assert "openais-own" not in str(request)
    assert b"openais-own" not in pickle.dumps(azure(http(completion())))


def test_a_function_gives_a_token_for_each_request(azure, question):
    tokens = iter(["token-1-secret", "token-2-secret"])
    client = azure(http(completion()), api_key=lambda: next(tokens))
    for _ in range(2):
        lib.create_chat_completion(client, question)
    sent = [request.headers for request in client.wire.requests]
    assert [s["authorization"] for s in sent] == ["Bearer token-1-secret", "Bearer token-2-secret"]
    assert not any("api-key" in s for s in sent)


@pytest.mark.parametrize("slash", ["", "/", "//"])
def test_the_environment_fills_in_what_is_not_given(ask, question, monkeypatch, slash):
    wire = ask(http(completion())).wire
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", f" http://127.0.0.1:{wire.port}{slash}\n")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", f"{KEY}\n")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-06-01")
    with lib.OpenAIClient.azure(deployment="a b/c?#é") as client:
        lib.create_chat_completion(client, question)
    assert wire.requests[0].line.split()[1] == (
        "/openai/deployments/a%20b%2Fc%3F%23%C3%A9/chat/completions?api-version=2024-06-01"
    )
    assert wire.requests[0].headers["api-key"] == KEY


GIVEN = {
    "endpoint": "https://x.openai.azure.com",
    "deployment": "gpt",
    "api_version": "1",
    "api_key": KEY,
}


@pytest.mark.parametrize(
    ("missing", "variable"),
    [("endpoint", "AZURE_OPENAI_ENDPOINT"), ("api_version", "OPENAI_API_VERSION"),
     ("api_key", "AZURE_OPENAI_API_KEY")],
)  # fmt: skip
@pytest.mark.parametrize("value", [None, "", " \n"])
def test_the_error_for_a_missing_setting_names_it_and_its_variable(
    missing, variable, value, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "openais-own")
    monkeypatch.setenv(variable, "  ")
    with pytest.raises(lib.ConfigError, match=f"{missing}.*{variable}"):
        lib.OpenAIClient.azure(**GIVEN | {missing: value})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"deployment": ""}, "deployment"),
        ({"deployment": ".."}, "deployment"),
        ({"deployment": None}, "deployment"),
        ({"endpoint": "x.openai.azure.com"}, "http"),
        ({"endpoint": "https://x.openai.azure.com?a=b"}, "endpoint"),
        ({"endpoint": "https://x.openai.azure.com#a"}, "endpoint"),
        ({"endpoint": 5}, "endpoint must be text"),
        ({"api_version": 5}, "api_version must be text"),
        ({"api_key": 5}, "api_key must be text"),
        ({"api_key": "azure\nsecret"}, r"position 5 is U\+000A"),
        ({"headers": "a"}, "headers"),
        ({"query": "a"}, "query"),
    ],
)
def test_invalid_settings_are_rejected_without_showing_the_key(settings, words):
    with pytest.raises(lib.ConfigError, match=words) as caught:
        lib.OpenAIClient.azure(**GIVEN | settings)
    assert "secret" not in str(caught.value)


def test_headers_query_retries_and_organization_work_as_for_any_client(azure, question):
    client = azure(
        http(completion()),
        headers={"X-A": "b", "Api-Key": "no"},
        query={"c": "d"},
        max_retries=7,
        organization="org-1",
    )
    lib.create_chat_completion(client, question)
    request = client.wire.requests[0]
    assert client.max_retries == 7
    assert request.line.split()[1].endswith("?c=d&api-version=2024-10-21")
    assert [request.headers[name] for name in ("x-a", "api-key", "openai-organization")] == [
        "b", KEY, "org-1"
    ]  # fmt: skip


def test_copies_pickles_and_with_options_keep_the_azure_settings(azure, question):
    client = azure(http(completion()))
    others = [
        copy.copy(client),
        pickle.loads(pickle.dumps(client)),
        client.with_options(headers={"X-A": "b"}, query={"c": "d"}),
        client.with_options(api_key="azure-other-key"),
    ]
    for one in others:
        lib.create_chat_completion(one, question)
        one.close()
    keys = [request.headers["api-key"] for request in client.wire.requests]
    assert keys == [KEY, KEY, KEY, "azure-other-key"]
    assert not any("authorization" in request.headers for request in client.wire.requests)
    assert all("?api-version=2024-10-21" in request.line for request in client.wire.requests)


def test_other_endpoints_use_the_same_deployment_version_and_key(azure):
    client = azure(http({"data": []}, "200 OK", "Content-Type: application/json"))
    assert client.post("embeddings", {"input": "Hi"}, query={"a": 1}) == {"data": []}
    request = client.wire.requests[0]
    assert request.line == (
        "POST /openai/deployments/gpt/embeddings?a=1&api-version=2024-10-21 HTTP/1.1"
    )
    assert request.headers["api-key"] == KEY


def test_no_error_and_no_repr_shows_the_key(azure, question):
    told = {"error": {"message": f"bad key {KEY}"}}
    client = azure(http(told, "401 Unauthorized", f"X-Key: {KEY}"))
    with pytest.raises(lib.AuthenticationError) as caught:
        lib.create_chat_completion(client, question)
    assert not any(KEY in text for text in texts_of(caught.value))
    assert KEY not in repr(client)


def test_the_error_for_an_unknown_deployment_has_no_hint_about_v1(azure, question):
    told = {"error": {"code": "DeploymentNotFound", "message": "no such deployment"}}
    with pytest.raises(lib.NotFoundError, match="no such deployment") as caught:
        lib.create_chat_completion(azure(http(told, "404 Not Found")), question)
    assert "/v1" not in str(caught.value)


# The content filter


def test_content_filter_results_are_kept_on_a_response(azure, question):
    answer = completion()
    answer["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": FILTERED}]
    answer["choices"][0]["content_filter_results"] = FILTERED
    response = lib.create_chat_completion(azure(http(answer)), question)
    assert response.extra["prompt_filter_results"][0]["content_filter_results"] == FILTERED
    assert response.choices[0].extra == {"content_filter_results": FILTERED}
    assert response.to_dict() == answer


def test_content_filter_results_are_kept_in_a_stream(azure, question):
    first = {"choices": [], "prompt_filter_results": [{"content_filter_results": FILTERED}]}
    text, last = chunk("Hi"), chunk(finish_reason="stop")
    text["choices"][0]["content_filter_results"] = FILTERED
    stream = lib.create_chat_completion_stream(azure(streamed(first, text, last)), question)
    chunks = list(stream)
    assert chunks[0].extra == {"prompt_filter_results": first["prompt_filter_results"]}
    assert chunks[1].choices[0].extra == {"content_filter_results": FILTERED}
    response = stream.response()
    assert response.text == "Hi"
    assert response.extra == chunks[0].extra
    assert response.choices[0].extra == {"content_filter_results": FILTERED}


def test_a_filtered_prompt_is_a_bad_request_error_with_the_filter_results(azure, question):
    told = {
        "error": {
            "code": "content_filter",
            "message": "filtered",
            "innererror": {"content_filter_result": FILTERED},
        }
    }
    with pytest.raises(lib.BadRequestError, match="filtered") as caught:
        lib.create_chat_completion(azure(http(told, "400 Bad Request")), question)
    assert caught.value.code == "content_filter"
    assert caught.value.body == told


def test_a_base_url_beside_the_endpoint_is_rejected():
    settings = {"base_url": "https://gateway.example/v1"}
    with pytest.raises(lib.ConfigError, match="takes an endpoint"):
        lib.OpenAIClient.azure("https://x.openai.azure.com", deployment="d", **settings)


@pytest.mark.parametrize("wrong", [{"max_retry": 1}, {"base_url": "https://x"}])
def test_no_frame_of_a_wrong_call_shows_the_key(wrong):
    with pytest.raises((TypeError, lib.ConfigError), match=next(iter(wrong))) as caught:
        lib.OpenAIClient.azure(
            "https://h", deployment="d", api_version="v", api_key="sk-" + "secret-key", **wrong
        )
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    assert not [frame for frame in frames if "sk-secret-key" in repr(frame.f_locals)]
