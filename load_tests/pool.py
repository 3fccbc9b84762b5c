"""Keeps enough users ready for open arrivals, so that a turn that becomes due finds somebody who is connected already."""

from __future__ import annotations

import math
from collections.abc import Callable

import gevent

from load_tests.process import LoadProcess

LOOK_S = 0.1
AHEAD_S = 1.0
"""Users are ready for the arrivals of so long a time."""
SPARE = 3
AT_ONCE = 10
"""More than so many new connections per look would be a load of their own."""

Spawn = Callable[[int, int], None]
"""Makes so many users (second) of the sharing entry (first)."""


def missing(level_per_s: float, users: int, busy: int, waiting: int, room: int) -> int:
    """How many users to add now to an entry's ``users``, of whom ``busy`` have a turn under way; the rest are free or connecting.

    Who connects will be free: with a server that is slow to let them in, counting them as busy would send ever more there.
    """
    wanted = busy + waiting + math.ceil(level_per_s * AHEAD_S) + SPARE
    return max(0, min(wanted - users, room, AT_ONCE))


def keep(process: LoadProcess, users: Callable[[int], int], spawn: Spawn) -> None:
    """Runs until it is killed. ``users`` counts an entry's users."""
    weights = [entry.weight for entry in process.sharing]
    while True:
        order, arrivals = process.phase, process.arrivals
        if order is not None and arrivals is not None and not process.draining:
            most = max(1, process.scenario.load.users_max // order.workers)
            room = most - sum(users(share) for share in range(len(weights)))
            for share, weight in enumerate(weights):
                level_per_s = order.level / order.workers * weight / sum(weights)
                count = missing(level_per_s, users(share), process.busy[share], arrivals.waiting_for(share), room)
                if count and weight:
                    spawn(share, count)
                    room -= count
        gevent.sleep(LOOK_S)
