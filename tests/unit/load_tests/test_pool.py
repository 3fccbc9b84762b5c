"""Enough users are ready for what arrives, and never more than allowed."""

from __future__ import annotations

from load_tests.pool import AT_ONCE, SPARE, missing


def test_there_are_users_for_the_next_second_beside_those_that_are_busy() -> None:
    assert missing(2, users=4, busy=4, waiting=0, room=100) == 2 + SPARE
    assert missing(2, users=9, busy=4, waiting=0, room=100) == 0
    assert missing(2, users=9, busy=9, waiting=3, room=100) == 2 + SPARE + 3


def test_while_users_are_still_let_in_no_more_are_sent_after_them() -> None:
    assert missing(2, users=9, busy=0, waiting=0, room=100) == 0
    assert missing(2, users=9, busy=0, waiting=4, room=100) == 0
    assert missing(2, users=9, busy=0, waiting=5, room=100) == 1


def test_connections_are_not_opened_all_at_once_nor_beyond_the_bound() -> None:
    assert missing(500, users=4, busy=4, waiting=0, room=1000) == AT_ONCE
    assert missing(5, users=4, busy=4, waiting=0, room=2) == 2
    assert missing(5, users=4, busy=4, waiting=0, room=-1) == 0
