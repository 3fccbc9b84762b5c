"""``parley capacity verify``: a limit predicted from a report, then measured on this machine."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console

from deployments.options import load_serve_config
from serve_app.capacity.measured import Measured, measure
from serve_app.capacity.model import Prediction, StageSize, predict
from serve_app.capacity.run import Run, load_run
from serve_app.capacity.run_folder import write_value
from serve_app.capacity.samples import SERVE_CONFIG
from serve_app.capacity.scaled_config import scaled_config
from serve_app.capacity.scenario import Scenario, scenario_yaml
from serve_app.capacity.verification import AROUND, NEARER, Verification, is_near, steps_at
from serve_app.capacity.verification import verify as compare
from serve_app.cli.capacity_plan import PLANNED_CONFIG
from serve_app.cli.load_graph import StartedGraph, started_graph
from serve_app.cli.load_run import About, run_load
from serve_app.errors import ConfigError

VERIFICATION = "verification.json"


def verify(
    report: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder of a load test that this machine ran.")
    ],
    serve_config: Annotated[
        Path | None,
        typer.Option(help="What to verify. [the report's plan, else what the report's graph ran with]", dir_okay=False),
    ] = None,
    step_s: Annotated[float, typer.Option(min=5, max=600, help="Seconds of each step.")] = 20.0,
    out: Annotated[Path | None, typer.Option(help="New folder for the run. [REPORT/verify-TIME]")] = None,
) -> None:
    """Predict a configuration's limit from a report, measure it on this machine, and say how far off the prediction was.

    The configuration is scaled to this machine: fewer replicas of each stage, of a fixed number, so that nothing but load
    changes while it is measured; slots stay as they are. A graph is started with them, with simulated model and tools, and
    loaded in steps from below the predicted limit to beyond it. It takes about four minutes.

    Example: `parley capacity verify --report reports/steps`

    Exit codes: 0 measured, 1 it could not be measured, 2 an option cannot be used.
    """
    run = load_run(report)
    measured = measure(run)
    chosen = _configuration(report, serve_config)
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="parley-verify-") as folder:
        text, sizes = scaled_config(chosen.read_text(encoding="utf-8"), str(chosen), psutil.cpu_count() or 1)
        config = Path(folder) / SERVE_CONFIG
        config.write_text(text, encoding="utf-8")
        load_serve_config(config)
        target = out or report / f"verify-{time.strftime('%Y%m%d-%H%M%S')}"
        with started_graph(config, tell=lambda said: console.print(f"{said} …")) as graph:
            prediction = predict_limit(graph, run.scenario, measured, sizes, Path(folder) / "nearer", step_s)
            _show_prediction(console, chosen, sizes, prediction)
            result = measure_limit(graph, run.scenario, prediction, target, step_s)
    write_value(target / VERIFICATION, result)
    console.print(f"[bold]{result.says}[/bold]", soft_wrap=True)
    console.print(result.why, soft_wrap=True)
    console.print(f"The run is in {target}.", soft_wrap=True)
    raise typer.Exit(0 if result.off is not None else 1)


def predict_limit(
    graph: StartedGraph,
    scenario: Scenario,
    measured: Measured,
    sizes: dict[str, StageSize],
    folder: Path,
    step_s: float,
) -> Prediction:
    """The limit that ``measured`` says; where that is far beyond the rates it was measured at, ``graph`` is loaded nearer to it
    first, still below it, into the new folder ``folder``."""
    prediction = predict(measured.demands, sizes)
    if is_near(prediction, measured.demands):
        return prediction
    run = loaded(graph, steps_at(scenario, prediction.per_s, NEARER, step_s), folder)
    try:
        again = predict(measure(run).demands, sizes)
    except ConfigError:  # the graph could not keep up even there: what was said of it at first is all there is
        return prediction
    return again if again.bottleneck is not None else prediction


def measure_limit(
    graph: StartedGraph, scenario: Scenario, prediction: Prediction, folder: Path, step_s: float
) -> Verification:
    """Loads ``graph`` in steps around the predicted limit, into the new folder ``folder``. Raises ConfigError where nothing was
    predicted, or the limit cannot be measured."""
    run = loaded(graph, steps_at(scenario, prediction.per_s, AROUND, step_s), folder)
    return compare(prediction, run)


def loaded(graph: StartedGraph, scenario: Scenario, folder: Path) -> Run:
    """Runs ``scenario`` against ``graph`` and reads what was written. Raises ConfigError where the run came to nothing."""
    with tempfile.TemporaryDirectory(prefix="parley-scenario-") as beside:
        file = Path(beside) / "scenario.yaml"
        file.write_text(scenario_yaml(scenario), encoding="utf-8")
        about = About(simulated=graph.simulated, note=graph.note, serve_config=graph.serve_config)
        info = run_load(file, graph.url, folder, about=about)
    if info.ended in ("failed", "interrupted"):
        raise ConfigError(f"The run was {info.ended}; what there is of it is in {folder}. {info.note}")
    return load_run(folder)


def _configuration(report: Path, given: Path | None) -> Path:
    if given is not None:
        load_serve_config(given)
        return given
    for name in (PLANNED_CONFIG, SERVE_CONFIG):
        if (report / name).is_file():
            return report / name
    raise ConfigError(f"The report {report} has no Serve configuration; name one with --serve-config.")


def _show_prediction(console: Console, chosen: Path, sizes: dict[str, StageSize], prediction: Prediction) -> None:
    replicas = ", ".join(f"{stage} {size.replicas}" for stage, size in sizes.items())
    console.print(f"{chosen}, scaled to this machine: {replicas}", soft_wrap=True)
    console.print(f"Predicted: {prediction.says}", soft_wrap=True)
    for doubt in prediction.doubts:
        console.print(f"- {doubt}", soft_wrap=True)
