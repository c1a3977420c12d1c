"""The README: its examples run unchanged, against the offline server."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import responses

from . import lib

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.S)
# Needs a package that the tests don't install, and runs where that is installed.
WITH_VCRPY = "# with_vcrpy.py\n"
PYTHON = [
    code for language, code in BLOCKS if language == "python" and not code.startswith(WITH_VCRPY)
]
# A copy in one file may come without these.
OF_THE_SERVER = ("OfflineServer", "Cut", "Stall")


def answer(body):
    """What a model would answer to the README's requests."""
    question = body["messages"][-1]["content"]
    if body.get("response_format"):
        return '{"title": "Toast", "steps": [{"text": "Toast it.", "minutes": 3}]}'
    if body.get("tools") and body["messages"][-1]["role"] == "user":
        function = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
        call = {"id": "call_1", "type": "function", "function": function}
        return {"content": None, "tool_calls": [call]}
    return f"You asked: {question}"


def other_endpoints(mock, url):
    """Mock the other endpoints that the README uses."""
    events = (
        'event: response.output_text.delta\ndata: {"delta": "Streamed hi."}\n\ndata: [DONE]\n\n'
    )
    mock.add_passthru(re.compile(r"http://127\.0\.0\.1:\d+/v1/chat/completions"))
    mock.post(f"{url}/embeddings", json={"data": [{"embedding": [0.0] * 1536}]})
    mock.post(f"{url}/responses", body=events, content_type="text/event-stream")


def with_tested_imports(code):
    """The code, with its imports changed to the library under test."""

    def imports(found):
        homes = {}
        for name in found[1].split(", "):
            tested = getattr(lib, name)  # skips the test of a file that was made without it
            home = tested.__module__ if name in OF_THE_SERVER else lib.name
            homes.setdefault(home, []).append(name)
        return "\n".join(f"from {home} import {', '.join(names)}" for home, names in homes.items())

    return re.sub(r"from chatgptlib import (.*)", imports, code)


def test_the_python_blocks_run_one_after_the_other(monkeypatch, tmp_path, capsys):
    assert len(PYTHON) >= 10
    blocks = [with_tested_imports(code) for code in PYTHON]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-key")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key")
    with lib.OfflineServer(itertools.repeat(answer)) as server, responses.RequestsMock() as mock:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-any-key")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        other_endpoints(mock, server.url)
        names = {}
        for code in blocks:
            exec(compile(code, "README.md", "exec", dont_inherit=True), names)
            for client in names.values():
                if isinstance(client, lib.OpenAIClient):
                    client.close()
    printed = capsys.readouterr().out
    for words in (
        "You asked: Write a tagline for an ice cream shop.",
        "You asked: Shorter, please.",
        "stop\n",
        '{"temperature":21.5}',
        "Toast [3]\n",
        "1536\n",
        "Streamed hi.",
    ):
        assert words in printed


def test_the_first_two_commands_are_the_quick_start():
    commands = next(code for language, code in BLOCKS if language == "sh").splitlines()
    assert commands == [
        'pip install . && python -m chatgptlib --offline "Write a tagline for an ice cream shop."',
        'pip install ".[test]" && python -m pytest',
    ]


@pytest.mark.skipif(lib.name != "chatgptlib", reason="the command line is the package's")
def test_the_quick_start_streams_an_answer():
    command = next(code for language, code in BLOCKS if language == "sh").splitlines()[0]
    _, run = command.split(" && ")
    words = [sys.executable, *shlex.split(run)[1:]]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Write a tagline for an ice cream shop." in done.stdout


def test_every_name_that_the_readme_imports_is_public():
    for names in re.findall(r"from chatgptlib import (.*)", README):
        for name in names.split(", "):
            assert hasattr(lib, name)
            assert name in lib.modules[0].__all__


def script(name):
    """A block that is a file of its own, under the name in its first line."""
    return with_tested_imports(next(code for code in PYTHON if code.startswith(f"# {name}\n")))


def environment_of(server):
    return {**os.environ, "OPENAI_API_KEY": "sk-any-key", "OPENAI_BASE_URL": server.url,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}  # fmt: skip


@pytest.mark.gate
def test_the_bot_remembers_across_two_runs(tmp_path):
    assert len(script("bot.py").splitlines()) <= 10
    (tmp_path / "bot.py").write_text(script("bot.py"))
    with lib.OfflineServer(["Hello Ann.", "You are Ann."]) as server:
        told = [
            subprocess.run(
                [sys.executable, "bot.py", *words.split()], capture_output=True, text=True,
                cwd=tmp_path, env=environment_of(server), timeout=60, check=True,
            ).stdout
            for words in ("I am Ann.", "Who am I?")
        ]  # fmt: skip
        sent = server.requests[1].body["messages"]
    assert told == ["Nice to meet you. Hello Ann.\n", "Welcome back. You are Ann.\n"]
    assert [message["content"] for message in sent] == [
        "You are a friendly bot.", "I am Ann.", "Hello Ann.", "Who am I?",
    ]  # fmt: skip


SERVE_ONE = """
from wsgiref.simple_server import make_server
from tool_bot import bot
server = make_server("127.0.0.1", 0, bot)
print(server.server_port, flush=True)
server.handle_request()
"""


def served_once(folder, server, sentence):
    """The answer of the bot, in a process of its own and behind a WSGI server."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE_ONE], cwd=folder, env=environment_of(server), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with process, requests.Session() as session:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/"
        return session.post(url, data=sentence.encode(), timeout=60).text


@pytest.mark.gate
def test_the_bot_with_tools_remembers_tool_results_in_a_second_process(tmp_path):
    assert len(script("tool_bot.py").splitlines()) <= 25
    (tmp_path / "tool_bot.py").write_text(script("tool_bot.py"))
    names = ("free_tables", '{"day": "Friday"}'), ("book_table", '{"day": "Friday", "table": 7}')
    replies = [
        {"content": None, "tool_calls": [
            {"id": name, "type": "function", "function": {"name": name, "arguments": arguments}}
        ]}
        for name, arguments in names
    ]  # fmt: skip
    with lib.OfflineServer([*replies, "Table 7 is yours. ✓", "It is Friday-7."]) as server:
        assert served_once(tmp_path, server, "A table on Friday.") == "Table 7 is yours. ✓"
        assert served_once(tmp_path, server, "My number?") == "It is Friday-7."
        assert all(request.body["stream"] for request in server.requests)
        sent = server.requests[3].body["messages"]
    assert [(message["role"], message["content"]) for message in sent] == [
        ("user", "A table on Friday."),
        ("assistant", None),
        ("tool", "[3,7]"),
        ("assistant", None),
        ("tool", "Friday-7"),
        ("assistant", "Table 7 is yours. ✓"),
        ("user", "My number?"),
    ]


@pytest.mark.skipif(lib.name != "chatgptlib", reason="the server is the package's")
@pytest.mark.gate
def test_the_fixture_serves_a_test(tmp_path):
    code = next(code for code in PYTHON if "@pytest.fixture" in code)
    request = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
    before = f"from chatgptlib import *\nrequest = {request}\n"
    (tmp_path / "test_tagline.py").write_text(before + code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tagline.py"],
        capture_output=True, text=True, cwd=tmp_path, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.gate
def test_vcrpy_replays_what_it_recorded(tmp_path):
    pytest.importorskip("vcr", reason="vcrpy is not installed")
    code = next(code for _, code in BLOCKS if code.startswith(WITH_VCRPY))
    (tmp_path / "with_vcrpy.py").write_text(with_tested_imports(code))

    def run():
        return subprocess.run(
            [sys.executable, "with_vcrpy.py"], capture_output=True, text=True,
            cwd=tmp_path, env=environment_of(server), timeout=60, check=True,
        ).stdout  # fmt: skip

    with lib.OfflineServer(["Scoops of joy."], strict=True) as server:
        recorded = run()
    assert recorded == "Scoops of joy.\n" == run()  # the second time without the server
    assert "sk-any-key" not in (tmp_path / "tagline.yaml").read_text()
