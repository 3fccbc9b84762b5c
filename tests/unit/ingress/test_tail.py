"""A tail shows every event once and in order, whatever its live source does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.domain.conversation import Conversation
from serve_app.domain.events import ChatResponse, EventRecord, TextDelta, TurnFailed, TurnStarted
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import EventPage, Owner, Query, Turn
from serve_app.errors import Gone, NotFound, StageUnavailable
from serve_app.ingress import tail as tail_module
from serve_app.ingress.follower import Follower
from serve_app.ingress.tail import Shown, TailTiming, TurnTail
from serve_app.storage.port import Store
from serve_app.turns.port import TailEnd, TailItem, Title, Turns
from tests.unit.ingress.stages import QueueTail

ANA = Principal(tenant_id="t", user_id="ana")
KEY = TurnKey(conversation=ConversationKey.of(ANA, "c1"), turn_id="c1.01ARZ3NDEKTSV4RRFFQ69G5FAV")
FIRST = Owner(replica_id="a", endpoint="a")
SECOND = Owner(replica_id="b", endpoint="b")
SHORT = TailTiming(quiet_s=0.01, poll_s=0.002, poll_max_s=0.005, deaf_s=0.01, outage_s=0.1)
PATIENT = TailTiming(quiet_s=30, poll_s=0.002, poll_max_s=0.005)


def log_of(count: int, failed: bool = False) -> list[EventRecord]:
    """``count`` records: started, deltas, one terminal event."""
    turn_id = KEY.turn_id
    records = [EventRecord.of(TurnStarted(turn_id=turn_id, seq=1, message_id="m"))]
    records += [EventRecord.of(TextDelta(turn_id=turn_id, seq=n, delta=f"{n} ")) for n in range(2, count)]
    end = (
        TurnFailed(turn_id=turn_id, seq=count, code="internal", message="x", retryable=False)
        if failed
        else ChatResponse(turn_id=turn_id, seq=count, message_id="m", response="")
    )
    return [*records, EventRecord.of(end)]


class Log:
    """The store's side of one turn: as much of the log as has been written."""

    def __init__(self, records: Sequence[EventRecord], written: int, owner: Owner | None = FIRST) -> None:
        self.records = list(records)
        self.written = written
        self.owner = owner
        self.page = 1000
        self.grows = False
        self.reads = 0
        self.failures: list[Exception] = []
        self.title: str | None = None
        self.deadline = time.time() + 300
        self.waits = False

    @property
    def turn(self) -> Turn:
        ended = self.written == len(self.records)
        return Turn(
            key=KEY,
            principal=ANA,
            query=Query(content="hi"),
            created_at=cast(Any, None),
            deadline=self.deadline,
            state="completed" if ended else "running",
            last_seq=self.written,
            owner=self.owner,
            waits=self.waits,
        )

    async def read_events(self, key: TurnKey, *, after_seq: int = 0, limit: int = 1000) -> EventPage:
        self.reads += 1
        await asyncio.sleep(0)
        if self.grows:
            self.written = min(self.written + 1, len(self.records))
        if self.failures:
            raise self.failures.pop(0)
        return EventPage(
            turn=self.turn, records=tuple(self.records[after_seq : min(self.written, after_seq + self.page)])
        )

    async def get_conversation(self, key: ConversationKey) -> Conversation:
        return Conversation(key=key, created_at=cast(Any, None), updated_at=cast(Any, None), title=self.title)


class Owners:
    """The turns stage's side: gives out the tails a test prepared, then none that answers."""

    def __init__(self, *tails: QueueTail) -> None:
        self.tails = list(tails)
        self.follows: list[tuple[Owner, int]] = []

    async def follow(self, key: TurnKey, owner: Owner, *, after_seq: int) -> QueueTail:
        self.follows.append((owner, after_seq))
        if not self.tails:
            raise StageUnavailable("nobody answers")
        return self.tails.pop(0)


def make_tail(log: Log, owners: Owners, **options: Any) -> TurnTail:
    options.setdefault("timing", SHORT)
    return TurnTail(cast(Store, log), cast(Turns, owners), log.turn, **options)


async def collect(tail: TurnTail) -> list[Shown]:
    shown: list[Shown] = []
    async with asyncio.timeout(10):
        async for batch in tail:
            shown.extend(batch)
    await tail.aclose()
    return shown


def seqs(shown: Sequence[Shown]) -> list[int]:
    return [item.seq for item in shown if isinstance(item, EventRecord)]


async def test_an_ended_turn_is_read_from_the_log_alone() -> None:
    owners = Owners()
    log = Log(log_of(2500), 2500)
    assert seqs(await collect(make_tail(log, owners))) == list(range(1, 2501))
    assert owners.follows == []
    assert log.reads == 3


async def test_reading_starts_after_the_cursor() -> None:
    log = Log(log_of(9), 9)
    assert seqs(await collect(make_tail(log, Owners(), after_seq=6))) == [7, 8, 9]


async def test_nothing_comes_after_the_terminal_event() -> None:
    log = Log(log_of(4), 4)
    assert await collect(make_tail(log, Owners(), after_seq=4)) == []


async def test_pages_that_the_store_cut_short_are_read_on() -> None:
    log = Log(log_of(25), 25)
    log.page = 4
    assert seqs(await collect(make_tail(log, Owners()))) == list(range(1, 26))


async def test_what_is_live_needs_no_look_at_the_log() -> None:
    records = log_of(6)
    log, live = Log(records, 1), QueueTail()
    live.send(*records[1:4])
    live.send(*records[4:], TailEnd(complete=True))
    live.end()
    shown = await collect(make_tail(log, Owners(), first=records[:1], live=live, timing=PATIENT))
    assert seqs(shown) == [1, 2, 3, 4, 5, 6]
    assert log.reads == 0
    assert live.closed


async def test_repeated_records_are_dropped_and_gaps_read_from_the_log() -> None:
    records = log_of(9)
    log, live = Log(records, 9), QueueTail()
    live.send(records[1], records[1], records[0])
    live.send(records[5], records[4], records[5], records[7])
    live.send(records[8])
    shown = await collect(make_tail(log, Owners(), first=records[:1], live=live, timing=PATIENT))
    assert seqs(shown) == list(range(1, 10))


async def test_a_live_record_ahead_of_the_log_waits_for_the_log() -> None:
    records = log_of(6)
    log, live = Log(records, 2), QueueTail()
    live.send(records[4])
    tail = make_tail(log, Owners(), first=records[:2], live=live)
    stream = aiter(tail)
    assert seqs(await anext(stream)) == [1, 2]
    log.written = 6
    assert seqs(await collect(tail)) == [3, 4, 5, 6]


async def test_an_owner_that_falls_silent_is_replaced_by_the_log() -> None:
    records = log_of(5)
    log, live = Log(records, 5), QueueTail()
    live.send(records[1])
    shown = await collect(make_tail(log, Owners(), first=records[:1], live=live))
    assert seqs(shown) == [1, 2, 3, 4, 5]
    assert live.closed


async def test_a_new_owner_is_followed_from_the_cursor() -> None:
    records = log_of(6)
    first, second = QueueTail(), QueueTail()
    log, owners = Log(records, 2), Owners(first, second)
    tail = make_tail(log, owners)
    stream = aiter(tail)
    assert seqs(await anext(stream)) == [1, 2]
    first.send(records[2])
    log.written = 3
    assert seqs(await anext(stream)) == [3]
    log.owner = SECOND
    second.send(*records[3:])
    assert seqs(await collect(tail)) == [4, 5, 6]
    assert owners.follows == [(FIRST, 2), (SECOND, 3)]
    assert first.closed


async def test_an_owner_that_does_not_answer_is_not_asked_at_every_look() -> None:
    records = log_of(30)
    log, owners = Log(records, 1), Owners()
    timing = replace_timing(deaf_s=30)
    tail = make_tail(log, owners, timing=timing)

    log.grows = True  # by one record with every look
    assert seqs(await collect(tail)) == list(range(1, 31))
    assert len(owners.follows) == 1


async def test_a_tail_that_ends_at_once_without_progress_does_not_spin() -> None:
    tails = []
    for _ in range(50):
        tail = QueueTail()
        tail.send(TailEnd(complete=False))
        tail.end()
        tails.append(tail)
    records = log_of(3)
    log, owners = Log(records, 2), Owners(*tails)
    records = log_of(30)
    log.records, log.grows = records, True
    shown = await collect(make_tail(log, owners, timing=replace_timing(deaf_s=30)))
    assert seqs(shown) == list(range(1, 31))
    assert len(owners.follows) == 1


async def test_a_slow_reader_is_dropped_to_its_cursor_and_reads_on() -> None:
    records = log_of(400)
    live, again = QueueTail(), QueueTail()
    log, owners = Log(records, 400), Owners(again)
    follower = Follower(live, max_items=10)
    for record in records[1:]:
        live.send(record)
    assert follower._task is not None
    await asyncio.wait_for(follower._task, 5)
    assert live.closed, "nobody holds the tail while its reader is behind"
    assert len(await follower.take(0) or []) <= 11
    assert await follower.take(0) is None

    slow = QueueTail()
    tail = make_tail(log, owners, first=records[:1], live=slow, max_items=10, timing=PATIENT)
    stream = aiter(tail)
    assert seqs(await anext(stream)) == [1]
    for record in records[1:]:
        slow.send(record)
    await asyncio.wait_for(slow.let_go.wait(), 5)
    assert seqs(await collect(tail)) == list(range(2, 401))


async def test_the_store_may_be_away_for_a_moment() -> None:
    log = Log(log_of(3), 3)
    log.failures = [StageUnavailable("restarting"), StageUnavailable("restarting")]
    assert seqs(await collect(make_tail(log, Owners()))) == [1, 2, 3]


@pytest.mark.parametrize("error", [NotFound("There is no such turn."), Gone("The events are no longer kept.")])
async def test_a_log_that_is_not_there_is_told(error: Exception) -> None:
    log = Log(log_of(3), 1)
    log.failures = [error]
    with pytest.raises(type(error)):
        await collect(make_tail(log, Owners()))


async def test_a_store_that_stays_away_ends_the_tail() -> None:
    log = Log(log_of(3), 1)
    log.failures = [StageUnavailable("gone") for _ in range(1000)]
    with pytest.raises(StageUnavailable):
        await collect(make_tail(log, Owners()))


async def test_a_turn_long_past_its_deadline_is_not_waited_for() -> None:
    log = Log(log_of(3), 2)
    log.deadline = time.time() - 61
    with pytest.raises(StageUnavailable):
        await collect(make_tail(log, Owners()))


async def test_an_old_turn_is_shown_whole() -> None:
    log = Log(log_of(3), 3)
    log.deadline = 1.0
    assert seqs(await collect(make_tail(log, Owners()))) == [1, 2, 3]


async def test_a_live_title_after_the_answer_is_waited_for() -> None:
    records = log_of(3)
    live = QueueTail()
    live.send(*records[1:])
    tail = make_tail(Log(records, 3), Owners(), first=records[:1], live=live, title_wait_s=5, timing=PATIENT)
    stream = aiter(tail)
    assert seqs(await anext(stream)) == [1]
    assert seqs(await anext(stream)) == [2, 3]
    live.send(Title(title="Late"))
    assert await collect(tail) == [Title(title="Late")]


async def test_a_title_made_where_nobody_hears_is_read_from_the_store() -> None:
    log = Log(log_of(3), 3)
    log.title = "Stored"
    assert (await collect(make_tail(log, Owners(), title_wait_s=5)))[-1] == Title(title="Stored")


@pytest.mark.parametrize("stored", [None, "Stored"])
async def test_a_live_tail_that_ended_complete_ends_the_wait_for_a_title(stored: str | None) -> None:
    records = log_of(3)
    live = QueueTail()
    live.send(*records[1:])
    log = Log(records, 3)
    log.title = stored
    tail = make_tail(log, Owners(), first=records[:1], live=live, title_wait_s=600, timing=PATIENT)
    stream = aiter(tail)
    assert seqs(await anext(stream)) == [1]
    assert seqs(await anext(stream)) == [2, 3]
    live.send(TailEnd(complete=True))
    live.end()
    assert await collect(tail) == ([] if stored is None else [Title(title=stored)])


async def test_the_wait_for_a_title_ends() -> None:
    log = Log(log_of(3), 3)
    assert seqs(await collect(make_tail(log, Owners(), title_wait_s=0.02))) == [1, 2, 3]


async def test_a_failed_turn_does_not_wait_for_a_title() -> None:
    log = Log(log_of(3, failed=True), 3)
    async with asyncio.timeout(5):
        shown = await collect(make_tail(log, Owners(), title_wait_s=600))
    assert seqs(shown) == [1, 2, 3]


async def test_a_title_that_came_before_the_end_is_not_waited_for() -> None:
    records = log_of(3)
    live = QueueTail()
    live.send(Title(title="Early"), *records[1:])
    log = Log(records, 3)
    async with asyncio.timeout(5):
        shown = await collect(make_tail(log, Owners(), first=records[:1], live=live, title_wait_s=600, timing=PATIENT))
    assert shown.count(Title(title="Early")) == 1


class SilentFollower:
    """A live tail on which nothing comes, and a clock that only waiting moves on."""

    now = 0.0

    def __init__(self, *_: object) -> None:
        pass

    async def take(self, timeout_s: float) -> list[TailItem]:
        type(self).now += timeout_s
        return []

    async def aclose(self) -> None:
        pass


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> type[SilentFollower]:
    clock = SimpleNamespace(monotonic=lambda: SilentFollower.now, time=time.time)
    monkeypatch.setattr(SilentFollower, "now", 0.0)
    monkeypatch.setattr(tail_module, "time", clock)
    monkeypatch.setattr(tail_module, "Follower", SilentFollower)
    return SilentFollower


class WatchedLog(Log):
    """Notes when it is looked at, and ends the turn at the last of ``looks``."""

    def __init__(self, looks: int, owner: Owner | None = FIRST) -> None:
        super().__init__(log_of(3), 1, owner)
        self.looks = looks
        self.looked_at: list[float] = []

    async def read_events(self, key: TurnKey, *, after_seq: int = 0, limit: int = 1000) -> EventPage:
        self.looked_at.append(SilentFollower.now)
        if len(self.looked_at) == self.looks:
            self.written = 3
        return await super().read_events(key, after_seq=after_seq, limit=limit)


async def test_a_silent_owner_is_checked_on_less_and_less_often(silence: type[SilentFollower]) -> None:
    log = WatchedLog(8)
    tail = make_tail(log, Owners(), first=log.records[:1], live=QueueTail(), timing=TailTiming())
    assert seqs(await collect(tail)) == [1, 2, 3]
    # Often for as long as a turn may take to find another owner, then seldom.
    assert log.looked_at == [2, 4, 6, 8, 12, 20, 30, 40]


async def test_an_owner_that_was_asked_to_show_its_turn_is_checked_on_more_often(
    silence: type[SilentFollower],
) -> None:
    log = WatchedLog(8)
    tail = make_tail(log, Owners(QueueTail()), timing=TailTiming())
    assert seqs(await collect(tail)) == [1, 2, 3]
    assert log.looked_at == [0, 2, 4, 6, 8, 12, 16, 20]


async def test_a_turn_without_an_owner_is_looked_at_often(silence: type[SilentFollower]) -> None:
    log = WatchedLog(4, owner=None)
    tail = make_tail(log, Owners(), first=log.records[:1], live=QueueTail(), timing=TailTiming())
    assert seqs(await collect(tail)) == [1, 2, 3]
    assert log.looked_at == [2, 4, 6, 8]


async def test_heartbeats_keep_their_time_between_looks(silence: type[SilentFollower]) -> None:
    log = WatchedLog(8)
    tail = make_tail(log, Owners(), first=log.records[:1], live=QueueTail(), timing=TailTiming(), heartbeat_s=3)
    beats = [SilentFollower.now async for batch in tail if not batch]
    assert beats == list(range(3, 40, 3))
    assert log.looked_at == [2, 4, 6, 8, 12, 20, 30, 40]


async def test_what_is_heard_makes_the_tail_attentive_again() -> None:
    records = log_of(4)
    live = QueueTail()
    tail = make_tail(Log(records, 1), Owners(), first=records[:1], live=live, timing=PATIENT)
    stream = aiter(tail)
    assert seqs(await anext(stream)) == [1]
    tail._quiet_s = 10.0
    live.send(records[1])
    assert seqs(await anext(stream)) == [2]
    assert tail._quiet_s == PATIENT.quiet_s
    await tail.aclose()


async def test_silence_yields_heartbeats() -> None:
    tail = make_tail(Log(log_of(3), 1), Owners(QueueTail()), heartbeat_s=0.0)
    stream = aiter(tail)
    async with asyncio.timeout(5):
        assert seqs(await anext(stream)) == [1]
        assert await anext(stream) == []
    await tail.aclose()


async def test_leaving_lets_go_of_the_live_tail() -> None:
    live = QueueTail()
    records = log_of(3)
    tail = make_tail(Log(records, 1), Owners(), first=records[:1], live=live, timing=PATIENT)
    await anext(aiter(tail))
    await tail.aclose()
    assert live.closed
    unread = QueueTail()
    tail = make_tail(Log(records, 1), Owners(), live=unread)
    await tail.aclose()
    assert unread.closed


def replace_timing(**changes: float) -> TailTiming:
    return TailTiming(**{**vars(SHORT), **changes})


# What a live source may do, as steps: write n more to the log, send records by index (any), a title, or end.
_STEP = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 5)),
    st.tuples(st.just("send"), st.lists(st.integers(0, 19), min_size=1, max_size=6)),
    st.tuples(st.just("run"), st.tuples(st.integers(0, 19), st.integers(1, 6))),
    st.tuples(st.just("end"), st.booleans()),
    st.tuples(st.just("owner"), st.none()),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(_STEP, max_size=14),
    start=st.integers(0, 20),
    bound=st.integers(1, 8),
    page=st.integers(1, 30),
    from_run=st.booleans(),
)
def test_any_interleaving_shows_every_record_once_and_in_order(
    steps: list[tuple[str, Any]], start: int, bound: int, page: int, from_run: bool
) -> None:
    asyncio.run(_interleave(steps, start, bound, page, from_run))


async def _interleave(steps: list[tuple[str, Any]], start: int, bound: int, page: int, from_run: bool) -> None:
    records = log_of(20)
    tails = [QueueTail() for _ in range(4)]
    log = Log(records, max(1, start))
    log.page = page
    owners = Owners(*tails[1:])
    tail = make_tail(
        log,
        owners,
        after_seq=start,
        live=tails[0] if from_run else None,
        max_items=bound,
        timing=replace_timing(quiet_s=0.003),
    )
    reading = asyncio.create_task(collect(tail))
    for kind, value in steps:
        for live in tails:
            if kind == "send":
                # Commit before show: nothing is live that the log does not have.
                live.send(*[records[i] for i in value if i < log.written])
            elif kind == "run":
                items: list[TailItem] = [r for r in records[value[0] : value[0] + value[1]] if r.seq <= log.written]
                live.send(*items)
            elif kind == "end":
                live.send(TailEnd(complete=value))
                live.end()
        if kind == "write":
            log.written = min(len(records), log.written + value)
        elif kind == "owner":
            log.owner = SECOND if log.owner == FIRST else FIRST
        await asyncio.sleep(0)
    log.written = len(records)
    assert seqs(await reading) == list(range(start + 1, 21))


async def test_a_turn_that_waits_behind_others_is_not_overdue(silence: type[SilentFollower]) -> None:
    log = Log(log_of(3), 1, owner=None)
    log.deadline, log.waits, log.grows = time.time() - 3_600, True, True
    assert seqs(await collect(make_tail(log, Owners()))) == [1, 2, 3]
