"""Mirrored turns as results: what users were answered, and what every candidate would have said, side by side.

records of mirrored turns ─► live conversation ─► case, result under ``live``     ─┐
                          └► trials            ─► a result under each candidate   ─┴─► a run folder, to be graded and read
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from serve_app.domain.conversation import Page, Part, TextPart, ToolCallPart
from serve_app.domain.events import TurnFailed
from serve_app.domain.ids import TurnKey, new_id
from serve_app.domain.records import Record
from serve_app.errors import NotFound
from serve_app.evaluation.cases import Case
from serve_app.evaluation.exported_cases import CaseFilter, Redaction, case_id_of, cases_of, hashed
from serve_app.evaluation.exporting import ConversationSource
from serve_app.evaluation.personal_data import Pseudonyms
from serve_app.evaluation.results import CaseResult, CellKey, TurnResult
from serve_app.evaluation.run_meta import ConfigurationMeta, RunMeta
from serve_app.evaluation.run_store import RunStore
from serve_app.evaluation.trial_turns import turn_result
from serve_app.storage.transfer import ConversationSnapshot
from serve_app.turns.shadow_config import LIVE
from serve_app.turns.shadow_records import KIND, CandidateRecord, MirroredTurn, read_record
from serve_app.turns.trial_turn import prompt_label
from serve_app.turns.trials import TrialEnd, TrialFailure

PAGE = 1_000
BATCH = 100
_ONE_EACH = CaseFilter(each_turn=True)


class ShadowSource(ConversationSource, Protocol):
    """A store's records and conversations, the latter with their turns' logs where there are any."""

    async def scan_records(self, *, cursor: str | None = None, limit: int = 1000) -> Page[Record]: ...


class ShadowCounts(Struct, kw_only=True):
    """``gone``: turns that their users have deleted or asked anew since. ``outdated``: trials of what a candidate was before."""

    mirrored: int = 0
    written: int = 0
    gone: int = 0
    outdated: int = 0
    replaced: Counter[str] = Counter()


class ShadowRun:
    """What was mirrored, as a run folder. ``read`` first, then ``write``."""

    def __init__(
        self,
        source: ShadowSource,
        *,
        tenants: frozenset[str] = frozenset(),
        since: float = 0.0,
        redaction: Redaction | None = None,
    ) -> None:
        """Of these ``tenants`` only, where any are named, and what was mirrored ``since`` (Unix seconds)."""
        self._source = source
        self._tenants = tenants
        self._since = since
        self._redaction = redaction
        self._mirrored: list[MirroredTurn] = []
        self._candidates: dict[str, CandidateRecord] = {}
        self.counts = ShadowCounts(replaced=Counter())

    @property
    def candidates(self) -> tuple[CandidateRecord, ...]:
        """As they were when they were asked last, by name."""
        return tuple(self._candidates[name] for name in sorted(self._candidates))

    async def read(self) -> int:
        """Finds what was mirrored; returns how many turns."""
        found: list[MirroredTurn] = []
        cursor: str | None = None
        while True:
            page = await self._source.scan_records(cursor=cursor, limit=PAGE)
            for record in page.items:
                if record.kind == KIND and (not self._tenants or record.tenant_id in self._tenants):
                    try:
                        mirrored = read_record(record)
                    except msgspec.DecodeError:
                        continue
                    if mirrored.at >= self._since:
                        found.append(mirrored)
            cursor = page.next_cursor
            if cursor is None:
                break
        self._mirrored = sorted(found, key=lambda one: one.turn_id.rpartition(".")[2])  # as they were accepted
        for mirrored in self._mirrored:
            for trial in mirrored.trials:
                self._candidates[trial.candidate.name] = trial.candidate
        self.counts.mirrored = len(self._mirrored)
        return len(self._mirrored)

    async def write(
        self, folder: Path, *, name: str, version: str, simulated: bool, on_turn: Callable[[int], None] = lambda _: None
    ) -> int:
        """Makes the run folder; returns how many cases it has: without any there is none. Raises ConfigError where the folder
        cannot be used."""
        meta = RunMeta(
            run_id=new_id(),
            name=name,
            description="Live turns, and what candidates would have answered: shadow runs.",
            created_at=time.time(),
            configurations=(
                ConfigurationMeta(name=LIVE, note="What users were answered."),
                *(_configuration(candidate) for candidate in self.candidates),
            ),
            baseline=LIVE,
            kind="shadow",
            dataset="live turns",
            dataset_cases=len(self._mirrored),
            graph="running",
            simulated=simulated,
            parley_version=version,
        )
        store: RunStore | None = None
        try:
            batch: list[tuple[Case, list[CaseResult]]] = []
            done = 0
            async for found in self._results():
                done += 1
                on_turn(done)
                if found is None:
                    continue
                if store is None:
                    store = await asyncio.to_thread(RunStore.create, folder, meta)
                batch.append(found)
                if len(batch) >= BATCH:
                    await asyncio.to_thread(_save, store, batch)
                    batch.clear()
            if store is not None:
                await asyncio.to_thread(_save, store, batch)
                ended = replace(store.meta, cases=self.counts.written, ended="complete", finished_at=time.time())
                await asyncio.to_thread(store.save_meta, ended)
        finally:
            if store is not None:
                await asyncio.to_thread(store.close)
        return self.counts.written

    async def _results(self) -> AsyncIterator[tuple[Case, list[CaseResult]] | None]:
        """For each mirrored turn, oldest first, its case and results; None where there is nothing to compare any more."""
        for mirrored in self._mirrored:
            trials = [trial for trial in mirrored.trials if trial.candidate == self._candidates[trial.candidate.name]]
            self.counts.outdated += len(mirrored.trials) - len(trials)
            live = await self._snapshot(mirrored.live)
            ends = {trial.candidate.name: await self._snapshot(mirrored.trial_key(trial)) for trial in trials}
            found = None if live is None else self._compared(mirrored, live, ends)
            if found is None:
                self.counts.gone += bool(trials)
            else:
                self.counts.written += 1
            yield found

    def _compared(
        self, mirrored: MirroredTurn, live: ConversationSnapshot, trials: dict[str, ConversationSnapshot | None]
    ) -> tuple[Case, list[CaseResult]] | None:
        answered = _result(live, mirrored.live)
        tried = [
            (name, result)
            for name, snapshot in trials.items()
            if snapshot is not None and (result := _result(snapshot, snapshot.turns[0].turn.key)) is not None
        ]
        if answered is None or not tried:
            return None
        pseudonyms = None if self._redaction is None else self._redaction.of(live)
        if pseudonyms is not None:
            for _, result in tried:
                _learn(pseudonyms, result)
        wanted = case_id_of(mirrored.turn_id)
        cases = cases_of(live, _ONE_EACH, pseudonyms, chosen=wanted.__eq__)
        if not cases:
            return None
        case = cases[0]
        results = [
            CaseResult(
                key=CellKey(configuration=name, case_id=case.id),
                turns=(result if pseudonyms is None else _clean(pseudonyms, result),),
                tags=case.tags,
                finished_at=mirrored.at,
                shadowed=True,
            )
            for name, result in [(LIVE, answered), *tried]
        ]
        if pseudonyms is not None:
            self.counts.replaced.update(pseudonyms.replaced)
        return case, results

    async def _snapshot(self, key: TurnKey) -> ConversationSnapshot | None:
        try:
            return await self._source.export_conversation(key.conversation)
        except NotFound:
            return None


def _save(store: RunStore, batch: Sequence[tuple[Case, list[CaseResult]]]) -> None:
    store.add_cases(case for case, _ in batch)
    store.save_results([result for _, results in batch for result in results])


def _configuration(candidate: CandidateRecord) -> ConfigurationMeta:
    return ConfigurationMeta(
        name=candidate.name,
        prompt=candidate.prompt,
        prompt_version=candidate.prompt_version,
        model=candidate.model,
        settings=candidate.settings,
        tools="recorded",
        note="What is not said was as for users. Tools answered from the live turn's own calls.",
    )


def _result(snapshot: ConversationSnapshot, key: TurnKey) -> TurnResult | None:
    """A turn's result; None where it is not there or has not ended."""
    held = next((held for held in snapshot.turns if held.turn.key.turn_id == key.turn_id), None)
    if held is None or not held.turn.ended:
        return None
    messages = (one for one in snapshot.messages if one.message_id == key.assistant_message_id)
    kept = snapshot.conversation.session_prompt
    failure = None
    if held.turn.state != "completed":
        failure = TrialFailure(code="internal", message="Why it has not ended well is no longer known.")
        last = held.records[-1].event() if held.records else None
        if isinstance(last, TurnFailed):
            failure = TrialFailure(code=last.code, message=last.message, retryable=last.retryable)
    return turn_result(
        TrialEnd(
            turn=held.turn,
            message=next(messages, None),
            failure=failure,
            prompt="" if kept is None else prompt_label(kept.name, kept.version),
        )
    )


def _learn(pseudonyms: Pseudonyms, result: TurnResult) -> None:
    for part in result.parts:
        if isinstance(part, TextPart):
            pseudonyms.learn(part.text)
        else:
            pseudonyms.learn(part.arguments if isinstance(part, ToolCallPart) else part.result)


def _clean(pseudonyms: Pseudonyms, result: TurnResult) -> TurnResult:
    def part(one: Part) -> Part:
        if isinstance(one, TextPart):
            return replace(one, text=pseudonyms.text(one.text))
        if isinstance(one, ToolCallPart):
            return replace(one, arguments=pseudonyms.value(one.arguments))
        return replace(one, result=pseudonyms.value(one.result))

    return replace(
        result,
        # The id of a live turn has that of its conversation in it, which a client may have chosen.
        turn_id=hashed(result.turn_id),
        question=pseudonyms.text(result.question),
        answer=pseudonyms.text(result.answer),
        steps=tuple(replace(step, parts=tuple(part(one) for one in step.parts)) for step in result.steps),
        error_message=pseudonyms.text(result.error_message),
    )
