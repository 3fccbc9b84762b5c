"""The two kinds of files that hold cases: JSON lines, and Parquet. Read one record at a time, whatever their size.

A Parquet file has the columns ``id``, ``messages``, ``expected``, ``tags``, ``tenant``, ``role`` and ``metadata``, of which only
the first two must be there. ``messages``, ``expected`` and ``metadata`` are JSON texts, because the arguments and results of
tool calls have no schema in common; native lists and structs are read as well (a null field of a struct is one that is not
there). Which kind a file is shows in its first bytes.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from serve_app.errors import ConfigError
from serve_app.evaluation.case_record import encode_case
from serve_app.evaluation.cases import Case

MAX_LINE_BYTES = 8 * 2**20
PARQUET_SUFFIXES = (".parquet", ".pq")

_PARQUET_MAGIC = b"PAR1"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BATCH_ROWS = 128
_ROW_GROUP_ROWS = 1_000
_INDEX = re.compile(r"__index_level_\d+__")
"""What pandas writes beside the columns."""
_JSON_COLUMNS = ("messages", "expected", "metadata")
_PARQUET_MISSING = "Parquet needs pyarrow, which is not installed; pip install pyarrow, or use JSON lines."

_decode = msgspec.json.Decoder().decode


class Record(Struct, frozen=True):
    """One record and its place in the file (``line 3``, ``row 3``). ``problem`` is why it could not be read; else empty."""

    place: str
    value: Any = None
    problem: str = ""


def read_records(path: Path) -> Iterator[Record]:
    """All records in order. Raises ConfigError where the file cannot be read at all."""
    try:
        with path.open("rb") as file:
            kind = _parquet_records if file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC else _line_records
        yield from kind(path)
    except OSError as error:
        raise ConfigError(f"The data set {path} cannot be read ({error.strerror or error}).") from error


def write_cases(path: Path, cases: Iterable[Case]) -> int:
    """Writes a data set, as Parquet where the name ends so; says how many cases it has.

    The file appears when it is complete, in place of one that was there, and is its owner's alone to read: conversations are
    private. Raises ConfigError where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    except OSError as error:
        raise ConfigError(f"The data set {path} cannot be written ({error.strerror}).") from error
    try:
        written = (_write_parquet if path.suffix in PARQUET_SUFFIXES else _write_lines)(Path(temporary), cases)
        Path(temporary).replace(path)
    except OSError as error:
        raise ConfigError(f"The data set {path} cannot be written ({error.strerror}).") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
    return written


# -- JSON lines --------------------------------------------------------------------------------------------------------------


def _line_records(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            place = f"line {number}"
            if len(line) > MAX_LINE_BYTES:
                yield Record(place, problem=f"it is longer than {MAX_LINE_BYTES:,} bytes")
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES)
                continue
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if not line.strip():
                continue
            try:
                yield Record(place, _decode(line))
            except UnicodeDecodeError:
                yield Record(place, problem="it is no text in UTF-8")
            except (msgspec.DecodeError, RecursionError) as error:
                yield Record(place, problem=f"it is no JSON: {error}")


def _write_lines(path: Path, cases: Iterable[Case]) -> int:
    written = 0
    with path.open("wb") as file:
        for case in cases:
            file.write(encode_case(case) + b"\n")
            written += 1
    return written


# -- Parquet -----------------------------------------------------------------------------------------------------------------


def _parquet_records(path: Path) -> Iterator[Record]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(_PARQUET_MISSING) from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield _row(f"row {number}", row)
    except arrow.ArrowException as error:
        said = str(error).splitlines()[0][:200]
        raise ConfigError(f"The data set {path} cannot be read as Parquet, after row {number}: {said}") from None


def _row(place: str, row: dict[str, Any]) -> Record:
    found = {
        name: _without_nulls(value) for name, value in row.items() if value is not None and not _INDEX.fullmatch(name)
    }
    for name in _JSON_COLUMNS:
        if isinstance(found.get(name), str):
            try:
                found[name] = _decode(found[name])
            except (msgspec.DecodeError, RecursionError) as error:
                return Record(place, problem=f"{name} is no JSON: {error}")
    return Record(place, found)


def _without_nulls(value: Any) -> Any:
    """A struct column has every field in every row: what was not given is null there."""
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _write_parquet(path: Path, cases: Iterable[Case]) -> int:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(_PARQUET_MISSING) from None
    text = arrow.string()
    schema = arrow.schema(
        [("id", text), ("messages", text), ("expected", text), ("tags", arrow.list_(text)), ("tenant", text),
         ("role", text), ("metadata", text)]
    )  # fmt: skip
    written = 0
    rows: list[dict[str, Any]] = []
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:

        def flush() -> None:
            if rows:
                writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
                rows.clear()

        for case in cases:
            plain = _decode(encode_case(case))
            rows.append({name: _column(name, plain.get(name)) for name in schema.names})
            written += 1
            if len(rows) == _ROW_GROUP_ROWS:
                flush()
        flush()
    return written


def _column(name: str, value: Any) -> Any:
    return msgspec.json.encode(value).decode() if name in _JSON_COLUMNS and value is not None else value
