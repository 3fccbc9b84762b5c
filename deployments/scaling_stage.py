"""A stage as a simulation sees it: replicas that start, run and drain, the work on them, and what they tell Serve of it.

Work is a fluid: calls arrive evenly over the replicas that run, are held for their time, and use a core while they do. A core
does one second of work a second; what is more waits in line at its replica. Sockets stay where they are when replicas are
added, and come back to others when theirs goes.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Mapping

from msgspec import Struct

from deployments.autoscaling import CALLS, CPU_SHARE, WAITING
from deployments.scaling_controller import PUSH_S, RUNNING, Autoscaler
from serve_app.capacity.day import Change, StageDay

START_S = (10.0, 35.0)
"""How long a replica takes to start; measured on two cores, between alone and with all others."""
FULL = 0.8
"""Beyond this share of a core, or of its slots, a replica is short: lines grow."""
LONGEST_LINE_S = 60.0
"""Work that has waited longer has been given up by its caller."""
_RECENT = 12
"""Steps over which needed replicas are averaged: a minute of noise is no need."""


class Work(Struct, frozen=True, kw_only=True):
    """What a stage has to do. Per turn: ``cpu_s`` of a core, ``held_s`` of a slot (the sum over its calls), and ``waits_s`` more
    of a slot while it only waits for its user. ``idle_cpu`` is the share of a core of a replica without turns. ``call_s`` is
    how long one call is held. ``sockets``: calls are connections of users, ``socket_cpu`` the share of a core that one uses
    by itself. ``counted``: whether Serve sees the calls.
    """

    stage: str
    cpu_s: float
    held_s: float
    call_s: float
    idle_cpu: float = 0.03
    waits_s: float = 0.0
    sockets: bool = False
    socket_cpu: float = 0.0
    counted: bool = True


class _Replica:
    def __init__(self, name: str, ready_at_s: float) -> None:
        self.name, self.ready_at_s = name, ready_at_s
        self.held = self.waiting = self.line_s = self.share = 0.0
        self.recorded: dict[str, deque[tuple[float, float]]] = {}


class SimulatedStage:
    """``step`` it through the day; ``day`` is what came of it. ``slots``: what a replica holds at most; ``autoscaler`` is None
    where the number of replicas is fixed. Use within ``serve_clock``.
    """

    def __init__(
        self,
        work: Work,
        slots: int,
        bounds: tuple[int, int],
        autoscaler: Autoscaler | None,
        rng: random.Random,
        look_back_s: float = 30.0,
    ) -> None:
        self._work, self._slots, self._bounds = work, slots, bounds
        self._autoscaler, self._rng, self._look_back_s = autoscaler, rng, look_back_s
        self._started = 0
        self._replicas: list[_Replica] = []
        self._draining: list[float] = []
        self._loads: deque[tuple[float, float]] = deque(maxlen=_RECENT)
        self._next_push_s = 0.0
        self._needed: list[int] = []
        self._running: list[int] = []
        self._paid: list[int] = []
        self._wait_s: list[float] = []
        self._changes: list[Change] = []
        self._resize(0.0, bounds[0] if autoscaler is None else autoscaler.target, at_once=True)

    def step(self, now_s: float, step_s: float, turns: float, users: float) -> None:
        """Lets ``step_s`` pass, in which ``turns`` arrived while ``users`` were connected."""
        running = [replica for replica in self._replicas if replica.ready_at_s <= now_s]
        self._draining = [until for until in self._draining if until > now_s]
        self._hold(running, step_s, turns, users)
        self._work_off(running, step_s, turns)
        self._needed.append(self._fewest(step_s, turns, users))
        self._running.append(len(running))
        self._paid.append(len(self._replicas) + len(self._draining))
        self._wait_s.append(max((replica.line_s for replica in running), default=0.0))
        if self._autoscaler is not None:
            self._tell(running, now_s)
            if now_s >= self._next_push_s:
                self._next_push_s = now_s + PUSH_S
                self._decide(running, now_s, self._autoscaler)

    def day(self, step_s: float) -> StageDay:
        return StageDay(
            stage=self._work.stage,
            step_s=step_s,
            least=self._bounds[0],
            most=self._bounds[1],
            needed=tuple(self._needed),
            running=tuple(self._running),
            paid=tuple(self._paid),
            wait_s=tuple(self._wait_s),
            changes=tuple(self._changes),
        )

    # -- work

    def _hold(self, running: list[_Replica], step_s: float, turns: float, users: float) -> None:
        work = self._work
        left = math.exp(-step_s / work.call_s)
        for replica in running:
            replica.held *= left
            replica.waiting *= math.exp(-step_s / max(work.waits_s, work.call_s))
        per_s = turns / step_s
        # Fluid in balance: what comes is what is missing to the number that the rate holds.
        comes = users - sum(replica.held for replica in running) if work.sockets else per_s * work.held_s * (1 - left)
        waits = per_s * work.waits_s * (1 - math.exp(-step_s / max(work.waits_s, work.call_s)))
        for replica in running:
            replica.held = max(0.0, replica.held + comes / len(running))
            replica.waiting += waits / len(running)

    def _work_off(self, running: list[_Replica], step_s: float, turns: float) -> None:
        work = self._work
        held = sum(replica.held for replica in running)
        for replica in running:
            part = replica.held / held if held > 0 else 1 / len(running)
            alone = (work.idle_cpu + work.socket_cpu * (replica.held if work.sockets else 0.0)) * step_s
            replica.line_s += turns * work.cpu_s * part + alone
            done = min(replica.line_s, step_s)
            replica.share = done / step_s
            replica.line_s = min(replica.line_s - done, LONGEST_LINE_S)

    def _fewest(self, step_s: float, turns: float, users: float) -> int:
        """The replicas that the load of the last minute needs: none beyond ``FULL``."""
        work = self._work
        sockets = users if work.sockets else 0.0
        cpu = turns / step_s * work.cpu_s + sockets * work.socket_cpu
        held = users if work.sockets else turns / step_s * (work.held_s + work.waits_s)
        self._loads.append((cpu, held))
        cpu = sum(cpu for cpu, _ in self._loads) / len(self._loads)
        held = sum(held for _, held in self._loads) / len(self._loads)
        return max(self._bounds[0], math.ceil(cpu / (FULL - work.idle_cpu)), math.ceil(held / (FULL * self._slots)))

    # -- scaling

    def _tell(self, running: list[_Replica], now_s: float) -> None:
        for replica in running:
            # What waits in line for the core is held as well.
            in_line = replica.line_s / self._work.cpu_s if self._work.cpu_s > 0 and not self._work.sockets else 0.0
            ongoing = replica.held + in_line
            told = {CPU_SHARE: replica.share, CALLS: ongoing, WAITING: replica.waiting}
            if self._work.counted:
                told[RUNNING] = ongoing + replica.waiting
            for name, value in told.items():
                points = replica.recorded.setdefault(name, deque())
                points.append((now_s, value))
                while points[0][0] < now_s - self._look_back_s:
                    points.popleft()

    def _decide(self, running: list[_Replica], now_s: float, autoscaler: Autoscaler) -> None:
        autoscaler.running([replica.name for replica in running])
        for replica in running:
            recorded: Mapping[str, list[tuple[float, float]]] = {
                name: list(points) for name, points in replica.recorded.items()
            }
            autoscaler.report(replica.name, now_s, recorded)
        before, after = autoscaler.target, autoscaler.decide()
        if after != before:
            self._changes.append(Change(now_s, before, after))
            self._resize(now_s, after)

    def _resize(self, now_s: float, wanted: int, at_once: bool = False) -> None:
        while len(self._replicas) < wanted:
            self._started += 1
            ready_at_s = now_s if at_once else now_s + self._rng.uniform(*START_S)
            self._replicas.append(_Replica(f"{self._work.stage}-{self._started}", ready_at_s))
        while len(self._replicas) > wanted:
            # Serve stops those that have not started yet before any that runs.
            going = max(self._replicas, key=lambda replica: replica.ready_at_s)
            self._replicas.remove(going)
            if going.ready_at_s <= now_s:
                self._draining.append(now_s + min(3 * self._work.call_s, 320.0))
                for replica in self._replicas:
                    replica.line_s += going.line_s / len(self._replicas)
