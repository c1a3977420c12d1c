"""A received message is sent back in the next request in the form of the request schema."""

import pytest

from . import lib

FUNCTION = {"name": "f", "arguments": "{}"}
CALL = {"id": "x", "type": "function", "function": FUNCTION}
CUSTOM = {"id": "x", "type": "custom", "custom": {"name": "f", "input": "in"}}
SPOKEN = {"id": "audio_1", "data": "UklGRg==" * 9, "transcript": "Hi there.", "expires_at": 2**40}
NOTE = {"type": "url_citation", "url_citation": {"url": "https://a", "title": "A",
                                                 "start_index": 0, "end_index": 2}}  # fmt: skip


def assistant(**members):
    return {"role": "assistant", **members}


CAME = {
    "text": (assistant(content="Hi", refusal=None), assistant(content="Hi")),
    "audio": (
        assistant(content=None, audio=SPOKEN, refusal=None),
        assistant(audio={"id": "audio_1"}),
    ),
    "annotations-of-a-search": (
        assistant(content="Hi", annotations=[NOTE]),
        assistant(content="Hi"),
    ),
    "no-annotations": (assistant(content="Hi", annotations=[]), assistant(content="Hi")),
    "refusal": (assistant(content=None, refusal="No."), assistant(refusal="No.")),
    "no-content": (assistant(content=None), assistant(content="")),
    "no-role": ({"content": "Hi"}, assistant(content="Hi")),
    "no-parts": (assistant(content=[]), assistant(content="")),
    "no-calls": (
        assistant(content="Hi", tool_calls=[], function_call=None),
        assistant(content="Hi"),
    ),
    "calls": (
        assistant(content=None, tool_calls=[CALL]),
        assistant(content=None, tool_calls=[CALL]),
    ),
    "calls-with-an-index": (
        assistant(content="", tool_calls=[{"index": 0, **CALL}, {"index": 1, **CUSTOM}]),
        assistant(content="", tool_calls=[CALL, CUSTOM]),
    ),
    "calls-without-a-type": (
        assistant(tool_calls=[{"id": "x", "function": FUNCTION}, {**CUSTOM, "type": None}]),
        assistant(content=None, tool_calls=[CALL, CUSTOM]),
    ),
    "a-legacy-function-call": (
        assistant(content=None, function_call=FUNCTION),
        assistant(content=None, function_call=FUNCTION),
    ),
    "fields-of-the-provider": (
        assistant(
            content="Hi",
            reasoning_content="Hm.",
            tool_calls=[{**CALL, "extra_content": {"google": {"thought_signature": "s"}}}],
        ),
        assistant(
            content="Hi",
            reasoning_content="Hm.",
            tool_calls=[{**CALL, "extra_content": {"google": {"thought_signature": "s"}}}],
        ),
    ),
}


REQUESTS = {
    "request": lambda message: lib.CreateChatCompletionRequest(model="m", messages=[message]),
    "mapping": lambda message: {"model": "m", "messages": [message]},
}


@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize(("came", "goes"), CAME.values(), ids=CAME)
def test_a_received_message_is_sent_in_the_form_of_the_request_schema(
    offline, came, goes, request_of
):
    client = offline(came, "Fine.")
    request = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    message = lib.create_chat_completion(client, request).choices[0].message
    lib.create_chat_completion(client, request_of(message))
    assert client.server.requests[1].body["messages"] == [goes]


def test_to_dict_returns_a_received_message_unchanged():
    came = assistant(audio=SPOKEN, annotations=[NOTE], tool_calls=[{"index": 0, **CALL}])
    came["content"] = None
    assert lib.ChatMessage.from_dict(came).to_dict() == came


@pytest.mark.parametrize("streamed", [False, True], ids=["call", "stream"])
def test_a_conversation_sends_audio_as_its_id_and_stores_all_of_it(offline, streamed):
    client = offline({"content": None, "audio": SPOKEN}, "Fine.")
    chats = lib.Conversations(client)
    if streamed:
        chats.chat_completion_stream("a", "Speak.").response()
    else:
        chats.chat_completion("a", "Speak.")
    chats.chat_completion("a", "And?")
    assert client.server.requests[1].body["messages"][1] == assistant(audio={"id": "audio_1"})
    assert chats.history("a")[1].audio.data == SPOKEN["data"]


@pytest.mark.parametrize(
    "spoken",
    [{**SPOKEN, "expires_at": 1}, {**SPOKEN, "id": None}],
    ids=["expired", "without-an-id"],
)
def test_a_conversation_sends_the_transcript_of_audio_that_has_expired_or_lacks_an_id(
    offline, spoken
):
    client = offline({"content": None, "audio": spoken}, "Fine.")
    chats = lib.Conversations(client)
    chats.chat_completion("a", "Speak.")
    chats.chat_completion("a", "And?")
    assert client.server.requests[1].body["messages"][1] == assistant(content="Hi there.")
