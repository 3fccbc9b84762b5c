"""Entries that are true: how readers and writers of many replicas use one cache for what a store holds.

Under a key there is nothing, a value, a reader's **lease** or a writer's **mark**, each with a version of its own.

- A reader that finds nothing leaves a lease, reads the store, and puts the value in place of *its* lease. If anything has
  touched the key meanwhile, that fails: a slow reader never overwrites what is newer.
- A writer puts its mark over whatever there is *before* it writes to the store, and afterwards the changed value, or
  nothing, in place of *its* mark. Readers that find a mark ask the store and keep nothing.
- Writers that overlap find each other's marks. Whose write came last in the store they cannot know, so the last thing
  they leave is a mark, which goes by itself; so does the mark of a writer that has died, or does not know how its write
  came out. Until then the store is asked.

So a value is never older than the last write that has been answered, whoever reads it where, as long as writers reach the
cache. One that is cut off from it writes to the store all the same: readers that do reach the cache may find the older value
until the writer is connected again and has dropped it, or, where the writer has died meanwhile, until the entry's time has
passed. That time bounds it in every case.
"""

from __future__ import annotations

from msgspec import Struct

from serve_app.caching.port import Cache, Held
from serve_app.errors import ParleyError

LEASE_S = 15.0
"""How long a reader may take; one that takes longer has read for itself alone."""
MARK_S = 30.0
"""How long a write whose outcome nobody has told may still take effect: longer than any store tries."""

_VALUE, _LEASE, _MARK = b"v", b"l", b"m"


class Reading(Struct, frozen=True):
    """``value``: what is kept, in ``version``. Without one, ``lease`` is the reader's right to fill the entry, if it got one."""

    value: bytes | None = None
    version: bytes | None = None
    lease: bytes | None = None


class Change:
    """One writer's change of one entry, from before its write to after it. ``base``: the value before, where it is known."""

    def __init__(self, entries: Entries, key: str, version: bytes | None, before: Held | None) -> None:
        self._entries = entries
        self._key = key
        self._version = version
        self._alone = before is None or not before.value.startswith(_MARK)
        self.base = value_of(before)

    async def settle(self, value: bytes | None) -> None:
        """The write was answered: ``value`` is true from now on; None where that is not known."""
        cache = self._entries.cache
        if self._alone and self._version is not None:
            if value is not None:
                done = await cache.replace(self._key, self._version, _VALUE + value, ttl_s=self._entries.ttl_s)
                if done is not None:
                    return
            elif await cache.delete(self._key, self._version):
                return
        await cache.set(self._key, _MARK, ttl_s=MARK_S)

    async def fail(self, error: BaseException) -> None:
        """The write raised ``error``. Where that does not say that nothing was written, the mark stays for its time."""
        if isinstance(error, ParleyError) and not error.retryable:
            await self.settle(None)


class Entries:
    """Entries of one kind: ``ttl_s`` is how long a value is used."""

    def __init__(self, cache: Cache, ttl_s: float) -> None:
        self.cache = cache
        self.ttl_s = ttl_s

    async def read(self, key: str) -> Reading:
        """The value, else a lease where nobody else reads or writes."""
        held = await self.cache.get(key)
        if held is not None:
            return Reading(value=value_of(held), version=held.version)
        return Reading(lease=await self.lease(key))

    async def lease(self, key: str, instead_of: bytes | None = None) -> bytes | None:
        """The right to fill an empty entry, or one whose value of version ``instead_of`` is good for nothing."""
        if instead_of is not None:
            return await self.cache.replace(key, instead_of, _LEASE, ttl_s=LEASE_S)
        return await self.cache.add(key, _LEASE, ttl_s=LEASE_S)

    async def fill(self, key: str, lease: bytes, value: bytes | None) -> None:
        """Puts in place of the lease what was read since it was given; None gives it back."""
        if value is None:
            await self.cache.delete(key, lease)
        else:
            await self.cache.replace(key, lease, _VALUE + value, ttl_s=self.ttl_s)

    async def add(self, key: str, value: bytes) -> bytes | None:
        """Puts a value where there is nothing, for values that no store has; its version if it did."""
        return await self.cache.add(key, _VALUE + value, ttl_s=self.ttl_s)

    async def change(self, key: str) -> Change:
        """Begins a change: to be called before the write, and settled or failed after it."""
        swapped = await self.cache.swap(key, _MARK, ttl_s=MARK_S)
        return Change(self, key, swapped.version, swapped.before)


def value_of(held: Held | None) -> bytes | None:
    """What is kept under a key; None for a lease, a mark, or nothing."""
    return held.value[1:] if held is not None and held.value.startswith(_VALUE) else None
