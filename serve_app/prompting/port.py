"""The prompt builder: from a principal, a query and a history to the messages a model is given."""

from __future__ import annotations

from typing import Protocol

from serve_app.domain.identity import Principal
from serve_app.domain.prompts import Prompt, PromptRequest


class PromptBuilder(Protocol):
    async def build(self, request: PromptRequest) -> Prompt:
        """Chooses the prompt for the principal's roles, renders or keeps the session's, and fits the history.

        The prompt kept with the conversation is used as long as everything it was made from (template version, roles,
        tools, date, server configuration) is the same; else it is rendered anew and returned for keeping. Without
        ``prompt_name`` a conversation stays with the prompt it has, as long as the roles may use it, else it gets the
        default.
        Of a prompt the version in use is taken, unless ``prompt_version`` names another, which may be a draft.
        Raises NotFound for a prompt or a version that does not exist or that these roles may not use, TooLarge when the
        query alone does not fit the model's context.
        """

    async def names(self, principal: Principal) -> tuple[str, ...]:
        """The prompts that the principal's roles may use, by name."""

    async def versions(self) -> dict[str, tuple[str, ...]]:
        """The versions of every prompt by name, whoever may use it: the one in use first, then the others, drafts too."""

    async def title(self, content: str) -> Prompt:
        """The request for a title of a conversation that begins with ``content``: plain text, at most six words.

        For the utility model; nothing of it is kept with the conversation. A long ``content`` is shortened.
        Raises NotFound when there is no title prompt.
        """
