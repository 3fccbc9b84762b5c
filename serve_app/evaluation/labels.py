"""What people say of answers: read from JSON lines or CSV, kept with the run, and held against what graders say (``agreement``).

    case_id,configuration,grader,label,rater,note            {"case_id": "crm-001", "configuration": "v1", "label": "pass"}
    crm-001,v1,helpful,pass,ann,                             {"case_id": "crm-001", "score": 0.75, "grader": "helpful/tone"}

``label`` is pass or fail (yes/no, true/false, up/down, 1/0 will do), ``score`` a number from 0 to 1; one of them is needed. With
no ``grader`` a label is of the answer as a whole; ``grader/criterion`` is of one criterion of a judge. ``configuration`` may be
left out where the run has but one, ``repeat`` where it is 0.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from serve_app.errors import ConfigError

MAX_LABELS = 200_000
MAX_FILE_BYTES = 256 * 2**20
MAX_PROBLEMS = 20
_MAX_ID_CHARS = 500
_PASSED: dict[str, bool] = {
    **dict.fromkeys(("pass", "passed", "yes", "true", "up", "good", "correct", "1", "1.0"), True),
    **dict.fromkeys(("fail", "failed", "no", "false", "down", "bad", "wrong", "0", "0.0"), False),
}
_FIELDS = frozenset(
    {"case_id", "configuration", "grader", "criterion", "repeat", "label", "passed", "score", "rater", "note"}
)


class Label(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One person's word on one answer. ``grader`` empty: on the answer as a whole. ``score`` is from 0 to 1."""

    case_id: str
    configuration: str
    repeat: int = 0
    grader: str = ""
    passed: bool | None = None
    score: float | None = None
    rater: str = ""
    note: str = ""

    @property
    def about(self) -> tuple[str, str, int, str]:
        """What it is on, whoever says it."""
        return self.case_id, self.configuration, self.repeat, self.grader


def read_labels(path: Path, configurations: Sequence[str]) -> list[Label]:
    """The labels of a file (``.csv``, else JSON lines) for a run that has these configurations.

    Raises ConfigError that names file and lines, of the first problems at least.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"The labels {path} are larger than {MAX_FILE_BYTES:,} bytes; split the file.")
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"The labels {path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError:
        raise ConfigError(f"The labels {path} are no text in UTF-8.") from None
    found: list[Label] = []
    problems: list[str] = []
    for line, record in _csv(content) if path.suffix.lower() == ".csv" else _json_lines(content):
        try:
            found.append(_label(record, configurations))
        except ValueError as error:
            problems.append(f"line {line}: {error}")
        if len(problems) == MAX_PROBLEMS or len(found) > MAX_LABELS:
            break
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"The labels {path} cannot be used:\n{listed}")
    if len(found) > MAX_LABELS:
        raise ConfigError(f"The labels {path} are more than {MAX_LABELS:,}; split the file.")
    if not found:
        raise ConfigError(f"There are no labels in {path}.")
    return found


def merged(earlier: Iterable[Label], later: Iterable[Label]) -> list[Label]:
    """Both; who has said something else of the same later, has changed their mind."""
    return list({(label.about, label.rater): label for label in (*earlier, *later)}.values())


def write_labels(path: Path, labels: Iterable[Label]) -> None:
    """As JSON lines, in the place of what was there."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("wb") as file:
        for label in labels:
            file.write(msgspec.json.encode(label) + b"\n")
    beside.replace(path)


def _csv(content: str) -> Iterator[tuple[int, Any]]:
    # Spreadsheets write semicolons, or tabs, where a comma is the decimal sign.
    heading = content.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=max(",;\t", key=heading.count))
    try:
        for row in reader:
            # A cell that is empty says nothing; one beyond the header has no name.
            yield reader.line_num, {("" if name is None else name): cell for name, cell in row.items() if cell}
    except csv.Error as error:
        yield reader.line_num, f"it is no CSV ({error})"


def _json_lines(content: str) -> Iterator[tuple[int, Any]]:
    decode = msgspec.json.Decoder().decode
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            try:
                yield number, decode(line)
            except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
                yield number, f"it is no JSON ({error})"


def _label(record: Any, configurations: Sequence[str]) -> Label:
    """Raises ValueError with what is wrong."""
    if isinstance(record, str):
        raise ValueError(record)
    if not isinstance(record, Mapping):
        raise ValueError("it is no object with case_id and label or score")
    if "" in record:
        raise ValueError("it has more cells than there are names in the first line")
    if unknown := sorted(str(name) for name in record.keys() - _FIELDS):
        raise ValueError(f"'{unknown[0]}' is no field of a label; there are {', '.join(sorted(_FIELDS))}")
    grader = _text(record, "grader")
    if criterion := _text(record, "criterion"):
        grader = f"{grader}/{criterion}"
    configuration = _text(record, "configuration") or (configurations[0] if len(configurations) == 1 else "")
    if configuration not in configurations:
        known = ", ".join(configurations)
        said = f"there is no configuration '{configuration}'" if configuration else "it names no configuration"
        raise ValueError(f"{said}; the run has {known}")
    passed, score = _passed(record), _score(record)
    if passed is None and score is None:
        raise ValueError("it has neither label (pass or fail) nor score (0 to 1)")
    case_id = _text(record, "case_id")
    if not case_id:
        raise ValueError("it has no case_id")
    return Label(
        case_id=case_id,
        configuration=configuration,
        repeat=_repeat(record),
        grader=grader,
        passed=passed,
        score=score,
        rater=_text(record, "rater"),
        note=_text(record, "note", 20_000),
    )


def _text(record: Mapping[str, Any], name: str, limit: int = _MAX_ID_CHARS) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int) or len(str(value)) > limit:
        raise ValueError(f"its {name} is no text of at most {limit:,} characters")
    return str(value).strip()


def _passed(record: Mapping[str, Any]) -> bool | None:
    given = record.get("label", record.get("passed"))
    if given is None:
        return None
    passed = _PASSED.get(str(given).strip().lower())
    if passed is None:
        raise ValueError(f"its label is {str(given)[:40]!r}; write pass or fail, or a score from 0 to 1 as score")
    return passed


def _score(record: Mapping[str, Any]) -> float | None:
    given = record.get("score")
    if given is None:
        return None
    try:
        score = float("nan") if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        score = float("nan")
    if not 0.0 <= score <= 1.0:
        raise ValueError(
            f"its score is {str(given)[:40]!r} and must be a number from 0 to 1 (a 4 on a scale from 1 to 5 is 0.75)"
        )
    return score


def _repeat(record: Mapping[str, Any]) -> int:
    given = record.get("repeat")
    if given is None:
        return 0
    if isinstance(given, bool) or not str(given).isascii() or not str(given).isdigit():
        raise ValueError("its repeat is no number from 0")
    return int(given)
