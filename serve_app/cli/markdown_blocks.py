"""Cuts a growing Markdown text where it can be printed for good.

A stretch of text that is followed by an empty line and by something that is not indented cannot change any more, whatever
comes; inside a fenced code block nothing is cut. So only the last, unfinished block has to be drawn again as text comes in.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


class MarkdownBlocks:
    """Takes pieces of text, gives finished blocks; ``rest`` is what is still growing."""

    def __init__(self) -> None:
        self.rest = ""
        self._scanned = 0  # begin of the first line of ``rest`` that has not been looked at
        self._fence: str | None = None
        self._after_blank = False

    def add(self, text: str) -> str:
        """Returns what is finished now, often nothing."""
        self.rest += text
        cut = 0
        while (end := self.rest.find("\n", self._scanned)) != -1:
            line = self.rest[self._scanned : end]
            if self._fence is None and self._after_blank and line.strip() and not line[0].isspace():
                cut = self._scanned
            self._look_at(line)
            self._scanned = end + 1
        done, self.rest = self.rest[:cut], self.rest[cut:]
        self._scanned -= cut
        return done

    def _look_at(self, line: str) -> None:
        found = _FENCE.match(line)
        if self._fence is not None:
            closes = found is not None and found[1].startswith(self._fence) and not line[found.end() :].strip()
            if closes:
                self._fence = None
            self._after_blank = False
        else:
            self._fence = found[1] if found is not None else None
            self._after_blank = not line.strip()
