"""A Serve configuration as a smaller machine can run it, with replicas of a fixed number: what a verification measures."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from serve_app.capacity.model import StageSize
from serve_app.capacity.serve_patch import RoundTrip, deployments_in
from serve_app.domain.stages import STAGES

CPUS_EACH = 0.1
"""What Ray sets aside for a replica here: on a machine that is to be filled it decides nothing."""


def scaled_config(text: str, source: str, cores: int) -> tuple[str, dict[str, StageSize]]:
    """The file with fewer replicas, and how many of which stage there are. Raises ConfigError where it is no configuration.

    Replicas are scaled by the CPUs that they are to have together; each stage keeps one at least, and the Store just one: here it
    is the embedded one, whatever the plan is for, and a second could not open its files.
    """
    yaml = RoundTrip(source)
    document = yaml.load(text)
    found = list(deployments_in(document, source))
    cpus = sum(_replicas(deployment) * _cpus(deployment) for deployment in found)
    factor = min(1.0, cores / cpus) if cpus > 0 else 1.0
    sizes: dict[str, StageSize] = {}
    for deployment in found:
        replicas = 1 if deployment.get("name") == "Store" else max(1, round(_replicas(deployment) * factor))
        deployment.pop("autoscaling_config", None)
        deployment["num_replicas"] = replicas
        options = deployment.get("ray_actor_options")
        if not isinstance(options, MutableMapping):
            options = deployment["ray_actor_options"] = {}
        options["num_cpus"] = CPUS_EACH
        options.pop("resources", None)
        if deployment.get("name") in STAGES:
            sizes[str(deployment["name"])] = StageSize(replicas, int(deployment.get("max_ongoing_requests") or 5))
    if "proxy_location" in document:
        document["proxy_location"] = "HeadOnly"
    return yaml.dump(document), sizes


def _replicas(deployment: Mapping[str, Any]) -> int:
    scaling = deployment.get("autoscaling_config")
    if isinstance(scaling, Mapping):
        return int(scaling.get("max_replicas") or 1)
    return int(deployment.get("num_replicas") or 1)


def _cpus(deployment: Mapping[str, Any]) -> float:
    options = deployment.get("ray_actor_options")
    return float(options.get("num_cpus", 1)) if isinstance(options, Mapping) else 1.0
