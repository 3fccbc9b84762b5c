"""For everyone: by keyboard alone, on a phone, in the dark, with a screen reader."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page, expect

from tests.e2e.page.chat_page import ChatPage
from tests.e2e.page.fake_backend import FakeBackend

pytestmark = pytest.mark.asyncio(loop_scope="session")
PHONE = {"width": 360, "height": 740}

NAMELESS = """all => all.filter((e) => e.checkVisibility() && !(e.getAttribute('aria-label') || e.innerText ||
    e.labels?.length || e.title)).map((e) => e.outerHTML)"""
INVISIBLE_FOCUS = """() => {
    const e = document.activeElement;
    if (e === document.body) return null;  // past the last one, on the way round
    const inside = getComputedStyle(e.closest('.composer, .role') ?? e);
    return getComputedStyle(e).outlineStyle === 'none' && inside.boxShadow === 'none' && inside.outlineStyle === 'none'
        ? e.outerHTML : null;
}"""
# How well an element's text stands out from the nearest background, as WCAG counts it.
CONTRAST = """element => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgb = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
        return canvas.getImageData(0, 0, 1, 1).data; };
    const luminance = (data) => { const [r, g, b] = [...data].slice(0, 3).map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    let behind = element;
    while (behind.parentElement && rgb(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
    const [a, b] = [luminance(rgb(getComputedStyle(element).color)), luminance(rgb(getComputedStyle(behind).backgroundColor))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


async def tab_to(page: Page, test_id: str, most: int = 40) -> None:
    for _ in range(most):
        await page.keyboard.press("Tab")
        assert await page.evaluate(INVISIBLE_FOCUS) is None
        if await page.evaluate("document.activeElement.dataset.testid") == test_id:
            return
    raise AssertionError(f"{test_id} cannot be reached by Tab")


async def test_everything_needed_can_be_done_by_keyboard(chat: ChatPage, backend: FakeBackend) -> None:
    keyboard = chat.page.keyboard
    await expect(chat.at("signin-user")).to_be_focused()
    await keyboard.type("ana")
    await keyboard.press("Enter")
    await expect(chat.at("input")).to_be_focused()
    await keyboard.type("first line")
    await keyboard.press("Shift+Enter")
    await keyboard.type("second line")
    await keyboard.press("Enter")
    await chat.answered()
    await expect(chat.at("message-user")).to_have_text("first line\nsecond line", use_inner_text=True)
    await keyboard.type("Which opportunities?")
    await keyboard.press("Enter")
    answer = await chat.answered()
    await keyboard.press("Shift+Tab")
    await tab_to(chat.page, "input")
    tool = answer.get_by_test_id("tool-call").first
    await tool.locator("summary").focus()
    await keyboard.press("Enter")
    await expect(tool.get_by_test_id("tool-result")).to_be_visible()
    await keyboard.press("/")
    await expect(chat.at("input")).to_be_focused()
    await expect(chat.at("input")).to_have_value("")
    await keyboard.type("hold it")
    await keyboard.press("Enter")
    await asyncio.wait_for(backend.held.wait(), 10)
    await keyboard.press("Escape")
    await chat.answered("cancelled")
    await tab_to(chat.page, "conversation-menu")
    await keyboard.press("Enter")
    await keyboard.press("ArrowUp")
    await expect(chat.at("menu-trash")).to_be_focused()
    await keyboard.press("Escape")
    await expect(chat.at("menu")).to_have_count(0)
    await expect(chat.at("conversation-menu")).to_be_focused()


async def test_the_skip_link_is_first_and_leads_to_the_message_box(chat: ChatPage) -> None:
    await chat.sign_in()
    await chat.page.reload()
    await expect(chat.at("example").first).to_be_visible()
    # The first control behind it is the sidebar's.
    await chat.at("new-conversation").focus()
    await chat.page.keyboard.press("Shift+Tab")
    await expect(chat.page.get_by_role("link", name="Skip to the message box")).to_be_focused()
    await chat.page.keyboard.press("Enter")
    await expect(chat.at("input")).to_be_focused()


async def test_every_control_has_a_name(chat: ChatPage) -> None:
    controls = "button, a, input, select, textarea, summary"
    assert await chat.page.locator(controls).evaluate_all(NAMELESS) == []
    await chat.sign_in()
    await chat.ask("Which opportunities?")
    await chat.answered()
    assert await chat.page.locator(controls).evaluate_all(NAMELESS) == []


async def test_a_screen_reader_hears_the_answer_once_and_not_piece_by_piece(chat: ChatPage) -> None:
    await chat.sign_in()
    await chat.page.evaluate(
        """window.said = []; new MutationObserver(() => said.push(document.getElementById('announcer').textContent))
            .observe(document.getElementById('announcer'), { childList: true, characterData: true, subtree: true })"""
    )
    await chat.ask("long")
    answer = await chat.answered()
    await expect(chat.at("announcer")).to_contain_text("Paragraph 0 with some text in it.")
    assert len(await chat.page.evaluate("said")) <= 3
    assert await chat.at("messages").get_attribute("aria-live") == "off"
    assert await answer.get_attribute("aria-busy") is None


async def test_a_phone_shows_all_without_scrolling_sideways(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.page.set_viewport_size({"width": 360, "height": 740})
    assert await chat.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    await chat.sign_in(user="a.name.that.is.as.long.as.it.may.be+" + "x" * 60)
    assert await chat.overflow_px() == 0
    for question in ("Which opportunities does Contoso have?", "wide " + "w" * 300):
        await chat.ask(question)
        answer = await chat.answered()
        for tool in await answer.locator("summary").all():
            await tool.click()
        assert await chat.overflow_px() == 0


async def test_a_phone_has_the_conversations_in_a_drawer(chat: ChatPage, backend: FakeBackend) -> None:
    backend.store("ana", "From earlier", messages=2)
    await chat.page.set_viewport_size({"width": 360, "height": 740})
    await chat.sign_in()
    await expect(chat.at("conversation")).not_to_be_in_viewport()
    await chat.at("drawer-open").click()
    await expect(chat.at("conversation")).to_be_in_viewport()
    assert await chat.page.evaluate("document.activeElement.closest('#sidebar') !== null")
    await chat.page.keyboard.press("Escape")
    await expect(chat.at("conversation")).not_to_be_in_viewport()
    await expect(chat.at("drawer-open")).to_be_focused()
    await chat.at("drawer-open").click()
    await chat.at("conversation").click()
    await expect(chat.at("conversation")).not_to_be_in_viewport()
    await expect(chat.at("title")).to_have_text("From earlier")
    await expect(chat.answer_text).to_have_text("message 1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_in_both_colour_schemes(chat: ChatPage, scheme: str) -> None:
    await chat.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await chat.sign_in()
    await chat.ask("Which opportunities does Contoso have?")
    await chat.answered()
    await chat.ask("break off")
    await chat.answered("failed")
    await chat.page.locator("summary").first.click()
    backdrop = await chat.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0]")
    assert (int(backdrop) < 128) == (scheme == "dark")
    texts = """.prose p, .prose a, .prose th, .prose td, .prose blockquote p, .prose li, pre code, :not(pre) > code, .bubble,
        .tool-name, .tool-server, .tool-preview, .tool-time, .tool pre, .failure strong, .failure p, .button, .quiet-button,
        .conversation a, .day h3, .user small, .hint, .title, .notice p, .code-bar span"""
    for element in await chat.page.locator(texts).all():
        if await element.is_visible():
            contrast = await element.evaluate(CONTRAST)
            assert contrast >= 4.5, f"{await element.evaluate('e => e.outerHTML')}: {contrast:.2f}"


async def test_a_chosen_theme_wins_over_the_system_and_is_remembered(chat: ChatPage) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    await chat.page.emulate_media(color_scheme="light")
    await chat.sign_in()
    light = await chat.page.evaluate(background)
    await chat.at("theme").click()
    assert await chat.page.evaluate(background) == light
    await chat.at("theme").click()
    dark = await chat.page.evaluate(background)
    assert dark != light
    await chat.page.reload()
    assert await chat.page.evaluate(background) == dark
    await chat.at("theme").click()
    assert await chat.page.evaluate(background) == light


async def test_reading_further_up_is_not_disturbed_by_new_text(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await chat.ask("long")
    await chat.answered()
    scroller = chat.page.locator("#scroller")
    assert await scroller.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight") < 5
    await chat.ask("hold it")
    await asyncio.wait_for(backend.held.wait(), 10)
    await scroller.evaluate("e => { e.scrollTop = 100; }")
    await expect(chat.at("jump")).to_be_visible()
    backend.gate.set()
    await chat.answered()
    assert await scroller.evaluate("e => e.scrollTop") == 100
    await chat.at("jump").click()
    await expect(chat.at("jump")).to_be_hidden()
    await expect(chat.answer_text).to_be_in_viewport()
