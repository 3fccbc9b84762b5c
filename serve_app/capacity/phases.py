"""What the users of each phase saw: how much was offered, how much was answered, how fast, and what failed.

Turns belong to the phase in which they were due. What was *achieved* is counted by when answers were complete, and from a
moment after the phase began, so that answers to an earlier load do not count for this one: the window begins one turn's
duration (the median of the lightest phase) after the phase, and is held against the turns due in the same length of time
one such duration earlier. Both count the same turns where the server keeps up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from serve_app.capacity.percentiles import Spread, percentile, spread
from serve_app.capacity.run import Run
from serve_app.capacity.samples import Phase, SessionSample, TurnSample
from serve_app.capacity.scenario import Slo

LIGHTER = 0.9
MAX_SETTLING_SHARE = 1 / 3  # of a phase: what is left must still be most of it


class PhaseReport(Struct, frozen=True):
    """One phase. Rates per second, latencies in milliseconds, of complete answers only.

    ``load`` is where the phase stands on the axis of plots: turns offered per second, or users in a closed loop (``open`` says
    which). ``due`` turns were due in it, ``complete`` of them got a whole and right answer, ``good`` one within the SLO's
    limits. ``running`` is how many turns were under way at once, on average (Little's law: answers per second × duration).
    ``window_due`` and ``window_complete`` are what ``achieved_per_s`` is made of, ``kept_up`` is one over the other (1 where
    nothing was due) and ``chance`` how far they may differ by chance. ``error_share`` is failed over due turns.
    ``tpot_ms`` is time per output token after the first, of each turn; ``gap_ms`` time between arrivals of text. Tokens per turn
    are of turns that said how many they were.
    ``recovering``: the phase began with what a heavier one had left undone, and says nothing of its own load.
    ``connections`` were opened in the phase; ``connections_failed`` could not be opened or broke.
    """

    index: int
    name: str
    measured: bool
    open: bool
    load: float
    users: int
    began_at: float
    seconds: float
    due: int
    complete: int
    failed: int
    good: int
    error_share: float
    offered_per_s: float
    achieved_per_s: float
    goodput_per_s: float
    window_s: float
    window_due: int
    window_complete: int
    kept_up: float
    chance: float
    running: float
    tokens_per_s: float
    input_tokens_per_turn: float
    output_tokens_per_turn: float
    tool_calls_per_turn: float
    resumed: int
    codes: dict[str, int]
    ttft_ms: Spread
    turn_ms: Spread
    tpot_ms: Spread
    gap_ms: Spread
    late_ms: Spread
    connections: int
    connections_failed: int
    connect_ms: Spread
    meets_slo: bool
    breaks: tuple[str, ...] = ()
    recovering: bool = False

    @property
    def falls_behind(self) -> bool:
        """Fewer than 95 % were answered as they came, and by more than chance explains."""
        return self.kept_up < 0.95 and self.window_due - self.window_complete > self.chance


def phase_reports(run: Run) -> tuple[PhaseReport, ...]:
    """Every phase of ``run``, the warm-up too, in order of time."""
    settling_s = unhurried_turn_s(run)
    turns: dict[int, list[TurnSample]] = {phase.index: [] for phase in run.phases}
    for turn in run.turns:
        turns.setdefault(turn.phase, []).append(turn)
    sessions: dict[int, list[SessionSample]] = {phase.index: [] for phase in run.phases}
    for session in run.sessions:
        sessions.setdefault(session.phase, []).append(session)
    ends = sorted(
        (turn.due_at + turn.turn_ms / 1000, turn.output_tokens)
        for turn in run.turns
        if turn.turn_ms is not None and not turn.code
    )
    dues = [turn.due_at for turn in run.turns]
    reports = [
        _phase(
            run, phase, turns[phase.index], sessions[phase.index], _window(phase, settling_s, dues, ends), settling_s
        )
        for phase in run.phases
    ]
    return tuple(_recovering(reports))


def _recovering(reports: Sequence[PhaseReport]) -> Iterator[PhaseReport]:
    """Marks phases that follow a heavier one that was too much, for as long as they are not good themselves."""
    before: PhaseReport | None = None
    for report in reports:
        if before is not None and before.measured and before.breaks + ("behind",) * before.falls_behind:
            lighter = report.load < before.load * LIGHTER
            if lighter or (before.recovering and report.load <= before.load):
                report = msgspec.structs.replace(report, recovering=True)
        before = report
        yield report


def unhurried_turn_s(run: Run) -> float:
    """How long a turn takes where there is room: the median of the measured phase in which it is least. 0 without turns."""
    medians = []
    for phase in run.measured:
        times = sorted(t.turn_ms for t in run.turns if t.phase == phase.index and t.turn_ms is not None and not t.code)
        if times:
            medians.append(percentile(times, 0.5) / 1000)
    return min(medians, default=0.0)


class _Window(Struct, frozen=True):
    """The settled part of a phase: how long it is, what was due for it, and what was answered in it."""

    seconds: float
    due: int
    complete: int
    tokens: int


def _window(phase: Phase, settling_s: float, dues: Sequence[float], ends: Sequence[tuple[float, int]]) -> _Window:
    began, ended = phase.began_at, phase.ended_at or phase.began_at
    shift = min(settling_s, (ended - began) * MAX_SETTLING_SHARE)
    first, last = bisect_left(ends, (began + shift, -1)), bisect_left(ends, (ended, -1))
    return _Window(
        seconds=max(ended - began - shift, 0.0),
        due=bisect_left(dues, ended - shift) - bisect_left(dues, began),
        complete=last - first,
        tokens=sum(tokens for _, tokens in ends[first:last]),
    )


def _phase(
    run: Run,
    phase: Phase,
    turns: Sequence[TurnSample],
    sessions: Sequence[SessionSample],
    window: _Window,
    settling_s: float,
) -> PhaseReport:
    seconds = max((phase.ended_at or phase.began_at) - phase.began_at, 1e-9)
    whole = [turn for turn in turns if not turn.code]
    ttft = spread(turn.ttft_ms for turn in whole if turn.ttft_ms is not None)
    took = spread(turn.turn_ms for turn in whole if turn.turn_ms is not None)
    slo = run.scenario.slo
    failed = len(turns) - len(whole)
    errors = failed / len(turns) if turns else 0.0
    achieved = window.complete / window.seconds if window.seconds else 0.0
    breaks = _breaks(slo, ttft, took, errors, answered=bool(whole) or not turns)
    return PhaseReport(
        index=phase.index,
        name=phase.name,
        measured=phase.measured,
        open=phase.rate_per_s is not None,
        load=phase.rate_per_s if phase.rate_per_s is not None else float(phase.users),
        users=phase.users,
        began_at=phase.began_at,
        seconds=seconds,
        due=len(turns),
        complete=len(whole),
        failed=failed,
        good=sum(1 for turn in whole if within(slo, turn)),
        error_share=errors,
        offered_per_s=len(turns) / seconds,
        achieved_per_s=achieved,
        goodput_per_s=sum(1 for turn in whole if within(slo, turn)) / seconds,
        window_s=window.seconds,
        window_due=window.due,
        window_complete=window.complete,
        kept_up=window.complete / window.due if window.due else 1.0,
        # Turns under way at the window's two ends are Poisson numbers of about this mean: two standard deviations of their
        # difference. Only so much can the counts differ by themselves.
        chance=2 * (2 * max(settling_s * len(turns) / seconds, 1.0)) ** 0.5,
        running=achieved * took.mean / 1000,
        tokens_per_s=window.tokens / window.seconds if window.seconds else 0.0,
        input_tokens_per_turn=_mean(turn.input_tokens for turn in whole if says_tokens(turn)),
        output_tokens_per_turn=_mean(turn.output_tokens for turn in whole if says_tokens(turn)),
        tool_calls_per_turn=_mean(turn.tool_calls for turn in whole),
        resumed=sum(turn.resumed for turn in turns),
        codes=dict(Counter(turn.code for turn in turns if turn.code).most_common()),
        ttft_ms=ttft,
        turn_ms=took,
        tpot_ms=spread(_per_token(turn) for turn in whole if turn.output_tokens > 1 and turn.ttft_ms is not None),
        gap_ms=spread(run.gaps_ms.get(phase.index, ())),
        late_ms=spread(turn.late_ms for turn in turns),
        connections=sum(1 for session in sessions if session.connect_ms is not None),
        connections_failed=sum(1 for session in sessions if session.code),
        connect_ms=spread(session.connect_ms for session in sessions if session.connect_ms is not None),
        meets_slo=not breaks,
        breaks=breaks,
    )


def within(slo: Slo, turn: TurnSample) -> bool:
    """Whether a turn counts as good: whole and right, and each of its latencies within the SLO's limit for it."""
    if turn.code:
        return False
    if slo.ttft_p95_s is not None and (turn.ttft_ms is None or turn.ttft_ms > slo.ttft_p95_s * 1000):
        return False
    return slo.turn_p95_s is None or (turn.turn_ms is not None and turn.turn_ms <= slo.turn_p95_s * 1000)


def says_tokens(turn: TurnSample) -> bool:
    """Whether the server said how many tokens a turn was; not every way in does."""
    return turn.input_tokens > 0 or turn.output_tokens > 0


def _breaks(slo: Slo, ttft: Spread, took: Spread, errors: float, *, answered: bool) -> tuple[str, ...]:
    """The terms of the SLO that a phase does not keep, by name."""
    if not answered:
        return ("errors",)
    broken = []
    if slo.ttft_p95_s is not None and ttft.p95 > slo.ttft_p95_s * 1000:
        broken.append("ttft_p95")
    if slo.turn_p95_s is not None and took.p95 > slo.turn_p95_s * 1000:
        broken.append("turn_p95")
    if errors > slo.errors:
        broken.append("errors")
    return tuple(broken)


def _per_token(turn: TurnSample) -> float:
    """Milliseconds per token after the first."""
    return ((turn.turn_ms or 0.0) - (turn.ttft_ms or 0.0)) / (turn.output_tokens - 1)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0
