"""Access and its directory, beside the store and behind its handle: what is saved through one is seen by the next request."""

from __future__ import annotations

from typing import Any, cast

import pytest
from ray.exceptions import ActorUnavailableError

from deployments.remote_store import remote_beside, remote_store
from serve_app.access.directory import StoredDirectory
from serve_app.access.port import Access, Directory
from serve_app.access.resolver import AccessResolver
from serve_app.caching.memory import MemoryCache
from serve_app.domain.access import IdentityRecord, TenantRecord, UserRecord
from serve_app.domain.identity import Identity
from serve_app.errors import Conflict, NotFound, NotPermitted, StageUnavailable
from serve_app.storage.memory import MemoryStore
from tests.unit.deployments.handles import FakeHandle, raised_remotely

ANA = Identity(issuer="https://idp", tenant="acme", subject="s", expires_at=2e9)


class StoreStage:
    """What the store's deployment does with a call to a port beside it, without Serve. Dies after the next of ``dies_after``."""

    def __init__(self) -> None:
        directory = StoredDirectory(MemoryStore(), MemoryCache(max_entries=9, max_entry_bytes=9_999), ttl_s=60.0)
        self._beside: dict[str, Any] = {"directory": directory, "access": AccessResolver(directory)}
        self.dies_after: list[str] = []
        self.handle = FakeHandle(invoke=self.invoke).handle
        self.directory: Directory = remote_beside(self.handle, "directory", Directory)
        self.access: Access = remote_beside(self.handle, "access", Access)

    async def invoke(
        self, service: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], request_id: str
    ) -> Any:
        try:
            done = await getattr(self._beside[service], method)(*args, **kwargs)
        except Exception as error:
            raise raised_remotely(error) from None
        if method in self.dies_after:
            self.dies_after.remove(method)
            raise ActorUnavailableError("replaced", None)
        return done


async def make_ana(stage: StoreStage) -> None:
    await stage.directory.save_tenant(TenantRecord(tenant_id="acme"))
    await stage.directory.save_user(
        UserRecord(tenant_id="acme", user_id="ana", roles=("sales",), identities=(ANA.identity_id,))
    )
    await stage.directory.save_identity(
        IdentityRecord(identity_id=ANA.identity_id, tenant_id="acme", user_id="ana"), if_match=""
    )


async def test_a_change_through_the_directory_counts_for_the_next_request() -> None:
    stage = StoreStage()
    await make_ana(stage)
    assert (await stage.access.resolve(ANA)).roles == ("sales",)
    found = await stage.directory.get_user("acme", "ana")
    await stage.directory.save_user(
        UserRecord(tenant_id="acme", user_id="ana", roles=("hr",), identities=(ANA.identity_id,)), if_match=found.etag
    )
    assert (await stage.access.resolve(ANA)).roles == ("hr",)
    with pytest.raises(Conflict):
        await stage.directory.save_user(found.value, if_match=found.etag)
    await stage.directory.delete_user("acme", "ana")
    with pytest.raises(NotPermitted):
        await stage.access.resolve(ANA)


async def test_a_store_that_is_replaced_meanwhile_is_asked_again_where_that_is_safe() -> None:
    stage = StoreStage()
    await make_ana(stage)
    stage.dies_after = ["resolve", "delete_user", "save_tenant"]
    assert (await stage.access.resolve(ANA)).user_id == "ana"
    await stage.directory.delete_user("acme", "ana")  # deleted by the call that got no answer
    with pytest.raises(NotFound):
        await stage.directory.delete_user("acme", "ana")
    etag = (await stage.directory.get_tenant("acme")).etag
    with pytest.raises(StageUnavailable):
        await stage.directory.save_tenant(TenantRecord(tenant_id="acme", disabled=True), if_match=etag)


async def test_of_a_record_that_may_be_used_once_nobody_is_told_to_have_deleted_it_who_may_not_have() -> None:
    store = MemoryStore()
    answers = iter(["lost", "served"])

    async def invoke(service: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], request_id: str) -> Any:
        if next(answers) == "lost":
            await store.delete_record("", "ws_ticket", "t")  # by somebody else, while this call was lost
            raise ActorUnavailableError("replaced", None)
        try:
            return await getattr(store, method)(*args, **kwargs)
        except Exception as error:
            raise raised_remotely(error) from None

    await store.save_record("", "ws_ticket", "t", b"{}")
    with pytest.raises(NotFound):
        await remote_store(FakeHandle(invoke=invoke).handle).delete_record("", "ws_ticket", "t")


async def test_what_is_no_method_of_the_port_cannot_be_called() -> None:
    stage = StoreStage()
    for name in ("_store", "save_record", "reveal", "__dict__x"):
        with pytest.raises(AttributeError):
            getattr(cast(Any, stage.directory), name)
