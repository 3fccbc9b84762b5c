"""Usage that waits to be written, in a file: what a crash leaves is written after the next start.

A process has a file of its own, which it holds locked; a file that nobody holds belongs to a process that has died.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from serve_app.errors import ConfigError
from serve_app.storage.cosmos.usage import UsageRow
from serve_app.telemetry import logger

_DECODER: msgspec.json.Decoder[UsageRow] = msgspec.json.Decoder(UsageRow)


class FileJournal:
    """The journal port on files in ``folder``. Raises ConfigError where that cannot be written to."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._left = [held for path in sorted(folder.glob("usage-*.jsonl")) if (held := _held(path)) is not None]
            self._path = folder / f"usage-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
            self._file = self._path.open("w+b", buffering=0)
        except OSError as error:
            raise ConfigError(
                f"Setting PARLEY_DATA_DIR: usage cannot be kept in {folder}: {error.strerror}."
            ) from error
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def read(self) -> list[UsageRow]:
        rows: list[UsageRow] = []
        for _, file in self._left:
            for line in file.read().splitlines():
                try:
                    rows.append(_DECODER.decode(line))
                except msgspec.DecodeError:
                    continue  # the last line of a process that died writing it
        try:
            for row in rows:
                self.add(row)
        except OSError as error:
            _log.warning("usage that was left stays where it lies", rows=len(rows), reason=str(error))
            return rows
        for path, file in self._left:
            path.unlink(missing_ok=True)
            file.close()
        self._left = []
        return rows

    def add(self, row: UsageRow) -> None:
        self._file.write(_line(row))

    def keep_only(self, rows: Iterable[UsageRow]) -> None:
        lines = b"".join(_line(row) for row in rows)
        self._file.seek(0)
        self._file.truncate()
        self._file.write(lines)

    def close(self) -> None:
        empty = self._file.seek(0, os.SEEK_END) == 0
        self._file.close()
        if empty:
            self._path.unlink(missing_ok=True)


def _held(path: Path) -> tuple[Path, BinaryIO] | None:
    file = path.open("rb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return path, file


def _line(row: UsageRow) -> bytes:
    return msgspec.json.encode(row) + b"\n"


_log = logger("storage")
