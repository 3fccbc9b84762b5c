"""Users, tenants and identities: records of the store, and a cache of those that every request asks for.

Keys in the cache: ``authz:user:{tenant}/{user}``, ``authz:tenant:{id}``, ``authz:identity:{id}``, each part quoted; a user's id
is only its own within its tenant, so the key has both. A save drops the entry for everybody who shares the cache; listings ask
the store. With a cache that is not shared, what another process saves is seen when the entry's time has passed; so is, at the
latest, what a replica saves that cannot reach a cache which others can. An entry that cannot be read, because another version of
this program has put it there, counts as nothing kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from serve_app.access.port import Saved
from serve_app.caching.entries import Entries
from serve_app.caching.port import Cache
from serve_app.domain.access import (
    IDENTITIES_KIND,
    SYSTEM_TENANT,
    TENANTS_KIND,
    USERS_KIND,
    IdentityRecord,
    TenantRecord,
    UserRecord,
)
from serve_app.domain.conversation import Page
from serve_app.domain.records import Record
from serve_app.storage.port import RecordStore

T = TypeVar("T", IdentityRecord, TenantRecord, UserRecord)
R = TypeVar("R")

_ENCODER = msgspec.json.Encoder()
_RECORD: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
_PACK = msgspec.msgpack.Encoder()


class AccessRecords:
    """Typed records over the Store port. Every ``get`` raises NotFound; every ``save`` Conflict where ``if_match`` (an etag, or
    an empty string where there must be nothing yet) does not hold.
    """

    def __init__(self, store: RecordStore, cache: Cache, *, ttl_s: float) -> None:
        self._store = store
        self._entries = Entries(cache, ttl_s)
        self._users = msgspec.json.Decoder(UserRecord)
        self._tenants = msgspec.json.Decoder(TenantRecord)
        self._identities = msgspec.json.Decoder(IdentityRecord)

    async def get_user(self, tenant_id: str, user_id: str) -> Saved[UserRecord]:
        return _saved(self._users, await self._get(tenant_id, USERS_KIND, user_id))

    async def get_tenant(self, tenant_id: str) -> Saved[TenantRecord]:
        return _saved(self._tenants, await self._get(SYSTEM_TENANT, TENANTS_KIND, tenant_id))

    async def get_identity(self, identity_id: str) -> Saved[IdentityRecord]:
        return _saved(self._identities, await self._get(SYSTEM_TENANT, IDENTITIES_KIND, identity_id))

    async def save_user(self, user: UserRecord, *, if_match: str | None = None) -> Saved[UserRecord]:
        return Saved(user, (await self._save(user.tenant_id, USERS_KIND, user.user_id, user, if_match)).etag)

    async def save_tenant(self, tenant: TenantRecord, *, if_match: str | None = None) -> Saved[TenantRecord]:
        return Saved(tenant, (await self._save(SYSTEM_TENANT, TENANTS_KIND, tenant.tenant_id, tenant, if_match)).etag)

    async def save_identity(self, identity: IdentityRecord, *, if_match: str | None = None) -> Saved[IdentityRecord]:
        saved = await self._save(SYSTEM_TENANT, IDENTITIES_KIND, identity.identity_id, identity, if_match)
        return Saved(identity, saved.etag)

    async def delete_user(self, tenant_id: str, user_id: str) -> None:
        """Raises NotFound, as every delete does."""
        await self._delete(tenant_id, USERS_KIND, user_id)

    async def delete_tenant(self, tenant_id: str) -> None:
        """The tenant's record only; its users stay."""
        await self._delete(SYSTEM_TENANT, TENANTS_KIND, tenant_id)

    async def delete_identity(self, identity_id: str) -> None:
        await self._delete(SYSTEM_TENANT, IDENTITIES_KIND, identity_id)

    async def list_users(
        self, tenant_id: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Saved[UserRecord]]:
        """By id, as the store has them now."""
        page = await self._store.list_records(tenant_id, USERS_KIND, cursor=cursor, limit=limit)
        return Page(items=tuple(_saved(self._users, record) for record in page.items), next_cursor=page.next_cursor)

    async def list_tenants(self, *, cursor: str | None = None, limit: int = 50) -> Page[Saved[TenantRecord]]:
        """By id, as the store has them now."""
        page = await self._store.list_records(SYSTEM_TENANT, TENANTS_KIND, cursor=cursor, limit=limit)
        return Page(items=tuple(_saved(self._tenants, record) for record in page.items), next_cursor=page.next_cursor)

    async def _get(self, tenant_id: str, kind: str, record_id: str) -> Record:
        key = record_key(tenant_id, kind, record_id)
        reading = await self._entries.read(key)
        lease = reading.lease
        if reading.value is not None:
            try:
                return _RECORD.decode(reading.value)
            except (msgspec.DecodeError, UnicodeDecodeError):
                lease = await self._entries.lease(key, instead_of=reading.version)
        packed = None
        try:
            record = await self._store.get_record(tenant_id, kind, record_id)
            packed = _PACK.encode(record)
        finally:
            # What is missing is not kept: it may be made the next moment, by whoever provisions users.
            if lease is not None:
                await self._entries.fill(key, lease, packed)
        return record

    async def _save(self, tenant_id: str, kind: str, record_id: str, value: Struct, if_match: str | None) -> Record:
        body = _ENCODER.encode(value)
        return await self._dropping(
            record_key(tenant_id, kind, record_id),
            lambda: self._store.save_record(tenant_id, kind, record_id, body, if_match=if_match),
        )

    async def _delete(self, tenant_id: str, kind: str, record_id: str) -> None:
        await self._dropping(
            record_key(tenant_id, kind, record_id), lambda: self._store.delete_record(tenant_id, kind, record_id)
        )

    async def _dropping(self, key: str, write: Callable[[], Awaitable[R]]) -> R:
        change = await self._entries.change(key)
        try:
            written = await write()
        except BaseException as error:
            await change.fail(error)
            raise
        await change.settle(None)
        return written


def record_key(tenant_id: str, kind: str, record_id: str) -> str:
    """Parts are quoted, so that no id reaches into another key."""
    of_tenant = f"{quote(tenant_id, safe='')}/" if tenant_id != SYSTEM_TENANT else ""
    return f"authz:{kind}:{of_tenant}{quote(record_id, safe='')}"


def _saved(decoder: msgspec.json.Decoder[T], record: Record) -> Saved[T]:
    return Saved(decoder.decode(record.body), record.etag)
