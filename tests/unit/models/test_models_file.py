"""The models file under different environments, and its mistakes told by file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.errors import ConfigError
from serve_app.models import models_file
from serve_app.models.config import (
    AnthropicProviderConfig,
    AzureProviderConfig,
    GoogleProviderConfig,
    ModelsConfig,
    OpenAIProviderConfig,
)
from serve_app.models.models_file import read_models, simulation_needed, with_simulated
from serve_app.settings import PROJECT_ROOT

SHIPPED = PROJECT_ROOT / "configs" / "models.yaml"
AZURE = {
    "AZURE_OPENAI_ENDPOINT": "https://x.openai.azure.com/",
    "AZURE_OPENAI_API_KEY": "k",
    "AZURE_OPENAI_CHAT_MODEL": "chat-deployment",
}


def shipped(**environment: str) -> ModelsConfig:
    return read_models(SHIPPED, environment.get)


def written(tmp_path: Path, text: str, **environment: str) -> ModelsConfig:
    path = tmp_path / "models.yaml"
    path.write_text(text)
    return read_models(path, environment.get)


def refused(tmp_path: Path, text: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, text, **environment)
    assert str(tmp_path / "models.yaml") in caught.value.message
    return caught.value.message


def test_without_any_environment_the_simulated_provider_stands_in() -> None:
    config = shipped()
    assert simulation_needed(config)
    assert set(config.skipped) == {"azure", "openai", "anthropic", "google"}
    simulated = with_simulated(config, "http://127.0.0.1:9/v1")
    assert simulated.is_simulated
    assert config.simulated is not None
    assert simulated.default_model_id == simulated.utility_model_id == config.simulated.model
    (provider,) = simulated.providers
    assert isinstance(provider, OpenAIProviderConfig)
    assert (provider.base_url, provider.models, provider.api_key_env) == ("http://127.0.0.1:9/v1", "*", None)


def test_with_the_simulated_provider_off_and_nothing_configured_the_start_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        with_simulated(shipped(), None)


def test_an_openai_key_allows_any_model_and_is_not_simulated() -> None:
    config = with_simulated(shipped(OPENAI_API_KEY="sk-1"), "http://127.0.0.1:9/v1")
    (provider,) = config.providers
    assert isinstance(provider, OpenAIProviderConfig)
    assert provider.models == "*"
    assert provider.base_url.startswith("https://api.openai.com")
    assert not config.is_simulated
    assert config.default_model_id is None


def test_a_base_url_alone_is_enough_and_the_models_come_from_the_environment() -> None:
    config = shipped(OPENAI_BASE_URL="http://10.0.0.1:8000/v1/", OPENAI_CHAT_MODEL="big", OPENAI_UTILITY_MODEL="small")
    (provider,) = config.providers
    assert isinstance(provider, OpenAIProviderConfig)
    assert provider.base_url == "http://10.0.0.1:8000/v1"
    assert (config.default_model_id, config.utility_model_id) == ("big", "small")


def test_azure_lists_its_deployments() -> None:
    config = shipped(**AZURE, AZURE_OPENAI_API_VERSION="2025-01-01", AZURE_OPENAI_UTILITY_MODEL="chat-deployment")
    (provider,) = config.providers
    assert isinstance(provider, AzureProviderConfig)
    assert provider.api_version == "2025-01-01"
    assert provider.models != "*"
    assert [model.id for model in provider.models] == ["chat-deployment"]
    assert config.default_model_id == "chat-deployment"


def test_azure_and_openai_together_default_to_the_first() -> None:
    config = shipped(**AZURE, OPENAI_API_KEY="sk-1", OPENAI_CHAT_MODEL="other")
    assert [provider.name for provider in config.providers] == ["azure", "openai"]
    assert config.default_model_id == "chat-deployment"


@pytest.mark.parametrize("absent", ["AZURE_OPENAI_CHAT_MODEL", "AZURE_OPENAI_API_KEY"])
def test_half_an_azure_configuration_is_an_error_that_names_what_is_missing(absent: str) -> None:
    with pytest.raises(ConfigError, match=absent):
        shipped(**{name: value for name, value in AZURE.items() if name != absent})


def test_a_provider_without_enabled_by_is_left_out_until_all_it_refers_to_is_set(tmp_path: Path) -> None:
    text = "providers:\n- {name: own, kind: openai, base_url: '${OWN_URL}', api_key_env: OWN_KEY, models: [m]}"
    assert written(tmp_path, text).skipped == {"own": "OWN_KEY, OWN_URL not set."}
    assert written(tmp_path, text, OWN_URL="http://own/v1").skipped == {"own": "OWN_KEY not set."}
    assert written(tmp_path, text, OWN_URL="http://own/v1", OWN_KEY="k").default_model_id is None


def test_models_say_their_limits_and_their_name_at_the_provider(tmp_path: Path) -> None:
    config = written(
        tmp_path,
        "chat_default: big\nproviders:\n- name: own\n  kind: openai\n  base_url: http://own/v1\n  models:\n"
        "  - {id: big, upstream: vendor/big-1, context_tokens: '${CONTEXT:-32000}', max_output_tokens: 4000}\n  - small\n",
        CONTEXT="16000",
    )
    provider = config.providers[0]
    assert provider.models != "*"
    by_id = {model.id: model for model in provider.models}
    assert (by_id["big"].upstream, by_id["big"].context_tokens) == ("vendor/big-1", 16000)
    assert set(by_id) == {"big", "small"}


OWN = "providers:\n- {name: own, kind: openai, base_url: http://own/v1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", "mapping"),
        ("providers: {", "not valid YAML"),
        ("providers: 3", "providers: must be a list"),
        ("provider: []", "provider: is no known key"),
        ("skipped: {}", "skipped"),
        ("providers: [3]", "providers[0]: must be a mapping"),
        (
            "providers:\n- {name: own, kind: gopher}",
            "providers[0].kind: must be one of openai, azure, anthropic, google",
        ),
        ("providers:\n- {name: own, kind: anthropic, stream_usage: true}", "stream_usage: is no known key"),
        ("providers:\n- {name: own, kind: anthropic, thinking: deeply}", "providers[0].thinking"),
        ("providers:\n- {name: own, kind: google, api_version: v1/x}", "providers[0].api_version"),
        (OWN + ", models: [{id: m, aliases: [n]}, n]}", "the alias 'n' of 'm' is a model itself"),
        (OWN + ", models: [{id: m, aliases: [x]}, {id: n, aliases: [x]}]}", "the alias 'x' of 'n' is one of 'm'"),
        (OWN + ", models: [{id: m, aliases: [m]}]}", "the alias 'm' of 'm' is a model itself"),
        (OWN + ", models: [{id: m, fallback: [n]}]}", "the fallback 'n' of 'm' is listed by no provider"),
        (OWN + ", models: [{id: m, aliases: [x], fallback: [x]}]}", "'m' is its own fallback"),
        (OWN + ", models: [{id: m, capabilities: [dance]}]}", "models[0].capabilities"),
        (OWN + ", models: [{id: m, price: {input: -1, output: 1}}]}", "models[0].price.input"),
        (OWN + ", models: [{id: m, quota: {rpm: 0}}]}", "models[0].quota.rpm"),
        (OWN + ", hedge_after_s: 0}", "providers[0].hedge_after_s"),
        ("providers:\n- {name: own, kind: openai}", "providers[0].base_url: Field required"),
        (OWN + ", modles: []}", "providers[0].modles: is no known key"),
        (OWN + ", models: []}", "providers[0].models"),
        (OWN + ", models: [{id: m, context: 3}]}", "models[0].context: is no known key"),
        (OWN + ", models: [{id: m, context_tokens: none}]}", "models[0].context_tokens"),
        (OWN + ", stall_timeout_s: -1}", "providers[0].stall_timeout_s"),
        ("providers:\n- {name: own, kind: openai, base_url: own/v1}", "providers[0].base_url: must be an address"),
        ("providers:\n- {name: own, kind: openai, base_url: 'http://u:p@own/v1'}", "must not hold a user name"),
        (OWN + "}\n- {name: own, kind: openai, base_url: http://two/v1}", "used twice"),
        (OWN + ", models: [m]}\n- {name: two, kind: openai, base_url: http://two/v1, models: [m]}", "listed twice"),
        ("chat_default: x\n" + OWN + ", models: [m]}", "chat_default: no provider lists"),
        ("utility: x\n" + OWN + ", models: [m]}", "utility: no provider lists"),
    ],
)
def test_mistakes_are_told_by_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    assert words in refused(tmp_path, text)


def test_names_may_be_aliases_wherever_a_model_is_named(tmp_path: Path) -> None:
    text = "chat_default: x\n" + OWN + ", models: [{id: m, aliases: [x], fallback: [y]}, {id: n, aliases: [y]}]}"
    assert written(tmp_path, text).default_model_id == "x"


def test_a_provider_that_takes_any_name_may_be_the_fallback(tmp_path: Path) -> None:
    two = OWN + ", models: [{id: m, fallback: [anything]}]}\n- {name: two, kind: openai, base_url: http://two/v1}"
    assert len(written(tmp_path, two).providers) == 2


def test_anthropic_and_google_are_there_when_their_keys_are() -> None:
    config = shipped(ANTHROPIC_API_KEY="sk-ant-1", ANTHROPIC_CHAT_MODEL="claude-x", GOOGLE_API_KEY="g-1")
    claude, gemini = config.providers
    assert isinstance(claude, AnthropicProviderConfig) and isinstance(gemini, GoogleProviderConfig)
    assert (claude.origin, claude.api_key_env) == ("https://api.anthropic.com", "ANTHROPIC_API_KEY")
    assert (gemini.origin, gemini.api_key_env) == ("https://generativelanguage.googleapis.com", "GOOGLE_API_KEY")
    assert config.default_model_id == "claude-x"
    (gemini,) = shipped(GEMINI_API_KEY="g-2", GOOGLE_API_KEY="g-1").providers
    assert gemini.api_key_env == "GEMINI_API_KEY"


@pytest.mark.parametrize("kind", ["anthropic", "google"])
def test_a_kind_whose_package_is_not_installed_is_told_with_what_to_install(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_file, "find_spec", lambda _: None)
    text = f"providers:\n- {{name: own, kind: {kind}, enabled_by: [A_KEY], api_key_env: A_KEY}}"
    message = refused(tmp_path, text, A_KEY="k")
    assert f"providers[0].kind: '{kind}' needs a package" in message
    assert f"pip install 'parley[{kind}]', or unset A_KEY" in message
    assert written(tmp_path, text).providers == ()


def test_a_key_written_into_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for text in (OWN + ", api_key: sk-very-secret}", OWN + ", api_key_env: sk-very-secret}"):
        message = refused(tmp_path, text, **{"sk-very-secret": "x"})
        assert "environment variable" in message
        assert "very-secret" not in message


def test_a_file_that_is_not_there_is_told_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PARLEY_MODELS"):
        read_models(tmp_path / "absent.yaml", lambda _: None)
