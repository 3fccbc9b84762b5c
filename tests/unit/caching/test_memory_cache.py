from __future__ import annotations

from serve_app.caching.memory import MemoryCache
from tests.contract.store_inputs import Clock


async def test_the_entry_unused_for_longest_makes_room() -> None:
    cache = MemoryCache(max_entries=2, max_entry_bytes=10, clock=Clock())
    await cache.set("a", b"1", ttl_s=60)
    await cache.set("b", b"2", ttl_s=60)
    await cache.get("a")
    await cache.set("c", b"3", ttl_s=60)
    assert [held is not None for held in await cache.get_many(("a", "b", "c"))] == [True, False, True]
