"""``.pth`` files: whatever is in one runs at each start of Python, unseen; a package that was taken over has used that."""

from __future__ import annotations

import hashlib
import site
from collections.abc import Iterable
from pathlib import Path

EXPECTED = {
    "_editable_impl_parley.pth": "the project itself, as `make setup` installs it",
    "a1_coverage.pth": "coverage, in subprocesses",
    "distutils-precedence.pth": "setuptools, where the environment was made with it",
    "_virtualenv.pth": "virtualenv, where the environment was made with it",
}


def unexpected(folders: Iterable[Path]) -> list[str]:
    """A sentence for each file that nobody has looked at and written down here."""
    return [
        f"{file} is new (sha256 {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}…): read it, find out which package it is "
        "of, and add it to tests/supply_chain/pth_files.py or remove the package"
        for folder in folders
        for file in sorted(folder.glob("*.pth"))
        if file.name not in EXPECTED
    ]


def site_folders() -> list[Path]:
    """Where this Python looks for them. Raises RuntimeError where it has no such folder."""
    folders = [
        Path(folder) for folder in {*site.getsitepackages(), site.getusersitepackages()} if Path(folder).is_dir()
    ]
    if not folders:
        raise RuntimeError("this Python has no site-packages folder to look into")
    return folders
