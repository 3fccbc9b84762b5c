"""The turns of the store's contract, held with admission around it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from serve_app.quotas.admission import admitting
from serve_app.quotas.memory import MemoryQuotas
from serve_app.settings import LimitSettings
from serve_app.storage.memory import MemoryStore
from serve_app.storage.port import Store
from serve_app.telemetry import MemoryMetrics
from tests.contract.conftest import clock
from tests.contract.store_inputs import Clock
from tests.contract.test_store import *  # noqa: F403 - its tests run here with the store below
from tests.contract.test_store_waiting import *  # noqa: F403

__all__ = ["clock"]


@pytest.fixture
async def store(clock: Clock) -> AsyncIterator[Store]:
    limits = LimitSettings(user_concurrent_turns=1_000, tenant_tokens_per_minute=10_000_000)
    opened = admitting(MemoryStore(clock=clock), MemoryQuotas(counted=1_000, clock=clock), limits, MemoryMetrics())
    yield opened
    await opened.close()
