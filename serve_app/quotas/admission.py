"""Admission of turns, where the store is: a turn is counted as it is accepted, and let go as its end is appended.

Trials count among everybody's batch turns, and not among those of a tenant or user: nobody asked for them, and they must take
nothing from those who do.

It stands around the store because both pass there anyway: counting costs no message of its own, and one that is refused
costs the store nothing. A Store replica that was restarted knows the running turns again with their next appends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from msgspec.structs import replace

from serve_app.domain.identity import Limits
from serve_app.domain.ids import ConversationKey
from serve_app.domain.turns import AcceptedTurn, AppendReply, AppendTurn, NewTurn, OnBusy
from serve_app.errors import Overloaded, ParleyError, QuotaExceeded
from serve_app.quotas.port import Opening, Sign, TurnQuotas
from serve_app.quotas.terms import tenant_limits, user_limits
from serve_app.settings import LimitSettings
from serve_app.storage.port import Store
from serve_app.storage.repeats import accepted_before
from serve_app.telemetry import Metrics

TELL_S = 10.0
"""How often a turn that runs is told of."""
OPEN_FOR_S = 3 * TELL_S
"""How long a turn counts that is not told of any more: one that waits for another, or has lost its owner."""
BRIEFLY_S = 2.0
"""The same for one that was only accepted, where another Store replica may hear of its end."""


def admitting(
    store: Store, quotas: TurnQuotas, limits: LimitSettings, metrics: Metrics, *, counted_once: bool = True
) -> Store:
    """``store``, which accepts as many turns as ``limits`` and the terms of whoever asks allow.

    ``counted_once``: whether all Store replicas have the same ``quotas``. Otherwise each goes by the turns whose appends it
    sees, and limits are by replica.
    """
    return cast(
        Store, AdmittingStore(store, quotas, limits, metrics, accepted_for_s=OPEN_FOR_S if counted_once else BRIEFLY_S)
    )


class AdmittingStore:
    """The Store port around another store; what is not about the beginning and end of turns is the other's own.

    ``accept_turn`` also raises QuotaExceeded and Overloaded, but never for an input that has its turn already.
    """

    def __init__(
        self,
        store: Store,
        quotas: TurnQuotas,
        limits: LimitSettings,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        *,
        accepted_for_s: float = OPEN_FOR_S,
    ) -> None:
        self.store = store
        self._accepted_for_s = accepted_for_s
        self._quotas = quotas
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._tell_at: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def accept_turn(self, turn: NewTurn, *, on_busy: OnBusy = "reject", max_waiting: int = 8) -> AcceptedTurn:
        opening = self._opening(turn)
        try:
            await self._quotas.open_turn(opening)
        except (QuotaExceeded, Overloaded) as refusal:
            accepted = await accepted_before(self.store, turn)
            if accepted is not None:
                return accepted
            if not (on_busy == "interrupt" and await self._opened_instead(opening, turn)):
                self._metrics.count("parley_refusals_total", code=refusal.code)
                raise
        try:
            accepted = await self.store.accept_turn(turn, on_busy=on_busy, max_waiting=max_waiting)
        except BaseException:
            # Should it have been accepted all the same, its owner's first append counts it.
            await self._quotas.withdraw_turn(opening)
            raise
        if accepted.created:
            self._tell_at[turn.key.turn_id] = self._clock() + min(TELL_S, self._accepted_for_s / 2)
        elif accepted.turn.key != turn.key or accepted.turn.ended:
            await self._quotas.withdraw_turn(opening)
        return accepted

    async def append(self, batch: Sequence[AppendTurn]) -> list[AppendReply]:
        replies = await self.store.append(batch)
        signs = self._signs(batch, replies)
        if signs:  # once in a turn's life, or ten seconds of it
            await self._quotas.tell(signs)
        return replies

    def _signs(self, batch: Sequence[AppendTurn], replies: Sequence[AppendReply]) -> list[Sign]:
        now = self._clock()
        signs = []
        for share, reply in zip(batch, replies, strict=True):
            turn_id = share.key.turn_id
            if reply.status == "ok" and share.finish is None:
                if now < self._tell_at.get(turn_id, 0.0):
                    continue
                self._tell_at[turn_id] = now + TELL_S
                signs.append(_sign(share, for_s=OPEN_FOR_S))
                continue
            # A lost one has been deleted, or has an owner whose next append counts it again.
            self._tell_at.pop(turn_id, None)
            usage = share.finish.usage if share.finish is not None and reply.status == "ok" else None
            tokens = usage.input_tokens + usage.output_tokens if usage is not None else 0
            signs.append(_sign(share, closed=True, tokens=tokens))
        if len(self._tell_at) > 2 * self._limits.open_turns:
            self._tell_at = {turn_id: at for turn_id, at in self._tell_at.items() if at > now}
        return signs

    def _opening(self, turn: NewTurn) -> Opening:
        limits = self._limits
        trial = turn.key.conversation.trial
        batch = turn.priority == "batch" or trial
        tenant_id, user_id = _counted_for(turn.key.conversation)
        return Opening(
            turn_id=turn.key.turn_id,
            tenant_id=tenant_id,
            user_id=user_id,
            user_limits=Limits() if trial else user_limits(turn.principal, limits),
            tenant_limits=Limits() if trial else tenant_limits(turn.principal, limits),
            max_open=min(limits.open_turns, limits.open_turns_batch) if batch else limits.open_turns,
            for_s=self._accepted_for_s,
        )

    async def _opened_instead(self, opening: Opening, turn: NewTurn) -> bool:
        """Opens a turn in the place of the one that it interrupts: whoever has as many as allowed may change their mind."""
        try:
            active = (await self.store.get_conversation(turn.key.conversation)).active_turn_id
            if active is None:
                return False
            await self._quotas.open_turn(replace(opening, instead_of=active))
        except ParleyError:
            return False
        return True


def _counted_for(key: ConversationKey) -> tuple[str, str]:
    """Whose turns those of a conversation are; a trial's are nobody's."""
    return ("", "") if key.trial else (key.tenant_id, key.user_id)


def _sign(share: AppendTurn, *, for_s: float = 0.0, closed: bool = False, tokens: int = 0) -> Sign:
    tenant_id, user_id = _counted_for(share.key.conversation)
    return Sign(
        turn_id=share.key.turn_id,
        tenant_id=tenant_id,
        user_id=user_id,
        for_s=for_s,
        closed=closed,
        tokens=tokens,
    )
