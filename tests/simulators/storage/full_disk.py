"""A disk that runs out of room: SQLite's own write calls answer as the kernel does, with less than was asked and ENOSPC."""

from __future__ import annotations

import ctypes
import errno
import os
import threading

import apsw

_WRITE = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, use_errno=True
)


class FullDisk:
    """Stands between SQLite and the kernel, for the whole process, from its making until :meth:`restore`."""

    def __init__(self) -> None:
        self.room_bytes: int | None = None
        """By how much all files together may still grow; None for as much as they like."""
        self.refused = 0
        """How often there was no room."""
        self._lock = threading.Lock()
        self._calls = apsw.VFS("full", "unix")
        self._callback = _WRITE(self._write)
        pointer = ctypes.cast(self._callback, ctypes.c_void_p).value
        assert pointer
        assert self._calls.xSetSystemCall("pwrite64", pointer)

    def restore(self) -> None:
        self._calls.xSetSystemCall("pwrite64", 0)
        self._calls.unregister()

    def _write(self, descriptor: int, data: int, count: int, offset: int) -> int:
        with self._lock:
            size = os.fstat(descriptor).st_size
            grown = min(count, max(0, offset + count - size))  # a hole before it takes no room
            granted = grown if self.room_bytes is None else min(grown, self.room_bytes)
            if self.room_bytes is not None:
                self.room_bytes -= granted
            fits = count - grown + granted
            if fits < count:
                self.refused += 1
            if fits == 0:
                ctypes.set_errno(errno.ENOSPC)
                return -1
            return os.pwrite(descriptor, ctypes.string_at(data, fits), offset)
