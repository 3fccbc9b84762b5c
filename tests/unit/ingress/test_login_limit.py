"""Tries at passwords from one address."""

from __future__ import annotations

import pytest

from serve_app.errors import QuotaExceeded
from serve_app.ingress import login_limit
from serve_app.ingress.login_limit import LoginLimit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def refused(limit: LoginLimit, address: str) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        limit.spend(address)
    return caught.value


def test_an_address_has_so_many_tries_a_minute_and_is_told_when_the_next_is() -> None:
    clock = Clock()
    limit = LoginLimit(6, clock)
    for _ in range(6):
        limit.spend("192.0.2.1")
    assert refused(limit, "192.0.2.1").retry_after_s == 10
    limit.spend("192.0.2.2")
    clock.now = 9
    assert refused(limit, "192.0.2.1").retry_after_s == 1
    clock.now = 10
    limit.spend("192.0.2.1")
    refused(limit, "192.0.2.1")


def test_a_pause_gives_no_more_than_a_minutes_tries() -> None:
    clock = Clock()
    limit = LoginLimit(3, clock)
    limit.spend("192.0.2.1")
    clock.now = 3_600
    for _ in range(3):
        limit.spend("192.0.2.1")
    refused(limit, "192.0.2.1")


def test_whoever_cannot_be_told_apart_is_not_counted_together() -> None:
    limit = LoginLimit(1, Clock())
    for _ in range(10):
        limit.spend(None)


def test_addresses_without_number_take_no_memory_without_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_limit, "MAX_ADDRESSES", 5)
    limit = LoginLimit(1, Clock())
    for n in range(100):
        limit.spend(f"192.0.2.{n}")
    assert len(limit._buckets) == 5
    refused(limit, "192.0.2.99")
