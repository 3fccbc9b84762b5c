"""Trials as whoever asks for them sees them: a turn is accepted, run to its end, and handed back with its answer."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from serve_app.domain.conversation import Message
from serve_app.domain.generation import ModelCatalog
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolSet
from serve_app.domain.turns import NewTurn, Turn


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
