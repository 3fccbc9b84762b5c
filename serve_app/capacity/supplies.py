"""What a plan asks of others: the models' provider, and the store."""

from __future__ import annotations

import math

from msgspec import Struct

from serve_app.capacity.measured import Measured
from serve_app.capacity.wanted import SYNC_RU, TOOL_RU, StoreKind, Wanted


class ProviderPlan(Struct, frozen=True):
    """What the models' provider must grant in a minute at the peak, head-room included. ``calls`` and tokens are of a turn."""

    rpm: int
    tpm: int
    calls: float
    input_tokens: float
    output_tokens: float
    streams: float


class StorePlan(Struct, frozen=True):
    """``utilisation`` is the embedded writer's at the peak (None where the plan is for Cosmos DB), ``carries_per_s`` what it
    carries at the planned utilisation; None where nothing was measured of it. ``rus_per_s`` is what to provision at Cosmos DB;
    ``ru_measured``: whether a run counted the units of a turn, or they are the README's.
    """

    kind: StoreKind
    utilisation: float | None = None
    carries_per_s: float | None = None
    ru_per_turn: float | None = None
    rus_per_s: int | None = None
    ru_measured: bool = False


def store_plan(measured: Measured, wanted: Wanted, utilisation: float) -> StorePlan:
    writer = measured.demand("Store", "writer")
    carries = share = None
    if writer is not None and writer.per_turn > 0:
        carries = max(utilisation - writer.fixed, 0.0) / writer.per_turn
        share = writer.fixed + writer.per_turn * wanted.peak_per_s
    enough = carries is not None and carries >= wanted.peak_per_s
    kind: StoreKind
    if wanted.store == "auto":
        # Where nothing is known of the writer, a run on Azure has told what a turn costs there.
        kind = "embedded" if enough or (carries is None and measured.request_units is None) else "cosmos"
    else:
        kind = wanted.store
    units = measured.request_units or SYNC_RU + TOOL_RU * measured.tool_calls
    return StorePlan(
        kind=kind,
        utilisation=share if kind == "embedded" else None,
        carries_per_s=carries,
        ru_per_turn=units,
        rus_per_s=math.ceil(wanted.peak_per_s * units / utilisation / 100) * 100,
        ru_measured=measured.request_units is not None,
    )


def provider_plan(measured: Measured, wanted: Wanted, utilisation: float) -> ProviderPlan:
    per_minute = wanted.peak_per_s * 60 / utilisation
    calls = measured.model_calls or 1 + measured.tool_calls
    return ProviderPlan(
        rpm=math.ceil(per_minute * calls),
        tpm=math.ceil(per_minute * (measured.input_tokens + measured.output_tokens)),
        calls=calls,
        input_tokens=measured.input_tokens,
        output_tokens=measured.output_tokens,
        streams=wanted.peak_per_s * measured.per_turn("ModelGateway", "slots"),
    )
