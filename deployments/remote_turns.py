"""The turns stage over its handle and the channel: what the ingress, and the stage itself, see of it.

A turn is one request, sent by reference from a task with a fresh context: it lives on when its client, or the very replica
that sent it, goes away. Where its owner dies the sender knows first, and sends it again, naming the dead, so that the next
owner need not wait for the lease to run out.

    run ─► run_turn ─► owner A ─ dies ─► ActorDiedError ─► run_turn(dead=A) ─► owner B ─► the same tail goes on
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
from msgspec import Struct
from ray.exceptions import ActorDiedError, RayActorError

from deployments.asked import asked_of
from deployments.handles import GRACE_S, Handle
from serve_app.channel.port import Address, Channel, Lost
from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import Owner
from serve_app.errors import ParleyError, TooLarge
from serve_app.telemetry import logger
from serve_app.turns.port import LiveTail, TailEnd, TailItem

FOLLOW = "turns.follow"
CANCEL = "turns.cancel"
ANSWERED = "turns.answered"
ASK_TIMEOUT_S = 1.0
"""For what an owner answers at once; one that is gone is known sooner."""
MAX_SENDS = 6
"""How often a turn is sent to another owner because the one before died; then it is the sweeper's."""
FIRST_WAIT_S = 0.05

log = logger("turns.remote")


class FollowRequest(Struct, frozen=True, kw_only=True):
    turn_id: str
    to: Address
    after_seq: int


_PACK = msgspec.msgpack.Encoder()
_ITEMS: msgspec.msgpack.Decoder[list[TailItem]] = msgspec.msgpack.Decoder(list[TailItem])


class RemoteFollower:
    """The owner's end of a tail: pushes batches over the channel to whoever follows."""

    def __init__(self, channel: Channel, to: Address) -> None:
        self._channel = channel
        self._to = to

    def push(self, items: Sequence[TailItem]) -> bool:
        try:
            self._channel.send(self._to, [_PACK.encode(list(items))])
        except TooLarge:
            # The log has it, in pages. Raising here would end the writer that shows everybody's turns.
            self._channel.send(self._to, [_PACK.encode([TailEnd(complete=False)])])
            return False
        return True


class RemoteTail:
    """The follower's end: an inbox of encoded batches, read as a ``LiveTail``."""

    def __init__(self, channel: Channel, max_items: int) -> None:
        self._channel = channel
        self._inbox = channel.open(max_items=max_items)
        self._unwatch: Lost | None = None

    @property
    def address(self) -> Address:
        return self._inbox.address

    def end(self) -> None:
        """Nothing more is expected."""
        self._inbox.end()

    def end_with(self, owner: Owner) -> None:
        """Ends when the owner's process does."""
        self._unwatch = self._channel.watch(owner.endpoint, self.end)

    async def __aiter__(self) -> AsyncIterator[Sequence[TailItem]]:
        async for batches in self._inbox:
            items = [item for batch in batches for item in _ITEMS.decode(batch)]
            yield items
            if isinstance(items[-1], TailEnd):
                return
        yield [TailEnd(complete=False)]

    def listen(self, take: Callable[[Sequence[TailItem]], None], over: Callable[[], None]) -> None:
        ended = False

        def read(batches: list[bytes]) -> None:
            nonlocal ended
            for batch in batches:
                if ended:
                    return
                items = _ITEMS.decode(batch)
                take(items)
                if isinstance(items[-1], TailEnd):
                    ended = True
                    over()

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                take([TailEnd(complete=False)])
                over()

        self._inbox.pour(read, end)

    async def aclose(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
        self._inbox.close()


class RemoteTurns:
    """``Turns`` over a handle of the stage."""

    def __init__(self, handle: Handle, channel: Channel, max_items: int) -> None:
        self._handle = handle.options(_by_reference=True)
        self._channel = channel
        self._max_items = max_items
        self._asked = asked_of("Turns")
        self._sending: set[asyncio.Task[None]] = set()
        self._starting: set[str] = set()

    async def run(self, key: TurnKey, *, after_seq: int = 1) -> LiveTail:
        tail = RemoteTail(self._channel, self._max_items)
        self._send_beside(key, tail, after_seq)
        return tail

    def start(self, key: TurnKey) -> None:
        if key.turn_id in self._starting:
            return  # a sweep finds it again for as long as nobody has room for it
        self._starting.add(key.turn_id)
        task = self._send_beside(key, None, 0)
        task.add_done_callback(lambda _: self._starting.discard(key.turn_id))

    async def follow(self, key: TurnKey, owner: Owner, *, after_seq: int) -> LiveTail:
        tail = RemoteTail(self._channel, self._max_items)
        request = FollowRequest(turn_id=key.turn_id, to=tail.address, after_seq=after_seq)
        try:
            payload = _PACK.encode(request)
            if await self._channel.request(owner.endpoint, FOLLOW, payload, timeout_s=ASK_TIMEOUT_S) == b"1":
                tail.end_with(owner)
            else:
                tail.end()
        except ParleyError:
            tail.end()
        except BaseException:
            await tail.aclose()
            raise
        return tail

    async def hint_cancel(self, key: TurnKey, owner: Owner) -> None:
        await self._hint(CANCEL, key, owner)

    async def hint_answer(self, key: TurnKey, owner: Owner) -> None:
        await self._hint(ANSWERED, key, owner)

    async def _hint(self, what: str, key: TurnKey, owner: Owner) -> None:
        try:
            await self._channel.request(owner.endpoint, what, key.turn_id.encode(), timeout_s=ASK_TIMEOUT_S)
        except ParleyError as error:
            log.info("hint_lost", hint=what, turn=key.turn_id, error=error.message)

    def _send_beside(self, key: TurnKey, tail: RemoteTail | None, after_seq: int) -> asyncio.Task[None]:
        # A fresh context: what belongs to a request is cancelled with it.
        task = asyncio.create_task(self._send(key, tail, after_seq), context=contextvars.Context())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    async def _send(self, key: TurnKey, tail: RemoteTail | None, after_seq: int) -> None:
        """Returns when the turn has ended, here or elsewhere. The log tells followers what became of it."""
        run_turn = self._handle.options(method_name="run_turn")
        to = None if tail is None else tail.address
        dead: tuple[str, ...] = ()
        wait_s = FIRST_WAIT_S
        for sent in range(MAX_SENDS):
            try:
                with self._asked.running():
                    ran = await run_turn.remote(key, to, after_seq, dead)
            except RayActorError as error:
                # Only who is dead for certain is named; one that cannot be reached may be alive and writing.
                if isinstance(error, ActorDiedError) and error.actor_id is not None:
                    dead = (*dead, error.actor_id)
                log.warning("owner_died", turn=key.turn_id, owner=error.actor_id)
            except Exception as error:
                log.warning("turn_left_to_sweeper", turn=key.turn_id, error=str(error)[:200])
                break
            else:
                if ran or sent == 0:
                    if tail is not None:
                        asyncio.get_running_loop().call_later(GRACE_S, tail.end)
                    return
                # It is still its last owner's, of whose death there is no certainty: its lease has to run out.
            await asyncio.sleep(wait_s)
            wait_s *= 2
        if tail is not None:
            tail.end()
