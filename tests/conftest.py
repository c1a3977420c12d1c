"""The fixtures of all tests, and an environment without the settings of who runs them."""

import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from . import lib, waits_of
from .wire import Wire

# The same examples every time, however busy the machine; the gate asks for "thorough".
for profile, examples in {"thorough": 100, "quick": 20}.items():
    settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("quick")

# A shell starts background jobs with SIGINT ignored, and the processes of tests inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = str(Path(__file__).parent.parent)
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


IN_THE_GATE = (pytest.mark.gate, pytest.mark.versions)


def in_the_gate(*values):
    """Parameters that only the gate tries, with each Python."""
    return [pytest.param(value, marks=IN_THE_GATE) for value in values]


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory):
    return str(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, empty_home):
    for name in (
        "OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID",
        "OPENAI_PROJECT_ID", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy",
        "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC",
        "CHATGPTLIB_MODEL", "NO_COLOR",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", empty_home)
    monkeypatch.setenv("PYTHONPATH", ROOT, prepend=os.pathsep)  # for processes in any folder


@pytest.fixture
def ask():
    """A client of a Wire with these replies; `client.waits` lists the waits of its retries."""
    opened = []

    def client_for(*replies, **settings):
        wire = Wire(*replies)
        opened.append(wire)
        settings.setdefault("timeout", 10)  # not the default of ten minutes
        client = lib.OpenAIClient("sk-secret-key", base_url=wire.url, **settings)
        opened.append(client)
        client.waits = waits_of(client)
        client.wire = wire
        return client

    yield client_for
    for thing in reversed(opened):
        thing.__exit__(None, None, None)


@pytest.fixture
def question():
    return dict(QUESTION)


@pytest.fixture
def offline():
    """A client of an OfflineServer with these replies; `client.server` is the server."""
    opened = []

    def client_for(*replies):
        server = lib.OfflineServer(replies).start()
        client = lib.OpenAIClient(base_url=server.url, max_retries=0)
        client.server = server
        opened.extend([server, client])
        return client

    yield client_for
    for thing in reversed(opened):
        thing.close()


def pytest_collection_finish():
    """Keep the garbage collector from walking through pytest's thousands of items, often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
