"""A limit that is predicted from a run at low load is the one that a run beyond it finds, and the same resource gives way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import yaml

from deployments.options import load_serve_config
from serve_app.capacity.measured import measure
from serve_app.capacity.model import Prediction, StageSize, predict
from serve_app.capacity.report import make_report
from serve_app.capacity.run import load_run
from serve_app.capacity.scaled_config import scaled_config
from serve_app.capacity.scenario import Slo
from serve_app.capacity.verification import AROUND, NEARER, is_near, steps_at, verify
from serve_app.errors import ConfigError
from serve_app.settings import PROJECT_ROOT
from tests.unit.capacity.synthetic import Model, write_run

BASE = PROJECT_ROOT / "serve_config.yaml"
CALM = (1.0, 1.5, 2.0, 2.5)
MODELS = {
    "model": Model(model_slots=10, rates=CALM, phase_s=60, refused_after_s=600),
    "tool": Model(tool_slots=2, tool_s=1.5, tools_share=0.25, rates=CALM, phase_s=60),
    "store": Model(writer_s=0.15, rates=CALM, phase_s=60),
    "turns": Model(turn_cpu_s=0.15, rates=CALM, phase_s=60),
}


@pytest.mark.parametrize("scarce", list(MODELS))
def test_the_limit_predicted_at_low_load_is_the_one_that_is_measured(scarce: str, tmp_path: Path) -> None:
    model = MODELS[scarce]
    prediction = predict(measure(load_run(write_run(tmp_path / "calm", model))).demands)
    limit = prediction.bottleneck
    assert limit is not None and (limit.stage, limit.resource) == model.bottleneck
    assert limit.per_s == pytest.approx(model.limit_per_s, rel=0.2)
    assert limit.low <= model.limit_per_s * 1.1 and limit.high >= model.limit_per_s * 0.9

    rates = tuple(limit.per_s * share for share in (0.7, 0.9, 1.1, 1.3, 1.5))
    beyond = replace(model, rates=rates, phase_s=60.0, seed=2)
    found = verify(prediction, load_run(write_run(tmp_path / "beyond", beyond)))
    assert found.measured is not None and found.off is not None
    assert abs(found.off) <= 0.2, found.says
    assert found.same, found.why
    assert "gave way, as predicted" in found.says


def test_a_wrong_prediction_is_told_to_be_wrong(tmp_path: Path) -> None:
    model = MODELS["model"]
    demands = measure(load_run(write_run(tmp_path / "calm", model))).demands
    twice = predict(demands, {"ModelGateway": StageSize(2, model.model_slots)})
    beyond = replace(model, rates=(4.0, 6.0, 8.0, 10.0, 12.0))
    found = verify(twice, load_run(write_run(tmp_path / "beyond", beyond)))
    assert found.off is not None and found.off > 0.6
    assert "off by +" in found.says


def test_a_limit_that_was_not_reached_is_not_said_to_be_measured(tmp_path: Path) -> None:
    model = MODELS["store"]
    run = load_run(write_run(tmp_path / "calm", model))
    found = verify(predict(measure(run).demands), run)
    assert found.measured is None and found.off is None and "was not reached" in found.says


def test_the_steps_lie_around_the_prediction_and_look_for_the_limit_only(tmp_path: Path) -> None:
    scenario = load_run(write_run(tmp_path / "calm", replace(MODELS["store"], phase_s=10.0))).scenario
    steps = steps_at(scenario, 10.0, AROUND, 20.0)
    levels = [phase.level for phase in steps.load.shape.phases()]
    assert levels == pytest.approx([4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0])
    assert steps.slo == Slo(errors=1.0)
    with pytest.raises(ConfigError, match="cannot be measured in steps"):
        steps_at(scenario, 0.01, AROUND, 20.0)
    with pytest.raises(ConfigError, match="no limit can be predicted"):
        verify(Prediction((), "so no limit can be predicted"), load_run(tmp_path / "calm"))


def test_a_prediction_from_rates_far_below_it_is_told_from_one_that_was_measured_near_it(tmp_path: Path) -> None:
    demands = measure(load_run(write_run(tmp_path / "calm", MODELS["store"]))).demands
    prediction = predict(demands)
    assert prediction.bottleneck is not None
    fastest = max(demand.measured_to for demand in demands)
    far = msgspec.structs.replace(prediction.bottleneck, per_s=fastest * 2.1)
    assert not is_near(msgspec.structs.replace(prediction, limits=(far,)), demands)
    near = msgspec.structs.replace(prediction.bottleneck, per_s=fastest * 1.9)
    assert is_near(msgspec.structs.replace(prediction, limits=(near,)), demands)
    assert NEARER[2] < 1 < AROUND[2]


def test_a_configuration_is_scaled_to_the_machine_with_replicas_of_a_fixed_number(tmp_path: Path) -> None:
    document = yaml.safe_load(BASE.read_text(encoding="utf-8"))
    for deployment in document["applications"][0]["deployments"]:
        deployment["ray_actor_options"] = {"num_cpus": 1.0, "resources": {"data_volume": 1}}
        if deployment["name"] == "Turns":
            deployment["autoscaling_config"]["max_replicas"] = 30
    text, sizes = scaled_config(yaml.safe_dump(document), "x", 8)
    path = tmp_path / "serve_config.yaml"
    path.write_text(text, encoding="utf-8")
    scaled = {deployment.name: deployment for deployment in load_serve_config(path).applications[0].deployments}
    # 30 + 4 × 4 + 2 replicas of a CPU each, on 8 cores
    assert (
        sizes["Turns"] == StageSize(5, 500)
        and sizes["Store"].replicas == 1
        and sizes["ModelGateway"] == StageSize(1, 1000)
    )
    assert scaled["Turns"].num_replicas == 5
    assert "Companions" in scaled and "Companions" not in sizes
    for deployment in scaled.values():
        assert "autoscaling_config" not in deployment.model_dump(exclude_unset=True)
        assert deployment.model_dump(exclude_unset=True)["ray_actor_options"] == {"num_cpus": 0.1}


def test_cores_that_others_held_all_the_time_are_not_what_gave_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODELS["model"]
    prediction = predict(measure(load_run(write_run(tmp_path / "calm", model))).demands)
    for other_cores, expected in ((1.93, ("ModelGateway", "slots")), (0.1, ("node-1", "cpu"))):
        held = replace(model, rates=(4.0, 6.0, 8.0, 10.0), phase_s=40, cores=2, generator_cpu=other_cores, seed=4)
        run = load_run(write_run(tmp_path / f"beyond-{other_cores}", held))
        report = make_report(run)
        cores = msgspec.structs.replace(report.saturation, stage="node-1", resource="cpu")
        told = msgspec.structs.replace(report, saturation=cores)
        monkeypatch.setattr("serve_app.capacity.verification.make_report", lambda _, told=told: told)
        found = verify(prediction, run)
        assert (found.measured_stage, found.measured_resource) == expected
