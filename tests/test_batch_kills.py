"""A batch that is killed at random moments, with 429s and 503s mixed in: no written line is
sent again, no line is lost, and only final results are written.

    python -m tests.test_batch_kills 2000 20    # lines, kills: what the suite does, for longer
"""

import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from . import lib
from .batches import PATIENCE, BatchServer, command, question, reply_with_error, run, written

pytestmark = pytest.mark.skipif(lib.name != "chatgptlib", reason="only the package has it")

JOBS = 8


class Flaky:
    """A server that gives one line in ten a final error, and any line a transient one at times."""

    def __init__(self, chance):
        self.chance = chance
        self.written = set()  # what OUT had when this run began
        self.asked_again, self.passing, self.answered = [], 0, 0

    def __call__(self, body):
        text = question(body)
        if text in self.written:
            self.asked_again.append(text)
        if (drawn := self.chance.random()) < 0.1:
            self.passing += 1
            return reply_with_error(429, "slow down", **{"retry-after": 0.05})
        if drawn < 0.2:
            self.passing += 1
            return reply_with_error(503, "busy", **{"retry-after": 0})
        self.answered += 1
        return reply_with_error(400, f"no {text}") if text.endswith("7") else f"yes {text}"


def complete_lines(target):
    lines = target.read_bytes().split(b"\n")[:-1] if target.exists() else []
    return [json.loads(line) for line in lines]


def killed_batch(folder, lines, kills, seed):
    """Run a batch that is killed so many times, then once to its end."""
    source, target = folder / "in.txt", folder / "out.jsonl"
    source.write_text("".join(f"{n}\n" for n in range(1, lines + 1)))
    flaky = Flaky(chance := random.Random(seed))
    with BatchServer(flaky) as server:
        for _ in range(kills):
            flaky.written = {str(told["id"]) for told in complete_lines(target)}
            until = flaky.answered + chance.randrange(1, lines // kills)
            process = subprocess.Popen(command(source, target, "-j", str(JOBS), "--base-url", server.url),
                                       stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            limit = time.monotonic() + PATIENCE
            while flaky.answered < until and process.poll() is None:
                assert time.monotonic() < limit
                threading.Event().wait(chance.random() * 0.01)
            assert process.poll() is None, "it ended by itself"
            process.kill()
            process.wait()
        flaky.written = {str(told["id"]) for told in complete_lines(target)}
        before = len(flaky.written)
        done = run(source, target, "-j", str(JOBS), "--base-url", server.url)
    return flaky, server, done, before, target


def check(folder, lines, kills, seed):
    flaky, server, done, before, target = killed_batch(folder, lines, kills, seed)
    assert flaky.asked_again == [], "asked again what was written"
    assert flaky.passing > 0
    told = written(target)
    assert sorted(line["id"] for line in told) == list(range(1, lines + 1)), "lost, or twice"
    for line in told:
        if str(line["id"]).endswith("7"):
            assert line["error"]["status_code"] == 400, "not final"
        else:
            text = line["response"]["choices"][0]["message"]["content"]
            assert text == f"yes {line['id']}"
    errors = len([line for line in told if "error" in line])
    assert (
        f"{lines} lines: {lines - errors} answered, {errors} errors ({before} of them earlier)"
        in done.stderr
    )
    # Only requests in progress at a kill are sent twice.
    assert len(server.asked) - flaky.passing - lines <= kills * JOBS
    return f"{lines} lines, {kills} kills, {flaky.passing} transient errors, {len(server.asked)} requests"


@pytest.mark.gate
@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_batch_loses_no_line_and_sends_no_written_line_again(tmp_path, seed):
    check(tmp_path, 300, 4, seed)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(check(Path(name), *map(int, sys.argv[1:3]), seed=random.randrange(10**6)))
