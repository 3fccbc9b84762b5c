"""A replica's part in one provider's quota, which all replicas hold together through a service beside the store.

A call spends from what this replica has leased ahead, and costs no message. Only where the lease is used up, or the quota
nearly is, do calls wait here in line; one question for all of them goes to the service, again and again until they are
through. What calls have used is told with the next question.

While the service is away, calls spend what is leased, and then an even share of the limit for each replica that there was,
counted here. When it is back, or another one begins in its place, it hears of this replica's last minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Callable, Mapping

from serve_app.domain.priority import Priority
from serve_app.errors import ParleyError, QuotaExceeded
from serve_app.models.provider_ledger import Ledger, Tab
from serve_app.models.provider_line import Call, Waiting
from serve_app.models.provider_quota import Reservation
from serve_app.rates.memory import MemoryRates
from serve_app.rates.port import LEASE_S, NOTHING, Amount, Answer, Ask, Rate, Rates, Waiter
from serve_app.telemetry import Metrics, logger

ASK_TIMEOUT_S = 1.0
AWAY_S = 2.0
"""How long a service that did not answer is left alone."""
POLL_S = (0.1, 0.5)
"""The service is asked again for calls in line no sooner, and no later."""
RENEW_S = 2.0
"""So long before a lease ends it is renewed, or given back if nothing was spent of it."""
TELL_S = 2.0
"""What was spent is told no later."""
LEASES_A_MINUTE = 20
AHEAD_S = 5.0
"""A lease is what was spent in so long."""
MAX_TOLD = 32
"""Calls in line that the service is told of at once."""
MANY = 1_000_000_000
"""What stands for any number where there is no limit."""
REPLICAS_BEFORE_ANY_ANSWER = 4

log = logger("models")


class ProviderAccount:
    """Of one provider: its line, its leases, and the one task that asks for all of them while there is something to ask.

    ``limits`` by model, the provider's own under ``""``.
    """

    def __init__(
        self,
        provider: str,
        limits: Mapping[str, Rate],
        rates: Rates,
        metrics: Metrics,
        replica_id: str,
        clock: Callable[[], float],
    ) -> None:
        self._provider = provider
        self._limits = limits
        self._metrics = metrics
        self._replica_id = replica_id
        self._clock = clock
        self._service = Tab(rates)
        self._alone = Tab(MemoryRates(clock))
        self._ledger = Ledger(self._service, self._alone)
        self._waiting = Waiting()
        self._models: set[str] = set()
        self._replicas = REPLICAS_BEFORE_ANY_ANSWER
        self._away_until = float("-inf")
        self._was_away = False
        self._asked_at = float("-inf")
        self._poll_s = 0.0
        self._retry_after_s = 0.0
        self._no_ahead_until = float("-inf")
        self._targets: dict[str, Amount] = {}
        self._news = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None

    def limited(self, model: str) -> bool:
        return "" in self._limits or model in self._limits

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return len(self._waiting)

    def calls(self) -> Mapping[str, tuple[float, float]]:
        return self._ledger.calls()

    async def reserve(
        self, model: str, tenant_id: str, estimate: int, priority: Priority, wait_s: float
    ) -> Reservation:
        now = self._clock()
        tokens = min(self._ledger.scaled(model, estimate), self._most(model).tokens)
        if not self._waiting.before(priority) and self._spend(model, tokens, now):
            self._look(now, model)
            return _Reserved(self, model, tokens, estimate, now)
        call = self._waiting.join(tenant_id, model, tokens, priority, now, self._refusal())
        self._look(now)
        try:
            async with asyncio.timeout(wait_s):
                await call.room
        except TimeoutError:
            if not _granted(call):
                raise self._refusal() from None
        except asyncio.CancelledError:
            if _granted(call):
                self._correct(model, self._clock(), Amount(-1, -tokens))
            raise
        finally:
            self._waiting.leave(call)
        return _Reserved(self, model, tokens, estimate, self._clock())

    def settled(self, model: str, reserved: int, estimate: int, used: int, at: float) -> None:
        now = self._clock()
        self._ledger.ended(model, estimate, used, now - at)
        more = used - reserved
        if more:
            # What is too little is charged from now on, when at the latest the provider counts it.
            self._correct(model, now if more > 0 else at, Amount(0, more))

    def released(self, model: str, reserved: int, at: float) -> None:
        self._correct(model, at, Amount(-1, -reserved))

    async def aclose(self) -> None:
        for call in self._waiting.first(len(self._waiting)):
            self._waiting.leave(call)
            if not call.room.done():
                call.room.set_exception(self._refusal())
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        if self._service.book is not None and (self._service.held or self._service.unheard):
            self._service.held = {}
            with contextlib.suppress(ParleyError, TimeoutError):
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    await self._service.rates.ask(self._question(self._service, {}, self._clock()))

    # Spending

    def _spend(self, model: str, tokens: int, now: float) -> bool:
        """Takes a call's worth from a lease, where one covers it."""
        for tab in (self._service, self._alone):
            left = tab.holds(model, now)
            if left.requests >= 1 and left.tokens >= tokens:
                tab.held[model] = left - Amount(1, tokens)
                self._note(model, now, Amount(1, tokens))
                return True
        return False

    def _note(self, model: str, at: float, amount: Amount, heard: Tab | None = None) -> None:
        self._models.add(model)
        self._ledger.note(model, at, amount, heard)

    def _correct(self, model: str, at: float, amount: Amount) -> None:
        self._ledger.note(model, at, amount)
        self._look(self._clock())

    def _most(self, model: str) -> Amount:
        """A minute's worth: of the model's limit and the provider's, the lower."""
        both = [rate for rate in (self._limits.get(""), self._limits.get(model)) if rate is not None]
        return Amount(
            min((rate.requests for rate in both if rate.requests is not None), default=MANY),
            min((rate.tokens for rate in both if rate.tokens is not None), default=MANY),
        )

    def _refusal(self) -> QuotaExceeded:
        wait_s = max(self._retry_after_s, 1.0)
        return QuotaExceeded(
            f"The model provider {self._provider!r} is asked for all it gives in a minute; "
            f"try again in {math.ceil(wait_s)} s.",
            None,
            wait_s,
        )

    # Asking

    def _look(self, now: float, model: str | None = None) -> None:
        """Sees to it that the service is asked when that is due; ``model`` is one of whose lease was spent."""
        if self._asking is None or self._asking.done():
            # A context of its own: whoever asks first may leave, and tasks of the request would be cancelled.
            self._asking = asyncio.create_task(self._keep_asking(), context=contextvars.Context())
        elif self._waiting or (model is not None and self._low(model, now)):
            self._news.set()

    async def _keep_asking(self) -> None:
        while (due_s := self._due_s(self._clock())) is not None:
            if due_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(due_s):
                        await self._news.wait()
                self._news.clear()
                continue
            await asyncio.sleep(0)  # whoever else wants something now
            try:
                await self._ask()
            except Exception:
                log.exception("provider_quota_failed", provider=self._provider)
                self._away_until, self._was_away = self._asked_at + AWAY_S, True
        self._report_waiting()

    def _due_s(self, now: float) -> float | None:
        """How long until there is something to ask or to tell; None: nothing is under way."""
        due = []
        if self._waiting:
            due.append(self._asked_at + self._poll_s)
        if self._wanted(now):
            due.append(self._asked_at)
        tab = self._tab(now)
        if any(held != NOTHING for held in tab.held.values()):
            due.append(max(tab.until - RENEW_S, self._asked_at))
        if self._service.unheard:
            due.append(max(self._asked_at + TELL_S, self._away_until))
        return max(0.0, min(due) - now) if due else None

    def _wanted(self, now: float) -> dict[str, Amount]:
        """What to take ahead: for models that are called, as much as was spent of late, where less than half is left."""
        if now < self._no_ahead_until:
            return {}
        wanted: dict[str, Amount] = {}
        tab = self._tab(now)
        self._targets = {}
        for model, spent in self._ledger.lately(now, AHEAD_S).items():
            most = self._most(model)
            target = Amount(
                MANY if most.requests == MANY else min(2 * max(1, spent.requests), most.requests // LEASES_A_MINUTE),
                MANY if most.tokens == MANY else min(2 * max(1, spent.tokens), most.tokens // LEASES_A_MINUTE),
            )
            if target.requests < 1 or target.tokens < 1:
                continue
            self._targets[model] = target
            held = tab.holds(model, now)
            if self._low(model, now):
                wanted[model] = Amount(
                    max(0, target.requests - held.requests) or 1, max(0, target.tokens - held.tokens) or 1
                )
        return wanted

    def _low(self, model: str, now: float) -> bool:
        """Whether less than half is left, by what was last found to be wanted."""
        if now < self._no_ahead_until:
            return False
        target, held = self._targets.get(model, NOTHING), self._tab(now).holds(model, now)
        return held.requests * 2 < target.requests or held.tokens * 2 < target.tokens

    def _tab(self, now: float) -> Tab:
        return self._service if now >= self._away_until else self._alone

    async def _ask(self) -> None:
        now = self._asked_at = self._clock()
        self._ledger.forget(now)
        tab = self._tab(now)
        if now >= tab.until or not self._ledger.lately(now, LEASE_S):
            tab.held = {}  # its time is over, or nobody has use for it
        told = {call.ticket: call for call in self._waiting.first(MAX_TOLD)}
        question = self._question(tab, told, now)
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                answer = await tab.rates.ask(question)
        except BaseException as error:
            for spent in question.spent:
                tab.note(spent.model, now - spent.age_s - 1, spent.amount)
            if not isinstance(error, ParleyError | TimeoutError):
                raise
            if not self._was_away:  # not again and again
                log.warning("provider_quota_away", provider=self._provider, reason=str(error) or "no answer in time")
            self._away_until = self._clock() + AWAY_S
            self._was_away = True
            self._poll_s = 0.0
            return
        self._take(tab, answer, question, told, now)

    def _question(self, tab: Tab, told: Mapping[int, Call], now: float) -> Ask:
        tab.number += 1
        limits = {model: rate for model, rate in self._limits.items() if model == "" or model in self._models}
        limits |= {call.model: self._limits[call.model] for call in told.values() if call.model in self._limits}
        if tab is self._alone:
            limits = {model: _part(rate, self._replicas) for model, rate in limits.items()}
        return Ask(
            provider=self._provider,
            replica_id=self._replica_id,
            number=tab.number,
            limits=limits,
            book=tab.book or "",
            alone=self._was_away and tab is self._service,
            spent=tab.report(now),
            kept=dict(tab.held),
            wanted=self._wanted(now),
            waiting=tuple(
                Waiter(
                    ticket=call.ticket,
                    tenant_id=call.tenant_id,
                    model=call.model,
                    tokens=call.tokens,
                    live=call.priority == "live",
                    age_s=now - call.since,
                )
                for call in told.values()
            ),
        )

    def _take(self, tab: Tab, answer: Answer, question: Ask, told: Mapping[int, Call], asked_at: float) -> None:
        now = self._clock()
        if answer.book != tab.book:
            begins_anew = tab.book is not None
            tab.book = answer.book
            if begins_anew:
                tab.held = {}
                self._ledger.tell_again(tab, now)
                self._poll_s = 0.0
                return
        if tab is self._service:
            self._was_away = False
            self._replicas = max(1, answer.replicas)
        tab.until = asked_at + LEASE_S
        for model, ahead in answer.ahead.items():
            tab.held[model] = tab.held.get(model, NOTHING) + ahead
        if question.wanted and len(answer.ahead) < len(question.wanted):
            self._no_ahead_until = now + 1.0
        for ticket in answer.granted:
            call = told[ticket]
            if not self._waiting.has(call) or call.room.done():  # it has left meanwhile
                tab.note(call.model, now, Amount(-1, -call.tokens))
                continue
            self._note(call.model, now, Amount(1, call.tokens), heard=tab)
            self._let_through(call)
        for call in self._waiting.first(MAX_TOLD):
            if not self._spend(call.model, call.tokens, now):
                break
            self._let_through(call)
        self._retry_after_s = answer.retry_after_s
        all_through = answer.retry_after_s == 0.0
        self._poll_s = 0.0 if all_through else min(max(answer.retry_after_s, POLL_S[0]), POLL_S[1])
        self._report_waiting()

    def _let_through(self, call: Call) -> None:
        self._waiting.leave(call)
        if not call.room.done():
            call.room.set_result(None)

    def _report_waiting(self) -> None:
        priorities: tuple[Priority, Priority] = ("live", "batch")
        for priority in priorities:
            waiting = self._waiting.count(priority)
            self._metrics.gauge("parley_provider_quota_waiting", waiting, endpoint=self._provider, priority=priority)


class _Reserved:
    """Implements ``Reservation``."""

    __slots__ = ("_account", "_at", "_ended", "_estimate", "_model", "_tokens")

    def __init__(self, account: ProviderAccount, model: str, tokens: int, estimate: int, at: float) -> None:
        self._account = account
        self._model = model
        self._tokens = tokens
        self._estimate = estimate
        self._at = at
        self._ended = False

    def settle(self, used_tokens: int) -> None:
        if not self._ended:
            self._ended = True
            self._account.settled(self._model, self._tokens, self._estimate, used_tokens, self._at)

    def release(self) -> None:
        if not self._ended:
            self._ended = True
            self._account.released(self._model, self._tokens, self._at)


def _granted(call: Call) -> bool:
    return call.room.done() and not call.room.cancelled() and call.room.exception() is None


def _part(rate: Rate, replicas: int) -> Rate:
    """An even share; at least one of each, so that nobody stands still for ever."""
    return Rate(
        requests=None if rate.requests is None else max(1, rate.requests // replicas),
        tokens=None if rate.tokens is None else max(1, rate.tokens // replicas),
    )
