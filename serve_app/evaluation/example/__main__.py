"""Writes the example data set: ``python -m serve_app.evaluation.example [FILE]``."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Final

from serve_app.companions.sample_data import open_crm, open_hr
from serve_app.evaluation.case_files import write_cases
from serve_app.evaluation.cases import Case, CaseMessage
from serve_app.evaluation.example.asking import Asked, everything_asked, known
from serve_app.evaluation.example.recording import recorder

DEFAULT: Final = Path("configs/eval/crm_hr.jsonl")
SERVERS: Final = Path("configs/mcpservers.json")
MAX_AT_ONCE: Final = 8


async def example_cases() -> list[Case]:
    """All cases of the example data set: the same ones every time. Raises ConfigError."""
    with closing(open_crm(None)) as crm, closing(open_hr(None)) as hr:
        asked = everything_asked(known(crm, hr))
    room = asyncio.Semaphore(MAX_AT_ONCE)
    async with recorder(SERVERS) as recording:

        async def held(one: Asked) -> tuple[CaseMessage, ...]:
            async with room:
                return await recording.held(one.said, one.role)

        # In any order: none of them asks about what another one changes.
        conversations = await asyncio.gather(*map(held, asked))
    numbers = Counter[str]()
    cases = []
    for one, messages in zip(asked, conversations, strict=True):
        numbers[one.kind] += 1
        case_id = f"{one.kind}-{numbers[one.kind]:02d}"
        cases.append(
            Case(id=case_id, messages=messages, expected=one.expected, tags=(one.kind, *one.tags), role=one.role)
        )
    return cases


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    count = write_cases(target, asyncio.run(example_cases()))
    target.chmod(0o644)  # nobody's conversations: for everybody to read
    sys.stdout.write(f"{count} cases in {target}\n")
