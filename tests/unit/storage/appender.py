"""A process that appends to a store and says what was acknowledged, until it is killed.

Run as ``python -m tests.unit.storage.appender <folder>``; prints ``<turn id> <last seq>`` for every acknowledged append.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from serve_app.domain.ids import TurnKey
from serve_app.storage.sqlite import SqliteStore
from tests.contract.store_inputs import conversation_key, delta, only, running, share

TURNS = 8
MOST = 100_000


async def main(folder: Path) -> None:
    store = await SqliteStore.open(folder)
    keys = [await running(store, conversation_key(f"c{number}")) for number in range(TURNS)]

    async def write(key: TurnKey) -> None:
        for seq in range(2, MOST):
            reply = only(await store.append([share(key, delta(key, seq, f"w{seq}"))]))
            sys.stdout.write(f"{key.turn_id} {reply.last_seq}\n")
            sys.stdout.flush()

    await asyncio.gather(*(write(key) for key in keys))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
