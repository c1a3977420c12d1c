"""The objects of the API: what is set is sent, what comes in is kept, properties never raise."""

import copy
import inspect
import json
import pickle
import re
import subprocess
import sys
from dataclasses import asdict, fields, is_dataclass, replace

import pytest

from . import lib
from .wire import http

OBJECTS = dict.fromkeys(  # each once, though several modules name it
    value
    for module in lib.modules
    for value in vars(module).values()
    if isinstance(value, type) and is_dataclass(value) and issubclass(value, lib.JSONObject)
)


def test_a_misspelt_parameter_is_a_type_error_when_the_request_is_built():
    with pytest.raises(TypeError, match="temprature"):
        lib.CreateChatCompletionRequest(model="m", messages=[], temprature=0.5)


def test_a_request_without_model_or_messages_is_a_type_error():
    with pytest.raises(TypeError, match="messages"):
        lib.CreateChatCompletionRequest(model="m")


def test_arguments_that_are_too_many_or_given_twice_are_a_type_error():
    with pytest.raises(TypeError, match="positional arguments but 5 were given"):
        lib.FunctionCall("f", "{}", {}, "more")
    with pytest.raises(TypeError, match="got multiple values for argument 'name'"):
        lib.FunctionCall("f", name="g")
    with pytest.raises(TypeError, match="takes 1 positional argument but 2"):
        lib.CreateChatCompletionRequest("m", messages=[])


def test_every_parameter_of_the_api_is_a_field():
    names = {field.name for field in fields(lib.CreateChatCompletionRequest)} - {"extra"}
    assert names == {
        "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs",
        "max_completion_tokens", "max_tokens", "messages", "metadata", "modalities", "model",
        "moderation", "n", "parallel_tool_calls", "prediction", "presence_penalty",
        "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort",
        "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream",
        "stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user",
        "verbosity", "web_search_options",
    }  # fmt: skip


def test_help_describes_every_parameter_in_the_order_of_the_fields():
    told = inspect.getdoc(lib.CreateChatCompletionRequest)
    meanings = dict(re.findall(r"(?m)^(\w+): (.+)$", told))
    assert list(meanings) == [field.name for field in fields(lib.CreateChatCompletionRequest)]
    for name, given in {
        "temperature": "0 to 2", "top_p": "0 to 1", "presence_penalty": "-2 to 2", "n": "1 to 128",
        "logit_bias": "-100 to 100", "top_logprobs": "0 to 20", "safety_identifier": "64",
        "metadata": "512", "reasoning_effort": "xhigh", "service_tier": "flex", "seed": "deprecated",
    }.items():  # fmt: skip
        assert given in meanings[name]


def test_roles_and_models_are_strings():
    assert lib.ChatRole.SYSTEM == "system"
    assert str(lib.ChatRole.TOOL) == f"{lib.ChatRole.TOOL}" == "tool"
    assert lib.Model.GPT_4O_MINI == "gpt-4o-mini"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (lib.ChatMessage(lib.ChatRole.USER, "a"), {"role": "user", "content": "a"}),
        (lib.ChatMessage.system("a"), {"role": "system", "content": "a"}),
        (lib.ChatMessage.developer("a"), {"role": "developer", "content": "a"}),
        (lib.ChatMessage.user("a"), {"role": "user", "content": "a"}),
        (lib.ChatMessage.assistant(""), {"role": "assistant", "content": ""}),
        (
            lib.ChatMessage.tool("call_1", "4"),
            {"role": "tool", "content": "4", "tool_call_id": "call_1"},
        ),
        (
            lib.ChatMessage.user("a").to_dict() | {"x": 1},
            {"role": "user", "content": "a", "x": 1},
        ),
        (
            lib.ChatMessage("user", [lib.ContentPart("text", text="a"), {"type": "image_url"}]),
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]},
        ),
    ],
)
def test_a_message_is_sent_as_the_api_writes_it(message, expected):
    message = lib.ChatMessage.from_dict(message) if isinstance(message, dict) else message
    assert message.to_dict() == expected


CALLS = [lib.ToolCall(id="1", type="function", function=lib.FunctionCall("f", "{}"))]


@pytest.mark.parametrize(
    ("message", "role"),
    [
        (lib.ChatMessage(lib.ChatRole.USER, "Hi"), "user"),
        (lib.ChatMessage("user", "Hi"), "user"),
        (lib.ChatMessage(role="assistant", tool_calls=CALLS), "assistant"),
        (lib.ChatMessage("tool", "x", tool_call_id="1"), "tool"),
        (lib.ChatMessage("critic", "A role of one server's own."), "critic"),
        (lib.ChatMessage("critic", extra={"parts": ["x"]}), "critic"),
        (lib.ChatMessage(lib.ChatRole.ASSISTANT), "assistant"),
        (lib.ChatMessage("assistant", None), "assistant"),
    ],
)
def test_a_message_is_built_from_any_role_and_its_fields(message, role):
    assert message.role == role
    assert replace(message) == message


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["Hello"], {}),
        (["Hello", None], {}),
        ([], {"role": "Hello"}),
        ([], {"content": "Hello"}),
        ([], {"tool_calls": CALLS}),
        ([""], {"content": "Hello"}),
        ([None, "Hello"], {}),
        ([{"role": "user", "content": "Hello"}], {}),
        ([], {}),
    ],
)
def test_a_message_without_a_role_is_a_type_error_that_says_what_to_write(given, named):
    with pytest.raises(TypeError, match=r'write ChatMessage\.user\("Hello"\)'):
        lib.ChatMessage(*given, **named)


@pytest.mark.parametrize(
    ("came", "role"),
    [
        ({}, "assistant"),
        ({"content": "Hello"}, "assistant"),
        ({"role": None, "content": "Hello"}, "assistant"),
        ({"role": "Hello"}, "Hello"),
        ({"role": "", "content": "Hello"}, ""),
        ({"role": 5}, 5),
    ],
)
def test_any_role_is_read(came, role):
    message = lib.ChatMessage.from_dict(came)
    assert message.role == role
    assert message == copy.copy(message) == pickle.loads(pickle.dumps(message))


def test_a_choice_without_a_message_has_an_empty_one():
    assert lib.ChatCompletionChoice().message == lib.ChatMessage(lib.ChatRole.ASSISTANT)
    assert lib.ChatCompletionChoice.from_dict({}).message.to_dict() == {"role": "assistant"}


@pytest.mark.parametrize("part", ["tool_calls", "function_call"])
def test_a_call_is_sent_with_its_null_content(part):
    call = {"name": "f", "arguments": "{}"}
    came = {
        "role": "assistant",
        "content": None,
        part: [{"id": "1", "type": "function", "function": call}] if part == "tool_calls" else call,
    }
    assert lib.ChatMessage.from_dict(came).to_dict() == came


def test_a_received_message_goes_back_with_what_the_provider_added():
    came = {
        "role": "assistant",
        "content": "4",
        "reasoning_content": "2 and 2",
        "tool_calls": [
            {
                "id": "1",
                "type": "function",
                "function": {"name": "f", "arguments": "{}", "strict": True},
                "extra_content": {"google": {"thought_signature": "abc"}},
            }
        ],
    }
    assert lib.ChatMessage.from_dict(came | {"refusal": None, "audio": None}).to_dict() == came


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a", "a"),
        (None, ""),
        (5, "5"),
        (True, "true"),
        ([{"type": "text", "text": "a"}, {"type": "refusal"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "thinking", "thinking": [1]}, {"text": None}, {"text": {}}], ""),
    ],
)
def test_text_joins_the_text_parts_and_never_raises(content, text):
    message = lib.ChatMessage.from_dict({"role": "assistant", "content": content})
    response = lib.CreateChatCompletionResponse([lib.ChatCompletionChoice(message=message)])
    assert (message.text, response.text) == (text, text)


# The forms of a choice


SAID = {"role": "assistant", "content": "Yes."}


@pytest.mark.parametrize(
    "other", [None, {}, {"role": "assistant", "content": ""}, SAID, "odd", [5]]
)
def test_a_delta_beside_a_message_or_the_reverse_is_not_kept_in_extra(other):
    choice = lib.ChatCompletionChoice.from_dict({"message": SAID, "delta": other, "new": 1})
    assert choice.to_dict() == {"message": SAID, "new": 1}
    choice = lib.ChatCompletionChunkChoice.from_dict({"delta": SAID, "message": other, "new": 1})
    assert choice.to_dict() == {"delta": SAID, "new": 1}


def test_a_key_in_extra_does_not_override_a_field():
    message = lib.ChatMessage.assistant("Yes.")
    message.extra = {"content": "No.", "name": "ann"}
    choice = lib.ChatCompletionChoice(0, message, extra={"message": None, "delta": {}, "index": 7})
    assert choice.to_dict() == {"index": 0, "message": SAID | {"name": "ann"}}
    response = lib.CreateChatCompletionResponse([choice], extra={"choices": [], "id": "a"})
    assert response.to_dict() == {"choices": [choice.to_dict()], "id": "a"}


@pytest.mark.parametrize(
    "came",
    [
        {"message": SAID},
        {"delta": SAID},
        {"message": None, "delta": SAID},
        {"message": {}, "delta": SAID},
        {"delta": None, "message": SAID},
        {"delta": {}, "message": SAID},
        {"text": "Yes."},
        {"message": None, "delta": None, "text": "Yes."},
    ],
    ids=str,
)
def test_a_choice_is_read_alike_from_message_delta_and_text(came):
    for read in (lib.ChatCompletionChoice.from_dict(came).message,
                 lib.ChatCompletionChunkChoice.from_dict(came).delta):  # fmt: skip
        assert read.text == "Yes."
    whole = lib.CreateChatCompletionResponse.from_dict({"choices": [came]})
    assert whole.choices[0].to_dict() == {"message": SAID}
    chunk = lib.CreateChatCompletionChunk.from_dict({"choices": [came]})
    assert (whole.text, chunk.text) == ("Yes.", "Yes.")


def test_a_text_beside_a_message_is_kept_in_extra():
    came = {"message": SAID, "text": "Aside."}
    assert lib.ChatCompletionChoice.from_dict(came).extra == {"text": "Aside."}
    assert lib.ChatCompletionChunkChoice.from_dict({"delta": {}, "text": 5}).extra == {"text": 5}


def test_text_of_a_response_without_choices_is_empty():
    assert lib.CreateChatCompletionResponse([]).text == ""
    assert lib.CreateChatCompletionChunk().text == ""


def test_text_of_a_chunk_is_that_of_the_first_choice():
    chunk = lib.CreateChatCompletionChunk.from_dict(
        {
            "choices": [
                {"index": 1, "delta": {"content": "b"}},
                {"index": 0, "delta": {"content": "a"}},
            ]
        }
    )
    assert chunk.text == "a"
    del chunk.choices[1]
    assert chunk.text == ""


STEP = {"type": "reasoning.text", "text": "hm", "index": 0}
THOUGHT = {"type": "thinking", "thinking": "hm"}
SUMMARY = {"type": "summary_text", "text": "m"}


@pytest.mark.parametrize(
    "said",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"reasoning_text": "hm"},
        {"thinking": "hm"},
        {"reasoning_content": "hm", "reasoning": "other", "reasoning_details": [STEP]},
        {"reasoning_content": "", "reasoning": None, "thinking": "hm"},
        {"reasoning": {"effort": 3}, "thinking": "hm"},
        {"reasoning_details": [STEP]},
        {"reasoning": "", "reasoning_details": [{**STEP, "text": "h"}, {**STEP, "text": "m"}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}, STEP, 5, None]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]},
        {"content": [THOUGHT, {"type": "text", "text": "Yes."}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
        {"content": [{"type": "reasoning", "text": "h"}, {"type": "reasoning", "reasoning": "m"}]},
        {"content": [{"type": "reasoning", "summary": [{**SUMMARY, "text": "h"}, SUMMARY]}]},
        {"content": [THOUGHT], "reasoning_details": [], "thinking": ""},
    ],
    ids=str,
)
def test_reasoning_is_read_wherever_it_stands(said):
    assert lib.ChatMessage.from_dict({"role": "assistant", **said}).reasoning == "hm"
    assert lib.ChatCompletionDelta.from_dict(said).reasoning == "hm"


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"content": "a"},
        {"content": [{"type": "text", "text": "a"}, {"type": ["thinking"], "text": "b"}, 5]},
        {
            "reasoning": 5,
            "thinking": {"text": 5},
            "reasoning_details": "",
            "content": [THOUGHT | {"thinking": 1}],
        },
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]},
    ],
    ids=str,
)
def test_where_there_is_no_reasoning_it_is_empty(said):
    assert lib.ChatMessage.from_dict({"role": "assistant", **said}).reasoning == ""
    assert lib.ChatCompletionDelta.from_dict(said).reasoning == ""


def test_reasoning_of_any_depth_raises_nothing():
    deep = "hm"
    for _ in range(100_000):
        deep = [deep]
    for key in ("reasoning", "reasoning_details", "content"):
        assert lib.ChatCompletionDelta.from_dict({key: deep}).reasoning == ""


@pytest.mark.parametrize(
    "said",
    [{"content": "Hi"}, {"content": [{"type": "thinking", "signature": "x"}] * 10},
     {"reasoning": {"effort": "low"}, "reasoning_details": [{"data": "x"}] * 10}],
    ids=str,
)  # fmt: skip
def test_looking_for_reasoning_takes_a_bounded_number_of_steps(said):
    message = lib.ChatMessage.from_dict({"role": "assistant", **said})
    calls = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, argument: calls.append(event))
    try:
        found = message.reasoning
    finally:
        sys.setprofile(before)
    assert found == ""
    assert len(calls) < 2000


def test_text_is_without_the_reasoning():
    content = [THOUGHT, {"type": "reasoning", "text": "hm"}, {"type": "text", "text": "Yes."}]
    assert lib.ChatMessage.from_dict({"content": content}).text == "Yes."
    assert lib.ChatCompletionDelta.from_dict({"content": content}).text == "Yes."


TOKENS = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


@pytest.mark.parametrize(
    "came",
    [
        {"choices": [{"message": {}}], "usage": TOKENS},
        {"choices": [{"message": {}}, {"index": 1, "message": {}, "usage": TOKENS}]},
        {"choices": [{"message": {}, "usage": TOKENS}], "usage": None},
        {"choices": [{"message": {}, "usage": None}], "usage": {}, "x_groq": {"usage": TOKENS}},
    ],
    ids=str,
)
def test_usage_is_read_wherever_it_stands(ask, question, came):
    response = lib.create_chat_completion(ask(http(came)), question)
    assert response.usage == lib.ChatCompletionUsage(1, 2, 3)


@pytest.mark.parametrize(
    "came", [{}, {"usage": None}, {"choices": None}, {"x_groq": {"error": "no"}}, {"x_groq": "odd"}]
)
def test_usage_that_was_not_reported_is_none(came):
    assert lib.CreateChatCompletionChunk.from_dict({"choices": [], **came}).usage is None


@pytest.mark.parametrize("cls", OBJECTS, ids=lambda cls: cls.__name__)
def test_every_object_is_documented_and_equal_to_its_copies(cls):
    needed = {"choices": [], "data": [], "messages": [], "model": "m", "role": "user"}
    required = {f.name: needed[f.name] for f in fields(cls) if f.name in needed}
    it = cls(**required)
    it.extra["a"] = [1]
    assert cls.__doc__
    for other in (copy.copy(it), copy.deepcopy(it), pickle.loads(pickle.dumps(it))):
        assert other == it
    assert it != cls(**required)
    assert it != "it"
    assert cls(**required).extra == {}, "defaults are not shared"


def test_a_misspelt_field_cannot_be_set():
    for written in (
        lib.ChatMessage.user("Hi"),
        lib.CreateChatCompletionRequest(model="m", messages=[]),
    ):
        with pytest.raises(AttributeError):
            written.temprature = 1


def test_a_repr_shows_what_is_set():
    message = lib.ChatMessage.user("a")
    assert repr(message) == "ChatMessage(role=<ChatRole.USER: 'user'>, content='a')"


def test_dataclasses_replace_works():
    request = lib.CreateChatCompletionRequest(model="m", messages=[])
    assert replace(request, temperature=0.5).to_dict() == {
        "model": "m", "messages": [], "temperature": 0.5,
    }  # fmt: skip


def received():
    """A response with the request id and headers of its HTTP reply."""
    response = lib.CreateChatCompletionResponse.from_dict({"choices": [{}], "request_id": "stored"})
    assert (response.request_id, response.headers) == (None, {})
    response.request_id, response.headers = "req_1", {"set-cookie": "a"}
    return response


def test_request_id_and_headers_are_not_part_of_the_json():
    response = received()
    assert response.to_dict() == {
        "choices": [{"message": {"role": "assistant"}}],
        "request_id": "stored",
    }
    assert "set-cookie" not in json.dumps(asdict(response))
    assert not {"request_id", "headers"} & {field.name for field in fields(response)}
    assert "req_1" not in repr(response)
    assert response == lib.CreateChatCompletionResponse.from_dict(response.to_dict())


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_a_copied_response_has_its_request_id_and_headers(copied):
    other = copied(received())
    assert (other.request_id, other.headers) == ("req_1", {"set-cookie": "a"})


def test_the_default_headers_of_a_response_are_read_only():
    with pytest.raises(TypeError):
        lib.CreateChatCompletionResponse([]).headers["a"] = "b"


def test_the_signature_of_an_object_is_that_of_its_fields():
    fresh = f"import {lib.name} as lib, inspect; print(inspect.signature(lib.ContentPart))"
    printed = subprocess.run(
        [sys.executable, "-c", fresh], capture_output=True, text=True, check=True
    )
    shown = printed.stdout.replace("'", "")  # a copy in one file has hints as text
    assert shown.startswith("(type: str | None = None, text: str | None = None,")


def test_an_object_can_be_derived_from():
    fresh = f"""
import dataclasses, {lib.name} as lib
class Mine(lib.ChatMessage):
    def __init__(self, text):
        super().__init__("user", text)
@dataclasses.dataclass
class Yours(lib.ChatMessage):
    mood: str | None = None
assert [Mine("a").text, Mine("b").text] == ["a", "b"]
assert Yours("user", "a", mood="ok").to_dict() == {{"role": "user", "content": "a", "mood": "ok"}}
assert lib.ChatMessage("user", "c").text == "c"
assert Yours.from_dict({{"role": "user", "mood": "ok"}}).mood == "ok"
try:
    lib.ChatMessage("user", "a", contnt="b")
except TypeError as error:
    assert "ChatMessage.__init__() got an unexpected keyword argument 'contnt'" in str(error), error
"""
    subprocess.run([sys.executable, "-W", "error", "-c", fresh], check=True)
