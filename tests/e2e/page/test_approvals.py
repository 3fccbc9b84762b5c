"""A tool call that waits for its user, as the page shows it."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.e2e.page.chat_page import ChatPage
from tests.e2e.page.fake_backend import FakeBackend

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_call_runs_when_the_user_says_so(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await chat.ask("Ask me first")
    card = chat.at("approval")
    await expect(card).to_be_visible()
    await expect(card).to_contain_text("update opportunity")
    await expect(card.get_by_test_id("tool-would-be-given")).to_contain_text("OPP-1001")
    await expect(chat.at("approval-reason")).to_have_text("It has read text that is not yours.")
    await expect(chat.at("tool-call")).to_have_attribute("data-state", "waiting")
    await chat.at("approve").click()
    await chat.answered()
    await expect(card).to_have_count(0)
    await expect(chat.at("tool-call")).to_have_attribute("data-state", "done")
    assert backend.answers == [("apr_1", True)]


async def test_a_declined_call_is_shown_as_not_run(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await chat.ask("Ask me first")
    await chat.at("decline").click()
    await chat.answered()
    await expect(chat.at("tool-call")).to_have_attribute("data-state", "failed")
    await expect(chat.at("tool-preview")).to_have_text("Not run: the user declined it.")
    assert backend.answers == [("apr_1", False)]


async def test_the_keyboard_and_a_screen_reader_suffice(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await chat.ask("Ask me first")
    group = chat.page.get_by_role("group", name="Run update opportunity?")
    await expect(group).to_be_visible()
    await expect(chat.page.locator("#announcer")).to_contain_text("Waiting for you: run update opportunity?")
    yes = chat.page.get_by_role("button", name="Run it: update opportunity", exact=True)
    no = chat.page.get_by_role("button", name="Don't run it: update opportunity", exact=True)
    await expect(yes).to_have_accessible_description("It has read text that is not yours.")
    await yes.focus()
    await chat.page.keyboard.press("Tab")
    await expect(no).to_be_focused()
    await chat.page.keyboard.press("Space")
    await chat.answered()
    assert backend.answers == [("apr_1", False)]
    await expect(chat.at("tool-call").locator("summary")).to_be_focused()


async def test_a_question_is_still_there_after_the_page_is_loaded_again(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await chat.ask("Ask me first")
    await expect(chat.at("approval")).to_be_visible()
    await chat.at_conversation()
    await chat.page.reload()
    await expect(chat.at("approval")).to_have_count(1)
    await chat.at("approve").click()
    await chat.answered()
    assert backend.answers == [("apr_1", True)]


async def test_a_question_survives_a_lost_connection(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await chat.ask("Ask me first")
    await expect(chat.at("approval")).to_be_visible()
    await backend.drop_connections()
    await chat.at("approve").click()
    await chat.answered()
    await expect(chat.at("tool-call")).to_have_count(1)


async def test_an_answer_that_did_not_arrive_can_be_given_again(chat: ChatPage, backend: FakeBackend) -> None:
    backend.refuse_answers = True
    await chat.sign_in()
    await chat.ask("Ask me first")
    await chat.at("approve").click()
    await expect(chat.at("approval")).to_contain_text("The store is away.")
    backend.refuse_answers = False
    await chat.at("decline").click()
    await chat.answered()
    assert backend.answers == [("apr_1", True), ("apr_1", False)]


async def test_stopping_takes_the_question_away(chat: ChatPage) -> None:
    await chat.sign_in()
    await chat.ask("Ask me first")
    await expect(chat.at("approval")).to_be_visible()
    await chat.at("stop").click()
    await chat.answered("cancelled")
    await expect(chat.at("approval")).to_have_count(0)
    await expect(chat.at("tool-preview")).to_have_text("It was not run.")
