"""Checks of what Parley runs on: Python, installed packages, limits of the process."""

from __future__ import annotations

import re
import resource
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from serve_app.cli.findings import Finding, ok, problem, warning
from serve_app.settings import PROJECT_ROOT

MIN_PYTHON = (3, 11)
MIN_OPEN_FILES = 4_096
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LOCKED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


def check_machine(root: Path = PROJECT_ROOT) -> list[Finding]:
    """``root`` holds pyproject.toml and the lock file."""
    return [check_python(sys.version_info[:2]), check_packages(root), check_open_files()]


def check_python(found: tuple[int, int]) -> Finding:
    name = ".".join(map(str, found))
    if found < MIN_PYTHON:
        return problem("python", f"This is Python {name}.", "Use Python 3.11 or newer, and run `make setup` again.")
    return ok("python", name)


def check_packages(root: Path) -> Finding:
    """Whether what is installed is what the lock file names, as far as Parley's own dependencies go."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lock = (root / "requirements.lock").read_text(encoding="utf-8")
    except (OSError, KeyError, ValueError):
        return ok("packages", "There is no lock file here to compare with.")
    locked: dict[str, set[str]] = {}
    for name, wanted in _LOCKED.findall(lock):
        locked.setdefault(_normal(name), set()).add(wanted)
    missing, other, checked = [], [], 0
    for requirement in project.get("dependencies", ()):
        name = _NAME.match(requirement)
        if name is None:
            continue
        checked += 1
        allowed = locked.get(_normal(name[0]), set())
        try:
            found = version(name[0])
        except PackageNotFoundError:
            missing.append(name[0])
            continue
        if allowed and found not in allowed:
            other.append(f"{name[0]} {found} (locked: {', '.join(sorted(allowed))})")
    if missing:
        return problem("packages", f"Not installed: {', '.join(missing)}.", "Run `make setup`.")
    if other:
        return warning("packages", f"Not the locked versions: {'; '.join(other)}.", "Run `make setup`.")
    ray = f", ray {version('ray')}" if "ray" in locked else ""
    return ok("packages", f"{checked} packages as locked{ray}.")


def check_open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        room = hard == resource.RLIM_INFINITY or hard >= MIN_OPEN_FILES
        todo = "" if room else " as an administrator (the hard limit is lower, too)"
        return warning(
            "open files",
            f"At most {soft}; each connection takes two or three, and Ray some hundreds.",
            f"Run `ulimit -n 65536` in the shell before the start{todo}.",
        )
    return ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft}")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
