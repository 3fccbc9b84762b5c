"""``parley eval export``: conversations of our own store as a data set, without the people in them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from serve_app.cli.main import EXIT_FAILED
from serve_app.cli.redaction_options import Names, PersonField
from serve_app.credentials import Secrets
from serve_app.errors import ConfigError
from serve_app.settings import LogSettings, Settings

if TYPE_CHECKING:
    from serve_app.evaluation.cases import Case
    from serve_app.evaluation.exported_cases import CaseFilter, Redaction
    from serve_app.evaluation.exporting import Export, Sample
    from serve_app.evaluation.shadow_pairs import ShadowSource

_AGO = re.compile(r"([0-9]{1,5}) ?([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}
_LINES_EVERY = 1_000


def export(
    out: Annotated[Path, typer.Option(help="The data set to write: JSON lines, or Parquet where it ends in .parquet.")],
    since: Annotated[
        str, typer.Option(help="Questions asked since then: 7d, 12h, 2w, or a date such as 2026-11-01.")
    ] = "30d",
    until: Annotated[str | None, typer.Option(help="And before then; the same ways. [default: now]")] = None,
    sample: Annotated[str | None, typer.Option(help="So many cases (200), or a share of them (5%).")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another sample; the same one, the same.")] = 0,
    tenant: Annotated[list[str] | None, typer.Option(help="Only this tenant's; may be repeated.")] = None,
    role: Annotated[str | None, typer.Option(help="Only what users with this role have asked.")] = None,
    reaction: Annotated[
        Literal["up", "down"] | None, typer.Option(help="Only answers that users liked, or disliked.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag for every case; may be repeated.")] = None,
    each_turn: Annotated[
        bool, typer.Option("--each-turn", help="One case for each question, not one for each conversation.")
    ] = False,
    names: Names = None,
    person_field: PersonField = None,
    no_redaction: Annotated[
        bool, typer.Option("--no-redaction", help="Leave personal data in. Then mind who may read the file.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="Settings file (YAML); PARLEY_* variables win over it.", show_default=False)
    ] = None,
) -> None:
    """Make a data set of the conversations in the store: history, question, the answer that was given, and the tool calls with
    their results.

    Reads beside a Parley that runs. Personal data is replaced by words such as [person-1] and [email-2], throughout a
    conversation by the same ones, in tool calls, too: run such cases with recorded tools, as a live one finds nobody called
    [person-1]. Names that are only mentioned cannot be found; give those that matter with --names, and look at the file before
    you hand it on. Programs' requests (`/v1`) and trials are not conversations, and are left out.

    Examples:

    - `parley eval export --since 30d --sample 200 --out cases.jsonl` two hundred conversations of the last month
    - `parley eval export --since 7d --reaction down --each-turn --out disliked.jsonl` what users did not like this week

    Exit codes: 0 written, 1 it failed, or there was nothing, 2 a setting or an option cannot be used.
    """
    from serve_app.evaluation.exported_cases import CaseFilter
    from serve_app.evaluation.exporting import parse_sample
    from serve_app.telemetry import configure_logging

    now = datetime.now(UTC)
    wanted = CaseFilter(
        since=instant("--since", since, now),
        until=None if until is None else instant("--until", until, now),
        tenants=frozenset(tenant or ()),
        role=role,
        reaction=reaction,
        tags=tuple(tag or ()),
        each_turn=each_turn,
    )
    if wanted.until is not None and wanted.since is not None and wanted.until <= wanted.since:
        raise ConfigError("--until must be later than --since.")
    redaction = wanted_redaction(names, person_field, no_redaction)
    configure_logging(LogSettings(level="error"))
    settings = Settings.load(config)
    chosen = None if sample is None else parse_sample(sample)
    if not asyncio.run(_export(settings, Secrets.from_environment(), out, wanted, chosen, seed, redaction)):
        raise typer.Exit(EXIT_FAILED)


async def _export(
    settings: Settings,
    secrets: Secrets,
    out: Path,
    wanted: CaseFilter,
    sample: Sample | None,
    seed: int,
    redaction: Redaction | None,
) -> int:
    """How many cases were written."""
    from serve_app.evaluation.case_files import write_cases
    from serve_app.evaluation.exporting import Export

    async with open_source(settings, secrets, active_since=wanted.since) as (source, total):
        job = Export(source, wanted, sample=sample, seed=seed, redaction=redaction)
        with reading_bar("conversations", total) as show:
            cases = job.cases(show)
            first = await anext(cases, None)
            written = 0
            if first is not None:
                pulled = _pulled(first, cases, asyncio.get_running_loop())
                written = await asyncio.to_thread(write_cases, out, pulled)
    _tell(job, out, written, redacted=redaction is not None)
    return written


def _pulled(first: Case, cases: AsyncIterator[Case], loop: asyncio.AbstractEventLoop) -> Iterator[Case]:
    """What a loop produces, for a thread that writes it: never more than one ahead."""
    case: Case | None = first

    async def following() -> Case | None:
        return await anext(cases, None)

    while case is not None:
        yield case
        case = asyncio.run_coroutine_threadsafe(following(), loop).result()


@asynccontextmanager
async def open_source(
    settings: Settings, secrets: Secrets, *, active_since: datetime | None = None, logs: bool = False
) -> AsyncIterator[tuple[ShadowSource, int | None]]:
    """The store that the settings choose, for reading, and how many conversations it has where that is quickly said.

    ``logs``: with those of turns, where leaving them out spares anything. Raises ConfigError where there is no store.
    """
    if settings.store == "memory":
        raise ConfigError("Setting PARLEY_STORE: memory keeps nothing that could be exported.")
    if settings.store == "azure":
        from serve_app.cli.store_sides import open_side

        async with open_side("cosmos", settings, secrets) as cosmos:
            yield cosmos, None
        return
    from serve_app.storage.sqlite.beside import SqliteBeside

    beside = await SqliteBeside.open(settings.path(settings.data_dir), active_since=active_since, logs=logs)
    try:
        yield beside, await beside.count()
    finally:
        await beside.close()


def wanted_redaction(names: Path | None, person_fields: list[str] | None, no_redaction: bool) -> Redaction | None:
    """What the options say of personal data; None where it is left in. Raises ConfigError."""
    from serve_app.evaluation.exported_cases import Redaction
    from serve_app.evaluation.personal_data import read_names
    from serve_app.evaluation.personal_names import NameList

    if no_redaction and (names is not None or person_fields):
        raise ConfigError(
            "--names and --person-field say whom to replace, and --no-redaction that nobody is; leave it out, or them."
        )
    if no_redaction:
        return None
    return Redaction(NameList() if names is None else read_names(names), tuple(person_fields or ()))


def instant(option: str, text: str, now: datetime) -> datetime:
    """The time that an option means. Raises ConfigError."""
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return now - timedelta(hours=int(ago[1]) * _HOURS[ago[2]])
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(f"{option} {text}: give a time as 7d, 12h, 2w, or a date such as 2026-11-01.") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


class Reading:
    """How far reading has come."""

    def __init__(self, bar: Progress | None, what: str, total: int | None) -> None:
        self._bar = bar
        self._what = what
        self._task = None if bar is None else bar.add_task(what, total=total)

    def __call__(self, read: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=read)
        elif read % _LINES_EVERY == 0:
            typer.echo(f"{read:,} {self._what} read", err=True)


@contextlib.contextmanager
def reading_bar(what: str, total: int | None) -> Iterator[Reading]:
    """A bar on standard error, or a line now and then where that is no terminal; called with how many have been read."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield Reading(None, what, total)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=32), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        yield Reading(bar, what, total)


def _tell(job: Export, out: Path, written: int, *, redacted: bool) -> None:
    counts = job.counts
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2), pad_edge=False)
    table.add_row("conversations", f"{counts.conversations:,} read")
    table.add_row("cases", f"{written:,} of {max(counts.matching, written):,} that match")
    if counts.too_large:
        table.add_row("left out", f"{counts.too_large:,} too large for a data set")
    if redacted:
        table.add_row("replaced", counted(counts.replaced))
    console.print(table)
    if not written:
        console.print("Nothing was asked in that time that matches; nothing is written.")
        return
    console.print(f"\nWritten to {out}. ", end="", soft_wrap=True)
    if redacted:
        console.print("Names that are only mentioned cannot be told from other words: look before you hand it on.")
    else:
        console.print("Personal data is in it.", style="yellow")


def counted(replaced: Counter[str]) -> str:
    """What was replaced, most of it first."""
    return ", ".join(f"{count:,} {kind}" for kind, count in replaced.most_common()) or "nothing"
