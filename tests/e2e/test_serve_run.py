"""``serve run serve_config.yaml`` by Ray's own command, with the environment that ``parley env`` prints."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml

from tests.e2e.processes import Run, free_port
from tests.e2e.protocol_client import Api
from tests.e2e.server import PROJECT, START_S, STOP_S, Running, child_environment


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Run, Running]]:
    """Address, processes and command of a graph started by ``serve run``, on a port of the test's own."""
    run = Run(uuid.uuid4().hex)
    port = free_port()
    config = yaml.safe_load((PROJECT / "serve_config.yaml").read_text())
    config["http_options"]["port"] = port
    file = tmp_path / "serve_config.yaml"
    file.write_text(yaml.safe_dump(config))
    settings = {
        "PARLEY_DATA_DIR": str(tmp_path / "data"),
        "PARLEY_COMPANIONS__PORT": str(free_port()),
        "PARLEY_LOG__FORMAT": "json",
    }
    environment = child_environment(run, settings)
    printed = subprocess.run(
        [sys.executable, "-m", "serve_app.cli", "env"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    for line in printed.stdout.splitlines():
        export, assignment = shlex.split(line)
        assert export == "export"
        name, _, value = assignment.partition("=")
        environment[name] = value
    serve = str(Path(sys.executable).with_name("serve"))
    running = Running([serve, "run", "--address", "local", str(file)], tmp_path, environment)
    try:
        yield f"http://127.0.0.1:{port}", run, running
    finally:
        run.kill()
        running.process.wait(10)


async def until_ready(url: str, running: Running) -> None:
    """``serve run`` says when it has handed the configuration over, not when the graph is there."""
    until = time.monotonic() + START_S
    status = 0
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        while status != 200:
            assert running.process.poll() is None, running.output[-3000:]
            assert time.monotonic() < until, running.output[-3000:]
            await asyncio.sleep(0.3)
            with contextlib.suppress(httpx2.TransportError):
                status = (await http.get(f"{url}/ready")).status_code


@pytest.mark.timeout(300)
async def test_it_answers_a_turn_listens_on_loopback_only_and_ends_in_order(
    served: tuple[str, Run, Running],
) -> None:
    url, run, running = served
    await until_ready(url, running)

    async with Api.as_new_user(url) as api, api.socket() as chat:
        session = await chat.start_session()
        turn = await chat.ask("Which opportunities does Contoso have?")
        assert turn.last["type"] == "chat_response"
        assert turn.tools == ["crm.list_opportunities"]
        await api.check_stored(session["session_id"], turn)

    sockets = run.sockets()
    assert len(sockets) >= 20
    assert [socket for socket in sockets if not socket.is_loopback] == []

    running.process.send_signal(signal.SIGTERM)
    running.wait(STOP_S)
    assert run.left(within_s=10.0) == []
