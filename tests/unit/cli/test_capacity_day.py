"""``parley capacity day`` prints how replicas follow the load, and writes the picture and the figures where it is told to."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

import deployments.scaling_day as scaling_day
from serve_app.capacity.day import DaySummary
from serve_app.cli.capacity import capacity
from serve_app.settings import PROJECT_ROOT
from tests.unit.capacity.synthetic import Model, write_run

NARROW = 80


@pytest.fixture(autouse=True)
def a_short_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the spike stands for the day."""

    class Spike(scaling_day.Load, frozen=True, kw_only=True):
        begin_s: float = 14.9 * 3600
        end_s: float = 15.2 * 3600

    monkeypatch.setattr(scaling_day, "Load", Spike)


def day(*options: str) -> Result:
    return CliRunner().invoke(capacity, ["day", *options], env={"COLUMNS": str(NARROW)})


def test_it_prints_both_ways_of_scaling_and_writes_what_it_found(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    done = day("--report", str(folder), "--peak-turns-per-s", "100")
    assert done.exit_code == 0, done.output
    assert "Scaled as configured: " in done.output
    assert "Scaled by Serve's own policy: " in done.output
    assert "ModelGateway " in done.output, "names are not cut at 80 columns"
    summary = msgspec.json.decode((folder / "day.json").read_bytes(), type=DaySummary)
    assert set(summary.stages) == {"as configured", "by Serve's own policy"}
    assert {figures.stage for figures in summary.stages["as configured"]} >= {"Ingress", "Turns", "Store"}
    page = (folder / "day.html").read_text(encoding="utf-8")
    assert "Turns, as configured: " in page and "Turns, by Serve&#39;s own policy: " in page


def test_it_says_which_bound_is_too_low_and_writes_nothing_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = day("--no-compare", "--peak-turns-per-s", "600")
    assert done.exit_code == 0, done.output
    assert "Serve's own policy" not in done.output
    said = " ".join(done.output.split())
    assert "Turns needs more than 4 replicas for 100.0% of the day: raise its max_replicas." in said
    assert "Store is fixed at 1 and short for 100.0% of the day." in said
    assert list(tmp_path.iterdir()) == []


def test_a_load_tests_turns_take_the_place_of_ours(tmp_path: Path) -> None:
    report = write_run(tmp_path / "steps", Model(rates=(2.0, 4.0)))
    done = day("--no-compare", "--report", str(report))
    assert done.exit_code == 0, done.output
    assert "turns as in the load test steps" in " ".join(done.output.split())
    other = day("--no-compare", "--report", str(tmp_path / "none"))
    written = [(tmp_path / name / "day.json").read_bytes() for name in ("steps", "none")]
    assert other.exit_code == 0
    assert written[0] != written[1]


def test_a_manifest_for_kubernetes_can_be_tried_as_well() -> None:
    done = day(
        "--no-compare", "--serve-config", str(PROJECT_ROOT / "configs" / "kuberay" / "azure" / "rayservice.yaml")
    )
    assert done.exit_code == 0, done.output
    rows = {line.split()[0]: line.split()[1] for line in done.output.splitlines() if line.split()[1:]}
    assert rows["Store"] == "2"


def test_a_misspelt_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "serve_config.yaml"
    path.write_text("applications: [{name: parley, import_pat: x}]\n")
    done = day("--serve-config", str(path))
    assert done.exit_code != 0
    assert "import_pat" in str(done.exception or done.output)
