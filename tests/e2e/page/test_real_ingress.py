"""The page against the real ingress and turn loop on the memory store: what the fake backend assumes holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from serve_app.domain.tools import ToolCall
from serve_app.errors import UpstreamFailed
from tests.e2e.page.chat_page import ChatPage
from tests.e2e.page.real_ingress import real_ingress
from tests.scripted import Reply, ScriptedModels

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOOK_UP = Reply(
    pieces=("Looking. ",),
    tool_calls=(ToolCall(tool_call_id="c1", name="crm.find_account", arguments={"name": "Contoso"}),),
    finish_reason="tool_calls",
)
ANSWER = Reply(pieces=("Contoso ", "has ", "**two**."))


@dataclass
class Whole:
    chat: ChatPage
    models: ScriptedModels


@pytest_asyncio.fixture(loop_scope="session")
async def whole(chromium: Browser) -> AsyncGenerator[Whole]:
    models = ScriptedModels(LOOK_UP, ANSWER)
    context = await chromium.new_context(reduced_motion="reduce")
    async with real_ingress(models) as url:
        chat = ChatPage(await context.new_page(), url)
        await chat.prepare_cuts()
        await chat.start()
        await chat.sign_in()
        yield Whole(chat, models)
        await context.close()
    assert chat.complaints == []


async def test_an_answer_with_a_tool_call_is_shown_and_is_there_after_a_reload(whole: Whole) -> None:
    chat = whole.chat
    await chat.ask("Which opportunities does Contoso have?")
    for _ in range(2):
        answer = await chat.answered()
        await expect(answer.get_by_test_id("answer-text")).to_have_text(["Looking.", "Contoso has two."])
        await expect(answer.locator("strong").filter(has_text="two")).to_have_count(1)
        await expect(answer.get_by_test_id("tool-call")).to_have_attribute("data-state", "done")
        await expect(chat.at("title")).to_have_text("A title")
        await expect(chat.at("conversation")).to_have_count(1)
        await chat.page.reload()


async def test_a_cut_line_loses_and_doubles_nothing(whole: Whole) -> None:
    chat, hold = whole.chat, asyncio.Event()
    words = [f"{number} " for number in range(200)]
    whole.models.replies = [Reply(pieces=tuple(words), hold=hold)]
    await chat.ask("Count")
    await asyncio.wait_for(whole.models.holding.wait(), 10)
    await expect(chat.answer_text).to_contain_text("99")
    await chat.cut_lines()
    hold.set()
    await chat.answered()
    await expect(chat.answer_text).to_have_text("".join(words).strip())


async def test_stopping_ends_the_turn_and_keeps_its_text(whole: Whole) -> None:
    chat = whole.chat
    whole.models.replies = [Reply(pieces=("one ", "two "), hold=asyncio.Event())]
    await chat.ask("Count")
    await expect(chat.answer_text).to_have_text("one")
    await chat.page.keyboard.press("Escape")
    await chat.answered("cancelled")
    await asyncio.wait_for(whole.models.cancelled.wait(), 10)
    await chat.page.reload()
    await chat.answered("cancelled")
    await expect(chat.answer_text).to_have_text("one")


async def test_a_failure_is_told_in_the_servers_words(whole: Whole) -> None:
    chat = whole.chat
    whole.models.replies = [Reply(error=UpstreamFailed("The model is not allowed here.", False))]
    await chat.ask("Anything")
    await chat.answered("failed")
    await expect(chat.at("failure")).to_contain_text("The model is not allowed here.")
    await expect(chat.at("retry")).to_have_count(0)


async def test_conversations_are_renamed_archived_and_deleted_and_reactions_kept(whole: Whole) -> None:
    chat = whole.chat
    await chat.ask("Hello")
    await chat.answered()
    await expect(chat.at("title")).to_have_text("A title")
    async with chat.page.expect_response(lambda response: "/messages/" in response.url) as reaction:
        await chat.at("reaction-up").click()
    assert (await reaction.value).status == 200
    await chat.at("conversation-menu").click()
    await chat.at("menu-pencil").click()
    await chat.at("rename-input").fill("Renamed")
    await chat.at("rename-input").press("Enter")
    await expect(chat.at("title")).to_have_text("Renamed")
    await chat.page.reload()
    await expect(chat.at("title")).to_have_text("Renamed")
    await expect(chat.at("reaction-up")).to_have_attribute("aria-pressed", "true")
    await chat.at("title-menu").click()
    await chat.at("menu-archive").click()
    await expect(chat.at("conversation")).to_have_count(0)
    await chat.at("archived").click()
    await chat.at("conversation-menu").click()
    await chat.at("menu-trash").click()
    await chat.at("confirm-ok").click()
    await expect(chat.at("conversation")).to_have_count(0)
    await chat.page.reload()
    await expect(chat.at("empty")).to_be_visible()
    await expect(chat.at("conversation")).to_have_count(0)


@pytest.mark.parametrize(("on_busy", "first"), [("queue", "complete"), ("interrupt", "cancelled")])
async def test_two_windows_that_ask_at_once_show_the_same_conversation_in_the_end(
    chromium: Browser, on_busy: str, first: str
) -> None:
    hold = asyncio.Event()
    models = ScriptedModels(Reply(pieces=("one ", "two"), hold=hold), Reply(pieces=("three",)))
    context = await chromium.new_context(reduced_motion="reduce")
    async with real_ingress(models, conversation={"on_busy": on_busy}) as url:
        one, other = ChatPage(await context.new_page(), url), ChatPage(await context.new_page(), url)
        await one.start()
        await one.sign_in()
        await one.ask("first?")
        await asyncio.wait_for(models.holding.wait(), 10)
        conversation = await one.at_conversation()
        await other.start(f"/#/c/{conversation}")
        await expect(other.answer).to_have_attribute("data-status", "running")
        await other.at("stop").wait_for()
        await other.ask("second?")
        if on_busy == "queue":
            await expect(other.answer).to_have_attribute("data-status", "waiting")
            hold.set()
        await other.answered()
        await expect(other.at("message-user")).to_have_text(["first?", "second?"])
        await expect(other.at("message-assistant").first).to_have_attribute("data-status", first)
        await expect(other.answer_text).to_have_text("three")
        await expect(one.answer).to_have_attribute("data-status", first)
        await one.page.reload()
        await one.answered()
        await expect(one.at("message-user")).to_have_text(["first?", "second?"])
        await context.close()
    assert one.complaints + other.complaints == []
