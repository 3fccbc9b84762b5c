"""What came of a case: its turns as they were run, and the grades they got."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from serve_app.domain.conversation import Part
from serve_app.domain.usage import Usage


class StepTrace(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of a turn: a model call and its tool calls, where its time went, and what it cost. ``first_delta_ms`` is from the
    beginning of the model call."""

    step: int
    parts: tuple[Part, ...] = ()
    model_id: str = ""
    provider: str = ""
    finish_reason: str = ""
    attempt: int = 1
    model_ms: int = 0
    first_delta_ms: int | None = None
    tools_ms: int = 0
    usage: Usage = Usage()
    warning: str = ""


class TurnResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of a case. ``parts`` are its answer: text, calls and results in order; ``answer`` is the text after the last call.

    ``total_ms`` is from acceptance to end; ``cost_microusd`` is in ``usage``. ``error_code`` is empty unless it failed.
    ``unrecorded`` names calls for which there was no recorded (or made up) result.
    """

    turn_id: str
    question: str
    answer: str = ""
    state: Literal["completed", "failed", "cancelled"] = "completed"
    finish_reason: str = ""
    steps: tuple[StepTrace, ...] = ()
    usage: Usage = Usage()
    first_delta_ms: int | None = None
    total_ms: int = 0
    queued_ms: int = 0
    prompt: str = ""
    error_code: str = ""
    error_message: str = ""
    unrecorded: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(part for step in self.steps for part in step.parts)


class Grade(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a grader found. ``score`` is from 0 to 1, ``passed`` whether that is enough; both None where it could not grade
    (``reason`` says why: that counts neither for nor against). ``usage`` is what grading itself consumed."""

    grader: str
    score: float | None
    passed: bool | None
    reason: str = ""
    usage: Usage = Usage()
    details: dict[str, Any] = {}


class CellKey(Struct, frozen=True, kw_only=True):
    """One of the results a run is to have: a case under a configuration, the ``repeat``-th time (from 0)."""

    configuration: str
    case_id: str
    repeat: int = 0


class CaseResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``turns``: one, or in a replay one for each question. It failed where the last one did. ``attempts``: how often it was run
    before it ended so; ``retried`` is what the attempts before the last consumed. ``finished_at`` is in Unix seconds.
    ``shadowed``: it was not run but taken from a live turn."""

    key: CellKey
    turns: tuple[TurnResult, ...]
    tags: tuple[str, ...] = ()
    attempts: int = 1
    finished_at: float = 0.0
    shadowed: bool = False
    retried: Usage = Usage()

    @property
    def last(self) -> TurnResult:
        return self.turns[-1]

    @property
    def answer(self) -> str:
        return self.last.answer

    @property
    def failed(self) -> bool:
        return self.last.state != "completed"

    @property
    def usage(self) -> Usage:
        """Of the answer, without what it took to get it."""
        return sum((turn.usage for turn in self.turns), Usage())

    @property
    def cost_microusd(self) -> int:
        """All that was paid for it."""
        return self.usage.cost_microusd + self.retried.cost_microusd
