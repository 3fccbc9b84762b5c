"""Files of conversations: JSON lines, or one JSON array. What they hold is told by what is in them, not by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from serve_app.errors import ConfigError
from serve_app.transcripts.records import UnreadableRecord, read_record
from serve_app.transcripts.transcript import Transcript

MAX_FILE_BYTES = 256 * 2**20
MAX_LINE_BYTES = 8 * 2**20
MAX_TRANSCRIPTS = 200_000

_decode = msgspec.json.Decoder().decode
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_transcripts(path: Path) -> list[Transcript]:
    """All conversations of a file, in order.

    Raises ConfigError where it cannot be read or is too large, or for the first conversation that is none: the sentence names
    file and line (of an array: the element).
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"The transcripts {path} are larger than {MAX_FILE_BYTES:,} bytes; split the file.")
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"The transcripts {path} cannot be read ({error.strerror}).") from error
    content = content.removeprefix(b"\xef\xbb\xbf")
    records = _elements(path, content) if content.lstrip()[:1] == b"[" else _lines(path, content)
    if len(records) > MAX_TRANSCRIPTS:
        raise ConfigError(f"The transcripts {path} hold more than {MAX_TRANSCRIPTS:,} conversations; split the file.")
    transcripts: list[Transcript] = []
    for place, record in records:
        try:
            transcripts.append(read_record(record, f"{path.name}, {place}"))
        except UnreadableRecord as error:
            raise ConfigError(f"The transcripts {path}, {place}, cannot be used: {error}.") from None
    if not transcripts:
        raise ConfigError(f"There is no conversation in the transcripts {path}.")
    return transcripts


def _elements(path: Path, content: bytes) -> list[tuple[str, Any]]:
    try:
        records = _decode(content)
    except _UNDECODABLE as error:
        raise ConfigError(f"The transcripts {path} are no JSON: {error}.") from None
    return [(f"element {number}", record) for number, record in enumerate(records, 1)]


def _lines(path: Path, content: bytes) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    whole = _whole_object(content)
    if whole is not None:
        return [("line 1", whole)]
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        if len(line) > MAX_LINE_BYTES:
            raise ConfigError(f"The transcripts {path}, line {number}, are longer than {MAX_LINE_BYTES:,} bytes.")
        try:
            found.append((f"line {number}", _decode(line)))
        except _UNDECODABLE as error:
            raise ConfigError(f"The transcripts {path}, line {number}, are no JSON: {error}.") from None
        if len(found) > MAX_TRANSCRIPTS:
            break
    return found


def _whole_object(content: bytes) -> Any | None:
    """A file that is one object over several lines, which is one conversation."""
    first, _, rest = content.partition(b"\n")
    if not rest.strip() or first.rstrip().endswith(b"}"):
        return None
    try:
        return _decode(content)
    except _UNDECODABLE:
        return None
