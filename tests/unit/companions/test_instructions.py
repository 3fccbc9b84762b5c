"""The assistant obeys a few plain instructions of its system prompt, and answers all others as if they were not there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.companions.provider.assistant.conversation import Conversation
from serve_app.companions.provider.assistant.reply import Reply, reply_to
from serve_app.companions.provider.requests import ChatRequest, FunctionCall, Message, Tool, ToolCall, ToolFunction

BRIEF = "Answer in one sentence."
DEALS = {
    "account": "Contoso",
    "opportunities": [
        {"id": f"OPP-{number}", "name": name, "amount": number * 1000, "currency": "EUR", "stage": "Proposal"}
        for number, name in enumerate(("Cloud", "Data", "Mobile", "Audit"), 1)
    ],
    "total": 4,
}
LEAVE = {
    "employee_id": "EMP-001",
    "employee": "Maria Keller",
    "entitled_days": 27.0,
    "taken_days": 14.5,
    "remaining_days": 7.5,
}


def tool(name: str, description: str, required: tuple[str, ...] = (), /, **properties: Any) -> Tool:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return Tool(function=ToolFunction(name=name, description=description, parameters=schema))


TEXT = {"type": "string"}
OPPORTUNITY = {"type": "string", "description": "Opportunity id, for example OPP-1001"}
STAGE = {"enum": ["Proposal"]}
TOOLS = [
    tool("crm__list_opportunities", "List the sales opportunities (deals) of an account.", ("account",), account=TEXT),
    tool("crm__update_opportunity", "Change the stage of one opportunity.", ("id",), id=OPPORTUNITY, stage=STAGE),
    tool("hr__get_leave_balance", "Get the leave balance: how many days of vacation are left.", name=TEXT),
    tool("hr__list_departments", "List all departments."),
]  # fmt: skip


def asked(question: str, system: str, *earlier: str) -> Reply:
    messages = [Message("system", system), *(Message("user", text) for text in (*earlier, question))]
    return reply_to(ChatRequest(messages=messages, model="m", tools=TOOLS), Conversation.read(messages))


def told(question: str, system: str, result: Any, name: str = "crm__list_opportunities", **arguments: Any) -> str:
    """The answer once this tool has given this result."""
    call = ToolCall(id="c", function=FunctionCall(name=name, arguments=json.dumps(arguments)))
    text = result if isinstance(result, str) else json.dumps(result)
    messages = [
        Message("system", system), Message("user", question), Message("assistant", tool_calls=[call]),
        Message("tool", text, tool_call_id="c"),
    ]  # fmt: skip
    return reply_to(ChatRequest(messages=messages, model="m"), Conversation.read(messages)).text


def test_one_sentence_says_what_was_asked_for_and_no_more() -> None:
    question = "How many vacation days does Maria Keller have left?"
    assert told(question, BRIEF, LEAVE, "hr__get_leave_balance") == "The remaining days of Maria Keller are 7.5."
    assert (
        told("How much has she taken?", BRIEF, LEAVE, "hr__get_leave_balance")
        == "The taken days of Maria Keller are 14.5."
    )
    assert "14.5" in told(question, "", LEAVE, "hr__get_leave_balance")


def test_one_sentence_leaves_out_what_is_behind_the_third_row() -> None:
    answer = told("Which deals does Contoso have?", BRIEF, DEALS, account="Contoso")
    assert answer == "There are 4 opportunities: Cloud, Data, Mobile and 1 more."
    whole = told("Which deals does Contoso have?", "", DEALS, account="Contoso")
    assert "Audit" in whole


def test_ids_are_named_where_the_prompt_wants_them() -> None:
    answer = told("Which deals does Contoso have?", f"{BRIEF} Name the id of every record.", DEALS, account="Contoso")
    assert answer == "There are 4 opportunities: Cloud (OPP-1), Data (OPP-2), Mobile (OPP-3) and 1 more."


def test_a_change_is_told_as_done() -> None:
    result = {"id": "OPP-1", "name": "Cloud", "stage": "Proposal", "amount": 5}
    answer = told("Set it to Proposal", BRIEF, result, "crm__update_opportunity", id="OPP-1", stage="Proposal")
    assert answer == "Done: the stage of Cloud is Proposal now."


def test_a_failure_is_told_whatever_the_prompt_says() -> None:
    answer = told("Deals of X?", BRIEF, "Error: No account matches 'X'.", account="X")
    assert answer == "I could not get the opportunities for X: No account matches 'X'."


@pytest.mark.parametrize(
    "system", ["Write amounts without the currency.", f"{BRIEF} Amounts are WITHOUT\n the currency."]
)
def test_amounts_lose_their_currency_where_the_prompt_says_so(system: str) -> None:
    one = {"account": "Contoso", "opportunities": DEALS["opportunities"][:1]}  # type: ignore[index]
    assert "EUR" not in told("What is the amount?", system, one)
    assert "EUR" in told("What is the amount?", "", one)


def test_what_no_tool_fits_is_declined_but_small_talk_is_not() -> None:
    system = "Decline what is not about the company."
    assert asked("Write a poem about the sea", system).text.startswith("I am sorry, I cannot help with that")
    assert asked("Hello", system).text.startswith("Hello!")
    assert asked("What is my name?", system, "My name is Lea").text == "You told me that your name is **Lea**."
    assert "sorry" not in asked("Write a poem about the sea", "").text


@pytest.mark.parametrize(
    ("question", "back"),
    [
        ("Which opportunities do they have?", "Which account do you mean?"),
        ("How many vacation days are left?", "Which leave balance do you mean?"),
        ("Update the opportunity", "Which opportunity do you mean?"),
    ],
)
def test_what_names_no_record_is_asked_back_before_any_call(question: str, back: str) -> None:
    reply = asked(question, "Ask which one is meant.")
    assert not reply.calls
    assert reply.text.startswith(back)
    assert asked(question, "").calls


@pytest.mark.parametrize(
    "question", ["Which opportunities does Contoso have?", "List all departments", "Set the stage of OPP-1 to Proposal"]
)
def test_what_names_its_record_is_looked_up_at_once(question: str) -> None:
    assert asked(question, "Ask which one is meant.").calls
    assert asked("Which deals do they have?", "Ask which one is meant.", "Who is Contoso?").calls


@pytest.mark.parametrize(
    "system", ["", "Be brief.", "In one sentence: be polite.", "You may decline. Ask. Name names."]
)
def test_other_words_change_nothing(system: str) -> None:
    for question in ("Write a poem", "Which opportunities do they have?"):
        plain, other = asked(question, "You help."), asked(question, system)
        assert (plain.text, [call.name for call in plain.calls]) == (other.text, [call.name for call in other.calls])
    assert told("Deals?", system, DEALS) == told("Deals?", "You help.", DEALS)
