"""What a token costs on the channel: producer → middle → sink, three processes, many streams.

    python -m load_tests.channel_benchmark --streams 200 --rate 50 --tick-ms 10 --tick-ms 15 --tick-ms 25

Each stream is a task of the producer that sends a token with the time on it; the middle passes every stream on, as a
stage between a model and an ingress does; the sink compares the times. Printed are CPU microseconds per token of each
process (the producer's without the cost of waking its streams, which is measured alone first) and the time a token
spent on its way through both hops. ``--reader task`` reads each stream by a task of its own, ``sink`` by a callback.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from serve_app.channel.curve import new_secret
from serve_app.channel.port import Address
from serve_app.channel.zeromq import ZeromqChannel
from serve_app.settings import ChannelSettings

_SETTLE_S = 0.5
_PATIENCE_S = 60.0


class Reader(StrEnum):
    TASK = "task"
    SINK = "sink"


@dataclass(frozen=True)
class Load:
    streams: int
    rate_per_s: float
    seconds: float
    tick_ms: int
    reader: Reader
    secret: str


@dataclass(frozen=True)
class Measured:
    tokens: int
    cpu_us: float
    """Per token."""
    frames: int = 0
    transit_ms: tuple[float, float] = (0.0, 0.0)
    """Median and 99th percentile."""


Role = Callable[[Load, Connection], Coroutine[Any, Any, Measured]]


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _tokens(load: Load, send: Callable[[int, bytes], None]) -> int:
    """Runs the streams; each begins at another point of the interval."""
    gap_s = 1 / load.rate_per_s

    async def stream(number: int) -> int:
        await asyncio.sleep(number / load.streams * gap_s)
        end = time.monotonic() + load.seconds
        sent = 0
        while time.monotonic() < end:
            send(number, time.monotonic_ns().to_bytes(16, "big"))
            sent += 1
            await asyncio.sleep(gap_s)
        return sent

    return sum(await asyncio.gather(*(stream(number) for number in range(load.streams))))


async def _source(load: Load, _pipe: Connection) -> Measured:
    """The token source alone."""
    before_s = _cpu_s()
    count = await _tokens(load, lambda _number, _item: None)
    return Measured(count, (_cpu_s() - before_s) / count * 1e6)


async def _producer(load: Load, pipe: Connection) -> Measured:
    channel = await _started(load)
    addresses: list[Address] = await asyncio.to_thread(pipe.recv)
    before_s = _cpu_s()
    count = await _tokens(load, lambda number, item: channel.send(addresses[number], [item]))
    await asyncio.sleep(_SETTLE_S)
    for address in addresses:
        channel.send(address, [b""])
    await asyncio.sleep(_SETTLE_S)
    measured = Measured(count, (_cpu_s() - before_s) / count * 1e6, channel.counts.frames_sent)
    await channel.stop()
    return measured


async def _middle(load: Load, pipe: Connection) -> Measured:
    channel = await _started(load)
    onward: list[Address] = await asyncio.to_thread(pipe.recv)
    before_s = _cpu_s()
    count = await _read(load, channel, pipe, lambda number, items: channel.send(onward[number], items))
    await asyncio.sleep(_SETTLE_S)
    measured = Measured(count, (_cpu_s() - before_s) / count * 1e6, channel.counts.frames_sent)
    await channel.stop()
    return measured


async def _sink(load: Load, pipe: Connection) -> Measured:
    channel = await _started(load)
    transit_ns: list[int] = []

    def note(_number: int, items: list[bytes]) -> None:
        now_ns = time.monotonic_ns()
        transit_ns.extend(now_ns - int.from_bytes(item, "big") for item in items if item)

    before_s = _cpu_s()
    await _read(load, channel, pipe, note)
    cpu_us = (_cpu_s() - before_s) / len(transit_ns) * 1e6
    transit_ns.sort()
    quantiles = (transit_ns[len(transit_ns) // 2] / 1e6, transit_ns[int(len(transit_ns) * 0.99)] / 1e6)
    measured = Measured(len(transit_ns), cpu_us, channel.counts.frames_received, quantiles)
    await channel.stop()
    return measured


async def _started(load: Load) -> ZeromqChannel:
    channel = ZeromqChannel(ChannelSettings(tick_ms=load.tick_ms), load.secret)
    await channel.start()
    return channel


async def _read(load: Load, channel: ZeromqChannel, pipe: Connection, take: Callable[[int, list[bytes]], None]) -> int:
    """Opens the streams, tells their addresses, and reads all until each has ended with an empty item."""
    count = 0
    ended = 0
    done = asyncio.Event()

    def on_items(number: int, items: list[bytes]) -> None:
        nonlocal count, ended
        take(number, items)
        count += len(items)
        if not items[-1]:
            count -= 1
            ended += 1
            if ended == load.streams:
                done.set()

    def sink(number: int) -> Callable[[list[bytes]], None]:
        return lambda items: on_items(number, items)

    as_sink = load.reader is Reader.SINK
    inboxes = [channel.open(sink=sink(number) if as_sink else None) for number in range(load.streams)]

    async def read(number: int) -> None:
        async for items in inboxes[number]:
            on_items(number, items)

    pipe.send([inbox.address for inbox in inboxes])
    tasks = [] if as_sink else [asyncio.create_task(read(number)) for number in range(load.streams)]
    await asyncio.wait_for(done.wait(), load.seconds + _PATIENCE_S)
    for inbox in inboxes:
        inbox.close()
    await asyncio.gather(*tasks)
    return count


def _run(role: Role, load: Load, pipe: Connection) -> None:
    pipe.send(uvloop.run(role(load, pipe)))


def _measure(load: Load) -> tuple[Measured, Measured, Measured, Measured]:
    """Source alone, producer, middle, sink."""
    spawn = multiprocessing.get_context("spawn")
    started: list[Any] = []

    def start(role: Role) -> Connection:
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_run, args=(role, load, theirs), daemon=True)
        process.start()
        started.append(process)
        return ours

    def told(pipe: Connection) -> Any:
        if not pipe.poll(load.seconds + _PATIENCE_S):
            raise typer.Exit(1)
        return pipe.recv()

    try:
        source: Measured = told(start(_source))
        sink, middle, producer = start(_sink), start(_middle), start(_producer)
        middle.send(told(sink))
        producer.send(told(middle))
        return source, told(producer), told(middle), told(sink)
    finally:
        for process in started:
            process.join(5)
            process.kill()


def main(
    streams: Annotated[int, typer.Option(min=1, help="Streams at a time.")] = 200,
    rate: Annotated[float, typer.Option(min=0.1, help="Tokens a second of each stream.")] = 50.0,
    seconds: Annotated[float, typer.Option(min=1, help="How long each measurement sends.")] = 6.0,
    tick_ms: Annotated[list[int] | None, typer.Option(help="Tick of the channel; repeat for several.")] = None,
    reader: Annotated[list[Reader] | None, typer.Option(help="How streams are read; repeat for both.")] = None,
) -> None:
    """Measures CPU time and transit of streamed tokens over two hops of the channel."""
    table = Table(
        "tick ms",
        "reader",
        "tokens",
        "lost",
        "tokens per frame",
        "producer",
        "middle",
        "sink",
        "both hops",
        "p50 ms",
        "p99 ms",
        title=f"{streams} streams, {rate:g} tokens/s each; CPU in µs per token",
    )
    secret = new_secret()
    for tick in tick_ms or [10, 15, 25]:
        for how in reader or list(Reader):
            source, producer, middle, sink = _measure(Load(streams, rate, seconds, tick, how, secret))
            sending_us = producer.cpu_us - source.cpu_us
            table.add_row(
                str(tick),
                how.value,
                str(sink.tokens),
                str(producer.tokens - sink.tokens),
                f"{sink.tokens / sink.frames:.0f}",
                f"{sending_us:.1f} (+{source.cpu_us:.1f} source)",
                f"{middle.cpu_us:.1f}",
                f"{sink.cpu_us:.1f}",
                f"{sending_us + middle.cpu_us + sink.cpu_us:.1f}",
                f"{sink.transit_ms[0]:.1f}",
                f"{sink.transit_ms[1]:.1f}",
            )
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
