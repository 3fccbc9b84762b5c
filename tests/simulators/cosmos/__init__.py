"""A Cosmos DB account (NoSQL API) that lives in this process: the real SDK talks to it over loopback HTTP."""

from tests.simulators.cosmos.simulator import CosmosSimulator

__all__ = ["CosmosSimulator"]
