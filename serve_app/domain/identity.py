"""Who is asking, and on what terms.

token ─verified─► Identity ─access─► Principal          (development: headers ─► Principal)
"""

from __future__ import annotations

from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

ADMIN = "admin"
"""Role of whoever administers a tenant."""
PLATFORM_ADMIN = "platform-admin"
"""Role of whoever administers all tenants; no token and no admin of a tenant can grant it."""


class Identity(Struct, frozen=True, kw_only=True):
    """What a verified token says: an issuer's name for somebody. Who that is here, ``access`` knows.

    ``tenant`` and ``subject`` are the issuer's own ids, and together the only key: an e-mail address is for showing and for
    finding a provisioning record, never for recognising anybody again. ``roles`` are those the token carries.
    ``expires_at`` is an instant in Unix seconds.
    """

    issuer: str
    tenant: str
    subject: str
    expires_at: float
    roles: tuple[str, ...] = ()
    email: str = ""
    name: str = ""

    @property
    def identity_id(self) -> str:
        """The record's id. Parts are quoted, so that no id reaches into another's."""
        return f"{quote(self.tenant, safe='')}/{quote(self.subject, safe='')}"


class Limits(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody may use; None is what the settings say."""

    requests_per_minute: int | None = None
    concurrent_turns: int | None = None
    tokens_per_minute: int | None = None


class TurnChoices(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a tenant has chosen for its turns; None leaves what the prompt or the configuration says."""

    model_id: str | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None


class Terms(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a principal's tenant lets it have. A turn keeps the terms it was accepted on.

    ``tools``: ids of the tools it may use of those its roles open; an id also stands for all below it (``crm`` for
    ``crm.find_account``); None is no further restriction. ``denied_tools``: ids of those it may not use all the same.
    """

    tools: tuple[str, ...] | None = None
    denied_tools: tuple[str, ...] = ()
    choices: TurnChoices = TurnChoices()
    user_limits: Limits = Limits()
    tenant_limits: Limits = Limits()


class Principal(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A verified user of a tenant, with the roles that decide which tools and prompts are offered."""

    tenant_id: str
    user_id: str
    roles: tuple[str, ...] = ()
    terms: Terms = Terms()

    def narrowed_to(self, role: str | None) -> Principal:
        """This principal acting in one of its roles.

        A role that was not granted leaves none: asking can only narrow what the token grants.
        """
        if role is None:
            return self
        return replace(self, roles=tuple(r for r in self.roles if r == role))

    def may_use(self, tool: str) -> bool:
        """Whether its terms allow the tool; its roles are another matter."""
        allowed = self.terms.tools
        if any(stands_for(one, tool) for one in self.terms.denied_tools):
            return False
        return allowed is None or any(stands_for(one, tool) for one in allowed)


def stands_for(tool_id: str, tool: str) -> bool:
    """Whether what is said of ``tool_id`` is said of ``tool``: an id stands for itself, and as a namespace for all below."""
    return tool == tool_id or tool.startswith(f"{tool_id}.")
