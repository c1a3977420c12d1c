"""Conversations: a turn is stored completely, with its response, or not at all."""

import functools
import json
import os
import pickle
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from . import lib, loaded_by
from .wire import CLOSE, Reply, chunk, completion, http, streamed

CALLS = [
    {"id": "x", "type": "function", "function": {"name": "look", "arguments": "{}"}},
    {"id": "y", "type": "function", "function": {"name": "look", "arguments": "{}"}},
]
TOOL_X = {"role": "tool", "content": "1", "tool_call_id": "x"}
TOOL_Y = {"role": "tool", "content": "2", "tool_call_id": "y"}


def options(**given):
    return lib.ChatOptions(**given)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def calling(*calls):
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def sent(client, number=-1):
    return client.server.requests[number].body["messages"]


def kept(chats, conversation_id="a"):
    return [
        {"role": str(message.role), "content": message.content}
        for message in chats.history(conversation_id)
    ]


def echo(body):
    """A reply of the offline server: `echo of` the last message."""
    return f"echo of {body['messages'][-1]['content']}"


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    return lib.MemoryStore() if request.param == "memory" else lib.SQLiteStore(tmp_path / "s.db")


# Turns


def test_a_conversation_sends_and_stores_its_earlier_turns(offline, store):
    client = offline("Hello Ann.", "Ann.")
    chats = lib.Conversations(client, store)
    first = chats.chat_completion("a", "I am Ann.")
    second = chats.chat_completion("a", "Who am I?")
    assert (first.text, first.restarted) == ("Hello Ann.", True)
    assert (second.text, second.restarted) == ("Ann.", False)
    assert second.response.choices[0].finish_reason == "stop"
    assert second.response.usage.total_tokens > 0
    assert sent(client) == [user("I am Ann."), assistant("Hello Ann."), user("Who am I?")]
    assert kept(chats) == [*sent(client), assistant("Ann.")]


def test_conversations_know_nothing_of_each_other(offline, store):
    client = offline("1", "2")
    chats = lib.Conversations(client, store)
    chats.chat_completion("a", "A")
    assert chats.chat_completion("b", "B").restarted
    assert sent(client) == [user("B")]
    assert chats.ids() == ["a", "b"]


def test_an_id_starts_a_new_conversation_after_it_was_deleted(offline, store):
    chats = lib.Conversations(offline("1", "2"), store)
    chats.chat_completion("a", "A")
    assert chats.delete("a") is True
    assert chats.delete("a") is False
    assert (chats.history("a"), chats.ids()) == ([], [])
    assert chats.chat_completion("a", "again").restarted


def test_the_conversation_that_was_used_last_is_listed_last(offline, store):
    chats = lib.Conversations(offline("1", "2", "3", "4"), store)
    for conversation in ("a", "b", "c", "a"):
        chats.chat_completion(conversation, "Hi")
    assert chats.ids() == ["b", "c", "a"]


def test_a_restart_replaces_what_was_kept(offline, store):
    client = offline("1", "2", "3")
    chats = lib.Conversations(client, store)
    chats.chat_completion("a", "A", options(system_prompt="Be brief."))
    chats.chat_completion("b", "B")
    assert chats.chat_completion("a", "again", options(restart=True)).restarted
    assert sent(client) == [user("again")]
    assert kept(chats) == [user("again"), assistant("3")]
    assert chats.ids() == ["b", "a"]


def test_a_restart_that_fails_replaces_nothing(offline, store):
    chats = lib.Conversations(offline("1", 400), store)
    chats.chat_completion("a", "A", options(system_prompt="Be brief."))
    before = store.load("a")
    with pytest.raises(lib.BadRequestError):
        chats.chat_completion("a", "again", options(restart=True))
    assert store.load("a") == before == ("Be brief.", [user("A"), before[1][1]])


def test_a_turn_that_fails_leaves_no_trace(offline, store):
    chats = lib.Conversations(offline(500, "1", 400), store)
    with pytest.raises(lib.InternalServerError):
        chats.chat_completion("a", "A")
    assert chats.ids() == []
    assert chats.chat_completion("a", "A").restarted
    with pytest.raises(lib.BadRequestError):
        chats.chat_completion("a", "B")
    assert kept(chats) == [user("A"), assistant("1")]


def test_a_response_without_choices_is_an_error_and_not_stored(offline, store):
    chats = lib.Conversations(offline({"choices": [], "id": "c"}), store)
    with pytest.raises(lib.DeserializeError) as caught:
        chats.chat_completion("a", "A")
    assert caught.value.partial.id == "c"
    assert chats.ids() == []


def test_the_system_prompt_is_sent_first_until_it_is_replaced(offline, store):
    client = offline(*"12345")
    chats = lib.Conversations(client, store)
    prompts = ["One.", None, "Two.", None, ""]
    firsts = []
    for prompt in prompts:
        chats.chat_completion("a", "Hi", options(system_prompt=prompt))
        firsts.append(sent(client)[0])
    assert firsts == [system("One."), system("One."), system("Two."), system("Two."), user("Hi")]
    assert all(message["role"] != "system" for message in kept(chats))


def test_pre_and_post_prompts_are_sent_and_not_stored(offline, store):
    client = offline("1", "2", "3")
    chats = lib.Conversations(client, store)
    chats.chat_completion("a", "text", options(pre_prompt="Sum up:", post_prompt="In French."))
    assert sent(client) == [user("Sum up:\ntext\nIn French.")]
    chats.chat_completion("a", "text", options(post_prompt="In French."))
    assert sent(client)[-1] == user("text\nIn French.")
    picture = lib.ChatMessage.user("this", images="https://example.com/a.png")
    chats.chat_completion("a", picture, options(pre_prompt="Describe:", post_prompt="Briefly."))
    texts = [part.get("text") for part in sent(client)[-1]["content"]]
    assert texts == ["Describe:", "this", None, "Briefly."]
    said = chats.history("a")
    assert [message.text for message in said[::2]] == ["text", "text", "this"]
    assert said[4].to_dict() == picture.to_dict()


def test_parameters_are_sent_where_they_are_set(offline):
    client = offline("1", "2")
    chats = lib.Conversations(client)
    chats.chat_completion("a", "Hi")
    assert client.server.requests[0].body == {"model": "gpt-4o-mini", "messages": [user("Hi")]}
    given = {
        "model": "m", "temperature": 0.0, "top_p": 0.5, "stop": ["."], "max_tokens": 5,
        "max_completion_tokens": 6, "presence_penalty": 0.1, "frequency_penalty": 0.2,
        "logit_bias": {"1": 2}, "response_format": {"type": "text"},
    }  # fmt: skip
    chats.chat_completion("b", "Hi", options(**given, extra={"seed": 1}))
    assert client.server.requests[1].body == {**given, "seed": 1, "messages": [user("Hi")]}


def test_messages_are_kept_with_all_that_is_in_them(offline, store):
    answer = {"tool_calls": CALLS, "reasoning_content": "Hm \ud83d.", "thought": {"deep": [1]}}
    client = offline(answer, "Done.")
    chats = lib.Conversations(client, store)
    chats.chat_completion("a", "Look.", options(extra={"tools": []}))
    message = chats.history("a")[1]
    assert [call.id for call in message.tool_calls] == ["x", "y"]
    assert message.extra == {"reasoning_content": "Hm \ud83d.", "thought": {"deep": [1]}}
    answers = [lib.ChatMessage.tool("x", "1"), lib.ChatMessage.tool("y", "2")]
    chats.chat_completion("a", answers, options(pre_prompt="no", history_messages=0))
    assert sent(client) == [message.to_dict(), TOOL_X, TOOL_Y]
    assert [str(message.role) for message in chats.history("a")] == [
        "user", "assistant", "tool", "tool", "assistant",
    ]  # fmt: skip


def test_history_returns_copies_of_the_messages(offline, store):
    chats = lib.Conversations(offline({"content": "1", "thought": [1]}), store)
    chats.chat_completion("a", "A")
    message = chats.history("a")[1]
    message.extra["thought"].append(2)
    assert chats.history("a")[1].extra == {"thought": [1]}


@pytest.mark.parametrize("bad", ["", None, 1, b"a", "\ud800"], ids=repr)
def test_an_id_that_is_not_valid_text_is_rejected(offline, bad):
    client = offline("1")
    chats = lib.Conversations(client)
    for call in (
        lambda: chats.chat_completion(bad, "Hi"),
        lambda: chats.chat_completion_stream(bad, "Hi"),
        lambda: chats.history(bad),
        lambda: chats.delete(bad),
    ):
        with pytest.raises(lib.ConfigError, match="id of a conversation"):
            call()
    assert client.server.requests == []


def test_any_text_is_an_id(offline, store):
    chats = lib.Conversations(offline(*"123"), store)
    for name in ("'; DROP TABLE message; --", "a\0b", "क"):
        chats.chat_completion(name, "Hi")
        assert len(chats.history(name)) == 2


def test_the_error_for_an_empty_id_says_that_it_is_empty(offline):
    with pytest.raises(lib.ConfigError, match="must be text that is not empty, not ''"):
        lib.Conversations(offline()).history("")


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ([], "the list of messages is empty"),
        ("", "the message is empty"),
        (lib.ChatMessage.user(""), "the message is empty"),
        ([lib.ChatMessage.user("a"), lib.ChatMessage(role="user")], "the message is empty"),
    ],
)
def test_a_turn_without_content_is_not_sent(offline, sentence, words):
    client = offline("1")
    with pytest.raises(lib.ConfigError, match=words):
        lib.Conversations(client).chat_completion("a", sentence, options(pre_prompt="Go on."))
    assert client.server.requests == []


@pytest.mark.parametrize("client", ["x", None, {"base_url": "x"}])
def test_an_argument_that_is_not_a_client_is_rejected_at_construction(client):
    with pytest.raises(
        lib.ConfigError, match=f"needs an OpenAIClient, not {type(client).__name__}"
    ):
        lib.Conversations(client)


@pytest.mark.parametrize("bad", [None, 1, ["a"], [lib.ChatMessage.user("a"), {}]], ids=repr)
def test_a_turn_that_is_neither_text_nor_messages_is_rejected(offline, bad):
    with pytest.raises(lib.ConfigError, match="give text, a ChatMessage or a list"):
        lib.Conversations(offline("1")).chat_completion("a", bad)


@pytest.mark.parametrize("bad", [-1, True, 1.5, "2"], ids=repr)
@pytest.mark.parametrize("name", ["history_messages", "history_tokens"])
def test_an_invalid_history_limit_is_rejected(offline, name, bad):
    with pytest.raises(lib.ConfigError, match=name):
        lib.Conversations(offline("1")).chat_completion("a", "Hi", options(**{name: bad}))


# How much history is sent

TALK = [user("u0"), assistant("a1"), user("u2"), assistant("a3"), user("u4"), assistant("a5")]
TOOLS = [user("u0"), calling(*CALLS), TOOL_X, TOOL_Y, assistant("a4"), user("u5"), assistant("a6")]
LONG = [user("u0"), calling(CALLS[0]), TOOL_X, calling(CALLS[1])]
OLD_CALL = {"role": "assistant", "content": None, "function_call": {"name": "f"}}
OLD_ANSWER = {"role": "function", "name": "f", "content": "1"}
MIXED = [user("u0"), calling(CALLS[0]), user("u2"), assistant("a3"), TOOL_X, assistant("a5")]


def sent_before(client, history, said, **limits):
    """The part of a history that is sent before the new message."""
    store = lib.MemoryStore()
    store.append("a", history, system_prompt=None, restart=False)
    message = lib.ChatMessage.from_dict(said)
    lib.Conversations(client, store).chat_completion("a", message, options(**limits))
    assert sent(client)[-1] == said
    return sent(client)[:-1]


@pytest.mark.parametrize(
    ("history", "said", "limit", "begin"),
    [
        pytest.param(TALK, user("?"), None, 0, id="all"),
        pytest.param(TALK, user("?"), 6, 0, id="all-that-fit"),
        pytest.param(TALK, user("?"), 5, 2, id="complete-exchanges"),
        pytest.param(TALK, user("?"), 2, 4, id="the-newest"),
        pytest.param(TALK, user("?"), 1, 6, id="no-answer-without-its-question"),
        pytest.param(TALK, user("?"), 0, 6, id="no-history"),
        pytest.param([], user("?"), 5, 0, id="empty-history"),
        pytest.param(TOOLS, user("?"), 6, 5, id="calls-and-results-together"),
        pytest.param(TOOLS, user("?"), 7, 0, id="calls-and-results-completely"),
        pytest.param(TOOLS[1:], user("?"), 6, 4, id="loaded-from-within-an-exchange"),
        pytest.param(TOOLS[2:], user("?"), 6, 3, id="loaded-from-a-tool-result-on"),
        pytest.param(TOOLS[:2], TOOL_X, 0, 1, id="the-call-of-a-result-whatever-the-limit"),
        pytest.param(TOOLS[:2], TOOL_X, 2, 0, id="the-call-of-a-result-with-its-exchange"),
        pytest.param(TOOLS[:3], TOOL_Y, 0, 1, id="the-second-result-of-one-message"),
        pytest.param(TOOLS[:3], TOOL_Y, 2, 1, id="not-from-the-first-result-on"),
        pytest.param(LONG, TOOL_Y, 3, 1, id="a-long-exchange-from-a-call-on"),
        pytest.param(LONG, TOOL_Y, 2, 3, id="a-long-exchange-from-its-last-call-on"),
        pytest.param([user("u"), OLD_CALL], OLD_ANSWER, 0, 1, id="a-legacy-function-call"),
        pytest.param(MIXED, user("?"), 2, 6, id="no-late-result-without-its-call"),
        pytest.param([user("u")], TOOL_X, 5, 0, id="a-result-without-a-call"),
        pytest.param([{"role": "assistant", "tool_calls": "?"}], TOOL_X, 5, 1, id="text-as-calls"),
        pytest.param([{"role": "assistant", "tool_calls": [1]}], TOOL_X, 5, 1, id="number-as-call"),
    ],
)
def test_of_the_history_the_newest_exchanges_are_sent(offline, history, said, limit, begin):
    found = sent_before(offline("Fine."), history, said, history_messages=limit)
    assert found == history[begin:]


def test_every_limit_sends_only_complete_exchanges(offline):
    client = offline(*["Fine."] * 200)
    for limit in (0, 1, 2, 3, 5, 7):
        for history in (TALK, TOOLS, LONG, MIXED):
            for end in range(len(history) + 1):
                found = sent_before(client, history[:end], user("?"), history_messages=limit)
                assert len(found) <= limit
                assert not found or found[0]["role"] == "user"
                calls = [c["id"] for m in found for c in m.get("tool_calls", ())]
                assert all(m["tool_call_id"] in calls for m in found if m["role"] == "tool")


def test_the_limit_holds_for_what_a_store_loads(offline, store):
    client = offline(*"1234")
    chats = lib.Conversations(client, store)
    for text in "abc":
        chats.chat_completion("a", text)
    chats.chat_completion("a", "d", options(history_messages=3, system_prompt="S"))
    assert sent(client) == [system("S"), user("c"), assistant("3"), user("d")]


PICTURE = {"type": "image_url", "image_url": {"url": "data:," + "x" * 9000}}


@pytest.mark.parametrize(
    ("content", "least", "enough"),
    [  # {"role":"user","content":""} has 28 bytes
        pytest.param("x" * 12, 9, 10, id="ascii"),
        pytest.param("क" * 4, 9, 10, id="three-bytes-each"),
        pytest.param([PICTURE, {"type": "text", "text": "Hi"}], 1000, 1020, id="picture"),
    ],
)
def test_tokens_are_estimated_from_the_bytes(offline, content, least, enough):
    said = [user(content)]
    assert sent_before(offline("Fine."), said, user("?"), history_tokens=least) == []
    assert sent_before(offline("Fine."), said, user("?"), history_tokens=enough) == said


def test_lone_surrogates_are_counted_too(offline):
    said = [user("\ud800" * 12)]
    assert sent_before(offline("Fine."), said, user("?"), history_tokens=9) == []


@pytest.mark.parametrize(
    ("limit", "begin"), [(1000, 0), (54, 0), (53, 2), (36, 2), (18, 4), (17, 6), (0, 6)]
)
def test_tokens_bound_the_history(offline, limit, begin):
    talk = [{**message, "content": "x" * 7} for message in TALK]
    # The messages take 8 and 10 tokens alternately.
    found = sent_before(offline("Fine."), talk, user("?"), history_tokens=limit)
    assert found == talk[begin:]


def test_a_late_tool_result_is_counted_and_sent_with_its_call(offline):
    u0, call, u2, a3, answer, a5 = MIXED
    client = offline("1", "2", "3")
    assert sent_before(client, MIXED, user("?")) == [u0, call, answer, u2, a3, a5]
    assert sent_before(client, MIXED, user("?"), history_tokens=40) == [u2, a3, a5]
    assert sent_before(client, MIXED, user("?"), history_messages=6) == [
        u0, call, answer, u2, a3, a5,
    ]  # fmt: skip


def test_all_of_a_conversation_is_sent_unless_a_limit_is_given(offline, store):
    client = offline(*[echo] * 40)
    chats = lib.Conversations(client, store)
    for number in range(40):
        chats.chat_completion("a", str(number))
    assert len(sent(client)) == 79
    assert sent(client)[:2] == [user("0"), assistant("echo of 0")]


def test_a_conversation_that_begins_with_an_assistant_message_keeps_it(offline):
    history = [assistant("Welcome. Your code is 4711."), user("Thanks."), assistant("Fine.")]
    client = offline("1", "2", "3")
    assert sent_before(client, history, user("?")) == history
    assert sent_before(client, history, user("?"), history_tokens=1000) == history
    assert sent_before(client, history, user("?"), history_tokens=20) == history[1:]


def test_the_choice_attribute_of_a_response_is_its_text(offline, store):
    chats = lib.Conversations(offline("Hi.", {"content": None, "tool_calls": CALLS}), store)
    said = chats.chat_completion("a", "Hello.")
    assert said.choice == said.text == said.response.text == "Hi."
    called = chats.chat_completion("a", "Look.")
    assert (called.choice, called.text) == ("", "")
    assert [call.id for call in called.response.choices[0].message.tool_calls] == ["x", "y"]


# Streams


def test_a_stream_read_to_its_end_is_kept_once(offline, store):
    client = offline("one two three", "four")
    chats = lib.Conversations(client, store)
    with chats.chat_completion_stream("a", "Count.") as stream:
        assert stream.restarted
        assert "".join(chunk.text for chunk in stream) == "one two three"
        assert stream.response().text == "one two three"
        assert stream.response().choices[0].finish_reason == "stop"
        assert list(stream) == []
    assert kept(chats) == [user("Count."), assistant("one two three")]
    stream = chats.chat_completion_stream("a", "On.")
    assert not stream.restarted
    assert stream.response().text == "four"
    assert len(kept(chats)) == 4


def test_text_read_to_its_end_is_kept(offline, store):
    chats = lib.Conversations(offline("one two"), store)
    stream = chats.chat_completion_stream("a", "Count.")
    assert list(stream.text_deltas()) == ["one", " two"]
    assert kept(chats) == [user("Count."), assistant("one two")]


def test_streamed_tool_calls_are_stored_as_complete_calls(offline, store):
    chats = lib.Conversations(offline({"content": None, "tool_calls": CALLS}), store)
    chats.chat_completion_stream("a", "Look.").response()
    assert [call.to_dict() for call in chats.history("a")[1].tool_calls] == CALLS


def test_a_stream_can_be_left_and_continued(offline, store):
    chats = lib.Conversations(offline("one two three"), store)
    stream = chats.chat_completion_stream("a", "Count.")
    next(stream)
    for _ in stream:
        break
    for _ in stream.text_deltas():
        break
    assert kept(chats) == []
    assert stream.response().text == "one two three"
    assert len(kept(chats)) == 2


def test_a_stream_that_is_closed_early_is_not_kept(offline, store):
    chats = lib.Conversations(offline("one two three", "1"), store)
    with chats.chat_completion_stream("a", "Count.") as stream:
        next(stream)
    for read in (stream.response, lambda: list(stream), lambda: list(stream.text_deltas())):
        with pytest.raises(lib.StreamInterruptedError):
            read()
    assert chats.ids() == []
    assert chats.chat_completion("a", "Hi").restarted


def test_a_stream_that_is_cut_is_not_kept(ask, store):
    cut = Reply(streamed(chunk("Hel"), done=False, framing="close"), CLOSE)
    chats = lib.Conversations(ask(cut), store)
    with pytest.raises(lib.StreamInterruptedError) as caught:
        list(chats.chat_completion_stream("a", "Hi"))
    assert caught.value.partial.text == "Hel"
    assert chats.ids() == []


def test_a_restart_by_a_stream_waits_for_its_end(offline, store):
    chats = lib.Conversations(offline("1", "2 3", "4 5"), store)
    chats.chat_completion("a", "A")
    with chats.chat_completion_stream("a", "B", options(restart=True)) as stream:
        next(stream)
    assert kept(chats) == [user("A"), assistant("1")]
    stream = chats.chat_completion_stream("a", "B", options(restart=True))
    assert stream.restarted
    stream.response()
    assert kept(chats) == [user("B"), assistant("4 5")]


# Stores


class Broken:
    """A store of the caller, which derives from no class of ours; it can't write until `works`."""

    works = False

    def __init__(self):
        self.turns = []

    def load(self, conversation_id, limit=None):
        return None

    def append(self, conversation_id, messages, *, system_prompt, restart):
        if not self.works:
            raise OSError("no disk")
        self.turns.append(list(messages))


def test_a_response_that_cannot_be_stored_is_on_the_error(offline):
    chats = lib.Conversations(offline("precious", "gem"), Broken())
    with pytest.raises(lib.OpenAIError, match="could not be stored: no disk") as caught:
        chats.chat_completion("a", "Hi")
    assert caught.value.partial.text == "precious"
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(lib.OpenAIError, match="could not be stored: no disk") as caught:
        list(chats.chat_completion_stream("a", "Hi"))
    assert caught.value.partial.text == "gem"


def test_a_stream_that_could_not_be_kept_may_be_kept_later(offline):
    store = Broken()
    stream = lib.Conversations(offline("gem"), store).chat_completion_stream("a", "Hi")
    with pytest.raises(lib.OpenAIError, match="no disk"):
        stream.response()
    store.works = True
    assert stream.response().text == stream.response().text == "gem"
    assert len(store.turns) == 1


def test_a_store_loads_the_newest(store):
    for number in range(5):
        store.append("a", [user(number), assistant(number)], system_prompt="S", restart=False)
    assert store.load("b") is None
    assert store.load("a", 0) == ("S", [])
    assert store.load("a", 3) == ("S", [assistant(3), user(4), assistant(4)])
    assert len(store.load("a", 10**30)[1]) == len(store.load("a")[1]) == 10


def test_threads_lose_no_turn(offline, store):
    client = offline(*[echo] * 40)
    chats = lib.Conversations(client, store)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: chats.chat_completion(f"c{n % 2}", f"q{n}"), range(40)))
    for name in ("c0", "c1"):
        texts = [message.text for message in chats.history(name)]
        assert sorted(texts[::2]) == sorted(f"q{n}" for n in range(40) if f"c{n % 2}" == name)
        assert texts[1::2] == [f"echo of {text}" for text in texts[::2]]


def run(script, *arguments, **more):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # fmt: skip


def finished(process):
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out


IMPORTS = """
from tests import lib
Conversations, OpenAIClient = lib.Conversations, lib.OpenAIClient
SQLiteStore = lib.SQLiteStore
"""

BOT = f"""
import sys
{IMPORTS}
url, path, *words = sys.argv[1:]
with OpenAIClient(base_url=url) as client, SQLiteStore(path) as store:
    chats = Conversations(client, store)
    print(chats.chat_completion("ann", " ".join(words)).text)
"""


@pytest.mark.gate
@pytest.mark.versions
def test_a_bot_that_is_started_twice_remembers(offline, tmp_path):
    client = offline("Hello Ann.", "Ann.")
    arguments = (client.server.url, tmp_path / "bot.db")
    assert finished(run(BOT, *arguments, "I", "am", "Ann.")) == "Hello Ann.\n"
    assert finished(run(BOT, *arguments, "Who", "am", "I?")) == "Ann.\n"
    assert [message["content"] for message in sent(client)] == [
        "I am Ann.", "Hello Ann.", "Who am I?",
    ]  # fmt: skip


TALKER = f"""
import sys
{IMPORTS}
url, path, name = sys.argv[1:]
chats = Conversations(OpenAIClient(base_url=url, max_retries=0), SQLiteStore(path))
for turn in range(12):
    chats.chat_completion("c%d" % (turn % 3), "%s-%d" % (name, turn))
"""


@pytest.mark.gate
def test_eight_processes_on_three_conversations_lose_no_turn_and_mix_none(offline, tmp_path):
    client = offline(*[echo] * 96)
    path = tmp_path / "shared.db"
    for process in [run(TALKER, client.server.url, path, f"p{n}") for n in range(8)]:
        finished(process)
    chats = lib.Conversations(client, lib.SQLiteStore(path))
    assert sorted(chats.ids()) == ["c0", "c1", "c2"]
    for number in range(3):
        texts = [message.text for message in chats.history(f"c{number}")]
        turns = [f"p{n}-{turn}" for n in range(8) for turn in range(12) if turn % 3 == number]
        assert sorted(texts[::2]) == sorted(turns)
        assert texts[1::2] == [f"echo of {text}" for text in texts[::2]]
        for n in range(8):  # each process sees its own turns in its own order
            own = [text for text in texts[::2] if text.startswith(f"p{n}-")]
            assert own == sorted(own, key=lambda text: int(text.split("-")[1]))


# Forks a process for each life, so that fifty kills do not take fifty imports.
KEEPER = f"""
import os, sys, time, random, signal
{IMPORTS}
path, lives = sys.argv[1], int(sys.argv[2])
import sqlite3
chance = random.Random(5)
for life in range(lives):
    begun, told = os.pipe()
    child = os.fork()
    if not child:
        store = SQLiteStore(path)
        for turn in range(10**6):
            text = "%d-%d" % (life, turn)
            messages = [{{"role": "user", "content": text}},
                        {{"role": "assistant", "content": text * 500}}]
            store.append("c%d" % (turn % 2), messages, system_prompt=None,
                         restart=turn % 50 == 49)
            os.write(told, b"%d\\n" % turn)
    os.close(told)
    if life % 5:
        os.read(begun, 1)
    time.sleep(chance.random() * 0.06)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    written = b""
    while piece := os.read(begun, 65536):
        written += piece
    os.close(begun)
    store = SQLiteStore(path)
    found = [store.load(name)[1] for name in store.ids()]
    for messages in found:
        assert len(messages) % 2 == 0
        for asked, answered in zip(messages[::2], messages[1::2]):
            assert answered["content"] == asked["content"] * 500
    newest = [int(message["content"].split("-")[1]) for messages in found
              for message in messages[::2] if message["content"].startswith("%d-" % life)]
    kept = [int(line) for line in written.split()]
    assert not kept or max(newest) - max(kept) in (0, 1), (newest, kept)
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
print("survived")
"""


@pytest.mark.gate
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_fifty_killed_writers_leave_no_partial_turn(tmp_path):
    assert finished(run(KEEPER, tmp_path / "killed.db", 50)) == "survived\n"


def test_the_path_of_a_store_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    store = lib.SQLiteStore("~/s.db")
    assert Path(store.path) == tmp_path / "s.db"
    assert (tmp_path / "s.db").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.gate
@pytest.mark.versions
def test_a_store_made_before_a_fork_works_in_the_children(tmp_path):
    store = lib.SQLiteStore(tmp_path / "s.db")
    script = f"""
import os, sys
{IMPORTS}
store = SQLiteStore(sys.argv[1])
children = []
for name in "abcd":
    child = os.fork()
    if not child:
        for turn in range(10):
            store.append("x", [{{"content": name}}] * 2, system_prompt=None, restart=False)
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""
    finished(run(script, store.path))
    store.append("x", [{"content": "p"}] * 2, system_prompt=None, restart=False)
    names = [message["content"] for message in store.load("x")[1]]
    assert sorted(names) == sorted("abcd" * 20 + "pp")
    assert names[::2] == names[1::2]


FOUNDERS = f"""
import os, sys
{IMPORTS}
import sqlite3
for number in range(25):
    path = "%s-%d.db" % (sys.argv[1], number)
    ready, start = os.pipe()
    children = []
    for name in "abcdef":
        child = os.fork()
        if not child:
            os.close(start)
            os.read(ready, 1)  # until all are there
            store = SQLiteStore(path)
            store.append("x", [{{"content": name}}], system_prompt=None, restart=False)
            os._exit(0)
        children.append(child)
    os.close(ready)
    os.close(start)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    found = [message["content"] for message in SQLiteStore(path).load("x")[1]]
    assert sorted(found) == sorted("abcdef")
"""


@pytest.mark.gate
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_that_make_a_file_at_once_share_it(tmp_path):
    finished(run(FOUNDERS, tmp_path / "s"))


def test_a_store_pickles_as_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = lib.SQLiteStore("s.db", busy_timeout=2)
    store.append("a", [user("Hi")], system_prompt=None, restart=False)
    monkeypatch.chdir("/")
    again = pickle.loads(pickle.dumps(store))
    assert again.load("a") == (None, [user("Hi")])
    assert (again.path, again.busy_timeout) == (str(tmp_path / "s.db"), 2)
    assert repr(again) == f"SQLiteStore({again.path!r})"


def test_a_path_may_hold_any_character(tmp_path):
    path = tmp_path / "50% a?b#c é.db"
    with lib.SQLiteStore(path) as store:
        store.append("a", [user("Hi")], system_prompt=None, restart=False)
    assert lib.SQLiteStore(path).ids() == ["a"]
    assert path.exists()


def test_the_file_is_a_wal_database_of_our_own(tmp_path):
    path = tmp_path / "s.db"
    lib.SQLiteStore(path)
    content = path.read_bytes()
    assert content[18:20] == b"\2\2"  # write-ahead logging
    assert content[68:72] == b"chts"
    assert int.from_bytes(content[60:64], "big") > 0  # the version of its tables


def test_loading_the_newest_does_not_read_the_rest(tmp_path, monkeypatch):
    plans = []

    class Explaining(sqlite3.Connection):
        def execute(self, statement, *values):
            if statement.startswith("SELECT") and " message " in statement:
                assert statement.endswith("LIMIT ?")
                plan = super().execute(f"EXPLAIN QUERY PLAN {statement}", *values).fetchall()
                plans.append([str(row[3], "utf-8") for row in plan])
            return super().execute(statement, *values)

    connect = functools.partial(sqlite3.connect, factory=Explaining)
    monkeypatch.setattr(sqlite3, "connect", connect)
    with lib.SQLiteStore(tmp_path / "s.db") as store:
        store.append("a", [user("1"), user("2")], system_prompt=None, restart=False)
        assert store.load("a", 1) == (None, [user("2")])
    assert plans == [["SEARCH message USING INDEX message_of_conversation (conversation=?)"]]


def foreign(path, *statements):
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()


def killed_while_writing(path, *statements):
    """Make a database whose writer was killed in a transaction: it has a rollback journal."""
    workshop = path.parent / "workshop"
    workshop.mkdir()
    db = sqlite3.connect(workshop / "w.db", isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN")
    db.execute("CREATE TABLE half (x)")
    db.executemany("INSERT INTO half VALUES (?)", [("x" * 3000,)] * 50)
    shutil.copy(workshop / "w.db", path)
    shutil.copy(workshop / "w.db-journal", f"{path}-journal")
    db.close()


OURS = f"PRAGMA application_id = {0x63687473}"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda p: p.write_text("Dear diary, " * 400), "not a database", id="text"),
        pytest.param(lambda p: p.write_text("Hi"), "not a database", id="short-text"),
        pytest.param(
            lambda p: foreign(p, "CREATE TABLE t (x)"), "another program's", id="other-tables"
        ),
        pytest.param(
            lambda p: foreign(p, "PRAGMA application_id = 7"), "another program's", id="other-id"
        ),
        pytest.param(
            lambda p: foreign(p, "PRAGMA user_version = 1"), "another program's", id="other-version"
        ),
        pytest.param(
            lambda p: foreign(p, "PRAGMA journal_mode = WAL", "CREATE TABLE t (x)"),
            "another program's",
            id="other-wal",
        ),
        pytest.param(
            lambda p: foreign(p, OURS, "PRAGMA user_version = 99"),
            "newer version of this library (tables 99",
            id="newer",
        ),
        pytest.param(
            lambda p: killed_while_writing(p, "CREATE TABLE t (x)"),
            "another program's",
            id="other-journal",
        ),
    ],
)
def test_a_file_of_another_program_or_version_is_rejected_and_left_unchanged(tmp_path, make, words):
    path = tmp_path / "s.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(lib.ConfigError) as caught:
        lib.SQLiteStore(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda p: None, id="missing"),
        pytest.param(lambda p: p.touch(), id="empty"),
        pytest.param(lambda p: foreign(p, "VACUUM"), id="no-tables"),
        pytest.param(lambda p: foreign(p, "CREATE TABLE t (x)", "DROP TABLE t"), id="emptied"),
        pytest.param(lib.SQLiteStore, id="ours"),
    ],
)
def test_a_store_works_in_a_missing_empty_or_existing_file(tmp_path, make):
    path = tmp_path / "s.db"
    make(path)
    store = lib.SQLiteStore(path)
    store.append("a", [user("Hi")], system_prompt="S", restart=False)
    assert lib.SQLiteStore(path).load("a") == ("S", [user("Hi")])


def test_a_store_whose_writer_was_killed_is_repaired(tmp_path):
    path = tmp_path / "s.db"
    lib.SQLiteStore(tmp_path / "new.db").append("a", [], system_prompt=None, restart=False)
    with closing(sqlite3.connect(tmp_path / "new.db")) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        tables = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql > ''")]
    killed_while_writing(path, *tables, OURS, f"PRAGMA user_version = {version}")
    assert lib.SQLiteStore(path).ids() == []
    db = sqlite3.connect(path)
    assert db.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall() == []
    db.close()


def test_an_older_file_is_brought_up_to_date(tmp_path, monkeypatch):
    path = tmp_path / "s.db"
    old = lib.SQLiteStore(path)
    old.append("a", [user("Hi")], system_prompt=None, restart=False)
    module = sys.modules[lib.SQLiteStore.__module__]
    more = (*lib._STORE_MIGRATIONS, ("ALTER TABLE conversation ADD COLUMN note TEXT",))
    monkeypatch.setattr(module, "_STORE_MIGRATIONS", more)
    assert lib.SQLiteStore(path).load("a") == (None, [user("Hi")])
    monkeypatch.undo()
    with pytest.raises(lib.ConfigError, match="newer version"):
        lib.SQLiteStore(path)


def test_a_message_nested_too_deeply_to_load_again_is_not_stored(offline, tmp_path):
    deep = []
    for _ in range(120):
        deep = [deep]
    chats = lib.Conversations(offline("1", "2"), lib.SQLiteStore(tmp_path / "s.db"))
    with pytest.raises(lib.OpenAIError, match="could not be stored: nested too deeply"):
        chats.chat_completion("a", lib.ChatMessage(lib.ChatRole.USER, "Hi", extra={"x": deep}))
    assert chats.history("a") == []
    assert chats.chat_completion("a", "Hi").text == "2"


DAMAGED = {
    "empty": "''",
    "text": "'Dear diary'",
    "cut": """'{"role": "user", "con'""",
    "trailing-data": """'{"role": "user"}}'""",
    "number": "1",
    "fraction": "1.5",
    "boolean": "'true'",
    "list": """'[{"role": "user"}]'""",
    "deep": "'" + '{"a":' * 5000 + "'",
    "deep-and-complete": "'" + "[" * 5000 + "]" * 5000 + "'",
    "not-utf-8": """CAST(x'7b2261223a22ff227d' AS TEXT)""",
    "zero-byte": """'{"role": "user"' || char(0) || '}'""",
    "blob": "x'00ff10'",
    "utf-16": "x'7b00'",
    "surrogates": "CAST(x'eda080' AS TEXT)",
}


def damaged(path, statement):
    """A store whose conversation `ann` an SQL statement damages; `bob` stays intact."""
    store = lib.SQLiteStore(path)
    store.append("ann", [user("Hi"), assistant("Hi")], system_prompt="S", restart=False)
    store.append("bob", [user("Hi"), assistant("Hi")], system_prompt=None, restart=False)
    foreign(path, statement)
    return store


@pytest.mark.parametrize("value", [*DAMAGED.values(), "'null'"], ids=[*DAMAGED, "null"])
def test_the_error_for_a_damaged_message_names_its_row_and_other_conversations_work(
    offline, tmp_path, value
):
    store = damaged(tmp_path / "s.db", f"UPDATE message SET body = {value} WHERE number = 2")
    client = offline("1", "2")
    chats = lib.Conversations(client, store)
    for read in (
        lambda: store.load("ann"),
        lambda: chats.history("ann"),
        lambda: chats.chat_completion("ann", "And?"),
        lambda: chats.chat_completion_stream("ann", "And?"),
    ):
        with pytest.raises(lib.ConfigError) as caught:
            read()
        text = str(caught.value)
        assert f"{store.path}: row 2 of its table message is damaged (" in text
        assert "\n" not in text
        assert len(text) < 300 + len(store.path)
    assert client.server.requests == []
    assert store.ids() == ["ann", "bob"]
    assert chats.chat_completion("bob", "And?").text == "1", "the others go on"
    assert chats.chat_completion("ann", "Hi", options(restart=True)).restarted
    assert len(chats.history("ann")) == 2


@pytest.mark.parametrize("value", [*DAMAGED.values(), "'{}'"], ids=[*DAMAGED, "object"])
def test_the_error_for_a_damaged_system_prompt_names_its_row(tmp_path, value):
    store = damaged(
        tmp_path / "s.db", f"UPDATE conversation SET system_prompt = {value} WHERE id = 'ann'"
    )
    with pytest.raises(lib.ConfigError, match="row 1 of its table conversation is damaged"):
        store.load("ann", 0)
    assert store.delete("ann") is True


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE message", "DROP TABLE conversation", "ALTER TABLE message RENAME body TO x"],
)
def test_the_error_for_a_missing_table_or_column_names_the_file(tmp_path, statement):
    store = damaged(tmp_path / "s.db", statement)
    with pytest.raises(
        lib.ConfigError, match=r"s\.db: no such (table: (message|conversation)|column: .*body)"
    ):
        store.load("ann")


needs_modes = pytest.mark.skipif(os.name == "nt", reason="Windows has no modes of files")


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o027, 0o077, 0o277, 0o777], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


@needs_modes
@pytest.mark.parametrize("name", ["s.db", "a?b#c%20&.db"])
def test_only_the_owner_can_access_the_store_and_its_wal_files(tmp_path, umask, monkeypatch, name):
    connect, modes = sqlite3.connect, []
    path = tmp_path / name

    def look(*args, **settings):
        db = connect(*args, **settings)
        modes.append({file.name: mode_of(file) for file in tmp_path.iterdir()})
        return db

    monkeypatch.setattr(sqlite3, "connect", look)
    store = lib.SQLiteStore(path)
    db = connect(path)
    db.execute("SELECT * FROM message").fetchall()
    store.append("a", [user("secret")], system_prompt=None, restart=False)
    look(path).close()
    db.close()
    assert {f"{name}-wal", f"{name}-shm"} < modes[-1].keys()
    assert {mode for found in modes for mode in found.values()} == {0o600}
    assert os.listdir(tmp_path) == [name]


@needs_modes
def test_the_mode_of_an_existing_file_is_kept(tmp_path):
    path = tmp_path / "s.db"
    path.touch()
    path.chmod(0o640)
    lib.SQLiteStore(path)
    assert mode_of(path) == 0o640
    lib.SQLiteStore(path)
    assert mode_of(path) == 0o640


@needs_modes
def test_a_dangling_link_gets_a_file_that_only_its_owner_can_access(tmp_path):
    (tmp_path / "link.db").symlink_to(tmp_path / "s.db")
    lib.SQLiteStore(tmp_path / "link.db")
    assert mode_of(tmp_path / "s.db") == 0o600


def test_a_file_that_cannot_be_made_is_an_error_with_the_reason(tmp_path, monkeypatch):
    def full(*args, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", full)
    with pytest.raises(lib.ConfigError, match=r"s\.db: .*No space left"):
        lib.SQLiteStore(tmp_path / "s.db")


@pytest.mark.parametrize("path", ["", ":memory:"])
def test_an_empty_or_memory_path_is_rejected_with_a_hint_at_memory_store(path):
    with pytest.raises(lib.ConfigError, match=r"use MemoryStore\(\)"):
        lib.SQLiteStore(path)


def test_a_path_in_a_missing_folder_or_of_a_folder_is_an_error(tmp_path):
    with pytest.raises(lib.ConfigError, match=r"no folder .*nowhere"):
        lib.SQLiteStore(tmp_path / "nowhere" / "s.db")
    with pytest.raises(lib.ConfigError, match="cannot keep conversations in"):
        lib.SQLiteStore(tmp_path)


def test_a_removed_file_is_an_error_and_is_not_created_again(tmp_path):
    store = lib.SQLiteStore(tmp_path / "s.db")
    Path(store.path).unlink()
    with pytest.raises(lib.ConfigError, match="unable to open"):
        store.ids()
    assert not Path(store.path).exists()


def test_a_file_that_stays_locked_is_an_error_after_the_wait(tmp_path):
    store = lib.SQLiteStore(tmp_path / "s.db", busy_timeout=0.05)
    db = sqlite3.connect(store.path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    with pytest.raises(lib.ConfigError, match="is locked"):
        store.append("a", [user("Hi")], system_prompt=None, restart=False)
    assert store.ids() == []  # reading waits for nobody
    db.execute("COMMIT")
    db.close()
    store.append("a", [user("Hi")], system_prompt=None, restart=False)
    assert store.ids() == ["a"]


def test_a_file_that_is_locked_is_waited_for(tmp_path):
    store = lib.SQLiteStore(tmp_path / "s.db")
    db = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    db.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.05, lambda: (db.execute("COMMIT"), db.close()))
    timer.start()
    store.append("a", [user("Hi")], system_prompt=None, restart=False)
    timer.join()
    assert store.ids() == ["a"]


@pytest.mark.parametrize("words", ["locking protocol", "database is locked"])
def test_a_lock_that_sqlite_does_not_wait_for_is_waited_for_too(tmp_path, monkeypatch, words):
    store = lib.SQLiteStore(tmp_path / "s.db")
    connect, refusals = sqlite3.connect, [sqlite3.OperationalError(words)]

    def refuse_once(*args, **settings):
        if refusals:
            raise refusals.pop()
        return connect(*args, **settings)

    monkeypatch.setattr(sqlite3, "connect", refuse_once)
    store.append("a", [user("Hi")], system_prompt=None, restart=False)
    assert refusals == []
    assert store.ids() == ["a"]


FULL = f"""
import resource, sys
{IMPORTS}
url, path = sys.argv[1:]
store = SQLiteStore(path)
chats = Conversations(OpenAIClient(base_url=url), store)
chats.chat_completion("a", "first")
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
try:
    chats.chat_completion("a", "x" * 200_000)
except lib.OpenAIError as error:
    print(type(error).__name__, type(error.__cause__).__name__, error.partial.text)
print(len(chats.history("a")))
chats.chat_completion("a", "third")
print(len(chats.history("a")))
resource.setrlimit(resource.RLIMIT_FSIZE, before)  # for those who measure this process
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.gate
@pytest.mark.versions
def test_a_full_disk_loses_the_turn_but_not_its_response(offline, tmp_path):
    client = offline("one", "two", "three")
    told = finished(run(FULL, client.server.url, tmp_path / "s.db"))
    assert told == "OpenAIError ConfigError two\n2\n4\n"
    assert len(lib.SQLiteStore(tmp_path / "s.db").load("a")[1]) == 4


@pytest.mark.parametrize("closed", ["s.db", "."], ids=["file", "folder"])
def test_a_read_only_store_is_rejected_at_construction(tmp_path, monkeypatch, closed):
    path = tmp_path / "s.db"
    lib.SQLiteStore(path)
    closed = str(tmp_path / closed)
    # Permissions are mocked, because they do not bind the superuser, who may run this.
    monkeypatch.setattr(os, "access", lambda place, mode: str(place) != closed)
    with pytest.raises(lib.ConfigError, match=r"s\.db: .* is read-only"):
        lib.SQLiteStore(path)


@pytest.mark.gate
@pytest.mark.versions
def test_sqlite_is_imported_when_a_store_is_made(tmp_path):
    code = f"import {lib.SQLiteStore.__module__} as module"
    assert "sqlite3" not in loaded_by(code)
    assert "sqlite3" in loaded_by(f"{code}; module.SQLiteStore({str(tmp_path / 's.db')!r})")


def test_messages_are_stored_as_plain_json(tmp_path):
    store = lib.SQLiteStore(tmp_path / "s.db")
    store.append("a", [user("é")], system_prompt="S", restart=False)
    db = sqlite3.connect(store.path)
    [(body,)] = db.execute("SELECT body FROM message").fetchall()
    db.close()
    assert json.loads(body) == user("é")


def made_call(call_id):
    function = {"name": "f", "arguments": "{}"}
    call = {"id": call_id, "type": "function", "function": function}
    return {"content": None, "tool_calls": [call]}


def sent_roles(client, number):
    return [message["role"] for message in client.server.requests[number].body["messages"]]


def test_a_tool_call_without_a_result_is_stored_but_not_sent_again(offline):
    client = offline(made_call("x"), "Fine.", "Sure.")
    chats = lib.Conversations(client)
    chats.chat_completion("a", "Look it up.")
    chats.chat_completion("a", "Never mind.")
    assert sent_roles(client, 1) == ["user", "user"]
    assert len(chats.history("a")) == 4, "but it is stored"


def test_a_late_tool_result_is_sent_directly_after_its_call(offline):
    client = offline(made_call("x"), "Wait.", "Found.", "Bye.")
    chats = lib.Conversations(client)
    chats.chat_completion("a", "Look it up.")
    chats.chat_completion("a", "Still there?")
    chats.chat_completion("a", lib.ChatMessage.tool("x", "it"))
    chats.chat_completion("a", "Bye.")
    assert sent_roles(client, 2) == ["user", "user", "assistant", "assistant", "tool"]
    assert sent_roles(client, 3) == [
        "user", "assistant", "tool", "user", "assistant", "assistant", "user",
    ]  # fmt: skip


def test_tool_calls_with_the_same_id_keep_their_own_results(offline):
    client = offline(made_call("x"), "One.", made_call("x"), "Two.", "Bye.")
    chats = lib.Conversations(client)
    for sentence in ("a", lib.ChatMessage.tool("x", "1"), "b", lib.ChatMessage.tool("x", "2")):
        chats.chat_completion("a", sentence)
    chats.chat_completion("a", "c")
    sent = client.server.requests[4].body["messages"]
    assert [m["content"] for m in sent if m["role"] == "tool"] == ["1", "2"]


@pytest.mark.parametrize(
    "calls",
    [5, True, "x", [5], {"id": "1"}, [{"id": ["x"]}], [{"id": {}, "function": {"name": "f"}}]],
    ids=repr,
)
def test_a_conversation_continues_after_invalid_tool_calls(ask, calls):
    odd = completion(None, tool_calls=calls)
    chats = lib.Conversations(ask(http(odd), http(completion("Fine."))))
    try:
        chats.chat_completion("a", "Hi")
    except lib.OpenAIError:
        pass  # it may be an error; but then it is not stored
    assert chats.chat_completion("a", "And now?").text == "Fine."


def test_every_option_of_a_request_is_sent(offline):
    options = {"temperature": 0.5, "top_p": 0.5, "stop": ["."], "max_tokens": 5, "model": "m",
               "max_completion_tokens": 6, "presence_penalty": 1, "frequency_penalty": 1,
               "logit_bias": {"1": 2}, "response_format": {"type": "text"}}  # fmt: skip
    client = offline("Hi.")
    chats = lib.Conversations(client)
    chats.chat_completion("a", "Hi", lib.ChatOptions(**options, extra={"top_k": 4}))
    sent = {k: v for k, v in client.server.requests[0].body.items() if k != "messages"}
    assert sent == {**options, "top_k": 4}
