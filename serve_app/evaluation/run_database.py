"""The SQLite file of a run: its tables, how it is opened, and how rows are written and read.

One process writes, with every transaction on the disk before it counts; any number read meanwhile.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec
from msgspec import Struct

from serve_app.errors import ConfigError, Internal, Overloaded, ParleyError

T = TypeVar("T")

Statement = tuple[str, Sequence[Sequence[Any]]]
"""What is executed, once for each row of values."""

FORMAT = 1
COMPRESSED_FROM_BYTES = 512
_BUSY_MS = 10_000
_CACHE_KIB = 8_192

# ``configuration`` is the place of its name in the meta's; ``position`` is a case's place in the data set, from 0.
# ``made_by`` says with what a grade was made, so that a changed grader grades anew; a grade without a body is one that a grader
# had nothing to say to. ``earlier``: attempts that a result had which was taken out to be run again.
_TABLES = """
CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL) STRICT;
CREATE TABLE cases (position INTEGER PRIMARY KEY, case_id TEXT NOT NULL UNIQUE, body BLOB NOT NULL) STRICT;
CREATE TABLE result (
  position INTEGER NOT NULL REFERENCES cases,
  configuration INTEGER NOT NULL,
  repeat INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  cost_microusd INTEGER NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (position, configuration, repeat)
) STRICT;
CREATE TABLE grade (
  position INTEGER NOT NULL,
  configuration INTEGER NOT NULL,
  repeat INTEGER NOT NULL,
  grader TEXT NOT NULL,
  made_by TEXT NOT NULL,
  passed INTEGER,
  cost_microusd INTEGER NOT NULL,
  body BLOB,
  PRIMARY KEY (position, configuration, repeat, grader)
) STRICT;
CREATE TABLE earlier (
  position INTEGER NOT NULL,
  configuration INTEGER NOT NULL,
  repeat INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  PRIMARY KEY (position, configuration, repeat)
) STRICT;
"""


class RunDatabase:
    """Its methods wait for the disk, and may be called from any thread."""

    def __init__(self, path: Path, *, writing: bool) -> None:
        """Makes the file where it is to be written and there is none. Raises ConfigError where it is no run's."""
        self._path = path
        self._writing = writing
        self._gate = threading.RLock()
        try:
            self._connection = _open(path, writing)
        except apsw.Error as error:
            raise _unusable(path, error) from error
        try:
            self._check_format()
        except BaseException:
            self._connection.close()
            raise

    def _check_format(self) -> None:
        try:
            found = int(self._connection.pragma("user_version"))
            if found == 0 and self._writing:
                with self._connection:
                    self._connection.execute(_TABLES)
                    self._connection.pragma("user_version", FORMAT)
                found = FORMAT
        except apsw.Error as error:
            raise _unusable(self._path, error) from error
        if found != FORMAT:
            raise ConfigError(
                f"The run in {self._path.parent} was written by another version of Parley "
                f"(format {found}, this one knows {FORMAT})."
            )

    def close(self) -> None:
        """Idempotent."""
        with self._gate:
            self._connection.close()

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows. Raises Internal where the file cannot be read."""
        with self._gate:
            try:
                return list(self._connection.execute(sql, values))
            except apsw.Error as error:
                raise _failed(self._path, error) from error

    def write(self, statements: Sequence[Statement]) -> int:
        """All statements in one transaction, durably; returns how many rows they changed. Raises Overloaded where the disk is
        full, Internal where it fails otherwise."""
        if not self._writing:
            raise ValueError("the run was opened for reading")
        with self._gate:
            try:
                before = self._connection.total_changes()
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    for sql, rows in statements:
                        if rows:
                            self._connection.executemany(sql, rows)
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
                return self._connection.total_changes() - before
            except apsw.Error as error:
                raise _failed(self._path, error) from error


def pack(value: Struct) -> bytes:
    """JSON, compressed where that is worth it: JSON begins with a brace, what zlib writes with an x."""
    encoded = msgspec.json.encode(value)
    return zlib.compress(encoded, 1) if len(encoded) >= COMPRESSED_FROM_BYTES else encoded


def unpack(body: bytes, kind: type[T]) -> T:
    return msgspec.json.decode(zlib.decompress(body) if body[:1] == b"x" else body, type=kind)


def _open(path: Path, writing: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE  # who only reads writes the index of the write-ahead log all the same
    connection = apsw.Connection(str(path), flags=flags | apsw.SQLITE_OPEN_CREATE if writing else flags)
    try:
        connection.set_busy_timeout(_BUSY_MS)
        connection.pragma("cache_size", -_CACHE_KIB)
        if writing:
            connection.pragma("journal_mode", "wal")
            connection.pragma("synchronous", "full")
        else:
            connection.pragma("query_only", True)
    except BaseException:
        connection.close()
        raise
    return connection


def _unusable(path: Path, error: apsw.Error) -> ConfigError:
    return ConfigError(f"The file {path} cannot be used for a run ({error}); name another folder.")


def _failed(path: Path, error: apsw.Error) -> ParleyError:
    if isinstance(error, apsw.FullError):
        return Overloaded(f"The disk of {path.parent} is full; free some space, then resume the run.", False)
    return Internal(f"The results in {path} cannot be read or written ({error}).")
