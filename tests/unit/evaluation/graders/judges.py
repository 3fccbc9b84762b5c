"""Judges that say what a test has them say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from serve_app.domain.generation import ModelMessage, ModelSettings
from serve_app.domain.usage import Usage
from serve_app.errors import ParleyError
from serve_app.evaluation.graders.judge_port import JudgeAnswer

_QUOTED = re.compile(r"===== (.+?) begins ([0-9a-f]{16})\n(.*?)\n===== \1 ends \2", re.DOTALL)


class Asked(Struct, frozen=True):
    """A question as the judge sees it. ``quoted`` is by name."""

    system: str
    user: str
    quoted: dict[str, str]
    schema: dict[str, Any]
    model: str | None
    settings: ModelSettings
    key: str


Says = Callable[[Asked], str | ParleyError]


class ScriptedJudge:
    """Implements ``JudgeCalls``."""

    def __init__(self, says: Says) -> None:
        self.says = says
        self.asked: list[Asked] = []

    async def ask(
        self,
        messages: tuple[ModelMessage, ...],
        *,
        model: str | None,
        schema: dict[str, Any],
        settings: ModelSettings,
        key: str,
    ) -> JudgeAnswer:
        system, user = (message.content for message in messages)
        quoted = {name: text for name, _, text in _QUOTED.findall(user)}
        asked = Asked(system, user, quoted, schema, model, settings, key)
        self.asked.append(asked)
        said = self.says(asked)
        if isinstance(said, ParleyError):
            raise said
        return JudgeAnswer(
            text=said, usage=Usage(input_tokens=10, output_tokens=2, cost_microusd=5), model_id="judge-1"
        )


def gives(step: int, reason: str = "Because.") -> str:
    return json.dumps({"reason": reason, "score": step})


def prefers(winner: str, reason: str = "Because.") -> str:
    return json.dumps({"reason": reason, "winner": winner})


def in_turn(*texts: str) -> Says:
    """One after the other, the last for ever."""
    left = list(texts)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def biased(quality: Callable[[str], float], bias: float) -> Says:
    """Compares by ``quality``, and thinks ``bias`` better of what is shown first."""

    def says(asked: Asked) -> str:
        ahead = quality(asked.quoted["answer A"]) + bias - quality(asked.quoted["answer B"])
        return prefers("tie" if ahead == 0 else "A" if ahead > 0 else "B")

    return says
