"""The hierarchy of failures: what its table says is what the classes are, and every one of them crosses processes whole."""

from __future__ import annotations

import pickle
import re

import pytest

from serve_app import errors
from serve_app.errors import ParleyError

PROTOCOL_STATUSES = {
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
"""What clients are promised for each code."""

ROW = re.compile(r"[├└]── (?P<name>\w+) +(?P<code>\w+) +(?P<status>\d+|–) +(?P<retryable>yes|no)\b")


def hierarchy(base: type[ParleyError] = ParleyError) -> list[type[ParleyError]]:
    """Every class below ``base``, as the module defines them."""
    found = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, base) and kind is not ParleyError
    ]
    assert found
    return found


def table() -> dict[str, re.Match[str]]:
    return {match["name"]: match for match in ROW.finditer(errors.__doc__ or "")}


@pytest.mark.parametrize("kind", [ParleyError, *hierarchy()])
def test_an_error_survives_pickling_with_everything_it_says(kind: type[ParleyError]) -> None:
    sent = kind("It went wrong.", True, 2.5, [{"loc": ["query"], "msg": "is too long"}])
    got = pickle.loads(pickle.dumps(sent))  # noqa: S301 - our own bytes
    assert type(got) is kind
    assert str(got) == got.message == "It went wrong."
    assert (got.retryable, got.retry_after_s, got.details) == (sent.retryable, sent.retry_after_s, sent.details)
    assert (got.code, got.status, got.title) == (kind.code, kind.status, kind.title)


@pytest.mark.parametrize("kind", [ParleyError, *hierarchy()])
def test_an_error_that_says_nothing_of_retrying_keeps_its_kinds_answer_over_processes(kind: type[ParleyError]) -> None:
    got = pickle.loads(pickle.dumps(kind("It went wrong.")))  # noqa: S301
    assert got.retryable is kind.default_retryable
    assert pickle.loads(pickle.dumps(kind("It went wrong.", not kind.default_retryable))).retryable is not got.retryable  # noqa: S301


def test_the_table_lists_every_class_and_no_other() -> None:
    assert sorted(table()) == sorted(kind.__name__ for kind in hierarchy())


@pytest.mark.parametrize("kind", hierarchy())
def test_the_table_says_of_a_class_what_it_is(kind: type[ParleyError]) -> None:
    row = table()[kind.__name__]
    assert row["code"] == kind.code
    assert row["retryable"] == ("yes" if kind.default_retryable else "no")
    assert row["status"] in (str(kind.status), "–")


def test_codes_and_statuses_are_those_clients_are_promised() -> None:
    told = {kind.code: kind.status for kind in hierarchy() if kind is not errors.ConfigError}
    assert told == PROTOCOL_STATUSES


def test_a_class_below_another_keeps_its_code() -> None:
    for kind in hierarchy():
        (base,) = kind.__bases__
        if issubclass(base, ParleyError) and base is not ParleyError:
            assert (kind.code, kind.status) == (base.code, base.status)


def test_everything_public_is_exported() -> None:
    assert sorted(errors.__all__) == sorted(["ParleyError", *(kind.__name__ for kind in hierarchy())])
