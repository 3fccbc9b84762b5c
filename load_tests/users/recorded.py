"""Recorded conversations as what users say: their questions, after the pauses they made."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random

from load_tests.users.talk import question_of
from load_tests.ways.way import Question
from serve_app.capacity.scenario import UserEntry
from serve_app.errors import ConfigError
from serve_app.transcripts.reading import read_transcripts
from serve_app.transcripts.transcript import Said, Transcript

MAX_PAUSE_S = 600.0
"""A pause over night is nobody's load."""


@cache
def _read(path: Path) -> tuple[Transcript, ...]:
    return tuple(transcript for transcript in read_transcripts(path) if transcript.questions())


def recorded(entry: UserEntry) -> tuple[Transcript, ...]:
    """The entry's conversations, read once. Raises ConfigError for a file that cannot be read, or where nobody asks anything."""
    if entry.transcripts is None:
        raise ConfigError("A user of kind transcript needs transcripts: FILE.")
    found = _read(entry.transcripts)
    if not found:
        raise ConfigError(f"Nobody asks anything in the transcripts {entry.transcripts}.")
    return found


class RecordedTalk:
    """See ``Talk``. Users begin at different conversations and go through all of them, over and over."""

    def __init__(self, entry: UserEntry, chance: Random, transcripts: tuple[Transcript, ...], first: int) -> None:
        self._entry = entry
        self._chance = chance
        self._transcripts = transcripts
        self._next = first
        self._questions: list[Said] = []
        self._position = 0
        self._fresh = False
        self._pause_s: float | None = None

    def begins_anew(self) -> bool:
        if self._position >= len(self._questions):
            transcript = self._transcripts[self._next % len(self._transcripts)]
            self._next += 1
            self._questions, self._position, self._fresh = list(transcript.questions()), 0, True
        return self._fresh

    def pause_s(self) -> float:
        """As recorded, by the entry's speed; a pause that nobody recorded is drawn as anybody's."""
        if self._pause_s is None:
            self.begins_anew()
            pause_s = self._questions[self._position].pause_s
            drawn = self._entry.think_s.draw(self._chance) if pause_s is None else pause_s / self._entry.speed
            self._pause_s = min(drawn, MAX_PAUSE_S)
        return self._pause_s

    def next_question(self) -> Question:
        said = self._questions[self._position]
        self._position += 1
        self._fresh = False
        self._pause_s = None
        return question_of(self._entry, said.text, self._chance)
