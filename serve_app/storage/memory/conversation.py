"""One conversation as memory keeps it: its head, its messages by position, its turns in the order they were accepted."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from serve_app.domain.conversation import Conversation, Message
from serve_app.domain.events import EventRecord
from serve_app.domain.turns import AcceptedTurn, NewTurn, OnBusy, StepRecord, Turn
from serve_app.domain.usage import Usage
from serve_app.storage.rules import (
    UNCLAIMED_S,
    MisfitError,
    busy_conversation,
    datetime_of,
    deadline_of_let_through,
    first_event,
    no_message,
    other_query,
    replaced_since,
    to_us,
    too_many_waiting,
    user_message,
)


class HeldTurn:
    """A turn, its log, and the lease that is nobody else's business."""

    def __init__(self, turn: Turn, question: int, answer: int, lease_until: float) -> None:
        self.turn = turn
        self.question = question
        self.answer = answer
        self.lease_until = lease_until
        self.was_let_through = False
        self.finished_at_s = 0.0
        self.records: list[EventRecord] | None = []

    @property
    def may_be_claimed(self) -> bool:
        return not self.turn.waits or self.turn.cancel_requested

    def request_cancel(self) -> None:
        if not self.turn.ended:
            self.turn = replace(self.turn, cancel_requested=True)


class KeptConversation:
    """``order``: its place among all, by when it was made. ``new_etag`` gives one that was never given before."""

    def __init__(self, head: Conversation, order: int, new_etag: Callable[[], str]) -> None:
        self.order = order
        self._new_etag = new_etag
        self.change(head)
        self.turns: dict[str, HeldTurn] = {}
        self._messages: dict[int, Message] = {}
        self._last_position = 0

    def change(self, head: Conversation) -> None:
        self.head = replace(head, etag=self._new_etag())

    # Messages

    def messages(self, *, replaced: bool = False) -> list[Message]:
        """By position."""
        ordered = [message for _, message in sorted(self._messages.items())]
        return [message for message in ordered if replaced or message.replaced_by is None]

    def message(self, message_id: str) -> Message:
        """Raises NotFound."""
        for message in self._messages.values():
            if message.message_id == message_id:
                return message
        raise no_message()

    def message_called(self, client_id: str) -> Message:
        """Raises NotFound."""
        for held in reversed(self.turns.values()):
            if held.turn.client_message_id == client_id:
                return self._messages[held.question]
        return self.message(client_id)

    def has_message(self, message_id: str) -> bool:
        return any(message.message_id == message_id for message in self._messages.values())

    def put_message(self, message: Message) -> None:
        self._messages[message.position] = message

    # Turns

    def accept(self, new: NewTurn, now: float, *, on_busy: OnBusy, max_waiting: int) -> AcceptedTurn:
        for earlier in self.turns.values():
            same_input = new.client_turn_id is not None and earlier.turn.client_turn_id == new.client_turn_id
            if same_input or earlier.turn.key == new.key:
                if earlier.turn.query != new.query:
                    raise other_query()
                return AcceptedTurn(turn=earlier.turn, created=False, waits=earlier.turn.waits)
        not_ended = self._not_ended()
        waits = bool(not_ended)
        if waits and (on_busy == "reject" or new.replaces is not None):
            raise busy_conversation()
        # Whoever interrupts need not count those that it stops, but those that were stopped before.
        waiting = [held for held in not_ended[1:] if on_busy == "queue" or held.turn.cancel_requested]
        if waits and len(waiting) >= max_waiting:
            raise too_many_waiting(len(waiting))
        question = None if new.replaces is None else self._replace(new, new.replaces)
        # Nothing has been written before the replacement, and nothing is refused from here on.

        interrupted = not_ended if on_busy == "interrupt" else []
        for held in interrupted:
            held.request_cancel()
        if question is None:
            question = self._last_position + 1
            self._last_position = question
            self.put_message(user_message(new, question))
        self._last_position += 1
        turn = Turn(
            key=new.key,
            principal=new.principal,
            query=new.query,
            created_at=new.created_at,
            deadline=new.deadline,
            client_turn_id=new.client_turn_id,
            request_id=new.request_id,
            client_message_id=new.client_message_id,
            replaces=new.replaces,
            last_seq=1,
            shown_seq=1,
            waits=waits,
            priority=new.priority,
        )
        held = HeldTurn(turn, question, self._last_position, now if waits else now + UNCLAIMED_S)
        held.records = [first_event(new)]
        self.turns[new.key.turn_id] = held
        self._messages_changed(now)
        return AcceptedTurn(turn=turn, created=True, waits=waits, interrupted=tuple(held.turn for held in interrupted))

    def _replace(self, new: NewTurn, message_id: str) -> int | None:
        """The position of the question that is answered anew; None where the turn brings its own."""
        target = self.message(message_id)
        if target.replaced_by is not None:
            raise replaced_since()
        for message in self.messages():
            if message.position >= target.position:
                self.put_message(replace(message, replaced_by=new.key.turn_id))
        return self.turns[target.turn_id].question if target.role == "assistant" else None

    def finish(self, held: HeldTurn, message: Message, now: float) -> Turn | None:
        """Writes the answer of a turn that has just ended; returns the turn that has waited for it."""
        self.put_message(replace(message, position=held.answer))
        follower = next(iter(self._not_ended()), None)
        waited = follower is not None and follower.turn.waits
        if follower is not None and waited:
            follower.turn = replace(follower.turn, waits=False, deadline=deadline_of_let_through(follower.turn, now))
            follower.lease_until = now + UNCLAIMED_S
            follower.was_let_through = True
        self._messages_changed(now)
        return follower.turn if follower is not None and waited else None

    def let_through(self) -> Turn | None:
        """The turn whose turn it is, where it has been let through and nobody has claimed it yet."""
        for held in self._not_ended()[:1]:
            if held.was_let_through and held.turn.epoch == 0:
                return held.turn
        return None

    def _not_ended(self) -> list[HeldTurn]:
        return [held for held in self.turns.values() if not held.turn.ended]

    def _messages_changed(self, now: float) -> None:
        oldest = next(iter(self._not_ended()), None)
        head = replace(
            self.head,
            message_count=len(self.messages()),
            active_turn_id=None if oldest is None else oldest.turn.key.turn_id,
            updated_at=datetime_of(to_us(now)),
        )
        self.change(head)


def with_step(turn: Turn, step: StepRecord, *, repeated: bool) -> Turn:
    """The turn with a checkpoint more or anew, the next step's attempts given back.

    What is older than what is kept changes nothing where it is ``repeated``: an append that arrives twice. Else raises
    MisfitError where a later step has been kept.
    """
    newest = turn.steps[-1] if turn.steps else None
    if newest is not None and newest.step > step.step:
        if repeated:
            return turn
        raise MisfitError(f"step {step.step} came after step {newest.step}")
    if newest is not None and newest.step == step.step and (newest == step or newest.last_seq > step.last_seq):
        return turn
    earlier = tuple(kept for kept in turn.steps if kept.step != step.step)
    steps = (*earlier, step)
    return replace(turn, steps=steps, usage=sum((kept.usage for kept in steps), Usage()), attempts=step.attempts_begun)
