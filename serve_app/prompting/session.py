"""The system prompt of a session: rendered once, kept with the conversation, renewed when what it was made from changes.

So what the model is told about its user and tools stays the same from turn to turn, and follows a change of roles, tools,
server configuration, template or date from the next turn on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date

import msgspec

from serve_app.domain.conversation import SessionPrompt
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolSpec
from serve_app.errors import Internal
from serve_app.prompting.template import PromptTemplate, TemplateProblem
from serve_app.prompting.variables import Variables
from serve_app.telemetry import logger

_log = logger("prompting")


def session_prompt(
    template: PromptTemplate,
    principal: Principal,
    tools: Sequence[ToolSpec],
    today: date,
    *,
    server_descriptions: Mapping[str, str],
    kept: SessionPrompt | None = None,
) -> SessionPrompt:
    """``kept`` itself while its fingerprint is current, else a new one.

    Raises Internal when the template cannot be rendered for these variables, which trying it at start did not show.
    """
    current = fingerprint(template, principal, tools, today, server_descriptions)
    if kept is not None and kept.fingerprint == current:
        return kept
    try:
        text = template.render(Variables.of(principal, tools, today, server_descriptions))
    except TemplateProblem as problem:
        _log.error("prompt_not_rendered", prompt=template.name, version=template.version, problem=problem.message)
        raise Internal(f"The prompt '{template.name}' could not be rendered.") from problem
    return SessionPrompt(name=template.name, version=template.version, text=text, fingerprint=current)


def fingerprint(
    template: PromptTemplate,
    principal: Principal,
    tools: Sequence[ToolSpec],
    today: date,
    server_descriptions: Mapping[str, str],
) -> str:
    """A hash of everything a prompt is made from: equal exactly when rendering would give the same text again."""
    servers = {tool.server for tool in tools}
    made_from = (
        template.name,
        template.version,
        template.content_hash,
        principal.tenant_id,
        principal.user_id,
        sorted(principal.roles),
        [(tool.name, tool.description) for tool in tools],
        sorted((name, text) for name, text in server_descriptions.items() if name in servers),
        today.isoformat(),
    )
    return hashlib.sha256(msgspec.json.encode(made_from)).hexdigest()
