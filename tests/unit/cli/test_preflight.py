from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from serve_app.cli import preflight
from serve_app.credentials import Secrets
from serve_app.errors import ConfigError
from serve_app.settings import Settings
from serve_app.storage.sqlite import SqliteStore

NO_SECRETS = Secrets()


def settings(**overrides: Any) -> Settings:
    return Settings.load(overrides=overrides)


def sentence(call: Any, *arguments: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        call(*arguments)
    message = raised.value.message
    assert "\n" not in message
    return message


def test_a_good_set_up_passes_and_leaves_only_the_data_folder(folder: Path, ports: tuple[int, int]) -> None:
    preflight.run_all(settings(), NO_SECRETS)
    assert [entry.name for entry in folder.iterdir()] == ["data"]
    preflight.run_all(settings(), NO_SECRETS)


def test_a_taken_port_names_the_setting_and_who_has_it(ports: tuple[int, int]) -> None:
    with socket.create_server(("127.0.0.1", ports[0])):
        said = sentence(preflight.run_all, settings(), NO_SECRETS)
    assert said.startswith(f"Setting PARLEY_PORT: port {ports[0]} on 127.0.0.1 is taken by process {os.getpid()} (")
    assert said.endswith("stop what listens there, or choose another port.")


def test_a_taken_companions_port_names_its_setting_and_matters_only_if_they_start(
    ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", ports[1])):
        assert "Setting PARLEY_COMPANIONS__PORT: port" in sentence(preflight.run_all, settings(), NO_SECRETS)
        monkeypatch.setenv("PARLEY_COMPANIONS__TOOLS", "false")
        preflight.run_all(settings(), Secrets(openai_base_url="http://127.0.0.1:1/v1"))


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid", "a b"])
def test_an_address_that_is_not_this_machines_names_the_host_setting(host: str) -> None:
    said = sentence(preflight.check_port, host, 8000, "PARLEY_PORT", "PARLEY_HOST")
    assert said.startswith("Setting PARLEY_HOST: ")
    assert "use 127.0.0.1" in said


def test_the_same_port_twice_is_refused() -> None:
    said = sentence(preflight.check_settings, settings(port=8765))
    assert said.startswith("Setting PARLEY_COMPANIONS__PORT: 8765 is PARLEY_PORT, too;")


def test_a_missing_serve_config_is_refused() -> None:
    assert "PARLEY_SERVE_CONFIG" in sentence(preflight.check_settings, settings(serve_config=Path("none.yaml")))


def test_a_file_in_place_of_the_data_folder_names_the_setting(folder: Path) -> None:
    (folder / "data").write_text("")
    said = sentence(preflight.check_data_dir, settings())
    assert said.startswith(
        f"Setting PARLEY_DATA_DIR: the folder {folder / 'data'} cannot be used (it is a file); choose"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_a_folder_of_somebody_else_names_the_setting(folder: Path) -> None:
    (folder / "data").mkdir(mode=0o500)
    assert "PARLEY_DATA_DIR" in sentence(preflight.check_data_dir, settings())


def test_access_is_what_the_system_says_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    said = sentence(preflight.check_data_dir, settings())
    assert "this user may not read and write it" in said


def test_a_data_folder_in_use_names_the_other_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "LOCK_WAIT_S", 0.0)

    async def while_open() -> str:
        store = await SqliteStore.open(folder / "data")
        try:
            return await asyncio.to_thread(sentence, preflight.check_data_dir, settings())
        finally:
            await store.close()

    said = asyncio.run(while_open())
    assert f"is in use by another Parley process (process {os.getpid()})" in said


def test_a_file_that_is_no_database_is_said(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "parley.db").write_text("no database " * 100)
    assert str(folder / "data" / "parley.db") in sentence(preflight.check_data_dir, settings())


@pytest.mark.parametrize(
    ("setting", "content", "said"),
    [
        ("models", "providers: 3", "providers: must be a list"),
        ("models", None, "set PARLEY_MODELS"),
        ("mcp_servers", "{", "is not valid JSON"),
        ("mcp_servers", None, "set PARLEY_MCP_SERVERS"),
        ("prompts_dir", None, "PARLEY_PROMPTS_DIR"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(folder: Path, setting: str, content: str | None, said: str) -> None:
    path = folder / "broken"
    if content is not None:
        path.write_text(content)
    message = sentence(preflight.check_files, settings(**{setting: path}), NO_SECRETS)
    assert said in message
    assert str(path) in message


def test_a_script_that_cannot_be_read_is_named_only_where_the_simulated_provider_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_COMPANIONS__SCRIPT", str(folder / "none.yaml"))
    said = sentence(preflight.check_files, settings(), NO_SECRETS)
    assert said.startswith("Setting PARLEY_COMPANIONS__SCRIPT: ")
    preflight.check_files(settings(), Secrets(openai_base_url="http://127.0.0.1:1/v1"))


def test_no_provider_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_COMPANIONS__PROVIDER", "off")
    assert "set OPENAI_API_KEY" in sentence(preflight.check_files, settings(), NO_SECRETS)


# -- whom tokens are believed of --------------------------------------------------------------------------------------


def test_a_file_of_keys_that_cannot_be_used_stops_the_start(folder: Path, ports: tuple[int, int]) -> None:
    auth = {"mode": "jwt", "issuer": "i", "audience": "a", "jwks": "keys.json"}
    said = sentence(preflight.run_all, settings(auth=auth), NO_SECRETS)
    assert said.startswith("Setting PARLEY_AUTH__JWKS: the file ")
    assert said.endswith("cannot be read: No such file or directory.")


def test_a_signing_key_that_cannot_sign_stops_the_start_and_none_is_made_by_checking(
    folder: Path, ports: tuple[int, int]
) -> None:
    accounts = settings(auth={"mode": "accounts"})
    nonsense = Secrets.model_validate({"parley_signing_key": "nonsense"})
    assert sentence(preflight.run_all, accounts, nonsense).startswith("Setting PARLEY_SIGNING_KEY: must hold")
    preflight.check_auth(accounts, NO_SECRETS)
    assert not (folder / "data" / "keys").exists()
