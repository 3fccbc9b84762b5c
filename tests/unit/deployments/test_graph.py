"""The graph: which stage is bound to which, and that its options and its stages are those of serve_config.yaml."""

from __future__ import annotations

import inspect
import os
from typing import Any, cast

import pytest
from ray.serve import Application

from deployments.graph import graph
from deployments.options import STAGES, load_serve_config, stage_options
from deployments.shell import Shell, StageContext
from serve_app.app import BuildArgs, build
from serve_app.credentials import Secrets
from serve_app.errors import ConfigError
from serve_app.settings import PROJECT_ROOT, AuthSettings, CompanionSettings, Settings


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PARLEY_", "OPENAI_", "AZURE_OPENAI_")):
            monkeypatch.delenv(name)


def stages(application: Application) -> dict[str, Application]:
    """Every stage of the graph by name."""
    found = {application._bound_deployment.name: application}
    for peer in peers(application).values():
        found |= stages(peer)
    return found


def peers(application: Application) -> dict[str, Application]:
    bound = cast(dict[str, Any], application._bound_deployment.init_kwargs)
    return {name: peer for name, peer in bound.items() if isinstance(peer, Application)}


def context(application: Application) -> StageContext:
    (given,) = application._bound_deployment.init_args
    assert isinstance(given, StageContext)
    return given


def test_a_laptops_graph_has_every_stage_of_the_file_and_the_file_every_stage() -> None:
    application = graph(Settings(), Secrets())
    (configured,) = load_serve_config(PROJECT_ROOT / "serve_config.yaml").applications
    assert set(stages(application)) == {stage.name for stage in configured.deployments} == set(STAGES)


def test_the_way_in_is_the_ingress_and_the_stages_are_bound_as_they_talk() -> None:
    application = graph(Settings(), Secrets())
    found = stages(application)
    names = {
        stage: {name: peer._bound_deployment.name for name, peer in peers(bound).items()}
        for stage, bound in found.items()
    }
    ports = {"store": "Store", "prompts": "PromptBuilder", "models": "ModelGateway", "tools": "ToolExecutor"}
    assert application._bound_deployment.name == "Ingress"
    assert names == {
        "Ingress": {"turns": "Turns", "companions": "Companions", **ports},
        "Turns": ports,
        "PromptBuilder": {},
        "ModelGateway": {"store": "Store"},
        "ToolExecutor": {"store": "Store"},
        "Store": {},
        "Companions": {},
    }
    assert found["Turns"] is peers(application)["turns"]


def test_every_stage_takes_the_peers_it_is_given() -> None:
    for stage in stages(graph(Settings(), Secrets())).values():
        kind = cast(type[Shell], stage._bound_deployment.func_or_class)
        start = inspect.signature(kind.start)
        start.bind(None, **peers(stage))


def test_companions_are_left_out_where_nothing_of_theirs_is_wanted() -> None:
    settings = Settings(companions=CompanionSettings(provider="off", tools=False))
    assert set(stages(graph(settings, Secrets()))) == set(STAGES) - {"Companions"}


def test_with_a_provider_configured_only_the_example_tools_are_companions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    settings = Settings(companions=CompanionSettings(tools=False))
    assert "Companions" not in stages(graph(settings, Secrets.from_environment()))
    assert "Companions" in stages(graph(Settings(), Secrets.from_environment()))


def test_production_has_no_companions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a token of the cluster's")
    settings = Settings().model_copy(update={"mode": "production"})
    assert "Companions" not in stages(graph(settings, Secrets()))


def test_the_files_options_are_the_stages_options() -> None:
    (configured,) = load_serve_config(PROJECT_ROOT / "serve_config.yaml").applications
    found = stages(graph(Settings(), Secrets(), stage_options(configured)))
    for stage in configured.deployments:
        deployment = found[stage.name]._bound_deployment
        assert deployment.max_ongoing_requests == stage.max_ongoing_requests
        assert deployment._deployment_config.graceful_shutdown_timeout_s == stage.graceful_shutdown_timeout_s
        assert deployment.ray_actor_options is not None
        assert deployment.ray_actor_options["num_cpus"] > 0


def test_all_stages_share_settings_that_mean_the_same_everywhere_and_one_secret() -> None:
    contexts = [context(stage) for stage in stages(graph(Settings(), Secrets())).values()]
    assert len({given.channel_secret for given in contexts}) == 1
    assert len(contexts[0].channel_secret) >= 40
    assert all(given.settings == contexts[0].settings for given in contexts)
    assert contexts[0].settings.data_dir.is_absolute()


def test_two_graphs_do_not_trust_each_other_unless_given_one_secret() -> None:
    one, other = (context(graph(Settings(), Secrets())) for _ in range(2))
    assert one.channel_secret != other.channel_secret
    shared = Secrets.model_validate({"parley_channel_secret": "s" * 40})
    assert context(graph(Settings(), shared)).channel_secret == "s" * 40


def test_serve_builds_the_same_graph_from_the_files_arguments() -> None:
    assert set(stages(build(BuildArgs()))) == set(STAGES)
    with pytest.raises(ConfigError, match="production refuses development identities"):
        build(BuildArgs(config=PROJECT_ROOT / "configs" / "production.yaml"))


def test_serve_makes_the_arguments_a_model_so_that_misspelt_ones_are_refused() -> None:
    # Serve reads the annotation itself; as a string it would pass a plain dictionary.
    assert inspect.signature(build).parameters["args"].annotation is BuildArgs
    with pytest.raises(ValueError, match="confg"):
        BuildArgs.model_validate({"confg": "x"})


def test_production_has_no_graph_on_a_ray_that_runs_anybodys_code(monkeypatch: pytest.MonkeyPatch) -> None:
    production = Settings(mode="production", auth=AuthSettings(mode="accounts"))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(ConfigError, match="RAY_AUTH_MODE=token for every node"):
        graph(production, Secrets())
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a token of the cluster's")
    assert "Ingress" in stages(graph(production, Secrets()))
