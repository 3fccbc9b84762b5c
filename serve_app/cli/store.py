"""``parley store``: making the store on Azure, and copying one store into another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from serve_app.cli.main import EXIT_FAILED
from serve_app.credentials import Secrets
from serve_app.errors import ConfigError
from serve_app.settings import LogSettings, Settings

if TYPE_CHECKING:
    from serve_app.storage.transfer import StoreCounts

Side = Literal["sqlite", "cosmos"]
Config = Annotated[
    Path | None, typer.Option(help="Settings file (YAML); PARLEY_* variables win over it.", show_default=False)
]
HALF_WAY = "The same command goes on from where it stopped."

store = typer.Typer(
    help="Make the store on Azure ready, and copy one store into another.", no_args_is_help=True,
    rich_markup_mode="markdown", add_completion=False, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@store.callback()
def _store() -> None:
    """Make the store on Azure ready, and copy one store into another.

    With `PARLEY_STORE=azure` everything is kept in Cosmos DB and Blob Storage. They need
    `PARLEY_AZURE__COSMOS_ENDPOINT` and `PARLEY_AZURE__BLOB_ENDPOINT`, and their keys in `AZURE_COSMOS_KEY` and
    `AZURE_STORAGE_KEY`; without a key Entra ID is asked. `parley doctor` says what is wrong with them.
    """


@store.command("init")
def init(
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be changed, and change nothing.")] = False,
) -> None:
    """Make the database, its containers and the Blob containers (for prompts only where the settings name one), as far as they
    are not there.

    Safe to repeat: what is there stays, with all that it holds. Where an existing container differs, its indexes and time to
    live are changed in place, as is the database's throughput; a partition key cannot be changed, and is said instead.

    Making databases and containers takes the account's key: Entra ID lets nobody do that by this way.

    Examples:

    - `parley store init --dry-run` says what would be made or changed
    - `PARLEY_AZURE__COSMOS_MAX_RUS=10000 parley store init` gives the database up to 10000 RU/s

    Exit codes: 0 all is as it has to be (or would be), 1 something cannot be made or changed, 2 a setting cannot be used.
    """
    settings = _load(config)
    stuck = asyncio.run(_init(settings, Secrets.from_environment(), dry_run, Console(highlight=False)))
    if stuck:
        raise typer.Exit(EXIT_FAILED)


async def _init(settings: Settings, secrets: Secrets, dry_run: bool, console: Console) -> int:
    """How many things are not as they have to be and cannot be changed in place."""
    from serve_app.storage.provision.account import AccountError, open_account
    from serve_app.storage.provision.blob import make_container, plan_containers

    azure = settings.azure
    if azure.blob_endpoint is None:
        raise ConfigError("Setting PARLEY_AZURE__BLOB_ENDPOINT is needed: https://<account>.blob.core.windows.net.")
    async with open_account(azure, secrets) as account:
        console.print(Text(f"Database {azure.cosmos_database} at {azure.cosmos_endpoint}\n", style="bold"))
        try:
            await account.connect()
            steps = await account.plan()
            blob_steps = await plan_containers(azure, secrets)
            for step in steps:
                if not dry_run:
                    await account.apply(step)
                _print_step(console, step.action, step.name, step.detail, done=not dry_run)
            for name, step in blob_steps.items():
                if not dry_run and step.action == "create":
                    await make_container(azure, secrets, name)
                _print_step(console, step.action, step.name, step.detail, done=not dry_run)
            steps += blob_steps.values()
        except AccountError as error:
            raise error.as_parley_error() from error
    stuck = sum(step.action == "stuck" for step in steps)
    changed = sum(step.action in ("create", "change") for step in steps)
    if dry_run:
        console.print(f"\nNothing has been changed. {_things(changed)} to make or change.")
    elif changed:
        console.print(f"\n{_things(changed)} made or changed.", style="green")
    else:
        console.print("\nNothing had to be changed.", style="green" if not stuck else None)
    if stuck:
        console.print(
            f"{_things(stuck)} cannot be changed in place; Parley does not work until that is solved.", style="red"
        )
    return stuck


def _print_step(console: Console, action: str, name: str, detail: str, *, done: bool) -> None:
    said, style = {
        "create": ("made" if done else "to make", "green"),
        "change": ("changed" if done else "to change", "yellow"),
        "keep": ("is there", "dim"),
        "stuck": ("cannot be changed", "red"),
    }[action]
    line = Text.assemble(f"  {name:<16}", (f"{said:<18}" if detail else said, style))
    line.append(detail, style="dim" if action == "keep" else "")
    console.print(line)


def _things(number: int) -> str:
    return f"{number} thing{'' if number == 1 else 's'}"


@store.command("show")
def show(config: Config = None) -> None:
    """Show which store the settings choose, how it is used, and how much a local one holds.

    Reads only, and disturbs no Parley that runs. What Cosmos DB holds is not counted: that would read all of it.

    Exit codes: 0 shown, 1 the database cannot be read, 2 a setting cannot be used.
    """
    from serve_app.cli.store_show import rows

    table = Table(box=None, show_header=False, padding=(0, 2), pad_edge=False)
    for name, said in rows(_load(config), Secrets.from_environment()):
        table.add_row(name, Text(said))
    Console(highlight=False).print(table)


@store.command("copy")
def copy(
    source: Annotated[Side, typer.Option("--from", help="The store to copy.")],
    target: Annotated[Side, typer.Option("--to", help="The store to copy it into.")],
    config: Config = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, not where an earlier copy stopped.")] = False,
) -> None:
    """Copy everything of one store into the other: conversations, messages, turns with their events, usage, records.

    `sqlite` is the database in PARLEY_DATA_DIR, `cosmos` the one that PARLEY_AZURE__COSMOS_ENDPOINT names (make it with
    `parley store init`). Nothing may run on either meanwhile: a Parley that uses the folder is noticed, one that uses Cosmos DB
    is not.

    What the target has under the same ids is replaced, everything else in it stays. A copy that was stopped goes on with the
    same command; its progress is kept in a file in PARLEY_DATA_DIR. At the end both are counted.

    Examples:

    - `parley store copy --from sqlite --to cosmos` moves a laptop's conversations to Azure
    - `parley store copy --from cosmos --to sqlite` brings them back

    Exit codes: 0 copied, and both have as much; 1 they differ, or it failed; 2 a setting or an option cannot be used; 130
    stopped with Ctrl-C.
    """
    if source == target:
        raise ConfigError(f"--from and --to are both {source}; copy into the other one.")
    settings = _load(config)
    console = Console(highlight=False)
    try:
        same = asyncio.run(_copy(settings, Secrets.from_environment(), source, target, restart, console))
    except KeyboardInterrupt:
        typer.echo(f"Stopped. {HALF_WAY}", err=True)
        raise
    if not same:
        raise typer.Exit(EXIT_FAILED)


async def _copy(
    settings: Settings, secrets: Secrets, source: Side, target: Side, restart: bool, console: Console
) -> bool:
    from serve_app.cli.store_copy import PATIENCE_S, StateFile, StoreCopy
    from serve_app.cli.store_sides import name_of, not_copied, open_side

    state = StateFile(settings.path(settings.data_dir) / f"copy-{source}-to-{target}.json")
    async with (
        open_side(source, settings, secrets, must_exist=True) as from_,
        open_side(target, settings, secrets) as to,
    ):
        console.print(f"From {name_of(source, settings)}\nto   {name_of(target, settings)}\n")
        job = StoreCopy(from_, to, state, patience_s=PATIENCE_S)
        console.print("Counting…", style="dim", end="\r")
        goes_on = await job.begin(name_of(source, settings), name_of(target, settings), restart=restart)
        if goes_on:
            console.print("Goes on where an earlier copy stopped.")
        console.print(Text(f"Progress is kept in {state.path}.\n", style="dim"))
        with _Progress(job.state.counted) as progress:
            await job.run(progress.show)
        console.print("Counting what both have now…", style="dim")
        had, has = await job.compare()
    same = _print_counts(console, had, has)
    for sentence in not_copied(source, settings):
        console.print(Text(f"Not copied: {sentence}", style="yellow"))
    return same


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{task.speed:,.0f}/s", style="dim")


class _Progress:
    """A bar for each kind, on standard error."""

    def __init__(self, counted: StoreCounts) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<14}"), BarColumn(bar_width=32), MofNCompleteColumn(), _Speed(), TimeRemainingColumn(),
            console=Console(stderr=True, highlight=False),
        )  # fmt: skip
        self._tasks = {
            phase: self._bars.add_task(phase, total=getattr(counted, phase), start=False)
            for phase in ("conversations", "usage", "records")
        }
        self._begun: set[str] = set()

    def __enter__(self) -> _Progress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, phase: str, copied: int) -> None:
        task = self._tasks[phase]
        if phase not in self._begun:
            self._begun.add(phase)
            self._bars.start_task(task)
        self._bars.update(task, completed=copied)


def _print_counts(console: Console, had: StoreCounts, has: StoreCounts) -> bool:
    table = Table("", "from", "to", "", box=None, padding=(0, 2), pad_edge=False)
    same = True
    for kind in had.__struct_fields__:
        ours, theirs = getattr(had, kind), getattr(has, kind)
        same = same and ours == theirs
        mark = Text("✓", style="green") if ours == theirs else Text("✗", style="red")
        table.add_row(kind, f"{ours:,}", f"{theirs:,}", mark)
    console.print(table)
    if same:
        console.print("\nAll is copied.", style="green")
    else:
        console.print(
            "\nThe two do not have as much: the target had something else before, or something was written meanwhile.",
            style="red",
        )
    return same


def _load(config: Path | None) -> Settings:
    from serve_app.storage.provision.diagnosis import quiet_sdks
    from serve_app.telemetry import configure_logging

    quiet_sdks()
    configure_logging(LogSettings(level="error"))
    return Settings.load(config)
