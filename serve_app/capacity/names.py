"""What stages and resources are called in sentences and beside plots."""

from __future__ import annotations

from serve_app.domain.stages import STAGES

_STAGES = {
    "Ingress": "the ingress",
    "Turns": "the turns stage",
    "PromptBuilder": "the prompt builder",
    "ModelGateway": "the model gateway",
    "ToolExecutor": "the tool executor",
    "Store": "the store",
    "Companions": "the simulated provider and tools",
}
_RESOURCES = {
    "loop": "event loop",
    "slots": "slots",
    "writer": "writer",
    "cpu": "CPU cores",
    "memory": "memory",
    "requests": "quota of requests",
    "tokens": "quota of tokens",
    "process": "processes' CPU",
    "request_units": "request units",
}
UNITS = {
    "loop": "s of CPU",
    "slots": "s of a slot",
    "writer": "s of the writer",
    "cpu": "s of a core",
    "requests": "requests",
    "tokens": "tokens",
}
"""What one turn takes of a resource, in words."""


def stage_name(stage: str) -> str:
    """In a sentence: "the model gateway"."""
    return _STAGES.get(stage, stage)


def resource_name(resource: str) -> str:
    """Without its stage: "event loop"."""
    return _RESOURCES.get(resource, resource)


def label(stage: str, resource: str, *, single_node: bool = True) -> str:
    """Beside a plot: "ModelGateway slots", "machine CPU cores"."""
    if stage not in STAGES and resource in {"cpu", "memory"}:
        return f"{'machine' if single_node else stage} {resource_name(resource)}"
    return f"{stage} {resource_name(resource)}"


def phrase(stage: str, resource: str, *, single_node: bool = True) -> str:
    """In a sentence: "the slots of the model gateway", "this machine's CPU cores"."""
    if stage in _STAGES:
        return f"the {resource_name(resource)} of {stage_name(stage)}"
    if resource in {"cpu", "memory"}:
        return (
            f"the machine's {resource_name(resource)}"
            if single_node
            else f"the {resource_name(resource)} of node {stage}"
        )
    return f"the {resource_name(resource)} of provider {stage}"


def capital(sentence: str) -> str:
    """With its first letter large."""
    return sentence[:1].upper() + sentence[1:]
