"""All that administration keeps: the cached records, and beside them what is asked for too rarely to be kept."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from serve_app.access.port import Saved
from serve_app.access.records import AccessRecords
from serve_app.caching.port import Cache
from serve_app.domain.access import (
    AUDIT_KIND,
    PROVIDER_KEYS_KIND,
    PROVISIONING_KIND,
    AuditEntry,
    ProviderKeyRecord,
    ProvisioningRecord,
)
from serve_app.domain.conversation import Page
from serve_app.domain.records import Record
from serve_app.storage.port import RecordStore

K = TypeVar("K", ProvisioningRecord, ProviderKeyRecord)

_ENCODER = msgspec.json.Encoder()
_PROVISIONING = msgspec.json.Decoder(ProvisioningRecord)
_PROVIDER_KEY = msgspec.json.Decoder(ProviderKeyRecord)
_AUDIT = msgspec.json.Decoder(AuditEntry)

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MIRRORED = str.maketrans(_CROCKFORD, _CROCKFORD[::-1])


class StoredDirectory(AccessRecords):
    """The ``Directory`` over the store's records."""

    def __init__(self, store: RecordStore, cache: Cache, *, ttl_s: float) -> None:
        super().__init__(store, cache, ttl_s=ttl_s)
        self._records = store

    async def get_provisioning(self, tenant_id: str, record_id: str) -> Saved[ProvisioningRecord]:
        return _saved(_PROVISIONING, await self._records.get_record(tenant_id, PROVISIONING_KIND, record_id))

    async def save_provisioning(
        self, record: ProvisioningRecord, *, if_match: str | None = None
    ) -> Saved[ProvisioningRecord]:
        return Saved(record, await self._write(record.tenant_id, PROVISIONING_KIND, record.record_id, record, if_match))

    async def delete_provisioning(self, tenant_id: str, record_id: str) -> None:
        await self._records.delete_record(tenant_id, PROVISIONING_KIND, record_id)

    async def list_provisioning(
        self, tenant_id: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Saved[ProvisioningRecord]]:
        page = await self._records.list_records(tenant_id, PROVISIONING_KIND, cursor=cursor, limit=limit)
        return _page(_PROVISIONING, page)

    async def get_provider_key(self, tenant_id: str, provider: str) -> Saved[ProviderKeyRecord]:
        return _saved(_PROVIDER_KEY, await self._records.get_record(tenant_id, PROVIDER_KEYS_KIND, provider))

    async def save_provider_key(
        self, key: ProviderKeyRecord, *, if_match: str | None = None
    ) -> Saved[ProviderKeyRecord]:
        return Saved(key, await self._write(key.tenant_id, PROVIDER_KEYS_KIND, key.provider, key, if_match))

    async def delete_provider_key(self, tenant_id: str, provider: str) -> None:
        await self._records.delete_record(tenant_id, PROVIDER_KEYS_KIND, provider)

    async def list_provider_keys(
        self, tenant_id: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Saved[ProviderKeyRecord]]:
        page = await self._records.list_records(tenant_id, PROVIDER_KEYS_KIND, cursor=cursor, limit=limit)
        return _page(_PROVIDER_KEY, page)

    async def save_audit(self, entry: AuditEntry) -> None:
        # Listings are by id, lowest first, and the newest entries are wanted first: so the id is mirrored.
        await self._write(entry.tenant_id, AUDIT_KIND, entry.entry_id.translate(_MIRRORED), entry, None)

    async def list_audit(self, tenant_id: str, *, cursor: str | None = None, limit: int = 50) -> Page[AuditEntry]:
        page = await self._records.list_records(tenant_id, AUDIT_KIND, cursor=cursor, limit=limit)
        return Page(items=tuple(_AUDIT.decode(record.body) for record in page.items), next_cursor=page.next_cursor)

    async def _write(self, tenant_id: str, kind: str, record_id: str, value: Struct, if_match: str | None) -> str:
        saved = await self._records.save_record(tenant_id, kind, record_id, _ENCODER.encode(value), if_match=if_match)
        return saved.etag


def _saved(decoder: msgspec.json.Decoder[K], record: Record) -> Saved[K]:
    return Saved(decoder.decode(record.body), record.etag)


def _page(decoder: msgspec.json.Decoder[K], page: Page[Record]) -> Page[Saved[K]]:
    return Page(items=tuple(_saved(decoder, record) for record in page.items), next_cursor=page.next_cursor)
