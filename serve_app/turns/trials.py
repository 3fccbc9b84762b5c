"""Trials as whoever asks for them sees them: a turn is accepted, run to its end, and handed back with its answer.

    run ─► room? ─► accepted, or found as accepted before ─► run here, or waited for where it is another's ─► its end, read

All of it can be asked for again by whoever was cut off: the turn is the same one.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import time
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace
from ulid import ULID

from serve_app.domain.conversation import Message
from serve_app.domain.events import TurnFailed
from serve_app.domain.generation import ModelCatalog
from serve_app.domain.identity import Principal
from serve_app.domain.ids import TRIAL_PREFIX, ConversationKey, TurnKey
from serve_app.domain.tools import ToolSet
from serve_app.domain.turns import NewTurn, Turn
from serve_app.errors import NotFound, ParleyError, StageUnavailable
from serve_app.models.port import ModelGateway
from serve_app.prompting.port import PromptBuilder
from serve_app.storage.port import Store
from serve_app.telemetry import logger
from serve_app.tools.port import ToolExecutor
from serve_app.turns.stage import TurnsStage
from serve_app.turns.trial_turn import prompt_label

EVALUATION_USER = "~evaluation"
"""Who owns an evaluation's turns, in the tenant that it is for. Nobody can be called so."""

FIRST_LOOK_S = 0.05
MAX_LOOK_S = 1.0
LATE_S = 10.0
"""How long after its deadline a turn is waited for, beside a lease: what it has to do then is to be ended."""

log = logger("turns.trials")


class TrialFailure(Struct, frozen=True, kw_only=True):
    """Why a turn failed, as its terminal event says."""

    code: str
    message: str
    retryable: bool = False


class TrialEnd(Struct, frozen=True, kw_only=True):
    """A turn that has ended. ``turn`` has its steps, usage and timings; its ``query`` is without the trial, which is known."""

    turn: Turn
    message: Message | None = None
    failure: TrialFailure | None = None
    prompt: str = ""
    """Name and version of the prompt it was given: ``assistant@v2``; empty for a turn without one."""


class TrialGraph(Protocol):
    """The stages of a graph, for whoever runs trials: in this process, or behind a handle."""

    async def run(self, turn: NewTurn) -> TrialEnd:
        """Runs a turn to its end; one that came before (by its key and ``client_turn_id``) is not run again.

        Raises Overloaded and QuotaExceeded where the graph has no room now (``retry_after_s`` says when to ask again),
        StageUnavailable where what ran it has gone: asking again finds the turn as it is then. Cancelling leaves it running.
        """

    async def catalog(self) -> ModelCatalog:
        """The models that can be asked for."""

    async def tools_for(self, principal: Principal) -> ToolSet:
        """The tools that the principal may use now."""

    async def prompts(self) -> dict[str, tuple[str, ...]]:
        """The versions of every prompt by name, drafts included, the one in use first."""

    async def aclose(self) -> None:
        """Lets go of the graph; ends what was started for it."""


def trial_key(owner: Principal, *parts: str | int, prefix: str = TRIAL_PREFIX) -> TurnKey:
    """The key of the one turn that ``parts`` name, such as run, configuration, case, repeat and attempt: the same each time.

    It is a turn of a conversation of its own, in no list. Give the turn a ``client_turn_id`` as well: the turn id's own.
    """
    named = "\n".join(f"{len(text)}:{text}" for text in map(str, parts))
    digest = hashlib.sha256(named.encode()).digest()
    conversation = f"{prefix}{ULID.from_bytes(digest[:16])}"
    return TurnKey(
        conversation=ConversationKey.of(owner, conversation), turn_id=f"{conversation}.{ULID.from_bytes(digest[16:])}"
    )


class Trials:
    """Implements ``TrialGraph`` over a Turns stage in this process and its neighbours.

    ``alone``: nobody else has the store, so that a turn of another owner has lost it. ``aclose`` ends nothing: the stages are
    their owner's.
    """

    def __init__(
        self,
        *,
        store: Store,
        stage: TurnsStage,
        prompts: PromptBuilder,
        models: ModelGateway,
        tools: ToolExecutor,
        lease_s: float,
        alone: bool = False,
    ) -> None:
        self._store = store
        self._stage = stage
        self._prompts = prompts
        self._models = models
        self._tools = tools
        self._late_s = lease_s + LATE_S
        self._alone = alone
        self._running: set[asyncio.Task[bool]] = set()

    async def run(self, turn: NewTurn) -> TrialEnd:
        with self._stage.room.place():
            await asyncio.sleep(self._stage.room.wait_s())
            accepted = await self._store.accept_turn(replace(turn, priority="batch", opens=True))
            found = accepted.turn
            if not found.ended:
                found = await self._ended(found)
            return await self._end(found)

    async def catalog(self) -> ModelCatalog:
        return await self._models.catalog()

    async def tools_for(self, principal: Principal) -> ToolSet:
        return await self._tools.tools_for(principal)

    async def prompts(self) -> dict[str, tuple[str, ...]]:
        return await self._prompts.versions()

    async def aclose(self) -> None:
        """Nothing is held."""

    async def _ended(self, turn: Turn) -> Turn:
        """The turn when it has ended, here or elsewhere. Raises StageUnavailable where it has not long after it should have."""
        give_up = max(time.time(), turn.due) + self._late_s
        wait_s = FIRST_LOOK_S
        while True:
            await asyncio.shield(self._begin(turn.key, self._dead(turn)))
            turn = await self._store.get_turn(turn.key)
            if turn.ended:
                return turn
            if time.time() > give_up:
                raise StageUnavailable("The trial's turn has come to no end; ask again in a moment.", None, MAX_LOOK_S)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, MAX_LOOK_S)

    def _begin(self, key: TurnKey, dead: Sequence[str]) -> asyncio.Task[bool]:
        # A fresh context, and a reference: the turn goes on whatever becomes of whoever asked.
        task = asyncio.create_task(self._stage.run_turn(key, dead=dead, batch=True), context=contextvars.Context())
        self._running.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[bool]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("trial_not_run", error=str(error))

    def _dead(self, turn: Turn) -> tuple[str, ...]:
        owner = turn.owner
        if not self._alone or owner is None or owner.replica_id == self._stage.owner.replica_id:
            return ()
        return (owner.replica_id,)

    async def _end(self, turn: Turn) -> TrialEnd:
        """What there is to say of a turn that has ended."""
        return TrialEnd(
            turn=replace(turn, query=replace(turn.query, trial=None)),
            message=await self._message(turn),
            failure=await self._failure(turn),
            prompt="" if turn.query.given is not None else await self._prompt(turn),
        )

    async def _message(self, turn: Turn) -> Message | None:
        try:
            return await self._store.get_message(turn.key.conversation, turn.key.assistant_message_id)
        except NotFound:
            return None

    async def _prompt(self, turn: Turn) -> str:
        kept = (await self._store.get_conversation(turn.key.conversation)).session_prompt
        return "" if kept is None else prompt_label(kept.name, kept.version)

    async def _failure(self, turn: Turn) -> TrialFailure | None:
        if turn.state == "completed":
            return None
        if turn.state == "cancelled":
            return TrialFailure(code="cancelled", message="The turn was stopped before it had ended.", retryable=True)
        try:
            page = await self._store.read_events(turn.key, after_seq=turn.last_seq - 1)
        except ParleyError as error:
            return TrialFailure(code=error.code, message=f"Why the turn failed is not known: {error.message}")
        for record in page.records:
            if isinstance(event := record.event(), TurnFailed):
                return TrialFailure(code=event.code, message=event.message, retryable=event.retryable)
        return TrialFailure(code="internal", message="Why the turn failed is not known.")
