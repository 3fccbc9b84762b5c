"""``parley chat``: a terminal client."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from serve_app.cli.answer_view import AnswerView, Outcome, PlainView, TerminalView
from serve_app.cli.api import Caller, configured_url, parse_url
from serve_app.cli.background import BackgroundLoop
from serve_app.cli.chat_session import ChatSession, play
from serve_app.cli.main import EXIT_FAILED, EXIT_INTERRUPTED
from serve_app.cli.options import Roles, Tenant, Url, User
from serve_app.cli.turn_stream import TurnStream
from serve_app.errors import ConfigError

MAX_STDIN_BYTES = 1_048_576


def chat(
    message: Annotated[
        str | None, typer.Argument(help="Ask this, print the answer and leave. Piped text is taken as one, too.")
    ] = None,
    url: Url = None,
    user: User = None,
    tenant: Tenant = None,
    roles: Roles = None,
    session: Annotated[
        str | None, typer.Option(help="Go on with this conversation. [default: a new one]", metavar="ID")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to ask for. [default: the server's]")] = None,
) -> None:
    """Talk to a running Parley from the terminal.

    The answer streams in, with the tools it uses. Ctrl-C stops an answer (a second one leaves), Ctrl-D leaves; `/help`
    lists commands. When the connection drops in mid-answer it is taken up again where it broke off.

    Examples:

    - `parley chat` starts a conversation
    - `parley chat --as ana --roles hr "How much leave has Maria Keller?"` asks one question
    - `git diff | parley chat --session review > notes.md` asks what is piped in, and writes the bare answer

    Exit codes: 0 answered, 1 no server or the turn failed, 2 an option cannot be used, 130 stopped with Ctrl-C.
    """
    address = parse_url(url) if url is not None else configured_url()
    caller = Caller(user=user, tenant=tenant, roles=roles)
    question = message if message is not None else _piped()
    if question is not None and not question.strip():
        raise ConfigError("There is nothing to ask: give a message, pipe one in, or start `parley chat` on a terminal.")
    stream = TurnStream(address, caller, session)
    with BackgroundLoop() as loop:
        try:
            opened = loop.run(stream.open())
            if question is None:
                code = ChatSession(loop, stream, address, caller, model, Console(highlight=False)).run(opened)
            else:
                code = _exit_code(play(loop, stream, stream.ask(question, model), _view()))
        finally:
            loop.run(stream.aclose())
    raise typer.Exit(code)


def _piped() -> str | None:
    """What is piped in; None where a person sits at the keyboard. Raises ConfigError for too much of it."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    content = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(content) > MAX_STDIN_BYTES:
        raise ConfigError(f"More than {MAX_STDIN_BYTES} bytes were piped in; shorten the question.")
    return content.decode("utf-8", "replace")


def _view() -> AnswerView:
    console = Console(highlight=False)
    return TerminalView(console) if console.is_terminal else PlainView()


def _exit_code(outcome: Outcome) -> int:
    if outcome.failure is not None:
        typer.echo(outcome.failure, err=True)
        return EXIT_FAILED
    if outcome.cancelled:
        typer.echo("Stopped.", err=True)
        return EXIT_INTERRUPTED
    return 0
