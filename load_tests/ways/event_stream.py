"""Server-sent events as a blocking client reads them: whatever has come, with the moment it came."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from load_tests.answer import Refused
from load_tests.clock import now
from load_tests.ways.way import MAX_MESSAGE_BYTES, OPEN_TIMEOUT_S

READ_BYTES = 65_536
MAX_REFUSAL_BYTES = 65_536


class _Problem(Struct):
    """A refusal in either shape: problem+json, or OpenAI's ``error``."""

    code: str | None = None
    detail: str | None = None
    error: _OpenAiError | None = None


class _OpenAiError(Struct):
    message: str | None = None
    code: str | int | None = None
    type: str | None = None


class HttpClient:
    """Requests over one connection that is kept. Not to be used by two at a time."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(base_url)
        self._secure = parts.scheme in ("https", "wss")
        # Without a port the library would look for one in an IPv6 address.
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._secure else 80)
        self._prefix = parts.path.rstrip("/")
        self._headers = dict(headers)
        self._connection: http.client.HTTPConnection | None = None

    def open(self) -> None:
        """Connects. Raises OSError."""
        self.close()
        if self._secure:
            self._connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=OPEN_TIMEOUT_S, context=ssl.create_default_context()
            )
        else:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=OPEN_TIMEOUT_S)
        self._connection.connect()
        self._connection.sock.settimeout(None)

    def stream(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Events:
        """The response's events, once it has begun. Raises Refused for another status than 200, OSError."""
        try:
            connection = self._usable()
            connection.request(method, self._prefix + path, body, self._headers | dict(headers or {}))
            response = connection.getresponse()
            if response.status != 200:
                raise _refusal(response)
        except http.client.HTTPException as error:
            self.close()
            raise ConnectionResetError(f"no response: {type(error).__name__}") from error
        return Events(response)

    def _usable(self) -> http.client.HTTPConnection:
        """The connection; a new one where the server has closed it, as it may between requests."""
        connection = self._connection
        if connection is None or connection.sock is None or _has_ended(connection.sock):
            self.open()
            connection = self._connection
        if connection is None:
            raise ConnectionResetError("not connected")
        return connection

    def close(self) -> None:
        """Idempotent; in the middle of a response it is how a client leaves."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Events:
    """The events of one response, by arrival."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self._rest = b""
        self.turn_id = response.headers.get("x-turn-id", "")

    def arrivals(self) -> Iterator[tuple[list[tuple[str, bytes]], float]]:
        """Events (id and data) that came together, and when; until the response ends. Raises OSError where it breaks off."""
        while True:
            try:
                data = self._response.read1(READ_BYTES)
            except (http.client.HTTPException, ValueError) as error:
                raise ConnectionResetError(f"the response broke off: {error}") from error
            if not data:
                return
            at = now()
            blocks = (self._rest + data).split(b"\n\n")
            self._rest = blocks.pop()
            if len(self._rest) > MAX_MESSAGE_BYTES:
                raise ConnectionResetError("an event without an end")
            events = [_event(block) for block in blocks if not block.startswith(b":")]
            if events:
                yield events, at


def _has_ended(idle: socket.socket) -> bool:
    """Whether there is anything on a connection where nothing is to come: its end, or what nobody asked for."""
    readable, _, _ = select.select([idle], [], [], 0)
    return bool(readable)


def _event(block: bytes) -> tuple[str, bytes]:
    event_id, data = "", b""
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            data = line[5:].strip() if not data else data + b"\n" + line[5:].strip()
        elif line.startswith(b"id:"):
            event_id = line[3:].strip().decode(errors="replace")
    return event_id, data


def _refusal(response: http.client.HTTPResponse) -> Refused:
    body = response.read(MAX_REFUSAL_BYTES)
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except msgspec.DecodeError:
        return Refused("refused", f"HTTP {response.status}")
    if problem.error is not None:
        code = problem.error.code or problem.error.type or "refused"
        return Refused(str(code), problem.error.message or f"HTTP {response.status}")
    return Refused(problem.code or "refused", problem.detail or f"HTTP {response.status}")
