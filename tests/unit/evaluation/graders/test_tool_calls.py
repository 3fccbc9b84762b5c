"""Tool calls: those expected against those made, in every mode, and the pairing against trying all."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.domain.conversation import ToolCallPart
from serve_app.evaluation.cases import ExpectedCall
from serve_app.evaluation.graders.call_matching import CallMatch, pair
from tests.unit.evaluation.graders.subjects import Call, a_result, a_subject, a_turn, expected_calls, graded, score

FIND: Call = ("crm.find_account", {"name": "Contoso"})
LIST: Call = ("crm.list_opportunities", {"account_id": 7})
NOTE: Call = ("crm.add_note", {"account_id": 7, "text": "Hi"})


@pytest.mark.parametrize(
    ("mode", "expected", "made", "wanted"),
    [
        # mode         expected        made            score
        ("exact", [FIND, LIST], [FIND, LIST], 1),
        ("exact", [FIND, LIST], [LIST, FIND], 0.5),
        ("exact", [FIND, LIST], [FIND], 0.5),
        ("exact", [FIND], [FIND, LIST], 0.5),
        ("exact", [FIND], [], 0),
        ("ordered", [FIND, LIST], [FIND, LIST], 1),
        ("ordered", [FIND, LIST], [FIND, NOTE, LIST], 1),
        ("ordered", [FIND, LIST], [LIST, FIND], 0.5),
        ("ordered", [FIND, LIST], [NOTE], 0),
        ("unordered", [FIND, LIST], [LIST, FIND], 1),
        ("unordered", [FIND, LIST], [LIST, FIND, NOTE, NOTE], 0.5),
        ("unordered", [FIND, FIND], [FIND], 0.5),
        ("superset", [FIND, LIST], [NOTE, LIST, FIND], 1),
        ("superset", [FIND, LIST], [FIND, NOTE], 0.5),
        ("superset", [FIND, FIND], [FIND], 0.5),
        ("superset", [FIND], [], 0),
        ("subset", [FIND, LIST], [FIND], 1),
        ("subset", [FIND, LIST], [], 1),
        ("subset", [FIND, LIST], [FIND, NOTE], 0.5),
        ("subset", [FIND], [FIND, FIND], 0.5),
        *((mode, [], [], 1) for mode in ("exact", "ordered", "unordered", "superset", "subset")),
        *((mode, [], [FIND], 0) for mode in ("exact", "ordered", "unordered", "superset", "subset")),
    ],
)
async def test_calls_are_compared_as_the_mode_says(
    mode: str, expected: list[Call], made: list[Call], wanted: float
) -> None:
    subject = a_subject("Done.", calls=tuple(made), tool_calls=expected_calls(*expected))
    assert await score({"type": "tool_calls", "mode": mode}, subject) == wanted


@pytest.mark.parametrize(
    ("arguments", "expected", "made", "wanted"),
    [
        ("subset", {"a": 1}, {"a": 1, "b": 2}, 1),
        ("subset", {"a": 1, "b": 2}, {"a": 1}, 0),
        ("subset", {"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, 1),
        ("subset", {"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}]}, 1),
        ("subset", {"a": [1]}, {"a": [1, 2]}, 0),
        ("exact", {"a": 1}, {"a": 1, "b": 2}, 0),
        ("exact", {"a": 1}, {"a": 1}, 1),
        ("exact", {"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, 0),
        ("ignore", {"a": 1}, {"z": 9}, 1),
        ("subset", {}, {"a": 1}, 1),
        ("exact", {}, {"a": 1}, 0),
        ("subset", {"a": 1}, {"a": 1.0}, 1),
        ("subset", {"a": 1}, {"a": True}, 0),
        ("subset", {"a": 0}, {"a": False}, 0),
        ("subset", {"a": 1}, {"a": "1"}, 0),
        ("subset", {"a": None}, {"a": None}, 1),
        ("subset", {"a": None}, {}, 0),
        ("subset", {"a": " x "}, {"a": "x"}, 1),
        ("subset", {"a": "X"}, {"a": "x"}, 0),
    ],
)
async def test_arguments_are_compared_as_the_run_file_says(
    arguments: str, expected: dict[str, Any], made: dict[str, Any], wanted: int
) -> None:
    subject = a_subject(calls=(("t.x", made),), tool_calls=expected_calls(("t.x", expected)))
    assert await score({"type": "tool_calls", "arguments": arguments}, subject) == wanted


async def test_texts_among_arguments_may_be_compared_whatever_their_case() -> None:
    subject = a_subject(calls=(("t.x", {"a": "CONTOSO"}),), tool_calls=expected_calls(("t.x", {"a": "Contoso"})))
    assert await score({"type": "tool_calls", "ignore_case": True}, subject) == 1


async def test_a_call_without_arguments_said_fits_whichever_they_are() -> None:
    subject = a_subject(calls=(FIND,), tool_calls=expected_calls("crm.find_account"))
    assert await score({"type": "tool_calls", "arguments": "exact"}, subject) == 1


async def test_precision_and_recall_are_among_the_details_and_what_differs_is_named() -> None:
    subject = a_subject(calls=(FIND, NOTE, NOTE, NOTE), tool_calls=expected_calls(FIND, LIST))
    grade = await graded({"type": "tool_calls", "mode": "unordered"}, subject)
    assert grade is not None
    assert grade.details == {"expected": 2, "made": 4, "precision": 0.25, "recall": 0.5}
    assert 'Not called: crm.list_opportunities {"account_id":7}.' in grade.reason
    assert "crm.add_note" in grade.reason


async def test_calls_of_earlier_turns_count_where_the_run_file_says_so() -> None:
    subject = a_subject(calls=(LIST,), tool_calls=expected_calls(FIND, LIST))
    result = a_result(a_turn(calls=(LIST,)), earlier=(a_turn(calls=(FIND,)),))
    both = type(subject)(case=subject.case, result=result)
    assert await score({"type": "tool_calls"}, both) == 0.5
    assert await score({"type": "tool_calls", "turns": "all"}, both) == 1


async def test_a_call_that_fits_several_leaves_the_only_one_to_another() -> None:
    """Whoever may have any does not take the one that somebody else needs."""
    expected = expected_calls("t.x", ("t.x", {"n": 0}), ("t.x", {"n": 1}))
    subject = a_subject(calls=(("t.x", {"n": 0}), ("t.x", {"n": 1}), ("t.x", {"n": 2})), tool_calls=expected)
    assert await score({"type": "tool_calls", "mode": "unordered"}, subject) == 1


NAMES = st.lists(st.sampled_from(["a", "b", "c"]), max_size=5)


@settings(deadline=None)
@given(NAMES, st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 2)), max_size=5), st.data())
def test_no_other_pairing_matches_more(names: list[str], made: list[tuple[str, int]], data: st.DataObject) -> None:
    expected = [
        ExpectedCall(name=name, arguments=data.draw(st.sampled_from([None, {"n": 0}, {"n": 1}]))) for name in names
    ]
    calls = [ToolCallPart(tool_call_id="", name=name, arguments={"n": number}) for name, number in made]
    match = CallMatch("subset", False)
    best = max(
        (
            sum(match(one, calls[at]) for one, at in zip(expected, order, strict=False) if at < len(calls))
            for order in permutations(range(max(len(calls), len(expected))), len(expected))
        ),
        default=0,
    )
    found = pair(expected, calls, match)
    assert found.matched == best
    assert found.in_order <= found.matched
    assert len(found.missing) == len(expected) - found.matched
    assert len(found.further) == len(calls) - found.matched
