"""What has become of all turns so far, and what is under way: for progress, and for the decision to stop."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from load_tests.stopping import Limits
from serve_app.capacity.percentiles import percentile
from serve_app.capacity.samples import TurnSample

RECENT = 200
"""Turns that the running percentile is of."""
FAILING_OF = 100
FAILING_SHARE = 0.5


class Live(Struct, frozen=True):
    """One process, now. ``lost`` are turns under way that cannot be good any more, ``due`` all: pairs of phase and count."""

    due: tuple[tuple[int, int], ...] = ()
    lost: tuple[tuple[int, int], ...] = ()
    running: int = 0
    waiting: int = 0
    users: int = 0
    cpu_share: float = 0.0


class PhaseCount(Struct):
    done: int = 0
    good: int = 0
    failed: int = 0


class Ended(Struct):
    """A turn's line, as far as it is counted here."""

    phase: int
    ttft_ms: float | None = None
    turn_ms: float | None = None
    code: str = ""


decode_ended = msgspec.json.Decoder(Ended).decode


class Tally:
    """Sums over all processes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._phases: dict[int, PhaseCount] = {}
        self._live: dict[str, Live] = {}
        self._recent_ttft_ms: deque[float] = deque(maxlen=RECENT)
        self._recent_failed: deque[bool] = deque(maxlen=FAILING_OF)

    def ended(self, turn: TurnSample | Ended) -> None:
        count = self.phase(turn.phase)
        count.done += 1
        self._recent_failed.append(bool(turn.code))
        if turn.code:
            count.failed += 1
        elif self._limits.met(turn.ttft_ms, turn.turn_ms):
            count.good += 1
        if turn.ttft_ms is not None:
            self._recent_ttft_ms.append(turn.ttft_ms)

    def is_now(self, process: str, live: Live) -> None:
        self._live[process] = live

    @property
    def processes(self) -> set[str]:
        """Those that have been heard of."""
        return set(self._live)

    def gone(self, process: str) -> None:
        """The process is there no more, and nothing is under way in it; what was due in it stays due."""
        live = self._live.get(process)
        if live is not None:
            self._live[process] = Live(due=live.due, lost=live.lost)

    def phase(self, index: int) -> PhaseCount:
        return self._phases.setdefault(index, PhaseCount())

    def due_in(self, index: int) -> int:
        return _sum_of(index, (live.due for live in self._live.values()))

    def lost_in(self, index: int) -> int:
        """Turns that were not good, or cannot be any more."""
        count = self.phase(index)
        return count.done - count.good + _sum_of(index, (live.lost for live in self._live.values()))

    @property
    def live(self) -> Live:
        """All processes together; CPU is that of the busiest."""
        lives = self._live.values()
        return Live(
            due=tuple(sum((Counter(dict(live.due)) for live in lives), Counter()).items()),
            running=sum(live.running for live in lives),
            waiting=sum(live.waiting for live in lives),
            users=sum(live.users for live in lives),
            cpu_share=max((live.cpu_share for live in lives), default=0.0),
        )

    @property
    def total(self) -> PhaseCount:
        counts = self._phases.values()
        return PhaseCount(
            done=sum(count.done for count in counts),
            good=sum(count.good for count in counts),
            failed=sum(count.failed for count in counts),
        )

    @property
    def recently_failed(self) -> int:
        """Of the last ``FAILING_OF`` turns, where there were so many and most of them failed; else 0."""
        failed = sum(self._recent_failed)
        return failed if len(self._recent_failed) == FAILING_OF and failed > FAILING_OF * FAILING_SHARE else 0

    @property
    def ttft_p95_ms(self) -> float | None:
        """Of the last turns that showed text."""
        if not self._recent_ttft_ms:
            return None
        return percentile(sorted(self._recent_ttft_ms), 0.95)


def _sum_of(index: int, counts: Iterable[tuple[tuple[int, int], ...]]) -> int:
    return sum(count for pairs in counts for phase, count in pairs if phase == index)
