"""A process that serves turns on a store, says what was acknowledged, and goes on until it dies.

Run as ``python -m tests.simulators.storage.busy_store FOLDER SEED DEATH``. DEATH is ``write`` or ``sync`` for the moment it
dies in by itself, ``open`` for a write while the file is made or opened, ``kill`` to wait for it, and ``unsafe`` to wait for
it without syncing. The disk forgets what was not
synced. Turns that an earlier process left are taken over. One JSON line on standard output for each acknowledgement, see
``ledger``.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import msgspec

from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import Owner
from serve_app.storage.sqlite import SqliteStore, connection
from tests.contract.store_inputs import conversation_key, delta, finish, new_turn, only, response, share
from tests.simulators.storage.disk import ForgetfulDisk
from tests.simulators.storage.ledger import CONVERSATIONS, Acknowledged, answer_of

MOST_TURNS = 500


class Busy:
    """One conversation's turns, one after the other, some of them queued behind the running one."""

    def __init__(self, store: SqliteStore, conversation: ConversationKey, owner: Owner, chance: random.Random) -> None:
        self._store = store
        self._conversation = conversation
        self._owner = owner
        self._chance = chance
        self._accepted = 0

    async def work(self) -> None:
        head = await self._store.ensure_conversation(self._conversation)
        next_key = None
        if head.active_turn_id is not None:
            next_key = TurnKey(conversation=self._conversation, turn_id=head.active_turn_id)
        for _ in range(MOST_TURNS):
            next_key = await self._run(next_key or await self._accept())

    async def _accept(self) -> TurnKey:
        self._accepted += 1
        content = f"{self._owner.replica_id} {self._accepted}"
        accepted = await self._store.accept_turn(new_turn(self._conversation, content), on_busy="queue")
        say(Acknowledged(turn_id=accepted.turn.key.turn_id, content=content))
        return accepted.turn.key

    async def _run(self, key: TurnKey) -> TurnKey | None:
        before = await self._store.get_turn(key)
        dead = () if before.owner is None else (before.owner.replica_id,)
        turn = (await self._store.claim_turn(key, self._owner, lease_s=60, history_limit=8, dead=dead)).turn
        seq = turn.last_seq
        for _ in range(self._chance.randint(1, 3)):
            seq += 1
            reply = only(await self._store.append([share(key, delta(key, seq, f"w{seq}"), epoch=turn.epoch)]))
            assert (reply.status, reply.last_seq) == ("ok", seq)
            say(Acknowledged(turn_id=key.turn_id, last_seq=seq))
        if self._chance.random() < 0.5:
            await self._accept()
        answer = answer_of(key)
        last = share(key, response(key, seq + 1, answer), epoch=turn.epoch, finish=finish(key, answer))
        reply = only(await self._store.append([last]))
        assert reply.status == "ok"
        say(Acknowledged(turn_id=key.turn_id, last_seq=seq + 1, ended=True))
        return reply.next_turn


def say(acknowledged: Acknowledged) -> None:
    os.write(1, msgspec.json.encode(acknowledged) + b"\n")  # in one piece, and past any buffer of ours


async def main(folder: Path, seed: int, death: str) -> None:
    chance = random.Random(seed)
    disk = ForgetfulDisk()
    connection._CHECKPOINT_PAGES = 40  # so that it dies inside checkpoints, too
    if death == "open":
        disk.die_in("write", chance.randint(1, 30), seed)
    store = await SqliteStore.open(folder)
    if death == "unsafe":
        store._writer._connection.pragma("synchronous", "off")
    elif death == "write":
        disk.die_in("write", chance.randint(1, 400), seed)
    elif death == "sync":
        disk.die_in("sync", chance.randint(1, 60), seed)
    owner = Owner(replica_id=f"r{seed}", endpoint="tcp://busy")
    busy = [Busy(store, conversation_key(name), owner, chance) for name in CONVERSATIONS]
    await asyncio.gather(*(one.work() for one in busy))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
