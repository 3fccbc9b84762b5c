"""The turns stage: each replica owns the turns it runs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from ray import serve

from deployments.autoscaling import WAITING
from deployments.draining import before_draining
from deployments.handles import Handle, RemoteModels, RemoteTools
from deployments.remote_prompts import RemotePrompts
from deployments.remote_store import remote_store
from deployments.remote_turns import ANSWERED, CANCEL, FOLLOW, FollowRequest, RemoteFollower, RemoteTurns
from deployments.shell import Shell, own_handle, owner_of
from serve_app.channel.port import Address
from serve_app.domain.ids import TurnKey
from serve_app.turns.stage import TurnsStage


@serve.deployment(name="Turns")
class TurnsDeployment(Shell):
    async def start(
        self,
        *,
        store: Handle,
        prompts: Handle,
        models: Handle,
        tools: Handle,
    ) -> None:
        self._channel = await self.open_channel(tick_ms=0)  # what is shown comes in one batch per append
        self._stage = TurnsStage(
            owner=owner_of(self._channel),
            settings=self.settings,
            store=remote_store(store, self._channel),
            prompts=RemotePrompts(prompts, self._channel),
            models=RemoteModels(models, self._channel),
            tools=RemoteTools(tools),
            metrics=self.metrics,
            # By handle, so that Serve counts them and waits for them as for any other turn.
            start_turn=RemoteTurns(own_handle(), self._channel, 1).start,
        )
        self._channel.handle(FOLLOW, self._follow)
        self._channel.handle(CANCEL, self._cancel)
        self._channel.handle(ANSWERED, self._answered)
        self._stage.start()
        before_draining(self._drain)

    async def run_turn(self, key: TurnKey, to: Address | None, after_seq: int, dead: Sequence[str]) -> bool:
        """Runs an accepted turn to its end; ``to`` is shown its events on the channel. False where it could not be claimed."""
        follower = None if to is None else RemoteFollower(self._channel, to)
        with self.load.running():
            return await self._stage.run_turn(key, follower, after_seq, dead=dead)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """As every stage's, and how many turns only wait for their users."""
        return await super().record_autoscaling_stats() | {WAITING: self._stage.waiting}

    async def _drain(self) -> None:
        self._stage.drain()

    async def _follow(self, payload: bytes) -> bytes:
        request = msgspec.msgpack.decode(payload, type=FollowRequest)
        follower = RemoteFollower(self._channel, request.to)
        return b"1" if self._stage.follow(request.turn_id, follower, request.after_seq) else b"0"

    async def _cancel(self, payload: bytes) -> bytes:
        self._stage.hint_cancel(payload.decode())
        return b""

    async def _answered(self, payload: bytes) -> bytes:
        self._stage.hint_answer(payload.decode())
        return b""

    async def __del__(self) -> None:
        await self._stage.stop()
        await self._channel.stop()
