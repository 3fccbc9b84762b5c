"""A process with a channel of its own: ``python -m tests.simulators.channel.peer``.

Reads the secret from its input, prints its endpoint, answers ``echo`` and never answers ``hang``, until its input ends.
"""

from __future__ import annotations

import asyncio
import sys

from serve_app.channel.zeromq import ZeromqChannel
from serve_app.settings import ChannelSettings


async def _echo(payload: bytes) -> bytes:
    return payload


async def _hang(_payload: bytes) -> bytes:
    await asyncio.Event().wait()
    return b""


async def main() -> None:
    channel = ZeromqChannel(ChannelSettings(), sys.stdin.readline().strip())
    channel.handle("echo", _echo)
    channel.handle("hang", _hang)
    await channel.start()
    sys.stdout.write(channel.endpoint + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await channel.stop()


if __name__ == "__main__":
    asyncio.run(main())
