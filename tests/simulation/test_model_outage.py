"""A model's provider fails for a whole minute of simulated time: it is spared, its failing is noticed, and so is its recovery."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.models.config import ModelConfig, ModelsConfig, OpenAIProviderConfig, ProviderConfig
from serve_app.models.gateway import Gateway
from serve_app.telemetry import MemoryMetrics
from tests.simulation.loop import SimLoop
from tests.simulators.models.outage import OUTAGES, TurnSeen, Upstream, Ways, run_turns

FAILS_AT, WORKS_AT, ENDS_AT = 30.0, 90.0, 130.0
NOTICED_S = 5.0
"""How soon an outage is noticed, and its end."""
NEVER = 1e9
BUSY = 8.0
"""Turns in a second."""
BEFORE_A_PIECE = [kind for kind, ways in OUTAGES.items() if not ways.pieces]
HARD = [kind for kind in BEFORE_A_PIECE if OUTAGES[kind].share == 1.0]


class GaugeTimes(MemoryMetrics):
    """Remembers when the first breaker opened."""

    def __init__(self, loop: SimLoop) -> None:
        super().__init__()
        self._loop = loop
        self.opened_at: float | None = None

    def gauge(self, name: str, value: float, **labels: str) -> None:
        super().gauge(name, value, **labels)
        if name == "parley_breaker_open" and value and self.opened_at is None:
            self.opened_at = self._loop.time()


class Run:
    """Turns that ask for ``m``, and in its place for ``spare``, for as long as ``until_s``."""

    def __init__(
        self, main: Ways, seed: int, per_s: float, *, spare: bool = False, hedge_after_s: float | None = None,
        fails_at: float = FAILS_AT, works_at: float = WORKS_AT, until_s: float = ENDS_AT,
    ) -> None:  # fmt: skip
        loop = SimLoop(seed)
        rng = random.Random(seed)
        self.metrics = GaugeTimes(loop)
        self.main = Upstream(rng, main, fails_at, works_at)
        self.spare = Upstream(rng, main, NEVER, NEVER, name="spare")
        upstreams = {upstream.name: upstream for upstream in (self.main, self.spare)}

        def make(config: ProviderConfig, key: str | None, max_response_bytes: int) -> Upstream:
            return upstreams[config.name]

        m = ModelConfig(id="m", fallback=("spare",) if spare else ())
        providers = [_provider("p", m, hedge_after_s), _provider("spare", ModelConfig(id="spare"), None)]
        try:
            models = Gateway(
                ModelsConfig(providers=tuple(providers)), {}, self.metrics, 100_000,
                make=make, clock=loop.time, chance=rng.random,
            )  # fmt: skip
            self.turns = loop.run_until_complete(run_turns(models, rng, per_s, until_s))
        finally:
            loop.close()

    def admitted(self, start: float, end: float) -> list[TurnSeen]:
        return [turn for turn in self.turns if start <= turn.began < end]


def _provider(name: str, model: ModelConfig, hedge_after_s: float | None) -> OpenAIProviderConfig:
    return OpenAIProviderConfig(
        name=name, kind="openai", base_url="http://127.0.0.1:9", models=(model,), hedge_after_s=hedge_after_s
    )


def count(moments: Sequence[float], start: float, end: float) -> int:
    return sum(1 for moment in moments if start <= moment < end)


@pytest.mark.parametrize("per_s", [1.0, BUSY])
@pytest.mark.parametrize("kind", BEFORE_A_PIECE)
def test_a_minutes_outage_gets_no_more_calls_than_turns_is_noticed_within_five_seconds_and_so_is_its_end(
    kind: str, per_s: float
) -> None:
    for seed in range(2):
        run = Run(OUTAGES[kind], seed, per_s)
        admitted = run.admitted(FAILS_AT, WORKS_AT)
        called = count(run.main.calls, FAILS_AT, WORKS_AT)
        assert called <= 1.1 * len(admitted), f"{called} calls for {len(admitted)} turns"
        assert len(run.main.calls) <= 1.1 * len(run.turns)
        assert run.main.running == 0

        assert run.metrics.opened_at is not None
        if per_s == BUSY:
            assert FAILS_AT <= run.metrics.opened_at <= FAILS_AT + NOTICED_S
        after = run.admitted(WORKS_AT + NOTICED_S, ENDS_AT)
        assert len(after) > 10
        assert [turn.failure for turn in after if turn.failure] == []


@pytest.mark.parametrize("kind", [kind for kind in OUTAGES if kind not in BEFORE_A_PIECE])
def test_answers_that_break_off_for_a_minute_are_given_up_long_before_every_turn_has_asked_three_times(
    kind: str,
) -> None:
    """A probe that is answered tells nothing here, so calls flow in between; it is the turn's steps that ask again."""
    for seed in range(2):
        run = Run(OUTAGES[kind], seed, BUSY)
        # Turns from before it are cut as well, and ask again.
        admitted = [turn for turn in run.turns if turn.began < WORKS_AT and turn.ended > FAILS_AT]
        called = count(run.main.calls, FAILS_AT, WORKS_AT)
        assert called <= 1.5 * len(admitted), f"{called} calls for {len(admitted)} turns"
        assert run.metrics.opened_at is not None
        assert FAILS_AT <= run.metrics.opened_at <= FAILS_AT + NOTICED_S
        # Answers that began during the outage break off a little later: until then it is not over for whoever watches.
        over_at = WORKS_AT + OUTAGES[kind].after_s + run.main.first_piece_s[1]
        assert [turn.failure for turn in run.admitted(over_at + NOTICED_S, ENDS_AT) if turn.failure] == []


@pytest.mark.parametrize("kind", HARD)
def test_while_it_lasts_turns_fail_at_once_but_for_a_probe_every_second_or_two(kind: str) -> None:
    run = Run(OUTAGES[kind], 7, BUSY)
    during = run.admitted(FAILS_AT + NOTICED_S, WORKS_AT)
    called = count(run.main.calls, FAILS_AT + NOTICED_S, WORKS_AT)
    waited = [turn for turn in during if turn.failure is None or turn.ended > turn.began]
    assert called <= WORKS_AT - FAILS_AT - NOTICED_S, "at most one a second"
    assert len(waited) <= called
    for turn in during:
        if turn.failure is not None:
            assert turn.failure.retryable
            if turn not in waited:
                assert turn.failure.retry_after_s is not None and turn.failure.retry_after_s <= NOTICED_S


@pytest.mark.parametrize("kind", HARD)
def test_with_a_fallback_no_turn_fails_and_neither_provider_gets_more_calls_than_turns(kind: str) -> None:
    run = Run(OUTAGES[kind], 3, BUSY, spare=True)
    assert [turn.failure for turn in run.turns if turn.failure] == []
    admitted = len(run.admitted(FAILS_AT, WORKS_AT))
    for upstream in (run.main, run.spare):
        assert count(upstream.calls, FAILS_AT, WORKS_AT) <= 1.1 * admitted
        assert upstream.running == 0
    instead = {turn.model_id for turn in run.admitted(FAILS_AT + NOTICED_S, WORKS_AT - NOTICED_S)}
    assert instead == {"spare"}
    assert all(turn.warning for turn in run.turns if turn.model_id == "spare")
    afterwards = run.admitted(WORKS_AT + NOTICED_S, ENDS_AT)
    assert {(turn.model_id, turn.warning) for turn in afterwards} == {("m", "")}


def test_when_all_streams_break_off_at_one_moment_every_answer_is_given_again() -> None:
    run = Run(OUTAGES["breaks off in the middle"], 9, BUSY, works_at=FAILS_AT)
    running = [turn for turn in run.turns if turn.began < FAILS_AT < turn.ended]
    assert len(running) >= 30
    assert [turn.failure for turn in running if turn.failure] == []
    late = [turn for turn in run.turns if turn.failure and turn.began > FAILS_AT + NOTICED_S]
    assert late == []


def test_hedges_of_a_provider_that_has_become_slow_are_a_tenth_of_the_calls_at_most() -> None:
    slow = Ways(OUTAGES["status 500"].failure, after_s=60.0)
    run = Run(slow, 5, BUSY, hedge_after_s=2.0)
    hedges = sum(value for key, value in run.metrics.counts.items() if key[0] == "parley_model_hedges_total")
    assert hedges >= 10
    assert len(run.main.calls) <= 1.1 * len(run.turns) + 10
    assert run.main.running == 0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    share=st.floats(0, 1),
    kind=st.sampled_from(BEFORE_A_PIECE),
    per_s=st.sampled_from([0.5, 3.0, 30.0]),
    hedge_after_s=st.sampled_from([None, 0.5]),
)
def test_whatever_fails_calls_are_never_more_than_a_tenth_above_the_turns_and_ten(
    seed: int, share: float, kind: str, per_s: float, hedge_after_s: float | None
) -> None:
    ways = Ways(OUTAGES[kind].failure, OUTAGES[kind].after_s, share=share)
    run = Run(
        ways, seed, per_s, hedge_after_s=hedge_after_s, fails_at=0.0, works_at=NEVER, until_s=min(60.0, 100 / per_s)
    )
    for turn in run.turns:
        began = count([each.began for each in run.turns], 0.0, turn.began + 1e-9)
        assert count(run.main.calls, 0.0, turn.began) <= 1.1 * began + 10
    assert len(run.main.calls) <= 1.1 * len(run.turns) + 10
    assert run.main.running == 0
