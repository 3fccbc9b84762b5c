"""``parley eval labels``: what people say of answers, held against what graders say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve_app.cli.admin_api import PIPED_WIDTH
from serve_app.cli.printable import one_line
from serve_app.errors import ConfigError

MAX_NAMED = 5


def labels(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines, or CSV where it ends in .csv.")],
    replace: Annotated[bool, typer.Option("--replace", help="Forget the labels that the run has.")] = False,
) -> None:
    """Import what people say of a run's answers, and say how far graders agree with them.

    A label names a case (`case_id`), the `configuration` where the run has several, `label` (pass or fail) or a `score` from 0 to
    1, and if it likes a `grader` and a `rater`. Cohen's kappa says how much more often both say the same than by chance.

    Example: `parley eval labels evaluations/nightly labels.csv`

    Exit codes: 0 done, 2 the file or the folder cannot be used.
    """
    from serve_app.evaluation.labels import merged, read_labels, write_labels
    from serve_app.evaluation.report_people import agreement_rows
    from serve_app.evaluation.run_folder import LABELS
    from serve_app.evaluation.run_report import graders_of, people_of, run_file_of
    from serve_app.evaluation.run_store import RunStore

    with RunStore.open(folder) as store:
        found = read_labels(file, store.meta.names)
        unknown = sorted({label.case_id for label in found if store.case(label.case_id) is None})
        if len(unknown) == len({label.case_id for label in found}):
            raise ConfigError(f"None of the {len(unknown):,} cases that {file} labels is in the run in {folder}.")
        kept = folder / LABELS
        earlier = read_labels(kept, store.meta.names) if kept.is_file() and not replace else []
        everything = merged(earlier, found)
        write_labels(kept, everything)
        graders = graders_of(run_file_of(folder), store)
        people = people_of(store, graders)
        there = [info.name for info in graders]
    strange = sorted({label.grader.partition("/")[0] for label in found if label.grader} - set(there))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(f"{len(found):,} label{'' if len(found) == 1 else 's'} read; the run has {len(everything):,}.")
    if unknown:
        console.print(
            Text(
                f"Note: {len(unknown):,} of the labelled cases {'is' if len(unknown) == 1 else 'are'} not in this run:"
                f" {one_line(', '.join(unknown[:MAX_NAMED]))}{' and others' if len(unknown) > MAX_NAMED else ''}."
            ),
            soft_wrap=True,
        )
    if strange:
        console.print(
            Text(
                f"Note: no answer of this run is graded by {one_line(', '.join(strange[:MAX_NAMED]))}"
                f"{' and others' if len(strange) > MAX_NAMED else ''}, which labels name; there are:"
                f" {one_line(', '.join(there)) or 'none'}."
            ),
            soft_wrap=True,
        )
    table = Table("between", "on", box=None, padding=(0, 2), pad_edge=False)
    for heading in ("answers", "say the same", "by chance", "Cohen's kappa", "which is"):
        table.add_column(Text(heading), justify="right")
    rows = agreement_rows(people)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if rows:
        console.print(table)
    else:
        console.print("No grader has graded what was labelled, so there is nothing to compare with.")
    console.print(f"`parley eval report {folder}` puts this into the report.", soft_wrap=True)
