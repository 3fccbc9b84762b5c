"""Prompts are read at start, chosen by name, role and version, and read again when their files change."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import structlog

from serve_app.errors import ConfigError, NotFound
from serve_app.prompting.library import PromptLibrary, natural_order
from tests.unit.prompting.conftest import WritePrompt


def library(folder: Path, **options: Any) -> PromptLibrary:
    return PromptLibrary(folder, **{"scan_every_s": 0.0} | options)


def body_of(prompts: PromptLibrary, name: str = "helper", roles: tuple[str, ...] = ()) -> str:
    return "".join(prompts.find(name, roles).compiled.generate())


def test_the_newest_version_by_natural_order_is_used(tmp_path: Path, write_prompt: WritePrompt) -> None:
    for version in ("v2", "v10", "v1"):
        write_prompt("helper", version, version=version)
    assert library(tmp_path).find("helper", ()).version == "v10"
    ordered = ["v1", "v2", "v2.1", "v2.10", "v10"]
    assert sorted(set(ordered), key=natural_order) == ordered


def test_front_matter_reaches_the_template(tmp_path: Path, write_prompt: WritePrompt) -> None:
    front = "roles: [sales]\nmodel: some-model\nsettings:\n  temperature: 0\n  max_output_tokens: 7\ndescription: D"
    write_prompt("helper", "x", front=front)
    found = library(tmp_path).find("helper", ("sales",))
    assert (found.model_id, found.description, found.roles) == ("some-model", "D", frozenset({"sales"}))
    assert (found.settings.temperature, found.settings.max_output_tokens) == (0, 7)


def test_a_prompt_of_other_roles_looks_exactly_like_a_missing_one(tmp_path: Path, write_prompt: WritePrompt) -> None:
    write_prompt("coach", "x", front="roles: [sales, admin]")
    write_prompt("internal", "x", front="roles: []")
    prompts = library(tmp_path)
    assert prompts.find("coach", ("hr", "sales")).name == "coach"
    seen = set()
    for name, roles in [
        ("coach", ("hr",)),
        ("coach", ()),
        ("internal", ("admin",)),
        ("nothing", ("sales",)),
        ("../coach", ("sales",)),
    ]:
        with pytest.raises(NotFound) as caught:
            prompts.find(name, roles)
        seen.add((caught.value.message, caught.value.args))
    assert len(seen) == 1
    assert prompts.own("internal").name == "internal"


def test_a_narrower_newest_version_is_not_undercut_by_an_older_open_one(
    tmp_path: Path, write_prompt: WritePrompt
) -> None:
    write_prompt("helper", "old")
    write_prompt("helper", "new", version="v2", front="roles: [admin]")
    with pytest.raises(NotFound):
        library(tmp_path).find("helper", ("sales",))


def test_edits_new_versions_and_removals_are_followed(tmp_path: Path, write_prompt: WritePrompt) -> None:
    write_prompt("helper", "first")
    prompts = library(tmp_path)
    write_prompt("helper", "second, edited")
    assert body_of(prompts) == "second, edited"
    write_prompt("helper", "a new version", version="v2")
    assert body_of(prompts) == "a new version"
    shutil.rmtree(tmp_path / "helper" / "v2")
    assert body_of(prompts) == "second, edited"
    write_prompt("other", "another")
    assert body_of(prompts, "other") == "another"
    shutil.rmtree(tmp_path / "other")
    with pytest.raises(NotFound):
        prompts.find("other", ())
    assert prompts.problems() == []


def test_files_are_looked_at_only_every_so_often(tmp_path: Path, write_prompt: WritePrompt) -> None:
    now = 100.0
    write_prompt("helper", "first")
    prompts = library(tmp_path, scan_every_s=2.0, monotonic=lambda: now)
    write_prompt("helper", "second, edited")
    now = 101.9
    assert body_of(prompts) == "first"
    now = 102.0
    assert body_of(prompts) == "second, edited"


def test_a_broken_edit_keeps_the_last_good_version_and_is_reported_once(
    tmp_path: Path, write_prompt: WritePrompt
) -> None:
    path = write_prompt("helper", "good")
    prompts = library(tmp_path)
    write_prompt("helper", "{{ broken")
    with structlog.testing.capture_logs() as logs:
        assert body_of(prompts) == "good"
        assert body_of(prompts) == "good"
    (problem,) = prompts.problems()
    assert str(path) in problem
    assert "line 4" in problem
    assert [(entry["event"], entry["problem"]) for entry in logs] == [("prompt_kept_last_good", problem)]
    write_prompt("helper", "good again")
    assert body_of(prompts) == "good again"
    assert prompts.problems() == []


def test_a_broken_new_version_leaves_the_older_one_in_use(tmp_path: Path, write_prompt: WritePrompt) -> None:
    write_prompt("helper", "good")
    prompts = library(tmp_path)
    write_prompt("helper", "text", version="v2", front="roles: 5")
    assert body_of(prompts) == "good"
    assert len(prompts.problems()) == 1


def test_a_required_prompt_or_the_folder_going_away_keeps_what_was_read(
    tmp_path: Path, write_prompt: WritePrompt
) -> None:
    write_prompt("helper", "good")
    prompts = library(tmp_path, required=["helper"])
    shutil.rmtree(tmp_path / "helper")
    for _ in range(2):
        assert body_of(prompts) == "good"
        assert "'helper' is needed" in prompts.problems()[0]
    tmp_path.rmdir()
    assert body_of(prompts) == "good"
    assert "cannot be read" in prompts.problems()[0]
    write_prompt("helper", "back")
    assert body_of(prompts) == "back"
    assert prompts.problems() == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("no front matter", ", line 1, must begin with '---'"),
        ("", ", line 1, must begin with '---'"),
        ("---\nroles: '*'\nno end", "does not end; close it with a line '---'"),
        ("---\nroles: '*'\n---\n  \n", "has no text after its front matter"),
        ("---\n---\ntext", ", line 2, must have 'key: value' lines"),
        ("---\n- roles\n---\ntext", ", line 2, must have 'key: value' lines"),
        ("---\nroles: '*'\n  x: [\n---\ntext", ", line 3, has front matter that is not YAML"),
        ("---\nroles: !!python/object/apply:os.system [id]\n---\ntext", ", line 2, has front matter that is not YAML"),
        ("---\ndescription: D\n---\ntext", "lacks the key 'roles'; add it, \"*\" for everybody or a list"),
        (
            "---\ndescription: D\nroles: sales\n---\ntext",
            ", line 3, has a value for 'roles' that cannot be used; write \"*\"",
        ),
        ("---\nroles: [1]\n---\ntext", ", line 2, has a value for 'roles' that cannot be used"),
        ("---\nroles: '*'\nmodle: x\n---\ntext", ", line 3, has the key 'modle', which does not exist"),
        (
            "---\nroles: '*'\nsettings:\n  temperature: 3\n---\ntext",
            ", line 4, has a value for 'settings.temperature' that cannot be used",
        ),
        (
            "---\nroles: '*'\nsettings:\n  max_tokens: 3\n---\ntext",
            ", line 4, has the key 'settings.max_tokens', which does not exist",
        ),
        ("---\nroles: '*'\nsettings: high\n---\ntext", ", line 3, has a value for 'settings' that cannot be used"),
        ("---\nroles: '*'\n---\n\nHello {{ usr }}", ", line 5 cannot be used: there is no variable 'usr'"),
        ("---\r\nroles: '*'\r\n---\r\n{{ 1 / 0 }}", ", line 4 cannot be used: division by zero"),
        ("---\nroles: '*'\n---\n" + "x" * 300_000, "is larger than 262144 bytes; shorten it"),
    ],
)
def test_a_bad_file_stops_the_start_with_its_name_place_and_remedy(
    tmp_path: Path, write_prompt: WritePrompt, content: str, says: str
) -> None:
    path = write_prompt("helper", "x")
    path.write_bytes(content.encode())
    with pytest.raises(ConfigError) as caught:
        library(tmp_path)
    assert caught.value.message.startswith(f"The prompt {path}")
    assert says in caught.value.message
    assert caught.value.message.endswith(".")


def test_a_file_that_is_not_utf8_or_not_there_or_badly_named_stops_the_start(
    tmp_path: Path, write_prompt: WritePrompt
) -> None:
    path = write_prompt("helper", "x")
    path.write_bytes(b"---\nroles: '*'\n---\n\xff")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 19"):
        library(tmp_path)
    path.unlink()
    with pytest.raises(ConfigError, match="does not exist; write it, or remove its folder"):
        library(tmp_path)
    path.parent.rmdir()
    with pytest.raises(ConfigError, match="does not exist; write it, or remove its folder"):
        library(tmp_path)
    path.parent.parent.rmdir()
    write_prompt("Bad Name", "x")
    with pytest.raises(ConfigError, match="has a bad name; use a-z"):
        library(tmp_path)
    shutil.rmtree(tmp_path / "Bad Name")
    write_prompt("helper", "x", version="v 1")
    with pytest.raises(ConfigError, match="has a bad name; call it v1"):
        library(tmp_path)


def test_several_problems_are_counted(tmp_path: Path, write_prompt: WritePrompt) -> None:
    write_prompt("one", "{{ x }}")
    write_prompt("two", "{{ x }}")
    with pytest.raises(ConfigError, match="There are 1 more problems"):
        library(tmp_path)


def test_a_missing_folder_or_required_prompt_stops_the_start_and_names_the_setting(
    tmp_path: Path, write_prompt: WritePrompt
) -> None:
    with pytest.raises(ConfigError, match="PARLEY_PROMPTS_DIR"):
        library(tmp_path / "nowhere")
    write_prompt("helper", "x")
    with pytest.raises(ConfigError, match=r"'assistant' is needed .*\(there: helper\).*PARLEY_CONVERSATION__PROMPT"):
        library(tmp_path, required=["assistant"])


def test_entries_that_editors_and_mounts_leave_are_ignored(tmp_path: Path, write_prompt: WritePrompt) -> None:
    write_prompt("helper", "x")
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "..data").mkdir()
    (tmp_path / "helper" / ".git").mkdir()
    assert body_of(library(tmp_path)) == "x"
