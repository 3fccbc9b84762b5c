"""Agreement with people in words, for the page and the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from serve_app.evaluation.kappa import Agreement
from serve_app.evaluation.report_facts import People
from serve_app.pages.words import count, percent


def agreement_rows(people: People) -> list[list[str]]:
    """Between whom, on what, over how many answers, how often they say the same, how often by chance, kappa, a word for it."""
    return [
        _row(who, on, found, weighted=on == "score")
        for who, passed, scores in _pairs(people)
        for on, found in (("passed or not", passed), ("score", scores))
        if found is not None
    ]


def _pairs(people: People) -> Iterator[tuple[str, Agreement | None, Agreement | None]]:
    for one in people.graders:
        yield f"{one.grader} and people", one.passed, one.scores
    for pair in people.raters:
        yield " and ".join(name or "(no name)" for name in pair.raters), pair.passed, pair.scores


def _row(who: str, on: str, found: Agreement, *, weighted: bool) -> list[str]:
    kappa = found.weighted_kappa if weighted else found.kappa
    around = found.weighted_interval if weighted else found.kappa_interval
    text = "–" if kappa is None else f"{kappa:.2f}" + (f" ({around[0]:.2f} to {around[1]:.2f})" if around else "")
    text += ", quadratic weights" if weighted and kappa is not None else ""
    return [who, on, count(found.n), percent(found.observed), percent(found.expected), text, kappa_words(kappa)]


def kappa_words(kappa: float | None) -> str:
    """After Landis and Koch."""
    if kappa is None:
        return "not to be told: one of the two always says the same"
    steps = ((0.0, "no better than chance"), (0.2, "slight"), (0.4, "fair"), (0.6, "moderate"), (0.8, "substantial"))
    return next((word for limit, word in steps if kappa <= limit), "almost perfect")
