"""What is asked of the graph and of the programs beside it from the outside, patiently: stages may be down while it is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.chaos.desk import ToolRun
from tests.chaos.stream_client import sse
from tests.chaos.transcript import Json

PATIENCE_S = 30.0
_TIMEOUT = aiohttp.ClientTimeout(total=20.0)


class Unanswered(Exception):
    """The public API gave no answer for as long as one may wait for it."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any


@asynccontextmanager
async def http_session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without pooled connections: after a kill they would be dead ones."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:
        yield session


class Api:
    """The public API as one user."""

    def __init__(self, url: str, session: aiohttp.ClientSession, headers: dict[str, str]) -> None:
        self._url = url
        self._session = session
        self._headers = headers

    async def get(self, path: str, **params: str) -> Answer:
        """Status and body below 500. Raises Unanswered."""
        last = "nothing"
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        async with self._session.get(
                            self._url + path, params=params, headers=self._headers, timeout=_TIMEOUT
                        ) as response:
                            text = await response.text()
                            if response.status < 500:
                                return Answer(response.status, json.loads(text) if text else None)
                            last = f"{response.status} {text[:200]}"
                    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                        last = repr(error)[:200]
                    await asyncio.sleep(0.3)
        except TimeoutError:
            raise Unanswered(f"GET {path}: {last}") from None

    async def post(self, path: str, body: Json | None = None) -> Answer:
        """One attempt. Raises what aiohttp raises."""
        async with self._session.post(
            self._url + path, json=body or {}, headers=self._headers, timeout=_TIMEOUT
        ) as response:
            text = await response.text()
            return Answer(response.status, json.loads(text) if text else None)

    async def messages(self, conversation_id: str) -> list[Json]:
        """All messages, oldest first; none where there is no such conversation."""
        items: list[Json] = []
        cursor = ""
        while True:
            answer = await self.get(
                f"/api/conversations/{conversation_id}/messages", **({"cursor": cursor} if cursor else {})
            )
            if answer.status != 200:
                return items
            items += answer.body["items"]
            cursor = answer.body["next_cursor"]
            if not cursor:
                return items

    async def replay(self, turn_id: str) -> list[Json]:
        """Every event of an ended turn. Raises Unanswered."""
        last = "nothing"
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    events: list[Json] = []
                    try:
                        address = f"{self._url}/api/turns/{turn_id}/events"
                        async with self._session.get(address, headers=self._headers, timeout=_TIMEOUT) as response:
                            last = f"{response.status}"
                            if response.status in {404, 410}:
                                return []
                            if response.status == 200:
                                async with aclosing(sse(response)) as stream:
                                    async for _, data in stream:
                                        events.append(json.loads(data))
                                if not any(event["type"] == "error" for event in events):
                                    return [event for event in events if "seq" in event]
                    except (aiohttp.ClientError, OSError, TimeoutError) as error:
                        last = repr(error)[:200]
                    await asyncio.sleep(0.3)
        except TimeoutError:
            raise Unanswered(f"the events of {turn_id}: {last}") from None


async def tool_runs(desk_url: str, session: aiohttp.ClientSession) -> list[ToolRun]:
    """What the desk has done since it was started."""
    async with session.get(f"{desk_url}/runs", timeout=_TIMEOUT) as response:
        return [ToolRun(**run) for run in await response.json()]


async def provider_requests(provider_url: str, session: aiohttp.ClientSession) -> list[Json]:
    """The last 200 requests that the provider has answered, the oldest first."""
    async with session.get(f"{provider_url}/_sim/requests", timeout=_TIMEOUT) as response:
        body = await response.json()
    return list(body["requests"] if isinstance(body, dict) else body)
