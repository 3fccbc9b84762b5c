"""What a run folder says about the run as a whole: what was compared, on which cases, and how far it got."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from serve_app.domain.generation import ModelSettings
from serve_app.domain.trial import RecordedCall, ToolMode

EvaluationMode = Literal["next-turn", "replay", "single-shot"]
"""The recorded history and a new answer to its last question; all questions anew, each after our own replies; the last
question alone."""

Ended = Literal["running", "complete", "interrupted", "budget", "failed"]
"""``running`` is also what a run is left as that was killed. ``budget``: it has cost what it may."""


class ConfigurationMeta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A configuration as it was run: the version of its prompt and its model are the ones there were, not the defaults' names."""

    name: str
    prompt: str = ""
    prompt_version: str = ""
    model: str = ""
    settings: ModelSettings = ModelSettings()
    tools: ToolMode = "live"
    only_tools: tuple[str, ...] | None = None
    note: str = ""


class GraderMeta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A grader as it was configured."""

    name: str
    type: str
    threshold: float = 1.0
    mode: str = ""
    model: str = ""


class RunMeta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``cases`` counts those that were chosen of the data set's ``dataset_cases``. ``fingerprint`` is the data set's content.
    Instants are in Unix seconds; ``worked_s`` is how long all its runners have worked together. ``simulated``: its models were.
    """

    run_id: str
    name: str
    created_at: float
    configurations: tuple[ConfigurationMeta, ...]
    baseline: str
    kind: Literal["run", "shadow", "comparison"] = "run"
    """Cases that were run; live turns beside what was mirrored of them; configurations of two runs, side by side."""
    description: str = ""
    mode: EvaluationMode = "next-turn"
    tenant: str = ""
    role: str | None = None
    """As whom cases are asked that say nothing of it. A run that goes on asks as it began, or the same turn would be another one.
    """
    replies: tuple[RecordedCall, ...] | None = None
    """What simulated tools answer beside the recorded calls; as it began, too. None where only the run file says, as of runs that
    began before this was kept."""
    repeats: int = 1
    seed: int = 1
    graders: tuple[GraderMeta, ...] = ()
    dataset: str = ""
    fingerprint: str = ""
    dataset_cases: int = 0
    cases: int = 0
    graph: str = ""
    """Where it was run: ``local`` in the runner's own process, ``running`` by a running graph."""
    simulated: bool = False
    parley_version: str = ""
    ended: Ended = "running"
    finished_at: float | None = None
    worked_s: float = 0.0
    notes: tuple[str, ...] = ()
    """What makes a comparison's two runs unlike."""
    dropped_microusd: int = 0
    """What results cost that were taken out to be run again."""

    @property
    def names(self) -> tuple[str, ...]:
        """The configurations', in order."""
        return tuple(one.name for one in self.configurations)
