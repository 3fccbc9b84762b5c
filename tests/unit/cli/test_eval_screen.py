"""What whoever waits for an evaluation is shown, and what is agreed to before money is spent."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from serve_app.cli.eval_consent import require_consent
from serve_app.cli.eval_screen import EvalScreen, facts
from serve_app.domain.generation import ModelCatalog
from serve_app.errors import ConfigError
from serve_app.evaluation.estimate import Estimate
from serve_app.evaluation.progress import Progress, Rate

NOW = Progress(
    phase="running", done=300, total=1_000, failed=2, rate_per_s=12.34, left_s=83, elapsed_s=25, cost_microusd=420_000,
    passed=279, graded=300, under_way=15, limit=16,
)  # fmt: skip
REAL, SIMULATED = ModelCatalog(models=()), ModelCatalog(models=(), simulated=True)


def screen(*, terminal: bool = False) -> tuple[EvalScreen, io.StringIO]:
    said = io.StringIO()
    return EvalScreen(Console(file=said, force_terminal=terminal, width=200, highlight=False)), said


def test_the_line_says_rate_cost_grades_failures_concurrency_and_time_left() -> None:
    assert facts(NOW) == (
        "12.3/s · $0.42 so far · 93% of 300 grades passed · 2 failed · 15 of at most 16 at once · 1:23 left"
    )


def test_in_the_end_it_says_how_long_it_took() -> None:
    assert facts(NOW, ended=True).endswith("2 failed · in 0:25")


def test_without_a_terminal_there_is_a_line_now_and_then_and_one_at_the_end() -> None:
    shown, said = screen()
    with shown:
        for _ in range(50):
            shown.progress(NOW)
        shown.last(NOW)
    assert said.getvalue().splitlines() == [
        f"300 of 1,000 cells · {facts(NOW)}",
        f"300 of 1,000 cells are done · {facts(NOW, ended=True)}",
    ]


def test_a_terminal_gets_a_bar() -> None:
    shown, said = screen(terminal=True)
    with shown:
        shown.progress(NOW)
    assert "300/1000" in said.getvalue()
    assert "1:23 left" in said.getvalue()


def test_a_simulated_model_needs_no_consent() -> None:
    shown, said = screen()
    require_consent(Estimate(turns=100, microusd=5_000_000), SIMULATED, None, False, shown)
    assert said.getvalue() == ""


def test_real_models_are_not_asked_before_somebody_agreed_to_what_it_costs() -> None:
    shown, said = screen()
    expected = Estimate(turns=480, microusd=3_100_000, unpriced=("other",))
    with pytest.raises(ConfigError, match="say --yes, or name a limit"):
        require_consent(expected, REAL, None, False, shown)
    require_consent(expected, REAL, None, True, shown)
    require_consent(expected, REAL, 5.0, False, shown)
    lines = said.getvalue().splitlines()
    assert lines[0] == (
        "About 480 turns by real models, roughly $3.10 without judges; what other costs is in no models file."
    )
    assert lines[2].endswith("; it stops at $5.00.")


def test_the_rate_is_that_of_the_last_while() -> None:
    now = 0.0
    rate = Rate(lambda: now)
    for _ in range(60):
        now += 1.0
        rate.add(10)
    assert rate.per_s == pytest.approx(10)
    for _ in range(60):
        now += 1.0
        rate.add(1)
    assert rate.per_s == pytest.approx(1, rel=0.1)
    assert rate.left_s(30) == pytest.approx(30, rel=0.1)
