"""``parley capacity verify`` starts the scaled configuration, loads it around the prediction, and says how far off it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deployments.options import load_serve_config
from serve_app.capacity.run_folder import read_value
from serve_app.capacity.samples import SERVE_CONFIG, RunInfo
from serve_app.capacity.scenario import load_scenario
from serve_app.capacity.verification import Verification
from serve_app.cli import capacity_verify
from serve_app.cli.load_graph import StartedGraph
from serve_app.cli.main import app
from serve_app.settings import PROJECT_ROOT
from tests.unit.capacity.synthetic import Model, write_run

LOADED: list[tuple[float, ...]] = []
"""The rates of each run."""
CALM = Model(model_slots=10, rates=(1.0, 1.5, 2.0, 2.5), phase_s=40, refused_after_s=600)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Configurations that a graph was started with; its load test is computed."""
    configurations: list[Path] = []
    LOADED.clear()

    @contextlib.contextmanager
    def graph(config: Path, **_: Any) -> Iterator[StartedGraph]:
        kept = tmp_path / "started.yaml"
        kept.write_text(config.read_text(encoding="utf-8"), encoding="utf-8")
        configurations.append(kept)
        yield StartedGraph(
            url="http://127.0.0.1:1", provider_url="", metrics_url="", data_dir=config.parent, log=config.parent,
            serve_config=config, pid=0, admin_headers={}, simulated=("model",), note="",
        )  # fmt: skip

    def run_load(scenario: Path, target: str, report: Path, **_: Any) -> RunInfo:
        rates = tuple(phase.level for phase in load_scenario(scenario).load.shape.phases())
        LOADED.append(rates)
        write_run(report, replace(CALM, rates=rates, seed=3))
        return RunInfo("verify", target, 0.0, ended="knee")

    monkeypatch.setattr(capacity_verify, "started_graph", graph)
    monkeypatch.setattr(capacity_verify, "run_load", run_load)
    return configurations


def test_it_says_predicted_measured_and_how_far_off(tmp_path: Path, started: list[Path]) -> None:
    report = write_run(tmp_path / "report", CALM)
    text = (PROJECT_ROOT / "serve_config.yaml").read_text(encoding="utf-8")
    text = text.replace("max_ongoing_requests: 1000 ", "max_ongoing_requests: 10 ").replace(
        "max_replicas: 4", "max_replicas: 1"
    )
    (report / SERVE_CONFIG).write_text(text, encoding="utf-8")
    result = CliRunner().invoke(
        app, ["capacity", "verify", "--report", str(report), "--out", str(tmp_path / "out")], env={"COLUMNS": "160"}
    )
    assert result.exit_code == 0, result.output
    assert "scaled to this machine: Ingress" in result.output
    assert "The slots of the model gateway (10," in result.output
    found = read_value(tmp_path / "out" / capacity_verify.VERIFICATION, Verification)
    assert found.says in result.output and found.same and found.off is not None and abs(found.off) < 0.2
    assert len(started) == 1
    for deployment in load_serve_config(started[0]).applications[0].deployments:
        assert isinstance(deployment.num_replicas, int)


def test_a_limit_far_beyond_what_was_measured_is_approached_before_it_is_predicted(
    tmp_path: Path, started: list[Path]
) -> None:
    report = write_run(tmp_path / "report", replace(CALM, rates=(0.4, 0.6, 0.8)))
    text = (PROJECT_ROOT / "serve_config.yaml").read_text(encoding="utf-8")
    text = text.replace("max_ongoing_requests: 1000 ", "max_ongoing_requests: 10 ")
    (report / SERVE_CONFIG).write_text(text.replace("max_replicas: 4", "max_replicas: 1"), encoding="utf-8")
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["capacity", "verify", "--report", str(report), "--out", str(out)])
    assert result.exit_code == 0, result.output
    nearer, around = LOADED
    found = read_value(out / capacity_verify.VERIFICATION, Verification)
    assert 0.8 < nearer[0] < nearer[-1] < found.predicted
    assert around[0] < found.predicted / 2 < found.predicted < around[-1]
    assert len(started) == 1


def test_without_a_configuration_it_asks_for_one(tmp_path: Path, started: list[Path]) -> None:
    report = write_run(tmp_path / "report", CALM)
    result = CliRunner().invoke(app, ["capacity", "verify", "--report", str(report)])
    assert result.exit_code == 2 and "--serve-config" in result.output and not started
