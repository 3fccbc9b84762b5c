"""Which cases a run has."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.errors import ConfigError
from serve_app.evaluation.case_files import write_cases
from serve_app.evaluation.choosing import chosen_cases
from serve_app.evaluation.dataset import Dataset, open_dataset
from serve_app.evaluation.run_file import Sample
from tests.unit.evaluation.runs import case


def dataset(folder: Path, count: int) -> Dataset:
    cases = (case(number, tags=("even",) if number % 2 == 0 else ("odd", "must")) for number in range(count))
    write_cases(folder / "cases.jsonl", cases)
    return open_dataset(folder / "cases.jsonl")


def ids(found: Dataset, sample: Sample, seed: int = 1) -> list[str]:
    return [one.id for one in chosen_cases(found, sample, seed)]


def test_a_sample_has_its_size_its_order_and_is_the_same_every_time(tmp_path: Path) -> None:
    found = dataset(tmp_path, 500)
    drawn = ids(found, Sample(cases=50))
    assert len(drawn) == 50
    assert drawn == sorted(drawn) == ids(found, Sample(cases=50))
    assert drawn != ids(found, Sample(cases=50), seed=2)
    assert len(ids(found, Sample(cases=5_000))) == 500


def test_a_data_set_that_grew_keeps_most_of_its_sample(tmp_path: Path) -> None:
    before = set(ids(dataset(tmp_path, 500), Sample(cases=50)))
    after = set(ids(dataset(tmp_path, 550), Sample(cases=50)))
    assert len(before & after) > 35


def test_tags_choose_before_anything_is_drawn(tmp_path: Path) -> None:
    found = dataset(tmp_path, 100)
    assert len(ids(found, Sample(tags=("even",), cases=30))) == 30
    assert all(int(one[-5:]) % 2 for one in ids(found, Sample(without=("even",))))
    assert ids(found, Sample(first=3)) == [
        "case-00000", "case-00001", "case-00002",
    ]  # fmt: skip


def test_a_sample_with_nothing_in_it_is_refused(tmp_path: Path) -> None:
    found = dataset(tmp_path, 10)
    for sample in (Sample(tags=("none",)), Sample(tags=("odd",), without=("must",), cases=5)):
        with pytest.raises(ConfigError, match="No case of"):
            ids(found, sample)
