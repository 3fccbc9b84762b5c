"""How a connection is opened, and what SQLite's errors mean to callers."""

from __future__ import annotations

from pathlib import Path

import apsw

from serve_app.errors import ConfigError, Internal, Overloaded, ParleyError
from serve_app.storage.sqlite.folder import unusable
from serve_app.storage.sqlite.schema import migrate

_BUSY_MS = 5_000
_CHECKPOINT_PAGES = 2_000  # 8 MiB: what one commit now and then copies back into the file
_JOURNAL_BYTES = 64 * 1024 * 1024
_CACHE_KIB = 32 * 1024
_STATEMENTS = 256


def open_writer(path: Path) -> apsw.Connection:
    """The connection that writes, its file brought to the newest version.

    Raises ConfigError where the file cannot be opened or is no database of ours.
    """
    try:
        connection = apsw.Connection(
            str(path),
            flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE,
            statementcachesize=_STATEMENTS,
        )
        try:
            _prepare(connection)
            if connection.pragma("journal_mode", "wal") != "wal":
                raise unusable(path.parent, "its file system does not support SQLite's write-ahead log")
            # FULL: an acknowledged write survives a power cut, too; grouped commits make it cheap.
            connection.pragma("synchronous", "full")
            connection.pragma("wal_autocheckpoint", _CHECKPOINT_PAGES)
            connection.pragma("journal_size_limit", _JOURNAL_BYTES)
            migrate(connection)
        except BaseException:
            connection.close()
            raise
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise ConfigError(
            f"The file {path} is damaged or no database of Parley ({error}); put back a copy of it, "
            "or set PARLEY_DATA_DIR to another folder."
        ) from error
    except (apsw.FullError, apsw.IOError) as error:
        raise ConfigError(
            f"Setting PARLEY_DATA_DIR: the database in the folder {path.parent} cannot be opened ({error}); "
            "free some space if its disk is full, or choose a folder on another disk."
        ) from error
    except apsw.Error as error:
        raise unusable(path.parent, str(error)) from error
    return connection


def open_reader(path: Path) -> apsw.Connection:
    """A connection that only reads. The writer's must have been opened before."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, statementcachesize=_STATEMENTS)
    _prepare(connection)
    connection.pragma("query_only", True)
    return connection


def as_parley_error(error: Exception) -> ParleyError:
    """What a caller is told of ``error``; errors of ours pass unchanged."""
    if isinstance(error, ParleyError):
        return error
    if isinstance(error, apsw.FullError):
        told: ParleyError = Overloaded(
            "The disk that holds the store is full; free some space on it, then send this again.", None, 1.0
        )
    elif isinstance(error, apsw.BusyError | apsw.LockedError | apsw.NoMemError):
        told = Overloaded("The store is busy; try again in a moment.", None, 1.0)
    elif isinstance(error, apsw.CorruptError | apsw.NotADBError):
        told = Internal("The store's database file is damaged; put back a copy of it.")
    elif isinstance(error, apsw.IOError | apsw.CantOpenError | apsw.ReadOnlyError):
        # It may pass, as does a quota that is used up; and if not, whoever tries again finds another process at work.
        told = Internal(
            "The store's database file cannot be read or written; check its disk and permissions.", True, 1.0
        )
    else:
        told = Internal("The store failed at this operation; the log says why.")
    told.__cause__ = error
    return told


def _prepare(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(_BUSY_MS)
    connection.pragma("foreign_keys", True)
    connection.pragma("trusted_schema", False)
    connection.pragma("cell_size_check", True)
    # Savepoints keep what they may have to put back; in memory, not in a temporary file.
    connection.pragma("temp_store", "memory")
    connection.pragma("cache_size", -_CACHE_KIB)
