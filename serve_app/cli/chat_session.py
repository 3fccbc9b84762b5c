"""The conversation at a terminal: reads lines, plays answers, and knows a few commands."""

from __future__ import annotations

import contextlib
import importlib
import signal
from collections.abc import AsyncIterator
from types import FrameType
from urllib.parse import quote

from rich.console import Console
from rich.markup import escape

from serve_app.cli.answer_view import AnswerView, Outcome, PlainView, TerminalView, outcome_of
from serve_app.cli.api import Api, Caller
from serve_app.cli.background import BackgroundLoop
from serve_app.cli.main import EXIT_INTERRUPTED
from serve_app.cli.printable import one_line, printable
from serve_app.cli.turn_stream import TERMINAL, Event, Session, TurnStream
from serve_app.errors import ParleyError, UpstreamFailed

PROMPT = "you> "
COMMANDS = {
    "/new": "start a new conversation",
    "/tools": "the tools you may use",
    "/title": "the conversation's title; with a text after it, change it",
    "/help": "this list; a message that begins with / is written with //",
    "/quit": "leave, as Ctrl-D does",
}


def play(loop: BackgroundLoop, stream: TurnStream, batches: AsyncIterator[list[Event]], view: AnswerView) -> Outcome:
    """Shows a turn to its end. Ctrl-C asks the server to stop it; a second one raises KeyboardInterrupt.

    Raises ParleyError as ``TurnStream.ask`` does.
    """
    presses = 0

    def on_interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal presses
        presses += 1
        if presses > 1:
            raise KeyboardInterrupt
        loop.submit(stream.cancel())

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        with view:
            last: Event = {"type": ""}
            while (batch := loop.run(_next(batches))) is not None:
                view.show(batch)
                last = batch[-1]
                for event in _open_questions(batch):
                    approved = view.ask(event)
                    if approved is not None:
                        loop.run(stream.answer(str(event.get("approval_id")), approved))
    finally:
        signal.signal(signal.SIGINT, before)
    if last["type"] in TERMINAL:
        return outcome_of(last)
    raise UpstreamFailed("The answer ended without an end; ask again.")


def _open_questions(batch: list[Event]) -> list[Event]:
    """Of what came together, the calls that wait: nothing has come of them, and the turn goes on."""
    if batch[-1]["type"] in TERMINAL:
        return []
    settled = {event.get("tool_call_id") for event in batch if event["type"] in {"tool.started", "tool.finished"}}
    return [event for event in batch if event["type"] == "tool.approval" and event.get("tool_call_id") not in settled]


async def _next(batches: AsyncIterator[list[Event]]) -> list[Event] | None:
    return await anext(batches, None)


class ChatSession:
    """One person at one terminal."""

    def __init__(
        self, loop: BackgroundLoop, stream: TurnStream, url: str, caller: Caller, model: str | None, console: Console
    ) -> None:
        self._loop = loop
        self._stream = stream
        self._url = url
        self._api = Api(url, caller)
        self._model = model
        self._console = console

    def run(self, opened: Session) -> int:
        """Until the person leaves; returns the exit code."""
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # gives input() a history and keys to edit with
        self._opened(opened)
        self._say_notice()
        if opened.active_turn_id is not None:
            self._say("An answer is still running here:")
            if not self._play(self._stream.follow(opened.active_turn_id)):
                return EXIT_INTERRUPTED
        interrupted = False
        while True:
            self._loop.run(self._stream.rest())
            try:
                line = input(PROMPT).strip()
            except EOFError:
                self._console.print()
                return self._leave(0)
            except KeyboardInterrupt:
                self._console.print()
                if interrupted:
                    return self._leave(EXIT_INTERRUPTED)
                interrupted = True
                self._say("Ctrl-D, or Ctrl-C once more, leaves.")
                continue
            interrupted = False
            if line.startswith("/") and not line.startswith("//"):
                if not self._command(line):
                    return self._leave(0)
            elif line and not self._play(self._stream.ask(line.removeprefix("/"), self._model)):
                return self._leave(EXIT_INTERRUPTED)

    def _play(self, batches: AsyncIterator[list[Event]]) -> bool:
        """Shows a turn, whatever becomes of it; False when the person wants to leave."""
        view: AnswerView = TerminalView(self._console) if self._console.is_terminal else PlainView()
        try:
            outcome = play(self._loop, self._stream, batches, view)
        except KeyboardInterrupt:
            return False
        except ParleyError as error:
            self._complain(error.message)
            return True
        if outcome.failure is not None:
            self._complain(outcome.failure)
        elif outcome.cancelled:
            self._say("Stopped.")
        return True

    def _command(self, line: str) -> bool:
        """Does what a line that begins with / asks for; False to leave."""
        name, _, rest = line.partition(" ")
        try:
            match name:
                case "/new":
                    self._opened(self._loop.run(self._stream.new()))
                case "/tools":
                    self._show_tools()
                case "/title":
                    self._title(rest.strip())
                case "/help":
                    for command, what in COMMANDS.items():
                        self._console.print(f"  [bold]{command:<8}[/bold] {what}")
                case "/quit" | "/exit":
                    return False
                case _:
                    self._say(f"There is no command {one_line(name)}; /help lists them.")
        except ParleyError as error:
            self._complain(error.message)
        return True

    def _show_tools(self) -> None:
        reply = self._api.get("/api/capabilities")
        tools = reply.body.get("tools") or []
        for tool in tools:
            self._console.print(
                f"  [bold]{escape(one_line(str(tool.get('name'))))}[/bold]  "
                f"{escape(one_line(str(tool.get('description') or '')))}"
            )
        if not tools:
            self._say("None: no tool server is up that your roles may use; `parley tools` shows them.")

    def _title(self, wanted: str) -> None:
        path = f"/api/conversations/{quote(self._stream.session_id or '', safe='')}"
        reply = self._api.patch(path, {"title": wanted}) if wanted else self._api.get(path)
        if reply.status != 200:
            self._complain(str(reply.body.get("detail") or f"The server said {reply.status}."))
            return
        self._stream.title = reply.body.get("title")
        self._say(printable(self._stream.title or "The conversation has no title yet."))

    def _opened(self, session: Session) -> None:
        roles = f"roles: {', '.join(session.roles)}" if session.roles else "no roles"
        self._console.print(
            f"[bold]Parley[/bold] at {escape(self._url)}, you are [bold]{escape(session.user_id)}[/bold] "
            f"({escape(roles)}; {len(session.tools)} tools). /help lists commands, Ctrl-D leaves.",
            soft_wrap=True,
        )

    def _say_notice(self) -> None:
        with contextlib.suppress(ParleyError):  # a courtesy
            notice = (self._api.get("/api/capabilities").body.get("models") or {}).get("notice")
            if notice:
                self._console.print(escape(printable(str(notice))), style="yellow", soft_wrap=True)

    def _leave(self, code: int) -> int:
        if self._stream.session_id:
            self._say(f"Go on later with: parley chat --session {self._stream.session_id}")
        return code

    def _say(self, text: str) -> None:
        self._console.print(escape(text), style="dim", soft_wrap=True)

    def _complain(self, text: str) -> None:
        self._console.print(escape(text), style="red", soft_wrap=True)
