"""A plan written into a Serve configuration: the same file with other numbers, comments and order as they were.

What is changed is what a plan knows: replicas, ``target_ongoing_requests``, ``num_cpus``, a policy's share of CPU where it is to
be less, and on several nodes a proxy on each. Delays, health checks and policies are the operator's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, MutableMapping
from io import StringIO
from typing import Any

from serve_app.capacity.plan import Plan
from serve_app.capacity.stage_plan import StageNow, StagePlan, stages_now
from serve_app.errors import ConfigError

BY_NEED = "deployments.autoscaling.ByNeed"
CPU_SHARE = 0.6
WIDTH = 4096  # no line of the file is to be broken anew


def stages_in(text: str, source: str) -> dict[str, StageNow]:
    """What a Serve configuration says of each stage, by name. Raises ConfigError where it is none."""
    deployments = deployments_in(RoundTrip(source).load(text), source)
    return stages_now({str(deployment.get("name")): deployment for deployment in deployments})


def planned_config(plan: Plan, text: str, source: str) -> str:
    """``text``, a Serve configuration, with what ``plan`` says. Raises ConfigError where it is none, or without ruamel.yaml."""
    yaml = RoundTrip(source)
    document = yaml.load(text)
    planned = {stage.stage: stage for stage in plan.stages}
    for deployment in deployments_in(document, source):
        if (stage := planned.get(deployment.get("name", ""))) is not None:
            _change(deployment, stage)
    if plan.nodes.nodes > 1 and document.get("proxy_location") not in (None, "EveryNode"):
        document["proxy_location"] = "EveryNode"
    return yaml.dump(document)


def patch(before: str, after: str, before_name: str, after_name: str) -> str:
    """The difference of two texts as ``patch`` and ``git apply`` read it; empty where there is none."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), before_name, after_name
    )
    return "".join(lines)


class RoundTrip:
    """YAML that comes out as it went in."""

    def __init__(self, source: str) -> None:
        try:
            from ruamel.yaml import YAML
            from ruamel.yaml.representer import RoundTripRepresenter
        except ImportError as error:
            raise ConfigError("A planned configuration needs ruamel.yaml: pip install 'parley[load]'") from error
        self._source = source

        class Representer(RoundTripRepresenter):
            """Writes ``null`` where it stood, and not nothing."""

        Representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))
        self._yaml = YAML()
        self._yaml.Representer = Representer
        self._yaml.preserve_quotes = True
        self._yaml.width = WIDTH
        self._yaml.indent(mapping=2, sequence=4, offset=2)

    def load(self, text: str) -> Any:
        from ruamel.yaml.error import YAMLError

        try:
            return self._yaml.load(text)
        except YAMLError as error:
            said = " ".join(str(error).split())
            raise ConfigError(f"The Serve configuration {self._source} is not valid YAML: {said}.") from error

    def dump(self, document: Any) -> str:
        output = StringIO()
        self._yaml.dump(document, output)
        return output.getvalue()


def deployments_in(document: Any, source: str) -> Iterator[MutableMapping[str, Any]]:
    applications = document.get("applications") if isinstance(document, MutableMapping) else None
    if not isinstance(applications, list):
        raise ConfigError(f"{source} is no Serve configuration: it has no list of applications.")
    for application in applications:
        listed = application.get("deployments") if isinstance(application, MutableMapping) else None
        for deployment in listed or ():
            if isinstance(deployment, MutableMapping):
                yield deployment


def _change(deployment: MutableMapping[str, Any], stage: StagePlan) -> None:
    if stage.scales:
        _scale(deployment, stage)
    options = deployment.get("ray_actor_options")
    if not isinstance(options, MutableMapping):
        options = deployment["ray_actor_options"] = {}
    if options.get("num_cpus") != 0:  # a stage that runs beside others on a node kept for it
        options["num_cpus"] = stage.num_cpus


def _scale(deployment: MutableMapping[str, Any], stage: StagePlan) -> None:
    scaling = deployment.get("autoscaling_config")
    if not isinstance(scaling, MutableMapping):
        deployment.pop("num_replicas", None)
        scaling = deployment["autoscaling_config"] = {}
        # The Store's calls come on the channel, where Serve does not count them.
        own = {"cpu_share": stage.cpu_share or CPU_SHARE, "count_ongoing": False}
        scaling["policy"] = {"policy_function": BY_NEED, "policy_kwargs": own}
    scaling["min_replicas"] = stage.min_replicas
    scaling["max_replicas"] = stage.max_replicas
    if "target_ongoing_requests" in scaling:
        scaling["target_ongoing_requests"] = stage.target_ongoing
    policy = scaling.get("policy")
    if stage.cpu_share is not None and isinstance(policy, MutableMapping):
        kwargs = policy.get("policy_kwargs")
        if isinstance(kwargs, MutableMapping) and "cpu_share" in kwargs:
            kwargs["cpu_share"] = stage.cpu_share
