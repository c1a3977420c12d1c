"""TLS: certificates are verified, and streams behave as they do without TLS."""

import ssl
import threading
from pathlib import Path

import pytest
import requests

from . import lib, waits_of
from .wire import CLOSE, KEEP, RESET, SILENCE, Reply, Wire, chunk, completion, http, streamed

CERTIFICATE = str(Path(__file__).parent / "data" / "localhost.pem")


@pytest.fixture
def secure():
    """A client of a TLS server that gives these replies; its certificate is self-signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    opened = []

    def client_for(*replies, **settings):
        wire = Wire(*replies, tls=context)
        client = lib.OpenAIClient("sk-secret-key", base_url=wire.url, timeout=10, **settings)
        opened.extend([wire, client])
        waits_of(client)
        client.wire = wire
        return client

    yield client_for
    for thing in reversed(opened):
        thing.__exit__(None, None, None)


def test_an_untrusted_certificate_is_an_error_and_not_retried(secure, question):
    client = secure(http(completion()))
    with pytest.raises(lib.HTTPError, match="certificate was not accepted") as caught:
        lib.create_chat_completion(client, question)
    assert "REQUESTS_CA_BUNDLE" in str(caught.value)
    assert "verify=" in str(caught.value)
    assert not caught.value.may_retry
    assert (client.wire.connections, client.wire.requests) == (1, [])  # no key was sent


def test_a_certificate_for_another_host_is_an_error(secure, question):
    client = secure(http(completion()), verify=CERTIFICATE)
    elsewhere = client.with_options(base_url=client.base_url.replace("127.0.0.1", "localhost"))
    with pytest.raises(lib.HTTPError, match=r"certificate was not accepted.*localhost"):
        lib.create_chat_completion(elsewhere, question)
    assert client.wire.requests == []


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_certificate_is_accepted_if_its_authority_is_given(secure, question, monkeypatch, how):
    settings = {"verify": CERTIFICATE} if how == "argument" else {}
    if how == "environment":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", CERTIFICATE)
    client = secure(
        http(completion("Hi.")), streamed(chunk("Hi.", finish_reason="stop")), **settings
    )
    assert lib.create_chat_completion(client, question).text == "Hi."
    assert lib.create_chat_completion_stream(client, question).response().text == "Hi."
    assert client.wire.connections == 1


def test_verify_false_skips_verification_and_warns(secure, question):
    client = secure(http(completion("Hi.")), verify=False)
    with pytest.warns(match="Unverified HTTPS request"):
        assert lib.create_chat_completion(client, question).text == "Hi."


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_chunk_is_given_when_its_bytes_arrive(secure, question, framing):
    whole = streamed(chunk("One,"), chunk(" two.", finish_reason="stop"), framing=framing)
    at = whole.index(b"data: ", whole.index(b"One,"))
    at = whole.rindex(b"\n\n", 0, at) + 2  # the end of the first event
    hold = threading.Event()
    end = KEEP if framing == "chunked" else CLOSE
    client = secure(Reply([whole[:at], whole[at:]], end, hold), verify=CERTIFICATE)
    texts = lib.create_chat_completion_stream(client, question).text_deltas()
    assert next(texts) == "One,"
    hold.set()
    assert next(texts) == " two."


def test_close_wakes_a_thread_that_waits(secure, question):
    begun = streamed(chunk("One,"), done=False)[:-5]
    client = secure(Reply(begun, SILENCE), verify=CERTIFICATE)
    stream = lib.create_chat_completion_stream(client, question)
    texts = stream.text_deltas()
    assert next(texts) == "One,"
    closer = threading.Timer(0.05, stream.close)
    closer.start()
    with pytest.raises(lib.StreamInterruptedError) as caught:
        next(texts)
    closer.join()
    assert caught.value.partial.text == "One,"
    assert client.wire.closed_by_client.wait(10)


@pytest.mark.gate
@pytest.mark.versions
def test_a_deadline_ends_a_stream_that_stalls(secure, question):
    begun = streamed(chunk("One,"), done=False)[:-5]
    client = secure(Reply(begun, SILENCE), verify=CERTIFICATE, deadline=0.4)
    with pytest.raises(lib.RequestTimeoutError, match="deadline") as caught:
        lib.create_chat_completion_stream(client, question).response()
    assert caught.value.partial.text == "One,"


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_a_stream_that_breaks_off_is_interrupted(secure, question, end):
    begun = streamed(chunk("One,"), done=False)[:-5]
    client = secure(Reply(begun, end), verify=CERTIFICATE)
    with pytest.raises(lib.StreamInterruptedError) as caught:
        lib.create_chat_completion_stream(client, question).response()
    assert caught.value.partial.text == "One,"
    assert len(client.wire.requests) == 1


@pytest.mark.parametrize("own_session", [False, True], ids=["adapter", "session"])
@pytest.mark.parametrize("cert", [CERTIFICATE, (CERTIFICATE, CERTIFICATE)], ids=["file", "pair"])
def test_a_client_certificate_is_sent_to_a_server_that_requires_it(question, cert, own_session):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    context.load_verify_locations(CERTIFICATE)
    context.verify_mode = ssl.CERT_REQUIRED
    # One session each: before requests 2.32, a session reuses connections of another certificate.
    sessions = [requests.Session() if own_session else None for _ in range(2)]
    settings = {"verify": CERTIFICATE, "max_retries": 0, "timeout": 10, "session": sessions[0]}
    with (
        Wire(http(completion("Hi.")), tls=context) as wire,
        lib.OpenAIClient(base_url=wire.url, cert=cert, **settings) as client,
    ):
        assert lib.create_chat_completion(client, question).text == "Hi."
        changed = {"cert": None, "session": sessions[1]}
        with client.with_options(**changed) as without, pytest.raises(lib.HTTPError):
            lib.create_chat_completion(without, question)
    for session in filter(None, sessions):
        session.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"verify": 1},
        {"verify": Path("ca.pem")},
        {"cert": True},
        {"cert": ("a", None)},
    ],
)
def test_verify_and_cert_of_a_wrong_type_are_rejected_at_construction(settings):
    with pytest.raises(lib.ConfigError, match=r"(verify|cert) must be"):
        lib.OpenAIClient(base_url="https://localhost/v1", **settings)
