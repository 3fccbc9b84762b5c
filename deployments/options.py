"""``serve_config.yaml``, read strictly.

Serve accepts misspelt keys nearly everywhere in silence; here they are refused with their place in the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from serve_app.errors import ConfigError
from serve_app.yaml_files import read_mapping

STAGES = ("Ingress", "Turns", "PromptBuilder", "ModelGateway", "ToolExecutor", "Store", "Companions")


def load_serve_config(path: Path) -> ServeDeploySchema:
    """The file as Serve's own schema. Raises ConfigError naming the key and what to do."""
    raw = read_mapping(path, "Serve configuration")
    unknown = _unknown_key(raw, ServeDeploySchema, "")
    if unknown:
        raise ConfigError(
            f"The Serve configuration {path} has an unknown key {unknown}; remove it or correct its name."
        )
    try:
        config = ServeDeploySchema.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"The Serve configuration {path} has a bad value at {place}: {first['msg']}.") from error
    if len(config.applications) != 1:
        raise ConfigError(f"The Serve configuration {path} must hold one application, not {len(config.applications)}.")
    for application in config.applications:
        for deployment in application.deployments:
            if deployment.name not in STAGES:
                raise ConfigError(
                    f"The Serve configuration {path} names a stage {deployment.name!r}; there are {', '.join(STAGES)}."
                )
    return config


def stage_options(application: ServeApplicationSchema) -> dict[str, dict[str, Any]]:
    """What the file says of each stage, as keyword arguments of ``Deployment.options``."""
    return {
        deployment.name: deployment.model_dump(exclude_unset=True, exclude={"name"})
        for deployment in application.deployments
    }


def _unknown_key(value: Any, schema: Any, place: str) -> str | None:
    """The first key that ``schema`` does not have, as a path; None when all are known."""
    model = _model_in(schema)
    if model is None:
        return None
    if isinstance(value, list):
        for position, item in enumerate(value):
            if found := _unknown_key(item, model, f"{place}[{position}]"):
                return found
        return None
    if not isinstance(value, dict):
        return None
    for key, item in value.items():
        field = model.model_fields.get(key)
        if field is None:
            return f"{place}.{key}".lstrip(".")
        if found := _unknown_key(item, field.annotation, f"{place}.{key}"):
            return found
    return None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside an annotation such as ``list[Model] | None``; None where there is none or several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = {model for part in get_args(annotation) if (model := _model_in(part)) is not None}
    return found.pop() if len(found) == 1 else None
