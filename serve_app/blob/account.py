"""Opening the account: its endpoint, and who this program is there (a key, or Entra ID)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import urlsplit

from azure.core.credentials_async import AsyncTokenCredential
from azure.storage.blob.aio import BlobServiceClient, ExponentialRetry
from pydantic import SecretStr

from serve_app.errors import ConfigError
from serve_app.settings import AzureSettings


@dataclass(frozen=True)
class BlobAccount:
    """``key`` is None with Entra ID, whose credential is closed with the account."""

    name: str
    key: str | None
    service: BlobServiceClient
    credential: AsyncTokenCredential | None

    async def close(self) -> None:
        await self.service.close()
        if self.credential is not None:
            await self.credential.close()


def open_account(settings: AzureSettings, key: SecretStr | None) -> BlobAccount:
    """Makes no request. Raises ConfigError for settings that cannot work."""
    endpoint = settings.blob_endpoint
    if endpoint is None:
        raise ConfigError("Setting PARLEY_AZURE__BLOB_ENDPOINT is needed: https://<account>.blob.core.windows.net.")
    name = _account_name(endpoint)
    if key is None and not endpoint.startswith("https://"):
        raise ConfigError(
            "Setting PARLEY_AZURE__BLOB_ENDPOINT must begin with https:// unless AZURE_STORAGE_KEY is set."
        )
    credential = _identity() if key is None else None
    service = BlobServiceClient(
        endpoint,
        credential or {"account_name": name, "account_key": _checked(key)},
        # Tried again here, within one budget of time; the SDK's own retries know of no such thing.
        retry_policy=ExponentialRetry(initial_backoff=0, increment_base=0, retry_total=0),
        connection_timeout=settings.request_timeout_s,
        read_timeout=settings.request_timeout_s,
        max_single_put_size=64 * 1024 * 1024,
    )
    return BlobAccount(name=name, key=key.get_secret_value() if key else None, service=service, credential=credential)


def _identity() -> AsyncTokenCredential:
    # Imported where it is needed: it takes a while, and who has a key never does.
    from azure.identity.aio import DefaultAzureCredential

    return DefaultAzureCredential()


def _account_name(endpoint: str) -> str:
    """The first label of the host, or of the path where the host is an emulator's."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    name = host.partition(".")[0] if ".blob." in host else parts.path.strip("/").partition("/")[0]
    if parts.scheme not in {"http", "https"} or not name:
        raise ConfigError(
            f"Setting PARLEY_AZURE__BLOB_ENDPOINT cannot be used (it is {endpoint!r}): give the account's own address, "
            "https://<account>.blob.core.windows.net."
        )
    return name


def _checked(key: SecretStr | None) -> str:
    value = key.get_secret_value() if key is not None else ""
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError("AZURE_STORAGE_KEY is not a storage account's key: it must be base64.") from None
    return value
