"""The configuration files that are shipped: each can be loaded by what reads it, and they agree with each other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from deployments.environment import ray_environment
from deployments.options import STAGES, load_serve_config, stage_options
from serve_app.companions.provider.script import load_script
from serve_app.credentials import Secrets
from serve_app.embedded import companions_of, tool_variables
from serve_app.errors import ConfigError
from serve_app.models.models_file import read_models
from serve_app.settings import PROJECT_ROOT, Settings
from serve_app.tools.config import load_servers

CONFIGS = PROJECT_ROOT / "configs"
KUBERAY = CONFIGS / "kuberay"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PARLEY_", "OPENAI_", "AZURE_")):
            monkeypatch.delenv(name)


def document(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((KUBERAY / name).read_text(encoding="utf-8"))
    return loaded


# -- settings --------------------------------------------------------------------------------------------------------


def test_the_local_profile_is_the_default() -> None:
    assert Settings.load(CONFIGS / "local.yaml") == Settings()


def test_the_tests_profile_keeps_a_lease_long_enough_to_renew() -> None:
    settings = Settings.load(CONFIGS / "test.yaml")
    assert settings.turn.lease_s < Settings().turn.lease_s


def test_the_resilient_profile_differs_from_the_default_in_what_it_is_for() -> None:
    folder = CONFIGS / "resilient"
    settings = Settings.load(folder / "settings.yaml")
    assert settings.serve_config == Path("configs/resilient/serve_config.yaml")
    assert settings.turn.sweep_s < Settings().turn.sweep_s
    resilient = stage_options(load_serve_config(folder / "serve_config.yaml").applications[0])
    default = stage_options(load_serve_config(PROJECT_ROOT / "serve_config.yaml").applications[0])
    assert list(resilient) == list(default)
    for stage, options in resilient.items():
        if stage not in ("Store", "Companions"):  # one writer, one port
            assert options["autoscaling_config"].pop("min_replicas") == 2, stage
            assert default[stage]["autoscaling_config"].pop("min_replicas") == 1
            assert options["health_check_period_s"] == 1
        del options["health_check_period_s"], default[stage]["health_check_period_s"]
        assert options == default[stage], stage


def test_a_redeploy_starts_the_new_before_it_stops_the_old() -> None:
    stages = stage_options(load_serve_config(PROJECT_ROOT / "serve_config.yaml").applications[0])
    surging = {stage for stage, options in stages.items() if options.get("max_surge_percent") == 100}
    assert surging == set(stages) - {"Store", "Companions"}


def test_the_production_profile_is_whole_but_for_identities() -> None:
    with pytest.raises(ConfigError, match=r"PARLEY_AUTH__MODE: production refuses development identities"):
        Settings.load(CONFIGS / "production.yaml")
    settings = Settings.load(CONFIGS / "production.yaml", {"auth": {"mode": "accounts"}})
    assert companions_of(settings, Secrets()) == ()
    assert settings.channel.bind_host == "node"


def test_a_trial_on_a_cluster_differs_from_production_in_its_mode_only() -> None:
    trial = yaml.safe_load((CONFIGS / "cluster.yaml").read_text())
    production = yaml.safe_load((CONFIGS / "production.yaml").read_text())
    assert trial["mode"] == "development"
    assert production["mode"] == "production"
    for name in ("host", "replica_host", "channel", "companions"):
        assert trial[name] == production[name]
    assert Settings.load(CONFIGS / "cluster.yaml").host == "0.0.0.0"  # noqa: S104


def test_every_settings_file_is_looked_at_here() -> None:
    others = {"machines.yaml", "models.yaml", "provider_script.example.yaml", "shadow.example.yaml"}
    assert {path.name for path in CONFIGS.glob("*.yaml")} - others == {
        "azure.yaml",
        "cluster.yaml",
        "local.yaml",
        "production.yaml",
        "test.yaml",
    }


def test_models_tools_and_the_example_script_can_be_loaded() -> None:
    assert read_models(CONFIGS / "models.yaml", lambda _: None).providers == ()
    servers = load_servers(CONFIGS / "mcpservers.json", tool_variables(Settings()))
    assert {server.name for server in servers} >= {"crm", "hr"}
    assert load_script(CONFIGS / "provider_script.example.yaml").rules


# -- README ----------------------------------------------------------------------------------------------------------


def variables(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    """Every setting as the environment names it, and its default as the README shows it."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from variables(field.annotation, f"{prefix}{name.upper()}__")
            continue
        default = field.default
        shown = f"{default:g}" if isinstance(default, float) and default < 1e6 else str(default)
        shown = shown.lower() if isinstance(default, bool) else shown
        yield prefix + name.upper(), "–" if default in (None, ()) else f"`{shown}`"


def test_the_readme_lists_every_setting_with_its_default() -> None:
    table = dict(re.findall(r"^\| `(PARLEY_\w+)` \| (\S+) \|", (PROJECT_ROOT / "README.md").read_text(), re.MULTILINE))
    assert table == dict(variables(Settings, "PARLEY_"))


# -- KubeRay ---------------------------------------------------------------------------------------------------------


def test_the_manifests_are_of_the_kinds_they_say() -> None:
    names = [str(path.relative_to(KUBERAY)) for path in KUBERAY.rglob("*.yaml")]
    kinds = {name: (document(name)["apiVersion"], document(name)["kind"]) for name in names}
    assert kinds == {
        "azure/rayservice.yaml": ("ray.io/v1", "RayService"),
        "azure/service-account.yaml": ("v1", "ServiceAccount"),
        "rayservice.yaml": ("ray.io/v1", "RayService"),
        "environment.yaml": ("v1", "ConfigMap"),
        "network-policy.yaml": ("networking.k8s.io/v1", "NetworkPolicy"),
        "storage.yaml": ("v1", "PersistentVolumeClaim"),
    }
    assert all(document(name)["metadata"]["name"] for name in kinds)


@pytest.fixture(params=["rayservice.yaml", "azure/rayservice.yaml"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The specification of a service."""
    monkeypatch.setenv("PARLEY_AZURE__COSMOS_ENDPOINT", "https://account.documents.azure.com:443/")
    monkeypatch.setenv("PARLEY_AZURE__BLOB_ENDPOINT", "https://account.blob.core.windows.net")
    specification: dict[str, Any] = document(request.param)["spec"]
    return specification


@pytest.fixture
def serve_config(service: dict[str, Any], tmp_path: Path) -> Path:
    """``serveConfigV2`` of the service, as a file."""
    path = tmp_path / "serve_config.yaml"
    path.write_text(service["serveConfigV2"], encoding="utf-8")
    return path


def test_the_service_on_azure_is_the_other_one_but_for_its_store(tmp_path: Path) -> None:
    stages = []
    clusters = []
    for number, name in enumerate(("rayservice.yaml", "azure/rayservice.yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(document(name)["spec"]["serveConfigV2"], encoding="utf-8")
        stages.append(stage_options(load_serve_config(path).applications[0]))
        clusters.append(document(name)["spec"]["rayClusterConfig"])
    kept, azure = stages
    assert "num_replicas" in kept.pop("Store")
    assert azure.pop("Store")["autoscaling_config"]["min_replicas"] >= 2
    assert kept == azure
    assert "volumes" in clusters[0]["headGroupSpec"]["template"]["spec"]
    account = document("azure/service-account.yaml")["metadata"]["name"]
    for cluster in clusters:
        head = cluster["headGroupSpec"]
        head["rayStartParams"].pop("resources", None)
        for group in (head, *cluster["workerGroupSpecs"]):
            template = group["template"]
            assert template["spec"].pop("serviceAccountName", account) == account
            assert template.pop("metadata", None) in (None, {"labels": {"azure.workload.identity/use": "true"}})
            template["spec"].pop("volumes", None)
            for container in template["spec"]["containers"]:
                container.pop("volumeMounts", None)
    assert clusters[0] == clusters[1]


def test_the_graph_of_the_cluster_is_the_one_of_the_laptop_without_companions(serve_config: Path) -> None:
    (cluster,) = load_serve_config(serve_config).applications
    (laptop,) = load_serve_config(PROJECT_ROOT / "serve_config.yaml").applications
    assert (cluster.name, cluster.import_path, cluster.route_prefix) == (
        laptop.name,
        laptop.import_path,
        laptop.route_prefix,
    )
    assert {stage.name for stage in cluster.deployments} == set(STAGES) - {"Companions"}
    profile = Settings.load(PROJECT_ROOT / cluster.args["config"])
    assert companions_of(profile, Secrets()) == ()


def test_stages_on_the_cluster_keep_the_limits_and_times_of_the_laptop(serve_config: Path) -> None:
    cluster = stage_options(load_serve_config(serve_config).applications[0])
    laptop = stage_options(load_serve_config(PROJECT_ROOT / "serve_config.yaml").applications[0])
    for stage, options in cluster.items():
        assert options["max_ongoing_requests"] == laptop[stage]["max_ongoing_requests"], stage
        assert options["max_queued_requests"] == laptop[stage]["max_queued_requests"], stage
        if "graceful_shutdown_timeout_s" in options:
            assert options["graceful_shutdown_timeout_s"] >= laptop[stage]["graceful_shutdown_timeout_s"], stage
    assert laptop["Store"]["num_replicas"] == 1
    (profile,) = load_serve_config(serve_config).applications
    if Settings.load(PROJECT_ROOT / profile.args["config"]).store == "local":
        assert cluster["Store"]["num_replicas"] == 1, "one writer"


@pytest.mark.parametrize("where", ["laptop", "cluster"])
def test_a_replica_that_is_stopped_may_finish_its_longest_work(serve_config: Path, where: str) -> None:
    path = serve_config if where == "cluster" else PROJECT_ROOT / "serve_config.yaml"
    stages = stage_options(load_serve_config(path).applications[0])
    turn = Settings().turn
    assert stages["Turns"]["graceful_shutdown_timeout_s"] >= turn.timeout_s + turn.title_wait_s
    assert stages["ModelGateway"]["graceful_shutdown_timeout_s"] >= turn.model_timeout_s
    assert stages["ToolExecutor"]["graceful_shutdown_timeout_s"] >= turn.tool_timeout_s
    assert stages["Turns"]["max_ongoing_requests"] >= turn.max_running


def test_the_least_number_of_replicas_fits_the_least_number_of_workers(
    service: dict[str, Any], serve_config: Path
) -> None:
    cluster = service["rayClusterConfig"]
    stages = stage_options(load_serve_config(serve_config).applications[0])
    wanted = sum(
        options["ray_actor_options"]["num_cpus"]
        * (options.get("num_replicas") or options["autoscaling_config"]["min_replicas"])
        for options in stages.values()
    )
    (workers,) = cluster["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    assert wanted <= workers["minReplicas"] * int(container["resources"]["limits"]["cpu"])
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_a_pod_is_given_longer_than_a_turn_to_end(service: dict[str, Any], serve_config: Path) -> None:
    stages = stage_options(load_serve_config(serve_config).applications[0])
    for group in service["rayClusterConfig"]["workerGroupSpecs"]:
        grace_s = group["template"]["spec"]["terminationGracePeriodSeconds"]
        assert grace_s >= max(options.get("graceful_shutdown_timeout_s", 0) for options in stages.values())


def test_every_pod_has_the_environment_that_ray_reads(service: dict[str, Any]) -> None:
    cluster = service["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    name = document("environment.yaml")["metadata"]["name"]
    for group in groups:
        for container in group["template"]["spec"]["containers"]:
            assert {"configMapRef": {"name": name}} in container["envFrom"]
            assert any("secretRef" in source for source in container["envFrom"])
            assert set(container["resources"]) == {"requests", "limits"}


def test_the_clusters_environment_says_what_a_laptops_says_about_serve(tmp_path: Path) -> None:
    cluster = document("environment.yaml")["data"]
    laptop = ray_environment(tmp_path)
    assert all(isinstance(value, str) for value in cluster.values())
    shared = {name: value for name, value in cluster.items() if name in laptop and name != "RAY_SERVE_HAPROXY_MAXCONN"}
    assert len(shared) >= 5
    assert shared == {name: laptop[name] for name in shared}
    assert not [name for name in cluster if "SECRET" in name or "TOKEN" in name or "KEY" in name]


def test_rays_own_door_is_closed_in_a_way_the_operator_can_open(service: dict[str, Any]) -> None:
    cluster = service["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}


def test_the_version_of_ray_is_the_installed_one(service: dict[str, Any]) -> None:
    import ray

    assert service["rayClusterConfig"]["rayVersion"] == ray.__version__


def test_users_reach_the_port_that_serve_listens_on_and_no_other(service: dict[str, Any], serve_config: Path) -> None:
    policy = document("network-policy.yaml")["spec"]
    open_to_all = [rule for rule in policy["ingress"] if "from" not in rule]
    assert [rule["ports"] for rule in open_to_all] == [
        [{"port": load_serve_config(serve_config).http_options.port, "protocol": "TCP"}]
    ]
    assert policy["policyTypes"] == ["Ingress"]
    cluster = service["rayClusterConfig"]
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in head["ports"]}
    assert ports == {"gcs": 6379, "dashboard": 8265, "client": 10001, "serve": 8000}


def test_beside_users_only_the_clusters_pods_and_its_operator_may_call() -> None:
    policy = document("network-policy.yaml")["spec"]
    callers = [peer for rule in policy["ingress"] for peer in rule.get("from", [])]
    assert callers == [
        {"podSelector": policy["podSelector"]},
        {
            "namespaceSelector": {},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
        },
    ]
