"""Which cases of a data set a run has: by their tags, and so many drawn by the run's seed."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from itertools import islice

from serve_app.errors import ConfigError
from serve_app.evaluation.cases import Case
from serve_app.evaluation.dataset import Dataset
from serve_app.evaluation.run_file import Sample


def chosen_cases(dataset: Dataset, sample: Sample, seed: int) -> Iterator[Case]:
    """In the data set's order, read as they are asked for. The draw depends on a case's id and on the seed, and not on the place
    of the case, so that a data set that grew keeps most of it.

    Raises ConfigError where there is none.
    """
    found = _tagged(dataset.cases(), sample)
    if sample.cases is not None:
        # The smallest of so many numbers; memory holds these alone.
        drawn = heapq.nsmallest(sample.cases, (_number(seed, case.id) for case in _tagged(dataset.cases(), sample)))
        last = drawn[-1] if drawn else b""
        found = (case for case in found if _number(seed, case.id) <= last)
    chosen = islice(found, sample.first)
    first = next(chosen, None)
    if first is None:
        raise ConfigError(f"No case of {dataset.path} has what the sample asks for; look at its tags.")
    yield first
    yield from chosen


def _tagged(cases: Iterable[Case], sample: Sample) -> Iterator[Case]:
    wanted, unwanted = frozenset(sample.tags), frozenset(sample.without)
    for case in cases:
        if (not wanted or wanted.intersection(case.tags)) and not unwanted.intersection(case.tags):
            yield case


def _number(seed: int, case_id: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{case_id}".encode(), digest_size=12).digest()
