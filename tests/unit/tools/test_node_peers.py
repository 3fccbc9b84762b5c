"""The programs from npm that tests talk to: absent ones are never missed in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import peers


def test_a_missing_peer_skips_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    monkeypatch.setattr(peers, "node", lambda: "node")
    monkeypatch.delenv(peers.REQUIRE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="npm ci --prefix tests/peers"):
        peers.node_peer("@modelcontextprotocol/server-everything", "mcp-server-everything")


def test_a_missing_peer_fails_where_peers_are_required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    monkeypatch.setattr(peers, "node", lambda: "node")
    monkeypatch.setenv(peers.REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match="is not installed"):
        peers.node_peer("@modelcontextprotocol/server-everything", "mcp-server-everything")


def test_the_lock_pins_contents_and_names_no_registry() -> None:
    lock = json.loads((peers.FOLDER / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert len(packages) > 50
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert not any("resolved" in entry for entry in packages.values())
