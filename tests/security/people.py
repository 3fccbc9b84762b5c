"""Who asks in these tests: tokens in a table, and what becomes of those who have them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from serve_app.domain.identity import Identity, Principal
from serve_app.errors import NotPermitted, ParleyError, Unauthenticated
from serve_app.identity.port import Grant
from serve_app.settings import AuthSettings, LimitSettings, Settings, TurnSettings

ANNA = Principal(tenant_id="acme", user_id="anna", roles=("sales",))
BERT = Principal(tenant_id="acme", user_id="bert", roles=("sales",))
NAMESAKE = Principal(tenant_id="globex", user_id="anna", roles=("sales",))


@dataclass
class Person:
    """A token's. ``removed``: has no access any more."""

    principal: Principal
    expires_at: float
    removed: bool = False


@dataclass
class TableAuthenticator:
    """The Authenticator port over a table of tokens."""

    people: dict[str, Person] = field(default_factory=dict)
    failure: ParleyError | None = None
    refreshed: int = 0

    def add(self, token: str, principal: Principal, *, expires_in_s: float = 3_600.0) -> Person:
        person = self.people[token] = Person(principal, time.time() + expires_in_s)
        return person

    async def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Grant:
        given = {name.lower(): value for name, value in headers.items()}.get("authorization", "")
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("Say who you are.")
        return await self.with_token(token)

    async def with_token(self, token: str) -> Grant:
        if token not in self.people:
            raise Unauthenticated("The token is not good.")
        return self._grant(token)

    async def refresh(self, grant: Grant) -> Grant:
        self.refreshed += 1
        if self.failure is not None:
            raise self.failure
        assert grant.identity is not None
        return self._grant(grant.identity.subject)

    def _grant(self, token: str) -> Grant:
        person = self.people[token]
        if time.time() >= person.expires_at:
            raise Unauthenticated("The token has expired.")
        if person.removed:
            raise NotPermitted("You have no access.")
        who = person.principal
        identity = Identity(issuer="table", tenant=who.tenant_id, subject=token, expires_at=person.expires_at)
        return Grant(principal=who, expires_at=person.expires_at, identity=identity)


def token_settings(limits: LimitSettings | None = None, **more: object) -> Settings:
    """Settings of a server that wants tokens."""
    values: dict[str, object] = {
        "store": "memory",
        "auth": AuthSettings(mode="accounts"),
        "limits": limits or LimitSettings(),
        "turn": TurnSettings(title_wait_s=0.05),
    }
    return Settings.model_validate(values | more)
