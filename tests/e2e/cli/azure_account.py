"""An account of Azure for the commands: the Cosmos simulator and Azurite, and an environment that points at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serve_app.cli.background import BackgroundLoop
from tests.simulators.cosmos import CosmosSimulator
from tests.simulators.files.azurite import Azurite, new_container


class AzureAccount:
    """``run`` does something in the loop of the simulator."""

    def __init__(self, cosmos: CosmosSimulator, azurite: Azurite, loop: BackgroundLoop) -> None:
        self.cosmos = cosmos
        self.azurite = azurite
        self.container = new_container("commands")
        self.run = loop.run

    def configure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a reader of the README sets."""
        monkeypatch.setenv("PARLEY_STORE", "azure")
        monkeypatch.setenv("PARLEY_AZURE__COSMOS_ENDPOINT", self.cosmos.endpoint)
        monkeypatch.setenv("AZURE_COSMOS_KEY", self.cosmos.key)
        for name, value in self.azurite.environment(self.container).items():
            monkeypatch.setenv(name, value)


@contextmanager
def azure_account(azurite: Azurite, *, serverless: bool = False) -> Iterator[AzureAccount]:
    with BackgroundLoop() as loop:
        cosmos = CosmosSimulator(serverless=serverless)
        loop.run(cosmos.start())
        try:
            yield AzureAccount(cosmos, azurite, loop)
        finally:
            loop.run(cosmos.stop())
