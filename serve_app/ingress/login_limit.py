"""How often one address may try names and passwords: a lock on each account does not stop one guess at each of a million.

Counted in each Ingress replica, and only where the address is known (``limits.forwarded_hops``).
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from serve_app.errors import QuotaExceeded

MAX_ADDRESSES = 10_000
"""Further ones push out those that have not tried for longest."""
WINDOW_S = 60.0


class _Bucket(Struct):
    left: float
    at: float


class LoginLimit:
    """A bucket for each address: ``per_minute`` tries at once, and as many again within a minute."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def spend(self, address: str | None) -> None:
        """Counts a try. Raises QuotaExceeded."""
        if address is None:
            return
        now = self._clock()
        bucket = self._buckets.pop(address, None) or _Bucket(self._per_minute, now)
        rate = self._per_minute / WINDOW_S
        bucket.left = min(float(self._per_minute), bucket.left + (now - bucket.at) * rate)
        bucket.at = now
        self._buckets[address] = bucket
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        if bucket.left < 1:
            wait_s = math.ceil((1 - bucket.left) / rate)
            raise QuotaExceeded("Too many logins from your address; wait a moment.", None, wait_s)
        bucket.left -= 1
