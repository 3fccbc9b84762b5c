"""A plan on the terminal: tables to decide by, then what they stand on."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serve_app.capacity.node_plan import GIB
from serve_app.capacity.plan import Plan
from serve_app.capacity.stage_plan import StagePlan

SCARCE = {"loop": "CPU", "process": "CPU"}


def show_plan(console: Console, plan: Plan) -> None:
    """Everything of it."""
    console.print(
        f"[bold]{plan.users:,} users × {plan.turns_per_user_hour:g} turns an hour[/bold]: {plan.average_per_s:.3g} turns a"
        f" second on average, {plan.peak_per_s:.3g} at the peak; {plan.connections:,} connections"
    )
    console.print(_stages(plan))
    console.print(_needs(plan))
    _list(console, "How it was computed", plan.method)
    _list(console, "Taken for granted", plan.assumptions)
    _list(console, "[yellow]What the data do not carry[/yellow]", plan.doubts)


def _stages(plan: Plan) -> Table:
    table = Table(title="Stages", title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("stage", no_wrap=True)
    for name in ("min", "max", "at peak", "target\nongoing", "CPUs\neach", "GiB\neach", "CPU ms\na turn", "s a turn"):
        table.add_column(name, justify="right")
    table.add_column("scarce (used at peak)")
    for stage in plan.stages:
        table.add_row(
            stage.stage, str(stage.min_replicas), str(stage.max_replicas), str(stage.needed),
            str(stage.target_ongoing or "-"), f"{stage.num_cpus:g}", f"{stage.memory_bytes / GIB:.2f}",
            f"{stage.cpu_s * 1000:.3g}", _held(stage), f"{SCARCE.get(stage.scarce, stage.scarce)} ({stage.utilisation:.0%})",
        )  # fmt: skip
    return table


def _held(stage: StagePlan) -> str:
    """Ingress holds connections, which are no time of a turn."""
    return "-" if stage.stage == "Ingress" else f"{stage.busy_s:.3g}"


def _needs(plan: Plan) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in _rows(plan):
        table.add_row(name, escape(text))
    return table


def _rows(plan: Plan) -> Iterable[tuple[str, str]]:
    provider, store, nodes, costs = plan.provider, plan.store, plan.nodes, plan.costs
    yield "", ""
    if plan.carries_per_s is not None:
        share = plan.peak_per_s / plan.carries_per_s
        yield (
            "limit",
            f"{plan.carries_per_s:.3g} turns a second, of which the peak is {share:.0%}; first full: {plan.bottleneck}",
        )
    yield (
        "provider",
        (
            f"{provider.rpm:,} requests and {provider.tpm:,} tokens a minute; {provider.streams:,.0f} streams at once"
            f" (a turn: {provider.calls:.2f} calls, {provider.input_tokens:.0f} tokens in, {provider.output_tokens:.0f} out)"
        ),
    )
    if store.kind == "embedded":
        known = store.utilisation is not None and store.carries_per_s is not None
        yield (
            "store",
            (
                f"embedded: its one writer is used by {store.utilisation:.0%} at the peak"
                if known
                else "embedded, not measured"
            ),
        )
    else:
        origin = "measured" if store.ru_measured else "not measured: the README's figure"
        yield "store", f"Cosmos DB: {store.rus_per_s:,} RU/s ({store.ru_per_turn:.0f} RU a turn, {origin})"
    yield (
        "nodes",
        (
            f"{nodes.nodes} × {nodes.machine} and a head; the stages need {nodes.cpus:.1f} CPUs and {nodes.memory_gib:.1f} GiB"
            f" ({nodes.decides} decides; {nodes.cpus_each:g} CPUs and {nodes.memory_gib_each:g} GiB of a node are theirs)"
        ),
    )
    without = "" if costs.tokens is not None else " without tokens"
    yield (
        "1000 turns",
        (
            f"{costs.total:.3f} {costs.currency}{without}: machines {costs.machines:.3f} ({costs.machines_following:.3f} if nodes"
            f" follow the load), tokens {_money(costs.tokens)}, request units {_money(costs.request_units)};"
            f" machines cost {costs.machines_per_hour:.2f} an hour"
        ),
    )
    for sentence in costs.missing:
        yield "", sentence


def _money(value: float | None) -> str:
    return "not counted" if value is None else f"{value:.3f}"


def _list(console: Console, title: str, sentences: Iterable[str]) -> None:
    listed = list(sentences)
    if listed:
        console.print(f"\n[bold]{title}[/bold]")
        for sentence in listed:
            console.print(f"- {escape(sentence)}", soft_wrap=True)
