"""What the Grafana dashboard and the Prometheus rules ask for, a graph exports: by name, type and labels."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from serve_app.settings import PROJECT_ROOT
from serve_app.telemetry import METRICS
from tests.e2e.outside import companions
from tests.e2e.processes import free_port
from tests.e2e.protocol_client import Api
from tests.e2e.server import ParleyServer
from tests.watching import expressions

FOLDER = Path(__file__).parent
EXPORTED_WITHIN_S = 90.0
API_KEY = "sk-watched"
ELSEWHERE = {
    "parley_store_request_units_total": "tests/e2e/test_azure.py",
    "parley_store_call_ms": "tests/e2e/test_azure.py",
}
"""What only a graph on Azure has: the test that shows it exported there."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParleyServer]:
    """A graph in which everything happens that there is a metric for: prices, quotas, slow and missing providers, a limit, a
    shadow."""
    folder = tmp_path_factory.mktemp("watched")
    port = free_port()
    script = str(FOLDER / "provider_script.yaml")
    shadow = folder / "shadow.yaml"
    shadow.write_text("share: 1.0\ncandidates: [{name: again}]\n")
    server = ParleyServer(
        folder,
        variables={
            "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
            "OPENAI_API_KEY": API_KEY,
            "GONE_URL": f"http://127.0.0.1:{free_port()}/v1",
            "PARLEY_MODELS": str(FOLDER / "watched_models.yaml"),
            "PARLEY_ANSWER_CACHE__BACKEND": "memory",
            "PARLEY_ANSWER_CACHE__ANY_TEMPERATURE": "true",
            "PARLEY_LIMITS__USER_CONCURRENT_TURNS": "1",
            "PARLEY_SHADOW": str(shadow),
        },
    )
    with companions(folder, port, "provider", "--script", script, "--api-key", API_KEY):
        try:
            server.start()
            yield server
            server.stop()
        finally:
            server.kill()


async def live(graph: ParleyServer) -> None:
    """A turn by each way in, and all that can happen to one."""
    async with Api.as_new_user(graph.url) as api:
        await api.chat("Good morning", model_id="plain")
        await api.chat("Good morning", model_id="plain")  # as the cache has it
        await api.chat("Take your time", model_id="slow")
        await api.chat("Is anybody there?", model_id="away")
        async with api.posting("Go", model_id="no-credit") as failing:
            await failing.aread()
        async with api.socket() as chat:
            await chat.start_session()
            turn = await chat.begin("Tell me about OPP-1002", model_id="obeys-what-it-reads")
            question = await chat.until("tool.approval")
            async with api.posting("Another at once", model_id="plain") as refused:
                assert refused.status_code == 429, await refused.aread()
            await api.http.post(f"/api/approvals/{question['approval_id']}", json={"approved": False})
            await chat.finish(turn)
    # Breakers open where several calls in a row have failed.
    for _ in range(6):
        async with Api.as_new_user(graph.url) as api:
            await api.chat("Is anybody there?", model_id="away")


async def families_with(graph: ParleyServer, wanted: set[str]) -> dict[str, Metric]:
    """All that is exported, once ``wanted`` is among it or it is too late."""
    until = time.monotonic() + EXPORTED_WITHIN_S
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        while True:
            page = (await http.get(graph.metrics_url)).text
            if all(f"\n{name}" in page for name in wanted) or time.monotonic() > until:
                break
            await asyncio.sleep(1)
    found: dict[str, Metric] = {}
    for family in text_string_to_metric_families(page):
        if family.name in found:
            found[family.name].samples.extend(family.samples)
        else:
            found[family.name] = family
    return found


async def test_everything_that_is_asked_for_is_exported(watched: ParleyServer) -> None:
    await live(watched)
    asked = [selector for each in expressions() for selector in each.selectors if ":" not in selector.name]
    here = [one for one in asked if one.family.removeprefix("ray_") not in ELSEWHERE]
    here = [one for one in here if one.name.removeprefix("ray_") not in ELSEWHERE]
    exported = await families_with(watched, {one.name for one in here})
    samples: dict[str, list[dict[str, str]]] = {}
    for family in exported.values():
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(dict(sample.labels))
    assert sorted({one.name for one in here} - set(samples)) == [], "not exported"
    lacking = {
        (one.name, label) for one in here for label in one.labels if not any(label in s for s in samples[one.name])
    }
    assert lacking == set(), "labels that nothing has"
    grouped = {
        (each.place, label)
        for each in expressions()
        for label in each.grouped_by
        if (names := [one.name for one in each.selectors if one.name in samples])
        and not any(label in labels for name in names for labels in samples[name])
    }
    assert grouped == set(), "grouped by labels that nothing has"


async def test_metrics_are_of_the_types_they_are_declared_with(watched: ParleyServer) -> None:
    exported = await families_with(watched, {"ray_parley_stage_calls_total", "ray_parley_turn_ms_bucket"})
    seen = 0
    for name, (kind, description, labels) in METRICS.items():
        # Counters lose what they end with in the parser's families.
        family = exported.get(f"ray_{name}") or exported.get(f"ray_{name.removesuffix('_total')}")
        if family is None:
            continue
        seen += 1
        assert family.type == kind, name
        assert family.documentation == description, name
        assert all(set(labels) <= set(sample.labels) for sample in family.samples), name
    assert seen > 30


def test_what_only_azure_has_is_shown_there() -> None:
    for name, place in ELSEWHERE.items():
        text = (PROJECT_ROOT / place).read_text(encoding="utf-8")
        assert re.search(rf"ray_{name}(_count|\{{)", text), name
