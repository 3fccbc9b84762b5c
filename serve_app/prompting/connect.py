"""The prompt builder that the settings describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from serve_app.credentials import Secrets
from serve_app.files.port import FileStore
from serve_app.prompting.builder import TITLE_PROMPT, LocalPromptBuilder
from serve_app.prompting.library import PromptLibrary
from serve_app.prompting.tokens import BpeTokenCounter, CachedTokenCounter
from serve_app.settings import Settings

if TYPE_CHECKING:
    from serve_app.prompting.container import PromptContainer


def connect(
    settings: Settings, server_descriptions: Mapping[str, str] | None = None, *, files: FileStore | None = None
) -> LocalPromptBuilder:
    """Reads all prompts of ``prompts_dir``; the tokenizer is loaded with the first use, or by ``load``.

    ``files`` is where a query's attachments are. Raises ConfigError when a prompt file cannot be used, or when one that the
    settings name, or the title prompt where titles are made, is missing.
    """
    library = PromptLibrary(settings.path(settings.prompts_dir), required=_required(settings))
    return _builder(settings, library, server_descriptions, files)


async def open_prompts(
    settings: Settings,
    secrets: Secrets,
    server_descriptions: Mapping[str, str] | None = None,
    *,
    files: FileStore | None = None,
) -> LocalPromptBuilder:
    """The same from the container ``azure.prompts_container`` where one is set, else from the folder. Close it at the end.

    Raises ConfigError also where the container cannot be read.
    """
    azure = settings.azure
    if azure.prompts_container is None:
        return connect(settings, server_descriptions, files=files)
    # Imported where it is needed: the SDK takes a while, and a folder never uses it.
    from serve_app.blob.container import BlobContainer
    from serve_app.prompting.container import PromptContainer

    place = PromptContainer(BlobContainer.open(azure, secrets.azure_storage_key, azure.prompts_container))
    try:
        await place.load()
        # What it scans is in memory, and says so itself when nothing has changed.
        library = PromptLibrary(place, required=_required(settings), scan_every_s=0.0)
    except BaseException:
        await place.close()
        raise
    return _builder(settings, library, server_descriptions, files, place)


def _required(settings: Settings) -> list[str]:
    conversation = settings.conversation
    titles = [TITLE_PROMPT] if conversation.titles else []
    return [conversation.prompt, *conversation.role_prompts.values(), *titles]


def _builder(
    settings: Settings,
    library: PromptLibrary,
    server_descriptions: Mapping[str, str] | None,
    files: FileStore | None,
    place: PromptContainer | None = None,
) -> LocalPromptBuilder:
    conversation = settings.conversation
    return LocalPromptBuilder(
        library,
        CachedTokenCounter(BpeTokenCounter()),
        default_prompt=conversation.prompt,
        role_prompts=conversation.role_prompts,
        history_messages=conversation.history_messages,
        server_descriptions=server_descriptions,
        files=files,
        freshen=place.freshen if place is not None else None,
        close=place.close if place is not None else None,
    )
