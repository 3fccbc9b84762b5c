"""Access: what others ask of it, and the records it is told from.

identity ─► ``Access`` ─► principal with its terms          administration ─► ``Directory`` ─► records of the store

Both live beside the store (``deployments.store``), once for all who ask: what is saved is seen by the next request, whoever
serves it. Where several Store replicas run they share a Redis, or ask the store each time.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from serve_app.domain.access import (
    AuditEntry,
    IdentityRecord,
    ProviderKeyRecord,
    ProvisioningRecord,
    TenantRecord,
    UserRecord,
)
from serve_app.domain.conversation import Page
from serve_app.domain.identity import Identity, Principal

T = TypeVar("T")


class Saved(Struct, Generic[T], frozen=True):
    """A record as the store has it. ``etag`` is for a save that must not overwrite another's."""

    value: T
    etag: str


class Access(Protocol):
    """From a proven identity to a user of a tenant."""

    async def resolve(self, identity: Identity) -> Principal:
        """The user that the identity is, with roles and terms as they are now.

        Somebody unknown whom a provisioning record of the tenant means becomes a user. Raises NotPermitted for everybody else:
        not known, removed, disabled, or of a tenant that is.
        """


class Directory(Protocol):
    """Typed records. Every ``get`` and ``delete`` raises NotFound; every ``save`` Conflict where ``if_match`` (an etag, or an
    empty string where there must be nothing yet) does not hold. Listings are by id, as the store has them now, and raise
    InvalidInput for a cursor of another listing.
    """

    async def get_tenant(self, tenant_id: str) -> Saved[TenantRecord]: ...
    async def save_tenant(self, tenant: TenantRecord, *, if_match: str | None = None) -> Saved[TenantRecord]: ...
    async def delete_tenant(self, tenant_id: str) -> None:
        """The tenant's record only; its users stay."""

    async def list_tenants(self, *, cursor: str | None = None, limit: int = 50) -> Page[Saved[TenantRecord]]: ...

    async def get_user(self, tenant_id: str, user_id: str) -> Saved[UserRecord]: ...
    async def save_user(self, user: UserRecord, *, if_match: str | None = None) -> Saved[UserRecord]: ...
    async def delete_user(self, tenant_id: str, user_id: str) -> None: ...
    async def list_users(
        self, tenant_id: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Saved[UserRecord]]: ...

    async def get_identity(self, identity_id: str) -> Saved[IdentityRecord]: ...
    async def save_identity(
        self, identity: IdentityRecord, *, if_match: str | None = None
    ) -> Saved[IdentityRecord]: ...
    async def delete_identity(self, identity_id: str) -> None: ...

    async def get_provisioning(self, tenant_id: str, record_id: str) -> Saved[ProvisioningRecord]: ...
    async def save_provisioning(
        self, record: ProvisioningRecord, *, if_match: str | None = None
    ) -> Saved[ProvisioningRecord]: ...
    async def delete_provisioning(self, tenant_id: str, record_id: str) -> None: ...
    async def list_provisioning(
        self, tenant_id: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Saved[ProvisioningRecord]]: ...

    async def get_provider_key(self, tenant_id: str, provider: str) -> Saved[ProviderKeyRecord]: ...
    async def save_provider_key(
        self, key: ProviderKeyRecord, *, if_match: str | None = None
    ) -> Saved[ProviderKeyRecord]: ...
    async def delete_provider_key(self, tenant_id: str, provider: str) -> None: ...
    async def list_provider_keys(
        self, tenant_id: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Saved[ProviderKeyRecord]]: ...

    async def save_audit(self, entry: AuditEntry) -> None:
        """Writes the entry in place of what there is under its id."""

    async def list_audit(self, tenant_id: str, *, cursor: str | None = None, limit: int = 50) -> Page[AuditEntry]:
        """Newest first."""
