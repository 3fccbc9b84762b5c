"""The demonstration assistant as a judge of answers: a verdict from the overlap of words, the same for the same request.

A request is one for a judge where it asks for JSON with a score or a winner, and quotes an answer:

    ===== answer begins 0123456789abcdef          or          <answer>
    …                                                         …
    ===== answer ends 0123456789abcdef                        </answer>

What is quoted is known by its name: ``question`` or ``conversation``, ``answer`` (or ``answer A`` and ``answer B``),
``reference`` (or ``expected answer``), ``facts`` (one a line), ``figure``, ``refusal`` (yes or no). Names may have more words
around them ("the first answer"). The rubric is what follows a line ``Rubric:``, or all that is not quoted. How good an answer
is, from 0 to 1:

- 1 or 0 for refusing or not, as it should, where a refusal is said to be expected;
- with facts or a figure: the share of them that it says; else with a reference: the share of its words and figures that it says;
  else with a question: at least half, and more the more of the question's words it takes up; an empty answer: 0;
- less, where the rubric speaks of being brief, concise or short, and it has more than 40 words;
- half, where the rubric wants ids, and it has none.

A judge reads what is quoted, and does what none of it says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from serve_app.companions.provider.assistant.arguments import schema_example
from serve_app.companions.provider.assistant.words import content_stems, words

BRIEF_WORDS: Final = 40
NEARLY_AS_GOOD: Final = 0.05
"""Two answers no further apart than this are told to be as good as each other."""

_MARKED: Final = re.compile(
    r"^===== (.{1,200}?) begins ([0-9a-f]{16})\n(.*?)\n?===== \1 ends \2", re.DOTALL | re.MULTILINE
)
_TAGGED: Final = re.compile(r"<((?:[a-z]+[ _-])?(?:question|answer|reference|facts)(?:[ _-][a-z0-9]+)?)>\n?(.*?)\n?</\1>",
                            re.DOTALL | re.IGNORECASE)  # fmt: skip
_BRIEF: Final = re.compile(r"\b(?:brief|briefly|concise|concisely|short|to the point)\b", re.IGNORECASE)
_WANTS_IDS: Final = re.compile(r"\b(?:ids?|identifiers?)\b", re.IGNORECASE)
_ID: Final = re.compile(r"\b[A-Z]{2,8}-\d+\b")
_REFUSES: Final = re.compile(
    r"\b(?:can ?not|can['’]t|could not|unable to|not able to|no access|not allowed|sorry|decline)\b", re.IGNORECASE
)
_THOUSANDS: Final = re.compile(r"(?<=\d)[, '’](?=\d{3}\b)")
_SCORES: Final = ("score", "rating", "grade", "points")
_WINNERS: Final = ("winner", "better", "preference", "preferred", "choice", "verdict")
_PASSES: Final = ("passed", "pass", "correct", "acceptable")
_REASONS: Final = ("reason", "reasoning", "explanation", "rationale", "justification")


@dataclass(frozen=True, slots=True)
class Judged:
    """What is to be judged, as it was quoted. ``second`` is None where there is one answer only."""

    first: str
    second: str | None
    question: str
    reference: str
    facts: tuple[str, ...]
    refusal: bool | None
    rubric: str


def verdict_on(schema: Mapping[str, Any], system: str, asked: str) -> dict[str, Any] | None:
    """A verdict that fits the schema; None where the request is none for a judge.

    Args:
        schema: JSON schema of the verdict, an object.
        system: The system message.
        asked: The user's message.
    """
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not any(
        name in properties for name in (*_SCORES, "scores", *_WINNERS, *_PASSES)
    ):
        return None
    judged = _read(system, asked)
    if judged is None:
        return None
    first = goodness(judged.first, judged)
    second = None if judged.second is None else goodness(judged.second, judged)
    verdict: dict[str, Any] = {}
    for name, sub in properties.items():
        if not isinstance(sub, dict):
            continue
        if name in _REASONS:
            verdict[name] = _reason(judged, first, second)
        elif second is not None and name in _WINNERS and _options(sub):
            verdict[name] = _winner(_options(sub), first, second)
        elif name in _SCORES:
            verdict[name] = _on_scale(first, sub)
        elif name == "scores" and isinstance(criteria := sub.get("properties"), dict):
            verdict[name] = {
                one: _on_scale(_brevity(judged.first) if _BRIEF.search(one) else first, scale)
                for one, scale in criteria.items()
            }
        elif name in _PASSES or (name in _WINNERS and second is None):
            verdict[name] = _passed(first, sub)
    # Whatever else the schema wants gets a plausible value.
    return {**schema_example(dict(schema), judged.question, everything=True), **verdict}


def goodness(answer: str, judged: Judged) -> float:
    """How good an answer is, from 0 to 1; see above."""
    if not answer.strip():
        return 0.0
    if judged.refusal is not None and judged.refusal != bool(_REFUSES.search(answer)):
        return 0.0
    if judged.refusal:
        good = 1.0
    elif judged.facts:
        plain = _plain(answer)
        good = sum(_says(plain, _plain(fact)) for fact in judged.facts) / len(judged.facts)
    elif judged.reference.strip():
        good = _share(judged.reference, answer)
    else:
        good = 0.5 + 0.5 * _share(judged.question, answer)
    if _BRIEF.search(judged.rubric):
        good *= _brevity(answer)
    if _WANTS_IDS.search(judged.rubric) and not _ID.search(answer):
        good *= 0.5
    return good


def _brevity(answer: str) -> float:
    return min(1.0, max(0.5, BRIEF_WORDS / max(1, len(words(answer)))))


def _read(system: str, asked: str) -> Judged | None:
    quoted: dict[str, str] = {}
    answers: list[tuple[str, str]] = []
    facts: list[str] = []
    marked = [(found[1], found[3]) for found in _MARKED.finditer(asked)]
    for name, text in marked or [(found[1], found[2]) for found in _TAGGED.finditer(asked)]:
        names = set(re.findall(r"[a-z0-9]+", name.lower()))
        if names & {"facts", "fact", "figure"}:
            facts += [line.strip().removeprefix("-").strip() for line in text.splitlines() if line.strip("- \t")]
        elif "refusal" in names:
            quoted["refusal"] = text.strip().lower()
        elif names & {"reference", "expected", "ideal"}:
            quoted["reference"] = text
        elif names & {"answer", "response", "reply"}:
            answers.append((_rank(names), text))
        elif names & {"question", "query"} or (names & {"conversation"} and "question" not in quoted):
            quoted["question"] = text
    if not answers:
        return None
    ordered = [text for _, text in sorted(answers, key=lambda one: one[0])]
    # Without what is quoted: an answer that speaks of a rubric is none.
    rest = _MARKED.sub(" ", asked) if marked else _TAGGED.sub(" ", asked)
    before, heading, after = f"{system}\n{rest}".partition("Rubric:")
    return Judged(
        first=ordered[0],
        second=ordered[1] if len(ordered) > 1 else None,
        question=quoted.get("question", ""),
        reference=quoted.get("reference", ""),
        facts=tuple(facts),
        refusal={"yes": True, "no": False}.get(quoted.get("refusal", "")),
        rubric=after if heading else before,
    )


def _rank(names: set[str]) -> str:
    if names & {"b", "second", "2"}:
        return "b"
    return "a"


def _share(wanted: str, answer: str) -> float:
    """The share of the words of one text that another one has."""
    stems = set(content_stems(_plain(wanted)))
    return len(stems & set(content_stems(_plain(answer)))) / len(stems) if stems else 1.0


def _says(text: str, fact: str) -> bool:
    """Whether a fact is in a text, and not as a part of a word or of a figure."""
    return re.search(rf"(?<!\w)(?<!\d[.,]){re.escape(fact)}(?!\w)(?![.,]\d)", text) is not None


def _plain(text: str) -> str:
    """Lower case, one space between words, no Markdown, figures without separators."""
    return _THOUSANDS.sub("", " ".join(re.sub(r"[*_`|]", " ", text).split()).lower())


def _options(sub: Mapping[str, Any]) -> list[str]:
    values = sub.get("enum")
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _winner(options: list[str], first: float, second: float) -> str:
    def option(*wanted: str) -> str | None:
        return next((one for one in options if set(re.findall(r"[a-z0-9]+", one.lower())) & set(wanted)), None)

    neither = option("tie", "same", "equal", "neither", "none", "draw", "both")
    if abs(first - second) <= NEARLY_AS_GOOD and neither is not None:
        return neither
    chosen = option("a", "first", "1") if first >= second else option("b", "second", "2")
    return chosen or options[0]


def _on_scale(good: float, sub: Mapping[str, Any]) -> Any:
    listed = sub.get("enum")
    if isinstance(listed, list) and listed:  # the worst first
        return listed[round(good * (len(listed) - 1))]
    whole = sub.get("type") == "integer"
    low, high = sub.get("minimum", 1 if whole else 0), sub.get("maximum", 5 if whole else 1)
    scaled = low + good * (high - low)
    return round(scaled) if whole else round(scaled, 3)


def _passed(good: float, sub: Mapping[str, Any]) -> bool | str:
    options = _options(sub)
    if not options:
        return good >= 0.5
    good_words = ("pass", "passed", "good", "correct", "yes", "acceptable")
    wanted = next((one for one in options if one.lower() in good_words), options[0])
    other = next((one for one in options if one != wanted), wanted)
    return wanted if good >= 0.5 else other


def _reason(judged: Judged, first: float, second: float | None) -> str:
    if judged.refusal:
        by = "whether it refuses, as it should"
    else:
        by = (
            "facts"
            if judged.facts
            else "words of the reference"
            if judged.reference.strip()
            else "words of the question"
        )
        by = f"the {by} it has"
    against = "" if second is None else f" against {second:.0%}"
    return f"Simulated judge: {first:.0%}{against}, by {by}."
