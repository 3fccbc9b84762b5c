"""``parley eval check`` and ``parley eval import``: what a data set holds, and one made of transcripts."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve_app.cli.printable import printable
from serve_app.errors import ConfigError

if TYPE_CHECKING:
    from serve_app.evaluation.cases import Case

_SHOWN_TAGS = 50


def check(file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines or Parquet.")]) -> None:
    """Read a data set, say what is wrong with it, and count its cases.

    What is wrong is told with its line, for the first twenty problems.

    Example: `parley eval check configs/eval/crm_hr.jsonl`

    Exit codes: 0 it can be used, 2 it cannot.
    """
    from serve_app.evaluation.dataset import open_dataset

    dataset = open_dataset(file)
    roles, expectations, figures = Counter[str](), Counter[str](), Counter[str]()
    for case in dataset.cases():
        roles[case.role or ""] += 1
        figures["questions"] += sum(message.role == "user" for message in case.messages)
        figures["recorded tool calls"] += sum(len(message.tool_calls) for message in case.messages)
        expectations.update(_expected(case))
    console = Console(highlight=False)
    console.print(
        Text(f"{file}: {_number(dataset.count, 'case')}, fingerprint {dataset.fingerprint[:16]}"), soft_wrap=True
    )
    console.print(
        f"{_number(figures['questions'], 'question')}, {_number(figures['recorded tool calls'], 'recorded tool call')}"
    )
    _print_counts(console, "expected", expectations)
    _print_counts(console, "role", Counter({name or "(the run's)": count for name, count in roles.items()}))
    _print_counts(console, "tag", Counter(dataset.tags))


def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Conversations: JSON lines, or one JSON array.")],
    out: Annotated[Path, typer.Option(help="The data set to write: JSON lines, or Parquet where it ends in .parquet.")],
    each_turn: Annotated[
        bool, typer.Option("--each-turn", help="One case for each question, not one for each conversation.")
    ] = False,
    expect_answer: Annotated[
        bool, typer.Option("--expect-answer", help="The answer that was given is the one that is expected.")
    ] = False,
    expect_calls: Annotated[
        bool, typer.Option("--expect-calls", help="The tool calls that were made are those that are expected.")
    ] = False,
    tag: Annotated[list[str] | None, typer.Option(help="A tag for every case; may be repeated.")] = None,
    tenant: Annotated[str | None, typer.Option(help="As whose user the cases are asked.")] = None,
    role: Annotated[str | None, typer.Option(help="With which role they are asked.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="In place of a file that is there.")] = False,
) -> None:
    """Make a data set of transcripts: OpenAI chat, ShareGPT, or our messages.

    Which it is shows in the file. Tool calls and their results are kept, so that `tools: recorded` can answer from them. Personal
    data stays in, as it is in the file.

    Examples:

    - `parley eval import chats.jsonl --out cases.jsonl --tag support --role sales`
    - `parley eval import sharegpt.json --out cases.parquet --each-turn --expect-answer`

    Exit codes: 0 written, 2 the file or an option cannot be used.
    """
    from serve_app.evaluation.case_files import write_cases
    from serve_app.evaluation.dataset import open_dataset
    from serve_app.evaluation.importing import Imported, Importing, cases_of
    from serve_app.transcripts.reading import read_transcripts

    if out.exists() and not overwrite:
        raise ConfigError(f"There is a file {out} already; give another name, or --overwrite.")
    if out.exists() and source.exists() and out.samefile(source):
        raise ConfigError(f"{out} is what is read; write the data set to another file.")
    _refuse_data_set(source)
    transcripts = read_transcripts(source)
    how = Importing(
        prefix=source.stem, each_turn=each_turn, expect_answer=expect_answer, expect_calls=expect_calls,
        tags=tuple(tag or ()), tenant=tenant, role=role,
    )  # fmt: skip
    counted = Imported()
    cases = cases_of(transcripts, how, counted)
    first = next(cases, None)
    if first is None:
        raise ConfigError(f"None of the {_number(counted.conversations, 'conversation')} in {source} asks anything.")
    write_cases(out, itertools.chain((first,), cases))
    try:
        open_dataset(out)  # that what was written can be used, whatever was in the file
    except ConfigError:
        out.unlink()
        raise
    left = f", {counted.skipped} without a question left out" if counted.skipped else ""
    typer.echo(f"{_number(counted.cases, 'case')} of {_number(counted.conversations, 'conversation')}{left}: {out}")


def _refuse_data_set(source: Path) -> None:
    """What cases expect, and their tags, would be lost without a word: transcripts have none."""
    from serve_app.evaluation.case_files import read_records
    from serve_app.evaluation.case_record import UnreadableCase, read_case

    if not source.is_file():
        return
    record = next(read_records(source), None)
    if record is None or not isinstance(record.value, dict) or not {"expected", "tags"} & record.value.keys():
        return
    try:
        read_case(record.value, "")
    except UnreadableCase:
        return
    raise ConfigError(f"{source} is a data set already; name it in a run file as it is.")


def _expected(case: Case) -> list[str]:
    expected = case.expected
    there = {
        "answer": expected.answer is not None,
        "facts": bool(expected.facts),
        "number": expected.number is not None,
        "tool calls": bool(expected.tool_calls),
        "no tool call": expected.tool_calls == (),
        "refusal": expected.refusal is True,
        "no refusal": expected.refusal is False,
        "pattern": expected.pattern is not None,
        "schema": expected.schema is not None,
    }
    return [name for name, is_there in there.items() if is_there] or ["nothing"]


def _print_counts(console: Console, heading: str, counts: Counter[str]) -> None:
    if not counts:
        return
    table = Table(heading, "cases", box=None, padding=(0, 2), pad_edge=False)
    table.columns[1].justify = "right"
    for name, count in counts.most_common(_SHOWN_TAGS):
        table.add_row(Text(printable(name)), str(count))
    console.print()
    console.print(table)
    if len(counts) > _SHOWN_TAGS:
        console.print(f"and {len(counts) - _SHOWN_TAGS} more")


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun if count == 1 else noun + 's'}"
