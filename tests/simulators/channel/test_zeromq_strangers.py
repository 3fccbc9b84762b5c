"""Who does not hold the graph's secret is not heard, and harms nobody who does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Iterator

import pytest
import zmq

from serve_app.channel.curve import ChannelKeys, new_secret
from serve_app.channel.frames import Call, Frame, encode
from serve_app.channel.sockets import Context, Socket
from serve_app.channel.zeromq import ZeromqChannel
from serve_app.errors import StageUnavailable
from tests.simulators.channel.conftest import StartZeromq, until

_GREETING_3 = b"\xff" + bytes(8) + b"\x7f\x03\x00"


async def _echo(payload: bytes) -> bytes:
    return payload


class Home:
    """A channel, a member that may talk to it, and what a stranger would like to reach."""

    def __init__(self, channel: ZeromqChannel, member: ZeromqChannel) -> None:
        self.channel = channel
        self.member = member
        self.calls = 0
        self.received: list[bytes] = []
        self.inbox = channel.open(sink=self.received.extend)
        channel.handle("call", self._call)
        address, _, self.instance = channel.endpoint.rpartition("/")
        self.address = address
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self.host, self.port = host, int(port)

    async def _call(self, payload: bytes) -> bytes:
        self.calls += 1
        return payload

    def frame(self) -> bytes:
        """Everything right but the sender."""
        items = {self.inbox.address.stream: [b"evil"]}
        return encode(Frame(self.instance, self.member.endpoint, items, {1: Call("call", b"evil", 60_000)}, {}))

    async def is_well(self) -> None:
        assert (self.calls, self.received) == (0, [])
        assert await self.member.request(self.channel.endpoint, "call", b"ours", timeout_s=20) == b"ours"
        self.member.send(self.inbox.address, [b"ours"])
        await until(lambda: self.received == [b"ours"])
        assert self.calls == 1


@pytest.fixture
async def home(start_zeromq: StartZeromq) -> AsyncIterator[Home]:
    yield Home(await start_zeromq(max_frame_bytes=100_000), await start_zeromq())


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


def _pusher(context: Context) -> Socket:
    socket = context.socket(zmq.PUSH)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, 10)
    return socket


def _watch(socket: Socket) -> Socket:
    """To be called before what is to be noticed can happen."""
    return socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)


async def _next_event(monitor: Socket) -> int:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(monitor.poll, 100):
            pass
    event, _value = struct.unpack("=hi", monitor.recv_multipart()[0])
    return int(event)


async def _refused(socket: Socket, home: Home) -> None:
    """Connects, with a frame ready to go, and waits until the handshake has failed."""
    events = _watch(socket)
    socket.connect(home.address)
    socket.send(home.frame())
    assert await _next_event(events) == zmq.EVENT_DISCONNECTED
    socket.disable_monitor()


async def _read_to_the_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


async def test_channel_with_another_secret_is_not_heard_and_is_told_so(home: Home, start_zeromq: StartZeromq) -> None:
    stranger = await start_zeromq(secret=new_secret())
    stranger.send(home.inbox.address, [b"evil"])
    with pytest.raises(StageUnavailable):
        await asyncio.wait_for(stranger.request(home.channel.endpoint, "call", b"evil", timeout_s=3600), 20)

    await home.is_well()


async def test_member_does_not_speak_to_a_listener_with_another_secret(home: Home, start_zeromq: StartZeromq) -> None:
    stranger = await start_zeromq(secret=new_secret())
    heard: list[bytes] = []
    inbox = stranger.open(sink=heard.extend)
    stranger.handle("call", _echo)
    home.member.send(inbox.address, [b"ours"])
    with pytest.raises(StageUnavailable):
        await asyncio.wait_for(home.member.request(stranger.endpoint, "call", b"ours", timeout_s=3600), 20)

    assert heard == []
    assert stranger.counts.frames_received == 0


async def test_peer_without_encryption_is_not_heard(home: Home, context: Context) -> None:
    await _refused(_pusher(context), home)

    await home.is_well()


async def test_peer_that_learnt_the_listeners_public_key_but_has_no_key_of_ours_is_refused(
    home: Home, context: Context, secret: str
) -> None:
    socket = _pusher(context)
    socket.setsockopt(zmq.CURVE_SERVERKEY, ChannelKeys.derive(secret).listen_public)
    public, private = zmq.curve_keypair()
    socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, private)
    await _refused(socket, home)

    assert home.channel.counts.peers_refused > 0
    await home.is_well()


async def test_peer_that_claims_our_key_without_its_secret_is_refused(
    home: Home, context: Context, secret: str
) -> None:
    keys = ChannelKeys.derive(secret)
    socket = _pusher(context)
    socket.setsockopt(zmq.CURVE_SERVERKEY, keys.listen_public)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.connect_public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, zmq.curve_keypair()[1])
    await _refused(socket, home)

    await home.is_well()


@pytest.mark.parametrize(
    "opening",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        os.urandom(4096),
        b"\x00" * 4096,
        b"\xff" * 4096,
        # Older peers had no security at all: an identity, then frames.
        b"\x01\x00",
        b"\xff" + bytes(7) + b"\x01\x7f\x01\x08\x00\x00",
        # A correct greeting for this protocol, with another mechanism or with ours and then nonsense.
        _GREETING_3 + b"NULL".ljust(20, b"\x00") + bytes(32) + b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH",
        _GREETING_3 + b"CURVE".ljust(20, b"\x00") + bytes(32) + b"\x04\xc8\x05HELLO\x01\x00" + bytes(192),
        _GREETING_3 + b"CURVE".ljust(20, b"\x00") + bytes(32) + b"\x06" + (2**62).to_bytes(8, "big") + bytes(4096),
        _GREETING_3 + b"CURVE".ljust(20, b"\x00") + bytes(32) + b"\x04\x0a\x09INITIATE",
        _GREETING_3 + b"CURVE".ljust(20, b"\x00") + bytes(32) + b"\x02" + (90_000).to_bytes(8, "big") + bytes(90_000),
    ],
    ids=[
        "nothing",
        "http",
        "random",
        "zeros",
        "ones",
        "zmtp1",
        "zmtp2",
        "null mechanism",
        "forged hello",
        "endless hello",
        "initiate first",
        "message first",
    ],
)
async def test_arbitrary_bytes_on_the_port_do_no_harm(home: Home, opening: bytes) -> None:
    frame = home.frame()
    message = b"\x02" + len(frame).to_bytes(8, "big") + frame
    for _ in range(5):
        reader, writer = await asyncio.open_connection(home.host, home.port)
        with contextlib.suppress(ConnectionError):  # it may hang up at any moment
            writer.write(opening + message)
            await writer.drain()
            await asyncio.wait_for(_read_to_the_end(reader), 20)
        writer.close()

    await home.is_well()


async def test_members_frame_that_is_too_large_or_no_frame_is_refused_and_the_rest_goes_on(
    home: Home, context: Context, secret: str
) -> None:
    socket = _pusher(context)
    ChannelKeys.derive(secret).connector(socket)
    events = _watch(socket)
    socket.connect(home.address)
    assert await _next_event(events) == zmq.EVENT_HANDSHAKE_SUCCEEDED
    for data in (b"", b"\xc1", os.urandom(500), home.frame()[:-3], b"\x91" * 50_000):
        socket.send(data)
    socket.send_multipart([b"in", b"parts"])
    await until(lambda: home.channel.counts.frames_refused == 7)
    socket.send(b"x" * 200_000)
    assert await _next_event(events) == zmq.EVENT_DISCONNECTED
    socket.disable_monitor()

    await home.is_well()
