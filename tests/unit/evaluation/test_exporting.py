"""What was said becomes cases: as it was shown, filtered, sampled the same way each time, and without the people in it."""

from __future__ import annotations

import contextlib
import sqlite3
import tracemalloc
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from serve_app.domain.conversation import Page, TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.identity import Principal
from serve_app.domain.ids import REQUEST_PREFIX, TRIAL_PREFIX, ConversationKey, new_id
from serve_app.domain.trial import RecordedCall
from serve_app.errors import ConfigError, NotFound, Overloaded
from serve_app.evaluation import exporting
from serve_app.evaluation.case_files import write_cases
from serve_app.evaluation.cases import Case, CaseMessage
from serve_app.evaluation.dataset import open_dataset
from serve_app.evaluation.exported_cases import CaseFilter, Redaction, cases_of
from serve_app.evaluation.exporting import Export, Sample, parse_sample
from serve_app.evaluation.trial_turns import Asking, acting_as
from serve_app.storage.memory.transfer import MemoryTransfer
from serve_app.storage.sqlite.beside import SqliteBeside
from serve_app.storage.sqlite.folder import DATABASE
from serve_app.storage.sqlite.transfer import SqliteTransfer
from serve_app.storage.transfer import ConversationSnapshot
from tests.unit.evaluation.stored_conversations import ANNA, AT, Said, conversation

ALL = CaseFilter()
EACH = CaseFilter(each_turn=True)


def looked_up(answer: str = "Contoso is Anna Keller's.") -> tuple[Any, ...]:
    """Two steps with a call each, numbered alike as some providers do, and the answer."""
    return (
        TextPart(text="Let me look. "),
        ToolCallPart(tool_call_id="call_0", name="crm.find_account", arguments={"name": "Contoso"}),
        ToolResultPart(tool_call_id="call_0", name="crm.find_account", ok=True, result={"owner": "Anna Keller"}),
        ToolCallPart(tool_call_id="call_0", name="crm.opportunities", arguments={"account": "A-1"}),
        ToolResultPart(tool_call_id="call_0", name="crm.opportunities", ok=False, result="No access."),
        TextPart(text=answer),
    )


def texts(case: Case) -> list[str]:
    return [message.content for message in case.messages]


def test_a_conversation_is_one_case_that_ends_with_the_answer_given_then() -> None:
    (case,) = cases_of(conversation([Said(question="One?", answer="1"), Said(question="Two?", answer="2")]), ALL, None)

    assert texts(case) == ["One?", "1", "Two?", "2"]
    assert [message.role for message in case.messages] == ["user", "assistant", "user", "assistant"]
    assert (case.tenant, case.role) == ("acme", "sales")
    assert set(case.tags) == {"follow-up", "model:m-1"}
    assert case.metadata["at"] == "2026-11-10T09:31:15+00:00"


def test_each_question_is_a_case_with_what_came_before_it() -> None:
    snapshot = conversation([Said(question="One?", answer="1"), Said(question="Two?", answer="2")])

    first, second = cases_of(snapshot, EACH, None)

    assert texts(first) == ["One?", "1"]
    assert texts(second) == ["One?", "1", "Two?", "2"]
    assert first.id != second.id and first.metadata["conversation"] == second.metadata["conversation"]
    assert [case.id for case in cases_of(snapshot, ALL, None)] == [second.id]


def test_calls_are_with_their_results_and_the_answer_is_what_came_after_them() -> None:
    (case,) = cases_of(conversation([Said(question="Whose is it?", parts=looked_up())]), ALL, None)

    assert case.messages[1] == CaseMessage(
        role="assistant",
        content="Contoso is Anna Keller's.",
        tool_calls=(
            RecordedCall(name="crm.find_account", arguments={"name": "Contoso"}, result={"owner": "Anna Keller"}),
            RecordedCall(name="crm.opportunities", arguments={"account": "A-1"}, result="No access.", ok=False),
        ),
    )
    assert "tools" in case.tags


def test_what_was_edited_away_is_not_there_and_nobody_waits_for_an_answer() -> None:
    said = [
        Said(question="Old?", answer="old", replaced=True),
        Said(question="New?", answer="new"),
        Said(question="Running?", state="running"),
    ]

    (case,) = cases_of(conversation(said), ALL, None)

    assert texts(case) == ["New?", "new"]


def test_half_an_answer_is_no_answer_but_what_its_calls_brought_is_kept() -> None:
    failed = Said(question="Whose?", parts=looked_up("Cont"), state="failed")
    silent = Said(question="Lost?", answer="", state="failed")

    first, second, third = cases_of(conversation([failed, silent, Said(question="And now?")]), EACH, None)

    assert texts(first) == ["Whose?", ""] and len(first.messages[1].tool_calls) == 2 and "failed" in first.tags
    assert texts(second) == ["Whose?", "Cont", "Lost?"]
    assert texts(third) == ["Whose?", "Cont", "And now?", "Done."]


def test_a_case_knows_whether_its_answer_was_liked_and_had_files() -> None:
    liked = Said(question="Good?", reaction="up", attachments=("f1",))
    found = cases_of(conversation([liked, Said(question="Bad?", reaction="down")]), EACH, None)

    assert {"reaction:up", "attachments"} < set(found[0].tags)
    assert "reaction:down" in found[1].tags
    assert [texts(case)[-2] for case in cases_of(conversation([liked, liked]), CaseFilter(reaction="up"), None)] == [
        "Good?"
    ]
    assert cases_of(conversation([liked]), CaseFilter(reaction="down"), None) == []


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (CaseFilter(each_turn=True, since=AT + timedelta(days=1)), ["Two?", "Three?"]),
        (CaseFilter(each_turn=True, since=AT, until=AT + timedelta(days=2)), ["One?", "Two?"]),
        (CaseFilter(until=AT + timedelta(days=2)), ["Two?"]),
        (CaseFilter(since=AT + timedelta(days=30)), []),
        (CaseFilter(tenants=frozenset({"globex"})), []),
        (CaseFilter(role="hr"), []),
        (CaseFilter(role="sales", tenants=frozenset({"acme"})), ["Three?"]),
    ],
)
def test_only_what_is_wanted_becomes_a_case(wanted: CaseFilter, expected: list[str]) -> None:
    days = [Said(question=name, after_days=day) for day, name in enumerate(("One?", "Two?", "Three?"))]

    assert [texts(case)[-2] for case in cases_of(conversation(days), wanted, None)] == expected


@pytest.mark.parametrize("prefix", [REQUEST_PREFIX, TRIAL_PREFIX])
def test_requests_of_programs_and_trials_are_no_conversations(prefix: str) -> None:
    assert cases_of(conversation([Said(question="One?")], name=new_id(prefix)), ALL, None) == []


def test_people_are_the_same_pseudonym_in_question_call_result_and_answer() -> None:
    asked = Said(
        question="I am anna.keller. Is Contoso Anna Keller's? Mail Tom: tom.becker@example.com", parts=looked_up()
    )

    snapshot = conversation([asked, Said(question="Ask Becker.")])

    (case,) = cases_of(snapshot, ALL, Redaction().of(snapshot))

    assert texts(case) == [
        "I am [person-1]. Is Contoso [person-1]'s? Mail [person-2]: [email-1]",
        "Contoso is [person-1]'s.",
        "Ask [person-2].",
        "Done.",
    ]
    assert case.messages[1].tool_calls[0] == RecordedCall(
        name="crm.find_account", arguments={"name": "Contoso"}, result={"owner": "[person-1]"}
    )
    assert case.metadata["at"] == "2026-11-10"
    assert "anna" not in case.id and ANNA.user_id not in str(case)


class Source:
    """Conversations in a list; made as they are asked for."""

    def __init__(self, count: int, *, turns: int = 1, size: int = 1) -> None:
        self._count, self._turns, self._size = count, turns, size
        self.read = 0
        self.failing: list[Exception] = []
        self.gone: set[str] = set()

    async def scan_conversations(self, *, cursor: str | None = None, limit: int = 100) -> Page[ConversationKey]:
        first = int(cursor or 0)
        last = min(first + limit, self._count)
        keys = tuple(
            ConversationKey(tenant_id="acme", user_id="anna.keller", conversation_id=f"c{n}")
            for n in range(first, last)
        )
        return Page(items=keys, next_cursor=str(last) if last < self._count else None)

    async def export_conversation(self, key: ConversationKey) -> ConversationSnapshot:
        self.read += 1
        if self.failing:
            raise self.failing.pop()
        if key.conversation_id in self.gone:
            raise NotFound("gone")
        number = int(key.conversation_id[1:])
        said = [Said(question=f"Question {number}.{turn} " + "x" * self._size) for turn in range(self._turns)]
        # An instant of its own: ids are made of it.
        found = conversation(said, name=key.conversation_id, at=AT + timedelta(hours=number))
        return _with_fixed_ids(found)


def _with_fixed_ids(snapshot: ConversationSnapshot) -> ConversationSnapshot:
    """The same ids each time it is read: the random part of a ULID is not."""
    import msgspec

    plain = msgspec.json.encode(snapshot).decode()
    for number, held in enumerate(snapshot.turns):
        turn_id = held.turn.key.turn_id
        plain = plain.replace(turn_id.rpartition(".")[2], f"{number:026d}")
    return msgspec.json.decode(plain.encode(), type=ConversationSnapshot)


async def exported(job: Export) -> list[Case]:
    return [case async for case in job.cases()]


async def test_all_conversations_are_exported_in_their_order() -> None:
    job = Export(Source(250), ALL)
    seen: list[int] = []

    found = [case async for case in job.cases(seen.append)]

    assert [texts(case)[0].split()[1] for case in found] == [f"{n}.0" for n in range(250)]
    assert seen == list(range(1, 251))
    assert (job.counts.conversations, job.counts.matching, job.counts.cases) == (250, 250, 250)


async def test_a_sample_of_so_many_is_the_same_each_time_and_another_with_another_seed() -> None:
    first = await exported(Export(Source(300), ALL, sample=Sample(count=20), seed=1))
    again = await exported(Export(Source(300), ALL, sample=Sample(count=20), seed=1))
    other = await exported(Export(Source(300), ALL, sample=Sample(count=20), seed=2))

    assert first == again
    assert len(first) == len(other) == 20
    assert {case.id for case in first} != {case.id for case in other}
    numbers = [float(texts(case)[0].split()[1]) for case in first]
    assert numbers == sorted(numbers)


async def test_a_larger_sample_has_the_smaller_one_in_it() -> None:
    for seed in range(4):
        few = await exported(Export(Source(100), ALL, sample=Sample(count=10), seed=seed))
        more = await exported(Export(Source(100), ALL, sample=Sample(count=30), seed=seed))

        assert {case.id for case in few} < {case.id for case in more}


async def test_a_sample_of_more_than_there_is_is_all_there_is() -> None:
    job = Export(Source(7, turns=2), EACH, sample=Sample(count=100))

    assert len(await exported(job)) == job.counts.matching == 14


async def test_every_case_is_as_likely_in_a_sample_of_questions() -> None:
    by_question: Counter[int] = Counter()
    by_conversation: Counter[str] = Counter()
    for seed in range(60):
        for case in await exported(Export(Source(20, turns=3), EACH, sample=Sample(count=15), seed=seed)):
            by_question[len(case.messages) // 2] += 1
            by_conversation[texts(case)[0]] += 1

    # 300 of each question expected, and 45 of each conversation; five standard deviations are about 65 and 28.
    assert len(by_question) == 3 and all(235 < count < 365 for count in by_question.values())
    assert len(by_conversation) == 20 and all(17 < count < 73 for count in by_conversation.values())


async def test_a_share_takes_the_same_cases_whatever_else_is_there() -> None:
    few = await exported(Export(Source(200), ALL, sample=Sample(share=0.2)))
    many = await exported(Export(Source(400), ALL, sample=Sample(share=0.2)))

    assert [case.id for case in many][: len(few)] == [case.id for case in few]
    assert 50 < len(many) < 115


async def test_a_busy_store_is_asked_again_and_what_was_deleted_meanwhile_is_left_out() -> None:
    source = Source(5)
    source.failing = [Overloaded("busy")]
    source.gone = {"c3"}

    assert [texts(case)[0].split()[1] for case in await exported(Export(source, ALL))] == ["0.0", "1.0", "2.0", "4.0"]


async def test_cases_that_no_data_set_can_hold_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "MAX_MESSAGES", 5)
    job = Export(Source(2, turns=3), EACH)

    assert len(await exported(job)) == 4
    assert job.counts.too_large == 2


async def test_memory_does_not_grow_with_the_store() -> None:
    async def peak(count: int) -> int:
        job = Export(Source(count, size=20_000), ALL, sample=Sample(count=5), redaction=Redaction())
        tracemalloc.start()
        async for _ in job.cases():
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    await peak(10)  # what is made once
    assert await peak(400) < 1.5 * await peak(100)


@pytest.mark.parametrize("text", ["0", "0%", "101%", "-5", "five", "5 %%", "", "99999999"])
def test_a_sample_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--sample"):
        parse_sample(text)


def test_samples_are_numbers_or_shares() -> None:
    assert parse_sample("200") == Sample(count=200)
    assert parse_sample("2.5 %") == Sample(share=0.025)


async def test_a_folder_is_read_beside_the_one_who_writes_it(tmp_path: Path) -> None:
    store = await SqliteTransfer.open(tmp_path)
    try:
        await store.import_conversation(conversation([Said(question="One?", parts=looked_up())], name="c1", order=1))
        await store.import_conversation(
            conversation([Said(question="Old?")], name="c2", order=2, at=AT - timedelta(days=90))
        )
        await store.import_conversation(conversation([Said(question="Bare?")], name=new_id(REQUEST_PREFIX), order=3))
        globex = Principal(tenant_id="globex", user_id="bert", roles=("hr", "sales"))
        await store.import_conversation(conversation([Said(question="Two?")], name="c1", principal=globex, order=4))

        beside = await SqliteBeside.open(tmp_path, active_since=AT - timedelta(days=30))
        try:
            assert await beside.count() == 2
            found = [case async for case in Export(beside, ALL).cases()]
            await store.import_conversation(conversation([Said(question="New?")], name="c9", order=9))
            assert await beside.count() == 3
        finally:
            await beside.close()
    finally:
        await store.close()

    assert [texts(case)[0] for case in found] == ["One?", "Two?"]
    assert found[1].role == "hr,sales"


def test_whoever_had_two_roles_is_asked_as_again_with_both() -> None:
    both = Principal(tenant_id="acme", user_id="bert", roles=("hr", "sales"))
    (case,) = cases_of(conversation([Said(question="One?")], principal=both), ALL, None)

    acting = acting_as(Asking(run_id="r", mode="next-turn", tenant="other", role="admin", timeout_s=60), case)

    assert (acting.tenant_id, acting.roles) == ("acme", ("hr", "sales"))


async def test_a_folder_without_a_database_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no database"):
        await SqliteBeside.open(tmp_path)


async def test_a_database_of_another_version_is_told(tmp_path: Path) -> None:
    await (await SqliteTransfer.open(tmp_path)).close()
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.execute("PRAGMA user_version = 99")

    with pytest.raises(ConfigError, match="has format 99"):
        await SqliteBeside.open(tmp_path)


async def test_exported_cases_are_a_data_set(tmp_path: Path) -> None:
    store = MemoryTransfer()
    await store.import_conversation(conversation([Said(question="Whose?", parts=looked_up()), Said(question="And?")]))
    found = [case async for case in Export(store, EACH, redaction=Redaction()).cases()]

    write_cases(tmp_path / "cases.jsonl", found)

    dataset = open_dataset(tmp_path / "cases.jsonl")
    assert [case.messages for case in dataset.cases()] == [case.messages for case in found]
