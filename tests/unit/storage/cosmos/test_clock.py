"""What time it is over there, from dates that are told to the second."""

from __future__ import annotations

import random
from email.utils import formatdate

import pytest

from serve_app.storage.cosmos.clock import ServerClock


class World:
    """A server whose clock is ahead of ours, and answers that take their time."""

    def __init__(self, ahead_s: float) -> None:
        self.now = 1_000.0
        self.ahead_s = ahead_s
        self.clock = ServerClock(monotonic=lambda: self.now, wall=lambda: self.now + 5_000)

    @property
    def server_now(self) -> float:
        return self.now + 5_000 + self.ahead_s

    def ask(self, there_s: float, back_s: float) -> None:
        asked = self.now
        self.now += there_s
        date = formatdate(int(self.server_now), usegmt=True)
        self.now += back_s
        self.clock.observe(date, asked)


@pytest.mark.parametrize("ahead_s", [0.0, 3_600.0, -3_600.0, 0.4])
def test_many_answers_tell_the_time_to_some_milliseconds(ahead_s: float) -> None:
    world = World(ahead_s)
    assert world.clock() == world.now + 5_000
    chance = random.Random(1)
    for _ in range(200):
        world.ask(chance.uniform(0.001, 0.01), chance.uniform(0.001, 0.01))
        world.now += chance.uniform(0, 0.5)
    assert world.clock() == pytest.approx(world.server_now, abs=0.03)


def test_a_slow_answer_never_makes_it_worse() -> None:
    world = World(10.0)
    for _ in range(100):
        world.ask(0.002, 0.002)
        world.now += 0.137
    before = abs(world.clock() - world.server_now)
    world.ask(4.0, 0.5)
    world.ask(0.1, 4.0)
    assert abs(world.clock() - world.server_now) <= before + 0.002


def test_a_clock_that_was_set_is_followed() -> None:
    world = World(0.0)
    for _ in range(50):
        world.ask(0.002, 0.002)
        world.now += 0.1
    world.ahead_s = 120.0
    for _ in range(50):
        world.ask(0.002, 0.002)
        world.now += 0.137
    assert world.clock() == pytest.approx(world.server_now, abs=0.05)


def test_what_is_no_date_changes_nothing() -> None:
    world = World(7.0)
    for date in (None, "", "soon", "Sat, 99 Foo 2026"):
        world.clock.observe(date, world.now)
    assert world.clock() == world.now + 5_000
