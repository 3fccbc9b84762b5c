"""A process that appends one record at a time and says how long SQLite's log was when each was acknowledged.

Run as ``python -m tests.simulators.storage.logger_store FOLDER``; prints ``LOG_BYTES {acknowledgement}`` until it is killed.
No checkpoint comes in between, so that the log only grows.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from serve_app.storage.sqlite import SqliteStore, connection
from tests.contract.store_inputs import conversation_key, delta, only, running, share
from tests.simulators.storage.ledger import Acknowledged

MOST = 10_000


async def main(folder: Path) -> None:
    connection._CHECKPOINT_PAGES = 1_000_000
    store = await SqliteStore.open(folder)
    for number in range(MOST):
        key = await running(store, conversation_key(f"c{number % 3}-{number}"))
        say(folder, Acknowledged(turn_id=key.turn_id, content="Hello"))
        for seq in (2, 3):
            reply = only(await store.append([share(key, delta(key, seq, f"w{seq}"))]))
            say(folder, Acknowledged(turn_id=key.turn_id, last_seq=reply.last_seq))


def say(folder: Path, acknowledged: Acknowledged) -> None:
    size = (folder / "parley.db-wal").stat().st_size
    os.write(1, b"%d %s\n" % (size, msgspec.json.encode(acknowledged)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
