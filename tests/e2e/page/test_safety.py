"""Hostile text: whatever a model, a tool or a title says, it stays text."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.e2e.page.chat_page import ChatPage
from tests.e2e.page.fake_backend import FakeBackend
from tests.e2e.page.scripts import HOSTILE_TITLE

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCHEMES = "links => links.map((a) => a.protocol).filter((p) => !['http:', 'https:', 'mailto:'].includes(p))"
FORBIDDEN = "script, iframe, style, svg[onload], img, object, embed, [onerror], [onclick], [onmouseover], [style]"


async def test_nothing_that_a_model_or_tool_says_is_run_or_fetched(chat: ChatPage) -> None:
    await chat.sign_in()
    await chat.ask("attack <img src=x onerror=window.pwned=40>")
    for _ in range(2):
        answer = await chat.answered()
        await answer.get_by_test_id("tool-call").locator("summary").click()
        messages = chat.at("messages")
        await expect(messages.locator(FORBIDDEN)).to_have_count(0)
        await expect(chat.at("conversations").locator("img, script")).to_have_count(0)
        assert await messages.locator("a").evaluate_all(SCHEMES) == []
        # Whoever clicks on everything finds nothing that bites.
        for label in ("click", "data", "vb", "java", "ctl", "ent"):
            await messages.get_by_text(label, exact=False).last.click(modifiers=["Alt"])
        assert await chat.page.evaluate("window.pwned") is None
        await expect(chat.at("title")).to_have_text(HOSTILE_TITLE)
        await expect(chat.at("message-user")).to_have_text("attack <img src=x onerror=window.pwned=40>")
        await expect(answer.get_by_test_id("tool-result")).to_contain_text("<script>window.pwned = 1</script>")
        await expect(chat.answer_text).to_contain_text("<script>window.pwned = 1</script>")
        # The same once more from the store.
        await chat.page.reload()


async def test_links_open_elsewhere_and_images_are_only_links(chat: ChatPage) -> None:
    await chat.sign_in()
    await chat.ask("attack")
    await chat.answered()
    link = chat.answer_text.get_by_role("link", name="ok", exact=True)
    await expect(link).to_have_attribute("href", "https://example.com/ok")
    await expect(link).to_have_attribute("target", "_blank")
    await expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
    await expect(chat.answer_text.get_by_role("link", name="Image: pixel")).to_have_count(1)


async def test_a_title_that_is_markup_stays_text_in_dialogs_and_menus(chat: ChatPage, backend: FakeBackend) -> None:
    backend.store("ana", HOSTILE_TITLE)
    await chat.sign_in()
    await chat.at("conversation-menu").click()
    await chat.at("menu-trash").click()
    await expect(chat.at("confirm")).to_contain_text(HOSTILE_TITLE)
    await expect(chat.at("confirm").locator("img, script")).to_have_count(0)
    assert await chat.page.evaluate("window.pwned") is None
