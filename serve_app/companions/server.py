"""One ASGI app with the simulated provider and the example tool servers, and a server that runs it inside an event loop.

`CompanionServer` installs no signal handlers and its task inherits no context, so it can live in a replica: it ends when
its owner calls `stop()`, and not with the request that happened to start it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Literal

import uvicorn
from pydantic import BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from serve_app.companions.crm.records import CrmRecords
from serve_app.companions.crm.server import build_crm_server
from serve_app.companions.errors import CompanionError
from serve_app.companions.hr.records import HrRecords
from serve_app.companions.hr.server import build_hr_server
from serve_app.companions.mcp_hosting import host_mcp
from serve_app.companions.provider.app import EXCEPTION_HANDLERS, Provider, ProviderSettings
from serve_app.companions.sample_data import open_crm, open_hr

CompanionName = Literal["provider", "crm", "hr"]
ALL_COMPANIONS: Final[tuple[CompanionName, ...]] = ("provider", "crm", "hr")
_START_TIMEOUT_S: Final = 30.0
_STOP_GRACE_S: Final = 1


class CompanionSettings(BaseModel):
    """What to run, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8765, ge=0, le=65535, description="0 takes any free port; see CompanionServer.port")
    data_dir: Path | None = Field(default=None, description="where sample data is kept; none keeps it in memory")
    only: tuple[CompanionName, ...] = ALL_COMPANIONS
    provider: ProviderSettings = ProviderSettings()


class Companions:
    """The companions' ASGI app and what has to be closed with it. The app's lifespan may be entered once."""

    def __init__(self, settings: CompanionSettings) -> None:
        self._lifespans: list[Callable[[], AbstractAsyncContextManager[None]]] = []
        self._closers: list[Callable[[], None]] = []
        routes: list[BaseRoute] = []
        if "provider" in settings.only:
            provider = Provider(settings.provider)
            routes += provider.routes
            self._closers.append(provider.close)
        if "crm" in settings.only:
            crm = CrmRecords(open_crm(settings.data_dir))
            self._closers.append(crm.close)
            hosted = host_mcp(build_crm_server(crm), "/crm/mcp", settings.host)
            routes += hosted.routes
            self._lifespans.append(hosted.lifespan)
        if "hr" in settings.only:
            hr = HrRecords(open_hr(settings.data_dir))
            self._closers.append(hr.close)
            hosted = host_mcp(build_hr_server(hr), "/hr/mcp", settings.host)
            routes += hosted.routes
            self._lifespans.append(hosted.lifespan)
        self.app = Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS, lifespan=self._lifespan)
        self._end_answers = self._closers[0] if "provider" in settings.only else None

    def end_answers(self) -> None:
        """End every answer the provider is still giving."""
        if self._end_answers is not None:
            self._end_answers()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for close in self._closers:
                stack.callback(close)
            for lifespan in self._lifespans:
                await stack.enter_async_context(lifespan())
            yield


class CompanionServer:
    """Runs the companions on a socket, in the event loop of whoever starts it.

    Use `start()` and `stop()`, or `async with`. A server can be started once.
    """

    def __init__(self, settings: CompanionSettings | None = None) -> None:
        self._settings = settings or CompanionSettings()
        self._companions: Companions | None = None
        self._uvicorn: _QuietServer | None = None
        self._task: asyncio.Task[None] | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port it listens on; 0 before it is started."""
        return self._port

    @property
    def url(self) -> str:
        """Base address, without a slash at the end. The OpenAI base URL is this plus `/v1`."""
        host = self._settings.host
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"http://{shown}:{self._port}"

    async def start(self) -> None:
        """Listen, and return once requests are served.

        Raises:
            CompanionError: The port is taken or the data folder cannot be used.
        """
        if self._task is not None:
            raise CompanionError("These companions have been started before; make a new CompanionServer.")
        listener = _listen(self._settings.host, self._settings.port)
        try:
            self._port = int(listener.getsockname()[1])
            # Opening the sample data may write a few hundred rows: not in the event loop.
            self._companions = await asyncio.to_thread(Companions, self._settings)
            config = uvicorn.Config(
                self._companions.app, log_config=None, access_log=False, lifespan="off", ws="none",
                timeout_graceful_shutdown=_STOP_GRACE_S, timeout_keep_alive=75,
            )  # fmt: skip
            self._uvicorn = _QuietServer(config)
            # An empty context: a task made inside a replica's request would be cancelled with that request.
            self._task = asyncio.get_running_loop().create_task(
                self._run(self._companions, self._uvicorn, listener), context=contextvars.Context()
            )
            await self._until_started(self._task, self._uvicorn.is_up)
        except BaseException:
            listener.close()
            raise

    async def stop(self) -> None:
        """Stop listening, end what is under way within about two seconds, and close the data. May be called again."""
        if self._task is None or self._uvicorn is None or self._companions is None:
            return
        self._uvicorn.should_exit = True
        self._companions.end_answers()
        await asyncio.wait({self._task}, timeout=_STOP_GRACE_S + 4)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=2)
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    async def wait(self) -> None:
        """Return when the server has ended, raising what ended it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def __aenter__(self) -> CompanionServer:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    @staticmethod
    async def _run(companions: Companions, server: _QuietServer, listener: socket.socket) -> None:
        # The lifespan is entered here and not by uvicorn, which would answer its failure with sys.exit().
        app = companions.app
        async with app.router.lifespan_context(app):
            await server.serve(sockets=[listener])

    @staticmethod
    async def _until_started(task: asyncio.Task[None], is_up: asyncio.Event) -> None:
        waiter = asyncio.ensure_future(is_up.wait())
        done, _ = await asyncio.wait({task, waiter}, timeout=_START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if task in done:
            task.result()
        if not is_up.is_set():
            task.cancel()
            raise CompanionError("The companions did not start in time.")


async def serve(settings: CompanionSettings, stop: asyncio.Event, on_ready: Callable[[CompanionServer], None]) -> None:
    """Run the companions until `stop` is set; `on_ready` is told when they serve.

    Raises:
        CompanionError: They cannot start.
    """
    async with CompanionServer(settings) as server:
        on_ready(server)
        ended, stopped = asyncio.ensure_future(server.wait()), asyncio.ensure_future(stop.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()


class _QuietServer(uvicorn.Server):
    """A uvicorn server that leaves signals to its host and says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise CompanionError(
            f"The companions cannot listen on {host}:{port} ({error.strerror or error}); choose another port (--port)."
        ) from error
    return listener


def parse_names(text: str) -> tuple[CompanionName, ...]:
    """Read a comma-separated list of companions.

    Raises:
        CompanionError: One of them does not exist.
    """
    names: Sequence[str] = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in ALL_COMPANIONS]
    if unknown or not names:
        raise CompanionError(f"Unknown companion '{', '.join(unknown)}'; choose from {', '.join(ALL_COMPANIONS)}.")
    return tuple(name for name in ALL_COMPANIONS if name in names)
