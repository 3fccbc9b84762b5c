"""Who may use Parley: identities, the users they are, the tenants those belong to, and what has been done about them.

identity ─► user ─► tenant          provisioning record ─once─► user          every change ─► audit entry
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from serve_app.domain.identity import Limits, TurnChoices

TENANTS_KIND = "tenant"
USERS_KIND = "user"
IDENTITIES_KIND = "identity"
PROVISIONING_KIND = "provisioning"
PROVIDER_KEYS_KIND = "provider_key"
AUDIT_KIND = "audit"
"""Kinds of configuration records."""

SYSTEM_TENANT = ""
"""Whose records tenants and identities are: they have to be found before anybody's tenant is known."""

TENANT_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
USER_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}")
ROLE = re.compile(r"[a-z0-9_.-]{1,64}")
TOOL_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
MAX_ROLES = 16
MAX_TOOLS = 256
MAX_IDENTITIES = 16
"""Most of each that one record may have."""

ProvisioningMatch = Literal["subject", "email", "domain"]


class TenantRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whom users belong to. Its id is the one that tokens name it by. Nobody of a ``disabled`` tenant gets in.

    ``default_tools``: what its users may use of what their roles open, None for all of it; ``denied_tools``: what none of
    them may, whatever else is said. ``user_limits`` are each user's, ``tenant_limits`` those of all together.
    ``roles_from_token``: whether roles that a token carries count beside those of the user's record.
    """

    tenant_id: str
    name: str = ""
    disabled: bool = False
    default_tools: tuple[str, ...] | None = None
    denied_tools: tuple[str, ...] = ()
    choices: TurnChoices = TurnChoices()
    user_limits: Limits = Limits()
    tenant_limits: Limits = Limits()
    roles_from_token: bool = True


class UserRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A user of a tenant: an id is a user's within its tenant only. ``roles`` decide which tools and prompts are offered.

    ``allowed_tools`` are added to the tenant's ``default_tools``; ``denied_tools`` are taken away. ``limits`` take the place of
    the tenant's ``user_limits``, each where it is set. ``identities``: ids of the identities that are this user; one that is
    not among them is nobody, whatever its own record says.
    """

    tenant_id: str
    user_id: str
    name: str = ""
    email: str = ""
    roles: tuple[str, ...] = ()
    disabled: bool = False
    allowed_tools: tuple[str, ...] = ()
    denied_tools: tuple[str, ...] = ()
    limits: Limits = Limits()
    identities: tuple[str, ...] = ()


class IdentityRecord(Struct, frozen=True, kw_only=True):
    """What somebody proves to be (an issuer's name for them), and which user that is here."""

    identity_id: str
    tenant_id: str
    user_id: str
    disabled: bool = False


class ProvisioningRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who of a tenant becomes a user by asking for the first time, and with which roles.

    ``subject`` and ``email`` mean one person and are used up by the first who asks (``used_by`` is the identity's id);
    ``domain`` means everybody whose e-mail address is of it, and stays. ``expires_at`` is in Unix seconds.
    """

    tenant_id: str
    match: ProvisioningMatch
    value: str
    roles: tuple[str, ...] = ()
    expires_at: float | None = None
    used_by: str = ""

    @property
    def record_id(self) -> str:
        return provisioning_id(self.match, self.value)


class ProviderKeyRecord(Struct, frozen=True, kw_only=True):
    """A tenant's key for a model provider. ``sealed`` is the encrypted key, ``last_four`` all of it that is ever shown.
    ``origin`` is where the provider was when it was set: it is sent to nobody else.
    """

    tenant_id: str
    provider: str
    origin: str = ""
    sealed: str
    last_four: str
    changed_at: datetime


class AuditEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change that somebody asked for. Written as ``begun`` before it is made, so that none is made unseen: an entry that
    stays so is a change whose outcome nobody has told.

    ``tenant_id`` is whose log it is in, ``actor`` who asked as ``tenant/user``. ``before`` and ``after`` are what was changed,
    without secrets. ``code`` is that of the error where it failed.
    """

    entry_id: str
    tenant_id: str
    at: datetime
    actor: str
    action: str
    target: str
    outcome: Literal["begun", "done", "failed"] = "begun"
    code: str = ""
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    request_id: str = ""


def provisioning_id(match: ProvisioningMatch, value: str) -> str:
    """Where the record for ``value`` is; addresses and domains are the same however they are written."""
    return f"{match}:{value if match == 'subject' else value.lower()}"
