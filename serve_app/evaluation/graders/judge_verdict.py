"""Reading what a judge has said. What does not keep the schema is no verdict, however near it comes: a guess would be ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from serve_app.evaluation.graders.config import JudgeConfig

Winner = Literal["A", "B", "tie"]


class NoVerdictError(Exception):
    """What was said is no verdict. The message says why."""


class Scores(Struct, frozen=True, kw_only=True):
    """``score`` is from 0 to 1, ``criteria`` as they were given."""

    score: float
    reason: str
    criteria: dict[str, int]


class Comparison(Struct, frozen=True, kw_only=True):
    winner: Winner
    reason: str


def read_scores(config: JudgeConfig, text: str, shown: Sequence[str] = ()) -> Scores:
    """``shown``: what was graded. Raises NoVerdictError."""
    said = _said(text, shown)
    if not config.criteria:
        given = _step(config, said, "score")
        return Scores(score=_share(config, given), reason=_reason(said), criteria={})
    scores = said.get("scores")
    if not isinstance(scores, dict):
        raise NoVerdictError("it has no scores")
    steps = {criterion.name: _step(config, scores, criterion.name) for criterion in config.criteria}
    weight = sum(criterion.weight for criterion in config.criteria)
    score = sum(criterion.weight * _share(config, steps[criterion.name]) for criterion in config.criteria) / weight
    return Scores(score=score, reason=_reason(said), criteria=steps)


def read_comparison(text: str, shown: Sequence[str] = ()) -> Comparison:
    """``shown``: what was compared. Raises NoVerdictError."""
    said = _said(text, shown)
    winner = said.get("winner")
    if winner == "A" or winner == "B" or winner == "tie":
        return Comparison(winner=winner, reason=_reason(said))
    raise NoVerdictError("its winner is none of A, B and tie")


def _said(text: str, shown: Sequence[str]) -> dict[str, Any]:
    """The object that was said: the whole text, or one with words around it."""
    said = _decoded(text.strip())
    if said is None:
        # What stands in the midst of words may be quoted: a verdict that an answer gave itself is none of the judge's.
        piece = _piece(text)
        said = _decoded(piece)
        if said is None:
            raise NoVerdictError("it is no JSON")
        if any(piece in one for one in shown):
            raise NoVerdictError("it only repeats what the answer says")
    if not isinstance(said, dict):
        raise NoVerdictError("it is no JSON object")
    return said


def _piece(text: str) -> str:
    """From the first brace to the last."""
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else ""


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None


def _step(config: JudgeConfig, said: dict[str, Any], name: str) -> int:
    value = said.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise NoVerdictError(f"it has no whole number as {name}")
    if not config.scale.min <= value <= config.scale.max:
        raise NoVerdictError(f"its {name} is {value}, which is not on the scale")
    return int(value)


def _share(config: JudgeConfig, step: int) -> float:
    return (step - config.scale.min) / (config.scale.max - config.scale.min)


def _reason(said: dict[str, Any]) -> str:
    reason = said.get("reason")
    return reason if isinstance(reason, str) else ""
