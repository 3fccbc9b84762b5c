"""Whether the answer is JSON that keeps a schema."""

from __future__ import annotations

from typing import Any

from serve_app.errors import ConfigError
from serve_app.evaluation.graders.config import JsonSchemaConfig
from serve_app.evaluation.graders.json_answers import CheckedSchema, NoJsonError, read_json
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.graders.verdict import Verdicts, failed_turn
from serve_app.evaluation.results import Grade


class JsonSchemaGrader:
    pairwise = False

    def __init__(self, config: JsonSchemaConfig) -> None:
        """Raises ConfigError for a schema that cannot be used."""
        self.name = config.name
        self._fences = config.fences
        self._verdicts = Verdicts(config.name, config.threshold)
        self._schema = None if config.json_schema is None else CheckedSchema(config.json_schema)

    async def grade(self, subject: Subject) -> Grade | None:
        given: dict[str, Any] | None = subject.case.expected.schema
        if self._schema is None and given is None:
            return None
        if (turn := failed_turn(subject)) is not None:
            return self._verdicts.failed(turn)
        try:
            schema = self._schema or CheckedSchema(given or {})
            problems = schema.problems(read_json(subject.result.answer, fences=self._fences))
        except NoJsonError as error:
            return self._verdicts.scored(0.0, f"The answer cannot be read: {error}.")
        except ConfigError as error:
            return self._verdicts.ungraded(error.message)
        return self._verdicts.scored(0.0 if problems else 1.0, "; ".join(problems))
