"""A picture of a simulated day: the load above, below it each stage's replicas under each way of scaling them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve_app.capacity.day import Day, StageDay, figures
from serve_app.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EVERY = 12
"""One moment a minute is drawn."""
NEEDED, PAID, SHORT, LOAD = "#1f2937", "#93c5fd", "#dc2626", "#2563eb"
DPI = 110


def draw_day(days: Sequence[Day], folder: Path) -> tuple[Path, Path]:
    """``day.svg`` and ``day.png`` of days with the same load, one column each. Stages that never have to change are left out.

    Raises ConfigError where matplotlib is missing or the folder cannot be written.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("A picture of the day needs matplotlib: pip install 'parley[load]'") from error
    stages = [stage.stage for stage in days[0].stages if _moves(stage.stage, days)]
    with rc_context({"svg.hashsalt": "parley", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(1 + 5.5 * len(days), 1.9 + 1.7 * len(stages)), layout="constrained")
        FigureCanvasAgg(figure)
        heights = [1.2, *[1.0] * len(stages)]
        axes: Any = figure.subplots(
            1 + len(stages), len(days), sharex=True, sharey="row", squeeze=False, height_ratios=heights
        )
        for column, day in enumerate(days):
            _draw_load(axes[0][column], day, column == 0)
            found = {stage.stage: stage for stage in day.stages}
            for row, stage in enumerate(stages, 1):
                _draw_stage(axes[row][column], found[stage], column == 0)
            axes[-1][column].set_xlabel("hour of the day")
        if stages:
            figure.legend(*axes[1][0].get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=3)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / "day.svg", metadata={"Date": None})
            figure.savefig(folder / "day.png", dpi=DPI)
        except OSError as error:
            raise ConfigError(f"The picture cannot be written into {folder} ({error.strerror}).") from error
    return folder / "day.svg", folder / "day.png"


def _moves(name: str, days: Sequence[Day]) -> bool:
    return any(len({*stage.needed, *stage.paid}) > 1 for day in days for stage in day.stages if stage.stage == name)


def _draw_load(axes: Axes, day: Day, first: bool) -> None:
    hours = [step * EVERY * day.step_s / 3600 for step in range(len(day.turns_per_s[::EVERY]))]
    axes.plot(hours, _means(day.turns_per_s), color=LOAD, linewidth=0.8)
    axes.set_title(f"{day.policy}", fontweight="bold", loc="left")
    axes.set_xlim(0, max(hours[-1], 0.1))
    axes.set_ylim(bottom=0)
    if first:
        axes.set_ylabel("turns/s")


def _draw_stage(axes: Axes, stage: StageDay, first: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    needed, running, paid = stage.needed[::EVERY], stage.running[::EVERY], stage.paid[::EVERY]
    hours = [step * EVERY * stage.step_s / 3600 for step in range(len(needed))]
    axes.fill_between(hours, paid, step="post", color=PAID, linewidth=0, label="paid for")
    short = [less < more for less, more in zip(running, needed, strict=True)]
    axes.fill_between(hours, running, needed, where=short, step="post", color=SHORT, linewidth=0.8, label="missing")
    axes.step(hours, needed, where="post", color=NEEDED, linewidth=0.9, label="needed")
    told = figures(stage)
    axes.set_title(
        f"{stage.stage}: {told.over:.0%} over, {told.under:.1%} under, {told.changes} changes", loc="left", fontsize=8.5
    )
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    if first:
        axes.set_ylabel("replicas")


def _means(values: Sequence[float]) -> list[float]:
    return [sum(part) / len(part) for part in (values[at : at + EVERY] for at in range(0, len(values), EVERY))]
