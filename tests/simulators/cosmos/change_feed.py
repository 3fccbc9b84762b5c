"""The latest-version change feed of one physical range: what was written since a point, each document once, deletes not at all.

After "Change feed in Azure Cosmos DB": A-IM: Incremental feed, If-None-Match with the last etag (`*`: from now on), 304 where
nothing is new. Documents of one transaction are never torn apart by a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from tests.simulators.cosmos.partitions import Document, PhysicalRange
from tests.simulators.cosmos.refusals import bad_request


@dataclass(frozen=True, slots=True)
class FeedPage:
    """`etag` is where to go on from; without documents the answer is a 304."""

    documents: list[Document]
    etag: str


def read(
    held: PhysicalRange,
    *,
    wanted: Callable[[str], bool],
    since: str | None,
    start: str | None,
    size: int,
    now: float,
) -> FeedPage:
    """`wanted` says by its partition's key whether a document belongs; `since` is If-None-Match, `start` If-Modified-Since."""
    lsn = 0 if since is None else held.lsn if since == "*" else _lsn(since)
    after_ts = _timestamp(start)
    changed = [document for document in _newer(held, lsn, wanted, now) if after_ts is None or document.ts > after_ts]
    changed.reverse()  # oldest change first
    page: list[Document] = []
    for document in changed:
        if len(page) >= size and document.lsn != page[-1].lsn:
            return FeedPage(page, f'"{page[-1].lsn}"')
        page.append(document)
    return FeedPage(page, f'"{max(lsn, held.lsn)}"')


def _newer(held: PhysicalRange, lsn: int, wanted: Callable[[str], bool], now: float) -> Iterator[Document]:
    for (key, _), document in reversed(held.changed.items()):
        if document.lsn <= lsn:
            return
        if wanted(key) and (document.expires_at is None or document.expires_at > now):
            yield document


def _lsn(etag: str) -> int:
    try:
        return int(etag.strip('"'))
    except ValueError:
        raise bad_request(f"The change feed continuation '{etag}' is not one that this service gave.") from None


def _timestamp(start: str | None) -> float | None:
    if start is None:
        return None
    try:
        return parsedate_to_datetime(start).timestamp()
    except ValueError:
        raise bad_request(f"If-Modified-Since '{start}' is not a date.") from None
