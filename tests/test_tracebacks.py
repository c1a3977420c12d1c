"""Errors: each traceback fits on a screen and shows no secret, and each attribute is set on the
error itself."""

import base64
import contextlib
import io
import os
import pickle
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import requests

from . import lib, waits_of
from .conftest import QUESTION, in_the_gate
from .wire import CLOSE, RESET, SILENCE, Reply, Wire, chunk, completion, http, streamed

CERTIFICATE = str(Path(__file__).parent / "data" / "localhost.pem")
KEY = "sk-proj-" + "".join(f"{number * 7919 % 65521:04x}" for number in range(1, 30))
ANSWER = http(completion())
BEGUN = streamed(chunk("a"), done=False)[:-5]

call = lib.create_chat_completion
open_stream = lib.create_chat_completion_stream


def call_stream(client, question):
    return open_stream(client, question).response()


both = pytest.mark.parametrize("function", [call, call_stream], ids=["call", "stream"])


def parts_of(secret):
    """Pieces of a long text, so that it is also found where only a part of it is shown."""
    return [secret[at : at + 12] for at in range(8, len(secret) - 12, 12)] or [secret]


KEY_PARTS = parts_of(KEY)


# The places where an error may show a secret


def chain(error):
    """The error and all errors that it refers to, also where Python would not print them."""
    seen, waiting = [], [error]
    while waiting:
        link = waiting.pop(0)
        if isinstance(link, BaseException) and all(link is not other for other in seen):
            seen.append(link)
            waiting += [link.__cause__, link.__context__, *link.args, *vars(link).values()]
    return seen


def frames_of(error):
    """The frames of its traceback, but for those of this file."""
    step = error.__traceback__
    while step:
        if step.tb_frame.f_code.co_filename != __file__:
            yield step.tb_frame
        step = step.tb_next


def shown(value, depth=5):
    """What printers of local variables show of a value: Sentry, rich, loguru, pytest -l."""
    yield repr(value)
    if isinstance(value, (str, bytes)):
        yield repr(value[:80])  # rich cuts what is long, and shows the piece
    elif depth and isinstance(value, Mapping):
        for item in [*value.keys(), *value.values()]:
            yield from shown(item, depth - 1)
    elif depth and isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from shown(item, depth - 1)


def places_that_show(error, secrets):
    """Where a secret can be seen: in a local variable, a text, an attribute, a pickle."""
    found = []

    def look(place, texts):
        if any(secret in text for text in texts for secret in secrets):
            found.append(place)

    for link in chain(error):
        name = type(link).__name__
        look(f"str of {name}", [str(link), *map(str, link.args)])
        look(f"repr of {name}", [repr(link)])
        look(f"vars of {name}", shown(vars(link)))
        look(f"traceback of {name}", traceback.format_exception(link))
        for attribute in ("request", "response", "headers"):  # which requests' errors have
            held = getattr(link, attribute, None)
            look(f"{attribute} of {name}", shown(getattr(held, "headers", held)))
        for frame in frames_of(link):
            for variable, value in frame.f_locals.items():
                where = f"{variable} in {frame.f_code.co_filename}:{frame.f_code.co_name}"
                look(where, shown(value))
    with contextlib.suppress(Exception):  # not every foreign exception pickles
        look("pickle", [repr(pickle.dumps(error))])
    return found


def is_ours(filename):
    file = Path(sys.modules[lib.name].__file__)
    return file == Path(filename) or (
        file.name == "__init__.py" and file.parent in Path(filename).parents
    )


def check_shape(error):
    """At most one cause, and no frames but ours in any traceback."""
    links = chain(error)
    assert len(links) <= 2
    assert [f.f_code.co_filename for link in links for f in frames_of(link)
            if not is_ours(f.f_code.co_filename)] == []  # fmt: skip
    assert len(list(frames_of(error))) <= 4
    if len(links) == 2:
        assert error.__cause__ is links[1]


# On one screen


def screen_of(tmp_path, *lines):
    """The lines that Python prints for a script of these lines: one traceback, which is short."""
    script = tmp_path / "script.py"
    script.write_text("\n".join(lines))
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONWARNINGS", "FORCE_COLOR")
    }
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "")
    files = re.findall(r'^ *File "(.+?)", line', done.stderr, re.M)
    assert files[0] == str(script), "the cause comes without frames"
    assert 1 <= len(files[1:]) <= 4
    assert all(map(is_ours, files[1:]))
    printed = done.stderr.splitlines()
    assert len(printed) <= 25
    assert "During handling" not in done.stderr
    assert done.stderr.count("direct cause") <= 1
    return printed


def script(url, function="create_chat_completion", then=""):
    return (
        f"from {lib.name} import OpenAIClient, {function}",
        f"client = OpenAIClient('sk-secret-key', base_url={url!r}, max_retries=0)",
        f"{function}(client, {QUESTION!r}){then}",
    )


@pytest.fixture
def refusing():
    """The URL of a port that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="module")
def tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


@pytest.mark.gate
@pytest.mark.versions
def test_the_traceback_of_a_refused_connection_fits_on_one_screen(tmp_path, refusing):
    printed = screen_of(tmp_path, *script(refusing))
    assert printed[0].startswith("ConnectionRefusedError: ")
    assert "direct cause" in printed[2]
    assert "no connection" in printed[-1]


def test_the_traceback_of_a_401_fits_on_one_screen_and_has_no_cause(tmp_path):
    reply = http({"error": {"message": "Incorrect API key"}}, "401 Unauthorized")
    with Wire(reply) as wire:
        printed = screen_of(tmp_path, *script(wire.url))
    assert printed[0] == "Traceback (most recent call last):"
    assert "AuthenticationError: 401: Incorrect API key" in printed[-1]


@pytest.mark.gate
@pytest.mark.versions
@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_the_traceback_of_a_truncated_stream_fits_on_one_screen(tmp_path, end):
    lines = {
        "response": lambda url: script(url, "create_chat_completion_stream", ".response()"),
        "loop": lambda url: (
            *script(url, "create_chat_completion_stream")[:2],
            f"for _ in create_chat_completion_stream(client, {QUESTION!r}): pass",
        ),
    }
    for make in lines.values():
        with Wire(Reply(BEGUN, end)) as wire:
            assert "StreamInterruptedError: " in screen_of(tmp_path, *make(wire.url))[-1]


@pytest.mark.gate
@pytest.mark.versions
def test_the_traceback_of_an_untrusted_certificate_fits_on_one_screen(tmp_path, tls):
    with Wire(ANSWER, tls=tls) as wire:
        printed = screen_of(tmp_path, *script(wire.url))
    assert printed[0].startswith("ssl.SSLCertVerificationError: ")
    assert "certificate was not accepted" in printed[-1]


@pytest.mark.gate
@pytest.mark.versions
def test_the_traceback_of_a_read_timeout_fits_on_one_screen(tmp_path):
    with Wire(Reply(b"", SILENCE)) as wire:
        lines = [
            line.replace("max_retries", "timeout=(5, 0.1), max_retries")
            for line in script(wire.url)
        ]
        assert "RequestTimeoutError: " in screen_of(tmp_path, *lines)[-1]


def test_what_failed_in_earlier_tries_is_not_chained(refusing):
    client = lib.OpenAIClient(base_url=refusing, max_retries=3)
    waits_of(client)
    with pytest.raises(lib.HTTPError) as caught:
        call(client, QUESTION)
    check_shape(caught.value)
    assert type(caught.value.__cause__) is ConnectionRefusedError


# The key


def by_argument(monkeypatch, **settings):
    return lib.OpenAIClient(KEY, **settings)


def by_environment(monkeypatch, **settings):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return lib.OpenAIClient(**settings)


def by_function(monkeypatch, **settings):
    return lib.OpenAIClient(lambda: KEY, **settings)


def by_authorization(monkeypatch, **settings):
    return lib.OpenAIClient(headers={"Authorization": f"Bearer {KEY}"}, **settings)


def by_api_key_header(monkeypatch, **settings):
    return lib.OpenAIClient(headers={"api-key": KEY}, **settings)


def by_query(monkeypatch, **settings):
    return lib.OpenAIClient(query={"api-key": KEY}, **settings)


OTHER_WAYS = in_the_gate(by_environment, by_function, by_authorization, by_api_key_header)
every_way = pytest.mark.parametrize(
    "way", [by_argument, by_query, *OTHER_WAYS], ids=lambda way: way.__name__
)
every_transport = pytest.mark.parametrize("over", ["adapter", "session", "tls"])


@pytest.fixture
def reach(monkeypatch, tls):
    """Make a client of `url`, or of a server with these replies."""
    with contextlib.ExitStack() as stack:

        def client_for(over, way, *replies, url=None, **settings):
            if over == "session":
                settings["session"] = stack.enter_context(requests.Session())
            if url is None:
                wire = Wire(*replies, tls=tls if over == "tls" else None)
                url = stack.enter_context(wire).url
            if over == "tls":
                settings.setdefault("verify", CERTIFICATE)
            settings = {"timeout": (10, 0.05 if Reply(b"", SILENCE) in replies else 10),
                        "max_retries": 0, **settings}  # fmt: skip
            return stack.enter_context(way(monkeypatch, base_url=url, **settings))

        yield client_for


STREAMED = "Content-Type: text/event-stream"
FAILURES = [
    pytest.param(Reply(b"", RESET), id="reset"),
    pytest.param(Reply(b"", CLOSE), id="closed"),
    pytest.param(Reply(b"", SILENCE), id="silence"),
    pytest.param(Reply(b"HTTP/1.1 200 OK\r\nContent-Le", CLOSE), id="cut-head"),
    pytest.param(Reply(KEY.encode() + b"\r\n\r\n", CLOSE), id="not-http"),
    pytest.param(Reply(ANSWER[:-5], CLOSE), id="cut-body"),
    pytest.param(Reply(ANSWER[:-5], RESET), id="reset-body"),
    pytest.param(Reply(BEGUN, CLOSE), id="cut-stream"),
    pytest.param(Reply(BEGUN, RESET), id="reset-stream"),
    pytest.param(http({"error": {"message": f"Incorrect API key: {KEY}"}}, "401 Unauthorized"), id="401"),
    pytest.param(http(f"<html>{KEY}</html>".encode(), f"502 {KEY}"), id="502"),
    pytest.param(http(b"", "302 Found", f"Location: https://x/?key={KEY}"), id="redirect"),
    pytest.param(http({"error": {"message": f"bad key {KEY}"}}), id="error-in-a-200"),
    pytest.param(http(f'{{"choices": "{KEY}'.encode()), id="broken-json"),
    pytest.param(http(f"no JSON {KEY}".encode()), id="not-json"),
    pytest.param(http({"choices": KEY}), id="wrong-type"),
    pytest.param(streamed(chunk("a"), {"error": {"message": f"bad key {KEY}"}}), id="error-in-a-stream"),
    pytest.param(streamed(f"event: error\ndata: {KEY}\n\n".encode()), id="error-event"),
    pytest.param(streamed(chunk("a"), f'data: {{"choices": "{KEY}\n\n'.encode()), id="broken-event"),
    pytest.param(streamed(chunk("a"), {"choices": KEY}), id="wrong-type-in-a-stream"),
]  # fmt: skip


def failure_of(client):
    """The error of a call, and that of a stream."""
    errors = []
    for function in (call, call_stream):
        with pytest.raises(lib.OpenAIError) as caught:
            function(client, QUESTION)
        errors.append(caught.value)
    return errors


@every_way
@pytest.mark.parametrize("reply", FAILURES)
def test_no_frame_and_no_text_shows_the_key(reach, way, reply):
    for error in failure_of(reach("adapter", way, reply)):
        assert places_that_show(error, KEY_PARTS) == []
        check_shape(error)


@pytest.mark.parametrize("over", ["session", "tls"])
@pytest.mark.parametrize("way", [by_argument, by_query], ids=lambda way: way.__name__)
@pytest.mark.parametrize("reply", FAILURES)
@pytest.mark.gate
@pytest.mark.versions
def test_no_frame_and_no_text_shows_the_key_over_a_session_or_tls(reach, over, way, reply):
    for error in failure_of(reach(over, way, reply)):
        assert places_that_show(error, KEY_PARTS) == []
        check_shape(error)


@every_way
@pytest.mark.parametrize("over", ["adapter", "session"])
def test_a_refused_connection_shows_no_key(reach, refusing, over, way):
    for error in failure_of(reach(over, way, url=refusing)):
        assert places_that_show(error, KEY_PARTS) == []
        check_shape(error)
        assert type(error.__cause__) is ConnectionRefusedError


@every_way
@pytest.mark.parametrize("own_session", [False, True], ids=["adapter", "session"])
def test_a_bad_certificate_shows_no_key(reach, tls, own_session, way):
    with Wire(ANSWER, tls=tls) as wire, requests.Session() as session:
        settings = {"session": session} if own_session else {}
        for error in failure_of(reach("adapter", way, url=wire.url, **settings)):
            assert places_that_show(error, KEY_PARTS) == []
            check_shape(error)
            assert type(error.__cause__) is ssl.SSLCertVerificationError


@pytest.mark.parametrize("way", [by_argument, *in_the_gate(by_query)], ids=lambda way: way.__name__)
@every_transport
def test_a_deadline_shows_no_key(reach, over, way):
    settings = {"deadline": 0.1, "timeout": 10}
    for reply in (Reply([], SILENCE), Reply(BEGUN, SILENCE)):
        with pytest.raises(lib.RequestTimeoutError) as caught:
            call_stream(reach(over, way, reply, **settings), QUESTION)
        assert places_that_show(caught.value, KEY_PARTS) == []
        check_shape(caught.value)


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
@every_way
def test_what_a_hook_raises_shows_no_key(reach, way, kind):
    def hook(response, **_):
        raise kind("mine")

    with requests.Session() as session:
        session.hooks["response"].append(hook)
        client = reach("adapter", way, ANSWER, session=session)
        with pytest.raises(kind) as caught:
            call(client, QUESTION)
        assert places_that_show(caught.value, KEY_PARTS) == []


@pytest.mark.parametrize("way", [by_argument, by_query], ids=lambda way: way.__name__)
@pytest.mark.parametrize("over", ["adapter", "session"])
def test_rich_prints_no_key(reach, refusing, over, way):
    """Checked with a real printer of local variables."""
    rich = pytest.importorskip("rich.traceback", reason="rich is not installed")
    console = pytest.importorskip("rich.console")
    reset = reach(over, way, Reply(b"", RESET))
    for client in (reset, reach(over, way, url=refusing)):
        with pytest.raises(lib.HTTPError) as caught:
            call(client, QUESTION)
        error, step = caught.value, caught.value.__traceback__
        while step.tb_frame.f_code.co_filename == __file__:
            step = step.tb_next
        printed = rich.Traceback.from_exception(
            type(error), error, step, show_locals=True, width=5000
        )
        screen = console.Console(width=5000, color_system=None, record=True, file=io.StringIO())
        screen.print(printed)
        text = screen.export_text()
        assert [part for part in KEY_PARTS if part in text] == []


# Ctrl-C


@pytest.fixture
def ctrl_c():
    """Send SIGINT to the main thread, as Ctrl-C does."""
    if not hasattr(signal, "pthread_kill"):
        pytest.skip("no signals to threads here")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@every_way
@every_transport
def test_ctrl_c_while_waiting_shows_no_key(reach, ctrl_c, over, way):
    def press(request):
        ctrl_c()
        return Reply(b"", SILENCE)

    client = reach(over, way, press)
    for function in (call, call_stream):
        with pytest.raises(KeyboardInterrupt) as caught:
            function(client, QUESTION)
        assert places_that_show(caught.value, KEY_PARTS) == []


@pytest.fixture
def deaf(tls):
    """Start a server that reads the beginning of a request, does something, and reads no more."""
    done = threading.Event()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        listener.settimeout(20)

        def serve(over, action):
            conn, _ = listener.accept()
            if over == "tls":
                conn = tls.wrap_socket(conn, server_side=True)
            with conn:
                conn.recv(100)
                action()
                done.wait(20)

        def start(over, action):
            thread = threading.Thread(target=serve, args=(over, action))
            thread.start()
            stack.callback(thread.join, 20)
            stack.callback(done.set)
            return f"http{'s' if over == 'tls' else ''}://127.0.0.1:{listener.getsockname()[1]}/v1"

        yield start


@pytest.mark.gate
@pytest.mark.parametrize(
    "way", [by_argument, by_api_key_header, by_query], ids=lambda way: way.__name__
)
@every_transport
def test_ctrl_c_while_sending_shows_no_key(reach, deaf, ctrl_c, over, way):
    client = reach(over, way, url=deaf(over, ctrl_c), timeout=20)
    with pytest.raises(KeyboardInterrupt) as caught:
        call(client, {"model": "m", "messages": [{"role": "user", "content": "x" * 6_000_000}]})
    assert places_that_show(caught.value, KEY_PARTS) == []


# Invalid settings


AZURE = {"deployment": "d", "api_version": "1", "api_key": KEY}


def keyless():
    return lib.OpenAIClient("", base_url="http://127.0.0.1:9/v1")


SPOILT = KEY[:60] + "\u2028" + KEY[60:]
REFUSED_SETTINGS = {
    "base-url": lambda: lib.OpenAIClient(KEY, base_url="no url"),
    "base-url-that-does-not-parse": lambda: lib.OpenAIClient(KEY, base_url="http://[bad/v1"),
    "base-url-and-header": lambda: lib.OpenAIClient(
        base_url="no url", headers={"Authorization": f"Bearer {KEY}"}
    ),
    "base-url-and-query": lambda: lib.OpenAIClient(base_url="no url", query={"api-key": KEY}),
    "base-url-with-a-key": lambda: lib.OpenAIClient(base_url=f"ftp://host/v1?api-key={KEY}"),
    "character-in-the-key": lambda: lib.OpenAIClient(SPOILT),
    "line-break-in-a-header": lambda: lib.OpenAIClient(
        headers={"Authorization": f"Bearer {KEY}\nX-More: 1"}
    ),
    "character-in-a-header": lambda: lib.OpenAIClient(headers={"X-Api-Token": SPOILT}),
    "header-beside-the-key": lambda: lib.OpenAIClient(KEY, headers={"a b": "c"}),
    "header-that-is-not-text": lambda: lib.OpenAIClient(headers={"api-key": [KEY]}),
    "header-in-bytes": lambda: lib.OpenAIClient(headers={"api-key": KEY.encode()}),
    "key-in-bytes": lambda: lib.OpenAIClient(KEY.encode()),
    "query-that-is-not-text": lambda: lib.OpenAIClient(KEY, query={"api-key": [KEY]}),
    "query-that-cannot-be-encoded": lambda: lib.OpenAIClient(query={"api-key": KEY + "\ud800"}),
    "timeout": lambda: lib.OpenAIClient(KEY, timeout="soon"),
    "retries": lambda: lib.OpenAIClient(KEY, max_retries=-1),
    "copy-with-base-url": lambda: lib.OpenAIClient(KEY).with_options(base_url="no url"),
    "copy-with-key": lambda: keyless().with_options(api_key=SPOILT),
    "copy-with-header": lambda: lib.OpenAIClient(KEY).with_options(headers={"a b": KEY}),
    "copy-with-path": lambda: keyless().with_options(path=5, api_key=KEY),
    "copy-with-a-typing-error": lambda: keyless().with_options(api_kye=KEY),
    "azure-endpoint": lambda: lib.OpenAIClient.azure("x.openai.azure.com", **AZURE),
    "azure-without-endpoint": lambda: lib.OpenAIClient.azure(**AZURE),
    "azure-key": lambda: lib.OpenAIClient.azure("https://x.example", **AZURE | {"api_key": SPOILT}),
    "azure-deployment": lambda: lib.OpenAIClient.azure("https://x", **AZURE | {"deployment": ".."}),
    "azure-header": lambda: lib.OpenAIClient.azure("https://x", **AZURE, headers={"X": SPOILT}),
}


@pytest.fixture
def some_key(monkeypatch):
    """A key in the environment, so that settings without one are not rejected for that."""
    for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "some-other-key")


@pytest.mark.parametrize("make", REFUSED_SETTINGS.values(), ids=REFUSED_SETTINGS)
def test_the_error_for_invalid_settings_shows_no_key(make, some_key):
    with pytest.raises((lib.ConfigError, TypeError)) as caught:
        make()
    assert places_that_show(caught.value, KEY_PARTS) == []


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "OPENAI_ADMIN_KEY"])
@pytest.mark.parametrize(
    "settings",
    [{"base_url": "no url"}, {"timeout": "soon"}, {"headers": {"a b": "c"}}, {"project": "\n"}],
    ids=lambda settings: next(iter(settings)),
)
def test_the_error_for_invalid_settings_shows_no_key_of_the_environment(
    monkeypatch, variable, settings
):
    monkeypatch.setenv(variable, KEY)
    if "project" in settings:
        monkeypatch.setenv("OPENAI_API_KEY", SPOILT)
    with pytest.raises(lib.ConfigError) as caught:
        lib.OpenAIClient(**settings)
    assert places_that_show(caught.value, KEY_PARTS) == []


def test_azures_key_in_the_environment_is_not_shown(monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    with pytest.raises(lib.ConfigError) as caught:
        lib.OpenAIClient.azure("x.openai.azure.com", deployment="d", api_version="1")
    assert places_that_show(caught.value, KEY_PARTS) == []


@both
def test_the_error_for_an_invalid_key_from_a_function_does_not_show_it(reach, function):
    client = reach("adapter", lambda monkeypatch, **settings: lib.OpenAIClient(lambda: SPOILT, **settings), ANSWER)  # fmt: skip
    with pytest.raises(lib.ConfigError) as caught:
        function(client, QUESTION)
    assert places_that_show(caught.value, KEY_PARTS) == []


# Other secrets


def make_and_call(**settings):
    """Make a client and a call: either may reject invalid settings."""
    with lib.OpenAIClient(max_retries=0, **settings) as client:
        call(client, QUESTION)


USER, PASSWORD = "scott-tiger", "hunter22"
USERINFO = [USER, PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()]
BAD_PROXIES = {
    "dead": f"http://{USER}:{PASSWORD}@127.0.0.1:9",
    "https": f"https://{USER}:{PASSWORD}@127.0.0.1:9",
    "no-scheme": f"{USER}:{PASSWORD}@127.0.0.1:9",
    "blank": f"http://{USER}:x {PASSWORD}@host:port:x",
    "port": f"http://{USER}:{PASSWORD}@host:port",
    "bracket": f"http://{USER}:{PASSWORD}@[bad",
    "no-host": f"http://{USER}:{PASSWORD}@",
    "unknown-scheme": f"gopher://{USER}:{PASSWORD}@127.0.0.1:9",
    "socks": f"socks5://{USER}:{PASSWORD}@127.0.0.1:9",
    "quoted": f"http://{USER}:%20{PASSWORD}@127.0.0.1:9",
}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("given", ["argument", "environment"])
@pytest.mark.parametrize("own_session", [False, True], ids=["adapter", "session"])
@pytest.mark.parametrize("proxy", BAD_PROXIES.values(), ids=BAD_PROXIES)
def test_no_error_shows_the_user_or_password_of_a_proxy(
    monkeypatch, proxy, own_session, given, scheme
):
    with contextlib.ExitStack() as stack:
        settings = {"session": stack.enter_context(requests.Session())} if own_session else {}
        if given == "argument":
            settings["proxies"] = {scheme: proxy}
        else:
            monkeypatch.setenv(f"{scheme}_proxy", proxy)
        with pytest.raises(lib.OpenAIError) as caught:
            make_and_call(base_url=f"{scheme}://127.0.0.2:9/v1", **settings)
    assert places_that_show(caught.value, USERINFO) == []
    check_shape(caught.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("own_session", [False, True], ids=["adapter", "session"])
def test_no_error_shows_what_a_proxy_repeats_of_its_user(own_session, scheme):
    words = f"{USER}:{PASSWORD} may not"
    reply = http(
        {"error": {"message": words}}, f"407 {words}", f"X-{PASSWORD}: {words}", framing="close"
    )
    with Wire(Reply(reply, CLOSE)) as wire, contextlib.ExitStack() as stack:
        settings = {"session": stack.enter_context(requests.Session())} if own_session else {}
        proxies = {scheme: f"http://{USER}:{PASSWORD}@127.0.0.1:{wire.port}"}
        with pytest.raises(lib.OpenAIError) as caught:
            make_and_call(base_url=f"{scheme}://some.example/v1", proxies=proxies, **settings)
    assert places_that_show(caught.value, USERINFO) == []
    check_shape(caught.value)


URLS_WITH_USERS = {
    "plain": f"https://{USER}:{PASSWORD}@x.openai.azure.com",
    "user-alone": f"https://{PASSWORD}@x.openai.azure.com",
    "query": f"https://{USER}:{PASSWORD}@x.openai.azure.com?a=b",
    "fragment": f"https://{USER}:{PASSWORD}@x.openai.azure.com#a",
    "no-scheme": f"{USER}:{PASSWORD}@x.openai.azure.com",
    "scheme": f"ftp://{USER}:{PASSWORD}@x.openai.azure.com",
    "bracket": f"https://{USER}:{PASSWORD}@[bad",
    "blank": f"https://{USER}:x {PASSWORD}@x.openai.azure.com:port:x",
    "slash": f"https://{USER}:/{PASSWORD}@x.openai.azure.com",
}


@pytest.mark.parametrize("url", URLS_WITH_USERS.values(), ids=URLS_WITH_USERS)
@pytest.mark.parametrize("given", ["argument", "environment"])
@pytest.mark.parametrize("azure", [True, False], ids=["azure", "base-url"])
def test_no_error_shows_the_user_in_a_url(monkeypatch, azure, given, url):
    monkeypatch.setenv("OPENAI_API_KEY", "some-other-key")
    if given == "environment":
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT" if azure else "OPENAI_BASE_URL", url)
        url = None
    with pytest.raises(lib.ConfigError) as caught:
        lib.OpenAIClient.azure(url, **AZURE) if azure else lib.OpenAIClient(base_url=url)
    assert places_that_show(caught.value, USERINFO) == []


VALUE = "q7secret/va+lue=9"
VALUES = [VALUE, quote(VALUE, safe=""), quote_plus(VALUE), "q7secret"]
QUERY_NAMES = ["Code", "x-amz-signature", "apiKEY", "sv", "user"]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"", RESET),
        Reply(ANSWER[:-5], CLOSE),
        http({"error": {"message": f"no such value: {VALUE}"}}, f"403 {VALUE}"),
        http({"error": f"/v1/chat/completions?Code={quote_plus(VALUE)}"}, "404 Not Found"),
        http(b"", "307 Moved", f"Location: /v2?Code={quote(VALUE, safe='')}"),
        http(f"no JSON: {quote_plus(VALUE)}".encode()),
        None,
    ],
    ids=["reset", "cut", "403", "quoted-in-a-body", "redirect", "not-json", "no-connection"],
)
@pytest.mark.parametrize("name", QUERY_NAMES)
@pytest.mark.parametrize("own_session", [False, True], ids=["adapter", "session"])
def test_no_error_shows_a_value_of_the_query_however_it_is_named(
    reach, refusing, own_session, name, reply
):
    def way(monkeypatch, **settings):
        return lib.OpenAIClient(query={name: VALUE}, **settings)

    over, url = "session" if own_session else "adapter", None if reply else refusing
    client = reach(over, way, reply, url=url)
    for error in failure_of(client):
        assert places_that_show(error, VALUES) == []


@pytest.mark.parametrize("name", QUERY_NAMES)
def test_no_error_shows_a_value_of_the_query_in_the_base_url(refusing, name):
    with Wire(http({"error": f"no such value: {VALUE}"}, "403 Forbidden")) as wire:
        for base in (refusing, wire.url, "http://*.x/v1", "ftp://x/v1"):
            with pytest.raises(lib.OpenAIError) as caught:
                make_and_call(base_url=f"{base}?{name}={quote_plus(VALUE)}")
            assert places_that_show(caught.value, VALUES) == []


REPEATED = {
    "content-type": http(b"no JSON", "200 OK", f"Content-Type: text/{KEY}"),
    "content-type-of-json": http({"choices": 5}, "200 OK", f"Content-Type: application/json; x={KEY}"),
    "charset": http(b"no JSON", "200 OK", f"Content-Type: text/html; charset={KEY}"),
    "content-encoding": http(b"no JSON", "200 OK", f"Content-Encoding: {KEY}"),
    "header-name": http({"error": "no"}, "401 Unauthorized", f"X-{KEY}: 1"),
    "header-name-in-capitals": http({"error": "no"}, "401 Unauthorized", f"X-{KEY.upper()}: 1"),
    "header-name-of-a-200": http(b"no JSON", "200 OK", f"X-{KEY}: 1"),
    "header-value": http({"error": "no"}, "401 Unauthorized", f"X-Key: Bearer {KEY}"),
    "header-without-colon": http({"error": "no"}, "401 Unauthorized", KEY),
    "request-id": http({"error": "no"}, "401 Unauthorized", f"x-request-id: {KEY}"),
    "retry-after": http({"error": "no"}, "429 Too Many", f"Retry-After: {KEY}"),
    "content-length": http(b"", f"200 OK\r\nContent-Length: {KEY}", framing="none"),
    "transfer-encoding": http(b"{}", f"200 OK\r\nTransfer-Encoding: {KEY}", framing="none"),
    "size-of-a-chunk": http(b"", f"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}", framing="none"),
    "status": f"HTTP/1.1 {KEY}\r\n\r\n".encode(),
    "version": f"HTTP/{KEY} 200 OK\r\n\r\n".encode(),
    "key-of-an-object": http({"error": {"message": "no", KEY: [KEY]}}, "400 Bad"),
    "name-of-an-event": streamed(f"event: {KEY}\ndata: no JSON\n\n".encode()),
    "code": http({"error": {"message": "no", "code": KEY, "type": KEY, "param": KEY}}, "400 Bad"),
    "error-in-a-stream": streamed({"error": {"message": "no", "code": KEY, "x": [{KEY: KEY}]}}),
}  # fmt: skip


@pytest.mark.parametrize("over", ["adapter", "session"])
@pytest.mark.parametrize("reply", REPEATED.values(), ids=REPEATED)
def test_no_error_shows_the_key_wherever_the_server_repeats_it(reach, over, reply):
    client = reach(over, by_argument, Reply(reply, CLOSE))
    # Case means nothing in a header's name.
    secrets = [*KEY_PARTS, *map(str.upper, KEY_PARTS), *map(str.title, KEY_PARTS)]
    for error in failure_of(client):
        assert places_that_show(error, secrets) == []


# The attributes of an error


EVERY_ERROR = ["partial", "messages", "request_id", "headers"]
OF_API_ERRORS = ["status_code", "message", "type", "param", "code", "body", "retry_after"]
CARRIED = {
    "OpenAIError": [],
    "ConfigError": [],
    "HTTPError": ["may_retry"],
    "RequestTimeoutError": ["may_retry"],
    "StreamInterruptedError": ["may_retry"],
    "APIError": OF_API_ERRORS,
    "BadRequestError": OF_API_ERRORS,
    "AuthenticationError": OF_API_ERRORS,
    "PermissionDeniedError": OF_API_ERRORS,
    "NotFoundError": OF_API_ERRORS,
    "ConflictError": OF_API_ERRORS,
    "UnprocessableEntityError": OF_API_ERRORS,
    "InternalServerError": OF_API_ERRORS,
    "RateLimitError": OF_API_ERRORS,
    "QuotaExceededError": OF_API_ERRORS,
    "DeserializeError": ["body", "path"],
    "RefusalError": ["response"],
    "OutputTruncatedError": ["response"],
    "ToolError": ["call"],
    "WebhookError": [],
}


@pytest.mark.parametrize("name", CARRIED)
def test_what_an_error_carries_is_set_on_the_instance(name):
    error = getattr(lib, name)("text")
    assert vars(error).keys() >= {*EVERY_ERROR, *CARRIED[name]}
    assert str(error) == "text"


def test_the_headers_of_an_api_error_without_a_reply_are_an_empty_mapping():
    for error in (lib.APIError("text"), lib.RateLimitError("text", status_code=429)):
        assert isinstance(error.headers, Mapping)
        assert not error.headers
        assert error.headers.get("x-request-id") is None


def rate_limited(reach):
    reply = http({"error": {"message": "slow", "code": "c", "type": "t", "param": "p"}},
                 "429 Too Many", "Retry-After: 9", "x-request-id: req_1", "X-More: 1")  # fmt: skip
    call(reach("adapter", by_argument, reply), QUESTION)


def cut(reach):
    reply = streamed(chunk("a"), done=False, headers=("x-request-id: req_1",))[:-5]
    call_stream(reach("adapter", by_argument, Reply(reply, CLOSE)), QUESTION)


def silent(reach):
    call(reach("adapter", by_argument, Reply(b"", SILENCE)), QUESTION)


def unreachable(reach):
    call(reach("adapter", by_argument, url="http://127.0.0.1:9/v1"), QUESTION)


def broken_json(reach):
    call(reach("adapter", by_argument, http(b"{", "200 OK", "x-request-id: req_1")), QUESTION)


@dataclass
class Recipe:
    title: str


def refused_by_the_model(reach):
    client = reach("adapter", by_argument, http(completion(None, refusal="I won't.")))
    lib.parse_chat_completion(client, QUESTION, Recipe)


def cut_off(reach):
    answer = completion('{"a')
    answer["choices"][0]["finish_reason"] = "length"
    client = reach("adapter", by_argument, http(answer))
    lib.parse_chat_completion(client, QUESTION, Recipe)


def failed_tool(reach):
    def work() -> str:
        raise ZeroDivisionError

    function = {"name": "work", "arguments": "{}"}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    client = reach("adapter", by_argument, http(completion(None, tool_calls=calls)))
    lib.run_tools(client, QUESTION, [work], raise_errors=True)


RAISED = [
    (rate_limited, "RateLimitError", {"status_code": 429, "message": "slow", "code": "c", "type": "t",
                                 "param": "p", "retry_after": 9, "request_id": "req_1"}),
    (cut, "StreamInterruptedError", {"request_id": "req_1", "may_retry": False}),
    (silent, "RequestTimeoutError", {"may_retry": False, "partial": None}),
    (unreachable, "HTTPError", {"may_retry": True, "partial": None, "request_id": None}),
    (broken_json, "DeserializeError", {"body": "{", "path": "$", "request_id": "req_1"}),
    (refused_by_the_model, "RefusalError", {}),
    (cut_off, "OutputTruncatedError", {}),
    (failed_tool, "ToolError", {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fail", "name", "carried"), RAISED, ids=[case[0].__name__ for case in RAISED]
)
def test_copies_of_a_raised_error_carry_what_it_carries(reach, fail, name, carried):
    kind = getattr(lib, name)
    with pytest.raises(kind) as caught:
        fail(reach)
    error = caught.value
    assert type(error) is kind

    class Wrapped(kind):
        """An error of a framework that runs jobs elsewhere, made of ours."""

        def __init__(self, cause):
            self.__dict__.update(cause.__dict__)

    # As Ray makes them: without our constructor, from `__dict__` alone.
    copied = kind.__new__(kind)
    copied.__dict__.update(error.__dict__)
    for same in (copied, Wrapped(error), pickle.loads(pickle.dumps(error))):
        for attribute in (*EVERY_ERROR, *CARRIED[name]):
            assert attribute in vars(same)
            assert getattr(same, attribute) == getattr(error, attribute)
        for attribute, value in carried.items():
            assert getattr(same, attribute) == value
        if fail is rate_limited:
            assert (same.headers["X-More"], same.body["error"]["code"]) == ("1", "c")
        if fail is cut:
            assert same.partial.text == "a"
        if fail is failed_tool:
            assert (same.call.id, len(same.messages)) == ("call_1", 2)
        if "response" in CARRIED[name]:
            assert same.response.choices
            assert same.partial == same.response


def test_what_is_set_on_one_error_is_not_on_another():
    one, other = lib.HTTPError("one"), lib.HTTPError("other")
    one.partial, one.may_retry = "something", True
    assert (other.partial, other.may_retry) == (None, False)
    assert lib.HTTPError.__dict__.get("partial") is None


# Keys in a session, in the query of a call, and in excerpts


@pytest.mark.parametrize("place", ["header", "user", "query"])
def test_no_error_shows_a_key_that_a_session_of_the_caller_sends(place, caplog):
    secret = "sk-of-the-session"
    with requests.Session() as session, Wire(
        http({"error": {"message": f"bad {secret}", "code": secret}}, "401 No", f"X-Request-Id: {secret}")
    ) as wire:  # fmt: skip
        if place == "header":
            session.headers["Authorization"] = f"Bearer {secret}"
        elif place == "user":
            session.auth = ("user", secret)
        else:
            session.params = {"key": secret}
        caplog.set_level("DEBUG")
        client = lib.OpenAIClient("", base_url=wire.url, session=session)
        with pytest.raises(lib.AuthenticationError) as caught:
            lib.create_chat_completion(client, QUESTION)
    assert places_that_show(caught.value, [secret]) == []
    logged = [one.getMessage() for one in caplog.records if one.name.startswith(lib.name)]
    assert logged
    assert secret not in "".join(logged)  # urllib3 logs the URL by itself


@pytest.mark.parametrize("path", ["models?key={}", "models?api_key={}&limit=20"])
def test_no_error_shows_a_key_in_the_query_of_one_call(path):
    with Wire(http({"error": {"message": f"no {VALUE} nor limit=20"}}, "400 Bad")) as wire:
        client = lib.OpenAIClient("", base_url=wire.url)
        for get in (lambda: client.get(path.format(quote(VALUE))),
                    lambda: client.with_options(path=path.format(quote(VALUE))).get("x")):  # fmt: skip
            with pytest.raises(lib.BadRequestError) as caught:
                get()
            assert VALUE not in f"{caught.value} {caught.value.body}"
            assert "limit=20" in str(caught.value)


@pytest.mark.parametrize("start", range(990, 1001, 2))
def test_no_error_shows_the_beginning_of_a_key_that_its_excerpt_cuts(start):
    words = ("a " * 600)[: start - 4] + KEY
    for body in (streamed(chunk("x"), f"data: {words} more\n\n".encode()),
                 http({"choices": [{"message": {"content": words}, "finish_reason": "abort"}]})):  # fmt: skip
        with Wire(body) as wire:
            client = lib.OpenAIClient(KEY, base_url=wire.url)
            ask = lib.create_chat_completion
            if b"event-stream" in body:
                ask = lambda *given: lib.create_chat_completion_stream(*given).response()  # noqa: E731
            with pytest.raises(lib.OpenAIError) as caught:
                ask(client, QUESTION)
        assert KEY[:6] not in str(caught.value)


def test_no_error_at_the_end_of_a_stream_shows_a_key_in_its_chunks():
    with Wire(streamed(chunk(f"a {KEY}"), done=False)) as wire:
        stream = lib.create_chat_completion_stream(
            lib.OpenAIClient(KEY, base_url=wire.url), QUESTION
        )
        with pytest.raises(lib.StreamInterruptedError) as caught:
            stream.response()
    assert places_that_show(caught.value, [KEY]) == []


# Extras


@dataclass
class Place:
    city: str
    days: int

    def __post_init__(self):
        if self.days > 30:
            raise ValueError(f"{self.city} is too far")


def with_key(text=None, *, finish="stop", **message):
    answer = completion(text, **message)
    answer["choices"][0]["finish_reason"] = finish
    return http(answer, "200 OK", f"X-Request-Id: {KEY}", f"X-Seen: {KEY}")


def call_with_key(arguments, **more):
    function = {"name": "work", "arguments": arguments}
    return with_key(
        None, tool_calls=[{"id": "1", "type": "function", "function": function}], **more
    )


def parse_stream(*given):
    return lib.stream_parsed(*given).result()


def run_stream(*given, **settings):
    return lib.stream_tools(*given, **settings).result()


def work(city: str) -> str:
    raise ZeroDivisionError(city)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (with_key(f"I know {KEY}."), "DeserializeError"),
        (with_key("x " * 496 + KEY), "DeserializeError"),
        (with_key(f'{{"{KEY}": 1}}'), "DeserializeError"),
        (with_key(f'{{"city": "{KEY}", "days": "{KEY}"}}'), "DeserializeError"),
        (with_key(f'{{"city": "{KEY}", "days": 31}}'), "DeserializeError"),
        (with_key(None, refusal=f"No, {KEY}."), "RefusalError"),
        (with_key(f'{{"city": "{KEY}', finish="length"), "OutputTruncatedError"),
        (call_with_key(f'{{"city": "{KEY}"}}'), "DeserializeError"),
    ],
    ids=["words", "where-an-excerpt-ends", "name", "type", "class", "refusal", "cut", "call"],
)
@pytest.mark.parametrize("ask_for", [lib.parse_chat_completion, parse_stream])
def test_no_error_of_a_structured_answer_shows_a_key_that_the_server_repeats(reply, kind, ask_for):
    with Wire(reply) as wire:
        client = lib.OpenAIClient(KEY, base_url=wire.url, max_retries=0)
        with pytest.raises(getattr(lib, kind)) as caught:
            ask_for(client, QUESTION, Place)
    assert caught.value.partial.choices
    assert caught.value.headers["x-seen"] == caught.value.request_id == "***"
    assert places_that_show(caught.value, [KEY, KEY[:8]]) == []


def test_an_exception_of_post_init_stays_the_cause_if_it_contains_no_key():
    with Wire(with_key('{"city": "Rome", "days": 31}')) as wire:
        client = lib.OpenAIClient(KEY, base_url=wire.url, max_retries=0)
        with pytest.raises(lib.DeserializeError, match="Rome is too far") as caught:
            lib.parse_chat_completion(client, QUESTION, Place)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("replies", "kind", "settings"),
    [
        ([call_with_key(f'{{"city": "{KEY}"}}')], "ToolError", {"raise_errors": True}),
        ([call_with_key(f'{{"city": "{KEY}"}}')], "ToolError", {"max_rounds": 1}),
        ([call_with_key(f'{{"city": "{KEY}', finish="length")], "OutputTruncatedError", {}),
        ([call_with_key(f'{{"city": "{KEY}"}}'), http({}, "400 Bad")], "BadRequestError", {}),
    ],
    ids=["raised", "max-rounds", "cut", "400"],
)
@pytest.mark.parametrize("jobs", [1, 2])
def test_no_error_of_a_tool_run_shows_a_key_that_the_server_repeats(replies, kind, settings, jobs):
    for start in (lib.run_tools, run_stream):
        with Wire(*replies) as wire:
            client = lib.OpenAIClient(KEY, base_url=wire.url, max_retries=0)
            with pytest.raises(getattr(lib, kind)) as caught:
                start(client, QUESTION, [work], jobs=jobs, **settings)
        assert caught.value.messages
        assert places_that_show(caught.value, [KEY]) == []
        check_shape(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"headers": {f"Authorization: {KEY}": "x"}},
        {"base_url": KEY},
        {"base_url": f"htp://h/v1#key={KEY}"},
        {"base_url": f"http://h:{KEY}/v1"},
    ],
    ids=["in-a-name", "as-url", "in-a-fragment", "as-a-port"],
)
def test_no_error_shows_a_key_in_the_place_of_another_setting(settings):
    with pytest.raises(lib.ConfigError) as caught:
        lib.OpenAIClient(**{"api_key": "", **settings})
    assert places_that_show(caught.value, [KEY]) == []


def test_the_error_for_a_mistyped_response_has_its_path_text_and_request():
    @dataclass
    class Model:
        data: list[lib.URLCitation]

    reply = http(
        {"data": [f"x {KEY}"]}, "200 OK", "x-request-id: req_7", "Content-Type: application/json"
    )
    with Wire(reply) as wire:
        with pytest.raises(lib.DeserializeError) as caught:
            lib.OpenAIClient(KEY, base_url=wire.url).get("models", into=Model)
        assert str(caught.value) == (
            '$.data[0]: expected object, got string: {"data": ["x ***"]} '
            f"[GET {wire.url}/models] (request req_7)"
        )
    assert (caught.value.path, caught.value.request_id) == ("$.data[0]", "req_7")
    assert places_that_show(caught.value, [KEY]) == []
    zipped = http(b"PK\3\4", "200 OK", "Content-Type: application/zip")
    with Wire(zipped) as wire, pytest.raises(lib.DeserializeError, match="not JSON"):
        lib.OpenAIClient(KEY, base_url=wire.url).get("files/f/content", into=Model)
