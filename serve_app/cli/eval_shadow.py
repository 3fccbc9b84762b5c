"""``parley eval shadow``: live turns that were mirrored to candidates, as a run folder to grade and to read."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from serve_app.cli.eval_export import counted, instant, open_source, reading_bar, wanted_redaction
from serve_app.cli.load_run import parley_version
from serve_app.cli.main import EXIT_FAILED
from serve_app.cli.redaction_options import Names, PersonField
from serve_app.credentials import Secrets
from serve_app.settings import LogSettings, Settings

if TYPE_CHECKING:
    from serve_app.evaluation.exported_cases import Redaction
    from serve_app.evaluation.shadow_pairs import ShadowRun


def shadow(
    out: Annotated[Path, typer.Option(help="New folder for the results.")],
    since: Annotated[
        str | None,
        typer.Option(help="What was mirrored since then: 7d, 12h, 2w, or a date. [default: all that is kept]"),
    ] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only this tenant's; may be repeated.")] = None,
    names: Names = None,
    person_field: PersonField = None,
    no_redaction: Annotated[
        bool, typer.Option("--no-redaction", help="Leave personal data in. Then mind who may read the folder.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="Settings file (YAML); PARLEY_* variables win over it.", show_default=False)
    ] = None,
) -> None:
    """Compare what users were answered with what a candidate would have said: the live turns that PARLEY_SHADOW has mirrored.

    Reads beside a Parley that runs, and runs nothing. The folder is one of `parley eval`: what users were answered is the
    configuration `live`, the baseline; every candidate is one beside it. Personal data is replaced as in `parley eval export`.

    Examples:

    - `parley eval shadow --since 7d --out evaluations/shadow` what was mirrored this week
    - `parley eval grade evaluations/shadow --graders run.yaml` grades both sides; then `parley eval report evaluations/shadow`

    Exit codes: 0 written, 1 it failed, or nothing was mirrored, 2 a setting or an option cannot be used.
    """
    from serve_app.telemetry import configure_logging

    after = 0.0 if since is None else instant("--since", since, datetime.now(UTC)).timestamp()
    redaction = wanted_redaction(names, person_field, no_redaction)
    configure_logging(LogSettings(level="error"))
    settings = Settings.load(config)
    if not asyncio.run(_shadow(settings, Secrets.from_environment(), out, frozenset(tenant or ()), after, redaction)):
        raise typer.Exit(EXIT_FAILED)


async def _shadow(
    settings: Settings,
    secrets: Secrets,
    out: Path,
    tenants: frozenset[str],
    since: float,
    redaction: Redaction | None,
) -> int:
    """How many cases were written."""
    from serve_app.evaluation.shadow_pairs import ShadowRun
    from serve_app.models.connect import needs_simulated_provider

    async with open_source(settings, secrets, logs=True) as (source, _):
        run = ShadowRun(source, tenants=tenants, since=since, redaction=redaction)
        found = await run.read()
        if not found:
            Console(highlight=False).print(
                "Nothing that was mirrored is kept. PARLEY_SHADOW names a file that says which turns are, such as "
                "configs/shadow.example.yaml."
            )
            return 0
        with reading_bar("mirrored turns", found) as show:
            written = await run.write(
                out,
                name="shadow",
                version=parley_version(),
                simulated=needs_simulated_provider(settings, secrets),
                on_turn=show,
            )
    _tell(run, out, redacted=redaction is not None)
    return written


def _tell(run: ShadowRun, out: Path, *, redacted: bool) -> None:
    counts = run.counts
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2), pad_edge=False)
    table.add_row("mirrored turns", f"{counts.mirrored:,}")
    table.add_row("candidates", ", ".join(candidate.name for candidate in run.candidates))
    table.add_row("cases", f"{counts.written:,}")
    if counts.gone:
        table.add_row("left out", f"{counts.gone:,} that their users have deleted or asked anew, or that are under way")
    if counts.outdated:
        table.add_row("left out", f"{counts.outdated:,} trials of what a candidate was before it was changed")
    if redacted:
        table.add_row("replaced", counted(counts.replaced))
    console.print(table)
    if counts.written:
        console.print(f"\nWritten to {out}. Now grade it: parley eval grade {out} --graders FILE", soft_wrap=True)
