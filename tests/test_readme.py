"""The README: what it shows runs as it stands, against the offline server."""

import io
import itertools
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import responses
import urllib3

from . import lib

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.S)
# What needs more than the tests install is run where that is installed.
ON_A_CLUSTER, WITH_VCRPY = "# on_a_cluster.py\n", "# with_vcrpy.py\n"
PYTHON = [
    code
    for language, code in BLOCKS
    if language == "python" and not code.startswith((ON_A_CLUSTER, WITH_VCRPY))
]
# A copy in one file comes without these.
OF_THE_SERVER = ["OfflineServer", "Cut", "Stall"]


def answer(body):
    """What a model would say to the README's requests."""
    question = body["messages"][-1]["content"]
    if body.get("response_format"):
        return '{"title": "Toast", "steps": [{"text": "Toast it.", "minutes": 3}]}'
    if body.get("tools") and body["messages"][-1]["role"] == "user":
        function = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
        call = {"id": "call_1", "type": "function", "function": function}
        return {"content": None, "tool_calls": [call]}
    return f"You asked: {question}"


def other_endpoints(mock, url):
    """What the rest of the API would say."""
    image = {"data": [{"b64_json": "iVBORw0KGgo="}]}
    events = (
        'event: response.output_text.delta\ndata: {"delta": "Streamed hi."}\n\ndata: [DONE]\n\n'
    )
    page = {"object": "list", "data": [{"id": "c1", "choices": []}], "has_more": False}
    mock.add_passthru(re.compile(r"http://127\.0\.0\.1:\d+/v1/chat/completions"))
    mock.get(f"{url}/chat/completions", json=page)
    mock.post(f"{url}/chat/completions/c1", json=page["data"][0])
    mock.post(f"{url}/embeddings", json={"data": [{"embedding": [0.0] * 1536}]})
    mock.post(f"{url}/images/generations", json=image)
    mock.post(f"{url}/files", json={"id": "file-1"})
    mock.get(f"{url}/files/file-1/content", body=b"\x89PNG", content_type="image/png")
    mock.post(f"{url}/responses", body=events, content_type="text/event-stream")


def of_the_tested(code):
    """The code with the library under its name, and the server from where that is."""
    for names in re.findall(r"from chatgptlib import (.*)", code):
        for name in names.split(", "):
            getattr(lib, name)  # skips the test of a file that was made without it
    names = {name: getattr(lib, name).__module__ for name in OF_THE_SERVER}
    imports = "".join(f"from {home} import {name}\n" for name, home in names.items())
    code = code.replace(f"from chatgptlib import {', '.join(names)}\n", imports)
    return code.replace("from chatgptlib import", f"from {lib.name} import")


def test_the_python_blocks_run_one_after_the_other(monkeypatch, tmp_path, capsys):
    assert len(PYTHON) >= 17
    blocks = [of_the_tested(code) for code in PYTHON]
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
        "You asked: Vanilla?\nYou asked: Lemon?\nYou asked: Basil?\n",
        "You asked: Write a tagline for an ice cream shop.",
        "You asked: Shorter, please.",
        "stop\n",
        '{"temperature":21.5}',
        "Toast [3]\n",
        "1536\n",
        "b'\\x89PNG'\n",
        "Streamed hi.",
    ):
        assert words in printed
    assert Path("cone.png").read_bytes().startswith(b"\x89PNG")


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


def test_the_readme_names_what_there_is():
    for names in re.findall(r"from chatgptlib import (.*)", README):
        for name in names.split(", "):
            assert hasattr(lib, name)
            assert name in lib.modules[0].__all__


def script(name):
    """A block that is a file of its own, under the name in its first line."""
    return of_the_tested(next(code for code in PYTHON if code.startswith(f"# {name}\n")))


def environment_of(server):
    return {**os.environ, "OPENAI_API_KEY": "sk-any-key", "OPENAI_BASE_URL": server.url,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}  # fmt: skip


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
    """What the bot answers in a process of its own, behind a WSGI server."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE_ONE], cwd=folder, env=environment_of(server), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with process, requests.Session() as session:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/"
        return session.post(url, data=sentence.encode(), timeout=60).text


def test_the_bot_with_tools_remembers_in_a_second_process_what_they_told_the_first(tmp_path):
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


def called(application, body):
    """What a WSGI application answers to a POST: its status and its body."""
    told = []
    environ = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    answer = b"".join(application(environ, lambda status, headers: told.append(status)))
    return told[0], answer


def test_the_flow_answers_the_text_of_a_request(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    with lib.OfflineServer(["Hi Bob.", "You are Bob."]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setattr(sys, "argv", ["bot.py"])
        exec(script("bot.py").replace("response = ", "# ").replace("print(", "# print("), names)
        exec(script("with the chats and options of bot.py"), names)
        assert called(names["handle"], b"I am Bob.") == ("200 OK", b"Hi Bob.")
        assert called(names["handle"], b"Who am I?") == ("200 OK", b"You are Bob.")
        names["chats"]._client.close()


def test_the_glific_service_answers_a_flow(tmp_path):
    (tmp_path / "glific_service.py").write_text(script("glific_service.py"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fields = {"question_text": "2 + 2?", "prompt": "Say JSON.", "gpt_model": "gpt-4o"}
    with lib.OfflineServer(['{"sum": 4}']) as server:
        service = subprocess.Popen(
            [sys.executable, "glific_service.py"], cwd=tmp_path, stderr=subprocess.DEVNULL,
            env={**environment_of(server), "PORT": str(port)},
        )  # fmt: skip
        try:
            with_retries = requests.adapters.HTTPAdapter(
                max_retries=urllib3.Retry(connect=20, backoff_factor=0.05)
            )
            with requests.Session() as session:
                session.mount("http://", with_retries)
                answer = session.post(f"http://127.0.0.1:{port}/", json=fields, timeout=60).json()
        finally:
            service.kill()
            service.wait()
        sent = server.requests[0].body
    assert answer == {"success": True, "parsed_msg": {"sum": 4}}
    assert (sent["model"], sent["temperature"]) == ("gpt-4o", 0)


def test_the_cluster_answers_what_one_machine_does(tmp_path):
    pytest.importorskip("dask.distributed", reason="Dask is not installed")
    code = next(code for _, code in BLOCKS if code.startswith(ON_A_CLUSTER))
    (tmp_path / "on_a_cluster.py").write_text(of_the_tested(code))
    with lib.OfflineServer(itertools.repeat(answer)) as server:
        told = subprocess.run(
            [sys.executable, "on_a_cluster.py"], capture_output=True, text=True,
            cwd=tmp_path, env=environment_of(server), timeout=120, check=True,
        ).stdout  # fmt: skip
    assert told == "You asked: Vanilla?\nYou asked: Lemon?\nYou asked: Basil?\n"


@pytest.mark.skipif(lib.name != "chatgptlib", reason="the server is the package's")
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


def test_vcrpy_replays_what_it_recorded(tmp_path):
    pytest.importorskip("vcr", reason="vcrpy is not installed")
    code = next(code for _, code in BLOCKS if code.startswith(WITH_VCRPY))
    (tmp_path / "with_vcrpy.py").write_text(of_the_tested(code))

    def run():
        return subprocess.run(
            [sys.executable, "with_vcrpy.py"], capture_output=True, text=True,
            cwd=tmp_path, env=environment_of(server), timeout=60, check=True,
        ).stdout  # fmt: skip

    with lib.OfflineServer(["Scoops of joy."], strict=True) as server:
        recorded = run()
    assert recorded == "Scoops of joy.\n" == run()  # the second time without the server
    assert "sk-any-key" not in (tmp_path / "tagline.yaml").read_text()
