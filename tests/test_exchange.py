"""An exchange: every call gets its own response, complete, within its limits, and only once.

Whatever the server, a proxy, another thread or a signal does, an interruption ends only the
exchange that it hits.
"""

import functools
import gzip
import itertools
import json
import random
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
import requests
import urllib3

from . import lib, waits_of
from .conftest import QUESTION, in_the_gate
from .wire import (
    CLOSE,
    RESET,
    SILENCE,
    Reply,
    Wire,
    chunk,
    completion,
    http,
    read_request,
    sse,
    streamed,
)

CERTIFICATE = str(Path(__file__).parent / "data" / "localhost.pem")
ANSWER = http(completion())
STREAM = streamed(chunk("a"), chunk("b", finish_reason="stop"))

call = lib.create_chat_completion
open_stream = lib.create_chat_completion_stream


def text_of_call(client):
    return call(client, QUESTION).text


def text_of_stream(client):
    return open_stream(client, QUESTION).response().text


BOTH = pytest.mark.parametrize("text_of", [text_of_call, text_of_stream], ids=["call", "stream"])
needs_signals = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="no timer signals on this system"
)


@functools.cache
def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


class Server(Wire):
    """A server whose connections are served by a function: `serve(conn, incoming, stop)`."""

    def __init__(self, function, tls=None):
        self.function = function
        super().__init__(b"", tls=tls)

    def serve(self, conn, incoming, number):
        self.function(conn, incoming, self.stopped)


@pytest.fixture
def opened():
    """Closes at the end what is appended to it, the last first."""
    things = []
    yield things
    for thing in reversed(things):
        thing.__exit__(None, None, None)


@pytest.fixture
def client_of(opened):
    """A client of a server, or of a Wire with these replies; `client.wire` is the server."""

    def connect(*replies, tls=False, **settings):
        wire = replies[0]
        if not isinstance(wire, Wire):
            wire = Wire(*replies, tls=tls_context() if tls else None)
            opened.append(wire)
        if wire.url.startswith("https"):
            settings.setdefault("verify", CERTIFICATE)
        client = lib.OpenAIClient(
            "sk-secret-key", **{"base_url": wire.url, "timeout": 10, **settings}
        )
        opened.append(client)
        waits_of(client)
        client.wire = wire
        return client

    return connect


def outcome(function, *args, seconds=30.0):
    """What a function returns or raises. It runs in a thread, and has to end in time."""
    found = []

    def run():
        try:
            found.append(function(*args))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, f"still running after {seconds:g} s"
    return found[0]


WATCHDOG = """
import faulthandler

def go_on():
    faulthandler.dump_traceback_later(60, exit=True)

go_on()
"""


def run_script(script, *args):
    """Run a script in a fresh Python, which prints its stacks and exits when it hangs: when
    it does not call `go_on` for a minute."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", WATCHDOG + script.replace("LIBRARY", lib.name), *args],
        capture_output=True, text=True,
    )  # fmt: skip


# No call gets the response of another


@pytest.fixture
def busy_switching():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def echo(body):
    return body["messages"][-1]["content"]


def asking(text):
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


@pytest.mark.gate
@pytest.mark.versions
def test_closing_streams_near_their_end_disturbs_no_other_call(busy_switching):
    wrong, failed, numbers = [], [], itertools.count()

    def close_streams(client):
        for _ in range(25):
            stream, begun = open_stream(client, asking("bye")), threading.Event()
            closer = threading.Thread(target=lambda s=stream, b=begun: (b.wait(), s.close()))
            closer.start()
            try:
                for _ in stream:
                    begun.set()
            except lib.StreamInterruptedError:
                pass
            begun.set()
            closer.join()

    def make_calls(client):
        for _ in range(25):
            text = f"question {next(numbers)}"
            try:
                answer = call(client, asking(text)).text
            except lib.OpenAIError as error:
                failed.append(str(error))
            else:
                if answer != text:
                    wrong.append((text, answer))

    with (
        lib.OfflineServer(itertools.repeat(echo)) as server,
        lib.OpenAIClient(base_url=server.url, max_retries=0, timeout=30) as client,
    ):
        threads = [
            threading.Thread(target=work, args=(client,), daemon=True)
            for work in [close_streams] * 8 + [make_calls] * 16
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    assert (wrong, failed) == ([], [])


POISON = http(completion("of another call"))
SHORT = {"choices": [{"message": {"content": "first"}, "finish_reason": "stop"}]}
SHORT_STREAM = sse(
    {"choices": [{"index": 0, "delta": {"content": "first"}, "finish_reason": "stop"}]}
)
FRAMINGS = {
    "length": (text_of_call, lambda pad: http(SHORT, "200 OK", pad)),
    "chunked": (
        text_of_call,
        lambda pad: http((json.dumps(SHORT).encode(),), "200 OK", pad, framing="chunked"),
    ),
    "sse-chunked": (
        text_of_stream,
        lambda pad: http(
            SHORT_STREAM, "200 OK", "Content-Type: text/event-stream", pad, framing="chunked"
        ),
    ),
    "sse-length": (
        text_of_stream,
        lambda pad: http(SHORT_STREAM, "200 OK", "Content-Type: text/event-stream", pad),
    ),
}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("size", [300, 4000, 8192])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_extra_bytes_after_a_response_are_not_taken_for_the_next_response(
    client_of, framing, size, tls
):
    text_of, response = FRAMINGS[framing]
    padding = size - len(response("X-Pad: "))
    first = response("X-Pad: " + "p" * padding)
    assert len(first) == size
    client = client_of(first + POISON, http(completion("second")), tls=tls, max_retries=0)
    assert text_of(client) == "first"
    assert text_of_call(client) == "second"
    assert (client.wire.connections, len(client.wire.requests)) == (2, 2)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("missing", [1, 500, 6000])
@BOTH
def test_a_content_length_that_is_too_short_spoils_no_other_call(client_of, text_of, missing, tls):
    # Some servers count characters in place of bytes.
    if text_of is text_of_call:
        body = json.dumps(completion("é" * 6000), ensure_ascii=False).encode()
    else:
        body = sse(chunk("x" * 6000), chunk("y", finish_reason="stop"))
    short = http(body).replace(b": %d\r\n" % len(body), b": %d\r\n" % (len(body) - missing))
    client = client_of(short, http(completion("second")), tls=tls, max_retries=0)
    try:
        text_of(client)
    except lib.OpenAIError:
        pass
    assert text_of_call(client) == "second"
    assert (client.wire.connections, len(client.wire.requests)) == (2, 2)


# A response is complete, or an error is raised


@pytest.mark.parametrize("chunks_read", [0, 1, 2])
def test_a_stream_whose_iterator_was_closed_early_has_no_response(client_of, chunks_read):
    client = client_of(STREAM, ANSWER)
    stream = open_stream(client, QUESTION)
    iterator = iter(stream)
    for _ in range(chunks_read):
        next(iterator)
    iterator.close()
    with pytest.raises(lib.StreamInterruptedError):
        stream.response()
    with pytest.raises(lib.StreamInterruptedError):
        list(stream)
    assert text_of_call(client) == "Hi!"


@pytest.mark.parametrize(
    "iterated", [iter, lambda stream: stream.text_deltas()], ids=["chunks", "text-deltas"]
)
def test_an_exception_in_the_users_loop_leaves_the_stream_readable(client_of, iterated):
    stream = open_stream(client_of(STREAM), QUESTION)

    def fail():
        for _ in iterated(stream):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert stream.response().text == "ab"


class Ring(BaseException):
    """What a signal handler raises."""


@pytest.fixture
def ring():
    """Have a signal handler raise Ring in the main thread."""
    if not hasattr(signal, "pthread_kill"):
        pytest.skip("no signals to threads on this system")

    def handler(*_):
        raise Ring

    before = signal.signal(signal.SIGUSR1, handler)
    yield lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("chunks_read", [0, 1])
def test_after_a_signal_handler_raises_in_a_read_the_response_is_complete_or_an_error(
    client_of, ring, chunks_read
):
    hold, waiting = threading.Event(), threading.Event()
    at = STREAM.index(b"data: ") if chunks_read == 0 else STREAM.index(b'"b"')
    client = client_of(Reply([STREAM[:at], STREAM[at:]], hold=hold), ANSWER)
    stream = open_stream(client, QUESTION)
    for _ in range(chunks_read):
        next(stream)
    ringer = threading.Thread(target=lambda: (waiting.wait(10), ring()))
    ringer.start()

    def read():
        waiting.set()
        stream.response()

    with pytest.raises(Ring):
        read()
    ringer.join()
    hold.set()
    try:
        assert stream.response().text == "ab"
    except lib.StreamInterruptedError:
        pass
    assert text_of_call(client) == "Hi!"


@pytest.mark.parametrize("chunks_read", [0, 1])
@pytest.mark.parametrize(
    "read",
    [lambda stream: stream.response(), list, lambda stream: list(stream.text_deltas())],
    ids=["response", "chunks", "text-deltas"],
)
def test_of_two_threads_that_read_a_stream_at_once_the_second_gets_an_error(
    client_of, read, chunks_read
):
    hold, refused = threading.Event(), threading.Event()
    at = STREAM.index(b"data: ") if chunks_read == 0 else STREAM.index(b'"b"')
    stream = open_stream(client_of(Reply([STREAM[:at], STREAM[at:]], hold=hold)), QUESTION)
    for _ in range(chunks_read):
        next(stream)
    errors = []

    def read_on():
        try:
            read(stream)
        except Exception as error:
            errors.append(error)
            refused.set()

    threads = [threading.Thread(target=read_on, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    refused.wait(30)
    hold.set()
    for thread in threads:
        thread.join(10)
    assert [type(error) for error in errors if not isinstance(error, lib.OpenAIError)] == []
    (error,) = errors
    assert "another thread" in str(error)
    assert stream.response().text == "ab"


INTERRUPTED_STREAMS = """
import random, signal, sys, warnings, LIBRARY as lib

warnings.simplefilter("ignore", ResourceWarning)  # of a socket that urllib3 had just made

class Ring(BaseException): pass

def ring(*_):
    raise Ring

signal.signal(signal.SIGALRM, ring)
question = {"model": "m", "messages": [{"role": "user", "content": "one two three four"}]}
client = lib.OpenAIClient(base_url=sys.argv[1], max_retries=0, timeout=20)
instants = random.Random(4)
rung = 0
for _ in range(700):
    go_on()
    stream = None
    try:
        stream = lib.create_chat_completion_stream(client, question)
        signal.setitimer(signal.ITIMER_REAL, instants.uniform(1e-6, 150e-6))
        stream.response()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Ring:
        rung += 1
        try:
            text = stream.response().text
        except lib.OpenAIError:
            continue
        assert text == "one two three four", f"not whole: {text!r}"
assert rung > 50, rung
"""


@pytest.mark.gate
@pytest.mark.versions
@needs_signals
def test_a_stream_interrupted_at_any_instant_is_complete_or_an_error():
    with lib.OfflineServer(itertools.repeat(echo)) as server:
        done = run_script(INTERRUPTED_STREAMS, server.url)
    assert done.returncode == 0, done.stderr


# Compressed bodies


def raw_deflate(data):
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS = [
    pytest.param("gzip", gzip.compress, id="gzip"),
    pytest.param("deflate", zlib.compress, id="deflate"),
    pytest.param("deflate", raw_deflate, id="raw-deflate"),
]
_letters = random.Random(5)
WORDS = ["".join(_letters.choices("abcdefgh", k=20)) for _ in range(60)]
TEXT = " ".join(WORDS)
STREAM_BODY = sse(*(chunk(f"{word} ") for word in WORDS[:-1]),
                  chunk(WORDS[-1], finish_reason="stop"))  # fmt: skip
BODIES = {text_of_call: json.dumps(completion(TEXT)).encode(), text_of_stream: STREAM_BODY}


def framed(body, coding, framing, kind="application/json"):
    """A Reply whose framing is right, whatever its body is."""
    response = http(
        body, "200 OK", f"Content-Type: {kind}", f"Content-Encoding: {coding}", framing=framing
    )
    return Reply(response, CLOSE) if framing == "close" else Reply(response)


FRAMED = pytest.mark.parametrize("framing", ["length", "chunked", "close"])


@FRAMED
@pytest.mark.parametrize("missing", ["half", "checksum", "last-byte"])
@pytest.mark.parametrize(("coding", "pack"), PACKERS)
def test_a_truncated_compressed_body_is_an_error(client_of, coding, pack, missing, framing):
    packed = pack(BODIES[text_of_call])
    cut = {"half": len(packed) // 2, "checksum": len(packed) - 4, "last-byte": len(packed) - 1}
    client = client_of(framed(packed[: cut[missing]], coding, framing), max_retries=0)
    with pytest.raises(lib.OpenAIError):
        text_of_call(client)


@FRAMED
@pytest.mark.parametrize(("coding", "pack"), PACKERS)
def test_a_truncated_compressed_file_is_an_error_and_the_next_call_works(
    client_of, coding, pack, framing
):
    packed = pack(TEXT.encode())
    client = client_of(
        framed(packed[: len(packed) // 2], coding, framing, "application/octet-stream"),
        framed(packed, coding, framing, "application/octet-stream"),
        max_retries=0,
    )
    with pytest.raises(lib.OpenAIError):
        client.get("files/file-1/content")
    assert client.get("files/file-1/content") == TEXT.encode()


@FRAMED
@pytest.mark.parametrize(("coding", "pack"), PACKERS)
def test_a_truncated_compressed_stream_is_an_error_with_its_partial(
    client_of, coding, pack, framing
):
    packed = pack(STREAM_BODY)
    client = client_of(
        framed(packed[: len(packed) // 2], coding, framing, "text/event-stream"), max_retries=0
    )
    with pytest.raises(lib.OpenAIError) as caught:
        text_of_stream(client)
    assert caught.value.partial is not None


@FRAMED
@BOTH
def test_all_members_of_a_gzip_body_are_read(client_of, text_of, framing):
    body = BODIES[text_of]
    thirds = [body[: len(body) // 3], body[len(body) // 3 : -7], body[-7:]]
    client = client_of(framed(b"".join(map(gzip.compress, thirds)), "gzip", framing))
    assert text_of(client) == TEXT


@pytest.mark.parametrize("missing", [1, 20])
def test_a_gzip_body_truncated_in_its_last_member_is_an_error(client_of, missing):
    # All of the JSON is in the first member; the second holds the line end behind it.
    packed = gzip.compress(BODIES[text_of_call]) + gzip.compress(b"\n")
    client = client_of(framed(packed[:-missing], "gzip", "length"), max_retries=0)
    with pytest.raises(lib.OpenAIError):
        text_of_call(client)


@BOTH
@pytest.mark.parametrize(("coding", "pack"), PACKERS)
def test_a_compressed_body_may_come_byte_by_byte(client_of, coding, pack, text_of):
    packed = pack(BODIES[text_of])
    pieces = tuple(packed[i : i + 1] for i in range(len(packed)))
    client = client_of(framed(pieces, coding, "chunked"))
    assert text_of(client) == TEXT


@BOTH
@pytest.mark.parametrize("coding", ["gzip, chunked", "GZIP,chunked"])
def test_a_compressed_transfer_is_decoded(client_of, coding, text_of):
    packed = gzip.compress(BODIES[text_of])
    response = http((packed[:50], packed[50:]), "200 OK", framing="chunked").replace(
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: " + coding.encode()
    )
    client = client_of(response, timeout=3, max_retries=0)
    assert text_of(client) == TEXT


def in_chunks(data):
    return http((data[:50], data[50:]), framing="chunked").partition(b"\r\n\r\n")[2]


SESSIONS = pytest.mark.parametrize("own_session", [False, True], ids=["adapter", "session"])


@SESSIONS
@BOTH
@pytest.mark.parametrize(
    ("pack", "headers"),
    [
        (bytes, ["Transfer-Encoding: chunked, chunked"]),
        (bytes, ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]),
        (bytes, ["Transfer-Encoding: chunked, identity"]),
        (bytes, ["Transfer-Encoding: chunked", "Content-Length: 3"]),
        (bytes, ["Transfer-Encoding: chunked", "Content-Encoding: gzip"]),
        (bytes, ["Transfer-Encoding: chunked", "Content-Encoding: utf-8"]),
        (gzip.compress, ["Transfer-Encoding: gzip, chunked"]),
        (gzip.compress, ["Transfer-Encoding: chunked, gzip"]),
        (gzip.compress, ["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"]),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, list) else value.__name__,
)
def test_framing_and_codings_are_read_alike_with_and_without_a_session(
    client_of, opened, text_of, pack, headers, own_session
):
    head = "\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode()
    session = requests.Session() if own_session else None
    opened.extend([session] if own_session else [])
    client = client_of(head + in_chunks(pack(BODIES[text_of])), ANSWER, session=session)
    assert text_of(client) == TEXT
    assert text_of_call(client) == "Hi!"


@SESSIONS
@BOTH
@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized"])
@pytest.mark.parametrize("coding", ["br", "zstd"])
def test_the_error_names_an_unrequested_content_coding(
    client_of, opened, text_of, coding, status, own_session
):
    session = requests.Session() if own_session else None
    opened.extend([session] if own_session else [])
    reply = http(b"(\xb5/\xfd", status, f"Content-Encoding: {coding}")
    client = client_of(reply, session=session, max_retries=0)
    kind = lib.AuthenticationError if status[0] == "4" else lib.DeserializeError
    with pytest.raises(kind, match=f"coding is '{coding}'"):
        text_of(client)


@SESSIONS
@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_an_unrequested_stream_that_is_interrupted_keeps_its_partial(
    client_of, opened, end, own_session
):
    session = requests.Session() if own_session else None
    opened.extend([session] if own_session else [])
    begun = STREAM[: STREAM.index(b'"b"')]
    client = client_of(Reply(begun, end), session=session)
    with pytest.raises(lib.HTTPError, match="in the middle of the reply") as caught:
        text_of_call(client)
    assert caught.value.partial.text == "a"


def test_an_unrequested_stream_may_lack_its_last_http_chunk(client_of):
    client = client_of(Reply(STREAM[:-5], CLOSE))
    assert text_of_call(client) == "ab"


LIMIT = 1_000_000


@functools.cache
def bomb(layers):
    data = b" " * 64_000_000
    for _ in range(layers):
        data = gzip.compress(data)
    return data


@BOTH
@pytest.mark.parametrize("layers", [1, *in_the_gate(3)])
@pytest.mark.gate
@pytest.mark.versions
def test_a_body_that_unpacks_to_more_than_the_limit_is_an_error_and_takes_little_memory(
    client_of, layers, text_of
):
    coding = ", ".join(["gzip"] * layers)
    client = client_of(
        framed(bomb(layers), coding, "length"), max_retries=0, max_response_bytes=LIMIT
    )
    tracemalloc.start()
    try:
        with pytest.raises(lib.OpenAIError, match=r"max_response_bytes|1[,_]?000[,_]?000"):
            text_of(client)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16_000_000


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_a_body_within_the_limit_is_returned(client_of, layers):
    body = json.dumps(completion("x" * 900_000)).encode()
    for _ in range(layers):
        body = gzip.compress(body)
    coding = ", ".join(["gzip"] * layers) or "identity"
    client = client_of(framed(body, coding, "length"), max_response_bytes=LIMIT)
    assert text_of_call(client) == "x" * 900_000


# Signals


INTERRUPTED_CALLS = """
import random, signal, sys, time, warnings, LIBRARY as lib

warnings.simplefilter("ignore", ResourceWarning)  # of a socket that urllib3 had just made
sent = caught = 0

def ctrl_c(*_):
    global sent
    sent += 1
    raise KeyboardInterrupt

def ask(text, stream):
    question = {"model": "m", "messages": [{"role": "user", "content": text}]}
    if stream:
        return lib.create_chat_completion_stream(client, question).response().text
    return lib.create_chat_completion(client, question).text

signal.signal(signal.SIGALRM, ctrl_c)
client = lib.OpenAIClient(base_url=sys.argv[1], max_retries=0, timeout=20)
streams, count, longest = sys.argv[2] == "streams", int(sys.argv[3]), float(sys.argv[4])
instants = random.Random(6)
times = []
for n in range(50):
    go_on()
    begun = time.perf_counter()
    assert ask(f"q{n}", streams) == f"q{n}"
    times.append(time.perf_counter() - begun)
longest = longest or 1.5 * sorted(times)[25]  # to the end of the call, and a little longer
for n in range(count):
    go_on()
    before = sent
    try:
        signal.setitimer(signal.ITIMER_REAL, instants.uniform(1e-6, longest))
        text = ask(f"first {n}", streams)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert text == f"first {n}", text
    except KeyboardInterrupt:
        caught += 1
    if sent > before:
        text = ask(f"second {n}", streams)
        assert text == f"second {n}", text
assert caught > count / 10, caught
print(sent - caught)
"""


@pytest.mark.gate
@pytest.mark.versions
@needs_signals
def test_ctrl_c_at_any_instant_leaves_later_calls_working():
    with lib.OfflineServer(itertools.repeat(echo)) as server:
        done = run_script(INTERRUPTED_CALLS, server.url, "calls", "2000", "300e-6")
    assert done.returncode == 0, done.stderr


@pytest.mark.gate
@pytest.mark.versions
@needs_signals
@pytest.mark.parametrize("kind", ["calls", "streams"])
def test_no_ctrl_c_is_swallowed_during_calls_that_go_well(kind):
    with lib.OfflineServer(itertools.repeat(echo)) as server:
        done = run_script(INTERRUPTED_CALLS, server.url, kind, "1000", "0")
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


# Deadlines


def dripping(begun, rest=b"a"):
    """Read a request and answer it in small pieces that never come to an end."""

    def serve(conn, incoming, stop):
        read_request(incoming, 0)
        conn.sendall(begun)
        while not stop.wait(0.02):
            conn.sendall(rest)

    return serve


def dripping_handshake(conn, incoming, stop):
    conn.recv(5000)
    conn.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KB
    while not stop.wait(0.02):
        conn.sendall(b"\0")


def tunnel(conn, incoming, stop):
    """Be a proxy that opens the tunnel it is asked for."""
    host, _, port = read_request(incoming, 0).line.split()[1].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as far:
        conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not stop.is_set():
            ready, _, _ = select.select([conn, far], [], [], 0.1)
            for source, sink in ((conn, far), (far, conn)):
                if source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    sink.sendall(data)


HEAD = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "status-line": dripping(b"HTTP/1.1 200 "),
    "header": dripping(HEAD + b"X: "),
    "header-lines": dripping(HEAD, b"X: y\r\n"),
    "interim-responses": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": dripping(HEAD + b"Content-Length: 99999\r\n\r\n", b" "),
    "chunks": dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "comments": dripping(HEAD + b"Content-Type: text/event-stream\r\n\r\n", b": ping\n\n"),
}
IMPATIENT = {"deadline": 0.1, "timeout": 60, "max_retries": 0}


def assert_the_deadline_ends(client, drip):
    text_of = text_of_stream if drip == "comments" else text_of_call
    error = outcome(text_of, client)
    assert isinstance(error, lib.RequestTimeoutError), error
    assert "deadline" in str(error)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("drip", ["status-line", *in_the_gate("header", "header-lines")])
def test_a_deadline_bounds_the_wait_for_a_proxys_reply(opened, client_of, drip, scheme):
    proxy = Server(DRIPS[drip], tls=tls_context() if scheme == "https" else None)
    opened.append(proxy)
    client = client_of(
        proxy, base_url="https://127.0.0.1:1/v1", verify=CERTIFICATE,
        proxies={"https": f"{scheme}://127.0.0.1:{proxy.port}"}, **IMPATIENT,
    )  # fmt: skip
    assert_the_deadline_ends(client, drip)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("drip", ["body", "comments", *in_the_gate("header", "chunks")])
def test_a_deadline_bounds_what_comes_through_a_tunnel(opened, client_of, drip, scheme):
    proxy = Server(tunnel, tls=tls_context() if scheme == "https" else None)
    server = Server(DRIPS[drip], tls=tls_context())
    opened.extend([proxy, server])
    proxies = {"https": f"{scheme}://127.0.0.1:{proxy.port}"}
    assert_the_deadline_ends(client_of(server, proxies=proxies, **IMPATIENT), drip)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_close_wakes_a_thread_that_waits_behind_a_tunnel(opened, client_of, scheme):
    begun = streamed(chunk("a"), done=False)[:-5]
    proxy = Server(tunnel, tls=tls_context() if scheme == "https" else None)
    opened.append(proxy)
    proxies = {"https": f"{scheme}://127.0.0.1:{proxy.port}"}
    client = client_of(Reply(begun, SILENCE), tls=True, proxies=proxies, timeout=60)
    stream, begun = open_stream(client, QUESTION), threading.Event()

    def close():
        begun.wait(10)
        stream.close()

    def read():
        for _ in stream:
            begun.set()

    closer = threading.Thread(target=close)
    closer.start()
    error = outcome(read)
    closer.join(10)
    assert isinstance(error, lib.StreamInterruptedError), error
    assert error.partial.text == "a"
    assert client.wire.closed_by_client.wait(10)


OTHER_DRIPS = in_the_gate("header", "header-lines", "interim-responses", "chunks", "comments")


@pytest.mark.parametrize("drip", ["status-line", "body", *OTHER_DRIPS])
def test_a_deadline_bounds_a_call_over_the_users_own_session(opened, client_of, drip):
    server, session = Server(DRIPS[drip]), requests.Session()
    opened.extend([session, server])
    assert_the_deadline_ends(client_of(server, session=session, **IMPATIENT), drip)


def test_a_deadline_bounds_a_tls_handshake(opened, client_of):
    server = Server(dripping_handshake)
    opened.append(server)
    client = client_of(server, base_url=server.url.replace("http:", "https:"), **IMPATIENT)
    assert_the_deadline_ends(client, "handshake")


@pytest.mark.gate
@pytest.mark.versions
def test_an_event_with_many_list_items_is_read_without_quadratic_work(client_of):
    details = [{"index": n} for n in range(20_000)]
    body = streamed(chunk("a", reasoning_details=details), chunk("b", finish_reason="stop"))
    assert outcome(text_of_stream, client_of(body), seconds=30) == "ab"


def test_an_empty_page_ends_an_iteration_over_stored_completions(client_of):
    pages = [
        http(
            {"object": "list", "data": [], "has_more": n < 20, "first_id": None, "last_id": f"c{n}"}
        )
        for n in range(21)
    ]
    client = client_of(*pages)
    assert list(lib.iterate_chat_completions(client)) == []
    assert len(client.wire.requests) == 1


# Sending


BIG = asking("x" * 12_000_000)


def reading_slowly(wait, times):
    """Wait before each of so many reads of 1 MB, then read what is left, and answer."""

    def serve(conn, incoming, stop):
        for _ in range(times):
            stop.wait(wait)
            conn.recv(1_000_000, socket.MSG_WAITALL)
        left = b"\0"
        while left and not left.endswith(b"}"):
            left = conn.recv(1_000_000)
        conn.sendall(ANSWER)

    return serve


@pytest.mark.gate
@pytest.mark.versions
def test_the_connect_timeout_does_not_bound_the_sending_of_a_body(opened, client_of):
    server = Server(reading_slowly(0.5, 1))
    opened.append(server)
    client = client_of(server, timeout=(0.2, 10), max_retries=0)
    assert call(client, BIG).text == "Hi!"


@pytest.mark.gate
@pytest.mark.versions
def test_the_read_timeout_applies_to_each_write_and_not_to_their_sum(opened, client_of):
    server = Server(reading_slowly(0.15, 10))
    opened.append(server)
    client = client_of(server, timeout=(10, 1), max_retries=0)
    begun = time.monotonic()
    assert call(client, BIG).text == "Hi!"
    assert time.monotonic() - begun > 1, "the server was not slow enough to show anything"


@pytest.mark.gate
@pytest.mark.versions
def test_a_server_that_reads_nothing_causes_a_read_timeout(opened, client_of):
    server = Server(lambda conn, incoming, stop: stop.wait(20))
    opened.append(server)
    client = client_of(server, timeout=(0.15, 0.3), max_retries=0)
    begun = time.monotonic()
    error = outcome(call, client, BIG)
    assert isinstance(error, lib.RequestTimeoutError), error
    assert time.monotonic() - begun > 0.25
    assert "0.3 s" in str(error)
    assert "0.15" not in str(error)
    assert "no connection" not in str(error)


def answering_early(response):
    """Answer once the head is there, and close with most of the body unread."""

    def serve(conn, incoming, stop):
        while incoming.readline().strip():
            pass
        conn.sendall(response)

    return serve


@pytest.mark.parametrize("size", [1_000, 12_000_000])
def test_an_early_error_response_reaches_the_caller(opened, client_of, size):
    refusal = http({"error": {"message": "too much"}}, "413 Too Large", "Connection: close")
    server = Server(answering_early(refusal))
    opened.append(server)
    client = client_of(server, max_retries=0)
    with pytest.raises(lib.APIError, match="too much") as caught:
        call(client, asking("x" * size))
    assert caught.value.status_code == 413


def test_an_early_success_response_reaches_the_caller(opened, client_of):
    server = Server(answering_early(http(completion(), "200 OK", "Connection: close")))
    opened.append(server)
    assert call(client_of(server, max_retries=0), BIG).text == "Hi!"


# Finished streams


WITHOUT_END = Reply(STREAM[: -len(b"0\r\n\r\n")], SILENCE)  # the last event, not the last chunk


@pytest.mark.parametrize("deadline", [None, 60])
@pytest.mark.parametrize("reply", [STREAM, WITHOUT_END], ids=["complete", "end-withheld"])
def test_finishing_a_stream_starts_no_thread(client_of, monkeypatch, reply, deadline):
    client = client_of(reply, deadline=deadline)
    stream = open_stream(client, QUESTION)
    next(stream)
    started = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread))
    assert stream.response().text == "ab"
    del stream
    monkeypatch.undo()
    assert started == []


FINISHING_AT_EXIT = """
import atexit, sys, LIBRARY as lib

class Holder:
    def __del__(self):
        print(self.stream.response().text, flush=True)

client = lib.OpenAIClient(base_url=sys.argv[1], timeout=20)
question = {"model": "m", "messages": []}
lib.create_chat_completion_stream(client, question).response()  # what is imported or made only once
stream = lib.create_chat_completion_stream(client, question)
next(stream)
if sys.argv[2] == "atexit":
    atexit.register(lambda: print(stream.response().text))
elif sys.argv[2] == "del":
    holder = Holder()
    holder.stream = sys.kept = stream  # kept: else Python may finalize the stream first
"""


@pytest.mark.parametrize("where", ["atexit", *in_the_gate("del", "nowhere")])
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(STREAM, id="complete", marks=pytest.mark.gate),
        pytest.param(WITHOUT_END, id="end-withheld"),
    ],
)
@pytest.mark.gate
@pytest.mark.versions
def test_a_stream_may_be_finished_or_left_while_python_exits(opened, reply, where):
    wire = Wire(reply)
    opened.append(wire)
    done = run_script(FINISHING_AT_EXIT, wire.url, where)
    printed = "" if where == "nowhere" else "ab\n"
    assert (done.returncode, done.stderr, done.stdout) == (0, "", printed)


# Sent once


BEGUN = [b"H", HEAD, HEAD + b"Content-Length: 99\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]


@pytest.mark.parametrize("max_retries", [0, 2])
@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize("begun", BEGUN, ids=["byte", "status", "header", "interim"])
def test_a_request_is_not_sent_again_once_its_response_has_begun(
    client_of, begun, end, max_retries
):
    client = client_of(ANSWER, Reply(begun, end), ANSWER, max_retries=max_retries)
    text_of_call(client)
    with pytest.raises(lib.OpenAIError):
        text_of_call(client)
    assert len(client.wire.requests) == 2


@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize(("max_retries", "sent"), [(0, 2), (1, 2), (2, 3)])
def test_a_replaced_connection_counts_as_a_retry(client_of, max_retries, sent, end):
    client = client_of(ANSWER, Reply(b"", end), max_retries=max_retries)
    text_of_call(client)
    with pytest.raises(lib.HTTPError, match="lost"):
        text_of_call(client)
    assert len(client.wire.requests) == 1 + sent


@BOTH
@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_a_dead_connection_is_replaced_once_even_without_retries(client_of, end, text_of):
    reply = ANSWER if text_of is text_of_call else STREAM
    client = client_of(ANSWER, Reply(b"", end), reply, max_retries=0)
    text_of_call(client)
    assert text_of(client) in ("Hi!", "ab")
    assert (client.wire.connections, len(client.wire.requests)) == (2, 3)


@pytest.mark.parametrize("own_session", [False, True], ids=["adapter", "session"])
@pytest.mark.parametrize("asked", ["connect", "forward"])
def test_a_request_that_a_proxy_answers_with_407_is_not_retried(
    opened, client_of, asked, own_session
):
    refusal = Reply(http(b"", "407 Proxy Authentication Required"), CLOSE)
    proxy = Wire(refusal)
    opened.append(proxy)
    settings = {}
    if own_session:
        settings["session"] = requests.Session()
        opened.append(settings["session"])
    scheme = "https" if asked == "connect" else "http"
    client = client_of(
        proxy, base_url=f"{scheme}://127.0.0.1:1/v1", max_retries=2,
        proxies={scheme: f"http://127.0.0.1:{proxy.port}"}, **settings,
    )  # fmt: skip
    with pytest.raises(lib.OpenAIError, match="407"):
        text_of_call(client)
    assert (proxy.connections, len(proxy.requests)) == (1, 1)


@BOTH
def test_a_501_is_not_retried(client_of, text_of):
    client = client_of(http({"error": "no such thing"}, "501 Not Implemented"), max_retries=2)
    with pytest.raises(lib.APIError, match="no such thing") as caught:
        text_of(client)
    assert caught.value.status_code == 501
    assert len(client.wire.requests) == 1


# Found by trying to break it


def test_a_http_url_is_forwarded_by_an_https_proxy(question):
    with Wire(http(completion("Hi.")), tls=tls_context()) as proxy:
        settings = {"proxies": {"http": f"https://127.0.0.1:{proxy.port}"}, "verify": CERTIFICATE}
        with (
            lib.OpenAIClient(
                "sk-secret-key", base_url="http://some.example/v1", **settings
            ) as client,
            pytest.warns(match="Unverified HTTPS request"),
        ):  # as requests would
            assert lib.create_chat_completion(client, question).text == "Hi."
        assert proxy.requests[0].line == "POST http://some.example/v1/chat/completions HTTP/1.1"


def test_a_stream_over_a_session_ends_at_done_without_waiting_for_the_close(ask, question):
    body = streamed(chunk("a"))[:-5].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    with requests.Session() as session:
        client = ask(Reply(body, SILENCE), timeout=60).with_options(session=session)
        stream = lib.create_chat_completion_stream(client, question)
        reader = threading.Thread(target=stream.response)
        reader.start()
        reader.join(10)
        assert not reader.is_alive()


def test_close_wakes_the_reader_of_a_connection_close_reply_over_a_session(ask, question):
    body = streamed(chunk("a"), done=False)[:-5]
    body = body.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    with requests.Session() as session:
        client = ask(Reply(body, SILENCE), timeout=60).with_options(session=session)
        stream = lib.create_chat_completion_stream(client, question)
        next(stream)
        closer = threading.Timer(0.1, stream.close)
        closer.start()
        with pytest.raises(lib.StreamInterruptedError, match="closed"):
            next(stream)
        closer.join()


def test_a_deadline_ends_a_stream_whose_events_have_all_arrived(ask):
    events = b"".join(b"data: {}\n\n" for _ in range(10_000))
    client = ask(http(events), deadline=0.2)
    stream = client.stream("responses", {})
    with pytest.raises(lib.RequestTimeoutError, match="deadline"):
        list(map(lambda event: threading.Event().wait(0.01), stream))  # noqa: C417


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"]
)
def test_endless_interim_responses_are_an_error(ask, question, interim):
    client = ask(Reply([interim * 1000] * 1000, CLOSE), max_retries=0)
    with pytest.raises(lib.HTTPError, match="head of the reply"):
        lib.create_chat_completion(client, question)


@pytest.mark.parametrize("where", ["urlopen", "get_adapter", "send"])
def test_who_patches_requests_or_urllib3_sees_the_request(ask, question, monkeypatch, where):
    owner = {"urlopen": urllib3.HTTPConnectionPool}.get(where, requests.Session)
    seen, original = [], getattr(owner, where)

    def patched(*args, **kwargs):
        seen.append(where)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, where, patched)
    assert lib.create_chat_completion(ask(http(completion("Hi."))), question).text == "Hi."
    assert seen


def test_transfer_encoding_identity_is_ignored(ask, question):
    client = ask(http(completion("Hi."), "200 OK", "Transfer-Encoding: identity"))
    for _ in range(2):
        assert lib.create_chat_completion(client, question).text == "Hi."
    assert client.wire.connections == 1
