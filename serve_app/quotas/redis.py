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
from serve_app.redis_client import new_client
from serve_app.telemetry import logger

MAX_CONNECTIONS = 16
MAX_UNTOLD = 10_000
AWAY_S = 2.0
"""How long a Redis that did not answer is left alone."""

_METER = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
local function level(key, per_minute)
  local kept = redis.call('HMGET', key, 'level', 'at', 'rate')
  local before = tonumber(kept[1] or '0') or 0
  local at = tonumber(kept[2] or now) or now
  local rate = tonumber(kept[3] or per_minute or '0') or 0
  return math.max(0, before - (now - at) * rate / 60)
end
local function keep(key, amount, per_minute)
  local rate = per_minute or tonumber(redis.call('HGET', key, 'rate') or '0') or 0
  if rate <= 0 then return end
  redis.call('HSET', key, 'level', string.format('%.6f', amount), 'at', string.format('%.6f', now), 'rate', rate)
  redis.call('PEXPIRE', key, math.ceil(amount * 60000 / rate) + 60000)
end
"""

# KEYS: open of all, of the user, of the tenant, then turns and tokens of the user, turns and tokens of the tenant.
# ARGV: turn, for_s, max_open, then concurrent, turns and tokens a minute of the user, the same of the tenant; 0 is no limit.
# Last: the turn that ends for this one, or nothing.
_OPEN = (
    _METER
    + """
for i = 1, 3 do redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now) end
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then return {'', 0, '0'} end
local ending = redis.call('ZSCORE', KEYS[2], ARGV[10]) and 1 or 0
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return {'open', 0, '0'} end
for side = 0, 1 do
  local most, turns, tokens = tonumber(ARGV[4 + side * 3]), tonumber(ARGV[5 + side * 3]), tonumber(ARGV[6 + side * 3])
  if most > 0 and redis.call('ZCARD', KEYS[2 + side]) - ending >= most then return {'concurrent', side, '0'} end
  if turns > 0 then
    local over = level(KEYS[4 + side * 2], turns) + 1 - turns
    if over > 0 then return {'turns', side, tostring(over * 60 / turns)} end
  end
  if tokens > 0 then
    local used = level(KEYS[5 + side * 2], tokens)
    keep(KEYS[5 + side * 2], used, tokens)
    if used >= tokens then return {'tokens', side, tostring((used - tokens + 1) * 60 / tokens)} end
  end
end
for side = 0, 1 do
  local turns = tonumber(ARGV[5 + side * 3])
  if turns > 0 then keep(KEYS[4 + side * 2], level(KEYS[4 + side * 2], turns) + 1, turns) end
end
for i = 1, 3 do
  redis.call('ZADD', KEYS[i], now + tonumber(ARGV[2]), ARGV[1])
  redis.call('PEXPIRE', KEYS[i], 86400000)
end
return {'', 0, '0'}
"""
)

# KEYS as above. ARGV: turn, for_s (below 0: closed), tokens, turns to give back.
_TELL = (
    _METER
    + """
if tonumber(ARGV[2]) >= 0 then
  for i = 1, 3 do
    redis.call('ZADD', KEYS[i], now + tonumber(ARGV[2]), ARGV[1])
    redis.call('PEXPIRE', KEYS[i], 86400000)
  end
  return 1
end
local was = redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if was == 0 then return 0 end
for side = 0, 1 do
  if tonumber(ARGV[3]) > 0 then keep(KEYS[5 + side * 2], level(KEYS[5 + side * 2]) + tonumber(ARGV[3])) end
  if tonumber(ARGV[4]) > 0 then
    keep(KEYS[4 + side * 2], math.max(0, level(KEYS[4 + side * 2]) - tonumber(ARGV[4])))
  end
end
return 1
"""
)

# KEYS: requests of the account. ARGV: a minute, count, returned.
_TAKE = (
    _METER
    + """
local most = tonumber(ARGV[1])
local used = math.max(0, level(KEYS[1], most) - tonumber(ARGV[3]))
local granted = math.max(0, math.min(tonumber(ARGV[2]), math.floor(most - used)))
keep(KEYS[1], used + granted, most)
return {granted, tostring((used + 1 - most) * 60 / most)}
"""
)


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
        self._open: Any = self._redis.register_script(_OPEN)
        self._tell: Any = self._redis.register_script(_TELL)
        self._take: Any = self._redis.register_script(_TAKE)
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
    return [*open_, *(f"quota:{what}:{who}" for who in (user, tenant) for what in ("turns", "tokens"))]


def _name(account: Account) -> str:
    """Parts are quoted, so that no id reaches into another key."""
    tenant = quote(account.tenant_id, safe="")
    return f"t:{tenant}" if account.user_id is None else f"u:{tenant}:{quote(account.user_id, safe='')}"


_log = logger("quotas")
