"""Asks a graph once a second what its replicas are doing, and writes the answers down beside the load.

The load goes on whatever becomes of it: a target that does not show its figures, or none of the right ones, is told of once,
and one that is too busy to answer leaves a hole.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from serve_app.capacity.run_folder import LineWriter
from serve_app.capacity.samples import GRAPH
from serve_app.domain.stages import GraphState
from serve_app.errors import NotFound, NotPermitted, ParleyError, Unauthenticated

EVERY_S = 1.0
CLOCKS_APART_S = 3.0
"""More is neither a slow answer nor a late one."""
KEPT = 6
"""The newest readings, of which the first and last say what is busy now."""
FINAL = (NotFound, NotPermitted, Unauthenticated)
"""Failures that asking again does not mend."""

Read = Callable[[], GraphState]
"""Asks once, with a deadline of its own; raises ParleyError."""
Tell = Callable[[str], None]


class GraphSampler:
    """Samples from a thread of its own while the context lasts; the first reading is taken at once, and one more at the end.

    ``problem`` is the sentence that the run notes where figures are missing, empty otherwise.
    """

    def __init__(self, read: Read, folder: Path, *, every_s: float = EVERY_S, tell: Tell | None = None) -> None:
        self._read = read
        self._folder = folder
        self._every_s = every_s
        self._tell = tell or (lambda _: None)
        self._stop = threading.Event()
        self._newest: deque[GraphState] = deque(maxlen=KEPT)
        self._thread = threading.Thread(target=self._run, name="graph-sampler", daemon=True)
        self._refusal = ""
        self._last_failure = ""
        self._ahead_s: float | None = None
        self.taken = 0
        self.missed = 0

    @property
    def problem(self) -> str:
        if self._refusal:
            return f"There are no figures of the stages{' after a while' if self.taken else ''}: {self._refusal}"
        if self.missed and not self.taken:
            return f"There are no figures of the stages: {self._last_failure}"
        sentences = []
        if self.missed:
            asked = self.taken + self.missed
            sentences.append(f"{self.missed} of {asked} readings of the stages are missing: {self._last_failure}")
        if self._ahead_s is not None and abs(self._ahead_s) > CLOCKS_APART_S:
            where = "ahead of" if self._ahead_s > 0 else "behind"
            sentences.append(
                f"The target's clock is {abs(self._ahead_s):.0f} s {where} this machine's, so that figures of the stages stand"
                " beside the load of another time. Set both by NTP."
            )
        return " ".join(sentences)

    def span(self) -> tuple[GraphState, GraphState] | None:
        """A reading of some seconds ago and the newest; None before there are two."""
        newest = tuple(self._newest)
        return (newest[0], newest[-1]) if len(newest) > 1 else None

    def __enter__(self) -> GraphSampler:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(10)  # a reading has a deadline; should it not keep it, the thread ends with the process

    def _run(self) -> None:
        with LineWriter[GraphState](self._folder / GRAPH) as lines:
            due = time.monotonic()
            while self._sample(lines) and not self._stop.wait(max(0.0, due + self._every_s - time.monotonic())):
                due = max(due + self._every_s, time.monotonic() - self._every_s)
            if not self._refusal:
                self._sample(lines)

    def _sample(self, lines: LineWriter[GraphState]) -> bool:
        """Whether to go on."""
        try:
            state = self._read()
            ahead_s = state.at - time.time()
            if self._ahead_s is None or abs(ahead_s) < abs(self._ahead_s):
                self._ahead_s = ahead_s  # an answer that is late makes the difference larger, never smaller
            lines.write(state)
        except FINAL as error:
            self._refusal = error.message
            self._tell(self.problem)
            return False
        except ParleyError as error:
            self._lost(error.message)
            return True
        except OSError as error:
            self._refusal = f"{self._folder / GRAPH} cannot be written ({error.strerror})."
            self._tell(self.problem)
            return False
        self.taken += 1
        self._newest.append(state)
        return True

    def _lost(self, message: str) -> None:
        self.missed += 1
        self._last_failure = message
        if self.missed == 1:
            self._tell(f"The stages cannot be asked just now: {message} The load goes on.")
