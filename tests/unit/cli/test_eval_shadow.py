"""``parley eval shadow`` on a data folder: the run folder it makes, and what it says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serve_app.evaluation.run_store import RunStore
from serve_app.storage.sqlite.transfer import SqliteTransfer
from tests.unit.cli.conftest import Run
from tests.unit.turns.shadow_world import asked, world


@pytest.fixture
def mirrored(folder: Path) -> Path:
    async def fill() -> None:
        async with world() as here:
            for number in (1, 2):
                await asked(here, "my name is Tom Becker", number=number)
            await here.settle()
            store = await SqliteTransfer.open(folder / "data")
            for key in (await here.store.scan_conversations(limit=100)).items:
                await store.import_conversation(await here.store.export_conversation(key))
            await store.import_records((await here.store.scan_records()).items)
            await store.close()

    asyncio.run(fill())
    return folder


def test_a_run_folder_is_made_of_what_was_mirrored(mirrored: Path, run: Run) -> None:
    done = run("eval", "shadow", "--out", "runs/shadow", "--tenant", "acme")

    assert done.exit_code == 0, done.output
    assert "parley eval grade runs/shadow" in done.output
    with RunStore.open(mirrored / "runs/shadow") as store:
        assert (store.meta.names, store.meta.cases, store.totals().results) == (("live", "v2"), 2, 4)
        assert "Becker" not in str(list(store.cases())) + str(list(store.results()))


def test_personal_data_is_left_in_where_that_is_wanted(mirrored: Path, run: Run) -> None:
    assert run("eval", "shadow", "--out", "runs/shadow", "--no-redaction").exit_code == 0
    with RunStore.open(mirrored / "runs/shadow") as store:
        assert "Becker" in str(list(store.cases()))


def test_a_folder_that_holds_a_run_is_told(mirrored: Path, run: Run) -> None:
    assert run("eval", "shadow", "--out", "runs/shadow").exit_code == 0
    again = run("eval", "shadow", "--out", "runs/shadow")

    assert again.exit_code == 2
    assert "already holds a run" in again.output


def test_where_nothing_is_mirrored_it_says_how(mirrored: Path, run: Run) -> None:
    done = run("eval", "shadow", "--out", "runs/shadow", "--tenant", "globex")

    assert done.exit_code == 1
    assert "PARLEY_SHADOW" in done.output
    assert not (mirrored / "runs").exists()


def test_a_shadow_file_that_cannot_be_used_keeps_a_graph_from_starting(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, ports: tuple[int, int]
) -> None:
    (folder / "shadow.yaml").write_text("share: 5\n")
    monkeypatch.setenv("PARLEY_SHADOW", "shadow.yaml")

    started, looked_at = run("serve"), run("doctor")

    assert (started.exit_code, "value for 'share'" in started.output) == (2, True), started.output
    assert "value for 'share'" in looked_at.output
