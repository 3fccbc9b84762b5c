"""Small configuration records: what is known of users, tenants and identities."""

from __future__ import annotations

from msgspec import Struct


class Record(Struct, frozen=True, kw_only=True):
    """One record of a tenant; ``body`` is JSON that only its kind's owner reads. ``etag`` changes with every save."""

    tenant_id: str
    kind: str
    record_id: str
    body: bytes
    etag: str = ""
