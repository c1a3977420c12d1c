"""Under gevent and eventlet, patched before or after the library's import, every greenlet
gets its own answer, `close()` wakes a reader, and a deadline fires."""

import functools
import importlib.util
import json
import subprocess

import pytest

from . import lib
from .interrupt import CERTIFICATE, EchoServer, python

AT_ONCE = 300

GREEN = {
    "gevent": """
import gevent
from gevent import monkey
patch, spawn, wait = monkey.patch_all, gevent.spawn, gevent.joinall
""",
    "eventlet": """
import warnings
warnings.simplefilter("ignore")  # it warns of itself
import eventlet
patch, spawn, wait = eventlet.monkey_patch, eventlet.spawn, lambda all: [one.wait() for one in all]
""",
}

# Prints what went wrong in each task, as JSON. A process of its own, since a patch can't be
# taken back.
SCRIPT = """
import faulthandler, json, sys
faulthandler.dump_traceback_later(600, exit=True)
{green}
when, certificate, at_once, *urls = sys.argv[1:]
if when == "early":
    patch()
import {name} as lib
clients = [
    lib.OpenAIClient(base_url=url, timeout=30, max_retries=0, verify=certificate) for url in urls
]
if when == "late":
    patch()
import random, threading, time

def question(name, pause):
    shape = json.dumps(["chunked", 3, 100, 0.5, pause])
    return {{"model": shape, "messages": [{{"role": "user", "content": name}}]}}

def check(name, answer):
    text = "".join(f"{{name}}.{{piece}}{{'.' * 100}} " for piece in range(3))
    assert (answer.text, answer.request_id) == (text, name), (name, answer.text[:20])

def stream(client, name, pause=0.0, **settings):
    client = client.with_options(**settings)
    return lib.create_chat_completion_stream(client, question(name, pause))

def streams(client):
    rng, failures = random.Random(0), []
    def ask(number):
        time.sleep(rng.uniform(0, 0.2))  # some connect while others read
        for again in range(2):
            name = f"q{{number}}-{{again}}"
            try:
                check(name, stream(client, name, rng.uniform(0.05, 0.2)).response())
            except BaseException as error:
                failures.append(f"{{name}}: {{error!r}}")
    wait([spawn(ask, number) for number in range(int(at_once))])
    assert not failures, (len(failures), failures[:5])

def close(client):
    answer, begun, raised = stream(client, "q1", -1), threading.Event(), []
    def read():
        begun.set()
        try:
            answer.response()
        except BaseException as error:
            raised.append(error)
    reader = spawn(read)
    begun.wait(20)
    time.sleep(0.05)  # lets it come to wait for the rest
    started = time.monotonic()
    answer.close()
    wait([reader])
    assert [type(error) for error in raised] == [lib.StreamInterruptedError], raised
    assert time.monotonic() - started < 60
    check("q2", stream(client, "q2").response())

def deadline(client):
    started = time.monotonic()
    try:
        stream(client, "q1", -1, deadline=0.3).response()
        raise AssertionError("read to an end")
    except lib.RequestTimeoutError as error:
        assert "deadline" in str(error), error
    assert 0.2 < time.monotonic() - started < 60
    check("q2", stream(client, "q2").response())

found = {{}}

def everything():
    for task in (streams, close, deadline):
        for scheme, client in zip(("plain", "tls"), clients):
            try:
                task(client)
                found[f"{{task.__name__}} {{scheme}}"] = None
            except BaseException as error:
                found[f"{{task.__name__}} {{scheme}}"] = repr(error)

wait([spawn(everything)])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def failures():
    """What went wrong under a library that is patched early or late: tasks and errors."""
    with EchoServer() as server:

        @functools.cache
        def failures_of(green, when):
            if importlib.util.find_spec(green) is None:
                return f"{green} is not installed"
            process = python("-c", f"{GREEN[green]}\npatch()", stderr=subprocess.PIPE)
            _, err = process.communicate(timeout=60)
            if process.returncode:
                return f"{green} does not work here: {err.strip().splitlines()[-1]}"
            script = SCRIPT.format(name=lib.name, green=GREEN[green])
            arguments = ["-c", script, when, CERTIFICATE, str(AT_ONCE), *server.urls]
            process = python(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            out, err = process.communicate(timeout=650)
            assert process.returncode == 0, err
            return json.loads(out.splitlines()[-1])

        yield failures_of


@pytest.mark.gate
@pytest.mark.versions
@pytest.mark.parametrize("scheme", ["plain", "tls"])
@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize("green", GREEN)
class TestPatched:
    @pytest.fixture
    def failed(self, failures, green, when, scheme):
        found = failures(green, when)
        if isinstance(found, str):
            pytest.skip(found)
        return lambda task: found[f"{task} {scheme}"]

    def test_each_of_300_concurrent_streams_gets_its_own_response(self, failed):
        failure = failed("streams")
        assert failure is None, failure

    def test_close_in_another_greenlet_wakes_the_reader(self, failed):
        failure = failed("close")
        assert failure is None, failure

    def test_a_deadline_fires(self, failed):
        failure = failed("deadline")
        assert failure is None, failure
