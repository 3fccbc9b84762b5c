"""Exporting: a store's conversations as cases, streamed, all of them or a sample. In memory are one conversation, and of a
sample of so many cases the places of those chosen.

    share    each case by itself, by a hash of its id: the same cases whatever else is there, and in every export
    count    two passes: the first keeps the places of the cases with the smallest hashes, the second reads those again
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from msgspec import Struct

from serve_app.domain.conversation import Page
from serve_app.domain.ids import ConversationKey
from serve_app.errors import ConfigError, NotFound, Overloaded, UpstreamFailed
from serve_app.evaluation.case_files import MAX_LINE_BYTES
from serve_app.evaluation.case_record import MAX_MESSAGES, encode_case
from serve_app.evaluation.cases import Case
from serve_app.evaluation.exported_cases import CaseFilter, Redaction, cases_of
from serve_app.patience import patiently
from serve_app.storage.transfer import ConversationSnapshot

PAGE = 100
PATIENCE_S = 60.0
MAX_SAMPLE = 1_000_000
_HASH_RANGE = 2**64

OnConversation = Callable[[int], None]
"""Told how many conversations have been read so far."""


class ConversationSource(Protocol):
    """Where conversations come from; see ``storage.transfer``."""

    async def scan_conversations(self, *, cursor: str | None = None, limit: int = 100) -> Page[ConversationKey]: ...

    async def export_conversation(self, key: ConversationKey) -> ConversationSnapshot: ...


class Sample(Struct, frozen=True):
    """``count`` cases, or a ``share`` of them (0 to 1)."""

    count: int | None = None
    share: float | None = None


def parse_sample(text: str) -> Sample:
    """``200`` or ``5%``. Raises ConfigError."""
    match = re.fullmatch(r"([0-9]{1,7})|([0-9]{1,3}(?:\.[0-9]{1,4})?) ?%", text.strip())
    if match is not None and match[1] and 0 < int(match[1]) <= MAX_SAMPLE:
        return Sample(count=int(match[1]))
    if match is not None and match[2] and 0 < float(match[2]) <= 100:
        return Sample(share=float(match[2]) / 100)
    raise ConfigError(f"--sample {text}: name how many cases (200, at most {MAX_SAMPLE:,}), or a share of them (5%).")


class ExportCounts(Struct, kw_only=True):
    """What an export has come across. ``too_large`` cases were left out; ``replaced`` counts places of personal data by kind."""

    conversations: int = 0
    matching: int = 0
    cases: int = 0
    too_large: int = 0
    replaced: Counter[str] = Counter()


class Export:
    """One export. ``cases`` once; ``counts`` is up to date meanwhile."""

    def __init__(
        self,
        source: ConversationSource,
        wanted: CaseFilter,
        *,
        sample: Sample | None = None,
        seed: int = 0,
        redaction: Redaction | None = None,
    ) -> None:
        self._source = source
        self._wanted = wanted
        self._sample = sample or Sample()
        self._seed = str(seed).encode()
        self._redaction = redaction
        self.counts = ExportCounts(replaced=Counter())

    async def cases(self, on_conversation: OnConversation = lambda _: None) -> AsyncIterator[Case]:
        """The cases in the order of the store's conversations. Raises ParleyError where the store fails for a minute."""
        if self._sample.count is None:
            async for key in self._scan(on_conversation):
                for case in await self._cases_of(key, self._redaction, self._in_share):
                    if self._fits(case):
                        yield case
            return
        for key, chosen in await self._choose(self._sample.count, on_conversation):
            for case in await self._cases_of(key, self._redaction, chosen.__contains__):
                if self._fits(case):
                    yield case

    def _in_share(self, case_id: str) -> bool:
        self.counts.matching += 1
        return self._sample.share is None or self._hash(case_id) < self._sample.share * _HASH_RANGE

    def _fits(self, case: Case) -> bool:
        """Whether a data set can hold it."""
        if len(case.messages) > MAX_MESSAGES or len(encode_case(case)) > MAX_LINE_BYTES:
            self.counts.too_large += 1
            return False
        self.counts.cases += 1
        return True

    async def _choose(self, count: int, on_conversation: OnConversation) -> list[tuple[ConversationKey, set[str]]]:
        """Conversations in their order, each with the ids of its cases that are in the sample."""
        best: list[tuple[int, int, str]] = []  # the worst on top: its hash turned round, the conversation, the case
        keys: dict[int, ConversationKey] = {}  # of all that were ever among the best: count x (1 + ln(cases / count))
        number = 0
        async for key in self._scan(on_conversation):
            number += 1
            for case in await self._cases_of(key, None):
                self.counts.matching += 1
                entry = (-self._hash(case.id), number, case.id)
                if len(best) < count:
                    heapq.heappush(best, entry)
                elif entry > best[0]:
                    heapq.heapreplace(best, entry)
                else:
                    continue
                keys[number] = key
        chosen: dict[int, set[str]] = {}
        for _, place, case_id in best:
            chosen.setdefault(place, set()).add(case_id)
        return [(keys[place], chosen[place]) for place in sorted(chosen)]

    async def _scan(self, on_conversation: OnConversation) -> AsyncIterator[ConversationKey]:
        cursor: str | None = None
        while True:
            after = cursor
            page = await patiently(
                lambda: self._source.scan_conversations(cursor=after, limit=PAGE),  # noqa: B023 - called at once
                for_s=PATIENCE_S,
                on=(Overloaded, UpstreamFailed),
            )
            for key in page.items:
                if key.listed and (not self._wanted.tenants or key.tenant_id in self._wanted.tenants):
                    yield key
                self.counts.conversations += 1
                on_conversation(self.counts.conversations)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _cases_of(
        self, key: ConversationKey, redaction: Redaction | None, chosen: Callable[[str], bool] = lambda _: True
    ) -> list[Case]:
        """Its cases; none where it has been deleted since."""
        try:
            snapshot = await patiently(
                lambda: self._source.export_conversation(key), for_s=PATIENCE_S, on=(Overloaded, UpstreamFailed)
            )
        except NotFound:
            return []
        pseudonyms = None if redaction is None else redaction.of(snapshot)
        found = cases_of(snapshot, self._wanted, pseudonyms, chosen=chosen)
        if pseudonyms is not None:
            self.counts.replaced.update(pseudonyms.replaced)
        return found

    def _hash(self, case_id: str) -> int:
        return int.from_bytes(hashlib.blake2b(case_id.encode(), digest_size=8, key=self._seed[:64]).digest())
