"""Calls that are interrupted at random instants spoil no other call: a short run of
`tests/interrupt.py`, which says what is checked."""

import pytest

from .interrupt import KINDS, EchoServer, can, run

# Some take longer than others.
COUNTS = {"signal": 300, "ctrl_c": 300, "close_stream": 500, "fork": 20}


@pytest.fixture(scope="module")
def server():
    with EchoServer() as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
def test_an_interruption_spoils_no_other_call(server, kind):
    if not can(kind):
        pytest.skip("this system has no such interruptions")
    count = COUNTS.get(kind, 100)
    counts = run(kind, count, 1, server)
    assert counts["broken"] == 0, "\n".join(counts["examples"])
    assert counts["interruptions"] >= count
