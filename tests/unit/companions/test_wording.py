"""Results in words, small talk and titles."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.companions.provider.assistant.conversation import Conversation, ToolOutcome
from serve_app.companions.provider.assistant.reply import reply_to
from serve_app.companions.provider.assistant.smalltalk import make_title
from serve_app.companions.provider.assistant.wording import read_result, word_outcomes
from serve_app.companions.provider.requests import ChatRequest, Message


def words_for(result: Any, name: str = "crm__list_opportunities", **arguments: Any) -> str:
    text = result if isinstance(result, str) else json.dumps(result)
    return word_outcomes([ToolOutcome(name, arguments, text)])


def say(*texts: str, system: str = "") -> str:
    messages = [Message("system", system), *(Message("user", text) for text in texts)]
    return reply_to(ChatRequest(messages=messages, model="m"), Conversation.read(messages)).text


def test_rows_become_a_sentence_and_a_table() -> None:
    rows = [
        {"id": "OPP-1", "name": "Cloud | data", "amount": 1500, "currency": "EUR"},
        {"id": "OPP-2", "name": "App", "amount": 500, "currency": "EUR"},
    ]
    lines = words_for({"opportunities": rows}, account="Contoso").splitlines()
    assert lines[0] == "I found 2 opportunities for Contoso:"
    assert lines[2] == "| ID | Name | Amount |"
    assert lines[4] == "| OPP-1 | Cloud \\| data | 1,500 EUR |"
    assert lines[-1] == "Together they are worth **2,000 EUR**."


@pytest.mark.parametrize(
    "result",
    [
        {"error": "The CRM is down"},
        {"error": {"code": "deadline_exceeded", "message": "The CRM is down"}},
        {"is_error": True, "content": [{"type": "text", "text": "The CRM is down"}]},
        {"ok": False, "message": "The CRM is down"},
        "Error executing tool list_opportunities: The CRM is down",
        "Error: The CRM is down",
    ],
)
def test_a_tool_error_is_said_plainly(result: Any) -> None:
    assert words_for(result, account="Contoso") == "I could not get the opportunities for Contoso: The CRM is down."


@pytest.mark.parametrize(
    "result",
    [
        {"opportunities": [{"id": "OPP-1"}]},
        [{"id": "OPP-1"}],
        {"result": [{"id": "OPP-1"}]},
        {"structured_content": {"opportunities": [{"id": "OPP-1"}]}, "is_error": False},
        {"content": [{"type": "text", "text": '{"opportunities": [{"id": "OPP-1"}]}'}]},
        [{"type": "text", "text": '[{"id": "OPP-1"}]'}],
    ],
)
def test_rows_are_found_in_every_usual_wrapping(result: Any) -> None:
    assert read_result(json.dumps(result)).rows == [{"id": "OPP-1"}]


def test_an_empty_list_is_said_as_none_found() -> None:
    assert words_for({"opportunities": [], "total": 0}, account="Litware") == "I found no opportunities for Litware."


def test_long_results_are_cut_and_say_so() -> None:
    text = words_for({"opportunities": [{"id": index} for index in range(40)]})
    assert text.startswith("I found 40 opportunities:")
    assert text.endswith("… and 28 more.")


def test_plain_text_and_single_facts_are_shown() -> None:
    assert "Echo: hi" in words_for("Echo: hi", name="echo")
    assert words_for({"sum": 42}, name="add") == "The sum is **42**."


def test_the_assistant_says_it_is_simulated_and_varies_with_the_question() -> None:
    answers = {say(question) for question in ("Why is the sky blue?", "How do magnets work?", "Is tea healthy?")}
    assert len(answers) == 3
    assert all("simulated" in answer for answer in answers)
    assert say("Why is the sky blue?") in answers


def test_the_history_is_used() -> None:
    assert "**Ana**" in say("My name is Ana", "What is my name?")
    assert "Why is the sky blue?" in say("Why is the sky blue?", "What did I ask before?")
    assert "first question" in say("What did I ask before?")


def test_the_date_comes_from_the_system_prompt() -> None:
    assert "2026-11-21" in say("What is the date today?", system="Today is 2026-11-21.")


def test_counting_gives_a_long_answer_of_known_length() -> None:
    assert say("Count to 300").splitlines()[-1] == "300."


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("Which opportunities does Contoso have?", "Contoso opportunities"),
        ("How many vacation days does Maria Keller have left?", "Maria Keller vacation days left"),
        ("?", "New conversation"),
    ],
)
def test_a_title_is_made_of_the_key_words(question: str, title: str) -> None:
    system = "Write a short title (at most 6 words) for the conversation. Answer with the title alone."
    assert say(question, system=system) == title


def test_a_title_is_made_from_a_transcript_too() -> None:
    transcript = "User: Which opportunities does Contoso have?\nAssistant: I found 4."
    assert make_title(Conversation("", (), transcript, ())) == "Contoso opportunities"


def test_a_wanted_json_object_has_the_wanted_shape() -> None:
    schema = {
        "type": "object",
        "properties": {"intent": {"enum": ["question", "order"]}, "confidence": {"type": "number"}},
        "required": ["intent"],
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "intent", "schema": schema}}
    messages = [Message("user", "I want to place an order")]
    request = ChatRequest(messages=messages, model="m", response_format=wanted)
    assert json.loads(reply_to(request, Conversation.read(messages)).text) == {"intent": "order", "confidence": 1}
