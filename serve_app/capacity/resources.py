"""What a stage can run out of, and how much of it a run used.

The unit is the same for all: capacity per replica and second, and use per second. The utilisation law then says what a turn
demands (use per second over turns per second) and what rate fills it (capacity over demand).
"""

from __future__ import annotations

from msgspec import Struct


class ResourceUse(Struct, frozen=True):
    """One resource in one phase.

    ``resource`` is one of
      ``loop``    the thread of a replica's event loop (seconds per second, capacity 1 a replica)
      ``slots``   calls that a replica takes at a time (capacity ``slots`` a replica)
      ``writer``  the embedded store's one writer (capacity 1)
      ``cpu``     all cores of a machine (``stage`` is the node; capacity its cores)
      ``memory``  bytes (``stage`` is a stage or a node)
      ``process`` all CPU of a stage's processes, every thread (seconds per second; bounded by the machine only)
      ``request_units``  what a store that counts them was charged (per second; the bound is what was bought)
      ``requests``, ``tokens``  a provider's quota (``stage`` is the endpoint; per second)
    ``used`` is the mean of the phase in the resource's unit per second, ``capacity`` what all replicas together have.
    ``queued`` is how much waited for it, on average. ``capacity`` 0 means that it has no bound.
    """

    stage: str
    resource: str
    phase: int
    used: float
    capacity: float
    replicas: int
    queued: float = 0.0

    @property
    def utilisation(self) -> float:
        """Used over capacity; 0 where there is no bound."""
        return self.used / self.capacity if self.capacity > 0 else 0.0
