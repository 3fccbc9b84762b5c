"""``parley eval export`` on a data folder: what is written, what is said, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serve_app.evaluation.dataset import open_dataset
from serve_app.storage.sqlite.transfer import SqliteTransfer
from serve_app.storage.transfer import ConversationSnapshot
from tests.unit.cli.conftest import Run
from tests.unit.evaluation.stored_conversations import Said, conversation

NOW = datetime.now(UTC)


def filled(folder: Path, snapshots: Sequence[ConversationSnapshot]) -> None:
    async def fill() -> None:
        store = await SqliteTransfer.open(folder / "data")
        for snapshot in snapshots:
            await store.import_conversation(snapshot)
        await store.close()

    asyncio.run(fill())


@pytest.fixture
def store(folder: Path) -> Path:
    recent = [
        conversation(
            [
                Said(question=f"Question {n} of anna.keller?", reaction="down" if n < 3 else None),
                Said(question="More?"),
            ],
            name=f"c{n}",
            order=n + 1,
            at=NOW - timedelta(days=2),
        )
        for n in range(20)
    ]
    old = conversation([Said(question="Old?")], name="old", order=99, at=NOW - timedelta(days=80))
    filled(folder, [*recent, old])
    return folder


def test_conversations_of_the_last_month_are_written_without_their_people(store: Path, run: Run) -> None:
    done = run("eval", "export", "--out", "out/cases.jsonl", "--tag", "november")

    assert done.exit_code == 0, done.output
    assert "20 of 20 that match" in done.output and "20 person" in done.output
    cases = list(open_dataset(store / "out/cases.jsonl").cases())
    assert len(cases) == 20 and all("november" in case.tags for case in cases)
    assert "[person-1]" in cases[0].messages[0].content and "anna" not in (store / "out/cases.jsonl").read_text()
    assert (store / "out/cases.jsonl").stat().st_mode & 0o077 == 0


def test_a_sample_of_disliked_questions_as_they_were_asked_as_parquet(store: Path, run: Run) -> None:
    options = ("--reaction", "down", "--each-turn", "--sample", "2", "--no-redaction", "--out", "bad.parquet")
    done = run("eval", "export", *options)

    assert done.exit_code == 0, done.output
    assert "2 of 3 that match" in done.output and "Personal data is in it" in done.output
    cases = list(open_dataset(store / "bad.parquet").cases())
    assert len(cases) == 2 and all("anna.keller" in case.messages[0].content for case in cases)


def test_it_reads_while_another_process_holds_the_folder(store: Path, run: Run) -> None:
    async def held() -> int:
        other = await SqliteTransfer.open(store / "data")
        try:
            return (await asyncio.to_thread(run, "eval", "export", "--out", "cases.jsonl")).exit_code
        finally:
            await other.close()

    assert asyncio.run(held()) == 0


def test_nothing_that_matches_is_said_and_leaves_no_file(store: Path, run: Run) -> None:
    done = run("eval", "export", "--tenant", "globex", "--out", "cases.jsonl")

    assert done.exit_code == 1
    assert "nothing is written" in done.output
    assert not (store / "cases.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--since", "lately"), "--since lately: give a time"),
        (("--since", "2026-11-02", "--until", "2026-11-01"), "--until must be later"),
        (("--sample", "none"), "--sample none"),
        (("--names", "missing.txt"), "The names missing.txt cannot be read"),
        (("--names", "missing.txt", "--no-redaction"), "leave it out, or them"),
    ],
)
def test_options_that_cannot_be_used_are_told(store: Path, run: Run, options: tuple[str, ...], said: str) -> None:
    done = run("eval", "export", "--out", "cases.jsonl", *options)

    assert done.exit_code == 2
    assert said in done.output


def test_a_folder_without_a_store_is_told(folder: Path, run: Run) -> None:
    done = run("eval", "export", "--out", "cases.jsonl")

    assert done.exit_code == 2
    assert "there is no database" in done.output
