"""What a tenant has chosen for its turns comes before what the prompt says, and leaves the rest as it is."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serve_app.domain.identity import Principal, Terms, TurnChoices
from serve_app.domain.prompts import Prompt, PromptRequest
from serve_app.errors import TooLarge
from serve_app.prompting.builder import LocalPromptBuilder
from serve_app.prompting.library import PromptLibrary
from tests.unit.prompting.conftest import WordCounter, WritePrompt


@pytest.fixture
def builder(tmp_path: Path, write_prompt: WritePrompt, words: WordCounter) -> LocalPromptBuilder:
    front = "roles: '*'\nmodel: of-the-prompt\nsettings: {temperature: 0.5, max_output_tokens: 10}"
    write_prompt("assistant", "Help.", front=front)
    write_prompt("title", "Make a title.", front="roles: []\nsettings: {max_output_tokens: 20}")
    library = PromptLibrary(tmp_path, scan_every_s=0.0)
    return LocalPromptBuilder(library, words, clock=lambda: datetime(2026, 11, 23, tzinfo=UTC))


async def built(builder: LocalPromptBuilder, choices: TurnChoices, context_tokens: int = 1_000) -> Prompt:
    principal = Principal(tenant_id="acme", user_id="ana", terms=Terms(choices=choices))
    return await builder.build(PromptRequest(principal=principal, query="Hello?", context_tokens=context_tokens))


async def test_without_a_choice_the_prompt_decides(builder: LocalPromptBuilder) -> None:
    prompt = await built(builder, TurnChoices())
    assert (prompt.model_id, prompt.settings.temperature, prompt.settings.max_output_tokens) == (
        "of-the-prompt",
        0.5,
        10,
    )


async def test_each_choice_replaces_what_the_prompt_says(builder: LocalPromptBuilder) -> None:
    prompt = await built(builder, TurnChoices(model_id="of-the-tenant", temperature=0.0))
    assert (prompt.model_id, prompt.settings.temperature, prompt.settings.max_output_tokens) == (
        "of-the-tenant",
        0.0,
        10,
    )
    prompt = await built(builder, TurnChoices(max_output_tokens=99))
    assert (prompt.model_id, prompt.settings.temperature, prompt.settings.max_output_tokens) == (
        "of-the-prompt",
        0.5,
        99,
    )


async def test_room_is_left_for_the_answer_that_the_tenant_has_chosen(builder: LocalPromptBuilder) -> None:
    async def smallest_context(choices: TurnChoices) -> int:
        for context_tokens in range(1, 500):
            with contextlib.suppress(TooLarge):
                await built(builder, choices, context_tokens=context_tokens)
                return context_tokens
        raise AssertionError("nothing is large enough")

    assert await smallest_context(TurnChoices(max_output_tokens=1)) < await smallest_context(
        TurnChoices(max_output_tokens=50)
    )


async def test_a_choice_does_not_renew_the_prompt_that_a_conversation_keeps(builder: LocalPromptBuilder) -> None:
    before = (await built(builder, TurnChoices())).session_prompt
    assert (await built(builder, TurnChoices(model_id="of-the-tenant"))).session_prompt == before
