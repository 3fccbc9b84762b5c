"""Answering a question about a tool call over HTTP; the WebSocket has a frame for it."""

from __future__ import annotations

from fastapi import APIRouter

from serve_app.ingress.dependencies import Caller, Chat, problems
from serve_app.wire.approvals import ApprovalAnswer, ApprovalView

router = APIRouter(tags=["chat"])


@router.post(
    "/api/approvals/{approval_id}", summary="Approve or decline a tool call", responses=problems(400, 404, 409)
)
async def answer_approval(approval_id: str, body: ApprovalAnswer, caller: Caller, chat: Chat) -> ApprovalView:
    """Answers a `tool.approval` event. The turn goes on at once, whoever watches it; a declined call gets a result that says
    so. The same answer again is fine; another one is refused with 409, as is one that comes too late.
    """
    return ApprovalView.of(await chat.answers.answer(caller, approval_id, approved=body.approved, reason=body.reason))
