"""The check of the cache: whether its Redis can be used. Parley works without it, and asks the store more often."""

from __future__ import annotations

import asyncio

from serve_app.cli.findings import Finding, ok, problem, warning
from serve_app.credentials import Secrets
from serve_app.errors import ConfigError
from serve_app.settings import Settings


def check_cache(settings: Settings, secrets: Secrets) -> list[Finding]:
    """Nothing where no cache is configured."""
    backend = settings.cache.backend
    if backend == "off":
        return []
    try:
        reason = asyncio.run(_reason_away(settings, secrets))
    except ConfigError as error:
        return [problem("cache", error.message)]
    if reason is not None:
        return [
            warning(
                "cache",
                f"Redis does not answer: {reason.rstrip('.')}. Without it everything is read from the store.",
                "Start it, or correct REDIS_URL.",
            )
        ]
    return [ok("cache", "Redis answers." if backend == "redis" else "In memory of the one Store replica.")]


async def _reason_away(settings: Settings, secrets: Secrets) -> str | None:
    from serve_app.caching.connect import connect

    cache = connect(settings, secrets)
    try:
        return await cache.check()
    finally:
        await cache.close()
