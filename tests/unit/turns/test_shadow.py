"""Live turns asked of a candidate as well: its user, their messages and usage, and the tools never know."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from ulid import ULID

from serve_app.domain.conversation import Message, ToolResultPart
from serve_app.domain.generation import ModelCatalog
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.tools import ToolSet
from serve_app.domain.trial import Trial
from serve_app.domain.turns import GivenPrompt, NewTurn, Query, Turn, TurnClaim
from serve_app.errors import ConfigError, Overloaded, ParleyError
from serve_app.settings import PROJECT_ROOT, Settings
from serve_app.storage.memory.transfer import MemoryTransfer
from serve_app.turns import shadow as shadow_module
from serve_app.turns.shadow import mirrored_turn, recorded_calls
from serve_app.turns.shadow_config import ShadowConfig, load_shadow
from serve_app.turns.shadow_records import (
    SHADOW_USER,
    MirroredTrial,
    MirroredTurn,
    ShadowRecords,
    forget_conversation,
    forget_user,
)
from serve_app.turns.trial_config import Candidate
from serve_app.turns.trial_tools import NOT_RECORDED
from serve_app.turns.trials import TrialEnd, TrialGraph
from tests.unit.turns.bench import PRINCIPAL, SECONDS
from tests.unit.turns.shadow_world import EVERY, World, asked, world


def without_times(value: Any) -> Any:
    text = msgspec.json.encode(value).decode()
    return re.sub(r'"(?:created_at|updated_at|duration_ms|at|etag)":(?:"[^"]*"|[0-9.]+)', "", text)


async def seen_by_the_user(here: World) -> list[Any]:
    """All that a user can look at, and what the tool servers were asked."""
    today = datetime.now(UTC).date()
    listed = await here.store.list_conversations(PRINCIPAL)
    messages = await here.store.list_messages(ConversationKey.of(PRINCIPAL, "c1"))
    usage = await here.store.sum_usage(PRINCIPAL.tenant_id, today, today, "day", user_id=PRINCIPAL.user_id)
    return [listed.items, messages.items, usage.total, here.tools.calls, here.tools.keys]


async def test_users_and_tools_see_the_same_with_a_shadow_and_without() -> None:
    seen = []
    for config in (None, EVERY):
        async with world(config) as here:
            streams = [(await asked(here, f"OPP-{number}", number=number))[1] for number in (1, 2)]
            await here.settle()
            seen.append(without_times([streams, *await seen_by_the_user(here)]))
            if config is not None:
                assert here.counts() == {"mirrored": 2}
                assert len(await here.trials()) == 2

    assert seen[0] == seen[1]
    assert "crm.update" in seen[0]


async def test_the_candidate_is_asked_what_the_live_turn_was_and_its_calls_are_answered_from_the_record() -> None:
    async with world() as here:
        await asked(here, "OPP-1", number=1)
        await asked(here, "OPP-2", number=2)
        await here.settle()

        mirrored = sorted(await here.records(), key=lambda one: one.turn_id)[1]
        key = mirrored.trial_key(mirrored.trials[0])
        answer = await here.store.get_message(key.conversation, key.assistant_message_id)
        trial = await here.store.get_turn(key)

    assert answer.text == 'candidate: {"done":true}'
    results = [part for part in answer.parts if isinstance(part, ToolResultPart)]
    assert [(part.name, part.ok, part.result) for part in results] == [
        ("crm.list", False, NOT_RECORDED),
        ("crm.update", True, {"done": True}),
    ]
    assert [(made.name, made.arguments) for made in here.tools.calls] == [
        ("crm.update", {"id": "OPP-1"}), ("crm.update", {"id": "OPP-2"}),
    ]  # fmt: skip
    live = [request for request in here.models.requests if request.model_id != "candidate"]
    shadowed = [request for request in here.models.requests if request.model_id == "candidate"]
    assert shadowed[-3].messages == live[2].messages
    assert {request.priority for request in shadowed} == {"batch"} and {request.priority for request in live} == {
        "live"
    }
    assert trial.query.trial is not None
    assert (trial.query.trial.acting, trial.query.trial.mirrors) == (PRINCIPAL, mirrored.turn_id)
    assert (trial.principal, trial.key.conversation.listed) == (Principal(tenant_id="acme", user_id=SHADOW_USER), False)


async def test_what_it_consumes_is_the_shadows_and_not_the_users() -> None:
    async with world() as here:
        await asked(here, "OPP-1")
        await here.settle()
        today = datetime.now(UTC).date()
        sums = await here.store.sum_usage("acme", today, today, "user")

    assert {one.group: one.usage.cost_microusd for one in sums.items} == {PRINCIPAL.user_id: 14, SHADOW_USER: 21}


def live_turn(number: int = 0, **fields: Any) -> Turn:
    conversation = ConversationKey.of(PRINCIPAL, f"c{number}")
    plain = Turn(
        key=TurnKey.new(conversation), principal=PRINCIPAL, query=Query(content="Hi"), created_at=datetime.now(UTC), deadline=0
    )  # fmt: skip
    return replace(plain, **fields)


def test_a_share_of_the_turns_is_chosen_and_everywhere_the_same() -> None:
    here, there = (World(EVERY.model_copy(update={"share": 0.2})).shadow for _ in range(2))
    assert here is not None and there is not None
    turns = [live_turn(number) for number in range(2_000)]

    chosen = [turn.key for turn in turns if here.wants(turn)]

    assert chosen == [turn.key for turn in turns if there.wants(turn)]
    assert 310 < len(chosen) < 490  # 400 expected; five standard deviations are 89


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, True),
        ({"priority": "batch"}, False),
        ({"query": Query(content="", given=GivenPrompt(messages=()))}, False),
        ({"query": Query(content="", trial=Trial(run_id="r"))}, False),
        ({"principal": replace(PRINCIPAL, tenant_id="globex")}, False),
        ({"principal": replace(PRINCIPAL, roles=("hr",))}, False),
        ({"principal": replace(PRINCIPAL, roles=("hr", "sales"))}, True),
    ],
)
def test_only_live_turns_of_those_named_are_mirrored(fields: dict[str, Any], wanted: bool) -> None:
    config = EVERY.model_copy(update={"tenants": ("acme",), "roles": ("sales",)})
    here = World(config).shadow
    assert here is not None

    assert here.wants(live_turn(**fields)) is wanted


class Refusing:
    """A graph that has no room, or worse."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.asked: list[NewTurn] = []

    async def run(self, turn: NewTurn) -> TrialEnd:
        self.asked.append(turn)
        raise self.error

    async def catalog(self) -> ModelCatalog:
        raise NotImplementedError

    async def tools_for(self, principal: Principal) -> ToolSet:
        raise NotImplementedError

    async def prompts(self) -> dict[str, tuple[str, ...]]:
        raise NotImplementedError

    async def aclose(self) -> None: ...


@pytest.mark.parametrize(
    ("error", "counted", "times"),
    [
        (Overloaded("full", None, 0.001), {"no_room": 2}, 3),
        (ParleyError("no"), {"failed": 2}, 1),
        (RuntimeError("a bug"), {"failed": 2}, 1),
    ],
)
async def test_a_shadow_that_fails_costs_the_live_turn_nothing(
    error: Exception, counted: dict[str, float], times: int
) -> None:
    async with world(None) as here:
        refusing = Refusing(error)
        shadow = here.shadowing(EVERY, refusing)
        shadow.start()
        for number in (1, 2):
            _, stream = await asked(here, "OPP-1", number=number)
            assert stream[-1]["type"] == "chat_response"
        async with asyncio.timeout(SECONDS):
            await shadow.settle()
        await shadow.stop()

        assert here.counts() == counted
        assert len(refusing.asked) == 2 * times
        assert await here.records() == []


class Choosy(Refusing):
    """Refuses the first it is asked, and runs all others."""

    def __init__(self, error: Exception, graph: TrialGraph) -> None:
        super().__init__(error)
        self.graph = graph

    async def run(self, turn: NewTurn) -> TrialEnd:
        return await (self.graph.run(turn) if self.asked else super().run(turn))


async def test_a_candidate_that_is_refused_takes_no_other_one_along() -> None:
    both = EVERY.model_copy(update={"candidates": (Candidate(name="v1"), *EVERY.candidates)})
    async with world(None) as here:
        shadow = here.shadowing(both, Choosy(ParleyError("no"), here.graph))
        shadow.start()
        await asked(here, "OPP-1")
        async with asyncio.timeout(SECONDS):
            await shadow.settle()
        await shadow.stop()

        (record,) = await here.records()
        assert [trial.candidate.name for trial in record.trials] == ["v2"]
        assert here.counts() == {"failed": 1, "mirrored": 1}


async def test_what_comes_too_fast_is_dropped_and_so_many_an_hour_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_module, "QUEUE", 2)
    here = World(EVERY.model_copy(update={"max_per_hour": 4}))
    assert here.shadow is not None
    for number in range(6):
        turn = live_turn(number)
        here.shadow.offer(TurnClaim(turn=turn, conversation=await _head(here, turn), history=()))

    assert here.counts() == {"dropped": 2, "limited": 2}  # two wait, as nobody works


async def _head(here: World, turn: Turn) -> Any:
    return await here.store.ensure_conversation(turn.key.conversation)


async def test_a_turn_that_is_offered_by_two_owners_is_mirrored_once() -> None:
    async with world() as here:
        assert here.shadow is not None
        key, _ = await asked(here, "OPP-1")
        await here.settle()
        turn = await here.store.get_turn(key)
        claim = TurnClaim(turn=turn, conversation=await _head(here, turn), history=())
        before = len(here.models.requests)
        here.shadow.offer(claim)
        await here.settle()

        assert len(here.models.requests) == before
        assert len(await here.records()) == len(await here.trials()) == 1


class Dying(Refusing):
    """Runs what it is asked for, and never says so: whoever asked is dead by then."""

    def __init__(self, graph: TrialGraph) -> None:
        super().__init__(ParleyError("no"))
        self.graph = graph
        self.ran = asyncio.Event()

    async def run(self, turn: NewTurn) -> TrialEnd:
        end = await self.graph.run(turn)
        self.ran.set()
        await asyncio.Event().wait()
        return end


async def test_a_trial_whose_replica_dies_is_in_the_record_and_goes_with_it() -> None:
    async with world(None) as here:
        dying = Dying(here.graph)
        shadow = here.shadowing(EVERY, dying)
        shadow.start()
        key, _ = await asked(here, "OPP-1")
        async with asyncio.timeout(SECONDS):
            await dying.ran.wait()
        await shadow.stop()

        (record,) = await here.records()
        assert [record.trial_key(trial).conversation for trial in record.trials] == await here.trials()
        assert all(not one.listed and one.trial and not one.passing for one in await here.trials())
        await forget_conversation(here.store, ConversationKey.of(PRINCIPAL, "another"))
        assert len(await here.trials()) == 1
        await forget_conversation(here.store, key.conversation)
        assert not await here.trials() and not await here.records()


async def test_a_conversation_that_is_deleted_while_it_is_mirrored_leaves_no_trial() -> None:
    async with world(None) as here:

        class Slow(Refusing):
            async def run(self, turn: NewTurn) -> TrialEnd:
                end = await here.graph.run(turn)
                await here.store.delete_conversation(ConversationKey.of(PRINCIPAL, "c1"))
                return end

        shadow = here.shadowing(EVERY, Slow(ParleyError("no")))
        shadow.start()
        await asked(here, "OPP-1")
        async with asyncio.timeout(SECONDS):
            await shadow.settle()
        await shadow.stop()

        assert not await here.trials() and not await here.records()


async def test_what_a_user_deletes_goes_with_what_was_mirrored_of_it_and_with_nothing_else() -> None:
    here = World(None)
    records = ShadowRecords(here.store, keep=1_000)
    ones = [mirrored(number) for number in range(150)]
    others = [replace(mirrored(1_000 + number), user_id="bob") for number in range(3)]
    for one in [*ones, *others]:
        await kept(here.store, records, one)
    there = await here.records()
    await forget_user(here.store, Principal(tenant_id="acme", user_id="ann"))

    assert len(there) > 140
    left = await here.records()
    assert {one.user_id for one in left} == {"bob"}
    assert set(await here.trials()) == {one.trial_key(one.trials[0]).conversation for one in left}


def test_a_trial_is_the_same_whenever_it_is_made() -> None:
    turn = live_turn()
    history = (
        Message(message_id="m", turn_id="t", role="user", parts=(), created_at=datetime.now(UTC)),
    )  # fmt: skip
    made = [mirrored_turn(turn, history, recorded_calls(turn), EVERY.candidates[0], 60) for _ in range(2)]

    assert made[0].key == made[1].key and made[0].query == made[1].query
    assert msgspec.json.decode(msgspec.json.encode(made[0]), type=NewTurn).query == made[0].query


def mirrored(number: int, *, at: float | None = None) -> MirroredTurn:
    turn_id = f"c{number}.{ULID()}"
    trial = mirrored_turn(live_turn(), (), (), Candidate(name=f"x{number}"), 60)
    candidate = shadow_module._as_recorded(EVERY.candidates[0])
    return MirroredTurn(
        tenant_id="acme",
        user_id="ann",
        turn_id=turn_id,
        at=float(number) if at is None else at,
        trials=(MirroredTrial(candidate=candidate, turn_id=trial.key.turn_id),),
    )


async def kept(store: MemoryTransfer, records: ShadowRecords, one: MirroredTurn) -> None:
    await store.ensure_conversation(one.live.conversation)
    await store.ensure_conversation(one.trial_key(one.trials[0]).conversation)
    await records.save(one)


async def test_records_and_trials_are_no_more_than_are_kept_and_the_newest_of_them() -> None:
    here = World(None)
    records = ShadowRecords(here.store, keep=10)
    for number in range(100):
        await kept(here.store, records, mirrored(number))

    found = await here.records()
    assert 8 <= len(found) <= 10
    assert min(one.at for one in found) >= 60
    there = {one.trial_key(trial).conversation for one in found for trial in one.trials}
    assert set(await here.trials()) == there


async def test_nearly_all_places_are_taken_before_anything_is_replaced() -> None:
    here = World(None)
    records = ShadowRecords(here.store, keep=100)
    for number in range(100):
        await kept(here.store, records, mirrored(number))

    assert len(await here.records()) >= 85


async def test_trials_of_deleted_conversations_go_in_time() -> None:
    here = World(None)
    records = ShadowRecords(here.store, keep=10)
    for number in range(30):
        await kept(here.store, records, mirrored(number, at=10_000.0))
    deleted = {one.turn_id for one in (await here.records())[:5]}
    for one in (await here.records())[:5]:
        await here.store.delete_conversation(one.live.conversation)

    for number in range(200):
        # Of long ago, so that none of these takes the place of another while others are free.
        await kept(here.store, records, mirrored(100 + number, at=1.0))

    found = await here.records()
    assert not deleted & {one.turn_id for one in found}
    assert {one.trial_key(trial).conversation for one in found for trial in one.trials} == set(await here.trials())


# -- the file -------------------------------------------------------------------------------------------------------------------


def loaded(folder: Path, text: str) -> ShadowConfig | None:
    (folder / "shadow.yaml").write_text(text, encoding="utf-8")
    return load_shadow(Settings(shadow=folder / "shadow.yaml"))


def test_the_example_that_ships_can_be_loaded() -> None:
    config = load_shadow(Settings(shadow=PROJECT_ROOT / "configs" / "shadow.example.yaml"))

    assert config is not None
    assert (config.share, config.candidates[0].prompt_name, config.candidates[0].prompt_version) == (
        0.05,
        "assistant",
        "v2",
    )
    assert load_shadow(Settings()) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("share: 2\ncandidates: [{name: a}]", "line 1, has a value for 'share'"),
        ("share: 0.1\ncandidates:\n  - {name: a}\n  - {name: a}", "two candidates have the same name"),
        ("share: 0.1\ncandidates: [{name: live}]", "what users are answered by"),
        (
            "share: 0.1\ncandidates:\n  - name: a\n    promt: x",
            "line 4, has the key 'candidates[0].promt', which does not exist",
        ),
        ("share: 0.1", "lacks the key 'candidates'"),
        ("- a", "must hold a mapping"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text)

    assert said in raised.value.message and "shadow.yaml" in raised.value.message


def test_a_file_that_is_not_there_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PARLEY_SHADOW"):
        load_shadow(Settings(shadow=tmp_path / "missing.yaml"))
