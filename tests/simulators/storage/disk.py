"""A disk below SQLite that forgets what was not synced when its process dies, and that dies where it is told to.

SQLite works on real files through it. A write stays in the process until its file is synced, so that SIGKILL does to the
files what a power cut does to a disk's cache; dying inside a write or a sync keeps a part of what was under way, as a disk
may.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import defaultdict
from typing import Literal

import apsw

Moment = Literal["write", "sync"]


class ForgetfulDisk(apsw.VFS):
    """SQLite's default file system from its making on."""

    def __init__(self) -> None:
        super().__init__("forgetful", "unix", makedefault=True)
        self.lock = threading.RLock()
        self.unsynced: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self._files: dict[str, _File] = {}
        self._deadly: Moment | None = None
        self._countdown = 0
        self._chance = random.Random(0)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        file = _File(self, path or "", name, flags)
        if flags[0] & apsw.SQLITE_OPEN_READWRITE:
            self._files[path or ""] = file
        return file

    def die_in(self, moment: Moment, count: int, seed: int) -> None:
        """At the ``count``-th of these from now on. What is kept of the unsynced is up to ``seed``."""
        self._deadly, self._countdown, self._chance = moment, count, random.Random(seed)

    def pass_moment(self, moment: Moment) -> None:
        if moment == self._deadly:
            self._countdown -= 1
            if self._countdown <= 0:
                self._die()

    def _die(self) -> None:
        for path, writes in self.unsynced.items():
            for offset, data in writes:
                kept = self._chance.choice([0, self._chance.randrange(len(data) + 1), len(data)])
                if kept:
                    self._files[path].keep(data[:kept], offset)
        os.kill(os.getpid(), signal.SIGKILL)


class _File(apsw.VFSFile):
    def __init__(self, disk: ForgetfulDisk, path: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._path = path

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        with self._disk.lock:
            self._disk.unsynced[self._path].append((offset, bytes(data)))
            self._disk.pass_moment("write")

    def keep(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        with self._disk.lock:
            self._disk.pass_moment("sync")
            for offset, data in self._disk.unsynced.pop(self._path, ()):
                self.keep(data, offset)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        with self._disk.lock:
            found = bytearray(super().xRead(amount, offset))
            for at, data in self._disk.unsynced.get(self._path, ()):
                first, last = max(at, offset), min(at + len(data), offset + amount)
                if first < last:
                    found.extend(bytes(max(0, last - offset - len(found))))
                    found[first - offset : last - offset] = data[first - at : last - at]
            return bytes(found)

    def xFileSize(self) -> int:  # noqa: N802
        with self._disk.lock:
            ends = [at + len(data) for at, data in self._disk.unsynced.get(self._path, ())]
            return max([super().xFileSize(), *ends])

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        with self._disk.lock:
            writes = self._disk.unsynced.get(self._path, [])
            writes[:] = [(at, data[: max(0, newsize - at)]) for at, data in writes if at < newsize]
            super().xTruncate(newsize)
