"""Chooses the store that the settings name, and puts the cache that they name around it."""

from __future__ import annotations

from collections.abc import Callable

from serve_app.caching.connect import connect as connect_cache
from serve_app.caching.messages import cached_messages
from serve_app.caching.port import Cache
from serve_app.credentials import Secrets
from serve_app.settings import Settings
from serve_app.storage.memory import MemoryStore
from serve_app.storage.port import Store
from serve_app.storage.sqlite import SqliteStore
from serve_app.telemetry import Metrics


async def connect(
    settings: Settings,
    secrets: Secrets,
    metrics: Metrics,
    cache: Cache | None = None,
    on_charge: Callable[[float], None] | None = None,
) -> Store:
    """An open store; whoever calls closes it, and with it ``cache``, the one that the settings name, where others use it, too.

    ``on_charge`` is told of the request units of each call, where there are any.

    A relative ``data_dir`` counts from the working folder or the project (``Settings.path``). Raises ConfigError with a
    sentence that names the setting.
    """
    if cache is None:
        cache = connect_cache(settings, secrets)
    store = await _store(settings, secrets, metrics, on_charge)
    if settings.cache.backend == "off":
        return store
    return cached_messages(store, cache, ttl_s=settings.cache.messages_ttl_s)


async def _store(
    settings: Settings, secrets: Secrets, metrics: Metrics, on_charge: Callable[[float], None] | None
) -> Store:
    match settings.store:
        case "memory":
            return MemoryStore()
        case "local":
            return await SqliteStore.open(settings.path(settings.data_dir), settings.store_limits)
        case "azure":
            return await _azure(settings, secrets, metrics, on_charge)


async def _azure(
    settings: Settings, secrets: Secrets, metrics: Metrics, on_charge: Callable[[float], None] | None
) -> Store:
    # Its SDKs take half a second to import, which nobody should wait for who does not use them.
    from serve_app.storage.cosmos.connect import open_store

    def charged(operation: str, charge: float, ms: float) -> None:
        metrics.count("parley_store_request_units_total", charge, operation=operation)
        metrics.observe("parley_store_call_ms", ms, operation=operation)
        if on_charge is not None:
            on_charge(charge)

    return await open_store(settings, secrets, charged)
