"""Chooses the cache that the settings name."""

from __future__ import annotations

from serve_app.caching.memory import MemoryCache
from serve_app.caching.off import NoCache
from serve_app.caching.port import Cache
from serve_app.credentials import Secrets
from serve_app.errors import ConfigError
from serve_app.settings import Settings

_SMALLEST_ANSWER_BYTES = 256
"""What an entry of a few words takes with all that belongs to it, so that short answers are bounded, too."""


def connect(settings: Settings, secrets: Secrets) -> Cache:
    """The cache; whoever calls closes it. Makes no connection: a Redis that is away is no reason not to start.

    Raises ConfigError, with a sentence that names the setting, for a Redis that nobody could ever reach.
    """
    cache = settings.cache
    if cache.backend == "off":
        return NoCache()
    if cache.backend == "memory":
        return MemoryCache(max_entries=cache.max_entries, max_entry_bytes=cache.max_entry_bytes)
    return _in_redis(
        "PARLEY_CACHE__BACKEND",
        secrets,
        timeout_s=cache.timeout_s,
        max_entry_bytes=cache.max_entry_bytes,
        longest_ttl_s=max(cache.authz_ttl_s, cache.messages_ttl_s),
    )


def connect_answers(settings: Settings, secrets: Secrets) -> Cache | None:
    """The cache of answers, likewise; None where there is to be none."""
    answers = settings.answer_cache
    if answers.backend == "off":
        return None
    if answers.backend == "memory":
        return MemoryCache(
            max_entries=answers.max_bytes // _SMALLEST_ANSWER_BYTES + 1,
            max_entry_bytes=min(answers.max_entry_bytes, answers.max_bytes),
            max_bytes=answers.max_bytes,
        )
    return _in_redis(
        "PARLEY_ANSWER_CACHE__BACKEND",
        secrets,
        timeout_s=settings.cache.timeout_s,
        max_entry_bytes=answers.max_entry_bytes,
        longest_ttl_s=answers.ttl_s,
    )


def _in_redis(setting: str, secrets: Secrets, *, timeout_s: float, max_entry_bytes: int, longest_ttl_s: float) -> Cache:
    try:
        from serve_app.caching.redis import RedisCache
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise ConfigError(
            f"Setting {setting}: redis needs a package that is not installed; install parley[redis], or choose memory or off."
        ) from error
    if secrets.redis_url is None:
        raise ConfigError(f"Setting {setting}: redis needs its address in REDIS_URL, such as redis://localhost:6379/0.")
    try:
        return RedisCache(
            secrets.redis_url.get_secret_value(),
            timeout_s=timeout_s,
            max_entry_bytes=max_entry_bytes,
            longest_ttl_s=longest_ttl_s,
        )
    except ValueError as error:  # what it says may repeat the password
        raise ConfigError(
            "REDIS_URL is not an address of a Redis; write it as redis://[[user]:password@]host:port/number, with rediss:// "
            "for TLS or unix:// for a socket."
        ) from error
