"""The few instructions in a system prompt that the demonstration assistant obeys, so that two prompts make a difference.

A real model follows what a prompt means; this one looks for these words, in any case, wherever a system message has them:

    answer in one sentence      one sentence, with what was asked for, instead of a table or a list of all fields
    name the id(s)              in one sentence: records with their ids
    without the currency        amounts as plain figures
    decline what …              a question that no tool fits is declined, instead of being talked about
    ask which one is meant      a question that names no record is asked back, instead of being tried

A prompt that has none of them gets the answers that it always got.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_SPACES: Final = re.compile(r"\s+")
_CURRENCY: Final = re.compile(r"(?<=\d) [A-Z]{3}\b")


@dataclass(frozen=True, slots=True)
class Instructions:
    """What a system prompt asks for; see above."""

    one_sentence: bool = False
    ids: bool = False
    no_currency: bool = False
    decline: bool = False
    ask_back: bool = False

    def applied_to(self, text: str) -> str:
        """An answer's text, changed where an instruction is about how it is written."""
        return _CURRENCY.sub("", text) if self.no_currency else text


def instructions_in(system: str) -> Instructions:
    """The instructions that a system prompt has."""
    plain = _SPACES.sub(" ", system).lower()
    return Instructions(
        one_sentence="answer in one sentence" in plain,
        ids="name the id" in plain,
        no_currency="without the currency" in plain,
        decline="decline what " in plain,
        ask_back="ask which one is meant" in plain,
    )
