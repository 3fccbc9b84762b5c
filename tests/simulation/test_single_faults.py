"""One thing goes wrong, at every moment at which it can: exhaustive, where the drawn schedules are a sample."""

from __future__ import annotations

import pytest

from tests.simulation.ledger import Violation
from tests.simulation.schedule import KINDS, READ_TOOL, WRITE_TOOL, Action, Fault, Place, Schedule, Step
from tests.simulation.simulation import simulate

TALK = (
    Step(1, (READ_TOOL, WRITE_TOOL)),
    Step(0, (READ_TOOL,)),
    Step(2, (WRITE_TOOL,)),
)
"""A turn with text and tools in every mixture; in its last step the model asks for a tool that it is not offered."""

PLACES: dict[Place, int] = {"append": 12, "deliver": 8, "generate": 3, "tool": 3, "claim": 2, "accept": 1, "route": 1}
"""Where, and how many passes of it the turn makes."""


def alone(place: Place, nth: int, kind: str, *, piece_s: float, duration_s: float = 7.0) -> Schedule:
    """One turn and one fault."""
    fault = Fault(place, nth, kind, duration_s, piece=1)
    return Schedule((Action("send", 0.0, steps=TALK),), (fault,), clients=1, piece_s=piece_s)


SLOW, FAST = 0.02, 0.001


@pytest.mark.parametrize(
    ("place", "piece_s"),
    [
        ("append", SLOW),
        ("append", FAST),
        ("deliver", SLOW),
        ("deliver", FAST),
        ("generate", SLOW),
        ("generate", FAST),
        ("tool", SLOW),
        ("tool", FAST),
        ("claim", SLOW),
        ("accept", SLOW),
        ("route", SLOW),
    ],
)
def test_a_turn_survives_any_one_fault(place: Place, piece_s: float) -> None:
    broken = []
    for nth in range(PLACES[place]):
        for kind in KINDS[place]:
            # What is repeated or late arrives while the turn still runs; who stops does so for longer than the lease.
            duration_s = 0.02 if kind in {"twice", "late", "slow"} else 7.0
            schedule = alone(place, nth, kind, piece_s=piece_s, duration_s=duration_s)
            try:
                simulate(schedule)
            except Violation as violation:
                broken.append(f"{nth} {kind}: {str(violation)[:200]}")
    assert not broken, "\n".join(broken)
