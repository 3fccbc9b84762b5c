"""``parley store copy`` between a folder and a simulated account, and what it says where it cannot."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.cli import store_sides
from serve_app.domain.records import Record
from serve_app.domain.usage import UsageRow
from serve_app.storage.sqlite.transfer import SqliteTransfer
from serve_app.storage.transfer import ConversationSnapshot, StoreCounts
from tests.contract.store_inputs import (
    ANNA,
    PROMPT,
    completed,
    conversation_key,
    ended,
    new_turn,
    queued,
    running,
)
from tests.e2e.cli.azure_account import AzureAccount, azure_account
from tests.simulators.files.azurite import Azurite, running_azurite
from tests.unit.cli.conftest import Run

C1 = conversation_key("c1")


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
    store = await SqliteTransfer.open(folder)
    try:
        first = await completed(store, C1, "One")
        await store.set_reaction(C1, first.assistant_message_id, "up")
        again = await store.accept_turn(new_turn(C1, "One", replaces=first.assistant_message_id))
        await ended(store, again.turn.key, "Another answer")
        await store.update_conversation(C1, title="Numbers", session_prompt=PROMPT)
        for number in range(12):
            await completed(store, conversation_key(f"more{number}"), "long " * 50_000 if number == 3 else "Hello")
        await running(store, conversation_key("runs"))
        await queued(store, conversation_key("runs"))
        await store.save_record("acme", "user", "anna", b'{"user_id":"anna"}')
    finally:
        await store.close()


Contents = tuple[StoreCounts, dict[str, ConversationSnapshot], list[UsageRow], list[Record]]


async def contents(folder: Path) -> Contents:
    store = await SqliteTransfer.open(folder)
    try:
        keys = (await store.scan_conversations()).items
        exported = {key.conversation_id: await store.export_conversation(key) for key in keys}
        usage = sorted((await store.scan_usage()).items, key=lambda row: row.turn_id)
        return await store.count_all(), exported, usage, list((await store.scan_records()).items)
    finally:
        await store.close()


async def listed(folder: Path) -> list[str]:
    store = await SqliteTransfer.open(folder)
    try:
        return [one.key.conversation_id for one in (await store.list_conversations(ANNA)).items]
    finally:
        await store.close()


def test_everything_goes_to_cosmos_and_comes_back_the_same(
    run: Run, folder: Path, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serve_app.storage.transfer import same

    asyncio.run(fill(folder / "data"))
    there = run("store", "copy", "--from", "sqlite", "--to", "cosmos")
    assert there.exit_code == 0, there.output
    assert "All is copied." in there.stdout
    assert not list((folder / "data").glob("copy-*"))
    assert azure.cosmos.log.find(cross_partition=True) == []

    monkeypatch.setenv("PARLEY_DATA_DIR", "back")
    back = run("store", "copy", "--from", "cosmos", "--to", "sqlite")
    assert back.exit_code == 0, back.output
    assert "Not copied: the files that users have uploaded, in the Blob container" in back.stdout

    counts, conversations, usage, records = asyncio.run(contents(folder / "data"))
    counts_back, conversations_back, usage_back, records_back = asyncio.run(contents(folder / "back"))
    assert counts_back == counts == StoreCounts(conversations=14, messages=29, turns=16, usage=14, records=1)
    assert set(conversations_back) == set(conversations)
    for name, snapshot in conversations.items():
        assert same(conversations_back[name], snapshot), name
    assert usage_back == usage
    assert [(record.tenant_id, record.kind, record.record_id, record.body) for record in records_back] == [
        (record.tenant_id, record.kind, record.record_id, record.body) for record in records
    ]
    assert asyncio.run(listed(folder / "back")) == asyncio.run(listed(folder / "data"))


def test_a_second_copy_changes_nothing(run: Run, folder: Path, azure: AzureAccount) -> None:
    asyncio.run(fill(folder / "data"))
    copy = ("store", "copy", "--from", "sqlite", "--to", "cosmos")
    assert run(*copy).exit_code == 0
    before = azure.cosmos.documents("sessions")
    again = run(*copy)
    assert again.exit_code == 0, again.output
    assert azure.cosmos.documents("sessions") == before


def test_a_target_that_has_more_is_shown_in_a_table_and_fails(
    run: Run, folder: Path, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(fill(folder / "data"))
    asyncio.run(fill_other(folder / "other"))
    monkeypatch.setenv("PARLEY_DATA_DIR", "other")
    assert run("store", "copy", "--from", "sqlite", "--to", "cosmos").exit_code == 0
    monkeypatch.setenv("PARLEY_DATA_DIR", "data")
    found = run("store", "copy", "--from", "sqlite", "--to", "cosmos")
    assert found.exit_code == 1
    assert "The two do not have as much" in found.stdout
    (row,) = [line.split() for line in found.stdout.splitlines() if line.startswith("conversations ")]
    assert row == ["conversations", "14", "15", "✗"]


async def fill_other(folder: Path) -> None:
    store = await SqliteTransfer.open(folder)
    await completed(store, conversation_key("others"))
    await store.close()


def test_a_copy_that_azure_ends_half_way_goes_on(
    run: Run, folder: Path, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(fill(folder / "data"))
    monkeypatch.setattr("serve_app.cli.store_copy.PATIENCE_S", 0.0)
    monkeypatch.setattr("serve_app.cli.store_copy.PAGE_CONVERSATIONS", 4)
    monkeypatch.setenv("PARLEY_AZURE__RETRY_S", "1")
    fault = azure.cosmos.faults.add(operation="batch", container="sessions", status=503, skip=6)
    copy = ("store", "copy", "--from", "sqlite", "--to", "cosmos")
    stopped = run(*copy)
    assert stopped.exit_code == 1, stopped.output
    assert "The same command goes on from where the copy has stopped." in stopped.stderr
    state = json.loads((folder / "data" / "copy-sqlite-to-cosmos.json").read_text())
    assert state["copied"] in (0, 4, 8)
    azure.cosmos.faults.remove(fault)
    monkeypatch.setenv("PARLEY_AZURE__RETRY_S", "15")
    ended_well = run(*copy)
    assert ended_well.exit_code == 0, ended_well.output
    assert "Goes on where an earlier copy stopped." in ended_well.stdout


def test_a_folder_in_use_is_refused_with_its_holder_named(
    run: Run, folder: Path, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_sides, "LOCK_WAIT_S", 0.0)
    loop = asyncio.new_event_loop()
    store = loop.run_until_complete(SqliteTransfer.open(folder / "data"))
    try:
        for sides in (("sqlite", "cosmos"), ("cosmos", "sqlite")):
            found = run("store", "copy", "--from", sides[0], "--to", sides[1])
            assert found.exit_code == 2
            assert f"in use by another Parley process (process {os.getpid()})" in found.stderr
    finally:
        loop.run_until_complete(store.close())
        loop.close()


def test_nothing_to_copy_and_sides_that_are_one_are_said(run: Run, folder: Path, azure: AzureAccount) -> None:
    found = run("store", "copy", "--from", "sqlite", "--to", "cosmos")
    assert (found.exit_code, "there is no database in" in found.stderr) == (2, True)
    assert not (folder / "data").exists()
    found = run("store", "copy", "--from", "cosmos", "--to", "cosmos")
    assert (found.exit_code, "--from and --to are both cosmos" in found.stderr) == (2, True)
    assert run("store", "copy", "--from", "sqlite", "--to", "nowhere").exit_code == 2


def test_a_target_that_is_not_ready_says_to_make_it_ready(
    run: Run, folder: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(fill_other(folder / "data"))
    with azure_account(azurite) as account:
        account.configure(monkeypatch)
        found = run("store", "copy", "--from", "sqlite", "--to", "cosmos")
    assert found.exit_code == 2
    assert "run `parley store init`" in found.stderr


def test_without_an_account_the_missing_setting_is_named(run: Run, folder: Path) -> None:
    asyncio.run(fill_other(folder / "data"))
    found = run("store", "copy", "--from", "sqlite", "--to", "cosmos")
    assert found.exit_code == 2
    assert "PARLEY_AZURE__COSMOS_ENDPOINT is needed" in found.stderr


def test_a_copy_stopped_by_hand_says_how_it_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stopped(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("serve_app.cli.store._copy", stopped)
    found = run("store", "copy", "--from", "sqlite", "--to", "cosmos")
    assert (found.exit_code, found.stderr) == (130, "Stopped. The same command goes on from where it stopped.\n")


def test_uploads_are_named_as_left_behind(run: Run, folder: Path, azure: AzureAccount) -> None:
    asyncio.run(fill_other(folder / "data"))
    (folder / "data" / "files" / "acme").mkdir(parents=True)
    found = run("store", "copy", "--from", "sqlite", "--to", "cosmos")
    assert found.exit_code == 0
    assert f"Not copied: the files that users have uploaded, in {folder / 'data' / 'files'}." in found.stdout
