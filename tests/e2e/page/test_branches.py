"""Answering again and editing: what is replaced leaves the page, and a reload shows the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.e2e.page.chat_page import ChatPage
from tests.e2e.page.real_ingress import real_ingress
from tests.scripted import Reply, ScriptedModels

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass
class Talk:
    chat: ChatPage
    models: ScriptedModels

    async def shows(self, *texts: str) -> None:
        """Questions and answers in their order, now and after a reload."""
        for reload in (False, True):
            if reload:
                await self.chat.page.reload()
            await self.chat.answered()
            await expect(self.chat.page.locator(".bubble, .prose")).to_have_text(texts)


@pytest_asyncio.fixture(loop_scope="session")
async def talk(chromium: Browser) -> AsyncGenerator[Talk]:
    """Two questions have been answered."""
    models = ScriptedModels(Reply(pieces=("one",)), Reply(pieces=("two",)), Reply(pieces=("three",)))
    context = await chromium.new_context(reduced_motion="reduce")
    context.set_default_timeout(15_000)
    async with real_ingress(models) as url:
        chat = ChatPage(await context.new_page(), url)
        await chat.start()
        await chat.sign_in()
        for question in ("first?", "second?"):
            await chat.ask(question)
            await chat.answered()
        yield Talk(chat, models)
        await context.close()
    assert chat.complaints == []


async def test_the_last_answer_is_made_again_in_its_place(talk: Talk) -> None:
    await talk.chat.at("regenerate").last.click()
    await expect(talk.chat.answer_text).to_have_text("three")
    await talk.shows("first?", "one", "second?", "three")
    assert [message.content for message in talk.models.requests[-1].messages[1:]] == ["first?", "one", "second?"]


async def test_only_the_last_answer_offers_to_be_made_again(talk: Talk) -> None:
    await expect(talk.chat.at("regenerate").first).to_be_hidden()
    await expect(talk.chat.at("regenerate").last).to_be_visible()


@pytest.mark.parametrize("reloaded", [False, True], ids=["asked here", "loaded"])
async def test_an_edited_question_takes_the_place_of_itself_and_all_after_it(talk: Talk, reloaded: bool) -> None:
    chat = talk.chat
    if reloaded:
        await chat.page.reload()
        await chat.answered()
    await chat.at("edit").first.click()
    await expect(chat.at("edit-input")).to_have_value("first?")
    await chat.at("edit-input").fill("instead?")
    await chat.at("edit-input").press("Enter")
    await expect(chat.answer_text).to_have_text("three")
    await talk.shows("instead?", "three")
    assert [message.content for message in talk.models.requests[-1].messages[1:]] == ["instead?"]


async def test_an_edit_can_be_left_and_one_that_changes_nothing_sends_nothing(talk: Talk) -> None:
    chat = talk.chat
    await chat.at("edit").last.click()
    await chat.at("edit-input").fill("something else")
    await chat.at("edit-input").press("Escape")
    await chat.at("edit").last.click()
    await expect(chat.at("edit-input")).to_have_value("second?")
    await chat.at("edit-send").click()
    await talk.shows("first?", "one", "second?", "two")
    assert len(talk.models.requests) == 2


async def test_an_answer_made_again_goes_on_after_a_reload(talk: Talk) -> None:
    go_on = asyncio.Event()
    talk.models.replies = [Reply(pieces=("three ", "four"), hold=go_on)]
    await talk.chat.at("regenerate").last.click()
    await expect(talk.chat.answer_text).to_have_text("three")
    await talk.chat.page.reload()
    await expect(talk.chat.answer_text).to_have_text("three")
    await expect(talk.chat.at("message-assistant")).to_have_count(2)
    go_on.set()
    await talk.shows("first?", "one", "second?", "three four")


async def test_a_network_that_is_away_keeps_what_is_shown_and_what_was_written(talk: Talk) -> None:
    chat = talk.chat
    await chat.page.context.set_offline(True)
    await chat.at("regenerate").last.click()
    await expect(chat.at("toast").last).to_contain_text("cannot be reached")
    await chat.at("edit").last.click()
    await chat.at("edit-input").fill("changed?")
    await chat.at("edit-send").click()
    await expect(chat.at("edit-input")).to_have_value("changed?")
    await chat.page.context.set_offline(False)
    await expect(chat.at("connection")).to_be_hidden()
    await chat.at("edit-send").click()
    await talk.shows("first?", "one", "changed?", "three")
