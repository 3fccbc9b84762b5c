"""A case on the page: what differs between answers, which repeat is shown, where time went."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.domain.conversation import TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.trial import RecordedCall
from serve_app.evaluation.cases import Case, CaseMessage, Expected, ExpectedCall
from serve_app.evaluation.page.case_view import case_view
from serve_app.evaluation.page.word_diff import MAX_WORDS, compared
from serve_app.evaluation.results import StepTrace
from tests.unit.evaluation.made_results import graded

CALL = RecordedCall(name="crm.find", arguments={"a": 1}, result={"b": 2})
CASE = Case(
    id="x",
    messages=(
        CaseMessage(role="user", content="first"),
        CaseMessage(role="assistant", content="reply", tool_calls=(CALL,)),
        CaseMessage(role="user", content="second"),
        CaseMessage(role="assistant", content="what was said then"),
    ),
    expected=Expected(facts=("one", "two"), refusal=False, tool_calls=(ExpectedCall(name="crm.find", arguments={"a": 1}),)),
    tags=("crm",),
)  # fmt: skip


def test_words_that_only_one_side_has_are_marked() -> None:
    before, after = compared("The owner is Ada Byron.", "The owner is Grace Byron, I think.")

    assert [text for text, only in before if only] == ["Ada"]
    assert [text for text, only in after if only] == ["Grace", ", I think"]
    assert "".join(text for text, _ in after) == "The owner is Grace Byron, I think."


@settings(deadline=None)
@given(st.text(max_size=300), st.text(max_size=300))
def test_comparing_loses_no_character(one: str, other: str) -> None:
    before, after = compared(one, other)

    assert "".join(text for text, _ in before) == one
    assert "".join(text for text, _ in after) == other


def test_answers_with_nothing_in_common_and_very_long_ones_are_left_plain() -> None:
    assert compared("all quite different here", "no word shared, sorry!")[0] == [("all quite different here", False)]
    long = "word " * (MAX_WORDS * 2)
    assert compared(long, long + "more")[1] == [(long + "more", False)]


def test_the_question_what_came_before_and_what_was_said_then_are_told_apart() -> None:
    view = case_view("c1", CASE, [graded("x", "a", {"g": 1.0})], ("a",), "a")

    assert view.asked == "second"
    assert [message.text for message in view.earlier] == ["first", "reply"]
    assert view.earlier[1].calls[0].result == '{"b": 2}'
    assert view.given == "what was said then"
    assert dict(view.expected) == {"facts": "one · two", "tool calls": 'crm.find{"a": 1}', "refusal": "no"}


def test_the_baseline_comes_first_and_flips_are_marked() -> None:
    results = [graded("x", "b", {"g": 0.0, "h": 1.0}), graded("x", "a", {"g": 1.0, "h": 0.0})]
    view = case_view("c1", CASE, results, ("b", "a"), "a")

    assert [one.configuration for one in view.answers] == ["a", "b"]
    assert view.answers[0].baseline
    assert {grade.name: grade.moved for grade in view.answers[1].grades} == {"g": "worse", "h": "better"}
    assert [chip.text for chip in view.chips] == ["✕ g", "✓ h"]
    marks = json.loads(view.marks)
    assert ["worse", "b", "g"] in marks
    assert ["better", "b", "h"] in marks
    assert ["missed", "a", "h"] in marks
    assert ["tag", "crm"] in marks


def test_of_repeats_the_one_that_says_what_most_say_is_shown() -> None:
    results = [graded("x", "a", {"g": 1.0})]
    results += [graded("x", "b", {"g": score}, repeat=repeat) for repeat, score in enumerate((1.0, 0.0, 0.0))]
    view = case_view("c1", CASE, results, ("a", "b"), "a")

    assert view.answers[1].repeat == "repeat 2"
    assert [one.repeat for one in view.more] == ["repeat 1", "repeat 3"]
    assert [chip.text for chip in view.chips] == ["✕ g"]


def test_an_answer_that_lost_against_the_baselines_is_worse() -> None:
    results = [graded("x", "a", {"g": 1.0}), graded("x", "b", {"judge": 0.0, "g": 1.0})]
    view = case_view("c1", CASE, results, ("a", "b"), "a", graders=("g", "judge"), pairwise=("judge",))

    assert [chip.text for chip in view.chips] == ["✕ judge"]
    assert [(grade.name, grade.moved) for grade in view.answers[1].grades] == [("g", ""), ("judge", "worse")]


def test_a_turn_shows_its_calls_with_their_results_and_where_time_went() -> None:
    step = StepTrace(
        step=1, model_id="m", model_ms=600, first_delta_ms=200, tools_ms=200,
        parts=(
            TextPart(text="Let me look."),
            ToolCallPart(tool_call_id="1", name="crm.find", arguments={"name": "Contoso"}),
            ToolResultPart(tool_call_id="1", name="crm.find", ok=False, result="no such account"),
            ToolCallPart(tool_call_id="2", name="crm.list", arguments={}),
        ),
    )  # fmt: skip
    one = graded("x", "a", {"g": 1.0}, ms=1000)
    turn = one.result.last.__class__(
        turn_id="t", question="?", answer="done", steps=(step,), total_ms=1030, queued_ms=30
    )
    view = case_view(
        "c1", CASE, [one.__class__(one.result.__class__(key=one.result.key, turns=(turn,)), one.grades)], ("a",), "a"
    )
    (shown,) = view.answers[0].turns

    assert [(call.name, call.result, call.ok) for call in shown.steps[0].calls] == [
        ("crm.find", "no such account", False), ("crm.list", None, True),
    ]  # fmt: skip
    assert [(piece.kind, piece.start, piece.length) for piece in shown.pieces] == [
        ("model", 0, 600),
        ("tools", 600, 200),
    ]
    assert "model 600 ms (first 200 ms)" in shown.steps[0].head


def test_a_case_that_is_not_in_the_run_any_more_is_shown_by_its_results() -> None:
    view = case_view("c1", None, [graded("x", "a", {"g": 1.0}, tags=("t",))], ("a",), "a")

    assert (view.id, view.asked, view.tags) == ("x", "Question of x?", ("t",))


def test_a_failed_turn_says_why() -> None:
    view = case_view("c1", CASE, [graded("x", "a", {"g": 0.0}, failed=True, error_message="it broke")], ("a",), "a")

    assert view.answers[0].error == "upstream_failed: it broke"
    assert view.chips[0].text == "a failed"
