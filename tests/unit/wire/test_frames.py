"""Frames and problems, to the letter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app import errors
from serve_app.errors import Internal, InvalidInput, NotFound, Overloaded, QuotaExceeded, Unauthenticated
from serve_app.wire.problems import encode_problem
from serve_app.wire.requests import Ping, QueryFrame, parse_frame
from serve_app.wire.ws import (
    ActiveTurn,
    ConnectionAck,
    ErrorFrame,
    Pong,
    Reconnect,
    SessionCreated,
    TitleFrame,
    WarningFrame,
)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (ConnectionAck(connection_id="w_1"), '{"type":"connection.ack","connection_id":"w_1","protocol":1}'),
        (
            SessionCreated(session_id="s", user_id="u", roles=("sales",), tools=("crm.a",)),
            '{"type":"session.created","session_id":"s","user_id":"u","roles":["sales"],"tools":["crm.a"],"active_turn":null}',
        ),
        (
            SessionCreated(
                session_id="s", user_id="u", roles=(), tools=(), active_turn=ActiveTurn(turn_id="s.1", seq=4)
            ),
            '{"type":"session.created","session_id":"s","user_id":"u","roles":[],"tools":[],'
            '"active_turn":{"turn_id":"s.1","seq":4}}',
        ),
        (TitleFrame(session_id="s", title="T"), '{"type":"title","session_id":"s","title":"T"}'),
        (WarningFrame(turn_id="t", message="M"), '{"type":"warning","turn_id":"t","message":"M"}'),
        (Pong(), '{"type":"pong"}'),
        (Reconnect(after_ms=250), '{"type":"reconnect","after_ms":250,"reason":"draining"}'),
        (
            ErrorFrame.of(InvalidInput("Wrong.")),
            '{"type":"error","code":"invalid_input","message":"Wrong.","retryable":false,"turn_id":null}',
        ),
    ],
)
def test_frames_are_spelt_as_promised(frame: Any, text: str) -> None:
    assert frame.text() == text


def test_an_internal_error_frame_keeps_its_reason_to_itself() -> None:
    assert "db-7" not in ErrorFrame.of(Internal("db-7 exploded")).text()


def test_unknown_fields_of_a_frame_are_tolerated() -> None:
    frame = parse_frame('{"type":"query","content":"hi","email_id":"a@b","workspace_id":3,"model":"x","role":null}')
    assert frame == QueryFrame(type="query", content="hi")
    assert isinstance(parse_frame('{"now":1,"type":"ping"}'), Ping)


@given(st.text(max_size=60) | st.recursive(st.none() | st.text(max_size=5), lambda x: st.lists(x)).map(json.dumps))
def test_any_text_is_a_frame_or_invalid_input(text: str) -> None:
    try:
        parse_frame(text)
    except InvalidInput as error:
        assert error.message.endswith(".")


def test_a_problem_has_the_promised_members() -> None:
    problem = encode_problem(NotFound("There is no such turn."), "r_1")
    assert json.loads(problem.body) == {
        "type": "urn:parley:problem:not_found",
        "title": "Not found",
        "status": 404,
        "code": "not_found",
        "detail": "There is no such turn.",
        "retryable": False,
        "request_id": "r_1",
    }
    assert problem.headers["content-type"] == "application/problem+json"
    assert "retry-after" not in problem.headers


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Overloaded("Busy."), "1"),
        (Overloaded("Busy.", None, 2.2), "3"),
        (QuotaExceeded("Slow down.", None, 0.01), "1"),
    ],
)
def test_refusals_say_when_to_come_back(error: errors.ParleyError, seconds: str) -> None:
    assert encode_problem(error, "r").headers["retry-after"] == seconds


def test_internal_problems_name_their_class_in_development_only() -> None:
    bug = ZeroDivisionError("secret")
    shown = encode_problem(Internal("secret"), "r", cause=bug).body.decode()
    assert "ZeroDivisionError" in shown
    assert "secret" not in shown
    assert "ZeroDivisionError" not in encode_problem(Internal("secret"), "r").body.decode()


def test_who_is_not_authenticated_hears_how() -> None:
    assert encode_problem(Unauthenticated("Who?"), "r").headers["www-authenticate"] == "Bearer"


def test_every_code_has_its_status() -> None:
    statuses = {
        "invalid_input": 422,
        "unauthenticated": 401,
        "not_permitted": 403,
        "not_found": 404,
        "conflict": 409,
        "gone": 410,
        "too_large": 413,
        "quota_exceeded": 429,
        "overloaded": 503,
        "deadline_exceeded": 504,
        "upstream_failed": 502,
        "internal": 500,
    }
    for name in errors.__all__:
        kind = getattr(errors, name)
        if kind is not errors.ConfigError:
            assert encode_problem(kind("x"), "r").status == statuses[kind.code]
