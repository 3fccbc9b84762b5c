"""Refusals that no simulator here makes, in the words that the service has for them."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.cosmos.exceptions import CosmosHttpResponseError

from serve_app.http_date import clock_off_s
from serve_app.storage.provision.diagnosis import Diagnosis, diagnose
from serve_app.storage.provision.plan import FoundAccount, plan

NOW = 1_700_000_000.0


class Refusal(CosmosHttpResponseError):
    def __init__(self, status: int, message: str, date: str | None = None) -> None:
        super().__init__(status_code=status, message=message)  # type: ignore[no-untyped-call]
        self.headers: Any = {} if date is None else {"Date": date}


def said(error: Exception, *, by_key: bool = True) -> Diagnosis:
    return diagnose(error, endpoint="https://x.documents.azure.com:443/", database="parley", by_key=by_key, now=NOW)


@pytest.mark.parametrize(
    ("status", "message", "by_key", "words"),
    [
        (401, "Local Authorization is disabled. Use an AAD token to authorize all requests.", True, "takes no keys"),
        (
            403, "Request is blocked because principal [1] does not have required RBAC permissions to perform action [a].",
            False, "Cosmos DB Built-in Data Contributor",
        ),
        (
            403, "The given request [POST /dbs] cannot be authorized by AAD token in data plane.", False,
            "for `parley store init` set AZURE_COSMOS_KEY",
        ),
        (
            403, "Request originated from client IP 20.1.2.3 through public internet. This is blocked.", True,
            "its address there is 20.1.2.3",
        ),
        (403, "Something else.", True, "Something else."),
        (409, "Strange.", True, "refuses this (409)"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_set_right(status: int, message: str, by_key: bool, words: str) -> None:
    found = said(Refusal(status, message), by_key=by_key)
    assert words in f"{found.message} {found.todo}"
    assert not found.passing


def test_a_clock_that_is_off_explains_a_refusal_before_anything_else_does() -> None:
    an_hour_on = "Tue, 14 Nov 2023 23:13:20 GMT"
    for status in (401, 403):
        assert "60 minutes behind" in said(Refusal(status, "No.", an_hour_on)).message
    assert "60 minutes" not in said(Refusal(404, "No.", an_hour_on)).message
    assert clock_off_s({"date": an_hour_on}, NOW) == -3600
    assert clock_off_s({"date": "yesterday"}, NOW) is None
    assert clock_off_s({}, NOW) is None
    out_of_range = "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"
    assert clock_off_s({"date": out_of_range}, NOW) is None
    assert "No." in said(Refusal(403, "No.", out_of_range)).message


def test_no_answer_may_pass_and_no_token_does_not() -> None:
    assert said(TimeoutError()).passing
    assert said(OSError("Name or service not known")).passing
    found = said(ClientAuthenticationError("No credential.\nAttempted:\n - many"))
    assert found.message == "AZURE_COSMOS_KEY is not set, and Entra ID gave no token: No credential."
    assert not found.passing


def test_a_long_reason_is_cut() -> None:
    assert len(said(Refusal(409, "x" * 10_000)).message) < 500


def test_throughput_that_entra_id_is_not_shown_is_no_difference() -> None:
    step = plan(FoundAccount(database=True, throughput_shown=False), max_rus=4000)[1]
    assert (step.name, step.action) == ("throughput", "keep")
