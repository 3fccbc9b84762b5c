"""``parley eval check`` and ``import``, as somebody types them."""

from __future__ import annotations

import json
from pathlib import Path

from serve_app.evaluation.dataset import open_dataset
from serve_app.settings import PROJECT_ROOT
from tests.unit.cli.conftest import Run

CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def transcripts(folder: Path, *records: object) -> Path:
    path = folder / "chats.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def test_a_data_set_is_counted_by_what_is_expected_and_by_tag(run: Run) -> None:
    result = run("eval", "check", str(PROJECT_ROOT / "configs" / "eval" / "crm_hr.jsonl"))
    assert result.exit_code == 0, result.output
    rows = {
        line.rsplit(maxsplit=1)[0]: line.rsplit(maxsplit=1)[1] for line in result.stdout.splitlines() if line.strip()
    }
    assert "208 cases, fingerprint" in result.stdout
    assert rows["ask-back"] == "12"
    assert rows["no tool call"] == "46"


def test_what_is_wrong_is_told_with_its_line_and_exit_code_two(run: Run, folder: Path) -> None:
    result = run("eval", "check", str(transcripts(folder, CHAT)))
    assert result.exit_code == 2
    assert "line 1: it has no id; a transcript" in result.output


def test_transcripts_become_a_data_set_that_can_be_checked(run: Run, folder: Path) -> None:
    source = transcripts(folder, CHAT, CHAT, {"messages": []})
    result = run(
        "eval", "import", str(source), "--out", "cases.parquet", "--tag", "a", "--role", "sales", "--expect-answer"
    )
    assert result.exit_code == 0, result.output
    assert "2 cases of 3 conversations, 1 without a question left out: cases.parquet" in result.stdout
    cases = list(open_dataset(folder / "cases.parquet").cases())
    assert [(case.id, case.tags, case.role, case.expected.answer) for case in cases] == [
        ("chats-0001", ("a",), "sales", "Hello"), ("chats-0002", ("a",), "sales", "Hello"),
    ]  # fmt: skip


def test_a_file_that_is_there_is_not_written_over_unasked(run: Run, folder: Path) -> None:
    source = transcripts(folder, CHAT)
    assert run("eval", "import", str(source), "--out", "cases.jsonl").exit_code == 0
    refused = run("eval", "import", str(source), "--out", "cases.jsonl")
    assert refused.exit_code == 2
    assert "--overwrite" in refused.output
    assert run("eval", "import", str(source), "--out", "cases.jsonl", "--overwrite").exit_code == 0


def test_transcripts_that_ask_nothing_leave_the_file_alone(run: Run, folder: Path) -> None:
    before = folder / "cases.jsonl"
    before.write_text("kept")
    result = run("eval", "import", str(transcripts(folder, {"messages": []})), "--out", "cases.jsonl", "--overwrite")
    assert result.exit_code == 2
    assert "asks anything" in result.output
    assert before.read_text() == "kept"


def test_a_data_set_is_not_imported_since_what_it_expects_would_be_lost(run: Run, folder: Path) -> None:
    case = {"id": "a", "messages": CHAT["messages"], "expected": {"facts": ["Hello"]}}
    result = run("eval", "import", str(transcripts(folder, case)), "--out", str(folder / "out.jsonl"))

    assert result.exit_code == 2
    assert "is a data set already" in result.output
    assert not (folder / "out.jsonl").exists()


def test_a_transcript_nested_without_end_is_told_in_a_sentence(run: Run, folder: Path) -> None:
    path = folder / "deep.jsonl"
    path.write_text('{"messages":' + "[" * 100_000)
    result = run("eval", "import", str(path), "--out", str(folder / "out.jsonl"))

    assert result.exit_code == 2
    assert "line 1, are no JSON" in result.output


def test_a_file_is_not_written_over_while_it_is_read(run: Run, folder: Path) -> None:
    source = transcripts(folder, CHAT, {"messages": []})
    before = source.read_text()
    refused = run("eval", "import", str(source), "--out", str(source), "--overwrite")
    assert refused.exit_code == 2
    assert "is what is read" in refused.output
    assert source.read_text() == before


def test_a_list_and_another_encoding_are_told_in_words(run: Run, folder: Path) -> None:
    (folder / "list.json").write_text(json.dumps([CHAT]))
    (folder / "latin.jsonl").write_bytes(json.dumps(CHAT).replace("Hi", "H\u00ef").encode("latin-1"))
    (folder / "pretty.json").write_text(json.dumps([CHAT], indent=1))
    assert "line 1: a case must be an object; a list of cases is" in run("eval", "check", "list.json").output
    assert "line 1: it is no text in UTF-8." in run("eval", "check", "latin.jsonl").output
    assert "is neither JSON lines, a case on each, nor Parquet" in run("eval", "check", "pretty.json").output
