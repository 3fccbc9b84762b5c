"""``parley eval``: run last month's conversations under another prompt, model or tool, and see what got better and what worse.

The commands are imported when they are called: running, grading and reporting need what takes longer to import than a typing
error should take to be told.
"""

from __future__ import annotations

import os

import typer

from serve_app.cli.lazy_group import Commands, LazyGroup

COMMANDS: Commands = {
    "run": ("serve_app.cli.eval_run:run", "Run cases under every configuration of a run file, and grade the answers."),
    "resume": ("serve_app.cli.eval_run:resume", "Go on with a run that was stopped or killed."),
    "grade": ("serve_app.cli.eval_run:grade", "Grade the results of a run, anew where graders have changed."),
    "report": ("serve_app.cli.eval_report:report", "Write the report of a run: a page, and files for programs."),
    "compare": ("serve_app.cli.eval_compare:compare", "Compare the configurations of a run, or two runs."),
    "gate": ("serve_app.cli.eval_report:gate", "Say whether a run is good enough, for a CI."),
    "labels": ("serve_app.cli.eval_labels:labels", "Import what people say of answers; how far graders agree."),
    "export": (
        "serve_app.cli.eval_export:export",
        "Make a data set of the store's conversations, without the people in them.",
    ),
    "shadow": ("serve_app.cli.eval_shadow:shadow", "Live turns that were mirrored to candidates, as results to grade."),
    "check": ("serve_app.cli.eval_data:check", "Read a data set, say what is wrong with it, and count its cases."),
    "import": (
        "serve_app.cli.eval_data:import_",
        "Make a data set of transcripts: OpenAI chat, ShareGPT, or our messages.",
    ),
}


class EvalGroup(LazyGroup):
    known = COMMANDS


_HELP = """\
Run cases under several configurations, grade the answers, and compare them.

Last month's conversations under another prompt, model or tool: what got better, and what worse? A run file names a data
set, the configurations to compare and how their answers are graded. Nothing else is needed on a laptop:
`parley eval run configs/eval/smoke.yaml` runs ten cases that come with Parley, with a simulated model.
"""

eval_ = typer.Typer(
    cls=EvalGroup, help=_HELP, no_args_is_help=True, rich_markup_mode="markdown", add_completion=False,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@eval_.callback()
def _eval_group(context: typer.Context) -> None:
    if context.invoked_subcommand == "gate":
        return  # what it writes is for others: a CI's rules
    # Conversations are their people's; also in a folder that was there before, and where logs and stores are made by others.
    before = os.umask(0o077)
    context.call_on_close(lambda: os.umask(before))
