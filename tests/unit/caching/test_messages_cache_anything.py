"""Whatever is done to conversations through two replicas with one cache, both show what the store has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serve_app.caching.memory import MemoryCache
from serve_app.caching.messages import cached_messages
from serve_app.domain.conversation import Reaction
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import OnBusy
from serve_app.errors import NotFound, ParleyError
from serve_app.storage.memory import MemoryStore
from serve_app.storage.port import Store
from tests.contract.store_inputs import ANNA, Clock, conversation_key, ended, new_turn
from tests.unit.caching.bench import TTL_S

CONVERSATIONS = (conversation_key("c1"), conversation_key("c2"))
keys = st.sampled_from(CONVERSATIONS)
replicas = st.integers(0, 1)


class CachesShowTheStore(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock)
        cache = MemoryCache(max_entries=6, max_entry_bytes=1_000_000, clock=self.clock)
        self.replicas = [cached_messages(cast(Store, self.store), cache, ttl_s=TTL_S) for _ in range(2)]
        self.turns: list[TurnKey] = []

    def teardown(self) -> None:
        self.runner.close()

    def do(self, call: Awaitable[object]) -> None:
        async def tried() -> None:
            try:
                await call
            except ParleyError:
                return

        self.runner.run(tried())

    @rule(replica=replicas, key=keys, on_busy=st.sampled_from(["reject", "queue", "interrupt"]))
    def accept(self, replica: int, key: ConversationKey, on_busy: OnBusy) -> None:
        self.do(self.replicas[replica].ensure_conversation(key))
        new = new_turn(key)
        self.turns.append(new.key)
        self.do(self.replicas[replica].accept_turn(new, on_busy=on_busy))

    @precondition(lambda self: self.turns)
    @rule(replica=replicas, data=st.data())
    def end(self, replica: int, data: st.DataObject) -> None:
        self.do(ended(self.replicas[replica], data.draw(st.sampled_from(self.turns[-6:]))))

    @precondition(lambda self: self.turns)
    @rule(replica=replicas, data=st.data(), answer=st.booleans())
    def replace(self, replica: int, data: st.DataObject, answer: bool) -> None:
        of = data.draw(st.sampled_from(self.turns[-6:]))
        new = new_turn(of.conversation, replaces=of.assistant_message_id if answer else of.user_message_id)
        self.turns.append(new.key)
        self.do(self.replicas[replica].accept_turn(new))

    @precondition(lambda self: self.turns)
    @rule(replica=replicas, data=st.data(), reaction=st.sampled_from(["up", "down", None]))
    def react(self, replica: int, data: st.DataObject, reaction: Reaction | None) -> None:
        of = data.draw(st.sampled_from(self.turns[-6:]))
        message_id = data.draw(st.sampled_from([of.assistant_message_id, of.user_message_id]))
        self.do(self.replicas[replica].set_reaction(of.conversation, message_id, reaction))

    @rule(replica=replicas, key=keys)
    def delete(self, replica: int, key: ConversationKey) -> None:
        self.do(self.replicas[replica].delete_conversation(key))

    @rule(replica=replicas)
    def delete_all(self, replica: int) -> None:
        self.do(self.replicas[replica].delete_all(ANNA))

    @rule(seconds=st.sampled_from([1.0, TTL_S]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def both_replicas_show_what_the_store_has(self) -> None:
        async def compare() -> None:
            for key in CONVERSATIONS:
                for store in self.replicas:
                    assert await listed(store, key) == await listed(cast(Store, self.store), key)

        self.runner.run(compare())


async def listed(store: Store, key: ConversationKey) -> object:
    try:
        return (await store.list_messages(key)).items
    except NotFound:
        return "not found"


CachesShowTheStore.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestCachesShowTheStore = CachesShowTheStore.TestCase
