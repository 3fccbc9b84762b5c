"""The line that somebody watches while a load test runs."""

from __future__ import annotations

import io

from rich.console import Console

from serve_app.capacity.busiest import Busy
from serve_app.cli.load_generator import Progress
from serve_app.cli.load_screen import LoadScreen, progress_line

LINE = Progress(
    phase=3, name="step 6", rate_per_s=6.0, users=20, elapsed_s=40.0, total_s=165.0, due=96, done=90, good=89, failed=1,
    running=4, waiting=2, ttft_p95_ms=1340.4, cpu_share=0.3,
)  # fmt: skip


def test_the_line_says_load_success_latency_what_is_busiest_and_how_long_it_takes() -> None:
    assert progress_line(LINE, Busy("Turns", "loop", 0.71)) == (
        "step 6 · 6 turns/s · 20 users · 98.9% of 90 good · 1 failed · 4 running · 2 waiting · TTFT p95 1,340 ms"
        " · busiest: Turns event loop 71% · 2:05 left at most"
    )


def test_what_is_not_known_yet_is_not_said() -> None:
    assert progress_line(Progress(name="warm-up"), None) == "warm-up · no turn has ended yet"


def test_a_generator_that_is_short_of_cpu_is_told_of() -> None:
    assert "the load generator itself uses 95% of its core" in progress_line(Progress(cpu_share=0.95), None)


def test_a_log_gets_a_line_at_the_end_of_each_phase_and_not_one_a_second() -> None:
    output = io.StringIO()
    with LoadScreen(Console(file=output, width=200)) as screen:
        for phase, done in ((1, 0), (1, 4), (1, 8), (2, 0), (2, 5), (2, 9), (3, 0)):
            screen.progress(Progress(phase=phase, name=f"step {phase}", done=done, good=done), None)
        screen.step("writing the report")
    assert output.getvalue().splitlines() == [
        "step 1 · no turn has ended yet",
        "step 1 · 100.0% of 8 good",
        "step 2 · 100.0% of 9 good",
        "writing the report …",
    ]


def test_on_a_terminal_one_line_is_renewed_and_sentences_stay_above_it() -> None:
    output = io.StringIO()
    console = Console(file=output, width=200, force_terminal=True, force_interactive=True)
    with LoadScreen(console) as screen:
        screen.progress(Progress(name="[bold]step 1"), None)
        screen.say("Something [to keep].")
    assert "[bold]step 1" in output.getvalue()
    assert "Something [to keep]." in output.getvalue()
    assert output.getvalue().endswith("\x1b[?25h") or "\x1b[2K" in output.getvalue()
