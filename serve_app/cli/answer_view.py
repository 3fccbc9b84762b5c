"""Shows a turn as it runs: on a terminal with Markdown and tool calls, elsewhere as the plain answer.

On a terminal, finished blocks of the answer are printed once and for all; only the unfinished one, cut to the screen, and
the running tools are drawn again, at most once per batch of events. So a long answer costs no more per piece than a short
one, and nothing flickers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol

from msgspec import Struct
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.padding import Padding
from rich.spinner import Spinner
from rich.text import Text

from serve_app.cli.markdown_blocks import MarkdownBlocks
from serve_app.cli.printable import one_line, printable, short_arguments, short_result
from serve_app.cli.turn_stream import Event

ASK_PROMPT = "Run it? [y/N] "
YES = {"y", "yes"}
REASON_CHARS = 500
SCREEN_SHARE = 0.6
"""Part of the screen's height that the unfinished block may take."""


class Outcome(Struct):
    """How the turn ended; ``failure`` is a sentence when it failed."""

    response: str = ""
    failure: str | None = None
    cancelled: bool = False


class AnswerView(Protocol):
    """Entered before the first event, left after the last."""

    def __enter__(self) -> AnswerView: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, events: Iterable[Event]) -> None: ...

    def say(self, text: str) -> None:
        """A word about the connection, not part of the answer."""
        ...

    def ask(self, event: Event) -> bool | None:
        """Whether a tool call that waits may run; None where nobody is here to say so."""
        ...


def outcome_of(event: Event) -> Outcome:
    """What a terminal event says."""
    response = str(event.get("response") or "")
    match event["type"]:
        case "turn.failed":
            again = " Trying again may help." if event.get("retryable") else ""
            return Outcome(response, failure=f"{printable(str(event.get('message') or 'The turn failed.'))}{again}")
        case "turn.cancelled":
            return Outcome(response, cancelled=True)
    return Outcome(response)


class PlainView:
    """The answer alone on standard output, once it is whole: what a step showed may be taken back until then.

    Tool calls and words about the connection go to standard error where that is a terminal.
    """

    def __init__(self) -> None:
        self._notes = Console(stderr=True, highlight=False, markup=False)

    def __enter__(self) -> PlainView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, events: Iterable[Event]) -> None:
        for event in events:
            match event["type"]:
                case "tool.finished":
                    self.say(_tool_line(event, "").plain)
                case "chat_response" | "turn.failed" | "turn.cancelled":
                    response = outcome_of(event).response
                    if response:
                        sys.stdout.write(response if response.endswith("\n") else f"{response}\n")
                        sys.stdout.flush()

    def say(self, text: str) -> None:
        if self._notes.is_terminal:
            self._notes.print(text, style="dim", soft_wrap=True)

    def ask(self, event: Event) -> bool | None:
        elsewhere = f"Answer on the page, or POST /api/approvals/{one_line(str(event.get('approval_id')))}."
        self._notes.print(f"{_question(event).plain} {elsewhere}", soft_wrap=True)
        return None


class TerminalView:
    """The answer on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._blocks = MarkdownBlocks()
        self._step_shown = False
        self._running: dict[str, tuple[str, Spinner]] = {}
        self._waiting = Spinner("dots", Text("…", style="dim"), style="cyan")
        self._live = Live(
            console=console, transient=True, auto_refresh=True, refresh_per_second=8, vertical_overflow="crop",
            get_renderable=self._unfinished,
        )  # fmt: skip

    def __enter__(self) -> TerminalView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish_text()
        self._running.clear()
        self._live.stop()

    def show(self, events: Iterable[Event]) -> None:
        for event in events:
            match event["type"]:
                case "text.delta":
                    self._step_shown = True
                    self._print(self._blocks.add(printable(str(event.get("delta") or ""))))
                case "tool.started":
                    self._finish_text()
                    name, arguments = one_line(str(event.get("name"))), short_arguments(event.get("arguments"))
                    spinner = Spinner("dots", Text.assemble((name, "bold"), (arguments, "dim")), style="cyan")
                    self._running[str(event.get("tool_call_id"))] = (arguments, spinner)
                case "tool.approval":
                    self._finish_text()
                case "tool.finished":
                    arguments, _ = self._running.pop(str(event.get("tool_call_id")), ("", self._waiting))
                    self._step_shown = False
                    self._print_above(_tool_line(event, arguments))
                case "step.reset":
                    self._blocks = MarkdownBlocks()
                    if self._step_shown:
                        self.say("The answer broke off there and begins again:")
                    self._step_shown = False
                case "chat_response" | "turn.failed" | "turn.cancelled":
                    self._finish_text()
                    self._running.clear()
        self._live.refresh()

    def say(self, text: str) -> None:
        self._print_above(Text(text, style="dim"))

    def ask(self, event: Event) -> bool | None:
        self._live.stop()
        try:
            self._console.print(_question(event))
            return input(ASK_PROMPT).strip().lower() in YES
        except EOFError:
            return False
        finally:
            self._live.start()

    def _print(self, markdown: str) -> None:
        if markdown.strip():
            self._print_above(Padding(Markdown(markdown), (0, 0, 1, 0)))

    def _print_above(self, done: RenderableType) -> None:
        # Live draws its last picture again below what is printed; without this it would still show what is done now.
        self._live.refresh()
        self._console.print(done)

    def _finish_text(self) -> None:
        rest, self._blocks = self._blocks.rest, MarkdownBlocks()
        self._print(rest)

    def _unfinished(self) -> RenderableType:
        parts: list[RenderableType] = []
        rest = self._blocks.rest
        if rest.strip():
            height = max(4, int(self._console.height * SCREEN_SHARE))
            lines = rest.rstrip("\n").split("\n")
            # A block that outgrows the screen, such as long code, shows its end as it is written.
            tall = len(lines) > height or len(rest) > height * self._console.width
            parts.append(
                Text("\n".join(lines[-height:])[-height * self._console.width // 2 :]) if tall else Markdown(rest)
            )
        parts.extend(spinner for _, spinner in list(self._running.values()))  # a copy: Live draws from its own thread
        if not parts:
            parts.append(self._waiting)
        return Group(*parts)


def _question(event: Event) -> Text:
    """A call that waits for an answer."""
    return Text.assemble(
        ("⏸ ", "yellow"),
        (one_line(str(event.get("name"))), "bold"),
        (short_arguments(event.get("arguments")), "dim"),
        (f"  {one_line(str(event.get('reason')), REASON_CHARS)}", "yellow"),
    )


def _tool_line(event: Event, arguments: str) -> Text:
    ok = bool(event.get("ok"))
    line = Text.assemble(
        ("✓ " if ok else "✗ ", "green" if ok else "red"),
        (one_line(str(event.get("name"))), "bold"),
        (arguments, "dim"),
        (f"  {event.get('duration_ms', 0)} ms", "cyan"),
    )
    if not ok:
        line.append(f"  {short_result(event.get('result'))}", style="red")
    return line
