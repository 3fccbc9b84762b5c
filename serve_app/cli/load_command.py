"""``parley load run``: what is tested, by what load, and where the report goes."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from serve_app.capacity.scenario import find_scenario
from serve_app.cli.api import configured_url, parse_url
from serve_app.cli.interrupts import end_like_ctrl_c
from serve_app.cli.load_generator import require_extra
from serve_app.cli.load_graph import SIMULATED, started_graph
from serve_app.cli.load_guard import require_consent
from serve_app.cli.load_run import About, Changes, Outcome, measure, planned
from serve_app.cli.load_screen import LoadScreen
from serve_app.cli.load_simulators import started_simulators
from serve_app.cli.load_summary import write_and_summarise
from serve_app.cli.load_target import admin_token as admin_token_of
from serve_app.cli.load_target import is_simulated, load_token
from serve_app.cli.main import EXIT_FAILED, EXIT_INTERRUPTED
from serve_app.cli.running_graph import RunningGraph, find_graph
from serve_app.errors import ConfigError, UpstreamFailed

REPORTS = Path("reports")
SIMULATORS_PORT = 8765
_SETTING = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)", re.DOTALL)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|h)?")
_SECONDS = {None: 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0}


def run(
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO", help="A scenario file, or the name of one that `parley load scenarios` shows."
        ),
    ],
    target: Annotated[
        str | None, typer.Option(help="The server to test. [default: where the settings say that Parley listens]")
    ] = None,
    start: Annotated[
        bool,
        typer.Option("--start", help="Start a graph of this machine for the run, with a simulated model and tools."),
    ] = False,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate", help="Run the simulated model and tools beside the target, which is set to use them."
        ),
    ] = False,
    simulators_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the simulated model and tools (--simulate).")
    ] = SIMULATORS_PORT,
    users: Annotated[
        int | None,
        typer.Option(min=1, help="Users at the peak; of a scenario with open arrivals, turns under way at most."),
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Turns a second at the peak (open arrivals).")] = None,
    duration: Annotated[
        str | None, typer.Option(help="How long, without warm-up: 90, 90s, 5m, 2h. [default: as the scenario says]")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="New folder for figures and report. [default: reports/SCENARIO-TIME]")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another draw of arrivals, questions and lengths.")] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Processes that make the load, each on a core.")] = 1,
    serve_config: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Ray's settings of the stages to test (--start). [serve_config.yaml]"
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting of the graph (--start), such as PARLEY_TURN__FLUSH_MS=10."
        ),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Development tenant of the users.")] = None,
    token: Annotated[
        str | None, typer.Option(help="What users show a server that asks for credentials. [PARLEY_LOAD_TOKEN]")
    ] = None,
    admin_token: Annotated[
        str | None, typer.Option(help="What is shown for the figures of the stages. [PARLEY_ADMIN_TOKEN]")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Also where the target is another machine, or a real model answers there.")
    ] = False,
) -> None:
    """Run a scenario against a graph and write a report.

    The load stops by itself: at the scenario's end, or beyond the knee where it looks for one. Every answer is checked, and
    while it runs each stage is asked once a second what it is doing. Ctrl-C lets running turns end and still writes the
    report; a second one does not wait. Everything that was started is ended.

    Examples:

    - `parley load run steps --start` finds what this machine carries, with nothing else installed or configured
    - `parley load run smoke --target http://127.0.0.1:8000` takes half a minute, against a graph that `parley serve` started
    - `parley load run mixed --start --rate 5 --duration 2m --report reports/mine` is another height and length of a scenario
    - `PARLEY_LOAD_TOKEN=… PARLEY_ADMIN_TOKEN=… parley load run my.yaml --target https://chat.example.com --yes`

    Exit codes: 0 done, 1 more turns failed than the scenario allows or the run failed, 2 an option or the scenario cannot be
    used, 130 stopped with Ctrl-C (the report is there).
    """
    require_extra()
    end_like_ctrl_c()
    if start and (target is not None or simulate):
        raise ConfigError("Option --start: it starts target and simulators itself; leave --target and --simulate out.")
    if not start and (serve_config is not None or settings):
        raise ConfigError("Options --serve-config and --set are for the graph that --start starts; add it.")
    changes = Changes(
        users=users, rate_per_s=rate, duration_s=_seconds(duration), seed=seed, processes=processes, tenant=tenant,
        token=load_token(token), admin_token=admin_token_of(admin_token),
    )  # fmt: skip
    path = find_scenario(scenario)
    chosen = planned(path, changes)
    folder = report or REPORTS / f"{chosen.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    variables = _variables(settings or [])
    console = Console(stderr=True, highlight=False)
    with LoadScreen(console) as screen:
        if start:
            outcome = _on_own_graph(path, folder, changes, serve_config, variables, screen)
        else:
            address = parse_url(target, "--target") if target is not None else configured_url()
            with started_simulators(simulators_port) if simulate else contextlib.nullcontext():
                graph = _found(address)
                require_consent(graph, chosen, yes)
                about = About(simulated=SIMULATED if simulate or is_simulated(graph) else ())
                outcome = measure(path, address, folder, changes, about, screen)
        written = write_and_summarise(folder, screen)
    raise typer.Exit(_exit_code(outcome, written))


def _on_own_graph(
    scenario: Path,
    folder: Path,
    changes: Changes,
    serve_config: Path | None,
    variables: dict[str, str],
    screen: LoadScreen,
) -> Outcome:
    with started_graph(serve_config, variables, tell=screen.step) as graph:
        screen.say(f"A graph for the run is at {graph.url}, with a simulated model.")
        about = About(simulated=graph.simulated, note=graph.note, serve_config=graph.serve_config)
        outcome = measure(scenario, graph.url, folder, changes, about, screen)
        screen.step("ending the graph")
    return outcome


def _found(address: str) -> RunningGraph:
    try:
        return find_graph(address)
    except UpstreamFailed as error:
        said = error.message.replace("--url", "--target")
        raise UpstreamFailed(f"{said} With --start this command starts a graph itself.") from None


def _exit_code(outcome: Outcome, written: bool) -> int:
    if outcome.info.ended == "interrupted":
        return EXIT_INTERRUPTED
    return EXIT_FAILED if outcome.failed or not written else 0


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    found = _DURATION.fullmatch(text.strip())
    if found is None or float(found[1]) == 0:
        raise ConfigError(f"Option --duration: {text!r} is no duration; write 90, 90s, 5m or 2h.")
    return float(found[1]) * _SECONDS[found[2]]


def _variables(given: Sequence[str]) -> dict[str, str]:
    variables = {}
    for text in given:
        found = _SETTING.fullmatch(text)
        if found is None:
            raise ConfigError(f"Option --set: {text!r} is no setting; write it as PARLEY_TURN__FLUSH_MS=10.")
        variables[found[1]] = found[2]
    return variables
