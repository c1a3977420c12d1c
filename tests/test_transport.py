"""Connections: kept while they are usable, else closed; and every failure is an OpenAIError."""

import gc
import gzip
import io
import json
import logging
import os
import pickle
import pydoc
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback

import pytest
import requests
import responses

from . import lib, waits_of
from .batches import wait_until
from .conftest import IN_THE_GATE, QUESTION
from .wire import CLOSE, RESET, SILENCE, Reply, Wire, chunk, completion, http, sse, streamed

KEY = "sk-secret-key"
ANSWER = http(completion())
STREAM = streamed(chunk("a"), chunk("b", finish_reason="stop"))
REFUSAL = http({"error": {"message": "no"}}, "400 Bad Request")
URL = "https://api.openai.com/v1/chat/completions"

call = lib.create_chat_completion
open_stream = lib.create_chat_completion_stream


def module_of(thing):
    return sys.modules[thing.__module__]


# Kept and freed


def test_one_connection_serves_calls_streams_and_errors(ask, question):
    zipped = http(
        gzip.compress(json.dumps(completion()).encode()), "200 OK", "Content-Encoding: gzip"
    )
    kinds = [ANSWER, STREAM, REFUSAL, zipped, http((b"{}",), "500 Oops", framing="chunked"), STREAM,
             http(sse(chunk("a"))), ANSWER]  # fmt: skip
    client = ask(*kinds, max_retries=0)
    for raw in kinds:
        try:
            if raw in (STREAM, kinds[6]):
                open_stream(client, question).response()
            else:
                call(client, question)
        except lib.APIError:
            pass
    assert client.wire.connections == 1


def test_a_stream_read_to_done_gives_its_connection_back_when_the_end_comes_a_moment_later(
    ask, question
):
    whole = streamed(chunk("a"))
    at = whole.index(b"[DONE]") + 10
    client = ask([whole[:at], whole[at:]], ANSWER)
    assert open_stream(client, question).response().text == "a"
    call(client, question)
    assert client.wire.connections == 1


def test_done_ends_the_stream_though_the_body_goes_on(ask, question):
    raw = streamed(chunk("a"))[: -len(b"0\r\n\r\n")]
    client = ask(Reply(raw, SILENCE), ANSWER, timeout=60)
    assert open_stream(client, question).response().text == "a"
    assert client.wire.closed_by_client.wait(30)


ENDLESS = Reply(streamed(chunk("a"), done=False)[:-5], SILENCE)


def leave_by_break(client, question):
    for _ in open_stream(client, question):
        break


def leave_by_close(client, question):
    stream = open_stream(client, question)
    next(stream)
    stream.close()
    stream.close()


def leave_by_with(client, question):
    with open_stream(client, question) as stream:
        next(stream)


def leave_by_error(client, question):
    def fail():
        for _ in open_stream(client, question):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def leave_unread(client, question):
    open_stream(client, question)


def leave_text(client, question):
    for _ in open_stream(client, question).text_deltas():
        break


def leave_in_a_cycle(client, question):
    stream = open_stream(client, question)
    next(stream)
    holder = [stream]
    holder.append(holder)
    del stream, holder
    gc.collect()


@pytest.mark.parametrize(
    "leave",
    [leave_by_break, leave_by_close, leave_by_with, leave_by_error, leave_unread, leave_text,
     leave_in_a_cycle],
    ids=lambda leave: leave.__name__,
)  # fmt: skip
def test_a_stream_that_is_left_frees_its_connection(ask, question, leave):
    client = ask(ENDLESS)
    leave(client, question)
    assert client.wire.closed_by_client.wait(30)


@pytest.mark.parametrize("deadline", [None, 60])
def test_a_deadline_keeps_no_forgotten_stream_alive(ask, question, deadline):
    client = ask(ENDLESS, deadline=deadline)
    leave_by_break(client, question)
    assert client.wire.closed_by_client.wait(30)
    assert no_timer_is_left()


def no_timer_is_left():
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    for timer in timers:
        timer.join(30)
    return not any(timer.is_alive() for timer in timers)


@pytest.mark.parametrize("framing", ["chunked", "close", "length", "gzip"])
def test_close_wakes_a_reader_in_another_thread(ask, question, framing):
    body = sse(chunk("a"), done=False)
    if framing == "gzip":
        raw = http(gzip.compress(body)[:-8] + b"x" * 9, "200 OK", "Content-Encoding: gzip")[:-9]
    elif framing == "length":
        raw = http(body + b"x" * 9)[:-9]
    else:
        raw = http(body, framing=framing).removesuffix(b"0\r\n\r\n")
    client = ask(Reply(raw, SILENCE), timeout=60)
    stream = open_stream(client, question)
    caught, reading = [], threading.Event()

    def read():
        try:
            for _ in stream:
                reading.set()
        except lib.OpenAIError as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    if framing != "gzip":
        assert reading.wait(30)
    stream.close()
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(caught[0], lib.StreamInterruptedError)
    assert "closed" in str(caught[0])
    assert caught[0].partial is not None
    assert client.wire.closed_by_client.wait(30)


def test_a_chunk_is_given_when_its_bytes_arrive(ask, question):
    first, second = sse(chunk("a"), done=False), sse(chunk("b"))
    zipper = gzip.GzipFile(fileobj=(sink := __import__("io").BytesIO()), mode="wb")
    zipper.write(first)
    zipper.flush()
    cut = len(sink.getvalue())
    zipper.write(second)
    zipper.close()
    zipped = sink.getvalue()
    big = b"%x\r\n%s" % (len(first) + len(second), first)  # one chunk that comes in two parts
    for head, tail in [
        (
            http((first,), framing="chunked")[:-5],
            http((second,), framing="chunked").split(b"\r\n\r\n", 1)[1],
        ),
        (http(b"", framing="chunked")[:-5] + big, second + b"\r\n0\r\n\r\n"),
        (http(first, framing="close"), second),
        (http(first + second)[: -len(second)], second),
        (http(zipped[:cut], "200 OK", "Content-Encoding: gzip", framing="close"), zipped[cut:]),
    ]:
        hold = threading.Event()
        client = ask(Reply([head, tail], CLOSE, hold), timeout=5)
        stream = open_stream(client, question)
        assert next(stream).text == "a"
        hold.set()
        assert stream.response().text == "ab"


def test_a_connection_that_the_server_closed_is_replaced_without_a_wait(ask, question):
    client = ask(ANSWER, max_retries=0)
    for _ in range(3):
        assert call(client, question).text == "Hi!"
        client.wire.drop_connections()
    assert client.wire.connections == 3
    assert client.waits == []


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_a_connection_that_dies_on_its_second_request_is_replaced_once(ask, question, end):
    client = ask(ANSWER, Reply(b"", end), ANSWER, max_retries=0)
    call(client, question)
    assert call(client, question).text == "Hi!"
    assert len(client.wire.requests) == 3

    dying = ask(ANSWER, Reply(b"", end), Reply(b"", end), max_retries=0)
    call(dying, question)
    with pytest.raises(lib.HTTPError, match="lost"):
        call(dying, question)
    assert len(dying.wire.requests) == 3


def test_connections_long_idle_are_not_used_again(ask, question, monkeypatch):
    client = ask(ANSWER)
    call(client, question)
    monkeypatch.setattr(module_of(lib.Connections), "_IDLE_SECONDS", -1.0)
    call(client, question)
    assert client.wire.connections == 2


def test_64_threads_share_a_client_and_throw_no_connection_away(ask, question, caplog):
    client = ask(ANSWER)
    barrier = threading.Barrier(64)
    texts = []

    def work():
        barrier.wait(30)
        for _ in range(5):
            texts.append(call(client, question).text)

    threads = [threading.Thread(target=work) for _ in range(64)]
    with caplog.at_level(logging.WARNING):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert texts == ["Hi!"] * 320
    assert caplog.records == []
    assert client.wire.connections <= 64
    before = client.wire.connections
    call(client, question)
    assert client.wire.connections == before, "they were kept"


FORK = """
import os, sys
import {name} as lib
url = sys.argv[1]
client = lib.OpenAIClient(base_url=url)
question = {{"model": "m", "messages": []}}
lib.create_chat_completion(client, question)
pid = os.fork()
if pid == 0:
    lib.create_chat_completion(client, question)
    lib.create_chat_completion(client, question)
    client.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
lib.create_chat_completion(client, question)
client.close()
"""


def test_a_fork_shares_no_connection_with_its_parent(ask):
    client = ask(ANSWER)
    subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK.format(name=lib.name), client.base_url],
        check=True, timeout=60, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert [request.connection for request in client.wire.requests] == [1, 2, 2, 1]


def test_a_client_that_is_forgotten_leaves_no_socket_open(ask, question):
    wire = ask(ANSWER).wire
    call(lib.OpenAIClient(base_url=wire.url), question)
    gc.collect()
    assert wire.closed_by_client.wait(30)


@pytest.mark.parametrize("line", [b"no header", b"X-Odd : 1", b": 1", b"\xff\xfe"])
def test_a_line_that_is_no_header_does_not_hide_those_after_it(ask, question, line):
    head, _, rest = http(completion()).partition(b"\r\n")
    reply = b"\r\n".join([head, line, b"X-Request-Id: r", b" folded", rest])
    client = ask(reply, ANSWER)
    assert call(client, question).text == "Hi!"
    assert call(client, question).text == "Hi!"
    assert client.wire.connections == 1


def test_cookies_are_not_kept(ask, question):
    client = ask(http(completion(), "200 OK", "Set-Cookie: a=b; Path=/"))
    call(client, question)
    call(client, question)
    assert "cookie" not in client.wire.requests[1].headers


# No usable reply

NO_ANSWER = [
    pytest.param(Reply(b"", CLOSE), "HTTPError", "lost before a reply", id="closed"),
    pytest.param(Reply(b"", RESET), "HTTPError", "lost before a reply", id="reset"),
    pytest.param(Reply(b"HTTP/1.1 200 OK\r\nContent-Le", CLOSE), "HTTPError", "in the head", id="cut-head"),
    pytest.param(Reply(b"garbage\r\n\r\n", CLOSE), "HTTPError", "garbage", id="not-http"),
    pytest.param(Reply(b"HTTP/1.1 abc\r\n\r\n", CLOSE), "HTTPError", "abc", id="invalid-status"),
    pytest.param(Reply(b"\x00\xff" * 100, CLOSE), "HTTPError", "no usable reply", id="bytes"),
    pytest.param(Reply(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", CLOSE), "HTTPError",
                 "more than 100 headers", id="too-many-headers"),
    pytest.param(Reply(b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000 + b"\r\n\r\n", CLOSE), "HTTPError",
                 "65536", id="long-header"),
    pytest.param(Reply(ANSWER[:-5], CLOSE), "HTTPError", "in the middle of the reply", id="cut-body"),
    pytest.param(Reply(ANSWER[:-5], RESET), "HTTPError", "in the middle of the reply", id="reset-body"),
    pytest.param(http((b"{",), framing="chunked").replace(b"1\r\n", b"zz\r\n", 1)[:-2], "HTTPError", "middle",
                 id="broken-chunking"),
    pytest.param(http(b"not gzip", "200 OK", "Content-Encoding: gzip"), "DeserializeError", "not gzip",
                 id="not-compressed"),
    pytest.param(http(b"\x1f\x8bnot gzip", "200 OK", "Content-Encoding: gzip"), "DeserializeError", "decompressed",
                 id="broken-gzip"),
    pytest.param(http(b"", "204 No Content"), "DeserializeError", "is empty", id="204"),
    pytest.param(http(completion(), "200 OK", "Content-Length: 5"), "HTTPError", "", id="two-lengths"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "name", "words"), NO_ANSWER)
@pytest.mark.parametrize("function", [call, open_stream], ids=["call", "stream"])
def test_an_unusable_reply_is_an_openai_error(ask, question, reply, name, words, function):
    client = ask(reply, max_retries=0)
    with pytest.raises(lib.OpenAIError) as caught:
        list(function(client, question))
    if function is call:
        assert type(caught.value) is getattr(lib, name)
        assert words in str(caught.value)
    assert "/v1/chat/completions" in str(caught.value)


def test_a_refused_connection_says_so():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = lib.OpenAIClient(base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)
    with pytest.raises(lib.HTTPError, match=r"no connection: .*Connection refused") as caught:
        call(client, QUESTION)
    assert f"http://127.0.0.1:{port}/v1/chat/completions" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_an_unknown_host_says_so():
    client = lib.OpenAIClient(base_url="http://no-such-host.invalid/v1", max_retries=0)
    with pytest.raises(lib.HTTPError, match=r"no connection: .*no-such-host.invalid"):
        call(client, QUESTION)


@pytest.fixture
def full_queue():
    """A port that neither accepts nor refuses connections, because its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        waiting = []
        for _ in range(4):  # more than any system has beyond the backlog
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(address)
            waiting.append(one)
        yield f"http://127.0.0.1:{address[1]}/v1"
        for one in waiting:
            one.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses")
def test_no_connection_in_time_is_a_timeout_and_tried_again(full_queue, question):
    client = lib.OpenAIClient(base_url=full_queue, timeout=(0.1, 60), max_retries=1)
    waits = waits_of(client)
    with pytest.raises(lib.RequestTimeoutError, match=r"no connection within 0\.1 s") as caught:
        call(client, question)
    assert caught.value.may_retry
    assert len(waits) == 1


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "-", "xn--a", "a..b", ".", "exa mple"])
def test_an_invalid_host_is_an_openai_error(host):
    with pytest.raises((lib.ConfigError, lib.HTTPError)):
        call(lib.OpenAIClient(base_url=f"http://{host}/v1", max_retries=0, timeout=5), QUESTION)


def test_https_to_a_plain_http_server_is_an_error_that_names_ssl(ask, question):
    client = ask(ANSWER)
    secure = lib.OpenAIClient(base_url=client.base_url.replace("http:", "https:"), max_retries=0)
    with pytest.raises(lib.HTTPError, match="no connection: SSLError"):
        call(secure, question)


def test_a_ca_bundle_that_is_not_there_is_a_config_error(ask, question):
    url = ask(ANSWER).base_url.replace("http:", "https:")
    with pytest.raises(lib.ConfigError, match="no/such/bundle"):
        call(lib.OpenAIClient(base_url=url, verify="/no/such/bundle.pem"), question)


@pytest.mark.parametrize(
    "error",
    [requests.exceptions.ChunkedEncodingError("x"), requests.exceptions.ContentDecodingError("x"),
     requests.exceptions.TooManyRedirects("x"), requests.exceptions.InvalidProxyURL("x"),
     requests.exceptions.RetryError("x"), requests.exceptions.ConnectionError("x"), OSError("x"),
     requests.exceptions.ReadTimeout("x"), requests.exceptions.ProxyError("x"), TimeoutError("x")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_exceptions_of_requests_become_openai_errors(question, error):
    with responses.RequestsMock() as mock, lib.OpenAIClient(KEY, max_retries=0) as client:
        mock.post(URL, body=error)
        with pytest.raises(lib.OpenAIError) as caught:
            call(client, question)
        timeout = isinstance(error, (TimeoutError, requests.exceptions.Timeout))
        assert (
            isinstance(caught.value, lib.RequestTimeoutError)
            if timeout
            else "x" in str(caught.value)
        )


def test_a_connection_lost_in_a_foreign_adapter_is_retried_and_reported_as_lost(question):
    lost = requests.ConnectionError(ConnectionResetError(104, "Connection reset by peer"))
    with responses.RequestsMock() as mock, lib.OpenAIClient(KEY) as client:
        waits = waits_of(client)
        mock.post(URL, body=lost)
        mock.post(URL, json=completion())
        assert call(client, question).text == "Hi!"
        mock.reset()
        mock.post(URL, body=lost)
        with pytest.raises(lib.HTTPError, match="lost before a reply came: ConnectionReset"):
            call(client.with_options(max_retries=0), question)
    assert len(waits) == 1


def test_about_a_megabyte_of_an_error_body_is_read_and_no_more(ask, question):
    endless = http(b"x" * 9_000_000, "400 Bad Request")[:1_500_000]
    client = ask(Reply(endless, SILENCE), timeout=60)
    with pytest.raises(lib.BadRequestError) as caught:
        call(client, question)
    assert 1_000_000 < len(caught.value.body) < 1_200_000
    assert len(str(caught.value)) < 2000
    assert client.wire.closed_by_client.wait(30)


def test_reading_a_truncated_response_again_raises_again(ask):
    client = ask(Reply(ANSWER[:-5], CLOSE))
    answer = lib.send(client, "POST", "chat/completions", b"{}")
    for _ in range(2):
        with pytest.raises(lib.StreamInterruptedError, match="in the middle of the reply"):
            list(answer.iter_bytes())


@pytest.fixture
def ctrl_c():
    """Send SIGINT to the main thread, as Ctrl-C does, even where it was ignored at the start."""
    if not hasattr(signal, "pthread_kill"):
        pytest.skip("no signals to threads here")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("deadline", [None, 60])
@pytest.mark.parametrize("function", [call, open_stream], ids=["call", "stream"])
def test_ctrl_c_during_the_wait_for_a_response_leaves_the_client_usable(
    ask, question, function, deadline, ctrl_c
):
    def press(request):
        ctrl_c()
        return Reply(b"", SILENCE)

    client = ask(press, ANSWER, deadline=deadline)
    with pytest.raises(KeyboardInterrupt):
        function(client, question)
    assert client.wire.closed_by_client.wait(30)
    assert no_timer_is_left()
    assert call(client, question).text == "Hi!"
    assert client.wire.connections == 2


# Retries


def test_safe_retries_wait_as_long_as_the_server_asks_and_are_logged(ask, question, caplog):
    limit = http({"error": {"message": "private words"}}, "429 Too Many", "retry-after-ms: 20",
                 "x-request-id: req_1")  # fmt: skip
    client = ask(Reply(b"", CLOSE), limit, ANSWER)
    with caplog.at_level(logging.INFO):
        assert call(client, question).text == "Hi!"
    assert 0.375 <= client.waits[0] <= 0.5
    assert client.waits[1] == 0.02
    lines = [record.getMessage() for record in caplog.records if record.name.startswith(lib.name)]
    assert lines[0].startswith("retry 1 of 2 in ")
    assert "connection was lost" in lines[0]
    assert lines[1] == "retry 2 of 2 in 0.02 s after status 429 (request req_1)"
    assert "private words" not in caplog.text


@pytest.mark.parametrize("max_retries", [0, 1, 4])
def test_after_max_retries_the_last_error_is_raised(ask, question, max_retries):
    client = ask(http({"error": "busy"}, "503 Busy"), max_retries=max_retries)
    with pytest.raises(lib.InternalServerError, match="busy"):
        call(client, question)
    assert len(client.wire.requests) == max_retries + 1
    assert client.wire.connections == 1


def test_a_retry_sends_the_same_bytes(ask, question):
    client = ask(http(b"", "500 Oops"), ANSWER)
    call(client, question)
    first, second = client.wire.requests
    assert (first.line, first.headers, first.body) == (second.line, second.headers, second.body)


def test_a_retry_after_of_more_than_a_minute_is_raised_and_not_waited_for(ask, question):
    client = ask(http(b"", "429 Too Many", "Retry-After: 120"))
    with pytest.raises(lib.RateLimitError) as caught:
        call(client, question)
    assert caught.value.retry_after == 120
    assert client.waits == []


def test_an_exhausted_quota_fails_at_once(ask, question):
    client = ask(
        http({"error": {"message": "no money", "code": "insufficient_quota"}}, "429 Too Many")
    )
    with pytest.raises(lib.QuotaExceededError, match="no money"):
        call(client, question)
    assert len(client.wire.requests) == 1


@pytest.mark.parametrize("function", [call, open_stream], ids=["call", "stream"])
def test_silence_is_a_timeout_and_not_tried_again(ask, question, function):
    client = ask(Reply(b"", SILENCE), timeout=(5, 0.1))
    with pytest.raises(lib.RequestTimeoutError, match=r"no reply within 0\.1 s"):
        function(client, question)
    wait_until(lambda: client.wire.requests)  # the server may be slower than 0.1 s
    assert len(client.wire.requests) == 1


def test_a_connection_lost_long_after_sending_is_not_tried_again(ask, question, monkeypatch):
    monkeypatch.setattr(module_of(lib.Exchange), "_LOST_SECONDS", -1.0)
    client = ask(Reply(b"", CLOSE))
    with pytest.raises(lib.HTTPError, match="lost") as caught:
        call(client, question)
    assert not caught.value.may_retry
    assert len(client.wire.requests) == 1
    reused = ask(ANSWER, Reply(b"", CLOSE))
    call(reused, question)
    with pytest.raises(lib.HTTPError, match="lost"):
        call(reused, question)
    assert len(reused.wire.requests) == 2


def test_nothing_is_tried_again_after_the_first_byte(ask, question):
    for function, raw in (
        (call, ANSWER[:-5]),
        (open_stream, streamed(chunk("a"), done=False)[:-9]),
    ):
        client = ask(Reply(raw, RESET))
        with pytest.raises(lib.HTTPError):
            list(function(client, question))
        assert len(client.wire.requests) == 1


def test_a_connection_that_cannot_be_made_is_tried_again():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = lib.OpenAIClient(base_url=f"http://127.0.0.1:{port}/v1")
    waits = waits_of(client)
    with pytest.raises(lib.HTTPError):
        call(client, QUESTION)
    assert len(waits) == 2


def test_a_reconnect_is_logged_as_a_retry_even_without_retries(ask, question, caplog):
    client = ask(ANSWER, Reply(b"", CLOSE), ANSWER, max_retries=0)
    call(client, question)
    with caplog.at_level(logging.INFO, logger=lib.name):
        call(client, question)
    (record,) = [r for r in caplog.records if r.name.startswith(lib.name)]
    assert record.getMessage().startswith("retry 1 of 1 in 0.00 s after the connection was lost")


def test_the_seconds_of_a_request_do_not_include_the_wait_before_it(
    ask, question, caplog, monkeypatch
):
    client = ask(http({"error": "busy"}, "503 Busy", "Retry-After: 50"), ANSWER)
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + sum(client.waits))
    with caplog.at_level(logging.DEBUG, logger=lib.name):
        call(client, question)
    debug = [r for r in caplog.records if r.name.startswith(lib.name) and r.levelno < logging.INFO]
    assert [record.args[1] for record in debug] == [503, 200]
    assert all(record.args[2] < 50 for record in debug)


def test_each_request_is_one_debug_line(ask, question, caplog):
    client = ask(
        http(completion(), "200 OK", "x-request-id: req_1"), query={"api-key": "hidden-secret"}
    )
    with caplog.at_level(logging.DEBUG, logger=lib.name):
        call(client, question)
    (record,) = [r for r in caplog.records if r.name.startswith(lib.name)]
    text = record.getMessage()
    assert text.startswith(f"POST {client.base_url}/chat/completions -> 200 in 0.")
    assert text.endswith(" s (request req_1)")


# Time


def drip(raw, head=b""):
    """A response whose bytes come one by one after its head, and never end."""
    return Reply([head, *(bytes([b]) for b in raw.removeprefix(head))], SILENCE)


def head_of(raw):
    return raw[: raw.index(b"\r\n\r\n") + 4]


REFUSED = http(b" " * 9000, "400 Bad")


KEEP_ALIVES = [streamed(done=False)[:-5]] + [b"8\r\n: ping\n\n\r\n"] * 100_000


class Dripping(Wire):
    """Sends the pieces of its replies at intervals, for as long as somebody reads."""

    def send(self, conn, reply):
        for data in reply.writes:
            conn.sendall(data)
            if self.stopped.wait(0.01):
                return False
        return super().send(conn, Reply(b"", reply.end))


@pytest.mark.parametrize(
    ("reply", "function"),
    [
        pytest.param(Reply([], SILENCE), call, id="silence"),
        pytest.param(
            Reply([], SILENCE), open_stream, id="silence-before-a-stream", marks=IN_THE_GATE
        ),
        pytest.param(
            drip(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 90),
            call,
            id="dripping-head",
            marks=IN_THE_GATE,
        ),
        pytest.param(drip(http(b" " * 9000)), call, id="dripping-body"),
        pytest.param(
            Reply([http(completion(), framing="close")], SILENCE),
            call,
            id="open-end",
            marks=IN_THE_GATE,
        ),
        pytest.param(Reply(KEEP_ALIVES, SILENCE), open_stream, id="keep-alives"),
        pytest.param(
            drip(streamed(chunk("a" * 9000))), open_stream, id="dripping-stream", marks=IN_THE_GATE
        ),
        pytest.param(drip(REFUSED, head_of(REFUSED)), call, id="dripping-error"),
        pytest.param(
            drip(http(sse(chunk("a" * 9000)), framing="close")),
            open_stream,
            id="close-delimited",
            marks=IN_THE_GATE,
        ),
    ],
)
def test_a_deadline_ends_a_call_whatever_the_server_does(question, reply, function):
    with (
        Dripping(reply) as wire,
        lib.OpenAIClient(base_url=wire.url, deadline=0.15, timeout=60) as client,
    ):
        expected = (
            lib.APIError if b"400" in b"".join(reply.writes[:20]) else lib.RequestTimeoutError
        )
        with pytest.raises(expected) as caught:
            list(function(client, question))
        if expected is lib.RequestTimeoutError:
            assert "deadline" in str(caught.value)
            assert caught.value.partial is None or function is open_stream
        wait_until(lambda: wire.requests)  # the server may be slower than the deadline
        assert len(wire.requests) == 1


def test_a_wait_beyond_the_deadline_raises_the_error_of_the_server_at_once(ask, question):
    client = ask(http({"error": "busy"}, "429 Too Many", "retry-after: 30"), deadline=20)
    with pytest.raises(lib.RateLimitError, match="busy") as caught:
        call(client, question)
    assert caught.value.retry_after == 30
    assert client.waits == []


def test_a_deadline_does_not_affect_a_call_that_meets_it(ask, question):
    client = ask(ANSWER, STREAM, deadline=60)
    assert call(client, question).text == "Hi!"
    assert open_stream(client, question).response().text == "ab"
    assert no_timer_is_left()
    assert client.wire.connections == 1


def test_silence_in_a_stream_is_a_timeout_with_the_partial_response(ask, question):
    client = ask(ENDLESS, timeout=(5, 0.3))
    with pytest.raises(lib.RequestTimeoutError, match="silent") as caught:
        list(open_stream(client, question))
    assert caught.value.partial.text == "a"
    assert client.wire.closed_by_client.wait(30)


# Credentials


def test_netrc_changes_nothing(ask, question, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login mallory password hunter22\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    client = ask(ANSWER)
    session = requests.Session()
    for one in (client, client.with_options(session=session)):
        call(one, question)
        call(one.with_options(api_key=""), question)
    sent = [request.headers.get("authorization") for request in client.wire.requests]
    assert sent == [f"Bearer {KEY}", None, f"Bearer {KEY}", None]
    session.close()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 Other", "307 Same", "308 Same"])
@pytest.mark.parametrize("own_session", [False, True])
def test_a_redirect_is_an_error_that_names_its_target(ask, question, status, own_session):
    client = ask(http(b"", status, "Location: https://evil.example/v1"))
    session = requests.Session()
    one = client.with_options(session=session) if own_session else client
    with pytest.raises(lib.APIError, match=r"https://evil\.example/v1") as caught:
        call(one, question)
    assert caught.value.status_code == int(status[:3])
    assert len(client.wire.requests) == 1
    session.close()


def texts_of(error):
    """All texts of an error that a person, a log or a file may show."""
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        yield from (str(error), repr(error), repr(vars(error)))
        yield "".join(traceback.format_exception(error))
        error = error.__cause__ or error.__context__
    for one in seen:
        try:
            yield repr(pickle.dumps(one))
        except Exception as failure:
            yield str(failure)


@pytest.mark.parametrize("own_session", [False, True], ids=["adapter", "session"])
@pytest.mark.parametrize(
    "reply",
    [
        http({"error": {"message": f"Incorrect API key: {KEY}"}}, "401 Unauthorized"),
        http(f"<html>{KEY}</html>".encode(), "502 Bad Gateway"),
        http({"error": {"message": f"bad key {KEY}"}}),
        http(f"not JSON {KEY}".encode()),
        http({"choices": KEY}),
        http(b"", "302 Found", f"Location: https://x/?key={KEY}"),
        Reply(b"", CLOSE),
        Reply(b"", RESET),
        Reply(KEY.encode() + b"\r\n\r\n", CLOSE),
        Reply(ANSWER[:-3], RESET),
        streamed(chunk("a"), {"error": {"message": f"bad key {KEY}"}}),
        streamed(chunk("a"), f"data: no {KEY}\n\n".encode()),
        streamed(chunk("a"), f"event: error\ndata: {KEY}\n\n".encode()),
    ],
    ids=str,
)
def test_no_error_log_or_repr_shows_the_key(ask, question, reply, own_session, caplog):
    client = ask(reply, query={"api-key": KEY}, headers={"X-Api-Token": KEY})
    session = requests.Session()
    one = client.with_options(session=session) if own_session else client
    waits_of(one)
    with caplog.at_level(logging.DEBUG, logger=lib.name):
        for function in (call, open_stream):
            with pytest.raises(lib.OpenAIError) as caught:
                list(function(one, question))
            for text in texts_of(caught.value):
                assert KEY not in text
    assert KEY not in "".join(r.getMessage() for r in caplog.records if r.name.startswith(lib.name))
    assert KEY not in repr(client) + repr(one)
    session.close()


# The environment, and a session of the user's


def test_a_proxy_of_the_environment_is_used_and_no_proxy_obeyed(ask, question, monkeypatch):
    client = ask(ANSWER)
    other = lib.OpenAIClient(KEY, base_url="http://some.example/v1", max_retries=0)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{client.wire.port}")
    call(other, question)
    assert client.wire.requests[0].line == "POST http://some.example/v1/chat/completions HTTP/1.1"
    monkeypatch.setenv("no_proxy", "some.example")
    with pytest.raises(lib.HTTPError, match="no connection"):
        call(other, question)
    other.close()


def test_a_proxy_given_wins_over_the_environment(ask, question, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    client = ask(ANSWER)
    proxies = {"http": f"http://127.0.0.1:{client.wire.port}"}
    with lib.OpenAIClient(KEY, base_url="http://some.example/v1", proxies=proxies) as other:
        call(other, question)
    assert client.wire.requests[0].line.startswith("POST http://some.example/v1/")


def test_the_error_for_a_dead_proxy_names_the_proxy_and_not_its_password(question):
    proxies = {"http": "http://user:hunter22@127.0.0.1:9"}
    client = lib.OpenAIClient(
        KEY, base_url="http://some.example/v1", proxies=proxies, max_retries=0
    )
    with pytest.raises(lib.HTTPError, match="through the proxy") as caught:
        call(client, question)
    assert not any("hunter22" in text for text in texts_of(caught.value))


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_ca_bundle_of_the_environment_is_used(ask, question, monkeypatch, variable):
    monkeypatch.setenv(variable, "/no/such/bundle.pem")
    url = ask(ANSWER).base_url.replace("http:", "https:")
    with pytest.raises(lib.ConfigError, match="no/such/bundle"):
        call(lib.OpenAIClient(base_url=url, max_retries=0), question)
    given = lib.OpenAIClient(base_url=url, max_retries=0, verify=False)
    with pytest.raises(lib.HTTPError, match="no connection: SSLError"):
        call(given, question)


@pytest.fixture
def session():
    with requests.Session() as session:
        yield session


def test_a_session_keeps_its_headers_hooks_params_and_auth(ask, question, session):
    client = ask(ANSWER, STREAM)
    seen = []
    session.headers.update({"X-Mine": "1", "User-Agent": "mine/2"})
    session.params = {"a": "b"}
    session.auth = ("me", "secret")
    session.hooks["response"].append(lambda response, **_: seen.append(response.status_code))
    one = client.with_options(session=session)
    assert call(one, question).text == "Hi!"
    assert open_stream(one, question).response().text == "ab"
    sent = client.wire.requests[1]
    assert sent.line == "POST /v1/chat/completions?a=b HTTP/1.1"
    assert (sent.headers["x-mine"], sent.headers["user-agent"]) == ("1", "mine/2")
    assert sent.headers["authorization"].startswith("Basic ")
    assert sent.headers["accept"] == "text/event-stream"
    assert seen == [200, 200]
    assert client.wire.connections == 1


def test_a_session_with_default_headers_sends_our_user_agent_and_key(ask, question, session):
    client = ask(ANSWER)
    call(client.with_options(session=session), question)
    assert client.wire.requests[0].headers["user-agent"] == f"chatgptlib/{lib.__version__}"
    assert client.wire.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_hook_that_reads_the_body_loses_nothing(ask, question, session):
    def read(response, **_):
        assert response.content

    session.hooks["response"].append(read)
    client = ask(ANSWER, STREAM).with_options(session=session)
    assert call(client, question).text == "Hi!"
    assert list(open_stream(client, question).text_deltas()) == ["a", "b"]


def test_an_adapter_mounted_on_a_session_is_used(question, session):
    class Canned(requests.adapters.BaseAdapter):
        def send(self, request, **kwargs):
            response = requests.Response()
            response.status_code, response.request, response.url = 200, request, request.url
            response.raw = io.BytesIO(json.dumps(completion("canned")).encode())
            return response

        def close(self):
            pass

    session.mount("http://", Canned())
    client = lib.OpenAIClient(base_url="http://some.example/v1", session=session)
    assert call(client, question).text == "canned"


def test_the_body_of_an_adapter_may_be_any_file_even_one_that_fails_to_close(question, session):
    class File:
        def __init__(self):
            self.read = io.BytesIO(sse(chunk("a"), chunk("b"))).read

        def close(self):
            raise OSError("stuck")

    class Recorded(requests.adapters.BaseAdapter):
        def send(self, request, **kwargs):
            response = requests.Response()
            response.status_code, response.request, response.url = 200, request, request.url
            response.raw = File()
            return response

        def close(self):
            pass

    session.mount("http://", Recorded())
    client = lib.OpenAIClient(base_url="http://some.example/v1", session=session)
    assert open_stream(client, question).response().text == "ab"
    with open_stream(client, question) as stream:
        assert next(stream).text == "a"
    with pytest.raises(lib.StreamInterruptedError, match="closed"):
        next(stream)


def test_a_sessions_own_verify_wins_over_the_environment(ask, question, session, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
    session.verify = False
    url = ask(ANSWER).base_url.replace("http:", "https:")
    with pytest.raises(lib.HTTPError, match="no connection: SSLError"):
        call(lib.OpenAIClient(base_url=url, max_retries=0, session=session), question)


def test_a_session_is_not_closed_with_the_client(ask, question, session):
    client = ask(ANSWER)
    with client.with_options(session=session) as one:
        call(one, question)
    call(one, question)
    assert client.wire.connections == 1


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_close, leave_unread],
                         ids=lambda leave: leave.__name__)  # fmt: skip
def test_a_stream_through_a_session_frees_its_connection(ask, question, session, leave):
    client = ask(ENDLESS)
    leave(client.with_options(session=session), question)
    assert client.wire.closed_by_client.wait(30)


@pytest.mark.gate
@pytest.mark.versions
def test_a_deadline_ends_a_stream_through_a_session(question, session):
    with Dripping(Reply(KEEP_ALIVES, SILENCE)) as wire:
        client = lib.OpenAIClient(base_url=wire.url, deadline=0.3, session=session)
        with pytest.raises(lib.RequestTimeoutError, match="deadline"):
            list(open_stream(client, question))


def test_mocks_of_responses_work_as_streams_and_errors(question):
    with responses.RequestsMock() as mock, lib.OpenAIClient(KEY, max_retries=0) as client:
        mock.post(URL, body=sse(chunk("a"), chunk("b")), content_type="text/event-stream")
        stream = open_stream(client, question)
        assert next(stream).text == "a"
        stream.close()
        assert open_stream(client, question).response().text == "ab"
        mock.reset()
        mock.post(URL, json={"error": {"message": "no"}}, status=429, headers={"retry-after": "9"})
        with pytest.raises(lib.RateLimitError) as caught:
            call(client, question)
        assert caught.value.retry_after == 9


def test_a_fork_is_detected_by_the_process_id(ask, question, monkeypatch):
    client = ask(ANSWER)
    call(client, question)
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    call(client, question)
    assert client.wire.connections == 2
    client.close()
    monkeypatch.undo()
    client.close()


def test_a_stream_through_a_session_gives_its_connection_back(ask, question, session):
    client = ask(STREAM, streamed(chunk("a")), http(sse(chunk("a"))), ANSWER)
    one = client.with_options(session=session)
    for _ in range(3):
        assert open_stream(one, question).response().text.startswith("a")
    call(one, question)
    assert client.wire.connections == 1


# Found by trying to break it


@pytest.mark.parametrize("own_session", [False, True], ids=["adapter", "session"])
def test_an_interim_response_never_gives_a_call_the_response_of_another(
    ask, question, session, own_session
):
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    client = ask(*([early, http(completion(str(n)))] for n in range(3)), max_retries=0)
    one = client.with_options(session=session) if own_session else client
    for n in range(3):
        try:
            assert call(one, question).text == str(n)
        except lib.APIError as error:
            shown = (own_session, error.status_code)
        else:
            continue
        assert shown == (True, 103)


def test_leaving_a_stream_does_not_cut_the_call_that_has_its_connection_now(ask, question):
    hold = threading.Event()
    client = ask(http(sse(chunk("a"), chunk("b"))), Reply([b"", ANSWER], hold=hold), max_retries=0)
    stream = open_stream(client, question)
    next(stream)  # all of the body came in one read
    answers = []
    thread = threading.Thread(target=lambda: answers.append(call(client, question)))
    thread.start()
    wait_until(lambda: len(client.wire.requests) == 2)
    stream.close()
    del stream
    hold.set()
    thread.join(10)
    assert [answer.text for answer in answers] == ["Hi!"]
    assert len(client.wire.requests) == 2


FORK_IN_A_STREAM = """
import os, sys
import {name} as lib
client = lib.OpenAIClient(base_url=sys.argv[1])
stream = lib.create_chat_completion_stream(client, {{"model": "m", "messages": []}})
next(stream)
pid = os.fork()
if pid == 0:
    stream.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print("closed", flush=True)
print(stream.response().text)
"""


def test_a_child_does_not_end_its_parents_stream(ask):
    whole = streamed(chunk("a"), chunk("b"))
    hold = threading.Event()
    at = whole.index(b'"b"')
    client = ask(Reply([whole[:at], whole[at:]], CLOSE, hold))
    child = subprocess.Popen(
        [sys.executable, "-c", FORK_IN_A_STREAM.format(name=lib.name), client.base_url],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout.readline() == "closed\n"
    hold.set()
    out, _ = child.communicate(timeout=60)
    assert (child.returncode, out) == (0, "ab\n")


def test_through_a_session_or_proxy_too_a_late_loss_is_not_tried_again(
    question, session, monkeypatch
):
    monkeypatch.setattr(module_of(lib.Exchange), "_LOST_SECONDS", -1.0)
    for proxied in (False, True):
        with Wire(Reply(b"", CLOSE)) as wire:
            settings = {"base_url": wire.url, "session": session}
            if proxied:
                settings = {"base_url": "http://some.example/v1",
                            "proxies": {"http": f"http://127.0.0.1:{wire.port}"}}  # fmt: skip
            with lib.OpenAIClient(**settings) as client, pytest.raises(lib.HTTPError, match="lost"):
                call(client, question)
            assert len(wire.requests) == 1


@pytest.mark.gate
@pytest.mark.versions
def test_the_read_timeout_still_applies_after_connections_to_many_hosts(question):
    first = lib.OpenAIClient(max_retries=0, base_url="http://127.0.0.1:1/v1")
    with Wire(Reply([], SILENCE)) as wire:
        client = first.with_options(base_url=wire.url, timeout=(5, 0.1))
        for round in range(2):
            with pytest.raises(lib.RequestTimeoutError, match="no reply"):
                call(client, question)
            for n in range(12 if round == 0 else 0):
                other = first.with_options(base_url=f"http://127.0.0.1:{n + 1}/v1")
                with pytest.raises(lib.HTTPError):
                    call(other, question)
    first.close()


@pytest.mark.parametrize(
    "body",
    [b'{"error": {"message": "bad sk-secret\\/key"}}', b'{"error": "sk\\u002dsecret\\/key"}', b""],
)
def test_a_key_with_json_escapes_is_redacted_too(ask, question, body):
    key = "sk-secret/key"
    reply = http(body, f"401 Bad {key}", f"x-request-id: {key}")
    client = ask(reply).with_options(api_key=key)
    with pytest.raises(lib.AuthenticationError) as caught:
        call(client, question)
    assert not any(key in text for text in texts_of(caught.value))


def test_a_key_in_the_query_is_in_no_cause(question):
    for url in ("http://127.0.0.1:1/v1", f"http://{'x' * 70}.test/v1"):
        client = lib.OpenAIClient(base_url=url, query={"api-key": "a+secret/key="}, max_retries=0)
        with pytest.raises(lib.OpenAIError) as caught:
            call(client, question)
        for text in texts_of(caught.value):
            assert "secret/" not in text
            assert "secret%2F" not in text


@pytest.mark.parametrize(
    ("whole", "drip"),
    [
        pytest.param(streamed(chunk("a"))[:-2], b"x", id="a-line-without-an-end"),
        pytest.param(streamed(chunk("a"), framing="close"), b": ping\n\n", id="keep-alives"),
    ],
)
def test_bytes_that_drip_after_done_do_not_delay_the_response(question, whole, drip):
    with (
        Dripping(Reply([whole] + [drip] * 3000, SILENCE)) as wire,
        lib.OpenAIClient(base_url=wire.url, deadline=20) as client,
    ):
        assert open_stream(client, question).response().text == "a"
        assert wire.closed_by_client.wait(10)


@pytest.mark.parametrize("handled", [TimeoutError("mine"), ValueError("my own number")], ids=repr)
def test_an_exception_that_the_caller_is_handling_does_not_change_the_error(ask, question, handled):
    client = ask(Reply(ANSWER[:-5], CLOSE), max_retries=0)
    refused = client.with_options(base_url="http://127.0.0.1:9/v1")
    for one, words in ((refused, "no connection: ConnectionRefused"), (client, "in the middle")):
        try:
            raise handled
        except type(handled):
            with pytest.raises(lib.HTTPError, match=words) as caught:
                call(one, question)
            assert type(caught.value) is lib.HTTPError
            assert "mine" not in str(caught.value)
            assert caught.value.__cause__ is not handled
            assert handled.__traceback__ is not None


def test_idle_connections_of_ended_threads_are_closed(ask, question, monkeypatch):
    client = ask(ANSWER)
    crowd = [threading.Thread(target=call, args=[client, question]) for _ in range(20)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join(10)
    monkeypatch.setattr(module_of(lib.Connections), "_IDLE_SECONDS", 0.0)
    call(client, question)
    monkeypatch.undo()
    assert client.wire.closed_by_client.wait(30)


def test_a_stream_that_ends_after_the_close_of_its_client_leaves_no_connection_open(ask, question):
    client = ask(STREAM)
    stream = open_stream(client, question)
    client.close()
    assert stream.response().text == "ab"
    assert client.wire.closed_by_client.wait(30)


# By the classes, functions and objects that have them.
PRIVATE_NAMES = {
    "urllib3.connectionpool.HTTPConnectionPool": ["_new_conn", "_prepare_proxy", "_validate_conn"],
    "urllib3._collections": ["HTTPHeaderDict"],  # urllib3 1.26 has it nowhere else
    "urllib3.HTTPResponse()": ["_fp"],
    "requests.adapters.HTTPAdapter": ["cert_verify"],
    "requests.Response()": ["_content"],
}


@pytest.mark.parametrize("owner", PRIVATE_NAMES)
def test_every_private_name_that_is_used_is_still_there(owner):
    found = pydoc.locate(owner.removesuffix("()"))
    found = found() if owner.endswith("()") else found
    assert [name for name in PRIVATE_NAMES[owner] if not hasattr(found, name)] == []
