"""A table and the large figures at the head of a page, as a template takes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """Text of a cell, a class (``bad``, ``good``, or one of the page's own), and where it leads (``#`` and an id)."""

    text: str
    look: str = ""
    href: str = ""


@dataclass(frozen=True)
class Table:
    """``head`` and ``rows``; the first column names the row. ``marks``: a class for each row."""

    caption: str
    head: list[str]
    rows: list[list[Cell]]
    marks: list[str]


@dataclass(frozen=True)
class Tile:
    """A figure that stands large. ``look`` is ``good``, ``bad`` or nothing."""

    name: str
    value: str
    note: str = ""
    look: str = ""
