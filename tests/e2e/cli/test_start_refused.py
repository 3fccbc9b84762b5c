"""What makes a start impossible is said in one sentence, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.e2e.server import PROJECT, ParleyServer, refused


def test_a_data_folder_that_is_a_file_or_cannot_be_made_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a-file"
    file.write_text("not a folder")
    for folder in (file, Path("/proc/no-such-place")):
        said = refused(ParleyServer(tmp_path / "run", data_dir=folder))
        assert "PARLEY_DATA_DIR" in said
        assert str(folder) in said


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("PARLEY_TURN__MAX_STEPS", "many", "PARLEY_TURN__MAX_STEPS"),
        ("PARLEY_TURN__RENEW_S", "900", "PARLEY_TURN__RENEW_S"),
        ("PARLEY_PROT", "8000", "PARLEY_PROT"),
        ("PARLEY_STORE", "oracle", "PARLEY_STORE"),
        ("PARLEY_MODELS", "/no/such/models.yaml", "/no/such/models.yaml"),
        ("PARLEY_MCP_SERVERS", "/no/such/servers.json", "/no/such/servers.json"),
        ("PARLEY_COMPANIONS__SCRIPT", "/no/such/script.yaml", "PARLEY_COMPANIONS__SCRIPT"),
        ("PARLEY_MODE", "production", "PARLEY_AUTH__MODE"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, variable: str, value: str, named: str) -> None:
    assert named in refused(ParleyServer(tmp_path, variables={variable: value}))


def test_a_misspelt_key_in_the_serve_configuration_is_named_with_its_place(tmp_path: Path) -> None:
    config = yaml.safe_load((PROJECT / "serve_config.yaml").read_text())
    config["applications"][0]["deployments"][1]["max_ongoing_request"] = 5
    file = tmp_path / "serve_config.yaml"
    file.write_text(yaml.safe_dump(config))
    said = refused(ParleyServer(tmp_path / "run", variables={"PARLEY_SERVE_CONFIG": str(file)}))
    assert "applications[0].deployments[1].max_ongoing_request" in said


def test_a_bad_value_in_the_serve_configuration_is_named(tmp_path: Path) -> None:
    config = yaml.safe_load((PROJECT / "serve_config.yaml").read_text())
    config["applications"][0]["deployments"][0]["max_ongoing_requests"] = "lots"
    file = tmp_path / "serve_config.yaml"
    file.write_text(yaml.safe_dump(config))
    said = refused(ParleyServer(tmp_path / "run", variables={"PARLEY_SERVE_CONFIG": str(file)}))
    assert "max_ongoing_requests" in said
