"""A turn as the server tells it, and what is unusual about it in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

from serve_app.cli.printable import one_line
from serve_app.errors import UpstreamFailed

ENDED = frozenset({"completed", "failed", "cancelled"})


class Tokens(Struct, frozen=True):
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    estimated: bool = False


class Call(Struct, frozen=True, kw_only=True):
    """A tool call; ``result_bytes`` is its result's length as JSON."""

    name: str
    outcome: Literal["ok", "failed", "unknown", "unfinished", "waiting"]
    arguments: dict[str, Any] = {}
    result: Any = None
    result_bytes: int = 0


class Step(Struct, frozen=True, kw_only=True):
    """A model call and its tools; ``attempt`` counts how often it was run."""

    step: int
    attempt: int
    model_id: str
    finish_reason: str
    usage: Tokens
    first_delta_ms: int | None = None
    model_ms: int = 0
    tools_ms: int = 0
    tool_calls: tuple[Call, ...] = ()
    provider: str = ""


class Failure(Struct, frozen=True):
    """What the turn's last event says of why it failed."""

    code: str
    message: str


class TurnReport(Struct, frozen=True, kw_only=True):
    """What ``GET /api/turns/{id}`` answers, as far as it is shown."""

    turn_id: str
    conversation_id: str
    state: str
    created_at: datetime
    deadline: datetime
    usage: Tokens
    steps: tuple[Step, ...]
    query: str = ""
    model_id: str | None = None
    request_id: str = ""
    finished_at: datetime | None = None
    last_seq: int = 0
    waits: bool = False
    replaces: str | None = None
    takeovers: int = 0
    attempts: int = 0
    cancel_requested: bool = False
    timings_ms: dict[str, int] = {}
    request_charge: float | None = None

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def took_ms(self) -> int:
        """From being accepted to its end, or until now."""
        until = self.finished_at or datetime.now(UTC)
        return max(0, round((until - self.created_at).total_seconds() * 1000))

    @property
    def models(self) -> list[str]:
        """The models that answered, in order."""
        return list(dict.fromkeys(step.model_id for step in self.steps))


def read_report(body: Mapping[str, Any], url: str) -> TurnReport:
    """Raises UpstreamFailed for an answer of another shape."""
    try:
        return msgspec.convert(body, TurnReport)
    except msgspec.ValidationError as error:
        raise UpstreamFailed(
            f"Parley at {url} tells of turns in another form ({error}); use its own `parley`."
        ) from error


def remarks(turn: TurnReport, failure: Failure | None, now: datetime) -> list[str]:
    """One sentence for each thing that is not as in any other turn."""
    return [*_state(turn, failure, now), *_ownership(turn), *_steps(turn)]


def duration(ms: float) -> str:
    """For people: ``45 ms``, ``3.2 s``, ``2 min 5 s``."""
    if ms < 1000:
        return f"{round(ms)} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    return f"{minutes} min {seconds} s"


def dollars(amount: float) -> str:
    """For people: ``$0.0013``, ``$1.20``; two digits that say something."""
    if amount >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.2g}" if amount >= 0.0001 else f"${amount:.6f}"


def _state(turn: TurnReport, failure: Failure | None, now: datetime) -> Iterator[str]:
    if turn.replaces is not None:
        yield f"Sent in place of message {one_line(turn.replaces)}: that one and what came after it are kept but not shown."
    match turn.state:
        case "failed" if failure is not None:
            yield f"Failed after {duration(turn.took_ms)}: {one_line(failure.message)} ({one_line(failure.code)})"
        case "failed":
            yield f"Failed after {duration(turn.took_ms)}; why is no longer kept."
        case "cancelled":
            yield f"Cancelled by the user after {duration(turn.took_ms)}."
        case "completed" if turn.cancel_requested:
            yield "The user asked it to stop, too late: the answer was complete."
    if turn.ended:
        return
    if turn.waits:
        yield "Waits until the answers before it in its conversation have ended."
    elif turn.state == "accepted":
        yield "Nobody has begun it yet."
    if turn.cancel_requested:
        yield "The user has asked it to stop; it has not ended yet."
    if now > turn.deadline and not turn.waits:
        late_ms = (now - turn.deadline).total_seconds() * 1000
        yield f"Its deadline passed {duration(late_ms)} ago, and nobody has ended it yet."


def _ownership(turn: TurnReport) -> Iterator[str]:
    if turn.takeovers:
        yield f"Taken over {_times(turn.takeovers)}: its owner stopped answering, or handed it over before ending."
    if turn.attempts > 1:
        where = "it ended" if turn.ended else "it is now"
        yield f"The step at which {where} was begun {_times(turn.attempts)}."


def _steps(turn: TurnReport) -> Iterator[str]:
    for step in turn.steps:
        if step.attempt > 1:
            yield f"Step {step.step} was run {_times(step.attempt)}; what had been shown of it before does not count."
        match step.finish_reason:
            case "length":
                yield f"Step {step.step} ended at the model's limit of output, so its text may break off."
            case "content_filter":
                yield f"Step {step.step} was ended by the provider's content filter."
        for call in step.tool_calls:
            name = one_line(call.name)
            if call.outcome == "unknown":
                yield f"The outcome of {name} is unknown: it may have taken effect."
            elif call.outcome == "unfinished" and turn.ended:
                yield f"{name} had not finished when the turn ended: it may have taken effect."


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
