"""A server on this machine that speaks the API without a model: for tests and first steps.

    with OfflineServer(["Hi!", 429]) as server:
        client = OpenAIClient(base_url=server.url)
        ...                                 # the first call is answered, the next refused
        assert server.requests[0].body["messages"][-1]["content"] == "Say hi."

In goes a script of replies, used in order, one for each valid request. When it is used
up, and without one, the answer repeats the question and says that no model gave it. Out
come answers and refusals in the API's format, whole or streamed as the request asks: what
a client adds up from the stream is what it would have got whole.

It knows `POST /v1/chat/completions` alone, and of its parameters `model`, `messages`, `n`,
`stream`, `stream_options` and, for its own texts, the limits on tokens. Where a model
counts tokens it counts the words of the texts. It listens on 127.0.0.1, without TLS.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, zip_longest
from typing import TYPE_CHECKING, Any

from ..models import text_of

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

    from typing_extensions import Self

    from ..errors import JSONValue

_OFFLINE_PATH = "/v1/chat/completions"
_OFFLINE_POLL = 0.02  # seconds; close() waits for half of it on average
_OFFLINE_PATIENCE = 5.0  # seconds close() waits for a reply function that is at work


@dataclass(slots=True)
class OfflineRequest:
    """A request as it arrived, also one that was then refused."""

    method: str
    path: str  # with its query
    headers: dict[str, str] = field(repr=False)  # names in lower case; may hold a key
    body: Any  # parsed JSON; the bytes where they are none


class OfflineServer:
    """The server: a context manager, or `start()` and `close()`. It starts once.

    replies: what to answer, one for each valid request. A list is checked here; an endless
        iterable does as well (`itertools.repeat(answer)`). Each reply is one of
        - a text;
        - a dict, the message: `content`, `tool_calls`, `refusal`, and any other key;
        - a dict with `choices`, the whole answer, sent as it is;
        - a status, or `(status, body)`, sent as it is, streaming or not;
        - a function that takes the body of the request and returns one of these. It is
          called on the connection's thread; what it raises is told in a 500 that asks
          not to be tried again.
    api_key: the key to insist on; None for none.
    delay: seconds between two chunks of a stream.

    `requests` lists each `OfflineRequest` that came, the oldest first.

    Raises TypeError for what is no reply, ValueError for a status or delay that can't be.
    """

    def __init__(
        self,
        replies: Iterable[
            str | int | dict[str, Any] | tuple[int, Any] | Callable[[dict[str, Any]], Any]
        ]
        | None = None,
        *,
        api_key: str | None = None,
        delay: float = 0.0,
    ) -> None:
        if not 0 <= delay <= threading.TIMEOUT_MAX:
            raise ValueError(f"delay must be 0 or more seconds, not {delay!r}")
        self.requests: list[OfflineRequest] = []
        self._api_key = api_key
        self._delay = delay
        self._replies = _offline_script(() if replies is None else replies)
        self._lock = threading.Lock()  # an iterator is not for two threads at once
        self._closing = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The `base_url` for clients. Raises RuntimeError before the start."""
        if self._server is None:
            raise RuntimeError("the offline server has no url before start()")
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def start(self) -> Self:
        """Listen on a free port and answer in the background. Returns the server itself."""
        if self._server is not None or self._closing.is_set():
            raise RuntimeError("an offline server starts only once")
        self._server = _offline_http_server(self._answer_to, self._closing, self._delay)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_OFFLINE_POLL,), daemon=True
        )
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop: when this returns, the port, the connections and the threads are gone."""
        self._closing.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        shown = f"url={self.url!r}" if self._server else "not started"
        return f"{type(self).__name__}({shown})"

    def _answer_to(self, request: OfflineRequest) -> bytes | list[bytes]:
        """What goes back: a body, or the events of a stream. Raises _OfflineRefusal."""
        self.requests.append(request)
        _check_offline_request(request, self._api_key)
        body = request.body
        with self._lock:
            reply = next(self._replies, _offline_stand_in)
        answer = _offline_answer(reply(body) if callable(reply) else reply, body)
        if body.get("stream") is not True:
            return _offline_json(answer)
        options: JSONValue = body.get("stream_options")
        with_usage = isinstance(options, dict) and options.get("include_usage") is True
        events = [_offline_json(chunk) for chunk in _offline_chunks(answer, with_usage)]
        return [b"data: " + event + b"\n\n" for event in (*events, b"[DONE]")]


# From replies to answers


class _OfflineRefusal(Exception):
    """A status and a body, in place of an answer."""


def _offline_refusal(
    status: int, words: str, *, param: str | None = None, code: str | None = None
) -> _OfflineRefusal:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": words, "type": kind, "param": param, "code": code}
    return _OfflineRefusal(status, {"error": error})


def _offline_script(replies: Iterable[Any] | None) -> Iterator[Any]:
    """The replies, checked now where looking at them does not use them up."""
    kind = type(replies).__name__
    if isinstance(replies, (str, bytes, Mapping)) or not isinstance(replies, Iterable):
        raise TypeError(f"replies must be a list of replies, not {kind}")
    if not isinstance(replies, Sequence):
        return iter(replies)
    for reply in replies:
        if callable(reply):
            continue
        try:
            answer = _offline_answer(reply, {"messages": []})
            said: Any = [answer, *_offline_chunks(answer, True)]
        except _OfflineRefusal as refusal:
            _, said = refusal.args
        except (AttributeError, LookupError, TypeError) as error:
            raise TypeError(f"this is no reply: {reply!r}: {error}") from error
        _offline_json(said)  # a TypeError for what JSON has no word for
    return iter(list(replies))


def _offline_answer(given: Any, body: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    """The whole answer that a reply stands for. Raises _OfflineRefusal if it refuses."""
    reply: JSONValue | tuple[Any, ...] = given
    if isinstance(reply, int):
        code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(reply)
        refusal = _offline_refusal(reply, f"refused with {reply:d}, as the script says", code=code)
        reply = refusal.args
    if isinstance(reply, tuple) and len(reply) == 2 and isinstance(reply[0], int):
        if not 200 <= reply[0] <= 599 or reply[0] in (204, 304):  # these two have no body
            raise ValueError(f"a status must be 200 to 599, and allow a body, not {reply[0]!r}")
        raise _OfflineRefusal(*reply)
    if isinstance(reply, str):
        reply = {"content": reply}
    if not isinstance(reply, dict):
        kinds = "a text, a dict, a status, (status, body) or a function"
        raise TypeError(f"a reply must be {kinds}, not {type(reply).__name__}")
    if "choices" in reply:
        return reply
    message = {"role": "assistant", "content": None, "refusal": None, **reply}
    if reason is None:
        calls = (key for key in ("tool_calls", "function_call") if message.get(key))
        reason = next(calls, "stop")
    n = body.get("n") or 1
    asked = sum(map(_offline_words, body["messages"]))
    answered = n * _offline_words(message)
    return {
        "id": f"chatcmpl-offline-{next(_offline_numbers)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "offline",
        "system_fingerprint": "offline",
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": reason}
            for index in range(n)
        ],
        "usage": {
            "prompt_tokens": asked,
            "completion_tokens": answered,
            "total_tokens": asked + answered,
        },
    }


_offline_numbers = count(1)


def _offline_words(message: dict[str, Any]) -> int:
    return sum(len(text_of(message.get(key)).split()) for key in ("content", "refusal"))


def _offline_stand_in(body: dict[str, Any]) -> dict[str, Any]:
    """The answer where no script has one: the question, and that no model is here."""
    asked = (text_of(m.get("content")) for m in reversed(body["messages"]) if m["role"] == "user")
    question = next(asked, "").strip() or "(nothing in words)"
    text = f"This is the offline stand-in of chatgptlib, not a model. You asked: {question}"
    words = re.findall(r"\s*\S+", text)
    limits = (body.get("max_completion_tokens"), body.get("max_tokens"))
    kept = words[: min((limit for limit in limits if limit is not None), default=None)]
    reason = "length" if len(kept) < len(words) else "stop"
    return _offline_answer("".join(kept), body, reason)


# From an answer to its chunks


def _offline_chunks(answer: dict[str, Any], with_usage: bool) -> Iterator[dict[str, Any]]:
    """The chunks that add up to `answer`, those of several choices by turns."""
    head = {key: value for key, value in answer.items() if key not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"
    if with_usage:
        head["usage"] = None
    cut = [_offline_deltas(choice, index) for index, choice in enumerate(answer["choices"])]
    for turn in zip_longest(*cut):
        yield from ({**head, "choices": [choice]} for choice in turn if choice is not None)
    if with_usage and answer.get("usage") is not None:
        yield {**head, "choices": [], "usage": answer["usage"]}


def _offline_deltas(choice: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    """What the chunks say of one choice: its role, texts and calls, and why it ended.

    Other keys of the message are in the first, those of the choice in the last.
    """
    message, logprobs = choice["message"], dict(choice.get("logprobs") or {})
    same = {"index": choice.get("index", index), "logprobs": None, "finish_reason": None}
    in_pieces = ("content", "refusal", "reasoning_content", "reasoning")
    texts = {key: message[key] for key in in_pieces if isinstance(message.get(key), str)}
    later = {*texts, "tool_calls", "function_call"}
    first = {key: value for key, value in message.items() if key not in later}
    yield {**same, "delta": {"role": "assistant", **first, **dict.fromkeys(texts, "")}}
    for key, text in texts.items():
        tokens: list[Any] = logprobs.pop(key, None) or []
        for part, token in zip_longest(_offline_pieces(text, tokens), tokens):
            known = {"content": None, "refusal": None, key: [token]} if token else None
            yield {**same, "delta": {} if part is None else {key: part}, "logprobs": known}
    for number, call in enumerate(message.get("tool_calls") or ()):
        for part in _offline_call(call):
            yield {**same, "delta": {"tool_calls": [{**part, "index": number}]}}
    if message.get("function_call") is not None:
        for part in _offline_call({"function": message["function_call"]}):
            yield {**same, "delta": {"function_call": part["function"]}}
    last = {key: value for key, value in choice.items() if key != "message"}
    left = {key: value for key, value in logprobs.items() if value is not None}
    yield {**same, "delta": {}, **last, "logprobs": left or None}


def _offline_call(call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A call without its arguments, or its input, and then those in pieces."""
    for kind, key in (("function", "arguments"), ("custom", "input")):
        called: JSONValue = call.get(kind)
        if isinstance(called, dict) and isinstance(text := called.get(key), str):
            yield {**call, kind: {**called, key: ""}}
            yield from ({kind: {key: part}} for part in _offline_pieces(text))
            return
    yield call


def _offline_pieces(text: str, tokens: Sequence[dict[str, Any]] = ()) -> list[str]:
    """`text` in pieces: those of the tokens if they are its own, else about a word each."""
    said = [str(token.get("token")) for token in tokens]
    if said and "".join(said) == text:
        return said
    return re.findall(r"\s*\S{1,12}|\s+", text)  # a limit, for scripts without spaces


# From HTTP to requests, and back


def _check_offline_request(request: OfflineRequest, api_key: str | None) -> None:
    """Raise _OfflineRefusal for what the API refuses, in the order in which it looks."""
    if request.path.partition("?")[0] != _OFFLINE_PATH:
        words = f"unknown URL {request.path}: this offline server has {_OFFLINE_PATH} alone"
        raise _offline_refusal(404, words, code="unknown_url")
    if request.method != "POST":
        raise _offline_refusal(405, f"{request.method} is not allowed here, only POST")
    given = request.headers.get("authorization")
    if api_key is not None and given != f"Bearer {api_key}":
        words = "incorrect API key" if given else "no API key in a header Authorization: Bearer"
        raise _offline_refusal(401, words, code="invalid_api_key")
    body: JSONValue = request.body
    if not isinstance(body, dict):
        raise _offline_refusal(400, "the body of the request is not a JSON object")

    def wrong(param: str, words: str) -> _OfflineRefusal:
        return _offline_refusal(400, f"{param}: {words}", param=param)

    if not isinstance(body.get("model"), str) or not body["model"]:
        raise wrong("model", "a request names one")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise wrong("messages", "a request has a list of them, at least one")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise wrong(f"messages[{i}]", "expected an object with a role")
    for name, most in (("n", 128), ("max_tokens", None), ("max_completion_tokens", None)):
        value = body.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= (most or value)):
            raise wrong(name, "expected an integer from 1" + (f" to {most}" if most else ""))


def _offline_json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can say
        return json.dumps(value).encode()


def _offline_http_server(
    answer_to: Callable[[OfflineRequest], bytes | list[bytes]],
    closing: threading.Event,
    delay: float,
) -> ThreadingHTTPServer:
    """A server that listens. Its classes are in here, for `http.server` is slow to import."""
    import socket
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from socketserver import TCPServer

    numbers = count(1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = default_request_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        server_version, sys_version = "chatgptlib-offline", ""

        def __getattr__(self, name: str) -> Callable[[], None]:
            if name.startswith("do_"):  # http.server has a method per verb; one does here
                return self.answer
            raise AttributeError(name)

        def answer(self) -> None:
            length = self.headers.get("Content-Length", "0")
            if "Transfer-Encoding" in self.headers or not re.fullmatch("[0-9]{1,9}", length):
                self.send_error(411, "a request has a Content-Length, of up to 9 digits")
                return
            content = self.rfile.read(int(length))
            if len(content) < int(length):
                self.close_connection = True  # nobody is left to be answered
                return
            try:
                answer = answer_to(self.arrived(content))
            except _OfflineRefusal as refusal:
                status, body = refusal.args
                self.send_body(status, _offline_json(body))
            except BaseException as error:  # what pytest.fail() raises is no Exception
                _, body = _offline_refusal(500, f"{type(error).__name__}: {error}").args
                self.send_body(500, _offline_json(body), {"x-should-retry": "false"})
            else:
                if isinstance(answer, list):
                    self.send_events(answer)
                else:
                    self.send_body(200, answer)

        def arrived(self, content: bytes) -> OfflineRequest:
            given = self.headers
            headers = {name.lower(): ", ".join(given.get_all(name, [])) for name in given}
            try:
                body = json.loads(content)
            except (ValueError, RecursionError):
                body = content
            return OfflineRequest(self.command, self.path, headers, body)

        def send_head(self, status: int, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            self.send_header("x-request-id", f"req-offline-{next(numbers)}")
            for name, value in headers.items():
                self.send_header(name, value)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()

        def send_body(self, status: int, body: bytes, more: Mapping[str, str] = {}) -> None:
            kind, length = "application/json", str(len(body))
            self.send_head(status, {"Content-Type": kind, "Content-Length": length, **more})
            if self.command != "HEAD":
                self.wfile.write(body)

        def send_events(self, events: list[bytes]) -> None:
            chunked = self.request_version != "HTTP/1.0"
            self.close_connection |= not chunked
            coding = {"Transfer-Encoding": "chunked"} if chunked else {}
            self.send_head(200, {"Content-Type": "text/event-stream", **coding})
            for number, event in enumerate(events):
                if number and closing.wait(delay):
                    self.close_connection = True
                    return
                self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event) if chunked else event)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")

        def send_error(self, code: int, message: str | None = None, explain: Any = None) -> None:
            """Refuse what is not HTTP. `http.server` calls this, and would send a page."""
            self.close_connection = True
            _, body = _offline_refusal(code, message or "the request is not valid HTTP").args
            self.send_body(code, _offline_json(body))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # with the usual 5, many clients at once lose seconds
        serving: tuple[tuple[Any, threading.Thread], ...] = ()  # connections, who serves them

        def server_bind(self) -> None:
            TCPServer.server_bind(self)  # HTTPServer's own asks DNS for this machine's name

        def process_request(self, request: Any, client_address: Any) -> None:
            thread = threading.Thread(
                target=self.process_request_thread, args=(request, client_address), daemon=True
            )
            thread.start()
            alive = (one for one in self.serving if one[1].is_alive())
            self.serving = (*alive, (request, thread))

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # the client hung up: no news, and nobody to tell

        def server_close(self) -> None:
            super().server_close()
            for request, _ in self.serving:
                try:
                    request.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
                except OSError:
                    pass  # closed already
            for _, thread in self.serving:
                if thread is not threading.current_thread():
                    thread.join(_OFFLINE_PATIENCE)

    return Server(("127.0.0.1", 0), Handler)
