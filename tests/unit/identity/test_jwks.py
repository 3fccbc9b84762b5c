"""Keys that are kept: when they are read again, when they are not, and what an outage does. By a clock of the test's own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serve_app.errors import Overloaded
from serve_app.identity.jwks import CachedKeys, Freshness, from_file
from tests.unit.identity.forge import jwk, key_set, rsa_key

TTL_S, STALE_S, MIN_REFETCH_S = 100.0, 1_000.0, 10.0
ONE = key_set(jwk(rsa_key("issuer"), "one"))
BOTH = key_set(jwk(rsa_key("issuer"), "one"), jwk(rsa_key("issuer 2"), "two"))
TWO = key_set(jwk(rsa_key("issuer 2"), "two"))


class Issuer:
    """What is read, how often it was, and whether it answers."""

    def __init__(self, text: bytes = ONE) -> None:
        self.text = text
        self.reads = 0
        self.away = False
        self.answering = asyncio.Event()
        self.answering.set()

    async def read(self) -> bytes:
        self.reads += 1
        await self.answering.wait()
        if self.away:
            raise OSError("connection refused")
        return self.text


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    def __init__(self, *, timeout_s: float = 5.0) -> None:
        self.issuer = Issuer()
        self.clock = Clock()
        freshness = Freshness(ttl_s=TTL_S, stale_s=STALE_S, min_refetch_s=MIN_REFETCH_S, timeout_s=timeout_s)
        self.keys = CachedKeys(self.issuer.read, freshness, self.clock)

    async def has(self, kid: str) -> bool:
        return await self.keys.find(kid) is not None

    async def settled(self) -> None:
        """Lets a reading that nobody waits for come to its end."""
        for _ in range(5):
            await asyncio.sleep(0)


async def test_keys_are_read_with_the_first_token_and_then_kept() -> None:
    bench = Bench()
    assert bench.issuer.reads == 0
    for _ in range(3):
        assert await bench.has("one")
    assert bench.issuer.reads == 1


async def test_a_hundred_first_tokens_read_once() -> None:
    bench = Bench()
    assert all(await asyncio.gather(*(bench.has("one") for _ in range(100))))
    assert bench.issuer.reads == 1


async def test_a_key_that_is_new_is_found_at_once_and_one_that_is_gone_in_time() -> None:
    bench = Bench()
    assert await bench.has("one")
    bench.issuer.text = TWO
    bench.clock.now += MIN_REFETCH_S
    assert await bench.has("two")
    assert not await bench.has("one")
    assert bench.issuer.reads == 2


async def test_however_many_unknown_names_come_the_issuer_is_asked_now_and_then() -> None:
    bench = Bench()
    assert await bench.has("one")
    for second in range(100):
        bench.clock.now = float(second)
        await asyncio.gather(*(bench.has(f"made up {second} {n}") for n in range(50)))
    assert bench.issuer.reads == 1 + 9  # at 10, 20, … 90 s


async def test_a_name_that_is_known_waits_for_no_reading_that_another_asked_for() -> None:
    bench = Bench()
    assert await bench.has("one")
    bench.clock.now += MIN_REFETCH_S
    bench.issuer.answering.clear()
    unknown = asyncio.create_task(bench.has("two"))
    await bench.settled()
    assert bench.issuer.reads == 2
    assert await bench.has("one")
    assert not unknown.done()
    bench.issuer.text = BOTH
    bench.issuer.answering.set()
    assert await unknown


async def test_a_request_that_goes_away_does_not_end_the_reading_for_others() -> None:
    bench = Bench()
    bench.issuer.answering.clear()
    first, second = (asyncio.create_task(bench.has("one")) for _ in range(2))
    await bench.settled()
    first.cancel()
    await bench.settled()
    bench.issuer.answering.set()
    assert await second
    assert bench.issuer.reads == 1


async def test_keys_are_read_again_when_their_time_has_passed() -> None:
    bench = Bench()
    assert await bench.has("one")
    bench.clock.now += TTL_S - 1
    assert await bench.has("one")
    assert bench.issuer.reads == 1
    bench.issuer.text = TWO
    bench.clock.now += 1
    assert not await bench.has("one"), "a key that was withdrawn must not outlive its time"
    assert bench.issuer.reads == 2


async def test_old_keys_go_on_through_an_outage_and_nobody_waits_for_it() -> None:
    bench = Bench()
    assert await bench.has("one")
    bench.issuer.away = True
    bench.clock.now = TTL_S
    assert await bench.has("one")  # this one has waited, and found the issuer away
    bench.issuer.answering.clear()  # from now on the issuer does not even say that
    while bench.clock.now < STALE_S - MIN_REFETCH_S:
        bench.clock.now += MIN_REFETCH_S
        async with asyncio.timeout(1):
            assert await bench.has("one")
        await bench.settled()
    assert bench.issuer.reads == 3, "it is asked again, and only once at a time"
    bench.issuer.away = False
    bench.issuer.answering.set()
    await bench.settled()
    assert await bench.has("one")


async def test_a_key_that_is_new_in_an_outage_is_not_called_wrong() -> None:
    """Whoever is told so throws a good token away."""
    bench = Bench()
    assert await bench.has("one")
    bench.issuer.away = True
    bench.issuer.text = TWO
    bench.clock.now += MIN_REFETCH_S
    for _ in range(3):
        with pytest.raises(Overloaded):
            await bench.has("two")
        assert await bench.has("one")
    bench.issuer.away = False
    bench.clock.now += MIN_REFETCH_S
    assert await bench.has("two")
    assert not await bench.has("three")


async def test_keys_too_old_are_used_no_more_and_come_back() -> None:
    bench = Bench()
    assert await bench.has("one")
    bench.issuer.away = True
    bench.clock.now = STALE_S
    with pytest.raises(Overloaded) as refused:
        await bench.has("one")
    assert refused.value.retry_after_s == MIN_REFETCH_S
    bench.issuer.away = False
    with pytest.raises(Overloaded):
        await bench.has("one")  # not before the time has come to ask again
    bench.clock.now += MIN_REFETCH_S
    assert await bench.has("one")


async def test_without_any_keys_nobody_is_told_that_their_token_is_wrong() -> None:
    bench = Bench()
    bench.issuer.away = True
    for _ in range(20):
        with pytest.raises(Overloaded):
            await bench.has("one")
    assert bench.issuer.reads == 1


@pytest.mark.parametrize("nonsense", [b"", b"<html>502</html>", b'{"keys": []}', b'{"keys": "none"}'])
async def test_an_answer_without_keys_takes_none_away(nonsense: bytes) -> None:
    bench = Bench()
    assert await bench.has("one")
    bench.issuer.text = nonsense
    bench.clock.now = TTL_S
    assert await bench.has("one")
    bench.issuer.text = TWO
    bench.clock.now += MIN_REFETCH_S
    assert await bench.has("one")  # this token only makes it read again
    await bench.settled()
    assert await bench.has("two")


async def test_an_issuer_that_never_answers_is_given_up() -> None:
    bench = Bench(timeout_s=0.02)
    bench.issuer.answering.clear()
    with pytest.raises(Overloaded):
        await bench.has("one")


async def test_a_file_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(ONE)
    clock = Clock()
    keys = CachedKeys(
        from_file(path), Freshness(ttl_s=TTL_S, stale_s=STALE_S, min_refetch_s=MIN_REFETCH_S, timeout_s=5), clock
    )
    assert await keys.find("one") is not None
    path.write_bytes(TWO)
    clock.now = MIN_REFETCH_S
    assert await keys.find("two") is not None
    path.unlink()
    clock.now = MIN_REFETCH_S + TTL_S
    assert await keys.find("two") is not None
