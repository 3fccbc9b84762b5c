"""What the OpenAPI document allows, sent to every route: no answer is a failure of the server, and each is one that the
document tells of.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation, BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.security.world import OPERATOR_TOKEN, make_world

EXAMPLES = 3
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def always_on(app: ASGIApp) -> ASGIApp:
    """The application without its end: the client used here begins and ends it with each request, and it drains then."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})

    return serve


@pytest.fixture(scope="module")
def document() -> BaseSchema:
    world = asyncio.run(make_world())
    document: BaseSchema = schemathesis.openapi.from_asgi("/openapi.json", always_on(world.app))
    return document


def test_no_request_makes_the_server_fail(document: BaseSchema) -> None:
    asked = 0
    for found in document.get_all_operations():
        assert isinstance(found, Ok), found
        sent_to(found.ok())
        asked += 1
    assert asked > 50


def sent_to(operation: APIOperation[Any, Any, Any, Any]) -> None:
    """A few requests to one route, by whoever may use it."""
    token = OPERATOR_TOKEN if operation.path.startswith("/api/admin") else "token-of-anna"

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        case.call_and_validate(headers={"authorization": f"Bearer {token}"}, checks=CHECKS)

    ask()
