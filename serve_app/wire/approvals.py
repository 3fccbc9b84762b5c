"""Answers to questions about tool calls, as HTTP carries them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.turns.approval_records import ApprovalRecord

MAX_REASON_CHARS = 2_000


class ApprovalAnswer(BaseModel):
    """`reason` is told to the model where the call is declined."""

    approved: bool
    reason: Annotated[str, Field(max_length=MAX_REASON_CHARS)] | None = None

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"approved": True}, {"approved": False, "reason": "Not this one."}]},
    )


class ApprovalView(BaseModel):
    """A decided question."""

    model_config = ConfigDict(frozen=True)

    approval_id: Annotated[str, Field(examples=["apr_01JCQ2Z7M5Y8W3X9K4T6V1B0ND"])]
    turn_id: str
    tool_call_id: str
    state: Literal["approved", "declined"]
    reason: str | None
    answered_at: datetime

    @classmethod
    def of(cls, record: ApprovalRecord) -> ApprovalView:
        return cls(
            approval_id=record.approval_id,
            turn_id=record.turn_id,
            tool_call_id=record.tool_call_id,
            state="approved" if record.approved else "declined",
            reason=record.reason,
            answered_at=datetime.fromtimestamp(record.answered_at or record.asked_at, UTC),
        )
