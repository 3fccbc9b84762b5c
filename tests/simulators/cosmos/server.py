"""HTTP in front of the account: who may enter, faults on the way in and out, headers that every answer has."""

from __future__ import annotations

import contextlib
import logging
from urllib.parse import unquote

from aiohttp import web

from tests.simulators.cosmos import auth
from tests.simulators.cosmos.account import Account
from tests.simulators.cosmos.clock import Clock
from tests.simulators.cosmos.faults import Fault, Faults, Intent
from tests.simulators.cosmos.json_values import encode
from tests.simulators.cosmos.operations import KINDS, Log, Operation
from tests.simulators.cosmos.refusals import Refusal, new_activity_id
from tests.simulators.cosmos.requests import Call, Reply, check_headers

_LOG = logging.getLogger(__name__)
LARGEST_REQUEST_BYTES = 8 * 1024 * 1024


class Gate:
    """The switches of the way in: keys (base64), and whether the firewall lets anyone through."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.firewall = False


class Server:
    def __init__(self, account: Account, gate: Gate, faults: Faults, log: Log, clock: Clock) -> None:
        self._account = account
        self._gate = gate
        self._faults = faults
        self._log = log
        self._clock = clock

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A mistake of the simulator's own is a 400 too, and logged: a client would repeat a 500 and hide it."""
        try:
            return await self._handle(request)
        except web.HTTPException:
            raise
        except Exception as error:
            _LOG.exception("the simulator failed at %s %s", request.method, request.raw_path)
            refusal = Refusal(400, f"The simulator failed: {error!r}", code="SimulatorError")
            activity_id = new_activity_id()
            return self._send(self._refused(refusal, activity_id), activity_id)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        segments = [unquote(part) for part in path.split("/") if part]
        headers = {name.lower(): value for name, value in request.headers.items()}
        call = Call(request.method, segments, headers, await request.read())
        activity_id = new_activity_id()
        try:
            if self._gate.firewall:
                auth.check_firewall(request.remote or "unknown")
            auth.check(call.method, segments, headers, keys=self._gate.keys, now=self._clock.wall())
            check_headers(call)
            intent = self._account.intent(call)
        except Refusal as refusal:
            self._log.add(Operation("metadata", f"refused {call.method}", refusal.status, 0.0))
            return self._send(self._refused(refusal, activity_id), activity_id)
        struck = self._faults.strike(intent)
        ending = next((fault for fault in struck if not fault.delays), None)
        for fault in struck:
            if fault.delays and not fault.after_commit:
                await fault.wait_out()
        if ending is not None and not ending.after_commit:
            self._note(intent, ending.status or 0)
            return self._fail(request, ending, activity_id)
        reply = self._answer(call, intent, activity_id)
        for fault in struck:
            if fault.delays and fault.after_commit:
                await fault.wait_out()
        if ending is not None:
            return self._fail(request, ending, activity_id)
        return self._send(reply, activity_id)

    def _answer(self, call: Call, intent: Intent, activity_id: str) -> Reply:
        try:
            reply = self._account.answer(call, intent)
        except Refusal as refusal:
            self._note(intent, refusal.status, refusal.charge)
            return self._refused(refusal, activity_id)
        for operation in reply.operations:
            self._log.add(operation)
        return reply

    def _refused(self, refusal: Refusal, activity_id: str) -> Reply:
        headers = {"x-ms-substatus": str(refusal.substatus), **refusal.headers}
        return Reply(refusal.status, encode(refusal.body(activity_id)), headers, refusal.charge)

    def _note(self, intent: Intent, status: int, charge: float = 0.0) -> None:
        """Write down an operation that did not happen."""
        about: list[tuple[str | None, str | None]] = [*intent.documents] or [(None, None)]
        for name, (kind, document_id) in zip(intent.inside or [intent.operation], about, strict=True):
            self._log.add(
                Operation(
                    KINDS.get(name, "metadata"),
                    name,
                    status,
                    charge,
                    intent.container,
                    intent.partition,
                    document_id,
                    kind,
                )
            )

    def _fail(self, request: web.Request, fault: Fault, activity_id: str) -> web.StreamResponse:
        if fault.drop:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)  # nobody is there to read it
        headers = {}
        if fault.status == 429:
            headers["x-ms-retry-after-ms"] = str(fault.retry_after_ms if fault.retry_after_ms is not None else 10)
        message = {
            408: "Request timed out.",
            429: "Request rate is large. More Request Units may be needed, so no changes were made.",
            449: "Conflicting request to resource has been attempted. Retry to avoid conflicts.",
            503: "Service is currently unavailable, please retry after a while.",
        }.get(fault.status or 500, "The simulator was told to fail.")
        refusal = Refusal(fault.status or 500, message, substatus=fault.substatus, headers=headers)
        return self._send(self._refused(refusal, activity_id), activity_id)

    def _send(self, reply: Reply, activity_id: str) -> web.Response:
        headers = {
            "Date": self._clock.date(),
            "x-ms-activity-id": activity_id,
            "x-ms-request-charge": f"{reply.charge:.2f}",
            "x-ms-gatewayversion": "version=2.14.0",
            "x-ms-serviceversion": "version=2.14.0.0",
            "Server": "parley-cosmos-simulator",
            **reply.headers,
        }
        response = web.Response(status=reply.status, body=reply.body, headers=headers)
        if reply.body is not None:
            response.content_type = "application/json"
        return response


class Listener:
    """The socket. An open connection is closed at once when it stops."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handle_signals=False)

    async def start(self, host: str, port: int) -> int:
        """The port that is listened on."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        host_and_port: tuple[str, int] = self._runner.addresses[0]
        return host_and_port[1]

    async def stop(self) -> None:
        with contextlib.suppress(OSError):
            await self._runner.cleanup()
