"""The supervisor: what each way to end comes to, and that no process is left of any."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from serve_app.cli.supervisor import run_folder
from serve_app.settings import PROJECT_ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="adopting orphans is Linux's")

READY = 'tell(phase="importing Ray")\ntell(ready={"url": "x"})\n'
STOP_WHEN_ASKED = 'assert sys.stdin.readline() == "stop\\n"\n'
FOR_EVER = "signal.pause()\n"


class Hosted:
    """A supervisor in a process of its own."""

    def __init__(self, driver: str, grace_s: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.cli.supervisor_host", str(grace_s), driver],
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.heard: list[dict[str, Any]] = []

    def until(self, key: str) -> Any:
        """Reads on to the first line with ``key``; the suite's timeout bounds it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.heard.append(json.loads(line))
            if key in self.heard[-1]:
                return self.heard[-1][key]
        raise AssertionError(f"the supervisor ended without {key}: {self.heard}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """The exit code, once nothing is left below."""
        code = self.until("code")
        assert self.heard[-1]["children"] == []
        assert isinstance(code, int)
        return code


Host = Callable[..., Hosted]


@pytest.fixture
def host() -> Iterator[Host]:
    started: list[Hosted] = []

    def start(driver: str, grace_s: float = 60) -> Hosted:
        started.append(Hosted(driver, grace_s))
        return started[-1]

    yield start
    for hosted in started:
        hosted.process.kill()
        hosted.process.communicate()


def gone(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        psutil.wait_procs([process], timeout=20)
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_for_an_orderly_end_and_the_code_is_zero(host: Host, number: int) -> None:
    hosted = host(READY + STOP_WHEN_ASKED + 'tell(phase="closing")\n')
    assert hosted.until("ready") == {"url": "x"}
    hosted.signal(number)
    assert hosted.end() == 0
    assert [line for line in hosted.heard if "phase" in line] == [
        {"phase": "importing Ray"},
        {"phase": "stopping"},
        {"phase": "closing"},
    ]


def test_what_could_not_start_is_told_and_the_code_is_two(host: Host) -> None:
    hosted = host('tell(failed="The port is taken.")\nsys.exit(2)\n')
    assert hosted.end() == 2
    assert hosted.heard[0] == {"failed": "The port is taken."}


def test_a_failure_told_right_before_the_end_is_not_missed(host: Host) -> None:
    hosted = host('tell(phase="wait for my end")\ntime.sleep(0.2)\ntell(failed="The port is taken.")\nsys.exit(2)\n')
    assert hosted.end() == 2
    assert {"failed": "The port is taken."} in hosted.heard


@pytest.mark.parametrize(("before", "code"), [("", 2), (READY, 1)])
def test_a_graph_that_dies_by_itself_is_told_and_the_code_says_whether_it_had_run(
    host: Host, before: str, code: int
) -> None:
    hosted = host(before + 'print("last words", flush=True)\nsys.exit(7)\n')
    assert hosted.end() == code
    assert "exit code 7" in hosted.heard[-2]["crashed"]
    assert hosted.heard[-1]["output"] == "last words\n"


def test_stopping_while_starting_is_immediate(host: Host) -> None:
    hosted = host(
        'tell(phase="importing Ray", pid=os.getpid())\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n' + FOR_EVER
    )
    driver = hosted.until("pid")
    hosted.signal(signal.SIGTERM)
    assert hosted.end() == 130
    assert gone(driver)


def test_a_driver_that_does_not_stop_is_killed_when_its_time_is_up(host: Host) -> None:
    hosted = host(READY + STOP_WHEN_ASKED + 'tell(phase="deaf")\n' + FOR_EVER, grace_s=0.3)
    hosted.until("ready")
    hosted.signal(signal.SIGINT)
    assert hosted.end() == 0
    assert {"phase": "deaf"} in hosted.heard


def test_asking_twice_does_not_wait(host: Host) -> None:
    hosted = host(READY + STOP_WHEN_ASKED + "tell(deaf=True)\n" + FOR_EVER)
    hosted.until("ready")
    hosted.signal(signal.SIGINT)
    hosted.until("deaf")
    hosted.signal(signal.SIGINT)
    assert hosted.end() == 0
    assert [line for line in hosted.heard if line == {"phase": "stopping"}] == [{"phase": "stopping"}]


def test_processes_the_driver_left_behind_are_ended_too(host: Host) -> None:
    # A child that leaves the driver's session, and a grandchild whose parent is gone: neither can be found from the driver.
    hosted = host(
        'one = subprocess.Popen(["sleep", "600"], start_new_session=True)\n'
        'two = subprocess.run(["sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE)\n'
        + READY
        + "tell(pids=[one.pid, int(two.stdout)])\n"
        + STOP_WHEN_ASKED
    )
    pids = hosted.until("pids")
    assert all(psutil.pid_exists(pid) for pid in pids)
    hosted.signal(signal.SIGTERM)
    assert hosted.end() == 0
    assert all(gone(pid) for pid in pids)


def test_a_redeploy_is_asked_for_and_the_graph_goes_on(host: Host) -> None:
    hosted = host(READY + "asked = sys.stdin.readline()\ntell(asked=asked)\n" + STOP_WHEN_ASKED)
    hosted.until("ready")
    hosted.signal(signal.SIGUSR2)
    assert hosted.until("asked") == "redeploy\n"
    assert {"phase": "redeploying"} in hosted.heard
    hosted.signal(signal.SIGTERM)
    assert hosted.end() == 0


def test_a_redeploy_asked_for_while_starting_is_nothing(host: Host) -> None:
    hosted = host("tell(begun=1)\nsys.stdin.readline()\n" + FOR_EVER)
    hosted.until("begun")
    hosted.signal(signal.SIGUSR2)
    hosted.signal(signal.SIGTERM)
    assert hosted.end() == 130
    assert {"phase": "redeploying"} not in hosted.heard


def test_lines_told_in_pieces_are_heard_whole(host: Host) -> None:
    hosted = host(
        'text = json.dumps({"ready": {"url": "y" * 100000}}).encode() + b"\\n"\n'
        'for at in range(0, len(text), 7001): os.write(options["tell_fd"], text[at : at + 7001])\n' + STOP_WHEN_ASKED
    )
    assert hosted.until("ready") == {"url": "y" * 100_000}
    hosted.signal(signal.SIGTERM)
    assert hosted.end() == 0


def test_the_driver_gets_its_options_and_environment(host: Host) -> None:
    hosted = host(
        'tell(seen=[options["port"], os.environ["GIVEN"], "PYTHONDONTWRITEBYTECODE" in os.environ, '
        "os.getsid(0) == os.getpid()])\n" + READY + STOP_WHEN_ASKED
    )
    assert hosted.until("seen") == [1, "yes", False, True]
    hosted.until("ready")
    hosted.signal(signal.SIGTERM)
    assert hosted.end() == 0


def test_a_run_folder_is_short_and_private() -> None:
    folder = run_folder()
    try:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(os.fsencode(folder)) <= 24
    finally:
        folder.rmdir()
