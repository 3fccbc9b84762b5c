"""What a load test may be aimed at without being told twice: this machine, where a simulated model answers."""

from __future__ import annotations

from serve_app.capacity.scenario import Scenario
from serve_app.cli.load_target import is_loopback, is_simulated
from serve_app.cli.running_graph import RunningGraph
from serve_app.errors import ConfigError

TOKENS_IN, TOKENS_OUT = 1_000, 300
DOLLARS_IN, DOLLARS_OUT = 3.0, 15.0
"""Per million tokens. An example, so that there is a figure to think about."""


def require_consent(graph: RunningGraph, scenario: Scenario, yes: bool) -> None:
    """Raises ConfigError where the load would leave this machine or reach a real model, and nobody has said yes to it."""
    reasons = []
    if not is_loopback(graph.url):
        reasons.append("it is not this machine")
    if not is_simulated(graph):
        reasons.append("a real model answers there")
    if not reasons or yes:
        return
    raise ConfigError(
        f"The load would go to {graph.url}, and {' and '.join(reasons)}. It is {_load(scenario)}. {_cost(scenario)} "
        "Others who use it would notice. If that is what you want, say --yes; `--start` tests a graph of this machine instead."
    )


def turns_of(scenario: Scenario) -> float | None:
    """How many turns open arrivals are at most; None for closed ones, where the target's speed decides."""
    if scenario.load.model != "open":
        return None
    return sum(phase.level * phase.duration_s for phase in scenario.phases())


def _load(scenario: Scenario) -> str:
    minutes = scenario.total_s / 60
    turns = turns_of(scenario)
    if turns is None:
        return f"up to {scenario.load.shape.top:g} users at a time for up to {minutes:.1f} minutes"
    return f"up to {turns:,.0f} turns in {minutes:.1f} minutes, {scenario.load.shape.top:g} a second at the most"


def _cost(scenario: Scenario) -> str:
    million = 1_000_000
    per_turn = (TOKENS_IN * DOLLARS_IN + TOKENS_OUT * DOLLARS_OUT) / million
    example = f"at {TOKENS_IN:,} tokens in and {TOKENS_OUT:,} out, ${DOLLARS_IN:g} and ${DOLLARS_OUT:g} per million"
    turns = turns_of(scenario)
    if turns is None:
        return f"A real model is paid for each turn: ${per_turn * 1_000:,.2f} for a thousand {example}."
    return f"A real model is paid for each turn: ${per_turn * turns:,.2f} in all {example}."
