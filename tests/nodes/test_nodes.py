"""A plan's configuration deploys onto a cluster of three nodes; stages scale apart; a node dies under load, no turn is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from deployments.autoscaling import CPU_SHARE, WAITING
from serve_app.cli.capacity import capacity
from tests.chaos.graph import INGRESS, MODELS, PROMPTS, STORE, TOOLS, TURNS
from tests.chaos.ledger import Entry
from tests.chaos.models import LONG, PAIR, STEPS
from tests.chaos.report import Outcome, print_table
from tests.chaos.world import World, streaming
from tests.e2e.server import StartFailed
from tests.nodes.cluster import STREAMS, NodesGraph
from tests.nodes.program import HEAD, Seen
from tests.unit.capacity.synthetic import Model, write_run

SEED = 7
AT_WORK, TURNS_AT_ALL = 12, 24
SPREAD = (INGRESS, TURNS, PROMPTS, MODELS, TOOLS)
pytestmark = pytest.mark.timeout(420)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `parley capacity plan` writes, from a run whose figures are known."""
    report = write_run(tmp_path_factory.mktemp("report"), Model())
    options = ["plan", "--report", str(report), "--users", "500", "--turns-per-user-hour", "6", "--store", "embedded"]
    done = CliRunner().invoke(capacity, options)
    assert done.exit_code == 0, done.output
    return report / "serve_config.planned.yaml"


@pytest.fixture(scope="module")
def graph(planned: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodesGraph]:
    started = NodesGraph(tmp_path_factory.mktemp("nodes"), planned)
    try:
        started.start()
        yield started
        started.stop()
    except StartFailed as failure:
        pytest.fail(f"the graph did not start: {failure}", pytrace=False)
    finally:
        started.kill_all()


def test_the_plan_is_deployed_over_the_nodes(graph: NodesGraph) -> None:
    seen = graph.nodes.until(lambda seen: all(len(seen.stages[stage]) >= 2 for stage in SPREAD), 60)
    assert [placed.node for placed in seen.stages[STORE]] == [HEAD], "beside its volume"
    for stage in SPREAD:
        assert {placed.node for placed in seen.stages[stage]} == {"one", "two"}, stage


def test_replicas_tell_serves_controller_what_they_are_short_of(graph: NodesGraph) -> None:
    seen = graph.nodes.until(lambda seen: all(len(seen.told[stage].get(CPU_SHARE, ())) >= 2 for stage in SPREAD), 60)
    for stage in SPREAD:
        assert all(0 < share < 1.5 for share in seen.told[stage][CPU_SHARE]), stage
    assert seen.told[TURNS][WAITING] == (0.0, 0.0)
    assert seen.told[STORE] == {}, "it does not scale"


def test_the_stage_under_load_scales_and_the_others_do_not(graph: NodesGraph) -> None:
    async def load() -> tuple[Outcome, Seen]:
        async with World.around(graph, "scale", SEED, 12, short=True) as world:
            crowd = world.crowd()
            for plan in world.plans(3 * STREAMS, (LONG,)):
                crowd.start(plan)
            scaled = await asyncio.to_thread(graph.nodes.until, lambda seen: len(seen.stages[MODELS]) == 3, 90)
            return await world.outcome(await crowd.finish()), scaled

    before = graph.nodes.until(lambda seen: seen.ready, 30)
    outcome, scaled = asyncio.run(load())
    assert outcome.broken == []
    assert len(before.stages[MODELS]) == 2
    for stage in (INGRESS, TURNS, PROMPTS, TOOLS, STORE):
        assert scaled.targets[stage] == before.targets[stage], stage


def _silence(*entries: Entry) -> float:
    """The longest that nothing came for any of them, from the first message to the last end."""
    heard = sorted(arrival.at for entry in entries for arrival in entry.transcript.arrivals)
    return max(after - before for before, after in pairwise([min(entry.sent_at for entry in entries), *heard]))


def test_a_node_dies_under_load_and_no_turn_is_lost(graph: NodesGraph) -> None:
    """The last test of the graph: a node is gone after it."""

    async def load() -> Outcome:
        async with World.around(graph, "node", SEED, TURNS_AT_ALL, short=True) as world:
            crowd = world.crowd()
            plans = world.plans(TURNS_AT_ALL, (LONG, PAIR, STEPS))
            for plan in plans[:AT_WORK]:
                crowd.start(plan)
            await crowd.until(streaming, at_least=AT_WORK // 2, bound_s=60)
            at_work = sum(map(streaming, crowd.entries))
            killed_at = graph.nodes.kill_node("one")
            await crowd.arrive(plans[AT_WORK:], 1.0)
            outcome = await world.outcome(await crowd.finish())
            outcome.figures["streaming as the node died"] = at_work
            outcome.figures["longest turn s"] = round(max((e.ended_at or 0.0) - e.sent_at for e in crowd.entries), 1)
            outcome.figures["longest silence of one s"] = round(max(map(_silence, crowd.entries)), 1)
            outcome.figures["longest silence of all s"] = round(_silence(*crowd.entries), 1)
            outcome.figures["ended after s"] = round(max(e.ended_at or 0.0 for e in crowd.entries) - killed_at, 1)
            outcome.demand(at_work >= AT_WORK // 2, "the node died before anything was under way")
            outcome.demand(all(entry.outcome == "chat_response" for entry in crowd.entries), "a turn was not answered")
            return outcome

    outcome = asyncio.run(load())
    print_table([outcome], Console(width=120), SEED)
    assert outcome.broken == []
    seen = graph.nodes.until(
        lambda seen: "one" not in seen.nodes and all(len(seen.stages[stage]) >= 2 for stage in SPREAD), 90
    )
    assert {placed.node for stage in SPREAD for placed in seen.stages[stage]} == {"two"}, "all of them on what is left"
