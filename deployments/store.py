"""The store stage: the one process that writes when embedded."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from ray import serve

from deployments.handles import serve_appends
from deployments.shell import Shell
from serve_app.access.directory import StoredDirectory
from serve_app.access.port import Access, Directory
from serve_app.access.resolver import AccessResolver
from serve_app.caching.connect import connect as connect_cache
from serve_app.credentials import Secrets
from serve_app.errors import Overloaded, ParleyError
from serve_app.quotas.admission import admitting
from serve_app.quotas.connect import connect as connect_quotas
from serve_app.quotas.connect import counted_once
from serve_app.quotas.port import RequestShares
from serve_app.storage.connect import connect
from serve_app.storage.port import Store
from serve_app.telemetry import logger

log = logger("store")

LOGGED = frozenset({"accept_turn", "claim_turn", "delete_conversation", "delete_all", "archive_all"})
"""What leaves a line of its own, so that a request can be followed to the store."""


@serve.deployment(name="Store")
class StoreDeployment(Shell):
    async def start(self) -> None:
        secrets = Secrets.from_environment()
        self._quotas = connect_quotas(self.settings, secrets)
        cache = connect_cache(self.settings, secrets)
        store = await connect(self.settings, secrets, self.metrics, cache)
        once = counted_once(self.settings)
        self._store = admitting(store, self._quotas, self.settings.limits, self.metrics, counted_once=once)
        await self._store.check()
        directory = StoredDirectory(self._store, cache, ttl_s=self.settings.cache.authz_ttl_s)
        self._beside: dict[str, tuple[type, Any]] = {
            "access": (Access, AccessResolver(directory)),
            "directory": (Directory, directory),
            "quotas": (RequestShares, self._quotas),
        }
        self._channel = await self.open_channel()
        serve_appends(self._store, self._channel)
        self._upkeep = asyncio.create_task(self._prune())

    async def invoke(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], request_id: str) -> Any:
        """Calls a method of the Store port; what is logged meanwhile carries ``request_id``."""
        if method.startswith("_") or not hasattr(Store, method):
            raise AttributeError(method)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            result = await getattr(self._store, method)(*args, **kwargs)
            if method in LOGGED:
                log.info(method)
            return result

    async def invoke_beside(
        self, service: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], request_id: str
    ) -> Any:
        """The same for a port that lives beside the store, because what it keeps in memory must be kept once."""
        port, adapter = self._beside[service]
        if method.startswith("_") or not hasattr(port, method):
            raise AttributeError(method)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            return await getattr(adapter, method)(*args, **kwargs)

    async def channel_endpoint(self) -> str:
        return self._channel.endpoint

    async def check_health(self) -> None:
        queued = getattr(self._store, "queued", None)  # the embedded store's, where it is that
        if queued is not None:
            self.metrics.gauge("parley_store_queue", queued)
        try:
            await self._store.check()
        except Overloaded as error:
            # A full queue is load, and replacing the only writer would be the worst answer to it.
            log.warning("store_overloaded", error=error.message)

    async def _prune(self) -> None:
        settings = self.settings.store_limits
        while True:
            await asyncio.sleep(settings.prune_every_s)
            try:
                total = 0
                while pruned := await self._store.prune_events(older_than_s=settings.event_retention_s):
                    total += pruned
                log.info("events_pruned", turns=total)
            except ParleyError as error:
                log.warning("prune_failed", error=error.message)

    async def __del__(self) -> None:
        self._upkeep.cancel()
        await self._channel.stop()
        await self._quotas.close()
        await self._store.close()
