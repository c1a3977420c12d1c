"""The streams recorded in tests/data: each gives the response beside it and, cut at any byte and
ended in any way, that response or an error that holds the beginning of it."""

import json
import pickle
import random
from pathlib import Path

import pytest

from . import lib
from .conftest import in_the_gate
from .wire import CLOSE, RESET, SILENCE, Reply, http

FILES = sorted((Path(__file__).parent / "data").glob("*.sse"))


def recorded(name):
    path = Path(__file__).parent / "data" / name
    return path.with_suffix(".sse").read_bytes(), json.loads(
        path.with_suffix(".json").read_text("utf-8")
    )


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


class FakeExchange:
    """What a stream needs of an exchange, with a body of these pieces."""

    where, request_id, headers, state = "[POST x]", None, {}, "body"
    safe_headers, status_code = headers, 200

    def __init__(self, pieces):
        self.pieces = pieces

    def iter_bytes(self):
        return iter(self.pieces)

    def close(self):
        pass

    finish = check_deadline = close

    def end_within(self, seconds):
        pass

    def redacted(self, text):
        return text


def added_up(pieces):
    """The response in these pieces of a body. Raises what a stream would."""
    stream = lib.ChatCompletionStream(FakeExchange(pieces), lib.CreateChatCompletionChunk)
    return stream.response()


def test_there_are_recordings():
    assert len(FILES) >= 8


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_a_recorded_stream_gives_the_response_beside_it(ask, question, path, framing):
    raw, expected = recorded(path.stem)
    reply = Reply(http(raw, framing=framing), CLOSE)
    stream = lib.create_chat_completion_stream(ask(reply), question)
    assert without_nulls(stream.response().to_dict()) == without_nulls(expected)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 4096])
def test_any_split_of_a_recorded_stream_gives_the_same(path, size):
    raw, expected = recorded(path.stem)
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    assert without_nulls(added_up(pieces).to_dict()) == without_nulls(expected)


def is_beginning(part, whole):
    """Whether `part` is `whole`, or lacks only keys and the ends of texts and lists."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and is_beginning(value, whole[key]) for key, value in part.items()
        )
    if isinstance(part, list):
        return (
            isinstance(whole, list)
            and len(part) <= len(whole)
            and all(map(is_beginning, part, whole))
        )
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    return part == whole


ENDS = {
    "clean": None,
    "lost": lambda: lib.StreamInterruptedError("lost"),
    "silence": lambda: lib.RequestTimeoutError("silence"),
}


def outcome_at(raw, cut, end):
    """The response and the error, one of them None, when `raw` is cut there and ends so."""

    def pieces():
        yield raw[:cut]
        if ENDS[end]:
            raise ENDS[end]()

    try:
        return added_up(pieces()), None
    except lib.OpenAIError as error:
        return None, error


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.gate), 7])
@pytest.mark.parametrize("end", ENDS)
def test_a_stream_cut_anywhere_is_complete_or_an_error_with_its_beginning(end, step):
    raw, expected = recorded("openai")
    assert raw.count(b"\n\n") >= 40
    whole = without_nulls(expected)
    without_usage = {key: value for key, value in whole.items() if key != "usage"}
    wholes = 0
    longest = ""
    # Many cuts near the end, and some elsewhere; fuzz.py makes all.
    for cut in [*range(0, len(raw) - 400, 29 * step), *range(len(raw) - 400, len(raw) + 1, step)]:
        response, error = outcome_at(raw, cut, end)
        if response is not None:
            assert without_nulls(response.to_dict()) in (whole, without_usage)
            wholes += 1
        else:
            assert isinstance(error, lib.HTTPError if cut > len("data:") else lib.OpenAIError)
            partial = without_nulls(error.partial.to_dict())
            assert is_beginning(partial, whole)
            assert error.partial.text.startswith(longest), "text that had arrived is missing later"
            longest = error.partial.text
    # Complete from the end of the chunk with the finish reason on, though without the usage.
    assert 0 < wholes <= len(raw) - raw.index(b'"finish_reason":"tool_calls"')


def check_cut_on_the_wire(ask, question, raw, cut, end, framing):
    """The same check through sockets."""
    if framing == "chunked":
        head, _, body = http((raw,), framing="chunked").partition(b"\r\n\r\n")
        offset = len(head) + 4 + body.index(b"\r\n") + 2
        data = (head + b"\r\n\r\n" + body)[: offset + cut]
    else:
        data = http(raw, framing=framing)
        data = data[: len(data) - len(raw) + cut]
    client = ask(Reply(data, end), timeout=(10, 0.25))
    question["stream_options"] = {"include_usage": True}
    whole = without_nulls(recorded("openai")[1])
    without_usage = {key: value for key, value in whole.items() if key != "usage"}
    try:
        found = lib.create_chat_completion_stream(client, question).response()
    except lib.OpenAIError as error:
        found = error.partial
        assert is_beginning(without_nulls(found.to_dict()), whole)
    else:
        assert without_nulls(found.to_dict()) in (whole, without_usage)


@pytest.mark.parametrize("framing", ["chunked", *in_the_gate("close", "length")])
@pytest.mark.parametrize("end", [CLOSE, RESET, *in_the_gate(SILENCE)])
def test_a_stream_cut_on_the_wire_is_complete_or_an_error_with_its_beginning(
    ask, question, end, framing
):
    raw, _ = recorded("openai")
    many = range(0, len(raw), len(raw) // 12) if end != SILENCE else [len(raw) // 2]
    for cut in [*many, len(raw) - 15, len(raw) - 3, len(raw)]:
        check_cut_on_the_wire(ask, question, raw, cut, end, framing)


# Any bytes at all


def mutations(rng):
    from .fuzz import mutated, random_bytes

    return random_bytes(rng) if rng.random() < 0.5 else mutated(rng)


def test_any_bytes_give_a_result_or_an_error_of_ours():
    rng = random.Random(7)
    for _ in range(300):
        body = mutations(rng)
        size = rng.choice([1, 7, 64, 10**6])
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        try:
            assert added_up(pieces).choices
        except lib.OpenAIError as error:
            str(error), repr(error), repr(error.partial)
            pickle.loads(pickle.dumps(error))
