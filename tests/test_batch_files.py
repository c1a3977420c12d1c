"""The files of a batch: input that is not valid is not sent, and OUT never loses an answer."""

import json
import os
import shlex
import signal
import stat
import subprocess

import pytest

from . import lib
from .batches import BatchServer, command, ids_in, reply_with_error, run, written
from .commands import PATIENCE, run_fresh
from .wire import completion

pytestmark = pytest.mark.skipif(lib.name != "chatgptlib", reason="only the package has it")

REQUEST = {"messages": [{"role": "user", "content": "b"}]}


@pytest.fixture
def files(tmp_path):
    return tmp_path / "in.jsonl", tmp_path / "out.jsonl"


def asked(source, target, *arguments):
    """The questions that the command sends to a server, and how the command ended."""
    with BatchServer() as server:
        done = run(source, target, "-j", "1", *arguments, "--base-url", server.url)
    return server.questions, done


def asked_from_stdin(text, target):
    """The same for a batch whose requests are piped in."""
    with BatchServer() as server:
        arguments = ["batch", "-", target, "-j", "1", "--base-url", server.url]
        done = run_fresh(*arguments, stdin=text)
    return server.questions, done


# Requests in


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
def test_a_byte_order_mark_sets_the_encoding(files, encoding):
    source, target = files
    source.write_bytes("\ufeffgrün\r\nblau 🦋\r\n".encode(encoding))
    questions, done = asked(source, target)
    assert (questions, done.returncode) == (["grün", "blau 🦋"], 0)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("a\nb\n".encode("utf-16-le"), id="utf-16 without a mark"),
        pytest.param(b"PK\x03\x04\x00\x00sheet.xml", id="a spreadsheet"),
        pytest.param(b"a\nb\n\x00\x00", id="a damaged end"),
    ],
)
def test_nul_bytes_are_rejected(files, content):
    source, target = files
    source.write_bytes(content)
    questions, done = asked(source, target)
    assert (questions, done.returncode) == ([], 1)
    assert "contains NUL bytes" in done.stderr
    assert "UTF-8" in done.stderr
    assert not target.exists()


def test_truncated_utf_16_is_rejected(files):
    source, target = files
    source.write_bytes("\ufeffa\n".encode("utf-16-le") + b"b")
    questions, done = asked(source, target)
    assert (questions, done.returncode) == ([], 1)
    assert "is damaged" in done.stderr


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(json.dumps(REQUEST, indent=2), id="an object"),
        pytest.param(json.dumps(REQUEST, indent=2) + "\n" + json.dumps(REQUEST, indent=2), id="two objects"),
        pytest.param(json.dumps([REQUEST, REQUEST], indent=2)[:-9], id="a cut array"),
        pytest.param(json.dumps([REQUEST, REQUEST], indent="\t")[:-9], id="a cut array with tabs"),
        pytest.param("a prompt\n" + json.dumps(REQUEST, indent=2), id="after a prompt"),
        pytest.param("[\n" + json.dumps(REQUEST) + ",\n" + json.dumps(REQUEST) + "\n", id="an open array"),
        pytest.param('{"id":\n\n1, "messages": []}\n', id="with a blank line"),
    ],
)  # fmt: skip
def test_json_over_several_lines_is_rejected_with_a_hint_at_jq(files, content):
    source, target = files
    source.write_text(content)
    questions, done = asked(source, target)
    assert (questions, done.returncode) == ([], 1)
    assert "the JSON before line" in done.stderr
    assert "jq -c" in done.stderr
    assert not target.exists()


def test_prompts_that_look_like_json_are_prompts(files):
    source, target = files
    source.write_text('[Urgent] a\n[\nb\n"c" d\n[1, 2\nand so on\n')
    questions, done = asked(source, target)
    assert questions == ["[Urgent] a", "[", "b", '"c" d', "[1, 2", "and so on"]
    assert done.returncode == 0


def test_unreadable_lines_are_reported_by_number_and_do_not_stop_the_rest(files):
    source, target = files
    source.write_bytes(
        b'{"messages": [\n\xff\xfe\n{"a": 1}\n[1]\nfine\n{"id": "x", "messages": []}\n'
        b'{"id": "x", "messages": []}\n{"id": null, "messages": []}\n{"messages": [], "stream": true}\n'
    )
    questions, done = asked(source, target, "-s", "so that there is a message")
    assert done.returncode == 1
    for words in (
        "line 1: not JSON", "line 2: not UTF-8", "line 3: a request needs a list of messages",
        "line 4: a request must be a JSON object, not list", "line 7: its id 'x' is also the id of line 6",
        "line 8: an id must be a text or an integer, not null", "line 9: a batch can't stream",
        "9 lines: 2 answered, 0 errors, 7 unreadable",
    ):  # fmt: skip
        assert words in done.stderr
    assert len(questions) == 2
    assert ids_in(target) == [5, "x"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.csv", "review\ncafé\ntea\n"),
        ("in.json", '["café", {"review": "tea"}]'),
        ("in.jsonl", '{"review": "café"}\n{"review": "tea"}\n'),
    ],
    ids=["table", "array", "lines"],
)
def test_text_that_is_not_utf_8_is_reported_and_not_sent(tmp_path, name, content):
    source = tmp_path / name
    source.write_bytes(content.encode("latin-1"))
    questions, done = asked(source, tmp_path / "out", "--prompt", "{review}")
    assert (questions, done.returncode) == (["tea"], 1)
    assert " 1: not UTF-8" in done.stderr


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_is_a_request_for_each_item(files, indent):
    source, target = files
    source.write_text(json.dumps(["a", {"id": "mine", **REQUEST}, 3], indent=indent))
    questions, done = asked(source, target)
    assert questions == ["a", "b"]
    assert "item 3: a request must be a JSON object, not int" in done.stderr
    assert ids_in(target) == [1, "mine"]


@pytest.mark.parametrize(
    ("name", "separator"), [("in.csv", ","), ("in.CSV", ";"), ("in.tsv", "\t"), ("reviews", ",")]
)
def test_the_rows_of_a_table_fill_in_the_prompt(tmp_path, name, separator):
    source, target = tmp_path / name, tmp_path / "out"
    rows = [["id", " Full review"], ["r1", '"two\nlines, and a ""quote"""'], ["r2", "bad"]]
    source.write_bytes("\r\n".join(map(separator.join, rows)).encode("utf-8-sig"))
    questions, done = asked(source, target, "--prompt", 'As {"label": x}: {Full review}!')
    assert done.returncode == 0
    assert questions == ['As {"label": x}: two\nlines, and a "quote"!', 'As {"label": x}: bad!']
    assert ids_in(target) == ["r1", "r2"]


def test_rows_without_an_id_are_known_by_their_number(tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out"
    source.write_text("review\ngood\nbad\n")
    assert asked(source, target, "--prompt", "{review}")[1].returncode == 0
    assert ids_in(target) == [1, 2]


def test_the_keys_of_json_objects_fill_in_the_prompt_too(files):
    source, target = files
    source.write_text('{"id": "a", "review": "good", "stars": [4, 5]}\nplain\n')
    questions, done = asked(source, target, "--prompt", "{review} {stars}")
    assert questions == ["good [4, 5]"]
    assert "line 2: --prompt needs a row or a JSON object" in done.stderr


@pytest.mark.parametrize(
    ("content", "prompt", "words"),
    [
        (
            "id,review\n1,a\n",
            "{revew}",
            "row 1: --prompt has {revew}; the names are id, review",
        ),
        ("id,review\n1,a\n", "Label this:", "row 1: --prompt contains no {name}"),
        ("id,review\n1,a\n", None, "row 1: a request needs a list of messages (or --prompt"),
        ("id,review\n1,a,b\n", "{review}", "row 1: it needs a field for each of ['id', 'review']"),
        ("id,review\n1\n", "{review}", "row 1: it needs a field for each of"),
        ("id,id\n1,2\n", "{id}", "row 1: it needs a field for each of"),
        ("id,review\n,a\n", "{review}", 'row 1: an id must be a text or an integer, not ""'),
        ('id,review\n1,"a\n2,b\n', "{review}", "is not a valid table"),
    ],
)
def test_invalid_rows_and_prompts_are_reported_and_not_sent(tmp_path, content, prompt, words):
    source = tmp_path / "in.csv"
    source.write_text(content)
    options = () if prompt is None else ("--prompt", prompt)
    questions, done = asked(source, tmp_path / "out", *options)
    assert (questions, done.returncode) == ([], 1)
    assert words in done.stderr


def test_only_the_first_of_many_unreadable_lines_are_listed(files):
    source, target = files
    source.write_text('{"a": 1}\n' * 50)
    done = run(source, target, "--offline")
    assert done.stderr.count("a request needs a list of messages") == 10
    assert "50 unreadable" in done.stderr


@pytest.mark.gate
@pytest.mark.versions
def test_a_hyphen_is_stdin_and_stdout(files):
    _, target = files
    questions, done = asked_from_stdin("grün\n", "-")
    assert (questions, done.returncode) == (["grün"], 0)
    (told,) = map(json.loads, done.stdout.splitlines())
    assert told["response"]["choices"][0]["message"]["content"] == "ok"
    assert "this can't be resumed if it is stopped: to resume, name a file as OUT" in done.stderr
    questions, done = asked_from_stdin("a\nb\n", target)
    assert questions == ["a", "b"]
    assert ids_in(target) == [1, 2]


def test_a_closed_stdin_is_an_error_in_one_line(files):
    words = " ".join(map(shlex.quote, command("-", files[1], "--offline")))
    done = subprocess.run(["sh", "-c", f"{words} <&-"], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert done.stderr == b"chatgptlib: cannot read stdin: Bad file descriptor\n"


@pytest.mark.gate
@pytest.mark.versions
def test_a_reader_of_stdout_that_stops_ends_the_batch_without_a_traceback():
    with BatchServer() as server:
        process = subprocess.Popen(
            [*command("-", "-", "-j", "1", "--base-url", server.url)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        process.stdout.close()
        process.stdin.write(b"a\n" * 50)
        process.stdin.close()
        errors = process.stderr.read()
        assert process.wait(PATIENCE) == 1
        process.stderr.close()
    assert b"Traceback" not in errors
    assert len(server.asked) == 1


# OpenAI's own format, and the order


def test_openai_format_is_read_written_and_resumed(files):
    source, target = files
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": name}]}}
        for name in ("a", "b", "c")
    ]  # fmt: skip
    source.write_text("\n".join(map(json.dumps, lines)))
    with BatchServer(
        lambda body: (
            reply_with_error(400, "Too long", **{"x-request-id": "req_1"})
            if body["messages"][0]["content"] == "b"
            else "ok"
        )
    ) as server:
        run(source, target, "-j", "1", "--openai-format", "--base-url", server.url)
    answer, error, _ = written(target)
    assert answer["custom_id"] == "a"
    assert answer["id"].startswith("batch_req_")
    assert answer["response"] == {"status_code": 200, "request_id": None, "body": completion("ok")}
    assert answer["error"] is None
    assert (error["custom_id"], error["response"]) == ("b", None)
    assert "Too long" in error["error"]["message"]
    questions, done = asked(source, target, "--openai-format")
    assert (questions, done.returncode) == ([], 1)
    assert "3 lines: 2 answered, 1 errors (3 of them earlier)" in done.stderr
    questions, done = asked(source, target, "--openai-format", "--retry-errors")
    assert (questions, done.returncode) == (["b"], 0)


def test_output_of_openais_batch_api_counts_as_answered(files):
    source, target = files
    source.write_text("\n".join(json.dumps({"custom_id": name, **REQUEST}) for name in "abc"))
    good = {"status_code": 200, "request_id": "r", "body": completion("ok")}
    bad = {"status_code": 400, "request_id": "r", "body": {"error": {"message": "no"}}}
    target.write_text(
        "".join(
            json.dumps({"id": "batch_req_123", "custom_id": name, "response": told, "error": None})
            + "\n"
            for name, told in (("a", good), ("b", bad))
        )
    )
    questions, done = asked(source, target)
    assert len(questions) == 1
    assert "3 lines: 2 answered, 1 errors (2 of them earlier)" in done.stderr


def test_ordered_sorts_out_in_the_order_of_the_input(files):
    source, target = files
    source.write_text("a\nb\nc\nd\n")
    target.write_text('{"id": 3, "response": {}}\n{"id": "old", "response": {}}\n')
    os.chmod(target, 0o640)
    questions, done = asked(source, target, "--ordered")
    assert (questions, done.returncode) == (["a", "b", "d"], 0)
    assert ids_in(target) == [1, 2, 3, 4, "old"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert [path.name for path in target.parent.iterdir() if path.name.startswith("out")] == [
        "out.jsonl"
    ]


def test_a_failed_sort_keeps_out_and_leaves_no_temporary_file(files, monkeypatch, capsys):
    source, target = files
    source.write_text("a\nb\n")

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert lib.main(["batch", "--offline", "--ordered", str(source), str(target)]) == 1
    assert "cannot sort" in capsys.readouterr().err
    assert sorted(ids_in(target)) == [1, 2]
    assert {path.name for path in target.parent.iterdir()} == {"in.jsonl", "out.jsonl"}


def test_stdout_can_not_be_ordered(files):
    files[0].write_text("a\n")
    done = run(files[0], "-", "--ordered", "--offline")
    assert done.returncode == 2
    assert "--ordered needs a file as OUT" in done.stderr


# Answers out


@pytest.mark.parametrize(
    "content",
    ["Dear diary\n", '{"my": "data"}\n', "[1]\n", "notes without an end", '{"my": "data"}',
     '{"id": 1, "my": 2}\n', '{"id": 1, "my": 2}', '{"id": [1], "error": {}}', '{"id": 1, "er\n', "5"],
)  # fmt: skip
def test_a_file_that_is_not_batch_output_is_left_unchanged(files, content):
    source, target = files
    source.write_text("a\n")
    target.write_text(content)
    done = run(source, target, "--offline")
    assert done.returncode == 1
    assert "is not the output of a batch (line 1)" in done.stderr
    assert target.read_text() == content


def test_a_complete_last_line_without_a_newline_counts_as_answered(files):
    source, target = files
    source.write_text("a\nb\n")
    target.write_text('{"id": 1, "response": {}}')
    questions, done = asked(source, target)
    assert (questions, done.returncode) == (["b"], 0)
    assert ids_in(target) == [1, 2]


@pytest.mark.parametrize("kept", [1, 5, 9, 30])
def test_a_truncated_last_line_is_sent_again(files, kept):
    source, target = files
    source.write_text("a\nb\n")
    assert asked(source, target)[1].returncode == 0
    whole = target.read_bytes()
    first = whole.index(b"\n") + 1
    target.write_bytes(whole[: first + kept])
    questions, done = asked(source, target)
    assert (questions, done.returncode) == (["b"], 0)
    assert ids_in(target) == [1, 2]


def test_only_the_owner_can_read_and_write_out(files):
    source, target = files
    source.write_text("a\n")
    run(source, target, "--offline")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    run(source, target, "--offline", "-m", "n", "--again", "--ordered")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def removed(target):
    target.unlink()


def moved(target):
    target.rename(target.with_suffix(".moved"))


def replaced(target):
    target.with_suffix(".new").write_text("")
    target.with_suffix(".new").replace(target)


@pytest.mark.parametrize("at", [2, 4])  # before an answer is written, and after the last one
@pytest.mark.parametrize("change", [removed, moved, replaced])
def test_moving_removing_or_replacing_out_during_a_batch_is_an_error(files, change, at):
    source, target = files
    source.write_text("".join(f"{n}\n" for n in range(4)))
    seen = iter(range(1, 100))

    def answer(body):
        if next(seen) == at:
            change(target)
        return "ok"

    with BatchServer(answer) as server:
        done = run(source, target, "-j", "1", "--base-url", server.url)
    assert done.returncode == 1
    assert "was moved, removed or replaced while it was written" in done.stderr
    assert len(server.asked) == at


def test_unusable_input_and_output_files_are_reported(files, tmp_path):
    source, target = files
    assert "cannot read" in run(source, target, "--offline").stderr
    source.write_text("a\n")
    assert "cannot write" in run(source, tmp_path / "no" / "x", "--offline").stderr
    assert "cannot write" in run(source, tmp_path, "--offline").stderr
    done = run(source, source, "--offline")
    assert "is not the output of a batch (line 1)" in done.stderr
    assert source.read_text() == "a\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_out_may_be_a_named_pipe(files):
    source, target = files
    source.write_text("a\n")
    os.mkfifo(target)
    reader = subprocess.Popen(["cat", target], stdout=subprocess.PIPE)
    assert run(source, target, "--offline").returncode == 0
    assert [json.loads(line)["id"] for line in reader.communicate(timeout=60)[0].splitlines()] == [
        1
    ]
    assert stat.S_ISFIFO(os.stat(target).st_mode)


def test_two_batches_do_not_write_one_file(files):
    fcntl = pytest.importorskip("fcntl")
    source, target = files
    source.write_text("a\n")
    with open(target, "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = run(source, target, "--offline")
    assert "another batch is writing" in done.stderr
    assert target.read_text() == ""


def test_a_batch_works_where_files_cannot_be_locked(files, monkeypatch, capsys):
    source, target = files
    source.write_text("a\nb\n")
    monkeypatch.setitem(__import__("sys").modules, "fcntl", None)  # as on Windows
    assert lib.main(["batch", "--offline", str(source), str(target)]) == 0
    assert sorted(ids_in(target)) == [1, 2]
    assert "2 answered" in capsys.readouterr().err


@pytest.mark.gate
@pytest.mark.versions
def test_a_line_that_does_not_fit_on_the_disk_leaves_no_piece_of_it(files):
    resource = pytest.importorskip("resource")
    source, target = files
    source.write_text("".join(f"{n}\n" for n in range(9)))
    with BatchServer() as server:
        done = subprocess.run(
            command(source, target, "-j", "1", "--base-url", server.url),
            preexec_fn=lambda: (
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
            ),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert 0 < len(written(target)) == len(server.asked) - 1


def test_a_response_that_is_not_a_completion_is_written_as_an_error(files):
    source, target = files
    source.write_text("a\n")
    with BatchServer(lambda body: (200, [], {"x-request-id": "req_1"})) as server:
        done = run(source, target, "--base-url", server.url)
    assert done.returncode == 1
    error = written(target)[0]["error"]
    assert (error["type"], error["request_id"]) == ("DeserializeError", "req_1")


def test_a_response_with_invalid_fields_is_written_unchanged(files):
    source, target = files
    source.write_text("a\n")
    odd = {"choices": [{"message": "Hi", "finish_reason": 5}], "usage": "plenty"}
    with BatchServer(lambda body: odd) as server:
        done = run(source, target, "--base-url", server.url)
    assert done.returncode == 0
    assert written(target)[0]["response"] == odd
    assert "1 answers did not report any" in done.stderr


def test_the_header_of_a_table_may_follow_a_blank_line(files):
    source, target = files
    source = source.with_suffix(".csv")
    source.write_text("\nname\nann\n")
    done = run(source, target, "--prompt", "Greet {name}", "--offline")
    assert done.returncode == 0
    assert len(written(target)) == 1
