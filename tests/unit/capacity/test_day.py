"""The figures of a day are what a pencil says, and its picture can be drawn."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from serve_app.capacity.day import Change, Day, StageDay, figures, flaps
from serve_app.capacity.day_html import _missing, _steps, write_day
from serve_app.errors import ConfigError

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


def test_the_page_has_a_picture_of_every_stage_that_moves_and_figures_of_all(tmp_path: Path) -> None:
    still = StageDay("Store", 900.0, 1, 1, (1,) * 40, (1,) * 40, (1,) * 40, (0.0,) * 40, ())
    turns = msgspec.structs.replace(
        STAGE, needed=STAGE.needed * 10, running=STAGE.running * 10, paid=STAGE.paid * 10, wait_s=STAGE.wait_s * 10
    )
    day = Day("as configured", 900.0, 1, (1.0, 2.0, 3.0, 1.0) * 10, (10.0,) * 40, (turns, still))
    other = msgspec.structs.replace(day, policy="by <another>")
    path = write_day((day, other), "A day of a test.", tmp_path / "report")
    text = path.read_text(encoding="utf-8")
    assert text.count('<svg class="plot wide"') == 3, "the load, and one stage under each policy"
    assert "Turns, as configured: 38% over, 25.0% under, 2 changes" in text
    assert "by &lt;another&gt;" in text and "<another>" not in text
    assert text.count('<th scope="row">Store</th>') == 2
    assert "http" not in text.replace("http-equiv", "")


def test_what_is_missing_is_drawn_from_what_ran_up_to_what_was_needed() -> None:
    assert _missing((1, 3, 2), (1, 1, 2), 60.0) == [(60.0, 1.0), (60.0, 3.0), (60.0, None)]
    assert _steps((1, 1, 2, 2, 2), 60.0) == [(0.0, 1.0), (120.0, 2.0), (240.0, 2.0)]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    day = Day("as configured", 900.0, 1, (1.0,) * 4, (10.0,) * 4, (STAGE,))
    with pytest.raises(ConfigError, match="cannot be made"):
        write_day((day,), "A day of a test.", tmp_path / "file" / "report")
