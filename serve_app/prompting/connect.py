"""The prompt builder that the settings describe."""

from __future__ import annotations

from collections.abc import Mapping

from serve_app.prompting.builder import TITLE_PROMPT, LocalPromptBuilder
from serve_app.prompting.library import PromptLibrary
from serve_app.prompting.tokens import BpeTokenCounter, CachedTokenCounter
from serve_app.settings import Settings


def connect(settings: Settings, server_descriptions: Mapping[str, str] | None = None) -> LocalPromptBuilder:
    """Reads all prompts; the tokenizer is loaded with the first use, or by ``load``.

    Raises ConfigError when a prompt file cannot be used, or when one that the settings name, or the title prompt where
    titles are made, is missing.
    """
    conversation = settings.conversation
    titles = [TITLE_PROMPT] if conversation.titles else []
    required = [conversation.prompt, *conversation.role_prompts.values(), *titles]
    library = PromptLibrary(settings.path(settings.prompts_dir), required=required)
    return LocalPromptBuilder(
        library,
        CachedTokenCounter(BpeTokenCounter()),
        default_prompt=conversation.prompt,
        role_prompts=conversation.role_prompts,
        history_messages=conversation.history_messages,
        server_descriptions=server_descriptions,
    )
