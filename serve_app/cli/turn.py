"""``parley turn``: what became of a turn, and why."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import quote

import typer
from rich.console import Console

from serve_app.cli.api import Api, Caller, configured_url, parse_url
from serve_app.cli.options import Roles, Tenant, Url, User
from serve_app.cli.turn_report import Failure, TurnReport, read_report, remarks
from serve_app.cli.turn_table import print_turn
from serve_app.errors import NotFound, ParleyError

turn = typer.Typer(
    help="Show what a turn did and why.", no_args_is_help=True, rich_markup_mode="markdown", add_completion=False,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@turn.callback()
def _turn() -> None:
    """Show what a turn did and why.

    A turn is one message on its way from being accepted to the end of its answer.
    """


@turn.command("show")
def show(
    turn_id: Annotated[
        str, typer.Argument(help="The turn, as events, messages and logs name it: `<conversation>.<id>`.", metavar="ID")
    ],
    url: Url = None,
    user: User = None,
    tenant: Tenant = None,
    roles: Roles = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the server answers, as JSON.")] = False,
) -> None:
    """Show what a turn did and why: its steps, tool calls, repetitions, and where its time went.

    A turn is shown to the user it belongs to; to anybody else it does not exist. What is unusual is said in a sentence:
    that it was taken over by another process, that a step was run again, that nobody knows whether a tool took effect, that
    it was cancelled, why it failed.

    Examples:

    - `parley turn show conv-42.01JCQ2Z7M5Y8W3X9K4T6V1B0ND --as ana` tells about a turn of Ana's
    - `parley turn show conv-42.01JCQ2Z7M5Y8W3X9K4T6V1B0ND --json | jq .timings_ms` for programs

    Turn ids are in every event (`turn_id`), in a message's metadata, and in the logs.

    Exit codes: 0 shown, whatever became of the turn; 1 there is no such turn, or no server; 2 an option cannot be used.
    """
    address = parse_url(url) if url is not None else configured_url()
    api = Api(address, Caller(user=user, tenant=tenant, roles=roles))
    path = f"/api/turns/{quote(turn_id, safe='')}"
    reply = api.get(path)
    if reply.status == 404 and reply.body.get("code") == "not_found":
        whose = f"{user or 'the development user'} at {address}"
        raise NotFound(f"There is no turn {turn_id!r} of {whose}; --as and --tenant say whose turn it is.")
    if reply.status != 200:
        raise ParleyError(str(reply.body.get("detail") or f"Parley at {address} said {reply.status}; see its log."))
    if as_json:
        typer.echo(json.dumps(reply.body, indent=2, ensure_ascii=False))
        return
    report = read_report(reply.body, address)
    print_turn(Console(highlight=False), report, remarks(report, _failure(api, path, report), datetime.now(UTC)))


def _failure(api: Api, path: str, report: TurnReport) -> Failure | None:
    """Why the turn failed, as its last event says; None where its events are no longer kept."""
    if report.state != "failed":
        return None
    events = api.get_events(f"{path}/events?after={report.last_seq - 1}")
    found = next((event for event in events if event.get("type") == "turn.failed"), None)
    return None if found is None else Failure(str(found.get("code")), str(found.get("message")))
