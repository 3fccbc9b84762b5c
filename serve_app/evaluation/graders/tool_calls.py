"""Whether the tool calls were made that should be: which, with what, in which order."""

from __future__ import annotations

import msgspec

from serve_app.domain.conversation import ToolCallPart
from serve_app.evaluation.cases import ExpectedCall
from serve_app.evaluation.graders.call_matching import CallMatch, Pairing, pair
from serve_app.evaluation.graders.config import ToolCallsConfig
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.graders.verdict import Verdicts, failed_turn, shortened
from serve_app.evaluation.results import Grade

_MAX_NAMED = 5
_SHOWN_CHARS = 200


class ToolCallsGrader:
    """The score is a share: of the expected calls those that were made (superset, ordered), of those made the expected ones
    (subset), of the longer list what both have (exact, unordered). Precision and recall are among the details."""

    pairwise = False

    def __init__(self, config: ToolCallsConfig) -> None:
        self.name = config.name
        self._config = config
        self._verdicts = Verdicts(config.name, config.threshold)
        self._match = CallMatch(config.arguments, config.ignore_case)

    async def grade(self, subject: Subject) -> Grade | None:
        expected = subject.case.expected.tool_calls
        if expected is None:
            return None
        if (turn := failed_turn(subject)) is not None:
            return self._verdicts.failed(turn)
        turns = subject.result.turns if self._config.turns == "all" else (subject.result.last,)
        made = [part for turn in turns for part in turn.parts if isinstance(part, ToolCallPart)]
        found = pair(expected, made, self._match)
        details = {
            "expected": found.expected,
            "made": found.made,
            "precision": found.matched / found.made if found.made else None,
            "recall": found.matched / found.expected if found.expected else None,
        }
        return self._verdicts.scored(self._score(found), self._reason(found), details)

    def _score(self, found: Pairing) -> float:
        longer = max(found.expected, found.made)
        if not found.expected or not longer:
            return float(not found.made)
        match self._config.mode:
            case "exact":
                return found.in_order / longer
            case "ordered":
                return found.in_order / found.expected
            case "unordered":
                return found.matched / longer
            case "superset":
                return found.matched / found.expected
            case "subset":
                return found.matched / found.made if found.made else 1.0

    def _reason(self, found: Pairing) -> str:
        mode = self._config.mode
        reasons = []
        if found.missing and mode != "subset":
            reasons.append(f"Not called: {_named([_expected(call) for call in found.missing])}.")
        if found.further and (mode in ("exact", "unordered", "subset") or not found.expected or found.missing):
            reasons.append(f"Called: {_named([_made(call) for call in found.further])}.")
        if found.in_order < found.matched and mode in ("exact", "ordered"):
            reasons.append("The order is another one.")
        return " ".join(reasons)


def _expected(call: ExpectedCall) -> str:
    return call.name if call.arguments is None else f"{call.name} {_json(call.arguments)}"


def _made(call: ToolCallPart) -> str:
    return f"{call.name} {_json(call.arguments)}"


def _json(arguments: object) -> str:
    return shortened(msgspec.json.encode(arguments).decode(), _SHOWN_CHARS)


def _named(calls: list[str]) -> str:
    named = ", ".join(calls[:_MAX_NAMED])
    return named if len(calls) <= _MAX_NAMED else f"{named} and {len(calls) - _MAX_NAMED} more"
