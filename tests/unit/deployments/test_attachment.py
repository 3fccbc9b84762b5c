"""What ``parley serve`` leaves for other processes of its machine: for its owner alone, and for as long as it runs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest

from deployments.attachment import FILE, leave_attachment, read_attachment, remove_attachment
from deployments.environment import ray_environment
from deployments.remote_trials import attached_graph
from serve_app.errors import NotFound
from serve_app.settings import Settings


def test_whoever_attaches_finds_where_the_graph_is_and_what_lets_it_in(tmp_path: Path) -> None:
    environment = ray_environment(tmp_path / "run") | {"OPENAI_API_KEY": "sk-secret", "HOME": "/root"}
    path = leave_attachment(tmp_path / "data", "127.0.0.1:1234", "parley", environment)
    found = read_attachment(tmp_path / "data")
    assert found is not None
    assert (found.address, found.application, found.pid) == ("127.0.0.1:1234", "parley", os.getpid())
    assert found.environment["RAY_AUTH_TOKEN"] == environment["RAY_AUTH_TOKEN"]
    assert found.environment["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert "sk-secret" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_killed_graph_left_behind_is_no_graph(tmp_path: Path) -> None:
    path = leave_attachment(tmp_path, "127.0.0.1:1234", "parley", {})
    left = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode(left | {"started": left["started"] - 1.5}))  # the clock has been set since
    assert read_attachment(tmp_path) is not None
    path.write_bytes(msgspec.json.encode(left | {"started": left["started"] - 60}))  # its pid is another's now
    assert read_attachment(tmp_path) is None
    remove_attachment(tmp_path)
    assert path.exists(), "it is another's to take away"


@pytest.mark.parametrize("content", [b"", b"{", b'{"address": 3}', b"\xff"])
def test_a_file_that_cannot_be_read_is_no_graph(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert read_attachment(tmp_path) is None


def test_it_goes_with_the_graph(tmp_path: Path) -> None:
    path = leave_attachment(tmp_path, "127.0.0.1:1234", "parley", {})
    remove_attachment(tmp_path)
    assert not path.exists()


async def test_where_no_graph_runs_a_sentence_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(NotFound, match="parley serve"):
        async with attached_graph(Settings(data_dir=tmp_path)):
            pass
