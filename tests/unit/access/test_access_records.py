"""Users, tenants and identities: found again as saved, asked of the store once while they are kept, dropped by every save."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from serve_app.access.records import AccessRecords, record_key
from serve_app.caching.entries import MARK_S
from serve_app.caching.off import NoCache
from serve_app.caching.port import Cache
from serve_app.domain.access import USERS_KIND, IdentityRecord, TenantRecord, UserRecord
from serve_app.errors import Conflict, NotFound, StageUnavailable
from serve_app.storage.port import RecordStore
from tests.contract.store_inputs import Clock
from tests.unit.caching.bench import StoppableStore, memory_cache

TTL_S = 60.0
ANA = UserRecord(tenant_id="acme", user_id="ana", name="Ana", email="ana@acme.test", roles=("sales",))


class Bench:
    def __init__(self, cache: Cache, clock: Clock) -> None:
        self.cache = cache
        self.clock = clock
        self.store = StoppableStore()
        self.one = AccessRecords(cast(RecordStore, self.store), cache, ttl_s=TTL_S)
        self.other = AccessRecords(cast(RecordStore, self.store), cache, ttl_s=TTL_S)

    @property
    def asked(self) -> int:
        return self.store.asked.count("get_record")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    clock = Clock()
    async with memory_cache(clock) as cache:
        yield Bench(cache, clock)


async def test_an_identity_leads_to_its_user_and_tenant(bench: Bench) -> None:
    await bench.one.save_tenant(TenantRecord(tenant_id="acme", name="Acme"))
    await bench.one.save_user(ANA)
    await bench.one.save_identity(IdentityRecord(identity_id="https://idp/|77", tenant_id="acme", user_id="ana"))
    for _ in range(2):
        identity = (await bench.other.get_identity("https://idp/|77")).value
        user = (await bench.other.get_user(identity.tenant_id, identity.user_id)).value
        tenant = (await bench.other.get_tenant(user.tenant_id)).value
        assert (user, tenant) == (ANA, TenantRecord(tenant_id="acme", name="Acme"))
    assert bench.asked == 3


async def test_what_is_kept_is_asked_for_again_when_its_time_has_passed(bench: Bench) -> None:
    await bench.one.save_user(ANA)
    for _ in range(3):
        await bench.one.get_user("acme", "ana")
    assert bench.asked == 1
    bench.clock.advance(TTL_S)
    await bench.one.get_user("acme", "ana")
    assert bench.asked == 2


@pytest.mark.parametrize("foreign", [b"\xc1", b"{}", b"", b"\x93\x01\x02\x03"])
async def test_what_another_version_of_the_program_has_kept_is_read_anew(bench: Bench, foreign: bytes) -> None:
    await bench.one.save_user(ANA)
    await bench.cache.set(record_key("acme", USERS_KIND, "ana"), b"v" + foreign, ttl_s=TTL_S)
    for _ in range(2):
        assert (await bench.other.get_user("acme", "ana")).value == ANA
    assert bench.asked == 1


async def test_a_save_and_a_delete_are_seen_at_once_by_all_who_share_the_cache(bench: Bench) -> None:
    await bench.one.save_user(ANA)
    await bench.other.get_user("acme", "ana")
    barred = UserRecord(tenant_id="acme", user_id="ana", disabled=True)
    saved = await bench.one.save_user(barred)
    assert await bench.other.get_user("acme", "ana") == saved
    await bench.one.delete_user("acme", "ana")
    with pytest.raises(NotFound):
        await bench.other.get_user("acme", "ana")


async def test_what_is_missing_is_found_as_soon_as_it_is_made(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.other.get_tenant("acme")
    await bench.store.inner.save_record("", "tenant", "acme", b'{"tenant_id":"acme"}')
    assert (await bench.other.get_tenant("acme")).value.disabled is False


async def test_a_save_over_another_is_refused_where_the_etag_says_so(bench: Bench) -> None:
    first = await bench.one.save_user(ANA, if_match="")
    with pytest.raises(Conflict):
        await bench.one.save_user(ANA, if_match="")
    read = await bench.other.get_user("acme", "ana")
    assert read == first
    second = await bench.other.save_user(ANA, if_match=read.etag)
    with pytest.raises(Conflict):
        await bench.one.save_user(ANA, if_match=first.etag)
    assert (await bench.one.get_user("acme", "ana")).etag == second.etag


async def test_a_slow_read_does_not_bring_back_what_a_save_has_replaced(bench: Bench) -> None:
    await bench.one.save_user(ANA)
    slow = bench.store.hold_after("get_record")
    reading = asyncio.create_task(bench.one.get_user("acme", "ana"))
    await slow.reached()
    saved = await bench.other.save_user(UserRecord(tenant_id="acme", user_id="ana", disabled=True))
    slow.release()
    assert not (await reading).value.disabled
    assert await bench.one.get_user("acme", "ana") == saved


async def test_a_save_whose_outcome_is_not_known_leaves_nothing_stale(bench: Bench) -> None:
    await bench.one.save_user(ANA)
    await bench.one.get_user("acme", "ana")
    bench.store.raising["save_record"] = StageUnavailable("It went away.")
    with pytest.raises(StageUnavailable):
        await bench.one.save_user(UserRecord(tenant_id="acme", user_id="ana", disabled=True))
    assert (await bench.other.get_user("acme", "ana")).value.disabled
    bench.clock.advance(MARK_S)
    assert (await bench.other.get_user("acme", "ana")).value.disabled


async def test_lists_come_from_the_store(bench: Bench) -> None:
    for name in ("ana", "ben", "cem"):
        await bench.one.save_user(UserRecord(tenant_id="acme", user_id=name))
    await bench.one.save_user(UserRecord(tenant_id="globex", user_id="dora"))
    await bench.one.save_tenant(TenantRecord(tenant_id="acme"))
    page = await bench.one.list_users("acme", limit=2)
    rest = await bench.one.list_users("acme", limit=2, cursor=page.next_cursor)
    assert [saved.value.user_id for saved in (*page.items, *rest.items)] == ["ana", "ben", "cem"]
    assert rest.next_cursor is None
    assert [saved.value.tenant_id for saved in (await bench.one.list_tenants()).items] == ["acme"]
    await bench.one.list_users("acme")
    assert bench.store.asked.count("list_records") == 4


async def test_without_a_cache_every_read_asks_the_store() -> None:
    bench = Bench(NoCache(), Clock())
    await bench.one.save_user(ANA)
    for _ in range(2):
        assert (await bench.other.get_user("acme", "ana")).value == ANA
    assert bench.asked == 2


def test_keys_are_what_operators_look_for_and_no_id_reaches_into_another() -> None:
    assert record_key("", "tenant", "acme") == "authz:tenant:acme"
    assert record_key("", "identity", "i-1") == "authz:identity:i-1"
    assert record_key("acme", "user", "ana") == "authz:user:acme/ana"
    keys = {record_key("a", "user", "b/c"), record_key("a/b", "user", "c"), record_key("a:b", "user", "c")}
    assert len(keys) == 3
