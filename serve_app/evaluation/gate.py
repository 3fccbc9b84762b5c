"""Whether a change may pass: the rules of a gate, held against a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from serve_app.errors import ConfigError
from serve_app.evaluation.comparison import Change, Comparison, flips
from serve_app.evaluation.gate_config import GateConfig, NoRegression
from serve_app.evaluation.report_facts import RunFacts
from serve_app.evaluation.score_table import ScoreTable
from serve_app.evaluation.sentences import cases, difference_words, listed, points
from serve_app.evaluation.summary import ALL, Consumption, Score
from serve_app.pages.words import dollars, duration, percent

MAX_NAMED = 20


class RuleResult(Struct, frozen=True, kw_only=True):
    """One rule for one configuration. ``found`` and ``wanted`` are words for a table; ``sentence`` says both, and what to look
    at. ``case_ids`` are some of the cases that broke it."""

    rule: str
    configuration: str
    held: bool
    found: str
    wanted: str
    sentence: str
    case_ids: tuple[str, ...] = ()


class GateResult(Struct, frozen=True):
    """``passed`` where every rule holds."""

    passed: bool
    rules: tuple[RuleResult, ...]

    @property
    def broken(self) -> tuple[RuleResult, ...]:
        return tuple(rule for rule in self.rules if not rule.held)

    @property
    def sentence(self) -> str:
        if self.passed:
            return f"The gate is passed: {_rules(len(self.rules))} held."
        return f"The gate is not passed: {len(self.broken)} of {_rules(len(self.rules))} did not hold."


def untold_gate(why: str) -> GateResult:
    """Of a run that cannot be held against its gate: it is not passed."""
    rule = RuleResult(
        rule="gate", configuration="", held=False, found="–", wanted="what its rules name", sentence=why
    )  # fmt: skip
    return GateResult(False, (rule,))


def _rules(number: int) -> str:
    return f"{number} rule" + ("" if number == 1 else "s")


def judge_gate(
    gate: GateConfig,
    facts: RunFacts,
    table: ScoreTable,
    scores: Sequence[Score],
    compared: Sequence[Comparison],
    used: Mapping[str, Consumption],
    changed: Sequence[Change],
    measured: Sequence[str] = (),
    pairwise: Sequence[str] = (),
) -> GateResult:
    """Every rule. Flips of ``measured`` graders (of time, cost, tokens) are not counted: they come and go with the machine.

    Raises ConfigError where a rule names a grader, a tag or a configuration that the run does not have.
    """
    _check_names(gate, table)
    baseline = facts.meta.baseline
    names = gate.configurations or tuple(name for name in table.configurations if name != baseline) or (baseline,)
    rules = list(_complete(gate, facts))
    if gate.compares and all(name == baseline for name in names):
        rules.append(_nothing_to_compare(baseline))
    for name in names:
        rules += _levels(gate, name, scores, table)
        rules += _failures(gate, used[name], name)
        rules += _consumption(gate, name, used, changed, baseline, free=facts.meta.simulated)
        if name != baseline:
            rules += _regressions(gate, name, table, baseline, compared, frozenset(measured), frozenset(pairwise))
    return GateResult(all(rule.held for rule in rules), tuple(rules))


def _check_names(gate: GateConfig, table: ScoreTable) -> None:
    for target in gate.targets:
        grader, tag = _split(target)
        if grader not in table.graders:
            there = ", ".join(table.graders) or "none (`parley eval grade` makes grades)"
            raise ConfigError(
                f"The gate names the grader '{grader}', which has graded nothing in this run; there are: {there}."
            )
        if tag and tag not in table.tags:
            raise ConfigError(
                f"The gate names the tag '{tag}', which no case of this run has; there are: {', '.join(table.tags)}."
            )
    for tag in gate.named_must:
        if tag not in table.tags:
            raise ConfigError(
                f"The gate's no_regression names the tag '{tag}' in must, which no case of this run has; there are:"
                f" {', '.join(table.tags)}."
            )
    for name in gate.configurations:
        if name not in table.configurations:
            there = ", ".join(table.configurations)
            raise ConfigError(
                f"The gate names the configuration '{name}', which is not in this run; there are: {there}."
            )


def _split(target: str) -> tuple[str, str]:
    grader, _, tag = target.partition("@")
    return grader, tag


def _nothing_to_compare(baseline: str) -> RuleResult:
    return RuleResult(
        rule="compared", configuration=baseline, held=False, found="–", wanted="a comparison",
        sentence=f"The gate asks for a comparison with the baseline, and there is nothing but {baseline} itself to hold against"
        " it.",
    )  # fmt: skip


def _complete(gate: GateConfig, facts: RunFacts) -> Iterator[RuleResult]:
    if gate.incomplete:
        return
    results, cells = facts.results, facts.cells
    missing = cells - results
    yield RuleResult(
        rule="complete",
        configuration="",
        held=missing <= 0 and results > 0,
        found=f"{results:,}",
        wanted=f"{cells:,} results",
        sentence="Every case has its results."
        if missing <= 0 and results
        else f"{missing:,} of {cells:,} results are missing; `parley eval resume` makes them"
        f"{' in the runs that were compared' if facts.meta.kind == 'comparison' else ''}.",
    )
    if facts.not_graded:
        number = sum(facts.not_graded.values())
        yield RuleResult(
            rule="graded", configuration="", held=False, found=f"{number:,} missing", wanted="every grade",
            sentence=f"{number:,} grades are missing, of {listed(list(facts.not_graded))}; `parley eval grade` makes them.",
        )  # fmt: skip


def _levels(gate: GateConfig, name: str, scores: Sequence[Score], table: ScoreTable) -> Iterator[RuleResult]:
    for kind, wanted in (("min_score", gate.min_score), ("min_pass_rate", gate.min_pass_rate)):
        for target, least in wanted.items():
            grader, tag = _split(target)
            one = next((one for one in scores if (one.configuration, one.grader, one.tag) == (name, grader, tag)), None)
            value, low = None, None
            if one is not None:
                value, low = (one.score, one.low) if kind == "min_score" else (one.pass_rate, one.pass_low)
            what = "mean score" if kind == "min_score" else "pass rate"
            if one is None or value is None or low is None:
                yield RuleResult(
                    rule=f"{kind} {target}", configuration=name, held=False, found="–", wanted=f"≥ {percent(least)}",
                    sentence=f"{target} has no {what} under {name}: nothing was graded, so the rule cannot be shown to hold.",
                )  # fmt: skip
                continue
            # What nobody could grade may be as bad as any: where that decides, the rule cannot be shown to hold.
            untold = int(table.untold(name, grader)[table.cases_with(tag)].sum())
            counted = one.cases / (one.cases + untold)
            held = (low if gate.confident else value) * counted >= least - 1e-12
            unsure = f" {cases(untold)} could not be graded, and may be as bad as any." if untold and not held else ""
            found = f"{_percent(value)} ({_percent(low)} at least)" if gate.confident else _percent(value)
            yield RuleResult(
                rule=f"{kind} {target}", configuration=name, held=held, found=found, wanted=f"≥ {_percent(least)}",
                sentence=f"The {what} of {target} under {name} is {found} over {cases(one.cases)};"
                f" {'at least' if held else 'it must be at least'} {_percent(least)}{' was asked' if held else ''}.{unsure}",
            )  # fmt: skip


def _percent(share: float) -> str:
    """With a decimal, so that 89.6% does not look like the 90% that it misses."""
    return f"{share * 100:.1f}%"


def _failures(gate: GateConfig, used: Consumption, name: str) -> Iterator[RuleResult]:
    if gate.max_failed is None:
        return
    share = used.failed / used.results if used.results else 1.0
    yield RuleResult(
        rule="max_failed", configuration=name, held=share <= gate.max_failed, found=_percent(share),
        wanted=f"≤ {_percent(gate.max_failed)}",
        sentence=f"{used.failed:,} of {used.results:,} results under {name} failed ({_percent(share)});"
        f" {_percent(gate.max_failed)} may.",
        case_ids=tuple(kind.case_id for kind in used.failures),
    )  # fmt: skip


def _consumption(
    gate: GateConfig,
    name: str,
    used: Mapping[str, Consumption],
    changed: Sequence[Change],
    baseline: str,
    *,
    free: bool,
) -> Iterator[RuleResult]:
    """``free``: that nothing has cost anything is as it should be, and not for want of prices."""
    own = used[name]
    if gate.max_cost_usd is not None:
        mean = own.usd_per_case
        unpriced = not mean and not free and own.input_tokens > 0
        yield RuleResult(
            rule="max_cost_usd", configuration=name,
            held=mean is not None and not unpriced and mean <= gate.max_cost_usd + 1e-12,
            found=dollars(mean) if mean is not None else "–", wanted=f"≤ {dollars(gate.max_cost_usd)} a case",
            sentence=f"Nothing is known of the cost under {name}: the models file names no prices."
            if mean is not None and unpriced
            else f"A case costs {dollars(mean)} under {name}; it may cost {dollars(gate.max_cost_usd)}."
            if mean is not None
            else f"No case ended under {name}, so there is no cost.",
        )  # fmt: skip
    if gate.max_p95_ms is not None:
        p95 = own.turn_ms.p95 if own.turn_ms else None
        yield RuleResult(
            rule="max_p95_ms", configuration=name, held=p95 is not None and p95 <= gate.max_p95_ms,
            found=duration(p95) if p95 is not None else "–", wanted=f"≤ {duration(gate.max_p95_ms)}",
            sentence=f"Nineteen of twenty turns end within {duration(p95)} under {name}; {duration(gate.max_p95_ms)} are allowed."
            if p95 is not None
            else f"No turn ended under {name}, so there is no time.",
        )  # fmt: skip
    if name == baseline:
        return
    if gate.max_cost_increase is not None:
        change = next((one for one in changed if (one.configuration, one.measure) == (name, "cost_usd")), None)
        more = change.difference / change.before if change is not None and change.before else None
        ended = own.usd_per_case is not None and baseline in used and used[baseline].usd_per_case is not None
        found = "no prices" if change is None else "from nothing" if more is None else f"{more * 100:+.1f}%"
        yield RuleResult(
            rule="max_cost_increase", configuration=name,
            held=(free and ended) if change is None else (more is not None and more <= gate.max_cost_increase + 1e-12),
            found=found if ended else "–", wanted=f"≤ {gate.max_cost_increase * 100:+.0f}%",
            sentence=f"No case ended under both {name} and {baseline}, so nothing can be said of cost."
            if not ended
            else "Neither configuration cost anything: the models file names no prices."
            if change is None
            else f"A case costs {found} against {baseline} under {name}; {gate.max_cost_increase * 100:+.0f}% is allowed.",
        )  # fmt: skip
    if gate.max_p95_increase is not None:
        theirs = used[baseline].turn_ms if baseline in used else None
        ours = own.turn_ms
        longer = ours.p95 / theirs.p95 - 1 if ours and theirs and theirs.p95 else None
        found = f"{longer * 100:+.1f}%" if longer is not None else "–"
        yield RuleResult(
            rule="max_p95_increase", configuration=name, held=longer is not None and longer <= gate.max_p95_increase + 1e-12,
            found=found, wanted=f"≤ {gate.max_p95_increase * 100:+.0f}%",
            sentence=f"The 95th percentile of a turn's time is {found} against {baseline} under {name};"
            f" {gate.max_p95_increase * 100:+.0f}% is allowed.",
        )  # fmt: skip


def _regressions(
    gate: GateConfig,
    name: str,
    table: ScoreTable,
    baseline: str,
    compared: Sequence[Comparison],
    measured: frozenset[str],
    pairwise: frozenset[str],
) -> Iterator[RuleResult]:
    ours = [one for one in compared if one.configuration == name]
    if gate.max_flips is not None:
        down = _flipped(table, baseline, name, [grader for grader in table.graders if grader not in measured], pairwise)
        yield RuleResult(
            rule="max_flips", configuration=name, held=bool(ours) and len(down) <= gate.max_flips,
            found=f"{len(down):,}" if ours else "–", wanted=f"≤ {gate.max_flips:,}",
            sentence=f"{cases(len(down))} no longer pass{_es(down)} a grader under {name}; {gate.max_flips:,} may."
            if ours
            else f"{name} and {baseline} have no graded case in common, so that no flip can be seen.",
            case_ids=tuple(down[:MAX_NAMED]),
        )  # fmt: skip
    rule = gate.no_regression
    if rule is None:
        return
    looked_at = [one for one in ours if not rule.graders or one.grader in rule.graders]
    looked_at = [one for one in looked_at if rule.tags or one.tag == ALL]
    there = {one.grader for one in ours}
    lost = [
        grader for grader in rule.graders or table.graders
        if grader not in there and (grader in rule.graders or table.untold(name, grader).any())
    ]  # fmt: skip
    yield _no_regression(rule, name, baseline, looked_at, lost)
    if rule.within is not None:
        yield _within(rule.within, name, looked_at)
    musts = [tag for tag in rule.must if len(table.cases_with(tag))]
    if musts:
        chosen = rule.graders or [grader for grader in table.graders if grader not in measured]
        down = _flipped(table, baseline, name, chosen, pairwise, musts)
        yield RuleResult(
            rule=f"no_regression {listed(musts)}", configuration=name, held=not down, found=f"{len(down):,}", wanted="0",
            sentence=f"No case tagged {listed(musts)} got worse under {name}."
            if not down
            else f"{cases(len(down))} tagged {listed(musts)} no longer pass{_es(down)} under {name}: {listed(down, 6)}.",
            case_ids=tuple(down[:MAX_NAMED]),
        )  # fmt: skip


def _es(down: Sequence[str]) -> str:
    return "es" if len(down) == 1 else ""


def _no_regression(
    rule: NoRegression, name: str, baseline: str, compared: Sequence[Comparison], lost: Sequence[str]
) -> RuleResult:
    """``lost``: graders that should have graded and have nothing to compare."""
    worse = [one for one in compared if one.verdict == "worse"]
    words = [difference_words(one) + (f" among {one.tag}" if one.tag else "") for one in worse]
    if not compared:
        sentence = f"{name} and {baseline} have no graded case in common, so that nothing can be compared."
    elif worse:
        sentence = f"{name} is worse than {baseline} at {listed(words, 6)}."
    elif lost:
        sentence = f"{name} and {baseline} have no case in common that {listed(list(lost))} graded: it cannot be told."
    else:
        sentence = (
            f"No grader shows {name} to be worse than {baseline} (chance alone would be seen as worse in"
            f" {percent(rule.alpha)})."
        )
    found = "–" if not compared or (lost and not worse) else f"{len(worse)} worse" if worse else "none worse"
    return RuleResult(
        rule="no_regression", configuration=name, held=bool(compared) and not worse and not lost, found=found,
        wanted="none worse", sentence=sentence,
    )  # fmt: skip


def _within(within: float, name: str, compared: Sequence[Comparison]) -> RuleResult:
    over_all = [one for one in compared if one.tag == ALL]
    open_still = [one for one in over_all if one.low < -within - 1e-12]
    lowest = min(over_all, key=lambda one: one.low, default=None)
    if lowest is None:
        sentence = f"Nothing under {name} can be compared."
    elif open_still:
        words = listed([difference_words(one) for one in open_still], 6)
        sentence = (
            f"It is not shown that {name} loses no more than {points(within, signed=False)} points: {words}. More cases show"
            " more."
        )
    else:
        sentence = (
            f"At no grader does {name} lose more than {points(within, signed=False)} points, with 95% confidence."
        )
    return RuleResult(
        rule="no_regression within", configuration=name, held=lowest is not None and not open_still,
        found=f"{points(lowest.low)} ({lowest.grader})" if lowest else "–", wanted=f"≥ −{points(within, signed=False)} points",
        sentence=sentence,
    )  # fmt: skip


def _flipped(
    table: ScoreTable,
    baseline: str,
    name: str,
    graders: Sequence[str],
    pairwise: frozenset[str],
    tags: Sequence[str] = (),
) -> list[str]:
    """Ids of the cases (of any of the tags) that went from passed to not passed under any of the graders, in order."""
    rows: set[int] = set()
    for grader in graders:
        _, down = flips(table, baseline, name, grader, grader in pairwise)
        if grader not in pairwise:
            # It passed, and nobody can say that it still does.
            down = down + (table.verdict(baseline, grader) == 1) * table.untold(name, grader)
        rows.update(int(row) for row in down.nonzero()[0])
    if tags:
        rows &= {int(row) for tag in tags for row in table.cases_with(tag)}
    return [table.case_ids[row] for row in sorted(rows)]
