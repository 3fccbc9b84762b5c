"""The questions of one turn, as its owner asks them and waits for their answers.

The owner hears of an answer by a hint, and looks at the record from time to time for want of one. An owner that takes over
finds the questions in the checkpoint and waits on: nobody is asked twice.
"""

from __future__ import annotations

import asyncio
import time

from serve_app.domain.tools import ToolCall
from serve_app.domain.turns import HeldCall, Turn
from serve_app.errors import NotFound, ParleyError
from serve_app.patience import patiently
from serve_app.telemetry import Metrics, logger
from serve_app.turns.approval_records import ApprovalRecord, ApprovalRecords
from serve_app.turns.log import TurnLog

FIRST_LOOK_S = 0.5
LONGEST_LOOK_S = 10.0
NOBODY_ANSWERED = "Not run: it needs the user's approval, and nobody answered in time."

_log = logger("turns.approvals")


class Approvals:
    """For one run of a turn. ``timeout_s`` is how long a question stays open."""

    def __init__(
        self, records: ApprovalRecords, turn: Turn, turn_log: TurnLog, timeout_s: float, metrics: Metrics
    ) -> None:
        self._records = records
        self._turn = turn
        self._turn_log = turn_log
        self._timeout_s = timeout_s
        self._metrics = metrics

    async def ask(self, call: ToolCall) -> HeldCall:
        """Writes the question; the caller shows it."""
        record = await patiently(
            lambda: self._records.ask(self._turn.principal, self._turn.key, call.tool_call_id, self._timeout_s)
        )
        return HeldCall(
            tool_call_id=call.tool_call_id,
            approval_id=record.approval_id,
            asked_at=record.asked_at,
            expires_at=record.expires_at,
            epoch=self._turn.epoch,
        )

    async def decision(self, held: HeldCall) -> ApprovalRecord:
        """The decided record: answered, or expired where nobody has."""
        look_s = FIRST_LOOK_S
        while True:
            heard = self._turn_log.answered  # before looking: a hint while looking counts
            record = await self._look(held)
            if record is not None and record.state != "pending":
                self._metrics.count("parley_approvals_total", outcome=record.state)
                return record
            left_s = held.expires_at - time.time() if record is not None else look_s
            try:
                async with asyncio.timeout(max(0.01, min(look_s, left_s))):
                    await heard.wait()
            except TimeoutError:
                look_s = min(look_s * 2, LONGEST_LOOK_S)

    async def prune(self) -> None:
        """Removes old records of the tenant, a few at a time."""
        await self._records.prune(self._turn.principal.tenant_id)

    async def _look(self, held: HeldCall) -> ApprovalRecord | None:
        """The record as it is now, expired where its time is up; None where the store cannot tell."""
        principal = self._turn.principal
        try:
            if time.time() >= held.expires_at:
                return await self._records.decide(principal, held.approval_id, "expired")
            return (await self._records.get(principal, held.approval_id)).record
        except NotFound:
            # Nobody can answer it any more.
            now = time.time()
            return ApprovalRecord(
                approval_id=held.approval_id,
                user_id=principal.user_id,
                turn_id=self._turn.key.turn_id,
                tool_call_id=held.tool_call_id,
                asked_at=held.asked_at,
                expires_at=held.expires_at,
                state="expired",
                answered_at=now,
            )
        except ParleyError as error:
            _log.warning("approval_not_read", turn=self._turn.key.turn_id, error=error.message)
            return None


def not_run(record: ApprovalRecord) -> str:
    """What model and user are told about a call that was not approved."""
    if record.state == "expired":
        return NOBODY_ANSWERED
    return f"Not run: the user declined it. {record.reason or ''}".rstrip()
