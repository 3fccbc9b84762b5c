"""The same switches over HTTP, for a simulator that runs as a process: /_sim/…, outside of the paths an SDK uses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.simulators.cosmos.faults import Fault
from tests.simulators.cosmos.refusals import Refusal

if TYPE_CHECKING:
    from tests.simulators.cosmos.simulator import CosmosSimulator


class Control:
    """GET and DELETE /_sim/log · GET, POST and DELETE /_sim/faults · POST /_sim/faults/{id}/release · POST /_sim/split,
    /_sim/firewall, /_sim/clock · GET /_sim/documents?container=…"""

    def __init__(self, simulator: CosmosSimulator) -> None:
        self._simulator = simulator
        self._faults: dict[int, Fault] = {}

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/_sim/log", self._read_log)
        app.router.add_delete("/_sim/log", self._clear_log)
        app.router.add_get("/_sim/faults", self._read_faults)
        app.router.add_post("/_sim/faults", self._add_fault)
        app.router.add_delete("/_sim/faults", self._clear_faults)
        app.router.add_post("/_sim/faults/{id}/release", self._release)
        app.router.add_post("/_sim/split", self._split)
        app.router.add_post("/_sim/firewall", self._firewall)
        app.router.add_post("/_sim/clock", self._clock)
        app.router.add_get("/_sim/documents", self._documents)
        app.router.add_route("*", "/_sim/{rest:.*}", _unknown)

    async def _read_log(self, request: web.Request) -> web.Response:
        return web.json_response(self._simulator.log.rows())

    async def _clear_log(self, request: web.Request) -> web.Response:
        self._simulator.log.clear()
        return web.json_response({})

    async def _read_faults(self, request: web.Request) -> web.Response:
        return web.json_response({str(number): fault.hits for number, fault in self._faults.items()})

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            fault = self._simulator.faults.add(**await _object(request))
        except (TypeError, ValueError) as error:
            return _wrong(str(error))
        number = len(self._faults) + 1
        self._faults[number] = fault
        return web.json_response({"id": number})

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self._simulator.faults.clear()
        self._faults.clear()
        return web.json_response({})

    async def _release(self, request: web.Request) -> web.Response:
        number = request.match_info["id"]
        if not number.isdecimal() or int(number) not in self._faults:
            return _wrong(f"there is no fault {number}")
        self._simulator.faults.remove(self._faults[int(number)])
        return web.json_response({})

    async def _split(self, request: web.Request) -> web.Response:
        try:
            ranges = await self._simulator.split(**await _object(request))
        except (KeyError, TypeError, Refusal) as error:
            return _wrong(str(error))
        return web.json_response({"ranges": list(ranges)})

    async def _firewall(self, request: web.Request) -> web.Response:
        self._simulator.firewall = bool((await _object(request)).get("blocks", True))
        return web.json_response({"blocks": self._simulator.firewall})

    async def _clock(self, request: web.Request) -> web.Response:
        given = await _object(request)
        if set(given) - {"advance_s", "skew_s"}:
            return _wrong("the clock takes advance_s and skew_s")
        try:
            if "advance_s" in given:
                self._simulator.clock.advance(float(given["advance_s"]))
            if "skew_s" in given:
                self._simulator.clock.skew(float(given["skew_s"]))
        except ValueError as error:
            return _wrong(str(error))
        return web.json_response({"now": self._simulator.clock.now(), "wall": self._simulator.clock.wall()})

    async def _documents(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(self._simulator.documents(request.query.get("container", "")))
        except KeyError as error:
            return _wrong(str(error))


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        given = await request.json()
    except json.JSONDecodeError:
        given = None
    return given if isinstance(given, dict) else {}


async def _unknown(request: web.Request) -> web.Response:
    return _wrong(f"{request.method} {request.path} is no control of the simulator")


def _wrong(message: str) -> web.Response:
    return web.json_response({"error": message}, status=400)
