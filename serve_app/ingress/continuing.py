"""A response that goes on where an earlier one paused: the user's answers came with the AI SDK's next request."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.domain.events import EventRecord, ToolApproval
from serve_app.domain.identity import Principal
from serve_app.domain.ids import TurnKey
from serve_app.errors import Conflict
from serve_app.ingress.answers import Answers
from serve_app.ingress.tail import PAGE_RECORDS
from serve_app.storage.port import Store
from serve_app.turns.approval_records import no_approval
from serve_app.wire.chat_request import ChatRequest

_OF_APPROVALS = b'{"type":"tool.approval"'


@dataclass(frozen=True)
class Continuation:
    """A turn, and what of it the client has been shown; the next event is the one after."""

    turn_id: str
    shown: tuple[EventRecord, ...]
    answered: frozenset[str]

    @property
    def after_seq(self) -> int:
        return self.shown[-1].seq if self.shown else 0


async def continuation(principal: Principal, body: ChatRequest, answers: Answers, store: Store) -> Continuation | None:
    """Stores the answers that came with ``body`` and says where its stream goes on; None where there are none.

    An answer that comes too late, or after another, changes nothing: the stream shows what became of the call. Raises
    NotFound for a question that is not the principal's, Gone where the turn's events are no longer kept.
    """
    turn_id = None
    answered = set()
    for one in body.approval_answers():
        try:
            record = await answers.answer(principal, one.approval_id, approved=one.approved, reason=one.reason)
        except Conflict:
            record = await answers.find(principal, one.approval_id)
        if turn_id not in (None, record.turn_id):
            raise no_approval()
        turn_id = record.turn_id
        answered.add(one.approval_id)
    if turn_id is None:
        return None
    key = TurnKey.of(principal, turn_id)
    if body.id not in (None, key.conversation.conversation_id):
        raise no_approval()
    shown: list[EventRecord] = []
    seq = body.paused_seq(turn_id)
    while seq is None or len(shown) < seq:
        page = await store.read_events(key, after_seq=len(shown), limit=PAGE_RECORDS)
        if not page.records:
            break
        shown.extend(page.records)
    until = _asked_until(shown, answered) if seq is None else seq
    return Continuation(turn_id, tuple(shown[:until]), frozenset(answered))


def _asked_until(records: list[EventRecord], answered: set[str]) -> int:
    """The seq of the last of these questions: what a client has seen that does not say how far it has come."""
    for record in reversed(records):
        if record.body.startswith(_OF_APPROVALS):
            event = record.event()
            if isinstance(event, ToolApproval) and event.approval_id in answered:
                return record.seq
    return 0
