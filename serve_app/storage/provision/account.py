"""A Cosmos DB account as ``parley store init`` and ``parley doctor`` use it: read as it is, changed step by step.

Apart from the store's own connection, because it goes on where that one gives up: it looks at what is missing or wrong.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.cosmos import PartitionKey, ThroughputProperties
from azure.cosmos.aio import CosmosClient, DatabaseProxy
from azure.identity.aio import DefaultAzureCredential
from msgspec.structs import replace

from serve_app.credentials import Secrets
from serve_app.errors import ConfigError, Overloaded
from serve_app.http_date import clock_off_s
from serve_app.settings import AzureSettings
from serve_app.storage.cosmos.client import new_client
from serve_app.storage.cosmos.layout import CONTAINERS, Container
from serve_app.storage.provision.diagnosis import ERRORS, Diagnosis, diagnose, no_token
from serve_app.storage.provision.plan import FoundAccount, FoundContainer, Step, plan

T = TypeVar("T")

TOKEN_S = 30.0
"""How long Entra ID may take: it looks in several places, one after the other."""
CHANGE_S = 60.0
"""How long one change may take: making a container takes the service some seconds."""


class AccountError(Exception):
    """A refusal, or no answer at all. ``diagnosis`` says so in words."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.message)
        self.diagnosis = diagnosis

    def as_parley_error(self) -> ConfigError | Overloaded:
        """For commands: one sentence or two."""
        said = f"{self.diagnosis.message} {self.diagnosis.todo}".rstrip()
        return Overloaded(said) if self.diagnosis.passing else ConfigError(said)


class CosmosAccount:
    """Made by :func:`open_account`. Every method raises AccountError."""

    def __init__(self, client: CosmosClient, settings: AzureSettings, credential: AsyncTokenCredential | None) -> None:
        self._client = client
        self._settings = settings
        self._credential = credential

    @property
    def _database(self) -> DatabaseProxy:
        return self._client.get_database_client(self._settings.cosmos_database)

    async def connect(self) -> float:
        """Asks the account about itself; how far this machine's clock is ahead of its, in seconds."""
        if self._credential is not None:
            await self._get_token(self._credential)
        await self._ask(self._client.__aenter__, self._settings.request_timeout_s)
        headers: Any = self._client.client_connection.last_response_headers
        return clock_off_s(headers or {}, time.time()) or 0.0

    async def _get_token(self, credential: AsyncTokenCredential) -> None:
        """Apart from the first request, so that no token and no answer are told apart."""
        account = urlsplit(str(self._settings.cosmos_endpoint))
        try:
            async with asyncio.timeout(TOKEN_S):
                await credential.get_token(f"{account.scheme}://{account.hostname}/.default")
        except (ClientAuthenticationError, TimeoutError) as error:
            raise AccountError(no_token(error)) from error

    async def plan(self) -> list[Step]:
        """What there is, against the layout. Changes nothing."""
        return plan(await self._find(), max_rus=self._settings.cosmos_max_rus)

    async def apply(self, step: Step) -> None:
        """Makes one step of a plan; a step that another one has made meanwhile is well, too."""
        if step.action in ("keep", "stuck"):
            return
        if step.name == "database":
            rus = self._settings.cosmos_max_rus
            offer: dict[str, Any] = (
                {"offer_throughput": ThroughputProperties(auto_scale_max_throughput=rus)} if rus else {}
            )
            await self._make(lambda: self._client.create_database(self._settings.cosmos_database, **offer))
        elif step.name == "throughput":
            if step.action == "change":
                wanted = ThroughputProperties(auto_scale_max_throughput=self._settings.cosmos_max_rus)
                await self._ask(lambda: self._database.replace_throughput(wanted), CHANGE_S)
        else:
            container = next(one for one in CONTAINERS if one.name == step.name)
            if step.action == "create":
                await self._make(lambda: self._create(container))
            else:
                await self._ask(lambda: self._replace(container), CHANGE_S)

    async def _create(self, container: Container) -> None:
        await self._database.create_container(
            container.name,
            PartitionKey(path=list(container.key), kind="MultiHash"),
            indexing_policy=container.indexing_policy,
            default_ttl=container.default_ttl,
        )

    async def _replace(self, container: Container) -> None:
        await self._database.replace_container(
            container.name,
            PartitionKey(path=list(container.key), kind="MultiHash"),
            indexing_policy=container.indexing_policy,
            default_ttl=container.default_ttl,
        )

    async def _find(self) -> FoundAccount:
        if await self._look(self._database.read) is None:
            return FoundAccount(database=False)
        bought = await self._throughput()
        containers = []
        for container in CONTAINERS:
            properties = await self._look(self._database.get_container_client(container.name).read)
            if properties is not None:
                containers.append(FoundContainer.of(properties))
        return replace(bought, containers=tuple(containers))

    async def _throughput(self) -> FoundAccount:
        """What the database is bought at: nothing for one without throughput of its own, or of a serverless account."""

        async def read() -> FoundAccount:
            try:
                found = await self._database.get_throughput()
            except AttributeError:
                return FoundAccount(database=True)  # what the SDK makes of an answer without any
            except HttpResponseError as error:
                if error.status_code == 404 or (error.status_code == 400 and "serverless" in str(error)):
                    return FoundAccount(database=True)
                if error.status_code == 403 and self._credential is not None:
                    return FoundAccount(database=True, throughput_shown=False)  # no role of Entra ID includes it
                raise
            if found.auto_scale_max_throughput:
                return FoundAccount(database=True, autoscale_rus=int(found.auto_scale_max_throughput))
            return FoundAccount(database=True, manual_rus=int(found.offer_throughput or 0))

        return await self._ask(read, self._settings.request_timeout_s)

    async def _look(self, read: Callable[[], Awaitable[Any]]) -> Any:
        """What is there, or None."""

        async def found() -> Any:
            try:
                return await read()
            except HttpResponseError as error:
                if error.status_code == 404:
                    return None
                raise

        return await self._ask(found, self._settings.request_timeout_s)

    async def _make(self, create: Callable[[], Awaitable[Any]]) -> None:
        async def made() -> None:
            try:
                await create()
            except HttpResponseError as error:
                if error.status_code != 409:
                    raise

        await self._ask(made, CHANGE_S)

    async def _ask(self, call: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await call()
        except ERRORS as error:
            found = diagnose(
                error,
                endpoint=str(self._settings.cosmos_endpoint),
                database=self._settings.cosmos_database,
                by_key=self._credential is None,
                now=time.time(),
            )
            raise AccountError(found) from error


@asynccontextmanager
async def open_account(settings: AzureSettings, secrets: Secrets) -> AsyncIterator[CosmosAccount]:
    """The account that the settings name; asks nobody yet. Raises ConfigError for settings that cannot work."""
    endpoint = settings.cosmos_endpoint
    if endpoint is None:
        raise ConfigError(
            "Setting PARLEY_AZURE__COSMOS_ENDPOINT is needed: https://<account>.documents.azure.com:443/."
        )
    if not endpoint.startswith(("https://", "http://")):
        raise ConfigError(
            f"Setting PARLEY_AZURE__COSMOS_ENDPOINT cannot be used (it is {endpoint!r}): give the account's address, "
            "https://<account>.documents.azure.com:443/."
        )
    if secrets.azure_cosmos_key is None and not endpoint.startswith("https://"):
        raise ConfigError(
            "Setting PARLEY_AZURE__COSMOS_ENDPOINT must begin with https:// unless AZURE_COSMOS_KEY is set: Entra ID's tokens "
            "are not sent unencrypted."
        )
    rus = settings.cosmos_max_rus
    if rus and (rus < 1000 or rus % 1000):
        raise ConfigError(
            f"Setting PARLEY_AZURE__COSMOS_MAX_RUS cannot be used (it is {rus}): autoscale goes by thousands, from 1000; 0 is "
            "for a serverless account."
        )
    credential = None if secrets.azure_cosmos_key is not None else DefaultAzureCredential()
    key = "" if secrets.azure_cosmos_key is None else secrets.azure_cosmos_key.get_secret_value()
    try:
        base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError(
            "AZURE_COSMOS_KEY is not a key of Cosmos DB: it must be base64, as the portal shows it under Keys."
        ) from None
    client = new_client(endpoint, credential or key, request_timeout_s=settings.request_timeout_s)
    try:
        yield CosmosAccount(client, settings, credential)
    finally:
        await client.close()
        if credential is not None:
            await credential.close()
