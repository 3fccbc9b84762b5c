"""Who is asking."""

from __future__ import annotations

from msgspec import Struct


class Principal(Struct, frozen=True, kw_only=True):
    """A verified user of a tenant, with the roles that decide which tools and prompts are offered."""

    tenant_id: str
    user_id: str
    roles: tuple[str, ...] = ()

    def narrowed_to(self, role: str | None) -> Principal:
        """This principal acting in one of its roles.

        A role that was not granted leaves none: asking can only narrow what the token grants.
        """
        if role is None:
            return self
        kept = tuple(r for r in self.roles if r == role)
        return Principal(tenant_id=self.tenant_id, user_id=self.user_id, roles=kept)
