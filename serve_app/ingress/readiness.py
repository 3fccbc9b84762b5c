"""Whether this replica can serve: every dependency asked at once, each under a deadline, remembered for a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from serve_app.domain.identity import Principal
from serve_app.domain.prompts import PromptRequest
from serve_app.errors import ParleyError
from serve_app.ingress.services import Check, IngressServices
from serve_app.telemetry import logger
from serve_app.wire.service import DependencyView, Readiness, ToolServerView

CHECK_TIMEOUT_S = 2.0
FRESH_S = 1.0
_PROBE_ROLES = ("admin", "management", "sales", "hr")

_log = logger("ingress.ready")


class ReadinessProbe:
    """Asks for ``/ready``. ``draining`` makes it say so whatever the dependencies say."""

    def __init__(self, services: IngressServices) -> None:
        self._services = services
        self._show_errors = services.settings.mode == "development"
        self._asking = asyncio.Lock()
        self._kept: Readiness | None = None
        self._stale_at = 0.0
        self.draining = False

    async def __call__(self) -> Readiness:
        async with self._asking:  # however many ask, the dependencies are asked once
            if self._kept is None or time.monotonic() >= self._stale_at:
                self._kept = await self._ask()
                self._stale_at = time.monotonic() + FRESH_S
            kept = self._kept
        return Readiness(status="draining", dependencies=kept.dependencies) if self.draining else kept

    async def _ask(self) -> Readiness:
        probes: dict[str, Callable[[], Awaitable[DependencyView]]] = {
            "store": lambda: self._checked(self._services.store.check),
            "models": self._models,
            "prompts": self._prompts,
            "tools": self._tools,
            "files": self._files,
            **{name: self._extra(check) for name, check in self._services.checks.items()},
        }
        views = await asyncio.gather(*(self._bounded(name, probe) for name, probe in probes.items()))
        dependencies = dict(zip(probes, views, strict=True))
        if any(view.critical and view.state == "down" for view in views):
            return Readiness(status="unavailable", dependencies=dependencies)
        if any(view.state != "up" for view in views):
            return Readiness(status="degraded", dependencies=dependencies)
        return Readiness(status="ready", dependencies=dependencies)

    async def _bounded(self, name: str, probe: Callable[[], Awaitable[DependencyView]]) -> DependencyView:
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                view = await probe()
        except TimeoutError:
            view = self._down(f"It did not answer within {CHECK_TIMEOUT_S:g} s.")
        except ParleyError as error:
            view = self._down(error.message)
        except Exception as error:
            _log.exception("check_failed", dependency=name)
            view = self._down(type(error).__name__)
        return view.model_copy(update={"duration_ms": round((time.perf_counter() - begun) * 1000, 1)})

    def _down(self, reason: str) -> DependencyView:
        return DependencyView(state="down", duration_ms=0, error=reason if self._show_errors else None)

    async def _checked(self, check: Check) -> DependencyView:
        await check()
        return DependencyView(state="up", duration_ms=0)

    def _extra(self, check: Check) -> Callable[[], Awaitable[DependencyView]]:
        return lambda: self._checked(check)

    async def _files(self) -> DependencyView:
        """Without them nothing can be uploaded; conversations go on."""
        reason = None
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S * 0.9):  # before whoever asks gives it up as critical
                await self._services.files.check()
        except TimeoutError:
            reason = "Where files are kept does not answer."
        except ParleyError as error:
            reason = error.message
        if reason is None:
            return DependencyView(state="up", critical=False, duration_ms=0)
        shown = reason if self._show_errors else None
        return DependencyView(state="degraded", critical=False, duration_ms=0, error=shown)

    async def _models(self) -> DependencyView:
        catalog = await self._services.models.catalog()
        if not catalog.models and not catalog.any_model:
            return self._down("No model is configured.")
        return DependencyView(state="up", duration_ms=0, simulated=catalog.simulated)

    async def _prompts(self) -> DependencyView:
        """Builds the configured prompt for somebody who has every usual role."""
        request = PromptRequest(
            principal=Principal(tenant_id="readiness", user_id="readiness", roles=_PROBE_ROLES),
            query="",
            prompt_name=self._services.settings.conversation.prompt,
        )
        await self._services.prompts.build(request)
        return DependencyView(state="up", duration_ms=0)

    async def _tools(self) -> DependencyView:
        """A server that is down takes its tools away, not the conversation."""
        servers = await self._services.tools.servers()
        views = [
            ToolServerView(
                name=server.name,
                state=server.state,
                tools=len(server.tools),
                error=server.error if self._show_errors else None,
                quarantined=list(server.quarantined),
            )
            for server in servers
        ]
        all_up = all(server.state == "up" and not server.quarantined for server in servers)
        return DependencyView(state="up" if all_up else "degraded", duration_ms=0, servers=views)
