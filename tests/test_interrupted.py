"""Calls that are interrupted at random instants spoil no other call: a short run of
`tests/interrupt.py`, which says what is checked."""

import pytest

from .interrupt import KINDS, EchoServer, can, run

COUNTS = {"signal": 300, "ctrl_c": 300, "close_stream": 500, "fork": 20}  # others: 100


@pytest.fixture(scope="module")
def server():
    with EchoServer() as server:
        yield server


@pytest.mark.gate
@pytest.mark.versions
@pytest.mark.parametrize("kind", KINDS)
def test_an_interruption_spoils_no_other_call(server, kind):
    check(server, kind, COUNTS.get(kind, 100))


@pytest.mark.gate
@pytest.mark.versions
def test_interruptions_of_every_kind_at_once_spoil_no_other_call(server):
    check(server, "everything", 50)


def check(server, kind, count):
    if not can(kind):
        pytest.skip("this system has no such interruptions")
    counts = run(kind, count, 1, server)
    assert counts["broken"] == 0, "\n".join(counts["examples"])
    assert counts["interruptions"] >= count
