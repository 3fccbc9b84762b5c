"""Room for trials: as many as may run, and none begun while live turns need all there is."""

from __future__ import annotations

import pytest

from serve_app.errors import Overloaded
from serve_app.turns.trial_room import APART_S, MAX_LAG_MS, Pressure, TrialRoom


class Machine:
    """Clocks that the test turns: of the wall, of this process' CPU, and of a machine with two cores."""

    def __init__(self) -> None:
        self.at = self.process_s = self.worked_s = self.lag_ms = 0.0
        self.pressure = Pressure(
            lambda: self.lag_ms,
            clock=lambda: self.at,
            process_s=lambda: self.process_s,
            machine=lambda: (2, self.worked_s),
        )

    def passes(self, seconds: float, *, process: float = 0.0, machine: float = 0.0) -> bool:
        """Whether there is pressure after ``seconds`` in which these shares of a CPU, and of the machine, were used."""
        self.at += seconds
        self.process_s += process * seconds
        self.worked_s += machine * 2 * seconds
        return self.pressure()


@pytest.mark.parametrize(
    ("process", "machine", "pressed"), [(0.1, 0.1, False), (0.95, 0.5, True), (0.2, 0.95, True), (0.6, 0.6, False)]
)
def test_there_is_pressure_where_the_process_or_its_machine_has_little_left(
    process: float, machine: float, pressed: bool
) -> None:
    assert Machine().passes(1.0, process=process, machine=machine) is pressed


def test_what_was_found_counts_until_it_is_read_again_and_ends_with_the_load() -> None:
    machine = Machine()
    assert machine.passes(1.0, process=1.0)
    assert machine.passes(0.1)
    assert not machine.passes(1.0)


def test_a_loop_that_comes_late_is_pressure_at_once() -> None:
    machine = Machine()
    machine.lag_ms = MAX_LAG_MS + 1
    assert machine.passes(0.01)


def test_without_live_turns_trials_may_use_all_there_is() -> None:
    room = TrialRoom(2, live=lambda: 0, busy=lambda: True)
    with room.place(), room.place():
        assert room.taken == 2
        with pytest.raises(Overloaded) as refused, room.place():
            pass
    assert refused.value.retry_after_s
    assert room.taken == 0


def test_beside_live_turns_no_more_are_begun_under_pressure_and_what_runs_goes_on() -> None:
    busy = False
    room = TrialRoom(10, live=lambda: 1, busy=lambda: busy)
    with room.place(), room.place():
        busy = True
        with pytest.raises(Overloaded, match="Live turns"), room.place():
            pass
        assert room.taken == 2
        busy = False
        with room.place():
            assert room.taken == 3


def test_one_trial_at_a_time_is_let_through_however_busy_it_is() -> None:
    room = TrialRoom(10, live=lambda: 5, busy=lambda: True)
    for _ in range(3):
        with room.place(), pytest.raises(Overloaded), room.place():
            pass


def test_beside_live_turns_trials_begin_one_by_one_and_else_at_once() -> None:
    live = 0
    now = 10.0
    room = TrialRoom(10, live=lambda: live, busy=lambda: False, clock=lambda: now)
    assert [room.wait_s(), room.wait_s()] == [0, 0]
    live = 1
    assert [room.wait_s(), room.wait_s(), room.wait_s()] == pytest.approx([0, APART_S, 2 * APART_S])
    now += 10
    assert room.wait_s() == 0


def test_a_place_is_free_again_when_a_trial_fails() -> None:
    room = TrialRoom(1, live=lambda: 0, busy=lambda: False)
    with pytest.raises(ZeroDivisionError), room.place():
        raise ZeroDivisionError
    assert room.taken == 0
