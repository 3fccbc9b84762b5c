"""The files of a run: lines that this process or its workers have written, appended in batches once a second."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from serve_app.capacity.samples import (
    GENERATOR,
    PHASES,
    SESSIONS,
    TURNS,
    GeneratorSample,
    Phase,
    SessionSample,
    TurnSample,
)
from serve_app.errors import ConfigError

Sample = TurnSample | SessionSample | GeneratorSample | Phase

FILE_OF: dict[type[Sample], str] = {
    TurnSample: TURNS, SessionSample: SESSIONS, GeneratorSample: GENERATOR, Phase: PHASES,
}  # fmt: skip
MAX_PENDING = 100_000
"""Lines that wait for their file, or for the master, at most."""

_encode = msgspec.json.Encoder().encode


class Lines:
    """Encoded samples by file, until somebody fetches them."""

    def __init__(self) -> None:
        self._pending: dict[str, list[bytes]] = {name: [] for name in FILE_OF.values()}
        self.dropped = 0
        """Samples beyond the bound, which are nowhere."""

    def add(self, sample: Sample) -> None:
        self.add_encoded(FILE_OF[type(sample)], (_encode(sample),))

    def add_encoded(self, name: str, lines: Iterable[bytes]) -> None:
        pending = self._pending[name]
        pending += lines
        if (over := len(pending) - MAX_PENDING) > 0:
            self.dropped += over
            del pending[MAX_PENDING:]

    def fetch(self) -> dict[str, list[bytes]]:
        """Takes everything out."""
        taken = {name: lines for name, lines in self._pending.items() if lines}
        for name in taken:
            self._pending[name] = []
        return taken


class RunFiles:
    """Writes lines into a folder, which is made if it is not there; ``folder`` None writes nothing.

    Raises ConfigError where the folder cannot be made or written.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in FILE_OF.values():
                (folder / name).touch()
        except OSError as error:
            raise ConfigError(f"Nothing can be written into the report folder {folder} ({error.strerror}).") from error

    def write(self, lines: dict[str, list[bytes]]) -> None:
        """Each file's lines in one go. Raises OSError."""
        if self._folder is None:
            return
        for name, encoded in lines.items():
            with (self._folder / name).open("ab") as file:
                file.write(b"\n".join(encoded) + b"\n")
