"""Providers' keys: stored so that nobody reads them, and sealed again when the keys they are sealed with change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from serve_app.access.administration import Administration
from serve_app.access.policy import OPERATOR
from serve_app.access.port import Saved
from serve_app.access.provider_keys import MAX_KEYS_PER_TENANT, TENANTS_A_ROUND
from serve_app.domain.access import PROVIDER_KEYS_KIND, ProviderKeyRecord
from serve_app.errors import Internal
from serve_app.keys.ring import KeyRing
from tests.unit.ingress.admin_bench import NEW_KEY, OLD_KEY, AdminBench

SECRET = "sk-very-secret-0123456789-wxyz"
ORIGINS = {"openai": "https://api.openai.com"}


@pytest.fixture
async def bench() -> AsyncIterator[AdminBench]:
    bench = AdminBench()
    await bench.make_tenants()
    yield bench


def opened(bench: AdminBench, keys: str) -> Administration:
    return Administration.over(bench.directory, KeyRing.parse(keys))


async def test_a_key_is_stored_sealed_and_shown_by_its_end_only(
    bench: AdminBench, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = bench.admin_of("acme")
    put = await admin.request("PUT", "/api/admin/provider-keys/openai", {"key": SECRET})
    assert (put.status, put.json()["last_four"]) == (200, "wxyz")
    listed = await admin.request("GET", "/api/admin/provider-keys")
    audit = await bench.operator.request("GET", "/api/admin/audit", query="tenant_id=acme")
    record = await bench.stages.store.get_record("acme", PROVIDER_KEYS_KIND, "openai")
    for said in (put.body, listed.body, audit.body, record.body, capsys.readouterr().out.encode()):
        assert SECRET.encode() not in said
    assert [key["provider"] for key in listed.json()["items"]] == ["openai"]
    assert audit.json()["items"][0]["after"] == {"last_four": "wxyz", "origin": "https://api.openai.com"}
    assert await opened(bench, OLD_KEY).provider_keys.reveal("acme", "openai") == SECRET


async def test_a_key_of_another_tenant_cannot_be_had_by_moving_its_record(bench: AdminBench) -> None:
    await bench.admin_of("acme").request("PUT", "/api/admin/provider-keys/openai", {"key": SECRET})
    stolen = await bench.stages.store.get_record("acme", PROVIDER_KEYS_KIND, "openai")
    await bench.stages.store.save_record("globex", PROVIDER_KEYS_KIND, "openai", stolen.body)
    with pytest.raises(Internal):
        await opened(bench, OLD_KEY).provider_keys.reveal("globex", "openai")


async def test_a_short_key_shows_nothing_of_itself(bench: AdminBench) -> None:
    put = await bench.admin_of("acme").request("PUT", "/api/admin/provider-keys/openai", {"key": "12345678"})
    assert put.json()["last_four"] == ""


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        ("openai", {}),
        ("openai", {"key": "short"}),
        ("openai", {"key": SECRET, "tenant_id": "globex"}),
        ("Open AI", {"key": SECRET}),
    ],
)
async def test_a_refusal_does_not_repeat_the_key(bench: AdminBench, provider: str, body: Any) -> None:
    reply = await bench.admin_of("acme").request("PUT", f"/api/admin/provider-keys/{provider}", body)
    assert reply.status == 422
    assert b"short" not in reply.body.replace(b"shorter", b"")
    assert SECRET.encode() not in reply.body


async def test_keys_are_replaced_and_deleted_as_they_were_read(bench: AdminBench) -> None:
    admin, path = bench.admin_of("acme"), "/api/admin/provider-keys/openai"
    assert (await admin.request("PUT", path, {"key": SECRET}, headers={"if-match": '"x"'})).status == 404
    etag = (await admin.request("PUT", path, {"key": SECRET})).headers["etag"]
    assert (await admin.request("PUT", path, {"key": SECRET + "2"}, headers={"if-match": etag})).status == 200
    for method, body in (("PUT", {"key": SECRET}), ("DELETE", None)):
        assert (await admin.request(method, path, body, headers={"if-match": etag})).status == 409
    assert await opened(bench, OLD_KEY).provider_keys.reveal("acme", "openai") == SECRET + "2"
    assert (await admin.request("DELETE", path)).status == 204
    assert (await admin.request("DELETE", path)).status == 404
    assert [entry["action"] for entry in (await bench.audit())[:3]] == [
        "provider_key.delete",
        "provider_key.put",
        "provider_key.put",
    ]


async def test_a_tenant_has_so_many_keys_and_no_more(bench: AdminBench) -> None:
    provider_keys = opened(bench, OLD_KEY).provider_keys
    operator = bench.operator
    names = ["openai", *(f"p{number}" for number in range(1, MAX_KEYS_PER_TENANT))]
    for provider in names:
        await provider_keys.put(OPERATOR, "acme", provider, SECRET, origins=dict.fromkeys(names, "https://p.test"))
    for provider, status in (("other", 422), ("openai", 200)):
        path = f"/api/admin/provider-keys/{provider}"
        assert (await operator.request("PUT", path, {"key": SECRET}, query="tenant_id=acme")).status == status


async def test_without_keys_to_seal_with_nothing_is_stored() -> None:
    bench = AdminBench(keys=None)
    await bench.make_tenants()
    reply = await bench.admin_of("acme").request("PUT", "/api/admin/provider-keys/openai", {"key": SECRET})
    assert (reply.status, "PARLEY_KEYS" in reply.json()["detail"]) == (409, True)
    assert (await bench.operator.request("POST", "/api/admin/provider-keys/rotate")).status == 409


async def test_after_a_rotation_the_old_key_is_not_needed_any_more(bench: AdminBench) -> None:
    for number in range(TENANTS_A_ROUND + 1):
        await bench.operator.request("POST", "/api/admin/tenants", {"tenant_id": f"t{number:02}"})
    tenants = ("acme", "globex", f"t{TENANTS_A_ROUND:02}")
    for tenant in tenants:
        await bench.admin_of(tenant).request("PUT", "/api/admin/provider-keys/openai", {"key": f"{SECRET}-{tenant}"})
    bench.app = bench.make_app(KeyRing.parse(f"{NEW_KEY},{OLD_KEY}"))
    await bench.admin_of("acme").request("PUT", "/api/admin/provider-keys/other", {"key": SECRET})
    assert (await bench.admin_of("acme").request("POST", "/api/admin/provider-keys/rotate")).status == 403
    sealed = kept = rounds = 0
    query = ""
    while True:
        page = (await bench.operator.request("POST", "/api/admin/provider-keys/rotate", query=query)).json()
        sealed, kept, rounds = sealed + page["sealed"], kept + page["kept"], rounds + 1
        if page["next_cursor"] is None:
            break
        query = f"cursor={page['next_cursor']}"
    assert (sealed, kept, rounds) == (3, 1, 2)
    only_new = opened(bench, NEW_KEY).provider_keys
    for tenant in tenants:
        assert await only_new.reveal(tenant, "openai") == f"{SECRET}-{tenant}"
    assert {entry["action"] for entry in await bench.audit(None)} == {"provider_key.rotate"}
    again = (await bench.operator.request("POST", "/api/admin/provider-keys/rotate")).json()
    assert again["sealed"] == 0


async def test_a_key_that_nobody_can_open_does_not_keep_the_others_from_being_sealed_again(bench: AdminBench) -> None:
    lost = opened(bench, "a-key-that-is-gone-of-forty-characters-0").provider_keys
    await lost.put(OPERATOR, "acme", "openai", SECRET, origins=ORIGINS)
    await bench.admin_of("globex").request("PUT", "/api/admin/provider-keys/openai", {"key": SECRET})
    bench.app = bench.make_app(KeyRing.parse(f"{NEW_KEY},{OLD_KEY}"))
    rotated = (await bench.operator.request("POST", "/api/admin/provider-keys/rotate")).json()
    assert rotated == {"sealed": 1, "kept": 0, "lost": 1, "next_cursor": None}
    assert await opened(bench, NEW_KEY).provider_keys.reveal("globex", "openai") == SECRET


async def test_a_key_that_another_replica_changes_meanwhile_is_sealed_with_the_newest_all_the_same(
    bench: AdminBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = opened(bench, OLD_KEY).provider_keys  # started before the new key was there
    await behind.put(OPERATOR, "acme", "openai", SECRET, origins=ORIGINS)
    save, changed = bench.directory.save_provider_key, False

    async def meanwhile(key: ProviderKeyRecord, *, if_match: str | None = None) -> Saved[ProviderKeyRecord]:
        nonlocal changed
        if not changed:
            changed = True
            await behind.put(OPERATOR, "acme", "openai", f"{SECRET}-2", origins=ORIGINS)
        return await save(key, if_match=if_match)

    monkeypatch.setattr(bench.directory, "save_provider_key", meanwhile)
    rotated = await opened(bench, f"{NEW_KEY},{OLD_KEY}").provider_keys.rotate(OPERATOR)
    assert (rotated.sealed, rotated.kept) == (1, 0)
    assert await opened(bench, NEW_KEY).provider_keys.reveal("acme", "openai") == f"{SECRET}-2"


async def test_whoever_makes_a_deleted_tenant_again_does_not_get_its_keys(bench: AdminBench) -> None:
    await bench.admin_of("acme").request("PUT", "/api/admin/provider-keys/openai", {"key": SECRET})
    assert (await bench.operator.request("DELETE", "/api/admin/tenants/acme")).status == 204
    await bench.operator.request("POST", "/api/admin/tenants", {"tenant_id": "acme"})
    assert (await bench.admin_of("acme").request("GET", "/api/admin/provider-keys")).json()["items"] == []


async def test_a_key_for_a_provider_that_there_is_not_is_refused(bench: AdminBench) -> None:
    reply = await bench.admin_of("acme").request("PUT", "/api/admin/provider-keys/opnai", {"key": SECRET})
    assert (reply.status, "openai" in reply.json()["detail"]) == (422, True)
    foreign = await bench.admin_of("acme").request(
        "PUT", "/api/admin/provider-keys/opnai", {"key": SECRET}, query="tenant_id=globex"
    )
    assert foreign.status == 404
