"""Where replicas listen for each other: as the settings say, or not at all."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from ray.serve._private import replica

from deployments.binding import bind_replica_server
from serve_app.errors import ConfigError


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that reach Serve's own function."""
    addresses: list[str] = []

    def add(_: Any, address: str) -> int:
        addresses.append(address)
        return 4711

    monkeypatch.setattr(replica, "add_port_to_grpc_server", add)
    return addresses


def add_port() -> Callable[[Any, str], int]:
    found: Callable[[Any, str], int] = vars(replica)["add_port_to_grpc_server"]
    return found


def test_the_address_serve_asks_for_is_narrowed(seen: list[str]) -> None:
    bind_replica_server("127.0.0.1")
    assert add_port()(None, "[::]:0") == 4711
    assert seen == ["127.0.0.1:0"]


def test_asking_twice_narrows_once(seen: list[str]) -> None:
    bind_replica_server("127.0.0.1")
    once = add_port()
    bind_replica_server("127.0.0.1")
    assert add_port() is once


def test_an_address_that_was_chosen_is_kept(seen: list[str]) -> None:
    bind_replica_server("127.0.0.1")
    add_port()(None, "10.0.0.7:4000")
    assert seen == ["10.0.0.7:4000"]


def test_a_ray_without_the_function_is_refused_rather_than_listening_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(replica, "add_port_to_grpc_server")
    with pytest.raises(ConfigError, match="cannot keep its replica ports on loopback"):
        bind_replica_server("127.0.0.1")


async def test_a_real_server_is_reached_on_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "add_port_to_grpc_server", add_port())  # put back afterwards
    bind_replica_server("127.0.0.1")
    server = grpc.aio.server()
    port = add_port()(server, "[::]:0")
    await server.start()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        with pytest.raises(OSError), socket.create_connection(("127.0.0.2", port), timeout=5):
            pass
    finally:
        await server.stop(None)
