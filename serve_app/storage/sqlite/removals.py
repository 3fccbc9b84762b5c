"""Removing conversations and old logs, in pieces that keep the writer free for appends between them.

A conversation first loses its owner and id, in one statement: from then on nobody finds it or anything in it. Its rows are
cleared away afterwards; what a crash leaves is cleared at the next upkeep.
"""

from __future__ import annotations

from typing import Any

import apsw

from serve_app.domain.identity import Principal
from serve_app.domain.ids import SHADOW_PREFIX, ConversationKey
from serve_app.storage.sqlite.conversations import UNLISTED, conversation_row

PIECE_ROWS = 5_000
"""About how many rows one operation removes: some ten milliseconds."""

_OF_USER = (
    "WHERE id IN (SELECT id FROM conversation WHERE tenant_id = ? AND user_id = ? AND id <= ? LIMIT ?)"  # a chunk
)
_HIDE = "UPDATE conversation SET tenant_id = NULL, user_id = NULL, conversation_id = NULL, active_turn_id = NULL "
_CHUNK = 1_000


def hide(connection: apsw.Connection, _now: float, key: ConversationKey) -> int:
    """Makes a conversation unfindable; returns its number for :func:`clear`. Raises NotFound."""
    row = conversation_row(connection, key)
    connection.execute(_HIDE + "WHERE id = ?", (row,))
    return row


def hide_some(connection: apsw.Connection, _now: float, principal: Principal, through: int) -> int:
    """Hides up to a chunk of the user's conversations numbered up to ``through``; returns how many."""
    connection.execute(
        _HIDE + _OF_USER,
        (principal.tenant_id, principal.user_id, through, _CHUNK),
    )
    return connection.changes()


def clear(connection: apsw.Connection, _now: float, conversation: int | None = None) -> bool:
    """Removes a piece of a hidden conversation, or of any; True while there is more."""
    budget = PIECE_ROWS
    while budget > 0:
        row: Any = connection.execute(
            "SELECT min(id) FROM conversation WHERE tenant_id IS NULL AND (?1 IS NULL OR id = ?1)", (conversation,)
        ).fetchone()
        if row[0] is None:
            return False
        budget -= _clear_one(connection, row[0], budget)
    return True


def _clear_one(connection: apsw.Connection, conversation: int, budget: int) -> int:
    """Removes up to about ``budget`` rows, and the conversation itself once nothing hangs on it. Returns how many."""
    removed = 0
    while removed < budget:
        turn: Any = connection.execute("SELECT id FROM turn WHERE conversation = ? LIMIT 1", (conversation,)).fetchone()
        if turn is None:
            break
        removed += _clear_events(connection, turn[0], budget - removed)
        if removed >= budget:
            return removed
        for sql in (
            "DELETE FROM turn_step WHERE turn = ?",
            "DELETE FROM turn_input WHERE turn = ?",
            "DELETE FROM turn WHERE id = ?",
        ):
            connection.execute(sql, turn)
            removed += connection.changes()
    if removed >= budget:
        return removed
    connection.execute(
        "DELETE FROM message WHERE id IN (SELECT id FROM message WHERE conversation = ? LIMIT ?)",
        (conversation, budget - removed),
    )
    removed += connection.changes()
    if removed >= budget:
        return removed
    connection.execute("DELETE FROM session_prompt WHERE conversation = ?", (conversation,))
    connection.execute("DELETE FROM conversation WHERE id = ?", (conversation,))
    return removed + 1


def prune_some(connection: apsw.Connection, now: float, *, older_than_s: float, limit: int) -> int:
    """Removes the events of up to ``limit`` turns that ended before, a piece's worth of rows; returns how many turns."""
    pruned = 0
    budget = PIECE_ROWS
    before_us = round((now - older_than_s) * 1_000_000)
    rows: list[Any] = connection.execute(
        "SELECT id FROM turn WHERE finished_us IS NOT NULL AND pruned = 0 AND finished_us <= ? ORDER BY finished_us LIMIT ?",
        (before_us, min(limit, PIECE_ROWS)),
    ).fetchall()
    for (turn,) in rows:
        # A turn's log goes as a whole: it is bounded, and half a log must never be shown.
        connection.execute("DELETE FROM event WHERE turn = ?", (turn,))
        budget -= connection.changes()
        connection.execute("UPDATE turn SET pruned = 1 WHERE id = ?", (turn,))
        # A request of a program goes as a whole, unless another attempt at it is still wanted; see ``ConversationKey.passing``.
        connection.execute(
            _HIDE + "WHERE id = (SELECT conversation FROM turn WHERE id = ?1) AND archived = ?2 "  # noqa: S608
            "AND substr(conversation_id, 1, ?3) != ?4 AND NOT EXISTS "
            "(SELECT 1 FROM turn t WHERE t.conversation = conversation.id AND t.pruned = 0)",
            (turn, UNLISTED, len(SHADOW_PREFIX), SHADOW_PREFIX),
        )
        pruned += 1
        if budget <= 0:
            break
    return pruned


def _clear_events(connection: apsw.Connection, turn: int, budget: int) -> int:
    connection.execute(
        "DELETE FROM event WHERE turn = ?1 AND seq IN (SELECT seq FROM event WHERE turn = ?1 LIMIT ?2)", (turn, budget)
    )
    return connection.changes()
