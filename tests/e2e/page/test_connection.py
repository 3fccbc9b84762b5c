"""A line that breaks: nothing is lost, nothing is doubled, and the user knows."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import expect

from tests.e2e.page.chat_page import ANSWER_TIMEOUT_MS, ChatPage
from tests.e2e.page.fake_backend import FakeBackend
from tests.e2e.page.scripts import numbers

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def held(backend: FakeBackend) -> None:
    await asyncio.wait_for(backend.held.wait(), 10)


@pytest.mark.parametrize(("question", "end"), [("cut it", 400), ("cut twice", 150)])
async def test_an_answer_cut_in_the_middle_arrives_whole_and_once(
    chat: ChatPage, backend: FakeBackend, question: str, end: int
) -> None:
    await chat.sign_in()
    await chat.ask(question)
    await held(backend)
    await expect(chat.answer_text).to_contain_text("49")
    backend.gate.set()
    await chat.answered()
    await expect(chat.answer_text).to_have_text(numbers(0, end).strip())
    resumes = backend.sent("resume")
    assert resumes
    assert all(resume["after_seq"] > 0 for resume in resumes)
    assert len(backend.sent("query")) == 1


async def test_a_question_whose_acceptance_was_not_heard_is_asked_again_under_the_same_id(
    chat: ChatPage, backend: FakeBackend
) -> None:
    await chat.sign_in()
    await chat.ask("hello")
    await chat.answered()
    backend.cut_next_query = True
    await chat.ask("once more")
    await expect(chat.answer_text).to_have_text("You said: once more")
    await chat.answered()
    _, first, again = backend.sent("query")
    assert first == again
    assert len(next(iter(backend.conversations.values())).messages) == 4


async def test_a_lost_connection_is_said_and_what_is_asked_meanwhile_is_sent_afterwards(
    chat: ChatPage, backend: FakeBackend
) -> None:
    await chat.sign_in()
    await chat.ask("hello")
    await chat.answered()
    backend.refuse_sockets = True
    await backend.drop_connections()
    await expect(chat.at("connection")).to_contain_text("Reconnecting…")
    await chat.ask("are you there?")
    await expect(chat.at("message-user")).to_have_count(2)
    await expect(chat.at("connection").get_by_role("button", name="Try now")).to_be_visible()
    backend.refuse_sockets = False
    await expect(chat.answer_text).to_have_text("You said: are you there?", timeout=ANSWER_TIMEOUT_MS)
    await expect(chat.at("connection")).to_be_hidden()


async def test_a_question_that_waits_for_the_connection_can_be_taken_back(chat: ChatPage, backend: FakeBackend) -> None:
    backend.refuse_sockets = True
    await chat.sign_in()
    await expect(chat.at("example").first).to_be_visible()
    await chat.ask("never mind")
    await expect(chat.at("message-user")).to_have_count(1)
    await expect(chat.at("stop")).to_be_visible()
    await chat.page.keyboard.press("Escape")
    await chat.answered("cancelled")
    backend.refuse_sockets = False
    await expect(chat.at("connection")).to_be_hidden(timeout=ANSWER_TIMEOUT_MS)
    await chat.ask("hello")
    await chat.answered()
    assert [frame["content"] for frame in backend.sent("query")] == ["hello"]


async def test_the_page_comes_back_when_a_draining_server_says(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await chat.ask("hold it")
    await held(backend)
    await expect(chat.answer_text).to_have_text("The beginning of a long answer.")
    await backend.send_away(after_ms=50)
    backend.gate.set()
    await chat.answered()
    await expect(chat.answer_text).to_have_text("The beginning of a long answer. And its end.")
    [resume] = backend.sent("resume")
    assert resume["after_seq"] > 1


async def test_stopping_while_the_line_is_down_stops_when_it_is_back(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await chat.ask("hold it")
    await held(backend)
    backend.refuse_sockets = True
    await backend.drop_connections()
    await expect(chat.at("connection")).to_be_visible()
    await chat.at("stop").click()
    backend.refuse_sockets = False
    await chat.answered("cancelled")
