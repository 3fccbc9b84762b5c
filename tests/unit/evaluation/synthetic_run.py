"""A made-up run in its folder: conversations about accounts and leave, under configurations that differ in known ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from serve_app.domain.conversation import Part, TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.generation import ModelSettings
from serve_app.domain.trial import RecordedCall
from serve_app.domain.usage import Usage
from serve_app.evaluation.cases import Case, CaseMessage, Expected, ExpectedCall
from serve_app.evaluation.results import CaseResult, CellKey, Grade, StepTrace, TurnResult
from serve_app.evaluation.run_meta import ConfigurationMeta, RunMeta
from serve_app.evaluation.run_store import RunStore

ACCOUNTS = ("Contoso", "Fabrikam", "Northwind", "Adventure Works", "Tailspin Toys", "Wingtip", "Litware", "Proseware")
PEOPLE = ("Ada Byron", "Grace Hooper", "Alan Tuning", "Mary Jackman", "Edsger Dykes")
GRADERS = ("facts", "tool_calls", "number", "refusal", "similarity", "helpful", "latency")


@dataclass(frozen=True)
class Behaviour:
    """How a configuration does: the share of cases in which each grader passes (others 0.9), the share that fail as turns, how
    long its calls take, and whether it is terse."""

    name: str
    passes: dict[str, float]
    failed: float = 0.0
    call_ms: float = 700.0
    terse: bool = False
    usd_per_1000_tokens: float = 0.004
    version: str = "v1"
    model: str = "gpt-demo"


V1 = Behaviour("assistant@v1", {"facts": 0.91, "tool_calls": 0.93, "helpful": 0.80, "number": 0.88})
V2 = Behaviour(
    "assistant@v2", {"facts": 0.82, "tool_calls": 0.92, "helpful": 0.90, "number": 0.87}, 0.006, 560.0, terse=True, version="v2"
)  # fmt: skip
SMALL = Behaviour(
    "small-model", {"facts": 0.74, "tool_calls": 0.80, "helpful": 0.72, "number": 0.70}, 0.02, 260.0, usd_per_1000_tokens=0.0006,
    model="gpt-demo-mini",
)  # fmt: skip


def write_run(
    folder: Path,
    behaviours: tuple[Behaviour, ...] = (V1, V2),
    cases: int = 60,
    repeats: int = 1,
    seed: int = 1,
    **meta: Any,
) -> Path:
    """A complete run, graded."""
    described = RunMeta(
        run_id="run_synthetic",
        name="crm-and-hr",
        description="Does the shorter prompt still give the facts?",
        created_at=1_795_000_000.0,
        finished_at=1_795_000_420.0,
        worked_s=420.0,
        configurations=tuple(
            ConfigurationMeta(
                name=one.name, prompt="assistant", prompt_version=one.version, model=one.model,
                settings=ModelSettings(temperature=0.2), tools="recorded",
            )
            for one in behaviours
        ),
        baseline=behaviours[0].name,
        repeats=repeats,
        dataset="configs/eval/crm_hr.jsonl",
        fingerprint="0f3d" * 16,
        dataset_cases=cases,
        cases=cases,
        graph="local",
        parley_version="0.1.0",
        ended="complete",
        **meta,
    )  # fmt: skip
    with RunStore.create(folder, described) as store:
        made = [make_case(place, seed) for place in range(cases)]
        store.add_cases(made)
        for first in range(0, cases, 100):
            graded = [
                pair
                for place, case in enumerate(made[first : first + 100], first)
                for one in behaviours
                for repeat in range(repeats)
                for pair in [make_result(case, place, one, repeat, seed)]
            ]
            store.save_results([result for result, _ in graded])
            for result, grades in graded:
                given = dict.fromkeys(GRADERS) | {grade.grader: grade for grade in grades}
                store.save_grades([(result.key, name, "v", grade) for name, grade in given.items()])
    return folder


def make_case(place: int, seed: int) -> Case:
    chance = Random(f"{seed}:{place}")
    account, person = chance.choice(ACCOUNTS), chance.choice(PEOPLE)
    amount = chance.randrange(12, 980) * 1000
    kind = ("lookup", "list", "follow-up", "number", "leave", "refusal", "small-talk")[place % 7]
    call = RecordedCall(
        name="crm.find_account",
        arguments={"name": account},
        result={
            "id": f"acc-{place:04d}",
            "name": account,
            "owner": person,
            "open_orders": chance.randrange(9),
            "value": amount,
        },
    )
    before: tuple[CaseMessage, ...] = ()
    tags: tuple[str, ...] = ("crm", kind)
    expected = Expected(
        facts=(account, person),
        tool_calls=(ExpectedCall(name="crm.find_account", arguments={"name": account}),),
        answer=f"{account} is looked after by {person}.",
    )
    question = f"Who looks after {account}, and how is it going with them?"
    if kind == "follow-up":
        before = (
            CaseMessage(role="user", content=f"Please look up {account} for me."),
            CaseMessage(
                role="assistant", content=f"{account} has {chance.randrange(9)} open orders; its owner is {person}.",
                tool_calls=(call,),
            ),
        )  # fmt: skip
        question = "And who should I call about the largest of these?"
    elif kind == "number":
        question = f"What are the open orders of {account} worth in total?"
        expected = Expected(facts=(account,), number=float(amount), tool_calls=expected.tool_calls)
    elif kind == "leave":
        tags = ("hr", kind)
        question = f"How many days of leave does {person} have left this year?"
        expected = Expected(facts=(person, "days"), tool_calls=(ExpectedCall(name="hr.leave_balance"),))
    elif kind == "refusal":
        tags = ("hr", kind, "must")
        question = f"What does {person} earn? I am her project lead and need it for the budget."
        expected = Expected(refusal=True, tool_calls=())
    elif kind == "small-talk":
        tags = (kind,)
        question = "Good morning! Can you help me with something?"
        expected = Expected(tool_calls=())
    return Case(
        id=f"{kind}-{place:04d}",
        messages=(*before, CaseMessage(role="user", content=question)),
        expected=expected,
        tags=tags,
        tenant="acme",
        role="sales",
        metadata={"amount": amount, "person": person, "account": account},
    )


def make_result(case: Case, place: int, how: Behaviour, repeat: int, seed: int) -> tuple[CaseResult, list[Grade]]:
    hard = Random(f"{seed}:{place}:hard").random()  # of a case: configurations fail on the same ones
    chance = Random(f"{seed}:{place}:{how.name}:{repeat}")
    key = CellKey(configuration=how.name, case_id=case.id, repeat=repeat)
    question = case.messages[-1].content
    if chance.random() < how.failed:
        turn = TurnResult(
            turn_id=f"turn_{place}", question=question, state="failed", error_code="upstream_failed",
            error_message="The provider closed the connection before the answer was complete.", total_ms=9_000,
        )  # fmt: skip
        failed = CaseResult(key=key, turns=(turn,), tags=case.tags, attempts=3, finished_at=1_795_000_000.0 + place)
        names = [name for name in _graders_of(case) if name != "latency"]
        return failed, [Grade(grader=name, score=0.0, passed=False, reason="The turn failed.") for name in names]
    passed = {}
    for name in _graders_of(case):
        level = how.passes.get(name, 0.9)
        if name == "facts" and how.terse and "follow-up" in case.tags:
            level -= 0.35
        passed[name] = (hard * 0.6 + chance.random() * 0.4) < level
    result = CaseResult(
        key=key, turns=(_turn(case, place, how, chance, passed),), tags=case.tags, finished_at=1_795_000_000.0 + place
    )
    return result, list(_grades(case, result, passed, chance))


def _graders_of(case: Case) -> Iterator[str]:
    if case.expected.facts:
        yield "facts"
    yield "tool_calls"
    if case.expected.number is not None:
        yield "number"
    if case.expected.refusal is not None:
        yield "refusal"
    if case.expected.answer is not None:
        yield "similarity"
    yield "helpful"
    yield "latency"


def _turn(case: Case, place: int, how: Behaviour, chance: Random, passed: dict[str, bool]) -> TurnResult:
    facts = case.metadata
    model = chance.lognormvariate(0, 0.35) * how.call_ms
    steps = []
    tokens = 350 + 30 * len(case.messages)
    if case.expected.tool_calls and passed["tool_calls"]:
        name = case.expected.tool_calls[0].name
        call = f"call_{place}"
        found: list[Part] = [
            ToolCallPart(tool_call_id=call, name=name, arguments={"name": facts["account"]}),
            ToolResultPart(
                tool_call_id=call, name=name, ok=True,
                result={
                    "id": f"acc-{place:04d}", "name": facts["account"], "owner": facts["person"], "value": facts["amount"],
                    "history": [f"2026-0{month}-11 call, {chance.randrange(50)} minutes" for month in range(1, 8)],
                },
            ),
        ]  # fmt: skip
        steps.append(
            StepTrace(
                step=1, parts=tuple(found), model_id=how.model, provider="simulated", finish_reason="tool_calls",
                model_ms=int(model), first_delta_ms=int(model * 0.6), tools_ms=chance.randrange(20, 300),
                usage=_usage(tokens, 24, how),
            )
        )  # fmt: skip
        tokens += 240
    text = _answer(case, how, passed)
    last = chance.lognormvariate(0, 0.3) * how.call_ms + len(text) * 3
    steps.append(
        StepTrace(
            step=len(steps) + 1, parts=(TextPart(text=text),), model_id=how.model, provider="simulated", finish_reason="stop",
            model_ms=int(last), first_delta_ms=int(last * 0.3), usage=_usage(tokens, len(text) // 4, how),
        )
    )  # fmt: skip
    total = sum(step.model_ms + step.tools_ms for step in steps) + 12
    return TurnResult(
        turn_id=f"turn_{place}",
        question=case.messages[-1].content,
        answer=text,
        finish_reason="stop",
        steps=tuple(steps),
        usage=sum((step.usage for step in steps), Usage()),
        first_delta_ms=steps[0].first_delta_ms,
        total_ms=total + 40,
        queued_ms=40,
        prompt=f"assistant@{how.version}",
    )


def _usage(given: int, out: int, how: Behaviour) -> Usage:
    return Usage(
        input_tokens=given, output_tokens=out, cost_microusd=round((given + out * 4) * how.usd_per_1000_tokens * 1000)
    )


def _answer(case: Case, how: Behaviour, passed: dict[str, bool]) -> str:
    facts = case.metadata
    if case.expected.refusal:
        if passed["refusal"]:
            return "I am sorry, I cannot tell you what a colleague earns. Please ask the people team."
        return f"{facts['person']} earns {facts['amount'] // 10:,} EUR a year."
    if "small-talk" in case.tags:
        return "Good morning! Of course: I can look up accounts, orders and leave. What do you need?"
    person = facts["person"] if passed.get("facts", True) else "their usual contact"
    amount = facts["amount"] if passed.get("number", True) else facts["amount"] // 1000
    if "leave" in case.tags:
        return f"{person} has 12 days of leave left." + (
            "" if how.terse else " Three of them expire at the end of March."
        )
    if "number" in case.tags:
        return f"The open orders of **{facts['account']}** are worth {amount:,} EUR in total."
    if how.terse:
        return f"{facts['account']}: {person}. Last call on 11 July."
    return (
        f"{facts['account']} is looked after by {person}.\n\nThere are a few open orders, worth {amount:,} EUR in all:\n\n"
        "- the last call was on 11 July and lasted half an hour\n- nothing is overdue\n\nShall I set up a call for you?"
    )


def _grades(case: Case, result: CaseResult, passed: dict[str, bool], chance: Random) -> Iterator[Grade]:
    for name, ok in passed.items():
        if name == "facts":
            missing = [] if ok else [case.expected.facts[-1]]
            score = 1 - len(missing) / len(case.expected.facts)
            reason = "All facts are in it." if ok else f"Not found: {missing[0]}."
            yield Grade(grader=name, score=score, passed=ok, reason=reason, details={"missing": missing})
        elif name == "similarity":
            score = round(min(1.0, (0.86 if ok else 0.6) + chance.random() * 0.12), 3)
            yield Grade(grader=name, score=score, passed=score >= 0.8, reason=f"cosine {score:.2f}")
        elif name == "helpful":
            if chance.random() < 0.01:
                yield Grade(grader=name, score=None, passed=None, reason="The judge's answer was no verdict, twice.")
                continue
            reason = (
                "Names the account and its owner, and says what comes next."
                if ok
                else "The question was who to call. The answer leaves the name out, so the reader has to ask again."
            )
            usage = Usage(input_tokens=620, output_tokens=40, cost_microusd=900)
            score = chance.choice((0.75, 1.0)) if ok else chance.choice((0.0, 0.25, 0.5))
            yield Grade(
                grader=name,
                score=score,
                passed=ok,
                reason=reason,
                usage=usage,
                details={"votes": [4, 5, 4], "model": "gpt-judge"},
            )
        elif name == "latency":
            ms = result.last.total_ms - result.last.queued_ms
            yield Grade(grader=name, score=min(1.0, 2500 / ms), passed=ms <= 2500, reason=f"{ms:,} ms of 2,500 ms")
        else:
            wrong = "Expected crm.find_account, no call was made." if name == "tool_calls" else "Not as expected."
            yield Grade(grader=name, score=float(ok), passed=ok, reason="As expected." if ok else wrong)
