"""The calls of one replica that wait for a provider's quota: live before batch, bounded for each, and fair to tenants.

Where a line is full, a call of a tenant with few in it takes the place of the newest of the tenant with most.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import count, islice, zip_longest

from serve_app.domain.priority import Priority
from serve_app.errors import QuotaExceeded

MAX_WAITING = 500
"""Calls in each of the two lines of a provider."""


class Call:
    """A call in line. ``room`` is done when it may be made."""

    __slots__ = ("model", "priority", "room", "since", "tenant_id", "ticket", "tokens")

    def __init__(self, ticket: int, tenant_id: str, model: str, tokens: int, priority: Priority, since: float) -> None:
        self.ticket = ticket
        self.tenant_id = tenant_id
        self.model = model
        self.tokens = tokens
        self.priority = priority
        self.since = since
        self.room: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Waiting:
    """Both lines."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._lines: dict[Priority, dict[str, dict[int, Call]]] = {"live": {}, "batch": {}}
        """By tenant, in the order in which they came."""
        self._lengths: Counter[Priority] = Counter()
        self._tickets = count(1)

    def __len__(self) -> int:
        return self._lengths.total()

    def count(self, priority: Priority) -> int:
        return self._lengths[priority]

    def before(self, priority: Priority) -> bool:
        """Whether somebody waits whom a new call of this priority may not pass."""
        return self._lengths["live"] > 0 or (priority == "batch" and self._lengths["batch"] > 0)

    def join(
        self, tenant_id: str, model: str, tokens: int, priority: Priority, now: float, refusal: QuotaExceeded
    ) -> Call:
        """Raises ``refusal`` where the line is full; whoever is put out of it for this one gets it instead."""
        line = self._lines[priority]
        if self._lengths[priority] >= self._max_waiting:
            most = max(line.values(), key=len)
            if len(most) <= len(line.get(tenant_id, ())) + 1:
                raise refusal
            newest = next(reversed(most.values()))
            self.leave(newest)
            newest.room.set_exception(refusal)
        call = Call(next(self._tickets), tenant_id, model, tokens, priority, now)
        line.setdefault(tenant_id, {})[call.ticket] = call
        self._lengths[priority] += 1
        return call

    def leave(self, call: Call) -> None:
        line = self._lines[call.priority]
        calls = line.get(call.tenant_id)
        if calls is None or calls.pop(call.ticket, None) is None:
            return
        self._lengths[call.priority] -= 1
        if not calls:
            del line[call.tenant_id]

    def has(self, call: Call) -> bool:
        return call.ticket in self._lines[call.priority].get(call.tenant_id, ())

    def first(self, number: int) -> list[Call]:
        """Live before batch, and of each the first of every tenant, then the second of every tenant, and so on."""
        found: list[Call] = []
        for line in self._lines.values():
            rounds = zip_longest(*(islice(calls.values(), number) for calls in line.values()))
            in_turn = (call for one_each in rounds for call in one_each if call is not None)
            found += islice(in_turn, number - len(found))
        return found
