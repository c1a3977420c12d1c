"""`chatgptlib serve`: the offline server for a program in any language."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from . import commands, lib

pytestmark = pytest.mark.skipif(
    lib.name != "chatgptlib", reason="the command line is the package's"
)

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Say hi."}]}
SCRIPT = {
    "replies": [
        [429, {"error": {"message": "Slow down."}}, {"Retry-After": "7"}],
        {"Cut": {"after": 3, "answer": {"Stall": {"seconds": 0.01, "answer": "One two three."}}}},
        "Hi!",
    ],
    "rules": [["rain", "Rain."], [{"model": "big"}, {"Pieces": {"sizes": [9], "answer": "Big."}}]],
}
NODE = """
const ask = async (body) => (await fetch(process.argv[1] + "/chat/completions", {
  method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)}));
const question = JSON.parse(process.argv[2]);
const refused = await ask(question);
const cut = await (await ask({...question, stream: true})).text();
const whole = await (await ask(question)).json();
const big = await (await ask({...question, model: "big", stream: true})).text();
console.log(JSON.stringify([refused.status, refused.headers.get("retry-after"),
  cut.split("data: ").length - 1, whole.choices[0].message.content, big.includes('"Big."')]));
"""


def command(*arguments):
    return [sys.executable, "-m", "chatgptlib", "serve", *map(str, arguments)]


@contextmanager
def serving(*arguments):
    """A server as a process: its URL, and a list that gets its exit code and stderr at the end."""
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    told = []
    try:
        yield process.stdout.readline().strip(), told
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        told += [process.returncode, errors]


def run(*words, **more):
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True, **more)
    return done.stdout


@pytest.fixture
def script(tmp_path):
    def file_with(content):
        path = tmp_path / "script.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return file_with


def asked(url, key="k", **body):
    """The text of the response to a question, or the name of the class of its error."""
    with lib.OpenAIClient(key, base_url=url, max_retries=0) as client:
        try:
            return lib.create_chat_completion(client, {**QUESTION, **body}).text
        except lib.OpenAIError as error:
            return type(error).__name__


def test_serve_answers_until_it_is_stopped_and_logs_a_line_per_request():
    with serving() as (url, told):
        assert "You asked: Say hi." in asked(url)
        assert asked(url, n=0) == "BadRequestError"
    path = "POST /v1/chat/completions"
    assert told == [0, f"{path} 200\n{path} 400\n"]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.gate
@pytest.mark.versions
def test_curl_gets_what_the_script_says(script):
    with serving("--script", script(SCRIPT)) as (url, told):
        curl = ["curl", "-sS", "-i", f"{url}/chat/completions", "-d", json.dumps(QUESTION)]
        refused = run(*curl)
        rain = run(
            *curl[:-1], json.dumps({**QUESTION, "messages": [{"role": "user", "content": "rain?"}]})
        )
        streamed = run(*curl[:-1], json.dumps({**QUESTION, "stream": True}))
    assert refused.startswith("HTTP/1.1 429 Too Many Requests\n")
    assert "retry-after: 7\n" in refused
    assert '"content": "Rain."' in rain
    assert streamed.count("data: ") == 3
    assert told[0] == 0


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
@pytest.mark.gate
@pytest.mark.versions
def test_node_gets_what_the_script_says(script):
    with serving("--script", script(SCRIPT)) as (url, _):
        program = ["node", "--input-type=module", "-e", NODE, url, json.dumps(QUESTION)]
        found = json.loads(run(*program))
    assert found == [429, "7", 3, "Hi!", True]


@pytest.mark.gate
@pytest.mark.versions
def test_a_script_may_be_a_list_of_replies(script):
    with serving("--script", script(["One.", 503])) as (url, _):
        assert [asked(url), asked(url)] == ["One.", "InternalServerError"]


def test_unused_replies_of_a_strict_script_are_reported_at_the_end(script):
    with serving("--strict", "--script", script(["One.", "Two."])) as (url, told):
        assert asked(url, temprature=1) == "BadRequestError"
        assert asked(url) == "One."
    assert told[0] == 1
    assert told[1].endswith("chatgptlib: 1 replies were not used: ['Two.']\n")


@pytest.mark.gate
@pytest.mark.versions
def test_a_key_and_a_port_can_be_chosen():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving("--port", port, "--api-key", "sk-right") as (url, told):
        assert url == f"http://127.0.0.1:{port}/v1"
        assert asked(url, "sk-wrong") == "AuthenticationError"
        assert "You asked" in asked(url, "sk-right")
    assert "sk-right" not in told[1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param("{", "Expecting", id="not-json"),
        pytest.param('"Hi!"', "list of replies", id="a-text-alone"),
        pytest.param([None], "invalid reply", id="an-invalid-reply"),
        pytest.param([{"Cut": {"before": 3}}], "before", id="an-unknown-argument"),
        pytest.param({"reply": []}, "reply", id="an-unknown-key"),
        pytest.param({"rules": ["Hi!"]}, "rules", id="a-rule-without-condition"),
        pytest.param({"rules": [["a"]]}, "rules", id="a-rule-without-reply"),
        pytest.param({"rules": [[]]}, "rules", id="an-empty-rule"),
        pytest.param({"rules": [{"a": 1}]}, "rules", id="a-rule-that-is-an-object"),
        pytest.param({"rules": [[{"regex": "("}, "a"]]}, "condition", id="a-broken-condition"),
        pytest.param({"rules": 5}, "rules", id="rules-that-are-a-number"),
        pytest.param([{"Cut": 3}], "Cut", id="a-fault-without-an-object"),
        pytest.param([{"Pieces": {"sizes": []}}], "sizes", id="pieces-of-no-size"),
        pytest.param("[" * 100_000, "script.json", id="nested-too-deeply"),
        pytest.param([{"Stall": {"seconds": "long"}}], "long", id="an-invalid-time"),
    ],
)
@pytest.mark.gate
@pytest.mark.versions
def test_an_invalid_script_is_an_error_in_one_line(script, content, words):
    done = commands.run("serve", "--script", script(content))
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.gate
@pytest.mark.versions
def test_a_port_that_is_taken_is_an_error():
    with lib.OfflineServer() as server:
        port = server.url.removesuffix("/v1").rpartition(":")[2]
        done = commands.run("serve", "--port", port)
    assert done.returncode == 1
    assert "in use" in done.stderr
