"""The beginning of a run: names are resolved, the folder is filled, and it can be cut off in the middle of that."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from msgspec.structs import replace

from serve_app.domain.generation import ModelCatalog, ModelInfo
from serve_app.domain.usage import Price
from serve_app.errors import ConfigError
from serve_app.evaluation.case_files import write_cases
from serve_app.evaluation.choosing import chosen_cases
from serve_app.evaluation.dataset import open_dataset
from serve_app.evaluation.estimate import estimate
from serve_app.evaluation.run_file import RunFile, load_run_file
from serve_app.evaluation.run_folder import RUN_FILE
from serve_app.evaluation.run_start import GraphView, asking, fill, new_meta, new_run, resolved
from serve_app.evaluation.run_store import RunStore
from tests.unit.evaluation.runs import case, new_store, run_file

GRAPH = GraphView(
    catalog=ModelCatalog(
        models=(
            ModelInfo(
                model_id="gpt", provider="p", context_tokens=1, aliases=("best",),
                price=Price(input=1.0, output=10.0, cached_input=1.0),
            ),
            ModelInfo(model_id="free", provider="p", context_tokens=1),
        ),
        default_model_id="free",
    ),
    prompts={"assistant": ("v1", "v2")},
    where="local",
)  # fmt: skip

REPLY = {"name": "crm.find_account", "result": "nothing"}


def test_a_configuration_is_resolved_to_the_version_in_use_and_keeps_its_model() -> None:
    run = run_file(
        tools="recorded",
        configurations=[
            {"name": "a", "prompt": "assistant", "model": "best"},
            {"name": "b", "prompt": "assistant@v2", "tools": "live"},
            {"name": "c"},
        ],
    )
    one, two, three = resolved(run, GRAPH)
    assert (one.prompt, one.prompt_version, one.model, one.tools) == ("assistant", "v1", "best", "recorded")
    assert (two.prompt_version, two.model, two.tools) == ("v2", "", "live")
    assert (three.prompt, three.prompt_version) == ("", "")


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        ({"prompt": "nobody"}, "the prompt 'nobody', which there is not; there are: assistant"),
        ({"prompt": "assistant@v9"}, "version 'v9' of the prompt assistant, which there is not; there are: v1, v2"),
        ({"model": "gpt-9"}, "the model 'gpt-9', which there is not; there are: gpt, best, free"),
    ],
)
def test_what_there_is_not_is_told_before_anything_is_run(configuration: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolved(run_file(configurations=[{"name": "a"} | configuration]), GRAPH)


def test_a_run_that_goes_on_asks_as_it_began(tmp_path: Path) -> None:
    write_cases(tmp_path / "cases.jsonl", [case(1)])
    run = run_file(dataset=tmp_path / "cases.jsonl", tenant="acme", role="sales", timeout_s=60, replies=[REPLY])
    begun = new_meta(run, GRAPH, open_dataset(run.dataset), "1.0")
    changed = run_file(dataset=tmp_path / "cases.jsonl", tenant="globex", timeout_s=90)
    how = asking(changed, begun)
    assert (how.tenant, how.role, how.timeout_s) == ("acme", "sales", 90)
    assert [(call.name, call.result) for call in how.replies] == [("crm.find_account", "nothing")]
    before_they_were_kept = replace(begun, replies=None)
    assert [call.name for call in asking(run, before_they_were_kept).replies] == ["crm.find_account"]
    assert asking(run, replace(begun, replies=())).replies == ()


def test_a_folder_that_was_cut_off_while_its_cases_were_copied_gets_the_rest(tmp_path: Path) -> None:
    write_cases(tmp_path / "cases.jsonl", (case(number) for number in range(900)))
    run = run_file(dataset=tmp_path / "cases.jsonl", sample={"cases": 700})
    dataset = open_dataset(run.dataset)
    with new_run(tmp_path / "run", run, new_meta(run, GRAPH, dataset, "1.0")) as store:
        store.add_cases(islice(chosen_cases(dataset, run.sample, run.seed), 550))  # killed here
        assert store.meta.cases == 0
    kept = load_run_file(tmp_path / "run" / RUN_FILE)
    assert kept == run
    with RunStore.open(tmp_path / "run", writing=True) as store:
        fill(store, kept, open_dataset(kept.dataset))
        assert store.meta.cases == store.totals().cases == 700
        assert store.meta.dataset_cases == 900


def test_a_run_does_not_go_on_with_another_data_set(tmp_path: Path) -> None:
    run = _begun(tmp_path)
    write_cases(tmp_path / "cases.jsonl", (case(number) for number in range(4)))
    with RunStore.open(tmp_path / "run", writing=True) as store, pytest.raises(ConfigError, match="has changed since"):
        fill(store, run, open_dataset(run.dataset))


def test_an_estimate_counts_turns_and_prices_those_that_have_one(tmp_path: Path) -> None:
    run = run_file(configurations=[{"name": "a", "model": "best"}, {"name": "b"}], repeats=2)
    store = new_store(tmp_path / "run", run, [case(number) for number in range(10)])
    found = estimate(store, GRAPH.catalog)
    assert found.turns == 40
    assert found.unpriced == ("free",)
    # 20 turns of two calls, about 1,000 tokens in each, and 250 out: 20 · (2,000 · $1 + 250 · $10) a million
    assert found.microusd == pytest.approx(20 * (2_000 * 1 + 250 * 10), rel=0.02)


def _begun(folder: Path) -> RunFile:
    write_cases(folder / "cases.jsonl", (case(number) for number in range(3)))
    run = run_file(dataset=folder / "cases.jsonl")
    new_run(folder / "run", run, new_meta(run, GRAPH, open_dataset(run.dataset), "1.0")).close()
    return run
