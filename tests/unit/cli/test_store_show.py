from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serve_app.storage.sqlite import SqliteStore
from tests.contract.store_inputs import completed, conversation_key
from tests.unit.cli.conftest import Run


def shown(run: Run) -> dict[str, str]:
    result = run("store", "show")
    assert result.exit_code == 0, result.output
    return {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1].strip() for line in result.stdout.splitlines()}


def test_a_local_store_says_what_it_holds_also_while_it_is_in_use(run: Run, folder: Path) -> None:
    assert shown(run)["holds"].startswith("nothing yet")
    assert not (folder / "data").exists()
    loop = asyncio.new_event_loop()
    store = loop.run_until_complete(SqliteStore.open(folder / "data"))
    try:
        loop.run_until_complete(completed(store, conversation_key("c1")))
        found = shown(run)
    finally:
        loop.run_until_complete(store.close())
        loop.close()
    assert found["store"] == f"SQLite in {folder / 'data'}"
    assert found["holds"] == "1 conversations, 2 messages, 1 turns, 1 usage, 0 records"
    assert (found["durability"], found["cache"], found["usage"]) == ("sync", "off", "written at once")


def test_a_database_that_is_none_is_one_sentence(run: Run, folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "parley.db").write_text("no database at all")
    result = run("store", "show")
    assert result.exit_code == 1
    assert "damaged" in result.stderr


def test_a_store_on_azure_says_where_it_is_and_no_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_STORE", "azure")
    monkeypatch.setenv("PARLEY_AZURE__COSMOS_ENDPOINT", "https://x.documents.azure.com:443/")
    monkeypatch.setenv("PARLEY_AZURE__BLOB_ENDPOINT", "https://x.blob.core.windows.net")
    monkeypatch.setenv("AZURE_COSMOS_KEY", "geheim")
    monkeypatch.delenv("AZURE_STORAGE_KEY", raising=False)
    monkeypatch.setenv("PARLEY_CACHE__BACKEND", "redis")
    monkeypatch.delenv("REDIS_URL", raising=False)
    found = shown(run)
    assert found["store"] == "Cosmos DB parley at https://x.documents.azure.com:443/, by key, up to 4000 RU/s"
    assert found["files"] == "Blob container parley at https://x.blob.core.windows.net, by Entra ID"
    assert (found["durability"], found["cache"]) == ("async, text stored every 5 s", "redis, without REDIS_URL")
    assert "geheim" not in str(found)


def test_a_store_in_memory_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_STORE", "memory")
    assert shown(run)["store"] == "in memory: nothing is kept"
