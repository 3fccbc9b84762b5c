"""Telling a stage that its replica is about to go: before a redeploy, a scale-down or a stop of the graph.

Serve drains a replica by itself, but says nothing to what runs in it until the draining is over. The stage's constructor
runs in the replica's process, so it can put itself in front of the method that drains (``ray/serve/_private/replica.py``,
``Replica._perform_graceful_shutdown`` in Ray 2.60). If a later Ray moves that method, starting fails with the sentence
below rather than losing connections at the first redeploy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ray.serve._private.replica import Replica

from serve_app.errors import ConfigError
from serve_app.telemetry import logger

NOTICE_TIMEOUT_S = 5.0
_METHOD = "_perform_graceful_shutdown"

log = logger("draining")

Notice = Callable[[], Awaitable[None]]


def before_draining(notice: Notice) -> None:
    """Awaits ``notice`` on the calling loop when this process's replica is to go, then lets Serve drain it.

    Raises ConfigError where this Ray cannot be told. One replica a process: a second call replaces the first.
    """
    original = getattr(Replica, _METHOD, None)
    if original is None:
        raise ConfigError("This Ray version does not tell when a replica drains; install the locked version.")
    drain = getattr(original, "serves_own", original)
    loop = asyncio.get_running_loop()

    async def drain_after_notice(replica: Any) -> None:
        try:
            # The stage may live on a loop of its own.
            told = asyncio.run_coroutine_threadsafe(_told(notice), loop)
            await asyncio.wait_for(asyncio.wrap_future(told), NOTICE_TIMEOUT_S)
        except Exception:
            log.exception("draining_untold")
        await drain(replica)

    drain_after_notice.serves_own = drain  # type: ignore[attr-defined]
    setattr(Replica, _METHOD, drain_after_notice)


async def _told(notice: Notice) -> None:
    await notice()
