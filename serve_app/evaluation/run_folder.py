"""The folder of a run: what its files are called, and the lock that lets one process at a time write into it.

run.yaml       the run file as it is used            report.html, report.json, junit.xml, results.jsonl   the report
run.sqlite     cases, results and grades             labels.jsonl    labels that people gave
graph/         the store of an in-process graph      run.lock        held by whoever writes
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from serve_app.errors import ConfigError

RUN_FILE = "run.yaml"
RUN_DATABASE = "run.sqlite"
RUN_LOCK = "run.lock"
GRAPH_FOLDER = "graph"
LABELS = "labels.jsonl"
REPORT_HTML = "report.html"
REPORT_JSON = "report.json"
JUNIT = "junit.xml"
RESULTS = "results.jsonl"


class RunLock:
    """Exclusive hold on a run folder; the kernel lets go of it however its holder dies."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError where another process holds it, or the folder cannot be written to."""
        self._descriptor: int | None = None
        try:
            descriptor = os.open(folder / RUN_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"The run folder {folder} cannot be written to ({error.strerror}).") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Only for the sentence below; the lock itself is the kernel's.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except BlockingIOError:
            pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            who = f" (process {pid})" if pid.isdigit() else ""
            raise ConfigError(
                f"The run folder {folder} is being written by another command{who}; wait for it, or end it."
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise ConfigError(f"The run folder {folder} cannot be locked ({error.strerror}).") from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Idempotent. The file stays: removing it would let two processes each lock a file of that name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def claim_folder(path: Path) -> RunLock:
    """The new folder of a run, made and locked. Raises ConfigError as ``make_folder`` does, and where another process has it."""
    make_folder(path)
    lock = RunLock(path)
    try:
        make_folder(path)  # whoever had the lock until now may have made a run
    except ConfigError:
        lock.release()
        raise
    return lock


def make_folder(path: Path) -> Path:
    """The new folder of a run, its owner's only, for conversations are private. Raises ConfigError where it cannot be made or
    already holds a run."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"The run folder {path} cannot be made ({error.strerror}); name another.") from error
    if (path / RUN_DATABASE).exists():
        raise ConfigError(
            f"The folder {path} already holds a run; name another, or go on with it by `parley eval resume {path}`."
        )
    return path


def discard_run(folder: Path, *, also_folder: bool) -> None:
    """Takes out what a run that never began has put there; ``also_folder``: the folder too, where nothing else is in it."""
    for name in (RUN_DATABASE, f".{RUN_DATABASE}", f"{RUN_DATABASE}-wal", f"{RUN_DATABASE}-shm", RUN_FILE, RUN_LOCK):
        (folder / name).unlink(missing_ok=True)
    if also_folder and not any(folder.iterdir()):
        folder.rmdir()
