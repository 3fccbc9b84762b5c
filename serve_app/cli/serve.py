"""``parley serve`` and ``parley env``: the graph on this machine."""

from __future__ import annotations

import shlex
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from deployments.environment import free_ports, ray_environment
from serve_app.cli import preflight
from serve_app.cli.supervisor import Supervisor, run_folder
from serve_app.credentials import Secrets
from serve_app.embedded import companions_of
from serve_app.models.models_file import PROVIDER_VARIABLES
from serve_app.settings import LogSettings, Settings
from serve_app.telemetry import configure_logging

START_TIMEOUT_S = 180.0


def serve(
    config: Annotated[
        Path | None, typer.Option(help="Settings file (YAML); PARLEY_* variables win over it.", show_default=False)
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [PARLEY_HOST, default 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port of page and API. [PARLEY_PORT, default 8000]")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder that keeps everything said. [PARLEY_DATA_DIR, default ./data]")
    ] = None,
) -> None:
    """Run the whole graph on this machine until Ctrl-C.

    With nothing configured a simulated model answers and two example tool servers run; name a provider in the environment
    (OPENAI_API_KEY, AZURE_OPENAI_ENDPOINT, …) and it is used instead. Everything said is kept in the data folder, and is
    there again at the next start.

    SIGUSR2 reads the settings again and replaces every replica one after the other, while conversations go on.

    Exit codes: 0 stopped in order, 1 ended by itself, 2 could not start (a sentence says which setting and what to do),
    130 stopped while starting.
    """
    began = time.monotonic()
    overrides = {"host": host, "port": port, "data_dir": data_dir}
    settings = Settings.load(config, overrides)
    secrets = Secrets.from_environment()
    configure_logging(LogSettings(level="warning", format="console"))
    preflight.run_all(settings, secrets)
    run_dir = run_folder()
    metrics_port = settings.metrics_port or free_ports(1)[0]
    options = {
        "run_dir": str(run_dir),
        "serve_config": str(settings.path(settings.serve_config)),
        "config": str(config) if config else None,
        "overrides": {name: str(value) for name, value in overrides.items() if value is not None},
        "host": settings.host,
        "port": settings.port,
        "metrics_port": metrics_port,
        "start_timeout_s": START_TIMEOUT_S,
    }
    screen = _Screen(settings, secrets, began)
    try:
        with (run_dir / "driver.log").open("wb") as output:
            code = Supervisor(options, ray_environment(run_dir), output, screen.show).run()
    finally:
        screen.close()
    if screen.crashed:
        screen.say(f"[dim]Ray's logs of this run are in {run_dir}; the last lines of the driver's:[/dim]")
        screen.say(escape("\n".join((run_dir / "driver.log").read_text(errors="replace").splitlines()[-15:])))
    else:
        shutil.rmtree(run_dir, ignore_errors=True)
    raise typer.Exit(code)


def env() -> None:
    """Print what `serve run serve_config.yaml` needs in its environment on one machine.

    Use it as: eval "$(parley env)" && serve run --address local serve_config.yaml

    Ray reads these variables when it is imported; with them, HAProxy serves the graph and no socket of it listens beyond
    loopback.
    """
    run_dir = run_folder()
    for name, value in ray_environment(run_dir).items():
        typer.echo(f"export {name}={shlex.quote(value)}")


class _Screen:
    """What the person at the terminal sees: progress while it starts, then where it is."""

    def __init__(self, settings: Settings, secrets: Secrets, began: float) -> None:
        self._settings = settings
        self._companions = companions_of(settings, secrets)
        self._began = began
        self.crashed = False
        self._console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=4)
        self._phases = 0
        self._progress.start()

    def show(self, line: dict[str, Any]) -> None:
        if "phase" in line and self._progress is not None:
            self._phases += 1
            self._progress.update(self._task, description=line["phase"], completed=self._phases)
        if "stages" in line and self._progress is not None:
            ready = [stage for stage, state in line["stages"].items() if state == "HEALTHY"]
            waiting = [stage for stage in line["stages"] if stage not in ready]
            self._progress.update(
                self._task,
                description="starting " + ", ".join(sorted(waiting)) if waiting else "opening the door",
                completed=len(ready),
                total=len(line["stages"]),
            )
        if "ready" in line:
            self._ready(line["ready"])
        if "failed" in line:
            self.close()
            self.say(f"[red]Parley did not start.[/red] {escape(line['failed'])}")
        if "crashed" in line:
            self.close()
            self.crashed = True
            self.say(f"[red]{escape(line['crashed'])}[/red]")
        if line.get("phase") == "redeploying":
            self.say("redeploying …")
        if "redeployed" in line:
            self.say(f"Every replica has been replaced: redeployed in {line['redeployed']:.1f} s.")
        if "redeploy_failed" in line:
            self.say(f"[red]Not redeployed; everything goes on.[/red] {escape(line['redeploy_failed'])}")
        if line.get("phase") == "stopping":
            self.close()
            self.say("stopping …")

    def _ready(self, ready: dict[str, Any]) -> None:
        self.close()
        self.say(f"[bold green]Parley[/bold green] is ready after {time.monotonic() - self._began:.1f} s.")
        self.say(f"  page and API   {ready['url']}   (API documents: {ready['url']}/docs)")
        self.say(f"  metrics        http://127.0.0.1:{ready['metrics_port']}/metrics")
        if self._settings.store == "local":
            self.say(f"  data           {escape(str(self._settings.path(self._settings.data_dir)))}")
        if (logs := self._settings.log_folder) is not None:
            self.say(f"  logs           {escape(str(logs))}")
        if "provider" in self._companions:
            self.say(
                f"  [yellow]model          simulated: no provider is configured; set {PROVIDER_VARIABLES}"
                " for a real one[/yellow]"
            )
        if "crm" in self._companions:
            self.say("  tools          example servers crm and hr, see configs/mcpservers.json")
        self.say("  Ctrl-C stops it.")

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def close(self) -> None:
        """Takes the progress bar away. Idempotent."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
