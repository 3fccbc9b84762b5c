"""The data folder: made, tried for writing, and held by one process.

SQLite lets several processes write, but then they wait seconds for one another, and a group commit groups nothing. So a
writer holds an exclusive lock on ``parley.lock`` for as long as it lives; the kernel lets go of it however it dies.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from pathlib import Path

from serve_app.errors import ConfigError

DATABASE = "parley.db"
LOCK = "parley.lock"
_POLL_S = 0.05


class FolderLock:
    """Exclusive hold on a data folder, from :meth:`acquire` to :meth:`release` or the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    async def acquire(cls, folder: Path, *, wait_s: float) -> FolderLock:
        """Makes the folder if need be, and waits up to ``wait_s`` for a predecessor that is just ending.

        Raises ConfigError where the folder cannot be used or another process keeps it.
        """
        descriptor = _open(folder)
        try:
            until = time.monotonic() + wait_s
            while not _try_lock(descriptor, folder):
                if time.monotonic() >= until:
                    raise ConfigError(
                        f"Setting PARLEY_DATA_DIR: the folder {folder} is in use by another Parley process"
                        f"{_holder(descriptor)}; stop that one, or choose another folder."
                    )
                await asyncio.sleep(_POLL_S)
            # Only for the sentence above; the lock itself is the kernel's.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except OSError as error:
            os.close(descriptor)
            raise unusable(folder, error.strerror or str(error)) from error
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Lets go. The file stays: removing it would let two processes each lock a file of that name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def unusable(folder: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"Setting PARLEY_DATA_DIR: the folder {folder} cannot be used ({reason}); "
        "choose a folder this user can read and write, or correct its permissions."
    )


def _open(folder: Path) -> int:
    try:
        # Conversations are private: a folder we make is its owner's only.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(folder, error.strerror or str(error)) from error


def _try_lock(descriptor: int, folder: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise unusable(folder, f"it cannot be locked: {error.strerror}") from error
    return True


def _holder(descriptor: int) -> str:
    pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
    return f" (process {pid})" if pid.isdigit() else ""
