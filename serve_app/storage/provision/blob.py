"""The container of Blob Storage that the store and the files share: whether it is there, and making it."""

from __future__ import annotations

import asyncio

from serve_app.blob.account import open_account
from serve_app.blob.container import BlobContainer
from serve_app.blob.failures import FAILURES, failure_of
from serve_app.settings import AzureSettings, Secrets
from serve_app.storage.provision.plan import Step


async def plan_container(settings: AzureSettings, secrets: Secrets) -> Step:
    """Changes nothing. Raises ParleyError, ConfigError among them."""
    name = settings.blob_container
    account = open_account(settings, secrets.azure_storage_key)
    try:
        async with asyncio.timeout(settings.request_timeout_s):
            there = await account.service.get_container_client(name).exists()
    except FAILURES as error:
        raise failure_of(error, name) from error
    finally:
        await account.close()
    return Step(
        action="keep" if there else "create", name="blob container", detail=f"{name} at {settings.blob_endpoint}"
    )


async def make_container(settings: AzureSettings, secrets: Secrets) -> None:
    """One that is there already is left as it is. Raises ParleyError."""
    container = BlobContainer.open(settings, secrets.azure_storage_key, settings.blob_container)
    try:
        await container.create()
    finally:
        await container.close()
