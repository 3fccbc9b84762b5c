"""Versions of a prompt beside the one in use: a draft is used by nobody who does not ask for it by its version."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.domain.identity import Principal
from serve_app.domain.prompts import PromptRequest
from serve_app.errors import ConfigError, NotFound
from serve_app.prompting.builder import LocalPromptBuilder
from serve_app.prompting.library import PromptLibrary
from tests.unit.prompting.conftest import WordCounter, WritePrompt

SALES = Principal(tenant_id="acme", user_id="ann", roles=("sales",))
DRAFT = 'roles: "*"\ndraft: true'


@pytest.fixture
def builder(tmp_path: Path, write_prompt: WritePrompt, words: WordCounter) -> LocalPromptBuilder:
    write_prompt("assistant", "first")
    write_prompt("assistant", "second", version="v2")
    write_prompt("assistant", "tenth", version="v10", front=DRAFT)
    write_prompt("coach", "coaching", front="roles: [sales]")
    write_prompt("coach", "coaching better", version="v2", front="roles: [sales]\ndraft: true")
    write_prompt("idea", "only a draft", front=DRAFT)
    write_prompt("title", "A title.", front="roles: []")
    return LocalPromptBuilder(PromptLibrary(tmp_path), words, role_prompts={"coaches": "coach"})


async def system_of(builder: LocalPromptBuilder, principal: Principal = SALES, **request: str) -> tuple[str, str]:
    prompt = await builder.build(PromptRequest(principal=principal, query="Hi", **request))  # type: ignore[arg-type]
    assert prompt.messages[0].content == prompt.session_prompt.text
    return prompt.session_prompt.text, prompt.session_prompt.version


async def test_a_draft_is_never_in_use_and_is_found_by_its_version(builder: LocalPromptBuilder) -> None:
    assert await system_of(builder) == ("second", "v2")
    assert await system_of(builder, prompt_version="v10") == ("tenth", "v10")
    assert await system_of(builder, prompt_version="v1") == ("first", "v1"), "an older one, too"
    assert await system_of(builder, prompt_name="assistant", prompt_version="v10") == ("tenth", "v10")
    assert "idea" not in await builder.names(SALES)
    with pytest.raises(NotFound):
        await system_of(builder, prompt_name="idea")
    assert await system_of(builder, prompt_name="idea", prompt_version="v1") == ("only a draft", "v1")


async def test_a_version_without_a_name_is_one_of_the_prompt_that_the_roles_get(builder: LocalPromptBuilder) -> None:
    coach = Principal(tenant_id="acme", user_id="bea", roles=("coaches", "sales"))
    assert await system_of(builder, coach, prompt_version="v2") == ("coaching better", "v2")


async def test_a_version_that_is_not_there_names_those_that_are(builder: LocalPromptBuilder) -> None:
    with pytest.raises(NotFound, match=r"'assistant' has no version 'v3'; there are v1, v2, v10\."):
        await system_of(builder, prompt_version="v3")


async def test_a_version_that_the_roles_may_not_use_looks_like_a_prompt_that_does_not_exist(
    builder: LocalPromptBuilder,
) -> None:
    nobody = Principal(tenant_id="acme", user_id="eve")
    seen = set()
    for name in ("coach", "nothing"):
        with pytest.raises(NotFound) as caught:
            await system_of(builder, nobody, prompt_name=name, prompt_version="v2")
        seen.add(caught.value.message)
    assert len(seen) == 1


async def test_versions_are_listed_with_the_one_in_use_first_and_the_programs_own_left_out(
    builder: LocalPromptBuilder,
) -> None:
    assert await builder.versions() == {"assistant": ("v2", "v10", "v1"), "coach": ("v1", "v2"), "idea": ("v1",)}


def test_a_needed_prompt_of_which_there_are_only_drafts_stops_the_start(
    tmp_path: Path, write_prompt: WritePrompt
) -> None:
    write_prompt("assistant", "x", front=DRAFT)
    with pytest.raises(ConfigError, match="'assistant' is needed"):
        PromptLibrary(tmp_path, required=["assistant"])


def test_a_draft_says_true_or_false(tmp_path: Path, write_prompt: WritePrompt) -> None:
    write_prompt("assistant", "x", front='roles: "*"\ndraft: maybe')
    with pytest.raises(ConfigError, match="line 3, has a value for 'draft' that cannot be used"):
        PromptLibrary(tmp_path)
