"""Users' answers to questions about tool calls: stored first, then passed on to whoever runs the turn."""

from __future__ import annotations

import asyncio
import time

from serve_app.domain.identity import Principal
from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import Turn
from serve_app.errors import Conflict, NotFound, ParleyError
from serve_app.ingress.services import IngressServices
from serve_app.telemetry import logger
from serve_app.turns.approval_records import ApprovalRecord, ApprovalRecords, no_approval

HINT_TIMEOUT_S = 2.0

_log = logger("ingress.answers")


class Answers:
    """One per Ingress replica."""

    def __init__(self, services: IngressServices) -> None:
        self._services = services
        self._records = ApprovalRecords(services.store)

    async def answer(
        self, principal: Principal, approval_id: str, *, approved: bool, reason: str | None = None
    ) -> ApprovalRecord:
        """Stores the answer and wakes the turn; the same answer again changes nothing and is fine.

        Raises NotFound, for somebody else's question as for none; Conflict where it has been answered otherwise, has expired,
        or its turn has ended.
        """
        asked = (await self._records.get(principal, approval_id)).record
        if asked.state == "pending":
            turn = await self._turn_of(principal, asked)
            if turn.ended:
                raise Conflict("The turn has ended; nothing waits for this answer any more.")
            if turn.cancel_requested:
                raise Conflict("The turn is being stopped; nothing waits for this answer any more.")
            if time.time() >= asked.expires_at:
                raise _expired()
            asked = await self._records.decide(
                principal, approval_id, "approved" if approved else "declined", reason or None
            )
            if asked.approved == approved and asked.state != "expired":
                await self._hint(turn)
                return asked
        if asked.state == "expired":
            raise _expired()
        if asked.approved != approved:
            raise Conflict(f"This call has been {asked.state} already.")
        return asked

    async def find(self, principal: Principal, approval_id: str) -> ApprovalRecord:
        """The principal's question as it is now. Raises NotFound."""
        return (await self._records.get(principal, approval_id)).record

    async def _turn_of(self, principal: Principal, record: ApprovalRecord) -> Turn:
        try:
            return await self._services.store.get_turn(TurnKey.of(principal, record.turn_id))
        except NotFound:  # deleted with its conversation
            raise no_approval() from None

    async def _hint(self, turn: Turn) -> None:
        if turn.owner is None:
            self._services.turns.start(turn.key)
            return
        try:
            async with asyncio.timeout(HINT_TIMEOUT_S):
                await self._services.turns.hint_answer(turn.key, turn.owner)
        except (ParleyError, TimeoutError):
            # Only a hint: the owner looks for itself from time to time.
            _log.info("answer_hint_lost", turn_id=turn.key.turn_id)


def _expired() -> Conflict:
    return Conflict("Nobody answered in time, so the call was not run.")
