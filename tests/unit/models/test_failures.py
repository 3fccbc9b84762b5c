"""What providers say about failures, read with care."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from serve_app.errors import QuotaExceeded, UpstreamFailed
from serve_app.models.failures import ProviderFailures, retry_after_s

FAILURES = ProviderFailures("p", "http://p/v1", "P_KEY", "the-key-itself")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "99999999"}, None),
        ({"retry-after": formatdate(0)}, None),
    ],
)
def test_when_to_come_back_is_read_in_every_form_and_nonsense_is_ignored(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after_s(headers) == seconds


def test_a_date_to_come_back_is_counted_from_now() -> None:
    found = retry_after_s({"retry-after": formatdate(time.time() + 100)})
    assert found is not None
    assert 90 < found <= 101


@pytest.mark.parametrize(
    "secret",
    [
        "the-key-itself",
        "sk-abcdef123456",
        "Bearer abc.def.ghi",
        "api_key_abcdef",
        "AbCd1234" * 5,
        "AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7",
    ],
)
def test_nothing_like_a_key_is_repeated(secret: str) -> None:
    message = FAILURES.in_stream({"message": f"Invalid value {secret}, see the guide"}).message
    assert secret not in message
    assert "see the guide" in message


def test_names_and_addresses_are_repeated() -> None:
    sentence = "Tool crm__find_opportunities_of_an_account_by_name is invalid, see https://platform.example.com/docs/guides/tools"
    assert sentence in FAILURES.in_stream({"message": sentence}).message


def test_errors_come_as_objects_sentences_and_nothing() -> None:
    assert FAILURES.in_stream("Too busy").message.endswith(": Too busy")
    silent_ones: list[object] = [None, True, {"code": 1}, {"message": 3}, "<html>", []]
    for silent in silent_ones:
        assert FAILURES.in_stream(silent).message.endswith("in the middle of its answer")


def test_the_kind_of_an_error_in_a_stream_is_found_by_its_code_or_type() -> None:
    assert isinstance(FAILURES.in_stream({"code": "rate_limit_exceeded"}), QuotaExceeded)
    assert isinstance(FAILURES.in_stream({"code": None, "type": "rate_limit_error"}), QuotaExceeded)
    assert isinstance(FAILURES.in_stream({"code": 503, "type": "server_error"}), UpstreamFailed)


def test_an_unexplained_break_is_an_upstream_failure() -> None:
    assert "broke the connection" in FAILURES.of(ConnectionResetError()).message
    assert "in time" in FAILURES.of(TimeoutError()).message


def test_google_tells_of_a_bad_key_and_of_when_to_come_back_among_its_details() -> None:
    details: list[object] = [3, {"@type": "…ErrorInfo", "reason": "API_KEY_INVALID"}]
    failure = FAILURES.of_status(400, {}, {"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": details}})
    assert isinstance(failure, UpstreamFailed) and "check P_KEY" in failure.message
    for delay, seconds in (("34s", 34.0), ("0.5s", 0.5), ("soon", None), ("99999999s", None)):
        body = [{"error": {"status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": delay}]}}]
        failure = FAILURES.of_status(429, {}, body)
        assert isinstance(failure, QuotaExceeded) and failure.retry_after_s == seconds
    assert FAILURES.of_status(429, {"retry-after": "2"}, body).retry_after_s == 2.0
