"""A forest plot as SVG: a row for each thing that was estimated, a dot for the estimate and a line for its interval.

As ``pages.plot``: drawn in several sizes, colours are classes of the page's style. On a phone a row's words stand above its line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from serve_app.pages.axes import Axis
from serve_app.pages.plot import LETTER, SIZES

ROW = 24
LINE = 13
"""Between the lines of a row that has several."""


@dataclass(frozen=True)
class Whisker:
    """An estimate and its interval. ``tip`` is shown when it is pointed at."""

    value: float
    low: float
    high: float
    colour: str
    tip: str = ""


@dataclass(frozen=True)
class ForestRow:
    """``words`` stand at the right, in the class ``look``."""

    label: str
    whiskers: Sequence[Whisker]
    words: str = ""
    look: str = ""


@dataclass(frozen=True)
class Forest:
    """``name`` is an identifier; ``about`` says what is to be seen, for who cannot see it. ``zero``: where no difference is."""

    name: str
    title: str
    about: str
    x: Axis
    rows: Sequence[ForestRow]
    legend: Sequence[tuple[str, str, bool]] = ()
    zero: float | None = None
    note: str = ""
    row: int = ROW
    """Height of a row with one line."""

    def svg(self, size: str) -> str:
        """The drawing in one of ``SIZES`` (its width; the height follows the rows), which is also its class."""
        return _Drawing(self, size).draw()


class _Drawing:
    def __init__(self, forest: Forest, size: str) -> None:
        self.forest = forest
        self.size = size
        self.width = SIZES[size][0]
        self.stacked = size == "narrow"
        room = 0.34 if size == "wide" else 0.28
        widest = max((len(row.label) for row in forest.rows), default=1) * LETTER + 14
        words = max((len(row.words) for row in forest.rows), default=0) * LETTER
        self.left = 8.0 if self.stacked else min(widest, self.width * room)
        self.right = self.width - (8.0 if self.stacked else words + 14 if words else 14.0)
        self.letters = int((self.left - 12) / LETTER) if not self.stacked else int((self.width - words - 20) / LETTER)
        self.heights = [
            max(ROW if self.stacked else forest.row, ROW + LINE * (len(row.whiskers) - 1))
            + (LINE + 2 if self.stacked else 0)
            for row in forest.rows
        ]
        self.top = 6
        self.bottom = self.top + sum(self.heights) + 4
        self.height = self.bottom + 36

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * self.forest.x.place(value)

    def draw(self) -> str:
        forest, name = self.forest, f"{self.forest.name}-{self.size}"
        parts = [
            f'<svg class="plot {self.size}" viewBox="0 0 {self.width} {self.height}" role="img"'
            f' aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{escape(forest.title)}</title>'
            f'<desc id="{name}-d">{escape(forest.about)}</desc>'
        ]
        parts += self._axis()
        y = float(self.top)
        for row, height in zip(forest.rows, self.heights, strict=True):
            parts += self._row(row, y, height)
            y += height
        return "".join(parts) + "</svg>"

    def _axis(self) -> list[str]:
        parts = []
        for value, text in self.forest.x.ticks(max(int((self.right - self.left) / 62), 3)):
            x = self.x(value)
            parts.append(_vertical("grid", x, self.top, self.bottom))
            half = len(text) * LETTER / 2
            middle = min(max(x, half + 1), self.width - half - 1)
            parts.append(f'<text x="{middle:.1f}" y="{self.bottom + 15}" text-anchor="middle">{escape(text)}</text>')
        if self.forest.zero is not None:
            parts.append(_vertical("zero", self.x(self.forest.zero), self.top, self.bottom))
        label = escape(self.forest.x.label)
        end = self.right if not self.stacked else self.width - 8
        parts.append(f'<text class="axis" x="{end:.1f}" y="{self.height - 4}" text-anchor="end">{label}</text>')
        return parts

    def _row(self, row: ForestRow, y: float, height: float) -> list[str]:
        label = row.label if len(row.label) <= self.letters else f"{row.label[: self.letters - 1]}…"
        middle = y + height / 2
        at = y + 13 if self.stacked else middle + 4
        text = f'<text class="label" x="{self.left if self.stacked else 4:.1f}" y="{at:.1f}">{escape(label)}</text>'
        parts = [text]
        if row.words:
            look = f' class="{row.look}"' if row.look else ""
            parts.append(f'<text{look} x="{self.width - 4}" y="{at:.1f}" text-anchor="end">{escape(row.words)}</text>')
        first = y + LINE + 12 if self.stacked else middle - LINE * (len(row.whiskers) - 1) / 2
        for place, whisker in enumerate(row.whiskers):
            parts.append(self._whisker(whisker, first + place * LINE))
        return parts

    def _whisker(self, one: Whisker, y: float) -> str:
        low, high, value = self.x(one.low), self.x(one.high), self.x(one.value)
        ends = "".join(f"M{x:.1f} {y - 3.5:.1f}V{y + 3.5:.1f}" for x in (low, high))
        tip = f"<title>{escape(one.tip)}</title>" if one.tip else ""
        return (
            f'<g>{tip}<path class="line {one.colour}" d="M{low:.1f} {y:.1f}H{high:.1f}{ends}"/>'
            f'<circle class="dot {one.colour}" cx="{value:.1f}" cy="{y:.1f}" r="4"/></g>'
        )


def _vertical(look: str, x: float, top: float, bottom: float) -> str:
    return f'<line class="{look}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
