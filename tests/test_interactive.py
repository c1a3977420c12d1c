"""The chat in a terminal: driven through a pseudo-terminal, as a person would."""

import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from . import lib
from .wire import SILENCE, Reply, Wire, chunk, streamed

pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")
pytestmark = pytest.mark.skipif(lib.name != "chatgptlib", reason="only the package has it")

PATIENCE = 30  # seconds until a test gives up on what does not come


class Terminal:
    """A terminal with `python -m chatgptlib` in it."""

    def __init__(self, *arguments, **environment):
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "chatgptlib", *arguments],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
            env={**os.environ, "TERM": "dumb", "PYTHONUTF8": "1", **environment},
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def until(self, words):
        """Read until the words are shown. Returns them, with all that was shown before them."""
        while words not in self.shown:
            ready, _, _ = select.select([self._ours], [], [], PATIENCE)
            assert ready, f"{words!r} did not come: {self.shown!r}"
            try:
                self.shown += os.read(self._ours, 65536).decode("utf-8", "replace")
            except OSError as error:  # the other side is closed
                raise AssertionError(f"{words!r} did not come: {self.shown!r}") from error
        before, _, self.shown = self.shown.partition(words)
        return before + words

    def type(self, text):
        os.write(self._ours, text.encode())

    def say(self, line):
        """Type a line at the prompt."""
        self.until("> ")
        self.type(line + "\r")

    def interrupt(self, words):
        """Press Ctrl-C, and again if nothing happens: Python misses one that is pressed in the
        moment before it waits for a key."""
        self.type("\x03")
        limit = time.monotonic() + PATIENCE
        while words not in self.shown:
            assert time.monotonic() < limit, f"{words!r} did not come: {self.shown!r}"
            ready, _, _ = select.select([self._ours], [], [], 5)
            if ready:
                self.shown += os.read(self._ours, 65536).decode("utf-8", "replace")
            else:
                self.type("\x03")

    def ended(self):
        return self._process.wait(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._ours)


def answer(text):
    return streamed(chunk(text), chunk("", finish_reason="stop"))


def sent_contents(wire):
    """The contents of the messages of each request."""
    return [[m["content"] for m in request.json["messages"]] for request in wire.requests]


def test_a_chat_streams_remembers_restarts_and_ends_with_ctrl_d():
    with Wire(answer("Hello Ann."), answer("Ann."), answer("Who?")) as wire, Terminal(
        "--base-url", wire.url, "-s", "Be brief."
    ) as terminal:  # fmt: skip
        terminal.until("/help lists the commands")
        terminal.say("I am Ann.")
        terminal.until("Hello Ann.")
        terminal.say("Who am I?")
        terminal.until("Ann.")
        terminal.say("/restart")
        terminal.until("starts a new conversation")
        terminal.say("And now?")
        terminal.until("Who?")
        terminal.until("> ")
        terminal.type("\x04")
        assert terminal.ended() == 0
    assert sent_contents(wire) == [
        ["Be brief.", "I am Ann."],
        ["Be brief.", "I am Ann.", "Hello Ann.", "Who am I?"],
        ["Be brief.", "And now?"],
    ]


def test_ctrl_c_stops_an_answer_and_keeps_the_chat():
    stuck = Reply(streamed(chunk("Once upon"), done=False)[:-5], SILENCE)
    with (
        Wire(answer("Hello Ann."), stuck, answer("Ann.")) as wire,
        Terminal("--base-url", wire.url) as terminal,
    ):
        terminal.say("I am Ann.")
        terminal.until("Hello Ann.")
        terminal.say("Tell a tale.")
        terminal.until("Once upon")
        terminal.interrupt("(stopped")
        terminal.say("Who am I?")
        terminal.until("Ann.")
        terminal.say("/quit")
        assert terminal.ended() == 0
    assert sent_contents(wire)[2] == ["I am Ann.", "Hello Ann.", "Who am I?"]


@pytest.mark.gate  # most of the time it takes the second Ctrl-C of `interrupt`
def test_ctrl_c_at_the_prompt_gives_up_the_line():
    with Wire(answer("Hi.")) as wire, Terminal("--base-url", wire.url) as terminal:
        terminal.until("> ")
        terminal.type("never sen")
        terminal.until("never sen")
        terminal.interrupt("> ")
        terminal.say("Hi")
        terminal.until("Hi.")
        terminal.say("/quit")
        assert terminal.ended() == 0
    assert sent_contents(wire) == [["Hi"]]


def test_commands_change_the_chat(tmp_path):
    with (
        Wire(answer("One."), answer("Two.")) as wire,
        Terminal("--base-url", wire.url, "--usage") as terminal,
    ):
        terminal.say("/help")
        terminal.until("Ctrl-C stops an answer.")
        terminal.say("/nonsense")
        terminal.until("unknown command /nonsense")
        for command, needed in (("/model", "NAME"), ("/save", "FILE")):
            terminal.say(command)
            terminal.until(f"{command} needs an argument: {command} {needed}")
        terminal.say("/model other-model")
        terminal.until("using other-model")
        terminal.say("/system Be kind.")
        terminal.until("instructions set")
        terminal.say("Hi")
        terminal.until("One.")
        terminal.say("/usage")
        terminal.until("(not known yet")
        terminal.say(f"/save {tmp_path}/chat.json")
        terminal.until("2 messages written")
        terminal.say(f"/save {tmp_path}/chat.txt")
        terminal.until("2 messages written")
        terminal.say(f"/save {tmp_path}/no/chat.txt")
        terminal.until("cannot write")
        terminal.say("/quit")
        assert terminal.ended() == 0
    assert wire.requests[0].json["model"] == "other-model"
    assert wire.requests[0].json["stream_options"] == {"include_usage": True}
    assert sent_contents(wire) == [["Be kind.", "Hi"]]
    assert json.loads((tmp_path / "chat.json").read_text()) == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "One."},
    ]
    assert (tmp_path / "chat.txt").read_text() == "user: Hi\n\nassistant: One.\n\n"


@pytest.mark.gate
def test_images_are_sent_with_the_next_question_alone(tmp_path):
    (tmp_path / "dot.gif").write_bytes(b"GIF89a...")
    (tmp_path / "notes.txt").write_text("Tea.")
    with (
        Wire(answer("One."), answer("Two.")) as wire,
        Terminal("--base-url", wire.url) as terminal,
    ):
        terminal.say(f"/image {tmp_path}/notes.txt")
        terminal.until("not an image that can be sent")
        terminal.say(f"/image {tmp_path}/dot.gif")
        terminal.until("to be sent with the next question")
        terminal.say("What is it?")
        terminal.until("One.")
        terminal.say("And?")
        terminal.until("Two.")
        terminal.say("/quit")
        assert terminal.ended() == 0
    (text, image), _, second = sent_contents(wire)[1]
    assert text["text"] == "What is it?"
    assert image["image_url"]["url"].startswith("data:image/gif;base64,")
    assert second == "And?"


def test_an_error_leaves_the_chat_going():
    from .wire import http

    refused = http({"error": {"message": "Too long"}}, "400 Bad Request")
    with Wire(refused, answer("Fine.")) as wire, Terminal("--base-url", wire.url) as terminal:
        terminal.say("A very long story")
        terminal.until("Too long")
        terminal.say("Hi")
        terminal.until("Fine.")
        terminal.say("/quit")
        assert terminal.ended() == 0
    assert sent_contents(wire)[1] == ["Hi"]


@pytest.mark.gate
@pytest.mark.versions
def test_a_named_conversation_goes_on_in_the_next_chat(tmp_path):
    store = str(tmp_path / "chats.db")
    with Wire(answer("Hello Ann."), answer("Ann.")) as wire:
        for line, words in (("I am Ann.", "Hello Ann."), ("Who am I?", "Ann.")):
            with Terminal("--base-url", wire.url, "-c", "ann", "--store", store) as terminal:
                before = terminal.until("/help")
                assert ("(2 messages so far)" in before) == (line == "Who am I?")
                terminal.say(line)
                terminal.until(words)
                terminal.until("> ")
                terminal.type("\x04")
                assert terminal.ended() == 0
    assert sent_contents(wire)[1] == ["I am Ann.", "Hello Ann.", "Who am I?"]


@pytest.mark.gate
@pytest.mark.versions
def test_an_error_on_a_terminal_begins_its_own_line():
    cut = streamed(chunk("Once upon "), done=False)
    with Wire(cut) as wire, Terminal("--base-url", wire.url, "Tell a tale.") as terminal:
        terminal.until("Once upon \r\nchatgptlib: the stream ended early")
        assert terminal.ended() == 1


@pytest.mark.gate
def test_the_summary_of_a_batch_is_shown_below_its_progress(tmp_path):
    (tmp_path / "in.jsonl").write_text("a\n")
    with Terminal(
        "batch", "--offline", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")
    ) as terminal:
        assert "1/1" in terminal.until("\r\nchatgptlib: 1 lines: 1 answered, 0 errors\r\n")
        assert terminal.ended() == 0


def test_control_characters_in_an_answer_are_escaped():
    with (
        Wire(answer("a\x1b]0;owned\x07b\x9b2Jc\td")) as wire,
        Terminal("--base-url", wire.url) as terminal,
    ):
        terminal.say("Hi")
        shown = terminal.until("d\r\n> ")
        assert "\x1b]0" not in shown
        assert "\x07" not in shown
        assert "a\\u001b]0;owned\\u0007b\\u009b2Jc" in shown
        terminal.type("/quit\r")
        assert terminal.ended() == 0


@pytest.mark.gate
@pytest.mark.versions
def test_pasted_lines_are_one_question():
    with Wire(answer("Four.")) as wire, Terminal(
        "--base-url", wire.url, TERM="xterm"
    ) as terminal:  # fmt: skip
        terminal.until("> ")
        terminal.type("\x1b[200~def f():\r    return 1\r\r/quit\x1b[201~")
        terminal.type("\r")
        terminal.until("Four.")
        terminal.say("quit")
        assert terminal.ended() == 0
    assert sent_contents(wire) == [["def f():\n    return 1\n\n/quit"]]


@pytest.mark.gate
def test_a_dumb_terminal_gets_no_escape_sequences():
    with Wire(answer("Hi.")) as wire, Terminal("--base-url", wire.url, TERM="dumb") as terminal:
        shown = terminal.until("> ")
        terminal.type("Hi\r")
        shown += terminal.until("Hi.") + terminal.until("> ")
        terminal.type("exit\r")
        assert terminal.ended() == 0
        assert "\x1b" not in shown


@pytest.mark.gate
@pytest.mark.versions
def test_three_quotes_begin_and_end_a_question_of_several_lines():
    with Wire(answer("Yes.")) as wire, Terminal("--base-url", wire.url) as terminal:
        for lines in (('"""one', "", '/two"""'), ('"""three"""',)):
            terminal.until("> ")
            for line in lines[:-1]:
                terminal.type(line + "\r")
                terminal.until("... ")
            terminal.type(lines[-1] + "\r")
            terminal.until("Yes.")
        terminal.say("/quit")
        assert terminal.ended() == 0
    assert sent_contents(wire) == [["one\n\n/two"], ["one\n\n/two", "Yes.", "three"]]


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"TERM": "xterm"}, "\x1b[2mHm, \x1b[0m\x1b[2mtea\\u001b[2J.\x1b[0m\r\n\r\nYes."),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "Hm, tea\\u001b[2J.\r\n\r\nYes."),
        ({"TERM": "dumb"}, "Hm, tea\\u001b[2J.\r\n\r\nYes."),
    ],
    ids=["dimmed", "no-color", "dumb"],
)
@pytest.mark.gate
def test_reasoning_is_shown_as_it_comes(environment, shown):
    thoughts = [chunk(reasoning_content=text) for text in ("Hm, ", "tea\x1b[2J.")]
    reply = streamed(*thoughts, chunk("Yes.", finish_reason="stop"))
    with Wire(reply) as wire, Terminal("--base-url", wire.url, "Tea?", **environment) as terminal:
        assert terminal.until("Yes.") == shown
        assert terminal.ended() == 0


@pytest.mark.gate
def test_usage_is_requested_and_shown_from_the_next_turn_on():
    usage = {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}
    told = streamed(chunk("b", finish_reason="stop"), {"choices": [], "usage": usage})
    with Wire(answer("a"), told) as wire, Terminal("--base-url", wire.url) as terminal:
        terminal.say("Hi")
        terminal.say("/usage")
        terminal.until("requested from the next answer on")
        terminal.say("Hi")
        terminal.say("/usage")
        terminal.until("11 prompt + 2 completion = 13 tokens")
        terminal.say("/quit")
        assert terminal.ended() == 0
    assert [request.json.get("stream_options") for request in wire.requests] == [
        None, {"include_usage": True},
    ]  # fmt: skip


@pytest.mark.gate
def test_a_truncated_answer_in_a_chat_names_the_max_tokens_option():
    cut = streamed(chunk("Once", finish_reason="length"))
    with Wire(cut) as wire, Terminal("chat", "--base-url", wire.url) as terminal:
        terminal.say("A tale")
        terminal.until("raise --max-tokens")
        terminal.say("/quit")
        assert terminal.ended() == 0


@pytest.mark.gate
def test_control_characters_in_stored_messages_and_usage_are_escaped(tmp_path):
    evil, store = "a\x1b]0;owned\x07\u202eb", str(tmp_path / "chats.db")
    lib.SQLiteStore(store).append(
        "ann", [{"role": "user", "content": evil}], system_prompt=evil, restart=False
    )
    with Terminal("--history", "-c", "ann", "--store", store) as terminal:
        shown = terminal.until("user: ") + terminal.until("b\r\n")
        assert terminal.ended() == 0
    usage = {"prompt_tokens": evil, "completion_tokens": 2, "total_tokens": 13}
    told = streamed(chunk("b", finish_reason="stop"), {"choices": [], "usage": usage})
    with Wire(told) as wire, Terminal("--base-url", wire.url, "-m", evil) as terminal:
        terminal.say("/usage")
        terminal.say("Hi")
        terminal.say("/usage")
        shown += terminal.until("13 tokens")
        terminal.say("/quit")
        assert terminal.ended() == 0
    assert shown.count("a\\u001b]0;owned\\u0007\\u202eb") >= 3
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)


# In this process, where a test decides what `input` returns or raises


@pytest.fixture
def chat(monkeypatch, offline):
    """Run a chat in which a person types these lines and leaves. Returns the questions sent."""

    def chat_with(*lines, replies=()):
        typed = iter([*lines, EOFError()])

        def type_one(prompt):
            line = next(typed)
            if isinstance(line, Exception):
                raise line
            return line

        monkeypatch.setattr("builtins.input", type_one)
        client = offline(*replies)
        conversations = lib.Conversations(client, lib.MemoryStore())
        options = lib.ChatOptions(model="m")
        lib.InteractiveChat(conversations, "a", options).run()
        return [request.body["messages"][-1]["content"] for request in client.server.requests]

    return chat_with


@pytest.mark.gate
@pytest.mark.versions
def test_a_blank_line_asks_nothing(chat):
    assert chat("", "  \t", "Hi") == ["Hi"]


@pytest.mark.gate
@pytest.mark.versions
def test_a_line_that_is_not_utf_8_is_reported_and_the_chat_continues(chat, capsys):
    no_text = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    assert chat(no_text, "Hi") == ["Hi"]
    assert capsys.readouterr().err == "chatgptlib: the line is not utf-8 text\n"


@pytest.mark.gate
@pytest.mark.versions
def test_an_image_is_kept_until_a_question_with_it_is_answered(chat):
    image = "https://example.com/a.png"
    asked = chat(f"/image {image}", "One?", "Two?", "Three?", replies=[400, "Yes.", "No."])
    assert [part["image_url"]["url"] for one in asked[:2] for part in one[1:]] == [image] * 2
    assert asked[2] == "Three?"


@pytest.mark.gate
@pytest.mark.versions
def test_images_can_be_removed_before_they_are_sent(chat):
    assert chat("/image https://example.com/a.png", "/image", "Hi") == ["Hi"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/nonsense", "unknown command /nonsense"),
        ("/model", "/model needs an argument: /model NAME"),
        ("/image nowhere.png", "not an image that can be sent"),
        ("/save nowhere/chat.txt", "cannot write 'nowhere/chat.txt': No such file"),
        ("/save a\0b", "cannot write"),
    ],
)
@pytest.mark.gate
@pytest.mark.versions
def test_the_error_of_a_command_goes_to_stderr(chat, capsys, line, words):
    assert chat(line, "Hi") == ["Hi"]
    shown = capsys.readouterr()
    assert shown.err.startswith("chatgptlib: ")
    assert shown.err.count("\n") == 1
    assert words in shown.err
    assert words not in shown.out


@pytest.mark.gate
@pytest.mark.versions
def test_a_python_without_readline_can_chat_too(chat, monkeypatch):
    monkeypatch.setitem(sys.modules, "readline", None)
    assert chat("Hi") == ["Hi"]


# What is shown of a message


def called(function):
    return {"id": "1", "type": "function", "function": function}


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        pytest.param({"content": "Hi"}, "Hi", id="text"),
        pytest.param({"content": None}, "", id="no-content"),
        pytest.param(
            {"content": [{"type": "text", "text": "Look:"}, {"type": "image_url"}, {"type": "file"}]},
            "Look: [image_url] [file]", id="parts",
        ),
        pytest.param(
            {"content": "So:", "tool_calls": [called({"name": "f", "arguments": "{}"}),
                                              called({"name": "g", "arguments": '{"a": 1}'})]},
            'So: [calls f({})] [calls g({"a": 1})]', id="calls",
        ),
        pytest.param({"content": "So:", "tool_calls": [called(None)]}, "So:", id="a-call-without-a-function"),
        pytest.param({"content": None, "tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}]},
                     "[calls sql(SELECT 1)]", id="a-custom-call"),
        pytest.param({"content": None, "function_call": {"name": "f", "arguments": "{}"}},
                     "[calls f({})]", id="a-legacy-function-call"),
        pytest.param({"content": None, "audio": {"id": "a", "transcript": "Hello."}},
                     "[says: Hello.]", id="audio-with-a-transcript"),
        pytest.param({"content": None, "audio": {"id": "a"}}, "[audio]", id="audio-without-a-transcript"),
        pytest.param({"content": None, "refusal": "I won't"}, "[refuses: I won't]", id="refusal"),
    ],
)  # fmt: skip
@pytest.mark.gate
@pytest.mark.versions
def test_a_message_is_shown_with_its_files_calls_audio_and_refusal(message, shown):
    assert lib.shown_message(lib.ChatMessage.from_dict(message)) == shown


@pytest.mark.gate
@pytest.mark.versions
def test_content_parts_given_as_objects_or_dicts_are_shown():
    parts = [{"type": "text", "text": "Look:"}, lib.ContentPart("input_audio"), {"type": "file"}]
    message = lib.ChatMessage("user", parts)
    assert lib.shown_message(message) == "Look: [input_audio] [file]"
