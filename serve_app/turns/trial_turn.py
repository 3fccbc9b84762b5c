"""A trial's turn as the step loop runs it: what a conversation would have brought along is taken from the trial.

Whoever owns the turn pays for it and keeps it; as whom it acts decides on prompt and tools. Of the prompt only the name is kept
with the conversation: its text would be there once for every turn.
"""

from __future__ import annotations

from msgspec.structs import replace

from serve_app.domain.identity import Principal
from serve_app.domain.prompts import Prompt
from serve_app.domain.trial import Trial
from serve_app.domain.turns import Query, Turn, TurnClaim
from serve_app.turns.given import first_settings


def as_claimed(claim: TurnClaim) -> TurnClaim:
    """The claim with the history that the model is to see. A claim of any other turn is what it was."""
    trial = claim.turn.query.trial
    return claim if trial is None else replace(claim, history=trial.history)


def acting_principal(turn: Turn) -> Principal:
    """As whom the prompt is built and tools are offered and called."""
    trial = turn.query.trial
    return turn.principal if trial is None or trial.acting is None else trial.acting


def prompt_choice(query: Query) -> tuple[str | None, str | None]:
    """Name and version of the prompt that is asked for; None is the default one, and the version in use."""
    if query.given is not None:
        return query.given.prompt, None
    return (None, None) if query.trial is None else (query.trial.prompt, query.trial.prompt_version)


def trial_prompt(prompt: Prompt, trial: Trial) -> Prompt:
    """The prompt with the trial's settings before its own, and of the session's only what it is called."""
    return replace(
        prompt,
        settings=first_settings(trial.settings, prompt.settings),
        session_prompt=replace(prompt.session_prompt, text="", fingerprint=""),
    )


def prompt_label(name: str, version: str) -> str:
    """A prompt as results name it: ``assistant@v2``."""
    return f"{name}@{version}" if name else ""
