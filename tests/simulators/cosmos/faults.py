"""Faults on order: which operations fail, how, how often."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

LONGEST_DELAY_S = 60.0


@dataclass(frozen=True, slots=True)
class Intent:
    """What a request is about to do: its operation, and the documents it names as (kind, id)."""

    operation: str  # read, create, …, batch, query, change_feed; of metadata "GET colls" and the like
    container: str | None = None
    documents: Sequence[tuple[str | None, str]] = ()
    inside: Sequence[str] = ()  # the operations of a batch
    partition: str | None = None

    @property
    def names(self) -> set[str]:
        """What a rule may call it."""
        metadata = {"metadata"} if " " in self.operation else set()
        return {self.operation, *self.inside} | metadata


@dataclass(eq=False)
class Fault:
    """A rule: it strikes requests that match every field given (a batch matches when any operation in it does).

    Exactly one of these says what happens. `status`: that answer, with `retry_after_ms` for 429. `drop`: the connection is
    closed without one. `delay_s`: the answer waits that long. `hold`: it waits for `release()`, at most a minute. They happen
    before anything is done or, with `after_commit`, when it is done and only the answer is lost.
    """

    status: int | None = None
    substatus: int = 0
    retry_after_ms: int | None = None
    drop: bool = False
    after_commit: bool = False
    delay_s: float | None = None
    hold: bool = False
    operation: str | None = None
    container: str | None = None
    kind: str | None = None  # the document's own "kind"
    id_prefix: str | None = None
    count: int | None = None  # how often at most
    skip: int = 0  # matches let through first
    probability: float = 1.0
    hits: int = 0
    _released: asyncio.Event = field(default_factory=asyncio.Event)
    _hit: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        if sum((self.status is not None, self.drop, self.delay_s is not None or self.hold)) != 1:
            raise ValueError("a fault has exactly one of status, drop and delay_s or hold")
        if self.delay_s is not None and not 0 <= self.delay_s <= LONGEST_DELAY_S:
            raise ValueError(f"a delay is 0 to {LONGEST_DELAY_S:.0f} s")

    @property
    def delays(self) -> bool:
        return self.hold or self.delay_s is not None

    def matches(self, intent: Intent) -> bool:
        if self.operation is not None and self.operation not in intent.names:
            return False
        if self.container is not None and self.container != intent.container:
            return False
        if self.kind is None and self.id_prefix is None:
            return True
        return any(
            (self.kind is None or self.kind == kind) and (self.id_prefix is None or name.startswith(self.id_prefix))
            for kind, name in intent.documents
        )

    def release(self) -> None:
        self._released.set()

    async def wait_until_hit(self) -> None:
        """Until the rule has struck once: a held request is waiting then."""
        await self._hit.wait()

    async def wait_out(self) -> None:
        limit = LONGEST_DELAY_S if self.delay_s is None else self.delay_s
        try:
            async with asyncio.timeout(limit):
                await self._released.wait()
        except TimeoutError:
            return

    def strike(self) -> None:
        self.hits += 1
        self._hit.set()


class Faults:
    """The rules of an account. With equal seeds and equal requests, equal faults."""

    def __init__(self, seed: int = 0) -> None:
        self._rules: list[Fault] = []
        self._random = random.Random(seed)

    def add(self, **rule: Any) -> Fault:
        """A rule by its fields; see Fault. It stays until its count is used up, `remove` or `clear`."""
        fault = Fault(**rule)
        self._rules.append(fault)
        return fault

    def seed(self, seed: int) -> None:
        self._random.seed(seed)

    def remove(self, fault: Fault) -> None:
        fault.release()
        if fault in self._rules:
            self._rules.remove(fault)

    def clear(self) -> None:
        for fault in list(self._rules):
            self.remove(fault)

    def strike(self, intent: Intent) -> list[Fault]:
        """The rules that hit this request: all delays, and at most one other."""
        struck: list[Fault] = []
        for fault in list(self._rules):
            if not fault.matches(intent) or (not fault.delays and any(not one.delays for one in struck)):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.probability < 1 and self._random.random() >= fault.probability:
                continue
            fault.strike()
            struck.append(fault)
            if fault.count is not None and fault.hits >= fault.count:
                self._rules.remove(fault)
        return struck
