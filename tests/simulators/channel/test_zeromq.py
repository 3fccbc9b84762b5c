"""What holds between processes: how connections and frames are used, what a break does, and what is left behind."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from serve_app.channel.port import Address
from serve_app.channel.zeromq import ZeromqBounds, ZeromqChannel
from serve_app.errors import ConfigError, StageUnavailable
from serve_app.settings import ChannelSettings
from tests.simulators.channel.conftest import StartZeromq, until

ROOT = Path(__file__).parents[3]


def _port(channel: ZeromqChannel) -> int:
    return int(channel.endpoint.rpartition("/")[0].rpartition(":")[2])


def _connections_to(*channels: ZeromqChannel) -> int:
    ports = {_port(channel) for channel in channels}
    return sum(
        connection.status == psutil.CONN_ESTABLISHED and bool(connection.raddr) and connection.raddr.port in ports
        for connection in psutil.Process().net_connections("tcp")
    )


async def _echo(payload: bytes) -> bytes:
    return payload


async def test_all_streams_to_a_peer_share_one_connection_and_few_frames(start_zeromq: StartZeromq) -> None:
    a, b = await start_zeromq(tick_ms=50), await start_zeromq()
    received: list[bytes] = []
    inboxes = [b.open(sink=received.extend) for _ in range(200)]
    for number in range(100):
        for inbox in inboxes:
            a.send(inbox.address, [b"%d" % number])
        await asyncio.sleep(0)
    await until(lambda: len(received) == 20_000)

    assert _connections_to(b) == 1
    assert a.counts.items_sent == 20_000
    assert a.counts.frames_sent < 200


async def test_first_items_of_a_stream_go_at_once_and_later_ones_with_the_tick(start_zeromq: StartZeromq) -> None:
    a, b = await start_zeromq(tick_ms=1000), await start_zeromq()
    b.handle("echo", _echo)
    await a.request(b.endpoint, "echo", b"")
    frames = a.counts.frames_sent
    first, second = b.open(), b.open()
    a.send(first.address, [b"1"])
    await until(lambda: a.counts.frames_sent == frames + 1)
    for number in range(2, 10):
        a.send(first.address, [b"%d" % number])
        await asyncio.sleep(0)
    assert a.counts.frames_sent == frames + 1
    a.send(second.address, [b"new"])
    await until(lambda: a.counts.frames_sent == frames + 2)  # the new stream takes along what had gathered

    async with asyncio.timeout(10):
        assert await anext(aiter(second)) == [b"new"]
        items = await anext(aiter(first))
    assert items == [b"%d" % number for number in range(1, 10)]


async def test_items_within_the_tick_leave_when_it_is_over(start_zeromq: StartZeromq) -> None:
    a, b = await start_zeromq(tick_ms=20), await start_zeromq()
    received: list[bytes] = []
    inbox = b.open(sink=received.extend)
    for number in range(5):
        a.send(inbox.address, [b"%d" % number])
        await until(lambda expected=number: len(received) == expected + 1)  # type: ignore[misc]


async def test_peer_that_does_not_read_costs_items_and_never_the_senders_time(start_zeromq: StartZeromq) -> None:
    bounds = {"high_water_frames": 2, "max_frame_bytes": 100_000}
    a, b = await start_zeromq(tick_ms=0, **bounds), await start_zeromq(**bounds)
    b.handle("echo", _echo)
    await a.request(b.endpoint, "echo", b"")
    received: list[bytes] = []
    inbox = b.open(sink=received.extend)
    sent = 0
    while a.counts.items_dropped == 0 and sent < 5_000:  # the peer shares this loop, which is not given to it
        a.send(inbox.address, [b"%08d" % sent + b"x" * 50_000])
        sent += 1
    assert a.counts.items_dropped > 0

    await until(lambda: b.counts.items_received + a.counts.items_dropped == sent)
    numbers = [int(item[:8]) for item in received]
    assert numbers == sorted(numbers)
    assert await a.request(b.endpoint, "echo", b"still there") == b"still there"


async def test_request_in_flight_fails_at_once_when_the_peers_process_is_killed(
    start_zeromq: StartZeromq, secret: str
) -> None:
    a = await start_zeromq()
    peer = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.simulators.channel.peer",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert peer.stdin is not None
        assert peer.stdout is not None
        peer.stdin.write(secret.encode() + b"\n")
        endpoint = (await asyncio.wait_for(peer.stdout.readline(), 30)).decode().strip()
        assert await a.request(endpoint, "echo", b"hello", timeout_s=10) == b"hello"
        request = asyncio.create_task(a.request(endpoint, "hang", b"", timeout_s=3600))
        await until(lambda: a.counts.frames_sent == 2)
        peer.kill()

        with pytest.raises(StageUnavailable):
            await asyncio.wait_for(request, 20)
    finally:
        if peer.returncode is None:
            peer.kill()
        await peer.wait()


async def test_endpoint_where_nobody_listens_is_unavailable_before_the_time_is_up(start_zeromq: StartZeromq) -> None:
    a, b = await start_zeromq(), await start_zeromq()
    endpoint = b.endpoint
    await b.stop()

    with pytest.raises(StageUnavailable):
        await asyncio.wait_for(a.request(endpoint, "echo", b"", timeout_s=3600), 20)


async def test_silent_endpoint_is_unavailable_when_the_time_is_up(start_zeromq: StartZeromq) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    a = await start_zeromq()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(StageUnavailable):
        await asyncio.wait_for(a.request(f"tcp://127.0.0.1:{port}/0", "echo", b"", timeout_s=0.1), 20)
    await a.stop()
    server.close()


@pytest.mark.parametrize("endpoint", ["", "nonsense", "tcp://", "tcp://no port/1", "ipc:///tmp/x", "inproc://x/1"])
async def test_endpoint_that_is_no_address_is_unavailable(start_zeromq: StartZeromq, endpoint: str) -> None:
    a = await start_zeromq()
    a.send(Address(endpoint=endpoint, stream=1), [b"x"])

    with pytest.raises(StageUnavailable):
        await a.request(endpoint, "echo", b"", timeout_s=0.1)
    assert a.counts.items_dropped == 1


async def test_later_process_at_the_same_port_does_not_take_what_was_meant_for_the_earlier(
    start_zeromq: StartZeromq,
) -> None:
    a, b = await start_zeromq(), await start_zeromq()
    b.handle("echo", _echo)
    inbox = b.open()
    earlier = b.endpoint.rpartition("/")[0] + "/0badcafe"
    a.send(Address(endpoint=earlier, stream=inbox.address.stream), [b"not yours"])

    with pytest.raises(StageUnavailable):
        await asyncio.wait_for(a.request(earlier, "echo", b"", timeout_s=3600), 20)
    assert b.counts.items_received == 0
    assert b.counts.frames_refused > 0


async def test_idle_connection_is_closed_and_opened_again_when_needed(start_zeromq: StartZeromq) -> None:
    a, b = await start_zeromq(bounds=ZeromqBounds(idle_s=0.05)), await start_zeromq()
    b.handle("echo", _echo)
    assert await a.request(b.endpoint, "echo", b"1") == b"1"
    await until(lambda: _connections_to(b) == 0)

    assert await a.request(b.endpoint, "echo", b"2") == b"2"


async def test_connections_are_bounded_and_the_one_unused_for_longest_makes_room(start_zeromq: StartZeromq) -> None:
    a = await start_zeromq(bounds=ZeromqBounds(connections=2))
    peers = [await start_zeromq() for _ in range(4)]
    for peer in [*peers, *peers]:
        peer.handle("echo", _echo)
        assert await a.request(peer.endpoint, "echo", b"x") == b"x"

    await until(lambda: _connections_to(*peers) <= 2)


async def test_stop_leaves_no_socket(start_zeromq: StartZeromq) -> None:
    a, b = await start_zeromq(), await start_zeromq()
    b.handle("echo", _echo)
    await a.request(b.endpoint, "echo", b"")
    ports = {_port(a), _port(b)}
    await a.stop()
    await b.stop()

    def of_ours() -> list[object]:
        return [
            connection
            for connection in psutil.Process().net_connections("tcp")
            if {getattr(address, "port", None) for address in (connection.laddr, connection.raddr)} & ports
        ]

    await until(lambda: not of_ours())


async def test_address_that_cannot_be_bound_is_said_with_its_setting(start_zeromq: StartZeromq) -> None:
    with pytest.raises(ConfigError, match="PARLEY_CHANNEL__BIND_HOST"):
        await start_zeromq(bind_host="203.0.113.7")


def test_wildcard_address_needs_one_that_peers_can_reach(secret: str) -> None:
    with pytest.raises(ConfigError, match="PARLEY_CHANNEL__ADVERTISE_HOST"):
        ZeromqChannel(ChannelSettings(bind_host="0.0.0.0"), secret)  # noqa: S104 - refused


async def test_advertised_address_is_the_one_peers_are_told(start_zeromq: StartZeromq) -> None:
    a, b = await start_zeromq(), await start_zeromq(advertise_host="localhost")
    b.handle("echo", _echo)

    assert b.endpoint.startswith("tcp://localhost:")
    assert await a.request(b.endpoint, "echo", b"x", timeout_s=20) == b"x"


async def test_two_channels_of_the_same_process_do_not_disturb_each_other_when_one_stops(
    start_zeromq: StartZeromq,
) -> None:
    a, b, c = await start_zeromq(), await start_zeromq(), await start_zeromq()
    c.handle("echo", _echo)
    for channel in (a, b):
        assert await channel.request(c.endpoint, "echo", b"x") == b"x"
    await a.stop()

    assert await b.request(c.endpoint, "echo", b"y") == b"y"
