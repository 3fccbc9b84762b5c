"""A WebSocket as a blocking client reads it: whatever has come, with the moment it came.

The protocol is the websockets library's own, without its reading thread: one read of the socket gives all frames that are there,
which is what makes one process carry thousands of tokens a second.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from load_tests.answer import Refused
from load_tests.clock import now
from load_tests.ways.way import MAX_MESSAGE_BYTES, OPEN_TIMEOUT_S

READ_BYTES = 65_536


class WsConnection:
    """One open connection. Every method raises OSError once it is gone."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """Opens it. Raises OSError, or Refused with the HTTP status."""
        uri = parse_uri(url)
        self._protocol = ClientProtocol(uri, max_size=MAX_MESSAGE_BYTES)
        self._parts: list[bytes] = []
        self._early: list[bytes] = []
        self._socket = _connected(url, uri.host, uri.port)
        try:
            request = self._protocol.connect()
            for name, value in headers.items():
                request.headers[name] = value
            self._protocol.send_request(request)
            self._flush()
            self._shake_hands()
            self._early = self._messages()
            self._socket.settimeout(None)
        except BaseException:
            self._socket.close()
            raise

    def send(self, text: bytes) -> None:
        if self._protocol.state is not State.OPEN:
            raise ConnectionResetError("the connection is closed")
        self._protocol.send_text(text)
        self._flush()

    def receive(self) -> tuple[list[bytes], float]:
        """Waits for something to come; returns the messages in it (there may be none) and when it came."""
        if self._early:  # it came with the handshake
            early, self._early = self._early, []
            return early, now()
        data = self._socket.recv(READ_BYTES)
        at = now()
        self._take(data)
        return self._messages(), at

    def waiting(self) -> bool:
        """Whether there is something to receive."""
        readable, _, _ = select.select([self._socket], [], [], 0)
        return bool(readable or self._early)

    def close(self) -> None:
        """Says goodbye, and waits for nothing."""
        with contextlib.suppress(OSError, WebSocketException):
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(1000)
                self._flush()
        self._socket.close()

    def abort(self) -> None:
        """As when the network goes: no goodbye."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self._socket.close()

    def _shake_hands(self) -> None:
        while self._protocol.state is State.CONNECTING:
            self._take(self._socket.recv(READ_BYTES))
            error = self._protocol.handshake_exc
            if isinstance(error, InvalidStatus):
                raise Refused("refused", f"HTTP {error.response.status_code}") from error
            if error is not None:
                raise ConnectionError(f"no handshake: {error}") from error

    def _take(self, data: bytes) -> None:
        if not data:
            self._protocol.receive_eof()
            raise ConnectionResetError(self._why())
        self._protocol.receive_data(data)
        self._flush()

    def _messages(self) -> list[bytes]:
        found: list[bytes] = []
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                continue
            if event.opcode is Opcode.TEXT or event.opcode is Opcode.CONT:
                if event.fin and not self._parts:
                    found.append(bytes(event.data))
                    continue
                self._parts.append(bytes(event.data))
                if event.fin:
                    found.append(b"".join(self._parts))
                    self._parts.clear()
        if not found and self._protocol.state is not State.OPEN:
            raise ConnectionResetError(self._why())
        return found

    def _why(self) -> str:
        close = self._protocol.close_rcvd
        return "the connection broke" if close is None else f"closed with {close.code} {close.reason}".strip()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._socket.sendall(data)
            else:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)


def _connected(url: str, host: str, port: int) -> socket.socket:
    plain = socket.create_connection((host, port), OPEN_TIMEOUT_S)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if urlsplit(url).scheme != "wss":
        return plain
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host)
