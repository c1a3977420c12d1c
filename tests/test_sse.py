"""EventDecoder: every split of the same bytes gives the same events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import lib

CASES = [
    pytest.param(b"data: a\n\ndata: b\n\n", ["a", "b"], id="lf"),
    pytest.param(b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"], id="crlf"),
    pytest.param(b"data: a\rdata: b\r\r", ["a\nb"], id="cr-and-two-data-lines"),
    pytest.param(b"data: a\r\n\ndata: b\n\r\n", ["a", "b"], id="mixed-line-ends"),
    pytest.param(b"\xef\xbb\xbfdata: a\n\n", ["a"], id="byte-order-mark"),
    pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", ["b"], id="only-one-bom"),
    pytest.param(b"data:a\n\ndata:  b\n\n", ["a", " b"], id="at-most-one-space-is-dropped"),
    pytest.param(b": ping\n\n:\n\ndata: a\n:x\n\n", ["a"], id="comments-are-ignored"),
    pytest.param(b"id: 1\nretry: 5\ndata: a\n\n\n\n", ["a"], id="id-and-retry-are-ignored"),
    pytest.param(b"id: 1\n\nevent: x\n\n", [], id="no-data-no-event"),
    pytest.param(b"data\n\ndata:\n\n", [], id="empty-data-is-no-event"),
    pytest.param("data: a\u2028b\x85c\x0bd\x1ce\n\n".encode(), ["a\u2028b\x85c\x0bd\x1ce"],
                 id="only-cr-and-lf-end-lines"),
    pytest.param("data: 👋🏽é\n\n".encode(), ["👋🏽é"], id="characters-of-many-bytes"),
    pytest.param(b"data: \xff\xe2\x82\ndata: ok\n\n", ["\ufffd\ufffd\nok"], id="bad-utf8-stays-in-its-line"),
    pytest.param(b"data: a\n\ndata: b", ["a", "b"], id="last-event-without-blank-line"),
    pytest.param(b"data: a\n\ndata: b\r", ["a", "b"], id="last-event-ends-in-cr"),
    pytest.param(b"", [], id="no-bytes"),
]  # fmt: skip

SIZES = [1, 2, 3, 7, 10**6]


def decoded(raw, size):
    decoder = lib.EventDecoder()
    events = []
    for start in range(0, len(raw), size):
        events += decoder.feed(raw[start : start + size])
    return events + decoder.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("raw", "expected"), CASES)
def test_any_split_gives_the_same_events(raw, expected, size):
    assert decoded(raw, size) == [("", data) for data in expected]


@pytest.mark.parametrize("size", SIZES)
def test_the_name_of_an_event_does_not_carry_over_to_the_next(size):
    raw = b"event: error\ndata: a\n\ndata: b\n\nevent: x\n\ndata: c\n\n"
    assert decoded(raw, size) == [("error", "a"), ("", "b"), ("", "c")]


@pytest.mark.parametrize("size", SIZES)
def test_an_error_field_is_an_event_named_error(size):
    assert decoded(b'error: {"code": 500}\n\n', size) == [("error", '{"code": 500}')]


@pytest.mark.parametrize("size", SIZES)
def test_non_sse_lines_are_kept(size):
    decoder = lib.EventDecoder()
    raw = b'{\n  "error": "busy"\n}\n'
    for start in range(0, len(raw), size):
        assert decoder.feed(raw[start : start + size]) == []
    decoder.close()
    assert decoder.non_sse_text == '{\n  "error": "busy"\n}'


LONG = b"x" * 70_000 + b"\n"


@pytest.mark.parametrize("size", [1, 7, 10**6])
@pytest.mark.parametrize(
    ("raw", "kept"),
    [(LONG + b"data: a\n\n", 70_000), (b"data: a\n\n" + LONG, 65_536), (LONG * 2, 140_001),
     (b"x\n" * 30_000 + b"data: a\n\n" + b"x\n" * 10_000, 65_536 - 1)],
    ids=["before-the-first-event", "after-the-first-event", "without-events", "before-and-after"],
)  # fmt: skip
def test_non_sse_lines_after_the_first_event_are_kept_up_to_a_limit(raw, kept, size):
    decoder = lib.EventDecoder()
    for start in range(0, len(raw), size):
        decoder.feed(raw[start : start + size])
    assert len(decoder.non_sse_text) == kept


def test_nothing_after_done_is_an_event_in_any_split():
    raw = b"data: a\n\ndata: [DONE]\n\ndata: late\n\n"
    for cut in range(len(raw)):
        decoder = lib.EventDecoder()
        events = [*decoder.feed(raw[:cut]), *decoder.feed(raw[cut:]), *decoder.close()]
        assert events == [("", "a"), ("", "[DONE]")]


def test_an_event_is_given_as_soon_as_its_blank_line_begins():
    decoder = lib.EventDecoder()
    assert decoder.feed(b"data: a\r\n\r") == [("", "a")]
    assert decoder.feed(b"\ndata: b\n") == []
    assert decoder.feed(b"\n") == [("", "b")]


fragments = st.sampled_from(
    [b"data: ", b"data:", b"data", b"event: error", b":", b"\n", b"\r", b"\r\n", b"\n\n", b"x",
     b"{}", b"\xef\xbb\xbf", "é👋".encode(), b"\xff", b"\xe2", "\u2028".encode()]
)  # fmt: skip


@given(st.lists(fragments, max_size=30).map(b"".join) | st.binary(max_size=200), st.data())
def test_random_splits_of_random_bytes_change_nothing(raw, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10)))
    decoder = lib.EventDecoder()
    events = []
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        events += decoder.feed(raw[start:end])
    assert events + decoder.close() == decoded(raw, 10**6)
