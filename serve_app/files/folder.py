"""Folders on disk as the file store walks them: by open directories, never through a symbolic link.

    <root>/<tenant>/<user>/<file id>/content
                                    /about.json
    <root>/.incoming/<file id>/…          on its way in or out; what a crash leaves there is swept

A file is a folder, so that content and description appear and go with one rename. All of it blocks: call it in a thread.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

CONTENT = "content"
ABOUT = "about.json"
INCOMING = ".incoming"
MAX_ABOUT_BYTES = 65_536
LEFTOVER_S = 86_400.0
"""Older than any upload: nothing that is still being written is swept."""

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAKE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened(root: Path, segments: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """The folder below ``root``, as a descriptor. ``make`` makes what is missing. Raises OSError, also for a link on the way."""
    if make:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Where the operator put the root may itself be a link; what is below it is only ever made here.
    folder = os.open(root, _OPEN_FOLDER & ~os.O_NOFOLLOW)
    try:
        for segment in segments:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(segment, 0o700, dir_fd=folder)
            inner = os.open(segment, _OPEN_FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def open_content(root: Path, segments: Sequence[str]) -> int:
    """The content's descriptor; the caller closes it. Raises OSError."""
    with opened(root, segments) as folder:
        return os.open(CONTENT, _OPEN_FILE, dir_fd=folder)


def names_in(folder: int) -> list[str]:
    return os.listdir(folder)


def read_about(folder: int) -> bytes:
    descriptor = os.open(ABOUT, _OPEN_FILE, dir_fd=folder)
    try:
        return os.read(descriptor, MAX_ABOUT_BYTES)
    finally:
        os.close(descriptor)


def make_file(folder: int, name: str) -> int:
    return os.open(name, _MAKE_FILE, 0o600, dir_fd=folder)


def move(root: Path, source: Sequence[str], target: Sequence[str]) -> None:
    """Renames a folder, at once and durably; the folders that lead to ``target`` are made. Raises OSError."""
    with opened(root, source[:-1]) as before, opened(root, target[:-1], make=True) as after:
        os.rename(source[-1], target[-1], src_dir_fd=before, dst_dir_fd=after)
        os.fsync(after)
        os.fsync(before)


def remove_incoming(root: Path, name: str) -> None:
    """Removes one folder of those on their way; what is gone already is fine."""
    with suppress(FileNotFoundError), opened(root, (INCOMING,)) as incoming:
        shutil.rmtree(name, dir_fd=incoming)


def sweep_incoming(root: Path) -> None:
    """Removes what crashed processes left behind."""
    old = time.time() - LEFTOVER_S
    with suppress(OSError), opened(root, (INCOMING,)) as incoming:
        for name in names_in(incoming):
            with suppress(OSError):
                if os.stat(name, dir_fd=incoming, follow_symlinks=False).st_mtime < old:
                    shutil.rmtree(name, dir_fd=incoming)
