"""A file that is being written to disk. Written in threads; given up from anywhere, also while a thread still writes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from serve_app.files.folder import ABOUT, CONTENT, INCOMING, make_file, move, opened, remove_incoming


class Draft:
    """Invisible until ``publish``. All methods block and raise OSError; after ``discard`` they do nothing."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()
        self._content: int | None = None
        self._given_up = False
        self._published: tuple[str, ...] = ()
        self.size_bytes = 0

    @property
    def etag(self) -> str:
        return self._hash.hexdigest()[:32]

    def write(self, piece: bytes) -> None:
        with self._lock:
            if self._given_up:
                return
            if self._content is None:
                with opened(self._root, (INCOMING, self._name), make=True) as folder:
                    self._content = make_file(folder, CONTENT)
            self._hash.update(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self._content, rest) :]
            self.size_bytes += len(piece)

    def publish(self, about: bytes, target: Sequence[str]) -> None:
        """Makes it a file at ``target``, durably, at once or not at all."""
        with self._lock:
            if self._given_up or self._content is None:
                return
            os.fsync(self._content)
            self._close()
            with opened(self._root, (INCOMING, self._name)) as folder:
                described = make_file(folder, ABOUT)
                try:
                    os.write(described, about)
                    os.fsync(described)
                finally:
                    os.close(described)
                os.fsync(folder)
            move(self._root, (INCOMING, self._name), target)
            self._published = tuple(target)

    def discard(self) -> None:
        """Leaves nothing of it, published or not."""
        with self._lock:
            self._given_up = True
            self._close()
            with suppress(OSError):
                if self._published:
                    move(self._root, self._published, (INCOMING, self._name))
            with suppress(OSError):
                remove_incoming(self._root, self._name)

    def _close(self) -> None:
        if self._content is not None:
            os.close(self._content)
            self._content = None
