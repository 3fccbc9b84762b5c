"""The decoder of event streams: what comes out does not depend on where reads end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.models.sse import EventTooLarge, SSEDecoder


def decode(*reads: bytes) -> list[bytes]:
    decoder = SSEDecoder()
    return [data for read in reads for data in decoder.feed(read)] + decoder.flush()


def test_an_event_is_given_when_its_empty_line_arrives() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: one\n") == []
    assert decoder.feed(b"\n") == [b"one"]


def test_all_line_endings_mean_the_same() -> None:
    for ending in (b"\n", b"\r\n", b"\r"):
        assert decode(b"data: a\n\ndata: b\n\n".replace(b"\n", ending)) == [b"a", b"b"]


def test_a_lone_carriage_return_ends_an_event_without_waiting_for_more() -> None:
    assert SSEDecoder().feed(b"data: a\r\r") == [b"a"]


def test_crlf_split_between_reads_is_one_line_ending() -> None:
    assert decode(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [b"a\nb"]


def test_comments_other_fields_and_a_byte_order_mark_are_skipped() -> None:
    assert decode(b"\xef\xbb\xbfdata: a\nid: 7\nevent: x\nretry: 1\n: ping\n\n:\n\n") == [b"a"]


def test_data_needs_no_space_and_keeps_further_ones() -> None:
    assert decode(b"data:a\n\ndata:  b\n\n") == [b"a", b" b"]


def test_several_data_lines_are_joined_by_a_line_feed() -> None:
    assert decode(b'data: {"a":\ndata: 1}\n\n') == [b'{"a":\n1}']


def test_the_last_event_counts_without_its_empty_line() -> None:
    assert decode(b"data: a\n\ndata: b") == [b"a", b"b"]
    assert decode(b"data: a\n\ndata: b\n") == [b"a", b"b"]


def test_an_event_beyond_the_bound_is_refused_whether_in_one_line_or_many() -> None:
    for line in (b"x" * 10, b"data: xxxxx\n", b"data:\n"):
        decoder = SSEDecoder(max_event_bytes=1000)
        with pytest.raises(EventTooLarge):
            for _ in range(2000):
                decoder.feed(line)


_LINES = st.one_of(
    st.sampled_from([b"", b"", b"data: [DONE]", b": comment", b"event: x", b"data", b"data:", b"da", b"id: 1"]),
    st.text(alphabet='añ€😀{}": ', max_size=8).map(lambda text: b"data: " + text.encode()),
    st.text(alphabet="b😀", max_size=4).map(lambda text: b"data:" + text.encode()),
)


@given(
    lines=st.lists(st.tuples(_LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=30),
    cuts=st.lists(st.integers(min_value=0, max_value=400), max_size=30),
    bom=st.booleans(),
)
def test_any_split_of_the_bytes_gives_the_same_events(
    lines: list[tuple[bytes, bytes]], cuts: list[int], bom: bool
) -> None:
    whole = (b"\xef\xbb\xbf" if bom else b"") + b"".join(line + ending for line, ending in lines)
    edges = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    reads = [whole[start:end] for start, end in pairwise(edges)]
    assert decode(*reads) == decode(whole)
    assert decode(*(whole[i : i + 1] for i in range(len(whole)))) == decode(whole)
