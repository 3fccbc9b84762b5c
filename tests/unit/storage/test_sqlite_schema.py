"""The file's layout: how it gets there, and that nothing is looked for by walking through a table."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import apsw
import pytest

from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import OnBusy
from serve_app.domain.usage import Grouping, Usage, UsageRow, UsageSum, UsageSums
from serve_app.storage.pages import ConversationCursor, MessageCursor, SumsCursor
from serve_app.storage.sqlite import SqliteStore, appends, conversations, removals, turns, usage
from serve_app.storage.sqlite.acceptance import accept
from serve_app.storage.sqlite.connection import open_writer
from serve_app.storage.sqlite.schema import MIGRATIONS, migrate
from tests.contract.store_inputs import (
    ANNA,
    FIRST,
    PROMPT,
    Clock,
    accepted,
    completed,
    conversation_key,
    delta,
    ended,
    finish,
    new_turn,
    only,
    queued,
    response,
    share,
    shown,
    step,
)

C1 = conversation_key("c1")
MAY_WALK = re.compile("turn_open|CONSTANT ROW")
BEHIND: tuple[OnBusy, ...] = ("queue", "interrupt")


def test_an_empty_file_is_brought_from_version_0_to_the_newest_once(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "x.db"))
    assert connection.pragma("user_version") == 0
    assert migrate(connection) == len(MIGRATIONS)
    assert connection.pragma("user_version") == len(MIGRATIONS)
    assert migrate(connection) == 0
    connection.close()


def test_a_file_of_an_older_version_gets_only_what_it_lacks_and_keeps_its_rows(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "x.db"))
    steps = ("CREATE TABLE a (n); INSERT INTO a VALUES (1)", "ALTER TABLE a ADD COLUMN m DEFAULT 2")
    assert migrate(connection, steps[:1]) == 1
    assert migrate(connection, steps) == 1
    assert connection.execute("SELECT n, m FROM a").fetchall() == [(1, 2)]
    connection.close()


def test_a_migration_that_fails_leaves_the_version_before_it(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "x.db"))
    steps = ("CREATE TABLE a (n)", "CREATE TABLE b (n); INSERT INTO missing VALUES (1)")
    with pytest.raises(apsw.SQLError):
        migrate(connection, steps)
    assert connection.pragma("user_version") == 1
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("a",)]
    connection.close()


async def test_a_file_that_version_1_wrote_is_taken_over_with_all_it_holds(tmp_path: Path) -> None:
    write_version_1(tmp_path)
    clock = Clock()
    clock.advance(12)
    store = await SqliteStore.open(tmp_path, clock=clock)
    ended, open_ = (TurnKey(conversation=C1, turn_id=f"c1.01JC000000000000000000000{n}") for n in (1, 2))
    head = await store.get_conversation(C1)
    assert (head.title, head.message_count, head.active_turn_id) == ("Plans", 3, open_.turn_id)
    assert head.session_prompt == PROMPT
    question, answer, running_ = (await store.list_messages(C1, replaced=True)).items
    assert (question.text, answer.text, running_.text) == ("q1", "a1", "q2")
    assert (answer.reaction, answer.replaced_by, answer.position) == ("up", None, 2)
    assert await store.find_message(C1, question.message_id) == question
    old, new = await store.get_turn(ended), await store.get_turn(open_)
    assert (old.state, old.waits, old.replaces, old.client_message_id) == ("completed", False, None, None)
    assert (old.deadline, old.steps, old.client_turn_id) == (1_700_000_300.5, (step(),), "k1")
    assert (new.state, new.waits, new.last_seq, new.epoch) == ("running", False, 2, 1)
    assert len((await store.read_events(ended)).records) == 3
    await store.close()


async def test_turns_of_version_1_go_on_where_they_were(tmp_path: Path) -> None:
    write_version_1(tmp_path)
    clock = Clock()
    clock.advance(12)
    store = await SqliteStore.open(tmp_path, clock=clock)
    ended_before, open_ = (TurnKey(conversation=C1, turn_id=f"c1.01JC000000000000000000000{n}") for n in (1, 2))
    follower = await queued(store, C1, "q3")
    reply = only(await store.append([share(open_, delta(open_, 3), response(open_, 4), finish=finish(open_, "a2"))]))
    assert (reply.status, reply.next_turn) == ("ok", follower)
    await ended(store, follower, "a3")
    assert await shown(store, C1) == ["q1", "a1", "q2", "a2", "q3", "a3"]
    await ended(store, await accepted(store, conversation_key("c2"), "q4"), "a4")
    assert await shown(store, conversation_key("c2")) == ["q3", "a3", "q4", "a4"]
    new = new_turn(C1, "q1", replaces=ended_before.assistant_message_id)
    await store.accept_turn(new)
    await ended(store, new.key, "a1 anew")
    assert await shown(store, C1) == ["q1", "a1 anew"]
    await store.close()


def write_version_1(folder: Path) -> None:
    connection = apsw.Connection(str(folder / "parley.db"))
    connection.pragma("journal_mode", "wal")
    connection.execute((Path(__file__).parent / "version_1.sql").read_text())
    assert connection.pragma("user_version") == 1
    connection.close()


def test_no_statement_walks_through_a_table(tmp_path: Path) -> None:
    """Each is planned as a search by an index, whatever the length of the history."""
    connection = open_writer(tmp_path / "x.db")
    statements: set[str] = set()

    def trace(_cursor: apsw.Cursor, sql: str, _bindings: Any) -> bool:
        statements.add(sql)
        return True

    connection.exec_trace = trace
    key = whole_turn(connection)
    reads: list[Callable[[], object]] = [
        lambda: conversations.page(connection, ANNA, archived=False, after=None, limit=5),
        lambda: conversations.page(
            connection, ANNA, archived=False, after=ConversationCursor(archived=False, updated_us=1, order=1), limit=5
        ),
        lambda: conversations.message_page(connection, C1, after=None, limit=5, descending=False, replaced=False),
        lambda: conversations.message_page(
            connection, C1, after=MessageCursor(descending=True, position=3), limit=5, descending=True, replaced=False
        ),
        lambda: conversations.message_page(connection, C1, after=None, limit=5, descending=True, replaced=True),
        lambda: conversations.message_page(connection, C1, after=None, limit=5, descending=False, replaced=True),
        lambda: conversations.get_message(connection, C1, key.user_message_id),
        lambda: conversations.message_called(connection, C1, "m1"),
        lambda: conversations.message_called(connection, C1, key.user_message_id),
        lambda: conversations.newest(connection, ANNA),
        lambda: turns.read_events(connection, key, after_seq=0, limit=5),
        lambda: turns.find_abandoned(connection, now=9.0, limit=5),
        lambda: conversations.react(connection, 1.0, C1, key.user_message_id, "up"),
        lambda: conversations.archive_some(connection, 1.0, ANNA, 100),
        lambda: removals.prune_some(connection, 9.0, older_than_s=1.0, limit=5),
        lambda: removals.hide_some(connection, 9.0, ANNA, 100),
        lambda: removals.clear(connection, 9.0),
        lambda: usage.page(connection, "acme", FIRST_DAY, after=None, limit=5),
        lambda: usage.add(connection, 9.0, [a_row()]),
        *(lambda by=by, user=user: sums(connection, by, user) for by in BY for user in (None, "anna")),
        lambda: sums(connection, "conversation", "anna"),
    ]
    for read in reads:
        read()
    connection.exec_trace = None

    walks, indexes = [], set()
    for sql in sorted(statements):
        if not sql.startswith(("SELECT", "UPDATE", "DELETE", "INSERT")):
            continue
        numbered = [int(number) for number in re.findall(r"\?([0-9]+)", sql)]
        bindings = (None,) * (max(numbered) if numbered else sql.count("?"))
        plan = connection.execute("EXPLAIN QUERY PLAN " + sql, bindings).fetchall()
        indexes |= {word for row in plan for word in str(row[3]).split()}
        # Turns that have not ended are few and apart in an index of their own; that one is meant to be walked.
        walks += [(row[3], sql) for row in plan if str(row[3]).startswith("SCAN") and not MAY_WALK.search(str(row[3]))]
    assert len(statements) > 30
    assert walks == []
    assert indexes >= {
        "conversation_key",
        "conversation_recent",
        "message_shown",
        "turn_client",
        "turn_client_message",
        "turn_open",
        "turn_prunable",
        "usage_by_tenant",
        "usage_by_user",
    }
    connection.close()


FIRST_DAY = date(2023, 11, 1)
BY: tuple[Grouping, ...] = ("day", "user", "model")


def sums(connection: apsw.Connection, by: Grouping, user_id: str | None) -> UsageSums:
    after = SumsCursor(by=by, group="2023-11-01")
    return usage.sums(connection, "acme", FIRST_DAY, date(2023, 11, 20), by, user_id=user_id, after=after, limit=5)


def a_row() -> UsageRow:
    return UsageRow(
        tenant_id="acme",
        user_id="anna",
        conversation_id="c1",
        turn_id="t1",
        model_id=None,
        usage=Usage(input_tokens=1),
        at=datetime.fromtimestamp(1_700_000_000, UTC),
        purpose="title",
    )


async def test_what_version_1_counted_is_kept_and_added_up(tmp_path: Path) -> None:
    write_version_1(tmp_path)
    old = apsw.Connection(str(tmp_path / "parley.db"))
    counted = old.execute("SELECT count(*), sum(input_tokens), sum(output_tokens) FROM usage").fetchall()
    old.close()
    assert counted == [(2, 22, 14)]
    store = await SqliteStore.open(tmp_path)
    day = date(2023, 11, 14)
    rows = (await store.list_usage("acme", day)).items
    assert [(row.purpose, row.usage) for row in rows] == [("turn", Usage(input_tokens=11, output_tokens=7))] * 2
    for by, group in (("day", "2023-11-14"), ("user", "anna"), ("model", "m1")):
        (found,) = (await store.sum_usage("acme", day, day, by)).items  # type: ignore[arg-type]
        assert found == UsageSum(group=group, turns=2, usage=Usage(input_tokens=22, output_tokens=14))
    await store.close()


def whole_turn(connection: apsw.Connection) -> TurnKey:
    conversations.ensure(connection, 1.0, C1)
    key = TurnKey.new(C1)
    accept(
        connection,
        1.0,
        new_turn(C1, client_turn_id="k", client_message_id="m1", key=key),
        on_busy="reject",
        max_waiting=8,
    )
    turns.request_cancel(connection, 1.0, key)
    turns.claim(connection, 1.0, key, FIRST, lease_s=5.0, history_limit=5, dead=(), ahead=0)
    appends.append(connection, 1.0, [share(key, delta(key, 2), step=step(), session_prompt=PROMPT)])
    others = [TurnKey.new(C1) for _ in range(2)]
    for other, on_busy in zip(others, BEHIND, strict=True):
        accept(connection, 1.0, new_turn(C1, key=other), on_busy=on_busy, max_waiting=8)
    last = share(key, delta(key, 2), response(key, 3), finish=finish(key))
    for _ in range(2):
        appends.append(connection, 1.0, [last])
    for other in others:
        turns.claim(connection, 1.0, other, FIRST, lease_s=5.0, history_limit=5, dead=(), ahead=0)
        appends.append(connection, 1.0, [share(other, response(other, 2), finish=finish(other))])
    accept(connection, 1.0, new_turn(C1, replaces=key.assistant_message_id), on_busy="reject", max_waiting=8)
    conversations.update(
        connection, 1.0, C1, title="t", archived=None, session_prompt=None, if_untitled=False, if_match=None
    )
    return key


async def test_a_finish_leaves_a_row_of_usage_that_outlives_the_conversation(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    key = await completed(store, C1)
    await store.delete_conversation(C1)

    def usage(connection: apsw.Connection) -> list[object]:
        return list(
            connection.execute("SELECT tenant_id, user_id, turn_id, model_id, input_tokens, output_tokens FROM usage")
        )

    assert await store._readers.run(usage) == [("acme", "anna", key.turn_id, "m1", 11, 7)]
    await store.close()
