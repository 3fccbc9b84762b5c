"""Metrics on Serve's own: declared ones only, with their description, labels and buckets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.serve import metrics as serve_metrics

from deployments.metrics import ServeMetrics
from serve_app.telemetry import BUCKETS_MS, METRICS


class Recorded:
    """Stands in for one of Serve's metric classes; keeps how each was made and used."""

    made: list[Recorded]

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        self.options = options
        self.values: list[tuple[float, dict[str, str]]] = []
        self.made.append(self)

    def record(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.options["tag_keys"])
        self.values.append((value, tags))

    inc = set = observe = record


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    kept: list[Recorded] = []
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(serve_metrics, kind, type(kind, (Recorded,), {"made": kept}))
    return kept


def test_a_metric_is_made_once_as_it_is_declared(made: list[Recorded]) -> None:
    metrics = ServeMetrics()
    metrics.count("parley_turns_total", outcome="completed")
    metrics.count("parley_turns_total", 2, outcome="failed")
    metrics.gauge("parley_turns_running", 3)
    metrics.gauge("parley_turns_running", 2)
    metrics.observe("parley_tool_ms", 1.5, tool="crm.find")
    metrics.observe("parley_tool_ms", 2.5, tool="crm.find")
    assert [(type(one).__name__, one.name, one.values) for one in made] == [
        ("Counter", "parley_turns_total", [(1, {"outcome": "completed"}), (2, {"outcome": "failed"})]),
        ("Gauge", "parley_turns_running", [(3, {}), (2, {})]),
        ("Histogram", "parley_tool_ms", [(1.5, {"tool": "crm.find"}), (2.5, {"tool": "crm.find"})]),
    ]
    for one in made:
        assert (one.options["description"], one.options["tag_keys"]) == METRICS[one.name][1:]
    assert made[2].options["boundaries"] == [float(bucket) for bucket in BUCKETS_MS]


def test_nothing_counted_is_no_mistake(made: list[Recorded]) -> None:
    """Ray refuses to add zero."""
    ServeMetrics().count("parley_tokens_total", 0, direction="input", model="demo")
    assert made[0].values == []


async def test_a_gauge_that_does_not_change_is_said_again_before_ray_forgets_it(
    made: list[Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.metrics.GAUGE_REFRESH_S", 0.001)
    metrics = ServeMetrics()
    metrics.gauge("parley_tool_servers_up", 0, server="crm")
    metrics.gauge("parley_tool_servers_up", 1, server="crm")
    metrics.gauge("parley_tool_servers_up", 0, server="hr")
    keeping = asyncio.create_task(metrics.keep_gauges())
    async with asyncio.timeout(5):
        while len(made[0].values) < 7:  # noqa: ASYNC110 - Ray tells nobody
            await asyncio.sleep(0)
    keeping.cancel()
    assert made[0].values[3:5] == [(1, {"server": "crm"}), (0, {"server": "hr"})]


def test_a_metric_nobody_declared_is_a_mistake_that_shows(made: list[Recorded]) -> None:
    metrics = ServeMetrics()
    for method in (metrics.count, metrics.gauge, metrics.observe):
        with pytest.raises(KeyError):
            method("parley_nothing", 1)


def test_rays_own_classes_take_every_metric_that_is_declared() -> None:
    metrics = ServeMetrics()
    method = {"counter": metrics.count, "gauge": metrics.gauge, "histogram": metrics.observe}
    for name, (kind, _, labels) in METRICS.items():
        method[kind](name, 1, **dict.fromkeys(labels, "x"))
