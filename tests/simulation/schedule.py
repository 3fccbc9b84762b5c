"""A schedule: all that a simulation is drawn from, so that a failure is replayed from what Hypothesis prints.

Faults are tied to places, not to instants: the nth time that the simulation passes a place where something can go wrong, it
does. Durable things change at these places only, so that is where the narrow moments lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

from hypothesis import strategies as st

from serve_app.domain.turns import OnBusy

Place = Literal[
    "accept", "claim", "append", "cancel", "sweep", "read", "route", "follow", "deliver", "generate", "tool"
]

ActionKind = Literal[
    "send",
    "replace",
    "watch",
    "leave",
    "come_back",
    "cancel",
    "kill",
    "stop",
    "kill_ingress",
    "stop_ingress",
    "drain",
    "run_again",
]

WRITES = ("fail", "lose_reply", "late", "twice", "slow", "die", "die_after", "die_late", "stop", "stop_after")
KINDS: dict[Place, tuple[str, ...]] = {
    "append": WRITES,
    "claim": WRITES,
    "accept": WRITES,
    "cancel": WRITES,
    "sweep": ("fail", "slow", "die", "stop"),
    "read": ("fail", "slow", "die", "stop"),
    "route": ("fail", "unsure", "twice", "slow"),
    "follow": ("fail", "slow", "unwatched"),
    "deliver": ("drop", "twice", "cut", "slow", "die", "stop"),
    "generate": ("break", "die_with_stage", "refuse", "hang", "slow", "die", "stop"),
    "tool": ("stage_dies", "stage_dies_after", "error", "hang", "slow", "die", "die_after", "stop", "stop_after"),
}
"""What can go wrong where. ``die`` and ``stop`` befall the process that is there: before, after or without what it asked for.
``late``: the caller is told of a failure, and what it asked for happens afterwards."""

BUSY: dict[Place, int] = {"append": 24, "deliver": 16, "read": 10, "generate": 5, "tool": 5}
"""How many passes of a place a schedule may look at; 2 of those not named."""

DURATIONS_S = (0.02, 0.3, 1.2, 3.0, 5.2, 7.0, 12.0)
"""Shorter than a tick's neighbourhood, around the renewal, around the lease, and well beyond it."""

READ_TOOL = "box.read"
WRITE_TOOL = "box.write"


Durability = Literal["sync", "async", "exit"]


@dataclass(frozen=True)
class Fault:
    """``nth`` passes of ``place`` go well before it. ``piece``: of a generation, how many pieces come before."""

    place: Place
    nth: int
    kind: str
    duration_s: float = 0.3
    piece: int = 0


@dataclass(frozen=True)
class Step:
    """What the model does in one step of a turn: pieces of text, then calls. Of the last step the calls are refused."""

    pieces: int = 2
    tools: tuple[str, ...] = ()


@dataclass(frozen=True)
class Action:
    """Something that happens ``after_s`` the one before. ``who`` and ``which`` are taken modulo what there is.

    ``replace`` edits a question or asks for another answer, whichever message ``which`` is.
    """

    kind: ActionKind
    after_s: float = 0.1
    who: int = 0
    which: int = 0
    duration_s: float = 7.0
    steps: tuple[Step, ...] = (Step(),)


@dataclass(frozen=True)
class Schedule:
    actions: tuple[Action, ...]
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    on_busy: OnBusy = "reject"
    replicas: int = 2
    clients: int = 2
    conversations: int = 1
    titles: bool = False
    tail_items: int = 5_000
    piece_s: float = 0.02
    durability: Durability = "sync"


_CALLS = (READ_TOOL, WRITE_TOOL)
_STEPS = tuple(
    Step(pieces, tools) for many in range(4) for tools in product(_CALLS, repeat=many) for pieces in (1, 2, 4, 0)
)


def _faults_at(place: Place) -> list[Fault]:
    nths = range(BUSY.get(place, 2) + 1)
    pieces = range(4) if place == "generate" else (0,)
    return [Fault(place, nth, kind, d, p) for p in pieces for d in DURATIONS_S for kind in KINDS[place] for nth in nths]


_FAULTS: dict[Place, tuple[Fault, ...]] = {place: tuple(_faults_at(place)) for place in KINDS}
_EVENT_KINDS: tuple[ActionKind, ...] = (
    "watch",
    "leave",
    "come_back",
    "cancel",
    "kill",
    "stop",
    "kill_ingress",
    "stop_ingress",
    "drain",
    "run_again",
)
_EVENTS = tuple(
    Action(kind, after_s, who, which, duration_s)
    for who, which in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 2))
    for after_s in (0.0, 0.03, 0.1, 0.7, 3.0)
    for kind in _EVENT_KINDS
    for duration_s in (DURATIONS_S if kind.startswith("stop") else DURATIONS_S[:1])
)


def faults() -> st.SearchStrategy[Fault]:
    # Appends and the two slow stages are where turns spend their lives. One choice each: choices are what drawing costs.
    weighted = (*KINDS, "append", "append", "generate", "tool", "claim")
    return st.one_of([st.sampled_from(_FAULTS[place]) for place in weighted])


def actions() -> st.SearchStrategy[Action]:
    sends = st.builds(
        Action,
        kind=st.sampled_from(("send", "send", "send", "replace")),
        after_s=st.sampled_from((0.0, 0.05, 0.4, 2.0, 5.0)),
        who=st.integers(0, 2),
        which=st.integers(0, 3),
        steps=steps(),
    )
    return st.one_of(sends, st.sampled_from(_EVENTS))


def steps() -> st.SearchStrategy[tuple[Step, ...]]:
    return st.lists(st.sampled_from(_STEPS), min_size=1, max_size=4).map(tuple)


def schedules() -> st.SearchStrategy[Schedule]:
    """Schedules with at least one message."""
    first = steps().map(lambda script: Action("send", 0.0, steps=script))
    rest = st.lists(actions(), max_size=8)
    return st.builds(
        Schedule,
        actions=st.tuples(first, rest).map(lambda both: (both[0], *both[1])),
        faults=st.lists(faults(), min_size=1, max_size=8).map(tuple),
        seed=st.integers(0, 2**16),
        on_busy=st.sampled_from(("reject", "queue", "interrupt")),
        replicas=st.integers(1, 3),
        clients=st.integers(1, 3),
        conversations=st.integers(1, 2),
        titles=st.booleans(),
        tail_items=st.sampled_from((5_000, 3)),
        piece_s=st.sampled_from((0.004, 0.02, 0.3, 1.0)),
        durability=st.sampled_from(("sync", "sync", "async", "exit")),
    )
