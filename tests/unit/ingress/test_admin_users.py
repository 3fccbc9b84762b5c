"""Users: made, changed, let in and removed by the administrators of their tenant, who cannot make themselves more than that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serve_app.accounts.port import Reset
from serve_app.domain.access import MAX_IDENTITIES
from serve_app.domain.identity import Identity, Principal
from serve_app.errors import NotPermitted, StageUnavailable
from tests.unit.ingress.admin_bench import AdminBench, same_apart_from_ids
from tests.unit.ingress.asgi import Client, Reply


@pytest.fixture
async def bench() -> AsyncIterator[AdminBench]:
    bench = AdminBench()
    await bench.make_tenants()
    yield bench


async def make(client: Client, user_id: str = "ana", tenant: str | None = None, **fields: Any) -> Reply:
    query = "" if tenant is None else f"tenant_id={tenant}"
    return await client.request("POST", "/api/admin/users", {"user_id": user_id, **fields}, query=query)


async def comes_in(bench: AdminBench, subject: str, tenant: str = "acme", **fields: Any) -> Principal:
    identity = Identity(issuer="https://idp", tenant=tenant, subject=subject, expires_at=2e9, **fields)
    return await bench.access.resolve(identity)


async def test_a_user_made_with_a_subject_comes_in_with_its_roles(bench: AdminBench) -> None:
    made = await make(bench.admin_of("acme"), roles=["Sales", "sales", "hr"], subject="s|1", email="ana@acme.test")
    assert made.status == 201
    shown = made.json()
    assert (shown["tenant_id"], shown["user_id"], shown["roles"]) == ("acme", "ana", ["sales", "hr"])
    assert (shown["subjects"], shown["email"]) == (["s|1"], "ana@acme.test")
    assert (await comes_in(bench, "s|1")).roles == ("sales", "hr")
    with pytest.raises(NotPermitted):
        await comes_in(bench, "s|1", tenant="globex")


async def test_a_user_needs_no_id_of_an_administrators_making(bench: AdminBench) -> None:
    made = await bench.admin_of("acme").request("POST", "/api/admin/users", {"name": "Ana"})
    assert made.json()["user_id"].startswith("u_")
    listed = (await bench.admin_of("acme").request("GET", "/api/admin/users")).json()["items"]
    assert [user["name"] for user in listed] == ["Ana"]


async def test_users_of_another_tenant_look_like_none(bench: AdminBench) -> None:
    await make(bench.admin_of("globex"), "bob")
    admin = bench.admin_of("acme")
    for method, body in (("GET", None), ("PATCH", {"name": "B"}), ("DELETE", None)):
        foreign = await admin.request(method, "/api/admin/users/bob", body)
        missing = await admin.request(method, "/api/admin/users/bab", body)
        assert foreign.status == 404
        assert same_apart_from_ids(foreign, missing)
    assert (await bench.admin_of("globex").request("GET", "/api/admin/users/bob")).status == 200


async def test_a_change_counts_from_the_users_next_request_on(bench: AdminBench) -> None:
    admin = bench.admin_of("acme")
    await make(admin, roles=["sales"], subject="s")
    fields = {"roles": ["hr"], "allowed_tools": ["web"], "denied_tools": ["hr.pay"], "limits": {"concurrent_turns": 1}}
    await admin.request("PATCH", "/api/admin/tenants/acme", {"default_tools": ["crm"]})
    changed = await admin.request("PATCH", "/api/admin/users/ana", fields)
    assert changed.json()["limits"]["concurrent_turns"] == 1
    principal = await comes_in(bench, "s")
    assert (principal.roles, principal.terms.tools, principal.terms.denied_tools) == (
        ("hr",),
        ("crm", "web"),
        ("hr.pay",),
    )
    assert principal.terms.user_limits.concurrent_turns == 1
    await admin.request("PATCH", "/api/admin/users/ana", {"disabled": True})
    with pytest.raises(NotPermitted):
        await comes_in(bench, "s")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tenant_id": "globex"},
        {"user_id": "root"},
        {"identities": ["acme/other"]},
        {"subjects": ["other"]},
        {"is_admin": True},
        {"role": "admin"},
        {"roles": "admin"},
        {"roles": None},
        {"roles": ["a b"]},
        {"roles": ["r" * 65]},
        {"roles": [f"r{n}" for n in range(17)]},
        {"denied_tools": None},
        {"limits": {"unlimited": True}},
        {"limits": {"concurrent_turns": -1}},
        {"email": "not an address"},
        {"name": "\ud800"},
        {"name": "two\nlines"},
        {"password": "x"},
    ],
)
async def test_a_field_that_is_not_to_be_set_here_is_refused(bench: AdminBench, body: Any) -> None:
    await make(bench.operator, tenant="acme", roles=["sales"])
    before = (await bench.admin_of("acme").request("GET", "/api/admin/users/ana")).json()
    assert (await bench.admin_of("acme").request("PATCH", "/api/admin/users/ana", body)).status == 422
    assert (await bench.admin_of("acme").request("GET", "/api/admin/users/ana")).json() == before


async def test_only_a_platform_administrator_makes_another(bench: AdminBench) -> None:
    admin = bench.admin_of("acme")
    assert (await make(admin, roles=["platform-admin"])).status == 403
    assert (await make(admin, roles=[" Platform-Admin "])).status == 403
    assert (await make(admin, roles=["admin"])).status == 201
    assert (await admin.request("PATCH", "/api/admin/users/ana", {"roles": ["platform-admin"]})).status == 403
    record = {"match": "subject", "value": "s", "roles": ["platform-admin"]}
    assert (await admin.request("POST", "/api/admin/provisioning", record)).status == 403
    by_operator = await bench.operator.request("POST", "/api/admin/provisioning", record, query="tenant_id=acme")
    assert by_operator.status == 422
    assert (await make(bench.operator, "root", tenant="acme", roles=["platform-admin"])).status == 201


async def test_a_tenants_administrator_cannot_become_a_platform_administrator_by_way_of_one(bench: AdminBench) -> None:
    await make(bench.operator, "root", tenant="acme", roles=["platform-admin"], subject="r")
    admin = bench.admin_of("acme")
    for method, path, body in (
        ("PATCH", "/api/admin/users/root", {"disabled": True}),
        ("PATCH", "/api/admin/users/root", {"roles": []}),
        ("DELETE", "/api/admin/users/root", None),
        ("POST", "/api/admin/users/root/subjects", {"subject": "mine"}),
        ("DELETE", "/api/admin/users/root/subjects?subject=r", None),
        ("POST", "/api/admin/users/root/reset", {}),
    ):
        address, _, query = path.partition("?")
        reply = await admin.request(method, address, body, query=query)
        assert (reply.status, reply.json()["code"]) == (403, "not_permitted"), (method, path)
    assert (await comes_in(bench, "r")).roles == ("platform-admin",)
    assert (await make(admin, "mine", subject="r")).status == 409


async def test_a_subject_is_one_user(bench: AdminBench) -> None:
    admin = bench.admin_of("acme")
    await make(admin, "ana", subject="s")
    await make(admin, "bob")
    taken = await admin.request("POST", "/api/admin/users/bob/subjects", {"subject": "s"})
    assert (taken.status, taken.json()["detail"]) == (409, "That subject is another user's.")
    assert (await comes_in(bench, "s")).user_id == "ana"
    assert (await admin.request("DELETE", "/api/admin/users/ana/subjects", query="subject=s")).json()["subjects"] == []
    with pytest.raises(NotPermitted):
        await comes_in(bench, "s")
    assert (await admin.request("POST", "/api/admin/users/bob/subjects", {"subject": "s"})).status == 200
    assert (await comes_in(bench, "s")).user_id == "bob"
    assert (await admin.request("DELETE", "/api/admin/users/ana/subjects", query="subject=s")).status == 404


async def test_an_identity_is_added_once_and_there_are_so_many_and_no_more(bench: AdminBench) -> None:
    admin = bench.admin_of("acme")
    etag = (await make(admin, subject="s0")).headers["etag"]
    again = await admin.request("POST", "/api/admin/users/ana/subjects", {"subject": "s0"})
    assert again.headers["etag"] == etag
    for number in range(1, MAX_IDENTITIES + 1):
        reply = await admin.request("POST", "/api/admin/users/ana/subjects", {"subject": f"s{number}"})
        assert reply.status == (200 if number < MAX_IDENTITIES else 422)


async def test_a_removed_users_subject_is_free_for_another(bench: AdminBench) -> None:
    admin = bench.admin_of("acme")
    await make(admin, "ana", subject="s")
    await admin.request("DELETE", "/api/admin/users/ana")
    assert (await make(admin, "bob", subject="s", roles=["hr"])).status == 201
    assert (await comes_in(bench, "s")).user_id == "bob"


async def test_a_change_that_changes_nothing_leaves_the_record_as_it_is(bench: AdminBench) -> None:
    admin = bench.admin_of("acme")
    etag = (await make(admin, roles=["sales"])).headers["etag"]
    same = await admin.request("PATCH", "/api/admin/users/ana", {"roles": ["sales"], "disabled": False})
    assert same.headers["etag"] == etag


async def test_of_two_who_make_a_user_at_once_one_does(bench: AdminBench) -> None:
    admin = bench.admin_of("acme")
    replies = await asyncio.gather(*(make(admin, "ana", subject=f"s{number}") for number in range(3)))
    assert sorted(reply.status for reply in replies) == [201, 409, 409]
    (subject,) = (await admin.request("GET", "/api/admin/users/ana")).json()["subjects"]
    for number in range(3):
        if f"s{number}" == subject:
            assert (await comes_in(bench, subject)).user_id == "ana"
        else:
            with pytest.raises(NotPermitted):
                await comes_in(bench, f"s{number}")


async def test_a_user_made_anew_under_an_old_id_is_not_the_one_before(bench: AdminBench) -> None:
    admin = bench.admin_of("acme")
    await make(admin, "ana", subject="old")
    assert (await admin.request("DELETE", "/api/admin/users/ana")).status == 204
    assert (await make(admin, "ana", subject="new", roles=["hr"])).status == 201
    with pytest.raises(NotPermitted):
        await comes_in(bench, "old")
    assert (await comes_in(bench, "new")).roles == ("hr",)


async def test_a_user_is_made_once(bench: AdminBench) -> None:
    await make(bench.admin_of("acme"), subject="s", roles=["sales"])
    again = await make(bench.admin_of("acme"), subject="t", roles=["hr"])
    assert (again.status, again.json()["detail"]) == (409, "There is a user of this id.")
    assert (await comes_in(bench, "s")).roles == ("sales",)
    with pytest.raises(NotPermitted):
        await comes_in(bench, "t")


async def test_a_change_over_one_that_was_not_read_is_refused(bench: AdminBench) -> None:
    admin = bench.admin_of("acme")
    etag = (await make(admin, subject="s")).headers["etag"]
    assert (
        await admin.request("PATCH", "/api/admin/users/ana", {"name": "A"}, headers={"if-match": etag})
    ).status == 200
    for method, path, body in (
        ("PATCH", "/api/admin/users/ana", {"name": "B"}),
        ("DELETE", "/api/admin/users/ana", None),
        ("POST", "/api/admin/users/ana/subjects", {"subject": "t"}),
    ):
        assert (await admin.request(method, path, body, headers={"if-match": etag})).status == 409
    assert (await admin.request("GET", "/api/admin/users/ana")).json()["name"] == "A"
    assert (
        await admin.request("PATCH", "/api/admin/users/ana", {"name": "B"}, headers={"if-match": "*"})
    ).status == 200


async def test_provisioning_lets_people_in_until_it_is_taken_back(bench: AdminBench) -> None:
    admin = bench.admin_of("acme")
    record = {"match": "domain", "value": "Acme.test", "roles": ["sales"]}
    made = await admin.request("POST", "/api/admin/provisioning", record)
    assert (made.status, made.json()["id"], made.json()["used"]) == (201, "domain:acme.test", False)
    assert (await admin.request("POST", "/api/admin/provisioning", record)).status == 409
    await comes_in(bench, "one", email="one@acme.test")
    gone = await admin.request("DELETE", "/api/admin/provisioning", query="match=domain&value=acme.TEST")
    assert gone.status == 204
    with pytest.raises(NotPermitted):
        await comes_in(bench, "two", email="two@acme.test")
    assert (await comes_in(bench, "one")).roles == ("sales",)
    assert (await admin.request("GET", "/api/admin/provisioning")).json()["items"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"match": "domain", "value": "localhost"},
        {"match": "domain", "value": "*.test"},
        {"match": "domain", "value": "a@acme.test"},
        {"match": "domain", "value": "acme.test\n"},
        {"match": "email", "value": "acme.test"},
        {"match": "email", "value": "two words@acme.test"},
        {"match": "email", "value": "mi\u212ae@acme.test"},
        {"match": "everybody", "value": "x"},
        {"match": "subject", "value": ""},
        {"match": "subject", "value": "s", "user_id": "root"},
        {"match": "subject", "value": "s", "used_by": ""},
        {"match": "subject", "value": "s", "expires_in_s": 1},
    ],
)
async def test_a_provisioning_record_means_somebody_in_particular(bench: AdminBench, body: Any) -> None:
    assert (await bench.admin_of("acme").request("POST", "/api/admin/provisioning", body)).status == 422


async def test_what_happened_to_users_is_written_down_failures_too(bench: AdminBench) -> None:
    admin = bench.admin_of("acme")
    await make(admin, "ana", subject="s", roles=["sales"])
    await make(admin, "bob", subject="s")
    await admin.request("PATCH", "/api/admin/users/ana", {"roles": ["hr"]})
    await admin.request("DELETE", "/api/admin/users/ana")
    log = [(e["actor"], e["action"], e["target"], e["outcome"], e["code"]) for e in (await bench.audit())[:-1]]
    assert log == [
        ("acme/boss", "user.delete", "user:ana", "done", None),
        ("acme/boss", "user.change", "user:ana", "done", None),
        ("acme/boss", "user.create", "user:bob", "failed", "conflict"),
        ("acme/boss", "user.create", "user:ana", "done", None),
    ]
    changed = (await bench.audit())[1]
    assert (changed["before"], changed["after"]) == ({"roles": ["sales"]}, {"roles": ["hr"]})


class Accounts:
    """Local accounts that write down what they are asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.failure: Exception | None = None

    async def issue_reset(self, tenant_id: str, user_id: str, login: str) -> Reset:
        self.asked.append(("issue_reset", tenant_id, user_id, login))
        return Reset(login=login, token="one-time-token", expires_in_s=60)

    async def remove(self, tenant_id: str, user_id: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.asked.append(("remove", tenant_id, user_id))


async def test_a_reset_is_for_local_accounts(bench: AdminBench) -> None:
    await make(bench.admin_of("acme"))
    reply = await bench.admin_of("acme").request("POST", "/api/admin/users/ana/reset", {})
    assert (reply.status, reply.json()["code"]) == (409, "conflict")


async def test_a_reset_gives_the_token_to_the_administrator_and_not_to_the_log() -> None:
    accounts = Accounts()
    bench = AdminBench(more={"accounts": accounts})
    await bench.make_tenants()
    admin = bench.admin_of("acme")
    await make(admin)
    await make(admin, "bob", subject="eve")
    await make(admin, "eve")
    reply = await admin.request("POST", "/api/admin/users/ana/reset", {"login": "ana@acme.test"})
    assert reply.json() == {"login": "ana@acme.test", "token": "one-time-token", "expires_in_s": 60}
    entry = (await bench.audit())[0]
    assert (entry["action"], entry["after"]) == ("user.reset", {"login": "ana@acme.test"})
    assert (await admin.request("POST", "/api/admin/users/eve/reset", {})).status == 409, "she would come in as bob"
    assert (await admin.request("POST", "/api/admin/users/nobody/reset", {})).status == 404
    assert (await bench.admin_of("globex").request("POST", "/api/admin/users/ana/reset", {})).status == 404
    await admin.request("DELETE", "/api/admin/users/ana")
    assert accounts.asked == [("issue_reset", "acme", "ana", "ana@acme.test"), ("remove", "acme", "ana")]


async def test_no_account_outlives_its_user_for_the_next_one_of_that_id() -> None:
    accounts = Accounts()
    bench = AdminBench(more={"accounts": accounts})
    await bench.make_tenants()
    admin = bench.admin_of("acme")
    await make(admin)
    accounts.failure = StageUnavailable("The store is being replaced.")
    assert (await admin.request("DELETE", "/api/admin/users/ana")).status == 503
    assert (await admin.request("GET", "/api/admin/users/ana")).status == 200, "still there, to be removed again"
    accounts.failure = None
    assert (await admin.request("DELETE", "/api/admin/users/ana")).status == 204
    assert accounts.asked == [("remove", "acme", "ana")]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/api/admin/users/boss", {"roles": ["sales"]}),
        ("PATCH", "/api/admin/users/boss", {"disabled": True}),
        ("DELETE", "/api/admin/users/boss", None),
        ("DELETE", "/api/admin/users/boss/subjects?subject=b", None),
    ],
)
async def test_nobody_can_shut_themselves_out_so_that_the_last_administrator_stays(
    bench: AdminBench, method: str, path: str, body: Any
) -> None:
    await make(bench.admin_of("acme", "first"), "boss", roles=["admin", "sales"], subject="b")
    address, _, query = path.partition("?")
    own = await bench.admin_of("acme", "boss").request(method, address, body, query=query)
    assert (own.status, own.json()["code"]) == (403, "not_permitted")
    assert (await comes_in(bench, "b")).roles == ("admin", "sales")
    of_another_tenant = bench.user("globex", "boss", "platform-admin")
    by_another = await of_another_tenant.request(method, address, body, query=f"{query}&tenant_id=acme")
    assert by_another.status in {200, 204}


async def test_an_administrator_changes_all_else_of_itself(bench: AdminBench) -> None:
    await make(bench.admin_of("acme", "first"), "boss", roles=["admin", "sales"], subject="b")
    own = bench.admin_of("acme", "boss")
    assert (await own.request("PATCH", "/api/admin/users/boss", {"roles": ["admin"], "name": "B"})).status == 200


async def test_a_platform_administrator_does_not_shut_out_its_own_tenant(bench: AdminBench) -> None:
    own = bench.user("acme", "root", "platform-admin")
    assert (await own.request("PATCH", "/api/admin/tenants/acme", {"disabled": True})).status == 403
    assert (await own.request("DELETE", "/api/admin/tenants/acme")).status == 403
    assert (await own.request("PATCH", "/api/admin/tenants/globex", {"disabled": True})).status == 200
    assert (await own.request("DELETE", "/api/admin/tenants/globex")).status == 204
