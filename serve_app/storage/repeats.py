"""Whether an input has a turn already: what refuses new input must let through one that was accepted before."""

from __future__ import annotations

from msgspec.structs import replace

from serve_app.domain.turns import AcceptedTurn, NewTurn
from serve_app.errors import ParleyError
from serve_app.storage.port import TurnStore


async def accepted_before(store: TurnStore, turn: NewTurn) -> AcceptedTurn | None:
    """The turn that the same input was given. Asks by accepting it in place of a message that nobody has, which makes none."""
    if turn.client_turn_id is None:
        return None
    try:
        return await store.accept_turn(replace(turn, replaces=turn.key.assistant_message_id, opens=False))
    except ParleyError:
        return None
