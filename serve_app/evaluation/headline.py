"""What came out, in sentences: the first is the headline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from serve_app.evaluation.comparison import Change, Comparison
from serve_app.evaluation.notable import CaseChanges
from serve_app.evaluation.report_facts import GraderInfo
from serve_app.evaluation.run_meta import RunMeta
from serve_app.evaluation.sentences import cases, difference_words, listed
from serve_app.evaluation.summary import ALL, Consumption, Score
from serve_app.pages.words import dollars, duration, percent

MOST_SLICES = 3
MOST_CANDIDATES = 3


def headline(
    meta: RunMeta,
    graders: Sequence[GraderInfo],
    scores: Sequence[Score],
    compared: Sequence[Comparison],
    used: Mapping[str, Consumption],
    changed: Sequence[Change],
    changes: Sequence[CaseChanges],
) -> tuple[str, ...]:
    """The outcome, then what it rests on, for each configuration that is compared."""
    candidates = [name for name in meta.names if name != meta.baseline]
    if not candidates:
        return _alone(meta, graders, scores, used)
    over_all = {name: [one for one in compared if one.configuration == name and one.tag == ALL] for name in candidates}
    if not any(over_all.values()):
        return ("There are no grades to compare by yet.", *_consumed(meta.baseline, candidates, used, changed))
    if len(candidates) == 1:
        return (
            f"{_outcome(candidates[0], over_all[candidates[0]], meta.baseline)}.",
            *_found(candidates[0], compared, changes, named=False),
            *_consumed(meta.baseline, candidates, used, changed),
        )
    first = "; ".join(_outcome(name, over_all[name], "") for name in candidates[:MOST_CANDIDATES])
    more = f"; and {len(candidates) - MOST_CANDIDATES} more" if len(candidates) > MOST_CANDIDATES else ""
    found = [
        sentence for name in candidates[:MOST_CANDIDATES] for sentence in _found(name, compared, changes, named=True)
    ]
    return (f"Against {meta.baseline}: {first}{more}.", *found)


def _outcome(name: str, compared: Sequence[Comparison], baseline: str) -> str:
    than = f" than {baseline}" if baseline else ""
    better = [one.grader for one in compared if one.verdict == "better"]
    worse = [one.grader for one in compared if one.verdict == "worse"]
    if better and worse:
        return f"{name} is worse{than} at {listed(worse)}, and better at {listed(better)}"
    if better or worse:
        return f"{name} is {'better' if better else 'worse'}{than} at {listed(better or worse)}"
    return f"No evidence that {name} differs from {baseline}" if baseline else f"no evidence that {name} differs"


def _found(name: str, compared: Sequence[Comparison], changes: Sequence[CaseChanges], *, named: bool) -> Iterator[str]:
    ours = [one for one in compared if one.configuration == name]
    over_all = [one for one in ours if one.tag == ALL]
    lead = f"{name}: " if named else ""
    told = False
    for verdict in ("worse", "better"):
        found = [one for one in over_all if one.verdict == verdict]
        found.sort(key=lambda one: -abs(one.difference))
        if found:
            yield _sentence(f"{lead}{verdict} at {listed([difference_words(one) for one in found], 5)}", named=named)
            told = True
    if over_all and not told:
        widest = max(over_all, key=lambda one: one.high - one.low)
        most = max(one.cases for one in over_all)
        at_most = "up to " if any(one.cases < most for one in over_all) else ""
        yield _sentence(
            f"{lead}{len(over_all)} grader{'s' if len(over_all) > 1 else ''} over {at_most}{cases(most)}; the widest interval"
            f" is that of {difference_words(widest)}",
            named=named,
        )
    flipped = next((one for one in changes if one.configuration == name), None)
    if flipped is not None and (flipped.flipped_down or flipped.flipped_up):
        yield _sentence(
            f"{lead}{cases(flipped.flipped_down)} no longer pass{'es' if flipped.flipped_down == 1 else ''} a grader that"
            f" {'it' if flipped.flipped_down == 1 else 'they'} passed; {flipped.flipped_up:,}"
            f" {'passes one that it' if flipped.flipped_up == 1 else 'pass one that they'} did not",
            named=named,
        )
    plain = {(one.grader, one.verdict) for one in over_all}
    slices = [one for one in ours if one.tag != ALL and one.verdict == "worse" and (one.grader, "worse") not in plain]
    slices.sort(key=lambda one: one.difference)
    if slices:
        words = [f"{difference_words(one)} among {one.tag}" for one in slices[:MOST_SLICES]]
        yield _sentence(f"{lead}worse in a part only: {listed(words)}", named=named)


def _sentence(text: str, *, named: bool) -> str:
    """With a full stop, and a capital where it does not begin with a configuration's name."""
    return f"{text}." if named else f"{text[0].upper()}{text[1:]}."


def _consumed(
    baseline: str, candidates: Sequence[str], used: Mapping[str, Consumption], changed: Sequence[Change]
) -> Iterator[str]:
    for name in candidates:
        parts = []
        by = {one.measure: one for one in changed if one.configuration == name}
        cost = by.get("cost_usd")
        if cost is not None and cost.before > 0:
            parts.append(f"a case costs {dollars(cost.after)} ({_relative(cost)})")
        times, before = used[name].turn_ms, used[baseline].turn_ms if baseline in used and name != baseline else None
        if times is not None:
            beside = f" (baseline {duration(before.p50)} and {duration(before.p95)})" if before is not None else ""
            parts.append(
                f"a turn takes {duration(times.p50)} at the median and {duration(times.p95)} at the 95th percentile{beside}"
            )
        if parts:
            yield f"Under {name}, {'; '.join(parts)}."


def _relative(change: Change) -> str:
    share = change.difference / change.before
    if not change.clear:
        return "no clear change"
    return f"{percent(abs(share))} {'more' if share > 0 else 'less'}"


def _alone(
    meta: RunMeta, graders: Sequence[GraderInfo], scores: Sequence[Score], used: Mapping[str, Consumption]
) -> tuple[str, ...]:
    over_all = [one for one in scores if one.tag == ALL and one.configuration == meta.baseline]
    if not over_all:
        return (f"{meta.baseline}: nothing has been graded.", *_consumed(meta.baseline, [meta.baseline], used, ()))
    by = {one.grader: one for one in over_all}
    words = [
        f"{info.name} {percent(one.pass_rate if one.pass_rate is not None else one.score)}"
        for info in graders
        if (one := by.get(info.name)) is not None
    ]
    return (f"{meta.baseline} passes {listed(words)}.",)
