"""A share of live turns mirrored to a candidate, in the graph as it ships: nobody notices, and the report can be made."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.domain.conversation import ToolResultPart
from serve_app.evaluation.run_store import RunStore
from serve_app.turns.trial_tools import NOT_RECORDED
from tests.e2e.protocol_client import Api
from tests.e2e.server import PROJECT, ParleyServer, child_environment
from tests.e2e.test_metrics import exported

SCRIPT = Path(__file__).parent / "shadow_script.yaml"
WITHIN_S = 90.0
ONE_CALL = r'ray_parley_tool_calls_total\{[^}]*tool="crm.update_opportunity"[^}]*\} 1(\.0)?\n'
MIRRORED = r'ray_parley_shadow_total\{[^}]*outcome="mirrored"[^}]*\} 1(\.0)?\n'


@pytest.fixture(scope="module")
def mirroring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParleyServer]:
    folder = tmp_path_factory.mktemp("shadow")
    (folder / "shadow.yaml").write_text(
        "share: 1\nroles: [sales]\ncandidates:\n  - {name: bold, model: candidate-changer}\n"
    )
    variables = {"PARLEY_COMPANIONS__SCRIPT": str(SCRIPT), "PARLEY_SHADOW": str(folder / "shadow.yaml")}
    server = ParleyServer(folder, variables=variables)
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.kill()


def made(server: ParleyServer, folder: Path) -> bool:
    """Whether ``parley eval shadow`` has found something by now, beside the graph that runs."""
    environment = child_environment(server.run, {"PARLEY_DATA_DIR": str(server.data_dir)})
    command = [sys.executable, "-m", "serve_app.cli", "eval", "shadow", "--out", str(folder)]
    ended = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode in (0, 1), ended.stderr
    return ended.returncode == 0


async def test_a_live_turn_is_mirrored_and_its_user_and_the_tools_do_not_notice(
    mirroring: ParleyServer, tmp_path: Path
) -> None:
    async with Api.as_new_user(mirroring.url) as api:
        async with api.socket() as chat:
            await chat.start_session("one")
            turn = await chat.ask("Set OPP-1002 to five", model_id="changer")
            assert (turn.tools, turn.last["response"]) == (["crm.update_opportunity"], "It is five now.")
        until = time.monotonic() + WITHIN_S
        while not await asyncio.to_thread(made, mirroring, tmp_path / "run"):
            assert time.monotonic() < until, mirroring.output[-2000:]
        page = await exported(mirroring, ONE_CALL, MIRRORED)
        listed = (await api.get("/api/conversations"))["items"]
        messages = await api.messages("one")

    assert [item["id"] for item in listed] == ["one"]
    assert len(messages) == 2
    assert re.search(MIRRORED, page)
    assert re.search(ONE_CALL, page), "the tool was called once, for the user"
    with RunStore.open(tmp_path / "run") as store:
        ((case, live, candidate),) = store.pairs("live", "bold")
    assert case.messages[0].content == "Set OPP-1002 to five"
    assert (live.result.answer, candidate.result.answer) == ("It is five now.", "I would have said nine.")
    results = [part.result for part in candidate.result.last.parts if isinstance(part, ToolResultPart)]
    assert results[0]["amount"] == 5 and results[1] == NOT_RECORDED
    assert candidate.result.last.unrecorded == ("crm.update_opportunity",)
    assert live.result.last.unrecorded == ()
