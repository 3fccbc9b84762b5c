"""What an evaluation may spend without being told twice: nothing."""

from __future__ import annotations

import sys

import typer

from serve_app.cli.eval_screen import EvalScreen, dollars
from serve_app.domain.generation import ModelCatalog
from serve_app.errors import ConfigError
from serve_app.evaluation.estimate import Estimate


def require_consent(
    expected: Estimate, catalog: ModelCatalog, max_cost_usd: float | None, yes: bool, screen: EvalScreen
) -> None:
    """Says what the run may cost where real models answer. Raises ConfigError where nobody has agreed to that: by ``--yes``, by a
    limit, or when asked at a terminal."""
    if catalog.simulated or not expected.turns:
        return
    sentence = in_words(expected, max_cost_usd)
    screen.close()
    screen.say(sentence)
    if yes or max_cost_usd is not None:
        return
    if sys.stdin.isatty() and sys.stderr.isatty():
        if typer.confirm("Go on?", err=True):
            return
        raise ConfigError("Nothing was run.")
    raise ConfigError(
        "Real models answer, and nobody has agreed to what that costs; say --yes, or name a limit with --max-cost."
    )


def in_words(expected: Estimate, max_cost_usd: float | None) -> str:
    """Such as ``About 480 turns by real models, roughly $3.10 without judges; it stops at $5.00.``"""
    parts = [f"About {expected.turns:,} turns by real models"]
    if expected.microusd is not None:
        parts.append(f", roughly {dollars(expected.microusd)} without judges")
    if expected.unpriced:
        parts.append(f"; what {', '.join(expected.unpriced)} costs is in no models file")
    if max_cost_usd is not None:
        parts.append(f"; it stops at {dollars(max_cost_usd * 1_000_000)}")
    return "".join(parts) + "."
