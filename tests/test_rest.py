"""Every other endpoint: the same key, retries and errors; JSON, bytes, or events back."""

import email.parser
import gc
import io
import json
import threading
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
import requests
import responses

from . import lib
from .test_transport import texts_of
from .wire import CLOSE, KEEP, RESET, SILENCE, Reply, http, sse, streamed

KEY = "sk-secret-key"
JSON = "Content-Type: application/json"
OK = http({"id": "file-1", "object": "file"}, "200 OK", JSON)
BUSY = http({"error": {"message": "busy"}}, "429 Too Many Requests", "retry-after: 3", JSON)


def target(client, at=-1):
    """The method and target of a request, without the `/v1` of the base URL."""
    method, target, _ = client.wire.requests[at].line.split(" ")
    return f"{method} {target.removeprefix('/v1')}"


# What is sent


def test_a_post_sends_json_with_the_key_and_returns_the_json_of_the_response(ask):
    answer = {"object": "list", "data": [{"embedding": [0.5]}]}
    client = ask(http(answer, "200 OK", JSON))
    body = {"model": "m", "input": ["a", "é"]}
    assert client.post("embeddings", body) == answer
    request = client.wire.requests[0]
    assert target(client) == "POST /embeddings"
    assert request.body == lib.encode(body)
    assert request.headers == {
        "host": f"127.0.0.1:{client.wire.port}",
        "user-agent": f"chatgptlib/{lib.__version__}",
        "accept": "application/json, */*",
        "accept-encoding": "gzip, deflate",
        "content-type": "application/json",
        "content-length": str(len(request.body)),
        "authorization": f"Bearer {KEY}",
    }


@pytest.mark.parametrize("method", ["get", "delete", "post"])
def test_a_request_without_a_body_has_no_content_type(ask, method):
    client = ask(OK)
    assert getattr(client, method)("/files/file-1") == {"id": "file-1", "object": "file"}
    assert target(client) == f"{method.upper()} /files/file-1"
    sent = client.wire.requests[0]
    assert (sent.body, "content-type" in sent.headers) == (b"", False)
    assert sent.headers["authorization"] == f"Bearer {KEY}"


@dataclass
class Wish:
    model: str
    n: int | None = None


class Size(Enum):
    SMALL = "256x256"


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        pytest.param({"size": Size.SMALL, "seed": None}, b'{"size":"256x256","seed":null}', id="mapping"),
        pytest.param(Wish("m"), b'{"model":"m"}', id="dataclass"),
        pytest.param([1, {"a": True}], b'[1,{"a":true}]', id="list"),
        pytest.param("text", b'"text"', id="text"),
        pytest.param({}, b"{}", id="empty"),
    ],
)  # fmt: skip
def test_a_body_may_be_any_value_with_a_json_form(ask, body, sent):
    client = ask(OK)
    client.post("x", body)
    assert client.wire.requests[0].body == sent


def test_a_body_without_a_json_form_is_rejected_before_sending(ask):
    client = ask(OK)
    for call in (client.post, client.stream):
        with pytest.raises(lib.ConfigError, match=r"\$\.a: bytes has no JSON form"):
            call("x", {"a": b"b"})
    assert not client.wire.requests


def test_client_headers_and_query_are_sent_and_the_query_of_the_call_wins(ask):
    client = ask(OK, headers={"X-A": "b"}, query={"api-version": "1", "tenant": "t"})
    client.get("x", {"api-version": "2"})
    assert target(client) == "GET /x?api-version=2&tenant=t"
    assert client.wire.requests[0].headers["x-a"] == "b"


def test_a_content_type_of_the_users_own_is_sent_in_whatever_case(ask):
    client = ask(OK, headers={"content-type": "application/mine+json"})
    client.post("x", {})
    assert client.wire.requests[0].headers["content-type"] == "application/mine+json"


def test_a_content_type_of_the_users_own_is_not_sent_with_a_form(ask):
    client = ask(OK, headers={"content-type": "application/mine+json"})
    client.post("x", files={"file": b"a"})
    assert client.wire.requests[0].headers["content-type"].startswith("multipart/form-data; ")


def test_an_organization_and_a_key_from_a_function_are_sent(ask):
    client = ask(OK, organization="org-1")
    client.with_options(api_key=lambda: "sk-fresh-key").get("models")
    sent = client.wire.requests[0].headers
    assert (sent["openai-organization"], sent["authorization"]) == ("org-1", "Bearer sk-fresh-key")


def test_a_path_of_with_options_takes_the_place_of_the_calls_own(ask):
    client = ask(OK)
    client.with_options(path="other/é?a=1").get("models", {"b": 2})
    assert target(client) == "GET /other/%C3%A9?a=1&b=2"


def test_a_session_of_the_caller_sends_gets_and_posts(ask):
    client = ask(OK)
    with requests.Session() as session:
        one = client.with_options(session=session)
        one.get("a", {"b": 1})
        one.post("c")
    lines = [request.line.removesuffix(" HTTP/1.1") for request in client.wire.requests]
    assert lines == ["GET /v1/a?b=1", "POST /v1/c"]
    assert "content-type" not in client.wire.requests[1].headers


def test_a_session_of_the_users_own_sends_a_form_and_keeps_nothing_of_it(ask):
    client = ask(OK)
    with requests.Session() as session:
        one = client.with_options(session=session)
        one.post("c", {"d": 1}, files={"file": b"content"})
        one.post("e")
    assert b"content" in client.wire.requests[0].body
    assert "content-type" not in client.wire.requests[1].headers


@responses.activate
def test_mocks_of_responses_work():
    responses.get("https://api.openai.com/v1/models", json={"object": "list", "data": []})
    speech = {"body": b"\xff\xfb", "content_type": "audio/mpeg"}
    responses.post("https://api.openai.com/v1/audio/speech", **speech)
    with lib.OpenAIClient(KEY) as client:
        assert client.get("models")["data"] == []
        assert client.post("audio/speech", {"input": "Hi"}) == b"\xff\xfb"


# Paths and queries


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("models", "/models"),
        ("/models", "/models"),
        ("models/ft:gpt-4o:acme::1", "/models/ft:gpt-4o:acme::1"),
        ("files/file-1/content", "/files/file-1/content"),
        ("x?after=a&limit=5", "/x?after=a&limit=5"),
        ("x?a=../b", "/x?a=../b"),
        ("x/..a/b../...", "/x/..a/b../..."),
        ("files/a%2Fb", "/files/a%2Fb"),
        ("files/é/名?q=ü", "/files/%C3%A9/%E5%90%8D?q=%C3%BC"),
        ("a@evil.example/b", "/a@evil.example/b"),
        ("x?u=http://h", "/x?u=http://h"),
    ],
)
def test_a_path_is_under_the_base_url(ask, path, sent):
    client = ask(OK)
    client.get(path)
    assert target(client) == f"GET {sent}"


@pytest.mark.parametrize(
    "path",
    [
        "http://evil.example/v1/x",
        "HTTPS://evil.example",
        "//evil.example/x",
        "///evil.example/x",
        "..",
        "../admin",
        "files/../admin",
        "files/..",
        "files/..?a=b",
        "files/./x",
        "files/%2e%2e/admin",
        "files/.%2E/admin",
        "files/..%2fadmin",
        "files/..%5cadmin",
        "files/a#b",
        "files/a?b#c",
        "\\\\evil.example",
        "files\\a",
        "files/a b",
        "files/a\r\nX-B: c",
        "files/a\tb",
        "files/a\x00",
        "files/a\x7f",
        "files/a\u2028b",
        "files/a\u00a0b",
        "files/a\ud800",
        " models",
        None,
        b"models",
    ],
)
def test_a_path_that_leaves_the_base_url_or_is_invalid_is_rejected(ask, path):
    client = ask(OK)
    words = "a path is relative to base_url" if isinstance(path, str) else "path must be text"
    for call in (client.get, client.delete, client.post, client.stream):
        with pytest.raises(lib.ConfigError, match=words):
            call(path)
    if path is not None:
        with pytest.raises(lib.ConfigError, match=words):
            client.with_options(path=path)
    assert not client.wire.requests


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        pytest.param({"limit": 5, "order": "asc", "after": None}, "limit=5&order=asc", id="none-is-left-out"),
        pytest.param({"include[]": ["a", "b c"]}, "include%5B%5D=a&include%5B%5D=b+c", id="a-list-repeats-its-key"),
        pytest.param({"a": ("x", None, 1)}, "a=x&a=1", id="none-in-a-list-is-left-out"),
        pytest.param({"a": True, "b": False}, "a=true&b=false", id="booleans"),
        pytest.param({"metadata": {"k": "v", "n": None, "l": [1, 2]}},
                     "metadata%5Bk%5D=v&metadata%5Bl%5D=1&metadata%5Bl%5D=2", id="a-mapping-in-brackets"),
        pytest.param({"q": "a&b=c#d/é"}, "q=a%26b%3Dc%23d%2F%C3%A9", id="quoted"),
        pytest.param({"q": "a\r\nb"}, "q=a%0D%0Ab", id="line-breaks-are-quoted"),
        pytest.param({"s": Size.SMALL, "t": 0.5}, "s=256x256&t=0.5", id="enums-and-numbers"),
        pytest.param({"q": ""}, "q=", id="empty-text-is-sent"),
    ],
)  # fmt: skip
def test_a_query_is_sent_as_the_api_reads_it(ask, query, sent):
    client = ask(OK)
    client.get("x", query)
    client.delete("x?a=1", query)
    client.post("x", {}, query=query)
    assert [target(client, i) for i in range(3)] == [
        f"GET /x?{sent}", f"DELETE /x?a=1&{sent}", f"POST /x?{sent}"
    ]  # fmt: skip


@pytest.mark.parametrize("query", [{}, {"a": None}, {"a": []}, None])
def test_an_empty_query_is_not_sent(ask, query):
    client = ask(OK)
    client.get("x", query)
    assert target(client) == "GET /x"


@pytest.mark.parametrize(
    "query", ["a=b", [("a", "b")], {5: "a"}, {"a": b"b"}, {"a": {"b": {"c": 1}}}, {"a": "\ud800"}]
)
def test_a_query_that_cannot_be_sent_is_rejected(ask, query):
    client = ask(OK)
    with pytest.raises(lib.ConfigError, match="query"):
        client.get("x", query)
    assert not client.wire.requests


def test_many_paths_are_all_requested_and_the_cache_of_paths_stays_bounded(ask):
    def prepared():
        gc.collect()
        return sum(isinstance(one, requests.PreparedRequest) for one in gc.get_objects())

    client, before = ask(http({})), prepared()
    for number in range(250):
        client.get(f"files/{number}")
    asked = [request.line for request in client.wire.requests]
    assert asked == [f"GET /v1/files/{number} HTTP/1.1" for number in range(250)]
    assert client.wire.connections == 1
    assert prepared() - before <= 101


# What comes back


@pytest.mark.parametrize(
    ("body", "headers", "value"),
    [
        pytest.param(b'{"a": 1}', ["Content-Type: application/json; charset=utf-8"], {"a": 1}, id="object"),
        pytest.param(b"[1]", [JSON], [1], id="list"),
        pytest.param(b"null", [JSON], None, id="null"),
        pytest.param(b"\xef\xbb\xbf{}", ["Content-Type: Application/Problem+JSON"], {}, id="problem-json-with-a-byte-order-mark"),
        pytest.param(b"\xff\xfb\x90", ["Content-Type: audio/mpeg"], b"\xff\xfb\x90", id="audio"),
        pytest.param(b'{"a": 1}\n', ["Content-Type: application/octet-stream"], b'{"a": 1}\n', id="a-file-of-json-lines"),
        pytest.param(b"data: 1\n\n", ["Content-Type: text/event-stream"], b"data: 1\n\n", id="events"),
        pytest.param(b"Hello.\n", ["Content-Type: text/plain"], b"Hello.\n", id="a-transcript"),
        pytest.param(b"42", ["Content-Type: text/plain"], b"42", id="a-transcript-of-a-number"),
        pytest.param(b'{"a": 1}', ["Content-Type: text/plain"], {"a": 1}, id="an-object-declared-as-text"),
        pytest.param(b'{"a": 1}', [], {"a": 1}, id="an-object-without-a-content-type"),
        pytest.param(b"\x00\x01", [], b"\x00\x01", id="bytes-without-a-content-type"),
        pytest.param(b"", [JSON], None, id="empty"),
        pytest.param(b"", ["Content-Type: audio/mpeg"], None, id="empty-audio"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_response_is_returned_as_json_bytes_or_none(ask, body, headers, value, framing):
    end = CLOSE if framing == "close" else KEEP
    client = ask(Reply(http(body, "200 OK", *headers, framing=framing), end))
    assert client.get("x") == value
    assert client.post("x", {}) == value


def test_a_204_returns_none_and_keeps_the_connection(ask):
    client = ask(b"HTTP/1.1 204 No Content\r\n\r\n", OK)
    assert client.delete("files/file-1") is None
    assert client.get("files/file-1")["id"] == "file-1"
    assert client.wire.connections == 1


@pytest.mark.parametrize(
    "value",
    [
        {"id": "batch_1", "object": "batch", "errors": {"object": "list", "data": [{"code": "x"}]}},
        {
            "id": "ftjob-1",
            "object": "fine_tuning.job",
            "error": {"code": "x", "message": "bad file"},
        },
        {
            "id": "resp_1",
            "object": "response",
            "status": "failed",
            "error": {"code": "server_error"},
        },
        {"id": "resp_1", "object": "response", "error": None},
        {"object": "list", "data": [{"object": "response", "error": {"code": "server_error"}}]},
        {"error": None, "detail": "low"},
    ],
    ids=str,
)
def test_an_object_with_an_error_member_is_returned(ask, value):
    client = ask(http(value, "200 OK", JSON))
    assert client.get("x") == value


@pytest.mark.parametrize(
    ("value", "kind", "name"),
    [
        ({"error": {"message": "no luck", "code": "rate_limit_exceeded"}}, JSON, "RateLimitError"),
        ({"error": "no luck"}, "Content-Type: text/plain", "APIError"),
        ({"id": None, "jsonrpc": "2.0", "error": {"message": "no luck"}}, JSON, "APIError"),
        ({"object": "error", "message": "no luck", "code": 400}, JSON, "BadRequestError"),
        (
            {"type": "error", "message": "no luck", "code": "server_error"},
            JSON,
            "InternalServerError",
        ),
    ],
)
def test_a_200_that_is_only_an_error_is_raised(ask, value, kind, name):
    client = ask(http(value, "200 OK", kind, "x-request-id: req_1"))
    with pytest.raises(getattr(lib, name), match="no luck") as caught:
        client.post("x", {})
    assert (caught.value.status_code, caught.value.body) == (200, value)
    assert caught.value.request_id == "req_1"


@pytest.mark.parametrize("body", [b'{"a": ', b"<html>", b"data: {}\n\n", b"[" * 200])
def test_broken_json_is_a_deserialize_error_with_the_body(ask, body):
    client = ask(http(body, "200 OK", JSON, "x-request-id: req_1"))
    with pytest.raises(lib.DeserializeError) as caught:
        client.get("x")
    assert caught.value.body == body.decode()
    assert caught.value.request_id == "req_1"


def test_a_truncated_response_is_an_http_error(ask):
    client = ask(Reply(http(b"12345", "200 OK", "Content-Type: audio/mpeg")[:-2], CLOSE))
    with pytest.raises(lib.HTTPError, match="in the middle of the reply"):
        client.post("audio/speech", {})


# Retries and errors


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda c, path: c.get("x", {"a": 1}), id="get"),
        pytest.param(lambda c, path: c.delete("x"), id="delete"),
        pytest.param(lambda c, path: c.post("x", {"a": 1}), id="post"),
        pytest.param(lambda c, path: list(c.stream("x", {"a": 1})), id="stream"),
        pytest.param(lambda c, path: c.post("x", files={"file": io.BytesIO(b"once")}), id="file"),
        pytest.param(lambda c, path: c.post("x", files={"file": path}), id="path"),
    ],
)
def test_a_429_is_retried_with_the_same_bytes(ask, tmp_path, call):
    (tmp_path / "a.jsonl").write_bytes(b"{}\n")
    client = ask(BUSY, BUSY, OK)
    call(client, tmp_path / "a.jsonl")
    first, second, third = client.wire.requests
    assert (first.line, first.body) == (second.line, second.body) == (third.line, third.body)
    assert first.headers.get("content-type") == third.headers.get("content-type")
    assert client.waits == [3.0, 3.0]


@pytest.mark.parametrize(
    ("status", "name"),
    [("404 Not Found", "NotFoundError"), ("401 Unauthorized", "AuthenticationError"),
     ("302 Found", "APIError"), ("400 Bad Request", "BadRequestError")],
)  # fmt: skip
def test_an_http_error_is_raised_at_the_call_and_keeps_the_connection(ask, status, name):
    client = ask(http({"error": {"message": "no luck", "param": "id"}}, status, JSON))
    for call in (client.get, client.delete, client.post, client.stream):
        with pytest.raises(getattr(lib, name), match="no luck") as caught:
            call("files/file-1")
        assert caught.value.param == "id"
        assert "/v1/files/file-1]" in str(caught.value)
    assert len(client.wire.requests) == 4  # nothing is retried
    assert client.wire.connections == 1


def test_a_deadline_bounds_get_and_stream(ask):
    client = ask(Reply(b"", SILENCE), deadline=0.1)
    for call in (client.get, client.stream):
        with pytest.raises(lib.RequestTimeoutError, match="deadline"):
            call("x")


@pytest.mark.parametrize(
    "reply",
    [
        http({"error": {"message": f"bad key {KEY}"}}, "401 Unauthorized", JSON, f"X-Key: {KEY}"),
        http({"error": {"message": f"bad key {KEY}"}}, "200 OK", JSON),
        http(f"broken {KEY}".encode(), "200 OK", JSON),
        Reply(b"", CLOSE),
        streamed(f"event: error\ndata: {KEY}\n\n".encode()),
        streamed({"type": "error", "message": KEY}),
        http(f"<html>{KEY}".encode(), "200 OK", "Content-Type: text/event-stream"),
        streamed(f'data: {{"a": "{KEY}'.encode(), done=False),
    ],
    ids=range(8),
)
def test_no_error_shows_the_key(ask, reply):
    client = ask(reply, max_retries=0)
    calls = [lambda: list(client.stream("x", {}))]
    if not (isinstance(reply, bytes) and b"text/event-stream" in reply):
        calls += [lambda: client.get("x"), lambda: client.post("x", {})]
    for call in calls:
        with pytest.raises(lib.OpenAIError) as caught:
            call()
        for text in texts_of(caught.value):
            assert KEY not in text
    for call in (client.get, client.stream):
        with pytest.raises(lib.ConfigError) as caught:
            call(f"x y?key={KEY}")
        assert KEY not in str(caught.value)


def test_no_error_of_a_form_shows_the_key(ask):
    client = ask(http({"error": {"message": f"bad key {KEY}"}}, "401 Unauthorized", JSON))
    with pytest.raises(lib.AuthenticationError) as caught:
        client.post("x", files={"file": b""})
    for text in texts_of(caught.value):
        assert KEY not in text


# Files


def form_of(request):
    """The parts of a form, as a server reads them: name, file name, media type, content."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    form = email.parser.BytesParser().parsebytes(head + request.body)
    assert form.get_content_type() == "multipart/form-data"
    assert not form.defects
    return [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part["content-type"],
            part.get_payload(decode=True),
        )
        for part in form.get_payload()
    ]


def test_a_form_is_sent_byte_for_byte(ask):
    client = ask(OK)
    assert client.post("files", {"purpose": "batch"}, files={"file": ("a.txt", b"\x00\r\n")}) == {
        "id": "file-1",
        "object": "file",
    }
    request = client.wire.requests[0]
    mark = request.headers["content-type"].removeprefix("multipart/form-data; boundary=")
    assert (
        request.body
        == (
            f'--{mark}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
            f"Content-Type: text/plain\r\n\r\n\x00\r\n\r\n--{mark}--\r\n"
        ).encode()
    )
    assert request.headers["content-length"] == str(len(request.body))
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_a_file_is_a_path_or_bytes_or_an_open_file_or_a_tuple(ask, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"image")
    unnamed = io.BytesIO(b"skipped, read")
    unnamed.seek(9)
    client = ask(OK)
    with path.open("rb") as file:
        files = {
            "path": path,
            "text": str(path),
            "bytes": b"content",
            "array": bytearray(b"more"),
            "open": file,
            "unnamed": unnamed,
            "pair": ("b.wav", b"sound"),
            "unnamed_pair": (None, path),
            "triple": ("c.bin", io.BytesIO(b"x"), "application/x-mine; a=b"),
            "nothing": None,
        }
        client.post("x", files=files)
    parts = form_of(client.wire.requests[0])
    sound = parts.pop(6)
    assert sound[:2] == ("pair", "b.wav")
    assert sound[2].startswith("audio/")
    assert parts == [
        ("path", "a.png", "image/png", b"image"),
        ("text", "a.png", "image/png", b"image"),
        ("bytes", "bytes", "application/octet-stream", b"content"),
        ("array", "array", "application/octet-stream", b"more"),
        ("open", "a.png", "image/png", b"image"),
        ("unnamed", "unnamed", "application/octet-stream", b"read"),
        ("unnamed_pair", "a.png", "image/png", b"image"),
        ("triple", "c.bin", "application/x-mine; a=b", b"x"),
    ]


def test_several_files_of_one_name_are_sent(ask):
    client = ask(OK)
    client.post("images/edits", files={"image": [("a.png", b"1"), ("b.png", b"2")], "i[]": [b"3"]})
    parts = [(name, filename) for name, filename, _, _ in form_of(client.wire.requests[0])]
    assert parts == [("image[]", "a.png"), ("image[]", "b.png"), ("i[]", "i[]")]


@dataclass
class Transcription:
    model: str
    temperature: float | None = None
    extra: dict | None = None


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        pytest.param({"a": "é\r\nb", "n": 5, "f": 0.5, "t": True, "u": False, "none": None, "size": Size.SMALL},
                     [("a", "é\r\nb"), ("n", "5"), ("f", "0.5"), ("t", "true"), ("u", "false"), ("size", "256x256")],
                     id="plain-values-are-text"),
        pytest.param({"words": ["word", "segment", None], "l[]": [1], "empty": []},
                     [("words[]", "word"), ("words[]", "segment"), ("l[]", "1")], id="lists-repeat"),
        pytest.param({"o": {"type": "vad", "n": None}, "l": [{"a": 1}]},
                     [("o[type]", "vad"), ("l[]", '{"a": 1}')], id="object-members-are-fields"),
        pytest.param({"expires_after[anchor]": "created_at"}, [("expires_after[anchor]", "created_at")],
                     id="names-are-sent-as-they-are"),
        pytest.param(Transcription("m", extra={"language": "en"}), [("model", "m"), ("language", "en")], id="dataclass"),
        pytest.param(None, [], id="no-body"),
    ],
)  # fmt: skip
def test_the_members_of_the_body_are_fields_of_the_form(ask, body, fields):
    client = ask(OK)
    client.post("x", body, files={"file": b""})
    *sent, file = form_of(client.wire.requests[0])
    assert [(name, content.decode()) for name, _, _, content in sent] == fields
    assert all((filename, media) == (None, None) for _, filename, media, _ in sent)
    assert file == ("file", "file", "application/octet-stream", b"")


def test_a_form_may_be_without_files(ask):
    client = ask(OK)
    client.post("x", {"a": "b"}, files={})
    assert form_of(client.wire.requests[0]) == [("a", None, None, b"b")]


def test_no_name_can_add_a_header_or_a_field(ask):
    client = ask(OK)
    evil = 'a"\r\nX-Evil: 1\r\n\r\nx'
    client.post("x", {evil: "1"}, files={"file": (evil, b"2"), evil: b"3"})
    parts = form_of(client.wire.requests[0])
    assert len(parts) == 3
    assert b"\r\nX-Evil" not in client.wire.requests[0].body
    assert parts[1][1] == "a%22%0D%0AX-Evil: 1%0D%0A%0D%0Ax"


def test_a_file_that_is_missing_is_a_config_error_with_its_path(ask, tmp_path):
    client = ask(OK)
    for path in (tmp_path / "none.jsonl", str(tmp_path / "none.jsonl")):
        with pytest.raises(lib.ConfigError, match=r"none\.jsonl' can't be read") as caught:
            client.post("files", files={"file": path})
        assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert not client.wire.requests


def test_the_path_of_a_file_may_begin_with_the_home_folder(ask, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "a.txt").write_bytes(b"hi")
    client = ask(OK)
    client.post("files", files={"one": "~/a.txt", "other": ("b.txt", Path("~/a.txt"))})
    sent = [(name, content) for _, name, _, content in form_of(client.wire.requests[0])]
    assert sent == [("a.txt", b"hi"), ("b.txt", b"hi")]


def closed_file():
    file = io.BytesIO(b"a")
    file.close()
    return file


@pytest.mark.parametrize(
    ("files", "words"),
    [
        pytest.param({"file": "."}, "can't be read", id="a-folder"),
        pytest.param({"file": "a\x00b"}, "can't be read", id="a-null-character"),
        pytest.param({"file": closed_file()}, "can't be read", id="a-closed-file"),
        pytest.param({"file": io.StringIO("text")}, "binary mode", id="a-text-file"),
        pytest.param({"file": 5}, "not int", id="a-number"),
        pytest.param({"file": ("a.txt", "text")}, "a tuple must be", id="text-as-content"),
        pytest.param({"file": ("a.txt",)}, "a tuple must be", id="a-short-tuple"),
        pytest.param({"file": ("a.txt", b"", "text/plain", {})}, "a tuple must be", id="a-long-tuple"),
        pytest.param({"file": (5, b"")}, "the name must be text", id="a-number-as-name"),
        pytest.param({"file": ("a", b"", "text/plain\r\nX: y")}, "media type", id="a-line-break-in-the-type"),
        pytest.param({"file": ("a", b"", "text")}, "media type", id="an-incomplete-media-type"),
        pytest.param({"file": ("\ud800", b"")}, "cannot be sent in a form", id="a-lone-surrogate"),
        pytest.param({5: b""}, "invalid name", id="a-number-as-field"),
        pytest.param({"": b""}, "invalid name", id="no-field"),
        pytest.param([("file", b"")], "must map", id="a-list"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_sent_is_rejected_before_sending(ask, files, words):
    client = ask(OK)
    with pytest.raises(lib.ConfigError, match=words):
        client.post("files", {"purpose": "batch"}, files=files)
    assert not client.wire.requests


def test_a_form_body_that_is_not_a_mapping_is_rejected(ask):
    client = ask(OK)
    for body in ([1], "text"):
        with pytest.raises(lib.ConfigError, match="a form must be a mapping"):
            client.post("files", body, files={"file": b""})
    assert not client.wire.requests


# Streams of events

DELTA = {"type": "response.output_text.delta", "delta": "Hi"}
FAILED = {
    "type": "response.failed",
    "response": {"id": "resp_1", "error": {"code": "server_error"}},
}


def named(value, name=None):
    """The bytes of an event under its own name, as the Responses API sends it."""
    return f"event: {name or value['type']}\ndata: {json.dumps(value)}\n\n".encode()


def test_a_stream_gives_its_events_by_name_with_their_json(ask):
    client = ask(
        streamed(named(DELTA), {"no": "name"}, named(FAILED), headers=["x-request-id: req_1"])
    )
    with client.stream("responses", {"model": "m"}, query={"a": 1}) as stream:
        assert list(stream) == [
            lib.ServerSentEvent("response.output_text.delta", DELTA),
            lib.ServerSentEvent("", {"no": "name"}),
            lib.ServerSentEvent("response.failed", FAILED),
        ]
        assert list(stream) == []
        assert (stream.request_id, stream.headers["x-request-id"]) == ("req_1", "req_1")
    sent = client.wire.requests[0]
    assert target(client) == "POST /responses?a=1"
    assert sent.headers["accept"] == "text/event-stream"
    assert sent.headers["accept-encoding"] == "identity"
    assert sent.json == {"stream": True, "model": "m"}


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({}, {"stream": True}),
        ({"stream": True}, {"stream": True}),
        ({"stream": False}, {"stream": False}),
        (Wish("m"), {"stream": True, "model": "m"}),
        (lib.CreateChatCompletionRequest(model="m", messages=[]),
         {"stream": True, "model": "m", "messages": []}),
        ([1], [1]),
    ],
    ids=str,
)  # fmt: skip
def test_stream_true_is_added_to_a_body_unless_it_sets_stream(ask, body, sent):
    client = ask(streamed())
    before = repr(body)
    assert list(client.stream("x", body)) == []
    assert client.wire.requests[0].json == sent
    assert repr(body) == before


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10**6])
def test_any_split_of_a_body_gives_the_same_events(ask, size):
    body = (
        b": hello\r\n" + named({"type": "é"}) + b"data: a\ndata: b\n\ndata: 5\n\ndata: [DONE]\n\n"
    )
    pieces = tuple(body[i : i + size] for i in range(0, len(body), size))
    client = ask(http(pieces, framing="chunked"))
    assert [(e.event, e.data) for e in client.stream("x", {})] == [
        ("é", {"type": "é"}), ("", "a\nb"), ("", 5)
    ]  # fmt: skip


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("done", [True, False])
def test_a_stream_ends_at_done_or_with_its_body_and_its_connection_serves_again(ask, framing, done):
    end = CLOSE if framing == "close" else KEEP
    client = ask(Reply(streamed(DELTA, done=done, framing=framing), end))
    for _ in range(2):
        assert [event.data for event in client.stream("x", {})] == [DELTA]
    assert client.wire.connections == (2 if framing == "close" else 1)


def test_done_ends_a_stream_though_its_body_goes_on(ask):
    client = ask(Reply(streamed(DELTA)[:-5], SILENCE))
    assert [event.data for event in client.stream("x", {})] == [DELTA]


def test_a_last_event_needs_no_blank_line(ask):
    for data, value in ((b'data: {"a": 1}', {"a": 1}), (b"data: bye", "bye")):
        events = list(ask(Reply(http(data, framing="close"), CLOSE)).stream("x", {}))
        assert [event.data for event in events] == [value]


@pytest.mark.parametrize(
    ("event", "message", "code", "name"),
    [
        pytest.param(named({"type": "error", "code": "rate_limit_exceeded", "message": "slow", "param": None}),
                     "slow", "rate_limit_exceeded", "RateLimitError", id="of-the-responses-api"),
        pytest.param({"type": "error", "error": {"message": "slow", "code": "server_error"}},
                     "slow", "server_error", "InternalServerError", id="of-type-error-without-a-name"),
        pytest.param({"error": {"message": "slow", "code": 503}}, "slow", 503, "InternalServerError", id="only-an-error"),
        pytest.param(b"event: error\ndata: slow\n\n", "slow", None, "APIError", id="named-error-as-text"),
        pytest.param(b'event: error\ndata: {"message": "slow"}\n\n', "slow", None, "APIError", id="named-error-as-json"),
        pytest.param(b'{"error": {"message": "slow"}}\n\n', "slow", None, "APIError", id="outside-of-any-event"),
    ],
)  # fmt: skip
def test_an_error_in_a_stream_is_raised_after_what_came_before_it(ask, event, message, code, name):
    client = ask(streamed(named(DELTA), event, headers=["x-request-id: req_1"]))
    stream = client.stream("responses", {})
    assert next(stream).data == DELTA
    with pytest.raises(getattr(lib, name)) as caught:
        next(stream)
    error = caught.value
    assert (error.message, error.code, error.status_code, error.request_id) == (
        message,
        code,
        200,
        "req_1",
    )
    with pytest.raises(lib.StreamInterruptedError, match="failed, before its end"):
        next(stream)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(streamed(DELTA, done=False)[:-5], RESET),
        Reply(streamed(DELTA, done=False)[:-5], CLOSE),
        Reply(http(sse(DELTA, done=False) + b"x")[:-1], CLOSE),
        Reply(http(sse(DELTA, done=False) + b'data: {"type": "resp', framing="close"), CLOSE),
    ],
    ids=["reset", "closed", "shorter-than-declared", "in-the-middle-of-an-event"],
)
def test_a_truncated_stream_is_a_stream_interrupted_error(ask, reply):
    client = ask(reply)
    stream = client.stream("x", {})
    assert next(stream).data == DELTA
    for _ in range(2):  # reading again does not end normally either
        with pytest.raises(lib.StreamInterruptedError) as caught:
            next(stream)
        assert caught.value.headers
    assert len(client.wire.requests) == 1


def test_silence_is_a_timeout(ask):
    client = ask(Reply(streamed(DELTA, done=False)[:-5], SILENCE), timeout=(5, 0.3))
    stream = client.stream("x", {})
    assert next(stream).data == DELTA
    with pytest.raises(lib.RequestTimeoutError, match="silent"):
        next(stream)
    assert client.wire.closed_by_client.wait(30)


@pytest.mark.parametrize(
    "body", [{"id": "resp_1", "object": "response", "error": {"code": "x"}}, [1], 5]
)
def test_a_json_response_in_place_of_a_stream_is_one_event(ask, body):
    whole = json.dumps(body, indent=1).encode()
    client = ask(http(whole, "200 OK", JSON))
    assert list(client.stream("x", {})) == [lib.ServerSentEvent("", body)]


def test_a_json_error_in_place_of_a_stream_is_raised(ask):
    client = ask(http({"error": {"message": "no luck"}}, "200 OK", JSON))
    with pytest.raises(lib.APIError, match="no luck"):
        list(client.stream("x", {}))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<!doctype html>\n<p>Hi</p>", "is HTML"),
        (b'{"id":', "broken or cut"),
        (b"Welcome", "not JSON"),
    ],
)
def test_a_page_in_place_of_a_stream_is_a_deserialize_error(ask, body, words):
    client = ask(http(body, "200 OK", "Content-Type: text/html"))
    with pytest.raises(lib.DeserializeError, match=words) as caught:
        list(client.stream("x", {}))
    assert caught.value.body == body.decode()


def test_unknown_fields_beside_events_are_ignored(ask):
    client = ask(streamed(b"odd: line\n", DELTA))
    assert [event.data for event in client.stream("x", {})] == [DELTA]


ENDLESS = Reply(streamed(DELTA, DELTA, done=False)[:-5], SILENCE)


def leave_by_close(stream):
    next(stream)
    stream.close()
    stream.close()
    with pytest.raises(lib.StreamInterruptedError, match="closed"):
        next(stream)


def leave_by_with(stream):
    with stream as events:
        for _ in events:
            break


def leave_unread(stream):
    with stream:
        pass


def leave_by_forgetting(stream):
    next(stream)


@pytest.mark.parametrize(
    "leave",
    [leave_by_close, leave_by_with, leave_unread, leave_by_forgetting],
    ids=lambda leave: leave.__name__,
)
def test_a_stream_that_is_left_frees_its_connection(ask, leave):
    client = ask(ENDLESS)
    leave(client.stream("x", {}))
    gc.collect()
    assert client.wire.closed_by_client.wait(30)


def test_close_wakes_a_reader_in_another_thread(ask):
    client = ask(ENDLESS, timeout=60)
    stream = client.stream("x", {})
    caught, reading = [], threading.Event()

    def read():
        try:
            for _ in stream:
                reading.set()
        except lib.OpenAIError as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(30)
    stream.close()
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(caught[0], lib.StreamInterruptedError)
    assert "closed" in str(caught[0])
    assert client.wire.closed_by_client.wait(30)


def test_an_event_is_given_when_its_bytes_arrive(ask):
    held = threading.Event()
    whole = streamed(named(DELTA), named(FAILED))
    cut = whole.index(b"event: response.failed")
    client = ask(Reply([whole[:cut], whole[cut:]], hold=held))
    stream = client.stream("x", {})
    assert next(stream).data == DELTA
    held.set()
    assert [event.event for event in stream] == ["response.failed"]


def test_a_stream_has_the_path_and_headers_of_its_client(ask):
    client = ask(streamed(DELTA))
    list(client.with_options(path="other", headers={"accept": "mine/1"}).stream("responses", {}))
    assert target(client) == "POST /other"
    assert client.wire.requests[0].headers["accept"] == "mine/1"


def test_an_event_is_immutable_and_compares_by_value():
    event = lib.ServerSentEvent("a", {"b": 1})
    assert event == lib.ServerSentEvent("a", {"b": 1})
    with pytest.raises(AttributeError):
        event.data = 5


def test_a_buffer_that_was_not_rewound_is_not_uploaded_as_an_empty_file(ask):
    written, empty = io.BytesIO(), io.BytesIO()
    written.write(b"line")
    client = ask(OK)
    with pytest.raises(lib.ConfigError, match=r"file.*seek\(0\)"):
        client.post("files", files={"file": written})
    assert not client.wire.requests
    client.post("files", files={"file": empty})
    assert len(client.wire.requests) == 1
