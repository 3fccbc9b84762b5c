"""A plot as SVG: lines over two axes, with limits drawn in.

Every plot is drawn in several sizes, and the page shows the one that fits: letters keep their size on a phone. Colours are
classes that the page's style gives a light and a dark value; nothing in a plot needs a script or a style of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from serve_app.pages.axes import Axis

SIZES = {"whole": (1130, 330), "wide": (560, 290), "narrow": (340, 250)}
"""Width and height: across the page, half of it, and a phone's."""
LETTER = 6.1
"""Pixels that a letter of a label takes, about."""


@dataclass(frozen=True)
class Series:
    """A line. ``colour`` is a class of the page (``c1`` … ``c6``, ``r0`` … ``r5`` for a sequence, ``mute``). ``points`` ascend in
    x; with None for y the line is broken there. ``steps`` holds each value until the next, ``area`` fills below."""

    name: str
    points: Sequence[tuple[float, float | None]]
    colour: str
    markers: bool = False
    dashed: bool = False
    steps: bool = False
    area: bool = False
    tips: Sequence[str] = ()


@dataclass(frozen=True)
class Limit:
    """A straight line across the plot at a value of ``axis`` (``x`` or ``y``), with a word to it."""

    axis: str
    value: float
    text: str
    colour: str = "limit"


@dataclass(frozen=True)
class Cell:
    """A filled rectangle between two values on each axis, ``strength`` 0 to 1."""

    x0: float
    x1: float
    y0: float
    y1: float
    strength: float
    tip: str = ""


@dataclass(frozen=True)
class Plot:
    """``name`` is an identifier; ``about`` says what is to be seen, for who cannot see it."""

    name: str
    title: str
    about: str
    x: Axis
    y: Axis
    series: Sequence[Series] = ()
    limits: Sequence[Limit] = ()
    cells: Sequence[Cell] = ()
    shades: Sequence[tuple[float, float]] = field(default=())
    """Ranges of x that are set off: a phase beyond the knee, a warm-up."""
    note: str = ""

    @property
    def legend(self) -> list[tuple[str, str, bool]]:
        """Name, colour and whether dashed of each series that has a name; none where one line says it all."""
        return [(series.name, series.colour, series.dashed) for series in self.series if series.name]

    def svg(self, size: str) -> str:
        """The drawing in one of ``SIZES``, which is also its class; its letters are 11 pixels high."""
        return _Drawing(self, size).draw()


class _Drawing:
    def __init__(self, plot: Plot, size: str) -> None:
        self.plot = plot
        self.size = size
        width, height = self.width, self.height = SIZES[size]
        self.id = f"{plot.name}-{size}"
        self.y_ticks = plot.y.ticks(6)
        self.left = max((len(text) for _, text in self.y_ticks), default=1) * LETTER + 12
        self.right = width - 14
        self.rows = self._rows()
        self.top = 24 + 15 * (max((row for _, row, _ in self.rows), default=-1) + 1)
        self.bottom = height - 38

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * self.plot.x.place(value)

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * self.plot.y.place(value)

    def draw(self) -> str:
        plot = self.plot
        parts = [
            f'<svg class="plot {self.size}" viewBox="0 0 {self.width} {self.height}" role="img"'
            f' aria-labelledby="{self.id}-t {self.id}-d"><title id="{self.id}-t">{escape(plot.title)}</title>'
            f'<desc id="{self.id}-d">{escape(plot.about)}</desc>'
        ]
        for low, high in plot.shades:
            x0, x1 = self.x(low), self.x(high)
            parts.append(f'<rect class="shade" {_box(x0, self.top, x1 - x0, self.bottom - self.top)}/>')
        parts += self._axes()
        parts += [self._cell(cell) for cell in plot.cells]
        for series in plot.series:
            parts += self._series(series)
        parts += self._limits()
        return "".join(parts) + "</svg>"

    def _axes(self) -> list[str]:
        plot, left, right, bottom = self.plot, self.left, self.right, self.bottom
        parts = [f'<text class="axis" x="4" y="13">{escape(plot.y.label)}</text>']
        for value, text in self.y_ticks:
            y = self.y(value)
            parts.append(_line("grid", left, right, y, y))
            parts.append(f'<text x="{_n(left - 6)}" y="{_n(y + 3.5)}" text-anchor="end">{escape(text)}</text>')
        for value, text in plot.x.ticks(max(int((right - left) / 52), 3)):
            x = self.x(value)
            parts.append(_line("axle", x, x, bottom, bottom + 4))
            at_edge = x > self.width - len(text) * LETTER / 2 - 2
            place = f'x="{self.width - 1}" text-anchor="end"' if at_edge else f'x="{_n(x)}" text-anchor="middle"'
            parts.append(f'<text {place} y="{_n(bottom + 16)}">{escape(text)}</text>')
        parts.append(_line("axle", left, right, bottom, bottom))
        label = escape(plot.x.label)
        parts.append(f'<text class="axis" x="{_n(right)}" y="{self.height - 5}" text-anchor="end">{label}</text>')
        return parts

    def _series(self, series: Series) -> list[str]:
        parts = []
        dashed = " dashed" if series.dashed else ""
        for run in _unbroken(series.points):
            path = self._path(run, steps=series.steps)
            if series.area and run:
                base = f"L{_n(self.x(run[-1][0]))} {_n(self.bottom)}L{_n(self.x(run[0][0]))} {_n(self.bottom)}Z"
                parts.append(f'<path class="area {series.colour}" d="{path}{base}"/>')
            parts.append(f'<path class="line {series.colour}{dashed}" d="{path}"/>')
        if series.markers:
            tips = [*series.tips, *[""] * (len(series.points) - len(series.tips))]
            for (x, y), tip in zip(series.points, tips, strict=True):
                if y is not None:
                    title = f"<title>{escape(tip)}</title>" if tip else ""
                    place = f'cx="{_n(self.x(x))}" cy="{_n(self.y(y))}" r="3.2"'
                    parts.append(f'<circle class="dot {series.colour}" {place}>{title}</circle>')
        return parts

    def _path(self, points: Sequence[tuple[float, float]], *, steps: bool) -> str:
        if not points:
            return ""
        commands = [f"M{_n(self.x(points[0][0]))} {_n(self.y(points[0][1]))}"]
        for (_, before), (x, y) in pairwise(points):
            if steps and y != before:
                commands.append(f"H{_n(self.x(x))}V{_n(self.y(y))}")
            elif steps:
                commands.append(f"H{_n(self.x(x))}")
            else:
                commands.append(f"L{_n(self.x(x))} {_n(self.y(y))}")
        return "".join(commands)

    def _cell(self, cell: Cell) -> str:
        x0, x1, y0, y1 = self.x(cell.x0), self.x(cell.x1), self.y(cell.y0), self.y(cell.y1)
        title = f"<title>{escape(cell.tip)}</title>" if cell.tip else ""
        box = _box(x0, y1, max(x1 - x0, 0.5), max(y0 - y1, 0.5))
        return f'<rect class="cell" {box} fill-opacity="{cell.strength:.2f}">{title}</rect>'

    def _rows(self) -> list[tuple[Limit, int, float]]:
        """Vertical limits with the row and the left end of their words, so that words do not meet."""
        ends: list[float] = []
        placed = []
        for limit in sorted((limit for limit in self.plot.limits if limit.axis == "x"), key=lambda limit: limit.value):
            width = len(limit.text) * LETTER
            middle = self.left + (self.right - self.left) * self.plot.x.place(limit.value)
            begin = min(max(middle - width / 2, self.left), self.right - width)
            row = next((row for row, end in enumerate(ends) if begin > end + 6), len(ends))
            ends[row : row + 1] = [begin + width]
            placed.append((limit, row, begin))
        return placed

    def _limits(self) -> list[str]:
        """Lines begin below the rows of words, so that none goes through another's word."""
        lines, words = [], []
        for limit, row, begin in self.rows:
            x, y = self.x(limit.value), 28.0 + 15 * row
            lines.append(_line(f"rule {limit.colour}", x, x, self.top - 6, self.bottom))
            words.append(f'<text class="mark {limit.colour}" x="{_n(begin)}" y="{_n(y)}">{escape(limit.text)}</text>')
        for limit in self.plot.limits:
            if limit.axis == "y":
                x, y = self.left + 5, self.y(limit.value)
                lines.append(_line(f"rule {limit.colour}", self.left, self.right, y, y))
                words.append(
                    f'<text class="mark {limit.colour}" x="{_n(x)}" y="{_n(y - 5)}">{escape(limit.text)}</text>'
                )
        return lines + words


def _unbroken(points: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _line(look: str, x0: float, x1: float, y0: float, y1: float) -> str:
    return f'<line class="{look}" x1="{_n(x0)}" x2="{_n(x1)}" y1="{_n(y0)}" y2="{_n(y1)}"/>'


def _box(x: float, y: float, width: float, height: float) -> str:
    return f'x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"'


def _n(value: float) -> str:
    """A coordinate, as short as it may be."""
    return f"{value:.1f}".rstrip("0").rstrip(".")
