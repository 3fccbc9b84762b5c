"""The turns stage as other processes reach it: requests to replicas that die, and tails over a channel that loses frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from serve_app.domain.events import EventRecord
from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import Owner
from serve_app.errors import StageUnavailable
from serve_app.turns.port import LiveTail, TailEnd, TailItem
from serve_app.turns.stage import TurnsStage
from serve_app.turns.tails import LocalTail
from tests.simulation.faults import Faults
from tests.simulation.ledger import Ledger
from tests.simulation.loop import Process

ASK_TIMEOUT_S = 1.0
MAX_SENDS = 6


class Replica:
    """A replica of the turns stage: a process, and the real stage in it."""

    def __init__(self, process: Process, owner: Owner) -> None:
        self.process = process
        self.owner = owner
        self.stage: TurnsStage

    @property
    def name(self) -> str:
        return self.owner.replica_id


class SimTail:
    """The follower's end of a tail, as ``RemoteTail`` is one."""

    def __init__(self, process: Process, max_items: int) -> None:
        self.process = process
        self._inbox = LocalTail(max_items)
        self._ended = False

    def deliver(self, items: Sequence[TailItem]) -> None:
        if items and self.process.alive and not self._ended:
            taken = self._inbox.push(items)
            self._ended = not taken or isinstance(items[-1], TailEnd)

    def end(self) -> None:
        self.deliver([TailEnd(complete=False)])

    def __aiter__(self) -> AsyncIterator[Sequence[TailItem]]:
        return self._inbox.__aiter__()

    async def aclose(self) -> None:
        self._ended = True
        await self._inbox.aclose()


class SimFollower:
    """The owner's end: what it is pushed arrives a moment later, in order, or not at all."""

    def __init__(self, replica: Replica, turn_id: str, tail: SimTail, faults: Faults, ledger: Ledger) -> None:
        self._replica = replica
        self._turn_id = turn_id
        self._tail = tail
        self._faults = faults
        self._ledger = ledger
        self._free_at = 0.0
        self._seq: int | None = None

    def push(self, items: Sequence[TailItem]) -> bool:
        for item in items:
            if isinstance(item, EventRecord):
                follows = self._seq is None or item.seq == self._seq + 1
                self._ledger.verdict.expect(
                    follows, "a tail has no gap", f"{self._turn_id}: {item.seq} after {self._seq}"
                )
                self._seq = item.seq
                allowed = self._ledger.may_be_shown(self._turn_id, item)
                self._ledger.verdict.expect(allowed, "commit before show", f"{self._turn_id}: event {item.seq}")
        fault = self._faults.at("deliver")
        kind, duration_s = (fault.kind, fault.duration_s) if fault else ("none", 0.0)
        if kind == "drop":
            return True
        if kind == "cut":
            self._arrive([TailEnd(complete=False)], 0.0)
            return False
        if kind == "die":
            self._replica.process.kill()
        elif kind == "stop":
            self._faults.stop(self._replica.process, duration_s)
        self._arrive(items, duration_s if kind == "slow" else 0.0)
        if kind == "twice":
            self._arrive(items, 0.0)
        return True

    def _arrive(self, items: Sequence[TailItem], more_s: float) -> None:
        loop = self._replica.process.loop
        self._free_at = max(self._free_at, loop.time() + self._faults.latency_s(0.001) + more_s)
        loop.call_at(self._free_at, self._tail.deliver, list(items))


class SimTurns:
    """``Turns`` as one process has it. A request is sent again, naming the dead, where its replica dies."""

    def __init__(
        self,
        process: Process,
        replicas: Callable[[], list[Replica]],
        faults: Faults,
        ledger: Ledger,
        max_items: int,
    ) -> None:
        self._process = process
        self._replicas = replicas
        self._faults = faults
        self._ledger = ledger
        self._max_items = max_items

    async def run(self, key: TurnKey, *, after_seq: int = 1) -> LiveTail:
        fault = self._faults.at("route")
        if fault is not None and fault.kind == "fail":
            raise StageUnavailable("No replica can be reached.")
        tail = SimTail(self._process, self._max_items)
        self._process.spawn(self._send(key, tail, after_seq, fault.kind if fault else "none"))
        if fault is not None and fault.kind == "twice":
            self._process.spawn(self._send(key, None, 0, "none"))
        return tail

    def start(self, key: TurnKey) -> None:
        fault = self._faults.at("route")
        if fault is None or fault.kind != "fail":
            self._process.spawn(self._send(key, None, 0, fault.kind if fault else "none"))
        if fault is not None and fault.kind == "twice":
            self._process.spawn(self._send(key, None, 0, "none"))

    async def _send(self, key: TurnKey, tail: SimTail | None, after_seq: int, kind: str) -> None:
        dead: tuple[str, ...] = ()
        for sent in range(MAX_SENDS):
            await asyncio.sleep(self._faults.latency_s() + (1.0 if kind == "slow" and not sent else 0.0))
            replicas = [replica for replica in self._replicas() if replica.process.alive]
            if not replicas:
                continue
            replica = self._process.loop.rng.choice(replicas)
            follower = None if tail is None else self._to(replica, key.turn_id, tail)
            request = replica.process.spawn(replica.stage.run_turn(key, follower, after_seq, dead=dead))
            if kind == "unsure" and not sent:
                # The connection broke: it may run there or not, and it is sent again.
                request.add_done_callback(_seen)
                await asyncio.sleep(0.05)
                continue
            done, _ = await asyncio.wait({request, replica.process.died}, return_when=asyncio.FIRST_COMPLETED)
            if request in done:
                _seen(request)
                if not sent or not _refused(request):
                    break
            else:
                dead = (*dead, replica.name)
            await asyncio.sleep(0.05 * 2**sent)
        if tail is not None:
            self._process.loop.call_later(0.5, tail.end)

    async def follow(self, key: TurnKey, owner: Owner, *, after_seq: int) -> LiveTail:
        tail = SimTail(self._process, self._max_items)
        fault = self._faults.at("follow")
        replica = await self._reach(owner, fault.duration_s if fault and fault.kind == "slow" else 0.0)
        if fault is not None and fault.kind == "fail":
            replica = None
        if replica is None or not replica.stage.follow(key.turn_id, self._to(replica, key.turn_id, tail), after_seq):
            tail.end()
        elif fault is None or fault.kind != "unwatched":
            replica.process.died.add_done_callback(lambda _: self._process.loop.call_later(0.02, tail.end))
        return tail

    async def hint_cancel(self, key: TurnKey, owner: Owner) -> None:
        replica = await self._reach(owner, 0.0)
        if replica is not None:
            replica.stage.hint_cancel(key.turn_id)

    async def hint_answer(self, key: TurnKey, owner: Owner) -> None:
        replica = await self._reach(owner, 0.0)
        if replica is not None:
            replica.stage.hint_answer(key.turn_id)

    async def _reach(self, owner: Owner, more_s: float) -> Replica | None:
        """The owner, if it answers in time."""
        await asyncio.sleep(self._faults.latency_s() + more_s)
        for replica in self._replicas():
            if replica.owner == owner:
                if not replica.process.runs:
                    await asyncio.sleep(ASK_TIMEOUT_S)
                return replica if replica.process.runs else None
        return None

    def _to(self, replica: Replica, turn_id: str, tail: SimTail) -> SimFollower:
        return SimFollower(replica, turn_id, tail, self._faults, self._ledger)


def _seen(request: asyncio.Task[bool]) -> None:
    """How a request failed is told by the log of its turn."""
    if not request.cancelled():
        request.exception()


def _refused(request: asyncio.Task[bool]) -> bool:
    """Whether the turn was somebody else's."""
    return not request.cancelled() and request.exception() is None and not request.result()
