"""Questions to users about tool calls, and their answers, as the store keeps them.

    pending ─► approved | declined | expired        one save under the etag decides; nothing changes a decision

A record is there before anybody is shown its question, and has the decision before anybody is told that it counts. It holds
no arguments: those are in the turn's log, and go with the conversation. Old records are removed when new ones are made.
"""

from __future__ import annotations

import re
import time
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from serve_app.domain.identity import Principal
from serve_app.domain.ids import TurnKey, new_id
from serve_app.errors import Conflict, NotFound, Overloaded, ParleyError
from serve_app.storage.port import RecordStore
from serve_app.telemetry import logger

KIND = "approval"
KEPT_S = 86_400.0
"""How long a record is kept after its question has expired."""
PRUNED_AT_ONCE = 20
MAX_TRIES = 5

ApprovalState = Literal["pending", "approved", "declined", "expired"]

_ID = re.compile(r"apr_[0-9A-HJKMNP-TV-Z]{26}")
_ENCODE = msgspec.json.Encoder().encode
_log = logger("turns.approvals")


class ApprovalRecord(Struct, frozen=True, kw_only=True):
    """Instants are in Unix seconds. ``reason`` is the user's, of a decision."""

    approval_id: str
    user_id: str
    turn_id: str
    tool_call_id: str
    asked_at: float
    expires_at: float
    state: ApprovalState = "pending"
    answered_at: float | None = None
    reason: str | None = None

    @property
    def approved(self) -> bool:
        return self.state == "approved"


class Asked(Struct, frozen=True):
    """A record as it was read; ``etag`` is for the save that decides it."""

    record: ApprovalRecord
    etag: str


_DECODE = msgspec.json.Decoder(ApprovalRecord).decode


class ApprovalRecords:
    """The records of all tenants. Raises what the store raises."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store

    async def ask(self, principal: Principal, key: TurnKey, tool_call_id: str, timeout_s: float) -> ApprovalRecord:
        """Writes a new question."""
        now = time.time()
        record = ApprovalRecord(
            approval_id=new_id("apr_"),
            user_id=principal.user_id,
            turn_id=key.turn_id,
            tool_call_id=tool_call_id,
            asked_at=now,
            expires_at=now + timeout_s,
        )
        await self._store.save_record(principal.tenant_id, KIND, record.approval_id, _ENCODE(record))
        return record

    async def get(self, principal: Principal, approval_id: str) -> Asked:
        """The principal's own record. Raises NotFound, for somebody else's as for none."""
        if not _ID.fullmatch(approval_id):
            raise no_approval()
        try:
            found = await self._store.get_record(principal.tenant_id, KIND, approval_id)
        except NotFound:
            raise no_approval() from None
        record = _DECODE(found.body)
        if record.user_id != principal.user_id:
            raise no_approval()
        return Asked(record, found.etag)

    async def decide(
        self, principal: Principal, approval_id: str, state: ApprovalState, reason: str | None = None
    ) -> ApprovalRecord:
        """Decides a pending record and returns it; one that is decided already is returned as it is.

        Raises NotFound.
        """
        for _ in range(MAX_TRIES):
            asked = await self.get(principal, approval_id)
            if asked.record.state != "pending":
                return asked.record
            decided = replace(asked.record, state=state, answered_at=time.time(), reason=reason)
            try:
                await self._store.save_record(
                    principal.tenant_id, KIND, approval_id, _ENCODE(decided), if_match=asked.etag
                )
            except Conflict:
                continue  # somebody decided meanwhile, once and for all: the next reading says how
            return decided
        raise Overloaded("The approval could not be written; try again.", None, 1.0)

    async def prune(self, tenant_id: str) -> None:
        """Removes some of the tenant's oldest records that nobody needs any more. Never raises for the store."""
        try:
            page = await self._store.list_records(tenant_id, KIND, limit=PRUNED_AT_ONCE)  # ids sort by time of making
            for found in page.items:
                if _DECODE(found.body).expires_at + KEPT_S < time.time():
                    await self._store.delete_record(tenant_id, KIND, found.record_id)
        except ParleyError as error:
            _log.info("approvals_not_pruned", error=error.message)


def no_approval() -> NotFound:
    return NotFound("There is no such approval.")
