"""Recorded conversations as load: their questions in order, after their pauses, each on the answers before it."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from load_tests.filler import expected_text
from tests.simulators.load_tests.generator import make_load
from tests.simulators.load_tests.liar import PIECES, make_liar
from tests.simulators.load_tests.paced import PacedModels, paced_app
from tests.simulators.load_tests.serving import in_thread, only

QUESTIONS = ("Who is it?", "Since when?", "Thanks.")
TOKENS = 5


def recorded(folder: Path, pause_s: float) -> Path:
    """One conversation; each question came ``pause_s`` after the answer before it."""
    messages: list[dict[str, Any]] = []
    for number, question in enumerate(QUESTIONS):
        at = 1000 + number * (pause_s + 2)
        messages.append({"role": "user", "content": question, "timestamp": at})
        messages.append({"role": "assistant", "content": "what was said then", "timestamp": at + 2})
    path = folder / "said.jsonl"
    path.write_text(json.dumps({"messages": messages}) + "\n")
    return path


@pytest.mark.parametrize("wire", ["ws_chat", "sse_chat", "openai_chat"])
async def test_a_recorded_conversation_is_held_again_with_the_graphs_own_answers(tmp_path: Path, wire: str) -> None:
    simulated = {"ttft_ms": 20, "token_ms": 1, "reply_tokens": TOKENS}
    entry = {"kind": "transcript", "wire": wire, "speed": 2, "think_s": 0.5, "simulated": simulated}
    scenario = {
        "name": "again", "warm_up_s": 0, "users": [entry | {"transcripts": str(recorded(tmp_path, pause_s=1.0))}],
        "load": {"model": "closed", "shape": {"kind": "constant", "level": 1, "for_s": 5}},
    }  # fmt: skip
    models = PacedModels()
    with in_thread(partial(paced_app, models=models)) as url:
        made = await make_load(tmp_path, url, scenario)
    assert made.ended["ended"] == "done"
    assert [turn.code for turn in made.turns] == [""] * len(made.turns)
    asked = [messages[-1][1] for messages in models.heard]
    assert len(asked) >= 3
    assert asked == [QUESTIONS[number % 3] for number in range(len(asked))]
    answer = (expected_text(f"sim-t20-i1-n{TOKENS}") or "").strip()
    third = [(role, text.strip()) for role, text in models.heard[2] if role != "system"]
    assert third == [
        ("user", QUESTIONS[0]), ("assistant", answer), ("user", QUESTIONS[1]), ("assistant", answer), ("user", QUESTIONS[2]),
    ]  # fmt: skip
    turns = sorted(made.turns, key=lambda turn: turn.due_at)
    for before, after in pairwise(turns[:3]):
        assert before.turn_ms is not None
        assert after.due_at - before.due_at - before.turn_ms / 1000 == pytest.approx(0.5, abs=0.1)


async def test_a_tool_users_answer_without_a_tool_has_failed(tmp_path: Path) -> None:
    simulated = {"ttft_ms": 0, "token_ms": 0, "reply_tokens": len(PIECES)}
    scenario = {
        "name": "tools", "warm_up_s": 0, "users": [{"kind": "tools", "simulated": simulated}],
        "load": {"model": "open", "shape": {"kind": "constant", "level": 5, "for_s": 2}},
    }  # fmt: skip
    with in_thread(only(make_liar())) as url:
        made = await make_load(tmp_path, url, scenario)
    assert made.code == 1
    assert {turn.code for turn in made.turns} == {"no_tool_call"}
