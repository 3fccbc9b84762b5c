"""``parley store init`` on an empty account, on one that is ready, and on one that differs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from azure.cosmos import PartitionKey, ThroughputProperties
from azure.cosmos.aio import CosmosClient

from serve_app.storage.cosmos.layout import CONTAINERS, SESSIONS
from tests.e2e.cli.azure_account import AzureAccount, azure_account
from tests.simulators.files.azurite import Azurite, running_azurite
from tests.unit.cli.conftest import Run


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    with running_azurite() as azurite:
        yield azurite


@pytest.fixture
def azure(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureAccount]:
    with azure_account(azurite) as account:
        account.configure(monkeypatch)
        yield account


def with_client(azure: AzureAccount, do: Callable[[CosmosClient], Awaitable[Any]]) -> Any:
    async def work() -> Any:
        async with CosmosClient(azure.cosmos.endpoint, azure.cosmos.key, enable_endpoint_discovery=False) as client:
            return await do(client)

    return asyncio.run(work())


def containers(azure: AzureAccount) -> dict[str, dict[str, Any]]:
    async def read(client: CosmosClient) -> dict[str, dict[str, Any]]:
        return {str(one["id"]): dict(one) async for one in client.get_database_client("parley").list_containers()}

    found: dict[str, dict[str, Any]] = with_client(azure, read)
    return found


def max_rus(azure: AzureAccount) -> int | None:
    async def read(client: CosmosClient) -> int | None:
        return (await client.get_database_client("parley").get_throughput()).auto_scale_max_throughput

    found: int | None = with_client(azure, read)
    return found


def test_an_empty_account_is_made_ready_and_a_second_time_nothing_is_changed(run: Run, azure: AzureAccount) -> None:
    made = run("store", "init")
    assert made.exit_code == 0, made.stderr
    assert "9 things made or changed." in made.stdout
    found = containers(azure)
    assert set(found) == {container.name for container in CONTAINERS}
    for container in CONTAINERS:
        there = found[container.name]
        assert there["partitionKey"] == {"paths": list(container.key), "kind": "MultiHash", "version": 2}
        assert there["indexingPolicy"] == container.indexing_policy
        assert there["defaultTtl"] == -1
    assert max_rus(azure) == 4000
    again = run("store", "init")
    assert again.exit_code == 0
    assert "Nothing had to be changed." in again.stdout
    assert containers(azure) == found


def test_a_container_for_prompts_is_made_where_the_settings_name_one(
    run: Run, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_AZURE__PROMPTS_CONTAINER", "prompts")
    assert "10 things to make or change." in run("store", "init", "--dry-run").stdout
    made = run("store", "init")
    assert "10 things made or changed." in made.stdout, made.stderr
    assert "prompts at " in made.stdout
    assert "Nothing had to be changed." in run("store", "init").stdout
    shared = os.environ["PARLEY_AZURE__BLOB_CONTAINER"]
    monkeypatch.setenv("PARLEY_AZURE__PROMPTS_CONTAINER", shared)
    assert run("store", "init").stdout.count("blob container") == 1


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(run: Run, azure: AzureAccount) -> None:
    said = run("store", "init", "--dry-run")
    assert said.exit_code == 0, said.stderr
    assert "Nothing has been changed. 9 things to make or change." in said.stdout
    assert said.stdout.count("to make") == 9 + 1
    written = azure.cosmos.log.find(kind="metadata")
    assert {entry.name.partition(" ")[0] for entry in written} <= {"GET", "read"}, written
    assert "9 things to make or change." in run("store", "init", "--dry-run").stdout


def test_indexes_time_to_live_and_throughput_are_changed_in_place(
    run: Run, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("store", "init")

    async def spoil(client: CosmosClient) -> None:
        database = client.get_database_client("parley")
        key = PartitionKey(path=list(SESSIONS.key), kind="MultiHash")
        every: Any = {"indexingMode": "consistent", "includedPaths": [{"path": "/*"}], "excludedPaths": []}
        await database.replace_container("sessions", key, indexing_policy=every, default_ttl=60)

    with_client(azure, spoil)
    monkeypatch.setenv("PARLEY_AZURE__COSMOS_MAX_RUS", "8000")
    dry = run("store", "init", "--dry-run")
    assert dry.exit_code == 0
    assert "autoscale from 4000 to 8000 RU/s" in dry.stdout
    assert "index /calledKey, /conversationId" in dry.stdout
    assert "index no longer /*" in dry.stdout
    assert "time to live is 60 s: let documents say their own" in dry.stdout
    assert containers(azure)["sessions"]["defaultTtl"] == 60
    assert "2 things made or changed." in run("store", "init").stdout
    assert containers(azure)["sessions"]["indexingPolicy"] == SESSIONS.indexing_policy
    assert containers(azure)["sessions"]["defaultTtl"] == -1
    assert max_rus(azure) == 8000


def test_a_partition_key_that_differs_is_said_and_left_alone(run: Run, azure: AzureAccount) -> None:
    async def make(client: CosmosClient) -> None:
        offer = ThroughputProperties(auto_scale_max_throughput=4000)
        database = await client.create_database("parley", offer_throughput=offer)
        await database.create_container("inbox", PartitionKey(path="/id"))

    with_client(azure, make)
    for arguments in (("store", "init", "--dry-run"), ("store", "init")):
        said = run(*arguments)
        assert said.exit_code == 1
        assert "its partition key is /id and has to be /tenantId, /userId, which cannot be changed" in said.stdout
        assert "1 thing cannot be changed in place" in said.stdout
    found = containers(azure)
    assert found["inbox"]["partitionKey"]["paths"] == ["/id"]
    assert set(found) == {container.name for container in CONTAINERS}


@pytest.mark.parametrize(("manual", "said"), [(400, "manual at 400 RU/s"), (None, "the database has none to share")])
def test_throughput_that_cannot_be_changed_in_place_is_said(
    run: Run, azure: AzureAccount, manual: int | None, said: str
) -> None:
    with_client(azure, lambda client: client.create_database("parley", offer_throughput=manual))
    found = run("store", "init", "--dry-run")
    assert found.exit_code == 1
    assert said in found.stdout


def test_a_serverless_account_is_made_ready_without_throughput(
    run: Run, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    with azure_account(azurite, serverless=True) as azure:
        azure.configure(monkeypatch)
        refused = run("store", "init")
        assert refused.exit_code == 2
        assert "This is a serverless account, which has no throughput to set." in refused.stderr
        assert "Set PARLEY_AZURE__COSMOS_MAX_RUS=0." in refused.stderr
        monkeypatch.setenv("PARLEY_AZURE__COSMOS_MAX_RUS", "0")
        assert run("store", "init").exit_code == 0
        assert set(containers(azure)) == {container.name for container in CONTAINERS}
        assert "Nothing had to be changed." in run("store", "init").stdout


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AZURE_COSMOS_KEY", "bm90IHRoZSBrZXk=", "does not accept AZURE_COSMOS_KEY"),
        ("AZURE_COSMOS_KEY", "not base64", "it must be base64"),
        ("PARLEY_AZURE__COSMOS_ENDPOINT", "account", "give the account's address"),
        ("PARLEY_AZURE__COSMOS_MAX_RUS", "1500", "autoscale goes by thousands"),
        ("AZURE_STORAGE_KEY", "bm90IHRoZSBrZXk=", "Blob Storage refuses access"),
    ],
)
def test_a_setting_that_cannot_work_is_one_sentence(
    run: Run, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    found = run("store", "init")
    assert found.exit_code != 0
    assert said in found.stderr
    assert "Traceback" not in found.stderr


def test_an_account_that_cannot_be_reached_is_a_failure_that_may_pass(
    run: Run, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_AZURE__COSMOS_ENDPOINT", "http://127.0.0.1:9/")
    found = run("store", "init")
    assert found.exit_code == 1
    assert "http://127.0.0.1:9/ cannot be reached" in found.stderr
