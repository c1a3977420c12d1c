"""The sum of a stream's deltas is the message that the server could have sent without a stream."""

import copy
import gc
import json
import pickle
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import lib
from .test_stream import call


def added(*chunks):
    total = lib.ResponseAccumulator()
    for data in chunks:
        total.add(data)
    return total.response()


def choice(delta=..., **others):
    found = {"index": 0, **others} if delta is ... else {"index": 0, "delta": delta, **others}
    return {"choices": [found]}


def message_of(*deltas):
    return added(*map(choice, deltas)).choices[0].message.to_dict()


SUMS = [
    pytest.param("channel", ["final", "final"], "final", id="a-name-repeated"),
    pytest.param("phase", ["thinking", "", None, "answer"], "answer", id="a-name-that-changes"),
    pytest.param("provider", [{"region": "eu", "kind": "text"}] * 2,
                 {"region": "eu", "kind": "text"}, id="an-object-repeated"),
    pytest.param("meta", [{"a": 1}, {"b": [1]}, {"a": 2}], {"a": 2, "b": [1]}, id="an-object-key-by-key"),
    pytest.param("count", [1, 2, 0], 0, id="a-number"),
    pytest.param("scores", [[1, 2], [3]], [3], id="a-list-of-numbers"),
    pytest.param("hits", [[{"title": "A", "content": "a"}]] * 2, [{"title": "A", "content": "a"}],
                 id="objects-without-identity"),
    pytest.param("reasoning_text", ["Let ", None, "me"], "Let me", id="reasoning-text"),
    pytest.param("thinking", ["Let ", "me"], "Let me", id="thinking"),
    pytest.param("token_ids", [[1, 2], [], [3]], [1, 2, 3], id="token-ids"),
    pytest.param("audio", [{"id": "a", "data": "QUJD"}, {"data": "REVG", "id": "a"}],
                 {"id": "a", "data": "QUJDREVG"}, id="audio-data"),
    pytest.param("citations", [["https://a"], ["https://a", "https://b"]],
                 ["https://a", "https://b"], id="citations-repeated"),
    pytest.param("annotations", [[{"type": "url_citation", "url_citation": {"url": u, "content": "c"}}
                                  for u in urls] for urls in ("a", "ab", "ab")],
                 [{"type": "url_citation", "url_citation": {"url": u, "content": "c"}} for u in "ab"],
                 id="annotations-repeated"),
    pytest.param("reasoning_details",
                 [[{"type": "reasoning.text", "text": "Let ", "index": 0}],
                  [{"type": "reasoning.encrypted", "data": "QQ", "index": 0}],
                  [{"type": "reasoning.text", "text": "me", "index": 0, "signature": "s"}],
                  [{"type": "reasoning.encrypted", "data": "Qg", "index": 0}]],
                 [{"type": "reasoning.text", "text": "Let me", "index": 0, "signature": "s"},
                  {"type": "reasoning.encrypted", "data": "QQ", "index": 0},
                  {"type": "reasoning.encrypted", "data": "Qg", "index": 0}],
                 id="two-types-at-one-index"),
    pytest.param("reasoning_details",
                 [[{"type": "reasoning.text", "text": "a", "index": i, "id": n}]
                  for i, n in ((0, "x"), (1, "x"), (0, "y"), (0, "x"))],
                 [{"type": "reasoning.text", "text": "aa", "index": 0, "id": "x"},
                  {"type": "reasoning.text", "text": "a", "index": 1, "id": "x"},
                  {"type": "reasoning.text", "text": "a", "index": 0, "id": "y"}],
                 id="two-ids-at-one-index-and-one-at-two"),
    pytest.param("images",
                 [[{"type": "image_url", "image_url": {"url": u}, "index": 0}] for u in "ABA"],
                 [{"type": "image_url", "image_url": {"url": u}, "index": 0} for u in "ABA"],
                 id="two-images-at-one-index"),
    pytest.param("thinking_blocks",
                 [[{"type": "thinking", "thinking": t, "signature": s}]
                  for t, s in (("a", ""), ("b", ""), ("", "s1"), ("c", ""), ("", "s2"))],
                 [{"type": "thinking", "thinking": "ab", "signature": "s1"},
                  {"type": "thinking", "thinking": "c", "signature": "s2"}],
                 id="signed-blocks-without-an-index"),
    pytest.param("references", [[{"type": "reference", "ids": [0]}], [{"type": "reference", "ids": [1]}],
                                [{"type": "reference", "ids": [0]}]],
                 [{"type": "reference", "ids": [n]} for n in (0, 1, 0)], id="an-item-like-an-earlier-one"),
    pytest.param("meta", [{"input": "high", "text": "q"}] * 2, {"input": "high", "text": "q"},
                 id="names-of-text-keys-inside-an-object"),
    pytest.param("steps", [[{"id": "s", "type": "search", "status": x}] for x in ("begun", "done")],
                 [{"id": "s", "type": "search", "status": "done"}], id="an-update-by-id"),
    pytest.param("reasoning", ["Let ", {"text": "?"}, ["?"], False, "me"], "Let me", id="another-type-after-text"),
    pytest.param("meta", [{"a": 1}, "?", [1], 0], {"a": 1}, id="another-type-after-an-object"),
    pytest.param("tags", [["a"], "?", {"b": 1}, False], ["a"], id="another-type-after-a-list"),
    pytest.param("executed_tools",
                 [[{"index": 0, "type": "search", "arguments": '{"q":1}', **more}] for more in ({}, {"output": "o"})],
                 [{"index": 0, "type": "search", "arguments": '{"q":1}', "output": "o"}],
                 id="the-arguments-of-a-servers-own-tool-twice"),
    pytest.param("server_calls",
                 [[{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}],
                  [{"index": 0, "function": {"arguments": "}"}}]],
                 [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}],
                 id="calls-under-another-name"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "values", "expected"), SUMS)
def test_each_key_adds_up_by_its_rule(key, values, expected):
    message = message_of(*({"content": "x", key: value} for value in values))
    assert message[key] == expected
    assert message["content"] == "x" * len(values)


def test_content_that_is_not_text_does_not_replace_the_text():
    message = message_of({"content": "a"}, {"content": None}, {"content": {}}, {"content": []})
    assert message["content"] == "a"


def test_a_number_after_parts_is_text_of_the_last_part():
    message = message_of({"content": [{"type": "text", "text": "4"}]}, {"content": 2})
    assert message["content"] == [{"type": "text", "text": "42"}]


def test_content_that_turns_into_parts_stays_in_order():
    message = message_of(
        {"content": "a"},
        {"content": [{"type": "image_url", "image_url": {"url": "u"}}, "b"]},
        {"content": "c"},
        {"content": [{"type": "text", "text": "d"}, {"type": "text", "text": "e"}]},
    )
    assert message["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "u"}},
        {"type": "text", "text": "bcd"},
        {"type": "text", "text": "e"},
    ]


# A complete message in place of a delta


WHOLE = {"role": "assistant", "content": "The sky is blue.", "reasoning_content": "Easy."}
PARTS = [choice({"role": "assistant", "reasoning_content": "Easy."}), choice({"content": "The sky "}),
         choice({"content": "is blue."})]  # fmt: skip
FORMS = [
    pytest.param([*PARTS, choice(message=WHOLE, finish_reason="stop")], id="after-all-its-deltas"),
    pytest.param([*PARTS[:2], choice(message=WHOLE, finish_reason="stop")], id="after-some-of-its-deltas"),
    pytest.param([*PARTS, choice({}, message=WHOLE, finish_reason="stop")], id="with-an-empty-delta"),
    pytest.param([choice(part["choices"][0]["delta"], message=None) for part in PARTS], id="null-beside-each-delta"),
    pytest.param([choice(part["choices"][0]["delta"], message={"content": "The"}) for part in PARTS],
                 id="cumulative-beside-each-delta"),
    pytest.param([choice(message=WHOLE)], id="alone"),
    pytest.param([choice(message={**WHOLE, "content": WHOLE["content"][:n]}) for n in (3, 9, 16)],
                 id="cumulative-without-deltas"),
    pytest.param([choice(message=part["choices"][0]["delta"]) for part in PARTS], id="deltas-under-the-name-message"),
    pytest.param([PARTS[0], choice(text="The sky "), choice(text="is blue.")], id="text"),
]  # fmt: skip


@pytest.mark.parametrize("chunks", FORMS)
def test_a_message_in_place_of_a_delta_is_the_same_message(chunks):
    total = lib.ResponseAccumulator()
    shown = [lib.CreateChatCompletionChunk.from_dict(total.add(data)) for data in chunks]
    assert total.response().choices[0].message.to_dict() == WHOLE
    assert "".join(part.text for part in shown) == WHOLE["content"]


def test_a_complete_message_adds_what_its_deltas_lacked():
    calls = [
        {"id": i, "type": "function", "function": {"name": i, "arguments": "{}"}} for i in "ab"
    ]
    complete = {**WHOLE, "tool_calls": calls, "annotations": [{"type": "url_citation"}]}
    response = added(*PARTS, choice(message=complete))
    assert response.choices[0].message.to_dict() == complete
    again = added(choice({"tool_calls": [{"index": i, **c} for i, c in enumerate(calls)]}),
                  choice(message={"tool_calls": calls}))  # fmt: skip
    assert again.choices[0].message.to_dict()["tool_calls"] == calls


def test_a_complete_message_continues_where_its_deltas_ended():
    parts = {
        "content": "The ",
        "audio": {"id": "a", "data": "QUJD"},
        "tool_calls": [call(0, "1", "f", '{"a"')],
    }
    calls = [
        {"id": i, "type": "function", "function": {"name": n, "arguments": '{"a":1}'}}
        for i, n in ("1f", "2g")
    ]
    audio = {"id": "a", "data": "QUJDREVG", "transcript": "Hey", "expires_at": 5}
    complete = {"role": "assistant", "content": "The sky", "audio": audio, "tool_calls": calls}
    for first in (choice(parts), choice(message=parts)):
        response = added(first, choice(message=complete), choice(message=complete))
        assert response.choices[0].message.to_dict() == complete


def complete_call(id_, name, arguments):
    """A tool call in the form that a complete message has."""
    found = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": id_, **found} if id_ else found


X, Y = complete_call("x", "f", '{"a":1}'), complete_call("y", "f", '{"a":2}')
NO_TYPE = {"function": {"name": "f", "arguments": '{"a":1}'}}
AGAIN = [
    pytest.param([{**X, "index": 1}], [X], [X], id="an-index-from-1-and-then-no-index"),
    pytest.param([{**X, "index": 0}, {**Y, "index": 0}], [X, Y], [X, Y], id="all-indexes-0"),
    pytest.param([{**X, "index": 0}, {**Y, "index": 0}],
                 [{**X, "index": 0}, {**Y, "index": 1}], [X, Y], id="all-indexes-0-and-then-correct-ones"),
    pytest.param([NO_TYPE, NO_TYPE], [complete_call(None, "f", '{"a":1}')] * 2, [complete_call(None, "f", '{"a":1}')] * 2,
                 id="no-ids-no-indexes-no-types"),
    pytest.param([NO_TYPE, NO_TYPE], [X, Y], [complete_call("x", "f", '{"a":1}'), complete_call("y", "f", '{"a":1}')],
                 id="ids-only-at-the-end"),
    pytest.param([X], [complete_call("x", "f", '{"a": 1}')], [X], id="arguments-with-other-white-space"),
    pytest.param([X], [complete_call("x", "f", {"a": 1})], [X], id="arguments-as-an-object"),
    pytest.param([X, Y], [complete_call("p", "f", '{"a":1}'), complete_call("q", "f", '{"a":2}')], [X, Y], id="other-ids"),
    pytest.param([X, Y], [Y], [X, Y], id="only-one-of-them"),
    pytest.param([Y, X], [X, Y], [Y, X], id="another-order"),
    pytest.param([X], [X, Y], [X, Y], id="one-more-call"),
    pytest.param([{**X, "index": 1}], [X, Y], [X, Y], id="one-more-call-after-an-index-from-1"),
    pytest.param([complete_call("x", "f", "{}")], [X], [X], id="arguments-after-an-empty-object"),
    pytest.param([complete_call("x", "f", '{"a"'), complete_call("y", "f", '{"a"')], [X, Y], [X, Y], id="arguments-truncated"),
]  # fmt: skip


@pytest.mark.parametrize(("pieces", "complete", "expected"), AGAIN)
def test_calls_in_a_complete_message_are_those_of_its_deltas(pieces, complete, expected):
    deltas = [choice({"tool_calls": [piece]}) for piece in pieces]
    end = choice(message={"tool_calls": complete})
    assert added(*deltas, end, end).choices[0].message.to_dict()["tool_calls"] == expected


def test_the_calls_of_a_complete_message_are_shown_with_their_indexes():
    total = lib.ResponseAccumulator()
    total.add(choice(message={"tool_calls": [X]}))
    for complete in ([X, Y], [Y]):
        again = copy.deepcopy(total)
        [shown] = again.add(choice(message={"tool_calls": complete}))["choices"]
        assert shown["delta"]["tool_calls"] == [{"index": 1, **Y}]


@pytest.mark.parametrize("arguments", ["{}", '{"a":1}', ""])
def test_a_complete_message_that_brings_nothing_new_is_shown_as_an_empty_delta(arguments):
    message = {
        "role": "assistant",
        "content": "a",
        "tool_calls": [complete_call("x", "f", arguments)],
        "annotations": [{"type": "url_citation"}],
    }
    total = lib.ResponseAccumulator()
    total.add(choice(message))
    [shown] = total.add(choice(message=message, finish_reason="stop"))["choices"]
    assert shown == {"index": 0, "delta": {}, "finish_reason": "stop"}


def text_part(text):
    return {"type": "text", "text": text}


THOUGHT = {"type": "thinking", "thinking": "Hm"}
IMAGE = {"type": "image_url", "image_url": {"url": "u"}}
CONTENTS = [
    pytest.param(["Hel"], "Hello", "Hello", id="text"),
    pytest.param([[text_part("Hel")]], "Hello", [text_part("Hello")], id="text-after-parts"),
    pytest.param([[{"text": "Hel"}]], "Hello", [text_part("Hello")], id="text-after-parts-without-a-type"),
    pytest.param([[text_part("Hel")]], [text_part("Hello")], [text_part("Hello")], id="parts-after-parts"),
    pytest.param(["Hel"], [text_part("Hello")], [text_part("Hello")], id="parts-after-text"),
    pytest.param(["Hel"], [text_part("Hello"), IMAGE], [text_part("Hello"), IMAGE], id="one-part-more"),
    pytest.param([[THOUGHT], "Hel"], "Hello", [THOUGHT, text_part("Hello")], id="text-after-a-thought"),
    pytest.param([[THOUGHT], "Hel"], [text_part("Hello")], [THOUGHT, text_part("Hello")],
                 id="parts-without-the-thought"),
    pytest.param(["Hel"], [THOUGHT, text_part("Hel")], ["Hel", THOUGHT], id="a-late-thought"),
    pytest.param(["Hel", [IMAGE], "lo"], "Hello", [text_part("Hel"), IMAGE, text_part("lo")],
                 id="text-around-an-image"),
    pytest.param([" Hello"], [text_part("Hello")], " Hello", id="trimmed"),
    pytest.param([[text_part(" Hello")]], "Hello", [text_part(" Hello")], id="parts-trimmed"),
]  # fmt: skip


@pytest.mark.parametrize(("deltas", "complete", "expected"), CONTENTS)
def test_content_of_a_complete_message_is_that_of_its_deltas(deltas, complete, expected):
    end = choice(message={"content": complete})
    response = added(*(choice({"content": one}) for one in deltas), end, end)
    found = response.choices[0].message.to_dict()["content"]
    if isinstance(expected, list):
        expected = [text_part(part) if isinstance(part, str) else part for part in expected]
    assert found == expected


@pytest.mark.parametrize("key", ["logprobs", "token_ids"])
@pytest.mark.parametrize("again", ["abc", "b", "xbc"])
def test_logprobs_and_token_ids_repeated_with_a_complete_message_are_added_once(key, again):
    def chunk(form, letters):
        tokens = [{"token": letter} for letter in letters]
        value = {"content": tokens} if key == "logprobs" else [*map(ord, letters)]
        return choice(**{form: {"content": letters}, key: value})

    found = added(chunk("delta", "a"), chunk("delta", "b"), chunk("message", again)).choices[0]
    expected = added(chunk("delta", "abc" if again == "abc" else "ab")).choices[0]
    assert found.to_dict() == {**expected.to_dict(), "message": found.message.to_dict()}


@pytest.mark.parametrize("key", ["annotations", "reasoning_details", "token_ids"])
def test_lists_in_a_complete_message_bring_what_its_deltas_lacked(key):
    items = [7, 8] if key == "token_ids" else [{"type": n, "index": i} for i, n in enumerate("ab")]
    response = added(choice({"content": "a", key: items[:1]}), choice(message={key: items}))
    assert response.choices[0].message.to_dict()[key] == items


# Usage, and what is beside the choices

USAGE = [
    pytest.param([{"prompt_tokens": 8, "completion_tokens": 0}, {"completion_tokens": 2}],
                 {"prompt_tokens": 8, "completion_tokens": 2}, id="in-two-parts"),
    pytest.param([{}, {"total_tokens": 3}, None], {"total_tokens": 3}, id="empty-and-null"),
    pytest.param([{"total_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}}, {"total_tokens": 4}],
                 {"total_tokens": 4, "prompt_tokens_details": {"cached_tokens": 1}}, id="details-stay"),
]  # fmt: skip


@pytest.mark.parametrize(("usages", "expected"), USAGE)
@pytest.mark.parametrize("place", ["beside", "in-the-choice", "x_groq"])
def test_usage_is_merged_wherever_it_appears(usages, expected, place):
    chunks = []
    for usage in usages:
        if place == "beside":
            chunks.append({**choice({"content": "a"}), "usage": usage})
        elif place == "in-the-choice":
            chunks.append(choice({"content": "a"}, usage=usage))
        else:
            chunks.append({**choice({"content": "a"}), "x_groq": {"id": "r", "usage": usage}})
    assert added(*chunks).usage.to_dict() == expected


def test_id_and_model_are_the_first_non_empty_ones_of_a_chunk_with_a_choice():
    response = added(
        {"id": "tool-1", "model": "other", "choices": []},
        {"id": "", "model": "", **choice({"content": "a"})},
        {"id": "x", "model": "m", "created": 5, **choice({"content": "b"})},
        {"id": "y", "model": "n", **choice({"content": "c"})},
    )
    assert (response.id, response.model, response.created) == ("x", "m", 5)


@pytest.mark.parametrize("null", ["null", "None"])
def test_a_finish_reason_of_null_as_text_counts_as_none(null):
    total = lib.ResponseAccumulator()
    total.add(choice({"content": "a"}, finish_reason=null))
    assert total.unfinished == {0}
    total.add(choice({}, finish_reason="length"))
    total.add(choice({}, finish_reason="stop"))
    assert total.response().choices[0].finish_reason == "length"


# Tool calls: a case for each rule that assigns a piece to its call

CALLS = [
    pytest.param([call(0, "1", "f", ""), call(0, "2", "", '{"a"'), call(0, "2", "", ":1}")],
                 [("f", '{"a":1}')], id="the-id-changes-without-a-name"),
    pytest.param([call(0, "1", "f", ""), call(0, "2", "g", "{}")],
                 [("f", ""), ("g", "{}")], id="the-id-changes-with-a-name"),
    pytest.param([call(..., "1", "f", "{"), call(..., "2", None, "}")],
                 [("f", "{"), (None, "}")], id="the-id-changes-without-an-index"),
    pytest.param([call(0, "1", "get_", ""), call(0, None, "weather", "{}"), call(0, None, "get_weather")],
                 [("get_weather", "{}")], id="the-name-in-pieces"),
    pytest.param([call(0, "1", "get", ""), call(0, "1", "get_weather", ""), call(0, "1", "get_weather", "{}")],
                 [("get_weather", "{}")], id="the-name-cumulative"),
    pytest.param([call(0, "1", "get_", ""), call(0, "1", "weather", "{}"), call(0, "1", "other")],
                 [("get_weather", "{}")], id="the-name-in-pieces-with-the-id"),
    pytest.param([call(0, None, "f", '{"a":1}'), call(0, None, "g", '{"b":'), call(0, None, None, "2}")],
                 [("f", '{"a":1}'), ("g", '{"b":2}')], id="another-name-after-arguments"),
    pytest.param([call(0, "1", "f", "{}"), call(0, None, None, '{"a"'), call(0, None, None, ":1}")],
                 [("f", '{"a":1}')], id="an-empty-object-first"),
    pytest.param([call(0, "1", "f", {}), call(0, None, None, '{"a":1}')],
                 [("f", '{"a":1}')], id="an-empty-object-as-an-object-first"),
    pytest.param([call(0, "1", "f", []), call(0, None, None, '{"a":1}')],
                 [("f", '{"a":1}')], id="an-empty-list-first"),
    pytest.param([call(0, "1", "f", "{}")], [("f", "{}")], id="an-empty-object-alone"),
    pytest.param([call(0, None, "f", "{}\n"), call(0, None, "f", '{"a":1}')],
                 [("f", '{"a":1}')], id="an-empty-object-first-and-the-name-again"),
    pytest.param([call(0, "f", "f", '{"a":1}'), call(1, "f", "f", '{"a":1}')],
                 [("f", '{"a":1}')] * 2, id="the-name-of-the-function-as-the-id-of-two-calls"),
    pytest.param([call(0, "1", "f", '{"a":1}'), call(0, "1", "f", '{"a":1}')],
                 [("f", '{"a":1}')], id="the-arguments-twice"),
    pytest.param([call(0, "1", "f", {"a": 1}), call(0, "1", "f", {"a": 1, "b": 2})],
                 [("f", '{"a": 1, "b": 2}')], id="the-arguments-cumulative-as-an-object"),
    pytest.param([call(0, "1", "f", '{"a":'), call(0, None, None, '{"a":'), call(0, None, None, "1}}")],
                 [("f", '{"a":{"a":1}}')], id="an-object-that-begins-like-its-outer-one"),
    pytest.param([call(0.0, "1", "f", "{"), call("1", "2", "g", "{"), call("0", None, None, "}"),
                  call(1.0, None, None, "}")],
                 [("f", "{}"), ("g", "{}")], id="indexes-as-floats-and-text"),
    pytest.param([call(..., "1", "f", ""), call(0, None, None, "{}")],
                 [("f", "{}")], id="an-index-only-later"),
    pytest.param([call(..., "1", "f", ""), call(1, None, None, "{"), call(1, None, None, "}")],
                 [("f", "{}")], id="an-index-from-1-only-later"),
    pytest.param([call(..., "1", "f", ""), call(0, None, None, "{}"), call(..., "2", "g", ""),
                  call(1, None, None, "{}")],
                 [("f", "{}"), ("g", "{}")], id="an-index-only-later-in-each-of-two"),
    pytest.param([call(0, ["odd"], {"odd": 1}, "{"), call(0, None, None, "}")],
                 [({"odd": 1}, "{}")], id="odd-types"),
]  # fmt: skip


@pytest.mark.parametrize(("pieces", "expected"), CALLS)
def test_pieces_of_tool_calls_are_assigned_to_the_right_call(pieces, expected):
    calls = message_of(*({"tool_calls": [piece]} for piece in pieces))["tool_calls"]
    found = [(one["function"].get("name"), one["function"]["arguments"]) for one in calls]
    assert found == expected


@pytest.mark.parametrize("role", [None, ""])
def test_a_message_without_a_role_is_the_assistants(role):
    assert message_of({"role": role, "content": "a"})["role"] == "assistant"


@pytest.mark.parametrize("type_", [None, ""])
@pytest.mark.parametrize("kind", ["function", "custom"])
def test_the_type_of_a_call_is_inferred_from_its_function_or_custom_key(type_, kind):
    delta = {"tool_calls": [{"index": 0, "id": "x", "type": type_, kind: {"name": "f"}}]}
    assert message_of(delta)["tool_calls"][0]["type"] == kind


def test_a_call_keeps_its_first_id_and_no_trace_of_the_others():
    total = lib.ResponseAccumulator()
    size = 0
    for number in range(2000):
        total.add(choice({"tool_calls": [call(0, f"call-{number}", "" if number else "f", " ")]}))
        if number in (999, 1999):
            gc.collect()
            before, size = size, sys.getallocatedblocks()
    assert size - before < 500, "a thousand more ids are not kept"
    [only] = total.response().choices[0].message.tool_calls
    assert (only.id, only.function.name, len(only.function.arguments)) == ("call-0", "f", 2000)


# Any complete message, cut anywhere

texts = st.text(max_size=12)
scalars = st.none() | st.booleans() | st.integers() | texts
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3), max_leaves=6
)
RUNNING = ["content", "refusal", "reasoning_content", "reasoning", "reasoning_text", "thinking"]
ids = st.text("abc", min_size=1, max_size=3)
unknown = st.dictionaries(
    st.sampled_from(["channel", "phase", "provider", "meta", "count", "tags"]), values, max_size=3
)
calls = st.lists(
    st.fixed_dictionaries({"name": ids, "arguments": st.just("{}") | texts.map(lambda t: json.dumps({"a": t}))}),
    max_size=3,
).map(
    lambda found: [
        {"id": f"call_{i}", "type": "function", "function": f} for i, f in enumerate(found)
    ]
)  # fmt: skip
details = st.lists(texts.filter(bool), max_size=3).map(
    lambda found: [{"type": "reasoning.text", "index": i, "text": t} for i, t in enumerate(found)]
)
messages = st.builds(
    lambda texts, unknown, calls, details: {
        "role": "assistant",
        **{key: text for key, text in texts.items() if text},
        **unknown,
        **({"tool_calls": calls} if calls else {}),
        **({"reasoning_details": details} if details else {}),
    },
    st.dictionaries(st.sampled_from(RUNNING), texts, max_size=4),
    unknown,
    calls,
    details,
)


def pieces(draw, text):
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def streams(draw):
    """Complete messages, and the deltas of each, interleaved as the chunks of one stream."""
    wholes = draw(st.lists(messages, min_size=1, max_size=3))
    queues = []
    for index, message in enumerate(wholes):
        deltas = []
        for key, value in message.items():
            if key in RUNNING:
                deltas += [{key: piece} for piece in pieces(draw, value)]
            elif key == "tool_calls":
                for i, one in enumerate(value):
                    begin = {**one, "index": i, "function": {**one["function"], "arguments": ""}}
                    deltas.append({key: [begin]})
                    for piece in pieces(draw, one["function"]["arguments"]):
                        deltas.append({key: [{"index": i, "function": {"arguments": piece}}]})
            elif key == "reasoning_details":
                for item in value:
                    deltas += [{key: [{**item, "text": p}]} for p in pieces(draw, item["text"])]
            else:
                deltas += [{key: value}] * draw(st.integers(1, 2))
        queues.append([choice(delta, index=index) for delta in deltas])
    chunks = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        chunks.append(queue.pop(0))
    return wholes, chunks


def without_empty(value):
    """A message without its empty values, so that an empty one equals a missing one."""
    if isinstance(value, dict):
        found = {key: without_empty(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item not in (None, "", [], {})}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


@given(streams())
def test_the_sum_of_any_cuts_of_a_message_is_that_message(stream):
    wholes, chunks = stream
    before = copy.deepcopy(chunks)
    response = added(*chunks)
    found = [without_empty(one.message.to_dict()) for one in response.choices]
    assert found == [without_empty(message) for message in wholes]
    assert chunks == before, "what is added is never changed"
    assert pickle.loads(pickle.dumps(response)) == response


@given(st.lists(st.dictionaries(st.sampled_from([*RUNNING, "tool_calls", "audio", "x"]), values)))
def test_the_sum_of_arbitrary_deltas_shares_no_objects_with_them(deltas):
    total = lib.ResponseAccumulator()
    for delta in deltas:
        total.add(choice(delta))
    message = copy.deepcopy(total.response().to_dict())
    for delta in deltas:
        for value in delta.values():
            if isinstance(value, (dict, list)):
                value.clear()
    assert total.response().to_dict() == message


odd = st.sampled_from([None, 0, 1, "", "{", "}", "a", [], {}])
odd_calls = st.dictionaries(st.sampled_from(["index", "id", "type", "function"]), odd)
odd_messages = st.fixed_dictionaries(
    {"tool_calls": st.lists(odd_calls | odd, max_size=3), "content": odd, "audio": odd}
)


@given(odd_messages, odd_messages)
def test_arbitrary_messages_in_place_of_deltas_are_accepted(first, second):
    for form in ({"message": first}, {"delta": first}, {"delta": {"meta": first}}):
        total = lib.ResponseAccumulator()
        total.add({"choices": [form]})
        total.add({"choices": [{"message": {**second, "meta": second}}]})
        assert len(total.response().choices) == 1
