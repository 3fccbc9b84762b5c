"""The keys that sign: an operator's, or this machine's, made once."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serve_app.accounts.signing import KEY_FILE, find_signing_keys, open_signing_keys, read_signing_keys
from serve_app.credentials import Secrets
from serve_app.errors import ConfigError
from serve_app.identity.key_set import read_key_set
from serve_app.settings import AuthSettings, Settings
from tests.unit.accounts.keys import curve_pem, locked_pem, signing_pem
from tests.unit.identity.forge import rsa_key


def settings(folder: Path, **more: object) -> Settings:
    return Settings.model_validate({"data_dir": folder, "auth": AuthSettings(mode="accounts")} | more)


def given(pem: str) -> Secrets:
    return Secrets.model_validate({"parley_signing_key": pem})


def test_a_key_is_made_once_for_this_machine_and_nobody_else_reads_it(tmp_path: Path) -> None:
    assert find_signing_keys(settings(tmp_path), Secrets()) is None
    made = open_signing_keys(settings(tmp_path), Secrets())
    path = tmp_path / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    again = open_signing_keys(settings(tmp_path), Secrets())
    assert again.key_set() == made.key_set()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_replicas_that_start_at_once_sign_with_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: open_signing_keys(settings(tmp_path), Secrets()).key_set(), range(4)))
    assert len(set(made)) == 1


def test_an_operators_keys_are_all_published_and_the_first_signs(tmp_path: Path) -> None:
    keys = open_signing_keys(settings(tmp_path), given(signing_pem("two") + "\n" + signing_pem("one")))
    published = read_key_set(keys.key_set())
    assert [key.public for key in published.values()] == [
        rsa_key("signing two", 2048).public_key(),
        rsa_key("signing one", 2048).public_key(),
    ]
    assert not (tmp_path / KEY_FILE).exists()


def test_a_key_on_one_line_as_some_tools_write_it_is_the_same(tmp_path: Path) -> None:
    one_line = signing_pem("one").replace("\n", "\\n")
    assert (
        open_signing_keys(settings(tmp_path), given(one_line)).key_set()
        == open_signing_keys(settings(tmp_path), given(signing_pem("one"))).key_set()
    )


def test_what_is_published_has_no_private_part() -> None:
    [published] = json.loads(read_signing_keys(signing_pem("one"), "x").key_set())["keys"]
    assert set(published) == {"kty", "use", "alg", "kid", "n", "e"}


def test_what_is_derived_is_for_one_purpose_and_one_key() -> None:
    both = read_signing_keys(signing_pem("one") + signing_pem("two"), "x")
    derived = {*both.derived("a"), *both.derived("b")}
    assert len(derived) == 4
    assert read_signing_keys(signing_pem("two"), "x").derived("a") == both.derived("a")[1:]


@pytest.mark.parametrize(
    "pem",
    ["nonsense " * 20, signing_pem("short", 1024), locked_pem(), curve_pem(), signing_pem("one") + curve_pem()],
    ids=["no PEM", "too short", "with a password", "no RSA", "one of two"],
)
def test_what_cannot_sign_is_refused_and_not_repeated(tmp_path: Path, pem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_signing_keys(settings(tmp_path), given(pem))
    assert refused.value.message.startswith("Setting PARLEY_SIGNING_KEY: must hold 1 to 8 RSA private keys")
    assert pem[-60:-30] not in refused.value.message


def test_several_machines_are_told_to_share_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PARLEY_SIGNING_KEY: on several machines"):
        open_signing_keys(settings(tmp_path, replica_host="::"), Secrets())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("in the way")
    with pytest.raises(ConfigError, match=r"cannot be (made|read)"):
        open_signing_keys(settings(tmp_path), Secrets())


def test_a_file_that_holds_no_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    path.parent.mkdir()
    path.write_text("nothing")
    with pytest.raises(ConfigError, match=r"The file .*signing.pem must hold"):
        open_signing_keys(settings(tmp_path), Secrets())
