"""Sessions: kept up by tokens that work once, ended by one that is used again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serve_app.accounts.records import SESSIONS_KIND
from serve_app.accounts.service import AccountService
from serve_app.accounts.sessions import REPEAT_S
from serve_app.domain.access import SYSTEM_TENANT
from serve_app.domain.conversation import Page
from serve_app.domain.records import Record
from serve_app.errors import Overloaded, Unauthenticated
from serve_app.settings import AuthSettings
from serve_app.storage.memory import MemoryStore
from tests.unit.accounts.bench import LOGIN, OTHER_PASSWORD, PASSWORD, TENANT, USER, Bench
from tests.unit.accounts.keys import signing_pem


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    await made.add_account()
    return made


async def over(accounts: AccountService, token: str) -> None:
    with pytest.raises(Unauthenticated, match="over"):
        await accounts.refresh(token)


async def sessions(bench: Bench) -> int:
    return len((await bench.store.list_records(SYSTEM_TENANT, SESSIONS_KIND, limit=200)).items)


async def test_each_refresh_gives_another_pair(bench: Bench) -> None:
    tokens = await bench.accounts.login(LOGIN, PASSWORD)
    seen = {tokens.refresh_token}
    for _ in range(5):
        bench.clock.now += 900
        tokens = await bench.another_replica().refresh(tokens.refresh_token)
        seen.add(tokens.refresh_token)
    assert len(seen) == 6
    assert await sessions(bench) == 1


async def test_a_token_used_again_later_ends_the_session_for_whoever_has_it(bench: Bench) -> None:
    stolen = (await bench.accounts.login(LOGIN, PASSWORD)).refresh_token
    mine = await bench.accounts.refresh(stolen)
    bench.clock.now += REPEAT_S + 1
    await over(bench.accounts, stolen)
    await over(bench.accounts, mine.refresh_token)
    assert await sessions(bench) == 0


async def test_a_token_two_steps_back_ends_the_session_at_once(bench: Bench) -> None:
    first = (await bench.accounts.login(LOGIN, PASSWORD)).refresh_token
    second = (await bench.accounts.refresh(first)).refresh_token
    bench.clock.now += REPEAT_S + 1
    third = (await bench.accounts.refresh(second)).refresh_token
    await over(bench.accounts, first)
    await over(bench.accounts, third)


async def test_what_many_tabs_sent_at_once_ends_no_session_in_whatever_order_it_arrives(bench: Bench) -> None:
    """Tabs that a browser restores: some bring the cookie of before, some already the one that the first answer set."""
    first = (await bench.accounts.login(LOGIN, PASSWORD)).refresh_token
    second = (await bench.accounts.refresh(first)).refresh_token
    for late in (second, first, second, second, first):
        assert (await bench.another_replica().refresh(late)).refresh_token == second
    bench.clock.now += REPEAT_S + 1
    third = (await bench.accounts.refresh(second)).refresh_token
    assert third != second
    await bench.accounts.refresh(second)
    await bench.accounts.refresh(third)


async def test_a_lost_answer_can_be_asked_for_again_for_a_moment(bench: Bench) -> None:
    first = (await bench.accounts.login(LOGIN, PASSWORD)).refresh_token
    answer = await bench.accounts.refresh(first)
    bench.clock.now += REPEAT_S
    again = await bench.another_replica().refresh(first)
    assert again.refresh_token == answer.refresh_token
    await bench.accounts.refresh(again.refresh_token)


async def test_tabs_that_refresh_at_once_get_the_same_pair_and_stay(bench: Bench) -> None:
    first = (await bench.accounts.login(LOGIN, PASSWORD)).refresh_token
    replicas = [bench.accounts, bench.another_replica()]
    answers = await asyncio.gather(*(replicas[n % 2].refresh(first) for n in range(4)), return_exceptions=True)
    got = {answer.refresh_token for answer in answers if not isinstance(answer, BaseException)}
    assert len(got) == 1
    assert all(isinstance(a, Overloaded) for a in answers if isinstance(a, BaseException))
    bench.clock.now += 900
    await bench.accounts.refresh(got.pop())


async def test_a_session_ends_with_its_time_however_often_it_was_refreshed() -> None:
    bench = Bench(AuthSettings(mode="accounts", session_days=1))
    await bench.add_account()
    tokens = await bench.accounts.login(LOGIN, PASSWORD)
    for _ in range(23):
        bench.clock.now += 3_600
        tokens = await bench.accounts.refresh(tokens.refresh_token)
    assert tokens.session_ends_in_s == 3_600
    bench.clock.now += 3_600
    await over(bench.accounts, tokens.refresh_token)


async def test_a_session_does_not_outlast_the_password() -> None:
    bench = Bench(AuthSettings(mode="accounts", password_max_age_days=2))
    await bench.add_account()
    bench.clock.now += 86_400
    tokens = await bench.accounts.login(LOGIN, PASSWORD)
    assert tokens.session_ends_in_s == 86_400
    bench.clock.now += 86_400
    await over(bench.accounts, tokens.refresh_token)
    changed = await bench.accounts.change_password(LOGIN, PASSWORD, OTHER_PASSWORD)
    assert changed.session_ends_in_s == 2 * 86_400


async def test_whoever_logs_out_is_out_and_twice_is_no_error(bench: Bench) -> None:
    mine, other = [await bench.accounts.login(LOGIN, PASSWORD) for _ in range(2)]
    for _ in range(2):
        await bench.accounts.logout(mine.refresh_token)
    await over(bench.accounts, mine.refresh_token)
    await bench.accounts.refresh(other.refresh_token)
    await bench.accounts.logout("nonsense")


async def test_an_administrator_ends_every_session_of_a_user(bench: Bench) -> None:
    tokens = [await bench.accounts.login(LOGIN, PASSWORD) for _ in range(3)]
    await bench.accounts.end_sessions(TENANT, USER)
    for each in tokens:
        await over(bench.accounts, each.refresh_token)
    await bench.accounts.login(LOGIN, PASSWORD)
    await bench.accounts.end_sessions(TENANT, "u-nobody")


async def test_a_session_is_not_its_names_next_owners(bench: Bench) -> None:
    mine = (await bench.accounts.login(LOGIN, PASSWORD)).refresh_token
    await bench.accounts.remove(TENANT, USER)
    await bench.add_account("u-bob", LOGIN, OTHER_PASSWORD)
    await over(bench.accounts, mine)
    again = Bench()
    await again.add_account()
    before = (await again.accounts.login(LOGIN, PASSWORD)).refresh_token
    await again.accounts.remove(TENANT, USER)
    await again.add_account()
    await over(again.accounts, before)


async def test_a_store_that_can_remove_nothing_keeps_nobody_out() -> None:
    class Unsweepable(MemoryStore):
        async def list_records(self, *_args: object, **_options: object) -> Page[Record]:
            raise Overloaded("Busy.", None, 1.0)

    bench = Bench(store=Unsweepable())
    await bench.add_account()
    tokens = await bench.accounts.login(LOGIN, PASSWORD)
    await bench.accounts.refresh(tokens.refresh_token)


async def test_a_session_that_ends_while_it_is_refreshed_is_over(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    token = (await bench.accounts.login(LOGIN, PASSWORD)).refresh_token
    save = bench.store.save_record

    async def logged_out_first(*args: Any, **options: Any) -> Record:
        await bench.accounts.logout(token)
        return await save(*args, **options)

    monkeypatch.setattr(bench.store, "save_record", logged_out_first)
    await over(bench.accounts, token)
    assert await sessions(bench) == 0


async def test_a_made_up_token_ends_nobodys_session(bench: Bench) -> None:
    """Else whoever has seen a session's id could log its owner out."""
    good = (await bench.accounts.login(LOGIN, PASSWORD)).refresh_token
    session, generation, mac = good.split(".")
    for made_up in (
        f"{session}.{generation}.{'A' * 43}",
        f"{session}.{int(generation) + 1}.{mac}",
        f"{session}.0{generation}.{mac}",
        f"{session}.{generation}.{mac}=",
        f"{session}.{generation}",
        f"{session[:-1]}0.{generation}.{mac}",
        f"../{session}.{generation}.{mac}",
        "",
        "x" * 10_000,
        "é",
    ):
        if made_up != good:
            await over(bench.accounts, made_up)
    await bench.accounts.refresh(good)


async def test_another_signing_key_keeps_sessions_while_the_old_one_is_there(bench: Bench) -> None:
    tokens = await bench.accounts.login(LOGIN, PASSWORD)
    both = bench.another_replica(signing_pem("two") + signing_pem("one"))
    next_tokens = await both.refresh(tokens.refresh_token)
    only_new = bench.another_replica(signing_pem("two"))
    await only_new.refresh(next_tokens.refresh_token)
    await over(only_new, tokens.refresh_token)


async def test_sessions_that_are_over_are_removed_by_those_that_begin(bench: Bench) -> None:
    for _ in range(20):
        await bench.accounts.login(LOGIN, PASSWORD)
    assert await sessions(bench) == 20
    bench.clock.now += 15 * 86_400
    for _ in range(3):
        await bench.accounts.login(LOGIN, PASSWORD)
    assert await sessions(bench) == 3
