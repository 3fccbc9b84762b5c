"""The containers of Blob Storage: one that the store and the files share, one of prompts where the settings name it. Whether
they are there, and making them.
"""

from __future__ import annotations

import asyncio

from serve_app.blob.account import open_account
from serve_app.blob.container import BlobContainer
from serve_app.blob.failures import FAILURES, failure_of
from serve_app.credentials import Secrets
from serve_app.settings import AzureSettings
from serve_app.storage.provision.plan import Step


def container_names(settings: AzureSettings) -> list[str]:
    """Without repetition: prompts may lie where the files do."""
    return list(dict.fromkeys(filter(None, (settings.blob_container, settings.prompts_container))))


async def plan_containers(settings: AzureSettings, secrets: Secrets) -> dict[str, Step]:
    """One step by each container's name. Changes nothing. Raises ParleyError, ConfigError among them."""
    steps: dict[str, Step] = {}
    account = open_account(settings, secrets.azure_storage_key)
    try:
        for name in container_names(settings):
            try:
                async with asyncio.timeout(settings.request_timeout_s):
                    there = await account.service.get_container_client(name).exists()
            except FAILURES as error:
                raise failure_of(error, name) from error
            steps[name] = Step(
                action="keep" if there else "create",
                name="blob container",
                detail=f"{name} at {settings.blob_endpoint}",
            )
    finally:
        await account.close()
    return steps


async def make_container(settings: AzureSettings, secrets: Secrets, name: str) -> None:
    """One that is there already is left as it is. Raises ParleyError."""
    container = BlobContainer.open(settings, secrets.azure_storage_key, name)
    try:
        await container.create()
    finally:
        await container.close()
