"""Admission around a real store: who is refused, what is let go, and that a repeated input is never refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from serve_app.domain.events import EventRecord
from serve_app.domain.identity import Limits, Principal, Terms
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.priority import Priority
from serve_app.domain.turns import AppendTurn, NewTurn, Query
from serve_app.errors import Conflict, Overloaded, QuotaExceeded
from serve_app.quotas.admission import BRIEFLY_S, OPEN_FOR_S, AdmittingStore
from serve_app.quotas.memory import MemoryQuotas
from serve_app.quotas.port import Sign
from serve_app.settings import LimitSettings
from serve_app.storage.memory import MemoryStore
from serve_app.telemetry import MemoryMetrics
from tests.contract.store_inputs import Clock
from tests.unit.ingress.stages import OWNER, answered, finish_of

ANNA = Principal(tenant_id="acme", user_id="anna")


class CountingQuotas(MemoryQuotas):
    def __init__(self, clock: Clock) -> None:
        super().__init__(counted=100, clock=clock)
        self.told: list[Sign] = []

    async def tell(self, signs: Sequence[Sign]) -> None:
        self.told.extend(signs)
        await super().tell(signs)


class Bench:
    def __init__(self, limits: LimitSettings) -> None:
        self.clock = Clock()
        self.quotas = CountingQuotas(self.clock)
        self.metrics = MemoryMetrics()
        self.inner = MemoryStore(clock=self.clock)
        self.store = AdmittingStore(self.inner, self.quotas, limits, self.metrics, self.clock)

    async def turn(
        self,
        conversation: str,
        principal: Principal = ANNA,
        *,
        client_turn_id: str | None = None,
        priority: Priority = "live",
    ) -> NewTurn:
        key = ConversationKey.of(principal, conversation)
        await self.inner.ensure_conversation(key)
        return NewTurn(
            key=TurnKey.new(key),
            principal=principal,
            query=Query(content="Hi"),
            created_at=datetime.fromtimestamp(self.clock.now, UTC),
            deadline=self.clock.now + 300,
            client_turn_id=client_turn_id,
            priority=priority,
        )

    async def accept(self, conversation: str, principal: Principal = ANNA) -> NewTurn:
        turn = await self.turn(conversation, principal)
        assert (await self.store.accept_turn(turn)).created
        return turn

    async def finish(self, turn: NewTurn) -> None:
        epoch = (await self.inner.claim_turn(turn.key, OWNER, lease_s=30, history_limit=0)).turn.epoch
        event = answered("Done.")(turn.key.turn_id, 2)
        share = AppendTurn(
            key=turn.key,
            epoch=epoch,
            lease_s=30,
            records=(EventRecord.of(event),),
            finish=finish_of(turn.key, event),
        )
        assert [reply.status for reply in await self.store.append([share])] == ["ok"]


async def test_the_turn_beyond_the_users_limit_is_refused_until_one_has_ended() -> None:
    bench = Bench(LimitSettings(user_concurrent_turns=2))
    first = await bench.accept("a")
    await bench.accept("b")
    with pytest.raises(QuotaExceeded) as refused:
        await bench.store.accept_turn(await bench.turn("c"))
    assert refused.value.retry_after_s
    assert bench.metrics.counts[("parley_refusals_total", "quota_exceeded")] == 1
    await bench.finish(first)
    await bench.accept("c")


async def test_a_refused_input_leaves_no_trace_in_the_store() -> None:
    bench = Bench(LimitSettings(user_concurrent_turns=1))
    await bench.accept("a")
    turn = await bench.turn("b", client_turn_id="k")
    with pytest.raises(QuotaExceeded):
        await bench.store.accept_turn(turn)
    assert (await bench.inner.list_messages(turn.key.conversation)).items == ()
    assert (await bench.inner.get_conversation(turn.key.conversation)).active_turn_id is None


async def test_a_repeated_input_that_has_its_turn_is_never_refused() -> None:
    bench = Bench(LimitSettings(user_concurrent_turns=1, user_requests_per_minute=1, open_turns=1))
    turn = await bench.turn("a", client_turn_id="k")
    await bench.store.accept_turn(turn)
    for _ in range(5):
        again = await bench.store.accept_turn(replace(turn, key=TurnKey.new(turn.key.conversation)))
        assert (again.created, again.turn.key) == (False, turn.key)
    await bench.finish(turn)
    again = await bench.store.accept_turn(replace(turn, key=TurnKey.new(turn.key.conversation)))
    assert (again.created, again.turn.key) == (False, turn.key)
    assert bench.quotas.open_turns == 0


async def test_what_the_store_refuses_or_knows_already_is_not_counted() -> None:
    bench = Bench(LimitSettings(user_concurrent_turns=2, user_requests_per_minute=2))
    turn = await bench.turn("a", client_turn_id="k")
    await bench.store.accept_turn(turn)
    for _ in range(5):
        with pytest.raises(Conflict):  # another turn of the conversation runs
            await bench.store.accept_turn(await bench.turn("a"))
        assert not (await bench.store.accept_turn(replace(turn, key=TurnKey.new(turn.key.conversation)))).created
    assert bench.quotas.open_turns == 1
    await bench.accept("b")


async def test_the_terms_of_the_principal_win_over_the_settings() -> None:
    bench = Bench(LimitSettings(user_concurrent_turns=1, tenant_concurrent_turns=100))
    vip = Principal(
        tenant_id="acme",
        user_id="vip",
        terms=Terms(user_limits=Limits(concurrent_turns=3), tenant_limits=Limits(concurrent_turns=2)),
    )
    await bench.accept("a", vip)
    await bench.accept("b", vip)
    with pytest.raises(QuotaExceeded, match="organisation"):
        await bench.store.accept_turn(await bench.turn("c", vip))


async def test_tokens_that_a_turn_has_used_count_against_the_next_one() -> None:
    bench = Bench(LimitSettings(user_tokens_per_minute=7))  # what one turn of the bench uses
    turn = await bench.accept("a")
    await bench.finish(turn)
    with pytest.raises(QuotaExceeded, match="tokens"):
        await bench.store.accept_turn(await bench.turn("a"))
    bench.clock.advance(61)  # counted by whole seconds
    await bench.accept("a")


async def test_batch_yields_to_live_and_overload_is_refused_at_once() -> None:
    bench = Bench(LimitSettings(open_turns=3, open_turns_batch=1))
    await bench.accept("a")
    with pytest.raises(Overloaded) as refused:
        await bench.store.accept_turn(await bench.turn("b", priority="batch"))
    assert refused.value.retry_after_s
    await bench.accept("b")
    await bench.accept("c")
    with pytest.raises(Overloaded):
        await bench.store.accept_turn(await bench.turn("d"))


async def test_an_append_is_told_of_once_in_a_while_and_a_turn_that_is_lost_is_let_go() -> None:
    bench = Bench(LimitSettings(user_concurrent_turns=1))
    turn = await bench.accept("a")
    epoch = (await bench.inner.claim_turn(turn.key, OWNER, lease_s=30, history_limit=0)).turn.epoch
    renewal = AppendTurn(key=turn.key, epoch=epoch, lease_s=30)
    for _ in range(40):  # two seconds apart
        bench.clock.advance(2)
        await bench.store.append([renewal])
    assert 6 <= len(bench.quotas.told) <= 10
    await bench.store.delete_conversation(turn.key.conversation)
    assert [reply.status for reply in await bench.store.append([renewal])] == ["lost"]
    await bench.accept("b")


async def test_where_replicas_count_apart_a_turn_that_ends_elsewhere_is_soon_forgotten() -> None:
    limits = LimitSettings(user_concurrent_turns=1)
    bench = Bench(limits)
    bench.store = AdmittingStore(
        bench.inner, bench.quotas, limits, bench.metrics, bench.clock, accepted_for_s=BRIEFLY_S
    )
    await bench.accept("a")
    with pytest.raises(QuotaExceeded):
        await bench.store.accept_turn(await bench.turn("b"))
    bench.clock.advance(BRIEFLY_S)
    running = await bench.accept("b")
    epoch = (await bench.inner.claim_turn(running.key, OWNER, lease_s=30, history_limit=0)).turn.epoch
    bench.clock.advance(BRIEFLY_S / 2)
    await bench.store.append([AppendTurn(key=running.key, epoch=epoch, lease_s=30)])
    bench.clock.advance(OPEN_FOR_S - 1)
    with pytest.raises(QuotaExceeded):
        await bench.store.accept_turn(await bench.turn("c"))


async def test_running_turns_are_known_again_after_the_counting_process_was_restarted() -> None:
    bench = Bench(LimitSettings(user_concurrent_turns=1))
    turn = await bench.accept("a")
    epoch = (await bench.inner.claim_turn(turn.key, OWNER, lease_s=30, history_limit=0)).turn.epoch
    restarted = CountingQuotas(bench.clock)
    limits = LimitSettings(user_concurrent_turns=1)
    store = AdmittingStore(bench.inner, restarted, limits, bench.metrics, bench.clock)
    await store.append([AppendTurn(key=turn.key, epoch=epoch, lease_s=30)])
    with pytest.raises(QuotaExceeded):
        await store.accept_turn(await bench.turn("b"))
    bench.clock.advance(OPEN_FOR_S + 11)
    await store.accept_turn(await bench.turn("b"))


async def test_an_acceptance_that_is_tried_again_as_it_is_finds_its_turn_and_leaves_it_counted() -> None:
    """As the store's handle does after an answer that was lost: the same turn, which no client may have named."""
    bench = Bench(LimitSettings(user_concurrent_turns=1, user_requests_per_minute=1))
    turn = await bench.turn("a")
    assert (await bench.store.accept_turn(turn)).created
    again = await bench.store.accept_turn(turn)
    assert (again.created, again.turn.key) == (False, turn.key)
    assert bench.quotas.open_turns == 1
    await bench.finish(turn)
    bench.clock.advance(60)
    assert not (await bench.store.accept_turn(turn)).created
    assert bench.quotas.open_turns == 0


async def test_at_the_limit_a_turn_may_be_interrupted_but_no_other_begun() -> None:
    bench = Bench(LimitSettings(user_concurrent_turns=1))
    first = await bench.accept("a")
    with pytest.raises(QuotaExceeded):
        await bench.store.accept_turn(await bench.turn("b"), on_busy="interrupt")
    with pytest.raises(QuotaExceeded):
        await bench.store.accept_turn(await bench.turn("a"), on_busy="queue")
    assert bench.metrics.counts[("parley_refusals_total", "quota_exceeded")] == 2
    accepted = await bench.store.accept_turn(await bench.turn("a"), on_busy="interrupt")
    assert [turn.key for turn in accepted.interrupted] == [first.key]
    assert bench.quotas.open_turns == 2
