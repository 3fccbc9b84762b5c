"""What a replica keeps in mind: the newest of many, and locks for as long as they are used."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from serve_app.storage.cosmos.layout import Partition

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping that keeps what was used last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: K, value: V) -> None:
        self._kept[key] = value
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def drop(self, key: K) -> V | None:
        return self._kept.pop(key, None)


class Locks:
    """A lock for each partition, for as long as somebody has it in hand."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Partition, asyncio.Lock] = WeakValueDictionary()

    def of(self, partition: Partition) -> asyncio.Lock:
        lock = self._locks.get(partition)
        if lock is None:
            lock = self._locks[partition] = asyncio.Lock()
        return lock
