"""What a reader of an evaluation's figures must know: where they rest on little, or on something that is not real."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from serve_app.evaluation.graders.verdict import shortened
from serve_app.evaluation.report_facts import GraderInfo, RunFacts
from serve_app.evaluation.sentences import cases, listed
from serve_app.evaluation.summary import ALL, Consumption, Score
from serve_app.pages.words import percent

FEW_CASES = 100
MAX_REASON_CHARS = 160
VERY_FEW_CASES = 30
FEW_IN_SLICE = 20


def caveats(
    facts: RunFacts,
    scores: Sequence[Score],
    used: Mapping[str, Consumption],
    graders: Sequence[GraderInfo],
    ungraded: Mapping[str, tuple[int, str]],
) -> Iterator[str]:
    """In sentences, the weightiest first. ``ungraded``: by grader how many answers it could not grade, and why the first."""
    yield from _run(facts)
    yield from _failures(used)
    yield from _grades(facts, graders, ungraded)
    yield from _silent(facts, scores, graders, ungraded)
    yield from _sizes(facts, scores)


def _run(facts: RunFacts) -> Iterator[str]:
    meta = facts.meta
    if facts.results < facts.cells and meta.kind == "run":
        why = {
            "budget": "it had cost what it may",
            "interrupted": "it was stopped",
            "failed": "it failed",
            "running": "it is still running, or its runner was killed",
        }.get(meta.ended, "it has not been completed")
        yield (
            f"The run is not complete: {facts.cells - facts.results:,} of {facts.cells:,} results are missing ({why});"
            " `parley eval resume` runs what is missing. What is here may not stand for the whole."
        )
    if facts.results < facts.cells and meta.kind == "comparison":
        yield (
            f"A run that this was made of is not complete: {facts.cells - facts.results:,} of {facts.cells:,} results are"
            " missing; `parley eval resume` runs them there, then compare again. What is here may not stand for the whole."
        )
    if meta.simulated:
        yield (
            "The model was simulated: the figures show that the evaluation works, and say nothing about a real model."
        )
    yield from meta.notes
    if meta.kind == "shadow":
        yield (
            "Shadow: the baseline's answers are those that users were given; the candidates were asked the same beside, with the"
            " tool results of the live turn, never live tools. A call that the live turn did not make had no result."
        )


def _failures(used: Mapping[str, Consumption]) -> Iterator[str]:
    for name, one in used.items():
        if one.failed:
            codes = listed([f"{kind.code} {kind.count:,}×" for kind in one.failures])
            yield (
                f"{name}: {one.failed:,} of {one.results:,} results failed ({codes}). Graders of words give them 0; times and"
                " cost are of those that ended."
            )
    mixed = {name: one.models for name, one in used.items() if len(one.models) > 1}
    for name, models in mixed.items():
        words = listed([f"{model} {number:,}×" for model, number in models.items()])
        yield f"{name} was answered by several models ({words}): another one stood in where the one asked for failed."
    told = {name: one.unrecorded for name, one in used.items() if one.unrecorded}
    if told:
        yield (
            f"Tool calls without a recorded result: {listed([f'{name} {number:,}' for name, number in told.items()])}. The"
            " model was told so, which may have changed its answer."
        )
    if any(one.estimated for one in used.values()):
        yield "Some tokens, and so some of the cost, are estimated: the provider gave no count."
    if used and not any(one.cost_usd for one in used.values()) and any(one.input_tokens for one in used.values()):
        yield "The models file names no prices, so nothing is said about cost."


def _grades(facts: RunFacts, graders: Sequence[GraderInfo], ungraded: Mapping[str, tuple[int, str]]) -> Iterator[str]:
    if facts.not_graded and facts.results >= facts.cells:  # else whoever goes on with the run makes these, too
        words = listed([f"{name} {number:,}" for name, number in facts.not_graded.items()])
        yield f"Grades are missing ({words}); `parley eval grade` makes them."
    for name, (number, why) in ungraded.items():
        reason = f" ({shortened(why.rstrip('.'), MAX_REASON_CHARS)})" if why else ""
        yield (
            f"{name} could not grade {number:,} answer{'' if number == 1 else 's'}{reason}: these count neither for nor against."
        )
    judges = [info.name for info in graders if info.type == "judge"]
    if judges:
        yield (
            f"A model judged {listed(judges)}: models favour long answers and their own. Human labels (`parley eval labels`) show"
            " how far it agrees with people."
        )


def _silent(
    facts: RunFacts, scores: Sequence[Score], graders: Sequence[GraderInfo], ungraded: Mapping[str, tuple[int, str]]
) -> Iterator[str]:
    """A grader whose tag is misspelt is asked about every answer, and has a word on none."""
    heard = {one.grader for one in scores if one.cases} | ungraded.keys() | facts.not_graded.keys()
    silent = [info.name for info in graders if info.name not in heard and not info.pairwise]
    if silent and facts.results:
        yield (
            f"{listed(silent)} graded nothing: no case expects what {'it looks' if len(silent) == 1 else 'they look'} at, or"
            " has the tags, or was answered by the configurations, that are named there."
        )


def _sizes(facts: RunFacts, scores: Sequence[Score]) -> Iterator[str]:
    if 0 < facts.cases < FEW_CASES:
        few = f"{'is' if facts.cases == 1 else 'are'} {'very few' if facts.cases < VERY_FEW_CASES else 'few'}"
        yield (
            f"{cases(facts.cases)} {few}: only large differences can be seen. No evidence of a difference is no evidence that"
            " there is none; the intervals say what there is room for."
        )
    thin: dict[str, int] = {}
    for one in scores:
        if one.tag != ALL:
            thin[one.tag] = max(thin.get(one.tag, 0), one.cases)
    small = [tag for tag, number in thin.items() if number < FEW_IN_SLICE]
    if small and facts.cases >= FEW_CASES:
        yield f"Tags with fewer than {FEW_IN_SLICE} cases, whose figures rest on little: {listed(small, 6)}."
    if facts.meta.repeats == 1 and facts.cells:
        yield (
            "Each case was run once: a model that answers differently each time moves single cases by chance; repeats in the run"
            " file show how much."
        )
    sampled = facts.meta.dataset_cases
    if sampled > facts.cases > 0:
        were = "was" if facts.cases == 1 else "were"
        yield f"{facts.cases:,} of the data set's {sampled:,} cases {were} run ({percent(facts.cases / sampled)})."
