"""Chooses where provider quotas are counted: in the Store replica, or in the Redis that the cache uses where there is one."""

from __future__ import annotations

from serve_app.credentials import Secrets
from serve_app.errors import StageUnavailable
from serve_app.rates.memory import MemoryRates
from serve_app.rates.port import Answer, Ask, Level, RateService
from serve_app.settings import Settings


class NoRates:
    """For several Store replicas that have no Redis to count in together: each gateway replica goes by a share of its own."""

    async def ask(self, ask: Ask) -> Answer:
        raise StageUnavailable(
            f"The quota of {ask.provider!r} is not counted together: that needs cache.backend: redis."
        )

    def levels(self) -> list[Level]:
        return []

    async def close(self) -> None:
        """Nothing is held."""


def connect(settings: Settings, secrets: Secrets) -> RateService:
    """The service; whoever calls closes it. Makes no connection."""
    if settings.cache.backend != "redis" or secrets.redis_url is None:
        return NoRates() if settings.store == "azure" else MemoryRates()
    # An optional dependency, whose absence the cache's own connect has told of.
    from serve_app.rates.redis import RedisRates

    return RedisRates(secrets.redis_url.get_secret_value(), timeout_s=settings.cache.timeout_s)
