"""Requests of users and tenants, counted by each Ingress replica against shares that it takes ahead.

A share is a twentieth of a minute's worth. So a user who stays within a limit of some hundred requests a minute costs a
message every few seconds, however many requests there are; one who has gone beyond costs none until the limit has room.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from serve_app.domain.identity import Principal
from serve_app.errors import ParleyError
from serve_app.quotas.port import Account, RequestShares, Share, Want
from serve_app.quotas.refusals import refusal
from serve_app.quotas.terms import tenant_limits, user_limits
from serve_app.settings import LimitSettings
from serve_app.telemetry import Metrics, logger

SHARES_A_MINUTE = 20
MAX_SHARE = 100
SHARE_S = 10.0
"""How long a share is good; what is left of it then goes back with the next one."""
ASK_TIMEOUT_S = 1.0
"""Beyond, requests pass uncounted: a store that is away stops them soon enough."""

_log = logger("quotas")


class RequestLimit(Protocol):
    """Who may ask at all."""

    async def spend(self, principal: Principal) -> None:
        """Counts a request. Raises QuotaExceeded with ``retry_after_s``."""


class NoRequestLimit:
    """For ingress without a store stage to count in."""

    async def spend(self, principal: Principal) -> None:
        """Everybody may."""


class _Held:
    """An account's share in this replica."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.per_minute = 0
        self.left = 0
        self.until = 0.0
        self.blocked_until = 0.0
        self.waiting = 0
        self.asked: asyncio.Future[None] | None = None


class LeasedRequests:
    """One per Ingress replica. Nothing is kept of somebody without a limit."""

    def __init__(
        self,
        shares: RequestShares,
        limits: LimitSettings,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shares = shares
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._held: OrderedDict[Account, _Held] = OrderedDict()
        self._wanted: list[_Held] = []
        self._asking: asyncio.Task[None] | None = None

    async def spend(self, principal: Principal) -> None:
        user = user_limits(principal, self._limits).requests_per_minute
        tenant = tenant_limits(principal, self._limits).requests_per_minute
        if user is None and tenant is None:
            return
        held = []
        if user is not None:
            held.append(self._of(Account(principal.tenant_id, principal.user_id), user))
        if tenant is not None:
            held.append(self._of(Account(principal.tenant_id), tenant))
        while True:
            now = self._clock()
            for one in held:
                if one.blocked_until > now:
                    self._metrics.count("parley_refusals_total", code="quota_exceeded")
                    of_user = one.account.user_id is not None
                    raise refusal("requests", one.per_minute, of_user=of_user, wait_s=one.blocked_until - now)
            empty = [one for one in held if one.left <= 0 or one.until <= now]
            if not empty:
                break
            await asyncio.gather(*(self._fill(one) for one in empty))
        for one in held:
            one.left -= 1

    def _of(self, account: Account, per_minute: int) -> _Held:
        held = self._held.get(account)
        if held is None:
            held = self._held[account] = _Held(account)
            if len(self._held) > self._limits.counted:
                self._held.popitem(last=False)
        else:
            self._held.move_to_end(account)
        held.per_minute = per_minute
        return held

    async def _fill(self, held: _Held) -> None:
        """Waits for the next share, asked for together with those of others."""
        if held.asked is None:
            held.asked = asyncio.get_running_loop().create_future()
            self._wanted.append(held)
        if self._asking is None or self._asking.done():
            # A context of its own: whoever asks first may leave, and tasks of the request would be cancelled.
            self._asking = asyncio.create_task(self._ask(), context=contextvars.Context())
        held.waiting += 1
        try:
            await asyncio.shield(held.asked)
        finally:
            held.waiting -= 1

    async def _ask(self) -> None:
        while self._wanted:
            await asyncio.sleep(0)  # whoever else wants something now
            wanted, self._wanted = self._wanted, []
            wants = [_want(held) for held in wanted]
            shares = [Share(granted=want.count) for want in wants]
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    shares = await self._shares.take_requests(wants)
            except (ParleyError, TimeoutError) as error:
                _log.warning("requests_uncounted", reason=str(error) or "no answer in time", accounts=len(wants))
            except Exception:
                _log.exception("requests_uncounted", accounts=len(wants))
            finally:
                for held, share in zip(wanted, shares, strict=True):
                    self._settle(held, share)

    def _settle(self, held: _Held, share: Share) -> None:
        now = self._clock()
        held.left = share.granted
        held.until = now + SHARE_S
        if share.granted <= 0:
            held.blocked_until = now + max(share.retry_after_s, 0.05)
        asked, held.asked = held.asked, None
        if asked is not None and not asked.done():
            asked.set_result(None)


def _want(held: _Held) -> Want:
    count = max(held.waiting, 1, min(held.per_minute // SHARES_A_MINUTE, MAX_SHARE))
    returned, held.left = held.left, 0
    return Want(account=held.account, per_minute=held.per_minute, count=count, returned=returned)
