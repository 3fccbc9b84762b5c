"""The turns stage: each replica owns the turns it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import msgspec
from ray import serve

from deployments.autoscaling import WAITING
from deployments.draining import before_draining
from deployments.handles import Handle, RemoteModels, RemoteTools
from deployments.pickled import pack, unpack
from deployments.remote_prompts import RemotePrompts
from deployments.remote_store import remote_store
from deployments.remote_trials import RemoteTrials
from deployments.remote_turns import ANSWERED, CANCEL, FOLLOW, FollowRequest, RemoteFollower, RemoteTurns
from deployments.shell import Shell, own_handle, owner_of
from serve_app.channel.port import Address
from serve_app.domain.ids import TurnKey
from serve_app.models.port import ModelGateway
from serve_app.prompting.port import PromptBuilder
from serve_app.storage.port import Store
from serve_app.tools.port import ToolExecutor
from serve_app.turns.shadow import Shadow
from serve_app.turns.shadow_config import load_shadow
from serve_app.turns.stage import TurnsStage
from serve_app.turns.trials import Trials

_OFFERS = frozenset({"catalog", "prompts", "tools_for"})


class Neighbours(TypedDict):
    """The stages that turns call on."""

    store: Store
    prompts: PromptBuilder
    models: ModelGateway
    tools: ToolExecutor


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
        neighbours: Neighbours = {
            "store": remote_store(store, self._channel),
            "prompts": RemotePrompts(prompts, self._channel),
            "models": RemoteModels(models, self._channel),
            "tools": RemoteTools(tools),
        }
        self._stage = TurnsStage(
            owner=owner_of(self._channel),
            settings=self.settings,
            metrics=self.metrics,
            # By handle, so that Serve counts them and waits for them as for any other turn.
            start_turn=RemoteTurns(own_handle(), self._channel, 1).start,
            **neighbours,
        )
        self._trials = Trials(stage=self._stage, lease_s=self.settings.turn.lease_s, **neighbours)
        self._channel.handle(FOLLOW, self._follow)
        self._channel.handle(CANCEL, self._cancel)
        self._channel.handle(ANSWERED, self._answered)
        self._shadow = self._mirroring(neighbours["store"])
        self._stage.start()
        before_draining(self._drain)

    def _mirroring(self, store: Store) -> Shadow | None:
        """What mirrors a share of the live turns, started; None where the settings want none."""
        config = load_shadow(self.settings)
        if config is None:
            return None
        shadow = Shadow(
            config,
            store=store,
            graph=RemoteTrials(own_handle()),
            metrics=self.metrics,
            timeout_s=self.settings.turn.timeout_s,
        )
        self._stage.on_completed = shadow.offer
        shadow.start()
        return shadow

    async def run_turn(self, key: TurnKey, to: Address | None, after_seq: int, dead: Sequence[str]) -> bool:
        """Runs an accepted turn to its end; ``to`` is shown its events on the channel. False where it could not be claimed."""
        follower = None if to is None else RemoteFollower(self._channel, to)
        with self.load.running():
            return await self._stage.run_turn(key, follower, after_seq, dead=dead)

    async def run_trial(self, packed: bytes) -> bytes:
        """Accepts a trial and runs it to its end, which is the answer; see ``serve_app.turns.trials``."""
        with self.load.running():
            (turn,) = unpack(packed)
            return pack(await self._trials.run(turn))

    async def trial_offer(self, packed: bytes) -> bytes:
        """What trials can be asked for: ``catalog``, ``prompts``, or ``tools_for`` a principal."""
        what, *arguments = unpack(packed)
        if what not in _OFFERS:
            raise AttributeError(what)
        return pack(await getattr(self._trials, what)(*arguments))

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
        if self._shadow is not None:
            await self._shadow.stop()
        await self._stage.stop()
        await self._channel.stop()
