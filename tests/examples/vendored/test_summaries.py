"""The package's own test, which needs pytest and responses, and no network."""

import json

import pytest
import responses
import summaries

URL = "https://api.openai.com/v1/chat/completions"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-no-key")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@responses.activate
def test_a_summary_is_the_text_of_the_answer() -> None:
    message = {"role": "assistant", "content": "It rains."}
    responses.post(URL, json={"choices": [{"message": message, "finish_reason": "stop"}]})
    assert summaries.summary("Rain, rain, rain.", words=2) == "It rains."
    sent = json.loads(responses.calls[0].request.body or "")
    assert "2 words" in sent["messages"][0]["content"]
    assert sent["messages"][1] == {"role": "user", "content": "Rain, rain, rain."}


@responses.activate
def test_an_invalid_key_is_an_error_of_the_package() -> None:
    responses.post(URL, status=401, json={"error": {"message": "Incorrect API key."}})
    with pytest.raises(summaries.OpenAIError, match="Incorrect API key"):
        summaries.summary("Rain.")
