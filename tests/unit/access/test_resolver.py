"""Who somebody is: known, provisioned, or nobody; and that it is looked up anew for each request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from msgspec.structs import replace

from serve_app.access.administration import Administration
from serve_app.access.directory import StoredDirectory
from serve_app.access.policy import OPERATOR
from serve_app.access.resolver import NO_ACCESS, AccessResolver, provisioned_user_id
from serve_app.access.users import identity_id
from serve_app.caching.off import NoCache
from serve_app.domain.access import IdentityRecord, ProvisioningRecord, TenantRecord, UserRecord
from serve_app.domain.identity import Identity, TurnChoices
from serve_app.errors import Conflict, NotFound, NotPermitted, StageUnavailable
from serve_app.storage.port import RecordStore
from tests.contract.store_inputs import Clock
from tests.unit.caching.bench import StoppableStore, memory_cache

TTL_S = 60.0
NOW = 1_800_000_000.0
ANA = Identity(
    issuer="https://idp", tenant="acme", subject="s-1", expires_at=NOW + 900, email="Ana@Acme.test", name="Ana"
)


class Bench:
    def __init__(self, cache: Any) -> None:
        self.store = StoppableStore()
        self.directory = StoredDirectory(cast(RecordStore, self.store), cache, ttl_s=TTL_S)
        self.now = NOW
        self.access = AccessResolver(self.directory, clock=lambda: self.now)

    async def make_ana(self, **fields: Any) -> UserRecord:
        user = UserRecord(tenant_id="acme", user_id="ana", roles=("sales",), identities=(ANA.identity_id,), **fields)
        await self.directory.save_user(user)
        await self.directory.save_identity(IdentityRecord(identity_id=ANA.identity_id, tenant_id="acme", user_id="ana"))
        return user

    async def provision(self, match: Any, value: str, **fields: Any) -> None:
        await self.directory.save_provisioning(
            ProvisioningRecord(tenant_id="acme", match=match, value=value, roles=("sales",), **fields)
        )

    async def users(self) -> list[str]:
        return [saved.value.user_id for saved in (await self.directory.list_users("acme")).items]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with memory_cache(Clock()) as cache:
        bench = Bench(cache)
        await bench.directory.save_tenant(TenantRecord(tenant_id="acme"))
        yield bench


async def refused(bench: Bench, identity: Identity = ANA) -> None:
    with pytest.raises(NotPermitted) as caught:
        await bench.access.resolve(identity)
    assert caught.value.message == NO_ACCESS, "the answer must not tell which of the reasons it was"


async def test_a_known_identity_is_its_user_with_the_tenants_terms(bench: Bench) -> None:
    await bench.make_ana(allowed_tools=("hr",))
    tenant = TenantRecord(tenant_id="acme", default_tools=("crm",), choices=TurnChoices(model_id="large"))
    await bench.directory.save_tenant(tenant)
    principal = await bench.access.resolve(replace(ANA, roles=("management", "platform-admin")))
    assert (principal.tenant_id, principal.user_id, principal.roles) == ("acme", "ana", ("sales", "management"))
    assert principal.terms.tools == ("crm", "hr")
    assert principal.terms.choices.model_id == "large"


async def test_what_was_read_for_one_request_serves_the_next(bench: Bench) -> None:
    await bench.make_ana()
    for _ in range(3):
        await bench.access.resolve(ANA)
    assert bench.store.asked.count("get_record") == 3


Step = Callable[[Bench], Awaitable[object]]


async def _disable_user(bench: Bench) -> None:
    await bench.make_ana(disabled=True)


async def _unlink(bench: Bench) -> None:
    await bench.directory.save_user(UserRecord(tenant_id="acme", user_id="ana", roles=("sales",)))


async def _disable_identity(bench: Bench) -> None:
    link = IdentityRecord(identity_id=ANA.identity_id, tenant_id="acme", user_id="ana", disabled=True)
    await bench.directory.save_identity(link)


async def _move_identity(bench: Bench) -> None:
    await bench.directory.save_tenant(TenantRecord(tenant_id="globex"))
    await bench.directory.save_user(
        UserRecord(tenant_id="globex", user_id="ana", identities=(ANA.identity_id,), roles=("admin",))
    )
    await bench.directory.save_identity(IdentityRecord(identity_id=ANA.identity_id, tenant_id="globex", user_id="ana"))


@pytest.mark.parametrize(
    "change",
    [
        _disable_user,
        _unlink,
        _disable_identity,
        _move_identity,
        lambda b: b.directory.delete_user("acme", "ana"),
        lambda b: b.directory.delete_tenant("acme"),
        lambda b: b.directory.save_tenant(TenantRecord(tenant_id="acme", disabled=True)),
    ],
)
async def test_whoever_loses_access_has_none_at_the_next_request_and_is_not_let_in_again(
    bench: Bench, change: Step
) -> None:
    await bench.make_ana()
    for match, value in (("domain", "acme.test"), ("email", "ana@acme.test"), ("subject", "s-1")):
        await bench.provision(match, value)
    assert (await bench.access.resolve(ANA)).user_id == "ana"
    await change(bench)
    await refused(bench)


async def test_roles_follow_the_record_from_the_next_request_on(bench: Bench) -> None:
    user = await bench.make_ana()
    assert (await bench.access.resolve(ANA)).roles == ("sales",)
    await bench.directory.save_user(replace(user, roles=("hr",)))
    assert (await bench.access.resolve(ANA)).roles == ("hr",)


@pytest.mark.parametrize(
    "identity",
    [
        replace(ANA, subject="s-2", email=""),
        replace(ANA, subject="s-2", email="ana@other.test"),
        replace(ANA, subject="s-2", email="ana@sub.acme.test"),
        replace(ANA, subject="s-2", email="ana@xacme.test"),
        replace(ANA, subject="s-2", email="acme.test"),
        replace(ANA, subject="s-2", email="@acme.test"),
        replace(ANA, subject="s-2", email="ana@"),
        replace(ANA, subject="s-2", email="an\u212a@acme.test"),
        replace(ANA, subject="domain:acme.test", email=""),
        replace(ANA, tenant="globex"),
        replace(ANA, tenant=""),
        replace(ANA, tenant="acme/s-1", subject=""),
    ],
)
async def test_whom_no_record_means_is_not_let_in_and_nothing_is_written(bench: Bench, identity: Identity) -> None:
    await bench.provision("domain", "acme.test")
    await bench.directory.save_tenant(TenantRecord(tenant_id="globex"))
    await refused(bench, identity)
    assert await bench.users() == []
    assert (await bench.directory.list_audit("acme")).items == ()


@pytest.mark.parametrize(
    ("match", "value"),
    [("subject", "s-1"), ("email", "ana@acme.test"), ("email", "ANA@ACME.TEST"), ("domain", "Acme.TEST")],
)
async def test_whom_a_record_means_becomes_a_user_once(bench: Bench, match: str, value: str) -> None:
    await bench.provision(match, value)
    first = await bench.access.resolve(ANA)
    assert await bench.access.resolve(ANA) == first
    assert (first.tenant_id, first.roles) == ("acme", ("sales",))
    assert await bench.users() == [first.user_id]
    made = (await bench.directory.get_user("acme", first.user_id)).value
    assert (made.name, made.email, made.identities) == ("Ana", "Ana@Acme.test", (ANA.identity_id,))
    (entry,) = (await bench.directory.list_audit("acme")).items
    assert (entry.actor, entry.action, entry.target) == ("provisioning", "user.provision", f"user:{first.user_id}")


async def test_a_record_for_one_person_lets_in_one_and_a_domains_everybody(bench: Bench) -> None:
    await bench.provision("email", "ana@acme.test")
    ana = await bench.access.resolve(ANA)
    heir = replace(ANA, subject="s-2")
    await refused(bench, heir)
    assert (await bench.access.resolve(ANA)) == ana
    await bench.provision("domain", "acme.test")
    other = await bench.access.resolve(heir)
    assert other.user_id != ana.user_id


async def test_a_letter_that_only_looks_like_one_of_an_address_is_another(bench: Bench) -> None:
    await bench.provision("email", "mike@acme.test")
    await bench.provision("domain", "kilo.test")
    for email in ("mi\u212ae@acme.test", "mike@\u212ailo.test"):
        await refused(bench, replace(ANA, subject="s-3", email=email))
    assert (await bench.access.resolve(replace(ANA, subject="s-3", email="MIKE@acme.test"))).roles == ("sales",)


async def test_the_most_exact_record_counts(bench: Bench) -> None:
    await bench.provision("domain", "acme.test")
    await bench.directory.save_provisioning(
        ProvisioningRecord(tenant_id="acme", match="subject", value="s-1", roles=("management",))
    )
    assert (await bench.access.resolve(ANA)).roles == ("management",)


async def test_a_record_that_has_expired_lets_nobody_in(bench: Bench) -> None:
    await bench.provision("domain", "acme.test", expires_at=NOW + 10)
    bench.now = NOW + 10
    await refused(bench)
    bench.now = NOW + 9.9
    assert (await bench.access.resolve(ANA)).roles == ("sales",)


async def test_a_record_never_makes_a_platform_administrator(bench: Bench) -> None:
    await bench.directory.save_provisioning(
        ProvisioningRecord(tenant_id="acme", match="subject", value="s-1", roles=("platform-admin", "sales"))
    )
    assert (await bench.access.resolve(ANA)).roles == ("sales",)


@pytest.mark.parametrize("match", [("subject", "s-1"), ("domain", "acme.test")])
@pytest.mark.parametrize("held", ["get_record", "save_record"])
async def test_first_requests_at_the_same_time_make_one_user(bench: Bench, match: tuple[str, str], held: str) -> None:
    await bench.provision(*match)
    stopped = bench.store.hold_before(held)
    first = asyncio.create_task(bench.access.resolve(ANA))
    await stopped.reached()
    others = await asyncio.gather(*(bench.access.resolve(ANA) for _ in range(4)))
    stopped.release()
    assert set(map(str, [await first, *others])) == {str(others[0])}
    assert await bench.users() == [others[0].user_id]


async def test_a_store_that_never_agrees_ends_in_a_refusal() -> None:
    class Quarrelling(StoppableStore):
        def __getattr__(self, name: str) -> Any:
            if name == "save_record" and self.asked.count("settled"):
                raise Conflict("again")
            return super().__getattr__(name)

    bench = Bench(NoCache())
    quarrelling = Quarrelling()
    bench.directory = StoredDirectory(cast(RecordStore, quarrelling), NoCache(), ttl_s=TTL_S)
    bench.access = AccessResolver(bench.directory, clock=lambda: NOW)
    await bench.directory.save_tenant(TenantRecord(tenant_id="acme"))
    await bench.provision("subject", "s-1")
    quarrelling.asked.append("settled")
    await refused(bench)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_whoever_died_half_way_through_is_let_in_the_next_time(bench: Bench, number: int) -> None:
    """Dies at each of the records that are written: the provisioning record, the audit entry, the user, the identity."""
    await bench.provision("subject", "s-1")

    class Dying:
        def __init__(self) -> None:
            self.left = number

        def __getattr__(self, name: str) -> Any:
            method = getattr(bench.store, name)

            async def call(*args: Any, **options: Any) -> Any:
                done = await method(*args, **options)
                if name == "save_record":
                    self.left -= 1
                    if self.left == 0:
                        raise StageUnavailable("It died.")
                return done

            return call

    dying = AccessResolver(StoredDirectory(cast(RecordStore, Dying()), NoCache(), ttl_s=TTL_S), clock=lambda: NOW)
    with pytest.raises(StageUnavailable):
        await dying.resolve(ANA)
    bench.now = NOW + 1_000_000
    principal = await bench.access.resolve(ANA)
    assert (principal.roles, await bench.users()) == (("sales",), [principal.user_id])
    log = (await bench.directory.list_audit("acme")).items
    assert [(entry.actor, entry.action) for entry in log][-1:] == [("provisioning", "user.provision")], "made unseen"


async def test_whoever_was_removed_after_a_first_request_that_died_is_not_let_in_again(bench: Bench) -> None:
    await bench.provision("domain", "acme.test")
    user_id = provisioned_user_id(ANA)
    await bench.directory.save_user(UserRecord(tenant_id="acme", user_id=user_id, identities=(ANA.identity_id,)))
    await Administration.over(bench.directory).users.delete(OPERATOR, "acme", user_id)
    await refused(bench)


async def test_a_user_made_by_hand_under_a_provisioned_id_is_not_taken_over(bench: Bench) -> None:
    await bench.directory.save_user(
        UserRecord(tenant_id="acme", user_id=provisioned_user_id(ANA), roles=("platform-admin",))
    )
    await bench.provision("domain", "acme.test")
    await refused(bench)


async def test_the_same_subject_of_another_tenant_is_somebody_else(bench: Bench) -> None:
    await bench.make_ana()
    await bench.directory.save_tenant(TenantRecord(tenant_id="globex"))
    await refused(bench, replace(ANA, tenant="globex"))


def test_identities_of_different_tenants_and_subjects_never_meet() -> None:
    pairs = [("a", "b/c"), ("a/b", "c"), ("a%2Fb", "c"), ("a", "b"), ("a/b", ""), ("", "a/b"), ("A", "b")]
    assert len({identity_id(*pair) for pair in pairs}) == len(pairs)


async def test_a_record_that_is_missing_is_not_found() -> None:
    bench = Bench(NoCache())
    with pytest.raises(NotFound):
        await bench.directory.get_provisioning("acme", "subject:s-1")
    with pytest.raises(NotFound):
        await bench.directory.get_provider_key("acme", "openai")
