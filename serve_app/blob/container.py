"""One container: every request under a deadline, tried again within a budget of time, failing in our own words.

All requests are safe to repeat: names are made by the server or by content, and conditions say what must not have changed.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.storage.blob import (
    BlobBlock,
    BlobProperties,
    BlobSasPermissions,
    ContentSettings,
    UserDelegationKey,
    generate_blob_sas,
)
from msgspec import Struct
from pydantic import SecretStr

from serve_app.blob.account import BlobAccount, open_account
from serve_app.blob.failures import FAILURES, asked_wait_s, failure_of, passes
from serve_app.errors import ConfigError, NotFound, ParleyError, TooLarge, UpstreamFailed
from serve_app.settings import AzureSettings

T = TypeVar("T")

LIST_PAGE = 1_000
DELETES_AT_ONCE = 8
FIRST_WAIT_S = 0.1
MAX_WAIT_S = 2.0
DELEGATION_SPARE_S = 3_600.0
"""How much longer than the address it signs a user delegation key is asked for, so that it serves many addresses."""


class BlobState(Struct, frozen=True, kw_only=True):
    """A blob without its content. ``etag`` is without quotes; ``metadata`` is as it was put; ``written_at`` is None of what was
    just written."""

    name: str
    size_bytes: int
    etag: str
    metadata: dict[str, str]
    written_at: datetime | None = None


class BlobHeaders(Struct, frozen=True, kw_only=True):
    """What the service says of a blob to whoever reads it at its own address."""

    content_type: str = "application/octet-stream"
    content_disposition: str | None = None
    cache_control: str | None = None


_PLAIN = BlobHeaders()


class BlobContainer:
    """Every method raises ParleyError only: NotFound, Conflict where a condition does not hold, Overloaded once
    ``azure.retry_s`` has passed in vain, UpstreamFailed (not retryable) for what somebody has to put right.
    """

    def __init__(self, account: BlobAccount, name: str, settings: AzureSettings) -> None:
        self.name = name
        self._account = account
        self._client = account.service.get_container_client(name)
        self._request_timeout_s = settings.request_timeout_s
        self._retry_s = settings.retry_s
        self._delegation: tuple[datetime, UserDelegationKey] | None = None

    @classmethod
    def open(cls, settings: AzureSettings, key: SecretStr | None, name: str) -> BlobContainer:
        """The container ``name`` of the account that the settings describe. Makes no request. Raises ConfigError."""
        return cls(open_account(settings, key), name, settings)

    async def close(self) -> None:
        await self._account.close()

    async def check(self) -> None:
        """Returns when the container can be read. Raises ConfigError for what somebody has to put right, Overloaded."""
        try:
            async for _ in self.blobs("", page=1, most=1):
                break
        except UpstreamFailed as error:
            raise ConfigError(error.message) from error

    async def create(self) -> bool:
        """Makes the container; False where it was there."""

        async def make() -> bool:
            try:
                await self._client.create_container()
            except ResourceExistsError:
                return False
            return True

        return await self._ask(make)

    async def put(
        self, name: str, data: bytes, *, headers: BlobHeaders = _PLAIN, metadata: Mapping[str, str] | None = None
    ) -> BlobState:
        """Writes a whole blob, in place of what is there. ``metadata`` values must be ASCII."""
        described: dict[str, Any] = {"content_settings": _settings(headers), "metadata": dict(metadata or {})}
        blob = self._client.get_blob_client(name)
        written = await self._ask(lambda: blob.upload_blob(data, overwrite=True, length=len(data), **described))
        return BlobState(name=name, size_bytes=len(data), etag=_bare(written["etag"]), metadata=dict(metadata or {}))

    async def put_block(self, name: str, number: int, data: bytes) -> None:
        """Part ``number`` (from 0) of a blob that ``commit`` makes. What is never committed is nowhere listed, and Azure
        removes it after a week.
        """
        blob = self._client.get_blob_client(name)
        await self._ask(lambda: blob.stage_block(_block_id(number), data, length=len(data)))

    async def commit(
        self,
        name: str,
        blocks: int,
        size_bytes: int,
        *,
        headers: BlobHeaders = _PLAIN,
        metadata: Mapping[str, str] | None = None,
    ) -> BlobState:
        """Makes a blob of its parts, at once or not at all."""
        described: dict[str, Any] = {"content_settings": _settings(headers), "metadata": dict(metadata or {})}
        blob = self._client.get_blob_client(name)
        listed = [BlobBlock(_block_id(number)) for number in range(blocks)]
        written = await self._ask(lambda: blob.commit_block_list(listed, **described))
        return BlobState(name=name, size_bytes=size_bytes, etag=_bare(written["etag"]), metadata=dict(metadata or {}))

    async def stat(self, name: str) -> BlobState:
        """Raises NotFound."""
        blob = self._client.get_blob_client(name)
        return _state(await self._ask(blob.get_blob_properties))

    async def read(self, name: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        """``length`` bytes (at least 1) from ``start``, fewer at the end of the blob. Raises NotFound, and Conflict where the
        blob is no longer the one of ``etag``.
        """
        condition: dict[str, Any] = {}
        if etag is not None:
            condition = {"etag": f'"{etag}"', "match_condition": MatchConditions.IfNotModified}
        blob = self._client.get_blob_client(name)

        async def fetch() -> bytes:
            stream = await blob.download_blob(offset=start, length=length, **condition)
            data: bytes = await stream.readall()
            return data

        return await self._ask(fetch)

    async def get(self, name: str, *, max_bytes: int) -> bytes:
        """A whole blob. Raises NotFound, and TooLarge beyond ``max_bytes``."""
        blob = self._client.get_blob_client(name)

        async def fetch() -> bytes:
            try:
                stream = await blob.download_blob(offset=0, length=max_bytes + 1)
            except HttpResponseError as error:
                if error.status_code == 416:
                    return b""  # an empty blob has no bytes that could be asked for
                raise
            data: bytes = await stream.readall()
            return data

        data = await self._ask(fetch)
        if len(data) > max_bytes:
            raise TooLarge(f"The blob is larger than {max_bytes} bytes.")
        return data

    async def blobs(self, prefix: str, *, page: int = LIST_PAGE, most: int | None = None) -> AsyncIterator[BlobState]:
        """Blobs whose names begin with ``prefix``, by name, in requests of ``page``; at most ``most``."""
        token: str | None = None
        seen = 0
        while True:

            async def next_page(after: str | None = token) -> tuple[str | None, list[BlobState]]:
                return await self._page(prefix, page, after)

            token, items = await self._ask(next_page)
            for item in items:
                yield item
                seen += 1
                if seen == most:
                    return
            if not token:
                return

    async def delete(self, name: str) -> bool:
        """False where there was none, or none any more: the answer to an earlier attempt may have been lost."""
        blob = self._client.get_blob_client(name)
        try:
            await self._ask(blob.delete_blob)
        except NotFound:
            return False
        return True

    async def delete_prefix(self, prefix: str, *, before: datetime | None = None) -> int:
        """Deletes every blob whose name begins with ``prefix``, or those of them that were last written ``before``; how many
        there were. Safe to repeat."""
        deleted = 0
        batch: list[str] = []
        async for blob in self.blobs(prefix):
            if before is not None and (blob.written_at is None or blob.written_at >= before):
                continue
            batch.append(blob.name)
            if len(batch) == DELETES_AT_ONCE:
                deleted += sum(await asyncio.gather(*map(self.delete, batch)))
                batch.clear()
        return deleted + sum(await asyncio.gather(*map(self.delete, batch)))

    async def signed_url(self, name: str, ttl_s: float, *, content_type: str, content_disposition: str) -> str:
        """An address at which anybody may read this one blob for ``ttl_s``, answered with these headers."""
        now = datetime.now(UTC)
        expiry = now + timedelta(seconds=ttl_s)
        key = self._account.key
        delegation = await self._delegation_until(expiry) if key is None else None
        blob = self._client.get_blob_client(name)
        signature = generate_blob_sas(
            self._account.name,
            self.name,
            name,
            account_key=key,
            user_delegation_key=delegation,
            permission=BlobSasPermissions(read=True),
            # A little in the past, because the service's clock is not this one.
            start=now - timedelta(minutes=5),
            expiry=expiry,
            protocol="https" if blob.url.startswith("https") else None,
            content_type=content_type,
            content_disposition=content_disposition,
        )
        return f"{blob.url}?{signature}"

    async def _delegation_until(self, expiry: datetime) -> UserDelegationKey:
        if self._delegation is None or self._delegation[0] < expiry:
            until = expiry + timedelta(seconds=DELEGATION_SPARE_S)
            begins = datetime.now(UTC) - timedelta(minutes=10)
            made = await self._ask(lambda: self._account.service.get_user_delegation_key(begins, until))
            self._delegation = (until, made)
        return self._delegation[1]

    async def _page(self, prefix: str, page: int, token: str | None) -> tuple[str | None, list[BlobState]]:
        listing = self._client.list_blobs(name_starts_with=prefix, include=["metadata"], results_per_page=page)
        pages = listing.by_page(token)
        items: list[BlobState] = []
        # Empty pages are possible; the token says whether more follow.
        with suppress(StopAsyncIteration):
            items = [_state(blob) async for blob in await anext(pages)]
        found: str | None = getattr(pages, "continuation_token", None)
        return found, items

    async def _ask(self, request: Callable[[], Awaitable[T]]) -> T:
        """One request, again after what passes by itself. Each attempt has its own deadline, all together one budget."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._retry_s
        wait_s = FIRST_WAIT_S
        while True:
            try:
                async with asyncio.timeout_at(min(loop.time() + self._request_timeout_s, give_up)):
                    return await request()
            except ParleyError:
                raise
            except FAILURES as error:
                pause_s = max(wait_s * random.uniform(0.5, 1.5), asked_wait_s(error))  # noqa: S311 - jitter, no secret
                if not passes(error) or loop.time() + pause_s >= give_up:
                    raise failure_of(error, self.name) from error
            await asyncio.sleep(pause_s)
            wait_s = min(wait_s * 2, MAX_WAIT_S)


def _state(properties: BlobProperties) -> BlobState:
    return BlobState(
        name=properties.name,
        size_bytes=properties.size,
        etag=_bare(properties.etag),
        metadata={name.lower(): value for name, value in (properties.metadata or {}).items()},
        written_at=properties.last_modified,
    )


def _settings(headers: BlobHeaders) -> ContentSettings:
    return ContentSettings(
        content_type=headers.content_type,
        content_disposition=headers.content_disposition,
        cache_control=headers.cache_control,
    )


def _bare(etag: object) -> str:
    return str(etag).strip('"')


def _block_id(number: int) -> str:
    return base64.b64encode(f"{number:08}".encode()).decode()
