"""A report folder, read: what a load test wrote down, as values.

The times between pieces of text are most of a run's volume, so they are kept as packed numbers by phase and not turn by turn.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from serve_app.capacity.run_folder import each_line, read_info, read_lines
from serve_app.capacity.samples import (
    GENERATOR,
    GRAPH,
    PHASES,
    SCENARIO,
    SESSIONS,
    TURNS,
    GeneratorSample,
    Phase,
    RunInfo,
    SessionSample,
    TurnSample,
)
from serve_app.capacity.scenario import Scenario, load_scenario
from serve_app.domain.stages import GraphState
from serve_app.errors import ConfigError

MAX_TURNS = 2_000_000
MAX_SESSIONS = 2_000_000
MAX_PHASES = 10_000
MAX_SECONDS = 400_000  # readings once a second: more than four days


@dataclass(frozen=True, slots=True)
class Run:
    """Everything a load test left, in order of time.

    ``turns`` have no ``gaps_ms`` any more: those of complete turns are in ``gaps_ms`` by phase, in milliseconds.
    ``phases`` all have an end: where the load generator was killed in one, that is when the run was over, or the last turn due.
    """

    folder: Path
    info: RunInfo
    scenario: Scenario
    phases: tuple[Phase, ...]
    turns: tuple[TurnSample, ...] = ()
    sessions: tuple[SessionSample, ...] = ()
    graph: tuple[GraphState, ...] = ()
    generator: tuple[GeneratorSample, ...] = ()
    gaps_ms: Mapping[int, array[float]] = field(default_factory=dict)

    @property
    def measured(self) -> tuple[Phase, ...]:
        """The phases that count: without the warm-up."""
        return tuple(phase for phase in self.phases if phase.measured)


def load_run(folder: Path) -> Run:
    """Reads ``folder``. Raises ConfigError with file and line where it is no report folder or a line cannot be read."""
    info = read_info(folder)
    phases = list(read_lines(folder / PHASES, Phase, MAX_PHASES))
    if not phases:
        raise ConfigError(f"{folder / PHASES} names no phase: the run ended before its load began. Run it again.")
    gaps: dict[int, array[float]] = {}
    turns = sorted(_turns(folder, gaps), key=lambda turn: turn.due_at)
    graph = tuple(sorted(read_lines(folder / GRAPH, GraphState, MAX_SECONDS), key=lambda state: state.at))
    generator = tuple(read_lines(folder / GENERATOR, GeneratorSample, MAX_SECONDS))
    return Run(
        folder=folder,
        info=info,
        scenario=load_scenario(folder / SCENARIO),
        phases=_ended(phases, info, turns),
        turns=tuple(turns),
        sessions=tuple(read_lines(folder / SESSIONS, SessionSample, MAX_SESSIONS)),
        graph=graph,
        generator=generator,
        gaps_ms=gaps,
    )


def _turns(folder: Path, gaps: dict[int, array[float]]) -> Iterator[TurnSample]:
    """The turns one by one, their gaps moved to ``gaps``."""
    for turn in each_line(folder / TURNS, TurnSample, MAX_TURNS):
        if not turn.code:
            gaps.setdefault(turn.phase, array("d")).extend(turn.gaps_ms)
        yield msgspec.structs.replace(turn, gaps_ms=()) if turn.gaps_ms else turn


def _ended(phases: list[Phase], info: RunInfo, turns: list[TurnSample]) -> tuple[Phase, ...]:
    """The phases by index, each once: the later line counts."""
    latest = {phase.index: phase for phase in phases}
    ordered = [latest[index] for index in sorted(latest)]
    ended = []
    for phase, follower in zip(ordered, [*ordered[1:], None], strict=True):
        if phase.ended_at is not None:
            ended.append(phase)
            continue
        last_turn = max((turn.due_at for turn in turns if turn.phase == phase.index), default=phase.began_at)
        end = follower.began_at if follower else info.ended_at or last_turn
        ended.append(msgspec.structs.replace(phase, ended_at=max(end, phase.began_at)))
    return tuple(ended)
