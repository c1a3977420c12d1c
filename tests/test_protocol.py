"""An exchange moves only as its table says, and any split of the same bytes gives the same body,
or the same error."""

import gzip
import zlib

import pytest

from . import lib

FINAL = {"done", "left", "expired", "broken"}
UNDER_WAY = lib.MOVES.keys() - FINAL


# States


def test_every_move_leads_to_a_state_of_the_table():
    assert set().union(*lib.MOVES.values()) <= lib.MOVES.keys()


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_final_state_is_never_left(state):
    assert not lib.MOVES[state]


@pytest.mark.parametrize("state", sorted(UNDER_WAY))
@pytest.mark.parametrize("end", ["left", "expired", "broken"])
def test_an_exchange_under_way_can_end_at_any_time(state, end):
    assert end in lib.MOVES[state]


def test_only_a_thread_that_reads_the_body_can_finish_it():
    assert [state for state in lib.MOVES if "done" in lib.MOVES[state]] == ["reading"]


def test_nothing_leads_back_before_the_head():
    order = ["connecting", "sent", "head"]
    for state, targets in lib.MOVES.items():
        for early in set(targets) & set(order):
            assert order.index(state) + 1 == order.index(early)


# Bodies

TEXT = b'{"text": "' + b"a" * 300 + b'"}'
ZIPPED, MEMBERS = gzip.compress(TEXT), gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:])
RAW = zlib.compressobj(wbits=-15)
RAW = RAW.compress(TEXT) + RAW.flush()


def in_chunks(data, size=7):
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


LENGTH = {"content-length": str(len(TEXT))}
CHUNKED = {"transfer-encoding": "chunked"}

BODIES = [
    pytest.param(LENGTH, TEXT, id="length"),
    pytest.param({"content-length": f"{len(TEXT)}, {len(TEXT)}"}, TEXT, id="length-doubled"),
    pytest.param(CHUNKED, in_chunks(TEXT), id="chunked"),
    pytest.param(CHUNKED, in_chunks(TEXT, 1000), id="one-chunk"),
    pytest.param({**CHUNKED, "content-length": "5"}, in_chunks(TEXT), id="chunked-and-length"),
    pytest.param({"transfer-encoding": "Chunked"}, in_chunks(TEXT), id="capitals"),
    pytest.param({"transfer-encoding": "chunked, chunked"}, in_chunks(TEXT), id="chunked-repeated"),
    pytest.param({"transfer-encoding": "chunked, gzip"}, in_chunks(ZIPPED), id="chunked-not-last"),
    pytest.param({**CHUNKED, "content-encoding": "chunked"}, in_chunks(TEXT), id="chunked-as-coding"),
    pytest.param(CHUNKED, in_chunks(TEXT).replace(b"7\r\n", b"7;a=b\r\n", 1), id="extension"),
    pytest.param(CHUNKED, in_chunks(TEXT)[:-2] + b"X-A: b\r\nX-B: c\r\n\r\n", id="trailers"),
    pytest.param(CHUNKED, in_chunks(TEXT)[:-4] + b"\n\n", id="line-feeds-at-the-end"),
    pytest.param({**CHUNKED, "content-encoding": "gzip"}, in_chunks(ZIPPED), id="gzip"),
    pytest.param({**CHUNKED, "content-encoding": "x-gzip"}, in_chunks(MEMBERS), id="members"),
    pytest.param({**CHUNKED, "content-encoding": "gzip"}, in_chunks(TEXT), id="plain-declared-as-gzip"),
    pytest.param({**LENGTH, "transfer-encoding": "identity"}, TEXT, id="identity-and-length"),
    pytest.param({**CHUNKED, "content-encoding": "utf-8"}, in_chunks(TEXT), id="unknown-coding"),
    pytest.param({**CHUNKED, "content-encoding": "deflate"}, in_chunks(zlib.compress(TEXT)), id="zlib"),
    pytest.param({**CHUNKED, "content-encoding": "deflate"}, in_chunks(RAW), id="deflate"),
    pytest.param({"transfer-encoding": "gzip, chunked"}, in_chunks(ZIPPED), id="gzip-in-transfer"),
    pytest.param({**CHUNKED, "content-encoding": "gzip, identity, gzip"}, in_chunks(gzip.compress(ZIPPED)), id="layers"),
]  # fmt: skip


def fed(body, data, size):
    """The body that `data`, fed in pieces of `size` bytes, gives, and the bytes after its end."""
    found, at = b"", 0
    while not body.ended:
        found += body.feed(data[at : at + size])
        at += size
    return found, body.trailing_data + data[at:]


@pytest.mark.parametrize("size", [1, 2, 3, 10**6])
@pytest.mark.parametrize("behind", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["alone", "with-more-data"])
@pytest.mark.parametrize(("headers", "data"), BODIES)
def test_any_split_gives_the_same_body_and_the_same_trailing_data(headers, data, behind, size):
    body = lib.Body(200, headers, limit=10**6)
    assert fed(body, data + behind, size) == (TEXT, behind)
    assert body.keep_alive


@pytest.mark.parametrize("size", [1, 2, 3, 10**6])
@pytest.mark.parametrize(("headers", "data"), BODIES)
def test_a_truncated_body_is_an_error(headers, data, size):
    for cut in range(0, len(data), 1 + len(data) // 20):
        with pytest.raises((lib.Incomplete, lib.Undecodable)):
            fed(lib.Body(200, headers, limit=10**6), data[:cut], size)


@pytest.mark.parametrize("data", [ZIPPED[:-9], ZIPPED[:-1], ZIPPED[:11], ZIPPED[:1]])
@pytest.mark.parametrize("size", [1, 10**6])
def test_truncated_compressed_data_is_an_error_though_its_framing_is_complete(data, size):
    headers = {"content-length": str(len(data)), "content-encoding": "gzip"}
    with pytest.raises(lib.Incomplete, match="compressed data ends too early"):
        fed(lib.Body(200, headers, limit=10**6), data, size)


def test_without_framing_the_body_ends_with_the_connection_which_is_not_kept():
    body = lib.Body(200, {"content-encoding": "gzip"}, limit=10**6)
    assert fed(body, ZIPPED, 5) == (TEXT, b"")
    assert not body.keep_alive


@pytest.mark.parametrize("size", [1, 10**6])
@pytest.mark.parametrize(
    ("coding", "text"),
    [("identity", ZIPPED), ("utf-8", ZIPPED), ("gzip", b"a" + ZIPPED)],
    ids=["identity", "charset", "plain-declared-as-gzip"],
)
def test_a_body_that_is_not_compressed_is_left_alone(coding, text, size):
    headers = {"content-length": str(len(text)), "content-encoding": coding}
    assert fed(lib.Body(200, headers, limit=10**6), text, size) == (text, b"")


@pytest.mark.parametrize("size", [1, 10**6])
@pytest.mark.parametrize(
    "padded", [ZIPPED + bytes(9), ZIPPED + bytes(9) + gzip.compress(b"")], ids=["end", "member"]
)
def test_zeros_after_gzip_data_are_padding(padded, size):
    headers = {"content-length": str(len(padded)), "content-encoding": "gzip"}
    assert fed(lib.Body(200, headers, limit=10**6), padded, size) == (TEXT, b"")


@pytest.mark.parametrize("behind", [b"\n", TEXT], ids=["line-feed", "text"])
def test_data_after_the_compressed_body_is_an_error(behind):
    data = ZIPPED + behind
    headers = {"content-length": str(len(data)), "content-encoding": "gzip"}
    with pytest.raises((lib.Incomplete, lib.Undecodable)):
        fed(lib.Body(200, headers, limit=10**6), data, 10**6)


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body_whatever_the_headers_say(status):
    body = lib.Body(status, LENGTH, limit=10**6)
    assert body.ended
    assert body.keep_alive


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_no_layer_of_compression_returns_more_than_the_limit(layers):
    data = bytes(10**7)
    for _ in range(layers):
        data = gzip.compress(data)
    headers = {"content-length": str(len(data)), "content-encoding": ", ".join(["gzip"] * layers)}
    with pytest.raises(lib.Undecodable, match=r"1,000,000 bytes \(max_response_bytes\)"):
        fed(lib.Body(200, headers, limit=10**6), data, 10**6)


@pytest.mark.parametrize(
    "data",
    [
        b"zz\r\n",
        b"\r\n\r\n",
        b"-1\r\n",
        b"1\r\naXX1\r\n",
        b"0" * 70_000,
        b"0\r\n" + b"a: b\r\n" * 20_000,
    ],
)
def test_invalid_chunks_are_an_error(data):
    with pytest.raises(lib.Incomplete):
        fed(lib.Body(200, CHUNKED, limit=10**6), data, 10**4)


@pytest.mark.parametrize("value", ["", "-1", "1, 2", "1.0", "+5", "5 5", "٣"])
def test_a_content_length_that_is_not_one_number_is_an_error(value):
    with pytest.raises(lib.Incomplete):
        lib.Body(200, {"content-length": value}, limit=10**6)


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "x-compress"])
def test_the_error_names_an_unsupported_coding(coding):
    body = lib.Body(200, {**LENGTH, "content-encoding": coding}, limit=10**6)
    with pytest.raises(lib.Undecodable, match=coding):
        body.feed(TEXT)
