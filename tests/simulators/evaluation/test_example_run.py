"""The shipped run file, run as somebody types it: the candidate prompt is better at some things, and worse at others."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from serve_app.cli.main import app
from serve_app.evaluation.run_store import RunStore
from serve_app.settings import PROJECT_ROOT


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("PARLEY_", "OPENAI_", "AZURE_OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    before = structlog.get_config()
    yield
    structlog.configure(**before)  # the command logs as a process of its own does


def shares_passed(folder: Path) -> dict[tuple[str, str, str], float]:
    """By configuration, first tag and grader."""
    found: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    with RunStore.open(folder) as store:
        for graded in store.results():
            assert not graded.result.failed, graded.result.last.error_message
            assert not graded.result.last.unrecorded
            for name, grade in graded.grades.items():
                assert grade.score is not None, f"{name}: {grade.reason}"
                key = (graded.result.key.configuration, graded.result.tags[0], name)
                found[key].append(bool(grade.passed))
    return {key: sum(passed) / len(passed) for key, passed in found.items()}


@pytest.mark.parametrize("tools", ["recorded", "live"])
def test_the_candidate_is_better_at_refusing_and_worse_at_lists(tmp_path: Path, tools: str) -> None:
    run_file = PROJECT_ROOT / "configs" / "eval" / "crm_hr.yaml"
    arguments = ["eval", "run", str(run_file), "--graph", "local", "--out", str(tmp_path / "run"), "--yes"]
    tags = "[access, follow-up]" if tools == "recorded" else "[access, two-tools, update]"
    changes = ["--set", f"sample.tags={tags}", "--set", f"tools={tools}"]
    result = CliRunner().invoke(app, arguments + changes)
    assert result.exit_code == 0, result.output
    passed = shares_passed(tmp_path / "run")
    assert passed["v1", "access", "refusal"] == 0
    assert passed["v2", "access", "refusal"] == 1
    if tools == "recorded":
        assert passed["v1", "follow-up", "facts"] == 1
        assert passed["v2", "follow-up", "facts"] < 0.6
        assert passed["v1", "follow-up", "helpful"] > passed["v2", "follow-up", "helpful"]
    else:
        assert passed["v1", "update", "facts"] == passed["v2", "update", "facts"] == 1
        assert passed["v2", "two-tools", "helpful"] == 1
        assert passed["v2", "two-tools", "preferred"] == 1
