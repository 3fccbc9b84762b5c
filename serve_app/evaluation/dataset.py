"""A data set: a file of cases, looked through once, and then read as often as it is needed, one case at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from serve_app.errors import ConfigError
from serve_app.evaluation.case_files import read_records
from serve_app.evaluation.case_record import UnreadableCase, case_content, read_case
from serve_app.evaluation.cases import Case

MAX_CASES = 1_000_000
MAX_DIFFERENT_TAGS = 1_000
MAX_PROBLEMS = 20


class Dataset:
    """The cases of one file. Made by ``open_dataset``; as often as wanted, and from several threads, it can be read."""

    def __init__(
        self, path: Path, fingerprint: str, count: int, tags: Mapping[str, int], stamp: tuple[int, int]
    ) -> None:
        self._path, self._fingerprint, self._count, self._tags, self._stamp = path, fingerprint, count, tags, stamp

    @property
    def path(self) -> Path:
        return self._path

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the cases say, in order: the same for the same cases as JSON lines and as Parquet."""
        return self._fingerprint

    @property
    def count(self) -> int:
        """How many cases there are; at least one."""
        return self._count

    @property
    def tags(self) -> Mapping[str, int]:
        """How many cases have each tag, by name."""
        return self._tags

    def cases(self) -> Iterator[Case]:
        """All cases in order, read as they are asked for. Raises ConfigError where the file has changed since it was opened."""
        if _stamp(self._path) != self._stamp:
            raise self._changed()
        for record in read_records(self._path):
            try:
                if record.problem:
                    raise self._changed()
                yield read_case(record.value, f"{self._path.name}, {record.place}")
            except UnreadableCase:
                raise self._changed() from None

    def _changed(self) -> ConfigError:
        return ConfigError(
            f"The data set {self._path} was changed while it was in use; start again with it as it is now."
        )


def open_dataset(path: Path) -> Dataset:
    """Looks through a file of cases (JSON lines or Parquet).

    Raises ConfigError where it cannot be read, has no cases or too many, or where something is wrong with some: a line for
    each of the first 20, with its place in the file.
    """
    stamp = _stamp(path)
    digest, tags = hashlib.sha256(), Counter[str]()
    places: dict[bytes, str] = {}
    problems: list[str] = []
    count = unreadable = 0
    for record in read_records(path):
        problem = record.problem
        unreadable += bool(problem)
        if not problem:
            try:
                case = read_case(record.value, "")
            except UnreadableCase as error:
                problem = str(error)
            else:
                # Ids may be long and cases many: what is kept of an id is enough to know it again.
                key = hashlib.blake2b(case.id.encode(), digest_size=12).digest()
                if key in places:
                    problem = f"the id {case.id[:80]!r} is in {places[key]} already"
                places.setdefault(key, record.place)
                digest.update(case_content(case) + b"\n")
                tags.update(set(case.tags))
                count += 1
        if problem:
            problems.append(f"{record.place}: {problem}.")
            if len(problems) == MAX_PROBLEMS:
                break
        if count > MAX_CASES:
            raise ConfigError(f"The data set {path} has more than {MAX_CASES:,} cases; split it.")
        if len(tags) > MAX_DIFFERENT_TAGS:
            raise ConfigError(
                f"The data set {path} has more than {MAX_DIFFERENT_TAGS:,} different tags; what is different for every case "
                "belongs in its metadata."
            )
    if 1 < unreadable == len(problems) and not count:
        raise ConfigError(
            f"The data set {path} is neither JSON lines, a case on each, nor Parquet: not one of its first lines is JSON"
            f" ({problems[0].rstrip('.')}). (Of a run file it is the file that `dataset:` names.)"
        )
    if len(problems) == MAX_PROBLEMS:
        problems.append(f"(It was read no further than these {MAX_PROBLEMS}.)")
    if problems:
        raise ConfigError(f"The data set {path} cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems))
    if not count:
        raise ConfigError(f"There is no case in the data set {path}.")
    return Dataset(path, digest.hexdigest(), count, dict(sorted(tags.items())), stamp)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"The data set {path} cannot be read ({error.strerror}).") from error
    return found.st_size, found.st_mtime_ns
