"""Shapes are phases: as many, as high and as long as was written."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from serve_app.capacity.shapes import ConstantShape, DayShape, SoakShape, SpikeShape, StepsShape, to_duration, to_level


def test_steps_go_up_to_the_last() -> None:
    phases = StepsShape(first=2, by=2, last=7, each_s=20).phases()
    assert [(phase.name, phase.level) for phase in phases] == [("step 2", 2), ("step 4", 4), ("step 6", 6)]
    assert {phase.duration_s for phase in phases} == {20}
    assert len(StepsShape(first=0.1, by=0.1, last=1, each_s=1).phases()) == 10


def test_a_soak_is_cut_into_parts_that_can_be_compared() -> None:
    phases = SoakShape(level=3, for_s=1000, part_s=300).phases()
    assert len(phases) == 3
    assert sum(phase.duration_s for phase in phases) == pytest.approx(1000)


def test_a_day_has_its_peak_before_noon_and_a_quiet_night() -> None:
    phases = DayShape(peak=50, day_s=2400).phases()
    assert len(phases) == 24
    assert phases[0].name == "00:00-01:00"
    assert phases[-1].name == "23:00-24:00"
    assert max(phases, key=lambda phase: phase.level).name == "10:00-11:00"
    assert max(phase.level for phase in phases) == 50
    assert phases[3].level < 5
    assert sum(phase.duration_s for phase in phases) == pytest.approx(2400)


def test_every_shape_can_be_made_higher_and_longer() -> None:
    shapes = (
        ConstantShape(level=1, for_s=10), StepsShape(first=1, by=1, last=4, each_s=10), SoakShape(level=2, for_s=600),
        SpikeShape(base=1, peak=5, before_s=5, peak_s=5, after_s=5), DayShape(peak=3, day_s=240),
    )  # fmt: skip
    for shape in shapes:
        higher = to_level(shape, shape.top * 3)
        assert [phase.level for phase in higher.phases()] == pytest.approx(
            [phase.level * 3 for phase in shape.phases()]
        )
        longer = to_duration(shape, shape.duration_s * 2)
        assert len(longer.phases()) == len(shape.phases())
        assert longer.duration_s == pytest.approx(shape.duration_s * 2)


def test_more_phases_than_anybody_reads_are_refused() -> None:
    with pytest.raises(ValidationError):
        StepsShape(first=1, by=0.001, last=100, each_s=1)
    with pytest.raises(ValidationError):
        SoakShape(level=1, for_s=600_000, part_s=1)
