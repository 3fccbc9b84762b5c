"""The load generator's process: what it is asked, what is heard of it, and that it is gone in the end whatever it does."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from serve_app.cli import load_generator
from serve_app.cli.interrupts import Interrupts
from serve_app.cli.load_generator import Ended, GeneratorOptions, Progress, generate
from serve_app.errors import ConfigError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals as Linux has them")
PATIENCE_S = 20.0


class Heard:
    """Runs one fake generator, and keeps what is told of it. ``on_progress`` is called at the first line."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.lines: list[Progress] = []
        self.said: list[str] = []
        self.interrupts = Interrupts()
        self.on_progress: Callable[[], None] = lambda: None
        self._options = GeneratorOptions(
            target="http://127.0.0.1:1", scenario=folder / "scenario.yaml", report=folder, seed=7, **options
        )

    def run(self) -> Ended:
        def progress(line: Progress) -> None:
            self.lines.append(line)
            self.on_progress()

        return generate(self._options, progress, self.said.append, self.interrupts)

    @property
    def asked(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "asked.json").read_text())
        return found

    @property
    def log(self) -> str:
        return (self.folder / load_generator.LOG).read_text()


Play = Callable[..., Heard]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    def prepared(mode: str, **options: Any) -> Heard:
        monkeypatch.setenv("FAKE_LOAD", mode)
        return Heard(tmp_path, **options)

    monkeypatch.setattr(load_generator, "program", lambda: ["-m", "tests.unit.cli.fake_generator"])
    return prepared


def gone(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        psutil.wait_procs([process], timeout=PATIENCE_S)
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("how", ["done", "knee"])
def test_a_run_that_stops_by_itself_says_how(play: Play, how: str) -> None:
    heard = play(how)
    assert heard.run() == Ended(how, 0, "as told")
    (line,) = heard.lines
    counts = (line.due, line.done, line.good, line.failed)
    assert (line.name, line.rate_per_s, counts, line.ttft_p95_ms) == ("constant", 2.0, (12, 11, 10, 1), 345.6)
    assert heard.log == "This is no JSON.\n"


def test_more_failures_than_allowed_are_an_exit_code_and_no_broken_run(play: Play) -> None:
    assert play("failures").run() == Ended("done", 1)


def test_a_scenario_that_cannot_be_used_is_said_in_the_generators_words(play: Play) -> None:
    with pytest.raises(ConfigError, match=r"The scenario is not to my liking, in line 3\."):
        play("unusable").run()


@pytest.mark.parametrize(
    ("mode", "code", "why"),
    [
        ("crash", 7, "MemoryError: no more"),
        ("crash at the end", 7, "OSError: no space left"),
        ("killed", -9, "it said nothing"),
        ("unusable in the end", 2, "Something went wrong"),
    ],
)
def test_a_generator_that_breaks_off_is_a_failed_run(play: Play, mode: str, code: int, why: str) -> None:
    ended = play(mode).run()
    assert (ended.how, ended.code) == ("failed", code)
    assert why in ended.why


def test_an_interrupt_lets_the_generator_end_in_order(play: Play) -> None:
    heard = play("until interrupted")
    heard.on_progress = lambda: setattr(heard.interrupts, "count", 1)
    assert heard.run() == Ended("interrupted", 0)
    assert any("Ctrl-C again does not wait" in sentence for sentence in heard.said)


def test_a_second_interrupt_kills_what_does_not_end_and_its_children(play: Play) -> None:
    heard = play("deaf")
    heard.on_progress = lambda: setattr(heard.interrupts, "count", 2)
    assert heard.run().how == "interrupted"
    assert gone(heard.asked["pid"])
    assert gone(int((heard.folder / "child.pid").read_text()))


def test_a_generator_that_does_not_end_in_its_time_is_killed(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_generator, "INTERRUPT_GRACE_S", 0.1)
    heard = play("deaf")
    heard.on_progress = lambda: setattr(heard.interrupts, "count", 1)
    assert heard.run().how == "interrupted"
    assert gone(heard.asked["pid"])


def test_a_generator_that_falls_silent_is_ended(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_generator, "SILENCE_S", 2.0)
    heard = play("silent")
    assert heard.run().how == "failed"
    assert "has said nothing for 2 s" in heard.said[0]
    assert gone(heard.asked["pid"])


def test_whatever_goes_wrong_here_the_generator_is_ended(play: Play) -> None:
    heard = play("until interrupted")

    def fail() -> None:
        raise RuntimeError("the screen is broken")

    heard.on_progress = fail
    with pytest.raises(RuntimeError):
        heard.run()
    assert gone(heard.asked["pid"])


def test_the_generator_is_asked_what_was_chosen(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCUST_USERS", "5000")
    heard = play("done", processes=3, tenant="contoso", token="a-token")
    heard.run()
    pid, port = heard.asked["pid"], heard.asked["master_port"]
    assert port not in (None, 5557)  # Locust's own, where another run's workers would come
    assert heard.asked == {
        "headless": True, "host": "http://127.0.0.1:1", "scenario": str(heard.folder / "scenario.yaml"),
        "report": str(heard.folder), "seed": 7, "processes": 3, "dev_tenant": "contoso", "pid": pid,
        "environment": {"PARLEY_LOAD_TOKEN": "a-token"},
        "master_bind_host": "127.0.0.1", "master_bind_port": port, "master_port": port,
    }  # fmt: skip


def test_the_real_program_is_there() -> None:
    program = load_generator.program()
    assert program[:2] == ["-m", "locust"]
    assert Path(program[3]).is_file()


def test_what_is_not_installed_is_said_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_generator.importlib.util, "find_spec", lambda name: None if name == "locust" else object())  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"needs locust: pip install 'parley\[load\]'"):
        load_generator.require_extra()


def test_signals_are_counted_and_the_handlers_put_back() -> None:
    import signal

    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert interrupts.count == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_no_signal_is_taken() -> None:
    seen: list[int] = []

    def work() -> None:
        with Interrupts() as interrupts:
            seen.append(interrupts.count)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE_S)
    assert seen == [0]


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = psutil.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "pid")],
    )
    until = time.monotonic() + PATIENCE_S
    while not (tmp_path / "pid").exists() and time.monotonic() < until:
        parent.poll()
    pid = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait(PATIENCE_S)
    assert gone(pid)


PARENT = """
import os, subprocess, sys
from pathlib import Path
from serve_app.cli.child import start_python

CHILD = '''
import os, pathlib, signal, sys
beside = pathlib.Path(sys.argv[1] + ".new")
beside.write_text(str(os.getpid()))
beside.rename(sys.argv[1])
signal.pause()
'''
start_python(["-c", CHILD, sys.argv[1]], Path.cwd(), os.environ, subprocess.DEVNULL, subprocess.DEVNULL).wait()
"""
