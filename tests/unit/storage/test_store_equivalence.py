"""Whatever is done to them, the embedded store, the one on Cosmos DB and the plain one in memory answer alike.

Short by default; raise ``max_examples`` at the end of the file to look for longer.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from serve_app.domain.conversation import Conversation, Reaction
from serve_app.domain.events import EventRecord
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import AcceptedTurn, AppendTurn, EventPage, OnBusy, Turn, TurnClaim
from serve_app.errors import ParleyError
from serve_app.storage.memory import MemoryStore
from serve_app.storage.port import Store
from serve_app.storage.sqlite import SqliteStore
from tests.contract.cosmos_account import Account, open_account
from tests.contract.store_inputs import (
    ANNA,
    FIRST,
    OTHERS,
    PROMPT,
    SECOND,
    Clock,
    cancelled,
    conversation_key,
    delta,
    finish,
    new_turn,
    share,
    step,
)
from tests.unit.storage.cosmos_alternating import Alternating

CONVERSATIONS = (conversation_key("c1"), conversation_key("c2"), conversation_key("c1", OTHERS[0]))
SHARES = (
    "fresh",
    "repeat",
    "overlap",
    "gap",
    "other",
    "renew",
    "retry",
    "step",
    "prompt",
    "finish",
    "stale",
    "late finish",
)

conversations = st.sampled_from(CONVERSATIONS)
seldom = st.sampled_from([False] * 7 + [True])
names = st.sampled_from([None, "m1", "m2"])
Call = Callable[[Store], Awaitable[object]]


class StoresAnswerAlike(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.memory = MemoryStore(clock=self.clock)
        self.sqlite = self.runner.run(SqliteStore.open(self.folder, clock=self.clock))
        self.sqlite._writer._connection.pragma("synchronous", "off")  # a quarter of the time; nothing dies here
        self.others: list[Store] = [self.sqlite]
        self.turns: list[TurnKey] = []

    def teardown(self) -> None:
        for store in self.others:
            self.runner.run(store.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def all(self, call: Call) -> Any:
        """Does the same to all, holds the answers against each other and gives the one of the memory."""
        ours = self.runner.run(answer(call(self.memory)))
        for store in self.others:
            theirs = self.runner.run(answer(call(store)))
            assert plain(ours) == plain(theirs), store
        return ours

    @initialize(ended=st.integers(0, 2), running=st.booleans(), waiting=st.integers(0, 2))
    def begin(self, ended: int, running: bool, waiting: int) -> None:
        """With something there, as few steps lead to a turn that waits or a message that can be replaced."""
        for number in range(ended + running + waiting):
            self.accept(CONVERSATIONS[0], "a", None, "m1", "queue", 3)
            if number < ended:
                self.end_all(self.turns[-1])

    @rule(key=conversations)
    def ensure(self, key: Any) -> None:
        self.all(lambda store: store.ensure_conversation(key))

    @rule(key=conversations)
    def accept_where_there_may_be_nothing(self, key: Any) -> None:
        new = new_turn(key)
        self.all(lambda store: store.accept_turn(new))
        self.turns.append(new.key)

    @rule(
        key=conversations,
        content=st.sampled_from("ab"),
        client=st.sampled_from([None, "k1", "k2"]),
        called=names,
        on_busy=st.sampled_from(["reject", "queue", "queue", "interrupt"]),
        max_waiting=st.integers(1, 3),
    )
    def accept(
        self, key: Any, content: str, client: str | None, called: str | None, on_busy: OnBusy, max_waiting: int
    ) -> None:
        self.ensure(key)
        new = new_turn(key, content, client_turn_id=client, client_message_id=called)
        self.all(lambda store: store.accept_turn(new, on_busy=on_busy, max_waiting=max_waiting))
        self.turns.append(new.key)

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), called=names, on_busy=st.sampled_from(["reject", "queue", "interrupt"]))
    def replace(self, data: st.DataObject, called: str | None, on_busy: OnBusy) -> None:
        """Often after all that runs has ended, as nothing can be replaced before."""
        of = data.draw(st.sampled_from(self.turns[-4:]))
        if data.draw(st.booleans()):
            self.end_all(of)
        message_id = data.draw(st.sampled_from([of.user_message_id, of.assistant_message_id]))
        new = new_turn(of.conversation, "c", client_message_id=called, replaces=message_id)
        self.all(lambda store: store.accept_turn(new, on_busy=on_busy))
        self.turns.append(new.key)

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), kinds=st.lists(st.sampled_from(["fresh", "step", "prompt", "finish"]), max_size=3))
    def run(self, data: st.DataObject, kinds: list[str]) -> None:
        """A claim and appends that mostly fit, so that turns come to an end and others are let through."""
        key = data.draw(st.sampled_from(self.turns[-4:]))
        self.all(partial(claim_for_dead, key))
        for kind in kinds:
            self.all(partial(append_one, self.share(key, kind)))

    def end_all(self, of: TurnKey) -> None:
        for key in [key for key in self.turns if key.conversation == of.conversation]:
            self.all(partial(claim_for_dead, key))
            self.all(partial(append_one, self.share(key, "finish")))

    @precondition(lambda self: self.turns)
    @rule(
        data=st.data(),
        owner=st.sampled_from([FIRST, SECOND]),
        limit=st.sampled_from([0, 1, 16]),
        dead=st.sampled_from([(), ("r1",), ("r2",), ("r1", "r2")]),
    )
    def claim(self, data: st.DataObject, owner: Any, limit: int, dead: tuple[str, ...]) -> None:
        key = data.draw(st.sampled_from(self.turns[-4:]))
        self.all(lambda store: store.claim_turn(key, owner, lease_s=5, history_limit=limit, dead=dead))

    @precondition(lambda self: self.turns)
    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        keys = data.draw(st.lists(st.sampled_from(self.turns[-4:]), min_size=1, max_size=4, unique=True))
        batch = [self.share(key, data.draw(st.sampled_from(SHARES))) for key in keys]
        self.all(lambda store: store.append(batch))

    def share(self, key: TurnKey, kind: str) -> AppendTurn:
        turn = self.runner.run(answer(self.memory.get_turn(key)))
        epoch, last = (0, 1) if isinstance(turn, tuple) else (turn.epoch, turn.last_seq)
        at: tuple[EventRecord, ...] = (delta(key, last + 1),)
        match kind:
            case "repeat":
                return share(key, delta(key, last), epoch=epoch)
            case "overlap":
                return share(key, delta(key, last), *at, epoch=epoch)
            case "gap":
                return share(key, delta(key, last + 2), epoch=epoch)
            case "other":
                return share(key, delta(key, last, "other"), *at, epoch=epoch)
            case "renew":
                return share(key, epoch=epoch, lease_s=7)
            case "retry":
                return share(key, *at, epoch=epoch, attempt=2, step=step(last // 4, last + 1) if last % 2 else None)
            case "step":
                return share(key, *at, epoch=epoch, step=step(last // 4, last + 1))
            case "prompt":
                return share(key, *at, epoch=epoch, session_prompt=PROMPT)
            case "finish":
                return share(key, cancelled(key, last + 1), epoch=epoch, finish=finish(key))
            case "late finish":
                return share(key, cancelled(key, last), epoch=epoch, finish=finish(key))
            case "stale":
                return share(key, *at, epoch=epoch - 1, finish=None)
        return share(key, *at, epoch=epoch)

    @precondition(lambda self: self.turns)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.turns[-4:]))
        self.all(lambda store: store.request_cancel(key))

    @rule(
        key=conversations,
        title=st.sampled_from([None, "x", "y"]),
        archived=st.sampled_from([None, False, True]),
        if_untitled=st.booleans(),
    )
    def update(self, key: Any, title: str | None, archived: bool | None, if_untitled: bool) -> None:
        self.all(lambda store: store.update_conversation(key, title=title, archived=archived, if_untitled=if_untitled))

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), reaction=st.sampled_from(["up", "down", None]))
    def react(self, data: st.DataObject, reaction: Reaction | None) -> None:
        key = data.draw(st.sampled_from(self.turns[-4:]))
        self.all(lambda store: store.set_reaction(key.conversation, key.user_message_id, reaction))

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), key=conversations, called=st.sampled_from(["m1", "m2"]))
    def find_messages(self, data: st.DataObject, key: Any, called: str) -> None:
        of = data.draw(st.sampled_from(self.turns[-4:]))
        self.all(lambda store: store.find_message(key, called))
        for message_id in (of.user_message_id, of.assistant_message_id):
            self.all(partial(get_and_find, of.conversation, message_id))

    @rule(key=conversations, really=seldom)
    def delete(self, key: Any, really: bool) -> None:
        if really:
            self.all(lambda store: store.delete_conversation(key))

    @rule(everything=seldom)
    def archive_or_delete_all(self, everything: bool) -> None:
        self.all(lambda store: store.delete_all(ANNA) if everything else store.archive_all(ANNA))

    @rule(seconds=st.sampled_from([0.5, 4.5, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(archived=st.booleans(), limit=st.integers(1, 3))
    def page_through_conversations(self, archived: bool, limit: int) -> None:
        async def pages(store: Store) -> list[object]:
            found: list[object] = []
            cursor: str | None = None
            while True:
                page = await store.list_conversations(ANNA, archived=archived, cursor=cursor, limit=limit)
                found.append(page.items)
                cursor = page.next_cursor
                if cursor is None:
                    return found

        self.all(pages)

    @rule(key=conversations, descending=st.booleans(), limit=st.integers(1, 3), replaced=st.booleans())
    def page_through_messages(self, key: Any, descending: bool, limit: int, replaced: bool) -> None:
        async def pages(store: Store) -> list[object]:
            found: list[object] = []
            cursor: str | None = None
            while True:
                page = await store.list_messages(
                    key, cursor=cursor, limit=limit, descending=descending, replaced=replaced
                )
                found.append(page.items)
                cursor = page.next_cursor
                if cursor is None:
                    return found

        self.all(pages)

    @invariant()
    def everything_is_alike(self) -> None:
        async def look(store: Store) -> list[object]:
            calls: list[Awaitable[object]] = [store.get_conversation(key) for key in CONVERSATIONS]
            calls += [store.list_messages(key, replaced=True) for key in CONVERSATIONS]
            for key in self.turns[-4:]:
                calls += [store.get_turn(key), store.read_events(key, after_seq=1, limit=3)]
            found = await asyncio.gather(*(answer(call) for call in calls))
            abandoned = await store.find_abandoned_turns()
            return [*found, sorted(key.turn_id for key in abandoned)]

        self.all(look)


class EmbeddedStoreAnswersAlike(StoresAnswerAlike):
    """With what the store on Cosmos DB does not do: there logs expire by themselves."""

    @rule(limit=st.sampled_from([1, 100]))
    def prune(self, limit: int) -> None:
        self.all(lambda store: store.prune_events(older_than_s=5, limit=limit))


class CosmosStoreAnswersAlike(StoresAnswerAlike):
    """Two replicas of it, one of which mostly remembers what the other has changed since."""

    def __init__(self) -> None:
        super().__init__()
        self.account = open_account()
        self.others.append(self.runner.run(self.open_cosmos()))

    async def open_cosmos(self) -> Store:
        return await Alternating.open(await self.account.__aenter__(), self.clock)

    def teardown(self) -> None:
        self.runner.run(self.others.pop().close())
        self.runner.run(leave(self.account))
        super().teardown()


async def claim_for_dead(key: TurnKey, store: Store) -> object:
    return await store.claim_turn(key, FIRST, lease_s=5, history_limit=1, dead=(SECOND.replica_id,))


async def append_one(append: AppendTurn, store: Store) -> object:
    return await store.append([append])


async def get_and_find(key: ConversationKey, message_id: str, store: Store) -> object:
    return [await answer(store.get_message(key, message_id)), await answer(store.find_message(key, message_id))]


async def answer(call: Awaitable[Any]) -> Any:
    """What a call returns, or how it refuses."""
    try:
        return await call
    except ParleyError as error:
        return (error.code, error.message)


def plain(value: object) -> object:
    """Without what adapters are free to choose: the spelling of an etag, and what a turn is charged."""
    if isinstance(value, Conversation):
        return replace(value, etag="")
    if isinstance(value, Turn):
        return replace(value, request_charge=None)
    if isinstance(value, TurnClaim):
        conversation = replace(value.conversation, etag="")
        return replace(value, conversation=conversation, turn=replace(value.turn, request_charge=None))
    if isinstance(value, AcceptedTurn):
        interrupted = tuple(replace(turn, request_charge=None) for turn in value.interrupted)
        return replace(value, turn=replace(value.turn, request_charge=None), interrupted=interrupted)
    if isinstance(value, EventPage):
        return replace(value, turn=replace(value.turn, request_charge=None))
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


async def leave(account: AbstractAsyncContextManager[Account]) -> None:
    await account.__aexit__(None, None, None)


def machine_settings(max_examples: int) -> settings:
    return settings(
        max_examples=max_examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        database=None,
    )


TestEmbeddedStoreAnswersAlike = EmbeddedStoreAnswersAlike.TestCase
TestEmbeddedStoreAnswersAlike.settings = machine_settings(25)
# One test, however long it takes.
TestCosmosStoreAnswersAlike = pytest.mark.timeout(600)(CosmosStoreAnswersAlike.TestCase)
TestCosmosStoreAnswersAlike.settings = machine_settings(4)
