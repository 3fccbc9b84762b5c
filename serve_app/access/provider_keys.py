"""Administration of tenants' keys for model providers: written, listed by their last characters, never shown."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from serve_app.access.audit import AuditLog, Change
from serve_app.access.policy import require_platform_admin
from serve_app.access.port import Directory, Saved
from serve_app.access.tenants import Tenants, check_etag, keys_of
from serve_app.domain.access import SYSTEM_TENANT, ProviderKeyRecord
from serve_app.domain.conversation import Page
from serve_app.domain.identity import Principal
from serve_app.errors import Conflict, Internal, InvalidInput, NotFound
from serve_app.keys.ring import PROVIDER_KEYS, KeyRing, Sealer, provider_place
from serve_app.telemetry import logger

MIN_SHOWN_CHARS = 12
"""Of a shorter key nothing is shown: four characters would be too much of it."""
MAX_KEYS_PER_TENANT = 50
TENANTS_A_ROUND = 20
"""Tenants whose keys are sealed again by one request."""
ATTEMPTS = 4
"""How often a key may be changed by others while it is sealed again."""

log = logger("access.keys")


class Rotated(Struct, frozen=True, kw_only=True):
    """``sealed`` were sealed again, ``kept`` had the newest key already; ``lost`` no key opens, so that they have to be set
    again (which ones, the program's log says). ``next_cursor``: where to go on; None at the end.
    """

    sealed: int
    kept: int
    lost: int = 0
    next_cursor: str | None


class ProviderKeys:
    """Keys of one tenant at a time: the one named, else ``actor``'s. ``clock`` gives Unix seconds.

    Every method raises NotFound for a tenant or key that is missing or not the actor's to see, NotPermitted for what it may not
    do. Without ``keys`` nothing can be sealed, and what would have to be raises Conflict.
    """

    def __init__(
        self,
        directory: Directory,
        tenants: Tenants,
        audit: AuditLog,
        keys: KeyRing | None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._tenants = tenants
        self._audit = audit
        self._sealer = None if keys is None else keys.sealer(PROVIDER_KEYS)
        self._clock = clock

    async def listing(
        self, actor: Principal, tenant_id: str | None, *, cursor: str | None, limit: int
    ) -> Page[Saved[ProviderKeyRecord]]:
        tenant = (await self._tenants.get(actor, tenant_id)).value
        return await self._directory.list_provider_keys(tenant.tenant_id, cursor=cursor, limit=limit)

    async def put(
        self,
        actor: Principal,
        tenant_id: str | None,
        provider: str,
        key: str,
        *,
        origins: Mapping[str, str],
        if_match: str | None = None,
        request_id: str = "",
    ) -> Saved[ProviderKeyRecord]:
        """Writes the key in place of what there is. ``origins`` are the providers that there are, and where."""
        tenant = (await self._tenants.get(actor, tenant_id)).value
        sealer = self._sealing()
        origin = origins.get(provider)
        if origin is None:
            # A key under a mistaken name would never be used, and the operator would go on paying.
            raise InvalidInput(f"provider: there is none of this name; there are: {', '.join(sorted(origins)) or '-'}.")
        found = await self._find(tenant.tenant_id, provider)
        if found is not None:
            check_etag(found, if_match)
        elif if_match is not None:
            raise NotFound("There is no such key.")
        else:
            await self._check_room(tenant.tenant_id)
        record = ProviderKeyRecord(
            tenant_id=tenant.tenant_id,
            provider=provider,
            origin=origin,
            sealed=sealer.seal(key, provider_place(tenant.tenant_id, provider, origin)),
            last_four=key[-4:] if len(key) >= MIN_SHOWN_CHARS else "",
            changed_at=datetime.fromtimestamp(self._clock(), UTC),
        )
        change = Change(
            actor=actor,
            tenant_id=tenant.tenant_id,
            action="provider_key.put",
            target=f"provider_key:{provider}",
            before=None if found is None else _shown(found.value),
            after=_shown(record),
            request_id=request_id,
        )
        etag = "" if found is None else found.etag
        return await self._audit.during(change, lambda: self._directory.save_provider_key(record, if_match=etag))

    async def delete(
        self,
        actor: Principal,
        tenant_id: str | None,
        provider: str,
        *,
        if_match: str | None = None,
        request_id: str = "",
    ) -> None:
        tenant = (await self._tenants.get(actor, tenant_id)).value
        found = await self._find(tenant.tenant_id, provider)
        if found is None:
            raise NotFound("There is no such key.")
        check_etag(found, if_match)
        change = Change(
            actor=actor,
            tenant_id=tenant.tenant_id,
            action="provider_key.delete",
            target=f"provider_key:{provider}",
            before=_shown(found.value),
            request_id=request_id,
        )
        await self._audit.during(change, lambda: self._directory.delete_provider_key(tenant.tenant_id, provider))

    async def reveal(self, tenant_id: str, provider: str) -> str:
        """The key itself, for whoever calls the provider; no route shows it. Raises NotFound, Conflict, Internal."""
        found = await self._directory.get_provider_key(tenant_id, provider)
        return self._sealing().open(found.value.sealed, provider_place(tenant_id, provider, found.value.origin))

    async def rotate(self, actor: Principal, *, cursor: str | None = None, request_id: str = "") -> Rotated:
        """Seals the keys of some tenants again with the newest key; called until there is no ``next_cursor``, of all.

        An old key can be taken out of the ring once every replica has the newest one and a rotation has ended with none lost.
        """
        require_platform_admin(actor)
        sealer = self._sealing()
        change = Change(
            actor=actor,
            tenant_id=SYSTEM_TENANT,
            action="provider_key.rotate",
            target=f"tenants:after {cursor}" if cursor else "tenants:all",
            request_id=request_id,
        )
        return await self._audit.during(change, lambda: self._rotate(sealer, cursor))

    async def _rotate(self, sealer: Sealer, cursor: str | None) -> Rotated:
        page = await self._directory.list_tenants(cursor=cursor, limit=TENANTS_A_ROUND)
        counted: Counter[str] = Counter()
        for tenant in page.items:
            for held in await keys_of(self._directory, tenant.value.tenant_id):
                counted[await self._seal_again(sealer, held)] += 1
        return Rotated(
            sealed=counted["sealed"], kept=counted["kept"], lost=counted["lost"], next_cursor=page.next_cursor
        )

    async def _seal_again(self, sealer: Sealer, held: Saved[ProviderKeyRecord]) -> Literal["sealed", "kept", "lost"]:
        """Whoever changes it meanwhile may have been started with the old keys, so it is looked at again."""
        tenant_id, provider = held.value.tenant_id, held.value.provider
        for _ in range(ATTEMPTS):
            if sealer.is_newest(held.value.sealed):
                return "kept"
            try:
                again = replace(held.value, sealed=sealer.again(held.value.sealed))
            except Internal as error:
                # One that nobody can open must not keep the others from being sealed.
                log.error("provider_key_lost", tenant_id=tenant_id, provider=provider, error=error.message)
                return "lost"
            try:
                await self._directory.save_provider_key(again, if_match=held.etag)
            except Conflict:
                found = await self._find(tenant_id, provider)
                if found is None:
                    return "kept"  # deleted meanwhile
                held = found
                continue
            return "sealed"
        raise Conflict("A key is changed again and again; rotate once more.")

    async def _find(self, tenant_id: str, provider: str) -> Saved[ProviderKeyRecord] | None:
        try:
            return await self._directory.get_provider_key(tenant_id, provider)
        except NotFound:
            return None

    async def _check_room(self, tenant_id: str) -> None:
        page = await self._directory.list_provider_keys(tenant_id, limit=MAX_KEYS_PER_TENANT)
        if len(page.items) >= MAX_KEYS_PER_TENANT:
            raise InvalidInput(f"A tenant has at most {MAX_KEYS_PER_TENANT} keys.")

    def _sealing(self) -> Sealer:
        if self._sealer is None:
            raise Conflict("This server has no keys to encrypt with; its operator sets PARLEY_KEYS.")
        return self._sealer


def _shown(key: ProviderKeyRecord) -> dict[str, str]:
    """For the audit log."""
    return {"last_four": key.last_four, "origin": key.origin}
