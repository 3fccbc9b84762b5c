"""The figures of a day are what a pencil says, and its picture can be drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.capacity.day import Change, Day, StageDay, figures, flaps
from serve_app.capacity.day_plot import draw_day

STAGE = StageDay(
    stage="Turns",
    step_s=900.0,
    least=1,
    most=3,
    needed=(1, 2, 4, 1),
    running=(1, 1, 3, 3),
    paid=(1, 2, 3, 4),
    wait_s=(0.0, 2.5, 1.0, 0.0),
    changes=(Change(900.0, 1, 3), Change(2_700.0, 3, 1)),
)


def test_a_day_by_hand() -> None:
    told = figures(STAGE)
    assert (told.needed_hours, told.paid_hours) == (2.0, 2.5)
    assert told.over == 3 / 8
    assert told.under == 2 / 8
    assert told.short == 2 / 4
    assert told.capped == 1 / 4
    assert (told.longest_wait_s, told.fewest, told.largest) == (2.5, 1, 3)
    assert (told.changes, told.changes_per_hour, told.flaps) == (2, 2.0, 0)


def test_only_a_change_that_is_soon_taken_back_is_flapping() -> None:
    up, down = Change(0.0, 1, 2), Change(600.0, 2, 1)
    assert flaps((up, down, Change(1_200.0, 1, 2))) == 2
    assert flaps((up, Change(600.0, 2, 3))) == 0
    assert flaps((up, Change(900.0, 2, 1))) == 0


def test_a_day_without_moments_has_no_figures() -> None:
    with pytest.raises(ValueError, match="moments"):
        figures(StageDay("Turns", 5.0, 1, 2, (), (), (), (), ()))


def test_the_picture_has_every_stage_that_moves(tmp_path: Path) -> None:
    still = StageDay("Store", 900.0, 1, 1, (1,) * 4, (1,) * 4, (1,) * 4, (0.0,) * 4, ())
    day = Day("as configured", 900.0, 1, (1.0, 2.0, 3.0, 1.0), (10.0,) * 4, (STAGE, still))
    svg, png = draw_day((day, day), tmp_path / "report")
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    assert text.count("<!-- Turns: ") == 2
    assert "Store" not in text
