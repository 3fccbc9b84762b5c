"""The check of the cache: whether its Redis can be used. Parley works without it, and asks the store, or models, more often."""

from __future__ import annotations

import asyncio

from serve_app.cli.findings import Finding, ok, problem, warning
from serve_app.credentials import Secrets
from serve_app.errors import ConfigError
from serve_app.settings import Settings


def check_cache(settings: Settings, secrets: Secrets) -> list[Finding]:
    """Of the cache beside the store, and of that of answers. Nothing where none is configured."""
    backends = {settings.cache.backend, settings.answer_cache.backend} - {"off"}
    if not backends:
        return []
    try:
        reason = asyncio.run(_reason_away(settings, secrets))
    except ConfigError as error:
        return [problem("cache", error.message)]
    if reason is not None:
        without = [] if settings.cache.backend != "redis" else ["everything is read from the store"]
        without += [] if settings.answer_cache.backend != "redis" else ["every question is asked"]
        return [
            warning(
                "cache",
                f"Redis does not answer: {reason.rstrip('.')}. Without it {' and '.join(without)}.",
                "Start it, or correct REDIS_URL.",
            )
        ]
    if "redis" in backends:
        return [ok("cache", "Redis answers.")]
    where = "the one Store replica" if settings.cache.backend == "memory" else "each ModelGateway replica"
    return [ok("cache", f"In memory of {where}.")]


async def _reason_away(settings: Settings, secrets: Secrets) -> str | None:
    from serve_app.caching.connect import connect, connect_answers

    opened = (connect(settings, secrets), connect_answers(settings, secrets))
    caches = [cache for cache in opened if cache is not None]
    try:
        reasons = [await cache.check() for cache in caches]
    finally:
        for cache in caches:
            await cache.close()
    return next((reason for reason in reasons if reason is not None), None)
