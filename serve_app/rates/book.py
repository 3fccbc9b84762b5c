"""A provider's book: every charge of the last minute, the leases that are out, and who is next. Pure: time is an argument.

Two things bound what is given. The window: charges of the last sixty seconds and all leases together stay within the limit,
so that no minute, wherever it begins, holds more. And the pace: beyond a quarter of a minute's worth at once, a limit is given
out as steadily as it comes back, since whoever takes all of it in one second stands still for the other fifty-nine.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import count

from msgspec import Struct, field

from serve_app.rates.port import LEASE_S, NOTHING, Amount, Answer, Ask, Level, Rate, Waiter

WINDOW_S = 60
BURST = 0.25
"""The part of a minute's worth that may go at once."""
AHEAD_UP_TO = 0.9
"""Leases are given while no more than this part of a limit is used; beyond, every call asks for itself."""
LEFT_BY_BATCH = 0.05
"""The part of a limit that only live calls may use."""
BEHIND_UP_TO = 0.25
"""A call that needs more than this part of a limit holds nobody up while it waits."""
TOLD_FOR_S = 1.5
"""How long calls are in line that their replica does not tell of again."""
SEEN_FOR_S = 30.0
MIN_WAIT_S = 0.05
MAX_TENANTS = 1_000
MAX_METERS = 1_000


class Meter(Struct):
    """One limit. ``slots`` are charges by second. ``pace`` is how much may go now; below 0 a large call has gone ahead."""

    limit: int
    pace: float
    at: float
    slots: dict[int, float] = field(default_factory=dict)

    def charge(self, amount: float, at: float) -> None:
        second = int(at)
        self.slots[second] = self.slots.get(second, 0.0) + amount

    def used(self, now: float) -> float:
        """Charges of the last sixty seconds, and of the rest of the second before them."""
        oldest = int(now) - WINDOW_S
        for second in [second for second in self.slots if second < oldest]:
            del self.slots[second]
        return max(0.0, sum(self.slots.values()))

    def refill(self, now: float, free: float) -> None:
        passed = max(0.0, now - self.at)
        self.pace = min(self.pace + passed * self.limit / WINDOW_S, self.limit * BURST, free)
        self.at = now

    def wait_s(self, now: float, free: float, amount: float) -> float:
        """Until ``amount`` may fit, leases aside."""
        paced = (1 - self.pace) * WINDOW_S / self.limit if self.pace <= 0 else 0.0
        for second in sorted(self.slots):
            if free >= amount:
                return paced
            free += self.slots[second]
            paced = max(paced, second + WINDOW_S + 1 - now)
        return paced


class Holder(Struct):
    """What a replica holds and waits for."""

    number: int
    until: float
    told_at: float
    held: dict[str, Amount] = field(default_factory=dict)
    waiting: tuple[Waiter, ...] = ()


class Line(Struct):
    """``had``: what each tenant got in this line, in parts of a minute's worth; who had least is next. ``last``: what the one
    served last had, so that whoever comes anew does not get all that it did not want before."""

    had: dict[str, float] = field(default_factory=dict)
    last: float = 0.0

    def of(self, tenant_id: str) -> float:
        return max(self.had.get(tenant_id, 0.0), self.last)

    def served(self, tenant_id: str, turn: float, share: float) -> None:
        self.last = max(self.last, turn)
        self.had[tenant_id] = turn + share
        if len(self.had) > MAX_TENANTS:
            self.had = {tenant: had for tenant, had in self.had.items() if had > self.last}


class Book(Struct):
    id: str
    meters: dict[str, Meter] = field(default_factory=dict)
    holders: dict[str, Holder] = field(default_factory=dict)
    live: Line = field(default_factory=Line)
    batch: Line = field(default_factory=Line)


def answer(book: Book, ask: Ask, now: float) -> Answer:
    """Takes the report and gives what there is. ``now`` is in seconds and the same clock for all who ask."""
    _forget(book, now)
    _set_limits(book, ask.limits, now)
    if ask.book not in ("", book.id):
        return Answer(book=book.id, retry_after_s=MIN_WAIT_S)
    holder = book.holders.get(ask.replica_id)
    known = holder is not None
    if holder is None:
        holder = book.holders[ask.replica_id] = Holder(number=ask.number - 1, until=0.0, told_at=now)
    if ask.number < holder.number:
        return Answer(book=book.id, retry_after_s=0.1, replicas=len(book.holders))
    _take_report(book, holder, ask, now, paced=known)
    if ask.alone:
        for meter in book.meters.values():
            meter.pace, meter.at = min(meter.pace, _first_pace(meter.limit)), now
    room = _Room(book, now)
    granted, wait_s = _serve_line(book, room, ask.replica_id, now)
    ahead = {} if wait_s > 0 else _give_ahead(room, holder, ask)
    holder.waiting = tuple(waiter for waiter in holder.waiting if waiter.ticket not in granted)
    return Answer(
        book=book.id,
        granted=tuple(granted),
        ahead=ahead,
        retry_after_s=min(wait_s, float(WINDOW_S)),
        replicas=sum(now - other.told_at < SEEN_FOR_S for other in book.holders.values()),
    )


def levels_of(book: Book, provider: str, now: float) -> list[Level]:
    """How far the limits are used: what was charged, and what is leased."""
    held = _held(book)
    return [
        Level(
            endpoint=f"{provider}/{model}" if model else provider,
            kind="requests" if kind == "r" else "tokens",
            limit=meter.limit,
            used=round(meter.used(now) + held.get(key, 0)),
        )
        for key, meter in book.meters.items()
        for kind, model in (key.split(":", 1),)
    ]


class _Room:
    """What of each limit is free, as it is given away."""

    def __init__(self, book: Book, now: float) -> None:
        self.meters = book.meters
        self.free: dict[str, float] = {}
        self.pace: dict[str, float] = {}
        held = _held(book)
        for key, meter in book.meters.items():
            free = meter.limit - meter.used(now) - held.get(key, 0)
            meter.refill(now, free)
            self.free[key] = free
            self.pace[key] = meter.pace

    def short_of(self, costs: Iterable[tuple[str, float]], *, live: bool) -> list[str]:
        """The limits that leave no room."""
        short = []
        for key, amount in costs:
            left = 0.0 if live else LEFT_BY_BATCH * self.meters[key].limit
            if self.pace[key] <= 0 or self.free[key] - min(amount, self.meters[key].limit - left) < left:
                short.append(key)
        return short

    def take(self, costs: Iterable[tuple[str, float]]) -> None:
        for key, amount in costs:
            self.free[key] -= amount
            self.pace[key] -= amount


def _costs(meters: dict[str, Meter], model: str, amount: Amount) -> list[tuple[str, float]]:
    """What a model's amount is of each limit it falls under."""
    under = (
        ("r:", amount.requests), ("t:", amount.tokens), (f"r:{model}", amount.requests), (f"t:{model}", amount.tokens)
    )  # fmt: skip
    return [(key, value) for key, value in dict(under).items() if key in meters]


def _held(book: Book) -> dict[str, float]:
    total: dict[str, float] = {}
    for holder in book.holders.values():
        for model, amount in holder.held.items():
            for key, value in _costs(book.meters, model, amount):
                total[key] = total.get(key, 0.0) + value
    return total


def _forget(book: Book, now: float) -> None:
    """A lease whose time is over may have been spent to the last: all of it counts from then on."""
    for replica_id, holder in list(book.holders.items()):
        if holder.held and holder.until <= now:
            for model, amount in holder.held.items():
                for key, value in _costs(book.meters, model, amount):
                    book.meters[key].charge(value, holder.until)
            holder.held = {}
        if now - holder.told_at > WINDOW_S:
            del book.holders[replica_id]


def _set_limits(book: Book, limits: Mapping[str, Rate], now: float) -> None:
    for model, rate in limits.items():
        for key, limit in ((f"r:{model}", rate.requests), (f"t:{model}", rate.tokens)):
            meter = book.meters.get(key)
            if limit is None:
                book.meters.pop(key, None)
            elif meter is not None:
                meter.limit = limit
            elif len(book.meters) < MAX_METERS:
                book.meters[key] = Meter(limit=limit, pace=_first_pace(limit), at=now)


def _first_pace(limit: int) -> float:
    """A second's worth, as long as not all replicas may have told of the minute before."""
    return max(1.0, limit / WINDOW_S)


def _take_report(book: Book, holder: Holder, ask: Ask, now: float, *, paced: bool) -> None:
    """``paced``: whether it is about what was given out here, and not about a past before."""
    back: dict[str, float] = {}
    for model, amount in holder.held.items():
        for key, value in _costs(book.meters, model, amount - ask.kept.get(model, NOTHING)):
            back[key] = back.get(key, 0.0) + value
    if ask.number > holder.number:
        for spent in ask.spent:
            if spent.age_s > WINDOW_S:
                continue
            for key, value in _costs(book.meters, spent.model, spent.amount):
                book.meters[key].charge(value, now - spent.age_s)
                back[key] = back.get(key, 0.0) - value
    if paced:
        for key, value in back.items():
            book.meters[key].pace += value
    holder.number = ask.number
    holder.told_at = now
    holder.until = now + LEASE_S
    # No more than it was given: what it keeps beyond has been counted as spent when its time was over.
    holder.held = {
        model: Amount(min(kept.requests, had.requests), min(kept.tokens, had.tokens))
        for model, kept in ask.kept.items()
        if (had := holder.held.get(model)) is not None
    }
    holder.waiting = ask.waiting


def _serve_line(book: Book, room: _Room, replica_id: str, now: float) -> tuple[list[int], float]:
    """The tickets of this replica that are next, and when somebody who is not may be (0: nobody is left).

    What is next at another replica is left for it: it asks again in a moment.
    """
    granted: list[int] = []
    blocked: set[str] = set()
    wait_s = 0.0
    for live in (True, False):
        line = book.live if live else book.batch
        told = [
            (owner, waiter)
            for owner, holder in book.holders.items()
            if now - holder.told_at < TOLD_FOR_S
            for waiter in holder.waiting
            if waiter.live is live
        ]
        for owner, waiter, turn in _in_turn(book, line, told):
            costs = _costs(book.meters, waiter.model, Amount(1, waiter.tokens))
            if "r:" in blocked or "t:" in blocked:
                return granted, wait_s  # the provider's own limits are everybody's
            if any(key in blocked for key, _ in costs):
                continue
            if short := room.short_of(costs, live=live):
                amounts = dict(costs)
                waits = (book.meters[key].wait_s(now, room.free[key], amounts[key]) for key in short)
                wait_s = wait_s or max(MIN_WAIT_S, *waits)
                blocked.update(key for key in short if amounts[key] <= BEHIND_UP_TO * book.meters[key].limit)
                continue
            room.take(costs)
            if owner != replica_id:
                wait_s = wait_s or MIN_WAIT_S
                continue
            granted.append(waiter.ticket)
            for key, value in costs:
                book.meters[key].charge(value, now)
                book.meters[key].pace -= value
            line.served(waiter.tenant_id, turn, _share(book, waiter))
    return granted, wait_s


def _in_turn(book: Book, line: Line, told: Iterable[tuple[str, Waiter]]) -> Iterator[tuple[str, Waiter, float]]:
    """Those in line, whose tenant has had least first, with what theirs has had by then."""
    of_tenant: dict[str, list[tuple[str, Waiter]]] = {}
    for entry in sorted(told, key=lambda entry: -entry[1].age_s):
        of_tenant.setdefault(entry[1].tenant_id, []).append(entry)
    order = count()
    heads = [(line.of(tenant), next(order), tenant, 0) for tenant in of_tenant]
    heapq.heapify(heads)
    while heads:
        turn, _, tenant, position = heapq.heappop(heads)
        owner, waiter = of_tenant[tenant][position]
        yield owner, waiter, turn
        if position + 1 < len(of_tenant[tenant]):
            heapq.heappush(heads, (turn + _share(book, waiter), next(order), tenant, position + 1))


def _share(book: Book, waiter: Waiter) -> float:
    """What a call takes, as a part of the limit of which it takes most."""
    costs = _costs(book.meters, waiter.model, Amount(1, waiter.tokens))
    return max((value / book.meters[key].limit for key, value in costs), default=0.0)


def _give_ahead(room: _Room, holder: Holder, ask: Ask) -> dict[str, Amount]:
    """Leases, as long as there is plenty: never what somebody waits for."""
    ahead: dict[str, Amount] = {}
    for model, wanted in ask.wanted.items():
        most = wanted
        for key, _ in _costs(room.meters, model, wanted):
            meter = room.meters[key]
            spare = math.floor(min(room.free[key] - (1 - AHEAD_UP_TO) * meter.limit, room.pace[key]))
            if key.startswith("r:"):
                most = Amount(min(most.requests, spare), most.tokens)
            else:
                most = Amount(most.requests, min(most.tokens, spare))
        if most.requests < 1 or most.tokens < 1:
            continue
        costs = _costs(room.meters, model, most)
        room.take(costs)
        for key, value in costs:
            room.meters[key].pace -= value
        ahead[model] = most
        holder.held[model] = holder.held.get(model, NOTHING) + most
    return ahead
