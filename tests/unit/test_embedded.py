"""What a graph brings along when nothing else is configured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serve_app.credentials import Secrets
from serve_app.embedded import companions_of, provider_url, tool_variables
from serve_app.errors import ConfigError
from serve_app.settings import CompanionSettings, Settings

KEY = Secrets.model_validate({"openai_api_key": "sk-test"})


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PARLEY_", "OPENAI_", "AZURE_OPENAI_")):
            monkeypatch.delenv(name)


def settings(**companions: object) -> Settings:
    return Settings(companions=CompanionSettings.model_validate(companions))


def production(**companions: object) -> Settings:
    return settings(**companions).model_copy(update={"mode": "production"})


def test_a_laptop_without_an_account_gets_a_provider_and_example_tools() -> None:
    assert companions_of(settings(), Secrets()) == ("provider", "crm", "hr")


def test_a_configured_provider_takes_the_simulated_ones_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    assert companions_of(settings(), KEY) == ("crm", "hr")
    assert provider_url(settings(), KEY) is None


def test_the_simulated_provider_can_be_forced_and_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    assert companions_of(settings(provider="off", tools=False), Secrets()) == ()
    assert companions_of(settings(provider="on", tools=False), KEY) == ("provider",)


def test_production_starts_no_stand_ins_whatever_is_set() -> None:
    assert companions_of(production(provider="on", tools=True), Secrets()) == ()
    assert provider_url(production(provider="on"), Secrets()) is None


def test_models_and_tools_are_told_where_the_companions_listen() -> None:
    here = settings(host="127.0.0.9", port=9123)
    assert provider_url(here, Secrets()) == "http://127.0.0.9:9123/v1"
    assert tool_variables(here) == {"PARLEY_COMPANIONS__HOST": "127.0.0.9", "PARLEY_COMPANIONS__PORT": "9123"}


def test_a_models_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        companions_of(Settings(models=tmp_path / "nowhere.yaml"), Secrets())
