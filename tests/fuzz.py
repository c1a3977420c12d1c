"""Sends hostile replies. Invariant: for any bytes of a server, a call or a stream gives a
result or raises an OpenAIError; and a truncated stream never counts as a complete response.

    python -m tests.fuzz [--runs 10000] [--seed 0] [--cuts]

The server sends random bytes and random mutations of good streams and bodies. `--cuts` sends
a recorded stream cut at every byte, ended in four ways; the tests do so for some cuts.
"""

import argparse
import random
import sys
import time

from . import lib
from .test_recordings import FILES, check_cut_on_the_wire, recorded
from .wire import CLOSE, KEEP, RESET, SILENCE, Reply, Wire, completion, http

QUESTION = {"model": "m", "messages": []}
SEEDS = [
    *[path.read_bytes() for path in FILES],
    http(completion()).partition(b"\r\n\r\n")[2],
    b'{"error": {"message": "busy", "type": "t", "param": null, "code": "c"}}',
]
PIECES = [
    b"\n", b"\r", b"\n\n", b"data: ", b"data:", b"event: error\n", b"error: ", b": ", b"[DONE]",
    b"{", b"}", b"[", b"]", b'"', b"null", b"1e999", b"-", b"NaN", b"\\ud83d", b"\xff", b"\x00",
    b"\xef\xbb\xbf", b'"choices":', b'"delta":', b'"error":', b'"index":', b'"finish_reason":',
    b'"tool_calls":', b"[" * 3000, b'{"a":' * 3000, b"<html>", "\u2028".encode(), b"0\r\n\r\n",
]  # fmt: skip


def random_bytes(rng):
    kind = rng.random()
    if kind < 0.3:
        return rng.randbytes(rng.randrange(300))
    if kind < 0.7:
        return b"".join(rng.choices(PIECES, k=rng.randrange(20)))
    return bytes(rng.choices(b' \n\r:{}[]",datero01', k=rng.randrange(200)))


def mutated(rng):
    """A good stream or body, with some of its bytes changed."""
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data) + 1)
        width = rng.randrange(20)
        kind = rng.random()
        if kind < 0.3:
            data[at : at + width] = rng.choice(PIECES)
        elif kind < 0.5:
            data[at : at + width] = b""
        elif kind < 0.7:
            data[at:at] = data[at : at + width * 10]
        elif kind < 0.9 and data:
            data[at % len(data)] = rng.randrange(256)
        else:
            data[at:] = b""
    return bytes(data)


def reply(rng):
    """A reply whose body is such bytes, framed in one of three ways, or without any HTTP."""
    body = random_bytes(rng) if rng.random() < 0.5 else mutated(rng)
    if rng.random() < 0.1:
        return Reply(body, rng.choice([CLOSE, RESET]))
    status = rng.choice(["200 OK"] * 6 + ["400 Bad", "500 Oops", "302 Found", "204 None", "abc"])
    framing = rng.choice(["chunked", "close", "length"])
    data = http(body, status, framing=framing)
    end = rng.choice([KEEP, CLOSE]) if framing != "close" else CLOSE
    if rng.random() < 0.1:
        data, end = data[: rng.randrange(len(data) + 1)], rng.choice([CLOSE, RESET])
    return Reply(data, end)


def fuzz(runs, seed):
    rng = random.Random(seed)
    outcomes = {}
    with (
        Wire(lambda request: reply(rng)) as wire,
        lib.OpenAIClient(base_url=wire.url, timeout=5, max_retries=0) as client,
    ):
        for run in range(runs):
            stream = run % 5 < 3
            try:
                if stream:
                    lib.create_chat_completion_stream(client, QUESTION).response()
                else:
                    lib.create_chat_completion(client, QUESTION)
                outcome = "an answer"
            except lib.OpenAIError as error:
                outcome = type(error).__name__
            except BaseException:
                print(f"run {run} of seed {seed}, {stream=}")
                raise
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


class Asker:
    """The `ask` fixture, for use outside of pytest; one server at a time."""

    def __init__(self):
        self.open = []

    def __call__(self, reply, **settings):
        self.close()
        wire = Wire(reply)
        client = lib.OpenAIClient(base_url=wire.url, **settings)
        self.open = [wire, client]
        return client

    def close(self):
        for thing in reversed(self.open):
            thing.__exit__(None, None, None)
        self.open = []


def cut_everywhere():
    raw, _ = recorded("openai")
    ask = Asker()
    count = 0
    for end in (CLOSE, RESET, SILENCE):
        for framing in ("chunked", "close") if end == CLOSE else ("chunked",):
            for cut in range(len(raw) + 1):
                check_cut_on_the_wire(ask, dict(QUESTION), raw, cut, end, framing)
                count += 1
            print(f"{end}, {framing}: {len(raw) + 1} cuts hold", flush=True)
    ask.close()
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cuts", action="store_true")
    options = parser.parse_args()
    started = time.monotonic()
    if options.cuts:
        print(cut_everywhere(), "cuts", end=" ")
    else:
        print(fuzz(options.runs, options.seed), end=" ")
    print(f"in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
