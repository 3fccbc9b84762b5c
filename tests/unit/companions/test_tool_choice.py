"""Which tools the demonstration assistant calls, with which arguments, over several rounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from serve_app.companions.crm.records import CrmRecords
from serve_app.companions.crm.server import build_crm_server
from serve_app.companions.hr.records import HrRecords
from serve_app.companions.hr.server import build_hr_server
from serve_app.companions.provider.assistant.conversation import Conversation
from serve_app.companions.provider.assistant.reply import Reply, reply_to
from serve_app.companions.provider.requests import ChatRequest, FunctionCall, Message, Tool, ToolCall, ToolFunction
from serve_app.companions.sample_data import open_crm, open_hr

Calls = list[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def tools() -> list[Tool]:
    async def gather() -> list[Tool]:
        servers = {"crm": build_crm_server(CrmRecords(open_crm(None))), "hr": build_hr_server(HrRecords(open_hr(None)))}
        return [
            Tool(ToolFunction(f"{name}__{tool.name}", tool.description, tool.input_schema))
            for name, server in servers.items()
            for tool in await server.list_tools()
        ]

    return asyncio.run(gather())


def tool(name: str, description: str, properties: dict[str, Any], required: list[str]) -> Tool:
    return Tool(ToolFunction(name, description, {"type": "object", "properties": properties, "required": required}))


def reply(messages: list[Message], offered: list[Tool], **options: Any) -> Reply:
    return reply_to(ChatRequest(messages=messages, model="m", tools=offered, **options), Conversation.read(messages))


def calls_for(question: str, offered: list[Tool], *earlier: str, **options: Any) -> Calls:
    messages = [Message("user", text) for text in (*earlier, question)]
    return [(call.name, json.loads(call.arguments)) for call in reply(messages, offered, **options).calls]


def converse(
    question: str, offered: list[Tool], answer: Callable[[str, dict[str, Any]], Any]
) -> tuple[list[Calls], str]:
    """Run a turn to its text, answering calls with `answer`; returns the calls of each round and the text."""
    messages, rounds = [Message("user", question)], list[Calls]()
    for _ in range(6):
        made = reply(messages, offered)
        if not made.calls:
            return rounds, made.text
        rounds.append([(call.name, json.loads(call.arguments)) for call in made.calls])
        functions = [ToolCall(call.id, FunctionCall(call.name, call.arguments)) for call in made.calls]
        messages.append(Message("assistant", None, functions))
        for call in made.calls:
            result = answer(call.name, json.loads(call.arguments))
            text = result if isinstance(result, str) else json.dumps(result)
            messages.append(Message("tool", text, tool_call_id=call.id))
    raise AssertionError("the assistant never came to an end")


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Which opportunities does Contoso have?", [("crm__list_opportunities", {"account": "Contoso"})]),
        ("which opportunities does contoso have", [("crm__list_opportunities", {"account": "contoso"})]),
        ("Show me all deals of Northwind Traders", [("crm__list_opportunities", {"account": "Northwind Traders"})]),
        ("What's in the pipeline for “Coho Winery”?", [("crm__list_opportunities", {"account": "Coho Winery"})]),
        (
            "Which deals does Contoso have in negotiation?",
            [("crm__list_opportunities", {"account": "Contoso", "stage": "Negotiation"})],
        ),
        ("What is the status of opportunity OPP-1003?", [("crm__get_opportunity", {"id": "OPP-1003"})]),
        ("Move OPP-1001 to Closed Won", [("crm__update_opportunity", {"id": "OPP-1001", "stage": "Closed Won"})]),
        (
            "Set the amount of OPP-1002 to 50k and the close date to 1 May 2027",
            [("crm__update_opportunity", {"id": "OPP-1002", "amount": 50000, "close_date": "2027-05-01"})],
        ),
        ("Find the account Contoso", [("crm__find_account", {"name": "Contoso"})]),
        ("Who is Maria Keller?", [("hr__find_employee", {"name": "Maria Keller"})]),
        ("Who works in Engineering?", [("hr__find_employee", {"department": "Engineering"})]),
        ("who works in human resources", [("hr__find_employee", {"department": "human resources"})]),
        (
            "How many vacation days does Maria Keller have left?",
            [("hr__get_leave_balance", {"name": "Maria Keller"})],
        ),
        ("What is Maria Keller's leave balance?", [("hr__get_leave_balance", {"name": "Maria Keller"})]),
        ("leave balance of EMP-003", [("hr__get_leave_balance", {"employee_id": "EMP-003"})]),
        ("Which departments are there?", [("hr__list_departments", {})]),
    ],
)
def test_a_question_leads_to_the_tool_it_means(question: str, expected: Calls, tools: list[Tool]) -> None:
    assert calls_for(question, tools) == expected


@pytest.mark.parametrize(
    "question",
    [
        "Hello!",
        "Tell me a joke about cats",
        "What is the weather in Berlin?",
        "What is the capital of France?",
        "Write a long story about a dragon",
        "My name is Ana",
        "What did I ask before?",
        "Who are you?",
        "Thanks, that was helpful",
        "Count to 20",
    ],
)
def test_a_question_that_fits_no_tool_calls_none(question: str, tools: list[Tool]) -> None:
    made = reply([Message("user", question)], tools)
    assert made.calls == ()
    assert made.text


def test_a_change_is_only_made_when_one_is_asked_for(tools: list[Tool]) -> None:
    changes = [name for name, _ in calls_for("What about the stage and amount of OPP-1001?", tools) if "update" in name]
    assert changes == []


@pytest.mark.parametrize("separator", ["__", "."])
def test_server_names_may_be_joined_either_way(separator: str) -> None:
    offered = [tool(f"crm{separator}list_opportunities", "", {"account": {"type": "string"}}, ["account"])]
    assert calls_for("Which opportunities does Contoso have?", offered) == [
        (f"crm{separator}list_opportunities", {"account": "Contoso"})
    ]


def test_a_question_with_two_parts_calls_two_tools_at_once(tools: list[Tool]) -> None:
    question = "Which opportunities does Contoso have, and how many vacation days does Maria Keller have left?"
    assert calls_for(question, tools) == [
        ("crm__list_opportunities", {"account": "Contoso"}),
        ("hr__get_leave_balance", {"name": "Maria Keller"}),
    ]


def test_two_names_in_one_question_make_two_calls(tools: list[Tool]) -> None:
    assert calls_for("Which opportunities do Contoso and Fabrikam have?", tools) == [
        ("crm__list_opportunities", {"account": "Contoso"}),
        ("crm__list_opportunities", {"account": "Fabrikam"}),
    ]


def test_without_parallel_calls_the_second_call_comes_in_the_next_round(tools: list[Tool]) -> None:
    question = "Which opportunities do Contoso and Fabrikam have?"
    first = calls_for(question, tools, parallel_tool_calls=False)
    assert first == [("crm__list_opportunities", {"account": "Contoso"})]
    done = ToolCall("c1", FunctionCall(first[0][0], json.dumps(first[0][1])))
    messages = [Message("user", question), Message("assistant", None, [done]), Message("tool", "{}", tool_call_id="c1")]
    second = reply(messages, tools, parallel_tool_calls=False).calls
    assert [json.loads(call.arguments) for call in second] == [{"account": "Fabrikam"}]


def test_a_follow_up_uses_the_tool_of_the_question_before(tools: list[Tool]) -> None:
    earlier = "Which opportunities does Contoso have?"
    assert calls_for("And Fabrikam?", tools, earlier) == [("crm__list_opportunities", {"account": "Fabrikam"})]


def test_a_pronoun_stands_for_what_was_named_last(tools: list[Tool]) -> None:
    made = calls_for("Which opportunities does it have?", tools, "Find the account Fabrikam")
    assert made == [("crm__list_opportunities", {"account": "Fabrikam"})]


def test_somebody_or_something_unknown_is_looked_up_everywhere_and_told_once(tools: list[Tool]) -> None:
    def answer(name: str, _arguments: dict[str, Any]) -> Any:
        if name.startswith("hr"):
            return {"error": "No employee matches 'Contoso'."}
        return {"accounts": [{"id": "ACC-001", "name": "Contoso"}]}

    rounds, text = converse("Tell me about Contoso", tools, answer)
    assert rounds == [[("crm__find_account", {"name": "Contoso"}), ("hr__find_employee", {"name": "Contoso"})]]
    assert "ACC-001" in text
    assert "No employee" not in text


def test_an_id_that_is_needed_is_looked_up_in_a_round_before() -> None:
    offered = [
        tool("find_account", "Find accounts by name", {"name": {"type": "string"}}, ["name"]),
        tool("list_opportunities", "List opportunities", {"account_id": {"type": "string"}}, ["account_id"]),
    ]
    results = {
        "find_account": {"accounts": [{"id": "ACC-7", "name": "Contoso"}]},
        "list_opportunities": {"opportunities": [{"id": "OPP-1", "name": "Cloud"}]},
    }
    rounds, text = converse("Which opportunities does Contoso have?", offered, lambda name, _: results[name])
    assert rounds == [[("find_account", {"name": "Contoso"})], [("list_opportunities", {"account_id": "ACC-7"})]]
    assert "OPP-1" in text
    assert "ACC-7 |" not in text, "the lookup is not told again"


def test_rounds_end_even_when_every_tool_fails(tools: list[Tool]) -> None:
    rounds, text = converse("Which opportunities does Contoso have?", tools, lambda *_: {"error": "The CRM is down"})
    assert len(rounds) == 1
    assert "The CRM is down." in text


def test_tool_choice_is_obeyed(tools: list[Tool]) -> None:
    question = "Which opportunities does Contoso have?"
    assert calls_for(question, tools, tool_choice="none") == []
    assert len(calls_for("Hello!", tools, tool_choice="required")) == 1
    forced = {"type": "function", "function": {"name": "crm__find_account"}}
    assert [name for name, _ in calls_for(question, tools, tool_choice=forced)] == ["crm__find_account"]


def test_tools_of_other_servers_are_understood_too() -> None:
    number = {"type": "number"}
    offered = [
        tool("echo", "Echoes back the input string", {"message": {"type": "string"}}, ["message"]),
        tool("get-sum", "Returns the sum of two numbers", {"a": number, "b": number}, ["a", "b"]),
        tool(
            "trigger-long-running-operation",
            "Demonstrates a long running operation with progress updates",
            {"duration": {"type": "number", "default": 10}, "steps": {"type": "number", "default": 5}},
            [],
        ),
    ]
    assert calls_for("echo hello world", offered) == [("echo", {"message": "hello world"})]
    assert calls_for("What is the sum of 2 and 40?", offered) == [("get-sum", {"a": 2, "b": 40})]
    assert calls_for("Run the long running operation with duration 3 and steps 6", offered) == [
        ("trigger-long-running-operation", {"duration": 3, "steps": 6})
    ]
