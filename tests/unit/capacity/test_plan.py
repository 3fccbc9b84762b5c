"""The plan of a run whose demands are known multiplies them rightly, and is written into a configuration that `serve` accepts."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from deployments.options import load_serve_config, stage_options
from serve_app.capacity.machines import Machines, load_machines
from serve_app.capacity.measured import Measured, measure
from serve_app.capacity.plan import Plan, make_plan
from serve_app.capacity.run import load_run
from serve_app.capacity.run_folder import read_value
from serve_app.capacity.samples import PLAN_JSON
from serve_app.capacity.scenario import Slo
from serve_app.capacity.serve_patch import patch, planned_config, stages_in
from serve_app.capacity.slo_option import parse_slo
from serve_app.capacity.wanted import CONNECTION_BYTES, Wanted
from serve_app.cli.main import app
from serve_app.domain.usage import Price
from serve_app.errors import ConfigError
from serve_app.settings import PROJECT_ROOT
from tests.unit.capacity.synthetic import Model, write_run

BASE = PROJECT_ROOT / "serve_config.yaml"
TEXT = BASE.read_text(encoding="utf-8")
WANTED = Wanted(users=50_000, turns_per_user_hour=6)
MODEL = Model(turn_cpu_s=0.02, rates=(2.0, 4.0, 8.0, 12.0, 16.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report"), MODEL)


@pytest.fixture(scope="module")
def measured(folder: Path) -> Measured:
    return measure(load_run(folder))


@pytest.fixture(scope="module")
def machines() -> Machines:
    return load_machines(PROJECT_ROOT / "configs" / "machines.yaml")


def _plan(measured: Measured, machines: Machines, wanted: Wanted = WANTED, **more: object) -> Plan:
    price = more.get("price")
    assert price is None or isinstance(price, Price)
    machine = more.get("machine")
    return make_plan(
        measured, wanted, stages_in(TEXT, str(BASE)), machines, price=price, machine=str(machine) if machine else None
    )


def _stage(plan: Plan, name: str) -> tuple[int, int, int]:
    stage = next(stage for stage in plan.stages if stage.stage == name)
    return stage.needed, stage.min_replicas, stage.max_replicas


def test_what_a_turn_asks_for_is_recovered_from_the_runs_files(measured: Measured) -> None:
    assert measured.per_turn("Turns", "loop") == pytest.approx(MODEL.turn_cpu_s, rel=0.1)
    assert measured.per_turn("ModelGateway", "slots") == pytest.approx(1.5, rel=0.05)
    assert measured.per_turn("Store", "writer") == pytest.approx(MODEL.writer_s, rel=0.1)
    assert measured.per_turn("ToolExecutor", "slots") == pytest.approx(0.25 * 0.2, rel=0.25)
    assert measured.model_calls == pytest.approx(1.0, rel=0.05)
    assert (measured.input_tokens, measured.output_tokens) == (200.0, 60.0)


def test_replicas_are_the_peak_times_the_demand_over_what_a_replica_may_give(
    measured: Measured, machines: Machines
) -> None:
    plan = _plan(measured, machines)
    assert plan.average_per_s == pytest.approx(83.33, abs=0.01) and plan.peak_per_s == pytest.approx(166.67, abs=0.01)
    assert plan.utilisation == pytest.approx(0.6)
    needed, least, most = _stage(plan, "Turns")
    process = measured.demand("Turns", "process")
    assert process is not None and process.per_turn == pytest.approx(1.2 * MODEL.turn_cpu_s, rel=0.1)
    assert needed == math.ceil(plan.peak_per_s * process.per_turn / (0.6 - process.fixed))
    assert most == math.ceil(needed * plan.nodes.nodes / (plan.nodes.nodes - 1))
    assert 2 <= least < needed
    assert _stage(plan, "Ingress")[0] == 20  # 50,000 connections, 2500 each
    assert plan.connections == 50_000
    assert plan.carries_per_s is not None and plan.carries_per_s >= plan.peak_per_s / 0.6 * 0.99


def test_target_ongoing_requests_is_littles_law_of_what_a_replica_carries(
    measured: Measured, machines: Machines
) -> None:
    stage = next(stage for stage in _plan(measured, machines).stages if stage.stage == "Turns")
    assert stage.scarce == "process"
    carries = 0.6 / measured.per_turn("Turns", "process")
    assert stage.target_ongoing == pytest.approx(carries * measured.per_turn("Turns", "slots"), rel=0.05)


def test_an_ingress_that_cpu_fills_first_still_counts_connections(measured: Measured, machines: Machines) -> None:
    """Not those that a turn of the run held: its users asked more often, and a replica of the plan holds more of them."""
    process = measured.demand("Ingress", "process")
    assert process is not None
    dear = msgspec.structs.replace(process, per_turn=0.02)
    others = tuple(demand for demand in measured.demands if demand != process)
    plan = _plan(
        msgspec.structs.replace(measured, demands=(*others, dear)),
        machines,
        Wanted(users=50_000, turns_per_user_hour=30),
    )
    ingress = next(stage for stage in plan.stages if stage.stage == "Ingress")
    assert ingress.scarce == "process" and ingress.needed > 20
    assert ingress.target_ongoing == stages_in(TEXT, str(BASE))["Ingress"].target


def test_one_node_may_be_lost_and_the_rest_still_carries_the_peak(measured: Measured, machines: Machines) -> None:
    plan = _plan(measured, machines)
    safe, risky = plan.nodes, _plan(measured, machines, msgspec.structs.replace(WANTED, node_loss=False)).nodes
    assert safe.nodes == risky.nodes + 1
    for stage in plan.stages:
        assert stage.max_replicas * (safe.nodes - 1) / safe.nodes >= stage.needed - 1e-9
    wanted_cpus = sum(stage.num_cpus * stage.max_replicas for stage in plan.stages)
    assert wanted_cpus <= safe.nodes * safe.cpus_each


def test_nodes_are_filled_by_what_there_is_least_of(measured: Measured, machines: Machines) -> None:
    by_cpu = _plan(measured, machines, machine="general-4").nodes
    crowd = Wanted(users=2_000_000, turns_per_user_hour=0.1)
    by_memory = _plan(measured, machines, crowd, machine="compute-16").nodes
    assert (by_cpu.decides, by_memory.decides) == ("cpu", "memory")
    assert by_memory.memory_gib > crowd.users * CONNECTION_BYTES / 1024**3
    assert by_memory.nodes * by_memory.memory_gib_each >= by_memory.memory_gib


def test_the_provider_is_asked_for_what_the_peak_uses_and_head_room(measured: Measured, machines: Machines) -> None:
    provider = _plan(measured, machines).provider
    assert provider.tpm == pytest.approx(WANTED.peak_per_s * 60 * 260 / 0.6, rel=1e-3)
    assert provider.rpm == pytest.approx(WANTED.peak_per_s * 60 * measured.model_calls / 0.6, rel=1e-3)
    assert provider.streams == pytest.approx(WANTED.peak_per_s * 1.5, rel=0.05)


def test_an_embedded_store_that_cannot_carry_the_peak_is_not_planned_with(
    measured: Measured, machines: Machines
) -> None:
    few = _plan(measured, machines, Wanted(users=5_000, turns_per_user_hour=6))
    assert few.store.kind == "embedded" and _stage(few, "Store") == (1, 1, 1)
    assert few.store.utilisation == pytest.approx(few.peak_per_s * 0.004, rel=0.1)
    assert any("files are on one machine" in doubt for doubt in few.doubts)
    many = _plan(measured, machines)
    assert many.store.kind == "cosmos" and many.store.rus_per_s == pytest.approx(166.7 * 97 / 0.6, rel=0.02)
    assert any("planned for Cosmos DB" in doubt for doubt in many.doubts)
    assert any("README" in doubt for doubt in many.doubts)
    assert not any("files are on one machine" in doubt for doubt in many.doubts)
    insisted = _plan(measured, machines, msgspec.structs.replace(WANTED, store="embedded"))
    assert any("this needs Cosmos DB" in doubt for doubt in insisted.doubts)


def test_a_thousand_turns_cost_their_tokens_machines_and_request_units(measured: Measured, machines: Machines) -> None:
    costs = _plan(measured, machines, price=Price(input=2.0, output=8.0, cached_input=2.0)).costs
    assert costs.tokens == pytest.approx((200 * 2 + 60 * 8) / 1000)
    plan = _plan(measured, machines)
    per_hour = plan.nodes.all * machines.find(None).price_per_hour
    assert plan.costs.machines == pytest.approx(per_hour / (50_000 * 6 / 1000))
    assert plan.costs.request_units == pytest.approx((plan.store.rus_per_s or 0) / 100 * 0.008 / 300)
    assert plan.costs.tokens is None and any("no price" in sentence for sentence in plan.costs.missing)


def test_an_slo_that_breaks_early_lowers_the_planned_utilisation(tmp_path: Path, machines: Machines) -> None:
    run = load_run(
        write_run(tmp_path / "broken", Model(turn_cpu_s=0.02, turn_p95_s=3.0, rates=(5, 10, 15, 20, 40, 60)))
    )
    strict = measure(run, Slo(turn_p95_s=2.4, errors=0.01))
    assert strict.slo.broken_per_s is not None and 0.2 < strict.slo.utilisation < 0.6
    plan = _plan(strict, machines)
    assert plan.utilisation == pytest.approx(strict.slo.utilisation)
    assert any("up to which the SLO was seen to be kept" in sentence for sentence in plan.method)


def test_an_slo_that_no_load_kept_is_told(folder: Path, machines: Machines) -> None:
    plan = _plan(measure(load_run(folder), Slo(ttft_p95_s=0.1)), machines)
    assert any("not even the lightest" in doubt for doubt in plan.doubts)


def test_a_run_without_figures_of_the_stages_gives_no_plan(folder: Path, tmp_path: Path) -> None:
    blind = shutil.copytree(folder, tmp_path / "blind")
    (blind / "graph.jsonl").unlink()
    with pytest.raises(ConfigError, match="no figures of the stages"):
        measure(load_run(blind))


def test_a_run_in_which_nothing_kept_up_gives_no_plan(tmp_path: Path) -> None:
    swamped = write_run(tmp_path / "swamped", Model(model_slots=2, rates=(20.0, 30.0)))
    with pytest.raises(ConfigError, match=r"No phase of .* says what a turn needs"):
        measure(load_run(swamped))


def test_one_phase_gives_a_plan_that_says_how_little_it_stands_on(tmp_path: Path, machines: Machines) -> None:
    plan = _plan(measure(load_run(write_run(tmp_path / "single", Model(rates=(4.0,), quota_rpm=600)))), machines)
    assert any("Only one phase counts" in doubt for doubt in plan.doubts)
    assert any("times the highest rate" in doubt for doubt in plan.doubts)
    # Neither the measured machine's cores nor the measured quota bound a plan that orders both.
    assert plan.carries_per_s is not None and plan.carries_per_s > plan.peak_per_s


def test_a_plan_from_a_simulated_model_says_which_figures_are_the_scenarios(
    measured: Measured, machines: Machines
) -> None:
    assert any("were simulated" in doubt for doubt in _plan(measured, machines).doubts)
    real = msgspec.structs.replace(measured, simulated=())
    assert not any("simulated" in doubt for doubt in _plan(real, machines).doubts)


def test_a_stage_that_no_turn_used_keeps_its_target_and_is_told(tmp_path: Path, machines: Machines) -> None:
    plan = _plan(
        measure(load_run(write_run(tmp_path / "toolless", Model(tools_share=0.0, rates=(4.0, 8.0))))), machines
    )
    now = stages_in(TEXT, str(BASE))["ToolExecutor"]
    assert next(stage for stage in plan.stages if stage.stage == "ToolExecutor").target_ongoing == now.target
    assert any("did not use ToolExecutor" in doubt for doubt in plan.doubts)


def test_a_stand_in_for_a_provider_bounds_no_plan(measured: Measured, machines: Machines) -> None:
    loop = measured.demand("Turns", "loop")
    assert loop is not None
    slow = msgspec.structs.replace(loop, stage="Companions", per_turn=0.5)
    plan = _plan(msgspec.structs.replace(measured, demands=(*measured.demands, slow)), machines)
    assert plan.carries_per_s == _plan(measured, machines).carries_per_s


# -- the patch --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [BASE, PROJECT_ROOT / "configs" / "resilient" / "serve_config.yaml"])
def test_the_planned_configuration_is_one_that_serve_accepts(
    base: Path, measured: Measured, machines: Machines, tmp_path: Path
) -> None:
    text = base.read_text(encoding="utf-8")
    plan = make_plan(measured, WANTED, stages_in(text, str(base)), machines)
    path = tmp_path / "serve_config.planned.yaml"
    path.write_text(planned_config(plan, text, str(base)), encoding="utf-8")
    options = stage_options(load_serve_config(path).applications[0])
    for stage in plan.stages:
        scaling = options[stage.stage]["autoscaling_config"]
        assert (scaling["min_replicas"], scaling["max_replicas"]) == (stage.min_replicas, stage.max_replicas)
        assert options[stage.stage]["ray_actor_options"]["num_cpus"] == stage.num_cpus
        assert "num_replicas" not in options[stage.stage]
    assert options["Turns"]["autoscaling_config"]["target_ongoing_requests"] == next(
        stage.target_ongoing for stage in plan.stages if stage.stage == "Turns"
    )


def test_the_patch_applies_and_changes_numbers_only(measured: Measured, machines: Machines, tmp_path: Path) -> None:
    plan = _plan(measured, machines, Wanted(users=5_000, turns_per_user_hour=6))
    planned = planned_config(plan, TEXT, str(BASE))
    comments = [line.partition("#")[2] for line in TEXT.splitlines() if "#" in line]
    assert [line.partition("#")[2] for line in planned.splitlines() if "#" in line] == comments
    changed = [(a, b) for a, b in zip(TEXT.splitlines(), planned.splitlines(), strict=True) if a != b]
    known = ("min_replicas:", "max_replicas:", "target_ongoing_requests:", "num_cpus:", "cpu_share:", "proxy_location:")
    assert changed and all(any(name in b for name in known) for _, b in changed)
    copy = tmp_path / "serve_config.yaml"
    copy.write_text(TEXT, encoding="utf-8")
    (tmp_path / "serve_config.patch").write_text(patch(TEXT, planned, "a/serve_config.yaml", "b/serve_config.yaml"))
    subprocess.run(["git", "apply", "serve_config.patch"], cwd=tmp_path, check=True)
    assert copy.read_text(encoding="utf-8") == planned


def test_a_text_that_is_no_serve_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match="no list of applications"):
        stages_in("- a\n- b\n", "x.yaml")
    with pytest.raises(ConfigError, match="not valid YAML"):
        stages_in("a: [", "x.yaml")


# -- the command ------------------------------------------------------------------------------------------------------


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["capacity", "plan", *arguments], env={"COLUMNS": "160"})
    return result.exit_code, result.output


def test_the_command_prints_the_plan_with_its_assumptions_and_writes_it(folder: Path, tmp_path: Path) -> None:
    code, output = _run(
        "--report", str(folder), "--users", "50000", "--slo", "ttft_p95=1.5s", "--token-price", "2/8",
        "--out", str(tmp_path), "--serve-config", str(BASE),
    )  # fmt: skip
    assert code == 0, output
    expected = (
        "Turns", "min", "max", "Little's law", "Universal scalability law", "--peak-factor", "--headroom", "RU/s", "general-8",
        "examples until you put yours", "tokens a minute", "1000 turns", "tokens 0.880", "Start it with PARLEY_STORE=azure ",
        "http_options.host must not stay 127.0.0.1",
    )  # fmt: skip
    for said in expected:
        assert said in output, said
    written = read_value(tmp_path / PLAN_JSON, Plan)
    assert written.users == 50_000 and written.stages
    load_serve_config(tmp_path / "serve_config.planned.yaml")
    assert "max_replicas" in (tmp_path / "serve_config.patch").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--slo", "ttft=1"], "is no objective"),
        (["--slo", "ttft_p95=1%"], "is no objective"),
        (["--slo", "errors=2"], "errors"),
        (["--machine", "huge"], "No machine is called 'huge'"),
        (["--model", "nobody"], "lists no model 'nobody'"),
        (["--token-price", "cheap"], "is no price"),
        (["--store", "floppy"], "is no store"),
    ],
)
def test_an_option_that_cannot_be_used_is_told_in_a_sentence(folder: Path, options: list[str], said: str) -> None:
    code, output = _run("--report", str(folder), "--users", "10", *options)
    assert code == 2 and said in output and "Traceback" not in output


def test_an_objective_is_read_with_its_units() -> None:
    slo = parse_slo(["ttft_p95=800ms,turn_p95=20", "errors=2%"], Slo(ttft_p95_s=9, errors=0.5))
    assert slo.ttft_p95_s == pytest.approx(0.8) and slo.turn_p95_s == 20.0 and slo.errors == pytest.approx(0.02)
    kept = parse_slo(["turn_p95=1.5s"], Slo(ttft_p95_s=9, errors=0.5))
    assert (kept.ttft_p95_s, kept.turn_p95_s, kept.errors) == (9.0, 1.5, 0.5)


def test_machines_that_cannot_be_used_are_told_with_their_place(tmp_path: Path) -> None:
    bad = tmp_path / "machines.yaml"
    bad.write_text("machines: [{name: a, vcpus: none, memory_gib: 4, price_per_hour: 1}]\n")
    with pytest.raises(ConfigError, match=r"machines\.0\.vcpus"):
        load_machines(bad)
    bad.write_text("machines: [{name: a, vcpus: 0.5, memory_gib: 4, price_per_hour: 1}]\n")
    with pytest.raises(ConfigError, match="smaller than what a node keeps"):
        load_machines(bad).find("a")
