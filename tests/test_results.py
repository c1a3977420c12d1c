"""ResultStream: items as they arrive, and a result that no way of reading it loses."""

import sys
import threading

import pytest

from . import lib


def counted():
    """Two items and a result, or another result where an exception is thrown in."""
    try:
        yield 1
        yield 2
    except LookupError:
        return "thrown"
    return "end"


def passed_on(stream):
    result = yield from stream
    yield result


def test_a_generator_gets_the_result_of_a_stream_that_is_over():
    stream = lib.ResultStream(counted())
    assert list(stream) == [1, 2]
    assert list(passed_on(stream)) == ["end"]
    assert list(passed_on(stream)) == ["end"]
    assert stream.result() == "end"


def test_the_result_is_kept_where_an_exception_that_is_thrown_in_ends_the_stream():
    stream = lib.ResultStream(counted())
    next(stream)
    with pytest.raises(StopIteration) as caught:
        stream.throw(LookupError())
    assert caught.value.value == "thrown"
    assert stream.result() == "thrown"


def test_a_stream_continues_when_its_generator_catches_a_thrown_exception():
    def patient():
        for item in range(3):
            try:
                yield item
            except LookupError:
                yield "caught"
        return "end"

    stream = lib.ResultStream(patient())
    assert next(stream) == 0
    assert stream.throw(LookupError()) == "caught"
    assert list(stream) == [1, 2]
    assert stream.result() == "end"


@pytest.mark.parametrize("act", [next, lib.ResultStream.result, lib.ResultStream.close])
def test_a_second_thread_gets_an_error_and_changes_nothing(act):
    inside, may_go_on = threading.Event(), threading.Event()

    def slow():
        inside.set()
        may_go_on.wait(30)
        yield 1
        return "end"

    stream = lib.ResultStream(slow())
    items = []
    reader = threading.Thread(target=lambda: items.extend(stream))
    reader.start()
    try:
        assert inside.wait(30)
        with pytest.raises(lib.ConfigError, match="another thread is reading this stream"):
            act(stream)
    finally:
        may_go_on.set()
        reader.join(30)
    assert items == [1]
    assert stream.result() == "end"


def test_an_error_of_the_items_that_sounds_like_a_second_thread_ends_the_stream():
    def failing():
        yield 1
        raise ValueError("generator already executing")

    stream = lib.ResultStream(failing())
    with pytest.raises(ValueError, match="already executing"):
        stream.result()
    with pytest.raises(lib.StreamInterruptedError):
        stream.result()


def test_no_variable_of_a_frame_keeps_the_last_item_while_the_rest_is_read():
    class Item:
        pass

    def look():
        yield Item()
        frame = sys._getframe()
        while frame:
            if frame.f_code.co_filename != __file__:
                held.extend(v for v in frame.f_locals.values() if isinstance(v, Item))
            frame = frame.f_back
        return "end"

    held = []
    assert lib.ResultStream(look()).result() == "end"
    assert held == []
