from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

import pytest

from tests.simulators.files.azurite import Azurite, running_azurite
from tests.simulators.files.flaky import FlakyBlob


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    with running_azurite() as running:
        yield running


@pytest.fixture
async def flaky(azurite: Azurite) -> AsyncGenerator[FlakyBlob]:
    async with FlakyBlob(azurite) as proxy:
        yield proxy
