"""The store stage: the one process that writes when embedded."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from ray import serve

from deployments.remote_store import serve_appends, serve_calls
from deployments.shell import Shell
from deployments.stage_report import Figures
from serve_app.access.directory import StoredDirectory
from serve_app.access.port import Access, Directory
from serve_app.access.resolver import AccessResolver
from serve_app.caching.connect import connect as connect_cache
from serve_app.credentials import Secrets
from serve_app.domain.stages import QuotaState
from serve_app.errors import Overloaded, ParleyError
from serve_app.quotas.admission import admitting
from serve_app.quotas.connect import connect as connect_quotas
from serve_app.quotas.connect import counted_once
from serve_app.quotas.port import RequestShares
from serve_app.rates.connect import connect as connect_rates
from serve_app.rates.port import Rates
from serve_app.storage.connect import connect
from serve_app.storage.port import Store
from serve_app.telemetry import logger

log = logger("store")

LOGGED = frozenset({"accept_turn", "claim_turn", "delete_conversation", "delete_all", "archive_all"})
"""What leaves a line of its own, so that a request can be followed to the store."""
LEVELS_S = 5.0
"""How often the gauges of provider quotas are set."""


MAX_CALLS = 4_096
"""Calls at a time; a burst waits here for the one writer rather than being refused."""


@serve.deployment(name="Store")
class StoreDeployment(Shell):
    _request_units = 0.0

    async def start(self) -> None:
        secrets = Secrets.from_environment()
        self._quotas = connect_quotas(self.settings, secrets)
        self._rates = connect_rates(self.settings, secrets)
        cache = connect_cache(self.settings, secrets)
        store = await connect(self.settings, secrets, self.metrics, cache, self._charged)
        once = counted_once(self.settings)
        self._store = admitting(store, self._quotas, self.settings.limits, self.metrics, counted_once=once)
        await self._store.check()
        directory = StoredDirectory(self._store, cache, ttl_s=self.settings.cache.authz_ttl_s)
        self._services: dict[str, tuple[type, Any]] = {
            "": (Store, self._store),
            "access": (Access, AccessResolver(directory)),
            "directory": (Directory, directory),
            "quotas": (RequestShares, self._quotas),
            "provider_quota": (Rates, self._rates),
        }
        self._channel = await self.open_channel(calls=MAX_CALLS)
        serve_appends(self._store, self._channel, self.load)
        serve_calls(self._invoke, self._channel, self.load)
        self._upkeep = asyncio.create_task(self._prune())
        self._levels = asyncio.create_task(self._show_levels())

    async def invoke(
        self, service: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], request_id: str
    ) -> Any:
        """Calls a method of the Store port, or with a ``service`` of a port that lives beside the store, because what it keeps in
        memory must be kept once. What is logged meanwhile carries ``request_id``.
        """
        with self.load.running():
            return await self._invoke(service, method, args, kwargs, request_id)

    async def _invoke(
        self, service: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], request_id: str
    ) -> Any:
        port, adapter = self._services[service]
        if method.startswith("_") or not hasattr(port, method):
            raise AttributeError(method)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            result = await getattr(adapter, method)(*args, **kwargs)
            if method in LOGGED:
                log.info(method)
            return result

    async def channel_endpoint(self) -> str:
        return self._channel.endpoint

    def figures(self) -> Figures:
        """The embedded store alone has a writer, and a queue before it."""
        quotas = (
            QuotaState(endpoint=level.endpoint, kind=level.kind, limit=level.limit, used=level.used)
            for level in self._rates.levels()
        )
        return Figures(
            slots=MAX_CALLS,
            queued=getattr(self._store, "queued", 0),
            writer_s=getattr(self._store, "writer_s", 0.0),
            request_units=self._request_units,
            quotas=tuple(quotas),
        )

    def _charged(self, request_units: float) -> None:
        self._request_units += request_units

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

    async def _show_levels(self) -> None:
        """How far the providers' quotas are used, whether anybody asks or not."""
        while True:
            await asyncio.sleep(LEVELS_S)
            for level in self._rates.levels():
                endpoint, kind = level.endpoint, level.kind
                self.metrics.gauge("parley_provider_quota_limit", level.limit, endpoint=endpoint, kind=kind)
                self.metrics.gauge("parley_provider_quota_used", level.used, endpoint=endpoint, kind=kind)

    async def __del__(self) -> None:
        self._upkeep.cancel()
        self._levels.cancel()
        await self._channel.stop()
        await self._quotas.close()
        await self._rates.close()
        await self._store.close()
