"""What is locked and installed is not known to be unsafe, and the check that says so can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.version import Version

from tests.supply_chain.__main__ import main
from tests.supply_chain.pth_files import unexpected
from tests.supply_chain.versions import Row, locked, table, unsafe

ROWS = {"pyjwt": Row("2.12.0", ("CVE-2026-32597",))}


def test_nothing_known_to_be_unsafe_is_locked_or_installed() -> None:
    assert main() == 0


@pytest.mark.parametrize(("version", "count"), [("2.11.9", 1), ("2.12.0rc1", 1), ("2.12.0", 0), ("2.120", 0)])
def test_an_older_version_is_a_problem(version: str, count: int) -> None:
    assert len(unsafe(ROWS, [("pyjwt", Version(version), "requirements.lock")])) == count


def test_a_row_about_nothing_that_is_used_is_a_problem() -> None:
    assert unsafe(ROWS, [("jinja2", Version("3.1.6"), "installed")])


def test_every_row_names_its_advisories() -> None:
    assert all(row.advisories for row in table().values())


@pytest.mark.parametrize(("text", "problem"), [("# nothing\n", "pins nothing"), ("pyjwt==2.15.1\n", "without a hash")])
def test_a_lock_file_that_locks_nothing_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "requirements.lock"
    file.write_text(text)
    with pytest.raises(ValueError, match=problem):
        locked(file)


def test_a_new_pth_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a1_coverage.pth").write_text("import coverage\n")
    assert unexpected([tmp_path]) == []
    (tmp_path / "innocent_init.pth").write_text("import os\n")
    assert "innocent_init.pth" in unexpected([tmp_path])[0]
