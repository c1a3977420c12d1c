"""Streams: with [DONE] or finish reasons a complete response, else an error with a partial one."""

import gc
import gzip
import json
import pickle
import random
import sys
import threading
import time
import tracemalloc
from dataclasses import dataclass

import pytest

from . import lib
from .conftest import in_the_gate
from .wire import CLOSE, Reply, chunk, completion, http, sse, streamed

# Adding up


def added(*chunks):
    total = lib.ResponseAccumulator()
    for data in chunks:
        total.add(lib.CreateChatCompletionChunk.from_dict(data))
    return total.response()


def message_of(*deltas):
    return added(*({"choices": [{"index": 0, "delta": d}]} for d in deltas)).choices[0].message


def test_the_sum_of_nothing_has_no_choices():
    assert added().choices == []


def test_id_model_and_created_are_the_first_non_empty_ones():
    azure = {"id": "", "object": "", "created": 0, "model": "", "choices": [],
             "prompt_filter_results": [{"prompt_index": 0}]}  # fmt: skip
    response = added(azure, chunk("a"), {"id": "x", "choices": []})
    assert response.to_dict() == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}}],
        "prompt_filter_results": [{"prompt_index": 0}],
    }


def test_usage_is_the_last_one_reported_and_not_a_sum():
    usage = [{"total_tokens": n} for n in (1, 2, 3)]
    response = added(*({"choices": [], "usage": u} for u in [*usage, None]))
    assert response.usage.total_tokens == 3


def test_moderation_is_the_last_one_reported():
    told = [{"moderation": {"input": {"flagged": flag}}} for flag in (False, True)]
    response = added(*({"choices": [], **one} for one in [*told, {"moderation": None}]))
    assert response.moderation == {"input": {"flagged": True}}


def test_choices_are_distinguished_by_index_in_any_order():
    response = added(
        chunk("b", index=1),
        chunk("a", index=0),
        {"choices": [chunk("B", index=1)["choices"][0], chunk("A", index=0)["choices"][0]]},
        chunk(index=1, finish_reason="stop"),
        chunk("c", index=9_999),
        {"choices": [{"delta": {"content": "!"}}, {"index": None, "delta": {"content": "?"}}]},
    )
    assert [(c.index, c.message.text, c.finish_reason) for c in response.choices] == [
        (0, "aA!?", None),
        (1, "bB", "stop"),
        (9_999, "c", None),
    ]


@pytest.mark.parametrize("index", ["x", [], {}, 1.5, True, -1, 10_001, 1e999])
def test_an_invalid_index_counts_as_0(index):
    data = {"choices": [{"index": index, "delta": {"content": "a"}}]}
    assert added(data).text == "a"
    assert lib.CreateChatCompletionChunk.from_dict(data).text == "a"


@pytest.mark.parametrize("index", [1, 1.0, "1"])
def test_an_index_may_be_written_as_a_float_or_as_text(index):
    data = {"choices": [{"index": index, "delta": {"content": "a"}}]}
    assert [choice.index for choice in added(data).choices] == [1]
    assert lib.CreateChatCompletionChunk.from_dict(data).text == ""


def test_a_delta_may_be_missing_or_null():
    response = added({"choices": [{"index": 0}]}, {"choices": [{"index": 0, "delta": None}]})
    assert response.choices[0].message.to_dict() == {"role": "assistant"}


def test_role_and_refusal_are_added_up():
    message = message_of({"role": "assistant", "content": "", "refusal": None},
                         {"refusal": "I "}, {"refusal": "won't"})  # fmt: skip
    assert message.to_dict() == {"role": "assistant", "refusal": "I won't"}


def test_content_in_parts_is_joined_by_their_type():
    message = message_of(
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
        {"content": "It "},
        {"content": [{"type": "text", "text": "is"}]},
        {"content": " 4"},
    )
    assert message.text == "It is 4"
    assert len(message.content) == 2


def test_logprobs_are_added_up():
    response = added(
        {"choices": [{"index": 0, "logprobs": {"content": [{"token": "a", "logprob": -0.1}]}}]},
        {"choices": [{"index": 0, "logprobs": None}]},
        {"choices": [{"index": 0, "logprobs": {"content": None, "refusal": []}}]},
        {"choices": [{"index": 0, "logprobs": {"content": "none"}}]},
        {"choices": [{"index": 0, "logprobs": {"content": [{"token": "b", "bytes": None}]}}]},
        {"choices": [{"index": 0, "logprobs": {"base": "e", "tokens": 1}}]},
        {"choices": [{"index": 0, "logprobs": {"base": 2, "tokens": ["b"]}}]},
    )
    assert [t.token for t in response.choices[0].logprobs.content] == ["a", "b"]
    assert response.choices[0].logprobs.refusal == []
    assert response.choices[0].logprobs.extra == {"base": 2, "tokens": ["b"]}


def test_provider_fields_of_every_level_are_added_up():
    response = added(
        {"choices": [{"index": 0, "delta": {"reasoning_content": "Let ", "thinking": {"id": "1", "text": "x"}},
          "content_filter_results": {}}], "provider": "P", "timings": {"ms": 1}},
        {"choices": [{"index": 0, "delta": {"reasoning_content": "me", "thinking": {"id": "1", "text": "y"},
          "annotations": [{"type": "url_citation", "url_citation": {"url": "u", "new": 1}}],
          "reasoning_details": [{"index": 0, "type": "reasoning.text", "text": "a"}], "count": 1}}]},
        {"choices": [{"index": 0, "delta": {"reasoning_content": None, "count": 2,
          "reasoning_details": [{"index": 0, "type": "reasoning.text", "text": "b"},
                                {"index": 1, "type": "reasoning.text", "text": "c"}, "odd"]},
          "content_filter_results": {"hate": 1}}], "provider": "P", "timings": {"ms": 2}},
    )  # fmt: skip
    assert response.extra == {"provider": "P", "timings": {"ms": 2}}
    assert response.choices[0].extra == {"content_filter_results": {"hate": 1}}
    message = response.choices[0].message
    assert message.reasoning == "Let me"
    assert message.annotations[0].url_citation.extra == {"new": 1}
    assert message.extra == {
        "reasoning_content": "Let me",
        "thinking": {"id": "1", "text": "xy"},
        "reasoning_details": [
            {"index": 0, "type": "reasoning.text", "text": "ab"},
            {"index": 1, "type": "reasoning.text", "text": "c"},
            "odd",
        ],
        "count": 2,
    }


def test_streamed_audio_is_added_up():
    message = message_of({"audio": {"id": "a1", "transcript": "He"}},
                         {"audio": {"id": "a1", "data": "QUJD", "transcript": "y"}},
                         {"audio": {"data": "REVG", "expires_at": 5}})  # fmt: skip
    assert message.audio.to_dict() == {
        "id": "a1", "data": "QUJDREVG", "transcript": "Hey", "expires_at": 5,
    }  # fmt: skip


def call(index=..., id=..., name=..., arguments=..., **more):
    function = {"name": name, "arguments": arguments}
    piece = {"index": index, "id": id, **more}
    piece = {key: value for key, value in piece.items() if value is not ...}
    piece["function"] = {key: value for key, value in function.items() if value is not ...}
    return piece


TOOL_CALLS = [
    pytest.param([[call(0, "1", "f", "", type="function")], [call(0, arguments='{"a":')],
                  [call(0, arguments="1}")]], [("1", "f", '{"a":1}')], id="as-openai"),
    pytest.param([[call(0, "1", "f", '{"a":'), call(1, "2", "g", "{")],
                  [call(1, arguments="}"), call(0, arguments="1}")]],
                 [("1", "f", '{"a":1}'), ("2", "g", "{}")], id="parallel-and-interleaved"),
    pytest.param([[call(1, "2", "g", "{}")], [call(0, "1", "f", "{}")]],
                 [("1", "f", "{}"), ("2", "g", "{}")], id="out-of-order"),
    pytest.param([[call(id="1", name="f", arguments="{")], [call(arguments="}")],
                  [call(id="2", name="g", arguments="{")], [call(arguments="}")]],
                 [("1", "f", "{}"), ("2", "g", "{}")], id="index-missing"),
    pytest.param([[call(None, "1", "f", "{")], [call(None, None, None, "}")]],
                 [("1", "f", "{}")], id="index-null"),
    pytest.param([[call(0, "1", "f", "{}")], [call(0, "2", "g", "{}")]],
                 [("1", "f", "{}"), ("2", "g", "{}")], id="all-indexes-zero"),
    pytest.param([[call(0, "1", "f", "{")], [call(0, "2", "g", "{")], [call(0, "1", arguments="}")],
                  [call(0, "2", arguments="}")]],
                 [("1", "f", "{}"), ("2", "g", "{}")], id="all-indexes-zero-interleaved"),
    pytest.param([[call(0, "1", "f", "{", type="function")], [call(0, "1", "f", "}", type="function")],
                  [call(0, "1", "f", "", type="function")]],
                 [("1", "f", "{}")], id="id-type-and-name-repeated"),
    pytest.param([[call(0, "1", "f", "{")], [call(0, "", "", "}")], [call(0, None, None, None)]],
                 [("1", "f", "{}")], id="empty-and-null-change-nothing"),
    pytest.param([[call(0, "1", "f", None)]], [("1", "f", "")], id="arguments-null"),
    pytest.param([[call(0, "1", "f")]], [("1", "f", "")], id="arguments-missing"),
    pytest.param([[call(0, None, "f", "{")], [call(0, "1", None, "}")]],
                 [("1", "f", "{}")], id="id-comes-late"),
    pytest.param([[call(0, "1", "f"), call(0, arguments="{"), call(0, arguments="}")]],
                 [("1", "f", "{}")], id="several-pieces-in-one-delta"),
    pytest.param([[call(name="f", arguments='{"a": 1}')], [call(name="g", arguments='{"b": 2}')],
                  [call(name="g", arguments='{"b": 3}')]],
                 [(None, "f", '{"a": 1}'), (None, "g", '{"b": 2}'), (None, "g", '{"b": 3}')],
                 id="complete-calls-without-id-or-index"),
    pytest.param([[call(0, None, "f", '{"a":1}')], [call(0, None, "f", '{"a":2}')]],
                 [(None, "f", '{"a":1}'), (None, "f", '{"a":2}')], id="complete-calls-all-at-index-zero-without-ids"),
    pytest.param([[call(0, None, "f", '{"a"')], [call(0, None, "f", ":1}")], [call(0, None, "f", "")]],
                 [(None, "f", '{"a":1}')], id="name-repeated-without-id"),
    pytest.param([[call(0, None, "f", '{"a":{}')], [call(0, None, "f", "}")]],
                 [(None, "f", '{"a":{}}')], id="name-repeated-without-id-after-a-brace"),
    pytest.param([[call(name="f", arguments="{}")], [call(id="2", name="g", arguments="{")], [call(arguments="}")]],
                 [(None, "f", "{}"), ("2", "g", "{}")], id="index-missing-and-the-first-id"),
    pytest.param([[call(0, "1", "f", {"a": 1})]], [("1", "f", '{"a": 1}')], id="arguments-as-an-object"),
    pytest.param([[call(0, "1", "f", '{"a": tru')]], [("1", "f", '{"a": tru')], id="truncated-arguments-stay-text"),
    pytest.param([[call("0", 5, "f", "{}")]], [(5, "f", "{}")], id="odd-types"),
]  # fmt: skip


@pytest.mark.parametrize(("deltas", "expected"), TOOL_CALLS)
def test_tool_calls_are_put_together(deltas, expected):
    calls = message_of(*({"tool_calls": d} for d in deltas)).tool_calls
    assert [(c.id, c.function.name, c.function.arguments) for c in calls] == expected
    assert all(c.type == "function" and c.index is None for c in calls)


def test_a_call_of_which_only_the_id_came_is_kept():
    [only] = message_of({"tool_calls": [{"index": 0, "id": "1"}]}).tool_calls
    assert only.to_dict() == {"id": "1", "type": "function"}


def test_custom_tool_calls_are_put_together():
    message = message_of(
        {
            "tool_calls": [
                {"index": 0, "id": "1", "type": "custom", "custom": {"name": "c", "input": "a"}}
            ]
        },
        {"tool_calls": [{"index": 0, "custom": {"input": "b"}}]},
    )
    assert message.tool_calls[0].to_dict() == {
        "id": "1", "type": "custom", "custom": {"name": "c", "input": "ab"},
    }  # fmt: skip


def test_the_old_function_call_is_put_together():
    message = message_of(
        {"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}}
    )
    assert message.function_call.to_dict() == {"name": "f", "arguments": "{}"}


def test_provider_fields_of_a_tool_call_are_kept():
    message = message_of(
        {
            "tool_calls": [
                call(0, "1", "f", "{", extra_content={"google": {"thought_signature": "s"}})
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": "}", "strict": True}}]},
    )
    assert message.tool_calls[0].extra == {"extra_content": {"google": {"thought_signature": "s"}}}
    assert message.tool_calls[0].function.extra == {"strict": True}


# A stream gives the same response as a call


def cut(text, size):
    return [text[i : i + size] for i in range(0, len(text), size)]


def streamed_message(message, index=0, size=3):
    """The chunks in which a server would send a message."""
    deltas = [{"role": message["role"], "content": None}]
    for key, value in message.items():
        if key == "tool_calls":
            for number, one in enumerate(value):
                head = one | {"index": number, "function": one["function"] | {"arguments": ""}}
                deltas.append({"tool_calls": [head]})
                deltas += [
                    {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}
                    for piece in cut(one["function"]["arguments"], size)
                ]
        elif isinstance(value, str) and key != "role":
            deltas += [{key: piece} for piece in cut(value, size)]
        elif value is not None and key != "role":
            deltas.append({key: value})
    return [
        {**completion_head(), "choices": [{"index": index, "delta": d, "finish_reason": None}]}
        for d in deltas
    ]


def completion_head():
    return {"id": "chatcmpl-1", "created": 1700000000, "model": "m", "service_tier": "default",
            "system_fingerprint": "fp", "object": "chat.completion.chunk"}  # fmt: skip


def tool_call(id, name, arguments):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


WHOLE = [
    pytest.param({"role": "assistant", "content": "Grüße 👋🏽, Welt"}, "stop", id="text"),
    pytest.param({"role": "assistant", "content": None, "refusal": "I won't."}, "stop", id="refusal"),
    pytest.param({"role": "assistant", "content": None, "tool_calls": [
        tool_call("1", "f", '{"a": 1}'), tool_call("2", "g", "{}")]}, "tool_calls", id="parallel-tool-calls"),
    pytest.param({"role": "assistant", "content": "4", "reasoning_content": "2 and 2 is"}, "stop",
                 id="provider-field"),
    pytest.param({"role": "assistant", "content": "As X says", "annotations": [
        {"type": "url_citation", "url_citation": {"url": "u", "start_index": 0, "end_index": 2, "title": "t"}}]},
        "stop", id="annotations"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "reason"), WHOLE)
def test_a_stream_gives_the_same_response_as_a_call(ask, question, message, reason):
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3,
             "completion_tokens_details": {"reasoning_tokens": 1, "new": 2}}  # fmt: skip
    head = completion_head() | {"object": "chat.completion"}
    logprobs = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}],
                "refusal": None}  # fmt: skip
    whole = {**head, "provider": "P", "usage": usage, "choices": [
        {"index": i, "message": message, "finish_reason": reason, "logprobs": logprobs} for i in (0, 1)
    ]}  # fmt: skip
    first, second = streamed_message(message), streamed_message(message, 1)
    chunks = [c for pair in zip(second, first, strict=True) for c in pair]
    for c in chunks:
        c["provider"] = "P"
    for c in chunks[:2]:
        c["choices"][0]["logprobs"] = logprobs
    for index in (0, 1):
        chunks.append(
            {
                **completion_head(),
                "choices": [{"index": index, "delta": {}, "finish_reason": reason}],
            }
        )
    chunks.append({**completion_head(), "choices": [], "usage": usage})
    client = ask(http(whole), streamed(*chunks))
    expected = lib.create_chat_completion(client, question)
    assert lib.create_chat_completion_stream(client, question).response() == expected


# The end of a stream: [DONE], or a finish reason for each choice

ENDED = [
    pytest.param(streamed(chunk("a"), chunk("b")), id="done-without-finish-reason"),
    pytest.param(streamed(chunk("a"), chunk("b", finish_reason="stop"), done=False),
                 id="finish-reason-without-done"),
    pytest.param(streamed(chunk("a"), chunk("b", finish_reason="length"), framing="close"),
                 id="close-delimited"),
    pytest.param(streamed(chunk("a"), chunk("b"), framing="length"), id="length-delimited"),
    pytest.param(streamed(b": OPENROUTER PROCESSING\n\n", chunk("a"), b"data: : ping\n\ndata: \n\n:\n\n",
                          chunk("b")), id="keep-alives"),
    pytest.param(streamed(chunk("a"), chunk("b"), b"data: [DONE]\n\ndata: junk\n\n", done=False),
                 id="bytes-after-done"),
    pytest.param(streamed(chunk("a"), chunk("b"), b"data: [DONE]", done=False), id="done-without-line-end"),
    pytest.param(streamed(chunk("a"), b"data: " + json.dumps(chunk("b", finish_reason="stop")).encode(),
                          done=False), id="last-event-without-blank-line"),
    pytest.param(streamed(chunk("a"), chunk("b", finish_reason="stop"),
                          b"event: done\ndata: {}\n\n", done=False), id="event-done"),
    pytest.param(streamed(b"data: %s\ndata: [DONE]\n\n" % json.dumps(chunk("ab")).encode(),
                          chunk(""), done=True), id="done-in-the-event-of-a-chunk"),
    pytest.param(streamed({"id": "", "choices": [], "prompt_filter_results": []}, chunk("a"), chunk("b")),
                 id="azure-first-chunk"),
    pytest.param(streamed({"choices": [{"index": 0}]}, {"choices": [{"index": 0, "delta": None}]},
                          chunk("a"), chunk("b")), id="delta-missing-or-null"),
    pytest.param(streamed(chunk("ab"), {"choices": [], "usage": {"total_tokens": 3}}), id="usage-chunk"),
    pytest.param(streamed(chunk("ab"), {"choices": [{"index": 0, "delta": {}}], "usage": {"total_tokens": 3}}),
                 id="usage-chunk-with-a-choice"),
    pytest.param(streamed(*({**chunk(c), "usage": {"total_tokens": 3}} for c in "ab")),
                 id="usage-on-every-chunk"),
    pytest.param(streamed(completion("ab"), done=False), id="a-completion-as-an-event"),
    pytest.param(http(completion("ab")), id="a-completion"),
    pytest.param(http(json.dumps(completion("ab"), indent=2).encode()), id="an-indented-completion"),
    pytest.param(http(completion("a" + "b" * 100_000)), id="a-long-completion"),
    pytest.param(http(gzip.compress(sse(chunk("a"), chunk("b"))), "200 OK", "Content-Encoding: gzip"),
                 id="compressed"),
    pytest.param(http((gzip.compress(sse(chunk("a"), chunk("b"))),), "200 OK", "Content-Encoding: gzip",
                      framing="chunked"), id="compressed-and-chunked"),
    pytest.param(http(sse(chunk("a"), chunk("b")), "200 OK", "Content-Type: application/json"),
                 id="wrong-content-type"),
    pytest.param(http(sse(chunk("a"), chunk("b")).replace(b"\n", b"\r\n"), framing="chunked"), id="crlf"),
    pytest.param(http(sse(chunk("a"), chunk("b")).replace(b"data: ", b"data:"), framing="chunked"),
                 id="no-space"),
    pytest.param(http(b"\xef\xbb\xbf" + sse(chunk("a"), chunk("b"))), id="byte-order-mark"),
]  # fmt: skip


@pytest.mark.parametrize("raw", ENDED)
def test_a_stream_with_an_end_gives_a_complete_response(ask, question, raw):
    stream = lib.create_chat_completion_stream(ask(raw), question)
    text = "".join(stream.text_deltas())
    assert text.startswith("ab")
    response = stream.response()
    assert response.text == text
    assert response == stream.response()
    assert list(stream) == []


TOOLS = [tool_call("1", "f", "{}"), tool_call("2", "g", "{}")]


def test_a_completion_in_place_of_a_stream_keeps_its_tool_calls(ask, question):
    stream = lib.create_chat_completion_stream(
        ask(http(completion(None, tool_calls=TOOLS))), question
    )
    (only,) = stream
    assert [c.index for c in only.choices[0].delta.tool_calls] == [0, 1]
    assert only.object == "chat.completion.chunk"
    assert [c.to_dict() for c in stream.response().choices[0].message.tool_calls] == TOOLS


CUT = [
    pytest.param(streamed(chunk("a"), chunk("b"), done=False), "ab", "choice 0 has no finish reason, and [DONE] did not come", id="no-end"),
    pytest.param(streamed(chunk("a", finish_reason="stop"), chunk("b", index=1), done=False), "a",
                 "choice 1", id="one-choice-of-two"),
    pytest.param(streamed(chunk("a"), b'data: {"choices": [{"del', done=False), "a", "choice 0",
                 id="cut-in-an-event"),
    pytest.param(streamed(chunk("a"), b"data: [DON", done=False), "a", "choice 0", id="cut-in-done"),
    pytest.param(streamed(chunk("ab"), done=False, framing="close"), "ab", "choice 0", id="close-delimited"),
    pytest.param(streamed(done=False), "", "holds no answer", id="no-events"),
    pytest.param(streamed(done=False, framing="close"), "", "holds no answer", id="no-events-close-delimited"),
    pytest.param(streamed(b": ping\n\n", done=False), "", "holds no answer", id="only-keep-alives"),
    pytest.param(streamed(), "", "holds no answer", id="only-done"),
    pytest.param(streamed({"choices": [], "prompt_filter_results": [5]}), "",
                 '"prompt_filter_results": [5]', id="only-azures-first-chunk"),
    pytest.param(http((sse(chunk("a"), done=False),), framing="chunked")[:-7], "a", "lost", id="broken-chunking"),
    pytest.param(http(b"x" * 10_000).replace(b"x" * 10_000, sse(chunk("a"), chunk("b"))[:-40]), "a", "lost",
                 id="shorter-than-its-content-length"),
    pytest.param(http(gzip.compress(sse(chunk("a"), chunk("b")) * 5)[:60], "200 OK", "Content-Encoding: gzip"),
                 None, "", id="cut-compression"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "text", "words"), CUT)
def test_a_stream_without_an_end_raises_with_its_partial(ask, question, raw, text, words):
    stream = lib.create_chat_completion_stream(ask(Reply(raw, CLOSE)), question)
    with pytest.raises(lib.StreamInterruptedError, match=r"stream|lost") as caught:
        list(stream)
    assert words in str(caught.value)
    assert "/v1/chat/completions" in str(caught.value)
    if text is not None:
        assert caught.value.partial.text == text
    with pytest.raises(lib.StreamInterruptedError) as again:
        stream.response()
    assert again.value.partial == caught.value.partial


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("done", [True, False])
def test_a_complete_body_may_have_fewer_choices_than_requested(ask, question, n, done):
    question["n"] = n
    question["stream_options"] = {"include_usage": True}
    client = ask(streamed(chunk("a", finish_reason="stop"), done=done))
    response = lib.create_chat_completion_stream(client, question).response()
    assert (response.text, response.usage) == ("a", None)


def test_a_truncated_body_with_fewer_choices_than_requested_is_an_error(ask, question):
    question["n"] = 2
    raw = streamed(chunk("a", finish_reason="stop"), done=False)[:-5]
    with pytest.raises(lib.StreamInterruptedError) as caught:
        lib.create_chat_completion_stream(ask(Reply(raw, CLOSE)), question).response()
    assert caught.value.partial.text == "a"


@pytest.mark.parametrize("end", ["close", "reset", "silence"])
def test_a_response_with_its_finish_reason_is_complete_however_its_body_ends(ask, question, end):
    raw = streamed(chunk("a", finish_reason="stop"), done=False)[:-5]
    client = ask(Reply(raw, end), timeout=(5, 0.3))
    assert lib.create_chat_completion_stream(client, question).response().text == "a"


ERROR = {"error": {"message": "busy", "code": "rate_limit_exceeded"}}
TOLD = [
    pytest.param(sse(chunk("a"), ERROR), "RateLimitError", id="an-object"),
    pytest.param(sse(chunk("a"), {"error": "busy"}), "APIError", id="a-string"),
    pytest.param(sse(chunk("a"), [ERROR]), "RateLimitError", id="a-list"),
    pytest.param(sse(chunk("a"), {**chunk("b"), **ERROR}), "RateLimitError", id="beside-choices"),
    pytest.param(sse(chunk("a"), {"choices": [{"index": 0, "error": {"message": "busy", "code": 502}}]}),
                 "InternalServerError", id="in-a-choice"),
    pytest.param(sse(chunk("a"), chunk("busy", finish_reason="error")), "APIError", id="a-finish-reason"),
    pytest.param(sse(chunk("a"), {"type": "error", "message": "busy"}), "APIError", id="a-type"),
    pytest.param(sse(chunk("a"), {"object": "error", "message": "busy", "code": 50001}), "APIError",
                 id="an-object-named-error"),
    pytest.param(sse(chunk("a"), b'event: error\ndata: {"message": "busy"}\n\n'), "APIError", id="an-event"),
    pytest.param(sse(chunk("a"), b"event: error\ndata: busy\n\n"), "APIError", id="an-event-of-text"),
    pytest.param(sse(chunk("a"), b'event: error\ndata: {"error": {"mess', done=False).replace(b"mess", b"busy"),
                 "APIError", id="an-event-that-is-cut"),
    pytest.param(sse(chunk("a"), b'error: {"code": 500, "message": "busy"}\n\n'), "InternalServerError",
                 id="a-field"),
    pytest.param(sse(chunk("a"), b"error: busy\n\n"), "APIError", id="a-field-of-text"),
    pytest.param(sse(chunk("a"), json.dumps(ERROR).encode() + b"\n", done=False), "RateLimitError", id="outside-of-any-event"),
    pytest.param(sse(chunk("a"), b"data: " + json.dumps(ERROR, indent=2).replace("\n", "\ndata: ").encode()
                     + b"\n\n"), "RateLimitError", id="over-several-data-lines"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "name"), TOLD)
def test_an_error_in_a_stream_is_raised_with_the_partial_response(ask, question, body, name):
    client = ask(http(body, "200 OK", "x-request-id: req_7"))
    stream = lib.create_chat_completion_stream(client, question)
    with pytest.raises(lib.APIError, match="busy") as caught:
        list(stream)
    error = caught.value
    assert type(error) is getattr(lib, name)
    assert error.partial.text.startswith("a")
    assert (error.status_code, error.request_id) == (200, "req_7")
    with pytest.raises(lib.StreamInterruptedError):
        stream.response()


INSTEAD = [
    pytest.param(json.dumps(ERROR).encode(), "RateLimitError", "busy", id="an-error"),
    pytest.param(json.dumps(ERROR, indent=4).encode(), "RateLimitError", "busy", id="a-pretty-error"),
    pytest.param(json.dumps([ERROR]).encode(), "RateLimitError", "busy", id="a-list-of-errors"),
    pytest.param(b'{"detail": "busy"}', "APIError", "busy", id="a-detail"),
    pytest.param(b"<html><h1>busy</h1></html>", "DeserializeError", "is HTML: <html><h1>busy", id="a-page"),
    pytest.param(b"busy", "DeserializeError", "is not JSON: busy", id="text"),
    pytest.param(b'{"choices": [{"mess', "DeserializeError", "broken or cut JSON", id="a-cut-completion"),
    pytest.param(b"[1, 2]", "DeserializeError", "", id="a-list"),
    pytest.param(b"[" * 100_000, "DeserializeError", "", id="deep-nesting"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "name", "words"), INSTEAD)
def test_a_body_in_place_of_a_stream_is_an_error_that_quotes_it(ask, question, body, name, words):
    stream = lib.create_chat_completion_stream(ask(http(body)), question)
    with pytest.raises(getattr(lib, name)) as caught:
        list(stream)
    assert words in str(caught.value)
    assert caught.value.partial.choices == []


NO_CHUNK = [
    pytest.param(b"data: {broken}\n\n", "{broken}", id="broken-json"),
    pytest.param(b'data: {"choices": []}{"choices": []}\n\n', "}{", id="two-glued-together"),
    pytest.param(b"data: [1]\n\n", "[1]", id="a-list"),
    pytest.param(b"data: " + b"[" * 100_000 + b"\n\n", "[[[", id="deep-list"),
    pytest.param(b"data: " + b'{"a":' * 100_000 + b"\n\n", '{"a":', id="deep-object"),
    pytest.param(b'data: {"choices": 5}\n\n', "$.choices: expected list", id="choices-a-number"),
    pytest.param(b'data: {"choices": [5]}\n\n', "$.choices[0]: expected object", id="choice-a-number"),
    pytest.param(b'data: {"choices": [{"delta": "a"}]}\n\n', "$.choices[0].delta: expected object",
                 id="delta-a-string"),
]  # fmt: skip


@pytest.mark.parametrize(("event", "words"), NO_CHUNK)
def test_an_event_that_is_not_a_chunk_is_an_error_and_never_skipped(ask, question, event, words):
    client = ask(http(sse(chunk("a"), event, chunk("b")), "200 OK", "x-request-id: req_7"))
    stream = lib.create_chat_completion_stream(client, question)
    with pytest.raises(lib.DeserializeError) as caught:
        list(stream)
    assert words in str(caught.value)
    assert caught.value.partial.text == "a"
    assert caught.value.request_id == "req_7"


HALF = [
    pytest.param(b"event: error\nid: 1\n\n", "", id="an-error-event-without-data"),
    pytest.param(b"event: error\ndata:\n\n", "", id="an-error-event-with-empty-data"),
    pytest.param({"code": "Throttling", "message": "busy"}, "busy", id="code-and-message"),
    pytest.param({"error_code": 18, "error_msg": "busy"}, "busy", id="error-code"),
    pytest.param({"__type": "ServiceUnavailableException", "message": "busy"}, "busy", id="type"),
    pytest.param({"base_resp": {"status_code": 1002, "status_msg": "busy"}}, "busy", id="base-resp"),
    pytest.param({"message": "busy"}, "busy", id="message-alone"),
    pytest.param({**chunk(), "x_groq": {"error": "busy"}}, "busy", id="in-x-groq"),
    pytest.param(b"event: ERROR\n\n", "", id="an-error-event-in-capitals"),
    pytest.param(b"event: exception\n\n", "", id="an-exception-event-without-data"),
    pytest.param({"choices": [], "error": {"message": "busy"}}, "busy", id="beside-no-choices"),
    pytest.param(chunk(error="busy"), "busy", id="in-a-delta"),
    pytest.param(b'event: failed\ndata: {"error": {"message": "busy"}}\n\n', "busy", id="any-name"),
    pytest.param(b"event: error\n" + sse(chunk("busy"), done=False), "busy", id="a-chunk-as-error"),
    pytest.param(chunk(error={"message": "busy"}), "busy", id="an-object-in-a-delta"),
    pytest.param({"choices": [{"index": 0, "message": {"error": "busy"}}]}, "busy", id="in-a-message"),
    *[pytest.param(chunk(finish_reason=reason), reason, id=reason)
      for reason in ("error", "abort", "network_error", "insufficient_system_resource")],
]  # fmt: skip


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize(("event", "words"), HALF)
def test_a_failure_after_a_part_of_the_response_is_raised_even_if_done_follows(
    ask, question, event, words, done
):
    client = ask(streamed(chunk("half"), event, done=done))
    with pytest.raises(lib.APIError) as caught:
        lib.create_chat_completion_stream(client, question).response()
    assert words in str(caught.value)
    assert caught.value.partial.text == "half"


REMARKS = {
    "a-comment": b"data: : ping\n\n",
    "a-word": b"data: Overloaded\n\n",
    "a-page-without-blanks": b"data: <html><b>502</b></html>\n\n",
    "a-number": b"data: 1700000000\n\n",
    "null": b"data: null\n\n",
    "a-string": b'data: "[DONE]"\n\n',
    "words": b"data: 429 Too Many Requests\n\n",
    "words-about-usage": b"data: Your usage limit is reached\n\n",
    "an-object-without-blanks": b'data: {"err":"boom"}\n\n',
    "words-as-json": b'data: "Too Many Requests"\n\n',
    "an-object": b'data: {"status": 500, "title": "Internal Server Error"}\n\n',
    "a-page": b"<html><h1>504 Gateway Time-out</h1></html>\n\n",
    "another-event": b'event: tool.progress\ndata: {"id": "t", "model": "x", "error": "no page"}\n\n',
    "another-event-of-text": b"event: ping\ndata: {still here}\n\n",
    "a-done-event": b"event: done\ndata: {}\n\n",
    "an-empty-error": b'data: {"error": {}}\n\n',
    "an-error-of-success": b'event: status\ndata: {"error": {"code": 0, "message": "ok"}}\n\n',
}


@pytest.mark.parametrize("name", REMARKS)
def test_events_that_are_neither_chunk_nor_error_do_not_change_a_complete_response(
    ask, question, name
):
    chunks = [chunk("a"), REMARKS[name], chunk("b", finish_reason="stop")]
    response = lib.create_chat_completion_stream(ask(streamed(*chunks)), question).response()
    expected = [chunks[0], chunks[2]]
    same = lib.create_chat_completion_stream(ask(streamed(*expected)), question).response()
    assert response == same


@pytest.mark.parametrize("name", ["a-word", "words", "words-about-usage", "a-page-without-blanks", "words-as-json", "an-object",
                                  "an-object-without-blanks", "a-page"])  # fmt: skip
def test_unexpected_text_is_quoted_in_the_error_of_a_stream_without_finish_reason(
    ask, question, name
):
    words = REMARKS[name].decode().strip().removeprefix("data: ")
    client = ask(streamed(chunk("half"), REMARKS[name]))
    with pytest.raises(lib.StreamInterruptedError) as caught:
        lib.create_chat_completion_stream(client, question).response()
    assert words in str(caught.value)
    assert caught.value.partial.text == "half"
    with pytest.raises(lib.OpenAIError) as caught:
        lib.create_chat_completion_stream(ask(streamed(REMARKS[name])), question).response()
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["a-comment", "a-number", "null", "a-string"])
def test_a_heartbeat_changes_nothing_before_done(ask, question, name):
    client = ask(streamed(chunk("a"), REMARKS[name]))
    assert lib.create_chat_completion_stream(client, question).response().text == "a"


@pytest.mark.parametrize("beside", [
    {"base_resp": {"status_code": 1008, "status_msg": "balance"}},
    {"errors": [{"message": "boom"}]},
])  # fmt: skip
def test_a_failure_beside_choices_is_raised(ask, question, beside):
    client = ask(streamed(chunk("half"), {**chunk(""), **beside}))
    with pytest.raises(lib.APIError, match=r"balance|boom") as caught:
        lib.create_chat_completion_stream(client, question).response()
    assert caught.value.partial.text == "half"


def test_chunks_after_a_finish_reason_are_still_read(ask, question, monkeypatch):
    module = sys.modules[lib.ChatCompletionStream.__module__]
    monkeypatch.setattr(module, "_AFTER_FINISH_SECONDS", 0.5)
    pieces = [b"%x\r\n%s\r\n" % (len(event), event) for event in
              (sse(chunk(text, finish_reason="stop"), done=False) for text in "abcd")]  # fmt: skip
    hold = threading.Event()
    first, *more = pieces
    begun = http((), framing="chunked").removesuffix(b"0\r\n\r\n") + first
    client = ask(
        Reply([begun + more[0], more[1] + more[2] + b"0\r\n\r\n"], hold=hold), timeout=(5, 60)
    )
    stream = lib.create_chat_completion_stream(client, question)
    texts = [next(stream).text, next(stream).text]
    hold.set()
    assert texts + [one.text for one in stream] == ["a", "b", "c", "d"]


def test_a_stream_that_nobody_requested_is_read_until_all_choices_came(ask, question, monkeypatch):
    module = sys.modules[lib.ChatCompletionStream.__module__]
    monkeypatch.setattr(module, "_AFTER_FINISH_SECONDS", 0.05)
    begun = http((), framing="chunked").removesuffix(b"0\r\n\r\n")
    first, second = (
        sse({"choices": [{"index": n, "delta": {"content": "ab"[n]}, "finish_reason": "stop"}]},
            done=n == 1) for n in (0, 1)
    )  # fmt: skip
    frames = [b"%x\r\n%s\r\n" % (len(part), part) for part in (first, second)]
    hold = threading.Event()
    client = ask(Reply([begun + frames[0], frames[1] + b"0\r\n\r\n"], hold=hold))
    threading.Timer(0.2, hold.set).start()
    response = lib.create_chat_completion(client, {**question, "n": 2})
    assert [choice.message.text for choice in response.choices] == ["a", "b"]


def test_the_partial_response_of_an_error_has_the_request_id_and_the_headers(ask, question):
    body = sse(chunk("half"), done=False)
    client = ask(http(body, "200 OK", "Content-Type: text/event-stream", "x-request-id: req_1"))
    with pytest.raises(lib.StreamInterruptedError) as caught:
        lib.create_chat_completion_stream(client, question).response()
    partial = caught.value.partial
    assert (partial.request_id, partial.headers) == ("req_1", caught.value.headers)


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content", "reasoning_text", "thinking"])
@pytest.mark.parametrize("part", ["text", "thinking", "reasoning", "summary"])
def test_reasoning_in_objects_adds_up_to_what_the_chunks_showed(ask, question, key, part):
    deltas = [{key: {part: piece}} for piece in ("I nee", "d to think", ".")]
    end = chunk("Yes.", finish_reason="stop", **{key: {"signature": "s"}})
    client = ask(streamed(*(chunk(**delta) for delta in deltas), end))
    stream = lib.create_chat_completion_stream(client, question)
    shown = "".join(one.choices[0].delta.reasoning for one in stream)
    message = stream.response().choices[0].message
    assert message.reasoning == shown == "I need to think."
    assert message.to_dict()[key] == {part: "I need to think.", "signature": "s"}


def test_a_number_in_place_of_text_is_text(ask, question):
    client = ask(streamed(chunk("I have "), chunk(5), chunk(" cats", finish_reason="stop")))
    stream = lib.create_chat_completion_stream(client, question)
    assert list(stream.text_deltas()) == ["I have ", "5", " cats"]
    assert stream.response().text == "I have 5 cats"
    client = ask(streamed(chunk(4), chunk(2.5), chunk(" litres", finish_reason="stop")))
    assert lib.create_chat_completion_stream(client, question).response().text == "42.5 litres"
    client = ask(streamed(chunk(False, finish_reason="stop")))
    assert lib.create_chat_completion_stream(client, question).response().text == "false"


def test_json_lines_in_place_of_events_are_chunks_and_need_a_finish_reason(ask, question):
    lines = [json.dumps(chunk(text)).encode() + b"\n" for text in "ab"]
    end = json.dumps(chunk(finish_reason="stop")).encode()
    client = ask(http(lines[0]), http(b"".join(lines)), http(b"".join([*lines, end])))
    for _ in range(2):
        with pytest.raises(lib.StreamInterruptedError, match="choice 0 has no finish reason"):
            lib.create_chat_completion_stream(client, question).response()
    assert lib.create_chat_completion_stream(client, question).response().text == "ab"


@pytest.mark.parametrize("before", [b" data: ", b"Data: ", b""])
def test_a_chunk_in_a_malformed_event_is_an_error_and_not_skipped(ask, question, before):
    raw = before + json.dumps(chunk("lost")).encode() + b"\n\n"
    client = ask(streamed(chunk("a"), raw, chunk("b", finish_reason="stop")))
    with pytest.raises(lib.DeserializeError, match="lost") as caught:
        lib.create_chat_completion_stream(client, question).response()
    assert caught.value.partial.text == "ab"


def test_done_in_an_event_of_several_lines_ends_the_stream(ask, question):
    last = b"data: " + json.dumps(chunk("b")).encode()
    client = ask(streamed(chunk("a"), b"data: [DONE]\n" + last + b"\n\n", done=False))
    assert lib.create_chat_completion_stream(client, question).response().text == "ab"


@pytest.mark.gate
@pytest.mark.versions
def test_the_stored_text_of_unexpected_events_is_bounded(ask, question):
    remark = b"data: still at it " + b"x" * 50_000 + b"\n\n"
    body = sse(chunk("half"), *[remark] * 100)
    stream = lib.create_chat_completion_stream(ask(http(body)), question)
    tracemalloc.start()
    try:
        stream.response()
    except lib.StreamInterruptedError as error:
        said = str(error)
    gc.collect()  # frees the traceback, whose frames hold the last and large read
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "still at it" in said
    assert kept < 2_000_000


def test_two_chunks_in_one_event_are_both_read(ask, question):
    lines = [b"data: " + json.dumps(chunk(text)).encode() + b"\n" for text in "ab"]
    client = ask(streamed(b"".join([*lines, b"\n"]), chunk("c", finish_reason="stop")))
    assert [one.text for one in lib.create_chat_completion_stream(client, question)] == [
        "a",
        "b",
        "c",
    ]


def test_a_completion_in_place_of_a_stream_needs_no_finish_reason(ask, question):
    for body in (b"", b": ping\n\n"):
        whole = {"choices": [{"index": 0, "message": {"content": "a"}}]}
        client = ask(http(body + json.dumps(whole).encode()))
        assert lib.create_chat_completion_stream(client, question).response().text == "a"


def test_choices_without_a_message_are_an_error_that_quotes_them(ask, question):
    odd = {"choices": [{"index": 0, "answer": "hidden", "finish_reason": "stop"}]}
    with pytest.raises(lib.StreamInterruptedError, match="hidden"):
        lib.create_chat_completion_stream(ask(streamed(odd)), question).response()


@pytest.mark.parametrize("heartbeat", [b"", b": still here\n\n"])
def test_the_wait_for_the_end_after_the_last_finish_reason_is_bounded(
    ask, question, monkeypatch, heartbeat
):
    module = sys.modules[lib.ChatCompletionStream.__module__]
    monkeypatch.setattr(module, "_AFTER_FINISH_SECONDS", 0.15)
    usage = {"choices": [], "usage": {"total_tokens": 3}}
    raw = streamed(chunk("a", finish_reason="stop"), usage, done=False)[:-5]
    beats = [b"%x\r\n%s\r\n" % (len(heartbeat), heartbeat)] * 20 if heartbeat else []
    client = ask(Reply([raw, *beats], "silence"), timeout=(5, 60))
    response = lib.create_chat_completion_stream(client, question).response()
    assert (response.text, response.usage.total_tokens) == ("a", 3)


# Surrogate pairs


def halves(character):
    """The two surrogates in which a server may send a character, one in each of two deltas."""
    return [
        json.loads(f'"\\u{unit:04x}"')
        for unit in memoryview(character.encode("utf-16-le")).cast("H")
    ]


def test_a_surrogate_pair_split_over_two_deltas_is_joined(ask, question):
    first, second = halves("👋")
    raw = streamed(chunk("a" + first), chunk(), chunk(second + "b"), chunk(first), chunk(second))
    for take in (
        lambda s: "".join(s.text_deltas()),
        lambda s: s.response().text,
    ):
        stream = lib.create_chat_completion_stream(ask(raw), question)
        assert take(stream).encode() == "a👋b👋".encode()


def test_text_deltas_hold_back_a_first_surrogate_until_the_next_delta(ask, question):
    first, second = halves("👋")
    raw = streamed(chunk("a" + first), chunk(second + "b"), chunk(first), chunk("c"), chunk(first))
    pieces = list(lib.create_chat_completion_stream(ask(raw), question).text_deltas())
    assert pieces == ["a", "👋b", first + "c", first]


def test_surrogate_pairs_are_joined_in_a_partial_response(ask, question):
    first, second = halves("👋")
    raw = streamed(chunk(first), chunk(second), done=False)
    with pytest.raises(lib.StreamInterruptedError) as caught:
        list(lib.create_chat_completion_stream(ask(raw), question))
    assert caught.value.partial.text == "👋"


def test_surrogate_pairs_are_joined_in_refusal_reasoning_and_arguments():
    first, second = halves("👋")
    message = message_of(*({"refusal": h, "reasoning_content": h, "tool_calls": [call(0, arguments=h)]}
                           for h in (first, second)))  # fmt: skip
    assert (message.refusal, message.reasoning) == ("👋", "👋")
    assert message.tool_calls[0].function.arguments == "👋"


# The stream object


@dataclass
class OnlyItsId:
    id: str


def test_chunks_can_be_read_as_json_or_into_another_class(ask, question):
    client = ask(streamed(chunk("a"), chunk("b")))
    assert list(lib.create_chat_completion_stream(client, question, into=dict)) == [
        chunk("a"),
        chunk("b"),
    ]
    stream = lib.create_chat_completion_stream(client, question, into=dict)
    assert list(stream.text_deltas()) == ["a", "b"]
    assert stream.response().text == "ab"
    stream = lib.create_chat_completion_stream(client, question, into=OnlyItsId)
    assert [c.id for c in stream] == ["chatcmpl-1", "chatcmpl-1"]
    stream = lib.create_chat_completion_stream(client, question, into=OnlyItsId)
    with pytest.raises(lib.ConfigError, match="text"):
        list(stream.text_deltas())
    stream.close()


def test_a_stream_has_the_headers_of_its_response(ask, question):
    raw = http(sse(chunk("a")), "200 OK", "x-request-id: req_1", "X-RateLimit-Left: 5")
    stream = lib.create_chat_completion_stream(ask(raw), question)
    assert stream.request_id == "req_1"
    assert stream.headers["x-ratelimit-left"] == "5"
    assert stream.response().request_id == "req_1"


def test_a_stream_is_read_on_from_where_it_was_left(ask, question):
    stream = lib.create_chat_completion_stream(ask(streamed(*map(chunk, "abc"))), question)
    assert next(stream).text == "a"
    for piece in stream:
        assert piece.text == "b"
        break
    assert list(stream.text_deltas()) == ["c"]
    assert stream.response().text == "abc"
    with pytest.raises(StopIteration):
        next(stream)
    assert list(stream) == []


def test_a_stream_that_is_left_early_raises_when_read_again(ask, question):
    client = ask(streamed(*map(chunk, "abc")))
    with lib.create_chat_completion_stream(client, question) as stream:
        next(stream)
    for read in (stream.response, lambda: next(stream), lambda: list(stream.text_deltas())):
        with pytest.raises(lib.StreamInterruptedError, match="closed") as caught:
            read()
        assert caught.value.partial.text == "a"


@pytest.mark.parametrize("status", ["429 Too Many Requests", "500 Oops", "301 Moved"])
def test_an_http_error_is_raised_at_the_call(ask, question, status):
    client = ask(http({"error": {"message": "no"}}, status), max_retries=0)
    with pytest.raises(lib.APIError, match="no"):
        lib.create_chat_completion_stream(client, question)


def test_random_splits_of_the_body_give_the_same_response(ask, question):
    raw = sse(chunk("Grüße "), b": ping\r\n\r\n", chunk("👋"), chunk(finish_reason="stop"))
    rng = random.Random(5)
    for _ in range(20):
        cuts = sorted(rng.sample(range(1, len(raw)), 8))
        pieces = tuple(raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True))
        client = ask(http(pieces, framing="chunked"))
        assert lib.create_chat_completion_stream(client, question).response().text == "Grüße 👋"


# Found by trying to break it


def test_an_empty_finish_reason_does_not_end_a_stream(ask, question):
    raw = Reply(streamed(chunk("a", finish_reason=""), done=False)[:-5], CLOSE)
    with pytest.raises(lib.StreamInterruptedError):
        lib.create_chat_completion_stream(ask(raw), question).response()


@pytest.mark.parametrize("last", [b'{"error": "late"}\n\n', b"closed early\n\n"])
@pytest.mark.parametrize("reason", ["stop", None])
def test_bytes_after_done_are_ignored_however_they_are_split(ask, question, last, reason):
    events = sse(chunk("a", finish_reason=reason))
    for pieces in ([events + last], [events, last]):
        framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        client = ask(head + framed + b"0\r\n\r\n")
        assert lib.create_chat_completion_stream(client, question).response().text == "a"


@pytest.mark.parametrize("reason", [*in_the_gate("stop"), None])
def test_no_chunk_is_lost_silently_when_the_deadline_passes_between_two_reads(
    ask, question, reason
):
    chunks = [chunk("a", finish_reason=reason), chunk("b", finish_reason="stop")]
    stream = lib.create_chat_completion_stream(
        ask(streamed(*chunks)).with_options(deadline=0.5), question
    )
    end = time.monotonic() + 0.5
    texts = [next(stream).text]
    time.sleep(max(0, end - time.monotonic()))
    if reason:
        assert texts + [one.text for one in stream] == ["a", "b"]
    else:
        with pytest.raises(lib.RequestTimeoutError) as caught:
            next(stream)
        assert caught.value.partial.text == "a"


@pytest.mark.parametrize("message", [None, "text", {"role": "assistant", "content": "ab"}])
def test_a_message_beside_a_delta_adds_nothing(ask, question, message):
    chunks = [chunk("a"), chunk("b", finish_reason="stop")]
    for one in chunks:
        one["choices"][0]["message"] = message
    stream = lib.create_chat_completion_stream(ask(streamed(*chunks)), question)
    assert list(stream.text_deltas()) == ["a", "b"]
    assert stream.response().text == "ab"


def test_a_completion_in_place_of_a_stream_has_text_deltas_with_into_dict(ask, question):
    stream = lib.create_chat_completion_stream(ask(http(completion("ab"))), question, into=dict)
    assert list(stream.text_deltas()) == ["ab"]


@pytest.mark.parametrize("before", [b"", b"worker died\n"])
def test_an_error_outside_of_any_event_is_raised_though_done_follows(ask, question, before):
    raw = http(sse(chunk("a"), before + b'{"error": {"message": "busy"}}\n\n'))
    with pytest.raises(lib.APIError, match="busy"):
        list(lib.create_chat_completion_stream(ask(raw), question))


@pytest.mark.parametrize("depth", [150, 450, 600, 900, 5000])
@pytest.mark.parametrize(
    "around", ['{"error":%s}', '{"choices":[{"index":0,"delta":{"x":%s}}]}', "%s",
               '{"choices":[{"logprobs":{"content":%s}}]}'])  # fmt: skip
def test_deep_nesting_gives_a_response_or_an_openai_error(ask, question, depth, around):
    deep = (around % ("[" * depth + "]" * depth)).encode()
    for raw in (
        http(sse(chunk("a"), b"data: " + deep + b"\n\n")),
        http(deep),
        http(deep, "400 Bad"),
    ):
        client = ask(raw)
        for read in (
            lambda c: lib.create_chat_completion(c, question),
            lambda c: lib.create_chat_completion_stream(c, question).response(),
        ):
            try:
                found = read(client)
            except lib.OpenAIError as error:
                found = error
            assert pickle.dumps(found)
            assert repr(found)


@pytest.mark.parametrize("n", [0, -1])
def test_an_empty_stream_is_an_error_whatever_number_of_choices_is_requested(ask, question, n):
    question["n"] = n
    with pytest.raises(lib.StreamInterruptedError):
        lib.create_chat_completion_stream(ask(streamed(done=False)), question).response()


def test_the_text_of_an_unreadable_event_is_on_the_error(ask, question):
    raw = http(sse({"choices": [{"delta": "the words"}]}))
    with pytest.raises(lib.DeserializeError) as caught:
        list(lib.create_chat_completion_stream(ask(raw), question))
    assert "the words" in caught.value.body


def test_invalid_tool_calls_are_kept_unchanged_in_extra():
    odd = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}, None]
    assert message_of({"tool_calls": odd}).extra["tool_calls"] == odd
