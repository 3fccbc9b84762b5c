"""Who opens a socket: by the handshake's headers, by a ticket, or by the first message.

A browser cannot set headers of a handshake. It comes with a ticket in the address, or says who it is in a
``session.update`` within ``ws_auth_timeout_s``; until then it holds a seat among few, and nothing else of the server.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Mapping
from typing import Protocol

from starlette.datastructures import Headers
from starlette.types import Receive

from serve_app.errors import DeadlineExceeded, InvalidInput, Overloaded, QuotaExceeded, TooLarge, Unauthenticated
from serve_app.identity.port import Authenticator, Grant
from serve_app.redaction import hide_here
from serve_app.settings import Settings
from serve_app.wire.requests import SessionUpdate, parse_frame

TICKET = "ticket"
VERIFY_TIMEOUT_S = 10.0
"""Longest that credentials may take to be verified: keys may have to be fetched."""
RETRY_S = 2.0


class Tickets(Protocol):
    """Tickets for handshakes, as this module needs them."""

    async def redeem(self, ticket: str) -> Grant:
        """The grant of whoever asked for the ticket. Raises Unauthenticated for one that is unknown, used or too old."""


class Handshakes:
    """Authenticates sockets of one Ingress replica."""

    def __init__(self, authenticator: Authenticator, tickets: Tickets, settings: Settings) -> None:
        self._authenticator = authenticator
        self._tickets = tickets
        self._development = settings.auth.mode == "development"
        self._frame_bytes = settings.limits.ws_frame_bytes
        self._timeout_s = settings.limits.ws_auth_timeout_s

    async def grant_of(self, headers: Headers, query: Mapping[str, str]) -> Grant | None:
        """The grant of a handshake; None where it brings no credentials, which the first message may.

        Raises Unauthenticated, NotPermitted, DeadlineExceeded.
        """
        if TICKET in query:
            return await _in_time(self._tickets.redeem(query[TICKET]))
        if self._development or "authorization" in headers:
            return await _in_time(self._authenticator.authenticate(headers, query))
        return None

    async def first_message(self, receive: Receive) -> tuple[Grant, SessionUpdate] | None:
        """The grant of the first message, and that message without its token; None where the client leaves.

        Raises Unauthenticated for anything else that comes, and where nothing comes in time; NotPermitted, DeadlineExceeded.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                message = await receive()
        except TimeoutError:
            raise Unauthenticated(f"No credentials came within {self._timeout_s:g} seconds.") from None
        if message["type"] == "websocket.disconnect":
            return None
        try:
            frame = parse_frame(self._readable(message.get("text")))
        except (InvalidInput, TooLarge) as error:
            raise Unauthenticated(f"The first message must say who you are. {error.message}") from None
        if not isinstance(frame, SessionUpdate) or not frame.access_token:
            raise Unauthenticated("The first message must be a session.update with an accessToken.")
        hide_here((frame.access_token,))
        grant = await _in_time(self._authenticator.with_token(frame.access_token))
        return grant, frame.model_copy(update={"access_token": None})

    def _readable(self, text: str | None) -> str:
        if text is None:
            raise InvalidInput("Only text frames are read here.")
        if len(text) > self._frame_bytes or len(text.encode("utf-8", "surrogatepass")) > self._frame_bytes:
            raise TooLarge(f"A frame may have at most {self._frame_bytes} bytes.")
        return text


class WaitingRoom:
    """Sockets that have brought no credentials yet: so many, and so many of one address."""

    def __init__(self, seats: int, seats_per_address: int) -> None:
        self._seats = seats
        self._per_address = seats_per_address
        self._taken = 0
        self._by_address: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        return self._taken

    def enter(self, address: str | None) -> None:
        """Takes a seat. Raises Overloaded when all are taken, QuotaExceeded when the address has its share."""
        if address is not None and self._by_address[address] >= self._per_address:
            raise QuotaExceeded("Too many connections of your address have not said who they are yet.", None, RETRY_S)
        if self._taken >= self._seats:
            raise Overloaded("Too many connections have not said who they are yet; try again.", None, RETRY_S)
        self._taken += 1
        if address is not None:
            self._by_address[address] += 1

    def leave(self, address: str | None) -> None:
        self._taken -= 1
        if address is not None:
            self._by_address[address] -= 1
            if self._by_address[address] <= 0:
                del self._by_address[address]


async def _in_time(verifying: Awaitable[Grant]) -> Grant:
    try:
        async with asyncio.timeout(VERIFY_TIMEOUT_S):
            return await verifying
    except TimeoutError:
        raise DeadlineExceeded("Your credentials could not be verified in time; try again.") from None
