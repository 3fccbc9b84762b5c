"""Where Serve's own sockets listen.

Serve gives the server that replicas call each other through no bind address: it listens on all interfaces
(``ray/serve/_private/replica.py``, ``add_port_to_grpc_server(server, "[::]:0")`` in Ray 2.60). The stage's constructor
runs before that, in the same process, so it can say otherwise. If a later Ray moves that function, starting fails with
the sentence below rather than listening more widely than asked.
"""

from __future__ import annotations

from typing import Any

from ray.serve._private import replica

from serve_app.errors import ConfigError


def bind_replica_server(host: str) -> None:
    """Makes this replica's call server listen on ``host`` only. Raises ConfigError where this Ray cannot be told."""
    original = getattr(replica, "add_port_to_grpc_server", None)
    if original is None:
        raise ConfigError("This Ray version cannot keep its replica ports on loopback; install the locked version.")
    if getattr(original, "bound_host", None) == host:
        return

    def add_port(server: Any, address: str) -> int:
        port: int = original(server, address.replace("[::]", host))
        return port

    add_port.bound_host = host  # type: ignore[attr-defined]
    replica.add_port_to_grpc_server = add_port  # type: ignore[attr-defined]
