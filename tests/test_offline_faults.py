"""Faults of the offline server: each causes the right error in this library and in openai's."""

import http.client
import json
import math
import socket
import threading
from contextlib import suppress

import pytest
import requests

from . import lib

TEXT = "One two three four."
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Say hi."}]}
OVERLOADED = {
    "error": {"message": "Overloaded.", "type": "server_error", "param": None, "code": None}
}
SLOW = {
    "error": {
        "message": "Slow down.",
        "type": "tokens",
        "param": None,
        "code": "rate_limit_exceeded",
    }
}
LONG = 30.0  # seconds, longer than any client here waits

# What each reply causes, this library's error and openai's: for a call, and for a stream. A text
# is the text of a response, or of a stream that ends without an error.
CASES = {
    "headers": ((429, SLOW, {"Retry-After": "7"}), ("RateLimitError", "RateLimitError"), ("RateLimitError", "RateLimitError")),
    "html": ((502, b"<html>Bad</html>", {"Content-Type": "text/html"}), ("InternalServerError", "InternalServerError"), ("InternalServerError", "InternalServerError")),
    "dropped": (lib.Cut(answer=TEXT), ("HTTPError", "APIConnectionError"), ("HTTPError", "APIConnectionError")),
    "dropped-by-a-reset": (lib.Cut(how="reset", answer=TEXT), ("HTTPError", "APIConnectionError"), ("HTTPError", "APIConnectionError")),
    "cut-cleanly": (lib.Cut(after=3, answer=TEXT), ("DeserializeError", "JSONDecodeError"), ("StreamInterruptedError", "One two")),
    "cut-by-a-close": (lib.Cut(after=3, how="close", answer=TEXT), ("HTTPError", "APIConnectionError"), ("StreamInterruptedError", "APIConnectionError")),
    "cut-by-a-reset": (lib.Cut(after=3, how="reset", answer=TEXT), ("HTTPError", "APIConnectionError"), ("StreamInterruptedError", "APIConnectionError")),
    "without-an-event": (lib.Cut(after=0, answer=TEXT), ("DeserializeError", "JSONDecodeError"), ("StreamInterruptedError", "")),
    "without-its-finish-reason": (lib.Cut(after=-2, answer=TEXT), ("DeserializeError", "JSONDecodeError"), ("StreamInterruptedError", TEXT)),
    "silence-before-the-head": (lib.Stall(LONG, answer=TEXT), ("RequestTimeoutError", "APITimeoutError"), ("RequestTimeoutError", "APITimeoutError")),
    "silence-before-the-first": (lib.Stall(LONG, after=0, answer=TEXT), ("RequestTimeoutError", "APITimeoutError"), ("RequestTimeoutError", "APITimeoutError")),
    "silence-between-two": (lib.Stall(LONG, after=1, answer=TEXT), ("RequestTimeoutError", "APITimeoutError"), ("RequestTimeoutError", "APITimeoutError")),
    "an-error-in-the-middle": (lib.Inject(OVERLOADED, after=2, answer=TEXT), ("DeserializeError", "JSONDecodeError"), ("InternalServerError", "APIError")),
    "a-broken-chunk": (lib.Inject('{"choices": [', after=2, answer=TEXT), ("DeserializeError", "JSONDecodeError"), ("DeserializeError", "JSONDecodeError")),
    "pieces": (lib.Pieces([1, 2, 500], answer=TEXT), (TEXT, TEXT), (TEXT, TEXT)),
    "single-bytes": (lib.Pieces([1], answer=TEXT + " ♥ é"), (TEXT + " ♥ é",) * 2, (TEXT + " ♥ é",) * 2),
    "a-short-silence": (lib.Stall(0.01, answer=TEXT), (TEXT, TEXT), (TEXT, TEXT)),
    "several-faults": (lib.Stall(0.01, answer=lib.Cut(after=4, how="reset", answer=lib.Pieces([50], answer=TEXT))), ("HTTPError", "APIConnectionError"), ("StreamInterruptedError", "APIConnectionError")),
}  # fmt: skip
each_case = pytest.mark.parametrize(("reply", "whole", "streamed"), CASES.values(), ids=CASES)


def outcome_of(function):
    """The text that a function returns, or the name of the class of its error."""
    try:
        return function()
    except Exception as error:
        return type(error).__name__


@each_case
def test_this_library_sees_each_fault_as_its_error(reply, whole, streamed):
    with lib.OfflineServer([reply, reply]) as server:
        settings = {"base_url": server.url, "max_retries": 0, "timeout": (5, 0.15)}
        with lib.OpenAIClient(**settings) as client:
            assert outcome_of(lambda: lib.create_chat_completion(client, QUESTION).text) == whole[0]

            def in_a_stream():
                return lib.create_chat_completion_stream(client, QUESTION).response().text

            assert outcome_of(in_a_stream) == streamed[0]


@each_case
def test_the_openai_package_sees_each_fault_as_its_error(reply, whole, streamed):
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    with lib.OfflineServer([reply, reply]) as server:
        settings = {"base_url": server.url, "api_key": "k", "max_retries": 0, "timeout": 0.3}
        client = openai.OpenAI(**settings)
        create = client.chat.completions.create

        def in_a_stream():
            chunks = create(**QUESTION, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

        assert outcome_of(lambda: create(**QUESTION).choices[0].message.content) == whole[1]
        assert outcome_of(in_a_stream) == streamed[1]
        client.close()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("after", "same"), [(-99, 0), (99, -1)])
def test_a_position_beyond_either_end_is_the_first_or_the_last_position(after, same, streamed):
    fixed = {"choices": [{"message": {"content": TEXT}}]}
    faults = [lib.Cut(after=place, answer=fixed) for place in (after, same)]
    with lib.OfflineServer(faults) as server:
        replies = [raw(server, stream=streamed)[0] for _ in faults]
    beyond, at_the_end = (reply.partition(b"\r\n\r\n")[2] for reply in replies)
    assert beyond == at_the_end


# On the wire, without a client


def raw(server, **more):
    """What comes back for a request, byte for byte, and how it ended."""
    body = json.dumps({**QUESTION, **more}).encode()
    host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
    head = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(head + body)
        with suppress(OSError):  # the server has reset it already
            line.shutdown(socket.SHUT_WR)
        came = b""
        try:
            while piece := line.recv(65536):
                came += piece
        except ConnectionResetError:
            return came, "reset"
        return came, "end"


def chunks_of(chunked):
    """The HTTP chunks of a body, the empty last one included."""
    found = []
    while chunked:
        size, _, chunked = chunked.partition(b"\r\n")
        found.append(chunked[: int(size, 16)])
        chunked = chunked[int(size, 16) + 2 :]
    return found


@pytest.mark.parametrize(
    ("fault", "events", "finished", "end"),
    [
        pytest.param(lib.Cut(after=3, answer=TEXT), 3, True, "end", id="end"),
        pytest.param(lib.Cut(after=3, how="close", answer=TEXT), 3, False, "end", id="close"),
        pytest.param(lib.Cut(after=3, how="reset", answer=TEXT), 3, False, "reset", id="reset"),
        pytest.param(lib.Cut(after=-1, answer=TEXT), 6, True, "end", id="before-the-last"),
        pytest.param(lib.Cut(after=99, answer=TEXT), 6, True, "end", id="at-most-before-the-last"),
        pytest.param(lib.Cut(after=0, answer=TEXT), 0, True, "end", id="a-head-alone"),
    ],
)
def test_a_cut_stream_ends_as_it_says(fault, events, finished, end):
    with lib.OfflineServer([fault]) as server:
        came, ended = raw(server, stream=True)
    assert ended == end
    assert came.count(b"data: ") == events
    assert came.endswith(b"\r\n0\r\n\r\n") is finished
    assert b"[DONE]" not in came


@pytest.mark.parametrize("how", ["end", "close", "reset"])
def test_a_cut_without_a_place_sends_nothing(how):
    with lib.OfflineServer([lib.Cut(how=how)]) as server:
        came, ended = raw(server)
    assert (came, ended) == (b"", "reset" if how == "reset" else "end")


@pytest.mark.parametrize(("how", "missing"), [("end", 0), ("close", 1)])
def test_a_cut_response_declares_more_bytes_than_it_sends_only_with_close(how, missing):
    with lib.OfflineServer([lib.Cut(after=1, how=how, answer=TEXT)]) as server:
        head, _, body = raw(server)[0].partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    assert body == b"{"
    assert (length > len(body)) is bool(missing)


def test_pieces_have_the_given_sizes_and_hold_the_same_body():
    reply = {"content": TEXT + " ♥"}
    with lib.OfflineServer([lib.Pieces([1, 2, 100], answer=reply), reply]) as server:
        came, _ = raw(server)
        whole = requests.post(f"{server.url}/chat/completions", json=QUESTION, timeout=10).content
    found = chunks_of(came.partition(b"\r\n\r\n")[2])
    assert [len(chunk) for chunk in found[:3]] == [1, 2, 100]
    assert found[-1] == b""
    assert json.loads(b"".join(found))["choices"] == json.loads(whole)["choices"]


def test_pieces_may_hold_several_events():
    with lib.OfflineServer([lib.Pieces([10**6], answer=TEXT)]) as server:
        came, _ = raw(server, stream=True)
    assert len(chunks_of(came.partition(b"\r\n\r\n")[2])) == 2
    assert came.count(b"data: ") == 7


def test_a_fault_may_be_chosen_by_a_function():
    replies = [lambda body: lib.Cut(after=1, answer=body["model"])]
    with lib.OfflineServer(replies) as server:
        assert raw(server, stream=True)[0].count(b"data: ") == 1


def test_a_fault_without_an_answer_applies_to_the_stand_ins_answer():
    with lib.OfflineServer([lib.Inject({"x": 1}, after=2)]) as server:
        came, _ = raw(server, stream=True)
    assert came.count(b'"This"') == 1
    assert b'data: {"x": 1}\n\n' in came


def test_headers_of_an_error_reply_are_sent_and_may_be_numbers():
    with lib.OfflineServer([(429, SLOW, {"Retry-After": 7})]) as server:
        answer = requests.post(f"{server.url}/chat/completions", json=QUESTION, timeout=10)
    assert (answer.headers["Retry-After"], answer.json()) == ("7", SLOW)


def test_the_connection_goes_on_after_faults_that_end_the_body():
    replies = [lib.Cut(after=1), lib.Inject({}, after=1), lib.Pieces([5]), "Hi!"]
    with lib.OfflineServer(replies) as server:
        host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
        line = http.client.HTTPConnection(host, int(port), timeout=10)
        line.connect()
        own = line.sock.getsockname()
        for _ in replies:
            line.request("POST", "/v1/chat/completions", json.dumps({**QUESTION, "stream": True}))
            line.getresponse().read()
            assert line.sock.getsockname() == own
        line.close()


def test_close_ends_a_stall():
    asked, came = threading.Event(), []
    silence = lib.Stall(3600.0, answer=lambda body: asked.set() or TEXT)
    server = lib.OfflineServer([silence]).start()
    asking = threading.Thread(target=lambda: came.append(raw(server)))
    asking.start()
    assert asked.wait(10)
    server.close()
    asking.join(10)
    assert came[0][0] == b""


def test_a_stall_may_last_forever():
    with lib.OfflineServer([lib.Stall(math.inf)]) as server:
        client = lib.OpenAIClient(base_url=server.url, timeout=0.2, max_retries=0)
        with client, pytest.raises(lib.RequestTimeoutError):
            lib.create_chat_completion(client, QUESTION)
