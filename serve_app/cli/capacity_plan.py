"""``parley capacity plan``: replicas, quota, store, machines and cost for a number of users, from a load test's report."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deployments.options import load_serve_config
from serve_app.capacity.machines import load_machines
from serve_app.capacity.measured import measure
from serve_app.capacity.plan import Plan, make_plan
from serve_app.capacity.run import load_run
from serve_app.capacity.run_folder import write_value
from serve_app.capacity.samples import PLAN_JSON
from serve_app.capacity.serve_patch import patch, planned_config, stages_in
from serve_app.capacity.slo_option import parse_slo
from serve_app.capacity.wanted import Wanted, store_choice
from serve_app.cli.capacity_table import show_plan
from serve_app.domain.usage import Price
from serve_app.errors import ConfigError
from serve_app.loopback import LOOPBACK
from serve_app.models.price_list import read_prices
from serve_app.settings import Settings, environment_variable

PLANNED_CONFIG = "serve_config.planned.yaml"
PATCH = "serve_config.patch"
MACHINES = Path("configs/machines.yaml")
_PRICE = re.compile(r"([0-9]+(?:\.[0-9]+)?)/([0-9]+(?:\.[0-9]+)?)")


def plan(
    report: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder of a load test (`parley load run --report`).")
    ],
    users: Annotated[int, typer.Option(min=1, help="Users in the busy part of the day.")],
    turns_per_user_hour: Annotated[float, typer.Option(min=0.001, help="What each asks in an hour of it.")] = 6.0,
    slo: Annotated[
        list[str] | None,
        typer.Option(help="What is good enough, such as ttft_p95=1.5s,turn_p95=20s,errors=1%. [the scenario's]"),
    ] = None,
    peak_factor: Annotated[float, typer.Option(min=1, help="The peak over the average.")] = 2.0,
    headroom: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of every resource left free at the peak.")
    ] = 0.4,
    connected: Annotated[float, typer.Option(min=0, max=10, help="Connections per user at a time.")] = 1.0,
    quiet: Annotated[float, typer.Option(min=0, max=1, help="What is left of the average in the quietest hour.")] = 0.1,
    node_loss: Annotated[bool, typer.Option(help="Enough for the peak with one node lost.")] = True,
    store: Annotated[
        str, typer.Option(help="embedded, cosmos, or auto: the embedded store where it is enough.")
    ] = "auto",
    machine: Annotated[str | None, typer.Option(help="Machine type, of the machines file. [its default]")] = None,
    machines_file: Annotated[
        Path | None, typer.Option(help="Machine types and prices. [configs/machines.yaml]")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model whose price counts. [the models file's default]")] = None,
    token_price: Annotated[
        str | None,
        typer.Option(help="US dollars per million tokens, input/output, such as 2/8: instead of the file's."),
    ] = None,
    models_file: Annotated[Path | None, typer.Option(help="Models and prices. [PARLEY_MODELS]")] = None,
    serve_config: Annotated[
        Path | None, typer.Option(help="The Serve configuration to change. [serve_config.yaml]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for what is written. [the report's]")] = None,
) -> None:
    """Replicas, quota, nodes and cost for a number of users, from a report.

    What a turn asks of each resource was measured; the plan multiplies. It shows how it was computed, what it takes for
    granted and what the data do not carry, and writes `plan.json`, `serve_config.planned.yaml` and `serve_config.patch`
    beside the report.

    Example: `parley capacity plan --report reports/steps --users 50000 --turns-per-user-hour 6 --slo ttft_p95=1.5s`

    Exit codes: 0 done, 2 an option cannot be used, or the report says too little for a plan.
    """
    settings = Settings.load()
    wanted = Wanted(
        users=users, turns_per_user_hour=turns_per_user_hour, connected=connected, peak_factor=peak_factor,
        headroom=headroom, quiet=quiet, node_loss=node_loss, store=store_choice(store),
    )  # fmt: skip
    base = serve_config or settings.path(settings.serve_config)
    host = load_serve_config(base).http_options.host
    text = base.read_text(encoding="utf-8")
    machines = load_machines(machines_file or settings.path(MACHINES))
    run = load_run(report)
    measured = measure(run, parse_slo(slo, run.scenario.slo) if slo else None)
    name, price = _price(models_file or settings.path(settings.models), model, token_price)
    made = make_plan(measured, wanted, stages_in(text, str(base)), machines, machine=machine, model=name, price=price)
    folder = out or report
    _write(made, text, base, folder)
    console = Console(highlight=False)
    show_plan(console, made)
    console.print(f"Written to {folder}: {PLAN_JSON}, {PLANNED_CONFIG}, {PATCH}.", soft_wrap=True)
    # With the embedded store a second replica of the Store could not open its files.
    azure = "PARLEY_STORE=azure " if made.store.kind == "cosmos" else ""
    console.print(
        f"Start it with {azure}PARLEY_SERVE_CONFIG={folder / PLANNED_CONFIG} parley serve, or serve deploy.",
        soft_wrap=True,
    )
    if made.nodes.nodes > 1 and host in LOOPBACK:
        console.print(
            f"On several nodes its http_options.host must not stay {host}, which no load balancer reaches: 0.0.0.0, behind the"
            " cluster's network policy.",
            soft_wrap=True,
        )


def _write(made: Plan, text: str, base: Path, folder: Path) -> None:
    """The three files. Nothing is written where `parley serve` would not accept the configuration."""
    planned = planned_config(made, text, str(base))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=folder, encoding="utf-8", delete=False) as file:
            file.write(planned)
        try:
            load_serve_config(Path(file.name))
            Path(file.name).replace(folder / PLANNED_CONFIG)
        finally:
            Path(file.name).unlink(missing_ok=True)
        # Names as git and patch expect them, so that it applies where the file is.
        difference = patch(text, planned, f"a/{base.name}", f"b/{base.name}")
        (folder / PATCH).write_text(difference, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"The plan cannot be written into {folder} ({error.strerror}); name another with --out."
        ) from error
    write_value(folder / PLAN_JSON, made)


def _price(path: Path, model: str | None, given: str | None) -> tuple[str, Price | None]:
    """The model's name, and its price: the one that was given, or the file's if it has one."""
    if given is not None:
        found = _PRICE.fullmatch(given.strip())
        if found is None:
            raise ConfigError(
                f"Option --token-price: {given!r} is no price; write input/output in US dollars, such as 2/8."
            )
        return model or "", Price(input=float(found[1]), output=float(found[2]), cached_input=float(found[1]))
    default, prices = read_prices(path, environment_variable)
    if model and model not in prices:
        known = ", ".join(prices) or "none"
        raise ConfigError(f"The models file {path} lists no model {model!r} (--model); there is {known}.")
    name = model or default
    return name, prices.get(name)
