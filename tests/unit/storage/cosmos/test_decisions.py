"""What becomes of an input or of an append, decided on documents alone."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from serve_app.domain.events import EventRecord
from serve_app.domain.turns import AppendTurn, OnBusy
from serve_app.errors import Conflict, LeaseLost, QuotaExceeded
from serve_app.storage.cosmos import documents, layout
from serve_app.storage.cosmos.acceptance import Plan, Replacement, must_look, plan, refuse_if_busy
from serve_app.storage.cosmos.batch import BATCH_BYTES, INLINE_BYTES, REWRITTEN_BYTES, Batch
from serve_app.storage.cosmos.documents import (
    Elsewhere,
    Head,
    IdempotencyKey,
    LogEntry,
    MessageDocument,
    TurnDocument,
)
from serve_app.storage.cosmos.shares import TAIL_CHARS, Known, decide
from serve_app.storage.cosmos.turns import claimed, refuse_claim
from serve_app.storage.rules import UNCLAIMED_S, MisfitError
from tests.contract.store_inputs import (
    FIRST,
    PROMPT,
    SECOND,
    calling,
    conversation_key,
    delta,
    deltas,
    finish,
    new_turn,
    response,
    share,
    step,
)

C1 = conversation_key("c1")
PARTITION = layout.conversation_partition(C1)
NOW = 1_700_000_000.0
KEY = new_turn(C1).key


def head(**changes: object) -> Head:
    made = Head(
        id=layout.HEAD,
        tenant_id=PARTITION[0],
        conversation_id=PARTITION[1],
        etag="h1",
        created_us=1,
        updated_us=1,
        order=7,
        version=7,
    )
    return replace(made, **changes)


def planned(of: Head, *, replacement: Replacement | None = None, client_turn_id: str | None = None) -> Plan:
    return plan(
        Batch(PARTITION, home=of.order),
        of,
        new_turn(C1, client_turn_id=client_turn_id),
        NOW,
        accept_id="a1",
        replacement=replacement,
    )


def running_turn(**changes: object) -> TurnDocument:
    new = new_turn(C1, key=KEY)
    made = plan(Batch(PARTITION, home=7), head(), new, NOW, accept_id="a1").turn
    taken = claimed(replace(made, etag="t1"), FIRST, NOW, lease_s=5, ahead=0)
    return replace(taken, **changes)


def decided(known: Known, append: AppendTurn) -> tuple[Batch, TurnDocument, str]:
    batch = Batch(PARTITION, home=7)
    decision = decide(batch, known, append, NOW, retention_s=100)
    return batch, decision.turn, decision.status


def kinds(batch: Batch) -> list[tuple[str, str]]:
    return [(operation.kind, operation.id.partition("-")[0]) for operation in batch.operations]


# Accepting


def test_a_question_takes_two_positions_and_an_answer_anew_takes_one() -> None:
    first = planned(head(last_position=4))
    assert (first.turn.question, first.turn.answer, first.head.last_position) == (5, 6, 6)
    assert isinstance(first.question, MessageDocument)
    assert (first.question.position, first.question.shown_at) == (5, 5)
    again = planned(head(last_position=6, message_count=6), replacement=Replacement(6, ("m-6",), 5))
    assert (again.turn.question, again.turn.answer, again.head.last_position) == (5, 7, 7)
    assert (again.question, again.patched, again.head.message_count) == (None, ("m-6",), 5)


def test_the_row_that_answers_a_second_accept_is_the_question_or_stands_for_it() -> None:
    keyed = planned(head(), client_turn_id="k1")
    assert keyed.question is not None
    assert keyed.question.id == layout.idempotency_id("k1")
    anew = planned(head(last_position=2), replacement=Replacement(2, ("m-2",), 1), client_turn_id="k1")
    assert isinstance(anew.question, IdempotencyKey)
    assert anew.question.id == layout.idempotency_id("k1")
    assert planned(head()).question is not None


def test_an_accepted_turn_waits_behind_one_that_is_open() -> None:
    free, behind = planned(head()), planned(head(open=("t-1",)))
    assert (free.turn.waits, free.turn.lease_until) == (False, NOW + UNCLAIMED_S)
    assert (behind.turn.waits, behind.turn.lease_until) == (True, NOW)
    assert behind.head.open == ("t-1", behind.turn.id)
    assert behind.head.version == 8


def test_an_edit_of_more_than_a_batch_leaves_a_mark_instead_of_patches() -> None:
    shown = tuple(f"m-{number}" for number in range(81))
    long = planned(head(last_position=90, message_count=90), replacement=Replacement(10, shown, None))
    assert long.patched == ()
    assert long.head.replacing is not None
    assert (long.head.replacing.first, long.head.replacing.through) == (10, 90)
    assert long.head.message_count == 10
    short = planned(head(last_position=90, message_count=90), replacement=Replacement(11, shown[1:], None))
    assert len(short.patched) == 80
    assert short.head.replacing is None


@pytest.mark.parametrize(
    ("on_busy", "open_", "cancelled", "refused"),
    [
        ("reject", 0, 0, None),
        ("reject", 1, 0, Conflict),
        ("queue", 2, 0, None),
        ("queue", 3, 0, QuotaExceeded),
        ("interrupt", 3, 0, None),
        ("interrupt", 3, 1, None),
        ("interrupt", 3, 2, QuotaExceeded),
    ],
)
def test_who_is_refused_while_others_wait(
    on_busy: OnBusy, open_: int, cancelled: int, refused: type[Exception] | None
) -> None:
    of = head(open=tuple(f"t-{number}" for number in range(open_)))
    running = [running_turn(cancel_requested=0 < number <= cancelled) for number in range(open_)]
    new = new_turn(C1)
    if refused is None:
        refuse_if_busy(of, new, running, on_busy=on_busy, max_waiting=2)
        return
    assert must_look(of, new, on_busy=on_busy, max_waiting=2), "a repetition must be found before it is refused"
    with pytest.raises(refused):
        refuse_if_busy(of, new, running, on_busy=on_busy, max_waiting=2)


# Claiming


def test_a_claim_counts_the_epoch_and_what_earlier_owners_may_have_shown() -> None:
    taken = claimed(running_turn(last_seq=9, shown_seq=12, attempts=1), SECOND, NOW, lease_s=5, ahead=50)
    assert (taken.epoch, taken.attempts, taken.owner_id, taken.shown_seq) == (2, 2, "r2", 62)
    assert taken.lease_until == NOW + 5


def test_a_claim_is_refused_while_the_turn_is_anothers_waits_or_has_ended() -> None:
    refuse_claim(running_turn(), KEY, FIRST, NOW, ())
    refuse_claim(running_turn(), KEY, SECOND, NOW, ("r1",))
    refuse_claim(running_turn(), KEY, SECOND, NOW + 5, ())
    refuse_claim(running_turn(waits=True, cancel_requested=True), KEY, FIRST, NOW, ())
    for turn, owner in (
        (running_turn(), SECOND),
        (running_turn(waits=True), FIRST),
        (running_turn(finished_us=1), FIRST),
    ):
        with pytest.raises(LeaseLost):
            refuse_claim(turn, KEY, owner, NOW, ())


# Appending


def test_few_records_are_kept_with_their_turn() -> None:
    batch, turn, status = decided(Known(running_turn()), share(KEY, *deltas(KEY, 2, 4), ahead=10))
    assert (status, kinds(batch)) == ("write", [])
    assert (turn.last_seq, turn.shown_seq, turn.lease_until) == (4, 14, NOW + 5)
    assert [record[0] for record in turn.tail] == [2, 3, 4]


def test_a_tail_that_grows_long_becomes_an_entry_of_all_of_it() -> None:
    _, short, _ = decided(Known(running_turn()), share(KEY, *deltas(KEY, 2, 4)))
    batch, turn, _ = decided(Known(short), share(KEY, delta(KEY, 5, "x" * TAIL_CHARS)))
    assert kinds(batch) == [("create", "e")]
    assert turn.tail == ()
    assert entry_of(batch) == [2, 3, 4, 5]
    _, again, _ = decided(Known(turn), share(KEY, delta(KEY, 6)))
    assert [record[0] for record in again.tail] == [6]


def test_the_tail_of_a_turn_that_ends_becomes_an_entry_that_expires() -> None:
    of = head(open=(layout.turn_id(KEY),), message_count=1, last_position=2)
    _, short, _ = decided(Known(running_turn(), of), share(KEY, *deltas(KEY, 2, 4)))
    batch, turn, _ = decided(Known(short, of), share(KEY, response(KEY, 5), finish=finish(KEY)))
    assert (entry_of(batch), turn.tail) == ([2, 3, 4, 5], ())


def entry_of(batch: Batch) -> list[int]:
    """The numbers of the records of the one entry that is made."""
    (entry,) = (document for document in batch.documents if isinstance(document, LogEntry))
    assert isinstance(entry.records, list)
    assert entry.ttl is not None
    assert entry.ttl > 100
    return [record[0] for record in entry.records]


def test_a_renewal_writes_the_turn_alone() -> None:
    batch, turn, status = decided(Known(running_turn()), share(KEY, lease_s=7))
    assert (status, batch.operations, turn.lease_until) == ("write", [], NOW + 7)


def test_a_finish_is_entry_answer_and_head_with_the_conditions_first() -> None:
    of = head(open=(layout.turn_id(KEY),), message_count=1, last_position=2)
    batch, turn, _ = decided(Known(running_turn(), of), share(KEY, response(KEY, 2), finish=finish(KEY)))
    assert kinds(batch) == [("replace", "head"), ("create", "m"), ("create", "e")]
    assert (turn.ended, turn.state, turn.shown_seq) == (True, "completed", 2)
    changed = batch.documents[0] if isinstance(batch.documents[0], Head) else batch.documents[1]
    assert isinstance(changed, Head)
    assert (changed.open, changed.message_count, changed.version) == ((), 2, 8)


def test_a_finish_lets_the_oldest_that_waits_through_with_all_the_time_it_was_given() -> None:
    waiting = replace(running_turn(), id="t-next", waits=True, epoch=0, given_s=300.0, etag="w1")
    of = head(open=(layout.turn_id(KEY), "t-next", "t-last"))
    batch = Batch(PARTITION, home=7)
    known = Known(running_turn(), of, waiting)
    decision = decide(batch, known, share(KEY, response(KEY, 2), finish=finish(KEY)), NOW, retention_s=1)
    assert decision.follower is not None
    assert (decision.follower.waits, decision.follower.deadline) == (False, NOW + 300.0)
    assert [operation.etag for operation in batch.operations if operation.kind == "replace"] == ["w1", "h1"]
    ended = replace(decision.turn, etag="t2")
    again = Known(ended, replace(of, open=("t-next", "t-last")), decision.follower)
    named = decide(
        Batch(PARTITION, home=7), again, share(KEY, response(KEY, 2), finish=finish(KEY)), NOW, retention_s=1
    )
    assert (named.status, named.follower) == ("repeated", decision.follower)
    claimed_since = replace(again, follower=replace(decision.follower, epoch=1))
    later = decide(
        Batch(PARTITION, home=7), claimed_since, share(KEY, response(KEY, 2), finish=finish(KEY)), NOW, retention_s=1
    )
    assert later.follower is None


def test_what_comes_from_another_epoch_or_after_the_end_is_lost() -> None:
    assert decided(Known(running_turn()), share(KEY, delta(KEY, 2), epoch=7))[2] == "lost"
    ended = running_turn(finished_us=1, state="completed", last_seq=3)
    assert decided(Known(ended), share(KEY))[2] == "lost"
    assert decided(Known(ended), share(KEY, delta(KEY, 4)))[2] == "lost"
    assert decided(Known(ended), share(KEY, delta(KEY, 3)))[2] == "repeated"


def test_what_does_not_continue_the_log_is_a_misfit() -> None:
    with pytest.raises(MisfitError):
        decided(Known(running_turn()), share(KEY, delta(KEY, 3)))
    broken = EventRecord(seq=2, step=0, attempt=1, terminal=False, body=b"\xff")
    with pytest.raises(MisfitError, match="UTF-8"):
        decided(Known(running_turn()), share(KEY, broken))


def test_a_step_takes_the_place_of_its_earlier_self_and_gives_attempts_back() -> None:
    _, first, _ = decided(Known(running_turn(attempts=3)), share(KEY, delta(KEY, 2), step=calling(0, 2)))
    assert (len(first.steps), first.attempts) == (1, 0)
    _, second, _ = decided(Known(first), share(KEY, delta(KEY, 3), step=step(0, 3)))
    assert [(kept.step, kept.last_seq) for kept in second.steps] == [(0, 3)]
    assert second.attempts == 1
    _, third, _ = decided(Known(replace(second, attempts=2)), share(KEY, delta(KEY, 3), step=step(0, 3)))
    assert (third.steps, third.attempts) == (second.steps, 2), "a repetition takes nothing back"
    with pytest.raises(MisfitError):
        _, later, _ = decided(Known(second), share(KEY, delta(KEY, 4), step=step(1, 4)))
        decided(Known(later), share(KEY, delta(KEY, 5), step=step(0, 5)))


def test_a_prompt_is_written_only_where_it_is_another() -> None:
    batch, _, _ = decided(Known(running_turn(), head()), share(KEY, session_prompt=PROMPT))
    assert kinds(batch) == [("replace", "head"), ("upsert", "prompt")]
    known = head(prompt=documents.fingerprint(documents.json_of(PROMPT)))
    batch, _, _ = decided(Known(running_turn(), known), share(KEY, session_prompt=PROMPT))
    assert kinds(batch) == []


# Bodies


def test_a_body_lies_where_its_size_and_its_document_want_it() -> None:
    batch = Batch(PARTITION, home=7)
    small, middle, large = "x" * REWRITTEN_BYTES, "x" * (REWRITTEN_BYTES + 1), "x" * (INLINE_BYTES + 1)
    assert batch.body(small, "a", rewritten=True) == small
    assert batch.body(middle, "b") == middle
    beside = batch.body(middle, "c", rewritten=True)
    assert isinstance(beside, Elsewhere)
    assert beside.doc == batch.documents[0].id
    blob = batch.body(large, "d")
    assert isinstance(blob, Elsewhere)
    assert blob.blob is not None
    assert blob.blob.startswith("bodies/acme/anna/c1/7/")
    assert batch.blobs == {blob.blob: large.encode()}


def test_bodies_beyond_what_a_batch_may_have_become_blobs() -> None:
    batch = Batch(PARTITION, home=7)
    body = "x" * 100_000
    made = [batch.body(f"{number}{body}", str(number)) for number in range(10)]
    assert sum(len(one) for one in made if isinstance(one, str)) <= BATCH_BYTES
    assert batch.blobs
