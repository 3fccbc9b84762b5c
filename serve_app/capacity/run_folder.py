"""The folder of a load test: its files are made, appended to and read here, each line checked and everything bounded.

Several processes write into one folder, each its own files; what one line says is a struct of ``capacity.samples`` or a
``GraphState``. A run that was broken off may leave half a line at the end of a file, and only there: it is left out. Any other
line that cannot be read makes the folder unusable, with a sentence that names file and line, because figures computed from the
rest would look as good as any.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Generic, TypeVar

import msgspec
from msgspec import Struct

from serve_app.bounded_file import bounded_content
from serve_app.capacity.samples import GENERATOR, GRAPH, PHASES, RUN, SCENARIO, SERVE_CONFIG, SESSIONS, TURNS, RunInfo
from serve_app.errors import ConfigError

T = TypeVar("T", bound=Struct)

MAX_LINES = 5_000_000
MAX_LINE_BYTES = 4_194_304
MAX_FILE_BYTES = 8_388_608
"""Of a file that is one value, as ``run.json`` is."""
LINES = (TURNS, SESSIONS, PHASES, GRAPH, GENERATOR)


def new_folder(path: Path) -> Path:
    """Makes the folder for a run. Raises ConfigError where it cannot be made, or already holds a run: two would mix."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"The report folder {path} cannot be made ({error.strerror}); name another.") from error
    if found := [name for name in (RUN, *LINES) if (path / name).exists()]:
        raise ConfigError(f"The folder {path} already holds a run ({found[0]}); name another with --report.")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"Nothing can be written into the report folder {path}; name another with --report.")
    return path


def discard(folder: Path) -> None:
    """Removes what a run that never began has put there, and the folder if nothing else is in it."""
    for name in (RUN, SCENARIO, SERVE_CONFIG, *LINES):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def read_lines(path: Path, kind: type[T], max_lines: int = MAX_LINES) -> list[T]:
    """Every line of a file of JSON lines; none where there is no file. Raises ConfigError that names file and line."""
    return list(each_line(path, kind, max_lines))


def each_line(path: Path, kind: type[T], max_lines: int = MAX_LINES) -> Iterator[T]:
    """As ``read_lines``, one at a time."""
    decoder = msgspec.json.Decoder(kind)
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if number > max_lines:
                    raise ConfigError(f"The file {path} has more than {max_lines:,} lines; a shorter run can be read.")
                if len(line) > MAX_LINE_BYTES:
                    raise ConfigError(f"{path}:{number}: the line is longer than {MAX_LINE_BYTES:,} bytes.")
                whole = line.endswith(b"\n")
                try:
                    yield decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    if not whole:
                        return  # whoever wrote it was ended in the middle
                    raise ConfigError(
                        f"{path}:{number}: {_reason(error)}; the file does not come from a run."
                    ) from None
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"The file {path} cannot be read ({error.strerror}).") from error


def read_info(folder: Path) -> RunInfo:
    """What was run. Raises ConfigError where ``folder`` holds no run."""
    path = folder / RUN
    if not path.is_file():
        raise ConfigError(f"The folder {folder} holds no run ({RUN} is missing); `parley load run` makes one.")
    return read_value(path, RunInfo)


def write_info(folder: Path, info: RunInfo) -> None:
    write_value(folder / RUN, info)


def read_value(path: Path, kind: type[T]) -> T:
    """A file that is one struct in JSON. Raises ConfigError that names it."""
    content = bounded_content(path, "file", MAX_FILE_BYTES)
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The file {path} cannot be used: {_reason(error)}.") from None


def write_value(path: Path, value: Struct) -> None:
    """Written beside and renamed, so that nobody reads half of it. Raises ConfigError where that fails."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(f"The file {path} cannot be written ({error.strerror}).") from error


def write_lines(path: Path, values: Iterable[Struct]) -> int:
    """All of them at once; returns how many."""
    count = 0
    with LineWriter[Struct](path) as writer:
        for value in values:
            writer.write(value)
            count += 1
    return count


class LineWriter(Generic[T]):
    """Appends structs as lines, each as one write: what is there can be read while it grows. A context manager."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError where the file cannot be opened."""
        self._path = path
        self._encoder = msgspec.json.Encoder()
        try:
            self._file: BinaryIO = path.open("ab", buffering=0)
        except OSError as error:
            raise ConfigError(f"The file {path} cannot be written ({error.strerror}).") from error

    def write(self, value: T) -> None:
        """Raises OSError where the disk is full."""
        line = memoryview(self._encoder.encode(value) + b"\n")
        while line:  # a raw file may take part of it
            line = line[self._file.write(line) or 0 :]

    def close(self) -> None:
        """Idempotent."""
        self._file.close()

    def __enter__(self) -> LineWriter[T]:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def _reason(error: Exception) -> str:
    """What msgspec says, as the beginning of our own sentence."""
    said = str(error).rstrip(".")
    return said[:1].lower() + said[1:] if said else "it cannot be read"
