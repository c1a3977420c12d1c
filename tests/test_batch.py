"""A batch: every line answered once, whatever stops it, and each told by its id."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from . import lib
from .wire import CLOSE, SILENCE, Reply, Wire, completion, http

pytestmark = pytest.mark.skipif(lib.name != "chatgptlib", reason="only the package has it")

PATIENCE = 60  # seconds until a test gives up on what does not come


def command(source, target, *arguments):
    return [sys.executable, "-W", "error", "-m", "chatgptlib", "batch", str(source), str(target),
            *arguments]  # fmt: skip


def run(source, target, *arguments, **environment):
    return subprocess.run(
        command(source, target, *arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1", **environment},
        timeout=PATIENCE,
    )


def written(target):
    return [json.loads(line) for line in target.read_text("utf-8").splitlines()]


@pytest.fixture
def files(tmp_path):
    return tmp_path / "in.jsonl", tmp_path / "out.jsonl"


def test_each_line_is_asked_and_answered_by_its_id(files):
    source, target = files
    request = {"messages": [{"role": "user", "content": "b"}], "temperature": 1}
    lines = [
        "A plain prompt",
        json.dumps('A "quoted" prompt'),
        json.dumps({"id": 7, **request}),
        json.dumps({"custom_id": "mine", "method": "POST", "url": "/v1/x", "body": request}),
    ]
    source.write_text("\ufeff" + lines[0] + "\r\n\n" + "\n".join(lines[1:]), "utf-8")
    with lib.OfflineServer(["1", "2", "3", "4"]) as server:
        done = run(source, target, "-j", "1", "-s", "Be brief.", "-t", "0.5", "--param", "seed=3",
                   "-m", "m", "--base-url", server.url)  # fmt: skip
        bodies = [request.body for request in server.requests]
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "chatgptlib: 4 lines: 4 answered, 0 errors\n"
    assert [body["messages"][-1]["content"] for body in bodies] == [
        "A plain prompt", 'A "quoted" prompt', "b", "b",
    ]  # fmt: skip
    assert bodies[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert len(bodies[2]["messages"]) == 1
    assert [body["temperature"] for body in bodies] == [0.5, 0.5, 1, 1]
    assert {body["seed"] for body in bodies} == {3}
    assert {body["model"] for body in bodies} == {"m"}
    assert [told["id"] for told in written(target)] == [1, 3, 7, "mine"]
    texts = [told["response"]["choices"][0]["message"]["content"] for told in written(target)]
    assert texts == ["1", "2", "3", "4"]


def test_an_error_is_written_and_the_rest_goes_on(files):
    source, target = files
    source.write_text("a\nb\n")
    refusal = http({"error": {"message": "Too long", "code": "long"}}, "400 Bad Request")
    with Wire(refusal, http(completion("B"))) as wire:
        done = run(source, target, "-j", "1", "--base-url", wire.url)
    assert done.returncode == 1
    assert "2 lines: 1 answered, 1 errors" in done.stderr
    error = written(target)[0]["error"]
    assert (error["type"], error["status_code"], error["code"]) == ("BadRequestError", 400, "long")
    assert "Too long" in error["message"]


def test_an_answer_that_is_none_is_written_as_an_error_with_its_request_id(ask, files):
    source, target = files
    source.write_text("a\nb\n")
    page = http(b"<html>Welcome</html>", "200 OK", "x-request-id: req_1")
    client = ask(page, http(completion("B")))
    result = lib.run_batch(client, source, target, defaults={"model": "m"}, jobs=1)
    assert str(result) == "2 lines: 1 answered, 1 errors"
    error = written(target)[0]["error"]
    assert error.keys() == {"type", "message", "request_id"}
    assert (error["type"], error["request_id"]) == ("DeserializeError", "req_1")
    assert "is HTML" in error["message"]


def test_a_file_without_lines_is_done_without_a_word(files):
    source, target = files
    source.write_text("\n \n")
    done = run(source, target, "--offline")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_unreadable_lines_are_told_by_number_and_do_not_stop_the_rest(files):
    source, target = files
    source.write_bytes(
        b'{"messages": [\n\xff\xfe\n{"a": 1}\n[1]\nfine\n{"id": "x", "messages": []}\n'
        b'{"id": "x", "messages": []}\n{"id": null, "messages": []}\n{"messages": [], "stream": true}\n'
    )
    with lib.OfflineServer() as server:
        done = run(source, target, "--base-url", server.url)
    assert done.returncode == 1
    for words in (
        "line 1: no JSON", "line 2: not UTF-8", "line 3: a request has messages",
        "line 4: a request is a JSON object, not a list", "line 7: its id 'x' is that of line 6",
        "line 8: an id is text or a number, not null", "line 9: a batch has no streams",
        "9 lines: 1 answered, 1 errors, 7 unreadable",
    ):  # fmt: skip
        assert words in done.stderr
    assert {told["id"] for told in written(target)} == {5, "x"}


def test_what_is_done_is_not_asked_again(files):
    source, target = files
    source.write_text("a\nb\nc\n")
    target.write_text('{"id": 2, "error": {}}\n{"id": 1, "resp')
    with lib.OfflineServer() as server:
        done = run(source, target, "-j", "1", "--base-url", server.url)
        asked = [request.body["messages"][0]["content"] for request in server.requests]
    assert asked == ["a", "c"]
    assert "3 lines: 2 answered, 0 errors, 1 done before (of them 1 errors)" in done.stderr
    assert done.returncode == 1
    assert [told["id"] for told in written(target)] == [2, 1, 3]


def test_a_last_line_that_only_lacks_its_end_is_done(files):
    source, target = files
    source.write_text("a\nb\n")
    target.write_text('{"id": 1, "response": {}}')
    with lib.OfflineServer() as server:
        assert run(source, target, "--base-url", server.url).returncode == 0
        assert len(server.requests) == 1
    assert [told["id"] for told in written(target)] == [1, 2]


def test_a_line_that_was_changed_since_it_was_answered_is_told(files):
    source, target = files
    source.write_text("a\nb\n")
    assert run(source, target, "--offline").returncode == 0
    source.write_text("a\nc\n")
    done = run(source, target, "--offline")
    assert done.returncode == 1
    assert "line 2: another line was answered under its id 2" in done.stderr
    assert len(written(target)) == 2


def test_what_is_piped_in_is_asked(files):
    _, target = files
    done = subprocess.run(command("/dev/stdin", target, "--offline"), input="[Urgent] a\n\"b\" c\n",
                          capture_output=True, encoding="utf-8", timeout=PATIENCE)  # fmt: skip
    assert done.stderr == "chatgptlib: 2 lines: 2 answered, 0 errors\n"


def test_a_line_that_a_server_cannot_bear_does_not_stop_the_rest(ask, files):
    source, target = files
    source.write_text("".join(f"{n}\n" for n in range(9)))
    client = ask(Reply(b"", CLOSE), *[http(completion("ok"))] * 8, max_retries=0)
    result = lib.run_batch(client, source, target, defaults={"model": "m"}, jobs=1)
    assert [told["id"] for told in written(target)] == list(range(2, 10))
    assert str(result) == "9 lines: 8 answered, 0 errors, 1 not asked to the end"
    assert "id 1: the connection was lost" in result.unanswered[0]
    assert not result.is_clean


def test_nobody_there_ends_it_and_uses_up_no_line(files):
    source, target = files
    source.write_text("".join(f"{n}\n" for n in range(9)))
    result = lib.BatchResult()
    client = lib.OpenAIClient("k", base_url="http://127.0.0.1:9/v1", max_retries=0)
    with client, pytest.raises(lib.HTTPError, match="no connection"):
        lib.run_batch(client, source, target, defaults={"model": "m"}, jobs=2, result=result)
    assert 3 <= len(result.unanswered) < 9
    assert target.read_text() == ""


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_key_that_is_refused_ends_it_and_uses_up_no_line(files, status):
    source, target = files
    source.write_text("a\nb\nc\n")
    with Wire(http({"error": {"message": "Bad key"}}, status)) as wire:
        done = run(source, target, "-j", "1", "--base-url", wire.url)
    assert done.returncode == 1
    assert "Bad key" in done.stderr
    assert "Traceback" not in done.stderr
    assert target.read_text() == ""


@pytest.mark.parametrize(
    "content",
    ["Dear diary\n", '{"my": "data"}\n', "[1]\n", "notes without an end", '{"my": "data"}',
     '{"id": 1, "my": 2}\n'],
)  # fmt: skip
def test_a_file_that_is_no_output_is_left_alone(files, content):
    source, target = files
    source.write_text("a\n")
    target.write_text(content)
    done = run(source, target, "--offline")
    assert done.returncode == 1
    assert "is no output of a batch (line 1)" in done.stderr
    assert target.read_text() == content


def test_files_that_cannot_be_used_are_one_line(files, tmp_path):
    source, target = files
    assert "cannot read" in run(source, target, "--offline").stderr
    source.write_text("a\n")
    assert "cannot write" in run(source, tmp_path / "no" / "x", "--offline").stderr
    assert "read from" in run(source, source, "--offline").stderr
    assert "is no file" in run(source, tmp_path, "--offline").stderr
    assert "is no file" in run(source, os.devnull, "--offline").stderr
    assert "-j must be 1 or more" in run(source, target, "--offline", "-j", "0").stderr


def test_two_batches_do_not_write_one_file(files):
    fcntl = pytest.importorskip("fcntl")
    source, target = files
    source.write_text("a\n")
    with open(target, "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = run(source, target, "--offline")
    assert "another batch is writing" in done.stderr
    assert target.read_text() == ""


def test_where_files_cannot_be_locked_a_batch_is_written_all_the_same(files, offline, monkeypatch):
    source, target = files
    source.write_text("a\nb\n")
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    result = lib.run_batch(offline("A", "B"), source, target, defaults={"model": "m"}, jobs=1)
    assert str(result) == "2 lines: 2 answered, 0 errors"
    assert [told["id"] for told in written(target)] == [1, 2]


def test_a_line_that_does_not_fit_on_the_disk_leaves_no_piece_of_it(files):
    source, target = files

    class Full:
        """A file on a disk with room for ten bytes more."""

        def __init__(self, file):
            self.file = file

        def write(self, line):
            if self.file.seek(0, os.SEEK_END) >= 10:
                raise OSError(28, "No space left on device")
            return self.file.write(line[:10])

        def __getattr__(self, name):
            return getattr(self.file, name)

    source.write_text("a\n")
    output = lib._Output(source, target)
    output._file = Full(output._file)
    with pytest.raises(lib.ConfigError, match="No space left"):
        output.write({"id": 1, "response": {}})
    output.close()
    assert target.read_bytes() == b""


def lines_of(target):
    return target.read_bytes().count(b"\n") if target.exists() else 0


def wait_until(condition):
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.001)


def wait_for_lines(process, target, number):
    wait_until(lambda: lines_of(target) >= number or process.poll() is not None)
    assert process.poll() is None, "it ended by itself"


def test_ctrl_c_writes_what_is_being_answered_and_leaves(files):
    source, target = files
    source.write_text("".join(f"{n}\n" for n in range(5000)))  # more than anyone waits for
    with lib.OfflineServer() as server:
        process = subprocess.Popen(command(source, target, "-j", "4", "--base-url", server.url),
                                   stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        wait_for_lines(process, target, 20)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
        asked = len(server.requests)
    assert process.returncode == 130
    assert b"answers are still to come" in errors
    assert b" answered, 0 errors" in errors
    assert asked == len(written(target)) < 5000


def test_ctrl_c_while_an_answer_is_written_loses_none(files, offline, monkeypatch):
    source, target = files
    source.write_text("".join(f"{n}\n" for n in range(50)))
    write = lib._Output.write

    def interrupted(output, told):
        if told["id"] == 7:
            signal.raise_signal(signal.SIGINT)
        write(output, told)

    monkeypatch.setattr(lib._Output, "write", interrupted)
    client, result = offline(), lib.BatchResult()
    with pytest.raises(KeyboardInterrupt):
        lib.run_batch(client, source, target, defaults={"model": "m"}, jobs=2, result=result)
    assert 7 in [told["id"] for told in written(target)]
    assert len(client.server.requests) == len(written(target)) == result.answered < 50


def test_a_batch_runs_in_a_thread_too_where_no_ctrl_c_arrives(files, offline):
    source, target = files
    source.write_text("a\nb\n")
    with ThreadPoolExecutor(1) as elsewhere:
        run_batch = partial(lib.run_batch, defaults={"model": "m"}, jobs=1)
        result = elsewhere.submit(run_batch, offline("A", "B"), source, target).result(PATIENCE)
    assert str(result) == "2 lines: 2 answered, 0 errors"


def test_another_ctrl_c_leaves_at_once(files):
    source, target = files
    source.write_text("a\nb\n")
    with Wire(Reply(b"", SILENCE)) as wire:
        process = subprocess.Popen(command(source, target, "-j", "2", "--base-url", wire.url),
                                   stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        wait_until(lambda: len(wire.requests) == 2)
        process.send_signal(signal.SIGINT)
        assert b"still to come" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert written(target) == []


def test_a_thousand_lines_with_failures_killed_twice_are_each_done_once(files):
    source, target = files
    source.write_text("".join(f'{{"id": {n}, "messages": [{{"role": "user", "content": "{n}"}}]}}\n'
                              for n in range(1000)))  # fmt: skip

    def reply(body):
        number = body["messages"][0]["content"]
        return (400, {"error": {"message": number}}) if number.endswith("7") else f"no. {number}"

    def asked_from(start):
        return Counter(int(r.body["messages"][0]["content"]) for r in server.requests[start:])

    with lib.OfflineServer(iter(lambda: reply, None)) as server:
        for lines in (250, 600):
            process = subprocess.Popen(command(source, target, "-j", "8", "--base-url", server.url),
                                       stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            wait_for_lines(process, target, lines)
            process.kill()
            process.wait()
            # A line that was cut off is not done.
            done_lines = target.read_bytes().split(b"\n")[:-1]
            done = {json.loads(line)["id"] for line in done_lines}
            before = len(server.requests)
            finished = (
                run(source, target, "-j", "8", "--base-url", server.url) if lines == 600 else None
            )
            if finished:
                assert not done & asked_from(before).keys(), "asked again what was written"
    assert f"{len(done)} done before" in finished.stderr
    told = written(target)
    assert sorted(line["id"] for line in told) == list(range(1000))
    for line in told:
        if line["id"] % 10 == 7:
            assert line["error"]["message"].startswith(f"400: {line['id']} ")
        else:
            text = line["response"]["choices"][0]["message"]["content"]
            assert text == f"no. {line['id']}"


def test_progress_is_a_bar_or_a_counter_on_a_terminal_and_nothing_elsewhere(
    monkeypatch, capsys, files
):
    source, _ = files
    source.write_text("a\nb\nc\n")
    result = lib.BatchResult(lines=3, answered=1, errors=1)
    lib.progress_shown(source)(result)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    lib.progress_shown(source)(result)
    assert capsys.readouterr().err == "\r2/3, 1 errors "
    moved = []

    class Bar:
        def __init__(self, total, unit):
            self.n = 0

        def update(self, by):
            self.n += by
            moved.append(by)

        def close(self):
            moved.append("closed")

    monkeypatch.setitem(sys.modules, "tqdm", type("tqdm", (), {"tqdm": Bar}))
    show = lib.progress_shown(source)
    show(result)
    show(lib.BatchResult(lines=3, answered=2, errors=1))
    assert moved == [2, 1, "closed"]
