"""An evaluation beside a running graph: its process attaches, its trials run there, and a replica's death loses none of them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.e2e.processes import Run
from tests.e2e.server import ParleyServer, Running, child_environment
from tests.simulators.turns.trial import OWNER

SECONDS = 120.0
SLOW = "sim-t3000-i10-n20"
"""Says nothing for three seconds."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParleyServer]:
    """Its own, because what runs turns is killed in it."""
    server = ParleyServer(tmp_path_factory.mktemp("trials"))
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.kill()


class Evaluation:
    """The process that attaches; ``lines`` are what it told."""

    def __init__(self, server: ParleyServer, folder: Path, *cases: str) -> None:
        self._run = server.run
        command = [sys.executable, "-m", "tests.e2e.trial_program", str(server.data_dir), *cases]
        environment = child_environment(Run("not the server's"))
        self.running = Running(command, folder, environment)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.running.output.splitlines() if line.startswith("{")]

    async def ended(self) -> list[dict[str, Any]]:
        assert await asyncio.to_thread(self.running.wait, SECONDS) == 0, self.running.output[-3000:]
        return self.lines


async def test_trials_run_on_the_graph_of_this_machine_and_show_in_nobodys_list(
    server: ParleyServer, tmp_path: Path
) -> None:
    first, *ends, last = await Evaluation(server, tmp_path, "a", "b", "a").ended()
    assert first["attached"], first
    assert "crm.find_account" in first["tools"]
    assert first["prompts"]["assistant"][0] == "v1"
    assert [(end["case"], end["state"], end["prompt"], end["failure"]) for end in ends] == [
        (case, "completed", "assistant@v1", None) for case in ("a", "b", "a")
    ]
    assert all(end["calls"] >= 1 and "Contoso" in end["text"] for end in ends), ends
    assert ends[0] == ends[2]
    assert last == {"left": True}
    async with httpx2.AsyncClient(base_url=server.url, headers={"x-dev-tenant": OWNER.tenant_id}) as http:
        listed = await http.get("/api/conversations", headers={"x-dev-user": "ana"})
        owned = await http.get("/api/conversations", headers={"x-dev-user": OWNER.user_id})
    assert listed.json()["items"] == []
    assert owned.status_code == 401, "nobody is called like who owns trials"


async def test_a_trial_outlives_the_replica_that_ran_it(server: ParleyServer, tmp_path: Path) -> None:
    evaluation = Evaluation(server, tmp_path, f"killed={SLOW}")
    await until_asked(server, SLOW)
    for replica in replicas(server, "Turns"):
        replica.kill()
    *_, end, _ = await evaluation.ended()
    assert (end["case"], end["state"], end["failure"]) == ("killed", "completed", None), evaluation.lines
    assert (end["epoch"], end["steps"]) == (2, 1)


async def until_asked(server: ParleyServer, model: str) -> None:
    """Waits until the provider has been asked for an answer of this model, and has not given it yet."""
    until = time.monotonic() + SECONDS
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.companions_port}") as http:
        while True:
            entries = (await http.get("/_sim/requests")).json()
            found = entries["requests"] if isinstance(entries, dict) else entries
            if any(one["model"] == model and not one["finished"] for one in found):
                return
            assert time.monotonic() < until, found
            await asyncio.sleep(0.05)


def replicas(server: ParleyServer, stage: str) -> list[psutil.Process]:
    """The processes of a stage, by the title that Ray gives them."""
    found = []
    for process in server.run.processes():
        try:
            if f"ServeReplica:parley:{stage}" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found
