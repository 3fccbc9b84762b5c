"""A run within Locust: one process of users, the master of many, or both in one.

local    users, conductor, files
master          conductor, files      ── phases ──►  workers
worker   users                        ◄── samples and counts, once a second, in Locust's own reports
"""

from __future__ import annotations

import logging
import math
import signal
import socket
import sys
from typing import Any
from urllib.parse import urlsplit

import gevent
import msgspec
from gevent.pool import Group
from locust import runners
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from load_tests import pool
from load_tests.conductor import Conductor, How, last_line, progress_line
from load_tests.options import Options
from load_tests.process import LoadProcess, PhaseOrder
from load_tests.run_note import RunNote
from load_tests.tally import Live, Tally, decode_ended
from load_tests.users.kinds import classes_for
from load_tests.writing import Lines, RunFiles
from serve_app.capacity.samples import TURNS
from serve_app.capacity.scenario import Scenario

PHASE, DRAIN, SAMPLES = "parley_phase", "parley_drain", "parley_samples"
REPORT_S = 1.0
MAX_SPAWN_PER_S = 100.0
CONNECT_S = 5.0
CONNECTING_S = 0.5
"""What the first users of open arrivals have to connect before the first phase."""
INTERRUPT_DRAIN_S = 30.0

_log = logging.getLogger("parley.load")


class LocalOrchestra:
    """The users of this process."""

    workers = 1

    def __init__(self, process: LoadProcess, look: Any) -> None:
        self._process = process
        self.look = look

    def begin(self, order: PhaseOrder) -> None:
        self._process.begin(order)

    def drain(self, broken_off: bool = False) -> None:
        self._process.drain(broken_off)


class RemoteOrchestra:
    """The workers of a master."""

    def __init__(self, runner: MasterRunner) -> None:
        self._runner = runner

    @property
    def workers(self) -> int:
        return max(1, int(self._runner.worker_count))

    def begin(self, order: PhaseOrder) -> None:
        self._runner.send_message(PHASE, msgspec.to_builtins(order))

    def drain(self, broken_off: bool = False) -> None:
        self._runner.send_message(DRAIN, {"broken_off": broken_off})

    def look(self) -> None:
        """Reports come by themselves."""


class UserSide:
    """What local runs and workers have in common: users, and those that keep enough of them ready."""

    def __init__(self, environment: Environment, runner: Any, scenario: Scenario, options: Options) -> None:
        self.process = LoadProcess(scenario, options)
        self._runner = runner
        self._classes = classes_for(self.process)
        environment.user_classes = self._classes
        self._patience_s = max(entry.turn_timeout_s for entry in scenario.users)
        # A user who has to go may end its turn; the run's end has its own patience.
        environment.stop_timeout = self._patience_s
        environment.events.test_stopping.add_listener(self._stopping)  # type: ignore[no-untyped-call]
        self.greenlets = Group()
        if scenario.load.model == "open":
            self.greenlets.spawn(pool.keep, self.process, self._users_of, self._spawn)

    def live(self) -> Live:
        """Now; gives up what has waited too long."""
        # Not by the environment's, which a worker takes over from its master's with the first users.
        self.process.give_up_waiting(self._patience_s)
        return self.process.live(self._runner.user_count)

    def _name_of(self, share: int) -> str:
        return next(one.__name__ for one in self._classes if getattr(one, "share", None) == share)

    def _users_of(self, share: int) -> int:
        count: int = self._runner.user_classes_count.get(self._name_of(share), 0)
        return count

    def _spawn(self, share: int, count: int) -> None:
        self._runner.spawn_users({self._name_of(share): count})

    def _stopping(self, environment: Environment, **_: Any) -> None:
        """Before users are ended: whoever is still asking is not waited for any longer."""
        self.greenlets.kill()
        environment.stop_timeout = 0
        if self.process.draining and not self.process.broken_off:
            self.process.give_up_waiting()


class Worker:
    """Users that are led from elsewhere."""

    def __init__(self, environment: Environment, runner: WorkerRunner, scenario: Scenario, options: Options) -> None:
        self._side = UserSide(environment, runner, scenario, options)
        self._side.process.worker = max(0, runner.worker_index)
        self._live = Live()
        runners.WORKER_REPORT_INTERVAL = REPORT_S
        environment.process_exit_code = 0
        environment.events.report_to_master.add_listener(self._report)  # type: ignore[no-untyped-call]
        runner.register_message(PHASE, self._phase)
        runner.register_message(DRAIN, self._drain)

    def _phase(self, msg: Any, **_: Any) -> None:
        self._side.process.begin(msgspec.convert(msg.data, PhaseOrder))

    def _drain(self, msg: Any, **_: Any) -> None:
        self._side.process.drain(bool(msg.data["broken_off"]))

    def _report(self, data: dict[str, Any], **_: Any) -> None:
        live = self._side.live()
        lines = self._side.process.lines.fetch()
        dropped = self._side.process.lines.dropped
        data[SAMPLES] = {"live": msgspec.json.encode(live), "lines": lines, "dropped": dropped}


class Leader:
    """Conducts, counts, writes, and says how it goes: on the master, or beside the users of a local run."""

    def __init__(self, environment: Environment, runner: Any, scenario: Scenario, options: Options) -> None:
        self._environment = environment
        self._scenario = scenario
        self._files = RunFiles(options.report)
        self._note = RunNote(options, scenario)
        self._lines = Lines()
        self._runner = runner
        self._workers_at_start = 0
        self._lost_workers = 0
        self._side: UserSide | None = None
        self._conducting: gevent.Greenlet | None = None
        self._finished = False
        self._dropped: dict[str, int] = {}
        if isinstance(runner, MasterRunner):
            environment.user_classes = classes_for(LoadProcess(scenario, options))
            environment.events.worker_report.add_listener(self._heard)  # type: ignore[no-untyped-call]
            orchestra: LocalOrchestra | RemoteOrchestra = RemoteOrchestra(runner)
            self._limits_of = LoadProcess(scenario, options).limits
        else:
            self._side = UserSide(environment, runner, scenario, options)
            orchestra = LocalOrchestra(self._side.process, self._look)
            self._limits_of = self._side.process.limits
        self._orchestra = orchestra
        self._tally = Tally(self._limits_of)
        self._conductor = Conductor(scenario, orchestra, self._tally, self._lines)
        environment.events.spawning_complete.add_listener(self._spawned)  # type: ignore[no-untyped-call]
        environment.events.test_stopping.add_listener(self._stopping)  # type: ignore[no-untyped-call]
        environment.events.quitting.add_listener(self._quitting)  # type: ignore[no-untyped-call]
        self._interrupts = gevent.signal_handler(signal.SIGINT, _interrupted)

    # -- the shape ---------------------------------------------------------------------------------------------------

    def tick(self) -> tuple[int, float] | None:
        """For Locust, once a second: how many users there are to be, and how many more a second; None at the end."""
        if self._conductor.over:
            return None
        if not self._workers_at_start:
            self._workers_at_start = self._orchestra.workers
            gevent.spawn(self._tell)
            if self._scenario.load.model == "closed":
                self._conducting = gevent.spawn(self._conductor.conduct)
        fixed = sum(entry.count or 0 for entry in self._scenario.users)
        if self._scenario.load.model == "open":
            sharing = sum(1 for entry in self._scenario.users if entry.count is None)
            ready = sharing * pool.SPARE * self._workers_at_start + math.ceil(
                self._conductor.plans[0].level * pool.AHEAD_S
            )
            users = fixed + min(ready, max(sharing, self._scenario.load.users_max))
        else:
            users = fixed + max(1, round(self._conductor.plan.level))
        return users, min(MAX_SPAWN_PER_S, max(5.0, users / 2))

    def _spawned(self, **_: Any) -> None:
        """With open arrivals, users are added beside Locust's own counting, and only when that is done."""
        if self._conducting is None and self._scenario.load.model == "open":
            self._conducting = gevent.spawn_later(CONNECTING_S, self._conductor.conduct)

    # -- what goes on ------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Once a second, to the end."""
        while not self._finished:
            gevent.sleep(REPORT_S)
            self._look()
            if not self._conductor.over:
                say(progress_line(self._conductor, self._tally, self._scenario))

    def _look(self) -> None:
        if self._side is not None:
            self._tally.is_now("local", self._side.live())
            self._take(self._side.process.lines.fetch())
            self._dropped["local"] = self._side.process.lines.dropped
        elif not (self._conductor.over or self._conductor.interrupted):
            self._count_workers()
        self._files.write(self._lines.fetch())

    def _count_workers(self) -> None:
        """Whoever is not there any more has taken turns and samples with it. May come back, as after a hole in the network."""
        clients = self._runner.clients
        present = {client.id for client in (*clients.ready, *clients.spawning, *clients.running)}
        self._lost_workers = self._workers_at_start - len(present)
        for process in self._tally.processes - present:
            self._tally.gone(process)

    def _heard(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        samples = data.get(SAMPLES)
        if samples is None:
            return
        self._tally.is_now(client_id, msgspec.json.decode(samples["live"], type=Live))
        self._dropped[client_id] = samples["dropped"]
        self._take(samples["lines"])

    def _take(self, lines: dict[str, list[bytes]]) -> None:
        for line in lines.get(TURNS, ()):
            self._tally.ended(decode_ended(line))
        self._files.write(lines)

    # -- the end -----------------------------------------------------------------------------------------------------

    def _stopping(self, **_: Any) -> None:
        """Also when somebody interrupts: what is under way may end, unless they do it again."""
        if self._conductor.over:
            return
        if self._side is None:
            self._count_workers()
        self._conductor.interrupt()
        if self._conducting is not None:
            self._conducting.kill()
        self._orchestra.drain(broken_off=True)
        try:
            self._conductor.drain(INTERRUPT_DRAIN_S)
        except KeyboardInterrupt:
            _log.info("Interrupted again: nothing is waited for any more.")
        self._orchestra.drain(broken_off=True)
        self._conductor.break_off()

    def _quitting(self, environment: Environment, **_: Any) -> None:
        if self._finished:
            return
        self._finished = True
        self._look()
        self._conductor.break_off()
        self._files.write(self._lines.fetch())
        how, why = self._judged()
        environment.process_exit_code = 1 if how == "failed" else 0
        self._note.end(how, why)
        say(last_line(self._conductor, self._tally, how, why))

    def _judged(self) -> tuple[How, str]:
        """How it ended: a run that was to be carried and was not has failed."""
        how, why = self._conductor.how, self._conductor.why
        if self._lost_workers > 0:
            return "failed", f"{self._lost_workers} of {self._workers_at_start} workers were lost"
        if dropped := sum(self._dropped.values()):
            return "failed", f"{dropped} samples could not be kept, so that the figures are not whole"
        if how != "done":
            return how, why
        measured = [index for index, plan in enumerate(self._conductor.plans) if plan.measured]
        done = sum(self._tally.phase(index).done for index in measured)
        failed = sum(self._tally.phase(index).failed for index in measured)
        only_idle = all(entry.kind == "idle" for entry in self._scenario.users)
        allowed = self._scenario.slo.errors
        if only_idle:
            total = self._runner.stats.total
            if not total.num_requests or total.num_failures / total.num_requests > allowed:
                return "failed", f"{total.num_failures} of {total.num_requests} connections and pings failed"
            return how, why
        if not done:
            return "failed", "no turn ended"
        if done and failed / done > allowed:
            return "failed", f"{failed} of {done} turns failed, which is more than the objective of {allowed:.2%}"
        return how, why


def say(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def unreachable(host: str) -> str | None:
    """Why nothing can be reached at ``host``; None if something can."""
    parts = urlsplit(host)
    port = parts.port or (443 if parts.scheme in ("https", "wss") else 80)
    try:
        socket.create_connection((parts.hostname or "", port), CONNECT_S).close()
    except OSError as error:
        return f"nothing answers at {host} ({error})"
    return None


def _interrupted() -> None:
    """Ctrl-C, in a greenlet of its own, from which it gets to the main one.

    By itself it comes up in whichever greenlet runs, and is lost where that is in a callback whose exceptions are only printed.
    """
    raise KeyboardInterrupt
