"""What is kept of mirrored turns: which live turn, and which trials of it. A ring for each tenant, so that it cannot grow.

A record's slot comes from the live turn's id. Of a few that it may take, it takes one that is free, else that of the oldest;
what was there goes, with its trials. And each time one other slot is looked at: where the live conversation has been
deleted since, its trials go too.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from serve_app.domain.generation import ModelSettings
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.records import Record
from serve_app.errors import Conflict, NotFound, ParleyError
from serve_app.storage.port import MAX_PAGE, Store
from serve_app.telemetry import logger

KIND = "shadow"
SHADOW_USER = "~shadow"
"""Who owns the trials, in the live turn's tenant. Nobody can be called so."""
CHOICES = 8

log = logger("turns.shadow")


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
    """A live turn and the trials of it, which may not have ended. ``at``: when it was mirrored, in Unix seconds."""

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

    async def save(self, mirrored: MirroredTurn) -> bool:
        """Whether there was a place for it. Raises ParleyError where the store fails."""
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
            await self._look_after(mirrored)
            return True
        return False

    async def keep(self, mirrored: MirroredTurn, trials: Sequence[MirroredTrial]) -> None:
        """Of a saved one only these trials, which have come to their end; none where the live conversation has gone meanwhile."""
        there = await self._own(mirrored)
        if there is None or not await self._is_there(mirrored.live.conversation):
            trials = ()  # nor where another has taken its place: what came after that would be in nobody's record
        if len(trials) == len(mirrored.trials):
            return
        await self._forget(replace(mirrored, trials=tuple(one for one in mirrored.trials if one not in trials)))
        if there is None:
            return
        with contextlib.suppress(Conflict, NotFound):
            if trials:
                body = msgspec.json.encode(replace(mirrored, trials=tuple(trials)))
                await self._store.save_record(mirrored.tenant_id, KIND, there.record_id, body, if_match=there.etag)
            else:
                await self._store.delete_record(mirrored.tenant_id, KIND, there.record_id)

    async def _own(self, mirrored: MirroredTurn) -> Record | None:
        for choice in range(CHOICES):
            there = await self._find(mirrored.tenant_id, self._name(mirrored.turn_id, choice))
            if there is not None and _turn_of(there) == mirrored.turn_id:
                return there
        return None

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
            if not await self._is_there(known.live.conversation):
                await remove(self._store, known, slot)

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
        await _delete_trials(self._store, mirrored)

    async def _is_there(self, key: ConversationKey) -> bool:
        try:
            await self._store.get_conversation(key)
        except NotFound:
            return False
        return True

    def _name(self, turn_id: str, choice: int) -> str:
        digest = hashlib.blake2b(f"{choice}:{turn_id}".encode(), digest_size=8).digest()
        return f"{int.from_bytes(digest) % self._keep:06d}"


async def forget_conversation(store: Store, key: ConversationKey) -> None:
    """Takes out what was mirrored of a conversation that its user has deleted. Never raises: what is left then is found as the
    ring is looked through."""
    await _forget_where(store, key, lambda mirrored: mirrored.live.conversation == key)


async def forget_user(store: Store, principal: Principal) -> None:
    """The same for all conversations of a user."""
    key = ConversationKey(tenant_id=principal.tenant_id, user_id=principal.user_id, conversation_id="")
    await _forget_where(store, key, lambda mirrored: mirrored.user_id == key.user_id)


async def _forget_where(store: Store, key: ConversationKey, wanted: Callable[[MirroredTurn], bool]) -> None:
    cursor: str | None = None
    try:
        while True:
            page = await store.list_records(key.tenant_id, KIND, cursor=cursor, limit=MAX_PAGE)
            for record in page.items:
                with contextlib.suppress(msgspec.DecodeError):
                    mirrored = read_record(record)
                    if wanted(mirrored):
                        await remove(store, mirrored, record.record_id)
            cursor = page.next_cursor
            if cursor is None:
                return
    except ParleyError as error:
        log.warning("shadow_not_forgotten", error=error.message)


async def remove(store: Store, mirrored: MirroredTurn, slot: str) -> None:
    """The trials first: as long as the record is there, they are found."""
    await _delete_trials(store, mirrored)
    with contextlib.suppress(NotFound):
        await store.delete_record(mirrored.tenant_id, KIND, slot)


async def _delete_trials(store: Store, mirrored: MirroredTurn) -> None:
    """What they consumed stays in the usage."""
    for trial in mirrored.trials:
        with contextlib.suppress(NotFound):
            await store.delete_conversation(mirrored.trial_key(trial).conversation)


def _turn_of(record: Record) -> str:
    try:
        return read_record(record).turn_id
    except msgspec.DecodeError:
        return ""


def _turn_key(tenant_id: str, user_id: str, turn_id: str) -> TurnKey:
    owner = Principal(tenant_id=tenant_id, user_id=user_id)
    conversation = ConversationKey.of(owner, turn_id.rpartition(".")[0])
    return TurnKey(conversation=conversation, turn_id=turn_id)
