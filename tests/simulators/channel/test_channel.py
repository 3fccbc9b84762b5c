"""What every channel promises, whether within one process or over sockets."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from serve_app import errors
from serve_app.channel.port import Address, Channel
from serve_app.errors import Internal, LeaseLost, NotFound, ParleyError, QuotaExceeded, StageUnavailable, TooLarge
from tests.simulators.channel.conftest import Start, until

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


async def _read(channel: Channel, count: int, address: list[Address]) -> list[bytes]:
    inbox = channel.open()
    address.append(inbox.address)
    items: list[bytes] = []
    async with asyncio.timeout(20):
        async for batch in inbox:
            assert batch
            items += batch
            if len(items) >= count:
                inbox.end()
    return items


async def _echo(payload: bytes) -> bytes:
    return payload


async def test_items_of_a_stream_arrive_in_order_and_whole(start: Start) -> None:
    a, b = await start(), await start()
    addresses: list[Address] = []
    readers = [asyncio.create_task(_read(b, 500, addresses)) for _ in range(20)]
    await until(lambda: len(addresses) == 20)
    sent = [b"%d" % number for number in range(500)]
    for number in range(0, 500, 5):
        for address in addresses:
            a.send(address, sent[number : number + 5])
        if number % 50 == 0:
            await asyncio.sleep(0)

    for items in await asyncio.gather(*readers):
        assert items == sent
    assert a.counts.items_dropped == 0
    assert b.counts.items_received == 20 * 500


async def test_what_one_round_of_the_loop_sends_travels_together(start: Start) -> None:
    a, b = await start(tick_ms=200), await start()
    inboxes = [b.open() for _ in range(100)]
    for inbox in inboxes:
        a.send(inbox.address, [b"1"])
        a.send(inbox.address, [b"2"])

    async with asyncio.timeout(10):
        assert [await anext(aiter(inbox)) for inbox in inboxes] == [[b"1", b"2"]] * 100
    assert a.counts.frames_sent == 1


async def test_sink_takes_items_as_they_arrive(start: Start) -> None:
    a, b = await start(), await start()
    taken: list[bytes] = []
    inbox = b.open(sink=taken.extend)
    a.send(inbox.address, [b"1", b"2"])
    await until(lambda: len(taken) == 2)
    a.send(inbox.address, [b"3"])
    await until(lambda: len(taken) == 3)
    inbox.close()

    assert taken == [b"1", b"2", b"3"]
    assert [batch async for batch in inbox] == []


async def test_what_a_sender_does_to_its_list_later_changes_nothing(start: Start) -> None:
    a, b = await start(), await start()
    inbox = b.open()
    items = [b"1"]
    a.send(inbox.address, items)
    items.clear()

    async with asyncio.timeout(10):
        assert await anext(aiter(inbox)) == [b"1"]


async def test_items_for_a_closed_inbox_are_dropped_in_silence(start: Start) -> None:
    a, b = await start(), await start()
    closed, kept = b.open(), b.open()
    closed.close()
    a.send(closed.address, [b"x"])
    a.send(kept.address, [b"y"])

    async with asyncio.timeout(10):
        assert await anext(aiter(kept)) == [b"y"]
    assert b.counts.items_unclaimed == 1


async def test_reader_that_falls_behind_is_closed_as_overrun_and_others_are_not(start: Start) -> None:
    a, b = await start(tick_ms=0), await start()
    slow, other = b.open(max_items=3), b.open()
    for number in range(4):
        a.send(slow.address, [b"%d" % number])
        a.send(other.address, [b"%d" % number])
        await until(lambda expected=number: b.counts.items_received + b.counts.items_unclaimed == 2 * expected + 2)  # type: ignore[misc]

    assert slow.overrun
    assert [batch async for batch in slow] == [[b"0", b"1", b"2"]]
    assert not other.overrun
    assert await anext(aiter(other)) == [b"0", b"1", b"2", b"3"]


async def test_requests_go_both_ways_at_once(start: Start) -> None:
    a, b = await start(), await start()

    async def add_a(payload: bytes) -> bytes:
        return b"a" + payload

    async def add_b(payload: bytes) -> bytes:
        return b"b" + await b.request(a.endpoint, "add", payload)

    a.handle("add", add_a)
    b.handle("add", add_b)
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(a.request(b.endpoint, "add", b"%d" % n) for n in range(200)))

    assert answers == [b"ba%d" % n for n in range(200)]


async def test_channel_reaches_itself(start: Start) -> None:
    a = await start()
    a.handle("echo", _echo)
    inbox = a.open()
    a.send(inbox.address, [b"me"])

    async with asyncio.timeout(10):
        assert await a.request(a.endpoint, "echo", b"hello") == b"hello"
        assert await anext(aiter(inbox)) == [b"me"]


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "ConfigError"])
async def test_error_of_a_handler_is_raised_at_the_requester_as_its_class(start: Start, name: str) -> None:
    cls: type[ParleyError] = getattr(errors, name)
    a, b = await start(), await start()

    async def refuse(_payload: bytes) -> bytes:
        raise cls("no", True, 3.0, [{"field": "x"}])

    b.handle("refuse", refuse)
    with pytest.raises(cls) as caught:
        await a.request(b.endpoint, "refuse", b"")

    assert type(caught.value) is cls
    assert (caught.value.message, caught.value.retry_after_s) == ("no", 3.0)
    assert caught.value.details == [{"field": "x"}]


async def test_other_failures_of_a_handler_arrive_without_their_text(start: Start) -> None:
    a, b = await start(), await start()

    async def fail(_payload: bytes) -> bytes:
        raise ValueError("the password is 12345")

    b.handle("fail", fail)
    with pytest.raises(Internal) as caught:
        await a.request(b.endpoint, "fail", b"")

    assert "12345" not in str(caught.value)


async def test_request_that_nobody_answers_is_not_found(start: Start) -> None:
    a, b = await start(), await start()

    with pytest.raises(NotFound):
        await a.request(b.endpoint, "nothing", b"")


async def test_request_without_an_answer_in_time_is_unavailable_and_its_handler_is_cancelled(start: Start) -> None:
    a, b = await start(), await start()
    cancelled = asyncio.Event()

    async def never(_payload: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    b.handle("never", never)
    with pytest.raises(StageUnavailable) as caught:
        await a.request(b.endpoint, "never", b"", timeout_s=0.05)

    assert caught.value.retryable
    await asyncio.wait_for(cancelled.wait(), 10)


async def test_cancelled_request_leaves_the_channel_in_order(start: Start) -> None:
    a, b = await start(), await start()
    reached = asyncio.Event()

    async def never(_payload: bytes) -> bytes:
        reached.set()
        await asyncio.Event().wait()
        return b""

    b.handle("never", never)
    b.handle("echo", _echo)
    request = asyncio.create_task(a.request(b.endpoint, "never", b""))
    await asyncio.wait_for(reached.wait(), 10)
    request.cancel()

    with pytest.raises(asyncio.CancelledError):
        await request
    assert await a.request(b.endpoint, "echo", b"x") == b"x"


async def test_request_in_flight_fails_at_once_when_its_peer_stops(start: Start) -> None:
    a, b = await start(), await start()
    reached = asyncio.Event()

    async def never(_payload: bytes) -> bytes:
        reached.set()
        await asyncio.Event().wait()
        return b""

    b.handle("never", never)
    request = asyncio.create_task(a.request(b.endpoint, "never", b"", timeout_s=3600))
    await asyncio.wait_for(reached.wait(), 10)
    await b.stop()

    with pytest.raises(StageUnavailable):
        await asyncio.wait_for(request, 10)


async def test_peer_that_comes_back_is_reached_at_its_new_endpoint(start: Start) -> None:
    a, b = await start(), await start()
    b.handle("echo", _echo)
    assert await a.request(b.endpoint, "echo", b"1") == b"1"
    old = b.endpoint
    await b.stop()
    b = await start()
    b.handle("echo", _echo)

    assert b.endpoint != old
    with pytest.raises(StageUnavailable):
        await a.request(old, "echo", b"2", timeout_s=10)
    assert await a.request(b.endpoint, "echo", b"2") == b"2"


async def test_items_for_a_peer_that_is_gone_are_dropped_and_counted(start: Start) -> None:
    a, b = await start(), await start()
    address = b.open().address
    await b.stop()
    a.send(address, [b"x", b"y"])

    await until(lambda: a.counts.items_dropped == 2)


async def test_what_is_larger_than_a_frame_is_refused_where_it_is_sent(start: Start) -> None:
    a, b = await start(max_frame_bytes=10_000), await start(max_frame_bytes=10_000)

    async def large(_payload: bytes) -> bytes:
        return b"x" * 10_000

    b.handle("large", large)
    b.handle("echo", _echo)
    inbox = b.open()
    with pytest.raises(TooLarge):
        a.send(inbox.address, [b"x" * 10_000])
    with pytest.raises(TooLarge):
        await a.request(b.endpoint, "echo", b"x" * 10_000)
    with pytest.raises(TooLarge):
        await a.request(b.endpoint, "large", b"")
    assert await a.request(b.endpoint, "echo", b"ok") == b"ok"


async def test_large_amounts_arrive_in_several_frames(start: Start) -> None:
    a, b = await start(max_frame_bytes=10_000), await start(max_frame_bytes=10_000)
    b.handle("echo", _echo)
    await a.request(b.endpoint, "echo", b"")  # connected: what does not fit can leave
    addresses: list[Address] = []
    reader = asyncio.create_task(_read(b, 40, addresses))
    await until(lambda: bool(addresses))
    items = [b"%d" % (number % 10) * 900 for number in range(40)]
    a.send(addresses[0], items)

    assert await reader == items


async def test_nothing_of_a_requests_context_enters_handlers_or_sinks(start: Start) -> None:
    """A stage's tasks would otherwise be cancelled with a request that happened to be the first to use a connection."""
    a, b = await start(), await start()
    seen: list[str] = []

    async def handler(payload: bytes) -> bytes:
        seen.append(request_id.get())
        return payload

    b.handle("see", handler)
    inbox = b.open(sink=lambda _items: seen.append(request_id.get()))
    token = request_id.set("mine")
    try:
        await a.request(b.endpoint, "see", b"")
        a.send(inbox.address, [b"x"])
        await until(lambda: len(seen) == 2)
        a.send(inbox.address, [b"x"])
        await until(lambda: len(seen) == 3)
    finally:
        request_id.reset(token)

    assert seen == ["none"] * 3


async def test_stop_ends_inboxes_and_requests_and_leaves_no_task(start: Start) -> None:
    before = asyncio.all_tasks()
    a, b = await start(), await start()
    reached = asyncio.Event()

    async def never(_payload: bytes) -> bytes:
        reached.set()
        await asyncio.Event().wait()
        return b""

    for channel in (a, b):
        channel.handle("never", never)
    request = asyncio.create_task(a.request(b.endpoint, "never", b""))
    incoming = asyncio.create_task(b.request(a.endpoint, "never", b""))
    inbox = a.open()
    reading = asyncio.ensure_future(anext(aiter(inbox), None))
    await asyncio.wait_for(reached.wait(), 10)
    async with asyncio.timeout(10):
        await a.stop()
        await a.stop()

    for waiting in (request, incoming):
        with pytest.raises(StageUnavailable):
            await asyncio.wait_for(waiting, 10)
    assert await reading is None
    with pytest.raises(StageUnavailable):
        await a.request(b.endpoint, "never", b"")
    await b.stop()
    assert asyncio.all_tasks() == before


async def test_lease_lost_is_not_confused_with_its_parent(start: Start) -> None:
    a, b = await start(), await start()

    async def lose(_payload: bytes) -> bytes:
        raise LeaseLost("another owner runs the turn")

    async def limit(_payload: bytes) -> bytes:
        raise QuotaExceeded("later", retry_after_s=2)

    b.handle("lose", lose)
    b.handle("limit", limit)
    results = await asyncio.gather(
        a.request(b.endpoint, "lose", b""), a.request(b.endpoint, "limit", b""), return_exceptions=True
    )

    assert [type(result) for result in results] == [LeaseLost, QuotaExceeded]
