"""A prompt template: compiled once, rendered in a sandbox.

Template files are the operator's; what they show is the users' and the tool servers', and is never evaluated. The
sandbox offers less than Jinja does: no imports, no calls except a template's own macros, no globals, a short list of
filters, no arithmetic that multiplies text. So a mistake in a template is found when it is read, and its output is bounded.
"""

from __future__ import annotations

import traceback
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from msgspec import Struct

from serve_app.domain.generation import ModelSettings
from serve_app.prompting.variables import (
    VARIABLE_NAMES,
    DateVariable,
    ServerVariable,
    ToolVariable,
    UserVariable,
    Variables,
)

MAX_RENDERED_CHARS = 100_000

_FILTERS = frozenset(
    {
        *("capitalize", "lower", "replace", "title", "trim", "truncate", "upper"),
        *("count", "default", "first", "join", "last", "length", "list", "map", "sort", "unique"),
    }
)


class TemplateProblem(Exception):
    """A template that cannot be used; ``line`` counts from 1 within the template, 0 where it is not known."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message, line)
        self.message = message
        self.line = line


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%"})

    def is_safe_callable(self, obj: Any) -> bool:
        # Methods of strings (format, center, …) can make text of any size out of a few characters.
        return isinstance(obj, Macro)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not (isinstance(left, int) and isinstance(right, int)):
            raise SecurityError(f"'{operator}' cannot be used here")
        return super().call_binop(context, operator, left, right)


def _sandbox() -> _Sandbox:
    # Plain text for a model, so there is nothing to escape.
    sandbox = _Sandbox(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
    sandbox.globals.clear()
    sandbox.filters = {name: function for name, function in sandbox.filters.items() if name in _FILTERS}
    return sandbox


class PromptTemplate(Struct, frozen=True, kw_only=True):
    """One version of a prompt. ``roles`` None lets everybody use it; an empty set leaves it to the program itself.

    A ``draft`` is never the version in use: it is there for whoever asks for it by its version.
    """

    name: str
    version: str
    roles: frozenset[str] | None
    content_hash: str
    compiled: Template
    description: str = ""
    model_id: str | None = None
    settings: ModelSettings = ModelSettings()
    draft: bool = False

    def allows(self, roles: tuple[str, ...]) -> bool:
        return self.roles is None or not self.roles.isdisjoint(roles)

    def render(self, variables: Variables) -> str:
        """The prompt's text. Raises TemplateProblem when it cannot be rendered or grows too long."""
        return _render(self.compiled, variables)


def compile_template(body: str) -> Template:
    """Compiles and tries a template. Raises TemplateProblem with a sentence and the line."""
    sandbox = _sandbox()
    try:
        tree = sandbox.parse(body)
        for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
            raise TemplateProblem("templates cannot include other files; write the text out here", node.lineno)
        unknown = meta.find_undeclared_variables(tree) - VARIABLE_NAMES
        for name in tree.find_all(nodes.Name):
            if name.name in unknown:
                known = ", ".join(sorted(VARIABLE_NAMES))
                raise TemplateProblem(f"there is no variable '{name.name}'; use one of {known}", name.lineno)
        compiled = sandbox.from_string(body)
    except TemplateSyntaxError as error:
        raise TemplateProblem(_sentence(error.message or "the template cannot be read"), error.lineno) from error
    for sample in _SAMPLES:
        _render(compiled, sample)
    return compiled


def _render(compiled: Template, variables: Variables) -> str:
    pieces: list[str] = []
    chars = 0
    try:
        for piece in compiled.generate(variables.as_context()):
            chars += len(piece)
            if chars > MAX_RENDERED_CHARS:
                raise TemplateProblem(f"the rendered prompt is longer than {MAX_RENDERED_CHARS} characters; shorten it")
            pieces.append(piece)
    except (
        TemplateError,
        ArithmeticError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        raise TemplateProblem(_sentence(str(error)), _line_of(error)) from error
    return "".join(pieces).strip()


def _line_of(error: Exception) -> int:
    """Jinja rewrites the traceback, so that the frames of a template carry the template's own lines."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return (lines[-1] or 0) if lines else 0


def _sentence(message: str) -> str:
    # Object representations say more about this program than about the template.
    cleaned = message.replace("serve_app.prompting.variables.", "").rstrip(".")
    return f"{cleaned}; correct the template"


_DATE = DateVariable(iso="2000-01-01", weekday="Saturday")
_SAMPLES = (
    Variables(date=_DATE, user=UserVariable(id="sam", roles=()), tenant="acme", roles=()),
    Variables(
        date=_DATE,
        user=UserVariable(id="sam", roles=("hr", "sales")),
        tenant="acme",
        roles=("hr", "sales"),
        tools=(
            ToolVariable(name="crm.find", description="Finds accounts.", server="crm"),
            ToolVariable(name="crm.list", description="", server="crm"),
            ToolVariable(name="hr.find", description="Finds people.", server="hr"),
        ),
        servers=(
            ServerVariable(name="crm", description="Customers.", tools=("crm.find", "crm.list")),
            ServerVariable(name="hr", description="", tools=("hr.find",)),
        ),
    ),
)
"""A template is tried with nothing and with something in every list when it is read."""
