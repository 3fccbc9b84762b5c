"""One process that makes load, with its share of the users: what is under way in it, and what has come of it.

The phases come from elsewhere (the conductor, in this process or on the master's machine). Samples go out as lines.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from random import Random

from gevent.event import Event
from msgspec import Struct

from load_tests.answer import Answer
from load_tests.arrivals import Arrivals, Due
from load_tests.clock import now, unix
from load_tests.options import Options
from load_tests.stopping import Limits
from load_tests.tally import Live
from load_tests.ways.way import Visitor
from load_tests.writing import Lines
from serve_app.capacity.samples import GeneratorSample, SessionSample, TurnSample
from serve_app.capacity.scenario import Scenario, UserEntry

GENERATOR_S = 0.9
"""Between two lines of the generator itself, at least."""


class PhaseOrder(Struct, frozen=True):
    """What the conductor tells every process when a phase begins; ``workers`` is how many share its level."""

    index: int
    level: float
    duration_s: float
    workers: int = 1


class Under(Struct):
    """A turn under way."""

    due: Due
    answer: Answer


class LoadProcess:
    """Shared by all users of this process. One thread, many greenlets."""

    def __init__(self, scenario: Scenario, options: Options) -> None:
        self.scenario = scenario
        self.options = options
        self.limits = Limits.of(scenario.slo)
        self.worker = 0
        self.phase: PhaseOrder | None = None
        self.begun = Event()
        """Set once there is a phase."""
        self.draining = False
        """No more turns are begun; those under way may end."""
        self.broken_off = False
        """The run was ended before its time: what is still under way then says nothing of the server."""
        self.lines = Lines()
        self.arrivals: Arrivals | None = None
        self.sharing: tuple[UserEntry, ...] = tuple(entry for entry in scenario.users if entry.count is None)
        self.busy: Counter[int] = Counter()
        """Turns under way, by the share of the entry whose user asks."""
        self._turns: dict[int, Under] = {}
        self._due: Counter[int] = Counter()
        self._users = 0
        self._run_id = uuid.uuid4().hex[:6]
        self._cpu_at = now(), time.process_time()
        self._cpu_share = 0.0

    # -- users -------------------------------------------------------------------------------------------------------

    def visitor(self, host: str | None = None) -> tuple[Visitor, Random]:
        """Somebody new, and the chance behind what they do: the same for the same seed, worker and number.

        They go to ``host``, which a worker is told by its master.
        """
        number = self._users
        self._users += 1
        name = f"load-{self._run_id}-{self.worker}-{number}"
        chance = Random(f"{self.scenario.seed}:{self.worker}:{number}")
        if self.options.tokens:
            token = self.options.tokens[(number + self.worker) % len(self.options.tokens)]
            headers = {"Authorization": f"Bearer {token}"}
        else:
            headers = {"X-Dev-User": name} | ({"X-Dev-Tenant": self.options.tenant} if self.options.tenant else {})
        return Visitor(host or self.options.host, name, headers, number), chance

    # -- phases ------------------------------------------------------------------------------------------------------

    def begin(self, order: PhaseOrder) -> None:
        """A phase begins now."""
        self.phase = order
        if self.scenario.load.model == "open":
            if self.arrivals is None:
                weights = [entry.weight for entry in self.sharing]
                self.arrivals = Arrivals(weights, f"{self.scenario.seed}:{self.worker}")
            self.arrivals.begin(order.index, order.level / order.workers, now(), order.duration_s)
        self.begun.set()

    def drain(self, broken_off: bool = False) -> None:
        """Nothing more is begun."""
        self.draining, self.broken_off = True, broken_off
        if self.arrivals is not None:
            self.arrivals.stop()

    def give_up_waiting(self, older_than_s: float = 0) -> None:
        """What nobody was free to send for so long is a failure of its own."""
        if self.arrivals is None:
            return
        for due in self.arrivals.give_up(older_than_s):
            at = now()
            sample = TurnSample(
                user="", phase=due.phase, due_at=unix(due.at), sent_at=unix(at), late_ms=_ms(at - due.at),
                code="not_sent", detail="no user was free to send it",
            )  # fmt: skip
            self.lines.add(sample)

    # -- turns -------------------------------------------------------------------------------------------------------

    def turn_began(self, due: Due, answer: Answer) -> None:
        self._turns[id(answer)] = Under(due, answer)
        if self.arrivals is None:
            self._due[due.phase] += 1

    def turn_ended(self, user: str, due: Due, sent_at: float, answer: Answer) -> TurnSample:
        """Writes it down; every turn that began must come here or to :meth:`turn_forgotten`."""
        self._turns.pop(id(answer), None)
        sample = TurnSample(
            user=user,
            phase=due.phase,
            due_at=unix(due.at),
            sent_at=unix(sent_at),
            ttft_ms=None if answer.first_text_at is None else _ms(answer.first_text_at - due.at),
            turn_ms=None if answer.ended_at is None else _ms(answer.ended_at - due.at),
            gaps_ms=tuple(round(gap_s * 1000, 2) for gap_s in answer.gaps_s),
            output_tokens=answer.output_tokens,
            input_tokens=answer.input_tokens,
            text_bytes=len(answer.text.encode()),
            tool_calls=answer.tool_calls,
            resumed=answer.resumed,
            late_ms=_ms(sent_at - due.at),
            code=answer.code,
            detail=answer.detail[:500],
            turn_id=answer.turn_id,
        )
        self.lines.add(sample)
        return sample

    def turn_forgotten(self, answer: Answer) -> None:
        """A run that is broken off says nothing of turns under way."""
        self._turns.pop(id(answer), None)

    def session(
        self,
        user: str,
        *,
        connect_s: float | None = None,
        held_s: float | None = None,
        code: str = "",
        detail: str = "",
    ) -> None:
        sample = SessionSample(
            user=user,
            phase=self.phase.index if self.phase is not None else 0,
            at=unix(now()),
            connect_ms=None if connect_s is None else _ms(connect_s),
            held_s=None if held_s is None else round(held_s, 3),
            code=code,
            detail=detail[:500],
        )
        self.lines.add(sample)

    # -- what goes on ------------------------------------------------------------------------------------------------

    def live(self, users: int) -> Live:
        """Now. Writes the generator's own line, about once a second."""
        at = now()
        waiting = self.arrivals.waiting() if self.arrivals is not None else []
        lost: Counter[int] = Counter(due.phase for due in waiting if self.limits.past(at - due.at, has_text=False))
        for turn in self._turns.values():
            if self.limits.past(at - turn.due.at, turn.answer.first_text_at is not None):
                lost[turn.due.phase] += 1
        due = self.arrivals.due if self.arrivals is not None else self._due
        if at - self._cpu_at[0] >= GENERATOR_S:
            cpu_s = time.process_time()
            self._cpu_share = round((cpu_s - self._cpu_at[1]) / (at - self._cpu_at[0]), 4)
            self._cpu_at = at, cpu_s
            sample = GeneratorSample(at=unix(at), cpu_share=self._cpu_share, users=users, waiting=len(waiting))
            self.lines.add(sample)
        return Live(
            due=tuple(due.items()),
            lost=tuple(lost.items()),
            running=len(self._turns),
            waiting=len(waiting),
            users=users,
            cpu_share=self._cpu_share,
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
