"""Two runs: what differs is said to differ, what is chance is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.capacity.compare import Comparison, Difference, compare_reports
from serve_app.capacity.compare_html import phase_table, whole_table, write_comparison
from serve_app.errors import ConfigError
from tests.unit.capacity.synthetic import Model, write_run

RATES = (10.0, 20.0, 30.0, 40.0)


def compared(folder: Path, before: Model, after: Model) -> Comparison:
    return compare_reports(write_run(folder / "before", before), write_run(folder / "after", after))


def difference(found: Comparison, load: float, name: str) -> Difference:
    pair = next(pair for pair in found.pairs if pair.load == load)
    return next(item for item in pair.differences if item.name == name)


def test_fewer_slots_carry_less_by_as_much(tmp_path: Path) -> None:
    found = compared(tmp_path, Model(rates=(*RATES, 50)), Model(rates=(*RATES, 50), model_slots=45, seed=2))

    share = 1 - (found.b.answer.carries_per_s or 0) / (found.a.answer.carries_per_s or 1)
    assert share == pytest.approx(0.25, abs=0.06)
    assert found.headline.startswith(f"after carries {share:.0%} less than before within the SLO")


def test_the_same_model_with_another_seed_is_the_same(tmp_path: Path) -> None:
    found = compared(tmp_path, Model(rates=(*RATES, 50)), Model(rates=(*RATES, 50), seed=9))

    assert "carries as much as" in found.headline
    assert found.warnings == ()
    calm = [item for pair in found.pairs if pair.load <= 30 for item in pair.differences]
    assert sum(item.clear for item in calm) <= len(calm) // 5  # of twenty intervals one is wrong


def test_a_slower_first_token_is_clear_and_within_its_interval(tmp_path: Path) -> None:
    found = compared(tmp_path, Model(rates=RATES[:3]), Model(rates=RATES[:3], ttft_s=0.36, model_slots=500, seed=2))
    at = difference(found, 20.0, "ttft_p50_ms")

    assert at.clear
    assert at.low < 60 < at.high
    assert at.low < at.b - at.a < at.high
    assert "after is slower at" in found.latency


def test_an_interval_holds_the_truth_nineteen_times_of_twenty(tmp_path: Path) -> None:
    """Differences of the median between runs of one model, whose true difference is 0, over many seeds."""
    held = 0
    base = Model(rates=(20.0,), phase_s=20, warm_up_s=2)
    for seed in range(20):
        found = compared(tmp_path / str(seed), base, Model(rates=(20.0,), phase_s=20, warm_up_s=2, seed=100 + seed))
        at = difference(found, 20.0, "ttft_p50_ms")
        held += at.low <= 0 <= at.high
    assert held >= 16


def test_only_loads_that_both_had_are_compared(tmp_path: Path) -> None:
    found = compared(tmp_path, Model(rates=(5, 10, 20)), Model(rates=(10, 20, 30)))

    assert [pair.load for pair in found.pairs] == [10, 20]
    assert found.unmatched == (5, 30)


def test_runs_without_a_common_load_say_so(tmp_path: Path) -> None:
    found = compared(tmp_path, Model(rates=(5, 7)), Model(rates=(10, 20)))

    assert found.pairs == ()
    assert any("no load in common" in warning for warning in found.warnings)
    assert phase_table(found) is None


def test_runs_that_are_not_alike_are_warned_of(tmp_path: Path) -> None:
    found = compared(
        tmp_path, Model(rates=(5, 10)), Model(rates=(5, 10), cores=2, tokens=90, ttft_p95_s=0.9, generator_cpu=0.95)
    )

    for part in ("machines differ", "users differ", "SLOs differ", "In after: The load generator was short"):
        assert any(part in warning for warning in found.warnings), part


def test_one_limit_against_none_is_not_a_percentage(tmp_path: Path) -> None:
    found = compared(tmp_path, Model(rates=(*RATES, 50)), Model(rates=(10, 20)))

    assert found.headline.startswith("Which carries more is not known, for after reached no limit")


def test_the_page_of_a_comparison_says_what_the_comparison_says(tmp_path: Path) -> None:
    a, b = (
        write_run(tmp_path / "a & b", Model(rates=(5, 10, 15))),
        write_run(tmp_path / "c", Model(rates=(5, 10, 15), seed=3)),
    )
    page = tmp_path / "compare.html"
    found = write_comparison(a, b, page)
    text = page.read_text()

    assert "a &amp; b" in text
    assert "<script" not in text
    assert whole_table(found).head == ["", "a & b", "c"]
    assert text.count('<svg class="plot') == 3 * 2 + 1


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        compare_reports(write_run(tmp_path / "a", Model(rates=(5,), phase_s=5)), tmp_path / "b")
