"""Transcripts of three kinds become cases: with their tool calls and results, one for each conversation or each question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serve_app.domain.trial import RecordedCall
from serve_app.evaluation.case_files import write_cases
from serve_app.evaluation.cases import Case, CaseMessage, Expected, ExpectedCall
from serve_app.evaluation.dataset import open_dataset
from serve_app.evaluation.importing import Imported, Importing, cases_of
from serve_app.transcripts.reading import read_transcripts
from serve_app.transcripts.transcript import Line, Transcript

OPENAI = {
    "id": "chat-7",
    "messages": [
        {"role": "system", "content": "You help."},
        {"role": "user", "content": "Who owns Contoso?"},
        {"role": "assistant", "content": "Let me look.",
         "tool_calls": [{"id": "c", "type": "function",
                         "function": {"name": "crm__find_account", "arguments": '{"name":"Contoso"}'}}]},
        {"role": "tool", "tool_call_id": "c", "content": '{"owner": "Ana"}'},
        {"role": "assistant", "content": "Ana."},
        {"role": "user", "content": "Thanks."},
        {"role": "assistant", "content": "You are welcome."},
    ],
}  # fmt: skip
PARLEY = {
    "conversation_id": "conv_1",
    "items": [
        {"role": "user", "parts": [{"type": "text", "text": "Who is it?"}]},
        {"role": "assistant", "parts": [
            {"type": "tool-crm.find_account", "toolCallId": "c", "state": "output-error", "input": {"name": "X"},
             "errorText": "There is none."},
            {"type": "text", "text": "Nobody."}]},
    ],
}  # fmt: skip
SHARE_GPT = {
    "conversations": [
        {"from": "human", "value": "Leave of Maria?"},
        {"from": "function_call", "value": '{"name": "hr__get_leave", "arguments": {"name": "Maria"}}'},
        {"from": "observation", "value": "7.5"},
        {"from": "gpt", "value": "7.5 days."},
        {"from": "human", "value": "And of Tom?"},
    ],
}
CALL = RecordedCall(name="crm.find_account", arguments={"name": "Contoso"}, result={"owner": "Ana"})


def imported(tmp_path: Path, *records: Any, **how: Any) -> list[Case]:
    """The cases, by way of files: as they are read where they are used."""
    source = tmp_path / "said.jsonl"
    source.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    write_cases(tmp_path / "cases.jsonl", cases_of(read_transcripts(source), Importing(**how), Imported()))
    return list(open_dataset(tmp_path / "cases.jsonl").cases())


def test_openais_messages_keep_their_calls_with_results_in_one_answer(tmp_path: Path) -> None:
    (case,) = imported(tmp_path, OPENAI, tags=("support",), tenant="acme", role="sales")
    assert case.messages == (
        CaseMessage(role="system", content="You help."),
        CaseMessage(role="user", content="Who owns Contoso?"),
        CaseMessage(role="assistant", content="Let me look.\n\nAna.", tool_calls=(CALL,)),
        CaseMessage(role="user", content="Thanks."),
        CaseMessage(role="assistant", content="You are welcome."),
    )
    assert (case.id, case.tags, case.tenant, case.role) == ("chat-7", ("support",), "acme", "sales")
    assert case.expected == Expected()
    assert case.metadata == {"from": "said.jsonl, line 1"}


def test_each_question_can_be_a_case_that_ends_with_the_answer_to_it(tmp_path: Path) -> None:
    first, second = imported(tmp_path, OPENAI, each_turn=True)
    assert (first.id, len(first.messages)) == ("chat-7-1", 3)
    assert (second.id, len(second.messages)) == ("chat-7-2", 5)


def test_what_was_answered_can_be_what_is_expected(tmp_path: Path) -> None:
    first, second = imported(tmp_path, OPENAI, each_turn=True, expect_answer=True, expect_calls=True)
    assert first.expected == Expected(
        answer="Let me look.\n\nAna.",
        tool_calls=(ExpectedCall(name="crm.find_account", arguments={"name": "Contoso"}),),
    )
    assert second.expected == Expected(answer="You are welcome.", tool_calls=())


def test_parleys_own_messages_keep_failed_calls_as_failed(tmp_path: Path) -> None:
    (case,) = imported(tmp_path, PARLEY)
    call = RecordedCall(name="crm.find_account", arguments={"name": "X"}, result="There is none.", ok=False)
    assert case.messages[-1] == CaseMessage(role="assistant", content="Nobody.", tool_calls=(call,))


def test_sharegpts_calls_are_messages_with_their_result_in_the_next(tmp_path: Path) -> None:
    first, second = imported(tmp_path, SHARE_GPT, each_turn=True, prefix="chats", expect_answer=True)
    call = RecordedCall(name="hr.get_leave", arguments={"name": "Maria"}, result="7.5")
    assert first.messages[-1] == CaseMessage(role="assistant", content="7.5 days.", tool_calls=(call,))
    assert (first.id, second.id) == ("chats-0001-1", "chats-0001-2")
    assert second.messages[-1] == CaseMessage(role="user", content="And of Tom?")
    assert second.expected == Expected()  # nothing was answered


def test_conversations_that_ask_nothing_are_left_out_and_counted() -> None:
    counted = Imported()
    transcripts = [
        Transcript(lines=(Line("assistant", "Hi"),)),
        Transcript(lines=(Line("user", "  "), Line("assistant", "Hm?"))),
        Transcript(lines=(Line("user", "One"), Line("user", "Two"), Line("assistant", "Both."))),
    ]
    (case,) = cases_of(transcripts, Importing(each_turn=True), counted)
    assert [message.content for message in case.messages] == ["One", "Two", "Both."]
    assert (counted.cases, counted.conversations, counted.skipped) == (1, 3, 2)


def test_ids_are_no_ones_twice_and_fit_for_a_data_set(tmp_path: Path) -> None:
    same = {**SHARE_GPT, "id": "x"}
    long = {**SHARE_GPT, "id": "y\n" * 300}
    found = [case.id for case in imported(tmp_path, same, same, long, SHARE_GPT)]
    assert found[:2] == ["x", "x~2"]
    assert len(set(found)) == 4


def test_a_call_without_a_result_and_words_that_only_look_like_one_are_kept() -> None:
    lines = (
        Line("user", "Go"), Line("assistant", '{"name": "a.b", "arguments": "{\\"n\\": 1}"}'), Line("user", "And?"),
        Line("assistant", '{"name": "only"}'),
    )  # fmt: skip
    (case,) = cases_of([Transcript(lines=lines)], Importing(), Imported())
    assert case.messages[1].tool_calls == (RecordedCall(name="a.b", arguments={"n": 1}),)
    assert case.messages[3] == CaseMessage(role="assistant", content='{"name": "only"}')


@pytest.mark.parametrize("beside", [{}, {"tool_calls": None}, {"tool_calls": []}])
def test_a_call_as_it_was_written_before_there_were_several_is_one(beside: dict[str, Any], tmp_path: Path) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Who owns Contoso?"},
        {"role": "assistant", "content": None, "function_call": {"name": "crm__find_account", "arguments": '{"name":"Contoso"}'}},
        {"role": "function", "name": "crm__find_account", "content": '{"owner": "Ana"}'},
        {"role": "assistant", "content": "Ana."},
    ]  # fmt: skip
    messages[1] |= beside
    messages.insert(1, {"role": "assistant", "content": "Let me see.", "function_call": None})
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": messages}))
    (case,) = cases_of(read_transcripts(path), Importing(expect_calls=True), Imported())
    arguments = {"name": "Contoso"}
    assert case.messages[-1].tool_calls == (
        RecordedCall(name="crm.find_account", arguments=arguments, result={"owner": "Ana"}),
    )
    assert case.expected.tool_calls == (ExpectedCall(name="crm.find_account", arguments=arguments),)
