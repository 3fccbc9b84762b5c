"""How near an answer is in meaning to the expected one."""

from __future__ import annotations

from serve_app.embeddings.port import Embedder
from serve_app.evaluation.graders.config import SimilarityConfig
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.graders.verdict import Verdicts, failed_turn
from serve_app.evaluation.results import Grade


class SimilarityGrader:
    """The cosine of the embeddings; what is below 0 counts as 0."""

    pairwise = False

    def __init__(self, config: SimilarityConfig, embedder: Embedder) -> None:
        self.name = config.name
        self._embedder = embedder
        self._verdicts = Verdicts(config.name, config.threshold)

    async def grade(self, subject: Subject) -> Grade | None:
        expected = subject.case.expected.answer
        if expected is None:
            return None
        if (turn := failed_turn(subject)) is not None:
            return self._verdicts.failed(turn)
        answer = subject.result.answer
        if not answer.strip() or not expected.strip():
            same = answer.strip() == expected.strip()
            return self._verdicts.scored(float(same), "" if same else "There is no text to compare.")
        found = await self._embedder.embed([answer, expected])
        cosine = float(found.vectors[0] @ found.vectors[1])
        return self._verdicts.scored(
            cosine,
            f"Its cosine with the expected answer is {cosine:.3f}.",
            {"embedder": self._embedder.name},
            found.usage,
        )
