"""Chooses where quotas are counted: in this process, or in the Redis that the cache uses where there is one."""

from __future__ import annotations

from serve_app.credentials import Secrets
from serve_app.quotas.memory import MemoryQuotas
from serve_app.quotas.port import Quotas
from serve_app.settings import Settings


def counted_once(settings: Settings) -> bool:
    """Whether all Store replicas count together: there is one, or they have a Redis."""
    return settings.store != "azure" or settings.cache.backend == "redis"


def connect(settings: Settings, secrets: Secrets) -> Quotas:
    """The quotas; whoever calls closes them. Makes no connection."""
    memory = MemoryQuotas(counted=settings.limits.counted)
    if settings.cache.backend != "redis" or secrets.redis_url is None:
        return memory
    # An optional dependency, whose absence the cache's own connect has told of.
    from serve_app.quotas.redis import RedisQuotas

    return RedisQuotas(secrets.redis_url.get_secret_value(), meanwhile=memory, timeout_s=settings.cache.timeout_s)
