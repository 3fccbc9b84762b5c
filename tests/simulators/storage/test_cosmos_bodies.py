"""Bodies that are not where a document says: their conversation goes meanwhile, was made again, or the body is lost for good."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from serve_app.errors import Gone, NotFound
from serve_app.storage.cosmos import CosmosStore, messages
from tests.contract.cosmos_account import MemoryBodies
from tests.contract.store_inputs import PROMPT, accepted, claimed, completed, conversation_key, ended, running, shown
from tests.simulators.storage.cosmos_replicas import Replicas

C1 = conversation_key("c1")
LARGE = "x" * 300_000
LARGE_PROMPT = replace(PROMPT, text=LARGE)
READS: dict[str, Callable[[CosmosStore, str], Awaitable[object]]] = {
    "messages": lambda store, _: store.list_messages(C1),
    "message": lambda store, message_id: store.get_message(C1, message_id),
    "found message": lambda store, message_id: store.find_message(C1, message_id),
    "reaction": lambda store, message_id: store.set_reaction(C1, message_id, "up"),
    "conversation": lambda store, _: store.get_conversation(C1),
}


class Meanwhile(MemoryBodies):
    """Bodies that are looked for only after something else has happened."""

    def __init__(self, kept: MemoryBodies, others: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self.kept = kept.kept
        self._others: Callable[[], Awaitable[object]] | None = others

    async def get(self, name: str) -> bytes | None:
        others, self._others = self._others, None
        if others is not None:
            await others()
        return await super().get(name)


@pytest.mark.parametrize("read", READS)
async def test_what_is_deleted_while_it_is_read_is_not_found(replicas: Replicas, read: str) -> None:
    store, other = await replicas.start(), await replicas.start()
    key = await completed(store, C1, LARGE)
    await store.update_conversation(C1, session_prompt=LARGE_PROMPT)
    store.sessions.bodies = Meanwhile(replicas.account.bodies, lambda: other.delete_conversation(C1))
    with pytest.raises(NotFound):
        await READS[read](store, key.user_message_id)


async def test_a_turn_deleted_while_it_is_read_is_not_found(replicas: Replicas) -> None:
    store, other = await replicas.start(), await replicas.start()
    key = await completed(store, C1, LARGE)

    async def make_again() -> None:
        await other.delete_conversation(C1)
        await other.ensure_conversation(C1)

    for call, others in ((store.get_turn, make_again), (store.read_events, make_again)):
        store.sessions.bodies = Meanwhile(replicas.account.bodies, others)
        with pytest.raises(NotFound):
            await call(key)
        key = await completed(store, C1, LARGE)


async def test_the_same_large_prompt_in_a_conversation_made_again_is_read_by_whoever_remembers_the_old(
    replicas: Replicas,
) -> None:
    first, second = await replicas.start(), await replicas.start()
    await first.ensure_conversation(C1)
    await first.update_conversation(C1, session_prompt=LARGE_PROMPT)
    assert (await second.get_conversation(C1)).session_prompt == LARGE_PROMPT
    await first.delete_conversation(C1)
    await first.ensure_conversation(C1)
    await first.update_conversation(C1, session_prompt=LARGE_PROMPT)
    assert (await second.get_conversation(C1)).session_prompt == LARGE_PROMPT
    claim = await claimed(second, await accepted(second, C1))
    assert claim.conversation.session_prompt == LARGE_PROMPT


async def test_a_conversation_whose_bodies_are_lost_is_read_and_gone_on_with(replicas: Replicas) -> None:
    store = await replicas.start()
    lost = await completed(store, C1, LARGE, "ok")
    await store.update_conversation(C1, session_prompt=LARGE_PROMPT)
    replicas.account.bodies.kept.clear()
    page = await store.list_messages(C1)
    assert [message.text for message in page.items] == [messages.MISSING, "ok"]
    assert (page.items[0].message_id, page.items[0].role) == (lost.user_message_id, "user")
    assert (await store.get_conversation(C1)).session_prompt is None
    key = await accepted(store, C1, "next")
    claim = await claimed(store, key)
    assert [message.text for message in claim.history] == [messages.MISSING, "ok"]
    await store.request_cancel(key)
    other = conversation_key("c2")
    await ended(store, await accepted(store, other))
    assert await shown(store, other) == ["Hello", "Done."]


async def test_a_turn_whose_input_is_lost_says_so_once_and_for_all(replicas: Replicas) -> None:
    store = await replicas.start()
    key = await running(store, C1, LARGE)
    replicas.account.bodies.kept.clear()
    async with asyncio.timeout(5):
        for call in (store.get_turn, store.read_events):
            with pytest.raises(Gone, match="missing from the store") as caught:
                await call(key)
            assert not caught.value.retryable
