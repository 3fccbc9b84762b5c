"""An HTTP client that gets one message answered: the AI SDK's stream, and every way there is to go on with it.

After a break it repeats the POST under the same ``Idempotency-Key`` while it does not know whether it was accepted; once it
does, it goes on by the turn's events (``after`` or ``Last-Event-ID``), by the conversation's full replay, or by the POST again.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import aiohttp

from tests.chaos.client import Client, Left, check_order
from tests.chaos.ledger import Backoff, Entry
from tests.chaos.transcript import ChunkReader

SILENCE_S = 20.0
"""Streams say something every 15 s, be it a comment."""
WAYS = ("after", "last-event-id", "replay", "repeat")


class StreamClient(Client):
    """Speaks ``/api/chat`` and what belongs to it."""

    async def _connect(self, entry: Entry, backoff: Backoff, rng: random.Random) -> None:
        turn_id, cursor = entry.transcript.turn_id, entry.transcript.cursor
        if not turn_id:
            entry.sends += 1
            await self._post(entry, backoff)
            return
        entry.resumes += 1
        match rng.choice(WAYS):
            case "after":
                await self._events(entry, backoff, params={"after": str(cursor)})
            case "last-event-id":
                await self._events(entry, backoff, headers={"Last-Event-ID": f"{turn_id}:{cursor}"})
            case "replay":
                await self._replay(entry, backoff)
            case _:
                await self._post(entry, backoff)

    # -- the ways

    async def _post(self, entry: Entry, backoff: Backoff) -> None:
        plan = entry.plan
        message = {"id": f"m-{plan.client_turn_id}", "role": "user", "parts": [{"type": "text", "text": plan.content}]}
        body = {
            "id": plan.conversation_id, "messages": [message], "trigger": "submit-message", "model_id": plan.model.name,
        }  # fmt: skip
        headers = self._named(entry) | {"Idempotency-Key": plan.client_turn_id}
        async with self._session.post(
            f"{self._url}/api/chat", json=body, headers=headers, timeout=_TIMEOUT
        ) as response:
            await _refuse(entry, response)
            await self._read_chunks(entry, response, backoff)

    async def _replay(self, entry: Entry, backoff: Backoff) -> None:
        """The AI SDK's way. Nothing runs any more: then what is missing is among the turn's events."""
        address = f"{self._url}/api/chat/{entry.plan.conversation_id}/stream"
        async with self._session.get(address, headers=self._named(entry), timeout=_TIMEOUT) as response:
            if response.status != 204:
                await _refuse(entry, response)
                await self._read_chunks(entry, response, backoff)
                return
        await self._events(entry, backoff, params={"after": str(entry.transcript.cursor)})

    async def _events(self, entry: Entry, backoff: Backoff, **options: Any) -> None:
        address = f"{self._url}/api/turns/{entry.transcript.turn_id}/events"
        headers = self._named(entry) | options.pop("headers", {})
        async with self._session.get(address, headers=headers, timeout=_TIMEOUT, **options) as response:
            if response.status == 204:
                entry.transcript.violations.append("204 for a turn whose end has not been shown")
                raise Left("204")
            await _refuse(entry, response)
            async with aclosing(sse(response)) as events:
                async for _, data in events:
                    event = json.loads(data)
                    if event["type"] == "error":
                        entry.refused(event["code"], event["message"], event["retryable"])
                        raise Left(f"error in the stream: {event['message']}")
                    if "seq" not in event:
                        continue
                    check_order(entry, event)
                    await self._take(entry, event, backoff)
                    if entry.over:
                        return
        raise Left("the stream ended before the turn")

    async def _read_chunks(self, entry: Entry, response: aiohttp.ClientResponse, backoff: Backoff) -> None:
        reader = ChunkReader()
        async with aclosing(sse(response)) as events:
            async for event_id, data in events:
                if data == "[DONE]":
                    break
                event = reader.read(event_id, json.loads(data))
                if event is not None:
                    await self._take(entry, event, backoff)
        if not reader.finished:
            raise Left("the stream ended before the turn")
        if reader.text != entry.transcript.text:
            entry.transcript.violations.append(
                f"the AI SDK's client shows {reader.text[-80:]!r}, the events say {entry.transcript.text[-80:]!r}"
            )


async def sse(response: aiohttp.ClientResponse) -> AsyncGenerator[tuple[str | None, str]]:
    """Id and data of each event as it comes. What is cut off in the middle of an event is left out."""
    buffer = b""
    async for piece in response.content.iter_any():
        buffer += piece
        *blocks, buffer = buffer.split(b"\n\n")
        for block in blocks:
            event_id, data = None, []
            for line in block.decode().split("\n"):
                if line.startswith("id: "):
                    event_id = line[4:]
                elif line.startswith("data: "):
                    data.append(line[6:])
            if data:
                yield event_id, "\n".join(data)


async def _refuse(entry: Entry, response: aiohttp.ClientResponse) -> None:
    """Raises Left where the answer is no stream, and notes what it is."""
    if response.status == 200:
        return
    text = await response.text()
    after_s = float(response.headers.get("Retry-After", "0") or 0)
    try:
        problem = json.loads(text)
        code, message, retryable = problem["code"], problem["detail"], problem["retryable"]
    except (ValueError, KeyError, TypeError):
        code, message, retryable = f"http {response.status}", text[:100], response.status >= 500
    entry.refused(code, message, retryable)
    if not retryable:
        entry.gave_up = f"{code}: {message}"
    raise Left(f"{response.status} {code}: {message}"[:160], after_s)


_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10.0, sock_read=SILENCE_S)
