"""A page from a template: its style and script are within it, and its own policy allows these and nothing else."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from serve_app.errors import ConfigError
from serve_app.pages import words

SHARED = Path(__file__).parent


def render(folder: Path, template: str, *, style: str, script: str = "", **values: object) -> str:
    """The ``template`` of ``folder``, with what all pages share. ``style`` and ``script`` are names of files in ``folder``: the
    style comes after the shared one."""
    css = _read(SHARED / "page.css") + _read(folder / style)
    code = _read(folder / script) if script else ""
    policy = f"default-src 'none'; style-src {_source(css)}; base-uri 'none'; form-action 'none'"
    if code:
        policy += f"; script-src {_source(code)}"
    return (
        templates(folder)
        .get_template(template)
        .render(
            policy=Markup(policy),  # noqa: S704 # nosec B704 - hashes of our own
            style=Markup(css),  # noqa: S704 # nosec B704 - files of this package
            script=Markup(code),  # noqa: S704 # nosec B704 - a file of this package
            **values,
        )
    )


def templates(folder: Path) -> Environment:
    """Those of ``folder`` and the shared ones; everything they are given is escaped."""
    environment = Environment(
        loader=FileSystemLoader([folder, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("rate", "percent", "count", "duration", "dollars"):
        environment.filters[name] = getattr(words, name)
    environment.filters["svg"] = _svg
    return environment


def write_page(path: Path, page: str) -> None:
    """Written beside and renamed, so that no browser shows half of it. Raises ConfigError where that fails."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(page, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(f"The page {path} cannot be written ({error.strerror}).") from error


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _source(text: str) -> str:
    """A source of a policy that allows this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class Drawing(Protocol):
    """What draws itself in the sizes of ``pages.plot``, escaping what it writes."""

    def svg(self, size: str) -> str: ...


def _svg(plot: Drawing, *, whole: bool) -> Markup:
    """The drawing in the sizes that the page has use for."""
    sizes = ("whole", "wide", "narrow") if whole else ("wide", "narrow")
    return Markup("".join(plot.svg(size) for size in sizes))  # noqa: S704 # nosec B704
