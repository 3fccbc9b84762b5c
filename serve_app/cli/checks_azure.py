"""Checks of the store on Azure: the Cosmos DB account, its database and containers, and the Blob containers. Read-only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from serve_app.cli.findings import Finding, ok, problem, warning
from serve_app.credentials import Secrets
from serve_app.errors import ParleyError
from serve_app.settings import AzureSettings, Settings

if TYPE_CHECKING:
    from serve_app.storage.provision.plan import Step

CLOCK_WARNING_S = 120.0
"""A clock this far off still works, but is on its way to where Azure refuses it."""
PATIENCE_S = 5.0
"""How long an account that does not answer is tried again."""


def check_azure(settings: Settings, secrets: Secrets) -> list[Finding]:
    """What keeps the store from working, as far as its account tells. Changes nothing."""
    from serve_app.storage.provision.diagnosis import quiet_sdks

    quiet_sdks()
    azure = settings.azure
    impatient = azure.model_copy(
        update={
            "request_timeout_s": min(azure.request_timeout_s, PATIENCE_S),
            "retry_s": min(azure.retry_s, PATIENCE_S),
        }
    )
    return asyncio.run(_check(impatient, secrets))


async def _check(azure: AzureSettings, secrets: Secrets) -> list[Finding]:
    cosmos, blob = await asyncio.gather(_check_cosmos(azure, secrets), _check_blob(azure, secrets))
    return [*cosmos, blob]


async def _check_cosmos(azure: AzureSettings, secrets: Secrets) -> list[Finding]:
    from serve_app.storage.provision.account import AccountError, open_account
    from serve_app.storage.provision.diagnosis import CLOCK_LIMIT_S, clock_finding

    who = (
        "with AZURE_COSMOS_KEY" if secrets.azure_cosmos_key is not None else "as whoever Entra ID says this machine is"
    )
    findings: list[Finding] = []
    try:
        async with open_account(azure, secrets) as account:
            off_s = await account.connect()
            if abs(off_s) > CLOCK_LIMIT_S:
                found = clock_finding(off_s)
                return [problem("cosmos account", found.message, found.todo)]
            findings.append(ok("cosmos account", f"{azure.cosmos_endpoint} lets us in {who}."))
            if abs(off_s) > CLOCK_WARNING_S:
                found = clock_finding(off_s)
                findings.append(warning("clock", found.message, found.todo))
            findings += _of_plan(await account.plan(), azure)
    except AccountError as error:
        found = error.diagnosis
        check = "cosmos database" if findings else "cosmos account"
        findings.append(problem(check, found.message, found.todo))
    except ParleyError as error:
        findings.append(problem("cosmos account", error.message))
    return findings


def _of_plan(steps: list[Step], azure: AzureSettings) -> list[Finding]:
    """One finding: the database is as it has to be, or what is missing first."""
    check, name = "cosmos database", azure.cosmos_database
    init = "Run `parley store init`; with --dry-run it says what it would change."
    if any(step.name == "database" and step.action == "create" for step in steps):
        return [problem(check, f"There is no database {name} at {azure.cosmos_endpoint}.", "Run `parley store init`.")]
    missing = [step.name for step in steps if step.action == "create"]
    if missing:
        return [
            problem(check, f"The database {name} has no container {', '.join(missing)}.", "Run `parley store init`.")
        ]
    stuck = [step for step in steps if step.action == "stuck" and step.name != "throughput"]
    if stuck:
        return [problem(check, f"Container {step.name}: {step.detail}.") for step in stuck[:1]]
    differ = [step for step in steps if step.action in ("change", "stuck")]
    if any(step.name != "throughput" for step in differ):
        # Without its indexes a query reads whole partitions, and is refused nothing: it only costs.
        named = ", ".join(step.name for step in differ)
        return [warning(check, f"The database {name} is not as it should be: {named}.", init)]
    if differ:
        return [
            warning(
                check, f"Throughput of {name} is not what PARLEY_AZURE__COSMOS_MAX_RUS says: {differ[0].detail}.", init
            )
        ]
    bought = next((step.detail for step in steps if step.name == "throughput"), "")
    return [ok(check, f"{name} has all its containers; throughput: {bought}.")]


async def _check_blob(azure: AzureSettings, secrets: Secrets) -> Finding:
    from serve_app.storage.provision.blob import plan_containers

    check = "blob storage"
    try:
        found = await plan_containers(azure, secrets)
    except ParleyError as error:
        todo = (
            f"See PARLEY_AZURE__BLOB_ENDPOINT ({azure.blob_endpoint}) and this machine's network."
            if error.retryable
            else ""
        )
        return problem(check, error.message, todo)
    missing = [name for name, step in found.items() if step.action == "create"]
    if missing:
        return problem(
            check, f"There is no container {', '.join(missing)} at {azure.blob_endpoint}.", "Run `parley store init`."
        )
    return ok(check, f"{azure.blob_endpoint} has the container {', '.join(found)}.")
