"""What a plan is asked for, and what it takes for granted. All of it is printed with the plan."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from serve_app.errors import ConfigError

StoreKind = Literal["embedded", "cosmos"]
StoreChoice = Literal["auto", "embedded", "cosmos"]

CONNECTION_BYTES = 60_000
"""Memory of a connection that is held, beside its replica's own: 1000 idle sockets took 49 MiB when this was measured."""
SYNC_RU = 92.0
TOOL_RU = 24.0
"""Request units of a turn, and of a tool call of it, as the README's table counts them: used where no run measured any."""


class Wanted(Struct, frozen=True, kw_only=True):
    """``users`` are those who use the service in the busiest part of the day; each asks ``turns_per_user_hour`` then, on
    average. ``connected`` is the share of them that hold a connection at a time. The plan is for ``peak_factor`` times the
    average, and leaves ``headroom`` of every resource free at that peak. ``quiet`` is the share of the average that is left in
    the quietest hour, for which the fewest replicas are.
    """

    users: int
    turns_per_user_hour: float
    connected: float = 1.0
    peak_factor: float = 2.0
    headroom: float = 0.4
    quiet: float = 0.1
    node_loss: bool = True
    store: StoreChoice = "auto"

    @property
    def average_per_s(self) -> float:
        """Turns per second."""
        return self.users * self.turns_per_user_hour / 3600

    @property
    def peak_per_s(self) -> float:
        return self.average_per_s * self.peak_factor

    @property
    def quiet_per_s(self) -> float:
        return self.average_per_s * self.quiet

    @property
    def connections(self) -> int:
        return round(self.users * self.connected)

    def assumptions(self) -> list[str]:
        """Each in a sentence, with how to change it."""
        said = [
            f"Peak: {self.peak_factor:g} times the average of {self.average_per_s:.3g} turns a second (--peak-factor).",
            f"Head-room: {self.headroom:.0%} of every resource stays free at the peak (--headroom).",
            f"Connections: {self.connected:.0%} of the users hold one at a time (--connected),"
            f" {CONNECTION_BYTES / 1000:.0f} kB of memory each.",
            f"Quietest hour: {self.quiet:.0%} of the average (--quiet); min_replicas are for it, two at least.",
        ]
        if self.node_loss:
            said.append("One node may be lost at the peak: replicas and nodes are enough without it (--no-node-loss).")
        return said


def store_choice(text: str) -> StoreChoice:
    """Raises ConfigError that lists what there is."""
    for choice in get_args(StoreChoice):
        if text == choice:
            found: StoreChoice = choice
            return found
    raise ConfigError(f"Option --store: {text!r} is no store; there are {', '.join(get_args(StoreChoice))}.")
