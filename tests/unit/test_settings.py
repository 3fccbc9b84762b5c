"""Settings: what wins over what, and what a person is told about one that cannot work."""

from __future__ import annotations

import ast
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import serve_app
from serve_app.credentials import Secrets
from serve_app.errors import ConfigError
from serve_app.settings import (
    PROJECT_ROOT,
    AuthSettings,
    Settings,
    TurnSettings,
    environment_variable,
    require_ray_token,
)

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and none of the tester's own settings."""
    for name in list(os.environ):
        if name.startswith(("PARLEY_", "OPENAI_", "AZURE_OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(text: str) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return to


def refused(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Settings.load(*args, **kwargs)
    return str(caught.value)


# -- what wins -------------------------------------------------------------------------------------------------------


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings.load().port == 8000
    path = write("port: 8001\n")
    assert Settings.load(path).port == 8001
    monkeypatch.setenv("PARLEY_PORT", "8002")
    assert Settings.load(path).port == 8002
    assert Settings.load(path, {"port": 8003}).port == 8003
    assert Settings.load(path, {"port": None}).port == 8002


def test_one_value_of_a_group_leaves_the_others_of_every_source(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("turn:\n  max_steps: 3\n  lease_s: 9\n")
    monkeypatch.setenv("PARLEY_TURN__LEASE_S", "7")
    turn = Settings.load(path, {"host": "127.0.0.2"}).turn
    assert (turn.max_steps, turn.lease_s, turn.renew_s) == (3, 7.0, 1.5)


def test_a_group_can_be_given_as_json_and_single_values_still_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_TURN", '{"max_steps": 4, "flush_ms": 5}')
    monkeypatch.setenv("PARLEY_TURN__FLUSH_MS", "6")
    turn = Settings.load().turn
    assert (turn.max_steps, turn.flush_ms) == (4, 6)


def test_a_list_is_given_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_CORS_ORIGINS", '["https://a.example", "https://b.example"]')
    assert Settings.load().cors_origins == ("https://a.example", "https://b.example")


def test_the_environment_names_the_file_unless_the_command_line_does(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("port: 8005\n")
    monkeypatch.setenv("PARLEY_CONFIG", str(other))
    assert Settings.load().port == 8005
    assert Settings.load(write("port: 8006\n")).port == 8006


def test_an_empty_variable_counts_as_none(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_PORT", "")
    monkeypatch.setenv("PARLEY_CONFIG", "")
    assert Settings.load(write("port: 8007\n")).port == 8007
    assert Settings.load().port == 8000


def test_an_empty_file_says_nothing(write: Write) -> None:
    assert Settings.load(write("# nothing yet\n")) == Settings.load()


def test_settings_built_in_code_are_not_touched_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_PORT", "8002")
    assert Settings().port == 8000


# -- immutable, and the same in another process ----------------------------------------------------------------------


def test_nothing_can_be_changed_after_loading() -> None:
    settings = Settings.load()
    with pytest.raises(ValidationError):
        settings.port = 1
    with pytest.raises(ValidationError):
        settings.turn.max_steps = 1


def test_settings_survive_pickling_whatever_the_environment_there_says(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Settings.load(None, {"port": 8100})
    packed = pickle.dumps(sent)
    monkeypatch.setenv("PARLEY_PORT", "9999")
    monkeypatch.setenv("PARLEY_NONSENSE", "1")
    assert pickle.loads(packed) == sent  # noqa: S301 - our own bytes


# -- what is refused, and how it is said -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PARLEY_PORT", "none", "PARLEY_PORT cannot be used (it is 'none')"),
        ("PARLEY_PORT", "0", "PARLEY_PORT cannot be used (it is '0')"),
        ("PARLEY_PORT", "65536", "PARLEY_PORT cannot be used (it is '65536')"),
        ("PARLEY_STORE", "redis", "PARLEY_STORE cannot be used (it is 'redis')"),
        ("PARLEY_TURN__MAX_STEPS", "0", "PARLEY_TURN__MAX_STEPS cannot be used (it is '0')"),
        ("PARLEY_TURN__LEASE_S", "-1", "PARLEY_TURN__LEASE_S cannot be used (it is '-1')"),
        ("PARLEY_LOG__LEVEL", "loud", "PARLEY_LOG__LEVEL cannot be used (it is 'loud')"),
        ("PARLEY_TURN", "{nonsense", "PARLEY_TURN cannot be read: as a whole it must be valid JSON"),
        ("PARLEY_CORS_ORIGINS", "https://a.example", "PARLEY_CORS_ORIGINS cannot be read"),
        ("PARLEY_TURN__MAXSTEPS", "3", "PARLEY_TURN__MAXSTEPS (turn.maxsteps in a file) does not exist"),
        ("PARLEY_PROT", "3", "PARLEY_PROT does not exist; unset it or correct its name"),
        ("PARLEY_TURN_MAX_STEPS", "3", "PARLEY_TURN_MAX_STEPS does not exist"),
    ],
)
def test_a_variable_that_cannot_work_is_named_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    sentence = refused()
    assert told in sentence
    assert sentence.startswith("Setting ")
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot: 1\n", "(prot in a file) does not exist"),
        ("turn: {max_stepps: 1}\n", "(turn.max_stepps in a file) does not exist"),
        ("turn: 5\n", "PARLEY_TURN cannot be used (it is 5)"),
        ("turn:\n", "PARLEY_TURN cannot be used (it is None)"),
        ("1: x\n", "(1 in a file) does not exist"),
        ("port: [\n", "is not valid YAML"),
        ("port: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
        ("- port\n", "must hold a mapping of settings, not a list"),
        ("just words\n", "must hold a mapping of settings, not a str"),
    ],
)
def test_a_file_that_cannot_work_is_refused_with_its_place(write: Write, text: str, told: str) -> None:
    assert told in refused(write(text))


def test_several_problems_are_counted_after_the_first(write: Write) -> None:
    assert "There are 2 more problems." in refused(write("port: x\nstore: y\nnonsense: z\n"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    sentence = refused(tmp_path / "missing.yaml")
    assert "missing.yaml cannot be read: No such file or directory." in sentence


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"port: \xff\xfe\n")
    assert "is not valid YAML" in refused(path)


def test_an_unknown_option_of_the_command_line_is_refused() -> None:
    assert "PARLEY_PROT" in refused(None, {"prot": 1})


def test_production_refuses_identities_that_nobody_verified() -> None:
    sentence = refused(None, {"mode": "production"})
    assert sentence.startswith("Setting PARLEY_AUTH__MODE: production refuses development identities")
    assert "choose jwt, entra or accounts" in sentence


JWT = {"mode": "jwt", "issuer": "https://issuer.example", "audience": "parley", "jwks": "https://issuer.example/keys"}


@pytest.mark.parametrize("auth", [JWT, {"mode": "entra", "client_id": "an-id"}, {"mode": "accounts"}])
def test_production_starts_with_identities_that_somebody_verifies(auth: dict[str, str]) -> None:
    assert Settings.load(None, {"mode": "production", "auth": auth}).auth.mode == auth["mode"]


@pytest.mark.parametrize(
    ("auth", "name"),
    [
        (JWT | {"issuer": ""}, "ISSUER"),
        ({"mode": "jwt", "issuer": "i", "jwks": "keys.json"}, "AUDIENCE"),
        ({"mode": "jwt", "issuer": "i", "audience": "a"}, "JWKS"),
        ({"mode": "entra"}, "CLIENT_ID"),
    ],
)
def test_a_way_to_verify_tokens_that_is_not_whole_is_refused(auth: dict[str, str], name: str) -> None:
    assert refused(None, {"auth": auth}) == f"Setting PARLEY_AUTH__{name}: PARLEY_AUTH__MODE={auth['mode']} needs it."


@pytest.mark.parametrize(
    ("jwks", "in_development", "in_production"),
    [
        ("keys.json", True, True),
        ("/etc/parley/keys.json", True, True),
        ("https://issuer.example/keys", True, True),
        ("http://127.0.0.1:9000/keys", True, False),
        ("http://localhost/keys", True, False),
        ("http://issuer.example/keys", False, False),
        ("http://127.0.0.1.evil.example/keys", False, False),
        ("http://localhost@evil.example/keys", False, False),
        ("ftp://issuer.example/keys", False, False),
        ("file:///etc/passwd", False, False),
    ],
)
def test_keys_come_by_tls_or_from_this_machine(jwks: str, in_development: bool, in_production: bool) -> None:
    for mode, allowed in (("development", in_development), ("production", in_production)):
        overrides = {"mode": mode, "auth": JWT | {"jwks": jwks}}
        if allowed:
            assert Settings.load(None, overrides).auth.jwks == jwks
        else:
            assert refused(None, overrides).startswith("Setting PARLEY_AUTH__JWKS: whoever can change the keys")


@pytest.mark.parametrize(
    ("auth", "told"),
    [
        ({"leeway_s": 301}, "PARLEY_AUTH__LEEWAY_S"),
        ({"leeway_s": -1}, "PARLEY_AUTH__LEEWAY_S"),
        ({"authority": "http://login.example"}, "PARLEY_AUTH__AUTHORITY"),
        ({"authority": "https://login.example/"}, "PARLEY_AUTH__AUTHORITY"),
        ({"jwks_ttl_s": 100, "jwks_stale_s": 99}, "PARLEY_AUTH__JWKS_STALE_S"),
        ({"password_min_chars": 4}, "PARLEY_AUTH__PASSWORD_MIN_CHARS"),
        ({"mode": "none"}, "PARLEY_AUTH__MODE"),
    ],
)
def test_what_would_weaken_authentication_is_refused(auth: dict[str, Any], told: str) -> None:
    assert told in refused(None, {"auth": auth})


@pytest.mark.parametrize("mode", ["development", "production"])
@pytest.mark.parametrize(
    "origin",
    [
        *("*", "https://*.example", "null", "", "https://a.example/", "https://a.example/x", "a.example", "https://"),
        *("https://A.example", "https://a.example:0", "https://u@a.example", "https://a.example https://b.example"),
    ],
)
def test_an_origin_is_one_and_never_a_pattern_because_requests_carry_credentials(mode: str, origin: str) -> None:
    overrides = {"mode": mode, "auth": {"mode": "accounts"}, "cors_origins": ["https://app.example", origin]}
    assert refused(None, overrides).startswith(f"Setting PARLEY_CORS_ORIGINS: {origin!r} is no origin")


@pytest.mark.parametrize(
    "origin", ["https://app.example", "http://localhost:3000", "http://127.0.0.1:5173", "http://[::1]:80"]
)
def test_an_origin_as_browsers_send_it_is_allowed(origin: str) -> None:
    assert Settings.load(None, {"cors_origins": [origin]}).cors_origins == (origin,)


# -- Ray's own door ---------------------------------------------------------------------------------------------------

PRODUCTION = Settings(mode="production", auth=AuthSettings(mode="accounts"))
RAY_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def with_ray(monkeypatch: pytest.MonkeyPatch, home: Path, **variables: str) -> None:
    for name in RAY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(home))


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "RAY_AUTH_MODE"),
        ({"RAY_AUTH_TOKEN": "secret"}, "RAY_AUTH_MODE"),
        ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "secret"}, "RAY_AUTH_MODE"),
        ({"RAY_AUTH_MODE": "token"}, "RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": ""}, "RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/nowhere/token"}, "RAY_AUTH_TOKEN"),
    ],
)
def test_production_refuses_a_ray_that_runs_anybodys_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], told: str
) -> None:
    with_ray(monkeypatch, tmp_path, **variables)
    with pytest.raises(ConfigError, match=rf"^Setting {told}: "):
        require_ray_token(PRODUCTION)
    require_ray_token(Settings())


def test_production_takes_rays_token_from_where_ray_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_ray(monkeypatch, tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="secret")
    require_ray_token(PRODUCTION)
    named = tmp_path / "token"
    named.write_text("secret\n")
    with_ray(monkeypatch, tmp_path, RAY_AUTH_MODE="Token", RAY_AUTH_TOKEN_PATH=str(named))
    require_ray_token(PRODUCTION)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(" ")
    with_ray(monkeypatch, tmp_path, RAY_AUTH_MODE="token")
    with pytest.raises(ConfigError):
        require_ray_token(PRODUCTION)
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    require_ray_token(PRODUCTION)


AZURE = {
    "PARLEY_STORE": "azure",
    "PARLEY_AZURE__COSMOS_ENDPOINT": "https://account.documents.azure.com:443/",
    "PARLEY_AZURE__BLOB_ENDPOINT": "https://account.blob.core.windows.net",
}


def test_on_azure_what_costs_writes_is_less_often_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AZURE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PARLEY_TURN__COMMIT_S", "2")
    settings = Settings.load()
    turn = settings.turn
    assert (turn.durability, turn.commit_s, turn.lease_s, turn.renew_s) == ("async", 2.0, 15.0, 5.0)
    assert settings.usage.buffer == "azure"
    assert turn.max_steps == Settings().turn.max_steps
    given = Settings(store="azure", azure=settings.azure, turn=TurnSettings(durability="sync"))
    assert (given.turn.durability, given.turn.lease_s) == ("sync", 15.0)


@pytest.mark.parametrize("missing", ["PARLEY_AZURE__COSMOS_ENDPOINT", "PARLEY_AZURE__BLOB_ENDPOINT"])
def test_azure_without_its_addresses_is_refused(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name, value in AZURE.items():
        if name != missing:
            monkeypatch.setenv(name, value)
    assert missing in refused()


def test_a_cache_that_fits_one_store_replica_is_refused_on_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_CACHE__BACKEND", "memory")
    assert Settings.load().cache.backend == "memory"
    for name, value in AZURE.items():
        monkeypatch.setenv(name, value)
    sentence = refused()
    assert sentence.startswith("Setting PARLEY_CACHE__BACKEND: memory is right with one Store replica only")
    assert "choose redis or off" in sentence
    monkeypatch.setenv("PARLEY_CACHE__BACKEND", "redis")
    assert Settings.load().cache.backend == "redis"


@pytest.mark.parametrize(("name", "value"), [("PARLEY_USAGE__BUFFER", "azure"), ("PARLEY_FILES__URL", "sas")])
def test_what_only_azure_can_do_is_refused_elsewhere(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert name in refused()


def test_a_lease_must_outlive_a_missed_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_TURN__LEASE_S", "2")
    monkeypatch.setenv("PARLEY_TURN__RENEW_S", "1.01")
    assert "PARLEY_TURN__RENEW_S: must be at most half of PARLEY_TURN__LEASE_S" in refused()
    monkeypatch.setenv("PARLEY_TURN__RENEW_S", "1")
    assert Settings.load().turn.renew_s == 1.0


# -- paths -----------------------------------------------------------------------------------------------------------


def test_a_path_counts_from_the_working_folder_and_else_from_the_project(tmp_path: Path) -> None:
    settings = Settings()
    assert settings.path(Path("prompts")) == PROJECT_ROOT / "prompts"
    (tmp_path / "prompts").mkdir()
    assert settings.path(Path("prompts")) == tmp_path / "prompts"
    assert settings.path(Path("nowhere/yet")) == tmp_path / "nowhere/yet"
    assert settings.path(Path("/srv/prompts")) == Path("/srv/prompts")


def test_anchored_settings_mean_the_same_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    anchored = Settings().anchored()
    assert anchored.data_dir == tmp_path / "data"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    paths = [getattr(anchored, name) for name in Settings.model_fields if isinstance(getattr(anchored, name), Path)]
    assert len(paths) >= 5
    assert all(path.is_absolute() for path in paths)
    assert anchored.log_folder == tmp_path / "data" / "logs"
    assert anchored.anchored() == anchored


@pytest.mark.parametrize(
    ("values", "folder"),
    [
        ({}, "data/logs"),
        ({"data_dir": "/srv/parley"}, "/srv/parley/logs"),
        ({"store": "memory"}, None),
        ({"store": "memory", "log": {"dir": "spool"}}, "spool"),
        ({"log": {"dir": "/var/log/parley"}}, "/var/log/parley"),
    ],
)
def test_logs_go_beside_the_data_unless_said_otherwise(
    tmp_path: Path, values: dict[str, Any], folder: str | None
) -> None:
    assert Settings(**values).log_folder == (None if folder is None else tmp_path / folder)


def test_production_logs_to_standard_error() -> None:
    assert Settings().model_copy(update={"mode": "production"}).log_folder is None


# -- secrets ---------------------------------------------------------------------------------------------------------

SECRET = "sk-not-to-be-seen"


def test_secrets_come_from_the_environment_and_are_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "PARLEY_CHANNEL_SECRET"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://models.example/v1")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "")
    secrets = Secrets.from_environment()
    assert secrets.openai_base_url == "https://models.example/v1"
    assert secrets.azure_openai_endpoint is None
    for value in (secrets.openai_api_key, secrets.azure_openai_api_key, secrets.parley_channel_secret):
        assert value is not None
        assert value.get_secret_value() == SECRET
    assert SECRET not in f"{secrets} {secrets!r} {secrets.model_dump()} {secrets.model_dump_json()}"
    assert pickle.loads(pickle.dumps(secrets)) == secrets  # noqa: S301 - our own bytes


@pytest.mark.parametrize("around", ["", " " * 40])
def test_a_token_of_the_platforms_that_could_be_guessed_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, around: str
) -> None:
    monkeypatch.setenv("PARLEY_ADMIN_TOKEN", f"short-and-secret{around}")
    with pytest.raises(ConfigError) as caught:
        Secrets.from_environment()
    assert caught.value.message == "Setting PARLEY_ADMIN_TOKEN: must have at least 32 characters."
    assert "short-and-secret" not in f"{caught.value.__cause__!r}{caught.value.__context__!r}"
    monkeypatch.setenv("PARLEY_ADMIN_TOKEN", "x" * 32)
    assert Secrets.from_environment().parley_admin_token is not None
    assert Settings.load() == Settings()


def test_the_channels_secret_is_no_unknown_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_CHANNEL_SECRET", SECRET)
    assert Settings.load() == Settings()


@pytest.mark.parametrize("name", ["PARLEY_OPENAI_API_KEY", "PARLEY_CHANNEL__SECRET", "PARLEY_CHANNEL"])
def test_a_secret_under_a_wrong_name_is_not_repeated_to_the_screen(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, SECRET)
    sentence = refused()
    assert name in sentence
    assert SECRET not in sentence


def test_a_file_can_refer_to_a_variable_that_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SERVICE_URL", "https://service.example")
    assert environment_variable("SOME_SERVICE_URL") == "https://service.example"
    monkeypatch.delenv("SOME_SERVICE_URL")
    assert environment_variable("SOME_SERVICE_URL") is None


# -- nobody else reads the environment -------------------------------------------------------------------------------


READERS = {"credentials.py", "settings.py", "cli/supervisor.py", "cli/child.py"}
"""Those that start processes pass their own environment on."""


def test_no_other_module_reads_the_environment() -> None:
    root = Path(serve_app.__path__[0])
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}
            imported = (
                isinstance(node, ast.ImportFrom)
                and node.module == "os"
                and any(alias.name in {"environ", "environb", "getenv"} for alias in node.names)
            )
            if named or imported:
                found.add(path.relative_to(root).as_posix())
    assert found <= READERS


def test_every_setting_says_what_it_is_for() -> None:
    missing = []
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, BaseModel):
            group = type(field.default).model_fields
            missing += [f"{name}.{part}" for part, inner in group.items() if not inner.description]
        elif not field.description:
            missing.append(name)
    assert missing == []
