"""What 1000 turns cost: machines, tokens, request units."""

from __future__ import annotations

from msgspec import Struct

from serve_app.capacity.machines import Machine, Machines
from serve_app.capacity.node_plan import NodePlan
from serve_app.capacity.wanted import Wanted
from serve_app.domain.usage import Price, Usage

MILLION = 1_000_000


class Costs(Struct, frozen=True):
    """In ``currency`` per 1000 turns at the average rate. ``machines`` is for all nodes at all times, ``machines_following`` for
    as many as the average needs. ``tokens`` is in US dollars, as the models file has it. None: not counted; ``missing`` says why.
    """

    currency: str
    machines: float
    machines_following: float
    machines_per_hour: float
    tokens: float | None
    request_units: float | None
    missing: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Of what was counted."""
        return self.machines + (self.tokens or 0.0) + (self.request_units or 0.0)


def costs(
    wanted: Wanted,
    nodes: NodePlan,
    machine: Machine,
    machines: Machines,
    tokens: tuple[float, float],
    model: str,
    price: Price | None,
    rus_per_s: float | None,
) -> Costs:
    """``tokens`` are input and output of a turn; ``price`` None where ``model`` has none; ``rus_per_s`` what is provisioned."""
    missing = []
    thousands_per_hour = wanted.average_per_s * 3600 / 1000
    per_hour = nodes.all * machine.price_per_hour
    token_cost = None
    if price is None:
        missing.append(
            f"Tokens: the models file has no price for {model or 'the default model'};"
            " give it one, name another model with --model, or say --token-price."
        )
    else:
        used = Usage(input_tokens=round(tokens[0] * 1000), output_tokens=round(tokens[1] * 1000))
        token_cost = price.cost_microusd(used) / MILLION
        if machines.currency != "USD":
            missing.append(f"Tokens are in USD and machines in {machines.currency}: the sum mixes them.")
    unit_cost = None
    if rus_per_s is not None:
        if machines.cosmos is None:
            missing.append(f"Request units: {machines.source} has no price for them.")
        else:
            unit_cost = rus_per_s / 100 * machines.cosmos.price_per_100_rus_hour / thousands_per_hour
    return Costs(
        currency=machines.currency,
        machines=per_hour / thousands_per_hour,
        machines_following=(nodes.following + nodes.heads) * machine.price_per_hour / thousands_per_hour,
        machines_per_hour=per_hour,
        tokens=token_cost,
        request_units=unit_cost,
        missing=tuple(missing),
    )
