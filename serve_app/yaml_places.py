"""YAML files whose mistakes are told with their place: pydantic knows the path, YAML's nodes know the lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from serve_app.errors import ConfigError


def mapping_in(content: bytes, path: Path, called: str, holding: str) -> dict[str, Any]:
    """The values of what was read from ``path``. Raises ConfigError with the line; ``holding`` says what it must be."""
    try:
        values = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or "it is not YAML"
        raise ConfigError(f"The {called} {path}{where}, cannot be read: {reason}.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"The {called} {path} must be {holding}.")
    return values


def problem(tree: yaml.Node | None, error: ValidationError, *, with_line: bool = True) -> str:
    """The first problem as the rest of a sentence that has named the file: line, key, what is wrong, and what to do."""
    first = error.errors()[0]
    key, line = _place(tree, first["loc"])
    where = f"line {line}, " if line and with_line else ""
    kind, message = first["type"], first["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return f"{where}has the key '{key}', which does not exist; remove it or correct its name."
    if kind == "missing":
        return f"{where}lacks the key '{key}'; add it."
    if kind == "union_tag_invalid":  # pydantic speaks of tags, which nobody has written
        given = {name: str(value).replace("'", "") for name, value in first["ctx"].items()}
        message = f"there is no {given['discriminator']} '{given['tag']}'; there are: {given['expected_tags']}"
    named = f"has a value for '{key}' that cannot be used" if key else "cannot be used"
    return f"{where}{named}: {message[:1].lower()}{message[1:]}."


def _place(tree: yaml.Node | None, location: tuple[int | str, ...]) -> tuple[str, int | None]:
    """Key and line. What pydantic's path has beside the file's (the tag of a union's member) is left out."""
    node, line, path = tree, None, ""
    for position, part in enumerate(location):
        found = _below(node, part)
        if found is None and position < len(location) - 1:
            continue
        if found is None and _is_tag(node, part):
            continue
        path += f"[{part}]" if isinstance(part, int) else f"{'.' if path else ''}{part}"
        if found is not None:
            node, line = found
    if line is None and node is not None and location:  # else it is about several keys
        line = node.start_mark.line + 1
    return path, line


def _is_tag(node: yaml.Node | None, part: int | str) -> bool:
    """Whether ``part`` names the member of a union that the value was taken for: its ``kind``, or ``type``, or what
    a number stands for."""
    if isinstance(node, yaml.MappingNode):
        return any(key.value in ("kind", "type") and value.value == part for key, value in node.value)
    return isinstance(node, yaml.ScalarNode) and isinstance(part, str)


def _below(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return value, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        value = node.value[part]
        return value, value.start_mark.line + 1
    return None
