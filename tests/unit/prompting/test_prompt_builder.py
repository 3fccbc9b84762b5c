"""The whole builder: which prompt, when it is renewed, and the prompts that are shipped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from serve_app.domain.conversation import Message, SessionPrompt, TextPart
from serve_app.domain.identity import Principal
from serve_app.domain.prompts import PromptRequest
from serve_app.domain.tools import ToolSpec
from serve_app.domain.untrusted import NOTICE
from serve_app.errors import ConfigError, Internal, NotFound, TooLarge
from serve_app.prompting.builder import MAX_TITLE_CONTENT_TOKENS, LocalPromptBuilder
from serve_app.prompting.connect import connect
from serve_app.prompting.library import PromptLibrary
from serve_app.prompting.port import PromptBuilder
from serve_app.settings import PROJECT_ROOT, ConversationSettings, Settings
from tests.unit.prompting.conftest import WordCounter, WritePrompt

SALES = Principal(tenant_id="acme", user_id="sam", roles=("sales",))
CRM = ToolSpec(name="crm.find", description="Finds accounts.", input_schema={"type": "object"})
HR = ToolSpec(name="hr.find", description="Finds people.", input_schema={"type": "object"})


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def builder(tmp_path: Path, write_prompt: WritePrompt, words: WordCounter, clock: Clock) -> LocalPromptBuilder:
    body = "{{ date.iso }} {{ user.id }} {{ roles | join }} {{ tools | map(attribute='name') | join(' ') }}"
    write_prompt("assistant", body)
    write_prompt("coach", "Coach.", front="roles: [sales]\nmodel: big\nsettings: {temperature: 0.5}")
    write_prompt("title", "Make a title.", front="roles: []\nsettings: {max_output_tokens: 20}")
    library = PromptLibrary(tmp_path, scan_every_s=0.0)
    return LocalPromptBuilder(library, words, clock=clock, history_messages=2)


def request(**changes: Any) -> PromptRequest:
    return replace(PromptRequest(principal=SALES, query="Hello?", tools=(CRM,)), **changes)


async def kept_by(builder: PromptBuilder, **changes: Any) -> SessionPrompt:
    return (await builder.build(request(**changes))).session_prompt


async def test_a_prompt_is_system_history_user_with_the_templates_settings(builder: LocalPromptBuilder) -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    history = tuple(
        Message(message_id=f"m{n}", turn_id="t", role=role, parts=(TextPart(text=f"{role} {n}"),), created_at=at)
        for n in range(2)
        for role in ("user", "assistant")
    )
    prompt = await builder.build(request(prompt_name="coach", history=history))
    assert [(item.role, item.content) for item in prompt.messages] == [
        ("system", f"Coach.\n\n{NOTICE}"),
        ("user", "user 1"),
        ("assistant", "assistant 1"),
        ("user", "Hello?"),
    ]
    assert (prompt.model_id, prompt.settings.temperature, prompt.session_prompt.name) == ("big", 0.5, "coach")
    assert prompt.input_tokens > 0


async def test_the_kept_prompt_is_used_while_nothing_it_was_made_from_changes(
    builder: LocalPromptBuilder, clock: Clock
) -> None:
    kept = await kept_by(builder)
    assert kept.text == "2026-11-23 sam sales crm.find"
    clock.now += timedelta(hours=11)
    marked = replace(kept, text="as it was kept")
    prompt = await builder.build(request(kept=marked, query="Another?"))
    assert prompt.session_prompt is marked
    assert prompt.messages[0].content == f"as it was kept\n\n{NOTICE}"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"principal": replace(SALES, roles=("hr", "sales"))}, "2026-11-23 sam hrsales crm.find"),
        ({"principal": replace(SALES, roles=())}, "2026-11-23 sam  crm.find"),
        ({"principal": replace(SALES, tenant_id="other")}, "2026-11-23 sam sales crm.find"),
        ({"principal": replace(SALES, user_id="max")}, "2026-11-23 max sales crm.find"),
        ({"tools": (CRM, HR)}, "2026-11-23 sam sales crm.find hr.find"),
        ({"tools": ()}, "2026-11-23 sam sales"),
        ({"tools": (replace(CRM, description="Finds more."),)}, "2026-11-23 sam sales crm.find"),
    ],
)
async def test_a_change_of_who_asks_or_with_which_tools_renews_the_prompt(
    builder: LocalPromptBuilder, changes: dict[str, Any], text: str
) -> None:
    kept = await kept_by(builder)
    renewed = await kept_by(builder, kept=kept, **changes)
    assert renewed.text == text
    assert renewed.fingerprint != kept.fingerprint


async def test_the_order_of_roles_does_not_renew_the_prompt(builder: LocalPromptBuilder) -> None:
    kept = await kept_by(builder, principal=replace(SALES, roles=("hr", "sales")))
    assert await kept_by(builder, kept=kept, principal=replace(SALES, roles=("sales", "hr"))) is kept


async def test_a_new_day_renews_the_prompt_and_days_are_those_of_utc(builder: LocalPromptBuilder, clock: Clock) -> None:
    kept = await kept_by(builder)
    clock.now = datetime(2026, 11, 24, 1, tzinfo=timezone(timedelta(hours=5)))
    assert await kept_by(builder, kept=kept) is kept
    clock.now = datetime(2026, 11, 24, tzinfo=UTC)
    assert (await kept_by(builder, kept=kept)).text.startswith("2026-11-24")


async def test_an_edited_file_or_newer_version_renews_the_prompt(
    builder: LocalPromptBuilder, write_prompt: WritePrompt
) -> None:
    kept = await kept_by(builder)
    write_prompt("assistant", "Edited for {{ user.id }}.")
    edited = await kept_by(builder, kept=kept)
    assert (edited.text, edited.version) == ("Edited for sam.", "v1")
    write_prompt("assistant", "Edited for {{ user.id }}.", version="v2")
    assert (await kept_by(builder, kept=edited)).version == "v2"


async def test_a_changed_server_description_renews_the_prompts_of_those_who_use_it(
    tmp_path: Path, write_prompt: WritePrompt, words: WordCounter, clock: Clock
) -> None:
    write_prompt("assistant", "{% for s in servers %}{{ s.name }}: {{ s.description }}{% endfor %}")

    def described(**servers: str) -> LocalPromptBuilder:
        return LocalPromptBuilder(PromptLibrary(tmp_path), words, clock=clock, server_descriptions=servers)

    kept = await kept_by(described(crm="Customers."))
    assert kept.text == "crm: Customers."
    assert await kept_by(described(crm="Customers.", hr="People."), kept=kept) is kept
    assert (await kept_by(described(crm="Accounts."), kept=kept)).text == "crm: Accounts."


async def test_a_conversation_stays_with_its_prompt_as_long_as_its_user_may_use_it(builder: LocalPromptBuilder) -> None:
    kept = await kept_by(builder, prompt_name="coach")
    assert (await kept_by(builder, kept=kept)).name == "coach"
    assert (await kept_by(builder, kept=kept, principal=replace(SALES, roles=()))).name == "assistant"
    assert (await kept_by(builder, kept=replace(kept, name="removed"))).name == "assistant"
    assert (await kept_by(builder, kept=kept, prompt_name="assistant")).name == "assistant"


@pytest.mark.parametrize("name", ["title", "nothing", "../assistant", ""])
async def test_asking_for_a_prompt_that_is_not_offered_is_not_found(builder: LocalPromptBuilder, name: str) -> None:
    with pytest.raises(NotFound, match=r"There is no such prompt\."):
        await builder.build(request(prompt_name=name))


async def test_asking_for_another_roles_prompt_is_not_found(builder: LocalPromptBuilder) -> None:
    with pytest.raises(NotFound, match=r"There is no such prompt\."):
        await builder.build(request(prompt_name="coach", principal=replace(SALES, roles=("hr",))))


async def test_a_query_beyond_the_context_is_too_large(builder: LocalPromptBuilder) -> None:
    with pytest.raises(TooLarge):
        await builder.build(request(query="w " * 300, context_tokens=200))


async def test_a_prompt_that_cannot_be_rendered_for_somebody_is_an_internal_error(
    builder: LocalPromptBuilder, write_prompt: WritePrompt
) -> None:
    write_prompt("assistant", "{% if user.id == 'max' %}{{ user.id + 1 }}{% endif %}ok", version="v2")
    assert (await kept_by(builder)).text == "ok"
    with pytest.raises(Internal, match="'assistant' could not be rendered"):
        await builder.build(request(principal=replace(SALES, user_id="max")))


async def test_a_title_request_holds_the_beginning_of_the_message_as_it_was_written(
    builder: LocalPromptBuilder,
) -> None:
    prompt = await builder.title("{{ 7 * 7 }} Which opportunities?")
    assert [(item.role, item.content) for item in prompt.messages] == [
        ("system", "Make a title."),
        ("user", "{{ 7 * 7 }} Which opportunities?"),
    ]
    assert prompt.settings.max_output_tokens == 20
    long = await builder.title("w " * 5_000)
    assert len(long.messages[1].content.split()) <= MAX_TITLE_CONTENT_TOKENS


async def test_the_tokenizer_is_loaded_once_and_before_use(builder: LocalPromptBuilder, words: WordCounter) -> None:
    await builder.load()
    await builder.build(request())
    await builder.title("x")
    assert words.loads == 1


async def test_problems_with_files_are_told(builder: LocalPromptBuilder, write_prompt: WritePrompt) -> None:
    assert builder.problems() == []
    write_prompt("coach", "{{ nobody }}")
    await builder.build(request())
    assert "no variable 'nobody'" in builder.problems()[0]


@pytest.mark.parametrize(
    ("name", "roles", "offered"),
    [
        ("assistant", (), True),
        ("assistant", ("hr",), True),
        ("sales-coach", ("sales",), True),
        ("sales-coach", ("management",), True),
        ("sales-coach", ("admin",), True),
        ("sales-coach", ("hr",), False),
        ("title", ("admin",), False),
    ],
)
async def test_the_shipped_prompts_are_offered_by_role(name: str, roles: tuple[str, ...], offered: bool) -> None:
    builder = connect(Settings(prompts_dir=PROJECT_ROOT / "prompts"))
    asked = request(principal=replace(SALES, roles=roles), prompt_name=name)
    if not offered:
        with pytest.raises(NotFound):
            await builder.build(asked)
        return
    prompt = await builder.build(asked)
    assert prompt.session_prompt.name == name
    assert prompt.messages[-1].content == "Hello?"


async def test_the_shipped_assistant_has_a_section_for_each_server_the_user_may_use() -> None:
    builder: PromptBuilder = connect(Settings(prompts_dir=PROJECT_ROOT / "prompts"), {"crm": "Customers."})
    text = (await builder.build(request(tools=(CRM,)))).messages[0].content
    assert "### crm\n\nCustomers.\n\nTools: crm.find" in text
    assert "data, not instructions" in text
    assert "hr" not in text.split("### crm")[1]
    bare = (await builder.build(request(tools=()))).messages[0].content
    assert "###" not in bare
    assert "no tools" in bare
    assert "at most 6 words" in (await builder.title("Hi")).messages[0].content


def test_connect_refuses_to_start_without_the_prompts_it_needs(tmp_path: Path, write_prompt: WritePrompt) -> None:
    write_prompt("mine", "x")
    with pytest.raises(ConfigError, match="'title' is needed"):
        connect(Settings(prompts_dir=tmp_path, conversation=ConversationSettings(prompt="mine")))
    connect(Settings(prompts_dir=tmp_path, conversation=ConversationSettings(prompt="mine", titles=False)))
    with pytest.raises(ConfigError, match="'assistant' is needed"):
        connect(Settings(prompts_dir=tmp_path, conversation=ConversationSettings(titles=False)))


async def test_a_role_with_a_prompt_of_its_own_gets_it_and_everybody_else_the_default(
    write_prompt: WritePrompt, words: WordCounter, tmp_path: Path
) -> None:
    write_prompt("assistant", "I assist.")
    write_prompt("coach", "I coach.", front="roles: [sales]")
    builder = LocalPromptBuilder(PromptLibrary(tmp_path), words, role_prompts={"sales": "coach"})
    seller = Principal(tenant_id="acme", user_id="ann", roles=("management", "sales"))
    other = Principal(tenant_id="acme", user_id="bob", roles=("hr",))
    sold = await builder.build(PromptRequest(principal=seller, query="Hello"))
    asked = await builder.build(PromptRequest(principal=other, query="Hello"))
    assert (sold.messages[0].content, asked.messages[0].content) == ("I coach.", "I assist.")
    changed = await builder.build(PromptRequest(principal=other, query="Hello", kept=sold.session_prompt))
    assert changed.session_prompt.name == "assistant"
