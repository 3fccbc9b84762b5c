"""A turn on a terminal: what it was, its steps with their tool calls, and where its time went."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from serve_app.cli.printable import one_line, short_arguments, short_result
from serve_app.cli.turn_report import Call, Step, Tokens, TurnReport, dollars, duration
from serve_app.domain.generation import FROM_CACHE

QUESTION_CHARS = 120
BAR_CELLS = 32
BESIDE_BAR = 32
"""What the columns beside a bar take."""
MIN_BAR_CELLS = 8
STATE_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow"}
OUTCOMES = {
    "ok": ("✓", "green"),
    "failed": ("✗", "red"),
    "unknown": ("?", "yellow"),
    "unfinished": ("…", "yellow"),
    "waiting": ("⏸", "cyan"),
}
STAGES = {
    "queued": "before it began",
    "prompt": "prompt",
    "model": "model",
    "tools": "tools",
    "approval": "waiting for approval",
}
OTHER = "the rest"
"""Time that no completed call accounts for: attempts that broke off, takeovers, storing."""


def print_turn(console: Console, turn: TurnReport, remarks: Sequence[str]) -> None:
    state = "waiting" if turn.waits and not turn.ended else turn.state
    console.print(
        Text.assemble(
            ("Turn ", "bold"), (one_line(turn.turn_id), "bold"), "  ", (state, STATE_STYLES.get(state, "cyan"))
        )
    )
    console.print(_facts(turn))
    for remark in remarks:
        console.print(Text(f"! {remark}", style="yellow"))
    console.print()
    for step in turn.steps:
        _print_step(console, step)
    if turn.steps:
        console.print()
    console.print(_stages(turn, min(BAR_CELLS, console.width - BESIDE_BAR)))


def _facts(turn: TurnReport) -> Table:
    table = _grid()
    asked = ", ".join(map(one_line, turn.models)) or (one_line(turn.model_id) if turn.model_id else "the default")
    ended = f"{_instant(turn.finished_at)}, after {duration(turn.took_ms)}" if turn.finished_at else "not yet"
    for name, value in (
        ("question", one_line(turn.query, QUESTION_CHARS)),
        ("conversation", one_line(turn.conversation_id)),
        ("accepted", _instant(turn.created_at)),
        ("ended", ended),
        ("deadline", _instant(turn.deadline)),
        ("model", asked),
        ("tokens", _tokens(turn.usage)),
        ("cost", _cost(turn.usage)),
        ("events", str(turn.last_seq)),
        ("store", "" if turn.request_charge is None else f"{turn.request_charge:.1f} request units"),
        ("request", one_line(turn.request_id)),
    ):
        if value:
            table.add_row(Text(name, style="dim"), Text(value))
    return table


def _print_step(console: Console, step: Step) -> None:
    times = "" if step.attempt <= 1 else f", run {step.attempt} times"
    first = "" if step.first_delta_ms is None else f", first text after {duration(step.first_delta_ms)}"
    spent = f"{duration(step.model_ms)}{first}, {_spent(step)}"
    then = f"{_tools(step)} in {duration(step.tools_ms)}" if step.tool_calls else f"end: {one_line(step.finish_reason)}"
    line = Text.assemble((f"Step {step.step}", "bold"), (times, "yellow"), f"  {spent}  ", (then, "cyan"))
    console.print(line)
    for call in step.tool_calls:
        console.print(Padding(_call_text(call), (0, 0, 0, 2)))


def _tokens(usage: Tokens) -> str:
    parts = [
        f"{usage.input_tokens} in" + (f" ({usage.cached_input_tokens} cached)" if usage.cached_input_tokens else ""),
        f"{usage.output_tokens} out" + (f" ({usage.reasoning_tokens} thinking)" if usage.reasoning_tokens else ""),
    ]
    return ", ".join(parts) + (", partly estimated" if usage.estimated else "")


def _cost(usage: Tokens) -> str:
    return dollars(usage.cost_usd) if usage.cost_usd else ""


def _spent(step: Step) -> str:
    if step.provider == FROM_CACHE:
        return "from the cache of answers"
    cost = f", {dollars(step.usage.cost_usd)}" if step.usage.cost_usd else ""
    return f"{step.usage.input_tokens} tokens in, {step.usage.output_tokens} out{cost}"


def _tools(step: Step) -> str:
    count = len(step.tool_calls)
    return f"{count} tool{'' if count == 1 else 's'}"


def _call_text(call: Call) -> Text:
    mark, style = OUTCOMES[call.outcome]
    text = Text.assemble((f"{mark} ", style), (one_line(call.name), "bold"), (short_arguments(call.arguments), "dim"))
    if call.outcome == "unfinished":
        return text.append("  no result", style=style)
    if call.outcome == "waiting":
        return text.append("  waits for approval", style=style)
    return text.append(f"  → {short_result(call.result)}", style=style).append(
        f"  {call.result_bytes} bytes", style="cyan"
    )


def _stages(turn: TurnReport, cells: int) -> Table:
    spent = {
        "model": sum(step.model_ms for step in turn.steps),
        "tools": sum(step.tools_ms for step in turn.steps),
    } | turn.timings_ms
    total = max(spent.get("total", turn.took_ms), 1)
    shares = [(label, spent[stage]) for stage, label in STAGES.items() if stage in spent]
    shares.append((OTHER, max(0, total - sum(ms for _, ms in shares))))
    table = _grid()
    begins = 0
    for label, ms in shares:
        table.add_row(Text(label, style="dim"), Text(duration(ms), justify="right"), _bar(begins, ms, total, cells))
        begins += ms
    table.add_row(Text("in all", style="dim"), Text(duration(total), justify="right", style="bold"), "")
    if "first_delta" in spent:
        table.add_row(Text("first text after", style="dim"), Text(duration(spent["first_delta"]), justify="right"), "")
    return table


def _bar(begins: int, ms: int, total: int, cells: int) -> Text:
    """A stage's share of the whole, drawn behind those before it; nothing where there is no room."""
    if cells < MIN_BAR_CELLS:
        return Text()
    before = min(cells - 1, round(cells * begins / total))
    filled = min(cells - before, max(1 if ms else 0, round(cells * ms / total)))
    return Text(" " * before + "█" * filled, style="cyan")


def _grid() -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _instant(instant: datetime | None) -> str:
    return "" if instant is None else f"{instant:%Y-%m-%d %H:%M:%S} UTC"
