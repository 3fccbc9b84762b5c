"""Whether the answer has the expected figure."""

from __future__ import annotations

from serve_app.evaluation.graders.config import NumericConfig
from serve_app.evaluation.graders.figures import Figure, figures
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.graders.verdict import Verdicts, failed_turn
from serve_app.evaluation.results import Grade

_MAX_NAMED = 10


class NumericGrader:
    pairwise = False

    def __init__(self, config: NumericConfig) -> None:
        self.name = config.name
        self._config = config
        self._verdicts = Verdicts(config.name, config.threshold)

    async def grade(self, subject: Subject) -> Grade | None:
        expected = subject.case.expected.number
        if expected is None:
            return None
        if (turn := failed_turn(subject)) is not None:
            return self._verdicts.failed(turn)
        found = figures(subject.result.answer, self._config.decimal)
        if self._config.unit is not None:
            found = [figure for figure in found if figure.has_unit(self._config.unit)]
        picked = self._picked(found)
        values = [_shown(figure.value) for figure in found[:_MAX_NAMED]]
        if any(self._is_near(figure, expected) for figure in picked):
            return self._verdicts.scored(1.0, details={"figures": values})
        if not found:
            unit = f" in {self._config.unit}" if self._config.unit else ""
            return self._verdicts.scored(0.0, f"It has no figure{unit}; {_shown(expected)} is expected.")
        named = ", ".join(values)
        reason = f"Of its figures ({named}) none is {_shown(expected)}."
        if not picked:
            reason = f"It has several figures ({named}), and only one may be in it."
        elif len(picked) == 1 and len(found) > 1:
            reason = f"Its {self._config.pick} figure is {_shown(picked[0].value)}; {_shown(expected)} is expected."
        return self._verdicts.scored(0.0, reason, {"figures": values})

    def _picked(self, found: list[Figure]) -> list[Figure]:
        if self._config.pick == "first":
            return found[:1]
        if self._config.pick == "last":
            return found[-1:]
        if self._config.pick == "only" and len({figure.value for figure in found}) > 1:
            return []
        return found

    def _is_near(self, figure: Figure, expected: float) -> bool:
        tolerance = max(self._config.absolute, self._config.relative * abs(expected))
        # A quarter may be expected and 25 % be said.
        readings = (figure.value, figure.value / 100) if figure.percent else (figure.value,)
        return any(abs(value - expected) <= tolerance for value in readings)


def _shown(value: float) -> str:
    return f"{value:,.10g}"
