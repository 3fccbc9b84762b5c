"""The embedded store: one SQLite file, one writing process, many readers.

    callers ──► SqliteStore ──► Writer: queue ─► one thread, group commit ──┐
                     │                                                      ├──► parley.db (WAL)
                     └───────► Readers: bounded pool, read-only snapshots ──┘

``conversations``, ``acceptance``, ``turns``, ``appends`` and ``removals`` hold the SQL as plain functions of a connection;
``store`` puts them on the writer or the readers; ``folder`` makes sure that one process writes.
"""

from serve_app.storage.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
