"""What the account was asked to do, written down for tests to count."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

MOST = 500_000
Kind = Literal["read", "query", "write", "feed", "metadata"]
KINDS: dict[str, Kind] = {
    "read": "read",
    "query": "query",
    "query_plan": "query",
    "change_feed": "feed",
    "create": "write",
    "upsert": "write",
    "replace": "write",
    "patch": "write",
    "delete": "write",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; every one in a batch is one. `status` 0: the connection was dropped before anything was done."""

    kind: Kind
    name: str  # read, query, create, …; of metadata "GET colls" and the like
    status: int
    charge: float
    container: str | None = None
    partition: str | None = None  # the logical partition's key as JSON
    document_id: str | None = None
    document_kind: str | None = None
    cross_partition: bool = False
    batch: int | None = None  # operations of one batch have one number
    text: str | None = None  # of a query

    @property
    def ok(self) -> bool:
        return 0 < self.status < 400


class Log:
    """Operations in the order they were answered; the oldest of very many are forgotten."""

    def __init__(self) -> None:
        self._operations: deque[Operation] = deque(maxlen=MOST)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations)

    def __len__(self) -> int:
        return len(self._operations)

    def add(self, operation: Operation) -> None:
        self._operations.append(operation)

    def clear(self) -> None:
        self._operations.clear()

    def find(self, **wanted: Any) -> list[Operation]:
        """The operations whose fields are as given, e.g. kind="write", container="sessions"."""
        return [one for one in self if all(getattr(one, name) == value for name, value in wanted.items())]

    def count(self, **wanted: Any) -> int:
        return len(self.find(**wanted))

    def charge(self, **wanted: Any) -> float:
        """Request units of the operations whose fields are as given."""
        return round(sum(one.charge for one in self.find(**wanted)), 2)

    def rows(self) -> list[dict[str, Any]]:
        return [asdict(one) for one in self]
