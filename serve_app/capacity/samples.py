"""What a load test writes down: one line for each turn, for each connection, for each phase.

Everything that is said later (percentiles, knee, plan) is computed from these lines alone, so that anybody can compute it again.
Times are Unix seconds where they are instants and milliseconds where they are durations. Latencies count from when a turn was
*due*, so that a server that is late makes nobody ask later and look faster (coordinated omission).
"""

from __future__ import annotations

from msgspec import Struct


class TurnSample(Struct, frozen=True, omit_defaults=True):
    """One turn as its user saw it.

    ``due_at`` is when it should have been sent, ``sent_at`` when it was. ``ttft_ms`` is from due to the first text, ``turn_ms``
    from due to the terminal event; None where there was none. ``gaps_ms`` are the times between arrivals of text after the
    first (inter-token latency as a client sees it; one arrival may carry several tokens), at most ``MAX_GAPS`` of them.
    ``output_tokens`` is what the server says it counted, 0 if it did not say. ``code`` is empty when the answer was complete and
    every check passed; else an error code of the protocol, or ``broken_promise`` (a gap, a repetition, a second end, an answer
    that is not its deltas), ``no_end``, ``connection``, ``refused``, ``not_sent`` (no user was free) or ``unexpected`` (the load
    test itself could not go on). ``resumed`` counts connections that broke or were broken meanwhile. ``late_ms`` is how long the
    load generator itself was late in sending, which is no fault of the server's but is in the latencies all the same.
    """

    user: str
    phase: int
    due_at: float
    sent_at: float
    ttft_ms: float | None = None
    turn_ms: float | None = None
    gaps_ms: tuple[float, ...] = ()
    output_tokens: int = 0
    input_tokens: int = 0
    text_bytes: int = 0
    tool_calls: int = 0
    resumed: int = 0
    late_ms: float = 0.0
    code: str = ""
    detail: str = ""
    turn_id: str = ""


class SessionSample(Struct, frozen=True, omit_defaults=True):
    """One connection: opened (``connect_ms``), or broken (``code``). ``held_s`` is how long it lasted, once it has ended."""

    user: str
    phase: int
    at: float
    connect_ms: float | None = None
    held_s: float | None = None
    code: str = ""
    detail: str = ""


class Phase(Struct, frozen=True, omit_defaults=True):
    """A part of a run with one load. ``rate_per_s`` is what was offered (open loop), ``users`` how many there were (closed
    loop, or the connections held). Warm-up is no ``measured`` phase. A phase is written when it begins, without ``ended_at``, and
    again when it has ended; of the lines with one ``index`` the last counts. Where it has no end the load generator was killed.
    """

    index: int
    name: str
    began_at: float
    ended_at: float | None = None
    rate_per_s: float | None = None
    users: int = 0
    measured: bool = True


class GeneratorSample(Struct, frozen=True, omit_defaults=True):
    """The load generator itself, once a second: if it is short of CPU, its figures are its own."""

    at: float
    cpu_share: float
    users: int
    waiting: int = 0


class RunInfo(Struct, frozen=True, omit_defaults=True):
    """What was run, where, and on what. ``ended`` is ``done``, ``knee`` (stopped beyond it), ``interrupted`` or ``failed``."""

    name: str
    target: str
    began_at: float
    ended_at: float | None = None
    ended: str = ""
    seed: int = 0
    parley_version: str = ""
    machine: str = ""
    cores: int = 0
    memory_bytes: int = 0
    simulated: tuple[str, ...] = ()
    note: str = ""


MAX_GAPS = 2_000
SCENARIO = "scenario.yaml"
RUN = "run.json"
TURNS = "turns.jsonl"
SESSIONS = "sessions.jsonl"
PHASES = "phases.jsonl"
GRAPH = "graph.jsonl"
"""A ``GraphState`` a line, once a second."""
GENERATOR = "generator.jsonl"
SERVE_CONFIG = "serve_config.yaml"
"""The Serve configuration that the graph ran with, where this machine started it."""
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
PLAN_JSON = "plan.json"
