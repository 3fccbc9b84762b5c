from __future__ import annotations

import sys

import pytest

from serve_app.caching.connect import connect
from serve_app.caching.memory import MemoryCache
from serve_app.caching.off import NoCache
from serve_app.caching.redis import RedisCache
from serve_app.credentials import Secrets
from serve_app.errors import ConfigError
from serve_app.settings import CacheSettings, Settings

REDIS = Settings(cache=CacheSettings(backend="redis"))


async def test_the_settings_choose_the_cache() -> None:
    assert isinstance(connect(Settings(), Secrets()), NoCache)
    assert isinstance(connect(Settings(cache=CacheSettings(backend="memory")), Secrets()), MemoryCache)
    redis = connect(REDIS, Secrets.model_validate({"redis_url": "redis://127.0.0.1:1/0"}))
    assert isinstance(redis, RedisCache)
    await redis.close()


def test_redis_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "serve_app.caching.redis")
    with pytest.raises(ConfigError, match=r"install parley\[redis\]"):
        connect(REDIS, Secrets.model_validate({"redis_url": "redis://localhost"}))


def test_redis_without_an_address_names_the_variable() -> None:
    with pytest.raises(ConfigError, match="REDIS_URL"):
        connect(REDIS, Secrets())


def test_an_address_that_is_none_is_refused_without_repeating_it() -> None:
    for url in ("http://:geheim@localhost", "redis://:geheim@localhost:port/0"):
        with pytest.raises(ConfigError, match="REDIS_URL") as caught:
            connect(REDIS, Secrets.model_validate({"redis_url": url}))
        assert "geheim" not in caught.value.message
