"""The programs in tests/examples do what they promise to those who copy them."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from itertools import repeat
from pathlib import Path

import pytest

from . import lib
from .batches import wait_until

if lib.name != "chatgptlib":
    pytest.skip("the programs import the package", allow_module_level=True)

EXAMPLES = Path(__file__).parent / "examples"
PACKAGE = Path(lib.modules[0].__file__).parent.parent


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PACKAGE), *sys.path]))
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-any-key")


@pytest.fixture
def serve(monkeypatch):
    """Start an offline server with these replies for the programs to talk to."""
    opened = []

    def started(replies):
        opened.append(lib.OfflineServer(replies).start())
        monkeypatch.setenv("OPENAI_BASE_URL", opened[-1].url)
        return opened[-1]

    yield started
    for server in opened:
        server.close()


def command(name, *arguments):
    return [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]


def run(*words, stdin=""):
    return subprocess.run(words, input=stdin, capture_output=True, encoding="utf-8", timeout=60)


def last_messages(server):
    """The content of the last message of each request."""
    return [request.body["messages"][-1]["content"] for request in server.requests]


# label_csv.py

LABEL = {"sentiment": "good", "topic": "vanilla"}


def completion(content, tokens_in=1000, tokens_out=100, **message):
    """A completion that costs, by default, $0.00015 for the prompt and $0.00006 for the answer."""
    message = {"role": "assistant", "content": content, **message}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out},
    }


def labelled(body):
    return completion(json.dumps(LABEL))


def reviews(*texts):
    with open("reviews.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "review"), *enumerate(texts, 1)])


def label():
    return run(*command("label_csv.py", "reviews.csv", "labels.csv"))


def labels():
    with open("labels.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_row_gets_the_fields_of_its_label(serve):
    reviews("Creamy ✓", 'Icy, and\n"hard"', "Creamy ✓")
    server = serve(repeat(labelled))
    done = label()
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(last_messages(server)) == [
        "Creamy ✓",
        'Icy, and\n"hard"',
    ]  # each text is sent once
    row = {"id": "1", "review": "Creamy ✓", "sentiment": "good", "topic": "vanilla", "problem": ""}
    assert labels() == [row, {**row, "id": "2", "review": 'Icy, and\n"hard"'}, {**row, "id": "3"}]


@pytest.mark.gate
def test_the_summary_reports_the_tokens_and_the_cost_of_all_runs(serve):
    reviews("One.", "Two.")
    serve(repeat(labelled))
    cost = "2000 tokens in, 200 out, in all runs: $0.000420"
    for _ in range(2):
        assert label().stdout.splitlines() == ["2 of 2 rows have a label.", cost]


@pytest.mark.gate
def test_a_failed_row_is_reported_and_the_others_continue(serve):
    def answer(body):
        return {
            "Refused.": completion(None, refusal="I won't."),
            "Too long.": (400, {"error": {"message": "maximum context length"}}),
        }.get(body["messages"][-1]["content"], labelled)

    reviews("Fine.", "Refused.", "Too long.", "Good.")
    server = serve(repeat(answer))
    done = label()
    assert done.returncode == 1
    refused, too_long = sorted(done.stderr.splitlines())
    assert refused == "'Refused.': the model refused: I won't."
    assert too_long.startswith("'Too long.': 400: maximum context length")
    assert [row["problem"] for row in labels()] == [
        "", "the model refused: I won't.", "no answer", "",
    ]  # fmt: skip
    assert done.stdout.splitlines() == [
        "2 of 4 rows have a label.",
        "3000 tokens in, 300 out, in all runs: $0.000630",  # a refusal is charged for
    ]
    server.requests.clear()
    label()
    assert last_messages(server) == ["Too long."]  # the refusal is not tried again


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("id,text\n1,Creamy\n", id="no-such-column"),
        pytest.param("id,review\n1,Creamy,and cold\n", id="a-row-too-long"),
        pytest.param("", id="empty"),
    ],
)
@pytest.mark.gate
def test_an_unusable_csv_is_reported_in_one_line_before_anything_is_sent(serve, text):
    Path("reviews.csv").write_text(text)
    server = serve([])
    done = label()
    assert done.returncode == 1
    assert done.stderr.startswith("reviews.csv needs a column 'review', and no row longer")
    assert done.stderr.count("\n") == 1
    assert server.requests == []


@pytest.mark.gate
def test_a_missing_csv_is_reported_in_one_line(serve):
    serve([])
    assert label().stderr == "error: [Errno 2] No such file or directory: 'reviews.csv'\n"


class Held:
    """Answers with labels, to the texts in `held` only when `release` is set."""

    def __init__(self, held, answer=labelled):
        self.held, self.answer, self.release = held, answer, threading.Event()

    def __call__(self, body):
        if body["messages"][-1]["content"] in self.held:
            self.release.wait(60)
            return labelled
        return self.answer


def start_labelling():
    words = command("label_csv.py", "reviews.csv", "labels.csv")
    return subprocess.Popen(words, stderr=subprocess.PIPE)


@pytest.mark.gate
def test_labels_saved_before_a_kill_are_not_requested_again(serve):
    texts = [*map(str, range(20))]
    reviews(*texts)
    answer = Held(["7", "19"])
    server = serve(repeat(answer))
    process = start_labelling()
    kept = Path("labels.jsonl")
    wait_until(lambda: len(server.requests) == 20)
    wait_until(lambda: kept.exists() and kept.read_text().count("}\n") >= 17)
    with process.stderr:
        process.kill()
        process.wait()
    answer.release.set()
    first = len(server.requests)
    assert label().returncode == 0
    asked_again = last_messages(server)[first:]
    assert {"7", "19"} <= {*asked_again}
    assert len(asked_again) <= 3  # the last line may not have reached the file


@pytest.mark.gate
def test_a_line_that_a_crash_cut_short_costs_that_row_alone(serve):
    reviews("One.", "Two.", "Three.")
    server = serve(repeat(labelled))
    label()
    kept = Path("labels.jsonl")
    kept.write_bytes(kept.read_bytes()[:-9])
    server.requests.clear()
    for _ in range(2):
        assert label().returncode == 0
    assert len(server.requests) == 1
    assert [row["sentiment"] for row in labels()] == ["good"] * 3


@pytest.mark.skipif(os.name == "nt", reason="a process gets no SIGINT on Windows")
@pytest.mark.gate
def test_ctrl_c_keeps_the_answers_that_are_on_their_way(serve):
    texts = [*map(str, range(40))]
    reviews(*texts)
    answer = Held(texts)
    server = serve(repeat(answer))
    process = start_labelling()
    wait_until(lambda: len(server.requests) == 8)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == b"stopping: Ctrl-C\n"
    answer.release.set()
    with process.stderr:
        assert process.wait(60) == 1
    assert len([row for row in labels() if row["sentiment"]]) >= 8
    assert label().returncode == 0
    assert sorted(last_messages(server)) == sorted(texts)  # each once


@pytest.mark.gate
def test_an_error_that_every_row_would_meet_ends_the_run(serve):
    texts = [*map(str, range(40))]
    reviews(*texts)
    answer = Held(texts[1:], answer=401)
    server = serve(repeat(answer))
    process = start_labelling()
    assert process.stderr.readline().startswith(b"stopping: 401: Incorrect API key")
    answer.release.set()
    with process.stderr:
        assert process.wait(60) == 1
    assert len(server.requests) <= 8 + 1  # one more may begin as the first one fails
    assert len(labels()) == 40


# chat_bot.py


def chat(*lines, name="Ann"):
    return run(*command("chat_bot.py", name), stdin="".join(f"{line}\n" for line in lines))


@pytest.mark.gate
def test_the_bot_remembers_what_was_said_before_it_was_started_again(serve):
    server = serve(["Hello Ann ✓.", "You are Ann.", "I don't know you."])
    first = chat("I am Ann.")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == "> Hello Ann ✓.\n> "
    assert chat("Who am I?").stdout == (
        "(user: I am Ann.)\n(assistant: Hello Ann ✓.)\n> You are Ann.\n> "
    )
    assert [message["content"] for message in server.requests[1].body["messages"]][1:] == [
        "I am Ann.", "Hello Ann ✓.", "Who am I?",
    ]  # fmt: skip
    chat("Who am I?", name="Bob")
    assert len(server.requests[2].body["messages"]) == 2  # nothing of Ann's


@pytest.mark.gate
def test_the_bot_streams_its_answers(serve):
    server = serve(["Hello."])
    chat("Hi")
    assert server.requests[0].body["stream"] is True


def test_the_model_calls_the_tools_of_the_bot(serve):
    function = {"name": "roll_dice", "arguments": '{"count": 3, "sides": 1}'}
    call = {"id": "call_1", "type": "function", "function": function}
    server = serve([{"tool_calls": [call]}, "Three ones."])
    assert chat("Roll!").stdout == "> Three ones.\n> "
    offered = server.requests[0].body["tools"]
    assert [tool["function"]["name"] for tool in offered] == ["time_now", "roll_dice"]
    answer = server.requests[1].body["messages"][-1]
    assert (answer["role"], answer["content"]) == ("tool", "[1,1,1]")


@pytest.mark.gate
def test_an_error_is_one_line_and_the_chat_continues_without_that_turn(serve):
    cut = lib.Cut(after=3, answer="Once upon a time there was")
    server = serve([400, cut, "Hello."])
    first, second, third, _ = chat("One", "Two", "Three").stdout.splitlines()
    assert first.startswith("> [error: 400: ")
    assert second.startswith("> Once")
    assert "[error: " in second
    assert third == "> Hello."
    assert last_messages(server) == ["One", "Two", "Three"]
    assert len(server.requests[2].body["messages"]) == 2  # the prompt, and the third


@pytest.mark.parametrize(
    "program", [["chat_bot.py"], ["label_csv.py", "reviews.csv", "labels.csv"]]
)
@pytest.mark.gate
def test_without_a_key_the_program_says_so_in_a_line(program, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    reviews("Creamy")
    done = run(*command(*program))
    assert done.returncode == 1
    assert done.stderr.startswith("error: no API key")
    assert done.stderr.count("\n") == 1


# vendored/


@pytest.fixture
def vendored(tmp_path, monkeypatch):
    """A copy of the package, with the file written into it."""
    shutil.copytree(EXAMPLES / "vendored", tmp_path, dirs_exist_ok=True)
    words = [sys.executable, "-m", "chatgptlib", "vendor", "-o", "summaries/chat.py"]
    done = run(*words)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.gate
def test_the_package_with_the_file_passes_its_own_test(vendored):
    done = run(sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.gate
def test_the_package_with_the_vendored_file_does_not_import_chatgptlib(vendored, serve):
    server = serve(["It rains."])
    code = "import summaries, sys; print(summaries.summary('Rain, rain.'), 'chatgptlib' in sys.modules)"
    done = run(sys.executable, "-W", "error", "-c", code)
    assert (done.stdout, done.stderr) == ("It rains. False\n", "")
    assert last_messages(server) == ["Rain, rain."]
