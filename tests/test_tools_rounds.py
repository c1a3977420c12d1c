"""The rounds of a tool run: streams, checks before a call, parallel calls, truncated calls."""

import json
import threading
from contextvars import ContextVar
from dataclasses import dataclass

import pytest

from . import lib
from .test_tools import OWN, add, call, calls, tool_results


def sent_ids(request):
    """The ids of all calls that were sent with a request, and those of their results."""
    messages = request.body["messages"]
    made = [one["id"] for message in messages for one in message.get("tool_calls") or ()]
    answered = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    return made, answered


def cut(arguments, name="add", **more):
    message = {"role": "assistant", **calls(call(name, arguments)), **more}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
        "usage": {"completion_tokens": 9},
    }


# Streams


def test_a_run_streams_its_chunks_and_between_rounds_its_calls(offline, question):
    client = offline(calls(call("add", {"a": 1}, "x"), call("add", {"a": 2}, "y")), "Two, three.")
    stream = lib.stream_tools(client, question, [add])
    items = list(stream)
    places = [place for place, item in enumerate(items) if isinstance(item, lib.ToolCall)]
    assert [items[place].id for place in places] == ["x", "y"]
    chunks = [item for item in items if not isinstance(item, lib.ToolCall)]
    assert "".join(chunk.text for chunk in chunks) == "Two, three."
    assert "".join(chunk.text for chunk in items[: places[0]]) == ""  # the first round's
    run = stream.result()
    assert run.text == "Two, three."
    assert run.rounds == 2
    assert len(run.messages) == 5
    assert [answer["content"] for answer in tool_results(client)] == ["2", "3"]


def test_a_call_is_shown_before_it_is_carried_out(offline, question):
    done = []

    def book(seat: int) -> None:
        done.append(seat)

    client = offline(calls(call("book", {"seat": 1})), "Booked.")
    with lib.stream_tools(client, question, [book]) as stream:
        for item in stream:
            if isinstance(item, lib.ToolCall):
                assert done == []
                break
    with pytest.raises(lib.StreamInterruptedError):
        list(stream)
    assert done == []  # after that, nothing more is sent or carried out
    assert len(client.server.requests) == 1
    with pytest.raises(lib.StreamInterruptedError):
        stream.result()


def test_the_result_reads_what_is_left_of_a_stream(offline, question):
    client = offline(calls(call("add", {"a": 1})), "2")
    with lib.stream_tools(client, question, [add]) as stream:
        next(stream)
        assert stream.result().text == "2"
        assert stream.result().rounds == 2


def test_a_generator_passes_a_stream_on_and_gets_its_result(offline, question):
    def handler():
        run = yield from lib.stream_tools(offline("Hi"), question, [add])
        yield run

    *chunks, run = handler()
    assert "".join(chunk.text for chunk in chunks) == run.text == "Hi"


def test_stream_tools_rejects_invalid_arguments_at_the_call(offline, question):
    client = offline("Hi")
    with pytest.raises(lib.ConfigError, match="two tools are named 'add'"):
        lib.stream_tools(client, question, [add, add])
    with pytest.raises(lib.ConfigError, match="max_rounds must be 1 or more"):
        lib.stream_tools(client, question, [add], max_rounds=0)
    assert client.server.requests == []


def test_a_function_among_the_tools_of_a_request_is_an_error_about_that_member(offline, question):
    with pytest.raises(lib.ConfigError, match=r"tools\[0\]"):
        lib.run_tools(offline(), {**question, "tools": [add]}, [])


def test_malformed_calls_in_the_history_are_left_to_the_server(offline):
    messages = [{"role": "assistant", "content": "Hm.", "tool_calls": 5}]
    client = offline("Fine.")
    assert lib.run_tools(client, {"model": "m", "messages": messages}, [add]).text == "Fine."
    assert client.server.requests[0].body["messages"] == messages


def test_an_error_in_a_streamed_run_has_the_exchange_and_ends_it(offline, question):
    client = offline(calls(call("add", {"a": 1})), 400)
    stream = lib.stream_tools(client, question, [add])
    with pytest.raises(lib.BadRequestError) as caught:
        list(stream)
    assert len(caught.value.messages) == 3
    with pytest.raises(lib.StreamInterruptedError):
        stream.result()


# Before a call


def test_a_call_that_before_call_stops_is_answered_with_its_text(offline, question):
    asked = []

    def ask_first(made):
        asked.append((made.id, made.function.name))
        return "The user said no." if made.id == "x" else None

    client = offline(calls(call("add", {"a": 1}, "x"), call("add", {"a": 2}, "y")), "OK.")
    lib.run_tools(client, question, [add], before_call=ask_first)
    assert asked == [("x", "add"), ("y", "add")]
    assert [answer["content"] for answer in tool_results(client)] == ["The user said no.", "3"]


@pytest.mark.parametrize("returned", [True, False, 1, b"no", {"error": "no"}])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_before_call_that_returns_neither_text_nor_none_is_a_config_error(
    offline, question, returned, jobs
):
    seats = []

    def book(seat: int) -> None:
        seats.append(seat)

    client = offline(calls(call("book", {"seat": 1})), "Done.")
    words = f"before_call must return a text for the model or None, not {type(returned).__name__}"
    with pytest.raises(lib.ConfigError, match=words):
        lib.run_tools(client, question, [book], before_call=lambda made: returned, jobs=jobs)
    assert len(client.server.requests) == 1
    assert seats == []


def test_an_exception_of_before_call_reaches_the_caller_with_the_messages(offline, question):
    def refuse(made):
        raise PermissionError(made.id)

    client = offline(*[calls(call("add", {"a": 1}, "x"))] * 2)
    with pytest.raises(PermissionError, match="x") as caught:
        lib.run_tools(client, question, [add], before_call=refuse)
    assert len(caught.value.messages) == 2
    with pytest.raises(PermissionError, match="x") as caught:
        lib.stream_tools(client, question, [add], before_call=refuse).result()
    assert len(caught.value.messages) == 2


def test_an_exception_of_on_chunk_reaches_the_caller_with_the_messages(offline, question):
    def stop(chunk):
        if chunk.text:
            raise BlockingIOError("enough")

    client = offline(calls(call("add", {"a": 1})), "Two.")
    with pytest.raises(BlockingIOError, match="enough") as caught:
        lib.run_tools(client, question, [add], on_chunk=stop)
    assert len(caught.value.messages) == 3


def test_before_call_is_not_called_for_invalid_calls(offline, question):
    asked = []
    client = offline(calls(call("add", {"a": "x"}), call("sub", {"a": 1}, "2")), "Sorry.")
    lib.run_tools(client, question, [add], before_call=asked.append)
    assert asked == []


def test_an_interruption_inside_a_tool_keeps_the_exchange(offline, question):
    def wait(x: int) -> int:
        if x == 2:
            raise KeyboardInterrupt
        return x

    client = offline(calls(call("wait", {"x": 1}, "x"), call("wait", {"x": 2}, "y")))
    with pytest.raises(KeyboardInterrupt) as caught:
        lib.run_tools(client, question, [wait])
    assert [getattr(message, "content", "") for message in caught.value.messages[2:]] == ["1"]


def test_an_exception_that_allows_no_attributes_reaches_the_caller_unchanged(offline, question):
    @dataclass(frozen=True)
    class Stop(BaseException):
        reason: str

    def refuse(made):
        raise Stop("enough")

    client = offline(calls(call("add", {"a": 1})))
    with pytest.raises(Stop) as caught:
        lib.run_tools(client, question, [add], before_call=refuse)
    assert caught.value == Stop("enough")


# Parallel calls


def test_the_calls_of_a_round_are_carried_out_in_parallel_and_answered_in_order(offline, question):
    together = threading.Barrier(3)

    def wait(x: int) -> int:
        together.wait(30)  # breaks unless all three are here
        return x

    made = [call("wait", {"x": x}, f"id{x}") for x in range(3)]
    client = offline(calls(*made), "Done.")
    lib.run_tools(client, question, [wait], jobs=3)
    assert [(answer["tool_call_id"], answer["content"]) for answer in tool_results(client)] == [
        ("id0", "0"), ("id1", "1"), ("id2", "2"),
    ]  # fmt: skip


def test_before_call_runs_in_the_callers_thread_and_parallel_tools_see_its_context(
    offline, question
):
    user = ContextVar("user", default="nobody")
    threads = []

    def who(x: int) -> str:
        return user.get()

    user.set("ann")
    client = offline(calls(call("who", {"x": 1}, "1"), call("who", {"x": 2}, "2")), "Done.")
    lib.run_tools(
        client, question, [who], jobs=2,
        before_call=lambda made: threads.append(threading.current_thread()),
    )  # fmt: skip
    assert threads == [threading.current_thread()] * 2
    assert [answer["content"] for answer in tool_results(client)] == ["ann", "ann"]


def test_a_failure_among_parallel_tools_keeps_the_results_before_it(offline, question):
    def divide(a: int, b: int) -> float:
        return a / b

    made = [call("divide", {"a": 2, "b": b}, f"b{b}") for b in (1, 0)]
    with pytest.raises(lib.ToolError, match="ZeroDivisionError") as caught:
        lib.run_tools(offline(calls(*made)), question, [divide], raise_errors=True, jobs=2)
    assert caught.value.call.id == "b0"
    assert [getattr(message, "content", "") for message in caught.value.messages[2:]] == ["2.0"]
    client = offline(calls(*made), "Well.")
    lib.run_tools(client, question, [divide], jobs=2)
    assert [answer["content"][:9] for answer in tool_results(client)] == ["2.0", '{"error":']


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_results_of_parallel_tools_are_kept_when_one_of_them_fails(offline, question, kind):
    together, done = threading.Barrier(3), []

    def work(x: int) -> int:
        together.wait(30)  # all three have begun
        if x == 0:
            raise kind
        done.append(x)
        return x

    made = [call("work", {"x": x}, f"id{x}") for x in range(3)]
    client = offline(calls(*made))
    with pytest.raises((lib.ToolError, KeyboardInterrupt)) as caught:
        lib.run_tools(client, question, [work], raise_errors=True, jobs=3)
    assert sorted(done) == [1, 2]
    kept = caught.value.messages[2:]
    assert [(m.tool_call_id, m.content) for m in kept] == [("id1", "1"), ("id2", "2")]


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True, None])
def test_an_invalid_number_of_jobs_is_rejected(offline, question, jobs):
    with pytest.raises(lib.ConfigError, match="jobs must be 1 or more"):
        lib.run_tools(offline("Hi"), question, [add], jobs=jobs)


# Truncated calls


@pytest.mark.parametrize("arguments", ['{"a": 1', "", '{"a": 1, "b": "x'])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_truncated_call_is_an_error_with_the_messages_before_it(
    offline, question, arguments, streamed
):
    client = offline(calls(call("add", {"a": 1})), cut(arguments))
    on_chunk = (lambda chunk: None) if streamed else None
    with pytest.raises(lib.OutputTruncatedError, match="raise max_completion_tokens") as caught:
        lib.run_tools(client, question, [add], on_chunk=on_chunk)
    assert len(client.server.requests) == 2
    assert len(caught.value.messages) == 3  # to continue from, without the truncated one
    assert caught.value.response.choices[0].finish_reason == "length"
    assert caught.value.partial is caught.value.response


def test_a_truncated_call_of_a_tool_in_the_request_is_an_error_too(offline, question):
    client = offline(cut('{"a', name="lookup"))
    with pytest.raises(lib.OutputTruncatedError):
        lib.run_tools(client, {**question, "tools": OWN}, [add])


def test_no_call_of_a_round_is_carried_out_if_the_last_one_is_truncated(offline, question):
    done = []

    def book(seat: int) -> None:
        done.append(seat)

    made = cut("")
    made["choices"][0]["message"]["tool_calls"] = [call("book", {"seat": 1}), call("book", '{"sea')]
    with pytest.raises(lib.OutputTruncatedError):
        lib.run_tools(offline(made), question, [book])
    assert done == []


def test_a_complete_call_is_carried_out_even_if_the_response_is_truncated_after_it(
    offline, question
):
    client = offline(cut('{"a": 1}'), "2")
    assert lib.run_tools(client, question, [add]).text == "2"


@pytest.mark.parametrize(("arguments", "text"), [({"a": 1}, "2"), ({}, "$.a: missing")])
def test_arguments_that_are_an_object_are_complete_in_a_truncated_response(
    offline, question, arguments, text
):
    reply = cut("")
    reply["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] = arguments
    client = offline(reply, "Done.")
    lib.run_tools(client, question, [add])
    assert text in tool_results(client)[0]["content"]


def test_broken_arguments_without_truncation_are_reported_to_the_model(offline, question):
    client = offline(calls(call("add", '{"a": 1')), "Sorry.")
    assert lib.run_tools(client, question, [add]).text == "Sorry."
    assert "the arguments are not JSON" in tool_results(client)[0]["content"]


# Legacy calls

LEGACY = {"content": None, "function_call": {"name": "add", "arguments": '{"a": 1}'}}


@pytest.mark.parametrize("on_chunk", [None, lambda chunk: None], ids=["whole", "streamed"])
def test_a_legacy_function_call_does_not_end_a_run_as_an_answer(offline, question, on_chunk):
    with pytest.raises(lib.ToolError, match="legacy function_call") as caught:
        lib.run_tools(offline(LEGACY), question, [add], on_chunk=on_chunk)
    assert caught.value.call.function.name == "add"
    assert caught.value.messages[-1].function_call.name == "add"


def test_a_call_of_a_legacy_function_in_the_request_is_left_to_the_caller(offline, question):
    request = {**question, "functions": [{"name": "lookup", "parameters": {}}]}
    assert lib.run_tools(offline(LEGACY), request, []).rounds == 1


# Ids


def test_the_ids_of_calls_are_unique_over_all_messages(offline, question):
    same = calls(call("add", {"a": 1}, "call_0"), call("add", {"a": 2}, "call_0"))
    before = [
        {"role": "assistant", "content": None, "tool_calls": [call("add", {"a": 1}, "call_0")]},
        {"role": "tool", "tool_call_id": "call_0", "content": "2"},
        lib.ChatMessage("assistant", tool_calls=[lib.ToolCall(id="call_1")]),
        lib.ChatMessage.tool("call_1", "3"),
    ]
    none = calls(call("add", {"a": 3}, ""), call("add", {"a": 4}, None))
    client = offline(same, none, same, "Done.")
    messages = [*question["messages"], *before]
    lib.run_tools(client, {**question, "messages": messages}, [add])
    made, answered = sent_ids(client.server.requests[-1])
    assert len(made) == 8
    assert len(set(made)) == 8
    assert answered == made


def test_ids_that_are_unique_are_kept(offline, question):
    client = offline(calls(call("add", {"a": 1}, "a")), calls(call("add", {"a": 1}, "b")), "Done.")
    lib.run_tools(client, question, [add])
    assert sent_ids(client.server.requests[-1]) == (["a", "b"], ["a", "b"])


def test_a_call_left_to_the_caller_has_an_id_of_its_own(offline, question):
    client = offline(
        calls(call("add", {"a": 1}, "c")), calls(call("lookup", {}, "c"), call("lookup", {}, None))
    )
    run = lib.run_tools(client, {**question, "tools": OWN}, [add])
    ids = [made.id for made in run.response.choices[0].message.tool_calls]
    assert len({*ids, "c"}) == 3


# Arguments


def test_arguments_encoded_twice_as_json_text_are_parsed(offline, question):
    def note(lines: list[str], about: dict[str, int], also: list[int] | None, text: str) -> str:
        return f"{lines} {about} {also} {text}"

    arguments = {"lines": '["a", "b"]', "about": '{"a": 1}', "also": "[1]", "text": "[1]"}
    client = offline(
        calls(call("note", arguments), call("note", json.dumps(json.dumps(arguments)), "2")), "OK."
    )
    lib.run_tools(client, question, [note])
    assert [answer["content"] for answer in tool_results(client)] == [
        "['a', 'b'] {'a': 1} [1] [1]"
    ] * 2


def test_a_null_argument_means_the_default_unless_the_parameter_allows_none(offline, question):
    def look(city: str = None, days: int = 3, unit: str | None = "c") -> str:  # noqa: RUF013
        return f"{city} {days} {unit}"

    nothing = {"city": None, "days": None, "unit": None}
    client = offline(calls(call("look", nothing)), "OK.")
    lib.run_tools(client, question, [look])
    assert tool_results(client)[0]["content"] == "None 3 None"


@pytest.mark.parametrize("one", [10**400, 0.5, 1, float("inf")])
@pytest.mark.parametrize("other", [10**400, 0.5, 1])
def test_usage_of_any_size_can_be_added(one, other):
    usage = [lib.ChatCompletionUsage(total_tokens=number) for number in (one, other)]
    total = lib.added_usage(*usage).total_tokens
    assert total >= max(one, other)  # a float is not as exact as a large int
    assert type(one) is not type(other) or total == one + other
