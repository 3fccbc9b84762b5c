"""What one stage sees of another, over real Serve handles and the real channel."""

from __future__ import annotations

import pytest

from serve_app import errors
from tests.integration.conftest import Results

WHOLE = "One two three four."


@pytest.mark.parametrize("name", errors.__all__)
def test_every_failure_comes_back_as_itself(results: Results, name: str) -> None:
    outcome = results[f"error {name}"]
    assert outcome["error"] == name
    assert outcome["message"] == "A sentence."
    assert (outcome["retryable"], outcome["retry_after_s"]) == (True, 2.5)
    assert outcome["details"] == [{"field": "title"}]


def test_a_crash_becomes_an_internal_error_that_tells_nothing(results: Results) -> None:
    for what in ("crash", "own timeout"):
        assert results[what]["error"] == "Internal"
        assert results[what]["took_s"] < 5
    assert "secret" not in results["crash"]["message"]


def test_a_late_answer_is_a_deadline_and_the_callee_is_told_to_stop(results: Results) -> None:
    assert results["late"]["error"] == "DeadlineExceeded"
    assert results["late"]["retryable"] is True
    assert results["late: the callee is told"] is True


def test_text_of_a_generation_arrives_whole(results: Results) -> None:
    outcome = results["generate whole"]
    assert outcome["error"] is None
    assert "".join(outcome["shown"]) == outcome["text"] == WHOLE


def test_a_lost_tail_is_healed_from_the_result(results: Results) -> None:
    outcome = results["generate lost tail"]
    assert outcome["error"] is None
    assert outcome["shown"] == ["One two ", "three four."]


def test_a_gap_fails_the_step_and_may_be_tried_again(results: Results) -> None:
    outcome = results["generate gap"]
    assert outcome["error"] == "UpstreamFailed"
    assert outcome["retryable"] is True


def test_who_does_not_have_the_secret_is_not_heard(results: Results) -> None:
    outcome = results["generate stranger"]
    assert outcome["error"] is None
    assert outcome["shown"] == [WHOLE], "nothing of the channel's; all of it from the result"


def test_a_failure_in_the_middle_of_a_generation_is_itself(results: Results) -> None:
    outcome = results["generate fail"]
    assert outcome["error"] == "QuotaExceeded"
    assert outcome["message"] == "The provider has had enough."


def test_a_gateway_killed_in_the_middle_is_unavailable_and_retryable(results: Results) -> None:
    outcome = results["generate die"]
    assert outcome["error"] == "StageUnavailable"
    assert outcome["retryable"] is True
    assert outcome["shown"] == ["One "]


def test_while_there_is_no_replica_a_call_ends_by_its_deadline(results: Results) -> None:
    assert results["unreachable"]["error"] in {None, "StageUnavailable", "DeadlineExceeded"}
    assert results["unreachable"]["took_s"] < 10


def test_an_executor_killed_during_a_call_is_unavailable(results: Results) -> None:
    assert results["tool running"] is True
    assert results["tool killed"]["error"] == "StageUnavailable"


def test_a_turn_outlives_the_request_that_started_it(results: Results) -> None:
    assert results["turn one finished"] is True


def test_a_turn_outlives_the_replica_that_started_it(results: Results) -> None:
    assert results["turn two started"] is True
    assert results["turn two finished"] is True
    assert results["turns cancelled"] == []
