"""Settings: from arguments, then the environment; checked at once; the key never shown."""

import copy
import inspect
import math
import pickle
import re
import sys
from email.utils import formatdate

import pytest

from . import lib
from .wire import completion, http

KEY = "sk-secret-key"


def headers_sent(client, question):
    lib.create_chat_completion(client, question)
    return client.wire.requests[-1].headers


# Where settings come from


def test_a_missing_key_says_what_to_set():
    with pytest.raises(lib.ConfigError, match="OPENAI_API_KEY"):
        lib.OpenAIClient()


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_a_blank_variable_counts_as_unset(monkeypatch, blank):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID"):
        monkeypatch.setenv(name, blank)
    with pytest.raises(lib.ConfigError, match="OPENAI_API_KEY"):
        lib.OpenAIClient()
    assert lib.OpenAIClient(KEY).base_url == "https://api.openai.com/v1"


def test_the_environment_fills_in_what_is_not_given(monkeypatch, ask, question):
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    client = ask(http(completion()))
    monkeypatch.setenv("OPENAI_BASE_URL", client.base_url)
    with lib.OpenAIClient() as bare:
        lib.create_chat_completion(bare, question)
    sent = client.wire.requests[-1].headers
    assert sent["authorization"] == "Bearer sk-admin"
    assert sent["openai-organization"] == "org-1"
    assert sent["openai-project"] == "proj-1"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-first")
    with lib.OpenAIClient(organization="org-2") as bare:
        lib.create_chat_completion(bare, question)
    sent = client.wire.requests[-1].headers
    assert (sent["authorization"], sent["openai-organization"]) == ("Bearer sk-first", "org-2")


def test_a_default_request_has_exactly_the_expected_headers_and_body(ask, question):
    client = ask(http(completion()))
    assert headers_sent(client, question) == {
        "host": f"127.0.0.1:{client.wire.port}",
        "user-agent": f"chatgptlib/{lib.__version__}",
        "accept": "application/json",
        "accept-encoding": "gzip, deflate",
        "content-type": "application/json",
        "content-length": str(len(lib.encode(question))),
        "authorization": f"Bearer {KEY}",
    }
    assert client.wire.requests[0].line == "POST /v1/chat/completions HTTP/1.1"
    assert client.wire.requests[0].body == lib.encode(question)


def test_headers_and_query_of_the_user_are_sent_and_win(ask, question):
    client = ask(
        http(completion()),
        headers={"user-agent": "mine/1", "X-Team": " a "},
        query={"api-version": "2024-10-21", "q": "a b&c"},
    )
    sent = headers_sent(client, question)
    assert (sent["user-agent"], sent["x-team"]) == ("mine/1", "a")
    assert client.wire.requests[0].line.split()[1] == (
        "/v1/chat/completions?api-version=2024-10-21&q=a+b%26c"
    )


@pytest.mark.parametrize("name", ["api-key", "Authorization"])
def test_a_key_in_the_headers_replaces_the_api_key(ask, question, name):
    client = ask(http(completion()), headers={name: "Basic abc"})
    sent = headers_sent(client, question)
    assert sent[name.lower()] == "Basic abc"
    assert ("authorization" in sent) == (name == "Authorization")
    lib.OpenAIClient(headers={name: "Basic abc"})  # needs no other, at OpenAI either


def test_without_a_key_no_authorization_header_is_sent(ask, question, monkeypatch):
    client = ask(http(completion()))
    lib.create_chat_completion(client.with_options(api_key="  "), question)
    assert "authorization" not in client.wire.requests[0].headers


def test_a_function_gives_a_key_for_each_call(ask, question):
    keys = iter(["sk-first-key", " sk-second-key\n"])
    client = ask(http(completion()))
    other = client.with_options(api_key=lambda: next(keys))
    for _ in range(2):
        lib.create_chat_completion(other, question)
    sent = [request.headers["authorization"] for request in client.wire.requests]
    assert sent == ["Bearer sk-first-key", "Bearer sk-second-key"]


@pytest.mark.parametrize("key", [None, "", "sk-\nx", 5])
def test_a_function_that_gives_no_key_is_a_config_error(ask, question, key):
    client = ask(http(completion())).with_options(api_key=lambda: key)
    with pytest.raises(lib.ConfigError, match="api_key"):
        lib.create_chat_completion(client, question)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("{}", "POST /v1/chat/completions"),
        ("{}/", "POST /v1/chat/completions"),
        (" {}//\n", "POST /v1/chat/completions"),
        ("{}/chat/completions", "POST /v1/chat/completions"),
        ("{}/chat/completions/?a=1#top", "POST /v1/chat/completions?a=1"),
        ("{}/openai/deployments/a%20b", "POST /v1/openai/deployments/a%20b/chat/completions"),
    ],
)
def test_a_base_url_is_normalized(ask, question, url, line):
    client = ask(http(completion()))
    with lib.OpenAIClient(base_url=url.format(client.base_url)) as other:
        lib.create_chat_completion(other, question)
    assert client.wire.requests[0].line == f"{line} HTTP/1.1"


# Invalid settings are rejected


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "api.openai.com/v1", "ftp://x/v1", "http://", "https:///v1", "http://h:x/v1",
     "http://a b/v1", "http://[::1/v1", "http://h/\r\nX: y", "http://h\\@evil/v1", "file:///etc", "http://h:0/v1"],
)  # fmt: skip
def test_an_invalid_base_url_is_rejected(url):
    with pytest.raises(lib.ConfigError, match="base_url"):
        lib.OpenAIClient(KEY, base_url=url)


def test_a_password_in_the_base_url_is_rejected_and_not_shown():
    with pytest.raises(lib.ConfigError) as caught:
        lib.OpenAIClient(KEY, base_url="https://user:hunter22@host/v1")
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("sk-se\ncret", r"position 5 is U\+000A"),
        ("sk-se\r\nX: y", r"position 5 is U\+000D"),
        ("sk–secret", r"position 2 is U\+2013 \(EN DASH\)"),
        ("sk-ѕecret", r"position 3 is U\+0455 \(CYRILLIC SMALL LETTER DZE\)"),
        ("“sk-secret”", r"position 0 is U\+201C"),
        ("sk sec", r"position 2 is U\+0020 \(SPACE\)"),
        (5, "must be text, not int"),
        (b"sk-secret", "must be text, not bytes"),
    ],
)
def test_an_invalid_key_is_rejected_and_not_shown(key, words):
    with pytest.raises(lib.ConfigError, match=words) as caught:
        lib.OpenAIClient(key)
    assert "ecret" not in str(caught.value)


def test_white_space_around_a_key_is_dropped(ask, question):
    client = ask(http(completion()))
    with lib.OpenAIClient(f"\t {KEY}\r\n", base_url=client.base_url) as other:
        lib.create_chat_completion(other, question)
    assert client.wire.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"X-A": "secret\r\nX-B: c"}, r"header X-A: the character at position 6 is U\+000D"),
        ({"X-A": "secret\nc"}, "header X-A"),
        ({"X-A": "secret\x00"}, "header X-A"),
        ({"X-A": "secret–"}, r"U\+2013"),
        ({"X-A": 5}, "header X-A must be text, not int"),
        ({"X-A": b"secret"}, "must be text, not bytes"),
        ({"X A": "secret"}, "not a header name: 'X A'"),
        ({"X-A\r\nX-B": "secret"}, "not a header name"),
        ({"": "secret"}, "not a header name"),
        ({"X-A:": "secret"}, "not a header name"),
        ({5: "secret"}, "not a header name"),
    ],
)
def test_a_header_that_cannot_be_sent_is_rejected_and_not_shown(headers, words):
    with pytest.raises(lib.ConfigError, match=words) as caught:
        lib.OpenAIClient(KEY, headers=headers)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["organization", "project"])
def test_line_breaks_in_organization_and_project_are_rejected(name):
    with pytest.raises(lib.ConfigError, match=name):
        lib.OpenAIClient(KEY, **{name: "a\r\nb"})


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout": 0}, {"timeout": -1}, {"timeout": "5"}, {"timeout": (1,)}, {"timeout": True},
        {"timeout": (1, 2, 3)}, {"timeout": (1, 0)}, {"timeout": float("nan")}, {"deadline": 0},
        {"deadline": "soon"}, {"max_retries": -1}, {"max_retries": 1.5}, {"max_retries": "2"},
        {"max_retries": None},
    ],
    ids=str,
)  # fmt: skip
def test_invalid_timeouts_deadlines_and_retries_are_rejected(settings):
    with pytest.raises(lib.ConfigError, match=next(iter(settings))):
        lib.OpenAIClient(KEY, **settings)


@pytest.mark.parametrize(
    ("timeout", "pair"),
    [
        (None, (10, 600)),
        (5, (5, 5)),
        ((1, 2.5), (1, 2.5)),
        ((None, 3), (10, 3)),
        (float("inf"), (None, None)),
        (4_294_968, (None, None)),  # in milliseconds, more than poll() takes
    ],
)
def test_a_timeout_is_a_number_or_a_pair(timeout, pair):
    assert lib.OpenAIClient(KEY, timeout=timeout).timeout == pair


# A client as a value


def test_dir_of_a_client_lists_exactly_the_public_names():
    assert {name for name in dir(lib.OpenAIClient(KEY)) if not name.startswith("_")} == {
        "azure", "with_options", "get", "post", "delete", "stream", "close",
        "base_url", "timeout", "deadline", "max_retries", "max_response_bytes",
    }  # fmt: skip


def test_help_says_what_each_setting_means():
    text = inspect.getdoc(lib.OpenAIClient)
    names = list(inspect.signature(lib.OpenAIClient).parameters)
    assert len(names) > 10
    assert [name for name in names if not re.search(rf"(?m)^[a-z_, ]*\b{name}\b.*:", text)] == []


def test_no_repr_shows_the_key():
    client = lib.OpenAIClient(KEY, headers={"X-Api-Token": KEY})
    assert repr(client) == "OpenAIClient(base_url='https://api.openai.com/v1')"


def test_copies_and_pickles_of_a_client_keep_its_settings_but_not_its_connection(ask, question):
    client_wire = ask(http(completion())).wire
    client = lib.OpenAIClient(
        KEY, base_url=client_wire.url, max_retries=7, headers={"X-A": "b"}, deadline=50.0
    )
    lib.create_chat_completion(client, question)
    for make in (copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))):
        with make(client) as other:
            assert (other.max_retries, other.deadline) == (7, 50.0)
            lib.create_chat_completion(other, question)
    assert [r.connection for r in client_wire.requests] == [1, 2, 3, 4]
    client.close()


def test_with_options_changes_only_the_given_settings_and_shares_connections(ask, question):
    client = ask(http(completion()))
    other = client.with_options(max_retries=0, headers={"X-A": "b"})
    assert (other.max_retries, client.max_retries) == (0, 2)
    for one in (client, other, client.with_options(path="/other/path")):
        lib.create_chat_completion(one, question)
    assert client.wire.connections == 1
    assert [request.headers.get("x-a") for request in client.wire.requests] == [None, "b", None]
    assert client.wire.requests[2].line == "POST /v1/other/path HTTP/1.1"


def test_with_options_adds_headers_and_query_and_the_later_win(ask, question):
    client = ask(http(completion()), headers={"X-A": "1", "X-B": "2"}, query={"a": "1", "b": "2"})
    other = client.with_options(headers={"x-a": "3"}, query={"b": "4", "c": "5"})
    other = other.with_options(headers={"X-C": "6"}, max_retries=0)
    for one in (other, other.with_options(headers=None, query={}), client):
        lib.create_chat_completion(one, question)
    first, second, own = client.wire.requests
    assert first.line == "POST /v1/chat/completions?a=1&b=4&c=5 HTTP/1.1"
    assert [first.headers.get(f"x-{name}") for name in "abc"] == ["3", "2", "6"]
    assert (second.line, second.headers) == (first.line, first.headers)
    assert own.line == "POST /v1/chat/completions?a=1&b=2 HTTP/1.1"
    assert [own.headers.get(f"x-{name}") for name in "abc"] == ["1", "2", None]


@pytest.mark.parametrize(
    "changes", [{"headers": "abc"}, {"headers": {5: "a"}}, {"query": "a=b"}, {"query": {"a": 5}}]
)
def test_with_options_rejects_headers_and_query_of_a_wrong_type(changes):
    with pytest.raises(lib.ConfigError):
        lib.OpenAIClient(KEY, headers={"X-A": "b"}).with_options(**changes)


@pytest.mark.parametrize(
    ("headers", "key", "sent"),
    [
        ({"api-key": "old-key"}, "new-key", {"api-key": "new-key"}),
        ({"API-Key": "old-key"}, lambda: "new-key", {"authorization": "Bearer new-key"}),
        ({"authorization": "Basic old"}, "new-key", {"authorization": "Bearer new-key"}),
        ({"api-key": "old-key"}, " ", {}),
    ],
)
def test_a_new_api_key_replaces_a_key_in_the_headers(ask, question, headers, key, sent):
    client = ask(http(completion()), headers=headers)
    lib.create_chat_completion(client.with_options(api_key=key), question)
    request = client.wire.requests[0].headers
    assert {n: request[n] for n in ("api-key", "authorization") if n in request} == sent


def test_an_empty_organization_or_project_overrides_the_environment(ask, question, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    client = ask(http(completion()), organization="", project="")
    for one in (client, client.with_options(max_retries=0), copy.copy(client)):
        sent = (lib.create_chat_completion(one, question), client.wire.requests[-1].headers)[1]
        assert not {"openai-organization", "openai-project"} & sent.keys()
        one.close()
    lib.create_chat_completion(client.with_options(organization=None), question)
    assert client.wire.requests[-1].headers["openai-organization"] == "org-1"


def test_the_environments_key_is_not_pickled_with_a_client_that_has_another(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    client = lib.OpenAIClient(headers={"api-key": "another-key"})
    assert b"sk-environment" not in pickle.dumps(client)


def test_a_header_of_the_user_wins_in_whatever_case(ask, question):
    client = ask(
        http(completion()),
        headers={"content-type": "a/b", "ACCEPT": "c/d", "accept-encoding": "identity"},
    )
    sent = headers_sent(client, question)
    assert [sent[name] for name in ("content-type", "accept", "accept-encoding")] == [
        "a/b", "c/d", "identity"
    ]  # fmt: skip


def test_a_path_of_with_options_may_have_a_query(ask):
    client = ask(http({"object": "list", "data": []}), query={"tenant": "t"})
    client.with_options(path="other?a=1").get("chat/completions", {"limit": 2})
    assert client.wire.requests[0].line == "GET /v1/other?a=1&limit=2&tenant=t HTTP/1.1"


def test_with_options_rejects_unknown_settings():
    with pytest.raises(TypeError, match="max_retry"):
        lib.OpenAIClient(KEY).with_options(max_retry=1)


def test_a_client_can_be_used_after_it_was_closed(ask, question):
    client = ask(http(completion()))
    lib.create_chat_completion(client, question)
    client.close()
    client.close()
    assert lib.create_chat_completion(client, question).text == "Hi!"
    assert client.wire.connections == 2


# How long to wait

NOW = 1_700_000_000.0


def status_error(status, headers=(), code=None):
    headers = dict(headers)
    return lib.api_error(
        {"error": {"message": "no", "code": code}},
        status_code=status,
        headers=headers,
        retry_after=lib.retry_after(headers, NOW),
    )


def lost(may_retry):
    error = lib.HTTPError("lost")
    error.may_retry = may_retry
    return error


@pytest.mark.parametrize(
    ("error", "attempt", "wait"),
    [
        pytest.param(status_error(429), 0, 0.5, id="first"),
        pytest.param(status_error(429), 1, 1.0, id="doubles"),
        pytest.param(status_error(429), 4, 8.0, id="up-to-8"),
        pytest.param(status_error(429), 10_000, 8.0, id="never-overflows"),
        *[pytest.param(status_error(status), 0, 0.5, id=str(status))
          for status in (408, 409, 429, 500, 502, 503, 504, 529)],
        *[pytest.param(status_error(status), 0, None, id=str(status))
          for status in (200, 301, 400, 401, 402, 403, 404, 413, 422)],
        pytest.param(status_error(429, {"retry-after": "3"}), 0, 3.0, id="seconds"),
        pytest.param(status_error(429, {"retry-after": "0.25"}), 2, 0.25, id="part-of-a-second"),
        pytest.param(status_error(429, {"retry-after": "0"}), 2, 0.0, id="at-once"),
        pytest.param(status_error(503, {"retry-after": "60"}), 0, 60.0, id="a-minute"),
        pytest.param(status_error(503, {"retry-after": "61"}), 0, None, id="longer-than-a-minute"),
        pytest.param(status_error(503, {"retry-after": "inf"}), 0, None, id="for-ever"),
        pytest.param(status_error(503, {"retry-after": "-5"}), 0, 0.5, id="nonsense-negative"),
        pytest.param(status_error(503, {"retry-after": "nan"}), 0, 0.5, id="nonsense-nan"),
        pytest.param(status_error(503, {"retry-after": "later"}), 0, 0.5, id="nonsense-text"),
        pytest.param(status_error(503, {"retry-after": ""}), 0, 0.5, id="nonsense-empty"),
        pytest.param(status_error(503, {"retry-after": formatdate(NOW + 7, usegmt=True)}), 0, 7.0, id="date"),
        pytest.param(status_error(503, {"retry-after": formatdate(NOW - 7, usegmt=True)}), 0, 0.0, id="past-date"),
        pytest.param(status_error(503, {"retry-after": formatdate(NOW + 90, usegmt=True)}), 0, None, id="far-date"),
        pytest.param(status_error(503, {"retry-after": "Mon, 99 Xxx 2026 00:00:00 GMT"}), 0, 0.5, id="no-date"),
        pytest.param(status_error(429, {"retry-after-ms": "120", "retry-after": "9"}), 0, 0.12, id="milliseconds"),
        pytest.param(status_error(429, {"retry-after-ms": "x", "retry-after": "9"}), 0, 9.0, id="broken-milliseconds"),
        pytest.param(status_error(400, {"x-should-retry": "true"}), 0, 0.5, id="shall-retry"),
        pytest.param(status_error(503, {"x-should-retry": "false"}), 0, None, id="shall-not-retry"),
        pytest.param(status_error(429, code="insufficient_quota"), 0, None, id="quota-exhausted"),
        pytest.param(status_error(429, {"x-should-retry": "true"}, "insufficient_quota"), 0, None,
                     id="quota-exhausted-whatever-the-header"),
        pytest.param(lost(True), 1, 1.0, id="no-connection"),
        pytest.param(lost(False), 0, None, id="outcome-unknown"),
        pytest.param(lib.RequestTimeoutError("silence"), 0, None, id="timeout"),
        pytest.param(lib.StreamInterruptedError("cut"), 0, None, id="cut-stream"),
        pytest.param(lib.DeserializeError("odd"), 0, None, id="not-a-completion"),
    ],
)  # fmt: skip
def test_the_wait_before_a_retry(error, attempt, wait):
    assert lib.retry_delay(error, attempt, 0.0) == (pytest.approx(wait) if wait else wait)


def test_jitter_shortens_our_own_wait_but_not_the_servers():
    assert lib.retry_delay(status_error(503), 0, 1.0) == 0.375
    assert lib.retry_delay(status_error(503, {"retry-after": "4"}), 0, 1.0) == 4.0


def test_a_rate_limit_error_has_the_retry_after_of_the_server():
    assert status_error(429, {"retry-after": "120"}).retry_after == 120.0
    assert status_error(429).retry_after is None


@pytest.mark.parametrize(
    "settings",
    [{"headers": "abc"}, {"headers": [("a", "b")]}, {"query": "x=1"}, {"query": {"key": 5}},
     {"proxies": "http://x"}, {"base_url": 5}, {"organization": 5}],
    ids=str,
)  # fmt: skip
def test_settings_of_a_wrong_type_are_rejected(settings):
    with pytest.raises(lib.ConfigError, match=next(iter(settings))):
        lib.OpenAIClient(KEY, **settings)


@pytest.mark.parametrize("query", [{"key": "\ud800"}, {"a": "\ud800"}], ids=ascii)
def test_a_query_that_cannot_be_encoded_is_rejected_at_construction(query):
    with pytest.raises(lib.ConfigError, match="query"):
        lib.OpenAIClient("sk-key", query=query)


def test_a_blank_value_in_the_query_of_base_url_is_kept(ask):
    client = ask(http({}))
    client.with_options(base_url=f"{client.base_url}?flag=&x=1").get("models")
    assert client.wire.requests[0].line == "GET /v1/models?flag=&x=1 HTTP/1.1"


def test_copies_of_a_client_without_a_key_ignore_a_key_set_in_the_environment_later(
    ask, question, monkeypatch
):
    wire = ask(http(completion())).wire
    client = lib.OpenAIClient(base_url=wire.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    for other in (client.with_options(timeout=3), pickle.loads(pickle.dumps(client))):
        with other:
            lib.create_chat_completion(other, question)
        assert "authorization" not in wire.requests[-1].headers
    with lib.OpenAIClient(base_url=wire.url) as other:
        lib.create_chat_completion(other, question)
    assert wire.requests[-1].headers["authorization"] == "Bearer sk-of-somebody-else"


def test_a_key_from_a_function_is_redacted_like_one_given_as_text(ask):
    reply = http(
        {"error": {"message": "unknown URL /v1/none/such, sk-long-secret"}}, "404 Not Found"
    )
    for key, shown in (
        ("none", "/v1/none/such, sk-long-secret"),
        ("sk-long-secret", "/v1/none/such, ***"),
    ):
        for given in (key, lambda key=key: key):
            with pytest.raises(lib.NotFoundError) as caught:
                ask(reply).with_options(api_key=given).get("none/such")
            assert shown in str(caught.value)


@pytest.mark.parametrize(
    "seconds", [math.inf, sys.maxsize, 1e300, 10**400], ids=["inf", "maxsize", "float", "int"]
)
def test_a_timeout_or_deadline_too_long_to_wait_is_no_limit(ask, seconds):
    client = ask(http({"data": []}), timeout=seconds, deadline=seconds)
    assert client.get("models") == {"data": []}
    assert (client.timeout, client.deadline) == ((None, None), None)


def test_no_error_carries_a_query_that_could_not_be_sent():
    with pytest.raises(lib.ConfigError) as caught:
        lib.OpenAIClient("sk-key", query={"key": "sk-secret\ud800"})
    assert caught.value.__cause__ is None  # Python's own error holds the whole value
    assert "sk-secret" not in str(caught.value)
