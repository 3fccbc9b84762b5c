"""How a grader asks a model."""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct

from serve_app.domain.generation import ModelMessage, ModelSettings
from serve_app.domain.usage import Usage


class JudgeAnswer(Struct, frozen=True, kw_only=True):
    """What the model said; ``usage`` is what that consumed."""

    text: str
    usage: Usage = Usage()
    model_id: str = ""


class JudgeCalls(Protocol):
    """A model to ask. It knows nothing of a conversation."""

    async def ask(
        self,
        messages: tuple[ModelMessage, ...],
        *,
        model: str | None,
        schema: dict[str, Any],
        settings: ModelSettings,
        key: str,
    ) -> JudgeAnswer:
        """One answer, which is to keep the JSON schema; ``model`` None is the graph's default.

        ``key`` says what is asked for: the same question under the same key is answered once, however often it is asked,
        and under another key anew. Raises ParleyError where there is no answer; ``retryable`` says whether there may be one
        later.
        """
