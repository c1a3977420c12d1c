"""A local server with the API's endpoints and no model, for tests and first steps.

    with OfflineServer(["Hi!", 429, Cut(after=3)]) as server:
        client = OpenAIClient(base_url=server.url)
        ...             # the first call succeeds, the second fails, the third is cut off
        assert server.requests[0].body["messages"][-1]["content"] == "Say hi."

A script lists the replies. A request that has no scripted reply gets a stand-in answer, which
repeats the question and states that no model is involved. Replies and errors have the API's
format. They are streamed if the request asks for a stream, and the chunks add up to the same
completion that an unstreamed request gets.

The endpoints are chat completions, stored completions, embeddings and the list of models, also
under Azure's paths. The server listens on 127.0.0.1, without TLS.
"""

from __future__ import annotations

import json
import logging
import math
import re
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from ..codec import is_dict, is_list
from ..models import Model
from .offline_replies import (
    OfflineAnswer,
    OfflineCondition,
    OfflineError,
    OfflineReply,
    answer_for,
    check_reply,
    check_request,
    check_rule,
    condition_holds,
    plain_answer,
    stand_in,
)

if TYPE_CHECKING:
    import socket

    from typing_extensions import Self

_MOST_KEPT = 1000  # requests, and stored completions
_MOST_CONNECTIONS = 500  # open at the same time; each has a thread
_LONGEST_LINE = 65536  # bytes in a line of a request's head
_MOST_UNREAD = 10**6  # bytes to read and discard after a malformed request
_LONGEST_PAUSE = threading.TIMEOUT_MAX  # seconds; no system can wait for longer
_ACCEPT_PAUSE = 0.1  # seconds to wait after a connection could not be accepted
_CLOSE_PATIENCE = 5.0  # seconds that close() waits for the threads of connections

_request_log = logging.getLogger(__name__)


@dataclass(slots=True)
class OfflineRequest:
    """A request that the server received, whether or not it was rejected."""

    method: str
    path: str  # with its query
    headers: dict[str, str] = field(repr=False)  # lower-case names; may hold an API key
    body: Any  # the parsed JSON, or the bytes if they are not JSON


class OfflineServer:
    """A server for tests, used as a context manager or with `start()` and `close()`.

    replies: the script, with a reply for each valid request in turn: a list, which is checked
        here, or an endless iterable such as `itertools.repeat(reply)`. A reply is
        - a text, the content of the answer;
        - a dict, the message: `content`, `tool_calls`, `refusal` and any other key;
        - a dict with `choices`, the complete response;
        - a status, `(status, body)` or `(status, body, headers)`, which is never streamed;
          a body of bytes is sent unchanged;
        - a fault: `Cut`, `Stall`, `Inject` or `Pieces`;
        - a function that takes the request's body and returns any of these. It runs on the
          connection's thread. If it raises, the reply is a 500 with `x-should-retry: false`.
    rules: `(condition, reply)` pairs that take precedence over `replies`. The first pair whose
        condition holds gives the reply, any number of times. A condition is a text that the
        last message contains, a compiled regular expression that matches in it, a dict with
        one or more of `text`, `regex`, `model` and `tool` (the name of a tool in the
        request), or a function of the body.
    strict: reject, as the API does, parameters that are unknown, of a wrong type or range, or
        without another that they need, unknown roles, and tool calls without a result; and, if
        there is a script, requests for which it has no reply left. Leaving the `with` block
        calls `verify()`.
    api_key: the key that clients must send; by default any key, or none, is accepted.
    delay: seconds between the chunks of a stream.
    port: the port to listen on; 0 takes a free one.

    `requests` holds the last 1,000 requests, the oldest first; `requests.clear()` empties it.
    `replies` holds the replies that are left of a list; more may be appended.

    Raises TypeError for an invalid reply or condition, ValueError for a status or delay that is
    out of range.
    """

    def __init__(
        self,
        replies: Iterable[OfflineReply] | None = None,
        *,
        rules: Sequence[tuple[OfflineCondition, OfflineReply]] = (),
        strict: bool = False,
        api_key: str | None = None,
        delay: float = 0.0,
        port: int = 0,
    ) -> None:
        if not 0 <= delay <= _LONGEST_PAUSE:
            raise ValueError(f"delay must be 0 or more seconds, not {delay!r}")
        script: Iterable[Any] = () if replies is None else replies
        if isinstance(script, (str, bytes, Mapping)) or not hasattr(script, "__iter__"):
            raise TypeError(f"replies must be a list of replies, not {type(replies).__name__}")
        has_end = isinstance(script, Sequence)
        self.requests: list[OfflineRequest] = []
        self.replies: deque[OfflineReply] = deque(script if has_end else ())
        self._endless: Iterator[Any] = iter(() if has_end else script)
        self._rules, self._unused = list(rules), list(rules)
        if any(len(rule) != 2 for rule in rules):
            raise TypeError(f"rules must be pairs of a condition and a reply, not {rules!r:.200}")
        for condition, reply in rules:
            check_rule(condition, reply)
        for reply in self.replies:
            check_reply(reply)
        self._strict, self._has_script = strict, replies is not None or bool(rules)
        self._api_key, self._delay, self._port = api_key, float(delay), port
        self._stored: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._closing = threading.Event()
        self._listener: socket.socket | None = None
        self._thread = threading.Thread()
        self._connections: set[_OfflineConnection] = set()

    @property
    def url(self) -> str:
        """The `base_url` for clients. Raises RuntimeError before `start()`."""
        if self._listener is None:
            raise RuntimeError("the offline server has no URL before start()")
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> Self:
        """Listen, answer in background threads, and return the server itself.

        Raises RuntimeError on a second call, and OSError if the port is in use.
        """
        import socket

        if self._listener is not None or self._closing.is_set():
            raise RuntimeError("an offline server can be started only once")
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, args=[self._listener], daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop the server: close its port and its connections, and end its threads."""
        import socket

        was_closing = self._closing.is_set()
        self._closing.set()
        if self._listener is not None and not was_closing:
            socket.create_connection(("127.0.0.1", self._port)).close()  # wakes accept()
            self._thread.join()
            self._listener.close()
            connections = list(self._connections)
            for connection in connections:
                connection.shut_down()
            until = time.monotonic() + _CLOSE_PATIENCE
            for connection in connections:
                if connection is not threading.current_thread():
                    connection.join(max(until - time.monotonic(), 0))

    def verify(self) -> None:
        """Raise AssertionError if there are replies or rules that no request has used."""
        if unused := [*self.replies, *self._unused]:
            raise AssertionError(f"{len(unused)} replies were not used: {unused!r:.500}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: object, *exception: object) -> None:
        self.close()
        if self._strict and kind is None:
            self.verify()

    # From requests to answers

    def _answer_to(self, request: OfflineRequest) -> OfflineAnswer:
        with self._lock:
            self.requests.append(request)
            del self.requests[:-_MOST_KEPT]
        try:
            answer = self._route(request)
            return answer if isinstance(answer, OfflineAnswer) else plain_answer(200, answer)
        except OfflineError as error:
            return plain_answer(*error.reply)
        except BaseException as error:  # pytest.fail() raises a BaseException
            failed = OfflineError(500, f"{type(error).__name__}: {error}")
            return plain_answer(*failed.reply, {"x-should-retry": "false"})

    def _route(self, request: OfflineRequest) -> Any:
        """The endpoint's reply to a request: an OfflineAnswer, or a JSON value."""
        from urllib.parse import parse_qsl, unquote

        path, _, query_text = request.path.partition("?")
        found = re.fullmatch(r"(?:(?:/openai)?/v1|/openai/deployments/([^/]+))/(.+)", path)
        segments = [unquote(part) for part in found[2].split("/")] if found else []
        known = segments[:2] == ["chat", "completions"] or segments in (["embeddings"], ["models"])
        if not found or not known:
            reason = "this offline server has only chat/completions, embeddings and models"
            raise OfflineError(404, f"unknown URL {path}: {reason}", code="unknown_url")
        self._check_key(request.headers)
        body, query = request.body, dict(parse_qsl(query_text))
        if request.method == "POST" and not is_dict(body):
            raise OfflineError(400, "the request's body must be a JSON object")
        if found[1] and is_dict(body):
            body = {**body, "model": unquote(found[1])}
        match request.method, *segments:
            case "POST", "embeddings":
                return _offline_embeddings(body)
            case "GET", "models":
                return _offline_models()
            case "POST", "chat", "completions":
                return self._create(body)
            case "GET", "chat", "completions":
                return self._list(query)
            case "GET" | "POST" | "DELETE", "chat", "completions", key:
                return self._one_stored(request.method, key, body)
            case "GET", "chat", "completions", key, "messages":
                return _offline_page(self._find(key)[1], query)
            case _:
                raise OfflineError(405, f"{request.method} is not allowed for {path}")

    def _check_key(self, headers: Mapping[str, str]) -> None:
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        key = headers.get("api-key", bearer)
        if self._api_key not in (None, key):
            reason = f"Incorrect API key provided: {key[:3]}***." if key else "No API key provided."
            raise OfflineError(401, reason, code="invalid_api_key")

    def _create(self, body: dict[str, Any]) -> OfflineAnswer:
        check_request(body, self._strict)
        answer = answer_for(self._reply_to(body), body, self._delay)
        if body.get("store") is True and "id" in (answer.completion or ()):
            kept: Any = {**(answer.completion or {}), "metadata": body.get("metadata") or {}}
            same = {"content": None, "refusal": None}
            messages = [{**same, **m, "id": f"m{i}"} for i, m in enumerate(body["messages"])]
            with self._lock:
                self._stored[kept["id"]] = kept, messages
                for old in list(self._stored)[:-_MOST_KEPT]:
                    del self._stored[old]
        return answer

    def _reply_to(self, body: dict[str, Any]) -> Any:
        for rule in self._rules:
            if condition_holds(rule[0], body):
                with self._lock:
                    self._unused = [unused for unused in self._unused if unused is not rule]
                return rule[1]
        with self._lock:
            reply = self.replies.popleft() if self.replies else next(self._endless, stand_in)
        if reply is stand_in and self._strict and self._has_script:
            raise LookupError("the script has no reply left for this request")
        return reply

    def _find(self, key: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if (found := self._stored.get(key)) is None:
            raise OfflineError(404, f"there is no stored completion {key!r}", code="not_found")
        return found

    def _one_stored(self, method: str, key: str, body: Any) -> dict[str, Any]:
        completion, _ = self._find(key)
        if method == "DELETE":
            with self._lock:
                self._stored.pop(key, None)
            return {"object": "chat.completion.deleted", "id": key, "deleted": True}
        if method == "POST":
            completion["metadata"] = body.get("metadata") or {}
        return completion

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        wanted = {key[9:-1]: query[key] for key in query if key.startswith("metadata[")}
        with self._lock:
            kept = [completion for completion, _ in self._stored.values()]
        if model := query.get("model"):
            kept = [one for one in kept if one.get("model") == model]
        found = [one for one in kept if wanted.items() <= one["metadata"].items()]
        return _offline_page(found, query)

    # Connections

    def _accept(self, listener: socket.socket) -> None:
        while not self._closing.is_set():
            try:
                client, _ = listener.accept()
            except OSError as error:  # such as too many open files, which is temporary
                _request_log.warning("cannot accept a connection: %s", error)
                self._closing.wait(_ACCEPT_PAUSE)
                continue
            if self._closing.is_set() or len(self._connections) >= _MOST_CONNECTIONS:
                client.close()
                continue
            connection = _OfflineConnection(self, client)
            self._connections.add(connection)
            connection.start()


def _offline_page(items: list[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """The page of a list that the query's `after`, `limit` and `order` select."""
    items = items[::-1] if query.get("order") == "desc" else items
    ids = ["", *(item["id"] for item in items)]
    after, limit = query.get("after", ""), query.get("limit", "20")
    if after not in ids or not limit.isdecimal():
        raise OfflineError(400, f"no page for after={after!r}, limit={limit!r}", param="after")
    start = ids.index(after)
    data = items[start : start + int(limit)]
    first, last = (data[0]["id"], data[-1]["id"]) if data else ("", "")
    page = {"object": "list", "data": data, "has_more": start + len(data) < len(items)}
    return {**page, "first_id": first, "last_id": last}


def _offline_models() -> dict[str, Any]:
    names = [value for name, value in vars(Model).items() if name.isupper()]
    same = {"object": "model", "created": 0, "owned_by": "offline"}
    return {"object": "list", "data": [{"id": name, **same} for name in names]}


def _offline_embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """A unit vector for each input; equal inputs and sizes give equal vectors."""
    import random
    from base64 import b64encode

    given, size = body.get("input"), body.get("dimensions") or 1536
    in_range = type(size) is int and 1 <= size <= 4096
    for name, fits in {"model": body.get("model"), "input": given, "dimensions": in_range}.items():
        if not fits:
            reason = "a model, an input and 1 to 4096 dimensions are required"
            raise OfflineError(400, f"{name}: {reason}", param=name)
    texts: Any = given if is_list(given) and type(given[0]) is not int else [given]
    data: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        numbers = random.Random(json.dumps(text))
        raw = [numbers.uniform(-1, 1) for _ in range(size)]
        length = math.hypot(*raw)
        vector: Any = [number / length for number in raw]
        if body.get("encoding_format") == "base64":
            vector = b64encode(struct.pack(f"<{size}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    words_in = sum(len(text.split() if isinstance(text, str) else text) for text in texts)
    usage = {"prompt_tokens": words_in, "total_tokens": words_in}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


class _OfflineConnection(threading.Thread):
    """A thread that answers the requests of one connection."""

    def __init__(self, server: OfflineServer, client: socket.socket) -> None:
        super().__init__(daemon=True)
        self._server, self._client = server, client
        self._received = client.makefile("rb")
        self._keep_alive = True

    def run(self) -> None:
        import socket

        with suppress(OSError), self._client, self._received:  # the client may hang up
            self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while self._keep_alive:
                self._exchange()
        self._server._connections.discard(self)

    def shut_down(self) -> None:
        import socket

        with suppress(OSError):  # it may be closed already
            self._client.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it

    def _exchange(self) -> None:
        try:
            request = self._read()
        except OfflineError as error:  # the bytes are not an HTTP request
            self._keep_alive = False
            self._send(plain_answer(*error.reply))
            self._client.shutdown(1)  # for writing
            self._received.read(_MOST_UNREAD)  # closing with unread bytes would send a reset
            return
        answer = self._server._answer_to(request)
        ends = [step for step in answer.steps if step in ("close", "reset")]
        if request.method == "HEAD":
            answer.steps = ["head"]
        _request_log.info("%s", " ".join([request.method, request.path, str(answer.status), *ends]))
        self._send(answer)

    def _read(self) -> OfflineRequest:
        """Read the next request.

        Raises ConnectionError at the end of the connection, OfflineError if it is malformed.
        """
        start = re.fullmatch(r"([!-~]+) ([!-~]+) HTTP/1\.1", self._line())
        if start is None:
            raise OfflineError(400, "this is not an HTTP/1.1 request")
        headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.partition(":")
            name = name.strip().lower()
            headers[name] = ", ".join(filter(None, [headers.get(name), value.strip()]))
        self._keep_alive = headers.get("connection", "").lower() != "close"
        if "expect" in headers:
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "transfer-encoding" in headers:
            content = b"".join(iter(self._chunk, b""))
        else:
            content = self._read_exactly(_body_size(headers.get("content-length", "0"), 10))
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = content
        return OfflineRequest(start[1], start[2], headers, body)

    def _line(self) -> str:
        line = self._received.readline(_LONGEST_LINE)
        if not line:
            raise ConnectionError("the client has hung up")
        if not line.endswith(b"\n"):
            raise OfflineError(431, "a line of the request's head is too long")
        return line.decode("latin-1").rstrip("\r\n")

    def _chunk(self) -> bytes:
        chunk = self._read_exactly(_body_size(self._line().partition(";")[0], 16))
        self._line()  # trailers after the last chunk are not supported
        return chunk

    def _read_exactly(self, size: int) -> bytes:
        content = self._received.read(size)
        if len(content) < size:
            raise ConnectionError("the client has hung up")
        return content

    def _send(self, answer: OfflineAnswer) -> None:
        """Perform the steps of an answer, up to the one that breaks the connection."""
        for step in answer.steps:
            if step == "head":
                self._client.sendall(self._head(answer))
            elif isinstance(step, bytes):
                self._client.sendall(
                    b"%x\r\n%b\r\n" % (len(step), step) if answer.is_chunked else step
                )
            elif isinstance(step, str) or self._server._closing.wait(min(step, _LONGEST_PAUSE)):
                if step == "reset":
                    import socket

                    linger = struct.pack("ii", 1, 0)  # close() then sends a reset
                    self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self._keep_alive = False
                return
        if answer.is_chunked:
            self._client.sendall(b"0\r\n\r\n")

    def _head(self, answer: OfflineAnswer) -> bytes:
        from http.client import responses

        headers = {"x-request-id": f"req-offline-{next(self._server._numbers)}", **answer.headers}
        if answer.is_chunked:
            headers["transfer-encoding"] = "chunked"
        else:
            body = [step for step in answer.steps if isinstance(step, bytes)]
            headers["content-length"] = str(sum(map(len, body)))
        if not self._keep_alive:
            headers["connection"] = "close"
        lines = [f"HTTP/1.1 {answer.status:d} {responses.get(answer.status, '')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _body_size(text: str, base: int) -> int:
    if not re.fullmatch("[0-9]{1,9}" if base == 10 else "[0-9a-fA-F]{1,7}", text):
        raise OfflineError(411, "a body needs chunks or a Content-Length of up to 9 digits")
    return int(text, base)
