"""A prompts folder to write into, and a counter whose tokens are easy to see: words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

WritePrompt = Callable[..., Path]


class WordCounter:
    """One token a word. ``counted`` says how many texts were really counted."""

    def __init__(self) -> None:
        self.counted = 0
        self.loads = 0

    def load(self) -> None:
        self.loads += 1

    def count(self, text: str) -> int:
        self.counted += 1
        return len(text.split())


@pytest.fixture
def words() -> WordCounter:
    return WordCounter()


@pytest.fixture
def write_prompt(tmp_path: Path) -> WritePrompt:
    def write(name: str, body: str, *, version: str = "v1", front: str = 'roles: "*"') -> Path:
        path = tmp_path / name / version / "prompt.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"---\n{front}\n---\n{body}\n", encoding="utf-8")
        return path

    return write
