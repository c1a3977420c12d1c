"""The command line: the answer on stdout, everything else one clear line on stderr."""

import json
import os
import signal
import subprocess
import sys

import pytest

from . import lib
from .wire import CLOSE, SILENCE, Reply, Wire, chunk, completion, http, streamed

pytestmark = pytest.mark.skipif(lib.name != "chatgptlib", reason="only the package has it")

COMMAND = [sys.executable, "-W", "error", "-m", "chatgptlib"]


def run(*arguments, stdin=None, **environment):
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1", **environment},
        timeout=60,
    )


def test_a_prompt_is_answered_offline():
    done = run("--offline", "What", "now?")
    assert (done.returncode, done.stderr) == (0, "")
    assert "What now?" in done.stdout
    assert done.stdout.endswith("\n")


def test_offline_needs_nothing_of_the_environment():
    done = run("--offline", "Hi", OPENAI_API_KEY="", OPENAI_BASE_URL="http://127.0.0.1:9",
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


@pytest.mark.parametrize("how", [[], ["--no-stream"]])
def test_usage_goes_to_stderr(how):
    done = run("--offline", "--usage", *how, "Hi")
    assert "prompt +" in done.stderr
    assert "tokens" in done.stderr
    assert "prompt +" not in done.stdout


def test_the_version_is_told():
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
        (Reply(b"", CLOSE), "lost"),
    ],
    ids=["refused", "page", "hung-up"],
)
def test_an_error_is_one_line_and_exit_code_1(reply, words):
    with Wire(reply) as wire:
        done = run("--base-url", wire.url, "Hi")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("chatgptlib: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_what_came_of_a_cut_answer_is_printed_before_the_error():
    with Wire(streamed(chunk("Once upon "), done=False)) as wire:
        done = run("--base-url", wire.url, "Hi")
    assert (done.returncode, done.stdout) == (1, "Once upon ")
    assert "the stream ended early" in done.stderr


def test_text_that_is_no_text_is_an_error():
    done = subprocess.run([*COMMAND, "--offline"], input=b"\xff\xfe\xff", capture_output=True,
                          env={**os.environ, "PYTHONUTF8": "1"}, timeout=60)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(b"chatgptlib: what is piped in is not utf-8 text")
    assert done.stderr.count(b"\n") == 1


def test_what_the_text_does_not_show_is_told():
    for message, reason, words in (
        ({"content": None, "refusal": "I won't"}, "stop", "the model refused: I won't"),
        ({"content": "Once"}, "length", "finish_reason 'length'"),
        ({"content": ""}, "stop", "no text"),
    ):
        answer = completion(**message)
        answer["choices"][0]["finish_reason"] = reason
        with Wire(http(answer)) as wire:
            done = run("--base-url", wire.url, "Hi")
        assert words in done.stderr
        assert done.returncode == (1 if message.get("refusal") else 0)


def test_a_full_disk_is_no_traceback():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "--offline", "Hi"], stdin=subprocess.DEVNULL, stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot write the answer" in done.stderr


def test_a_terminal_that_lacks_a_character_is_no_error():
    with Wire(streamed(chunk("Grüße 👋"))) as wire:
        done = run("--base-url", wire.url, "Hi", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "Gr??e ?\n")


def test_a_closed_pipe_is_no_traceback():
    first = streamed(*(chunk("many words ") for _ in range(20_000)))
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


def test_ctrl_c_is_quiet_and_130():
    with Wire(Reply(streamed(chunk("Once "), done=False)[:-5], SILENCE)) as wire:
        process = subprocess.Popen(
            [*COMMAND, "--base-url", wire.url, "Hi"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout.read(5) == b"Once "
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, b"")
