"""The replicas of a stage on the channel: found by its handle, then spoken to directly.

    request ─► a replica known ── answer
                  │     └─ gone ─► forgotten; StageUnavailable, which is for the caller to try again
                  └─ none, or looked for long ago ─► the handle says one, which Serve chooses

One that goes while nobody asks it anything is forgotten as well, by its connection: no call is lost on it.

A frame costs a tenth of a handle call. Serve does not see these calls: a stage that scales tells it what it is short of.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from functools import partial
from typing import cast

from deployments.asked import asked_by_channel
from deployments.handles import Handle, call
from serve_app.channel.port import Channel, Lost
from serve_app.errors import DeadlineExceeded, ParleyError, StageUnavailable

LOOK_AGAIN_S = 5.0
"""How often a further replica is asked for."""
FORGET_AFTER_S = 60.0
"""One that Serve has not named for so long is not spoken to any more: it may be on its way out."""
MOST = 64


class Peers:
    """The replicas of one stage, in turn. ``stage`` is its name in sentences."""

    def __init__(self, handle: Handle, channel: Channel, stage: str) -> None:
        self._handle = handle
        self._channel = channel
        self._stage = stage
        self._asked = asked_by_channel(stage)
        self._named_at: dict[str, float] = {}
        self._unwatch: dict[str, Lost] = {}
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[str] | None = None

    async def request(self, name: str, payload: bytes, timeout_s: float | None = None) -> bytes:
        """Asks one replica. Raises what it raised, TooLarge for what no frame can hold, and StageUnavailable.

        ``timeout_s``: how long to find one may take where none is known, and how long to hear from it.
        """
        with self._asked.running():
            endpoint = await self._next(timeout_s)
            try:
                answer = await self._channel.request(endpoint, name, payload, timeout_s=timeout_s)
            except StageUnavailable:
                self._forget(endpoint)  # it may have been replaced, and listens elsewhere
                raise
        if endpoint not in self._unwatch:
            self._watch(endpoint)
        return answer

    async def _next(self, timeout_s: float | None) -> str:
        now = time.monotonic()
        if now - self._looked_at >= LOOK_AGAIN_S:
            self._look(now)
        if not self._named_at:
            if self._looking is None:
                self._look(now)
            try:
                async with asyncio.timeout(timeout_s):
                    # Shielded: others wait for the same answer.
                    return await asyncio.shield(cast("asyncio.Task[str]", self._looking))
            except (TimeoutError, DeadlineExceeded):
                raise StageUnavailable(f"The {self._stage} stage has no replica at the moment.", None, 1.0) from None
        endpoint = next(iter(self._named_at))
        self._named_at[endpoint] = self._named_at.pop(endpoint)  # to the end of the line
        return endpoint

    def _watch(self, endpoint: str) -> None:
        if endpoint in self._named_at:
            self._unwatch[endpoint] = self._channel.watch(endpoint, partial(self._forget, endpoint))
            if endpoint not in self._named_at:  # it is gone already
                del self._unwatch[endpoint]

    def _forget(self, endpoint: str) -> None:
        self._named_at.pop(endpoint, None)
        if (unwatch := self._unwatch.pop(endpoint, None)) is not None:
            unwatch()

    def _look(self, now: float) -> None:
        if self._looking is None:
            self._looked_at = now
            # A fresh context: what belongs to a request is cancelled with it.
            self._looking = asyncio.create_task(self._ask(), context=contextvars.Context())
            self._looking.add_done_callback(self._found)

    async def _ask(self) -> str:
        return cast(str, await call(self._handle, self._stage, "channel_endpoint"))

    def _found(self, asked: asyncio.Task[str]) -> None:
        self._looking = None
        if asked.cancelled() or isinstance(asked.exception(), ParleyError):
            return  # who waited has been told; the others have replicas that answer
        now = time.monotonic()
        self._named_at[asked.result()] = now
        for endpoint, named_at in list(self._named_at.items()):
            if now - named_at > FORGET_AFTER_S or len(self._named_at) > MOST:
                self._forget(endpoint)
