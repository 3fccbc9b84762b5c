"""What a reader of the figures must know: where they rest on little, or are not the graph's alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from serve_app.capacity.generator_health import GeneratorHealth
from serve_app.capacity.knee import LEAST_TURNS, by_load, disturbed
from serve_app.capacity.phases import PhaseReport, says_tokens
from serve_app.capacity.resources import ResourceUse
from serve_app.capacity.resources_of import StageTimes
from serve_app.capacity.run import Run
from serve_app.loopback import LOOPBACK

FEW_TURNS = 200


def caveats(
    run: Run,
    phases: Sequence[PhaseReport],
    uses: Sequence[ResourceUse],
    times: Sequence[StageTimes],
    generator: GeneratorHealth,
) -> tuple[str, ...]:
    """In sentences, the weightiest first."""
    return (*_run(run, generator), *_machine(run, uses), *_phases(phases), *_stages(run, uses, times))


def _run(run: Run, generator: GeneratorHealth) -> Iterator[str]:
    if run.info.ended == "interrupted":
        yield "The run was broken off: its last phase is shorter than planned, and heavier loads were not tried."
    elif run.info.ended == "failed":
        yield "The run did not end in order; what it wrote until then is reported."
    if generator.sentence:
        yield generator.sentence
    if run.info.note:
        yield run.info.note
    waited = max(generator.phases, key=lambda item: item.waiting, default=None)
    if waited is not None and waited.waiting >= 1:
        yield (
            f"All users of the scenario were busy at times (users_max {run.scenario.load.users_max}): in phase {waited.phase},"
            f" {waited.waiting:.0f} turns waited for a free one on average. Their wait is in their latency."
        )
    whole = [turn for turn in run.turns if not turn.code]
    if silent := sum(1 for turn in whole if not says_tokens(turn)):
        yield (
            f"{silent / len(whole):.0%} of the answers came over a way that does not say how many tokens they are (the AI SDK's"
            " stream): tokens per second are without them, tokens per turn are of the others."
        )
    if run.info.simulated:
        names = " and ".join(run.info.simulated)
        yield f"Simulated in this run: {names}. Their times are set by the scenario; real ones differ and vary more."


def _machine(run: Run, uses: Sequence[ResourceUse]) -> Iterator[str]:
    if urlsplit(run.info.target).hostname not in LOOPBACK:
        return
    text = "Load generator" + (", simulators" if run.info.simulated else "") + " and graph shared one machine"
    text += f" of {run.info.cores} cores" if run.info.cores else ""
    cpu = {use.phase: use.used for use in uses if use.resource == "cpu"}
    own: dict[int, float] = {}
    for use in uses:
        if use.resource == "process":
            own[use.phase] = own.get(use.phase, 0.0) + use.used
    if cpu and own:
        busiest = max(cpu, key=lambda phase: cpu[phase])
        text += (
            f"; in the busiest phase the graph's stages used {own.get(busiest, 0.0):.1f} of the {cpu[busiest]:.1f} cores"
            " that were busy; the rest went to what ran beside it"
        )
    yield text + ". On machines of its own the graph carries more before cores run out."


def _phases(phases: Sequence[PhaseReport]) -> Iterator[str]:
    measured = [phase for phase in phases if phase.measured]
    few = [phase.name for phase in measured if phase.due < LEAST_TURNS or phase.window_s <= 0]
    if few:
        names = ", ".join(few[:6]) + (" …" if len(few) > 6 else "")
        yield f"Not judged, for they had fewer than {LEAST_TURNS} turns: {names}."
    judged = by_load(phases)
    thin = [phase.due for phase in judged if phase.due < FEW_TURNS]
    if thin:
        least = min(thin)
        yield (
            f"The smallest phase had {least} turns: its 95th percentile rests on {max(round(least * 0.05), 1)} of them, its 99th"
            f" on {max(round(least * 0.01), 1)}. Longer phases tell more."
        )
    hit = [phase.name for phase in disturbed(phases)]
    judged = [phase for phase in judged if phase.name not in hit]
    if hit:
        yield (
            f"{', '.join(hit)} broke the SLO though heavier phases kept it: something else than this load disturbed"
            f" {'it' if len(hit) == 1 else 'them'}, and the limit is drawn without."
        )
    broke = next((place for place, phase in enumerate(judged) if phase.breaks), None)
    if broke is not None and any(not phase.breaks for phase in judged[broke + 1 :]):
        yield f"{judged[broke].name} broke the SLO while a heavier phase kept it: the limit is where it broke first."


def _stages(run: Run, uses: Sequence[ResourceUse], times: Sequence[StageTimes]) -> Iterator[str]:
    if not uses:
        yield "The stages could not be read during the run (no rights, or another server), so nothing is said of their resources."
        return
    missing = sorted({stage for state in run.graph for stage in state.missing})
    if missing:
        count = sum(1 for state in run.graph if state.missing)
        yield f"{count} of {len(run.graph)} readings lack a replica of {', '.join(missing)}, which did not answer in time."
    changed = sorted({item.stage for item in times if abs(item.replicas - round(item.replicas)) > 0.05})
    if changed:
        yield f"Replicas of {', '.join(changed)} came or went within a phase, so that its figures mix two numbers of replicas."
