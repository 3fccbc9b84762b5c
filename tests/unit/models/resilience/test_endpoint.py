"""What is remembered of endpoints: whose failure a failure is, and that no more is kept than there is room for."""

from __future__ import annotations

import pytest

from serve_app.errors import (
    DeadlineExceeded,
    InvalidInput,
    ParleyError,
    QuotaExceeded,
    Unfinished,
    Unreachable,
    UpstreamFailed,
)
from serve_app.models.breaker import IN_A_ROW
from serve_app.models.config import ModelConfig
from serve_app.models.endpoint import MOST_KEPT, SILENT_S, Endpoint, Endpoints
from serve_app.models.routes import Route
from serve_app.telemetry import MemoryMetrics
from tests.unit.models.resilience.timing import Chance, Clock


class Bench:
    def __init__(self) -> None:
        self.clock, self.metrics = Clock(), MemoryMetrics()
        self.endpoints = Endpoints(self.metrics, self.clock, Chance())

    def of(self, model: str = "m", provider: str = "p", own_of: str | None = None, listed: bool = True) -> Endpoint:
        return self.endpoints.of(Route(provider, ModelConfig(id=model), listed), own_of)

    def gauge(self, label: str) -> float:
        return self.metrics.gauges["parley_breaker_open", label]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def fail(endpoint: Endpoint, failure: ParleyError, times: int = IN_A_ROW, lasted_s: float = 0.0) -> None:
    for _ in range(times):
        admission = endpoint.admit()
        assert admission is not None
        admission.failed(failure, lasted_s)


@pytest.mark.parametrize("failure", [UpstreamFailed("x"), QuotaExceeded("x", True, 1.0)])
def test_a_failing_model_is_held_back_and_others_of_its_provider_are_not(bench: Bench, failure: ParleyError) -> None:
    fail(bench.of(), failure)
    assert bench.of().admit() is None
    assert bench.of("other").admit() is not None
    assert bench.gauge("p/m") == 1
    refusal = bench.of().refusal()
    assert refusal.retryable and refusal.retry_after_s is not None and 0 < refusal.retry_after_s < 5
    assert "'m'" in refusal.message and "'p'" in refusal.message


def test_a_provider_that_cannot_be_reached_is_held_back_with_all_its_models(bench: Bench) -> None:
    fail(bench.of("one"), Unreachable("x"), IN_A_ROW - 2)
    fail(bench.of("two", own_of="acme"), Unreachable("x"), 2)
    for endpoint in (bench.of("one"), bench.of("three"), bench.of("one", own_of="globex")):
        assert endpoint.admit() is None
    assert bench.of("one", provider="q").admit() is not None
    assert bench.metrics.gauges == {("parley_breaker_open", "p"): 1}
    bench.clock.advance(bench.of("three").refused_for_s())
    probe = bench.of("three").admit()
    assert probe is not None
    assert bench.of("one").admit() is None, "one probe for the whole provider"
    probe.failed(UpstreamFailed("status 500"), 0.1)
    assert bench.of("one").admit() is not None, "it was reached"


@pytest.mark.parametrize(
    ("failure", "lasted_s"),
    [
        (InvalidInput("x"), 1.0),
        (UpstreamFailed("our key is wrong", False), 1.0),
        (QuotaExceeded("all spent", False), 1.0),
        (DeadlineExceeded("its caller was in a hurry"), SILENT_S / 2),
    ],
    ids=str,
)
def test_what_is_not_the_endpoints_fault_does_not_count(bench: Bench, failure: ParleyError, lasted_s: float) -> None:
    fail(bench.of(), failure, 50, lasted_s)
    assert not bench.of().is_open
    fail(bench.of(), UpstreamFailed("x"))
    bench.clock.advance(bench.of().refused_for_s())
    fail(bench.of(), failure, 3, lasted_s)
    assert bench.of().is_open, "nor does it close a breaker"


def test_long_silence_until_the_deadline_counts(bench: Bench) -> None:
    fail(bench.of(), DeadlineExceeded("x"), lasted_s=SILENT_S)
    assert bench.of().is_open
    other = bench.of("slow")
    for _ in range(20):
        admission = other.admit()
        assert admission is not None
        admission.answered()
        admission.failed(DeadlineExceeded("a long answer"), 300.0)
    assert not other.is_open


def test_what_happens_by_a_tenants_own_key_is_the_tenants_alone(bench: Bench) -> None:
    fail(bench.of(own_of="acme"), QuotaExceeded("x"))
    assert bench.of(own_of="acme").admit() is None
    for other in (bench.of(), bench.of(own_of="globex")):
        assert other.admit() is not None
        assert other.budget is not bench.of(own_of="acme").budget
    assert bench.gauge("p/own key") == 1


def test_requests_that_a_model_ends_without_an_answer_close_it_to_nobody(bench: Bench) -> None:
    fail(bench.of(), Unfinished("x"), IN_A_ROW * 3)
    assert not bench.of().is_open
    fail(bench.of(), UpstreamFailed("x"))
    bench.clock.advance(bench.of().refused_for_s())
    fail(bench.of(), Unfinished("x"), 1)
    assert not bench.of().is_open, "a provider that says how a model ended is there again"


def test_made_up_names_share_one_budget_and_one_label(bench: Bench) -> None:
    names = [bench.of(f"made-up-{n}", listed=False) for n in range(30)]
    taken = sum(1 for endpoint in names if endpoint.budget.take())
    assert taken == 10
    assert bench.of("m").budget.take()
    assert bench.of("x", listed=False, own_of="acme").budget.take()
    fail(names[0], UpstreamFailed("x"))
    fail(names[1], UpstreamFailed("x"))
    assert bench.gauge("p/other") == 2
    assert names[2].admit() is not None


def test_memory_is_bounded_and_models_of_the_file_are_never_forgotten(bench: Bench) -> None:
    listed = bench.of()
    kept = bench.of("popular", listed=False)
    fail(bench.of("made-up", listed=False), UpstreamFailed("x"))
    assert bench.gauge("p/other") == 1
    for n in range(MOST_KEPT + 100):
        bench.of(f"made-up-{n}", listed=False)
        assert bench.of("popular", listed=False) is kept
    for n in range(MOST_KEPT + 100):
        bench.of(own_of=f"tenant-{n}")
    assert bench.of() is listed
    assert len(bench.endpoints) == MOST_KEPT + 1
    assert bench.gauge("p/other") == 0, "what is forgotten is not counted as open for ever"


def test_the_length_of_answers_is_learned_slowly(bench: Bench) -> None:
    endpoint = bench.of()
    before = endpoint.expected_output_tokens()
    endpoint.learn(10_000)
    assert before < endpoint.expected_output_tokens() < 2000
    for _ in range(100):
        endpoint.learn(50)
    assert 45 <= endpoint.expected_output_tokens() <= 55
