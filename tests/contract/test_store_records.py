"""Configuration records, as every adapter keeps them."""

from __future__ import annotations

import pytest

from serve_app.errors import Conflict, InvalidInput, NotFound
from serve_app.storage.port import Store
from tests.contract.store_inputs import ANNA, conversation_key


async def test_a_record_is_found_as_it_was_saved(store: Store) -> None:
    saved = await store.save_record("acme", "user", "anna", b'{"n":1}')
    assert (saved.tenant_id, saved.kind, saved.record_id, saved.body) == ("acme", "user", "anna", b'{"n":1}')
    assert '"' not in saved.etag, "HTTP puts it between quotes"
    assert await store.get_record("acme", "user", "anna") == saved
    again = await store.save_record("acme", "user", "anna", b'{"n":2}')
    assert again.etag != saved.etag
    assert (await store.get_record("acme", "user", "anna")).body == b'{"n":2}'


async def test_a_body_comes_back_to_the_byte(store: Store) -> None:
    body = '{"big":123456789012345678901,"one":1.0,"text":"ä\\u0000 \\" / \U0001f600"}'.encode()
    await store.save_record("acme", "user", "anna", body)
    assert (await store.get_record("acme", "user", "anna")).body == body


async def test_a_record_of_another_tenant_or_kind_is_not_found(store: Store) -> None:
    await store.save_record("acme", "user", "anna", b"{}")
    for tenant_id, kind, record_id in (
        ("globex", "user", "anna"),
        ("acme", "tenant", "anna"),
        ("acme", "user", "bert"),
    ):
        with pytest.raises(NotFound):
            await store.get_record(tenant_id, kind, record_id)
        with pytest.raises(NotFound):
            await store.delete_record(tenant_id, kind, record_id)
    assert (await store.list_records("globex", "user")).items == ()


@pytest.mark.parametrize(
    "record_id", ["https://login.example/v2.0|a/b?c#d", "..", "ä ö", "a" * 200, "back\\slash", "%2F"]
)
async def test_any_text_may_be_an_id(store: Store, record_id: str) -> None:
    saved = await store.save_record("acme", "identity", record_id, b"{}")
    assert saved.record_id == record_id
    assert await store.get_record("acme", "identity", record_id) == saved
    assert (await store.list_records("acme", "identity")).items == (saved,)


async def test_a_save_under_an_etag_that_has_passed_is_refused(store: Store) -> None:
    first = await store.save_record("acme", "user", "anna", b"{}", if_match="")
    for etag in ("", "other"):
        with pytest.raises(Conflict):
            await store.save_record("acme", "user", "anna", b'{"n":1}', if_match=etag)
    second = await store.save_record("acme", "user", "anna", b'{"n":1}', if_match=first.etag)
    with pytest.raises(Conflict):
        await store.save_record("acme", "user", "anna", b'{"n":2}', if_match=first.etag)
    assert await store.get_record("acme", "user", "anna") == second


async def test_the_etag_of_a_deleted_record_does_not_fit_its_successor(store: Store) -> None:
    first = await store.save_record("acme", "user", "anna", b"{}")
    await store.delete_record("acme", "user", "anna")
    with pytest.raises(Conflict):
        await store.save_record("acme", "user", "anna", b"{}", if_match=first.etag)
    await store.save_record("acme", "user", "anna", b"{}")
    with pytest.raises(Conflict):
        await store.save_record("acme", "user", "anna", b"{}", if_match=first.etag)


async def test_records_are_listed_by_id_page_by_page(store: Store) -> None:
    for number in (3, 1, 5, 2, 4):
        await store.save_record("acme", "user", f"u{number}", b"{}")
    await store.save_record("acme", "tenant", "u0", b"{}")
    seen = []
    cursor = None
    while True:
        page = await store.list_records("acme", "user", cursor=cursor, limit=2)
        seen += [record.record_id for record in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == ["u1", "u2", "u3", "u4", "u5"]


async def test_a_cursor_of_another_listing_is_refused(store: Store) -> None:
    for number in range(3):
        await store.ensure_conversation(conversation_key(f"c{number}"))
    other = (await store.list_conversations(ANNA, limit=1)).next_cursor
    assert other is not None
    for cursor in (other, "nonsense"):
        with pytest.raises(InvalidInput):
            await store.list_records("acme", "user", cursor=cursor)
