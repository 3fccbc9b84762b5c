"""How much of what is expected stands in the answer."""

from __future__ import annotations

from serve_app.evaluation.graders.config import ContainsConfig
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.graders.texts import normalised, stands_in
from serve_app.evaluation.graders.verdict import Verdicts, failed_turn
from serve_app.evaluation.results import Grade

_MAX_NAMED = 10


class ContainsGrader:
    pairwise = False

    def __init__(self, config: ContainsConfig) -> None:
        self.name = config.name
        self._config = config
        self._verdicts = Verdicts(config.name, config.threshold)

    async def grade(self, subject: Subject) -> Grade | None:
        config = self._config
        # Whoever names only what must be absent has said nothing of the facts.
        wanted = config.values or (() if config.absent else subject.case.expected.facts)
        if not wanted and not config.absent:
            return None
        if (turn := failed_turn(subject)) is not None:
            return self._verdicts.failed(turn)
        # Whether 12 345 is one figure or two shows in what is looked for.
        readings = [(grouped, self._plain(subject.result.answer, grouped)) for grouped in (False, True)]
        missing = [text for text in wanted if not self._is_in(text, readings)]
        present = [text for text in config.absent if self._is_in(text, readings)]
        found = len(wanted) - len(missing)
        share = 1.0 if not wanted else found / len(wanted) if config.mode == "all" else float(found > 0)
        reasons = [f"It says {_named(present)}."] if present else []
        if missing and share < 1.0:
            reasons.append(f"It does not say {_named(missing)}.")
        return self._verdicts.scored(
            0.0 if present else share, " ".join(reasons), {"missing": missing, "unwanted": present} if reasons else {}
        )

    def _is_in(self, wanted: str, readings: list[tuple[bool, str]]) -> bool:
        whole_words = self._config.whole_words
        return any(stands_in(self._plain(wanted, grouped), text, whole_words=whole_words) for grouped, text in readings)

    def _plain(self, text: str, grouped: bool) -> str:
        return normalised(text, ignore_case=self._config.ignore_case, blanks_group=grouped)


def _named(texts: list[str]) -> str:
    named = ", ".join(f"“{text}”" for text in texts[:_MAX_NAMED])
    return named if len(texts) <= _MAX_NAMED else f"{named} and {len(texts) - _MAX_NAMED} more"
