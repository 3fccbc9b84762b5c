"""Figures: which there are in a text, and whether the expected one is among them."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.evaluation.graders.figures import figures
from tests.unit.evaluation.graders.subjects import a_subject, graded, score


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It is 42.", [42]),
        ("1,234.50", [1234.5]),
        ("1.234,50", [1234.5]),
        ("1 234 567", [1234567]),
        ("1 234", [1234]),
        ("1'234", [1234]),
        ("1,234", [1234]),
        ("1.234", [1.234]),
        ("12,5", [12.5]),
        ("0,125", [0.125]),
        ("about ~-5, or “-7”", [-5, -7]),
        ("|\t-5\t|", [-5]),
        ("12,345,678", [12345678]),
        ("0.5", [0.5]),
        ("$1.2M", [1.2e6]),
        ("€ 3.4 million", [3.4e6]),
        ("3 thousand and 5k", [3000, 5000]),
        ("2bn or 2 billion", [2e9, 2e9]),
        ("5m and 5 m and €5m", [5, 5, 5e6]),
        ("12 B", [12]),
        ("1e6", [1e6]),
        ("12 %", [12]),
        ("-5 degrees", [-5]),
        ("−5 degrees", [-5]),
        ("-$5", [-5]),
        ("$-5", [-5]),
        ("between 3-5", [3, 5]),
        ("3–5 days", [3, 5]),
        ("30d and 12EUR", [30, 12]),
        ("(7)", [7]),
        ("OPP-1042 and A7 and case_9", []),
        ("on 2026-11-22 at 10:30", []),
        ("on 22.11.2026 or 11/22/2026", []),
        ("version 1.2.3", []),
        ("4f2a", []),
        ("no figure", []),
        ("**7** and `8`", [7, 8]),
        ("| 7 | 8 |", [7, 8]),
        ("1, 2, 3", [1, 2, 3]),
        ("5,6 and 7", [5.6, 7]),
    ],
)
def test_the_figures_of_a_text(text: str, wanted: list[float]) -> None:
    assert [figure.value for figure in figures(text)] == pytest.approx(wanted)


def test_what_could_be_either_is_what_the_run_file_says() -> None:
    assert [figure.value for figure in figures("1.234 and 1,234", ",")] == [1234, 1.234]


@pytest.mark.parametrize(
    ("answer", "expected", "options", "wanted"),
    [
        ("The total is 12,500 EUR.", 12500, {}, 1),
        ("The total is 12,501 EUR.", 12500, {}, 0),
        ("The total is 12,501 EUR.", 12500, {"absolute": 1}, 1),
        ("About 12.4k.", 12500, {"relative": 0.01}, 1),
        ("About 12.3k.", 12500, {"relative": 0.01}, 0),
        ("It grew by 25 %.", 0.25, {}, 1),
        ("It grew by 25.", 0.25, {}, 0),
        ("It grew by 25%.", 25, {}, 1),
        ("3 of 12", 12, {}, 1),
        ("3 of 12", 12, {"pick": "first"}, 0),
        ("3 of 12", 12, {"pick": "last"}, 1),
        ("3 of 12", 12, {"pick": "only"}, 0),
        ("12, so 12", 12, {"pick": "only"}, 1),
        ("12 days and 5 hours", 12, {"unit": "days"}, 1),
        ("12 hours and 5 days", 12, {"unit": "days"}, 0),
        ("EUR 12 and USD 5", 12, {"unit": "eur"}, 1),
        ("€12 and $5", 5, {"unit": "$"}, 1),
        ("€12 and $5", 12, {"unit": "$"}, 0),
        ("12 m", 12, {"unit": "m"}, 1),
        ("12 mm", 12, {"unit": "m"}, 0),
        ("-5", 5, {}, 0),
        ("0", 0, {}, 1),
        ("none", 0, {}, 0),
    ],
)
async def test_a_figure_in_the_answer_is_the_expected_one(
    answer: str, expected: float, options: dict[str, Any], wanted: int
) -> None:
    assert await score({"type": "numeric", **options}, a_subject(answer, number=expected)) == wanted


async def test_a_wrong_figure_is_named_beside_the_right_one() -> None:
    grade = await graded({"type": "numeric"}, a_subject("It is 12,501.", number=12500))
    assert grade is not None
    assert "12,501" in grade.reason
    assert "12,500" in grade.reason


@settings(deadline=None)
@given(
    st.integers(min_value=-(10**9), max_value=10**9),
    st.integers(min_value=0, max_value=99),
    st.sampled_from([".", ","]),
)
def test_a_figure_with_separators_is_read_back(whole: int, cents: int, decimal: Literal[".", ","]) -> None:
    thousands = "," if decimal == "." else "."
    written = f"{whole:,}".replace(",", thousands) + f"{decimal}{cents:02}"
    value = abs(whole) + cents / 100
    (found,) = figures(f"It is {written} then", decimal)
    assert found.value == pytest.approx(-value if whole < 0 else value)


@settings(deadline=None)
@given(st.text(alphabet="0123456789.,'-+ %$€kmb:/eE\n", max_size=80))
def test_whatever_a_text_is_its_figures_are_numbers(text: str) -> None:
    assert all(isinstance(figure.value, float) for figure in figures(text))


@pytest.mark.timeout(10)
def test_a_long_text_of_digits_is_read_in_its_time() -> None:
    assert len(figures("1,234 " * 100_000)) == 1000
    assert figures("1" * 100_000 + "x" * 1000) == []
    assert len(figures("1," * 100_000)) <= 1000
