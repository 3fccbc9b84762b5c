"""What a stage's replica does before its own start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.util
import structlog
from ray import serve

from deployments import shell
from deployments.shell import Shell, StageContext
from serve_app.channel.port import Address
from serve_app.domain.turns import Owner
from serve_app.settings import Settings
from serve_app.telemetry import logger

SECRET = "s" * 64


class EchoDeployment(Shell):
    async def start(self, **peers: Any) -> None:
        self.peers = peers
        logger("echo").info("started")


class Rank:
    rank = 0


class RuntimeContext:
    def get_actor_id(self) -> str:
        return "r7"


class Context:
    """Serve's context of a replica, as far as the shell asks."""

    class replica_id:  # noqa: N801 - as Serve's context has it
        unique_id = "r7"

    class _deployment_config:  # noqa: N801
        max_ongoing_requests = 50

    deployment = "Echo"
    replica_tag = "r7"
    rank = Rank()


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Where replicas were told to listen; logging is put back as it was."""
    hosts: list[str] = []
    monkeypatch.setattr(shell, "bind_replica_server", hosts.append)
    monkeypatch.setattr(serve, "get_replica_context", Context)
    before = structlog.get_config()
    yield hosts
    structlog.configure(**before)


async def made(settings: Settings, **peers: Any) -> EchoDeployment:
    stage = object.__new__(EchoDeployment)
    await EchoDeployment.__init__(stage, StageContext(settings=settings, channel_secret=SECRET), **peers)
    return stage


async def test_a_stage_starts_with_its_peers_once_it_can_log_and_count(tmp_path: Path, bound: list[str]) -> None:
    stage = await made(Settings(data_dir=tmp_path), store="a handle")
    assert stage.peers == {"store": "a handle"}
    assert stage.settings.data_dir == tmp_path
    assert stage.metrics is not None
    line = json.loads((tmp_path / "logs" / "Echo.log").read_text())
    assert (line["event"], line["part"]) == ("started", "echo")


async def test_a_laptops_replicas_listen_on_loopback(tmp_path: Path, bound: list[str]) -> None:
    await made(Settings(data_dir=tmp_path))
    assert bound == ["127.0.0.1"]


async def test_a_clusters_replicas_listen_as_serve_has_them(tmp_path: Path, bound: list[str]) -> None:
    await made(Settings(data_dir=tmp_path, replica_host="::"))
    assert bound == []


async def test_a_stages_channel_listens_and_reaches_another_of_the_same_graph(tmp_path: Path, bound: list[str]) -> None:
    stage = await made(Settings(data_dir=tmp_path))
    one, other = await stage.open_channel(), await stage.open_channel(tick_ms=0)
    try:

        async def shout(payload: bytes) -> bytes:
            return payload.upper()

        other.handle("shout", shout)
        assert await one.request(other.endpoint, "shout", b"hello", timeout_s=10) == b"HELLO"
        assert "127.0.0.1" in one.endpoint
    finally:
        await one.stop()
        await other.stop()


async def test_replicas_of_a_stage_do_not_share_a_log_file(
    tmp_path: Path, bound: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rank, "rank", 2)
    await made(Settings(data_dir=tmp_path))
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["Echo-2.log"]


async def test_a_replica_owns_turns_by_its_actors_id_and_its_channels_address(
    tmp_path: Path, bound: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "get_runtime_context", RuntimeContext)
    stage = await made(Settings(data_dir=tmp_path))
    channel = await stage.open_channel()
    try:
        assert shell.owner_of(channel) == Owner(replica_id="r7", endpoint=channel.endpoint)
        assert channel.open().address == Address(endpoint=channel.endpoint, stream=1)
    finally:
        await channel.stop()


async def test_on_a_cluster_a_channel_listens_at_its_nodes_address(
    tmp_path: Path, bound: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.3")
    settings = Settings(data_dir=tmp_path)
    settings = settings.model_copy(update={"channel": settings.channel.model_copy(update={"bind_host": "node"})})
    stage = await made(settings)
    channel = await stage.open_channel()
    try:
        assert "127.0.0.3" in channel.endpoint
    finally:
        await channel.stop()
