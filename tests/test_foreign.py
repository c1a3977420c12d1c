"""Foreign exceptions: those of the caller's code pass unchanged, those of the HTTP stack become
errors of the library, and the connection is closed either way."""

import contextlib
import copy
import ctypes
import errno
import functools
import io
import json
import signal
import socket
import ssl
import threading
from http.client import BadStatusLine, IncompleteRead, RemoteDisconnected
from pathlib import Path

import pytest
import requests
import responses
import urllib3

from . import lib, waits_of
from .conftest import IN_THE_GATE, QUESTION
from .wire import SILENCE, Reply, Wire, chunk, completion, http, sse, streamed

KEY = "sk-secret-key"
URL = "https://api.openai.com/v1/chat/completions"
CERTIFICATE = str(Path(__file__).parent / "data" / "localhost.pem")
ANSWER = http(completion())
STREAM = streamed(chunk("a"), chunk("b", finish_reason="stop"))
BEGUN = streamed(chunk("a"), done=False)[:-5]
REFUSAL = http(
    {"error": {"message": "slow down", "code": "rate_limit_exceeded"}},
    "429 Too Many Requests",
    "Retry-After: 9",
    "x-request-id: req_1",
)


class Trouble(Exception):
    """What a user's own code raises."""


class LoudTrouble(BaseException):
    """The same, of a kind that `except Exception` does not catch."""


class SoftTimeLimitExceeded(Exception):
    """Named and built as that of the job runner Celery."""


call = lib.create_chat_completion
open_stream = lib.create_chat_completion_stream


def call_stream(client, question):
    return open_stream(client, question).response()


both = pytest.mark.parametrize("function", [call, call_stream], ids=["call", "stream"])


@pytest.fixture(params=["adapter", "session", "tls"])
def served(request):
    """A client of a server that gives these replies, over each kind of connection."""
    with contextlib.ExitStack() as stack:

        def client_for(*replies, **settings):
            context = None
            if request.param == "tls":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(CERTIFICATE)
                settings["verify"] = CERTIFICATE
            wire = stack.enter_context(Wire(*replies, tls=context))
            if request.param == "session":
                settings["session"] = stack.enter_context(requests.Session())
            client = lib.OpenAIClient(KEY, base_url=wire.url, timeout=10, **settings)
            client.wire = wire
            return stack.enter_context(client)

        yield client_for


@pytest.fixture
def session():
    with requests.Session() as session:
        yield session


def innermost_function(error):
    """The name of the function that raised, according to the traceback."""
    step = error.__traceback__
    while step.tb_next:
        step = step.tb_next
    return step.tb_frame.f_code.co_name


# At a given moment of an exchange


class Before:
    """Takes the place of a Reply's `hold`, and runs an action before the last write."""

    def __init__(self, action):
        self.action = action

    def wait(self, seconds):
        threading.Event().wait(0.02)  # the client has then most likely read what came
        self.action()


def while_waiting(action, then=b""):
    def reply(request):
        action()
        return Reply(then, SILENCE)

    return reply


def in_the_body(action, then=b""):
    return Reply([ANSWER[:-9], then], SILENCE, Before(action))


def in_the_stream(action, then=b""):
    return Reply([BEGUN, then], SILENCE, Before(action))


MOMENTS = pytest.mark.parametrize(
    ("moment", "function"),
    [
        pytest.param(while_waiting, call, id="head-of-a-call"),
        pytest.param(while_waiting, call_stream, id="head-of-a-stream"),
        pytest.param(in_the_body, call, id="body"),
        pytest.param(in_the_stream, call_stream, id="stream"),
    ],
)


# Signal handlers and job runners


@pytest.fixture
def signals():
    """Install a handler; what is returned sends its signal to the main thread."""
    if not hasattr(signal, "pthread_kill"):
        pytest.skip("no signals to threads here")
    main, before = threading.main_thread().ident, {}

    def install(number, handler):
        before.setdefault(number, signal.signal(number, handler))
        return lambda: signal.pthread_kill(main, number)

    yield install
    for number, handler in before.items():
        signal.signal(number, handler)


def raising(error):
    def handler(number, frame):
        raise error

    return handler


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("SIGUSR1", Trouble("enough")),
        ("SIGALRM", TimeoutError("enough")),
        ("SIGINT", KeyboardInterrupt()),
        pytest.param("SIGUSR1", SoftTimeLimitExceeded(), marks=IN_THE_GATE),
        pytest.param("SIGALRM", SoftTimeLimitExceeded(), marks=IN_THE_GATE),
        pytest.param("SIGALRM", OSError(errno.EIO, "enough"), marks=IN_THE_GATE),
        pytest.param("SIGTERM", SystemExit(3), marks=IN_THE_GATE),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@MOMENTS
def test_an_exception_of_a_signal_handler_passes_unchanged(
    served, question, signals, moment, function, name, error
):
    if not hasattr(signal, name):
        pytest.skip(f"no {name} here")
    error = copy.copy(error)  # without the traceback of another test
    client = served(moment(signals(getattr(signal, name), raising(error))), ANSWER)
    with pytest.raises(type(error)) as caught:
        function(client, question)
    assert caught.value is error
    assert innermost_function(error) == "handler"
    assert client.wire.closed_by_client.wait(30)
    assert len(client.wire.requests) == 1, "it is not tried again"
    assert call(client, question).text == "Hi!"
    assert client.wire.connections == 2


@MOMENTS
def test_an_exception_injected_into_a_thread_passes_unchanged(served, question, moment, function):
    if not hasattr(ctypes, "pythonapi"):
        pytest.skip("only CPython puts exceptions into threads")
    caught, worker = [], []

    def put():
        target, kind = ctypes.c_ulong(worker[0]), ctypes.py_object(SoftTimeLimitExceeded)
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(target, kind) == 1

    # It is raised when the thread runs on, so some more bytes have to wake it.
    more = b"HTTP/1.1 200 OK\r\n" if moment is while_waiting else b" "
    client = served(moment(put, more), ANSWER)

    def work():
        worker.append(threading.get_ident())
        try:
            function(client, question)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert [type(error) for error in caught] == [SoftTimeLimitExceeded]
    assert client.wire.closed_by_client.wait(30)
    assert len(client.wire.requests) == 1
    assert call(client, question).text == "Hi!"
    assert client.wire.connections == 2


# Callbacks


OWN_ERRORS = pytest.mark.parametrize(
    "kind",
    [Trouble, LoudTrouble, RuntimeError, ValueError, LookupError, ZeroDivisionError,
     FileNotFoundError, KeyboardInterrupt],
)  # fmt: skip


@OWN_ERRORS
@both
def test_an_exception_of_a_session_hook_passes_unchanged(ask, question, session, kind, function):
    error = kind("mine")

    def hook(response, **_):
        raise error

    client = ask(ANSWER, ANSWER)
    one = client.with_options(session=session)
    session.hooks["response"].append(hook)
    with pytest.raises(kind) as caught:
        function(one, question)
    assert caught.value is error
    assert innermost_function(error) == "hook"
    assert client.wire.closed_by_client.wait(30)
    assert len(client.wire.requests) == 1
    session.hooks["response"].clear()
    assert call(one, question).text == "Hi!"
    assert client.wire.connections == 2


def test_a_hook_that_reads_the_body_and_raises_spoils_no_later_call(ask, question, session):
    error = Trouble("mine")

    def hook(response, **_):
        assert response.json()
        raise error

    client = ask(ANSWER)
    one = client.with_options(session=session)
    session.hooks["response"].append(hook)
    with pytest.raises(Trouble) as caught:
        call(one, question)
    assert caught.value is error
    session.hooks["response"].clear()
    assert call(one, question).text == "Hi!"


def test_an_exception_of_session_auth_passes_unchanged(ask, question, session):
    error = Trouble("mine")

    def auth(request):
        raise error

    client = ask(ANSWER)
    session.auth = auth
    with pytest.raises(Trouble) as caught:
        call(client.with_options(session=session), question)
    assert caught.value is error
    assert client.wire.requests == []


@both
def test_a_hook_that_raises_for_the_status_gives_the_error_of_that_response(
    ask, question, session, function
):
    session.hooks["response"].append(lambda response, **_: response.raise_for_status())
    client = ask(REFUSAL, ANSWER, max_retries=0).with_options(session=session)
    with pytest.raises(lib.RateLimitError) as caught:
        function(client, question)
    error = caught.value
    assert (error.message, error.code) == ("slow down", "rate_limit_exceeded")
    assert (error.status_code, error.retry_after, error.request_id) == (429, 9, "req_1")
    assert error.body["error"]["message"] == "slow down"
    assert error.headers["Retry-After"] == "9"
    assert call(client, question).text == "Hi!"


def test_a_hook_that_raises_for_the_status_changes_no_retry(ask, question, session):
    session.hooks["response"].append(lambda response, **_: response.raise_for_status())
    client = ask(REFUSAL, ANSWER)
    one = client.with_options(session=session)
    waits = waits_of(one)
    assert call(one, question).text == "Hi!"
    assert waits == [9]


@pytest.mark.parametrize(
    "kind", [Trouble, LoudTrouble, KeyError, TimeoutError, requests.ConnectionError]
)  # fmt: skip
@both
def test_an_exception_of_the_key_function_passes_unchanged(ask, question, kind, function):
    error = kind("mine")
    keys = [error, KEY]

    def api_key():
        if isinstance(key := keys.pop(0), BaseException):
            raise key
        return key

    client = ask(ANSWER, STREAM)
    one = client.with_options(api_key=api_key)
    with pytest.raises(kind) as caught:
        function(one, question)
    assert caught.value is error
    assert innermost_function(error) == "api_key"
    assert client.wire.requests == []
    assert call(one, question).text == "Hi!"
    assert client.waits == []


@pytest.mark.parametrize(
    "kind", [Trouble, LoudTrouble, TimeoutError, OSError, requests.ConnectionError, KeyboardInterrupt]
)  # fmt: skip
def test_an_exception_of_on_chunk_passes_unchanged(served, question, kind):
    error = kind("mine")

    def on_chunk(chunk):
        raise error

    client = served(Reply(BEGUN, SILENCE), ANSWER)
    with pytest.raises(kind) as caught:
        lib.run_tools(client, question, [], on_chunk=on_chunk)
    assert caught.value is error
    assert innermost_function(error) == "on_chunk"
    assert client.wire.closed_by_client.wait(30)
    assert len(client.wire.requests) == 1
    assert call(client, question).text == "Hi!"


# Tools


TOOL_CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "work", "arguments": "{}"}}
    ],
}


class Handler:
    """The forms that a handler of signals can have."""

    def __init__(self, error):
        self.error = error

    def method(self, number, frame):
        raise self.error

    def __call__(self, number, frame):
        raise self.error

    def deeper(self, number, frame):
        self.method(number, frame)


def partly(error, number, frame):
    raise error


HANDLERS = [
    pytest.param(raising, id="function"),
    pytest.param(lambda error: Handler(error).method, id="method"),
    pytest.param(lambda error: Handler(error).deeper, id="function-it-calls"),
    pytest.param(Handler, id="object"),
    pytest.param(lambda error: functools.partial(partly, error), id="partial"),
]


@pytest.mark.parametrize("raise_errors", [False, True])
@pytest.mark.parametrize("kind", [SoftTimeLimitExceeded, TimeoutError])
@pytest.mark.parametrize("form", HANDLERS)
def test_an_exception_of_a_signal_handler_in_a_tool_is_not_sent_to_the_model(
    offline, question, signals, form, kind, raise_errors
):
    error = kind("enough")
    signals(signal.SIGUSR1, form(error))

    def work() -> str:
        """Work."""
        signal.raise_signal(signal.SIGUSR1)
        return "done"

    client = offline(TOOL_CALL, "never asked")
    with pytest.raises(kind) as caught:
        lib.run_tools(client, question, [work], raise_errors=raise_errors)
    assert caught.value is error
    assert len(client.server.requests) == 1


@pytest.mark.parametrize("raise_errors", [False, True])
@pytest.mark.parametrize("kind", [LoudTrouble, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_base_exception_of_a_tool_is_not_sent_to_the_model(offline, question, kind, raise_errors):
    error = kind("enough")

    def work() -> str:
        """Work."""
        raise error

    client = offline(TOOL_CALL, "never asked")
    with pytest.raises(kind) as caught:
        lib.run_tools(client, question, [work], raise_errors=raise_errors)
    assert caught.value is error
    assert len(client.server.requests) == 1


def test_an_exception_of_a_tool_is_sent_to_the_model_with_signal_handlers_installed(
    offline, question, signals
):
    signals(signal.SIGUSR1, raising(Trouble("not raised")))

    def work() -> str:
        """Work."""
        raise TimeoutError("the pump is slow")

    client = offline(TOOL_CALL, "I see.")
    assert lib.run_tools(client, question, [work]).text == "I see."
    told = client.server.requests[1].body["messages"][-1]["content"]
    assert "the pump is slow" in told


# Errors of the HTTP stack


BELOW = [
    requests.ConnectionError("x"),
    requests.ReadTimeout("x"),
    requests.ConnectTimeout("x"),
    requests.exceptions.SSLError("x"),
    requests.exceptions.ProxyError("x"),
    requests.exceptions.ChunkedEncodingError("x"),
    requests.exceptions.ContentDecodingError("x"),
    requests.exceptions.TooManyRedirects("x"),
    requests.exceptions.InvalidProxyURL("x"),
    requests.exceptions.RetryError("x"),
    requests.exceptions.JSONDecodeError("x", "{", 0),
    json.JSONDecodeError("x", "{", 0),
    urllib3.exceptions.ProtocolError("x"),
    urllib3.exceptions.ReadTimeoutError(None, URL, "x"),
    urllib3.exceptions.MaxRetryError(None, URL, OSError("x")),
    IncompleteRead(b"x"),
    BadStatusLine("x"),
    RemoteDisconnected("x"),
    socket.gaierror(socket.EAI_NONAME, "x"),
    ssl.SSLError("x"),
    ssl.SSLCertVerificationError("x"),
    ConnectionResetError(errno.ECONNRESET, "x"),
    ConnectionRefusedError(errno.ECONNREFUSED, "x"),
    BrokenPipeError(errno.EPIPE, "x"),
    TimeoutError("x"),
    OSError(errno.EHOSTUNREACH, "x"),
]
TIMEOUTS = (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)


def name_with_module(error):
    return f"{type(error).__module__}.{type(error).__name__}"


@pytest.mark.parametrize("error", BELOW, ids=name_with_module)
@both
def test_an_error_of_the_http_stack_becomes_an_openai_error(question, error, function):
    error = error.with_traceback(None)  # without that of another test
    with responses.RequestsMock() as mock, lib.OpenAIClient(KEY, max_retries=0) as client:
        mock.post(URL, body=error)
        with pytest.raises(lib.OpenAIError) as caught:
            function(client, question)
    assert isinstance(caught.value, lib.RequestTimeoutError) == isinstance(error, TIMEOUTS)


@pytest.mark.parametrize("kind", [requests.ReadTimeout, requests.ConnectTimeout])
def test_an_adapters_timeout_is_a_request_timeout_error_even_without_a_client_timeout(
    question, kind
):
    client = lib.OpenAIClient(KEY, timeout=float("inf"), max_retries=0)
    with responses.RequestsMock() as mock:
        mock.post(URL, body=kind("x"))
        with pytest.raises(lib.RequestTimeoutError, match="in time"):
            call(client, question)


@pytest.mark.parametrize(
    "kind", [Trouble, RuntimeError, ZeroDivisionError, AttributeError, AssertionError]
)
@both
def test_any_other_exception_of_a_mock_passes_unchanged(question, kind, function):
    error = kind("mine")
    with responses.RequestsMock() as mock, lib.OpenAIClient(KEY) as client:
        mock.post(URL, body=error)
        with pytest.raises(kind) as caught:
            function(client, question)
        assert caught.value is error
        assert len(mock.calls) == 1, "it is not tried again"
        mock.replace(responses.POST, URL, json=completion())
        assert call(client, question).text == "Hi!"


# Bodies that are not urllib3's


class OnlyRead:
    """A file with nothing but `read`."""

    def __init__(self, data):
        self.read = io.BytesIO(data).read


class PlainRead1(OnlyRead):
    """A file whose `read1` takes no keywords, as that of BytesIO."""

    def __init__(self, data):
        file = io.BytesIO(data)
        self.read, self.close = file.read, file.close
        self._read1 = file.read1

    def read1(self, size=-1, /):
        return self._read1(size)


class Raising:
    """A file that raises when its data is used up."""

    def __init__(self, data, error):
        self._data, self._error = [data], error
        self.closed_by_client = False

    def read(self, size=-1):
        if self._data:
            return self._data.pop()
        self._raise()

    def _raise(self):
        raise self._error

    def close(self):
        self.closed_by_client = True


class Canned(requests.adapters.BaseAdapter):
    """An adapter that returns prepared responses."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = list(answers)
        self.asked = 0

    def send(self, request, **kwargs):
        self.asked += 1
        response = requests.Response()
        response.request, response.url = request, request.url
        response.status_code, response.raw, response.headers["Content-Type"] = self.answers.pop(0)
        return response

    def close(self):
        pass


@pytest.fixture
def canned(session):
    def client_for(*answers):
        adapter = Canned(*answers)
        session.mount("http://", adapter)
        client = lib.OpenAIClient(
            KEY, base_url="http://some.example/v1", session=session, max_retries=0
        )
        client.adapter = adapter
        return client

    return client_for


COMPLETION = json.dumps(completion()).encode()
EVENTS = sse(chunk("a"), chunk("b", finish_reason="stop"))
NO = json.dumps({"error": {"message": "the pump is broken"}}).encode()


@pytest.mark.parametrize("file", [io.BytesIO, OnlyRead, PlainRead1])
def test_the_body_of_an_adapter_may_be_any_file(canned, question, file):
    client = canned(
        (200, file(COMPLETION), "application/json"),
        (200, file(EVENTS), "text/event-stream"),
        (400, file(NO), "application/json"),
        (400, file(NO), "application/json"),
        (200, file(EVENTS), "text/event-stream"),
        (200, file(COMPLETION), "application/json"),
    )
    assert call(client, question).text == "Hi!"
    assert list(open_stream(client, question).text_deltas()) == ["a", "b"]
    for function in (call, call_stream):
        with pytest.raises(lib.BadRequestError) as caught:
            function(client, question)
        assert caught.value.message == "the pump is broken"
    with open_stream(client, question) as stream:
        assert next(stream).text == "a"
    with pytest.raises(lib.StreamInterruptedError, match="closed"):
        next(stream)
    assert call(client, question).text == "Hi!"


@pytest.mark.parametrize("kind", [Trouble, LoudTrouble, RuntimeError])
@both
def test_an_exception_of_a_body_file_passes_unchanged(canned, question, kind, function):
    error = kind("mine")
    data, media = (EVENTS[:-20], "text/event-stream")
    if function is call:
        data, media = COMPLETION[:-5], "application/json"
    file = Raising(data, error)
    client = canned((200, file, media), (200, io.BytesIO(COMPLETION), "application/json"))
    with pytest.raises(kind) as caught:
        function(client, question)
    assert caught.value is error
    assert innermost_function(error) == "_raise"
    assert file.closed_by_client
    assert client.adapter.asked == 1
    assert call(client, question).text == "Hi!"


@pytest.mark.parametrize(
    "error",
    [urllib3.exceptions.ProtocolError("x"), IncompleteRead(b"x"), OSError(errno.EIO, "x"),
     ConnectionResetError(errno.ECONNRESET, "x"), ssl.SSLError("x"), TimeoutError("x")],
    ids=name_with_module,
)  # fmt: skip
@both
def test_a_network_error_of_a_body_file_becomes_an_http_error(canned, question, error, function):
    error = copy.copy(error)
    data, media = (sse(chunk("a"), done=False), "text/event-stream")
    if function is call:
        data, media = COMPLETION[:-5], "application/json"
    client = canned((200, Raising(data, error), media))
    with pytest.raises(lib.HTTPError) as caught:
        function(client, question)
    assert isinstance(caught.value, lib.RequestTimeoutError) == isinstance(error, TimeoutError)
    if function is call_stream:
        assert caught.value.partial.text == "a"


# Recorders


def outcomes(client):
    """The results of a call, of a stream and of two that fail, one after the other."""
    yield call(client, QUESTION).text
    yield list(open_stream(client, QUESTION).text_deltas())
    for function in (call, call_stream):
        with pytest.raises(lib.RateLimitError) as caught:
            function(client, QUESTION)
        yield caught.value.message, caught.value.body, caught.value.retry_after


@pytest.mark.parametrize("own_session", [False, True], ids=["adapter", "session"])
def test_vcr_replays_calls_streams_and_errors(tmp_path, own_session):
    vcr = pytest.importorskip("vcr", reason="vcrpy is not installed")
    cassette = str(tmp_path / "cassette.yaml")

    def played(url, mode):
        with contextlib.ExitStack() as stack:
            stack.enter_context(vcr.use_cassette(cassette, record_mode=mode))
            session = stack.enter_context(requests.Session()) if own_session else None
            client = lib.OpenAIClient(KEY, base_url=url, session=session, max_retries=0, timeout=10)
            return list(outcomes(stack.enter_context(client)))

    with Wire(ANSWER, STREAM, REFUSAL) as wire:
        recorded = played(wire.url, "once")
    assert recorded[:2] == ["Hi!", ["a", "b"]]
    assert [message for message, _, _ in recorded[2:]] == ["slow down"] * 2
    assert played(wire.url, "none") == recorded
    assert len(wire.requests) == 4


@pytest.mark.parametrize("own_session", [False, True], ids=["adapter", "session"])
def test_requests_mock_works_for_calls_streams_and_errors(own_session):
    requests_mock = pytest.importorskip("requests_mock", reason="requests_mock is not installed")
    answers = [
        {"content": COMPLETION},
        {"content": EVENTS, "headers": {"Content-Type": "text/event-stream"}},
        *[{"content": NO, "status_code": 429}] * 2,
        {"exc": requests.ConnectionError("x")},
        {"exc": Trouble("mine")},
    ]
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(requests.Session())
        if own_session:
            mock = requests_mock.Adapter()
            session.mount("https://", mock)
        else:  # it takes the place of `Session.get_adapter`, which only a session asks
            mock = stack.enter_context(requests_mock.Mocker())
        client = lib.OpenAIClient(KEY, session=session, max_retries=0)
        mock.register_uri("POST", URL, answers)
        text, deltas, *refusals = outcomes(client)
        assert (text, deltas) == ("Hi!", ["a", "b"])
        assert [message for message, _, _ in refusals] == ["the pump is broken"] * 2
        with pytest.raises(lib.HTTPError):
            call(client, QUESTION)
        with pytest.raises(Trouble, match="mine"):
            call(client, QUESTION)
