"""Quotas in this process: right while one process counts."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

from msgspec import Struct

from serve_app.quotas.port import Account, Opening, Share, Sign, Want
from serve_app.quotas.refusals import Cause, refusal
from serve_app.quotas.token_window import UNKNOWN_TOKENS, TokenWindow

SWEEP_S = 1.0
"""How often turns that nobody tells of any more are looked for."""


class _Meter(Struct):
    """A level at an instant; it falls by ``per_minute`` a minute."""

    level: float
    at: float
    per_minute: int

    def now(self, now: float, per_minute: int | None = None) -> float:
        """Brings the level up to date, by a new rate from now on."""
        self.level = max(0.0, self.level - (now - self.at) * self.per_minute / 60)
        self.at = now
        self.per_minute = per_minute or self.per_minute
        return self.level


class _Open(Struct, frozen=True):
    """``reserved``: the tokens it is expected to use, of each account that has a limit."""

    tenant: Account
    user: Account
    until: float
    since: float
    reserved: dict[Account, float]


class MemoryQuotas:
    """``counted``: accounts whose rates are kept; beyond, the one unused for longest goes first. ``clock`` gives seconds.

    One event loop, no awaits inside, hence no locks.
    """

    def __init__(self, *, counted: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._counted = counted
        self._clock = clock
        self._meters: OrderedDict[tuple[Account, Cause], _Meter] = OrderedDict()
        self._tokens: OrderedDict[Account, TokenWindow] = OrderedDict()
        self._open: dict[str, _Open] = {}
        self._open_of: Counter[Account] = Counter()
        self._swept = clock()

    @property
    def open_turns(self) -> int:
        return len(self._open)

    @property
    def meters(self) -> int:
        """How many rates are kept."""
        return max(len(self._meters), len(self._tokens))

    async def open_turn(self, opening: Opening) -> None:
        now = self._clock()
        if now - self._swept >= SWEEP_S:
            self._sweep(now)
        if opening.turn_id in self._open:
            return
        user, tenant = accounts_of(opening)
        if len(self._open) >= opening.max_open:
            raise refusal("open", opening.max_open)
        both = ((user, opening.user_limits), (tenant, opening.tenant_limits))
        ending = 1 if opening.instead_of in self._open else 0
        for account, limits in both:
            of_user = account is user
            if (most := limits.concurrent_turns) is not None and self._open_of[account] - ending >= most:
                raise refusal("concurrent", most, of_user=of_user)
            if (most := limits.requests_per_minute) is not None:
                over = self._level(account, "turns", most, now) + 1 - most
                if over > 0:
                    raise refusal("turns", most, of_user=of_user, wait_s=over * 60 / most)
            if (most := limits.tokens_per_minute) is not None:
                wait_s = self._window(account).wait_s(most, now)
                if wait_s > 0:
                    raise refusal("tokens", most, of_user=of_user, wait_s=wait_s)
        reserved = {}
        for account, limits in both:
            if limits.requests_per_minute is not None:
                self._add(account, "turns", 1)
            if (most := limits.tokens_per_minute) is not None:
                window = self._window(account)
                reserved[account] = window.reserve(window.expected(most))
        self._count(opening.turn_id, _Open(tenant, user, now + opening.for_s, now, reserved))

    async def withdraw_turn(self, opening: Opening) -> None:
        if self._uncount(opening.turn_id) is None:
            return
        for account in accounts_of(opening):
            self._add(account, "turns", -1)

    async def tell(self, signs: Sequence[Sign]) -> None:
        now = self._clock()
        for sign in signs:
            if not sign.closed:
                user, tenant = accounts_of(sign)
                was = self._open.get(sign.turn_id)
                reserved = self._taken_up((user, tenant)) if was is None else was.reserved
                since = now if was is None else was.since
                self._count(sign.turn_id, _Open(tenant, user, now + sign.for_s, since, reserved))
            elif (was := self._uncount(sign.turn_id)) is not None:
                for account in (was.user, was.tenant):
                    window = self._tokens.get(account)
                    if window is not None:  # of one that is not kept, nobody has said that it has a limit
                        window.add(sign.tokens, was.since, now)

    async def take_requests(self, wants: Sequence[Want]) -> list[Share]:
        return [self._take(want) for want in wants]

    async def close(self) -> None:
        """Nothing is held."""

    def _take(self, want: Want) -> Share:
        level = self._level(want.account, "requests", want.per_minute, self._clock())
        level = max(0.0, level - want.returned)
        granted = max(0, min(want.count, int(want.per_minute - level)))
        self._meters[want.account, "requests"].level = level + granted
        if granted:
            return Share(granted=granted)
        return Share(granted=0, retry_after_s=(level + 1 - want.per_minute) * 60 / want.per_minute)

    # Rates

    def _level(self, account: Account, cause: Cause, per_minute: int, now: float) -> float:
        key = (account, cause)
        meter = self._meters.get(key)
        if meter is None:
            meter = self._meters[key] = _Meter(0.0, now, per_minute)
            if len(self._meters) > self._counted:
                self._meters.popitem(last=False)
        else:
            self._meters.move_to_end(key)
        return meter.now(now, per_minute)

    def _add(self, account: Account, cause: Cause, amount: float) -> None:
        """To a rate that is kept; of one that is not, nobody has said that it has a limit."""
        meter = self._meters.get((account, cause))
        if meter is not None:
            meter.level = max(0.0, meter.now(self._clock()) + amount)

    def _window(self, account: Account) -> TokenWindow:
        window = self._tokens.get(account)
        if window is None:
            window = self._tokens[account] = TokenWindow()
            if len(self._tokens) > self._counted:
                self._tokens.popitem(last=False)
        else:
            self._tokens.move_to_end(account)
        return window

    def _taken_up(self, accounts: tuple[Account, Account]) -> dict[Account, float]:
        """What a turn is expected to use that was accepted elsewhere, or before this process began."""
        windows = ((account, self._tokens.get(account)) for account in accounts)
        return {
            account: window.reserve(window.mean or UNKNOWN_TOKENS) for account, window in windows if window is not None
        }

    # Open turns

    def _count(self, turn_id: str, turn: _Open) -> None:
        if turn_id not in self._open:
            self._open_of[turn.user] += 1
            self._open_of[turn.tenant] += 1
        self._open[turn_id] = turn

    def _uncount(self, turn_id: str) -> _Open | None:
        turn = self._open.pop(turn_id, None)
        if turn is not None:
            for account, amount in turn.reserved.items():
                if (window := self._tokens.get(account)) is not None:
                    window.release(amount)
            for account in (turn.user, turn.tenant):
                self._open_of[account] -= 1
                if self._open_of[account] <= 0:
                    del self._open_of[account]
        return turn

    def _sweep(self, now: float) -> None:
        self._swept = now
        for turn_id in [turn_id for turn_id, turn in self._open.items() if turn.until <= now]:
            self._uncount(turn_id)


def accounts_of(turn: Opening | Sign) -> tuple[Account, Account]:
    """The user's and the tenant's."""
    return Account(turn.tenant_id, turn.user_id), Account(turn.tenant_id)
