"""The launcher before HAProxy: what the generated file may listen on, and that it becomes the binary it stands for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions, gRPCOptions

from deployments import haproxy_launcher
from deployments.environment import free_ports, ray_environment
from deployments.haproxy_launcher import narrowed


def generated(folder: Path, host: str = "127.0.0.1", grpc: bool = False) -> str:
    """The file that the installed Serve makes for a graph with one replica of its ingress."""
    config = HAProxyConfig(
        http_options=HTTPOptions(host=host, port=8000),
        grpc_options=gRPCOptions(port=9000, grpc_servicer_functions=["a.b"] if grpc else []),
        socket_path=str(folder / "a"),
        metrics_socket_path=str(folder / "m"),
        server_state_base=str(folder),
        server_state_file=str(folder / "s"),
        has_received_routes=True,
        has_received_servers=True,
    )
    replica = ServerConfig(name="r1", host="127.0.0.1", port=30000)
    backend = BackendConfig(name="parley", path_prefix="/", app_name="parley", servers=[replica])
    api = HAProxyApi(config, {"parley": backend}, config_file_path=str(folder / "h.cfg"))
    api._generate_config_file_internal()
    return (folder / "h.cfg").read_text()


def without_replicas(folder: Path, port: int) -> str:
    """The file that a HAProxy begins with, before it is told of any replica."""
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        grpc_options=gRPCOptions(),
        socket_path=str(folder / "a"),
        metrics_socket_path=str(folder / "m"),
        server_state_base=str(folder),
        server_state_file=str(folder / "s"),
        stats_port=free_ports(1)[0],
        metrics_port=free_ports(1)[0],
    )
    api = HAProxyApi(config, {}, config_file_path=str(folder / "h.cfg"))
    api._generate_config_file_internal()
    return (folder / "h.cfg").read_text()


def binds(text: str) -> list[str]:
    lines = [line.split() for line in text.splitlines()]
    return [words[1] for words in lines if words[:1] == ["bind"]]


async def test_what_serve_generates_listens_on_loopback_only(tmp_path: Path) -> None:
    text = generated(tmp_path, grpc=True)
    assert any(bind.startswith((":", "*")) for bind in binds(text)), "Serve has its own settings for this now"
    found = binds(narrowed(text, "127.0.0.1"))
    assert len(found) == 4
    assert all(bind.startswith("127.0.0.1:") for bind in found)
    assert "127.0.0.1:8000" in found


async def test_only_the_way_in_listens_wider_when_the_operator_says_so(tmp_path: Path) -> None:
    found = binds(narrowed(generated(tmp_path, host="0.0.0.0"), "127.0.0.1"))  # noqa: S104
    assert [bind for bind in found if not bind.startswith("127.0.0.1:")] == ["*:8000"]


async def test_the_sockets_of_haproxy_are_their_owners(tmp_path: Path) -> None:
    text = generated(tmp_path)
    assert "mode 666" in text
    changed = narrowed(text, "127.0.0.1")
    assert "mode 666" not in changed
    assert "mode 600" in changed


async def test_a_haproxy_that_knows_no_replica_says_come_back_and_not_gone(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    text = without_replicas(tmp_path, port)
    assert "return status 404" in text, "Serve answers otherwise now"
    path = tmp_path / "narrowed.cfg"
    path.write_text(narrowed(text, "127.0.0.1"))
    binary = ray_environment(tmp_path / "run")["HAPROXY_LAUNCHER_BINARY"]
    haproxy = await asyncio.create_subprocess_exec(binary, "-db", "-f", str(path))
    try:
        async with asyncio.timeout(20):
            status, headers, body = await ask(port, "/api/turns/c1.x/events")
    finally:
        haproxy.kill()
        await haproxy.wait()
    assert status == 503
    assert headers["retry-after"] == "1"
    assert (headers["content-type"], json.loads(body)["code"]) == ("application/problem+json", "overloaded")


async def ask(port: int, path: str) -> tuple[int, dict[str, str], str]:
    """A GET, made again until somebody listens."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
            continue
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        return int(lines[0].split()[1]), headers, body


async def test_nothing_else_is_changed_and_doing_it_again_changes_nothing(tmp_path: Path) -> None:
    text = generated(tmp_path)
    changed = narrowed(text, "127.0.0.1")
    pairs = list(zip(text.splitlines(), changed.splitlines(), strict=True))
    different = [before for before, after in pairs if before != after]
    assert all(line.split()[0] in {"bind", "stats"} or "status 404" in line for line in different)
    assert narrowed(changed, "127.0.0.1") == changed


@pytest.mark.parametrize("bind", [":9101", "*:9101", "0.0.0.0:9101", "[::]:9101", ":::9101"])
def test_every_way_to_say_everywhere_is_narrowed(bind: str) -> None:
    assert narrowed(f"frontend x\n    bind {bind} proto h2\n", "127.0.0.1") == (
        "frontend x\n    bind 127.0.0.1:9101 proto h2\n"
    )


@pytest.mark.parametrize("bind", ["127.0.0.1:9101", "10.0.0.7:9101", "unix@/tmp/x"])
def test_an_address_that_was_chosen_is_kept(bind: str) -> None:
    assert narrowed(f"frontend x\n  bind {bind}\n", "127.0.0.1") == f"frontend x\n  bind {bind}\n"


# -- the process -----------------------------------------------------------------------------------------------------

STAND_IN = """#!/bin/sh
echo "$$ $*"
cat
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A binary that says its pid and arguments and runs until its input ends."""
    path = tmp_path / "haproxy"
    path.write_text(STAND_IN)
    path.chmod(0o700)
    return path


def test_the_launcher_narrows_the_file_and_becomes_the_binary_with_its_pid(tmp_path: Path, stand_in: Path) -> None:
    file = tmp_path / "h.cfg"
    file.write_text("listen stats\n  bind *:8404\n")
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", haproxy_launcher.__file__, "-db", "-f", str(file), "-sf", "7"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={
            "HAPROXY_LAUNCHER_BINARY": str(stand_in),
            "HAPROXY_LAUNCHER_BIND": "127.0.0.1",
            "PATH": os.environ["PATH"],
        },
        text=True,
    )
    out, _ = child.communicate("", timeout=30)
    assert out.split("\n")[0] == f"{child.pid} -db -f {file} -sf 7"
    assert file.read_text() == "listen stats\n  bind 127.0.0.1:8404\n"
    assert [path.name for path in tmp_path.glob("h.*")] == ["h.cfg"]


def test_the_shipped_launcher_runs_what_it_is_told(tmp_path: Path, stand_in: Path) -> None:
    environment = ray_environment(tmp_path / "run")
    launcher = environment["RAY_SERVE_HAPROXY_BINARY_PATH"]
    assert stat.S_IMODE(Path(launcher).stat().st_mode) == 0o700
    done = subprocess.run(
        [launcher, "-v"],
        env={**environment, "HAPROXY_LAUNCHER_BINARY": str(stand_in), "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split()[1:] == ["-v"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_the_binary_ends_with_the_process_that_manages_it(tmp_path: Path, stand_in: Path) -> None:
    manager = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys\n"
            "child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
            "print(child.stdout.readline().split()[0].decode(), flush=True)\n"
            "sys.stdin.read()\n",
            sys.executable,
            "-I",
            "-S",
            haproxy_launcher.__file__,
        ],
        env={
            "HAPROXY_LAUNCHER_BINARY": str(stand_in),
            "HAPROXY_LAUNCHER_BIND": "127.0.0.1",
            "PATH": os.environ["PATH"],
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert manager.stdout is not None
    binary = psutil.Process(int(manager.stdout.readline()))
    manager.send_signal(signal.SIGKILL)
    manager.communicate(timeout=30)
    gone, _ = psutil.wait_procs([binary], timeout=30)
    assert gone or binary.status() == psutil.STATUS_ZOMBIE
