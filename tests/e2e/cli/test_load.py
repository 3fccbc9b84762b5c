"""``parley load`` against a small server: what it refuses, what it writes, how it ends. The load itself is a stand-in's."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from serve_app.capacity.run_folder import read_info, read_lines
from serve_app.capacity.samples import GRAPH, RUN, SCENARIO, TURNS, TurnSample
from serve_app.capacity.scenario import load_scenario
from serve_app.cli import load_generator
from serve_app.domain.stages import GraphState
from tests.e2e.cli.servers import PAGES, READY, pages
from tests.unit.cli.conftest import Run

STAGES: dict[str, Any] = {
    "at": 100.0,
    "replicas": [
        {"stage": "Turns", "replica": "t1", "node": "n", "at": 100.0, "started_at": 1.0, "calls": 5, "slots": 500},
    ],
    "nodes": [],
    "quotas": [],
    "missing": ["Store"],
}
ANSWERS = {**PAGES, "/api/admin/stages": STAGES}
SMOKE = """
name: mine
description: For tests.
users: [{kind: ws_chat}]
load: {model: open, shape: {kind: constant, level: 2, for_s: 30}}
"""


@pytest.fixture(autouse=True)
def generator(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(load_generator, "program", lambda: ["-m", "tests.unit.cli.fake_generator"])
    monkeypatch.setenv("FAKE_LOAD", "done")
    (folder / "mine.yaml").write_text(SMOKE)


def asked(report: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((report / "asked.json").read_text())
    return found


def test_a_run_leaves_a_folder_that_says_what_was_run_on_what(run: Run, folder: Path) -> None:
    with pages(content=ANSWERS) as url:
        result = run("load", "run", "mine.yaml", "--target", url, "--report", "out")
    assert result.exit_code == 0, result.stderr
    out = folder / "out"
    info = read_info(out)
    assert (info.name, info.target, info.ended, info.simulated) == ("mine", url, "done", ("model", "tools"))
    assert info.ended_at is not None
    assert info.ended_at >= info.began_at
    assert info.cores > 0
    assert info.memory_bytes > 0
    assert info.machine
    assert len(read_lines(out / TURNS, TurnSample)) == 20
    states = read_lines(out / GRAPH, GraphState)
    assert states[0].replicas[0].calls == 5
    assert states[0].missing == ("Store",)
    assert "out/report.html" in result.stdout
    assert (out / "report.html").is_file()
    assert (out / "report.json").is_file()


def test_the_scenario_in_the_folder_is_the_one_that_was_run(run: Run, folder: Path) -> None:
    with pages(content=ANSWERS) as url:
        result = run("load", "run", "mine.yaml", "--target", url, "--report", "out", "--rate", "5", "--duration", "2m",
                     "--seed", "9", "--users", "77", "--processes", "2", "--tenant", "contoso")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    scenario = load_scenario(folder / "out" / SCENARIO)
    assert (scenario.load.shape.top, scenario.load.shape.duration_s, scenario.seed) == (5.0, 120.0, 9)
    assert scenario.load.users_max == 77
    given = asked(folder / "out")
    assert Path(given["scenario"]).resolve() == (folder / "out" / SCENARIO).resolve()
    assert (given["seed"], given["processes"], given["dev_tenant"]) == (9, 2, "contoso")


def test_the_stages_are_asked_as_a_platform_administrator(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    headers: list[dict[str, str]] = []
    with pages(content=ANSWERS, asked=headers) as url:
        run("load", "run", "mine.yaml", "--target", url, "--report", "one")
        assert headers[-1]["X-Dev-Roles"] == "platform-admin"
        monkeypatch.setenv("PARLEY_ADMIN_TOKEN", "a" * 32)
        monkeypatch.setenv("PARLEY_LOAD_TOKEN", "a-users-token")
        assert run("load", "run", "mine.yaml", "--target", url, "--report", "two").exit_code == 0
        assert headers[-1]["authorization"] == f"Bearer {'a' * 32}"
        assert "X-Dev-Roles" not in headers[-1]
    assert asked(Path("two"))["environment"] == {"PARLEY_LOAD_TOKEN": "a-users-token"}


def test_a_target_that_shows_no_stages_is_told_of_and_noted_and_the_run_goes_on(run: Run, folder: Path) -> None:
    with pages() as url:
        result = run("load", "run", "mine.yaml", "--target", url, "--report", "out")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("There are no figures of the stages") == 1
    assert "There are no figures of the stages" in read_info(folder / "out").note


@pytest.mark.parametrize(("mode", "code"), [("failures", 1), ("crash", 1), ("knee", 0)])
def test_the_exit_code_says_whether_the_load_was_carried(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, code: int
) -> None:
    monkeypatch.setenv("FAKE_LOAD", mode)
    with pages(content=ANSWERS) as url:
        result = run("load", "run", "mine.yaml", "--target", url, "--report", "out")
    assert result.exit_code == code
    ended = {"failures": "done", "crash": "failed", "knee": "knee"}[mode]
    assert read_info(folder / "out").ended == ended
    assert ("MemoryError: no more" in result.stderr) == (mode == "crash")


def test_a_scenario_that_the_generator_refuses_exits_with_2_and_leaves_no_run(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_LOAD", "unusable")
    with pages(content=ANSWERS) as url:
        result = run("load", "run", "mine.yaml", "--target", url, "--report", "out")
        assert result.exit_code == 2
        assert "in line 3" in result.stderr
        monkeypatch.setenv("FAKE_LOAD", "done")
        assert run("load", "run", "mine.yaml", "--target", url, "--report", "out").exit_code == 0


@contextmanager
def real_model() -> Iterator[str]:
    dependencies = {**READY["dependencies"], "models": {"state": "up", "simulated": False}}
    with pages(content={**ANSWERS, "/ready": {**READY, "dependencies": dependencies}}) as url:
        yield url


def test_a_real_model_is_asked_only_after_a_yes(run: Run, folder: Path) -> None:
    with real_model() as url:
        result = run("load", "run", "mine.yaml", "--target", url, "--report", "out")
        assert result.exit_code == 2
        assert "a real model answers there" in result.stderr
        assert "up to 80 turns in 0.7 minutes" in result.stderr  # thirty seconds and a warm-up of ten
        assert "$0.60 in all" in result.stderr
        assert not (folder / "out").exists()
        assert run("load", "run", "mine.yaml", "--target", url, "--report", "out", "--yes").exit_code == 0
    assert read_info(folder / "out").simulated == ()


def test_another_machine_is_asked_only_after_a_yes(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.cli.load_guard.is_loopback", lambda _: False)
    with pages(content=ANSWERS) as url:
        result = run("load", "run", "mine.yaml", "--target", url, "--report", "out")
        assert result.exit_code == 2
        assert "it is not this machine" in result.stderr
        assert "--yes" in result.stderr
        assert not (folder / "out").exists()
        assert run("load", "run", "mine.yaml", "--target", url, "--report", "out", "--yes").exit_code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_run_end_in_order_and_the_report_is_written(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("FAKE_LOAD", "until interrupted")
    monkeypatch.setattr("serve_app.cli.load_screen.LoadScreen.progress", lambda *_: os.kill(os.getpid(), number))
    with pages(content=ANSWERS) as url:
        result = run("load", "run", "mine.yaml", "--target", url, "--report", "out")
    assert result.exit_code == 130
    assert read_info(folder / "out").ended == "interrupted"
    assert (folder / "out" / "report.html").is_file()
    assert not psutil.pid_exists(asked(folder / "out")["pid"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("no-such",), "There is no scenario file 'no-such'"),
        (("mine.yaml", "--start", "--target", "http://127.0.0.1:1"), "--target"),
        (("mine.yaml", "--set", "PARLEY_PORT=1"), "--start"),
        (("mine.yaml", "--start", "--set", "nonsense"), "'nonsense' is no setting"),
        (("mine.yaml", "--duration", "soon"), "'soon' is no duration"),
        (("mine.yaml", "--duration", "0s"), "no duration"),
        (("mine.yaml", "--target", "nowhere"), "no server's address"),
        (("mine.yaml", "--token", "not one"), "--token"),
        (("mine.yaml", "--rate", "0"), "--rate"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_started(
    run: Run, folder: Path, options: tuple[str, ...], said: str
) -> None:
    result = run("load", "run", *options, "--report", "out")
    assert result.exit_code == 2, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / "out").exists()


def test_a_folder_that_holds_a_run_is_not_written_over(run: Run, folder: Path) -> None:
    with pages(content=ANSWERS) as url:
        assert run("load", "run", "mine.yaml", "--target", url, "--report", "out").exit_code == 0
        before = (folder / "out" / RUN).read_bytes()
        result = run("load", "run", "mine.yaml", "--target", url, "--report", "out")
    assert result.exit_code == 2
    assert "already holds a run" in result.stderr
    assert (folder / "out" / RUN).read_bytes() == before


def test_no_server_is_said_with_what_to_do(run: Run, ports: tuple[int, int]) -> None:
    result = run("load", "run", "mine.yaml")
    assert result.exit_code == 1
    assert f"No Parley answers at http://127.0.0.1:{ports[0]}" in result.stderr
    assert "--target" in result.stderr
    assert "--start" in result.stderr


def test_the_simulators_run_as_long_as_the_load(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    answered: list[bool] = []
    monkeypatch.setattr("serve_app.cli.load_screen.LoadScreen.progress", lambda *_: answered.append(_listens(port)))
    with pages(content=ANSWERS) as url:
        result = run("load", "run", "mine.yaml", "--target", url, "--report", "out", "--simulate",
                     "--simulators-port", str(port))  # fmt: skip
        assert result.exit_code == 0, result.stderr
        assert answered == [True]
        assert not _listens(port)
        with socket.create_server(("127.0.0.1", port)):
            result = run("load", "run", "mine.yaml", "--target", url, "--report", "two", "--simulate",
                         "--simulators-port", str(port))  # fmt: skip
    assert result.exit_code == 2
    assert "choose another port" in result.stderr


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_graph_that_cannot_start_is_said_with_its_setting_and_nothing_is_left(
    run: Run, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    before = set(psutil.Process().children(recursive=True))
    result = run("load", "run", "mine.yaml", "--start", "--set", "PARLEY_TURN__MAX_STEPS=many", "--report", "out")
    assert result.exit_code == 2
    assert "PARLEY_TURN__MAX_STEPS" in result.stderr
    assert set(psutil.Process().children(recursive=True)) <= before
    assert list(temporary.iterdir()) == []
    assert not (folder / "out").exists()


def test_the_scenarios_that_come_along_are_shown(run: Run) -> None:
    result = run("load", "scenarios")
    assert result.exit_code == 0
    for name in ("smoke", "steps"):
        assert name in result.stdout
    assert "turns/s" in result.stdout


def test_a_report_can_be_written_again_and_two_be_compared(run: Run, folder: Path) -> None:
    with pages(content=ANSWERS) as url:
        for name in ("a", "b"):
            assert run("load", "run", "mine.yaml", "--target", url, "--report", name).exit_code == 0
    (folder / "a" / "report.html").unlink()
    assert run("load", "report", "a").exit_code == 0
    assert (folder / "a" / "report.html").is_file()
    compared = run("load", "compare", "a", "b", "--html", "both.html")
    assert compared.exit_code == 0, compared.stderr
    words = [line.split() for line in compared.stdout.splitlines()]
    # What the fake generator writes: 300 to 319 ms, the same in both runs.
    assert ["TTFT,", "p95", "318", "ms", "318", "ms", "+0", "ms"] in [line[:8] for line in words]
    assert "Page: both.html" in compared.stdout
    assert "<html" in (folder / "both.html").read_text()
    assert json.loads(run("load", "compare", "a", "b", "--json").stdout)["name_a"] == "a"


@pytest.mark.parametrize("command", [("report", "nothing"), ("compare", "nothing", "nothing")])
def test_a_folder_without_a_run_is_said(run: Run, command: tuple[str, ...]) -> None:
    result = run("load", *command)
    assert result.exit_code == 2
    assert "holds no" in result.stderr
