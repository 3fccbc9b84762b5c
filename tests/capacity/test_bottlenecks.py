"""On a real graph whose one stage is scarce on purpose: its limit is predicted from a run well below it, then measured.

Each case starts a graph with simulated model and tools, and loads it for about two and a half minutes. The figures are printed
(``pytest -s``): they are what the README shows. What is measured beyond the limit needs a quiet machine; what is predicted from a
calm run does not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app.capacity.measured import measure
from serve_app.capacity.model import Prediction
from serve_app.capacity.run_folder import write_value
from serve_app.capacity.scaled_config import scaled_config
from serve_app.capacity.scenario import Scenario
from serve_app.cli.capacity_verify import loaded, measure_limit, predict_limit
from serve_app.cli.load_graph import StartedGraph, started_graph
from serve_app.settings import PROJECT_ROOT

SLOWED = Path(__file__).parent / "slowed"
SERVE_CONFIG = PROJECT_ROOT / "serve_config.yaml"
WITHIN = 0.2
STEP_S = 16.0
CALM = {"kind": "steps", "first": 0.6, "by": 0.3, "last": 1.2, "each_s": 20}
SETTINGS = {
    "PARLEY_CONVERSATION__TITLES": "false",
    # A store that is slow on purpose must not look like an owner that has died.
    "PARLEY_TURN__LEASE_S": "60",
    "PARLEY_TURN__RENEW_S": "10",
}


@dataclass(frozen=True)
class Case:
    """``slots`` by stage; ``slow`` are the variables that ``slowed/sitecustomize.py`` reads."""

    scarce: tuple[str, str]
    slots: dict[str, int] = field(default_factory=dict)
    slow: dict[str, str] = field(default_factory=dict)
    simulated: dict[str, Any] = field(default_factory=dict)


CASES = {
    "model": Case(
        ("ModelGateway", "slots"), {"ModelGateway": 6}, simulated={"ttft_ms": 2500, "token_ms": 50, "reply_tokens": 10}
    ),
    "tool": Case(
        ("ToolExecutor", "slots"), {"ToolExecutor": 4}, {"SLOW_TOOL_MS": "2000"},
        {"ttft_ms": 100, "token_ms": 5, "reply_tokens": 10, "tool_rounds": 1},
    ),
    "store": Case(
        ("Store", "writer"), {}, {"SLOW_STORE_MS": "60"}, {"ttft_ms": 100, "token_ms": 5, "reply_tokens": 10}
    ),
}  # fmt: skip


def _scenario(case: Case) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "calm",
            "warm_up_s": 8,
            "drain_s": 30,
            "users": [{"kind": "ws_chat", "simulated": case.simulated}],
            "load": {"model": "open", "shape": CALM, "users_max": 200},
            "slo": {"errors": 1.0},
        }
    )


def _config(case: Case) -> str:
    document = yaml.safe_load(SERVE_CONFIG.read_text(encoding="utf-8"))
    for deployment in document["applications"][0]["deployments"]:
        if deployment["name"] in case.slots:
            deployment["max_ongoing_requests"] = case.slots[deployment["name"]]
        if deployment["name"] == "Store":
            deployment["health_check_timeout_s"] = 120  # slow on purpose, not dead
        if "autoscaling_config" in deployment:
            deployment["autoscaling_config"] = {"min_replicas": 1, "max_replicas": 1}
    return yaml.safe_dump(document)


def _say(name: str, *sentences: str) -> None:
    sys.stdout.write("\n".join([f"\n{name}: {sentences[0]}", *(f"  {sentence}" for sentence in sentences[1:])]) + "\n")


@contextmanager
def predicted(name: str, folder: Path) -> Iterator[tuple[StartedGraph, Scenario, Prediction]]:
    """The case's graph, and what is predicted of it from a run well below its limit."""
    case = CASES[name]
    text, sizes = scaled_config(_config(case), name, 2)
    config = folder / "serve_config.yaml"
    config.write_text(text, encoding="utf-8")
    environment = SETTINGS | case.slow | ({"PYTHONPATH": str(SLOWED)} if case.slow else {})
    with started_graph(config, environment) as graph:
        scenario = _scenario(case)
        measured = measure(loaded(graph, scenario, folder / "calm"))
        prediction = predict_limit(graph, scenario, measured, sizes, folder / "nearer", STEP_S)
        _say(name, prediction.says, *prediction.doubts)
        limit = prediction.bottleneck
        assert limit is not None
        assert (limit.stage, limit.resource) == case.scarce, prediction.says
        yield graph, scenario, prediction


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", list(CASES))
def test_the_scarce_stage_is_named_from_a_run_well_below_its_limit(name: str, tmp_path: Path) -> None:
    with predicted(name, tmp_path) as (_, _, prediction):
        assert prediction.bottleneck is not None
        assert prediction.bottleneck.per_s > 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", list(CASES))
def test_the_limit_is_predicted_within_a_fifth_and_the_scarce_stage_gives_way(name: str, tmp_path: Path) -> None:
    with predicted(name, tmp_path) as (graph, scenario, prediction):
        found = measure_limit(graph, scenario, prediction, tmp_path / "beyond", STEP_S)
    write_value(tmp_path / "verification.json", found)
    _say(name, found.says, found.why)
    assert found.measured is not None and found.off is not None, found.says
    assert abs(found.off) <= WITHIN, found.says
    assert (found.measured_stage, found.measured_resource) == CASES[name].scarce, found.why
