"""Conversations' titles: made by the utility model from the first question, and counted like everything a model does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from serve_app.domain.generation import Generation, ModelRequest
from serve_app.domain.prompts import Prompt
from serve_app.domain.turns import Turn
from serve_app.domain.usage import Usage, UsageRow
from serve_app.errors import NotFound, ParleyError
from serve_app.models.port import ModelGateway
from serve_app.prompting.port import PromptBuilder
from serve_app.storage.port import Store
from serve_app.turns.spending import estimated

MAX_TITLE_CHARS = 80


class Titles:
    def __init__(self, prompts: PromptBuilder, models: ModelGateway, store: Store) -> None:
        self._prompts = prompts
        self._models = models
        self._store = store

    async def make(self, turn: Turn) -> str | None:
        """The title that the turn's conversation has afterwards, made and stored unless it has one already.

        None where the model has found none, or the conversation is gone. Raises ParleyError.
        """
        prompt = await self._prompts.title(turn.query.content)
        generation = await self._generate(turn, prompt)
        consumed = _row(turn, generation.model_id, generation.usage)
        title = " ".join(generation.text.split()).strip("\"'. ")[:MAX_TITLE_CHARS].rstrip()
        if title:
            try:
                conversation = await self._store.update_conversation(
                    turn.key.conversation, title=title, if_untitled=True, usage=consumed
                )
                return conversation.title or title
            except NotFound:
                pass  # it has been deleted meanwhile, which cost no less
        if consumed is not None:
            await self._store.add_usage([consumed])
        return None

    async def _generate(self, turn: Turn, prompt: Prompt) -> Generation:
        request = ModelRequest(
            messages=prompt.messages,
            deadline=turn.deadline,
            model_id=prompt.model_id,
            purpose="utility",
            settings=prompt.settings,
            turn_id=turn.key.turn_id,
            request_id=turn.request_id,
            tenant_id=turn.principal.tenant_id,
        )
        shown: list[str] = []

        def on_text(pieces: Sequence[str]) -> None:
            shown.extend(pieces)

        try:
            return await self._models.generate(request, on_text)
        except ParleyError:
            # What it cost is not known here: the catalogue is not asked for what nobody will see.
            consumed = _row(turn, prompt.model_id, estimated(request, prompt, shown)) if shown else None
            if consumed is not None:
                await self._store.add_usage([consumed])
            raise


def _row(turn: Turn, model_id: str | None, usage: Usage) -> UsageRow | None:
    """None where nothing was consumed."""
    if usage == Usage():
        return None
    own = turn.key.conversation
    return UsageRow(
        tenant_id=own.tenant_id,
        user_id=own.user_id,
        conversation_id=own.conversation_id,
        turn_id=turn.key.turn_id,
        model_id=model_id,
        usage=usage,
        at=datetime.now(UTC),
        purpose="title",
    )
