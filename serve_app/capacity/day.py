"""What a simulated day came to: replicas that were needed, that ran and that were paid for, and the figures of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from msgspec import Struct

FLAP_S = 900.0
"""A change of direction sooner than this is flapping."""


class Change(Struct, frozen=True):
    """A decision of the autoscaler."""

    at_s: float
    before: int
    after: int


class StageDay(Struct, frozen=True):
    """One stage, a moment every ``step_s``. ``needed``: the fewest replicas that carry the load of that moment; ``running``:
    those that took calls; ``paid``: those and the ones that start or end. ``wait_s``: how long the longest line was.
    """

    stage: str
    step_s: float
    least: int
    most: int
    needed: tuple[int, ...]
    running: tuple[int, ...]
    paid: tuple[int, ...]
    wait_s: tuple[float, ...]
    changes: tuple[Change, ...]


class Day(Struct, frozen=True):
    """``turns_per_s`` is what was offered at each moment. ``policy`` says by what the stages were scaled."""

    policy: str
    step_s: float
    seed: int
    turns_per_s: tuple[float, ...]
    users: tuple[float, ...]
    stages: tuple[StageDay, ...]


class StageFigures(Struct, frozen=True):
    """``over`` and ``under``: replica hours too many and too few, as shares of those needed. ``short``: the share of the day with
    fewer than needed; ``capped``: the share in which ``max_replicas`` would not do. ``flaps``: changes of direction within
    ``FLAP_S``.
    """

    stage: str
    needed_hours: float
    paid_hours: float
    over: float
    under: float
    short: float
    capped: float
    longest_wait_s: float
    changes: int
    changes_per_hour: float
    flaps: int
    fewest: int
    largest: int


class DaySummary(Struct, frozen=True, kw_only=True):
    """``stages``: figures of every stage, by policy."""

    serve_config: str
    seed: int
    peak_turns_per_s: float
    stages: dict[str, tuple[StageFigures, ...]]


def figures(stage: StageDay) -> StageFigures:
    """Raises ValueError for a day without moments."""
    if not stage.needed:
        raise ValueError("a day has moments")
    hours = stage.step_s / 3600
    needed = sum(stage.needed)
    return StageFigures(
        stage=stage.stage,
        needed_hours=needed * hours,
        paid_hours=sum(stage.paid) * hours,
        over=_excess(stage.paid, stage.needed) / needed,
        under=_excess(stage.needed, stage.running) / needed,
        short=_share(running < wanted for running, wanted in zip(stage.running, stage.needed, strict=True)),
        capped=_share(wanted > stage.most for wanted in stage.needed),
        longest_wait_s=max(stage.wait_s),
        changes=len(stage.changes),
        changes_per_hour=len(stage.changes) / (len(stage.needed) * hours),
        flaps=flaps(stage.changes),
        fewest=min(stage.running),
        largest=max(stage.running),
    )


def headline(day: Day) -> str:
    """What the day came to, over all stages."""
    told = [figures(stage) for stage in day.stages]
    needed, paid = sum(each.needed_hours for each in told), sum(each.paid_hours for each in told)
    return f"Scaled {day.policy}: {paid:.0f} replica hours for {needed:.0f} needed"


def flaps(changes: Sequence[Change]) -> int:
    """How often replicas that had just been added went again, or the other way round."""
    return sum(
        (one.after > one.before) != (two.after > two.before) and two.at_s - one.at_s < FLAP_S
        for one, two in pairwise(changes)
    )


def _excess(most: Sequence[int], least: Sequence[int]) -> int:
    return sum(max(0, more - less) for more, less in zip(most, least, strict=True))


def _share(values: Iterable[bool]) -> float:
    found = list(values)
    return sum(found) / len(found)
