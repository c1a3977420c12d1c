"""The command line: the answer on stdout, everything else one clear line on stderr."""

import importlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from . import lib
from .commands import COMMAND, run, run_fresh
from .conftest import in_the_gate
from .wire import CLOSE, SILENCE, Reply, Wire, chunk, completion, http, streamed

pytestmark = pytest.mark.skipif(lib.name != "chatgptlib", reason="only the package has it")


@pytest.fixture
def command_line():
    """The module itself, for tests that replace its streams or functions."""
    return importlib.import_module("chatgptlib.apps.ask")


def test_a_prompt_is_answered_offline():
    done = run("--offline", "What", "now?")
    assert (done.returncode, done.stderr) == (0, "")
    assert "What now?" in done.stdout
    assert done.stdout.endswith("\n")


def test_offline_needs_nothing_of_the_environment():
    done = run("--offline", "--no-stream", "Hi", OPENAI_API_KEY="", OPENAI_BASE_URL="http://127.0.0.1:9",
               HTTP_PROXY="http://127.0.0.1:9", ALL_PROXY="http://127.0.0.1:9")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_options_are_sent():
    with Wire(streamed(chunk("a"), chunk("b", finish_reason="stop"))) as wire:
        done = run("-m", "my-model", "-s", "Be brief.", "-t", "0.5", "--max-tokens", "7",
                   "--base-url", wire.url, "Hi", OPENAI_API_KEY="sk-secret-key")  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ab\n")
    assert wire.requests[0].json == {
        "model": "my-model",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "temperature": 0.5,
        "max_tokens": 7,
        "stream": True,
    }
    assert wire.requests[0].headers["authorization"] == "Bearer sk-secret-key"


@pytest.mark.parametrize(
    ("arguments", "piped", "prompt"),
    [
        (["a", "b"], None, "a b"),
        ([], "from a pipe\n", "from a pipe"),
        (["Review:"], "the text\n", "Review:\n\nthe text"),
        (["Fix:"], "\n    if x:\n        y\n", "Fix:\n\n    if x:\n        y"),
        ([], "  a\n   b\n", "  a\n   b"),
        (["Review:"], " \n", "Review:"),
        (["Review:"], "", "Review:"),
    ],
)
def test_the_prompt_comes_from_arguments_or_a_pipe_or_both(arguments, piped, prompt):
    with Wire(streamed(chunk("ok"))) as wire:
        assert run("--base-url", wire.url, *arguments, stdin=piped).stdout == "ok\n"
    assert wire.requests[0].json["messages"][-1]["content"] == prompt


def test_no_stream_prints_the_text_and_json_the_response():
    with Wire(http(completion("Grüße"))) as wire:
        assert run("--no-stream", "--base-url", wire.url, "Hi").stdout == "Grüße\n"
        done = run("--json", "--base-url", wire.url, "Hi")
    assert json.loads(done.stdout) == completion("Grüße")
    assert "stream" not in wire.requests[0].json


@pytest.mark.parametrize("how", [*in_the_gate([]), ["--no-stream"]])
def test_usage_goes_to_stderr(how):
    done = run("--offline", "--usage", *how, "Hi")
    assert "prompt +" in done.stderr
    assert "tokens" in done.stderr
    assert "prompt +" not in done.stdout


@pytest.mark.parametrize(
    ("usage", "shown"),
    [
        ({"completion_tokens": 2, "total_tokens": 5}, "2 completion = 5 tokens"),
        ({"prompt_tokens": 3, "completion_tokens": 2}, "3 prompt + 2 completion tokens"),
        ({"total_tokens": 5}, "5 tokens"),
        ({}, "the server did not report the usage"),
    ],
    ids=["no-prompt", "no-total", "total-alone", "empty"],
)
def test_only_the_tokens_that_were_reported_are_shown(usage, shown):
    with Wire(http({**completion("Hi"), "usage": usage})) as wire:
        done = run("--no-stream", "--usage", "--base-url", wire.url, "Hi")
    assert done.stderr == f"chatgptlib: {shown}\n"


def test_a_program_may_call_it_with_streams_of_its_own(command_line, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe\n"))
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with Wire(streamed(chunk("ok"))) as wire:
        assert command_line.main(["--base-url", wire.url]) == 0
    assert sys.stdout.getvalue() == "ok\n"
    assert wire.requests[0].json["messages"] == [{"role": "user", "content": "from a pipe"}]


def test_the_version_option_prints_the_version():
    assert run("--version").stdout == f"chatgptlib {lib.__version__}\n"


# What goes wrong


def test_no_key_says_what_to_set_and_mentions_offline():
    done = run("Hi")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "OPENAI_API_KEY" in done.stderr
    assert "--offline" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["--nonsense", "Hi"], ["-t", "warm", "Hi"]])
def test_wrong_usage_is_exit_code_2(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (http({"error": {"message": "No such model"}}, "404 Not Found"), "No such model"),
        (http(b"<html>Welcome</html>"), "HTML"),
        (Reply(http(completion("Hi"))[:-5], CLOSE), "lost"),
        (http({"choices": []}), "no answer"),
    ],
    ids=["client-error", "html-page", "lost-connection", "no-choice"],
)
def test_an_error_is_one_line_and_exit_code_1(reply, words):
    with Wire(reply) as wire:
        done = run("--base-url", wire.url, "Hi")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("chatgptlib: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_the_text_of_an_interrupted_stream_is_printed_before_the_error():
    with Wire(streamed(chunk("Once upon "), done=False)) as wire:
        done = run("--base-url", wire.url, "Hi")
    assert (done.returncode, done.stdout) == (1, "Once upon ")
    assert "the stream ended early" in done.stderr


@pytest.mark.gate
@pytest.mark.versions
def test_piped_input_that_is_not_utf_8_is_an_error():
    done = run_fresh("--offline", stdin=b"\xff\xfe\xff", text=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"chatgptlib: the piped text is not utf-8")
    assert done.stderr.count(b"\n") == 1


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_the_json_option_prints_a_response_without_text():
    with Wire(http(completion(None, tool_calls=[CALL]))) as wire:
        done = run("--json", "--base-url", wire.url, "Hi")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == completion(None, tool_calls=[CALL])


def test_refusals_truncation_and_missing_text_are_reported_with_their_exit_codes():
    for message, reason, words, code in (
        ({"content": None, "refusal": "I won't"}, "stop", "the model refused: I won't", 1),
        ({"content": "Once"}, "length", "(finish_reason 'length'): raise --max-tokens", 3),
        ({"content": "Once"}, "content_filter", "content filter", 3),
        ({"content": "Once"}, "eos", "finish_reason 'eos'", 0),
        ({"content": ""}, "stop", "no text", 1),
        ({"content": None, "tool_calls": [CALL]}, "tool_calls", "no text", 1),
        ({"content": "So:", "tool_calls": [CALL]}, "tool_calls", "finish_reason 'tool_calls'", 0),
    ):
        answer = completion(**message)
        answer["choices"][0]["finish_reason"] = reason
        with Wire(http(answer)) as wire:
            done = run("--base-url", wire.url, "Hi")
        assert words in done.stderr
        assert done.returncode == code


@pytest.mark.gate
@pytest.mark.versions
def test_a_full_disk_is_an_error_without_a_traceback():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "--offline", "--no-stream", "Hi"],
            stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "chatgptlib: input or output failed: [Errno 28] No space left on device\n"


@pytest.mark.skipif(not os.path.exists("/bin/sh"), reason="there is no shell here")
@pytest.mark.parametrize("stdin", ["0> /dev/null", "<&- -i -"], ids=["write-only", "closed"])
@pytest.mark.gate
@pytest.mark.versions
def test_a_stdin_that_cannot_be_read_is_not_blamed_on_the_answer(stdin):
    words = f'"$0" -m chatgptlib --offline Hi {stdin}'
    done = subprocess.run(["sh", "-c", words, sys.executable], capture_output=True, text=True,
                          timeout=60)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "Bad file descriptor" in done.stderr
    assert "answer" not in done.stderr


def test_a_failing_stdout_without_a_descriptor_is_an_error(command_line, monkeypatch, capsys):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys, "stdout", Full())
    assert command_line.main(["--offline", "Hi"]) == 1
    assert "No space left" in capsys.readouterr().err


@pytest.mark.gate
@pytest.mark.versions
def test_characters_missing_in_the_output_encoding_are_replaced():
    with Wire(streamed(chunk("Grüße 👋"))) as wire:
        done = run_fresh("--base-url", wire.url, "Hi", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "Gr??e ?\n")


@pytest.mark.gate
@pytest.mark.versions
def test_a_closed_stdout_pipe_ends_the_command_quietly():
    first = streamed(*(chunk("many words " * 1000) for _ in range(200)))
    with Wire(first) as wire:
        process = subprocess.Popen(
            [*COMMAND, "--base-url", wire.url, "Hi"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        process.stdout.read(10)
        process.stdout.close()
        errors = process.stderr.read()
        process.stderr.close()
        assert process.wait(60) == 1
    assert errors == b""


def test_ctrl_c_exits_quietly_with_code_130():
    with Wire(Reply(streamed(chunk("Once "), done=False)[:-5], SILENCE)) as wire:
        process = subprocess.Popen(
            [*COMMAND, "--base-url", wire.url, "Hi"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout.read(5) == b"Once "
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, b"")


# Stored conversations


def test_a_conversation_goes_on_in_the_next_run_and_can_be_shown_and_forgotten(tmp_path):
    kept = ["-c", "ann", "--store", str(tmp_path / "chats.db")]
    with Wire(streamed(chunk("Hello.")), streamed(chunk("Ann."))) as wire:
        assert (
            run(*kept, "-s", "Be brief.", "--base-url", wire.url, "I am Ann.").stdout == "Hello.\n"
        )
        assert run(*kept, "--base-url", wire.url, "Who am I?").stdout == "Ann.\n"
    assert [message["content"] for message in wire.requests[1].json["messages"]] == [
        "Be brief.", "I am Ann.", "Hello.", "Who am I?",
    ]  # fmt: skip
    assert run("--list", *kept[2:]).stdout == "ann\n"
    shown = run("--history", *kept).stdout
    assert shown.startswith("system: Be brief.\n\nuser: I am Ann.\n\nassistant: Hello.\n\n")
    assert run("--delete", *kept).returncode == 0
    assert run("--list", *kept[2:]).stdout == ""
    done = run("--history", *kept)
    assert (done.returncode, done.stderr) == (1, "chatgptlib: there is no conversation 'ann'\n")
    assert (tmp_path / "chats.db").stat().st_mode & 0o077 == 0


def test_a_conversation_without_instructions_is_shown_from_its_first_question(tmp_path):
    kept = ["-c", "ann", "--store", str(tmp_path / "chats.db")]
    with Wire(streamed(chunk("Hello."))) as wire:
        run(*kept, "--base-url", wire.url, "I am Ann.")
    assert run("--history", *kept).stdout == "user: I am Ann.\n\nassistant: Hello.\n\n"


def test_conversations_are_kept_in_the_users_data_folder(tmp_path):
    done = run(
        "--offline", "--no-stream", "-c", "a", "Hi", XDG_DATA_HOME=str(tmp_path), HOME=str(tmp_path)
    )
    assert done.returncode == 0
    assert [path.name for path in tmp_path.rglob("conversations.db")] == ["conversations.db"]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        pytest.param({"XDG_DATA_HOME": "/data"}, "/data", id="xdg"),
        pytest.param({"LOCALAPPDATA": "/data"}, "/data", id="windows"),
        pytest.param({}, "/home/ann/.local/share", id="neither"),
    ],
)
def test_the_data_folder_is_where_the_environment_says(
    command_line, monkeypatch, environment, folder
):
    for name in ("LOCALAPPDATA", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ann"))
    assert command_line.data_folder() == Path(folder, "chatgptlib")


def test_without_a_home_folder_it_says_what_to_give(command_line, monkeypatch, capsys):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert command_line.main(["--list"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "chatgptlib: there is no home folder: name a file with --store\n"


def test_listing_a_missing_store_does_not_create_it(tmp_path):
    done = run("--list", "--store", str(tmp_path / "none.db"))
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (0, "", [])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--list", "--delete", "-c", "a"], ["--delete", "-c", "a", "Hi"], ["--history"],
        ["-c", "", "Hi"], ["--store", "x.db", "Hi"], ["--list", "-i", "x.png"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_that_contradict_each_other_are_exit_code_2(arguments):
    done = run("--offline", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: " in done.stderr


@pytest.mark.parametrize("task", ["--history", "--delete"])
def test_an_id_without_its_option_is_not_mistaken_for_a_prompt(task):
    done = run(task, "work")
    assert done.returncode == 2
    assert f"{task} takes no prompt; name the conversation with -c ID" in done.stderr


@pytest.mark.parametrize("command", [[], ["batch"]], ids=["question", "batch"])
def test_the_help_lists_the_exit_codes(command):
    shown = " ".join(run(*command, "--help").stdout.split())
    assert "Exit codes: 0 " in shown
    assert "130 Ctrl-C" in shown


def test_an_unusable_store_file_is_an_error_in_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("Dear diary, " * 100)
    for path in (tmp_path / "notes.txt", tmp_path, tmp_path / "no" / "x.db"):
        done = run("--offline", "-c", "a", "--store", str(path), "Hi")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
    assert (tmp_path / "notes.txt").read_text() == "Dear diary, " * 100


def test_a_conversation_with_a_damaged_row_can_be_forgotten(tmp_path):
    kept = ["-c", "ann", "--store", str(tmp_path / "chats.db")]
    run(*kept, "--offline", "--no-stream", "Hi")
    with closing(sqlite3.connect(tmp_path / "chats.db")) as database:
        database.execute("UPDATE message SET body = '{'")
        database.commit()
    shown = run(*kept, "--history")
    assert (shown.returncode, shown.stderr.count("\n")) == (1, 1)
    assert "is damaged" in shown.stderr
    assert run(*kept, "--delete").returncode == 0
    assert run(*kept, "--list").stdout == ""
    done = run(*kept, "--delete")
    assert (done.returncode, done.stderr) == (1, "chatgptlib: there is no conversation 'ann'\n")


def test_a_damaged_store_file_says_what_to_do(tmp_path):
    (tmp_path / "chats.db").write_bytes(b"SQLite format 3\0" + b"damaged" * 100)
    done = run("-c", "ann", "--store", str(tmp_path / "chats.db"), "--offline", "Hi")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "move the file away, or use another with --store" in done.stderr


# Files, schemas and parameters


def test_images_files_parameters_and_a_schema_are_sent(tmp_path):
    (tmp_path / "dot.gif").write_bytes(b"GIF89a...")
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "my recipe.json").write_text('{"type": "object", "additionalProperties": false}')
    with Wire(streamed(chunk("{}"))) as wire:
        done = run("-i", str(tmp_path / "dot.gif"), "-i", "https://example.com/b.png",
                   "-f", str(tmp_path / "a.pdf"), "--schema", str(tmp_path / "my recipe.json"),
                   "--param", 'user="ann"', "--param", "seed=3", "--base-url", wire.url,
                   "What?")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    sent = wire.requests[0].json
    assert [part["type"] for part in sent["messages"][0]["content"]] == [
        "text", "image_url", "image_url", "file",
    ]  # fmt: skip
    assert (sent["user"], sent["seed"]) == ("ann", 3)
    assert sent["response_format"] == {
        "type": "json_schema",
        "json_schema": {
            "name": "my_recipe",
            "schema": {"type": "object", "additionalProperties": False},
            "strict": True,
        },
    }


SCHEMA = {"type": "object", "properties": {}}
NAMED = {"name": "dish", "schema": SCHEMA, "strict": True}


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        pytest.param(SCHEMA, {"name": "a", "schema": SCHEMA, "strict": False}, id="alone"),
        pytest.param(NAMED, NAMED, id="with-its-name"),
        pytest.param({"type": "json_schema", "json_schema": NAMED}, NAMED, id="complete"),
        pytest.param({"json_schema": SCHEMA}, {"name": "a", "schema": SCHEMA, "strict": False},
                     id="complete-but-for-the-name"),
    ],
)  # fmt: skip
def test_a_schema_may_be_given_alone_or_inside_a_response_format(tmp_path, content, sent):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with Wire(streamed(chunk("{}"))) as wire:
        run("--schema", str(tmp_path / "a.json"), "--base-url", wire.url, "What?")
    assert wire.requests[0].json["response_format"] == {"type": "json_schema", "json_schema": sent}


@pytest.mark.parametrize("content", ["[1]", '"text"', "null"])
def test_a_schema_that_is_not_an_object_is_exit_code_2(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    done = run("--offline", "--schema", str(tmp_path / "a.json"), "What?")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not a JSON object" in done.stderr


def test_a_schema_may_be_given_as_json_in_place_of_a_file():
    with Wire(streamed(chunk("{}"))) as wire:
        done = run("--schema", json.dumps(SCHEMA), "--base-url", wire.url, "What?")
    assert done.returncode == 0
    sent = {"name": "answer", "schema": SCHEMA, "strict": False}
    assert wire.requests[0].json["response_format"]["json_schema"] == sent


def test_a_missing_schema_file_is_reported_as_unreadable(tmp_path):
    done = run("--offline", "--schema", str(tmp_path / "a.json"), "What?")
    assert done.returncode == 2
    assert f"cannot read '{tmp_path / 'a.json'}': No such file or directory" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--param", "seed"], ["--param", "user=ann"], ["--param", "a=" + "[" * 100_000],
     ["--schema", "nowhere.json"]],
    ids=["no-value", "not-json", "deep", "no-file"],
)  # fmt: skip
def test_invalid_params_and_missing_schema_files_are_exit_code_2(arguments):
    done = run("--offline", *arguments, "Hi")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["model", "messages", "stream"])
@pytest.mark.parametrize("command", [["Hi"], ["batch", "in", "out"]], ids=["question", "batch"])
def test_model_messages_and_stream_cannot_be_set_as_params(command, name):
    done = run(*command, "--offline", "--param", f"{name}=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{name} can't be a --param: " in done.stderr


@pytest.mark.parametrize(
    "command", [["--no-stream", "Hi"], ["batch", "in.txt", "-"]], ids=["question", "batch"]
)
def test_an_option_overrides_a_param(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("Hi\n")
    settings = ["--param", "temperature=0.5", "--param", 'response_format={"type": "json_object"}']
    with Wire(http(completion("{}"))) as wire:
        for more in ([], ["-t", "1", "--schema", '{"type": "object"}']):
            run(*command, *settings, *more, "--base-url", wire.url)
    sent = [request.json for request in wire.requests]
    assert [body["temperature"] for body in sent] == [0.5, 1]
    assert [body["response_format"]["type"] for body in sent] == ["json_object", "json_schema"]


def test_an_unusable_image_is_an_error_in_one_line(tmp_path):
    (tmp_path / "x.png").write_bytes(b"%PDF-1.7")
    for name in ("x.png", "nowhere.png"):
        done = run("--offline", "-i", str(tmp_path / name), "Hi")
        assert (done.returncode, done.stdout) == (1, "")
        assert "not an image that can be sent" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.gate
@pytest.mark.versions
def test_the_verbose_option_logs_requests():
    done = run_fresh("--offline", "--no-stream", "-v", "Hi")
    assert "/v1/chat/completions -> 200 in " in done.stderr


@pytest.mark.skipif(not os.path.exists("/bin/sh"), reason="there is no shell here")
@pytest.mark.gate
@pytest.mark.versions
def test_closed_output_streams_cause_no_traceback():
    command = 'exec "$0" -m chatgptlib --offline --no-stream Hi '
    running = [
        subprocess.Popen(["sh", "-c", command + closed, sys.executable], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for closed in (">&-", "2>&-", ">&- 2>&-")
    ]  # fmt: skip
    for process in running:
        assert "Traceback" not in "".join(process.communicate(timeout=60))
        assert process.returncode == 0


# Answers that are not what was asked for, and errors that say what helps


DISH = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "kind": {"enum": ["soup", "cake"]},
        "minutes": {"type": ["integer", "null"]},
        "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}},
        "size": {"anyOf": [{"type": "number"}, {"const": "any"}]},
    },
    "required": ["title"],
    "additionalProperties": False,
    "$defs": {"step": {"type": "object", "properties": {"text": {"type": "string"}}}},
}


@pytest.mark.parametrize(
    ("answer", "misfit"),
    [
        ('{"title": "Pi", "kind": "cake", "minutes": 3, "size": 1.5}', ""),
        ('{"title": "Pi", "minutes": null, "steps": [{"text": "Mix.", "more": 1}], "size": "any"}', ""),
        ('{"title": "Pi"', "it is not JSON"),
        ("Here you are: {}", "it is not JSON"),
        ("[]", "$ is not of type object"),
        ("{}", "$ lacks 'title'"),
        ('{"title": "Pi", "chef": "Ann"}', "$.chef is not in the schema"),
        ('{"title": "Pi", "kind": "pie"}', "$.kind is not one of the values allowed"),
        ('{"title": "Pi", "minutes": 1.5}', "$.minutes is not of type integer or null"),
        ('{"title": "Pi", "minutes": true}', "$.minutes is not of type"),
        ('{"title": "Pi", "steps": [{}, {"text": 3}]}', "$.steps[1].text is not of type string"),
        ('{"title": "Pi", "size": "tall"}', "$.size is not of type number"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", [[], ["--no-stream"]], ids=["streamed", "not-streamed"])
def test_an_answer_that_does_not_fit_its_schema_is_exit_code_4(tmp_path, answer, misfit, how):
    (tmp_path / "dish.json").write_text(json.dumps(DISH))
    with Wire(http(completion(answer)) if how else streamed(chunk(answer))) as wire:
        done = run("--schema", str(tmp_path / "dish.json"), "--base-url", wire.url, *how, "What?")
    assert done.stdout == answer + "\n"
    assert done.returncode == (4 if misfit else 0)
    assert misfit in done.stderr
    assert bool(misfit) == ("does not match --schema" in done.stderr)


@pytest.mark.parametrize("wrong", [{"type": 3}, {"properties": []}, {"required": 3}], ids=str)
def test_an_unusable_schema_is_reported_as_unusable(tmp_path, wrong):
    (tmp_path / "dish.json").write_text(json.dumps(wrong))
    with Wire(streamed(chunk('{"title": "Pi"}'))) as wire:
        done = run("--schema", str(tmp_path / "dish.json"), "--base-url", wire.url, "What?")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "--schema: the schema can't be used: " in done.stderr


def test_a_truncated_answer_is_exit_code_3_and_not_a_schema_mismatch(tmp_path):
    (tmp_path / "dish.json").write_text(json.dumps(DISH))
    with Wire(streamed(chunk('{"tit', finish_reason="length"))) as wire:
        done = run("--schema", str(tmp_path / "dish.json"), "--base-url", wire.url, "What?")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


@pytest.mark.parametrize(
    ("status", "names"),
    [
        ("401 Unauthorized", ["OPENAI_API_KEY", "--base-url", "OPENAI_BASE_URL"]),
        ("404 Not Found", ["-m", "CHATGPTLIB_MODEL", "--base-url"]),
    ],
)
def test_an_http_error_names_the_url_and_the_options_that_may_help(status, names):
    with Wire(http({"error": {"message": "no"}}, status)) as wire:
        done = run("--base-url", wire.url, "Hi", OPENAI_API_KEY="sk-secret-key")
    assert done.returncode == 1
    assert all(name in done.stderr for name in [*names, wire.url])
    assert "sk-secret-key" not in done.stderr


def test_the_error_for_a_missing_key_names_command_line_options():
    done = run("Hi")
    assert "--base-url" in done.stderr
    assert "api_key=" not in done.stderr
    assert "base_url" not in done.stderr


def test_a_variable_names_the_model_unless_an_option_does():
    with Wire(streamed(chunk("ok"))) as wire:
        run("--base-url", wire.url, "Hi", CHATGPTLIB_MODEL="mine")
        run("--base-url", wire.url, "-m", "other", "Hi", CHATGPTLIB_MODEL="mine")
        run("--base-url", wire.url, "Hi", CHATGPTLIB_MODEL="")
    assert [request.json["model"] for request in wire.requests] == ["mine", "other", "gpt-4o-mini"]


def test_a_command_word_is_a_prompt_after_two_hyphens_or_within_a_longer_argument():
    with Wire(streamed(chunk("ok"))) as wire:
        for words in (["--", "batch", "up"], ["chat about tea"], ["chat", "Hi"]):
            assert run(*words[:1], *words[1:], CHATGPTLIB_MODEL="m",
                       OPENAI_BASE_URL=wire.url).stdout == "ok\n"  # fmt: skip
    asked = [request.json["messages"][0]["content"] for request in wire.requests]
    assert asked == ["batch up", "chat about tea", "Hi"]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["-v", "batch", "in", "out"], "batch"),
        (["-m", "m", "models"], "models"),
        (["-v", "serve", "tea"], "serve"),
        (["chat", "vendor"], "vendor"),
    ],
)
def test_a_command_after_an_option_is_not_sent_as_a_prompt(arguments, command):
    with Wire(streamed(chunk("ok"))) as wire:
        done = run(*arguments, OPENAI_BASE_URL=wire.url)
    assert (done.returncode, done.stdout, wire.requests) == (2, "", [])
    assert f"a command comes first: chatgptlib {command} ..." in done.stderr
    assert f"chatgptlib ... -- {command} ..." in done.stderr


def test_two_hyphens_after_an_option_make_a_command_a_prompt():
    with Wire(streamed(chunk("ok"))) as wire:
        assert run("-m", "models", "--", "serve", "tea", OPENAI_BASE_URL=wire.url).stdout == "ok\n"
    assert wire.requests[0].json["messages"][0]["content"] == "serve tea"


@pytest.mark.parametrize("command", [[], ["batch"], ["models"], ["serve"], ["vendor"]])
def test_help_fits_on_a_screen(command):
    lines = run(*command, "--help", COLUMNS="80").stdout.splitlines()
    assert 5 < len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_the_conversation_used_last_goes_on_without_its_id(tmp_path):
    store = ["--store", str(tmp_path / "chats.db")]
    done = run(*store, "-C", "--offline", "Hi")
    assert (done.returncode, done.stdout) == (1, "")
    assert "start one with -c ID" in done.stderr
    with Wire(streamed(chunk("Hello."))) as wire:
        for which in (["-c", "ann"], ["-c", "bob"], ["-c", "ann"], ["-C"]):
            run(*store, *which, "--base-url", wire.url, "Hi from " + which[-1])
    assert [m["content"] for m in wire.requests[3].json["messages"]] == [
        "Hi from ann", "Hello.", "Hi from ann", "Hello.", "Hi from -C",
    ]  # fmt: skip
    assert run(*store, "--list").stdout == "bob\nann\n"


def test_a_text_file_is_put_into_the_prompt_and_other_files_are_attached(tmp_path):
    (tmp_path / "notes.md").write_bytes("\ufeffTea, \u00a320.\n".encode())
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7\n")
    files = ["-f", str(tmp_path / "notes.md"), "-f", str(tmp_path / "a.pdf")]
    with Wire(streamed(chunk("ok"))) as wire:
        assert run("--base-url", wire.url, *files, "Sum:", stdin="more").stdout == "ok\n"
        assert run("--base-url", wire.url, *files[:2]).stdout == "ok\n"
    text, file = wire.requests[0].json["messages"][0]["content"]
    assert text["text"] == 'Sum:\n\n<file name="notes.md">\nTea, \u00a320.\n\n</file>\n\nmore'
    assert (file["type"], file["file"]["filename"]) == ("file", "a.pdf")
    assert wire.requests[1].json["messages"][0]["content"].startswith('<file name="notes.md">')


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b"a\0b"])
def test_an_unusable_file_is_an_error_in_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "notes").write_bytes(content)
    done = run("--offline", "-f", str(tmp_path / "notes"), "Sum:")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "not a file that can be sent" in done.stderr


@pytest.mark.gate
@pytest.mark.versions
def test_an_image_comes_from_stdin():
    with Wire(streamed(chunk("ok"))) as wire:
        done = run_fresh("--base-url", wire.url, "-i", "-", "What?", stdin=b"GIF89a...", text=False)
    assert (done.returncode, done.stdout) == (0, b"ok\n")
    text, image = wire.requests[0].json["messages"][0]["content"]
    assert text["text"] == "What?"
    assert image["image_url"]["url"].startswith("data:image/gif;base64,R0lGODlh")


@pytest.mark.skipif(not os.path.exists("/bin/sh"), reason="there is no shell here")
@pytest.mark.gate
@pytest.mark.versions
def test_the_rest_of_a_partly_read_file_is_not_left_out_without_a_message(tmp_path):
    (tmp_path / "table").write_text("header\nrow\n")
    command = '{ read -r header; "$0" -m chatgptlib --offline --no-stream "Sum:"; } < table'
    done = subprocess.run(["sh", "-c", command, sys.executable], cwd=tmp_path,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert "stdin is not sent" in done.stderr
    assert "cat FILE |" in done.stderr


@pytest.mark.skipif(not os.path.exists("/bin/sh"), reason="there is no shell here")
@pytest.mark.gate
def test_a_loop_in_a_shell_keeps_its_lines(tmp_path):
    (tmp_path / "lines").write_text("one\ntwo\nthree\n")
    with Wire(streamed(chunk("ok"))) as wire:
        loop = f'while read line; do "$0" -m chatgptlib --base-url {wire.url} "$line"; done < lines'
        done = subprocess.run(["sh", "-c", loop, sys.executable], cwd=tmp_path,
                              capture_output=True, text=True, timeout=60)  # fmt: skip
        whole = f'"$0" -m chatgptlib --base-url {wire.url} "Sum:" < lines'
        subprocess.run(["sh", "-c", whole, sys.executable], cwd=tmp_path, timeout=60, check=True)
    assert done.stdout == "ok\n" * 3
    assert done.stderr.count("\n") == done.stderr.count("stdin is not sent") == 3
    asked = [request.json["messages"][0]["content"] for request in wire.requests]
    assert asked == ["one", "two", "three", "Sum:\n\none\ntwo\nthree"]


@pytest.mark.parametrize(
    ("answer", "printed"),
    [
        ("Here:\n\n```python\nx = 1\n\ny = `2`\n```\nand\n```\nno\n```", "x = 1\n\ny = `2`\n"),
        ("1. So:\n   ~~~~ sh\nls\n~~~\n   ~~~~\n", "ls\n~~~\n"),
        ('Sure: {"a": [1, "\u00e9"]} {"b": 2}', '{\n  "a": [\n    1,\n    "\u00e9"\n  ]\n}\n'),
        ("```json\n[1]\n```", "[1]\n"),
        ("```\n```", "\n"),
    ],
    ids=["first-of-two", "longer-fence", "json-in-prose", "json-in-a-fence", "empty"],
)  # fmt: skip
def test_the_first_code_block_or_json_is_printed_alone(answer, printed):
    with Wire(http(completion(answer))) as wire:
        done = run("-x", "--base-url", wire.url, "Hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")


def test_an_answer_without_a_block_is_shown_in_the_error_and_not_printed():
    with Wire(http(completion("I can't do that."))) as wire:
        done = run("-x", "--base-url", wire.url, "Hi")
    assert (done.returncode, done.stdout) == (4, "")
    assert "no code block and no JSON: I can't do that." in done.stderr


def test_with_extract_the_json_in_a_code_block_is_checked_against_the_schema(tmp_path):
    (tmp_path / "dish.json").write_text(json.dumps(DISH))
    asked = ["--schema", str(tmp_path / "dish.json"), "What?"]
    with Wire(http(completion('```json\n{"title": "Pi"}\n```'))) as wire:
        assert run("-x", "--base-url", wire.url, *asked).returncode == 0
        assert run("--no-stream", "--base-url", wire.url, *asked).returncode == 4


def test_the_models_of_the_server_are_listed():
    with Wire(http({"object": "list", "data": [{"id": "b"}, {"id": "a"}]}), http(["a"])) as wire:
        done = run("models", "--base-url", wire.url)
        failed = run("models", "--base-url", wire.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\nb\n", "")
    assert wire.requests[0].line == "GET /v1/models HTTP/1.1"
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
    assert "gpt-4o-mini" in run("models", "--offline").stdout


@pytest.mark.parametrize(
    "content",
    [b"<html>Welcome, sk-secret-key</html>", ["sk-secret-key"], {"data": "sk-secret-key"}],
    ids=["html-page", "list", "data-not-a-list"],
)
def test_a_reply_without_a_list_of_models_is_an_error_that_names_the_server_alone(content):
    with Wire(http(content)) as wire:
        done = run("models", "--base-url", wire.url, OPENAI_API_KEY="sk-secret-key")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert wire.url in done.stderr
    assert "secret" not in done.stderr


# Control characters


EVIL = "a\x1b]0;owned\x07b\x9b2Jc\u202ed\u200be\x7ff\U000e0041"
SHOWN = r"a\u001b]0;owned\u0007b\u009b2Jc\u202ed\u200be\u007ff\udb40\udc41"


def test_json_output_escapes_control_characters_and_keeps_its_value():
    with Wire(http(completion(EVIL))) as wire:
        done = run("--json", "--base-url", wire.url, "Hi")
    assert SHOWN in done.stdout
    assert json.loads(done.stdout) == completion(EVIL)


def test_an_answer_goes_to_a_program_as_it_is():
    with Wire(streamed(chunk(EVIL)), http(completion(EVIL))) as wire:
        assert run("--base-url", wire.url, "Hi").stdout == EVIL + "\n"
        assert run("--no-stream", "--base-url", wire.url, "Hi").stdout == EVIL + "\n"


def test_reasoning_is_not_printed_for_a_program():
    reply = streamed(chunk(reasoning_content="Hm."), chunk("Yes.", finish_reason="stop"))
    with Wire(reply) as wire:
        done = run("--base-url", wire.url, "Hi")
    assert (done.stdout, done.stderr) == ("Yes.\n", "")


def test_surrogate_pairs_split_over_chunks_are_printed_as_one_character():
    texts = ["a\ud83d", "\udc4bb", "\ud83d", "c\ud83d"]
    with Wire(streamed(*map(chunk, texts))) as wire:
        done = run("--base-url", wire.url, "Hi")
    assert done.stdout == "a\U0001f44bb?c?\n"


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["one\r", "\ntwo"], "one\r\ntwo\n"),
        (["one\r", "two"], "one\\u000dtwo\n"),
        (["one\r"], "one\\u000d\n"),
        (["one", "\ud83d"], "one\\ud83d\n"),
        (["one\ud83d", "\udc4b"], "one\U0001f44b\n"),
    ],
    ids=["line-end", "return", "return-at-the-end", "half-at-the-end", "halves"],
)
def test_line_ends_and_characters_split_over_chunks_reach_a_terminal_joined(
    command_line, monkeypatch, texts, shown
):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys, "stdout", Screen())
    with Wire(streamed(*map(chunk, texts), chunk("", finish_reason="stop"))) as wire:
        assert command_line.main(["--base-url", wire.url, "Hi"]) == 0
    assert sys.stdout.getvalue() == shown


@pytest.mark.gate
@pytest.mark.versions
def test_control_characters_in_messages_on_stderr_are_escaped():
    answer = completion("Hi")
    answer["choices"][0]["finish_reason"] = EVIL
    answer["usage"] = {"prompt_tokens": EVIL, "completion_tokens": 1, "total_tokens": 1}
    refusal = completion(None, refusal=f"{EVIL}\nchatgptlib: all is well")
    refused = http({"error": {"message": EVIL}}, "400 Bad Request")
    for reply in (http(answer, "200 OK", "x-request-id: r\x9b2J"), http(refusal), refused):
        with Wire(reply) as wire:
            command = ["--usage", "--no-stream", "--base-url", wire.url, "Hi"]
            # Logging is set up once in a process, so -v needs one of its own.
            done = run(*command) if reply is refused else run_fresh("-v", *command)
        assert all(ord(char) >= 32 or char == "\n" for char in done.stderr)
        assert not set("\x7f\x9b\u202e\u200b") & set(done.stderr)
        assert "owned" in done.stderr
        assert not any(line == "chatgptlib: all is well" for line in done.stderr.split("\n"))


@pytest.mark.parametrize("how", [[], ["--no-stream"], ["--json"]])
def test_an_answer_that_could_not_be_stored_is_printed_before_the_error(tmp_path, how):
    path = tmp_path / "s.db"
    lib.SQLiteStore(path)

    def lose_the_table(request):
        with closing(sqlite3.connect(path)) as db:
            db.execute("DROP TABLE message")
        return "Paid for."

    with lib.OfflineServer([lose_the_table]) as server:
        done = run(*how, "--base-url", server.url, "-c", "k", "--store", str(path), "Hi")
    assert done.returncode == 1
    assert "Paid for." in done.stdout
    assert "could not be stored" in done.stderr


@pytest.mark.parametrize("argument", [["caf\udce9"], ["-s", "caf\udce9", "Hi"]])
def test_an_argument_that_is_not_utf_8_is_rejected(argument):
    done = run("--offline", *argument)
    assert done.returncode == 2
    assert "not valid UTF-8" in done.stderr


@pytest.mark.parametrize(
    "message",
    [
        {"content": "hi", "function_call": "x"},
        {"content": "hi", "tool_calls": [3, {"function": "f"}, {"custom": 3}]},
        {"content": "hi", "tool_calls": {"a": 1}, "audio": "x"},
        {"content": [3, None, {"type": "text", "text": "hi"}]},
    ],
    ids=str,
)
def test_a_stored_message_of_any_form_can_be_shown(tmp_path, message):
    store = ["-c", "z", "--store", str(tmp_path / "s.db")]
    with Wire(http(completion(**message))) as wire:
        assert run("--no-stream", *store, "--base-url", wire.url, "Hi").returncode == 0
    done = run("--history", *store)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hi" in done.stdout


def test_a_finish_reason_of_any_type_is_no_traceback():
    answer = completion("Hi!")
    answer["choices"][0]["finish_reason"] = ["stop"]
    with Wire(http(answer)) as wire:
        done = run("--no-stream", "--base-url", wire.url, "Hi")
    assert (done.returncode, done.stdout) == (0, "Hi!\n")


def test_an_indented_code_block_is_extracted_without_its_indentation():
    with Wire(http(completion("- item\n  ```sh\n  if a\n    b\n  ```"))) as wire:
        assert run("-x", "--base-url", wire.url, "Hi").stdout == "if a\n  b\n"
