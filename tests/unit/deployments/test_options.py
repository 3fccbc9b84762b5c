"""serve_config.yaml: what Serve would take in silence is refused with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import serve

from deployments.options import STAGES, load_serve_config, stage_options
from serve_app.errors import ConfigError
from serve_app.settings import PROJECT_ROOT

Write = Callable[[Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(content: Any) -> Path:
        path = tmp_path / "serve_config.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
        return path

    return to


def config(**stage: Any) -> dict[str, Any]:
    """A small whole file; ``stage`` goes into its only stage."""
    return {
        "http_options": {"host": "127.0.0.1"},
        "logging_config": {"encoding": "JSON"},
        "applications": [
            {
                "name": "parley",
                "import_path": "serve_app.app:build",
                "deployments": [{"name": "Turns", **stage}],
            }
        ],
    }


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_serve_config(path)
    assert str(path) in caught.value.message
    return caught.value.message


def test_the_file_that_is_shipped_is_taken() -> None:
    loaded = load_serve_config(PROJECT_ROOT / "serve_config.yaml")
    (application,) = loaded.applications
    assert application.import_path == "serve_app.app:build"
    assert tuple(deployment.name for deployment in application.deployments) == STAGES
    assert loaded.http_options.host == "127.0.0.1"
    assert loaded.http_options.request_timeout_s is None


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda c: c.update(aplications=[]), "aplications"),
        (lambda c: c["http_options"].update(prot=1), "http_options.prot"),
        (lambda c: c["logging_config"].update(enable_acess_log=False), "logging_config.enable_acess_log"),
        (lambda c: c["applications"][0].update(rute_prefix="/"), "applications[0].rute_prefix"),
        (
            lambda c: c["applications"][0]["deployments"][0].update(max_ongoing_request=5),
            "applications[0].deployments[0].max_ongoing_request",
        ),
        (
            lambda c: c["applications"][0]["deployments"][0].update(autoscaling_config={"min_replica": 1}),
            "applications[0].deployments[0].autoscaling_config.min_replica",
        ),
        (
            lambda c: c["applications"][0]["deployments"][0].update(ray_actor_options={"num_cpu": 1}),
            "applications[0].deployments[0].ray_actor_options.num_cpu",
        ),
        (
            lambda c: c["applications"][0]["deployments"][0].update(logging_config={"log_levl": "INFO"}),
            "applications[0].deployments[0].logging_config.log_levl",
        ),
    ],
)
def test_a_misspelt_key_is_named_with_its_place(
    write: Write, change: Callable[[dict[str, Any]], None], place: str
) -> None:
    content = config()
    change(content)
    assert f"has an unknown key {place}; remove it or correct its name" in refused(write(content))


def test_a_stage_there_is_not_is_refused_and_the_others_are_named(write: Write) -> None:
    sentence = refused(
        write(config() | {"applications": [config()["applications"][0] | {"deployments": [{"name": "X"}]}]})
    )
    assert "names a stage 'X'; there are Ingress, Turns, PromptBuilder" in sentence


@pytest.mark.parametrize(
    ("stage", "place"),
    [
        ({"max_ongoing_requests": 0}, "applications.0.deployments.0.max_ongoing_requests"),
        ({"num_replicas": -1}, "applications.0.deployments.0.num_replicas"),
        ({"health_check_period_s": "often"}, "applications.0.deployments.0.health_check_period_s"),
        ({"ray_actor_options": {"num_cpus": -1}}, "applications.0.deployments.0.ray_actor_options"),
    ],
)
def test_a_bad_value_is_named_with_its_place(write: Write, stage: dict[str, Any], place: str) -> None:
    assert f"has a bad value at {place}" in refused(write(config(**stage)))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("applications: [\n", "is not valid YAML"),
        ("- applications\n", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("proxy_location: HeadOnly\n", "has a bad value at applications"),
        ("applications: []\n", "must hold one application, not 0"),
        ("applications: {name: x}\n", "has a bad value at applications"),
        ("applications: [x]\n", "has a bad value at applications.0"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(write: Write, content: str, told: str) -> None:
    assert told in refused(write(content))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(tmp_path / "missing.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "is not valid YAML" in refused(binary)


def test_what_the_file_says_of_a_stage_is_what_its_deployment_gets(write: Write) -> None:
    path = write(
        config(
            max_ongoing_requests=7,
            graceful_shutdown_timeout_s=9,
            autoscaling_config={"min_replicas": 2, "max_replicas": 5},
            ray_actor_options={"num_cpus": 0.5},
        )
    )
    options = stage_options(load_serve_config(path).applications[0])

    class Stage:
        pass

    made = serve.deployment(name="Turns")(Stage).options(**options["Turns"])
    assert made.name == "Turns"
    assert made.max_ongoing_requests == 7
    assert made.ray_actor_options == {"num_cpus": 0.5}
    assert made._deployment_config.graceful_shutdown_timeout_s == 9
    scaling = made._deployment_config.autoscaling_config
    assert scaling is not None
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 5)
    assert set(options) == {"Turns"}


def test_what_the_file_does_not_say_is_left_to_the_deployment(write: Write) -> None:
    assert stage_options(load_serve_config(write(config())).applications[0]) == {"Turns": {}}
