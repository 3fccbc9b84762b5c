"""What is put around the gateway keeps all that it has beyond its port.

prices ─► answer cache ─► gateway
"""

from __future__ import annotations

from typing import Protocol

from serve_app.models.gateway import ProviderState
from serve_app.models.port import ModelGateway


class CheckedGateway(ModelGateway, Protocol):
    """A gateway that can be asked how its providers are, and be closed."""

    async def check(self, timeout_s: float = 5.0) -> tuple[ProviderState, ...]:
        """Asks every provider for its models, all at once, and says in words what is wrong."""

    async def aclose(self) -> None:
        """Closes all connections; calls that still run fail."""
