"""Limits, origins and development identities, by the clock of the test."""

from __future__ import annotations

import pytest

from serve_app.errors import Unauthenticated
from serve_app.identity.development import DevelopmentAuthenticator
from serve_app.ingress.limits import ConnectionCount, TokenBucket, Violations
from serve_app.ingress.origins import origin_allowed


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_refills_with_time_and_never_above_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(2, clock)
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    clock.now += 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    clock.now += 60
    assert [bucket.take() for _ in range(3)] == [True, True, False]


def test_violations_are_forgiven_after_a_minute() -> None:
    clock = Clock()
    violations = Violations(2, clock)
    assert [violations.too_many() for _ in range(3)] == [False, False, True]
    clock.now += 61
    assert [violations.too_many() for _ in range(3)] == [False, False, True]


def test_connections_are_counted_by_user() -> None:
    count = ConnectionCount(1)
    assert count.enter(("t", "a"))
    assert not count.enter(("t", "a"))
    assert count.enter(("u", "a"))
    assert count.total == 2
    count.leave(("t", "a"))
    assert count.enter(("t", "a"))


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "allowed"),
    [
        (None, "parley.example", "http", True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", "http", True),
        ("https://parley.example", "parley.example", "http", True),  # TLS ends in front
        ("https://parley.example", "parley.example:443", "https", True),
        ("http://localhost:8000", "127.0.0.1:8000", "http", False),
        ("http://parley.example.evil", "parley.example", "http", False),
        ("http://parley.example:x", "parley.example", "http", False),
        ("file://", "parley.example", "http", False),
        ("null", "parley.example", "http", False),
        ("http://parley.example", None, "http", False),
        ("https://app.example", "parley.example", "ws", True),
    ],
)
def test_pages_may_act_on_their_own_host_or_as_configured(
    origin: str | None, host: str | None, scheme: str, allowed: bool
) -> None:
    assert origin_allowed(origin, host, scheme, ("https://app.example",)) is allowed


@pytest.mark.parametrize(
    ("headers", "query", "who"),
    [
        ({}, {}, ("default", "dev", ("sales",))),
        ({"Authorization": "Bearer anything"}, {}, ("default", "dev", ("sales",))),
        ({"X-Dev-User": "ana@example.com"}, {}, ("default", "ana@example.com", ("sales",))),
        ({"X-DEV-ROLES": " Sales, hr ,HR,"}, {}, ("default", "dev", ("sales", "hr"))),
        ({"x-dev-roles": ""}, {}, ("default", "dev", ())),
        ({"x-dev-user": "a"}, {"X-Dev-User": "b", "x-dev-tenant": "t"}, ("t", "b", ("sales",))),
    ],
)
async def test_headers_choose_who_one_is(
    headers: dict[str, str], query: dict[str, str], who: tuple[str, str, tuple[str, ...]]
) -> None:
    principal = (await DevelopmentAuthenticator().authenticate(headers, query)).principal
    assert (principal.tenant_id, principal.user_id, principal.roles) == who


@pytest.mark.parametrize(
    "headers",
    [
        {"x-dev-user": "x" * 129},
        {"x-dev-user": "a/b"},
        {"x-dev-tenant": ""},
        {"x-dev-roles": "r" * 33},
        {"x-dev-roles": ",".join(f"r{n}" for n in range(17))},
    ],
)
async def test_identities_are_bounded(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated):
        await DevelopmentAuthenticator().authenticate(headers, {})
