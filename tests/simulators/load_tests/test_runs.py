"""How a run ends, what it counts as failed, and what several processes make together."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from serve_app.capacity.run import load_run
from tests.simulators.load_tests.generator import make_load
from tests.simulators.load_tests.liar import PIECES, make_liar
from tests.simulators.load_tests.paced import paced_app
from tests.simulators.load_tests.serving import in_thread, only

REPLY = {"ttft_ms": 0, "token_ms": 0, "reply_tokens": len(PIECES)}
QUICK = {"ttft_ms": 100, "token_ms": 10, "reply_tokens": 10}


def scenario(users: list[dict[str, Any]], shape: dict[str, Any], model: str = "open", **fields: Any) -> dict[str, Any]:
    return {
        "name": "tried", "warm_up_s": 0, "drain_s": 20, "users": users, "load": {"model": model, "shape": shape},
    } | fields  # fmt: skip


@pytest.fixture(scope="module")
def liar() -> Iterator[str]:
    with in_thread(only(make_liar())) as url:
        yield url


@pytest.fixture(scope="module")
def whole() -> Iterator[str]:
    with in_thread(paced_app) as url:
        yield url


@contextlib.asynccontextmanager
async def narrow() -> AsyncIterator[Any]:
    async with paced_app(slots=2) as app:
        yield app


async def test_each_broken_promise_is_a_failure_of_its_turn_and_of_no_other(liar: str, tmp_path: Path) -> None:
    lies = ("right", "gap", "doubled event", "lost piece", "no end", "failed", "refusal", "no JSON", "hang up")
    users = [
        {"kind": "ws_chat", "simulated": REPLY, "questions": [lie], "turn_timeout_s": 2, "turns": 50} for lie in lies
    ]
    shape = {"kind": "constant", "level": 18, "for_s": 6}
    made = await make_load(tmp_path, liar, scenario(users, shape), "--seed", "4")
    assert (made.code, made.ended["ended"]) == (1, "failed")
    codes = Counter((turn.code, turn.detail.split(" ")[0]) for turn in made.turns)
    told = {
        ("", ""), ("broken_promise", "seq"), ("broken_promise", "the"), ("no_end", "no"), ("upstream_failed", "gone"),
        ("overloaded", "later"), ("broken_promise", "a"), ("connection", "closed"),
    }  # fmt: skip
    assert set(codes) == told
    assert sum(codes.values()) == made.ended["due"] == made.ended["done"]
    assert made.ended["failed"] == sum(1 for turn in made.turns if turn.code)
    assert all(turn.turn_ms is None for turn in made.turns if turn.code in ("broken_promise", "no_end", "connection"))


async def test_a_turn_that_breaks_the_load_test_itself_is_counted_all_the_same(liar: str, tmp_path: Path) -> None:
    users = [{"kind": "sse_chat", "simulated": REPLY, "questions": [lie]} for lie in ("right", "no number")]
    made = await make_load(tmp_path, liar, scenario(users, {"kind": "constant", "level": 6, "for_s": 2}, drain_s=5))
    assert made.ended["due"] == made.ended["done"] == len(made.turns)
    codes = Counter((turn.code, turn.detail.split(" ")[0]) for turn in made.turns)
    assert set(codes) == {("", ""), ("unexpected", "ValueError:")}


async def test_steps_stop_by_themselves_beyond_the_knee_and_say_why(tmp_path: Path) -> None:
    # Two answers of 0.2 s at a time: ten a second, and no more.
    users = [{"kind": "ws_chat", "simulated": {"ttft_ms": 100, "token_ms": 10, "reply_tokens": 10}}]
    shape = {"kind": "steps", "first": 4, "by": 4, "last": 40, "each_s": 4}
    with in_thread(narrow) as url:
        made = await make_load(tmp_path, url, scenario(users, shape, slo={"ttft_p95_s": 1}))
    assert (made.code, made.ended["ended"]) == (0, "knee")
    assert "in a row" in made.ended["why"]
    assert [phase.rate_per_s for phase in made.phases][:3] == [4, 8, 12]
    assert 3 <= len(made.phases) <= 7
    good = {phase.index: 0 for phase in made.phases}
    for turn in made.turns:
        good[turn.phase] += turn.ttft_ms is not None and turn.ttft_ms <= 1000
    due = Counter(turn.phase for turn in made.turns)
    assert good[0] == due[0]
    assert good[len(made.phases) - 1] < 0.9 * due[len(made.phases) - 1]


async def test_arrivals_do_not_wait_for_a_server_that_is_late_and_the_wait_is_in_the_latency(tmp_path: Path) -> None:
    # Coordinated omission: five users asking one after the other would see 0.4 s each, and half as many turns.
    users = [{"kind": "ws_chat", "simulated": {"ttft_ms": 400, "token_ms": 0, "reply_tokens": 2}}]
    shape = {"kind": "constant", "level": 10, "for_s": 5}
    load = {"model": "open", "shape": shape, "users_max": 5}
    with in_thread(narrow) as url:
        made = await make_load(tmp_path, url, scenario(users, shape, load=load, slo={"ttft_p95_s": 60}), "--seed", "2")
    assert made.ended["ended"] == "done"
    assert made.ended["due"] == len(made.turns)
    assert len({turn.user for turn in made.turns}) <= 5
    last = sorted(made.turns, key=lambda turn: turn.due_at)[-3:]
    assert all(turn.ttft_ms is not None and turn.ttft_ms > 2000 for turn in last)
    assert all(turn.late_ms > 1000 for turn in last)


async def test_turns_that_nobody_was_free_to_send_are_failures_of_their_own(liar: str, tmp_path: Path) -> None:
    users = [{"kind": "ws_chat", "simulated": REPLY, "questions": ["no end"], "turn_timeout_s": 60}]
    shape = {"kind": "constant", "level": 4, "for_s": 3}
    load = {"model": "open", "shape": shape, "users_max": 2}
    made = await make_load(tmp_path, liar, scenario(users, shape, load=load, drain_s=1))
    assert Counter(turn.code for turn in made.turns) == {"no_end": 2, "not_sent": made.ended["due"] - 2}


async def test_an_interrupted_run_lets_running_turns_end_and_says_that_it_was_interrupted(
    whole: str, tmp_path: Path
) -> None:
    users = [{"kind": "ws_chat", "simulated": {"ttft_ms": 500, "token_ms": 50, "reply_tokens": 20}}]
    shape = {"kind": "constant", "level": 5, "for_s": 600}
    made = await make_load(tmp_path, whole, scenario(users, shape), interrupt_after=5)
    assert (made.code, made.ended["ended"]) == (0, "interrupted")
    assert len(made.turns) == made.ended["due"] == made.ended["done"] >= 5
    assert [turn.code for turn in made.turns] == [""] * len(made.turns)
    (phase,) = made.phases
    # It ended when nothing more became due, and not 1.5 s later with the answers: its rates would be too low.
    assert phase.ended_at is not None
    last_end = max(turn.due_at + (turn.turn_ms or 0) / 1000 for turn in made.turns)
    assert max(turn.due_at for turn in made.turns) <= phase.ended_at < last_end


async def test_a_run_that_is_killed_leaves_the_phase_that_it_was_in(whole: str, tmp_path: Path) -> None:
    users = [{"kind": "ws_chat", "simulated": QUICK}]
    shape = {"kind": "constant", "level": 8, "for_s": 600}
    made = await make_load(tmp_path, whole, scenario(users, shape), kill_after=5)
    assert made.code == -9
    assert [(phase.name, phase.rate_per_s, phase.ended_at) for phase in made.phases] == [("constant", 8, None)]
    run = load_run(tmp_path / "report")
    assert run.phases[0].ended_at == max(turn.due_at for turn in made.turns)


async def test_a_worker_that_is_lost_makes_the_run_a_failed_one(whole: str, tmp_path: Path) -> None:
    users = [{"kind": "ws_chat", "simulated": QUICK}]
    shape = {"kind": "constant", "level": 8, "for_s": 14}
    given = scenario(users, shape, slo={"errors": 1})
    made = await make_load(tmp_path, whole, given, "--processes", "2", kill_worker_after=4)
    assert (made.code, made.ended["ended"], made.ended["why"]) == (1, "failed", "1 of 2 workers were lost")
    users_seen = [line["users"] for line in made.progress]
    assert any(after < before for before, after in pairwise(users_seen)), "its users are counted no more"


async def test_users_beside_the_arrivals_are_not_late_for_what_began_after_they_came(
    whole: str, tmp_path: Path
) -> None:
    users: list[dict[str, Any]] = [
        {"kind": "ws_chat", "simulated": QUICK},
        {"kind": "ws_chat", "count": 1, "think_s": 0.05, "simulated": QUICK},
    ]
    made = await make_load(tmp_path, whole, scenario(users, {"kind": "constant", "level": 1, "for_s": 3}))
    (phase,) = made.phases
    assert all(turn.due_at >= phase.began_at - 0.01 for turn in made.turns)


async def test_sockets_that_nobody_opens_are_a_failed_run(liar: str, tmp_path: Path) -> None:
    users = [{"kind": "idle", "ping_s": 1}]
    shape = {"kind": "constant", "level": 3, "for_s": 3}
    made = await make_load(tmp_path, f"{liar}/nowhere", scenario(users, shape, "closed"))
    assert (made.code, made.ended["ended"]) == (1, "failed")
    assert "connections and pings failed" in made.ended["why"]


async def test_several_processes_share_the_load_and_write_one_folder(whole: str, tmp_path: Path) -> None:
    users = [{"kind": "ws_chat", "simulated": QUICK}, {"kind": "sse_chat", "simulated": QUICK}]
    shape = {"kind": "constant", "level": 8, "for_s": 8}
    made = await make_load(tmp_path, whole, scenario(users, shape, warm_up_s=2), "--processes", "2", "--seed", "3")
    assert (made.code, made.ended["ended"]) == (0, "done"), made.stderr
    assert made.ended["due"] == made.ended["done"] == len(made.turns)
    assert [turn.code for turn in made.turns] == [""] * len(made.turns)
    workers = Counter(turn.user.split("-")[2] for turn in made.turns if turn.phase == 1)
    assert set(workers) == {"0", "1"}
    assert 64 * 0.5 < sum(workers.values()) < 64 * 1.6
    assert [phase.name for phase in made.phases] == ["warm-up", "constant"]


async def test_in_several_processes_too_a_turn_waits_until_somebody_is_free(whole: str, tmp_path: Path) -> None:
    users = [{"kind": "ws_chat", "simulated": QUICK | {"ttft_ms": 300}}]
    few = scenario(users, {"kind": "constant", "level": 4, "for_s": 6})
    few["load"]["users_max"] = 2
    made = await make_load(tmp_path, whole, few, "--processes", "2", "--seed", "3")
    assert (made.code, made.ended["ended"]) == (0, "done"), made.stderr
    assert max(turn.late_ms for turn in made.turns) > 50
    assert [turn.code for turn in made.turns if turn.code] == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": "tried"}, "lacks the key"),
        ({"users": [{"kind": "transcript", "transcripts": "none.jsonl"}]}, "none.jsonl"),
    ],
)
async def test_a_scenario_that_cannot_be_used_ends_with_2_and_a_sentence(
    liar: str, tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    whole_one = scenario([{"kind": "ws_chat"}], {"kind": "constant", "level": 1, "for_s": 1})
    made = await make_load(tmp_path, liar, given if "users" not in given else whole_one | given)
    assert made.code == 2
    assert told in made.stderr.strip().splitlines()[-1]


async def test_a_target_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    given = scenario([{"kind": "ws_chat"}], {"kind": "constant", "level": 1, "for_s": 60})
    made = await make_load(tmp_path, f"http://127.0.0.1:{port}", given)
    assert (made.code, made.ended["ended"]) == (1, "failed")
    assert "nothing answers" in made.ended["why"]
