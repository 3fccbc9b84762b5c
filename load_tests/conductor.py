"""Leads a run: one phase after the other, to the end or to the knee, then waits for what is under way.

It runs once, beside the users of one process or on the master of many, and tells everybody what begins.
"""

from __future__ import annotations

from typing import Literal, Protocol

import gevent
import msgspec

from load_tests.clock import now, unix
from load_tests.process import PhaseOrder
from load_tests.stopping import StepsSeen
from load_tests.tally import FAILING_OF, Tally
from load_tests.writing import Lines
from serve_app.capacity.samples import Phase
from serve_app.capacity.scenario import Scenario
from serve_app.capacity.shapes import DayShape, PhasePlan, SpikeShape, StepsShape

How = Literal["done", "knee", "interrupted", "failed"]
POLL_S = 0.1
LOOK_S = 1.0


class Orchestra(Protocol):
    """The processes that make the load."""

    @property
    def workers(self) -> int:
        """How many there are."""

    def begin(self, order: PhaseOrder) -> None:
        """A phase begins now, in all of them."""

    def drain(self) -> None:
        """Nothing more is begun."""

    def look(self) -> None:
        """Brings the tally up to date as far as that can be done at once."""


class Conductor:
    """``how`` says how the run ended once ``over`` is true, ``why`` adds a sentence where there is one."""

    def __init__(self, scenario: Scenario, orchestra: Orchestra, tally: Tally, lines: Lines) -> None:
        self._scenario = scenario
        self._orchestra = orchestra
        self._tally = tally
        self._lines = lines
        self._steps = StepsSeen() if isinstance(scenario.load.shape, StepsShape) else None
        self._phase_began_at = now()
        self._ended = -1
        self.plans = scenario.phases()
        self.index = 0
        self.began_at: float | None = None
        self.over = False
        self.how: How = "interrupted"
        self.why = ""
        self._draining = False
        self._broken_off_at: float | None = None

    @property
    def plan(self) -> PhasePlan:
        """Of the phase that runs, or ran last."""
        return self.plans[self.index]

    def conduct(self) -> None:
        """Returns when the run is over."""
        self.began_at = at = now()
        self.how = "done"
        for index, plan in enumerate(self.plans):
            self.index = index
            self._phase_began_at = at
            self._orchestra.begin(PhaseOrder(self.index, plan.level, plan.duration_s, self._orchestra.workers))
            self._write_phase(None)  # so that turns of a run that is killed have a phase
            at += plan.duration_s
            while (wait_s := at - now()) > 0 and not self._is_harm():
                gevent.sleep(min(wait_s, LOOK_S))
            self._write_phase(min(at, now()))
            if self.why or self._is_enough():
                break
        self.drain()
        self.over = True

    def drain(self, timeout_s: float | None = None) -> None:
        """Nothing more is begun; waits until nothing is under way, or the scenario's patience is at an end. Once only."""
        if self._draining:
            return
        self._draining = True
        self._orchestra.drain()
        until = now() + (self._scenario.drain_s if timeout_s is None else timeout_s)
        # What the tally knows of other processes is up to a report old.
        gevent.sleep(POLL_S if self._orchestra.workers == 1 else 2.5)
        while now() < until:
            self._orchestra.look()
            live = self._tally.live
            if not live.running and not live.waiting:
                break
            gevent.sleep(POLL_S)

    @property
    def interrupted(self) -> bool:
        return self._broken_off_at is not None

    def interrupt(self) -> None:
        """Nothing more becomes due from now on, before its time: this is where the phase ends, however long answers take."""
        self._broken_off_at = now()

    def break_off(self) -> None:
        """The run is over before its time, or was already."""
        if not self.over:
            self.how = "interrupted"
            if self.began_at is not None and self._ended < self.index:
                self._write_phase(now() if self._broken_off_at is None else self._broken_off_at)
            self.over = True

    def _write_phase(self, ended_at: float | None) -> None:
        """When it begins, and again when it has ended: who reads takes the later line."""
        is_open = self._scenario.load.model == "open"
        plan = self.plan
        phase = Phase(
            index=self.index,
            name=plan.name,
            began_at=unix(self._phase_began_at),
            ended_at=None if ended_at is None else unix(ended_at),
            rate_per_s=plan.level if is_open else None,
            users=self._tally.live.users if is_open else round(plan.level),
            measured=plan.measured,
        )
        if ended_at is not None:
            self._ended = self.index
        self._lines.add(phase)

    def _is_harm(self) -> bool:
        """Whether most turns fail: more of them say nothing new, and somebody may need the graph. A spike and a day are there to
        show how it recovers, and go on."""
        if isinstance(self._scenario.load.shape, SpikeShape | DayShape):
            return False
        self._orchestra.look()
        if failed := self._tally.recently_failed:
            self.how = "knee" if self._steps is not None and self._steps.found else "failed"
            self.why = f"{failed} of the last {FAILING_OF} turns failed"
        return bool(failed)

    def _is_enough(self) -> bool:
        if self._steps is None or not self.plan.measured:
            return False
        self._orchestra.look()
        due, lost = self._tally.due_in(self.index), self._tally.lost_in(self.index)
        reason = self._steps.enough(self.plan.name, due, lost, self._tally.phase(self.index).failed)
        if reason is None:
            return False
        self.how, self.why = ("knee" if self._steps.found else "failed"), reason
        return True


def progress_line(conductor: Conductor, tally: Tally, scenario: Scenario) -> bytes:
    """How the run goes, as one JSON object: counts are those of the phase, but ``running`` and ``waiting``, which are now."""
    index, plan, live = conductor.index, conductor.plan, tally.live
    count = tally.phase(index)
    is_open = scenario.load.model == "open"
    line = {
        "phase": index,
        "name": plan.name,
        "rate_per_s": round(plan.level, 3) if is_open else None,
        "users": live.users,
        "elapsed_s": round(now() - conductor.began_at, 1) if conductor.began_at is not None else 0.0,
        "total_s": round(scenario.total_s, 1),
        "due": tally.due_in(index),
        "done": count.done,
        "good": count.good,
        "failed": count.failed,
        "running": live.running,
        "waiting": live.waiting,
        "ttft_p95_ms": None if tally.ttft_p95_ms is None else round(tally.ttft_p95_ms, 1),
        "cpu_share": live.cpu_share,
    }
    return msgspec.json.encode(line)


def last_line(conductor: Conductor, tally: Tally, how: str, why: str) -> bytes:
    """How it ended, with the counts of all phases, warm-up among them."""
    total = tally.total
    line = {
        "ended": how, "why": why,
        "due": sum(count for _, count in tally.live.due), "done": total.done, "good": total.good, "failed": total.failed,
        "phase": conductor.index, "name": conductor.plan.name,
        "elapsed_s": round(now() - conductor.began_at, 1) if conductor.began_at is not None else 0.0,
        "total_s": round(sum(plan.duration_s for plan in conductor.plans), 1),
    }  # fmt: skip
    return msgspec.json.encode(line)
