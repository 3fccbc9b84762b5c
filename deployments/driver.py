"""Starts Ray, Serve and the graph on this machine, and ends them: the child process of ``parley serve``.

It talks to its parent by lines of JSON on the file descriptor it is given, and does what its standard input says: ``stop``,
as when it closes, or ``redeploy``. Signals are the parent's business.

    {"phase": …} progress · {"stages": {name: state}} · {"ready": {…}} · {"failed": sentence}
    {"redeployed": seconds} · {"redeploy_failed": sentence}
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from msgspec import Struct

from deployments.attachment import leave_attachment, remove_attachment
from serve_app.errors import ConfigError

PR_SET_PDEATHSIG = 1
STOP_TIMEOUT_S = 7.0
DRAIN_TIMEOUT_S = 2.0
_EXCEPTION = re.compile(r"(?:(?:\w+\.)+[A-Z]\w*|[A-Z]\w*(?:Error|Exception)): (?!Traceback )(.+)")
"""The line of a traceback that names what was raised: a class with its module, or one of Python's own."""
REDEPLOY_ORDER = ("PromptBuilder", "ModelGateway", "ToolExecutor", "Turns", "Ingress", "Store")
"""One stage after the other, so that starting replicas leave the machine to those that serve. The store, whose replacement
everybody waits for, comes when nothing else starts. Companions are left alone: they stand for services outside."""
POLL_S = 0.25
"""Asking ten times a second would cost more than a stage's start."""


class DriverOptions(Struct, frozen=True, kw_only=True):
    """What the parent passes on the command line, as JSON."""

    tell_fd: int
    run_dir: str
    serve_config: str
    config: str | None
    overrides: dict[str, Any]
    host: str
    port: int
    metrics_port: int
    start_timeout_s: float


class Driver:
    def __init__(self, options: DriverOptions) -> None:
        self._options = options
        self._channel_secret: Any = None
        self._versions = dict.fromkeys((*REDEPLOY_ORDER, "Companions"), "0")
        self._redeploys = 0
        self._heard = b""
        self._data_dir = Path()
        self._tell = os.fdopen(options.tell_fd, "w", encoding="utf-8")

    def tell(self, **line: Any) -> None:
        """One line to the parent."""
        self._tell.write(json.dumps(line) + "\n")
        self._tell.flush()

    def run(self) -> int:
        """Returns the exit code: 0 after an orderly stop, 2 when the graph could not start."""
        _end_with_parent()
        os.environ.pop("RAY_ADDRESS", None)  # never attach to somebody else's cluster
        self.tell(phase="importing Ray")
        import ray

        options = self._options
        try:
            application, serve_config = self._load()
        except ConfigError as error:
            self.tell(failed=error.message)
            return 2
        self.tell(phase="starting Ray")
        ray.init(
            address="local",
            namespace="serve",
            include_dashboard=False,
            num_cpus=max(8, os.cpu_count() or 1),  # Ray's CPUs are shares for placing actors here, not cores
            _temp_dir=options.run_dir,
            object_store_memory=100 * 2**20,
            _metrics_export_port=options.metrics_port,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
        self.tell(phase="starting Serve")
        client = self._start_serve(serve_config)
        self.tell(phase="starting stages")
        failed = self._run(client, application, serve_config)
        if failed is not None:
            self.tell(failed=failed)
            return 2
        client.wait_for_proxies_serving()
        application_name = serve_config.applications[0].name
        leave_attachment(self._data_dir, ray.get_runtime_context().gcs_address, application_name, os.environ)
        self.tell(ready={"url": f"http://{options.host}:{options.port}", "metrics_port": options.metrics_port})
        while self._next_command() == b"redeploy":  # else "stop", or the parent is gone
            self._redeploy(client)
        remove_attachment(self._data_dir)
        self._drain(application_name)
        client.shutdown(timeout_s=STOP_TIMEOUT_S)
        ray.shutdown()
        return 0

    def _load(self) -> tuple[Any, Any]:
        """The graph and Serve's settings as the files have them now. Raises ConfigError."""
        from pydantic import SecretStr

        from deployments.graph import graph
        from deployments.options import load_serve_config, stage_options
        from serve_app.channel.curve import new_secret
        from serve_app.credentials import Secrets
        from serve_app.settings import Settings

        options = self._options
        serve_config = load_serve_config(Path(options.serve_config))
        settings = Settings.load(Path(options.config) if options.config else None, options.overrides)
        self._data_dir = settings.path(settings.data_dir)
        secrets = Secrets.from_environment()
        # Replicas of before and after a redeploy talk to each other, so they share what the first start made.
        self._channel_secret = self._channel_secret or secrets.parley_channel_secret or SecretStr(new_secret())
        secrets = secrets.model_copy(update={"parley_channel_secret": self._channel_secret})
        return graph(settings, secrets, stage_options(serve_config.applications[0]), self._versions), serve_config

    def _redeploy(self, client: Any) -> None:
        """Reads all settings again and replaces every stage's replicas one after the other. What runs goes on."""
        began = time.monotonic()
        self._redeploys += 1
        done: list[str] = []
        for stage in REDEPLOY_ORDER:
            before = self._versions[stage]
            self._versions[stage] = str(self._redeploys)
            try:
                application, serve_config = self._load()
            except ConfigError as error:
                self._versions[stage] = before
                failed: str | None = error.message
            else:
                self.tell(phase=f"redeploying {stage}")
                failed = self._run(client, application, serve_config, replacing=stage)
            if failed is not None:
                so_far = f" Replaced before that: {', '.join(done)}." if done else " Nothing has been replaced."
                self.tell(redeploy_failed=failed + so_far)
                return
            done.append(stage)
        self.tell(redeployed=round(time.monotonic() - began, 1))

    def _next_command(self) -> bytes:
        """The next line of standard input; empty at its end. Read unbuffered, so that ``_asked`` sees what waits there."""
        while b"\n" not in self._heard:
            chunk = os.read(sys.stdin.fileno(), 4096)
            if not chunk:
                return b""
            self._heard += chunk
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def _asked(self) -> bool:
        """Whether something else has been asked for meanwhile."""
        return b"\n" in self._heard or bool(select.select([sys.stdin], [], [], 0)[0])

    def _drain(self, application: str) -> None:
        """Lets clients hear of the stop before their sockets break. A graph that cannot is stopped all the same."""
        from ray import serve

        try:
            ingress = serve.get_deployment_handle("Ingress", application)
            ingress._init(_run_router_in_separate_loop=True)  # type: ignore[no-untyped-call]  # no event loop here
            ingress.broadcast("drain").results(timeout_s=DRAIN_TIMEOUT_S)
        except Exception as error:
            print(f"draining failed: {error}", file=sys.stderr)  # noqa: T201 - into the run's driver.log

    def _start_serve(self, serve_config: Any) -> Any:
        from ray.serve._private.api import serve_start

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        return serve_start(
            http_options={"host": self._options.host, "port": self._options.port},
            proxy_location="HeadOnly",
            global_logging_config=serve_config.logging_config,
        )

    def _run(self, client: Any, application: Any, serve_config: Any, replacing: str | None = None) -> str | None:
        """Deploys and waits; returns why it failed, or None when every stage runs.

        When ``replacing`` a stage it is enough that its new replicas run: the old ones may take as long as the longest turn
        to come to their end, and nobody has to wait for that.
        """
        from ray import serve
        from ray.serve.schema import ApplicationStatus

        name = serve_config.applications[0].name
        deployed_at = time.time()
        serve.run_many(
            [
                serve.RunTarget(
                    application,
                    name=name,
                    route_prefix=serve_config.applications[0].route_prefix,
                    logging_config=serve_config.logging_config,
                )
            ],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )
        until = time.monotonic() + self._options.start_timeout_s
        told: dict[str, str] = {}
        while time.monotonic() < until:
            if replacing is not None and self._asked():
                return "Something else was asked for meanwhile."
            status = client.get_serve_status(name)
            stages = {stage.name: stage.status.value for stage in status.deployment_statuses}
            if stages != told:
                self.tell(stages=stages)
                told = stages
            if status.app_status.status == ApplicationStatus.RUNNING:
                return None
            if replacing is not None and _replaced(client, name, replacing, deployed_at):
                return None
            for stage in status.deployment_statuses:
                # Serve tries again a few times; the reason is there after the first.
                if stage.status.value in ("DEPLOY_FAILED", "UNHEALTHY") or "failed to start" in stage.message.lower():
                    return f"The stage {stage.name} did not start: {_reason(stage.message)}"
            if status.app_status.status == ApplicationStatus.DEPLOY_FAILED:
                return _reason(status.app_status.message)
            time.sleep(POLL_S)
        waiting = ", ".join(sorted(stage for stage, state in told.items() if state != "HEALTHY"))
        return f"The graph was not ready after {self._options.start_timeout_s:g} s; still starting: {waiting}."


def _replaced(client: Any, application: str, stage: str, since: float) -> bool:
    """Whether as many replicas as are wanted of a stage run that were started after ``since``, in Unix seconds."""
    found = client.get_serve_details()["applications"][application]["deployments"][stage]
    running = [replica for replica in found["replicas"] if replica["state"] == "RUNNING"]
    fresh = sum(replica["start_time_s"] >= since for replica in running)
    return bool(fresh >= found["target_num_replicas"] > 0)


def _reason(message: str) -> str:
    """The sentence of the exception at the end of a Serve message with a traceback in it."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    for line in reversed(lines):
        if found := _EXCEPTION.match(line):
            return found[1]
    return lines[-1] if lines else "no reason was given"


def _end_with_parent() -> None:
    """Asks the kernel to end this process when its parent ends, whatever ends it."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    import msgspec

    sys.exit(Driver(msgspec.json.decode(sys.argv[1], type=DriverOptions)).run())
