"""Tools in conversations: a turn is the complete exchange, stored completely or not at all."""

import json

import pytest

from . import lib
from .test_conversations import assistant, kept, options, sent, user
from .wire import CLOSE, Reply, chunk, completion, http, streamed


def call(name, call_id="x", **arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": call_id, "type": "function", "function": function}


def calling(*calls):
    return {"content": None, "tool_calls": list(calls)}


class Hotel:
    """Two tools, and what they did."""

    def __init__(self):
        self.booked = []

    def price(self, night: str) -> int:
        """Tell what a night costs."""
        return {"monday": 90}.get(night, 120)

    def book(self, night: str) -> str:
        """Book a room."""
        self.booked.append(night)
        return f"booked {night}, number {len(self.booked)}"

    @property
    def tools(self):
        return [self.price, self.book]


EXCHANGE = [
    calling(call("price", "x", night="monday")),
    calling(call("book", "y", night="monday"), call("book", "z", night="sunday")),
    "Done: 2 rooms.",
]
MESSAGES = [
    user("Book me the cheaper night."),
    {"role": "assistant", **EXCHANGE[0]},
    {"role": "tool", "content": "90", "tool_call_id": "x"},
    {"role": "assistant", **EXCHANGE[1]},
    {"role": "tool", "content": "booked monday, number 1", "tool_call_id": "y"},
    {"role": "tool", "content": "booked sunday, number 2", "tool_call_id": "z"},
    assistant("Done: 2 rooms."),
]


def stored_messages(chats, conversation_id="a"):
    return [message.to_dict() for message in chats.history(conversation_id)]


def turn_by_call(chats, *arguments, **more):
    return chats.chat_completion(*arguments, **more)


def turn_by_stream(chats, *arguments, **more):
    with chats.chat_completion_stream(*arguments, **more) as stream:
        list(stream)
        response = stream.response()
    return lib.ChatResponse(response.text, stream.restarted, response)


WAYS = pytest.mark.parametrize("ask", [turn_by_call, turn_by_stream], ids=["call", "stream"])


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    return lib.MemoryStore() if request.param == "memory" else lib.SQLiteStore(tmp_path / "s.db")


@WAYS
def test_a_turn_with_tools_is_stored_as_the_complete_exchange(offline, store, ask):
    client, hotel = offline(*EXCHANGE, "You have two."), Hotel()
    chats = lib.Conversations(client, store)
    answer = ask(chats, "a", MESSAGES[0]["content"], tools=hotel.tools)
    assert (answer.choice, answer.restarted) == ("Done: 2 rooms.", True)
    assert hotel.booked == ["monday", "sunday"]
    assert stored_messages(chats) == MESSAGES
    names = [tool["function"]["name"] for tool in client.server.requests[0].body["tools"]]
    assert names == ["price", "book"]
    assert not ask(chats, "a", "What have I?", tools=hotel.tools).restarted
    assert sent(client) == [*MESSAGES, user("What have I?")]


@WAYS
def test_the_next_turn_may_go_without_tools(offline, store, ask):
    client = offline(*EXCHANGE, "You have two.")
    chats = lib.Conversations(client, store)
    ask(chats, "a", MESSAGES[0]["content"], tools=Hotel().tools)
    assert ask(chats, "a", "What have I?").choice == "You have two."
    assert "tools" not in client.server.requests[3].body
    assert sent(client) == [*MESSAGES, user("What have I?")]


@WAYS
def test_a_turn_with_tools_has_the_options_of_any_other(offline, store, ask):
    client = offline("1", *EXCHANGE)
    chats = lib.Conversations(client, store)
    ask(chats, "a", "Hello.", options(system_prompt="S"))
    given = options(pre_prompt="Please:", temperature=0, history_messages=0, extra={"seed": 1})
    ask(chats, "a", MESSAGES[0]["content"], given, tools=Hotel().tools)
    body = client.server.requests[1].body
    assert (body["temperature"], body["seed"]) == (0, 1)
    assert sent(client)[:2] == [
        {"role": "system", "content": "S"},
        user("Please:\n" + MESSAGES[0]["content"]),
    ]
    assert stored_messages(chats) == [user("Hello."), assistant("1"), *MESSAGES]


@WAYS
@pytest.mark.parametrize("fault", range(3))
def test_a_failed_turn_with_tools_is_not_stored_and_its_messages_are_on_the_error(
    offline, store, ask, fault
):
    replies = [*EXCHANGE[:fault], 400, "Hello."]
    chats = lib.Conversations(offline("1", *replies), store)
    ask(chats, "a", "Hello.")
    with pytest.raises(lib.BadRequestError) as caught:
        ask(chats, "a", MESSAGES[0]["content"], tools=Hotel().tools)
    assert kept(chats) == [user("Hello."), assistant("1")]
    so_far = [message.to_dict() for message in caught.value.messages]
    assert so_far == [user("Hello."), assistant("1"), *MESSAGES[: [1, 3, 6][fault]]]


@WAYS
def test_ctrl_c_inside_a_tool_carries_the_exchange_and_the_turn_is_not_stored(offline, store, ask):
    def book(night: str) -> str:
        raise KeyboardInterrupt

    chats = lib.Conversations(offline(*EXCHANGE, "Hello."), store)
    with pytest.raises(KeyboardInterrupt) as caught:
        ask(chats, "a", MESSAGES[0]["content"], tools=[Hotel().price, book])
    assert [m.to_dict() for m in caught.value.messages] == MESSAGES[:4]
    assert chats.ids() == [], "the turn is not stored"
    assert ask(chats, "a", "Hello?").restarted


@WAYS
def test_messages_of_an_interrupted_turn_can_be_sent_again_with_the_missing_results(
    offline, store, ask
):
    class TooLong(BaseException):
        pass

    def book(night: str) -> str:
        raise TooLong

    client = offline(*EXCHANGE)
    chats = lib.Conversations(client, store)
    with pytest.raises(TooLong) as caught:
        ask(chats, "a", MESSAGES[0]["content"], tools=[Hotel().price, book])
    missing = [lib.ChatMessage.tool(one, "no") for one in ("y", "z")]
    assert ask(chats, "a", [*caught.value.messages, *missing]).choice == "Done: 2 rooms."
    assert sent(client) == [*MESSAGES[:4], *(message.to_dict() for message in missing)]
    assert stored_messages(chats) == [*sent(client), MESSAGES[-1]]


@WAYS
def test_a_call_of_a_tool_in_the_request_ends_the_turn_and_is_answered_in_the_next(
    offline, store, ask
):
    own = {"type": "function", "function": {"name": "look", "parameters": {}}}
    client = offline(EXCHANGE[0], calling(call("look", "l")), "Fine.")
    chats = lib.Conversations(client, store)
    given, hotel = options(extra={"tools": [own]}), Hotel()
    answer = ask(chats, "a", "Look.", given, tools=hotel.tools)
    assert answer.choice == ""
    assert answer.response.choices[0].message.tool_calls[0].id == "l"
    ask(chats, "a", lib.ChatMessage.tool("l", "seen"), given, tools=hotel.tools)
    assert [message["role"] for message in sent(client)] == [
        "user", "assistant", "tool", "assistant", "tool",
    ]  # fmt: skip


def test_the_usage_of_a_turn_includes_all_its_responses(offline):
    chats = lib.Conversations(offline(*EXCHANGE, "Bye."))
    found = chats.chat_completion("a", "Book.", tools=Hotel().tools)
    assert found.usage.total_tokens > found.response.usage.total_tokens
    assert found.usage.completion_tokens >= 3
    plain = chats.chat_completion("a", "Bye.")
    assert plain.usage == plain.response.usage


def test_a_stream_has_the_summed_usage_of_all_responses_of_its_turn(offline):
    def usage(tokens):
        return {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}

    def reply(message, tokens):
        return {"choices": [{"message": message}], "usage": usage(tokens)}

    replies = [reply(calling(call("price", night="x")), 2), reply({"content": "120."}, 3)]
    chats = lib.Conversations(offline(*replies))
    given = options(extra={"stream_options": {"include_usage": True}})
    stream = chats.chat_completion_stream("a", "How much?", given, tools=Hotel().tools)
    assert stream.usage is None
    assert stream.response().usage.total_tokens == 4
    assert stream.usage.total_tokens == 7


@WAYS
def test_the_settings_of_a_tool_run_apply_to_a_turn(offline, ask):
    asked, hotel = [], Hotel()
    client = offline(*EXCHANGE)
    chats = lib.Conversations(client)
    with pytest.raises(lib.ToolError, match="still calls tools after 2 answers"):
        ask(chats, "a", "Book.", tools=hotel.tools, max_rounds=2, before_call=asked.append)
    assert [made.id for made in asked] == ["x"]
    assert hotel.booked == []
    assert chats.ids() == []


@WAYS
def test_an_unknown_argument_is_rejected_with_and_without_tools(offline, ask):
    client = offline("1", "2")
    for tools in ([], Hotel().tools):
        with pytest.raises(TypeError, match="'temperature'"):
            ask(lib.Conversations(client), "a", "Hi", tools=tools, temperature=0)
    assert client.server.requests == []


def test_the_stream_of_a_turn_with_tools_yields_the_chunks_of_all_responses(offline, store):
    first = {**calling(call("price", night="x")), "content": "Let me see. "}
    client = offline(first, "It is 120.")
    chats = lib.Conversations(client, store)
    with chats.chat_completion_stream("a", "How much?", tools=Hotel().tools) as stream:
        assert stream.restarted
        assert client.server.requests == [], "nothing is asked before it is read"
        chunks = list(stream)
        assert "".join(chunk.text for chunk in chunks) == "Let me see. It is 120."
        assert all(isinstance(chunk, lib.CreateChatCompletionChunk) for chunk in chunks)
        called = [
            c.delta.tool_calls for chunk in chunks for c in chunk.choices if c.delta.tool_calls
        ]
        assert called, "and what is called is in them"
        assert stream.response().text == "It is 120."
        assert list(stream) == []
    assert len(chats.history("a")) == 4, "kept once"


def test_text_deltas_of_a_stream_with_tools_yield_the_text_and_store_the_turn(offline, store):
    chats = lib.Conversations(offline(*EXCHANGE), store)
    stream = chats.chat_completion_stream("a", MESSAGES[0]["content"], tools=Hotel().tools)
    assert "".join(stream.text_deltas()) == "Done: 2 rooms."
    assert stored_messages(chats) == MESSAGES


@pytest.mark.parametrize("tools", [(), Hotel().tools], ids=["without-tools", "with-tools"])
def test_a_surrogate_pair_split_over_two_chunks_is_joined(ask, tools):
    body = streamed(
        chunk("a\ud83d"), chunk("\ude00b"), chunk("c\ud83d"), chunk(finish_reason="stop")
    )
    chats = lib.Conversations(ask(body))
    stream = chats.chat_completion_stream("a", "Hi", tools=tools)
    assert list(stream.text_deltas()) == ["a", "\U0001f600b", "c", "\ud83d"]


def test_a_stream_with_tools_that_is_left_early_sends_and_stores_nothing_more(offline, store):
    client, hotel = offline(*EXCHANGE, "Hello."), Hotel()
    chats = lib.Conversations(client, store)
    with chats.chat_completion_stream("a", "Book.", tools=hotel.tools) as stream:
        next(stream)
    assert len(client.server.requests) == 1
    assert hotel.booked == []
    for read in (stream.response, lambda: list(stream), lambda: list(stream.text_deltas())):
        with pytest.raises(lib.StreamInterruptedError):
            read()
    assert chats.ids() == []


def test_an_interrupted_stream_with_tools_is_not_stored(ask, store):
    first = http(completion(None, tool_calls=[call("price", night="x")]))
    cut = Reply(streamed(chunk("Hel"), done=False, framing="close"), CLOSE)
    chats = lib.Conversations(ask(first, cut), store)
    with pytest.raises(lib.StreamInterruptedError) as caught:
        list(chats.chat_completion_stream("a", "Hi", tools=Hotel().tools))
    assert caught.value.partial.text == "Hel"
    assert len(caught.value.messages) == 3
    assert chats.ids() == []


@WAYS
def test_a_tool_without_type_hints_is_rejected_before_sending(offline, ask):
    def nameless(x):
        """Its parameter has no type."""

    client = offline("1")
    with pytest.raises(lib.ConfigError, match="no type hint"):
        ask(lib.Conversations(client), "a", "Hi", tools=[nameless])
    assert client.server.requests == []


def test_a_stream_of_tools_that_was_left_early_raises_when_read_again(offline):
    client, hotel = offline(*EXCHANGE, *EXCHANGE), Hotel()
    request = {"model": "m", "messages": [user("Book.")]}
    with lib.stream_tools(client, request, hotel.tools) as stream:
        next(stream)
    for read in (stream.result, lambda: next(stream), lambda: list(stream)):
        with pytest.raises(lib.StreamInterruptedError, match="closed, or failed, before its end"):
            read()
