"""A WebSocket client that gets one message answered, whatever happens to its connections.

It repeats a query under the same ``client_turn_id`` while it does not know whether it was accepted, and resumes behind the last
event it has once it knows.
"""

from __future__ import annotations

import asyncio
import json
import random

import aiohttp

from tests.chaos.client import Client, Left, check_order
from tests.chaos.ledger import Backoff, Entry
from tests.chaos.transcript import Json

SILENCE_S = 6.0
"""A socket that says nothing for as long is pinged, and left when it does not answer the ping either."""
OPEN_S = 10.0


class SocketClient(Client):
    """Speaks ``/ws/chat``."""

    async def _connect(self, entry: Entry, backoff: Backoff, rng: random.Random) -> None:
        async with asyncio.timeout(OPEN_S):
            socket = await self._session.ws_connect(
                f"{self._url}/ws/chat", headers=self._named(entry), max_msg_size=2**24, timeout=_NO_GOODBYE
            )
        try:
            await self._until(socket, entry, "connection.ack")
            await _say(socket, {"type": "session.update", "session_id": entry.plan.conversation_id})
            await self._until(socket, entry, "session.created")
            if entry.transcript.turn_id:
                entry.resumes += 1
                await self._resume(socket, entry)
            else:
                entry.sends += 1
                await _say(
                    socket,
                    {
                        "type": "query", "content": entry.plan.content, "model_id": entry.plan.model.name,
                        "client_turn_id": entry.plan.client_turn_id,
                    },
                )  # fmt: skip
            while not entry.over:
                frame = await self._frame(socket, entry)
                if "seq" in frame:
                    check_order(entry, frame)
                    await self._take(entry, frame, backoff)
        finally:
            await _drop(socket)

    async def _resume(self, socket: aiohttp.ClientWebSocketResponse, entry: Entry) -> None:
        transcript = entry.transcript
        await _say(socket, {"type": "resume", "turn_id": transcript.turn_id, "after_seq": transcript.cursor})

    async def _until(self, socket: aiohttp.ClientWebSocketResponse, entry: Entry, kind: str) -> Json:
        while True:
            frame = await self._frame(socket, entry)
            if frame["type"] == kind:
                return frame

    async def _frame(self, socket: aiohttp.ClientWebSocketResponse, entry: Entry) -> Json:
        """The next frame that is neither an error nor a farewell; those raise Left."""
        try:
            message = await socket.receive(SILENCE_S)
        except TimeoutError:
            await _say(socket, {"type": "ping"})
            try:
                message = await socket.receive(SILENCE_S)
            except TimeoutError:
                raise Left("silent, also when pinged") from None
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise Left(f"closed {socket.close_code}")
        frame: Json = json.loads(message.data)
        if frame["type"] == "reconnect":
            entry.told_to_reconnect += 1
            raise Left("told to reconnect", frame["after_ms"] / 1000)
        if frame["type"] == "error":
            entry.refused(frame["code"], frame["message"], frame["retryable"])
            if not frame["retryable"]:
                entry.gave_up = f"{frame['code']}: {frame['message']}"
            raise Left(f"error {frame['code']}: {frame['message']}"[:160])
        return frame


async def _say(socket: aiohttp.ClientWebSocketResponse, frame: Json) -> None:
    await socket.send_str(json.dumps(frame))


async def _drop(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Leaves without waiting for anybody's answer."""
    try:
        async with asyncio.timeout(1.0):
            await socket.close()
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass


_NO_GOODBYE = aiohttp.ClientWSTimeout(ws_close=0.5)
