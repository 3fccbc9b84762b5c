"""A scenario file says what is run, or says where it is wrong and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from load_tests.filler import expected_text
from serve_app.capacity.scenario import (
    Scenario,
    adjusted,
    built_in_scenarios,
    find_scenario,
    load_scenario,
    scenario_yaml,
)
from serve_app.companions.provider.profile import model_from_name
from serve_app.errors import ConfigError

HEAD = "name: a\nusers:\n  - kind: ws_chat\n"
LOAD = "load: {shape: {kind: constant, level: 4, for_s: 30}}\n"


def load(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "given.yaml"
    path.write_text(text)
    return load_scenario(path)


@pytest.mark.parametrize("name", sorted(built_in_scenarios()))
def test_what_comes_with_parley_can_be_used_and_read_again_as_it_is_written_down(name: str, tmp_path: Path) -> None:
    scenario = load_scenario(find_scenario(name))
    assert scenario.name == name
    assert scenario.description
    assert sum(phase.duration_s for phase in scenario.phases()) == pytest.approx(scenario.total_s)
    assert load(tmp_path, scenario_yaml(scenario)) == scenario


def test_there_are_scenarios_for_each_way_of_use_that_the_documentation_names() -> None:
    known = set(built_in_scenarios())
    assert {"smoke", "steps", "spike", "soak", "day", "tools", "mixed", "idle", "transcripts"} <= known
    kinds = {entry.kind for path in built_in_scenarios().values() for entry in load_scenario(path).users}
    assert kinds == {"ws_chat", "sse_chat", "openai_chat", "tools", "idle", "reconnecting", "transcript"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEAD + "    thnk_s: 3\n" + LOAD, "line 4, has the key 'users[0].thnk_s', which does not exist"),
        (HEAD + "    think_s: {kind: uniform, min: 3, max: 1}\n" + LOAD, "line 4, has a value for 'users[0].think_s"),
        (HEAD + "    think_s: often\n" + LOAD, "write a number, or a mapping with kind"),
        (HEAD + "    turns: {kind: wave}\n" + LOAD, "line 4, has a value for 'users[0].turns'"),
        (HEAD + "\nload: {shape: {kind: constant, level: 1}}", "line 5, lacks the key 'load.shape.for_s'; add it"),
        (HEAD + "load: {shape: {kind: steps, first: 2, by: 1, last: 1, each_s: 3}}", "must not be above last"),
        (HEAD + "slo: {errors: 3}\n" + LOAD, "line 4, has a value for 'slo.errors'"),
        (HEAD + "    transcripts: x.jsonl\n" + LOAD, "needs transcripts"),
        (HEAD + "    model_id: x\n    simulated: {}\n" + LOAD, "exclude each other"),
        ("name: a\nusers: [{kind: idle}]\n" + LOAD, "give it a count"),
        ("name: a\nusers: [{kind: ws_chat, count: 3}]\n" + LOAD, "no user takes part in the load"),
        ("name: a\nusers: [{kind: reconnecting, wire: openai_chat}]\n" + LOAD, "cannot be resumed"),
        ("name: [\n", "line 2, cannot be read"),
        ("- a\n", "must be a mapping"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_remedy(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    assert told in refused.value.message
    assert "given.yaml" in refused.value.message


def test_a_file_that_is_not_there_is_told_with_the_names_that_are() -> None:
    with pytest.raises(ConfigError, match="steps"):
        find_scenario("no-such-scenario")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_scenario(Path("no-such-folder/x.yaml"))


def test_height_and_length_can_be_changed_and_ratios_stay(tmp_path: Path) -> None:
    spike = load(
        tmp_path, HEAD + "load: {shape: {kind: spike, base: 2, peak: 10, before_s: 30, peak_s: 10, after_s: 20}}"
    )
    changed = adjusted(spike, rate_per_s=5, duration_s=30, users=40, seed=9)
    assert [phase.level for phase in changed.phases()[1:]] == [1, 5, 1]
    assert [phase.duration_s for phase in changed.phases()[1:]] == [15, 5, 10]
    assert (changed.load.users_max, changed.seed) == (40, 9)
    closed = load(tmp_path, HEAD + "load: {model: closed, shape: {kind: constant, level: 10, for_s: 60}}")
    assert adjusted(closed, users=3).phases()[-1].level == 3
    with pytest.raises(ConfigError, match="users instead of a rate"):
        adjusted(closed, rate_per_s=3)
    with pytest.raises(ConfigError, match="greater than 0"):
        adjusted(closed, users=0)


def test_transcripts_are_found_beside_the_scenario(tmp_path: Path) -> None:
    text = HEAD.replace("ws_chat", "transcript") + "    transcripts: said.jsonl\n" + LOAD
    assert load(tmp_path, text).users[0].transcripts == tmp_path / "said.jsonl"


def test_the_warm_up_is_a_phase_that_does_not_count(tmp_path: Path) -> None:
    phases = load(tmp_path, HEAD + "warm_up_s: 7\n" + LOAD).phases()
    assert [(phase.name, phase.level, phase.duration_s, phase.measured) for phase in phases] == [
        ("warm-up", 4, 7, False), ("constant", 4, 30, True),
    ]  # fmt: skip


def test_a_simulated_model_is_named_as_the_simulated_provider_reads_it(tmp_path: Path) -> None:
    text = HEAD + "    simulated: {ttft_ms: 120, token_ms: 7, jitter_percent: 10, tool_rounds: 2}\n" + LOAD
    simulated = load(tmp_path, text).users[0].simulated
    assert simulated is not None
    read = model_from_name(simulated.model_id(33))
    assert read is not None
    assert (read.profile.ttft_ms, read.profile.token_ms, read.profile.tokens) == (120, 7, 33)
    assert (read.profile.jitter, read.tool_rounds) == (0.1, 2)


def test_what_a_simulated_model_will_say_is_known() -> None:
    assert expected_text("sim-t1-i2-n3") == " tok0 tok1 tok2"
    assert (expected_text("sim-t1-i2-n1002") or "").endswith(" tok999 tok0 tok1")
    assert expected_text("demo") is None
    assert expected_text(None) is None
