"""Frames and errors survive the way; nothing that arrives can do more than be refused."""

from __future__ import annotations

import contextlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app import errors
from serve_app.channel.frames import Answer, Call, Frame, FrameError, decode, encode, error_of, failure_of, size_of
from serve_app.errors import Conflict, Internal, InvalidInput, LeaseLost, ParleyError

_CLASSES: list[type[ParleyError]] = [getattr(errors, name) for name in errors.__all__]


def test_frame_arrives_as_it_was_sent() -> None:
    frame = Frame(
        to="i",
        sender="tcp://h:1/j",
        items={1: [b"a", b""], 2**40: [b"\xff"]},
        calls={7: Call("n", b"p", 5000)},
        answers={9: Answer(b"r"), 10: Answer(failure=failure_of(LeaseLost("gone")))},
    )

    assert decode(encode(frame)) == frame


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused_or_read_and_raise_nothing_else(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        pickle.dumps({"to": "i"}),
        b"\x95\xa1\xff\xa0\x80\x80\x80",  # a name that is no text
        b"\x95\xa0\xa0\x81\xa1x\x90\x80\x80",  # a stream that is no number
        b"\x91" * 100_000,  # nested deeper than the stack
    ],
)
def test_bytes_that_are_no_frame_are_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode(data)


@pytest.mark.parametrize("cls", _CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_arrives_as_the_class_it_was_raised_as(cls: type[ParleyError]) -> None:
    raised = error_of(failure_of(cls("why", True, 1.5, [{"field": "a", "n": 1}])))

    assert type(raised) is cls
    assert (raised.message, raised.retryable, raised.retry_after_s, raised.details) == (
        "why",
        True,
        1.5,
        [{"field": "a", "n": 1}],
    )


def test_error_class_that_peers_do_not_know_arrives_as_its_nearest_known_ancestor() -> None:
    class Special(Conflict):
        pass

    assert type(error_of(failure_of(Special("mine")))) is Conflict


def test_error_name_that_is_not_in_the_table_arrives_as_internal() -> None:
    failure = failure_of(InvalidInput("x"))
    unknown = type(failure)("SystemExit", failure.message, failure.retryable)

    assert type(error_of(unknown)) is Internal


@pytest.mark.parametrize("value", [object(), "x" * 100_000])
def test_details_that_are_no_plain_data_or_huge_stay_behind(value: object) -> None:
    failure = failure_of(InvalidInput("why", details=[{"value": value}]))

    assert failure.message == "why"
    assert failure.details is None


def test_size_of_an_answer_is_an_upper_bound() -> None:
    answers = {number: Answer(failure=failure_of(InvalidInput("x" * 300))) for number in (1, 2**31)}
    answers |= {3: Answer(b"y" * 1000)}
    empty = len(encode(Frame("", "", {}, {}, {})))

    assert len(encode(Frame("", "", {}, {}, answers))) - empty <= sum(map(size_of, answers.values()))
