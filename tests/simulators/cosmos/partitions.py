"""Where documents are: logical partitions, the physical ranges that hold them, and splitting a range."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.simulators.cosmos import epk
from tests.simulators.cosmos.refusals import range_gone


@dataclass(slots=True)
class Document:
    """One version of a document. `body` is never changed: a write makes a new Document."""

    body: dict[str, Any]
    data: bytes  # the body as sent
    etag: str
    ts: int
    number: int  # of its _rid: the order of creation
    terms: int
    expires_at: float | None
    lsn: int = 0

    @property
    def id(self) -> str:
        return str(self.body["id"])


@dataclass(slots=True)
class PhysicalRange:
    """A range of the ring: `low` is inside, `high` is not."""

    id: str
    low: str
    high: str
    parents: tuple[str, ...] = ()
    generation: int = 1  # of the routing map, when this range came
    lsn: int = 0
    changed: OrderedDict[tuple[str, str], Document] = field(default_factory=OrderedDict)  # least recently written first

    def holds(self, key: str) -> bool:
        return self.low <= key < self.high


@dataclass(slots=True)
class LogicalPartition:
    key: str  # the values as JSON: what identifies it
    epk: str
    range: PhysicalRange
    documents: dict[str, Document] = field(default_factory=dict)

    def live(self, now: float) -> Iterator[Document]:
        """The documents that have not expired; those that have are removed."""
        gone = [name for name, item in self.documents.items() if item.expires_at is not None and item.expires_at <= now]
        for name in gone:
            del self.documents[name]
            self.range.changed.pop((self.key, name), None)
        yield from self.documents.values()

    def get(self, document_id: str, now: float) -> Document | None:
        found = self.documents.get(document_id)
        if found is None or (found.expires_at is not None and found.expires_at <= now):
            return None
        return found


class RangeMap:
    """The physical ranges of a container and the partitions in them."""

    def __init__(self) -> None:
        self.ranges: list[PhysicalRange] = [PhysicalRange("0", epk.MINIMUM, epk.MAXIMUM)]
        self.partitions: dict[str, LogicalPartition] = {}
        self.generation = 1
        self._next_id = 1

    def range(self, range_id: str) -> PhysicalRange:
        """Raises 410/1002 for a range that was split: the SDK reads the ranges again."""
        for candidate in self.ranges:
            if candidate.id == range_id:
                return candidate
        raise range_gone(range_id)

    def range_of(self, key: str) -> PhysicalRange:
        return next(candidate for candidate in self.ranges if candidate.holds(key))

    def partition(self, key: str, hashed: str) -> LogicalPartition:
        found = self.partitions.get(key)
        if found is None:
            found = self.partitions[key] = LogicalPartition(key, hashed, self.range_of(hashed))
        return found

    def split(self, range_id: str | None = None) -> tuple[PhysicalRange, PhysicalRange]:
        """Split a range (default: the one with most documents) so that half of its logical partitions move."""
        parent = self.range(range_id) if range_id is not None else max(self.ranges, key=lambda one: len(one.changed))
        middle = self._middle(parent)
        self.generation += 1
        parents = (*parent.parents, parent.id)
        halves = (
            PhysicalRange(str(self._next_id), parent.low, middle, parents, self.generation, parent.lsn),
            PhysicalRange(str(self._next_id + 1), middle, parent.high, parents, self.generation, parent.lsn),
        )
        self._next_id += 2
        for partition in self.partitions.values():
            if partition.range is parent:
                partition.range = halves[partition.epk >= middle]
        for (key, name), document in parent.changed.items():
            self.partitions[key].range.changed[key, name] = document
        at = self.ranges.index(parent)
        self.ranges[at : at + 1] = halves
        return halves

    def _middle(self, parent: PhysicalRange) -> str:
        held = sorted({item.epk for item in self.partitions.values() if item.range is parent and item.documents})
        if len(held) > 1:
            return held[len(held) // 2]
        low = int((parent.low or "0").ljust(32, "0")[:32], 16)
        high = 0x40 << 120 if parent.high == epk.MAXIMUM else int(parent.high.ljust(32, "0")[:32], 16)
        return f"{(low + high) // 2:032X}"
