"""From a case to turns and back: what is asked, with which history, which calls are on record, and what is kept."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from serve_app.domain.access import USER_ID
from serve_app.domain.conversation import Message, TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.trial import RecordedCall
from serve_app.domain.turns import NewTurn, StepRecord, Turn
from serve_app.domain.usage import Usage
from serve_app.evaluation.cases import Case, CaseMessage
from serve_app.evaluation.results import CellKey, TurnResult
from serve_app.evaluation.run_meta import ConfigurationMeta, EvaluationMode
from serve_app.evaluation.trial_turns import Asking, new_turn, questions, turn_result
from serve_app.turns.shadow_records import SHADOW_USER
from serve_app.turns.trial_tools import NOT_RECORDED
from serve_app.turns.trials import EVALUATION_USER, TrialEnd, TrialFailure

EARLY = RecordedCall(name="crm.find_account", arguments={"name": "Contoso"}, result={"id": 1})
LATE = RecordedCall(name="crm.find_account", arguments={"name": "Contoso"}, result={"id": 2})
CASE = Case(
    id="c1",
    messages=(
        CaseMessage(role="system", content="You are somebody else."),
        CaseMessage(role="assistant", content="Hello."),
        CaseMessage(role="user", content="Who is Contoso?"),
        CaseMessage(role="assistant", content="A customer.", tool_calls=(EARLY,)),
        CaseMessage(role="user", content="And its id?"),
        CaseMessage(role="assistant", content="2.", tool_calls=(LATE,)),
    ),
    tenant="globex",
    role="sales",
)
CELL = CellKey(configuration="a", case_id="c1", repeat=1)


def how(mode: EvaluationMode, **changes: object) -> Asking:
    return replace(Asking(run_id="r", mode=mode, tenant="acme", role="hr", timeout_s=60), **changes)


def asked(
    mode: EvaluationMode,
    number: int = -1,
    earlier: tuple[TurnResult, ...] = (),
    configuration: ConfigurationMeta | None = None,
    attempt: int = 0,
    case: Case = CASE,
    **changes: object,
) -> NewTurn:
    settings = configuration or ConfigurationMeta(name="a")
    return new_turn(how(mode, **changes), case, CELL, settings, questions(case, mode)[number], earlier, attempt)


def history(new: NewTurn) -> list[tuple[str, str]]:
    assert new.query.trial is not None
    return [(message.role, message.text) for message in new.query.trial.history]


def test_the_next_turn_is_the_last_question_after_what_was_recorded() -> None:
    new = asked("next-turn")
    assert new.query.content == "And its id?"
    assert history(new) == [("assistant", "Hello."), ("user", "Who is Contoso?"), ("assistant", "A customer.")]
    assert new.query.trial is not None
    call, result, _ = new.query.trial.history[2].parts
    assert isinstance(call, ToolCallPart) and isinstance(result, ToolResultPart)
    assert (call.name, call.arguments, result.result) == ("crm.find_account", {"name": "Contoso"}, {"id": 1})
    assert call.tool_call_id == result.tool_call_id


def test_a_single_shot_has_no_history() -> None:
    assert history(asked("single-shot")) == []
    assert asked("single-shot").query.content == "And its id?"


def test_in_a_replay_every_question_is_asked_after_our_own_replies() -> None:
    assert [question.text for question in questions(CASE, "replay")] == ["Who is Contoso?", "And its id?"]
    assert history(asked("replay", 0)) == [("assistant", "Hello.")]
    ours = TurnResult(turn_id="t", question="Who is Contoso?", answer="No idea.")
    assert history(asked("replay", 1, (ours,))) == [
        ("assistant", "Hello."), ("user", "Who is Contoso?"), ("assistant", "No idea."),
    ]  # fmt: skip


def test_calls_recorded_for_the_very_question_come_before_those_for_others() -> None:
    recorded = ConfigurationMeta(name="a", tools="recorded")
    new = asked("next-turn", configuration=recorded)
    assert new.query.trial is not None
    assert new.query.trial.tools.calls == (LATE, EARLY)
    first = asked("replay", 0, configuration=recorded)
    assert first.query.trial is not None and first.query.trial.tools.calls == (EARLY, LATE)


def test_live_tools_get_no_records_and_simulated_ones_the_run_s_replies_as_well() -> None:
    reply = RecordedCall(name="hr.leave", result=3)
    live = asked("next-turn", replies=(reply,))
    assert live.query.trial is not None and live.query.trial.tools.calls == ()
    simulated = asked("next-turn", replies=(reply,), configuration=ConfigurationMeta(name="a", tools="simulated"))
    assert simulated.query.trial is not None and simulated.query.trial.tools.calls == (LATE, EARLY, reply)


def test_the_case_says_who_asks_and_the_run_says_it_where_the_case_does_not() -> None:
    for case, tenant, role in ((CASE, "globex", "sales"), (replace(CASE, tenant=None, role=None), "acme", "hr")):
        new = asked("next-turn", case=case)
        assert new.query.trial is not None and new.query.trial.acting is not None
        assert (new.principal.tenant_id, new.principal.user_id) == (tenant, EVALUATION_USER)
        assert (new.query.trial.acting.tenant_id, new.query.trial.acting.roles) == (tenant, (role,))


def test_asked_again_it_is_the_same_turn_and_whatever_differs_makes_another() -> None:
    same = asked("next-turn")
    again = asked("next-turn")
    assert (same.key, same.query, same.client_turn_id) == (again.key, again.query, again.client_turn_id)
    others = [
        asked("next-turn", attempt=1),
        asked("next-turn", run_id="other"),
        new_turn(
            how("next-turn"), CASE, replace(CELL, repeat=0), ConfigurationMeta(name="a"), questions(CASE, "next-turn")[0], [], 0
        ),
        asked("replay", 0),
    ]  # fmt: skip
    assert len({new.key.turn_id for new in (same, *others)}) == 5
    assert not any(new.key.conversation.listed for new in (same, *others))
    assert (same.priority, same.opens) == ("batch", True)


def test_the_configuration_decides_on_prompt_model_and_settings() -> None:
    new = asked(
        "next-turn",
        configuration=ConfigurationMeta(
            name="a", prompt="assistant", prompt_version="v2", model="gpt", only_tools=("crm",)
        ),
    )
    assert new.query.model_id == "gpt"
    trial = new.query.trial
    assert trial is not None
    assert (trial.prompt, trial.prompt_version, trial.tools.only) == ("assistant", "v2", ("crm",))


def ended(state: str = "completed", failure: TrialFailure | None = None) -> TrialEnd:
    parts = (
        TextPart(text="Let me look. "),
        ToolCallPart(tool_call_id="1", name="crm.find_account", arguments={}),
        ToolResultPart(tool_call_id="1", name="crm.find_account", ok=False, result=NOT_RECORDED),
        ToolCallPart(tool_call_id="2", name="hr.leave", arguments={}),
        ToolResultPart(tool_call_id="2", name="hr.leave", ok=False, result="It broke."),
    )
    steps = (
        StepRecord(
            step=1, attempt=1, parts=parts, usage=Usage(input_tokens=5), finish_reason="tool_calls", model_id="m", last_seq=3
        ),
        StepRecord(
            step=2, attempt=2, parts=(TextPart(text="It is 2."),), usage=Usage(), finish_reason="stop", model_id="m", last_seq=9,
            model_ms=40, first_delta_ms=7, tools_ms=3, provider="p", warning="w",
        ),
    )  # fmt: skip
    key = TurnKey.new(ConversationKey(tenant_id="t", user_id="u", conversation_id="c"))
    turn = Turn(
        key=key, principal=asked("next-turn").principal, query=asked("next-turn").query, created_at=datetime.now(UTC),
        deadline=1.0, state=state, steps=steps, usage=Usage(input_tokens=5),  # type: ignore[arg-type]
        timings_ms={"total": 90, "queued": 4, "first_delta": 30},
    )  # fmt: skip
    message = Message(
        message_id="m", turn_id=key.turn_id, role="assistant", parts=parts + steps[1].parts, created_at=turn.created_at
    )
    return TrialEnd(turn=turn, message=message, failure=failure, prompt="assistant@v2")


def test_of_a_turn_its_answer_trace_times_and_unrecorded_calls_are_kept() -> None:
    kept = turn_result(ended())
    assert (kept.answer, kept.finish_reason, kept.prompt, kept.state) == (
        "It is 2.",
        "stop",
        "assistant@v2",
        "completed",
    )
    assert (kept.total_ms, kept.queued_ms, kept.first_delta_ms) == (90, 4, 30)
    assert kept.unrecorded == ("crm.find_account",)
    last = kept.steps[-1]
    assert (last.attempt, last.model_ms, last.first_delta_ms, last.tools_ms, last.provider, last.warning) == (
        2,
        40,
        7,
        3,
        "p",
        "w",
    )
    assert len(kept.parts) == 6


def test_a_turn_that_failed_says_why() -> None:
    kept = turn_result(ended("failed", TrialFailure(code="upstream_failed", message="It is down.", retryable=True)))
    assert (kept.state, kept.error_code, kept.error_message) == ("failed", "upstream_failed", "It is down.")
    with pytest.raises(ValueError, match="has not ended"):
        turn_result(ended("running"))


def test_nobody_can_be_who_owns_trials() -> None:
    assert USER_ID.fullmatch("ana")
    assert not any(USER_ID.fullmatch(owner) for owner in (EVALUATION_USER, SHADOW_USER))
