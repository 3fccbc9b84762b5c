"""What is kept of mirrored turns: which live turn, and which trials of it. A ring for each tenant, so that it cannot grow.

A record's slot comes from the live turn's id. Of a few that it may take, it takes one that is free, else that of the oldest;
what was there goes, with its trials. And each time one other slot is looked at: where the live conversation has been
deleted since, its trials go too.
"""

from __future__ import annotations

import contextlib
import hashlib

import msgspec
from msgspec import Struct

from serve_app.domain.generation import ModelSettings
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.records import Record
from serve_app.errors import Conflict, NotFound
from serve_app.storage.port import Store

KIND = "shadow"
SHADOW_USER = "shadow"
"""Who owns the trials, in the live turn's tenant."""
CHOICES = 8


class CandidateRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A candidate as it was then; empty is as for users."""

    name: str
    prompt: str = ""
    prompt_version: str = ""
    model: str = ""
    settings: ModelSettings = ModelSettings()


class MirroredTrial(Struct, frozen=True, kw_only=True):
    candidate: CandidateRecord
    turn_id: str


class MirroredTurn(Struct, frozen=True, kw_only=True):
    """A live turn and the trials of it. ``at``: when they had ended, in Unix seconds."""

    tenant_id: str
    user_id: str
    turn_id: str
    at: float
    trials: tuple[MirroredTrial, ...]

    @property
    def live(self) -> TurnKey:
        return _turn_key(self.tenant_id, self.user_id, self.turn_id)

    def trial_key(self, trial: MirroredTrial) -> TurnKey:
        return _turn_key(self.tenant_id, SHADOW_USER, trial.turn_id)


def read_record(record: Record) -> MirroredTurn:
    """Raises msgspec.DecodeError for one that another version has written."""
    return msgspec.json.decode(record.body, type=MirroredTurn)


class ShadowRecords:
    """The rings of all tenants, ``keep`` slots each."""

    def __init__(self, store: Store, keep: int) -> None:
        self._store = store
        self._keep = keep

    async def save(self, mirrored: MirroredTurn) -> None:
        """Raises ParleyError where the store fails."""
        for _ in range(CHOICES):
            slot, there = await self._slot(mirrored)
            try:
                etag = "" if there is None else there.etag
                body = msgspec.json.encode(mirrored)
                await self._store.save_record(mirrored.tenant_id, KIND, slot, body, if_match=etag)
            except Conflict:
                continue  # another replica has just taken it
            if there is not None:
                await self._remove_trials(there, but=mirrored)
            break
        else:
            await self._forget(mirrored)
        await self._look_after(mirrored)

    async def _slot(self, mirrored: MirroredTurn) -> tuple[str, Record | None]:
        """Where it goes, and what is there: nothing, the same live turn's, or the oldest."""
        oldest: tuple[float, str, Record] | None = None
        for choice in range(CHOICES):
            slot = self._name(mirrored.turn_id, choice)
            there = await self._find(mirrored.tenant_id, slot)
            if there is None:
                return slot, None
            at = -1.0
            with contextlib.suppress(msgspec.DecodeError):
                known = read_record(there)
                if known.turn_id == mirrored.turn_id:
                    return slot, there
                at = known.at
            if oldest is None or at < oldest[0]:
                oldest = (at, slot, there)
        assert oldest is not None  # noqa: S101 - there is at least one choice
        return oldest[1], oldest[2]

    async def _look_after(self, mirrored: MirroredTurn) -> None:
        """Looks at one slot of the tenant's."""
        slot = self._name(mirrored.turn_id, CHOICES)
        there = await self._find(mirrored.tenant_id, slot)
        if there is None:
            return
        with contextlib.suppress(msgspec.DecodeError):
            known = read_record(there)
            try:
                await self._store.get_conversation(known.live.conversation)
            except NotFound:
                with contextlib.suppress(NotFound):
                    await self._store.delete_record(mirrored.tenant_id, KIND, slot)
                await self._forget(known)

    async def _find(self, tenant_id: str, slot: str) -> Record | None:
        try:
            return await self._store.get_record(tenant_id, KIND, slot)
        except NotFound:
            return None

    async def _remove_trials(self, record: Record, *, but: MirroredTurn) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            known = read_record(record)
            if known.turn_id != but.turn_id:
                await self._forget(known)

    async def _forget(self, mirrored: MirroredTurn) -> None:
        """What the trials consumed stays in the usage."""
        for trial in mirrored.trials:
            with contextlib.suppress(NotFound):
                await self._store.delete_conversation(mirrored.trial_key(trial).conversation)

    def _name(self, turn_id: str, choice: int) -> str:
        digest = hashlib.blake2b(f"{choice}:{turn_id}".encode(), digest_size=8).digest()
        return f"{int.from_bytes(digest) % self._keep:06d}"


def _turn_key(tenant_id: str, user_id: str, turn_id: str) -> TurnKey:
    owner = Principal(tenant_id=tenant_id, user_id=user_id)
    conversation = ConversationKey.of(owner, turn_id.rpartition(".")[0])
    return TurnKey(conversation=conversation, turn_id=turn_id)
