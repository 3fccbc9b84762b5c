"""What one request to a provider leaves behind: how much the next one is taken to need."""

from __future__ import annotations

import time
from collections import deque

from serve_app.domain.generation import Generation, ModelMessage, ModelRequest
from serve_app.models.attempt import Attempt
from serve_app.models.call import Call
from serve_app.models.config import ModelConfig
from serve_app.models.endpoint import Endpoints
from serve_app.models.port import TextSink
from serve_app.models.routes import Route
from serve_app.telemetry import MemoryMetrics
from tests.unit.models.resilience.test_fallback import Adapter
from tests.unit.models.resilience.timing import Chance, Clock


class Uncounted(Adapter):
    """A provider that counts no tokens."""

    async def generate(
        self,
        request: ModelRequest,
        on_text: TextSink,
        model: str,
        upstream: str | None = None,
        max_output_tokens: int | None = None,
    ) -> Generation:
        text = "word " * 1_600
        on_text([text])
        return Generation(model_id=model, finish_reason="stop", text=text)


async def test_answers_that_a_provider_does_not_count_are_not_expected_to_be_empty() -> None:
    clock = Clock()
    route = Route("p", ModelConfig(id="m"))
    endpoint = Endpoints(MemoryMetrics(), clock, Chance()).of(route, None)
    for _ in range(50):
        request = ModelRequest(messages=(ModelMessage(role="user", content="Hello"),), deadline=time.time() + 60)
        call = Call(request, lambda _: None, clock(), clock() + 60)
        adapter = Uncounted("p", {"m": deque()})
        await Attempt(call, route, endpoint, adapter, call.show, quota=None, patience_s=float("inf"), clock=clock).run()
    assert 1_800 < endpoint.expected_output_tokens() <= 2_000
