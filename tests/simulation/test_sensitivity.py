"""The simulation notices when the program breaks its promises: each is broken on purpose, and named by what caught it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from serve_app.domain.events import EventRecord
from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import AcceptedTurn, AppendReply, AppendTurn, NewTurn, Owner, Turn, TurnClaim
from serve_app.ingress.chat import ChatService
from serve_app.ingress.tail import TurnTail
from serve_app.storage.memory.store import MemoryStore
from serve_app.turns.log import TurnLog
from serve_app.turns.port import TailItem
from serve_app.turns.steps import TurnRun
from serve_app.turns.tails import Tails
from serve_app.turns.tool_steps import ToolSteps
from serve_app.turns.writer import LogWriter
from tests.simulation.ledger import Violation
from tests.simulation.schedule import WRITE_TOOL, Action, Fault, Schedule, Step
from tests.simulation.simulation import simulate

Break = Callable[[pytest.MonkeyPatch], None]


def shows_before_commit(patch: pytest.MonkeyPatch) -> None:
    append = LogWriter._append

    async def early(self: LogWriter, taken: list[tuple[TurnLog, AppendTurn]]) -> None:
        for turn_log, share in taken:
            self._publish(turn_log.key.turn_id, share.records)
        await append(self, taken)

    patch.setattr(LogWriter, "_append", early)


def takes_any_epoch(patch: pytest.MonkeyPatch) -> None:
    append = MemoryStore._append

    def any_epoch(self: MemoryStore, share: AppendTurn) -> AppendReply:
        return append(self, replace(share, epoch=self._turn(share.key).turn.epoch))

    patch.setattr(MemoryStore, "_append", any_epoch)


def takes_good_leases(patch: pytest.MonkeyPatch) -> None:
    claim_turn = MemoryStore.claim_turn

    async def anyway(self: MemoryStore, key: TurnKey, owner: Owner, **how: Any) -> TurnClaim:
        self._turn(key).lease_until = 0.0
        return await claim_turn(self, key, owner, **how)

    patch.setattr(MemoryStore, "claim_turn", anyway)


def runs_turns_that_wait(patch: pytest.MonkeyPatch) -> None:
    claim_turn = MemoryStore.claim_turn

    async def at_once(self: MemoryStore, key: TurnKey, owner: Owner, **how: Any) -> TurnClaim:
        held = self._turn(key)
        held.turn = replace(held.turn, waits=False)
        return await claim_turn(self, key, owner, **how)

    patch.setattr(MemoryStore, "claim_turn", at_once)


def splices_generations(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TurnRun, "void_broken_step", lambda _run: None)


def gives_numbers_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TurnRun, "_void_what_is_lost", lambda _run: False)


def shows_ahead_of_what_it_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("serve_app.turns.stage.AHEAD", {"async": 0})
    patch.setattr(TurnLog, "_may_show", property(lambda _log: 1_000, lambda _log, _seq: None), raising=False)


def runs_every_tool_again(patch: pytest.MonkeyPatch) -> None:
    everything = property(lambda _run: frozenset({WRITE_TOOL}), lambda _run, _value: None)
    patch.setattr(ToolSteps, "idempotent", everything, raising=False)


def shows_repeats(patch: pytest.MonkeyPatch) -> None:
    async def merge(self: TurnTail, items: Sequence[TailItem]) -> AsyncIterator[list[Any]]:
        yield [self._accept(item) for item in items if isinstance(item, EventRecord)]

    patch.setattr(TurnTail, "_merge", merge)


def believes_its_live_source(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TurnTail, "_patience_s", lambda _tail: 1e6)


def acknowledges_before_accepting(patch: pytest.MonkeyPatch) -> None:
    async def accept(self: ChatService, new: NewTurn) -> AcceptedTurn:
        turn = Turn(
            key=new.key,
            principal=new.principal,
            query=new.query,
            created_at=new.created_at,
            deadline=new.deadline,
            last_seq=1,
        )
        return AcceptedTurn(turn=turn, created=True)

    patch.setattr(ChatService, "_accept", accept)


def mixes_up_turns(patch: pytest.MonkeyPatch) -> None:
    publish = Tails.publish

    def to_all(self: Tails, turn_id: str, records: Sequence[EventRecord]) -> None:
        for other in list(self._tails):
            publish(self, other, records)

    patch.setattr(Tails, "publish", to_all)


def talk(*faults: Fault, steps: tuple[Step, ...] = (Step(4),), piece_s: float = 0.3) -> Schedule:
    return Schedule((Action("send", 0.0, steps=steps),), faults, clients=1, replicas=2, piece_s=piece_s)


def shown_first(*faults: Fault) -> Schedule:
    return dataclasses.replace(talk(*faults), durability="async")


TWO_TALKS = (Action("send", 0.0, steps=(Step(4),)), Action("send", 0.0, 1, 1, steps=(Step(4),)))
CASES: list[tuple[Break, Schedule, str]] = [
    (shows_before_commit, talk(), "commit before show"),
    # The dead owner's last append arrives between the claim of the next owner and its first append.
    (takes_any_epoch, talk(Fault("append", 1, "die_late", 0.0565)), "an old epoch writes nothing"),
    (
        takes_good_leases,
        Schedule((*TWO_TALKS[:1], *[Action("run_again", 0.2)] * 5), seed=1),
        "a good lease is not taken",
    ),
    (
        runs_turns_that_wait,
        Schedule((*[TWO_TALKS[0]] * 2, Action("run_again", 0.3, which=1)), on_busy="queue", piece_s=0.3),
        "who waits does not run",
    ),
    (splices_generations, talk(Fault("generate", 0, "die", piece=2)), "what was shown is the answer"),
    (gives_numbers_again, shown_first(Fault("generate", 0, "die", piece=2)), "what was shown is the answer"),
    (shows_ahead_of_what_it_told, shown_first(), "commit before show"),
    (
        runs_every_tool_again,
        talk(Fault("tool", 0, "die_after"), steps=(Step(1, (WRITE_TOOL,)), Step(1))),
        "a tool that may not run twice ran once",
    ),
    (shows_repeats, talk(Fault("deliver", 1, "twice")), "a client gets every event once, in order"),
    (
        believes_its_live_source,
        Schedule(
            (TWO_TALKS[0], Action("leave", 0.2), Action("watch", 0.1, 1), Action("kill", 1.5)),
            (Fault("follow", 0, "unwatched"),),
            replicas=1,
            piece_s=1.0,
        ),
        "every client sees the end",
    ),
    (acknowledges_before_accepting, talk(), "an acknowledged message is stored"),
    (mixes_up_turns, Schedule(TWO_TALKS, replicas=1, conversations=2, piece_s=0.3), "commit before show"),
]


@pytest.mark.parametrize(("breaks", "schedule", "caught_by"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_program_that(breaks: Break, schedule: Schedule, caught_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(schedule)
    breaks(monkeypatch)
    with pytest.raises(Violation) as caught:
        simulate(schedule)
    assert caught.value.invariant == caught_by
