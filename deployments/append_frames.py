"""Appends to the turn log as the channel carries them: msgpack around what is JSON already."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from serve_app.domain.conversation import SessionPrompt
from serve_app.domain.events import EventRecord
from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import AppendTurn, FinishTurn, StepRecord

_PACK = msgspec.msgpack.Encoder()


class _Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What only some appends have."""

    steps: tuple[StepRecord, ...] = ()
    session_prompt: SessionPrompt | None = None
    finish: FinishTurn | None = None


class _Share(Struct, frozen=True, kw_only=True, array_like=True):
    """An append on the wire. ``outcome`` is JSON, as events' bodies are: tools may use integers msgpack has no room for."""

    key: TurnKey
    epoch: int
    lease_s: float
    records: tuple[EventRecord, ...]
    outcome: bytes
    # Later fields at the end and with defaults: a redeploy lets versions talk to each other.
    attempt: int = 0
    ahead: int = 0


_SHARES: msgspec.msgpack.Decoder[list[_Share]] = msgspec.msgpack.Decoder(list[_Share])
_OUTCOME: msgspec.json.Decoder[_Outcome] = msgspec.json.Decoder(_Outcome)
_NOTHING = msgspec.json.encode(_Outcome())


def encode_batch(batch: Sequence[AppendTurn]) -> bytes:
    """Appends as the channel carries them."""
    return _PACK.encode(
        [
            _Share(
                key=append.key,
                epoch=append.epoch,
                lease_s=append.lease_s,
                attempt=append.attempt,
                ahead=append.ahead,
                records=append.records,
                outcome=_outcome(append),
            )
            for append in batch
        ]
    )


def _outcome(append: AppendTurn) -> bytes:
    if not append.steps and append.session_prompt is None and append.finish is None:
        return _NOTHING  # as nearly always: a delta, or a renewal
    return msgspec.json.encode(_Outcome(steps=append.steps, session_prompt=append.session_prompt, finish=append.finish))


def decode_batch(payload: bytes) -> list[AppendTurn]:
    """The reverse. Raises msgspec.DecodeError."""
    batch = []
    for share in _SHARES.decode(payload):
        outcome = _OUTCOME.decode(share.outcome) if share.outcome != _NOTHING else _Outcome()
        batch.append(
            AppendTurn(
                key=share.key,
                epoch=share.epoch,
                lease_s=share.lease_s,
                attempt=share.attempt,
                ahead=share.ahead,
                records=share.records,
                steps=outcome.steps,
                session_prompt=outcome.session_prompt,
                finish=outcome.finish,
            )
        )
    return batch
