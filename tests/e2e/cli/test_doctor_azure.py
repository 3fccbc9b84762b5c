"""``parley doctor`` with ``PARLEY_STORE=azure``, on accounts that are wrong in one place each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.cosmos import PartitionKey
from azure.cosmos.aio import CosmosClient

from serve_app.settings import PROJECT_ROOT
from tests.e2e.cli.azure_account import AzureAccount, azure_account
from tests.simulators.files.azurite import Azurite, running_azurite
from tests.unit.cli.conftest import Run

WRONG_KEY = "bm90IHRoZSBrZXk="


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    with running_azurite() as azurite:
        yield azurite


@pytest.fixture
def azure(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch, run: Run, ports: tuple[int, int]
) -> Iterator[AzureAccount]:
    """An account that is ready."""
    with azure_account(azurite) as account:
        account.configure(monkeypatch)
        assert run("store", "init").exit_code == 0
        yield account


def examine(run: Run) -> tuple[int, dict[str, dict[str, str]]]:
    result = run("doctor", "--json")
    report: dict[str, Any] = json.loads(result.stdout)
    assert result.stderr == ""
    return result.exit_code, {finding["check"]: finding for finding in report["findings"]}


def problems(found: dict[str, dict[str, str]]) -> set[str]:
    return {check for check, finding in found.items() if finding["state"] == "problem"}


def said(finding: dict[str, str]) -> str:
    return f"{finding['message']} → {finding['todo']}"


def test_an_account_that_is_ready_passes_and_nothing_is_written(run: Run, azure: AzureAccount) -> None:
    azure.cosmos.log.clear()
    code, found = examine(run)
    assert (code, problems(found)) == (0, set())
    assert said(found["cosmos account"]).startswith(f"{azure.cosmos.endpoint} lets us in with AZURE_COSMOS_KEY.")
    assert "parley has all its containers; throughput: autoscale up to 4000 RU/s" in said(found["cosmos database"])
    assert found["blob storage"]["state"] == "ok"
    assert "data folder" not in found
    assert azure.cosmos.log.count(kind="write") == 0
    assert not [
        entry for entry in azure.cosmos.log if entry.name.startswith(("PUT", "DELETE", "POST dbs", "POST colls"))
    ]


def test_an_empty_account_says_to_make_it_ready(
    run: Run, azurite: Azurite, monkeypatch: pytest.MonkeyPatch, ports: tuple[int, int]
) -> None:
    with azure_account(azurite) as account:
        account.configure(monkeypatch)
        code, found = examine(run)
    assert (code, problems(found)) == (1, {"cosmos database", "blob storage"})
    assert said(found["cosmos database"]).startswith("There is no database parley at ")
    assert found["cosmos database"]["todo"] == found["blob storage"]["todo"] == "Run `parley store init`."


def test_a_missing_container_of_prompts_is_named_and_init_makes_it(
    run: Run, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_AZURE__PROMPTS_CONTAINER", "prompts-of-doctor")
    code, found = examine(run)
    assert (code, problems(found)) == (1, {"blob storage", "prompts"})
    assert said(found["blob storage"]).startswith("There is no container prompts-of-doctor at ")
    assert found["blob storage"]["todo"] == "Run `parley store init`."
    assert run("store", "init").exit_code == 0
    _, found = examine(run)
    assert found["blob storage"]["state"] == "ok"
    assert "prompts-of-doctor" in said(found["blob storage"])


def with_database(azure: AzureAccount, do: Any) -> None:
    async def work() -> None:
        async with CosmosClient(azure.cosmos.endpoint, azure.cosmos.key, enable_endpoint_discovery=False) as client:
            await do(client.get_database_client("parley"))

    azure.run(work())


def test_a_missing_container_is_named(run: Run, azure: AzureAccount) -> None:
    with_database(azure, lambda database: database.delete_container("jobs"))
    code, found = examine(run)
    assert (code, problems(found)) == (1, {"cosmos database"})
    assert said(found["cosmos database"]) == "The database parley has no container jobs. → Run `parley store init`."


def test_a_container_that_cannot_be_used_as_it_is_is_a_problem(run: Run, azure: AzureAccount) -> None:
    async def spoil(database: Any) -> None:
        await database.delete_container("jobs")
        await database.create_container("jobs", PartitionKey(path="/id"))

    with_database(azure, spoil)
    code, found = examine(run)
    assert (code, problems(found)) == (1, {"cosmos database"})
    assert "Container jobs: its partition key is /id and has to be /tenantId, /kind" in said(found["cosmos database"])


def test_other_indexes_and_other_throughput_are_warnings(
    run: Run, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_AZURE__COSMOS_MAX_RUS", "10000")
    code, found = examine(run)
    assert (code, found["cosmos database"]["state"]) == (0, "warning")
    assert "autoscale from 4000 to 10000 RU/s" in said(found["cosmos database"])

    async def spoil(database: Any) -> None:
        key = PartitionKey(path=["/tenantId", "/userId"], kind="MultiHash")
        every: Any = {"indexingMode": "consistent", "includedPaths": [{"path": "/*"}], "excludedPaths": []}
        await database.replace_container("inbox", key, indexing_policy=every, default_ttl=-1)

    with_database(azure, spoil)
    code, found = examine(run)
    assert (code, found["cosmos database"]["state"]) == (0, "warning")
    assert "is not as it should be: throughput, inbox." in said(found["cosmos database"])


@pytest.mark.parametrize(
    ("variable", "value", "check", "words"),
    [
        ("AZURE_COSMOS_KEY", WRONG_KEY, "cosmos account", ("does not accept AZURE_COSMOS_KEY", "Copy the primary key")),
        ("AZURE_COSMOS_KEY", "half a key", "cosmos account", ("AZURE_COSMOS_KEY is not a key", "base64")),
        ("PARLEY_AZURE__COSMOS_ENDPOINT", "http://127.0.0.1:9/", "cosmos account", ("cannot be reached", "COSMOS_ENDPOINT")),
        ("PARLEY_AZURE__COSMOS_ENDPOINT", "parley", "cosmos account", ("COSMOS_ENDPOINT", "documents.azure.com")),
        ("AZURE_STORAGE_KEY", WRONG_KEY, "blob storage", ("Blob Storage refuses access", "AZURE_STORAGE_KEY")),
        ("AZURE_STORAGE_KEY", "half a key", "blob storage", ("AZURE_STORAGE_KEY", "base64")),
        (
            "PARLEY_AZURE__BLOB_ENDPOINT", "http://127.0.0.1:9/devstoreaccount1", "blob storage",
            ("cannot be reached", "PARLEY_AZURE__BLOB_ENDPOINT (http://127.0.0.1:9/devstoreaccount1)"),
        ),
        ("PARLEY_AZURE__BLOB_CONTAINER", "another", "blob storage", ("no container another", "parley store init")),
        ("PARLEY_AZURE__COSMOS_DATABASE", "another", "cosmos database", ("no database another", "parley store init")),
    ],
)  # fmt: skip
def test_a_setting_that_is_wrong_is_said_in_its_place(
    run: Run, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, check: str, words: tuple[str, ...]
) -> None:  # fmt: skip
    monkeypatch.setenv(variable, value)
    code, found = examine(run)
    assert (code, problems(found)) == (1, {check})
    for word in words:
        assert word in said(found[check])
    assert WRONG_KEY not in said(found[check])


@pytest.mark.parametrize("endpoint", ["PARLEY_AZURE__COSMOS_ENDPOINT", "PARLEY_AZURE__BLOB_ENDPOINT"])
def test_a_missing_setting_is_named(
    run: Run, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.delenv(endpoint)
    code, found = examine(run)
    assert (code, problems(found)) == (1, {"settings"})
    assert endpoint in found["settings"]["message"]


def test_a_firewall_is_told_from_a_wrong_key(run: Run, azure: AzureAccount) -> None:
    azure.cosmos.firewall = True
    code, found = examine(run)
    assert (code, problems(found)) == (1, {"cosmos account"})
    assert "firewall" in said(found["cosmos account"])
    assert "its address there is 127.0.0.1" in said(found["cosmos account"])
    assert "Networking" in found["cosmos account"]["todo"]


@pytest.mark.parametrize(("skew_s", "words"), [(3600.0, "60 minutes behind"), (-3600.0, "60 minutes ahead of")])
def test_a_clock_that_is_off_by_an_hour_is_said(run: Run, azure: AzureAccount, skew_s: float, words: str) -> None:
    azure.cosmos.clock.skew(skew_s)
    code, found = examine(run)
    assert (code, problems(found)) == (1, {"cosmos account"})
    assert f"This machine's clock is {words} Azure's" in said(found["cosmos account"])
    assert "timedatectl" in found["cosmos account"]["todo"]


def test_a_clock_that_is_on_its_way_to_being_refused_is_a_warning(run: Run, azure: AzureAccount) -> None:
    azure.cosmos.clock.skew(300.0)
    code, found = examine(run)
    assert (code, problems(found)) == (0, set())
    assert (found["clock"]["state"], "5 minutes behind" in said(found["clock"])) == ("warning", True)


def test_entra_id_without_any_credential_says_where_one_can_come_from(
    run: Run, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("AZURE_", "MSI_", "IDENTITY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("PARLEY_AZURE__COSMOS_ENDPOINT", "https://127.0.0.1:9/")
    monkeypatch.setenv("PARLEY_AZURE__BLOB_ENDPOINT", "https://127.0.0.1:9/devstoreaccount1")
    code, found = examine(run)
    assert (code, problems(found)) == (1, {"cosmos account", "blob storage"})
    for check in ("cosmos account", "blob storage"):
        assert "Entra ID gave no token" in said(found[check])
        assert "managed identity" in said(found[check])


def test_nothing_but_the_findings_is_printed_by_a_command_of_its_own(folder: Path) -> None:
    """The SDKs' own logs are to be seen only where no test runner takes them."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE_", "MSI_", "IDENTITY_"))}
    ours |= {
        "HOME": "/nonexistent",
        "PARLEY_STORE": "azure",
        "PARLEY_AZURE__COSMOS_ENDPOINT": "https://127.0.0.1:9/",
        "PARLEY_AZURE__BLOB_ENDPOINT": "https://127.0.0.1:9/devstoreaccount1",
        "PYTHONPATH": str(PROJECT_ROOT),
    }
    command = (sys.executable, "-m", "serve_app.cli", "store", "init", "--dry-run")
    ended = subprocess.run(command, env=ours, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("AZURE_COSMOS_KEY is not set, and Entra ID gave no token: ")
    assert ended.stderr.count("\n") == 1


def test_entra_id_is_not_used_unencrypted(run: Run, azure: AzureAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_COSMOS_KEY")
    code, found = examine(run)
    assert (code, problems(found)) == (1, {"cosmos account"})
    assert "must begin with https:// unless AZURE_COSMOS_KEY is set" in said(found["cosmos account"])


def test_a_service_that_is_away_for_now_is_said_to_be(run: Run, azure: AzureAccount) -> None:
    azure.cosmos.faults.add(operation="metadata", status=503)
    code, found = examine(run)
    assert code == 1
    assert problems(found) == {"cosmos account"}
    assert "busy or away (503)" in said(found["cosmos account"])
