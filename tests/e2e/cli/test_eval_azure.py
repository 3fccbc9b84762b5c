"""``parley eval export`` and ``shadow`` from a simulated account give what they give from the folder it was copied from."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.evaluation.run_store import RunStore
from serve_app.storage.sqlite.transfer import SqliteTransfer
from tests.e2e.cli.azure_account import AzureAccount, azure_account
from tests.simulators.files.azurite import Azurite, running_azurite
from tests.unit.cli.conftest import Run
from tests.unit.turns.shadow_world import asked, world


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    with running_azurite() as azurite:
        yield azurite


@pytest.fixture
def azure(azurite: Azurite, monkeypatch: pytest.MonkeyPatch, run: Run) -> Iterator[AzureAccount]:
    with azure_account(azurite) as account:
        account.configure(monkeypatch)
        assert run("store", "init").exit_code == 0
        yield account


async def fill(folder: Path) -> None:
    """Three questions of one conversation, each of them mirrored."""
    async with world() as here:
        for number in (1, 2, 3):
            await asked(here, f"my name is Tom Becker, OPP-{number}", number=number)
        await here.settle()
        store = await SqliteTransfer.open(folder / "data")
        for key in (await here.store.scan_conversations(limit=100)).items:
            await store.import_conversation(await here.store.export_conversation(key))
        await store.import_records((await here.store.scan_records()).items)
        await store.close()


def test_cosmos_gives_the_same_cases_and_pairs_as_the_folder(
    run: Run, folder: Path, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(fill(folder))
    assert run("store", "copy", "--from", "sqlite", "--to", "cosmos").exit_code == 0

    results = {}
    for store in ("azure", "local"):
        monkeypatch.setenv("PARLEY_STORE", store)
        exported = run("eval", "export", "--since", "2020-01-01", "--each-turn", "--out", f"{store}.jsonl")
        assert exported.exit_code == 0, exported.output
        mirrored = run("eval", "shadow", "--out", f"{store}-run")
        assert mirrored.exit_code == 0, mirrored.output
        with RunStore.open(folder / f"{store}-run") as found:
            results[store] = (list(found.cases()), [one.result for one in found.results()])

    assert (folder / "azure.jsonl").read_text() == (folder / "local.jsonl").read_text()
    assert len((folder / "azure.jsonl").read_text().splitlines()) == 3
    assert results["azure"] == results["local"]
    assert len(results["azure"][1]) == 6
