"""A Ray cluster of one head and two workers in one process group, and the graph deployed onto it as `serve deploy` does.

A process of its own, because Ray reads its settings from the environment when it is imported. Every second it prints what runs
where; a file named ``kill-<node>`` in its folder kills that node, and SIGTERM ends everything.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

HEAD, WORKERS = "head", ("one", "two")
EACH_S = 0.5
STOP_S = 10.0
OBJECT_STORE_BYTES = 80 * 2**20


class Placed(Struct, frozen=True):
    """A replica that runs, and on which node."""

    node: str
    pid: int
    replica: str


class Seen(Struct, frozen=True):
    """``stages``: the replicas that run, by stage; ``targets``: how many there shall be; ``told``: what they told Serve
    of themselves last, by stage and name. ``ready``: whether Serve calls the application running.
    """

    ready: bool
    message: str
    nodes: tuple[str, ...]
    stages: dict[str, tuple[Placed, ...]]
    targets: dict[str, int]
    told: dict[str, dict[str, tuple[float, ...]]]


def main(run_dir: str, serve_config: str, port: str, cpus: str) -> None:
    """``cpus`` are those that each worker offers to Ray: shares for placing actors, not cores."""
    import ray
    from ray.cluster_utils import Cluster
    from ray.serve._private.api import serve_start

    from deployments.options import load_serve_config

    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    config = load_serve_config(Path(serve_config))
    common: dict[str, Any] = {
        "temp_dir": run_dir,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    cluster: Any = Cluster(
        initialize_head=True, head_node_args={**common, "num_cpus": 0, "resources": {"data_volume": 1}}
    )
    ray.init(address=cluster.address, namespace="serve", log_to_driver=False, logging_level=logging.WARNING)
    workers = {name: cluster.add_node(**common, num_cpus=int(cpus)) for name in WORKERS}
    names = {cluster.head_node.node_id: HEAD} | {node.node_id: name for name, node in workers.items()}
    client = serve_start(
        http_options={"host": "127.0.0.1", "port": int(port)},
        proxy_location="HeadOnly",
        global_logging_config=config.logging_config,
    )
    client.deploy_apps(config)
    alive = {HEAD, *WORKERS}
    while not ended.wait(EACH_S):
        seen = look(client, names, alive)
        sys.stdout.write("NODES " + msgspec.json.encode(seen).decode() + "\n")
        sys.stdout.flush()
        for name in alive & set(WORKERS):
            if (Path(run_dir) / f"kill-{name}").exists():
                alive = alive - {name}
                _kill(
                    cluster,
                    workers[name],
                    [placed for each in seen.stages.values() for placed in each if placed.node == name],
                )
    client.shutdown(timeout_s=STOP_S)
    ray.shutdown()
    cluster.shutdown()


def look(client: Any, names: dict[str, str], alive: set[str]) -> Seen:
    (application,) = client.get_serve_details()["applications"].values()
    found = application["deployments"]
    return Seen(
        ready=application["status"] == "RUNNING",
        message=application["message"],
        nodes=tuple(sorted(alive)),
        stages={
            stage: tuple(
                Placed(names[replica["node_id"]], replica["pid"], replica["replica_id"])
                for replica in details["replicas"]
                if replica["state"] == "RUNNING"
            )
            for stage, details in found.items()
        },
        targets={stage: details["target_num_replicas"] for stage, details in found.items()},
        told={stage: _told(client, stage, application["name"]) for stage in found},
    )


def _told(client: Any, stage: str, application: str) -> dict[str, tuple[float, ...]]:
    import ray
    from ray.serve._private.common import DeploymentID

    asked = client._controller._get_metrics_for_deployment_for_testing.remote(DeploymentID(stage, application))
    try:
        found = ray.get(asked)
    except KeyError:
        return {}  # a stage that does not scale
    return {name: tuple(each[-1].value for each in series if each) for name, series in found.items()}


def _kill(cluster: Any, node: Any, replicas: list[Placed]) -> None:
    """As a power cut does: Ray's processes of the node and the replicas on it at once."""
    for replica in replicas:
        with contextlib.suppress(ProcessLookupError):
            os.kill(replica.pid, signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
