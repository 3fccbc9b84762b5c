"""Who may use Parley: identities, the users they are, and the tenants those belong to."""

from __future__ import annotations

from msgspec import Struct

TENANTS_KIND = "tenant"
USERS_KIND = "user"
IDENTITIES_KIND = "identity"
"""Kinds of configuration records."""


class TenantRecord(Struct, frozen=True, kw_only=True):
    """Whom users belong to. Nobody of a ``disabled`` tenant gets in."""

    tenant_id: str
    name: str = ""
    disabled: bool = False


class UserRecord(Struct, frozen=True, kw_only=True):
    """A user of a tenant: an id is a user's within its tenant only. ``roles`` decide which tools and prompts are offered."""

    tenant_id: str
    user_id: str
    name: str = ""
    email: str = ""
    roles: tuple[str, ...] = ()
    disabled: bool = False


class IdentityRecord(Struct, frozen=True, kw_only=True):
    """What somebody proves to be (an issuer's name for them), and which user that is here."""

    identity_id: str
    tenant_id: str
    user_id: str
    disabled: bool = False
