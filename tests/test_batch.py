"""A batch answers every line once, whatever stops it, and exits with 0 only if all went well."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from itertools import chain, repeat

import pytest

from . import lib
from .batches import (
    PATIENCE,
    BatchServer,
    command,
    ids_in,
    question,
    reply_with_error,
    run,
    wait_until,
    written,
)
from .wire import SILENCE, Reply, Wire, completion

pytestmark = pytest.mark.skipif(lib.name != "chatgptlib", reason="only the package has it")


@pytest.fixture
def files(tmp_path):
    return tmp_path / "in.jsonl", tmp_path / "out.jsonl"


def numbered(source, count):
    source.write_text("".join(f"{n}\n" for n in range(1, count + 1)))


def test_each_line_is_sent_and_its_response_written_with_its_id(files):
    source, target = files
    request = {"messages": [{"role": "user", "content": "b"}], "temperature": 1}
    lines = [
        "A plain prompt",
        json.dumps('A "quoted" prompt'),
        json.dumps({"id": 7, **request}),
        json.dumps({"custom_id": "mine", "method": "POST", "url": "/v1/x", "body": request}),
    ]
    source.write_text("\ufeff" + lines[0] + "\r\n\n" + "\n".join(lines[1:]), "utf-8")
    texts = iter("1234")
    with BatchServer(lambda body: next(texts)) as server:
        done = run(source, target, "-j", "1", "-t", "0.5", "--param", "seed=3", "-m", "m",
                   "--base-url", server.url)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("chatgptlib: 4 lines: 4 answered, 0 errors\n")
    assert server.questions == ["A plain prompt", 'A "quoted" prompt', "b", "b"]
    assert [body["temperature"] for body in server.asked] == [0.5, 0.5, 1, 1]
    assert {(body["seed"], body["model"]) for body in server.asked} == {(3, "m")}
    assert ids_in(target) == [1, 3, 7, "mine"]
    texts = [told["response"]["choices"][0]["message"]["content"] for told in written(target)]
    assert texts == ["1", "2", "3", "4"]


def test_an_empty_input_succeeds_and_prints_nothing(files):
    source, target = files
    source.write_text("\n \n")
    done = run(source, target, "--offline")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_help_fits_on_a_screen():
    done = run("--help", "", COLUMNS="80")
    assert len(done.stdout.splitlines()) <= 40
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("wrong", [("-j", "0"), ("--rpm", "-1"), ("--tpm", "0")])
def test_limits_that_are_not_positive_are_a_usage_error(files, wrong):
    done = run(*files, "--offline", *wrong)
    assert done.returncode == 2
    assert "must be more than 0" in done.stderr


# Transient failures are not final


def test_a_permanent_error_is_written_and_the_other_lines_are_sent(files):
    source, target = files
    source.write_text("a\nb\n")
    told = {"error": {"message": "Too long", "code": "long"}}
    with BatchServer(
        lambda body: (400, told, {"x-request-id": "req_1"}) if question(body) == "a" else "B"
    ) as server:
        done = run(source, target, "-j", "1", "--base-url", server.url)
    assert done.returncode == 1
    assert "2 lines: 1 answered, 1 errors" in done.stderr
    assert "id 1: 400: Too long" in done.stderr
    error = written(target)[0]["error"]
    assert (error["type"], error["status_code"], error["code"]) == ("BadRequestError", 400, "long")
    assert (error["body"], error["request_id"]) == (told, "req_1")
    assert "Too long" in error["message"]


@pytest.mark.parametrize("status", [408, 409, 500, 501, 503, 529])
def test_a_transient_failure_is_not_written_and_the_next_run_sends_its_line_again(files, status):
    source, target = files
    source.write_text("a\nb\nc\n")
    with BatchServer(
        lambda body: reply_with_error(status) if question(body) == "b" else "ok"
    ) as server:
        done = run(source, target, "-j", "1", "--retries", "0", "--base-url", server.url)
        assert done.returncode == 1
        assert f"id 2: {status}: no" in done.stderr
        assert "3 lines: 2 answered, 0 errors" in done.stderr
        assert "1 not answered: the same command sends them again" in done.stderr
        assert ids_in(target) == [1, 3]
    with BatchServer() as server:
        done = run(source, target, "--base-url", server.url)
    assert server.questions == ["b"]
    assert done.returncode == 0
    assert "3 lines: 3 answered, 0 errors (2 of them earlier)" in done.stderr


def test_a_line_without_a_connection_is_not_written(files):
    source, target = files
    source.write_text("a\n")
    done = run(source, target, "--retries", "0", "--base-url", "http://127.0.0.1:9/v1")
    assert done.returncode == 1
    assert "id 1: no connection" in done.stderr
    assert target.read_text() == ""


def test_a_truncated_response_is_not_written(files):
    source, target = files
    source.write_text("a\n")
    with Wire(
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{",
    ) as wire:
        wire.replies[0].end = "close"
        done = run(source, target, "--base-url", wire.url)
    assert done.returncode == 1
    assert "1 not answered" in done.stderr
    assert target.read_text() == ""


def test_a_failure_is_tried_again_before_its_line_is_given_up(files):
    source, target = files
    source.write_text("a\n")
    replies = chain([reply_with_error(503, **{"retry-after": 0})] * 3, repeat("ok"))
    with BatchServer(lambda body: next(replies)) as server:
        done = run(source, target, "--retries", "3", "--base-url", server.url)
    assert (done.returncode, len(server.asked)) == (0, 4)


@pytest.mark.gate
@pytest.mark.versions
def test_a_429_holds_all_requests_back_and_no_line_is_lost(files):
    source, target = files
    numbered(source, 8)
    state = {"open_at": 0.0, "too_early": 0}

    def one_at_a_time(body):
        now = server.times[-1]
        if now < state["open_at"]:
            state["too_early"] += 1
            return reply_with_error(429, "slow down", **{"retry-after": state["open_at"] - now})
        state["open_at"] = now + 0.05
        return "ok"

    with BatchServer(one_at_a_time) as server:
        done = run(source, target, "-j", "4", "--base-url", server.url)
    assert done.returncode == 0
    assert sorted(ids_in(target)) == list(range(1, 9))
    assert state["too_early"] < 24  # of three workers that come too early each time
    assert "429" not in done.stderr


@pytest.mark.parametrize("retry_after", [None, 0, 0.1, 30])
def test_429s_stop_a_batch_after_a_minute_at_least(monkeypatch, retry_after):
    now = [1000.0]
    monkeypatch.setattr(sys.modules[lib.RateLimiter.__module__].time, "monotonic", lambda: now[0])
    error = lib.RateLimitError("no", status_code=429, retry_after=retry_after)
    limiter, holds = lib.RateLimiter(1, None, None), 0
    while limiter.back_off(error):
        now[0], holds = limiter.held_until, holds + 1
    assert now[0] >= 1060
    assert holds == 14


def test_429s_for_every_request_stop_the_batch_and_write_no_line(files, monkeypatch):
    monkeypatch.setattr(sys.modules[lib.RateLimiter.__module__], "_LEAST_HOLD", 0.0)  # not a minute
    source, target = files
    numbered(source, 20)
    with BatchServer(lambda body: reply_with_error(429, "storm", **{"retry-after": 0})) as server:
        done = run(source, target, "-j", "4", "--base-url", server.url)
    assert done.returncode == 1
    assert done.stderr.count("429: storm") == 1
    assert "20 not answered" in done.stderr
    assert target.read_text() == ""
    with BatchServer() as server:
        assert run(source, target, "--base-url", server.url).returncode == 0
    assert len(server.asked) == 20


def test_a_429_that_asks_to_wait_for_hours_stops_the_batch_at_once(files):
    source, target = files
    numbered(source, 3)
    with BatchServer(
        lambda body: reply_with_error(429, "per day", **{"retry-after": 9000})
    ) as server:
        done = run(source, target, "-j", "1", "--base-url", server.url)
    assert (done.returncode, len(server.asked)) == (1, 1)
    assert "429: per day" in done.stderr


@pytest.mark.gate
@pytest.mark.versions
def test_rpm_keeps_requests_apart_from_the_start(files):
    source, target = files
    numbered(source, 6)
    with BatchServer() as server:
        assert run(source, target, "--rpm", "600", "--base-url", server.url).returncode == 0
    assert server.times[-1] - server.times[0] > 0.4


@pytest.mark.gate
@pytest.mark.versions
def test_tpm_limits_the_rate_of_the_tokens_that_responses_report(files):
    source, target = files
    numbered(source, 6)
    told = {
        **completion(),
        "usage": {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100},
    }
    with BatchServer(lambda body: told) as server:
        assert run(source, target, "--tpm", "60000", "--base-url", server.url).returncode == 0
    assert server.times[-1] - server.times[0] > 0.4


def test_lines_with_errors_are_sent_again_only_with_retry_errors(files):
    source, target = files
    numbered(source, 3)
    with BatchServer(
        lambda body: reply_with_error(400) if question(body) == "2" else "ok"
    ) as server:
        run(source, target, "-j", "1", "--base-url", server.url)
        done = run(source, target, "--base-url", server.url)
    assert len(server.asked) == 3
    assert done.returncode == 1
    assert "3 lines: 2 answered, 1 errors (3 of them earlier)" in done.stderr
    assert "1 errors: --retry-errors sends them again" in done.stderr
    with BatchServer() as server:
        done = run(source, target, "--retry-errors", "--base-url", server.url)
    assert (done.returncode, server.questions) == (0, ["2"])
    assert sorted(ids_in(target)) == [1, 2, 3]
    assert all("response" in told for told in written(target))


@pytest.mark.parametrize("jobs", [1, 4])
def test_five_equal_errors_stop_the_batch_and_are_shown_once(files, jobs):
    source, target = files
    numbered(source, 40)
    numbers = iter(range(1000))

    def no_such_model(body):
        return (
            404,
            {"error": {"message": "no model wrong"}},
            {"x-request-id": f"req_{next(numbers)}"},
        )

    with BatchServer(no_such_model) as server:
        done = run(source, target, "-j", str(jobs), "-m", "wrong", "--base-url", server.url)
    assert done.returncode == 1
    assert done.stderr.count("no model wrong") == 1
    assert "stopped: 5 lines in a row had the same error" in done.stderr
    assert "-m is the model" in done.stderr
    assert 5 <= len(server.asked) < 5 + jobs
    assert len(written(target)) == len(server.asked)
    with BatchServer() as server:
        done = run(source, target, "-m", "right", "--retry-errors", "--base-url", server.url)
    assert done.returncode == 0
    assert sorted(ids_in(target)) == list(range(1, 41))


def test_equal_errors_with_answers_between_them_do_not_stop_it(files):
    source, target = files
    numbered(source, 20)
    with BatchServer(
        lambda body: reply_with_error(400) if int(question(body)) % 4 else "ok"
    ) as server:
        run(source, target, "-j", "1", "--base-url", server.url)
    assert len(written(target)) == 20


def test_an_unreachable_server_stops_the_batch_and_writes_no_line(files):
    source, target = files
    numbered(source, 20)
    done = run(source, target, "-j", "2", "--retries", "0", "--base-url", "http://127.0.0.1:9/v1")
    assert done.returncode == 1
    assert done.stderr.count("no connection") == 1
    assert "stopped" in done.stderr
    assert "20 not answered: the same command sends them again" in done.stderr
    assert "--retry-errors" not in done.stderr
    assert target.read_text() == ""


@pytest.mark.parametrize("status", [401, "quota"])
def test_a_401_or_an_exhausted_quota_stops_the_batch_and_writes_no_line(files, status):
    source, target = files
    source.write_text("a\nb\nc\n")
    quota = 429, {"error": {"message": "Bad key", "code": "insufficient_quota"}}, {"retry-after": 1}
    told = quota if status == "quota" else reply_with_error(status, "Bad key")
    with BatchServer(lambda body: told) as server:
        done = run(source, target, "-j", "1", "--base-url", server.url)
    assert (done.returncode, len(server.asked)) == (1, 1)
    assert done.stderr.count("Bad key") == 1
    assert "stopped at id 1\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert target.read_text() == ""


def test_a_403_for_one_line_is_written_and_the_other_lines_are_sent(files):
    source, target = files
    numbered(source, 8)
    with BatchServer(
        lambda body: reply_with_error(403, "flagged") if question(body) == "2" else "ok"
    ) as server:
        done = run(source, target, "-j", "1", "--base-url", server.url)
    assert (done.returncode, len(server.asked)) == (1, 8)
    assert "id 2: 403: flagged" in done.stderr
    assert "8 lines: 7 answered, 1 errors" in done.stderr
    assert written(target)[1]["error"]["type"] == "PermissionDeniedError"


def test_a_403_for_every_line_stops_the_batch_like_other_equal_errors(files):
    source, target = files
    numbered(source, 20)
    with BatchServer(lambda body: reply_with_error(403, "not for this key")) as server:
        done = run(source, target, "-j", "1", "--base-url", server.url)
    assert (done.returncode, len(server.asked)) == (1, 5)
    assert "stopped: 5 lines in a row had the same error" in done.stderr
    assert done.stderr.count("not for this key") == 1


# A truncated answer is not a success


def cut(reason="length"):
    answer = completion("Once upon a")
    answer["choices"][0]["finish_reason"] = reason
    return answer


def test_a_truncated_answer_is_reported_and_fails_this_run_and_later_ones(files):
    source, target = files
    numbered(source, 3)
    with BatchServer(lambda body: cut() if question(body) == "2" else "ok") as server:
        for asked in (3, 3):
            done = run(source, target, "--base-url", server.url)
            assert done.returncode == 1
            assert "1 cut off: raise --max-tokens" in done.stderr
            assert len(server.asked) == asked
    with BatchServer() as server:
        done = run(source, target, "--max-tokens", "9", "--retry-cut", "--base-url", server.url)
    assert (done.returncode, server.questions) == (0, ["2"])
    assert sorted(ids_in(target)) == [1, 2, 3]


def test_an_answer_cut_off_by_a_content_filter_is_reported_and_fails_the_run(files):
    source, target = files
    numbered(source, 2)
    with BatchServer(lambda body: cut("content_filter")) as server:
        done = run(source, target, "--base-url", server.url)
    assert done.returncode == 1
    assert "2 cut off by the server's content filter" in done.stderr
    assert "--max-tokens" not in done.stderr


# The mark of a line covers what was asked


def test_lines_already_in_out_are_not_sent_again(files):
    source, target = files
    source.write_text("a\nb\nc\n")
    target.write_text('{"id": 2, "error": {}}\n{"id": 1, "resp')
    with BatchServer() as server:
        done = run(source, target, "-j", "1", "--base-url", server.url)
    assert server.questions == ["a", "c"]
    assert "3 lines: 2 answered, 1 errors (1 of them earlier)" in done.stderr
    assert done.returncode == 1
    assert ids_in(target) == [2, 1, 3]


def test_a_line_changed_since_it_was_answered_is_reported_and_resent_with_again(files):
    source, target = files
    source.write_text("a\nb\n")
    assert run(source, target, "--offline").returncode == 0
    source.write_text("a\nc\n")
    done = run(source, target, "--offline")
    assert done.returncode == 1
    assert (
        "id 2: its answer in OUT comes from --offline or belongs to another request; --again sends it"
        in done.stderr
    )
    assert len(written(target)) == 2
    assert run(source, target, "--offline", "--again").returncode == 0
    assert "You asked: c" in target.read_text()
    assert "You asked: b" not in target.read_text()


def test_offline_answers_do_not_count_as_answers_of_the_server(files):
    source, target = files
    numbered(source, 2)
    assert run(source, target, "--offline").returncode == 0
    with BatchServer() as server:
        done = run(source, target, "--base-url", server.url)
        assert (done.returncode, server.asked) == (1, [])
        assert (
            "id 1: its answer in OUT comes from --offline or belongs to another request"
            in done.stderr
        )
        assert run(source, target, "--again", "--base-url", server.url).returncode == 0
    assert sorted(server.questions) == ["1", "2"]
    assert len(written(target)) == 2


@pytest.mark.parametrize(
    "changed", [("-m", "n"), ("-s", "Be brief."), ("-t", "1"), ("--max-tokens", "5"), ("--param", "seed=1"),
                ("--schema", "s.json")],
)  # fmt: skip
def test_a_changed_option_is_reported_and_lines_are_resent_only_with_again(
    files, tmp_path, changed
):
    source, target = files
    own = {"id": "own", "model": "o", "messages": [{"role": "system", "content": "s"}]}
    source.write_text(f"a\n{json.dumps(own)}\n")
    (tmp_path / "s.json").write_text('{"type": "object"}')
    changed = [str(tmp_path / word) if word == "s.json" else word for word in changed]
    others = 1 if changed[0] in ("-m", "-s") else 2  # a line keeps its own model and system prompt
    with BatchServer() as server:
        assert run(source, target, "-m", "m", "--base-url", server.url).returncode == 0
        done = run(source, target, "-m", "m", *changed, "--base-url", server.url)
        assert (done.returncode, len(server.asked)) == (0, 2)
        assert f"{others} answered with other options" in done.stderr
        assert "--again sends them again" in done.stderr
        done = run(source, target, "-m", "m", *changed, "--again", "--base-url", server.url)
        assert len(server.asked) == 2 + others
        done = run(source, target, "-m", "m", *changed, "--again", "--base-url", server.url)
    assert len(server.asked) == 2 + others
    assert "other options" not in done.stderr
    assert len(written(target)) == 2


def test_the_system_prompt_is_added_to_requests_that_have_none(files):
    source, target = files
    requests = [
        {"messages": [{"role": "user", "content": "a"}]},
        {"messages": [{"role": "developer", "content": "d"}, {"role": "user", "content": "a"}]},
    ]
    source.write_text("\n".join(["a", *map(json.dumps, requests)]))
    with BatchServer() as server:
        run(source, target, "-j", "1", "-s", "Be brief.", "--base-url", server.url)
    first = [(body["messages"][0]["role"], len(body["messages"])) for body in server.asked]
    assert first == [("system", 2), ("system", 2), ("developer", 2)]


# What it cost


def test_the_tokens_of_all_answers_are_summed_and_priced(files):
    source, target = files
    numbered(source, 3)
    usage = {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200,
             "prompt_tokens_details": {"cached_tokens": 600}}  # fmt: skip
    with BatchServer(lambda body: {**completion(), "usage": usage}) as server:
        done = run(source, target, "--price-in", "2", "--price-out", "10", "--base-url", server.url)
    told = "tokens: 3,000 prompt (1,800 of them cached), 600 completion"
    assert f"{told}; price: 0.012000\n" in done.stderr
    source.write_text("1\n2\n3\n4\n")
    with BatchServer(lambda body: {**completion(), "usage": None}) as server:
        done = run(source, target, "--base-url", server.url)
    assert f"{told}; 1 answers did not report any\n" in done.stderr


def test_usage_that_is_not_a_number_counts_as_unknown_in_this_and_later_runs(files):
    source, target = files
    numbered(source, 2)
    usage = {"prompt_tokens": "5", "completion_tokens": {}, "total_tokens": "7",
             "prompt_tokens_details": {"cached_tokens": "3"}}  # fmt: skip
    with BatchServer(lambda body: {**completion(), "usage": usage}) as server:
        for _ in range(2):
            done = run(source, target, "--base-url", server.url)
            assert done.returncode == 0
            assert "2 answers did not report any" in done.stderr
    assert len(server.asked) == len(written(target)) == 2


# Ctrl-C


def start(source, target, *arguments):
    return subprocess.Popen(command(source, target, *arguments), stdin=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip


def test_ctrl_c_waits_for_running_requests_and_says_how_to_resume(files):
    source, target = files
    numbered(source, 5000)  # more than anyone waits for
    with BatchServer() as server:
        process = start(source, target, "-j", "4", "--base-url", server.url)
        wait_until(lambda: len(server.asked) >= 20)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "stopping; waiting for " in errors
    assert "5000 lines: " in errors
    assert re.search(r"\d+ not answered: the same command sends them again", errors)
    assert len(server.asked) == len(written(target)) < 5000


@pytest.mark.gate
@pytest.mark.versions
def test_another_ctrl_c_leaves_at_once(files):
    source, target = files
    source.write_text("a\nb\n")
    with Wire(Reply(b"", SILENCE)) as wire:
        process = start(source, target, "-j", "2", "--base-url", wire.url)
        wait_until(lambda: len(wire.requests) == 2)
        process.send_signal(signal.SIGINT)
        assert "waiting for 2 answers" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert written(target) == []


def test_ctrl_c_ends_the_wait_that_a_429_asked_for(files):
    source, target = files
    source.write_text("a\nb\n")
    with BatchServer(lambda body: reply_with_error(429, **{"retry-after": 600})) as server:
        process = start(source, target, "-j", "1", "--base-url", server.url)
        wait_until(lambda: server.asked)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "2 not answered" in errors


# What a person sees


@pytest.fixture
def terminal():
    pytest.importorskip("pty", reason="there are no pseudo-terminals here")
    from .test_interactive import Terminal

    return Terminal


@pytest.mark.gate
@pytest.mark.versions
def test_progress_shows_errors_truncations_rate_and_time_left(files, terminal):
    source, target = files
    numbered(source, 20)
    told = {
        "1": reply_with_error(400, "long"),
        "2": cut(),
        "3": reply_with_error(429, **{"retry-after": 1}),
    }
    with (
        BatchServer(lambda body: told.pop(question(body), "ok")) as server,
        terminal(
            "batch", str(source), str(target), "-j", "1", "--rpm", "6000", "--base-url", server.url
        ) as screen,
    ):
        screen.until("chatgptlib: id 1: 400: long")
        shown = screen.until(" s (429)")
        assert re.search(
            r"\r2/20, 1 errors, 1 cut off, [0-9.]+/s, 0:[0-9:]+ left, waiting [0-9]+ s", shown
        )
        assert "20/20" in screen.until("\r\n")
        screen.until("chatgptlib: 20 lines: 19 answered, 1 errors\r\n")
        assert screen.ended() == 1


@pytest.mark.gate
@pytest.mark.versions
def test_errors_of_earlier_runs_are_in_the_count_of_progress(files, terminal):
    source, target = files
    numbered(source, 2)
    target.write_text('{"id": 1, "error": {}}\n')
    with (
        BatchServer() as server,
        terminal("batch", str(source), str(target), "--base-url", server.url) as screen,
    ):
        screen.until("2/2, 1 errors")
        assert screen.ended() == 1


@pytest.mark.gate
@pytest.mark.versions
def test_control_characters_are_escaped_in_everything_shown(files, terminal):
    source, target = files
    evil = "a\x1b]0;owned\x07b\x9b2Jc\u202ed\u200be\x7f"
    source.write_text(json.dumps({"id": "i\x1b[2J", "messages": [{}]}) + "\nx\n")
    with BatchServer(
        lambda body: reply_with_error(400, evil) if len(body["messages"][0]) == 0 else evil
    ) as server:
        with terminal("batch", str(source), "-", "-j", "1", "--base-url", server.url) as screen:
            shown = screen.until("2 lines: 1 answered, 1 errors")
            assert screen.ended() == 1
        done = run(source, target, "-j", "1", "--retry-errors", "--base-url", server.url)
    for text in (shown, done.stderr):
        assert "a\\u001b]0;owned\\u0007b\\u009b2Jc\\u202ed\\u200be\\u007f" in text
        assert not re.search("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u202e]", text)


@pytest.mark.parametrize("count", [10**400, float("inf"), -1, 2**60])
def test_an_absurd_number_of_tokens_stops_no_batch(files, count):
    source, target = files
    numbered(source, 2)
    usage = {"prompt_tokens": count, "completion_tokens": count, "total_tokens": count}
    with BatchServer(lambda body: {**completion(), "usage": usage}) as server:
        for _ in range(2):
            done = run(
                source, target, "--tpm", "60000", "--price-in", "1", "--base-url", server.url
            )
            assert done.returncode == 0
            assert "2 answers did not report any" in done.stderr
    assert len(server.asked) == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to handle")
@pytest.mark.gate
@pytest.mark.versions
def test_sigterm_lets_the_running_answers_be_written(files):
    source, target = files
    numbered(source, 5000)
    answered = threading.Event()

    def answer(body):
        answered.set()
        time.sleep(0.01)
        return "ok"

    with BatchServer(answer) as server:
        process = start(source, target, "-j", "4", "--base-url", server.url)
        assert answered.wait(60)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "waiting for" in errors
    assert len(ids_in(target)) == len(server.asked)


def test_a_batch_goes_on_with_the_threads_that_the_system_allows(files, monkeypatch):
    source, target = files
    numbered(source, 5)
    allowed = iter([True, True])
    begin = threading.Thread.start

    def begin_some(thread):
        if thread.name.endswith("(_work)") and not next(allowed, False):
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", begin_some)
    with BatchServer() as server:
        done = run(source, target, "-j", "4", "--base-url", server.url)
    assert done.returncode == 0
    assert "the system allows only 2 threads" in done.stderr
    assert len(ids_in(target)) == 5
