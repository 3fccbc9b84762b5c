"""Command line: `python -m serve_app.companions` runs the companions alone."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from serve_app.companions.errors import CompanionError
from serve_app.companions.provider.app import ProviderSettings
from serve_app.companions.provider.script import Script, load_script
from serve_app.companions.server import CompanionServer, CompanionSettings, parse_names, serve

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def run(
    host: Annotated[
        str, typer.Option(help="Address to listen on. There is no access control: keep it on loopback.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one and says which.")] = 8765,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for the sample data, so that changes last. Without it the data lives in memory."),
    ] = None,
    script: Annotated[
        Path | None,
        typer.Option(help="YAML or JSON file that says what the provider answers; see provider_script.example.yaml."),
    ] = None,
    only: Annotated[str, typer.Option(help="Which companions to run, separated by commas.")] = "provider,crm,hr",
    api_key: Annotated[
        str | None, typer.Option(help="Key the provider asks for; without it every key, and none, is accepted.")
    ] = None,
) -> None:
    """Run the simulated model provider and the example tool servers.

    **provider** speaks the OpenAI wire: use `http://127.0.0.1:8765/v1` as the base URL, or the address without `/v1` as
    an Azure endpoint. A model called `sim-t300-i20-n200` answers with 200 tokens, the first after 300 ms, then one every
    20 ms (also `-j10` jitter in percent, `-e1` percent of errors, `-k1` tool rounds, `-m1` time marks); any other name
    gets answers made from the question and the offered tools. What it was asked is at `/_sim/requests`.

    **crm** and **hr** are MCP servers over streamable HTTP at `/crm/mcp` and `/hr/mcp`, on generated sample data.

    Ctrl-C stops it.
    """
    try:
        loaded = load_script(script) if script is not None else Script()
        settings = CompanionSettings(
            host=host, port=port, data_dir=data_dir, only=parse_names(only),
            provider=ProviderSettings(script=loaded, api_key=api_key),
        )  # fmt: skip
        # uvicorn knows the fastest event loop installed here.
        with asyncio.Runner(loop_factory=uvicorn.Config("").get_loop_factory()) as runner:
            runner.run(_until_signalled(settings))
    except CompanionError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


async def _until_signalled(settings: CompanionSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, stop.set)

    def announce(server: CompanionServer) -> None:
        if "provider" in settings.only:
            typer.echo(f"provider  {server.url}/v1  (simulated)")
        for name in ("crm", "hr"):
            if name in settings.only:
                typer.echo(f"{name:<8}  {server.url}/{name}/mcp")

    await serve(settings, stop, announce)


if __name__ == "__main__":
    app()
