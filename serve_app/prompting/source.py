"""What is in a prompt file: YAML front matter between two ``---`` lines, then the template.

    ---
    description: What it is for.
    roles: [sales, admin]      # or "*" for everybody, or [] for the program's own use
    model: some-model          # optional
    draft: true                # optional: not in use, but for whoever asks for this version by name
    settings:                  # optional
      temperature: 0.2
      max_output_tokens: 800
    ---
    Today is {{ date.weekday }}, {{ date.iso }}.

``roles`` has no default: a prompt that forgets it must not be open to everybody.
"""

from __future__ import annotations

import hashlib
from pathlib import PurePath
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from serve_app.domain.generation import ModelSettings
from serve_app.errors import ConfigError
from serve_app.prompting.template import PromptTemplate, TemplateProblem, compile_template

MAX_FILE_BYTES = 262_144

_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class _SettingsMatter(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class _FrontMatter(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    roles: Literal["*"] | list[_Name]
    model: _Name | None = None
    settings: _SettingsMatter = _SettingsMatter()
    description: str = ""
    draft: bool = False


def parse_prompt(path: PurePath, data: bytes, *, name: str, version: str) -> PromptTemplate:
    """Reads and tries what the prompt file ``path`` holds. Raises ConfigError that names the file, the line or key, and what
    to do.
    """
    content = _text(path, data)
    front, body, body_line = _split(path, content)
    matter = _front_matter(path, front)
    try:
        compiled = compile_template(body)
    except TemplateProblem as problem:
        where = f", line {problem.line + body_line - 1}" if problem.line else ""
        raise ConfigError(f"The prompt {path}{where} cannot be used: {problem.message}.") from problem
    return PromptTemplate(
        name=name,
        version=version,
        roles=None if matter.roles == "*" else frozenset(matter.roles),
        content_hash=hashlib.sha256(content.encode()).hexdigest(),
        compiled=compiled,
        description=matter.description,
        draft=matter.draft,
        model_id=matter.model,
        settings=ModelSettings(
            temperature=matter.settings.temperature, max_output_tokens=matter.settings.max_output_tokens
        ),
    )


def _text(path: PurePath, data: bytes) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"The prompt {path} is larger than {MAX_FILE_BYTES} bytes; shorten it.")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"The prompt {path} is not UTF-8 at byte {error.start}; save it as UTF-8.") from error


def _split(path: PurePath, content: str) -> tuple[str, str, int]:
    """Front matter, template, and the file's line at which the template begins."""
    lines = content.split("\n")
    if lines[0].rstrip() != "---":
        raise ConfigError(
            f"The prompt {path}, line 1, must begin with '---': put front matter with at least 'roles' there."
        )
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip() == "---":
            body = "\n".join(lines[number + 1 :])
            if not body.strip():
                raise ConfigError(f"The prompt {path} has no text after its front matter; write the prompt there.")
            return "\n".join(lines[1:number]), body, number + 2
    raise ConfigError(f"The prompt {path} has front matter that does not end; close it with a line '---'.")


def _front_matter(path: PurePath, text: str) -> _FrontMatter:
    try:
        # Keys alone, with their places; aliases are not expanded by composing.
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        loaded: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 2}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(
            f"The prompt {path}{where}, has front matter that is not YAML: {problem}; correct it."
        ) from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"The prompt {path}, line 2, must have 'key: value' lines as front matter, at least 'roles'.")
    try:
        return _FrontMatter.model_validate(loaded)
    except ValidationError as error:
        raise ConfigError(_sentence(path, tree, error)) from error


def _sentence(path: PurePath, tree: yaml.Node | None, error: ValidationError) -> str:
    """The first problem, by key and line."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    # Members of a union ("*" or a list) are part of pydantic's location, but not of the file's.
    keys = location[:2] if location[0] == "settings" else location[:1]
    line = _line_of(tree, keys)
    where = f"The prompt {path}, line {line}" if line else f"The prompt {path}"
    key = ".".join(keys)
    if first["type"] == "extra_forbidden":
        return f"{where}, has the key '{key}', which does not exist; remove it or correct its name."
    if first["type"] == "missing":
        return f"{where}, lacks the key '{key}'; add it{_ROLES_HINT if key == 'roles' else ''}."
    if key == "roles":
        return f"{where}, has a value for 'roles' that cannot be used; write{_ROLES_HINT.removeprefix(',')}."
    message = first["msg"]
    return f"{where}, has a value for '{key}' that cannot be used: {message[0].lower() + message[1:]}; correct it."


_ROLES_HINT = ', "*" for everybody or a list such as [sales, admin]'


def _line_of(tree: yaml.Node | None, keys: list[str]) -> int | None:
    """The file's line of a key in the front matter, which starts at line 2."""
    line: int | None = None
    node = tree
    for key in keys:
        if not isinstance(node, yaml.MappingNode):
            break
        for key_node, value_node in node.value:
            if key_node.value == key:
                line, node = key_node.start_mark.line + 2, value_node
                break
        else:
            break
    return line
