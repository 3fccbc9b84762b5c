"""A run file is read strictly, and what is wrong with it is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.errors import ConfigError
from serve_app.evaluation.run_file import load_graders, load_run_file, run_file_of, run_file_yaml

SMALL = """\
name: small
dataset: cases.jsonl
configurations:
  - {name: v1, prompt: assistant@v1}
  - {name: v2, prompt: assistant@v2, model: gpt, settings: {temperature: 0}, tools: recorded, only: [crm]}
graders:
  - {type: contains, name: facts}
  - {type: python, function: "mine.py:score"}
gate: {min_score: {facts: 0.9}, no_regression: true}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_what_a_run_file_says_is_read_with_paths_that_hold_everywhere(tmp_path: Path) -> None:
    run = load_run_file(written(tmp_path, SMALL))
    assert run.dataset == tmp_path / "cases.jsonl"
    assert [one.name for one in run.all_configurations] == ["v1", "v2"]
    assert (run.baseline_name, run.mode, run.tools, run.attempts) == ("v1", "next-turn", "live", 3)
    second = run.all_configurations[1]
    assert (second.prompt_name, second.prompt_version, second.tools) == ("assistant", "v2", "recorded")
    assert second.settings.settings.temperature == 0
    assert getattr(run.graders[1], "function") == f"{tmp_path / 'mine.py'}:score"  # noqa: B009 - one of a union
    assert run.gate.min_score == {"facts": 0.9}


def test_the_file_that_is_kept_with_a_run_says_the_same(tmp_path: Path) -> None:
    run = load_run_file(written(tmp_path, SMALL))
    kept = tmp_path / "elsewhere" / "run.yaml"
    kept.parent.mkdir()
    kept.write_text(run_file_yaml(run))
    assert load_run_file(kept) == run
    assert run_file_of(run_file_yaml(run)) == run


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("attempts", "attempt"), r"line 10, has the key 'attempt', which does not exist"),
        (("contains", "contain"), r"line 7, has a value for 'graders\[0\]"),
        (("dataset: cases.jsonl\n", ""), r"lacks the key 'dataset'"),
        (("name: v2", "name: v1"), "two configurations are called 'v1'"),
        (("assistant@v2", "assistant @v2"), r"line 5, .*'configurations\[1\].prompt'"),
        (
            ("name: facts", "name: facts, configurations: [v3]"),
            "names 'v3', which is no configuration; there are: v1, v2",
        ),
        (("temperature: 0", "temperature: 9"), r"'configurations\[1\].settings.temperature'"),
        (("name: small", "name: small\nbaseline: v9"), "baseline names 'v9'"),
        (("name: small", "name: small\nmatrix: {models: [a, b]}"), "either configurations or a matrix"),
        (
            ("name: small", "name: small\nconcurrency: {start: 9, max: 4}"),
            r"line 2, .*start \(9\) must not be above max",
        ),
        (("name: small", "name: [small"), "cannot be read"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    text = (SMALL + "attempts: 2\n").replace(*change)
    with pytest.raises(ConfigError, match=said):
        load_run_file(written(tmp_path, text))


def test_a_matrix_is_every_combination_named_by_what_differs(tmp_path: Path) -> None:
    text = SMALL[: SMALL.index("configurations")] + (
        "matrix:\n  prompts: [assistant@v1, assistant@v2]\n  models: [one]\n"
        "  settings: [{name: cold, temperature: 0}, {name: warm, temperature: 1}]\n"
    )
    run = load_run_file(written(tmp_path, text))
    assert [one.name for one in run.all_configurations] == [
        "assistant@v1+cold", "assistant@v1+warm", "assistant@v2+cold", "assistant@v2+warm",
    ]  # fmt: skip
    assert {one.model for one in run.all_configurations} == {"one"}
    assert [one.settings.temperature for one in run.all_configurations] == [0, 1, 0, 1]
    assert run_file_of(run_file_yaml(run)) == run


def test_changes_from_the_command_line_win(tmp_path: Path) -> None:
    changes = ("concurrency.max=4", "concurrency.start=2", "configurations.1.model=other", "sample.first=7")
    run = load_run_file(written(tmp_path, SMALL), changes)
    assert (run.concurrency.max, run.configurations[1].model, run.sample.first) == (4, "other", 7)


@pytest.mark.parametrize("change", ["concurrency.max", "configurations.7.model=x", "name.of=x", "a=[", "=3"])
def test_a_change_that_cannot_be_made_is_refused(tmp_path: Path, change: str) -> None:
    with pytest.raises(ConfigError, match=r"--set|does not exist|cannot be used"):
        load_run_file(written(tmp_path, SMALL), (change,))


def test_a_mistake_in_a_change_is_told_with_its_whole_key_and_no_line_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"run.yaml, with what --set says, has the key 'concurrency.maxx', which does not"
    ):
        load_run_file(written(tmp_path, SMALL), ("concurrency.maxx=4",))


def test_graders_are_read_from_a_file_that_has_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "graders.yaml"
    path.write_text("graders:\n  - {type: exact}\n")
    assert [grader.name for grader in load_graders(path)] == ["exact"]
    path.write_text("graders:\n  - {type: exact}\n  - {type: exact, treshold: 1}\n")
    with pytest.raises(ConfigError, match=r"line 3, has the key 'graders\[1\].treshold'"):
        load_graders(path)
    path.write_text("name: nothing\n")
    with pytest.raises(ConfigError, match="lacks the key 'graders'"):
        load_graders(path)


def test_a_file_that_is_too_large_or_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_run_file(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="larger than"):
        load_run_file(written(tmp_path, "# " + "x" * 2_000_000))
