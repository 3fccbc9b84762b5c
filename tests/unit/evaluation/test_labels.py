"""What people say of answers, read from files, and held against graders and each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serve_app.errors import ConfigError
from serve_app.evaluation.agreement import human_agreement, judge_agreement
from serve_app.evaluation.labels import Label, merged, read_labels, write_labels
from serve_app.evaluation.results import CellKey, Grade


def a_label(case: str = "c1", **fields: Any) -> Label:
    return Label(**{"case_id": case, "configuration": "v1", "passed": True, **fields})


def read(
    tmp_path: Path, text: str, name: str = "labels.jsonl", configurations: tuple[str, ...] = ("v1",)
) -> list[Label]:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return read_labels(path, configurations)


def test_labels_are_read_from_csv(tmp_path: Path) -> None:
    text = (
        "\ufeffcase_id,configuration,grader,label,score,rater,note,repeat\r\n"
        'c1,v1,helpful,pass,,ann,"Well, yes",\r\n'
        "c2,v2,,FAIL,,,,1\r\n"
        "c3,v1,helpful/tone,,0.25,bob,,0\r\n"
    )
    assert read(tmp_path, text, "labels.csv", ("v1", "v2")) == [
        a_label("c1", grader="helpful", rater="ann", note="Well, yes"),
        a_label("c2", configuration="v2", passed=False, repeat=1),
        a_label("c3", grader="helpful/tone", passed=None, score=0.25, rater="bob"),
    ]


@pytest.mark.parametrize("sign", [";", "\t"])
def test_labels_are_read_from_csv_as_spreadsheets_of_other_countries_write_it(tmp_path: Path, sign: str) -> None:
    text = f"case_id{sign}label{sign}note\nc1{sign}pass{sign}Well, yes\n"

    assert read(tmp_path, text, "labels.csv") == [a_label("c1", note="Well, yes")]


def test_labels_are_read_from_json_lines_and_written_as_they_are_read(tmp_path: Path) -> None:
    text = """{"case_id": "c1", "label": "up"}
    {"case_id": 7, "configuration": "v1", "label": 0, "score": 0.5}

    {"case_id": "c3", "passed": false, "grader": "helpful", "criterion": "tone"}
    {"case_id": "c4", "score": 1}"""
    labels = read(tmp_path, text)
    assert labels == [
        a_label("c1"),
        a_label("7", passed=False, score=0.5),
        a_label("c3", passed=False, grader="helpful/tone"),
        a_label("c4", passed=None, score=1.0),
    ]
    write_labels(tmp_path / "again.jsonl", labels)
    assert read_labels(tmp_path / "again.jsonl", ("v1", "v2")) == labels


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"case_id": "c"}', "neither label"),
        ('{"label": "pass"}', "no case_id"),
        ('{"case_id": "c", "label": "perhaps"}', "'perhaps'; write pass or fail"),
        ('{"case_id": "c", "score": 4}', "a 4 on a scale from 1 to 5 is 0.75"),
        ('{"case_id": "c", "score": "NaN"}', "must be a number from 0 to 1"),
        ('{"case_id": "c", "score": true}', "must be a number from 0 to 1"),
        ('{"case_id": "c", "label": "pass", "configuration": "v9"}', "no configuration 'v9'; the run has v1"),
        ('{"case_id": "c", "label": "pass", "lable": "pass"}', "'lable' is no field"),
        ('{"case_id": "c", "label": "pass", "repeat": -1}', "repeat"),
        ('{"case_id": ["c"], "label": "pass"}', "case_id is no text"),
        ('["c", "pass"]', "no object"),
        ('{"case_id": "c"', "no JSON"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(tmp_path: Path, line: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, '{"case_id": "c1", "label": "pass"}\n' + line)
    assert "line 2" in caught.value.message
    assert why in caught.value.message


def test_which_configuration_must_be_said_where_there_are_several(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names no configuration; the run has v1, v2"):
        read(tmp_path, '{"case_id": "c1", "label": "pass"}', configurations=("v1", "v2"))


def test_the_first_twenty_problems_are_listed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, '{"case_id": "c1"}\n' * 50)
    assert caught.value.message.count("line ") == 20


@pytest.mark.parametrize("text", ["", "\n\n", b"\xff".decode("latin-1")])
def test_a_file_without_labels_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        read(tmp_path, text)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_labels(tmp_path / "nowhere.csv", ("v1",))


def test_who_says_something_else_later_has_changed_their_mind() -> None:
    earlier = [a_label("c1", rater="ann"), a_label("c2", rater="ann"), a_label("c1", rater="bob")]
    later = [a_label("c1", rater="ann", passed=False), a_label("c1", rater="ann", grader="helpful")]
    assert merged(earlier, later) == [
        a_label("c1", rater="ann", passed=False),
        a_label("c2", rater="ann"),
        a_label("c1", rater="bob"),
        a_label("c1", rater="ann", grader="helpful"),
    ]


def a_grade(case: str, score: float | None, grader: str = "helpful", **details: Any) -> tuple[CellKey, Grade]:
    passed = None if score is None else score >= 0.75
    key = CellKey(configuration="v1", case_id=case)
    return key, Grade(grader=grader, score=score, passed=passed, details=details)


def test_a_grader_is_held_against_people() -> None:
    labels = [a_label(f"c{number}", passed=number < 6) for number in range(10)]
    grades = [a_grade(f"c{number}", 1.0 if number < 5 else 0.0) for number in range(8)]
    (found,) = judge_agreement(labels, iter(grades), {"helpful": 0.75})
    assert found.scores is None
    assert (found.grader, found.labels, found.graded) == ("helpful", 10, 8)
    assert found.passed is not None
    assert list(found.passed.table) == [(0, 0, 2), (0, 1, 1), (1, 1, 5)]
    assert found.passed.observed == 7 / 8


def test_scores_are_compared_and_pass_by_the_graders_threshold() -> None:
    labels = [a_label("c1", passed=None, score=0.8), a_label("c2", passed=None, score=0.5)]
    grades = [a_grade("c1", 0.75), a_grade("c2", 0.25)]
    (found,) = judge_agreement(labels, grades, {"helpful": 0.75})
    assert found.passed is not None
    assert found.passed.observed == 1
    assert found.scores is not None
    assert list(found.scores.table) == [(0.25, 0.5, 1), (0.75, 0.8, 1)]


def test_people_who_differ_are_outvoted_or_even() -> None:
    labels = [
        *(a_label("c1", rater=str(number), passed=number < 2) for number in range(3)),
        *(a_label("c2", rater=str(number), passed=number < 1) for number in range(2)),
        *(a_label("c3", rater=str(number), passed=None, score=number / 2) for number in range(3)),
    ]
    (found,) = judge_agreement(labels, [a_grade("c1", 1), a_grade("c2", 1), a_grade("c3", 0.5)], {"helpful": 0.75})
    assert found.passed is not None
    assert list(found.passed.table) == [(0, 0, 1), (1, 1, 1)]
    assert found.scores is not None
    assert list(found.scores.table) == [(0.5, 0.5, 1)]


def test_labels_are_for_the_grader_they_name_and_of_criteria() -> None:
    labels = [
        a_label("c1", grader="helpful"),
        a_label("c1", grader="helpful/tone", passed=None, score=0.5),
        a_label("c1", grader="other", passed=False),
        a_label("c2"),
    ]
    grades = [
        a_grade("c1", 1.0, criteria={"tone": 3, "truth": 5}, scale=[1, 5]),
        a_grade("c2", 0.0),
        a_grade("c1", 0.9, "other"),
        a_grade("c2", None, "other"),
        a_grade("c1", 0.9, "unheard-of"),
    ]
    found = {one.grader: one for one in judge_agreement(labels, grades, {"helpful": 0.75, "other": 0.5})}
    assert list(found) == ["helpful", "other", "helpful/tone"]
    assert (found["helpful"].labels, found["helpful"].graded) == (2, 2)
    assert (found["other"].labels, found["other"].graded) == (2, 1)
    tone = found["helpful/tone"].scores
    assert tone is not None
    assert list(tone.table) == [(0.5, 0.5, 1)]


def test_repeats_and_configurations_are_answers_of_their_own() -> None:
    labels = [a_label("c1", repeat=1), a_label("c1", configuration="v2")]
    assert judge_agreement(labels, [a_grade("c1", 1.0)], {"helpful": 0.75})[0].graded == 0


def test_people_are_held_against_each_other() -> None:
    labels = [a_label(f"c{n}", rater="ann", passed=n < 5) for n in range(10)]
    labels += [a_label(f"c{n}", rater="bob", passed=n < 6) for n in range(2, 12)]
    labels += [a_label("z1", rater="eve")]
    (found,) = human_agreement(labels)
    assert found.raters == ("ann", "bob")
    assert found.passed is not None
    assert (found.passed.n, found.passed.observed) == (8, 7 / 8)
    assert found.scores is None
    assert human_agreement([a_label()]) == []
