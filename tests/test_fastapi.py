"""A web service can return a response, and then sends nothing of the HTTP reply it came in."""

import asyncio
import json

import pytest
from requests.structures import CaseInsensitiveDict

from . import lib

fastapi = pytest.importorskip("fastapi", reason="no FastAPI is installed")

RECEIVED = {
    "id": "c-1",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi!", "mood": "ok"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"total_tokens": 3},
}


def untyped():
    """A response as create_chat_completion() returns it."""
    response = lib.CreateChatCompletionResponse.from_dict(RECEIVED)
    response.request_id = "req_1"
    response.headers = CaseInsensitiveDict({"set-cookie": "session=secret"})
    return response


def typed() -> lib.CreateChatCompletionResponse:
    return untyped()


def service(handler):
    app = fastapi.FastAPI()
    app.get("/")(handler)
    return app


def get(app):
    """What the service sends for a GET: the status, the headers as text, the body."""
    sent = []

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    asyncio.run(app(scope, receive, send))
    head, *rest = sent
    return head["status"], str(head["headers"]), b"".join(part["body"] for part in rest)


@pytest.mark.parametrize("handler", [untyped, typed])
def test_a_handler_may_return_a_response(handler):
    status, headers, body = get(service(handler))
    assert status == 200
    answer = json.loads(body)
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hi!", "stop")
    assert choice["message"]["extra"] == {"mood": "ok"}
    assert not {"headers", "request_id"} & answer.keys()
    assert "secret" not in headers + body.decode()


def test_the_schema_of_a_service_has_the_fields_of_the_response():
    schema = service(typed).openapi()["components"]["schemas"]["CreateChatCompletionResponse"]
    assert {"choices", "usage", "extra"} <= schema["properties"].keys()
    assert not {"headers", "request_id"} & schema["properties"].keys()
