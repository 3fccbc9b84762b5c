"""How many turns are under way: more while all goes well, half where there is no room, none while it was asked to wait."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.domain.turns import NewTurn
from serve_app.errors import Overloaded, QuotaExceeded, StageUnavailable
from serve_app.evaluation.concurrency import FORGETS_AFTER, Delay, Pace
from serve_app.evaluation.paced_graph import PacedGraph
from serve_app.evaluation.results import CellKey
from serve_app.evaluation.run_meta import ConfigurationMeta
from serve_app.evaluation.run_start import asking
from serve_app.evaluation.trial_turns import new_turn, questions
from tests.unit.evaluation.fake_graph import Answerer, FakeGraph
from tests.unit.evaluation.runs import case, meta, run_file


def turn(number: int) -> NewTurn:
    run = run_file()
    one = case(number)
    cell = CellKey(configuration="a", case_id=one.id)
    return new_turn(
        asking(run, meta(run, 1)), one, cell, ConfigurationMeta(name="a"), questions(one, "next-turn")[0], [], 0
    )


async def full(pace: Pace, ends: int, delay_ms: float = 1.0) -> None:
    """So many turns end well while there are as many as there may be."""
    leave = asyncio.Event()

    async def one() -> None:
        async with pace.room():
            await leave.wait()

    tasks = [asyncio.create_task(one()) for _ in range(200)]
    await asyncio.sleep(0)
    for _ in range(ends):
        pace.went_well({"": delay_ms})
        await asyncio.sleep(0)
    leave.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert pace.under_way == 0


async def test_the_limit_grows_by_one_a_round_up_to_the_most() -> None:
    pace = Pace(4, 6)
    await full(pace, 5)
    assert pace.limit == 5
    await full(pace, 100)
    assert pace.limit == 6


async def test_it_does_not_grow_where_it_is_not_used() -> None:
    pace = Pace(4, 100)
    for _ in range(100):
        async with pace.room():
            pace.went_well({"": 1.0})
    assert pace.limit == 4


async def test_refusals_that_come_together_halve_it_once_and_later_ones_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    pace = Pace(32, 32)
    for _ in range(5):
        pace.refused(2.0)
    assert pace.limit == 16
    now += 2.1
    pace.refused(None)
    assert pace.limit == 8
    for _ in range(20):
        now += 2.0
        pace.refused(0)
    assert pace.limit == 1


async def test_a_line_that_forms_stops_growth_and_a_long_one_halves_the_limit() -> None:
    pace = Pace(8, 64)
    await full(pace, 20, delay_ms=10.0)
    grown = pace.limit
    assert grown > 8
    await full(pace, 60, delay_ms=120.0)  # more than twice as long as the shortest, with the allowance
    assert pace.limit <= grown + 3
    held = pace.limit
    await full(pace, 2 * held, delay_ms=2_000.0)
    assert 8 <= pace.limit < held
    await full(pace, 60, delay_ms=2_000.0)
    assert pace.limit == 8  # who is slow for reasons of his own gets no faster by doing less than at the start


def test_the_shortest_delay_is_forgotten_in_time() -> None:
    delay = Delay()
    delay.add(1.0)
    for _ in range(3 * FORGETS_AFTER):
        delay.add(400.0)
    assert delay.inflation < 1.1


async def test_never_more_turns_run_than_the_limit_and_they_come_in_order() -> None:
    pace = Pace(3, 3)
    graph = FakeGraph()
    paced = PacedGraph(graph, pace)
    await asyncio.gather(*(paced.run(turn(number)) for number in range(30)))
    assert graph.most == 3
    assert [new.query.content for new in graph.turns.values()] == [f"What is {number}?" for number in range(30)]


async def test_a_turn_called_off_while_it_waits_takes_no_room() -> None:
    pace, in_room = Pace(1, 1), asyncio.Event()

    async def one() -> None:
        async with pace.room():
            in_room.set()
            await asyncio.Event().wait()

    first, second, third = (asyncio.create_task(one()) for _ in range(3))
    await in_room.wait()
    in_room.clear()
    second.cancel()
    first.cancel()
    await asyncio.wait_for(in_room.wait(), 10)
    assert (pace.under_way, third.done()) == (1, False)
    third.cancel()
    await asyncio.gather(first, second, third, return_exceptions=True)
    assert pace.under_way == 0


async def test_a_turn_called_off_in_the_moment_it_is_given_room_gives_it_back() -> None:
    pace = Pace(1, 1)

    async def one() -> None:
        async with pace.room():
            pass

    async with pace.room():
        waiting = asyncio.create_task(one())
        await asyncio.sleep(0)
    waiting.cancel()  # it has been given room, and has not run since
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    assert pace.under_way == 0


@pytest.mark.parametrize("error", [Overloaded("full", None, 0.01), QuotaExceeded("quota", None, 0.01)])
async def test_a_turn_for_which_there_is_no_room_is_asked_again_and_not_lost(error: Exception) -> None:
    def answer(new: NewTurn, asked: int) -> str | Exception:
        return error if asked < 3 else "done"

    graph = FakeGraph(answer)
    pace = Pace(8, 8)
    end = await asyncio.wait_for(PacedGraph(graph, pace).run(turn(1)), 20)
    assert end.failure is None
    assert graph.asked.total() == 3
    assert (pace.refusals, pace.limit) == (2, 2)


async def test_a_graph_that_takes_no_turn_at_all_is_given_up_in_the_end() -> None:
    def never(new: NewTurn, asked: int) -> Exception:
        return Overloaded("full", None, 0.01)

    answer: Answerer = never
    with pytest.raises(Overloaded, match="taken no turn") as caught:
        await asyncio.wait_for(PacedGraph(FakeGraph(answer), Pace(1, 1), patience_s=0.3).run(turn(1)), 20)
    assert not caught.value.retryable


async def test_a_stage_that_is_replaced_is_waited_for_and_one_that_stays_away_is_not() -> None:
    def away(new: NewTurn, asked: int) -> str | Exception:
        return StageUnavailable("gone", None, 0.01) if asked < 3 else "done"

    graph = FakeGraph(away)
    end = await asyncio.wait_for(PacedGraph(graph, Pace(1, 1)).run(turn(1)), 20)
    assert (end.failure, graph.asked.total()) == (None, 3)

    def hangs(new: NewTurn, asked: int) -> str | Exception:
        return StageUnavailable("no end", None, 0.01) if new.key == turn(1).key else "done"

    paced = PacedGraph(FakeGraph(hangs), Pace(2, 2), away_s=0.3)

    async def others() -> None:
        for number in range(2, 1_000):
            await paced.run(turn(number))

    beside = asyncio.create_task(others())
    with pytest.raises(StageUnavailable):
        await asyncio.wait_for(paced.run(turn(1)), 20)
    beside.cancel()


async def test_the_time_of_a_turn_counts_from_when_there_is_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = FakeGraph()
    new = turn(1)
    monkeypatch.setattr("serve_app.evaluation.paced_graph.time.time", lambda: new.deadline + 1_000)
    await PacedGraph(graph, Pace(1, 1)).run(new)
    (asked,) = graph.turns.values()
    assert asked.deadline == pytest.approx(new.deadline + 1_000 + 300, abs=1)
    assert asked.created_at.timestamp() == pytest.approx(new.deadline + 1_000, abs=1)
