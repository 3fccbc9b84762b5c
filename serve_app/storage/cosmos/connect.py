"""Opens the store that settings and secrets name: its credentials, the database, and Blob Storage for large bodies."""

from __future__ import annotations

from azure.core.credentials_async import AsyncTokenCredential

from serve_app.blob.container import BlobContainer
from serve_app.credentials import Secrets
from serve_app.settings import Settings
from serve_app.storage.cosmos.bodies import BlobBodies
from serve_app.storage.cosmos.charges import OnCharge
from serve_app.storage.cosmos.store import CosmosStore


async def open_store(settings: Settings, secrets: Secrets, on_charge: OnCharge | None = None) -> CosmosStore:
    """The store of ``settings.azure``. With keys where there are any, else as this machine's Entra identity.

    Nothing is asked of Azure yet. Raises ConfigError with a sentence that names the setting.
    """
    azure = settings.azure
    bodies = BlobBodies(BlobContainer.open(azure, secrets.azure_storage_key, azure.blob_container))
    identity = _identity() if secrets.azure_cosmos_key is None else None
    key = "" if secrets.azure_cosmos_key is None else secrets.azure_cosmos_key.get_secret_value()
    try:
        store = await CosmosStore.open(
            azure,
            identity or key,
            bodies,
            limits=settings.store_limits,
            usage=settings.usage,
            data_dir=settings.path(settings.data_dir),
            on_charge=on_charge,
        )
    except BaseException:
        await bodies.close()
        if identity is not None:
            await identity.close()
        raise
    if identity is not None:
        store.close_with_it(identity.close)
    return store


def _identity() -> AsyncTokenCredential:
    # Imported where it is needed: it takes a while, and who has a key never does.
    from azure.identity.aio import DefaultAzureCredential

    return DefaultAzureCredential()
