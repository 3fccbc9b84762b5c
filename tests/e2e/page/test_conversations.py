"""The list of conversations, and who sees which."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.e2e.page.chat_page import ChatPage
from tests.e2e.page.fake_backend import FakeBackend

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_title_appears_live_everywhere(chat: ChatPage) -> None:
    await chat.sign_in()
    await chat.ask("hello")
    await expect(chat.at("conversation")).to_have_text("A small talk")
    await expect(chat.at("title")).to_have_text("A small talk")
    await expect(chat.page).to_have_title("A small talk · Parley")


async def test_a_conversation_is_renamed_by_keyboard(chat: ChatPage, backend: FakeBackend) -> None:
    kept = backend.store("ana", "Before")
    await chat.sign_in()
    await chat.at("conversation-menu").focus()
    await chat.page.keyboard.press("Enter")
    await expect(chat.at("menu-pencil")).to_be_focused()
    await chat.page.keyboard.press("Enter")
    await expect(chat.at("rename-input")).to_be_focused()
    await chat.page.keyboard.type("Not this")
    await chat.page.keyboard.press("Escape")
    await expect(chat.at("conversation")).to_have_text("Before")
    await expect(chat.at("conversation")).to_be_focused()
    await chat.at("conversation-menu").press("Enter")
    await chat.page.keyboard.press("Enter")
    await chat.at("rename-input").fill("After")
    await chat.page.keyboard.press("Enter")
    await expect(chat.at("conversation")).to_have_text("After")
    assert backend.conversations[kept].title == "After"


async def test_an_archived_conversation_can_be_found_and_restored(chat: ChatPage, backend: FakeBackend) -> None:
    kept = backend.store("ana", "Old things", messages=2)
    await chat.sign_in()
    await chat.at("conversation").click()
    await expect(chat.at("message-user")).to_have_count(1)
    await chat.at("conversation-menu").click()
    await chat.at("menu-archive").click()
    await expect(chat.at("conversation")).to_have_count(0)
    await expect(chat.at("empty")).to_be_visible()
    assert backend.conversations[kept].archived
    await chat.at("archived").click()
    await expect(chat.at("conversation")).to_have_text("Old things")
    await chat.at("conversation-menu").click()
    await chat.at("menu-restore").click()
    await expect(chat.at("conversation")).to_have_count(0)
    await chat.at("archived").click()
    await expect(chat.at("conversation")).to_have_text("Old things")


async def test_deleting_asks_first_and_then_leads_away(chat: ChatPage, backend: FakeBackend) -> None:
    kept = backend.store("ana", "Doomed", messages=2)
    await chat.sign_in()
    await chat.at("conversation").click()
    await expect(chat.at("title")).to_have_text("Doomed")
    await chat.at("title-menu").click()
    await chat.at("menu-trash").click()
    await expect(chat.at("confirm")).to_contain_text("“Doomed” and all its messages")
    await expect(chat.at("confirm-cancel")).to_be_focused()
    await chat.page.keyboard.press("Escape")
    await expect(chat.at("confirm")).to_have_count(0)
    assert kept in backend.conversations
    await chat.at("title-menu").click()
    await chat.at("menu-trash").click()
    await chat.at("confirm-ok").click()
    await expect(chat.at("conversation")).to_have_count(0)
    await expect(chat.at("empty")).to_be_visible()
    assert kept not in backend.conversations


async def test_a_long_list_is_read_page_by_page(chat: ChatPage, backend: FakeBackend) -> None:
    for number in range(45):
        backend.store("ana", f"Conversation {number}")
    await chat.sign_in()
    await expect(chat.at("conversation")).to_have_count(30)
    await chat.at("more").click()
    await expect(chat.at("conversation")).to_have_count(45)
    await expect(chat.at("more")).to_have_count(0)


@pytest.mark.parametrize("owner", ["someone-else", None])
async def test_an_address_of_nothing_or_of_another_user_says_so_and_makes_nothing(
    chat: ChatPage, backend: FakeBackend, owner: str | None
) -> None:
    conversation = backend.store(owner, "Secret", messages=2) if owner else "c_404"
    known = set(backend.conversations)
    await chat.sign_in()
    await expect(chat.at("empty")).to_be_visible()
    await chat.page.goto(f"{chat.base_url}/#/c/{conversation}")
    await expect(chat.at("problem")).to_contain_text("There is no such conversation")
    assert set(backend.conversations) == known
    assert backend.sent("session.update") == []
    await expect(chat.at("send")).to_be_disabled()
    await chat.at("problem").get_by_role("button", name="New conversation").click()
    await chat.ask("hello")
    await chat.answered()


async def test_switching_the_user_changes_tools_examples_and_conversations(
    chat: ChatPage, backend: FakeBackend
) -> None:
    await chat.sign_in("ana", ["sales"])
    await expect(chat.at("tools-button")).to_have_text("2tools")
    await expect(chat.at("example").first).to_have_text("Which opportunities does Contoso have?")
    await chat.ask("hello")
    await chat.answered()
    await chat.at("switch-user").click()
    await chat.sign_in("ben", ["hr"])
    await expect(chat.at("conversation")).to_have_count(0)
    await expect(chat.at("example").first).to_have_text("How much leave does Maria Keller have?")
    await expect(chat.at("user-roles")).to_have_text("hr")
    await chat.at("tools-button").click()
    await expect(chat.at("tools-panel")).to_contain_text("get leave balance")
    await expect(chat.at("tools-panel")).not_to_contain_text("find account")
    await chat.page.keyboard.press("Escape")
    await expect(chat.at("tools-panel")).to_be_hidden()
    await chat.at("switch-user").click()
    await chat.at("signin-cancel").click()
    await expect(chat.at("user-name")).to_have_text("ben")
    await chat.page.reload()
    await expect(chat.at("user-name")).to_have_text("ben")


async def test_a_name_the_server_would_refuse_is_not_accepted(chat: ChatPage) -> None:
    await chat.at("signin-user").fill("no spaces, please")
    await chat.at("signin-submit").click()
    await expect(chat.at("signin-form")).to_be_visible()
    assert await chat.at("signin-user").evaluate("field => field.validity.patternMismatch")


async def test_drafts_belong_to_their_conversation(chat: ChatPage, backend: FakeBackend) -> None:
    backend.store("ana", "Other", messages=2)
    await chat.sign_in()
    await chat.at("input").fill("half a thought")
    await chat.at("conversation").click()
    await expect(chat.at("input")).to_have_value("")
    await chat.at("new-conversation").click()
    await expect(chat.at("input")).to_have_value("half a thought")
    await chat.page.reload()
    await expect(chat.at("input")).to_have_value("half a thought")
