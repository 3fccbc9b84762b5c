"""Further attempts are a tenth of the calls, and ten more at most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve_app.models.retry_budget import RetryBudget


def spend(budget: RetryBudget) -> int:
    count = 0
    while budget.take():
        count += 1
    return count


def test_a_fresh_budget_has_ten_and_ten_calls_earn_one() -> None:
    budget = RetryBudget()
    assert spend(budget) == 10
    for _ in range(9):
        budget.earn()
    assert not budget.take()
    budget.earn()
    assert budget.take()
    assert not budget.take()


def test_no_more_than_ten_are_saved() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.earn()
    assert spend(budget) == 10


@given(st.lists(st.booleans(), max_size=2000))
def test_attempts_are_never_more_than_a_tenth_above_the_calls_and_ten(wants: list[bool]) -> None:
    """Each entry is a call, and whether it asks for as many further attempts as it can get."""
    budget = RetryBudget()
    attempts = 0
    for calls, wants_more in enumerate(wants, 1):
        budget.earn()
        attempts += 1 + (spend(budget) if wants_more else 0)
        assert attempts <= 1.1 * calls + 10
