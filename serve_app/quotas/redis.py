"""Quotas in Redis, for several Store replicas. While it is away each counts for itself.

Every question is one script, which Redis runs as one step, by its own clock. What is told of turns that run or have ended is
sent behind the append that told it, in order, so that no turn waits for Redis; while much is waiting, the oldest is dropped
and its turns stop counting by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from redis.exceptions import RedisError

from serve_app.quotas.memory import MemoryQuotas, accounts_of
from serve_app.quotas.port import Account, Opening, Share, Sign, Want
from serve_app.quotas.refusals import Cause, refusal
from serve_app.quotas.scripts import OPEN, TAKE, TELL
from serve_app.redis_client import new_client
from serve_app.telemetry import logger

MAX_CONNECTIONS = 16
MAX_UNTOLD = 10_000
AWAY_S = 2.0
"""How long a Redis that did not answer is left alone."""


class RedisQuotas:
    """Made without a connection: the first call makes it. ``meanwhile`` counts while Redis is away.

    ``timeout_s``: how long one call may take. Raises ValueError for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        meanwhile: MemoryQuotas,
        timeout_s: float,
        away_s: float = AWAY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = new_client(url, timeout_s=timeout_s, max_connections=MAX_CONNECTIONS, decode_responses=True)
        self._open: Any = self._redis.register_script(OPEN)
        self._tell: Any = self._redis.register_script(TELL)
        self._take: Any = self._redis.register_script(TAKE)
        self._meanwhile = meanwhile
        self._timeout_s = timeout_s
        self._away_s = away_s
        self._clock = clock
        self._away_until = float("-inf")
        self._untold: deque[Sign] = deque(maxlen=MAX_UNTOLD)
        self._telling: asyncio.Task[None] | None = None

    async def open_turn(self, opening: Opening) -> None:
        limits = (opening.user_limits, opening.tenant_limits)
        numbers = [
            number or 0
            for one in limits
            for number in (one.concurrent_turns, one.requests_per_minute, one.tokens_per_minute)
        ]
        arguments = [opening.turn_id, opening.for_s, opening.max_open, *numbers, opening.instead_of]
        answer = await self._ask(self._open, _keys(opening), arguments)
        if answer is None:
            await self._meanwhile.open_turn(opening)
            return
        cause: Cause | str = answer[0]
        if cause in ("open", "concurrent", "turns", "tokens"):
            side = int(answer[1])
            one = limits[side]
            limit = {
                "open": opening.max_open,
                "concurrent": one.concurrent_turns,
                "turns": one.requests_per_minute,
                "tokens": one.tokens_per_minute,
            }[cause]
            raise refusal(cause, limit or 0, of_user=side == 0, wait_s=float(answer[2]))

    async def withdraw_turn(self, opening: Opening) -> None:
        await self._meanwhile.withdraw_turn(opening)
        await self._ask(self._tell, _keys(opening), [opening.turn_id, -1, 0, 1])

    async def tell(self, signs: Sequence[Sign]) -> None:
        away = self._clock() < self._away_until
        ours = [sign for sign in signs if sign.closed or away]
        if ours:  # an end whichever of the two has counted it; while Redis is away, also what goes on
            await self._meanwhile.tell(ours)
        self._untold.extend(signs)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_all(), context=contextvars.Context())

    async def take_requests(self, wants: Sequence[Want]) -> list[Share]:
        return list(await asyncio.gather(*(self._take_one(want) for want in wants)))

    async def told(self) -> None:
        """Returns when everything that was to be told has been, or been given up."""
        if self._telling is not None:
            await self._telling

    async def close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    async def _take_one(self, want: Want) -> Share:
        key = f"quota:requests:{_name(want.account)}"
        answer = await self._ask(self._take, [key], [want.per_minute, want.count, want.returned])
        if answer is None:
            return (await self._meanwhile.take_requests([want]))[0]
        granted = int(answer[0])
        return Share(granted=granted, retry_after_s=0.0 if granted else max(0.0, float(answer[1])))

    async def _tell_all(self) -> None:
        while self._untold:
            sign = self._untold.popleft()
            await self._ask(self._tell, _keys(sign), [sign.turn_id, -1 if sign.closed else sign.for_s, sign.tokens, 0])

    async def _ask(self, script: Any, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """What the script returns; None while Redis is away."""
        if self._clock() < self._away_until:
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                return await script(keys=list(keys), args=list(arguments))
        except (RedisError, OSError) as error:
            self._away_until = self._clock() + self._away_s
            _log.warning("quotas_away", reason=str(error) or type(error).__name__)
            return None


def _keys(turn: Opening | Sign) -> list[str]:
    user, tenant = (_name(account) for account in accounts_of(turn))
    open_ = ["quota:open", f"quota:open:{user}", f"quota:open:{tenant}"]
    rates = (f"quota:{what}:{who}" for who in (user, tenant) for what in ("turns", "used"))
    return [*open_, *rates, f"quota:reserved:{user}", f"quota:reserved:{tenant}"]


def _name(account: Account) -> str:
    """Parts are quoted, so that no id reaches into another key."""
    tenant = quote(account.tenant_id, safe="")
    return f"t:{tenant}" if account.user_id is None else f"u:{tenant}:{quote(account.user_id, safe='')}"


_log = logger("quotas")
