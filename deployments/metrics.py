"""The metrics port on ``ray.serve.metrics``: everything appears at Ray's metrics endpoint, by the names in telemetry."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.serve import metrics

from serve_app.telemetry import BUCKETS_MS, METRICS

GAUGE_REFRESH_S = 8.0
"""Ray forgets a gauge that has not been set for two of its reporting intervals, of ten seconds each."""


class ServeMetrics:
    """Makes each metric when it is first used; a replica exports only what its stage counts."""

    def __init__(self) -> None:
        self._counters: dict[str, metrics.Counter] = {}
        self._gauges: dict[str, metrics.Gauge] = {}
        self._histograms: dict[str, metrics.Histogram] = {}
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        counter = self._counters.get(name)
        if counter is None:
            description, tags = _declared(name)
            counter = self._counters[name] = metrics.Counter(name, description=description, tag_keys=tags)
        if value > 0:
            counter.inc(value, tags=labels)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        gauge = self._gauges.get(name)
        if gauge is None:
            description, tags = _declared(name)
            gauge = self._gauges[name] = metrics.Gauge(name, description=description, tag_keys=tags)
        gauge.set(value, tags=labels)
        self._values[name, tuple(labels.items())] = value

    async def keep_gauges(self) -> None:
        """Says every gauge's value again and again, for as long as the replica runs."""
        while True:
            await asyncio.sleep(GAUGE_REFRESH_S)
            for (name, labels), value in self._values.items():
                self._gauges[name].set(value, tags=dict(labels))

    def observe(self, name: str, value: float, **labels: str) -> None:
        histogram = self._histograms.get(name)
        if histogram is None:
            description, tags = _declared(name)
            histogram = self._histograms[name] = metrics.Histogram(
                name, description=description, boundaries=[float(bucket) for bucket in BUCKETS_MS], tag_keys=tags
            )
        histogram.observe(value, tags=labels)


def _declared(name: str) -> tuple[str, Any]:
    """Description and label names. Ray's annotation says a tuple of one where it takes any number."""
    _, description, labels = METRICS[name]
    return description, labels
