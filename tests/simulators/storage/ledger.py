"""What a store has acknowledged, and whether a file still has it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import apsw
import msgspec
from msgspec import Struct

from serve_app.domain.conversation import Message
from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import Turn
from serve_app.errors import NotFound
from serve_app.storage.port import MAX_PAGE
from serve_app.storage.sqlite import SqliteStore
from tests.contract.store_inputs import ANNA, conversation_key, delta, response

CONVERSATIONS = ("c1", "c2", "c3")


class Acknowledged(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One acknowledgement: of an accepted turn its ``content``, of an append its ``last_seq`` and whether it ``ended``."""

    turn_id: str
    content: str | None = None
    last_seq: int = 1
    ended: bool = False


def answer_of(key: TurnKey) -> str:
    return f"answer to {key.turn_id}"


class Ledger:
    """All that was acknowledged, over any number of processes."""

    def __init__(self, lines: Iterable[bytes] = ()) -> None:
        self._last: dict[str, int] = {}
        self._content: dict[str, str] = {}
        self._ended: set[str] = set()
        for line in lines:
            self.take(line)

    def __len__(self) -> int:
        return len(self._last)

    def take(self, line: bytes) -> None:
        """A line of ``busy_store``; one cut short by its death counts for nothing."""
        if line.endswith(b"\n"):
            self.add(msgspec.json.decode(line, type=Acknowledged))

    def add(self, said: Acknowledged) -> None:
        self._last[said.turn_id] = max(said.last_seq, self._last.get(said.turn_id, 0))
        if said.content is not None:
            self._content[said.turn_id] = said.content
        if said.ended:
            self._ended.add(said.turn_id)

    async def missing(self, store: SqliteStore) -> list[str]:
        """What was acknowledged and is not there, as sentences. Raises AssertionError where a log is not one."""
        found = []
        for turn_id, last_seq in self._last.items():
            key = TurnKey.of(ANNA, turn_id)
            try:
                turn = await check_log(store, key)
            except NotFound:
                found.append(f"turn {turn_id}")
                continue
            if turn.last_seq < last_seq:
                found.append(f"records {turn.last_seq + 1} to {last_seq} of {turn_id}")
            if turn_id in self._ended and not turn.ended:
                found.append(f"the end of {turn_id}")
            if turn_id in self._content:
                question = await store.get_message(key.conversation, key.user_message_id)
                assert question.text == self._content[turn_id]
        return found


async def check_log(store: SqliteStore, key: TurnKey) -> Turn:
    """A log is contiguous from 1, has what was written, and ends with its answer stored if it ended."""
    page = await store.read_events(key)
    turn = page.turn
    assert [record.seq for record in page.records] == list(range(1, turn.last_seq + 1))
    written = page.records[1:-1] if turn.ended else page.records[1:]
    assert written == tuple(delta(key, record.seq, f"w{record.seq}") for record in written)
    assert [record.terminal for record in page.records].count(True) == turn.ended
    if turn.ended:
        assert page.records[-1] == response(key, turn.last_seq, answer_of(key))
        answer = await store.get_message(key.conversation, key.assistant_message_id)
        assert answer.text == answer_of(key)
    return turn


async def check_conversation(store: SqliteStore, name: str) -> None:
    """One turn at a time, the others waiting behind it; each question before its answer."""
    key = conversation_key(name)
    try:
        head = await store.get_conversation(key)
    except NotFound:
        return
    messages: list[Message] = []
    cursor: str | None = None
    while True:
        page = await store.list_messages(key, cursor=cursor, limit=MAX_PAGE)
        messages += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert head.message_count == len(messages)
    turns = [await store.get_turn(TurnKey(conversation=key, turn_id=m.turn_id)) for m in messages if m.role == "user"]
    not_ended = [turn for turn in turns if not turn.ended]
    assert head.active_turn_id == (not_ended[0].key.turn_id if not_ended else None)
    assert [turn.waits for turn in not_ended] == [False, True, True, True, True, True, True, True, True][
        : len(not_ended)
    ]
    expected = [
        message_id
        for turn in turns
        for message_id in (turn.key.user_message_id, turn.key.assistant_message_id)[: 1 + turn.ended]
    ]
    assert [message.message_id for message in messages] == expected


def check_file(folder: Path) -> None:
    """SQLite finds nothing wrong with the file."""
    connection = apsw.Connection(str(folder / "parley.db"))
    try:
        assert connection.pragma("integrity_check") == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        connection.close()


async def check_all(folder: Path, ledger: Ledger) -> list[str]:
    """Opens what a dead process left and looks at all of it; returns what was acknowledged and is missing."""
    store = await SqliteStore.open(folder, lock_wait_s=10)
    try:
        missing = await ledger.missing(store)
        if not missing:
            for name in CONVERSATIONS:
                await check_conversation(store, name)
    finally:
        await store.close()
    check_file(folder)
    return missing
