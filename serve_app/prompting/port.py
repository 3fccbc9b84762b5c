"""The prompt builder: from a principal, a query and a history to the messages a model is given."""

from __future__ import annotations

from typing import Protocol

from serve_app.domain.prompts import Prompt, PromptRequest


class PromptBuilder(Protocol):
    async def build(self, request: PromptRequest) -> Prompt:
        """Chooses the prompt for the principal's roles, renders or keeps the session's, and fits the history.

        The prompt kept with the conversation is used as long as everything it was made from (template version, roles,
        tools, date, server configuration) is the same; else it is rendered anew and returned for keeping.
        Raises NotFound for a prompt that does not exist or that these roles may not use, TooLarge when the query alone
        does not fit the model's context.
        """
