"""Whose key a call of a provider is made with: the tenant's own where it has one, else the operator's.

A tenant's key is looked up when its tenant first calls the provider, and again when it has been used for a while: one that is
replaced or deleted is used no longer than that, unless the store cannot be asked.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

from serve_app.access.port import Saved
from serve_app.domain.access import ProviderKeyRecord
from serve_app.errors import NotFound, Overloaded, StageUnavailable, UpstreamFailed
from serve_app.keys.ring import PROVIDER_KEYS, KeyRing, provider_place

FRESH_S = 30.0
ASK_S = 5.0
"""How long looking one up may take."""
MOST_KEPT = 10_000


class TenantKeys(Protocol):
    async def find(self, tenant_id: str, provider: str, origin: str) -> str | None:
        """The tenant's own key for the provider, which is at ``origin``.

        Raises StageUnavailable where nobody can tell, Internal for one that cannot be opened, UpstreamFailed for one that was
        set while the provider was elsewhere, and that is not for whoever is there now. In none of these cases is it the
        operator who should pay for the call.
        """


class ProviderKeyRecords(Protocol):
    """What this needs of ``access.port.Directory``."""

    async def get_provider_key(self, tenant_id: str, provider: str) -> Saved[ProviderKeyRecord]: ...


class NoTenantKeys:
    """Without ``PARLEY_KEYS`` no tenant can have stored a key."""

    async def find(self, tenant_id: str, provider: str, origin: str) -> str | None:  # noqa: ARG002 - the port's
        return None


class _Kept(NamedTuple):
    key: str | None
    until: float


class StoredTenantKeys:
    """Keys from the directory, opened here. ``clock`` gives seconds and never goes back."""

    def __init__(
        self, records: ProviderKeyRecords, keys: KeyRing, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._records = records
        self._sealer = keys.sealer(PROVIDER_KEYS)
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    async def find(self, tenant_id: str, provider: str, origin: str) -> str | None:
        if not tenant_id:
            return None
        at = tenant_id, provider
        kept = self._kept.get(at)
        if kept is not None and self._clock() < kept.until:
            self._kept.move_to_end(at)
            return kept.key
        try:
            async with asyncio.timeout(ASK_S):
                key = await self._read(tenant_id, provider, origin)
        except (Overloaded, TimeoutError):
            if kept is not None:
                return kept.key
            raise StageUnavailable("The tenant's key for the provider cannot be looked up now.", None, 1.0) from None
        self._kept[at] = _Kept(key, self._clock() + FRESH_S)
        self._kept.move_to_end(at)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return key

    async def _read(self, tenant_id: str, provider: str, origin: str) -> str | None:
        try:
            found = await self._records.get_provider_key(tenant_id, provider)
        except NotFound:
            return None
        if found.value.origin != origin:
            raise UpstreamFailed(
                f"Your tenant's own key for the model provider {provider!r} was set while that was elsewhere, so it is not "
                "sent; an administrator sets it again, or deletes it.",
                False,
            )
        return self._sealer.open(found.value.sealed, provider_place(tenant_id, provider, origin))
