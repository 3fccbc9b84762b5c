"""Patterns that others have written, matched in time proportional to the text.

Python's own engine goes back and forth: ``(a+)+$`` on forty characters stops the process for longer than anybody waits, and it
cannot be interrupted. Rust's engine, which pydantic brings along, cannot do that. It has no look-around and no back references.
"""

from __future__ import annotations

from functools import lru_cache

from pydantic_core import SchemaError, SchemaValidator, core_schema

from serve_app.errors import ConfigError

MAX_PATTERN_CHARS = 20_000


class Pattern:
    """A compiled pattern."""

    def __init__(self, engine: SchemaValidator) -> None:
        self._engine = engine

    def found_in(self, text: str) -> bool:
        # Half a character (a lone surrogate) is in no text that Rust can read.
        return self._engine.isinstance_python(text.encode("utf-8", "replace").decode())


def compile_pattern(pattern: str, *, ignore_case: bool = False, full: bool = False) -> Pattern:
    """The pattern; ``full`` matches the whole text only. Raises ConfigError with what is wrong and where."""
    if len(pattern) > MAX_PATTERN_CHARS:
        raise ConfigError(f"The pattern has more than {MAX_PATTERN_CHARS:,} characters.")
    return _compiled(pattern, ignore_case, full)


@lru_cache(maxsize=512)
def _compiled(pattern: str, ignore_case: bool, full: bool) -> Pattern:
    try:
        engine = _engine(pattern)  # by itself first, so that it cannot close the group around it
        if full:
            engine = _engine(rf"\A(?:{pattern})\z", ignore_case)
        elif ignore_case:
            engine = _engine(pattern, ignore_case)
    except SchemaError as error:
        raise ConfigError(f"The pattern '{_short(pattern)}' cannot be used: {_why(error)}.") from None
    return Pattern(engine)


def _engine(pattern: str, ignore_case: bool = False) -> SchemaValidator:
    flagged = f"(?i){pattern}" if ignore_case else pattern
    return SchemaValidator(core_schema.str_schema(pattern=flagged, regex_engine="rust-regex"))


def _why(error: SchemaError) -> str:
    """The last line of what the engine says; before it, it draws the place."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (
        (lines[-1] if lines else "it is no pattern").removeprefix("error: ").removeprefix("SchemaError: ").rstrip(".")
    )


def _short(pattern: str) -> str:
    return pattern if len(pattern) <= 80 else f"{pattern[:79]}…"
