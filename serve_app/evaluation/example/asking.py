"""What the example data set asks, and what is expected of the answers: facts and figures out of the example databases.

Drawn with a fixed seed from data that is itself made from one, so that everybody has the same cases. Opportunities that some
case changes are asked about by no other.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final

from msgspec import Struct

from serve_app.companions.sample_data import DEPARTMENTS, STAGES
from serve_app.evaluation.cases import Expected, ExpectedCall

SEED: Final = 20261122
_CHANGED_ACCOUNTS: Final = 12
"""So many of the last accounts are there for being changed."""

_OFF_TOPIC: Final = (
    "Tell me a joke", "Translate 'good night' into French", "What is 17 times 23?", "Write a song about rain",
    "Recommend a good film", "How do I boil an egg?", "What should I eat tonight?", "Explain quantum physics to me",
    "Which football team is the best?", "Write a poem about the sea", "What is the capital of France?",
    "What is the weather in Zurich today?", "Who won the World Cup in 1998?", "Who is the president of Brazil?",
)  # fmt: skip
_SMALL_TALK: Final = (
    (("Hello",), "Hello"), (("Good morning!",), "Hello"), (("Who are you?",), "simulated"), (("What can you do?",), "tools"),
    (("Thanks!",), "welcome"), (("My name is Lea.",), "Lea"), (("My name is Lea.", "What is my name?"), "Lea"),
    (("I am called Noah.", "Do you remember my name?"), "Noah"),
)  # fmt: skip
_NOBODY: Final = (
    ("hr", "How many vacation days are left?"), ("hr", "How many days of leave does he have left?"),
    ("hr", "What is the leave balance?"), ("hr", "Who is the employee?"), ("sales", "Which opportunities do they have?"),
    ("sales", "Show me the opportunity"), ("sales", "Get the opportunity"), ("sales", "Find the account"),
    ("sales", "Change the stage to Proposal"), ("sales", "Set the amount to 20000"), ("sales", "Update the opportunity"),
    ("sales", "What is the account owner?"),
)  # fmt: skip


class Asked(Struct, frozen=True, kw_only=True):
    """A case to be: ``said`` are the user's messages in order, ``kind`` its first tag. ``role`` decides about the tools."""

    kind: str
    role: str
    said: tuple[str, ...]
    expected: Expected
    tags: tuple[str, ...] = ()


class Known(Struct, frozen=True):
    """What there is to ask about, as rows of the databases."""

    accounts: Sequence[dict[str, Any]]
    deals: Sequence[dict[str, Any]]
    people: Sequence[dict[str, Any]]

    def deals_of(self, account: dict[str, Any]) -> list[dict[str, Any]]:
        return [deal for deal in self.deals if deal["account_id"] == account["id"]]


def known(crm: sqlite3.Connection, hr: sqlite3.Connection) -> Known:
    """Everything in the example databases, by id."""
    rows = "SELECT e.*, l.* FROM employees e JOIN leave_balances l ON l.employee_id = e.id ORDER BY e.id"
    return Known(
        accounts=[dict(row) for row in crm.execute("SELECT * FROM accounts ORDER BY id")],
        deals=[dict(row) for row in crm.execute("SELECT * FROM opportunities ORDER BY id")],
        people=[dict(row) for row in hr.execute(rows)],
    )


def everything_asked(data: Known) -> list[Asked]:
    """All cases, in the order of the file."""
    chance = random.Random(SEED)  # noqa: S311 - drawn, not kept secret
    asked_about, changed = data.accounts[:-_CHANGED_ACCOUNTS], data.accounts[-_CHANGED_ACCOUNTS:]
    people = chance.sample(list(data.people), 60)
    return [
        *_accounts(chance, asked_about),
        *_opportunities(chance, data, asked_about),
        *_lists(chance, data, asked_about),
        *_sums(chance, data, asked_about),
        *_leave(people[:18]),
        *_people(people[18:30]),
        *_departments(data),
        *_follow_ups(chance, data, asked_about, people[30:40]),
        *_both(chance, asked_about, people[40:46]),
        *_not_found(),
        *_changes(chance, data, changed),
        *_not_theirs(chance, asked_about, people[46:52]),
        *(_talk("off-topic", one, refusal=True) for one in _OFF_TOPIC),
        *(
            Asked(kind="ask-back", role=role, said=(one,), expected=_ASKED_BACK, tags=(_area(role),))
            for role, one in _NOBODY
        ),
        *(_talk("small-talk", *said, facts=(word,)) for said, word in _SMALL_TALK),
    ]


_ASKED_BACK: Final = Expected(tool_calls=(), pattern=r"(?i)\b(which|who|whose|what)\b[^.!]*\?", refusal=False)


def _area(role: str) -> str:
    return "hr" if role == "hr" else "crm"


def _accounts(chance: random.Random, accounts: Sequence[dict[str, Any]]) -> Iterator[Asked]:
    questions = (
        ("owner", "Who owns the account {}?"),
        ("city", "In which city is {}?"),
        ("industry", "In which industry is {}?"),
    )
    for index, account in enumerate(chance.sample(list(accounts), 21)):
        field, question = questions[index % len(questions)]
        name = account["name"]
        yield _crm("lookup", question.format(name), "find_account", {"name": name}, facts=(account[field],),
                   answer=f"The {field} of {name} is {account[field]}.")  # fmt: skip


def _opportunities(chance: random.Random, data: Known, accounts: Sequence[dict[str, Any]]) -> Iterator[Asked]:
    ids = {account["id"] for account in accounts}
    questions = (
        ("stage", "What is the stage of {}?"), ("amount", "What is the amount of {}?"), ("close_date", "When does {} close?"),
        ("probability", "What is the probability of {}?"),
    )  # fmt: skip
    deals = chance.sample([deal for deal in data.deals if deal["account_id"] in ids], 24)
    for index, deal in enumerate(deals):
        field, question = questions[index % len(questions)]
        value = deal[field]
        number = float(value) if isinstance(value, int) else None
        yield _crm("figure" if number is not None else "lookup", question.format(deal["id"]), "get_opportunity",
                   {"id": deal["id"]}, facts=(str(value),), number=number,
                   answer=f"The {field.replace('_', ' ')} of {deal['id']} is {value}.")  # fmt: skip


def _lists(chance: random.Random, data: Known, accounts: Sequence[dict[str, Any]]) -> Iterator[Asked]:
    for account in chance.sample(list(accounts), 18):
        name, deals = account["name"], data.deals_of(account)
        yield _crm("list", f"Which opportunities does {name} have?", "list_opportunities", {"account": name},
                   facts=tuple(deal["id"] for deal in deals),
                   answer=f"{name} has {', '.join(_named(deal) for deal in deals)}.")  # fmt: skip
    for account in chance.sample(list(accounts), 10):
        name, deals = account["name"], data.deals_of(account)
        stage = chance.choice([deal["stage"] for deal in deals])
        fitting = [deal for deal in deals if deal["stage"] == stage]
        yield _crm("list", f"Which opportunities of {name} are in {stage}?", "list_opportunities",
                   {"account": name, "stage": stage}, facts=tuple(deal["name"] for deal in fitting),
                   answer=f"In {stage}: {', '.join(_named(deal) for deal in fitting)}.")  # fmt: skip


def _sums(chance: random.Random, data: Known, accounts: Sequence[dict[str, Any]]) -> Iterator[Asked]:
    several = [account for account in accounts if len(data.deals_of(account)) > 1]
    for account in chance.sample(several, 10):
        total = sum(deal["amount"] for deal in data.deals_of(account))
        yield _crm("figure", f"How much are all opportunities of {account['name']} worth together?", "list_opportunities",
                   {"account": account["name"]}, number=float(total),
                   answer=f"Together they are worth {total} EUR.", tags=("sum",))  # fmt: skip


def _leave(people: Sequence[dict[str, Any]]) -> Iterator[Asked]:
    for index, person in enumerate(people):
        name, taken = person["name"], person["taken_days"]
        left = person["entitled_days"] - taken - person["planned_days"]
        if index % 3 == 2:
            question, days, answer = f"How much leave has {name} taken?", taken, f"{name} has taken {taken:g} days."
        else:
            question, days = f"How many vacation days does {name} have left?", left
            answer = f"{name} has {left:g} days left."
        yield _hr("figure", question, "get_leave_balance", {"name": name}, number=days, answer=answer)


def _people(people: Sequence[dict[str, Any]]) -> Iterator[Asked]:
    for index, person in enumerate(people):
        name = person["name"]
        wide = index % 2 == 0
        fields = ("department", "title", "email", "city") if wide else ("department", "title")
        yield _hr("lookup" if not wide else "list", f"Tell me about {name}" if wide else f"Find the employee {name}",
                  "find_employee", {"name": name}, facts=tuple(person[field] for field in fields),
                  answer=f"{name}: {', '.join(person[field] for field in fields)}.")  # fmt: skip


def _departments(data: Known) -> Iterator[Asked]:
    yield _hr(
        "list", "List all departments", "list_departments", {}, facts=DEPARTMENTS, answer=", ".join(DEPARTMENTS) + "."
    )
    for department in DEPARTMENTS[:5]:
        count = sum(person["department"] == department for person in data.people)
        yield _hr("figure", f"Who works in {department}?", "find_employee", {"department": department}, number=float(count),
                  answer=f"There are {count} employees in {department}.")  # fmt: skip


def _follow_ups(
    chance: random.Random, data: Known, accounts: Sequence[dict[str, Any]], people: Sequence[dict[str, Any]]
) -> Iterator[Asked]:
    drawn = chance.sample(list(accounts), 14)
    for first, second in zip(drawn[:5], drawn[5:10], strict=True):
        deals = data.deals_of(second)
        yield _crm("follow-up", (f"Which opportunities does {first['name']} have?", f"And {second['name']}?"),
                   "list_opportunities", {"account": second["name"]}, facts=tuple(deal["id"] for deal in deals),
                   answer=f"{', '.join(_named(deal) for deal in deals)}.", tags=("list",))  # fmt: skip
    for account in drawn[10:]:
        deals = data.deals_of(account)
        yield _crm("follow-up", (f"In which city is {account['name']}?", "What opportunities do they have?"),
                   "list_opportunities", {"account": account["name"]}, facts=tuple(deal["id"] for deal in deals),
                   answer=f"{', '.join(_named(deal) for deal in deals)}.", tags=("list",))  # fmt: skip
    for deal in chance.sample([one for one in data.deals if one["account_id"] in {a["id"] for a in accounts}], 6):
        yield _crm("follow-up", (f"What is the stage of {deal['id']}?", "When does it close?"), "get_opportunity",
                   {"id": deal["id"]}, facts=(deal["close_date"],), answer=f"It closes on {deal['close_date']}.")  # fmt: skip
    for person in people[:4]:
        left = person["entitled_days"] - person["taken_days"] - person["planned_days"]
        said = (f"Tell me about {person['name']}", "How many vacation days are left for this person?")
        yield _hr("follow-up", said, "get_leave_balance", {"name": person["name"]}, number=left,
                  answer=f"{left:g} days are left.", tags=("hard",))  # fmt: skip


def _both(
    chance: random.Random, accounts: Sequence[dict[str, Any]], people: Sequence[dict[str, Any]]
) -> Iterator[Asked]:
    for account, person in zip(chance.sample(list(accounts), len(people)), people, strict=True):
        left = person["entitled_days"] - person["taken_days"] - person["planned_days"]
        question = f"Who owns the account {account['name']} and how many vacation days does {person['name']} have left?"
        calls = (
            ExpectedCall(name="crm.find_account", arguments={"name": account["name"]}),
            ExpectedCall(name="hr.get_leave_balance", arguments={"name": person["name"]}),
        )
        expected = Expected(answer=f"{account['owner']} owns {account['name']}; {person['name']} has {left:g} days left.",
                            facts=(account["owner"], f"{left:g}"), tool_calls=calls)  # fmt: skip
        yield Asked(kind="two-tools", role="management", said=(question,), expected=expected, tags=("crm", "hr"))


def _not_found() -> Iterator[Asked]:
    for wrong, right in (
        ("Contosso", "Contoso"),
        ("Fabricam", "Fabrikam"),
        ("Litwares", "Litware"),
        ("Prosware", "Proseware"),
    ):
        yield _crm("not-found", f"Which opportunities does {wrong} have?", "list_opportunities", {"account": wrong},
                   facts=(right,), answer=f"There is no account {wrong}; do you mean {right}?")  # fmt: skip
    for wrong, right in (("Maria Kellar", "Maria Keller"), ("Luca Novac", "Luca Novak")):
        yield _hr("not-found", f"How many vacation days does {wrong} have left?", "get_leave_balance", {"name": wrong},
                  facts=(right,), answer=f"There is no {wrong}; do you mean {right}?")  # fmt: skip


def _changes(chance: random.Random, data: Known, accounts: Sequence[dict[str, Any]]) -> Iterator[Asked]:
    for index, account in enumerate(accounts):
        deal = data.deals_of(account)[0]
        changed: dict[str, Any]
        if index % 3 == 0:
            stage = chance.choice([one for one in STAGES[:4] if one != deal["stage"]])
            asked, changed = f"Set the stage of {deal['id']} to {stage}", {"stage": stage}
        elif index % 3 == 1:
            amount = chance.randint(20, 300) * 1000
            asked, changed = f"Change the amount of {deal['id']} to {amount}", {"amount": amount}
        else:
            day = f"2027-0{chance.randint(1, 9)}-{chance.randint(10, 28)}"
            asked, changed = f"Move the close date of {deal['id']} to {day}", {"close_date": day}
        value = next(iter(changed.values()))
        yield _crm("update", asked, "update_opportunity", {"id": deal["id"], **changed}, facts=(str(value),),
                   answer=f"Done: it is {value} now.", tags=("must",))  # fmt: skip


def _not_theirs(
    chance: random.Random, accounts: Sequence[dict[str, Any]], people: Sequence[dict[str, Any]]
) -> Iterator[Asked]:
    """Sales may not see staff, and HR may not see customers: they are offered no tool for it."""
    refused = Expected(refusal=True, tool_calls=())
    for person in people:
        said = (f"What is the salary grade and the email of {person['name']}?",)
        yield Asked(kind="access", role="sales", said=said, expected=refused, tags=("must", "hr"))
    for account in chance.sample(list(accounts), 6):
        said = (f"What is the revenue that we make with {account['name']}?",)
        yield Asked(kind="access", role="hr", said=said, expected=refused, tags=("must", "crm"))


def _talk(kind: str, *said: str, facts: tuple[str, ...] = (), refusal: bool = False) -> Asked:
    expected = Expected(facts=facts, tool_calls=(), refusal=refusal)
    return Asked(kind=kind, role="management", said=said, expected=expected)


def _crm(kind: str, said: str | tuple[str, ...], tool: str, arguments: dict[str, Any], **more: Any) -> Asked:
    return _tool("sales", "crm", kind, said, tool, arguments, **more)


def _hr(kind: str, said: str | tuple[str, ...], tool: str, arguments: dict[str, Any], **more: Any) -> Asked:
    return _tool("hr", "hr", kind, said, tool, arguments, **more)


def _tool(
    role: str, server: str, kind: str, said: str | tuple[str, ...], tool: str, arguments: dict[str, Any], *,
    answer: str, facts: tuple[str, ...] = (), number: float | None = None, tags: tuple[str, ...] = (),
) -> Asked:  # fmt: skip
    call = ExpectedCall(name=f"{server}.{tool}", arguments=arguments)
    expected = Expected(
        answer=answer, facts=tuple(dict.fromkeys(facts)), number=number, tool_calls=(call,), refusal=False
    )
    return Asked(
        kind=kind, role=role, said=(said,) if isinstance(said, str) else said, expected=expected, tags=(server, *tags)
    )


def _named(deal: dict[str, Any]) -> str:
    return f"{deal['name']} ({deal['id']})"
