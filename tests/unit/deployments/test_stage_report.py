"""What a replica says of itself, to whoever asks and as metrics: the same figures, and counters that only grow."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest

from deployments import asked
from deployments.asked import all_asked, asked_by_channel, asked_by_handle, asked_of
from deployments.stage_report import Figures, Replica, Reporter, pack_report, unpack_report
from serve_app.domain.stages import Asked, QuotaState
from serve_app.errors import Overloaded
from serve_app.stage_load import StageLoad
from serve_app.telemetry import MemoryMetrics

WHO = Replica(stage="Store", replica="r7", node="10.0.0.1", slots=50)
QUOTA = QuotaState(endpoint="openai/small", kind="tokens", limit=1000, used=300)


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(asked, "_asked", {})
    yield


@pytest.fixture
def load() -> StageLoad:
    return StageLoad()


@pytest.fixture
def metrics() -> MemoryMetrics:
    return MemoryMetrics()


def test_a_replica_tells_what_it_does_and_what_only_its_stage_has(load: StageLoad, metrics: MemoryMetrics) -> None:
    figures = Figures(queued=3, writer_s=1.5, request_units=20.5, quotas=(QUOTA,))
    reporter = Reporter(WHO, load, metrics, lambda: figures)
    load.begin()
    with pytest.raises(Overloaded), load.running():
        raise Overloaded("full")
    with asked_of("Turns").running():
        pass
    before = time.time()
    report = unpack_report(pack_report(reporter.report()))
    state = report.replica
    assert (state.stage, state.replica, state.node, state.slots) == ("Store", "r7", "10.0.0.1", 50)
    assert (state.ongoing, state.calls, state.failed) == (1, 2, 1)
    assert (state.queued, state.writer_s, state.request_units) == (3, 1.5, 20.5)
    assert 0 < state.busy_s < 5
    assert 0 < state.loop_cpu_s <= state.cpu_s <= time.process_time()
    assert before <= state.at <= time.time()
    assert state.started_at <= state.at
    assert state.memory_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert [(one.stage, one.calls) for one in state.asked] == [("Turns", 1)]
    assert report.quotas == (QUOTA,)
    assert report.node.node == "10.0.0.1"


def test_slots_are_those_of_whoever_hands_the_calls_in(load: StageLoad, metrics: MemoryMetrics) -> None:
    assert Reporter(WHO, load, metrics, lambda: Figures(slots=4096)).report().replica.slots == 4096
    assert Reporter(WHO, load, metrics, Figures).report().replica.slots == 50


def test_metrics_say_the_same_and_counters_grow_by_what_came_since(load: StageLoad, metrics: MemoryMetrics) -> None:
    figures = Figures(queued=2, writer_s=0.5)
    reporter = Reporter(WHO, load, metrics, lambda: figures)
    with load.running(), asked_of("ModelGateway").running():
        pass
    reporter.export()
    load.begin()
    with pytest.raises(ValueError), load.running():
        raise ValueError
    figures = Figures(queued=0, writer_s=0.75)
    reporter.export()
    counts, gauges = metrics.counts, metrics.gauges
    assert counts["parley_stage_calls_total", "Store"] == load.calls == 3
    assert counts["parley_stage_failures_total", "Store"] == load.failed == 1
    assert 0 < counts["parley_stage_busy_seconds_total", "Store"] <= load.busy_s
    assert counts["parley_store_writer_seconds_total", "Store"] == 0.75
    assert counts["parley_stage_asked_total", "ModelGateway"] == 1
    assert counts["parley_stage_asked_seconds_total", "ModelGateway"] == asked_of("ModelGateway").busy_s > 0
    assert 0 < counts["parley_stage_loop_cpu_seconds_total", "Store"] <= time.thread_time()
    assert 0 < counts["parley_stage_cpu_seconds_total", "Store"] <= time.process_time()
    assert gauges["parley_stage_ongoing", "Store"] == 1
    assert gauges["parley_stage_slots", "Store"] == 50
    assert gauges["parley_stage_queued", "Store"] == 0
    assert gauges["parley_stage_memory_bytes", "Store"] > 1e6
    assert gauges["parley_stage_loop_lag_ms", "Store"] >= 0


def test_a_stage_without_a_writer_exports_none(load: StageLoad, metrics: MemoryMetrics) -> None:
    Reporter(WHO, load, metrics, Figures).export()
    assert ("parley_store_writer_seconds_total", "Store") not in metrics.counts


def test_only_what_the_callee_counts_is_counted_as_asked() -> None:
    assert asked_by_handle("model gateway", "generate") is asked_of("ModelGateway")
    assert asked_by_handle("tool executor", "call") is asked_of("ToolExecutor")
    assert asked_by_handle("store", "invoke") is asked_by_channel("store") is asked_of("Store")
    assert asked_by_handle("prompt builder", "answer") is asked_by_channel("prompt builder")
    for stage, method in (
        ("model gateway", "catalog"),
        ("tool executor", "tools_for"),
        ("store", "channel_endpoint"),
        ("companions", "ready"),
    ):
        assert asked_by_handle(stage, method) is None
    assert [one.stage for one in all_asked()] == ["ModelGateway", "PromptBuilder", "Store", "ToolExecutor"]
    assert all_asked()[0] == Asked(stage="ModelGateway", ongoing=0, calls=0, busy_s=0.0)
