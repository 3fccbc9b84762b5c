"""What a modest tenant notices of a greedy one, and how soon refusals come: real figures of a running server.

    PARLEY_LIMITS__TENANT_REQUESTS_PER_MINUTE=240 PARLEY_LIMITS__TENANT_CONCURRENT_TURNS=20 parley serve
    python load_tests/fairness_benchmark.py http://127.0.0.1:8000 --greedy-per-s 80 --seconds 30

In development mode, whose headers choose the tenants. First ``modest`` asks alone, then beside ``greedy``, which asks far beyond
its quota. Prints the time to the end of an answer for both runs, and the time to a refusal.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

import httpx2

TIMEOUT_S = 60.0
RATIO_ALLOWED = 1.5


@dataclass
class Figures:
    """Milliseconds of answers and of refusals, statuses, and refusals that did not say when to come back."""

    answers_ms: list[float] = field(default_factory=list)
    refusals_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    without_retry_after: int = 0

    def line(self, name: str) -> str:
        answers = (
            f"answers {len(self.answers_ms)}: p50 {_at(self.answers_ms, 50)} ms, p95 {_at(self.answers_ms, 95)} ms"
        )
        refusals = (
            f"refusals {len(self.refusals_ms)}: p50 {_at(self.refusals_ms, 50)} ms, p99 {_at(self.refusals_ms, 99)} ms"
        )
        return f"{name:<14} {answers}; {refusals}; statuses {dict(self.statuses)}"


async def ask(client: httpx2.AsyncClient, tenant: str, figures: Figures) -> None:
    """One message in a conversation of its own, read to its end."""
    begun = time.perf_counter()
    body = {
        "id": f"bench-{uuid.uuid4().hex}",
        "messages": [{"id": uuid.uuid4().hex, "role": "user", "parts": [{"type": "text", "text": "Say hello"}]}],
    }
    try:
        async with client.stream("POST", "/api/chat", json=body, headers={"x-dev-tenant": tenant}) as reply:
            async for _ in reply.aiter_bytes():
                pass
    except httpx2.HTTPError:
        figures.statuses[0] += 1
        return
    took_ms = (time.perf_counter() - begun) * 1000
    figures.statuses[reply.status_code] += 1
    if reply.status_code == 200:
        figures.answers_ms.append(took_ms)
    else:
        figures.refusals_ms.append(took_ms)
        figures.without_retry_after += "retry-after" not in reply.headers


async def steadily(client: httpx2.AsyncClient, tenant: str, per_s: float, seconds: float) -> Figures:
    """Asks at a fixed rate, however long answers take."""
    figures = Figures()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.TaskGroup() as asking:
        for number in range(int(per_s * seconds)):
            await asyncio.sleep(max(0.0, begun + number / per_s - loop.time()))
            asking.create_task(ask(client, tenant, figures))
    return figures


async def run(url: str, modest_per_s: float, greedy_per_s: float, seconds: float) -> int:
    limits = httpx2.Limits(max_connections=2_000, max_keepalive_connections=200)
    async with httpx2.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits) as client:
        alone = await steadily(client, "modest", modest_per_s, seconds)
        beside, greedy = await asyncio.gather(
            steadily(client, "modest", modest_per_s, seconds), steadily(client, "greedy", greedy_per_s, seconds)
        )
    for name, figures in (("modest alone", alone), ("modest beside", beside), ("greedy", greedy)):
        sys.stdout.write(figures.line(name) + "\n")
    if not alone.answers_ms or not beside.answers_ms:
        sys.stdout.write("modest got no answers\n")
        return 1
    ratio = _percentile(beside.answers_ms, 95) / _percentile(alone.answers_ms, 95)
    silent = beside.without_retry_after + greedy.without_retry_after
    sys.stdout.write(
        f"p95 beside / alone: {ratio:.2f} (allowed {RATIO_ALLOWED}); refusals without Retry-After: {silent}\n"
    )
    return 0 if ratio <= RATIO_ALLOWED and silent == 0 else 1


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def _at(values: list[float], percent: int) -> str:
    return f"{_percentile(values, percent):.1f}" if values else "–"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="a running server, such as http://127.0.0.1:8000")
    parser.add_argument("--modest-per-s", type=float, default=2.0, help="messages a second of the modest tenant")
    parser.add_argument("--greedy-per-s", type=float, default=80.0, help="messages a second of the greedy one")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each of the two runs lasts")
    given = parser.parse_args()
    return asyncio.run(run(given.url, given.modest_per_s, given.greedy_per_s, given.seconds))


if __name__ == "__main__":
    sys.exit(main())
