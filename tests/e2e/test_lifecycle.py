"""Starting, stopping and not starting, as somebody at a terminal sees it. Most of these have a graph of their own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import on_sqlite
from tests.e2e.server import START_S, ParleyServer, refused

SOCKETS_S = 15.0


def test_nothing_listens_beyond_loopback(graph: ParleyServer) -> None:
    own = {"page": graph.port, "companions": graph.companions_port, "metrics": graph.metrics_port}
    unseen = list(own)
    until = time.monotonic() + SOCKETS_S
    while unseen and time.monotonic() < until:  # Ray opens some of them beside the start
        sockets = graph.run.sockets()
        ports = {socket.port for socket in sockets}
        unseen = [name for name, port in own.items() if port not in ports]
    assert unseen == [], "the sockets looked at are the graph's"
    assert len(sockets) >= 20
    assert [socket for socket in sockets if not socket.is_loopback] == []


@on_sqlite
def test_the_start_says_where_it_is_and_that_the_model_is_simulated(graph: ParleyServer) -> None:
    assert graph.url in graph.output
    assert str(graph.data_dir) in graph.output.replace("\n", "")
    assert "simulated" in graph.output
    assert graph.metrics_url in graph.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_ends_everything_at_once(tmp_path: Path, number: signal.Signals) -> None:
    server = ParleyServer(tmp_path)
    running = server.launch()
    try:
        until = time.monotonic() + START_S
        while not any("raylet" in process.name() for process in server.run.processes()):
            assert running.process.poll() is None, running.output
            assert time.monotonic() < until
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(0.1)
        server.send_signal(number)
        assert server.wait() == 130, server.output
    finally:
        server.kill()


@on_sqlite
def test_a_taken_port_is_named(graph: ParleyServer, tmp_path: Path) -> None:
    said = refused(ParleyServer(tmp_path, port=graph.port))
    assert "PARLEY_PORT" in said
    assert str(graph.port) in said
    assert "taken" in said


@on_sqlite
def test_a_data_folder_that_another_graph_uses_is_named(graph: ParleyServer, tmp_path: Path) -> None:
    said = refused(ParleyServer(tmp_path, data_dir=graph.data_dir))
    assert str(graph.data_dir) in said
    assert "another" in said.lower()
