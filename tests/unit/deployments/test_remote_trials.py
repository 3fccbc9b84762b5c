"""Trials over a handle: they arrive as they were, refusals as what they are, and a replica that dies is asked again."""

from __future__ import annotations

from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from deployments import remote_trials
from deployments.pickled import pack, unpack
from deployments.remote_trials import RemoteTrials
from serve_app.domain.trial import RecordedCall, TrialTools
from serve_app.domain.turns import NewTurn
from serve_app.errors import Overloaded, ParleyError, QuotaExceeded, StageUnavailable
from serve_app.turns.trials import TrialEnd, Trials
from tests.scripted import Reply, ScriptedModels
from tests.unit.deployments.handles import FakeHandle, raised_remotely
from tests.unit.turns.bench import PRINCIPAL, bench
from tests.unit.turns.test_trials import new, trials_of


class Stage:
    """The stage's deployment without Serve."""

    def __init__(self, trials: Trials, *failures: Exception) -> None:
        self.trials = trials
        self.failures = list(failures)
        self.asked: list[NewTurn] = []
        self.fake = FakeHandle(run_trial=self.run_trial, trial_offer=self.trial_offer)

    async def run_trial(self, packed: bytes) -> bytes:
        (turn,) = unpack(packed)
        self.asked.append(turn)
        if self.failures:
            raise self.failures.pop(0)
        return pack(await self.trials.run(turn))

    async def trial_offer(self, packed: bytes) -> bytes:
        what, *arguments = unpack(packed)
        return pack(await getattr(self.trials, what)(*arguments))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_trials, "AGAIN_S", 0.0)


async def test_a_trial_and_its_end_are_carried_whole() -> None:
    records = (RecordedCall(name="crm.find", arguments={"a": [1]}, result={"b": None}),)
    turn = new(tools=TrialTools(mode="recorded", calls=records))
    async with bench(ScriptedModels(Reply(pieces=("Yes",)))) as b:
        stage = Stage(trials_of(b))
        end = await RemoteTrials(stage.fake.handle).run(turn)
        assert end == await trials_of(b).run(turn)
    assert isinstance(end, TrialEnd)
    assert stage.asked == [turn]
    assert all(type(sent) is bytes for _, sent in stage.fake.calls), "Serve's own pickling costs more than all else"


async def test_what_can_be_asked_for_is_told() -> None:
    async with bench(ScriptedModels(Reply(pieces=("Yes",)))) as b:
        graph = RemoteTrials(Stage(trials_of(b)).fake.handle)
        assert await graph.prompts() == {"assistant": ("v1",)}
        assert (await graph.catalog()).default_model_id == "demo"
        assert (await graph.tools_for(PRINCIPAL)).tools == ()


@pytest.mark.parametrize("refusal", [Overloaded("Full.", None, 0.5), QuotaExceeded("Enough.", None, 2.0)])
async def test_a_refusal_arrives_with_when_to_ask_again_and_is_not_repeated(refusal: ParleyError) -> None:
    async with bench(ScriptedModels(Reply(pieces=("Yes",)))) as b:
        stage = Stage(trials_of(b), raised_remotely(refusal))
        with pytest.raises(type(refusal)) as caught:
            await RemoteTrials(stage.fake.handle).run(new())
    assert caught.value.retry_after_s == refusal.retry_after_s
    assert len(stage.asked) == 1


async def test_a_replica_that_goes_away_is_asked_again_for_the_same_turn() -> None:
    gone = ActorUnavailableError("gone", b"\0" * 16)
    async with bench(ScriptedModels(Reply(pieces=("Yes",)))) as b:
        stage = Stage(trials_of(b), gone)
        end = await RemoteTrials(stage.fake.handle).run(new())
    assert end.turn.state == "completed"
    assert [turn.key for turn in stage.asked] == [new().key] * 2


async def test_a_stage_that_stays_away_is_given_up() -> None:
    gone: list[Any] = [ActorUnavailableError("gone", b"\0" * 16) for _ in range(9)]
    async with bench(ScriptedModels(Reply(pieces=("Yes",)))) as b:
        stage = Stage(trials_of(b), *gone)
        with pytest.raises(StageUnavailable):
            await RemoteTrials(stage.fake.handle).run(new())
    assert len(stage.asked) == remote_trials.TRIES
