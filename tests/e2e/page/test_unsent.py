"""What was asked reaches the server once, or is clearly not sent, with its text kept; questions that wait say so."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import expect

from tests.e2e.page.chat_page import ANSWER_TIMEOUT_MS, ChatPage
from tests.e2e.page.fake_backend import FakeBackend

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def held(backend: FakeBackend) -> None:
    await asyncio.wait_for(backend.held.wait(), 10)


def questions(backend: FakeBackend) -> list[str]:
    """The questions stored, in their order."""
    [conversation] = backend.conversations.values()
    return [message["parts"][0]["text"] for message in conversation.messages if message["role"] == "user"]


async def in_conversation(chat: ChatPage) -> None:
    await chat.sign_in()
    await chat.ask("hello")
    await chat.answered()


async def without_line(chat: ChatPage, backend: FakeBackend) -> None:
    backend.refuse_sockets = True
    await backend.drop_connections()
    await expect(chat.at("connection")).to_be_visible()


async def test_a_question_asked_without_a_network_says_so_and_is_sent_once_when_it_is_back(
    chat: ChatPage, backend: FakeBackend
) -> None:
    await in_conversation(chat)
    await chat.page.context.set_offline(True)
    await backend.drop_connections()
    await expect(chat.at("connection")).to_contain_text("You are offline.")
    await chat.ask("are you there?")
    await expect(chat.at("answer-waiting").last).to_have_text("It will be sent when the connection is back.")
    await expect(chat.answer).to_have_attribute("data-status", "waiting")
    await chat.page.context.set_offline(False)
    await expect(chat.answer_text).to_have_text("You said: are you there?", timeout=ANSWER_TIMEOUT_MS)
    await chat.answered()
    assert questions(backend) == ["hello", "are you there?"]
    assert len(backend.sent("query")) == 2


@pytest.mark.parametrize("fresh", [False, True], ids=["in a conversation", "in a new one"])
async def test_a_question_not_sent_yet_survives_a_reload_and_is_sent_once(
    chat: ChatPage, backend: FakeBackend, fresh: bool
) -> None:
    if fresh:
        backend.refuse_sockets = True
        await chat.sign_in()
    else:
        await in_conversation(chat)
        await without_line(chat, backend)
    await chat.ask("do not lose me")
    await chat.page.reload()
    await expect(chat.at("message-user").last).to_have_text("do not lose me")
    await expect(chat.answer).to_have_attribute("data-status", "waiting")
    backend.refuse_sockets = False
    await expect(chat.answer_text).to_have_text("You said: do not lose me", timeout=ANSWER_TIMEOUT_MS)
    await chat.answered()
    assert questions(backend).count("do not lose me") == 1
    await chat.page.reload()
    await chat.answered()
    await expect(chat.at("message-user")).to_have_count(1 if fresh else 2)
    assert [frame["content"] for frame in backend.sent("query")].count("do not lose me") == 1


@pytest.mark.parametrize("question", ["hold it", "say it"])
async def test_a_question_accepted_unheard_and_a_reload_show_it_once(
    chat: ChatPage, backend: FakeBackend, question: str
) -> None:
    await in_conversation(chat)
    backend.cut_next_query = backend.refuse_sockets = True
    await chat.ask(question)
    await expect(chat.at("connection")).to_be_visible()
    await chat.page.reload()
    backend.refuse_sockets = False
    backend.gate.set()
    await expect(chat.at("message-assistant")).to_have_count(2)
    await chat.answered()
    await expect(chat.at("message-user")).to_have_text(["hello", question])
    await expect(chat.at("message-assistant")).to_have_count(2)
    assert questions(backend) == ["hello", question]
    assert len({frame["client_turn_id"] for frame in backend.sent("query")}) == 2


async def test_a_question_lost_on_its_way_is_sent_again_under_the_same_id(chat: ChatPage, backend: FakeBackend) -> None:
    await in_conversation(chat)
    backend.lose_next_query = True
    await chat.ask("once more")
    await expect(chat.answer_text).to_have_text("You said: once more", timeout=ANSWER_TIMEOUT_MS)
    await chat.answered()
    _, lost, again = backend.sent("query")
    assert lost == again
    assert questions(backend) == ["hello", "once more"]


async def test_a_refused_question_keeps_its_id_when_it_is_tried_again(chat: ChatPage, backend: FakeBackend) -> None:
    await in_conversation(chat)
    await chat.ask("refuse this")
    await chat.answered("failed")
    backend.accepting = True
    await chat.at("retry").click()
    await chat.answered()
    _, refused, again = backend.sent("query")
    assert refused == again


async def test_leaving_for_another_conversation_keeps_an_unsent_question_as_a_draft(
    chat: ChatPage, backend: FakeBackend
) -> None:
    await in_conversation(chat)
    await without_line(chat, backend)
    await chat.ask("unsent")
    await chat.at("new-conversation").click()
    await expect(chat.at("empty")).to_be_visible()
    await chat.at("conversation").click()
    await expect(chat.at("input")).to_have_value("unsent")
    await expect(chat.at("message-user")).to_have_count(1)
    backend.refuse_sockets = False
    await expect(chat.at("connection")).to_be_hidden(timeout=ANSWER_TIMEOUT_MS)
    assert questions(backend) == ["hello"]


async def test_a_question_that_was_given_up_on_comes_back_as_a_draft(chat: ChatPage, backend: FakeBackend) -> None:
    await in_conversation(chat)
    await without_line(chat, backend)
    await chat.ask("from yesterday")
    await chat.page.evaluate(
        """() => {
            const [key] = Object.keys(sessionStorage).filter((name) => name.startsWith('parley.pending.'));
            const [question] = JSON.parse(sessionStorage[key]);
            sessionStorage[key] = JSON.stringify([{ ...question, at: question.at - 86_400_000 }]);
        }"""
    )
    backend.refuse_sockets = False
    await chat.page.reload()
    await expect(chat.at("input")).to_have_value("from yesterday")
    await chat.answered()
    assert questions(backend) == ["hello"]


async def test_a_server_that_cannot_open_the_conversation_yet_costs_a_running_answer_nothing(
    chat: ChatPage, backend: FakeBackend
) -> None:
    await chat.sign_in()
    await chat.ask("hold it")
    await held(backend)
    await expect(chat.answer_text).to_have_text("The beginning of a long answer.")
    backend.busy_sessions = 2
    await backend.drop_connections()
    backend.gate.set()
    await chat.answered()
    await expect(chat.answer_text).to_have_text("The beginning of a long answer. And its end.")
    assert questions(backend) == ["hold it"]


async def test_a_server_that_cannot_open_the_conversation_yet_gets_the_question_later(
    chat: ChatPage, backend: FakeBackend
) -> None:
    backend.busy_sessions = 2
    await chat.sign_in()
    await chat.ask("hello")
    await chat.answered()
    assert questions(backend) == ["hello"]


async def test_a_conversation_that_could_not_be_read_is_read_when_there_is_a_connection(
    chat: ChatPage, backend: FakeBackend
) -> None:
    await in_conversation(chat)
    backend.refuse_sockets = True
    await backend.drop_connections()
    await chat.page.route("**/messages?*", lambda route: route.abort())
    await chat.page.reload()
    await expect(chat.at("problem")).to_be_visible()
    await chat.page.unroute("**/messages?*")
    backend.refuse_sockets = False
    await chat.answered()
    await expect(chat.answer_text).to_have_text("You said: hello")


async def test_a_step_that_begins_again_after_a_cut_shows_what_counts(chat: ChatPage, backend: FakeBackend) -> None:
    await chat.sign_in()
    await chat.ask("start over late")
    await held(backend)
    await expect(chat.answer_text).to_have_text(["First.", "This is void."])
    await backend.drop_connections()
    backend.gate.set()
    await chat.answered()
    await expect(chat.answer_text).to_have_text(["First.", "This counts."])
    await expect(chat.at("tool-call")).to_have_count(1)
    await chat.page.reload()
    await chat.answered()
    await expect(chat.answer_text).to_have_text(["First.", "This counts."])


async def test_a_second_question_waits_below_the_answer_that_comes(chat: ChatPage, backend: FakeBackend) -> None:
    backend.queues = True
    await chat.sign_in()
    await expect(chat.at("notice")).to_be_visible()
    await chat.ask("hold it")
    await held(backend)
    await chat.ask("and then?")
    await expect(chat.at("answer-waiting").last).to_have_text("Waiting for the answer before it.")
    backend.gate.set()
    await expect(chat.answer_text).to_have_text("You said: and then?")
    await chat.answered()
    await expect(chat.at("message-assistant").first).to_have_attribute("data-status", "complete")
    await expect(chat.at("answer-text").first).to_have_text("The beginning of a long answer. And its end.")


async def test_a_reload_shows_the_running_answer_and_the_waiting_question_in_their_places(
    chat: ChatPage, backend: FakeBackend
) -> None:
    backend.queues = True
    await chat.sign_in()
    await expect(chat.at("notice")).to_be_visible()
    await chat.ask("hold it")
    await held(backend)
    await chat.ask("and then?")
    await expect(chat.at("answer-waiting").last).to_be_visible()
    await chat.page.reload()
    await expect(chat.at("message-assistant").nth(0)).to_have_attribute("data-status", "running")
    await expect(chat.at("answer-text")).to_have_text(["The beginning of a long answer."])
    await expect(chat.at("message-assistant").nth(1)).to_have_attribute("data-status", "waiting")
    backend.gate.set()
    await chat.answered()
    texts = ["hold it", "The beginning of a long answer. And its end.", "and then?", "You said: and then?"]
    await expect(chat.page.locator(".bubble, .prose")).to_have_text(texts)
    await chat.page.reload()
    await chat.answered()
    await expect(chat.page.locator(".bubble, .prose")).to_have_text(texts)


async def test_a_question_that_waits_for_one_asked_elsewhere_shows_that_one_too(
    chat: ChatPage, backend: FakeBackend
) -> None:
    backend.queues = True
    await in_conversation(chat)
    elsewhere = ChatPage(await chat.page.context.new_page(), chat.base_url)
    await elsewhere.start(f"/#/c/{await chat.at_conversation()}")
    await elsewhere.answered()
    await elsewhere.ask("hold it")
    await held(backend)
    await chat.page.bring_to_front()
    await chat.ask("and then?")
    await expect(chat.at("message-user")).to_have_text(["hello", "hold it", "and then?"])
    await expect(chat.answer).to_have_attribute("data-status", "waiting")
    backend.gate.set()
    await chat.answered()
    await expect(chat.at("message-assistant")).to_have_count(3)
    assert elsewhere.complaints == []


async def test_stopping_takes_the_running_answer_first_and_the_waiting_one_next(
    chat: ChatPage, backend: FakeBackend
) -> None:
    backend.queues = True
    await chat.sign_in()
    await expect(chat.at("notice")).to_be_visible()
    await chat.ask("hold it")
    await held(backend)
    backend.held.clear()
    await chat.ask("hold it again")
    await expect(chat.at("answer-waiting").last).to_be_visible()
    await chat.at("stop").click()
    await expect(chat.at("message-assistant").first).to_have_attribute("data-status", "cancelled")
    await held(backend)
    await chat.at("stop").click()
    await chat.answered("cancelled")
    await chat.page.reload()
    await expect(chat.at("answer-mark")).to_have_text(["Stopped.", "Stopped."])
