"""How other processes of this machine find the graph that ``parley serve`` runs: a file in its data folder, for its owner only.

It holds Ray's address and what Ray must be told to be let in, and goes when the graph ends. One that was left behind by a graph
that was killed names a process that is gone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

FILE = "graph.json"
_TOLD = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_USAGE_STATS_ENABLED")
_OF_SERVE = "RAY_SERVE_"
CLOCK_S = 30.0
"""How far the times may be apart at which the same process began: they move with the machine's clock, whenever that is set."""


class Attachment(Struct, frozen=True, kw_only=True):
    """``environment`` is what a process must have before it imports Ray. ``pid`` is the driver's."""

    address: str
    application: str = ""
    environment: dict[str, str] = {}
    pid: int = 0
    started: float = 0.0


def told(environment: Mapping[str, str]) -> dict[str, str]:
    """Of the graph's own variables those that whoever attaches needs as well."""
    return {name: value for name, value in environment.items() if name in _TOLD or name.startswith(_OF_SERVE)}


def leave_attachment(folder: Path, address: str, application: str, environment: Mapping[str, str]) -> Path:
    """Writes the file for this process."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    found = Attachment(
        address=address,
        application=application,
        environment=told(environment),
        pid=os.getpid(),
        started=psutil.Process().create_time(),
    )
    new = folder / f".{FILE}.{os.getpid()}"
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(found))
    new.replace(path)
    return path


def read_attachment(folder: Path) -> Attachment | None:
    """What the graph over the folder has left; None where none runs."""
    try:
        found = msgspec.json.decode((folder / FILE).read_bytes(), type=Attachment)
        if abs(psutil.Process(found.pid).create_time() - found.started) > CLOCK_S:
            return None
    except (OSError, msgspec.MsgspecError, psutil.Error, ValueError):
        return None
    return found


def remove_attachment(folder: Path) -> None:
    """Takes this process's file away."""
    found = read_attachment(folder)
    if found is not None and found.pid == os.getpid():
        (folder / FILE).unlink(missing_ok=True)
