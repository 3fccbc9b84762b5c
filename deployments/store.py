"""The store stage: the one process that writes when embedded."""

from __future__ import annotations

import asyncio
from typing import Any

from ray import serve

from deployments.handles import serve_appends
from deployments.shell import Shell
from serve_app.errors import ParleyError
from serve_app.storage.connect import connect
from serve_app.storage.port import Store
from serve_app.storage.sqlite import SqliteStore
from serve_app.telemetry import logger

log = logger("store")


@serve.deployment(name="Store")
class StoreDeployment(Shell):
    async def start(self) -> None:
        self._store = await connect(self.settings)
        await self._store.check()
        self._channel = await self.open_channel()
        serve_appends(self._store, self._channel)
        self._upkeep = asyncio.create_task(self._prune())

    async def invoke(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a method of the Store port."""
        if method.startswith("_") or not hasattr(Store, method):
            raise AttributeError(method)
        return await getattr(self._store, method)(*args, **kwargs)

    async def channel_endpoint(self) -> str:
        return self._channel.endpoint

    async def check_health(self) -> None:
        if isinstance(self._store, SqliteStore):
            self.metrics.gauge("parley_store_queue", self._store.queued)
        await self._store.check()

    async def _prune(self) -> None:
        settings = self.settings.store_limits
        while True:
            await asyncio.sleep(settings.prune_every_s)
            try:
                pruned = await self._store.prune_events(older_than_s=settings.event_retention_s)
                log.info("events_pruned", turns=pruned)
            except ParleyError as error:
                log.warning("prune_failed", error=error.message)

    async def __del__(self) -> None:
        self._upkeep.cancel()
        await self._channel.stop()
        await self._store.close()
