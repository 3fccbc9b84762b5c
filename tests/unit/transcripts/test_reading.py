"""Conversations of three kinds of files are read into one form; what is none is told with its place."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from load_tests.users.recorded import RecordedTalk, recorded
from serve_app.capacity.scenario import BUILT_IN, UserEntry
from serve_app.errors import ConfigError
from serve_app.transcripts.reading import read_transcripts
from serve_app.transcripts.transcript import CalledTool, Said

PARLEY = {
    "conversation_id": "conv-1",
    "items": [
        {"role": "user", "parts": [{"type": "text", "text": "Who is it?"}], "metadata": {"created_at": "2026-11-02T09:30:00Z"}},
        {"role": "assistant",
         "parts": [{"type": "tool-crm.find", "toolCallId": "c", "state": "output-available", "input": {"n": 1}, "output": [7]},
                   {"type": "text", "text": "Contoso."}],
         "metadata": {"created_at": "2026-11-02T09:30:04Z"}},
        {"role": "user", "parts": [{"type": "text", "text": "Thanks."}], "metadata": {"created_at": "2026-11-02T09:30:10Z"}},
    ],
}  # fmt: skip
OPENAI = {
    "messages": [
        {"role": "system", "content": "You help."},
        {"role": "user", "content": [{"type": "text", "text": "Who "}, {"type": "text", "text": "is it?"}]},
        {"role": "assistant", "content": None,
         "tool_calls": [{"id": "c", "type": "function", "function": {"name": "crm.find", "arguments": '{"n":1}'}}]},
        {"role": "tool", "tool_call_id": "c", "content": "[7]"},
        {"role": "assistant", "content": "Contoso.", "timestamp": 1000},
        {"role": "user", "content": "Thanks.", "timestamp": 1_006},
    ]
}  # fmt: skip
SHARE_GPT = {
    "id": "x",
    "conversations": [
        {"from": "human", "value": "Who is it?"},
        {"from": "gpt", "value": "Contoso."},
        {"from": "human", "value": "Thanks."},
    ],
}


def written(tmp_path: Path, *records: Any, array: bool = False, indent: int | None = None) -> Path:
    path = tmp_path / "said.jsonl"
    if array or indent:
        path.write_text(json.dumps(list(records) if array else records[0], indent=indent))
    else:
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def test_parleys_own_pages_keep_words_tools_and_the_pause_after_an_answer(tmp_path: Path) -> None:
    (transcript,) = read_transcripts(written(tmp_path, PARLEY))
    assert transcript.id == "conv-1"
    assert [line.role for line in transcript.lines] == ["user", "assistant", "user"]
    assert transcript.lines[1].tool_calls == (CalledTool("crm.find", {"n": 1}, [7]),)
    assert list(transcript.questions()) == [Said("Who is it?", None), Said("Thanks.", 6.0)]


def test_openais_lines_keep_words_tools_results_and_times_where_there_are_any(tmp_path: Path) -> None:
    (transcript,) = read_transcripts(written(tmp_path, OPENAI))
    assert [line.role for line in transcript.lines] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert transcript.lines[2].tool_calls == (CalledTool("crm.find", {"n": 1}, "[7]"),)
    assert list(transcript.questions()) == [Said("Who is it?", None), Said("Thanks.", 6.0)]


def test_share_gpts_speakers_are_who_they_are(tmp_path: Path) -> None:
    (transcript,) = read_transcripts(written(tmp_path, SHARE_GPT))
    assert [line.role for line in transcript.lines] == ["user", "assistant", "user"]
    assert list(transcript.questions()) == [Said("Who is it?"), Said("Thanks.")]


def test_what_a_file_holds_is_told_by_its_content(tmp_path: Path) -> None:
    mixed = read_transcripts(written(tmp_path, PARLEY, OPENAI, SHARE_GPT))
    assert [transcript.source for transcript in mixed] == [f"said.jsonl, line {number}" for number in (1, 2, 3)]
    assert len(read_transcripts(written(tmp_path, OPENAI, SHARE_GPT, array=True))) == 2
    assert len(read_transcripts(written(tmp_path, OPENAI, array=True, indent=2))) == 1
    assert len(read_transcripts(written(tmp_path, PARLEY, indent=2))) == 1
    assert len(read_transcripts(BUILT_IN / "transcripts.example.jsonl")) == 3


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"messages": [{"role": "wizard", "content": "x"}]}, "message 1: the role 'wizard'"),
        ({"messages": [{"role": "user", "content": 3}]}, "content must be a list"),
        ({"messages": {}}, "messages must be a list"),
        ({"text": "x"}, "none of messages, items and conversations"),
        ({"conversations": [{"from": "human"}]}, "value must be a text"),
        ({"messages": [{"role": "user", "content": "x", "time": "noon"}]}, "the time 'noon'"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "no function with a name"),
        (7, "must be an object"),
    ],
)
def test_what_is_no_conversation_is_told_with_file_and_line(tmp_path: Path, record: Any, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_transcripts(written(tmp_path, SHARE_GPT, record))
    assert told in refused.value.message
    assert "said.jsonl, line 2," in refused.value.message


def test_lines_that_are_no_json_empty_files_and_missing_ones_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, SHARE_GPT)
    path.write_text(path.read_text() + "\n{broken\n")
    with pytest.raises(ConfigError, match="line 3, are no JSON"):
        read_transcripts(path)
    path.write_text("\n")
    with pytest.raises(ConfigError, match="no conversation"):
        read_transcripts(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_transcripts(tmp_path / "missing")


def test_a_replay_says_every_question_once_each_conversation_with_its_pauses_by_the_speed(tmp_path: Path) -> None:
    path = written(tmp_path, PARLEY, SHARE_GPT)
    entry = UserEntry.model_validate({"kind": "transcript", "transcripts": path, "speed": 2, "think_s": 1.5})
    talk = RecordedTalk(entry, Random(1), recorded(entry), 0)
    said: list[tuple[bool, float, str]] = []
    for _ in range(6):
        fresh = talk.begins_anew()
        said.append((fresh, talk.pause_s(), talk.next_question().text))
    assert said[:4] == [
        (True, 1.5, "Who is it?"),
        (False, 3.0, "Thanks."),
        (True, 1.5, "Who is it?"),
        (False, 1.5, "Thanks."),
    ]
    assert said[4:] == said[:2]
