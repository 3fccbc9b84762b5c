"""Talking: asking, reading, stopping, failing, and coming back to what was said."""

from __future__ import annotations

import asyncio
import re
import uuid

import pytest
from playwright.async_api import expect

from tests.e2e.page.chat_page import ChatPage
from tests.e2e.page.fake_backend import SIMULATED, FakeBackend

pytestmark = pytest.mark.asyncio(loop_scope="session")
QUESTION = "Which opportunities does Contoso have?"


async def held(backend: FakeBackend) -> None:
    await asyncio.wait_for(backend.held.wait(), 10)


async def test_a_question_is_answered_with_tool_calls_and_rendered_markdown(chat: ChatPage) -> None:
    await chat.sign_in()
    await chat.ask(QUESTION)
    answer = await chat.answered()
    await expect(chat.at("message-user")).to_have_text(QUESTION)
    tools = answer.get_by_test_id("tool-call")
    await expect(tools).to_have_count(2)
    await expect(tools.first).to_have_attribute("data-state", "done")
    await expect(tools.first).to_have_attribute("data-tool", "crm.find_account")
    await expect(tools.first.get_by_test_id("tool-result")).to_be_hidden()
    await tools.first.locator("summary").click()
    await expect(tools.first.get_by_test_id("tool-result")).to_contain_text("ACC-001")
    await expect(tools.first).to_contain_text("42 ms")
    text = answer.get_by_test_id("answer-text")
    await expect(text.first).to_have_text("Let me look that up.")
    await expect(text.last.locator("strong").first).to_have_text("three open opportunities")
    await expect(text.last.locator("tbody tr")).to_have_count(3)
    await expect(text.last.locator("td").nth(2)).to_have_class("align-right")
    await expect(text.last.locator("ol > li")).to_have_count(3)
    await expect(text.last.locator("ol ul > li")).to_have_count(2)
    await expect(text.last.locator("pre code")).to_contain_text("for deal in crm.opportunities")
    order = await answer.locator(".answer-body > *").evaluate_all("all => all.map((e) => e.dataset.testid)")
    assert order == ["answer-text", "tool-call", "tool-call", "answer-text"]


async def test_thoughts_are_folded_and_no_part_of_the_answer(chat: ChatPage) -> None:
    await chat.sign_in()
    await chat.ask("think about it")
    answer = await chat.answered()
    thoughts = answer.get_by_test_id("thoughts")
    await expect(thoughts).to_have_count(1)
    await expect(thoughts.locator("p")).to_be_hidden()
    await expect(answer.get_by_test_id("answer-text")).to_have_text("It is four.")
    await thoughts.locator("summary").click()
    await expect(thoughts.locator("p")).to_be_visible()
    await expect(thoughts.locator("p")).to_have_text("They want a number. Two and <b>two</b>…")
    order = await answer.locator(".answer-body > *").evaluate_all("all => all.map((e) => e.dataset.testid)")
    assert order == ["thoughts", "answer-text"]


async def test_text_and_running_tools_show_before_the_answer_is_complete(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await chat.ask("hold it")
    await held(backend)
    await expect(chat.answer_text).to_have_text("The beginning of a long answer.")
    await expect(chat.answer).to_have_attribute("data-status", "running")
    backend.gate.set()
    await chat.answered()
    await expect(chat.answer_text).to_have_text("The beginning of a long answer. And its end.")
    backend.gate.clear()
    backend.held.clear()
    await chat.ask("hold a tool")
    await held(backend)
    await expect(chat.answer.get_by_test_id("tool-call")).to_have_attribute("data-state", "running")
    backend.gate.set()
    await chat.answered()
    await expect(chat.answer.get_by_test_id("tool-call")).to_have_attribute("data-state", "done")


@pytest.mark.parametrize("by", ["button", "escape"])
async def test_stopping_keeps_and_marks_what_there_is(chat: ChatPage, backend: FakeBackend, by: str) -> None:
    await chat.sign_in()
    await chat.ask("hold it")
    await held(backend)
    if by == "button":
        await chat.at("stop").click()
    else:
        await chat.page.keyboard.press("Escape")
    await chat.answered("cancelled")
    await expect(chat.answer_text).to_have_text("The beginning of a long answer.")
    await expect(chat.at("answer-mark")).to_have_text("Stopped.")
    await expect(chat.at("input")).to_be_focused()
    assert len(backend.sent("cancel")) == 1
    await chat.page.reload()
    await chat.answered("cancelled")
    await expect(chat.at("answer-mark")).to_have_text("Stopped.")


async def test_a_reload_shows_the_same_conversation(chat: ChatPage) -> None:
    await chat.sign_in()
    await chat.ask(QUESTION)
    answer = await chat.answered()
    before = await answer.locator(".answer-body").inner_text()
    await chat.at_conversation()
    await chat.page.reload()
    await chat.answered()
    await expect(chat.at("message-user")).to_have_text(QUESTION)
    # A stored call does not say how long it took.
    assert await chat.answer.locator(".answer-body").inner_text() == re.sub(r"\s*42 ms", "", before)
    await expect(chat.at("title")).to_have_text("Contoso's opportunities")


async def test_a_reload_in_mid_answer_shows_it_from_its_beginning_and_goes_on(
    chat: ChatPage, backend: FakeBackend
) -> None:
    await chat.sign_in()
    await chat.ask("hold it")
    await held(backend)
    await chat.at_conversation()
    await chat.page.reload()
    await expect(chat.answer_text).to_have_text("The beginning of a long answer.")
    await expect(chat.at("stop")).to_be_visible()
    backend.gate.set()
    await chat.answered()
    await expect(chat.answer_text).to_have_text("The beginning of a long answer. And its end.")
    await expect(chat.at("message-user")).to_have_count(1)


async def test_an_answer_goes_on_while_another_conversation_is_open(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await chat.ask("hold it")
    await held(backend)
    await chat.at_conversation()
    await chat.at("new-conversation").click()
    await chat.ask("hello")
    await chat.answered()
    await expect(chat.answer_text).to_have_text("You said: hello")
    await chat.at("conversation").filter(has_text="hold it").click()
    await expect(chat.answer_text).to_have_text("The beginning of a long answer.")
    backend.gate.set()
    await chat.answered()
    await expect(chat.answer_text).to_have_text("The beginning of a long answer. And its end.")


async def test_text_that_a_reset_made_void_is_not_shown(chat: ChatPage) -> None:
    await chat.sign_in()
    await chat.ask("start over")
    answer = await chat.answered()
    await expect(answer.get_by_test_id("answer-text")).to_have_text(["First.", "This counts."])
    await expect(answer.get_by_test_id("tool-call")).to_have_count(1)


async def test_a_failed_answer_says_why_and_can_be_tried_again(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await chat.ask("please break off")
    await chat.answered("failed")
    await expect(chat.at("failure")).to_contain_text("The model could not answer")
    await expect(chat.at("failure")).to_contain_text("The model broke off.")
    await expect(chat.answer_text).to_have_text("Half an")
    await chat.at("retry").click()
    await expect(chat.at("message-user")).to_have_count(2)
    await chat.answered("failed")
    first, second = backend.sent("query")
    assert first["content"] == second["content"]
    assert first["client_turn_id"] != second["client_turn_id"]
    await chat.page.reload()
    await expect(chat.at("retry")).to_have_count(1)


async def test_a_question_that_was_refused_can_be_sent_again(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await chat.ask("refuse this")
    await chat.answered("failed")
    await expect(chat.at("failure")).to_contain_text("Too many turns; try again.")
    backend.accepting = True
    await chat.at("retry").click()
    await chat.answered()
    await expect(chat.at("message-user")).to_have_count(1)
    await expect(chat.answer_text).to_have_text("You said: refuse this")


async def test_a_failing_tool_is_told_kindly(chat: ChatPage) -> None:
    await chat.sign_in()
    await chat.ask("use a tool that fails")
    answer = await chat.answered()
    await expect(answer.get_by_test_id("tool-call")).to_have_attribute("data-state", "failed")
    await expect(answer.get_by_test_id("tool-preview")).to_have_text("There is no account named Nobody.")
    await expect(chat.answer_text).to_have_text("I could not find it.")


async def test_asking_while_another_window_is_answered_shows_that_answer_and_keeps_the_question(
    chat: ChatPage, backend: FakeBackend
) -> None:
    await chat.sign_in()
    await chat.ask("hello")
    await chat.answered()
    await chat.at_conversation()
    other = ChatPage(await chat.page.context.new_page(), chat.base_url)
    await other.start(chat.page.url.removeprefix(chat.base_url))
    await other.answered()
    await other.ask("hold it")
    await held(backend)
    await chat.ask("and mine")
    await expect(chat.at("toast")).to_have_text("An answer is still coming.")
    await expect(chat.answer_text).to_have_text("The beginning of a long answer.")
    await expect(chat.at("input")).to_have_value("and mine")
    backend.gate.set()
    await chat.answered()
    await expect(chat.at("message-user")).to_have_text(["hello", "hold it"])
    assert other.complaints == []


async def test_a_new_conversation_is_made_only_with_its_first_question(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await expect(chat.at("example").first).to_be_visible()
    await chat.page.reload()
    await expect(chat.at("example").first).to_be_visible()
    assert backend.conversations == {}
    await chat.at("example").first.click()
    await chat.answered()
    assert await chat.at_conversation() in backend.conversations
    [query] = backend.sent("query")
    assert str(uuid.UUID(query["client_turn_id"])) == query["client_turn_id"]
    assert "model_id" not in query


async def test_a_reaction_is_kept_and_can_be_taken_back(chat: ChatPage) -> None:
    await chat.sign_in()
    await chat.ask("hello")
    await chat.answered()
    await chat.at("reaction-up").click()
    await expect(chat.at("reaction-up")).to_have_attribute("aria-pressed", "true")
    await chat.page.reload()
    await expect(chat.at("reaction-up")).to_have_attribute("aria-pressed", "true")
    async with chat.page.expect_response(re.compile("/messages/")):
        await chat.at("reaction-down").click()
    await expect(chat.at("reaction-up")).to_have_attribute("aria-pressed", "false")
    async with chat.page.expect_response(re.compile("/messages/")):
        await chat.at("reaction-down").click()
    await chat.page.reload()
    await expect(chat.at("reaction-down")).to_have_attribute("aria-pressed", "false")


async def test_an_answer_is_copied_as_it_was_written(chat: ChatPage) -> None:
    await chat.sign_in()
    await chat.ask("say **this**")
    answer = await chat.answered()
    await answer.get_by_test_id("copy").click()
    await expect(answer.get_by_test_id("copy")).to_have_text("Copied")
    assert await chat.page.evaluate("navigator.clipboard.readText()") == "You said: say **this**"


async def test_the_simulated_model_is_announced_in_the_servers_words(chat: ChatPage) -> None:
    await chat.sign_in()
    await expect(chat.at("notice")).to_contain_text(SIMULATED)


async def test_models_are_offered_only_where_there_are_several(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await expect(chat.at("notice")).to_be_visible()
    await expect(chat.at("model")).to_be_hidden()
    backend.models = ["demo", "other"]
    await chat.page.reload()
    await expect(chat.at("model")).to_have_value("demo")
    await chat.at("model").select_option("other")
    await chat.ask("hello")
    await chat.answered()
    assert backend.sent("query")[-1]["model_id"] == "other"


async def test_a_question_longer_than_allowed_cannot_be_sent(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await expect(chat.at("notice")).to_be_visible()
    await chat.at("input").fill("x" * 2001)
    await expect(chat.at("count")).to_have_text("2001 of 2000 characters")
    await chat.at("input").press("Enter")
    await expect(chat.at("send")).to_be_disabled()
    assert backend.sent("query") == []


async def test_earlier_messages_are_read_on_demand(chat: ChatPage, backend: FakeBackend) -> None:
    conversation = backend.store("ana", "Long ago", messages=80)
    await chat.sign_in()
    await chat.at("conversation").click()
    await expect(chat.answer_text).to_have_text("message 79")
    await expect(chat.page.get_by_text("message 29", exact=True)).to_have_count(0)
    await chat.at("earlier").click()
    await expect(chat.page.get_by_text("message 0", exact=True)).to_have_count(1)
    texts = await chat.page.locator(".bubble, .prose").all_inner_texts()
    assert texts == [f"message {number}" for number in range(80)]
    await expect(chat.at("earlier")).to_have_count(0)
    assert await chat.at_conversation() == conversation
