"""Decides what one request is answered with: a rule of the script, a load profile, or the demonstration assistant."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from serve_app.companions.provider.assistant.arguments import schema_example
from serve_app.companions.provider.assistant.conversation import Conversation
from serve_app.companions.provider.assistant.reply import Call, reply_to
from serve_app.companions.provider.failures import Failure, HttpFailure, Truncate
from serve_app.companions.provider.profile import LoadProfile, model_from_name
from serve_app.companions.provider.requests import ChatRequest
from serve_app.companions.provider.script import Response, Script, ScriptPlayer

_PIECE: Final = re.compile(r"\s*\S{1,32}|\s+$")
_FILLER_PERIOD: Final = 1000
_FILLER: Final = tuple(f" tok{index}" for index in range(_FILLER_PERIOD))

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Plan:
    """One answer, ready to be sent: its pieces or calls, its pace, and how it fails."""

    pieces: Sequence[str]
    calls: tuple[Call, ...]
    finish_reason: FinishReason
    profile: LoadProfile
    failure: Failure | None = None
    markers: bool = False
    source: str = "assistant"


class Planner:
    """Plans answers for one provider. Holds the script's position and the chance behind rates; one event loop."""

    def __init__(self, script: Script) -> None:
        self._profile = script.profile
        self._player = ScriptPlayer(script)
        self.chance = random.Random(script.profile.seed)

    def rewind(self) -> None:
        """Start the script and the chance from the beginning."""
        self._player.rewind()
        self.chance.seed(self._profile.seed)

    def plan(self, request: ChatRequest) -> Plan:
        """What to answer.

        Raises:
            ProviderError: 404 for a malformed `sim-…` model name.
        """
        conversation = Conversation.read(request.messages)
        scripted = self._player.answer(conversation.question, request.model, len(conversation.rounds))
        if scripted is not None:
            return self._scripted(request, *scripted)
        simulated = model_from_name(request.model)
        profile = simulated.profile if simulated is not None else self._profile
        source = "model name" if simulated is not None else "assistant"
        calls: tuple[Call, ...] = ()
        pieces: Sequence[str]
        if simulated is not None and request.tools and len(conversation.rounds) < simulated.tool_rounds:
            function = request.tools[0].function
            example = schema_example(function.parameters or {}, conversation.question)
            pieces, calls = (), (Call(function.name, msgspec.json.encode(example).decode()),)
        elif profile.tokens is not None:
            pieces = [_FILLER[index % _FILLER_PERIOD] for index in range(profile.tokens)]
        else:
            reply = reply_to(request, conversation)
            pieces, calls = split_pieces(reply.text), reply.calls
        failure = self._by_chance(profile, len(pieces))
        markers = simulated is not None and simulated.markers
        return _limited(request, Plan(pieces, calls, "stop", profile, failure, markers, source))

    def _scripted(self, request: ChatRequest, rule: str, response: Response) -> Plan:
        pace = {
            name: getattr(response, name) for name in ("ttft_ms", "token_ms") if getattr(response, name) is not None
        }
        profile = self._profile.model_copy(update=pace)
        calls = tuple(Call(call.name, msgspec.json.encode(call.arguments).decode()) for call in response.tool_calls)
        pieces = split_pieces(response.text)
        failure = response.failure or self._by_chance(profile, len(pieces))
        return _limited(request, Plan(pieces, calls, "stop", profile, failure, False, f"script: {rule}"))

    def _by_chance(self, profile: LoadProfile, pieces: int) -> Failure | None:
        if profile.error_rate and self.chance.random() < profile.error_rate:
            return HttpFailure(status=profile.error_status, retry_after_ms=50)
        if profile.truncate_rate and self.chance.random() < profile.truncate_rate:
            return Truncate(kind="truncate", after_chunks=self.chance.randrange(max(pieces, 1)))
        return None


def split_pieces(text: str) -> list[str]:
    """Cut a text into pieces of about a token each; joined they give the text again."""
    return _PIECE.findall(text)


def _limited(request: ChatRequest, plan: Plan) -> Plan:
    """Apply `stop` and the token limit, and settle the finish reason."""
    pieces: Sequence[str] = plan.pieces
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if any(stops) and pieces:
        text = "".join(pieces)
        cut = min((at for stop in stops if stop and (at := text.find(stop)) >= 0), default=len(text))
        if cut < len(text):
            pieces = split_pieces(text[:cut])
    reason: FinishReason = "tool_calls" if plan.calls else "stop"
    if request.limit_tokens is not None and len(pieces) > request.limit_tokens:
        pieces, reason = pieces[: request.limit_tokens], "length"
    return Plan(pieces, plan.calls, reason, plan.profile, plan.failure, plan.markers, plan.source)
