"""The graph in one process, with its real store, provider and tool servers on real sockets."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from serve_app.credentials import Secrets
from serve_app.domain.conversation import ToolResultPart
from serve_app.domain.trial import RecordedCall, TrialTools
from serve_app.errors import Overloaded
from serve_app.settings import PROJECT_ROOT, Settings
from serve_app.turns.local_graph import local_trial_graph
from serve_app.turns.trial_tools import NOT_RECORDED
from serve_app.turns.trials import TrialEnd
from tests.simulators.turns.trial import SALES, trial

SECONDS = 60.0
QUICK = "sim-t10-i1-n5"
SLOW = "sim-t10-i40-n40"
"""Begins at once and goes on for more than a second."""


def results(end: TrialEnd) -> list[ToolResultPart]:
    return [part for step in end.turn.steps for part in step.parts if isinstance(part, ToolResultPart)]


async def test_trials_run_without_a_running_graph_and_are_found_again_by_the_next_process(tmp_path: Path) -> None:
    records = TrialTools(mode="recorded", calls=(RecordedCall(name="crm.find_account", result={"name": "Recorded"}),))
    async with asyncio.timeout(2 * SECONDS):
        async with local_trial_graph(Settings(), Secrets(), tmp_path) as graph:
            names = [spec.name for spec in (await graph.tools_for(SALES)).tools]
            assert "crm.find_account" in names
            assert (await graph.catalog()).simulated
            assert (await graph.prompts())["assistant"][0] == "v1"
            live, recorded, unrecorded = await asyncio.gather(
                graph.run(trial("live")),
                graph.run(trial("recorded", tools=records)),
                graph.run(trial("none", tools=TrialTools(mode="recorded"))),
            )
        async with local_trial_graph(Settings(), Secrets(), tmp_path) as graph:
            again = await graph.run(trial("live"))
    assert {live.failure, recorded.failure, unrecorded.failure} == {None}
    assert (live.prompt, live.turn.state) == ("assistant@v1", "completed")
    assert "Contoso" in str(results(live)[0].result), "the example server's own words"
    assert results(recorded)[0].result == {"name": "Recorded"}
    assert results(unrecorded)[0].result == NOT_RECORDED
    assert again == live


async def test_a_trial_whose_process_was_killed_is_taken_over_by_the_next_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.simulators.turns.left_behind", str(tmp_path), SLOW]
    async with asyncio.timeout(2 * SECONDS):
        killed = await asyncio.create_subprocess_exec(*command, cwd=PROJECT_ROOT)
        assert await killed.wait() == -signal.SIGKILL
        async with local_trial_graph(Settings(), Secrets(), tmp_path) as graph:
            end = await graph.run(trial("left", SLOW))
            other = await graph.run(trial("other", QUICK))
    assert (end.turn.state, end.turn.epoch, len(end.turn.steps)) == ("completed", 2, 1), end.failure
    assert other.turn.epoch == 1


async def test_no_more_run_at_once_than_may(tmp_path: Path) -> None:
    async with asyncio.timeout(2 * SECONDS), local_trial_graph(Settings(), Secrets(), tmp_path, max_trials=2) as graph:
        running = [asyncio.create_task(graph.run(trial(case, SLOW))) for case in ("one", "two", "three")]
        done, left = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(Overloaded) as refused:
            done.pop().result()
        assert refused.value.retry_after_s
        assert {end.turn.state for end in await asyncio.gather(*left)} == {"completed"}
