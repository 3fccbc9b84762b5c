"""A run's figures are those of the server: a known time to the first token and between tokens is found again, nothing is lost."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from load_tests.arrivals import offsets
from serve_app.capacity.samples import TurnSample
from serve_app.companions.provider.app import ProviderSettings, build_provider_app
from tests.simulators.load_tests.generator import make_load
from tests.simulators.load_tests.paced import paced_app
from tests.simulators.load_tests.serving import in_thread, only

TTFT_MS, TOKEN_MS, TOKENS = 3000, 100, 15
WITHIN = 0.05
SIMULATED = {"ttft_ms": TTFT_MS, "token_ms": TOKEN_MS, "reply_tokens": TOKENS}


def scenario(kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": "known", "warm_up_s": 1, "drain_s": 30,
        "users": [{"kind": kind, "simulated": SIMULATED}],
        "load": {"model": "open", "shape": {"kind": "constant", "level": 4, "for_s": 6}},
        "slo": {"ttft_p95_s": 30, "turn_p95_s": 60},
    } | fields  # fmt: skip


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with in_thread(only(build_provider_app(ProviderSettings()))) as url:
        yield url


@pytest.fixture(scope="module")
def whole() -> Iterator[str]:
    with in_thread(paced_app) as url:
        yield url


def token_ms(turn: TurnSample) -> float:
    """Time per token after the first."""
    assert turn.turn_ms is not None
    assert turn.ttft_ms is not None
    return sum(turn.gaps_ms) / (TOKENS - 1)


def check_figures(turns: list[TurnSample]) -> None:
    assert [turn.code for turn in turns] == [""] * len(turns)
    ttft_ms = statistics.median(turn.ttft_ms for turn in turns if turn.ttft_ms is not None)
    late_ms = statistics.median(turn.late_ms for turn in turns)
    assert ttft_ms - late_ms == pytest.approx(TTFT_MS, rel=WITHIN)
    assert statistics.median(map(token_ms, turns)) == pytest.approx(TOKEN_MS, rel=WITHIN)
    for turn in turns:
        assert turn.turn_ms is not None
        assert turn.ttft_ms is not None
        assert turn.turn_ms == pytest.approx(turn.ttft_ms + sum(turn.gaps_ms), abs=TOKEN_MS * 3)
        assert turn.sent_at - turn.due_at == pytest.approx(turn.late_ms / 1000, abs=0.001)


async def test_the_simulated_providers_pace_is_found_again(provider: str, tmp_path: Path) -> None:
    made = await make_load(tmp_path, provider, scenario("openai_chat"), "--seed", "5")
    assert (made.code, made.ended["ended"]) == (0, "done")
    check_figures(made.turns)
    assert {turn.output_tokens for turn in made.turns} == {TOKENS}


async def test_the_pace_is_found_again_through_a_whole_server_over_its_own_ways(whole: str, tmp_path: Path) -> None:
    users = [{"kind": "ws_chat", "simulated": SIMULATED}, {"kind": "sse_chat", "simulated": SIMULATED}]
    made = await make_load(tmp_path, whole, scenario("ws_chat", users=users), "--seed", "5")
    assert (made.code, made.ended["ended"]) == (0, "done")
    check_figures(made.turns)


async def test_every_turn_of_the_schedule_is_written_down_once_in_its_phase_and_when_it_was_due(
    provider: str, tmp_path: Path
) -> None:
    made = await make_load(tmp_path, provider, scenario("openai_chat"), "--seed", "9")
    assert [phase.name for phase in made.phases] == ["warm-up", "constant"]
    for phase, seconds in zip(made.phases, (1, 6), strict=True):
        planned = list(offsets(4, seconds, Random(f"9:0:{phase.index}")))
        due = sorted(turn.due_at for turn in made.turns if turn.phase == phase.index)
        assert [at - phase.began_at for at in due] == pytest.approx(planned, abs=0.05)
        assert phase.ended_at is not None
        assert phase.ended_at - phase.began_at == pytest.approx(seconds, abs=0.001)
    assert [phase.measured for phase in made.phases] == [False, True]
    assert made.ended["due"] == made.ended["done"] == len(made.turns)
    assert len({turn.turn_id for turn in made.turns}) == len(made.turns)
    assert made.generator
    assert all(0 <= sample.cpu_share < 4 for sample in made.generator)


async def test_a_client_that_breaks_its_connection_in_mid_answer_gets_the_rest_over_both_ways(
    whole: str, tmp_path: Path
) -> None:
    users = [
        {"kind": "reconnecting", "wire": wire, "away_s": 0.1, "simulated": SIMULATED}
        for wire in ("ws_chat", "sse_chat")
    ]
    made = await make_load(tmp_path, whole, scenario("ws_chat", users=users), "--seed", "5")
    assert [turn.code for turn in made.turns] == [""] * len(made.turns)
    assert sum(turn.resumed for turn in made.turns) >= len(made.turns) / 2
    assert {turn.text_bytes for turn in made.turns} == {len("".join(f" tok{index}" for index in range(TOKENS)))}


async def test_closed_users_think_between_turns_and_idle_ones_only_hold_their_sockets(
    whole: str, tmp_path: Path
) -> None:
    fast = {"ttft_ms": 50, "token_ms": 5, "reply_tokens": 4}
    users = [
        {"kind": "ws_chat", "simulated": fast, "think_s": 0.5, "turns": 2},
        {"kind": "idle", "count": 3, "ping_s": 0.5},
    ]
    load = {"model": "closed", "shape": {"kind": "constant", "level": 4, "for_s": 5}}
    made = await make_load(tmp_path, whole, scenario("ws_chat", users=users, load=load), "--seed", "5")
    assert made.ended["ended"] == "done"
    assert made.phases[-1].users == 4
    assert made.phases[-1].rate_per_s is None
    by_user: dict[str, list[TurnSample]] = {}
    for turn in made.turns:
        by_user.setdefault(turn.user, []).append(turn)
    assert len(by_user) == 4
    assert len([one for one in made.sessions if one.connect_ms is not None]) == 4 + 3
    for turns in by_user.values():
        turns.sort(key=lambda turn: turn.due_at)
        for before, after in pairwise(turns):
            assert before.turn_ms is not None
            assert after.due_at - before.due_at - before.turn_ms / 1000 == pytest.approx(0.5, abs=0.1)
