"""Mirrored turns become a run folder: what users were answered beside what every candidate said."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from serve_app.domain.conversation import ToolCallPart
from serve_app.domain.events import EventRecord, TurnFailed
from serve_app.domain.ids import ConversationKey
from serve_app.errors import ConfigError
from serve_app.evaluation.exported_cases import Redaction, case_id_of
from serve_app.evaluation.run_store import RunStore
from serve_app.evaluation.shadow_pairs import ShadowRun
from serve_app.storage.memory.conversation import HeldTurn
from serve_app.turns.shadow_config import ShadowConfig
from serve_app.turns.shadow_records import CandidateRecord, MirroredTrial, ShadowRecords
from serve_app.turns.trial_config import Candidate
from tests.unit.turns.bench import PRINCIPAL
from tests.unit.turns.shadow_world import EVERY, asked, world

TWO = ShadowConfig(share=1, candidates=(Candidate(name="v2", model="candidate"), Candidate(name="same")))


async def written(run: ShadowRun, folder: Path) -> RunStore:
    await run.read()
    await run.write(folder, name="shadow", version="1", simulated=True)
    return RunStore.open(folder)


async def test_every_mirrored_turn_is_a_case_with_a_result_of_each_side(tmp_path: Path) -> None:
    async with world(TWO) as here:
        keys = [(await asked(here, f"OPP-{number}", number=number))[0] for number in (1, 2, 3)]
        await here.settle()
        run = ShadowRun(here.store)

        with await written(run, tmp_path / "run") as store:
            results = [found.result for found in store.results()]
            meta, cases = store.meta, [case for _, case in store.cases()]
            pairs = list(store.pairs("live", "v2"))

    assert (meta.kind, meta.baseline, meta.names, meta.cases, meta.ended) == (
        "shadow",
        "live",
        ("live", "same", "v2"),
        3,
        "complete",
    )
    assert [case.id for case in cases] == [case_id_of(key.turn_id) for key in keys]
    assert [message.content for message in cases[1].messages] == [
        "OPP-1",
        'None: {"done":true}',
        "OPP-2",
        'None: {"done":true}',
    ]
    assert [(result.key.configuration, result.shadowed) for result in results[:3]] == [
        ("live", True),
        ("same", True),
        ("v2", True),
    ]
    _, live, candidate = pairs[0]
    assert (live.result.answer, candidate.result.answer) == ('None: {"done":true}', 'candidate: {"done":true}')
    assert candidate.result.last.unrecorded == ("crm.list",) and live.result.last.unrecorded == ()
    assert candidate.result.last.prompt == "plain@v1"
    assert live.result.usage.cost_microusd == 14 and len(live.result.last.steps) == 2
    assert live.result.tags == cases[0].tags
    assert run.counts.written == 3


async def test_people_are_the_same_pseudonym_in_the_case_and_on_both_sides(tmp_path: Path) -> None:
    async with world() as here:
        await asked(here, "my name is Tom Becker, tom.becker@example.com, ann")
        await here.settle()

        with await written(ShadowRun(here.store, redaction=Redaction()), tmp_path / "run") as store:
            results = [found.result for found in store.results()]
            ((_, case),) = store.cases()

    assert case.messages[0].content == "my name is [person-2], [email-1], [person-1]"
    for result in results:
        assert result.last.question == case.messages[0].content
        arguments = [part.arguments for part in result.last.parts if isinstance(part, ToolCallPart)]
        assert arguments and all(given == {"id": case.messages[0].content} for given in arguments)
        assert "c1" not in result.last.turn_id
    assert "Becker" not in str(results) and "Becker" not in str(case)


async def test_what_users_have_deleted_or_asked_anew_is_left_out(tmp_path: Path) -> None:
    async with world() as here:
        key, _ = await asked(here, "OPP-1", number=1)
        await asked(here, "OPP-2", number=2)
        await asked(here, "OPP-2", number=3, replaces=f"msg_{key.turn_id.rpartition('.')[2]}_u")
        await here.settle()
        run = ShadowRun(here.store)
        with await written(run, tmp_path / "edited") as store:
            questions = [case.messages[0].content for _, case in store.cases()]
        assert questions == ["OPP-2"]
        assert (run.counts.mirrored, run.counts.gone) == (3, 2)

        await here.store.delete_conversation(ConversationKey.of(PRINCIPAL, "c1"))
        gone = ShadowRun(here.store)
        await gone.read()
        assert await gone.write(tmp_path / "deleted", name="shadow", version="1", simulated=True) == 0
        assert gone.counts.gone == 3
        assert not (tmp_path / "deleted").exists(), "or the next one could not be made there"


async def test_a_trial_that_is_under_way_is_left_out_until_it_has_ended(tmp_path: Path) -> None:
    async with world() as here:
        await asked(here, "OPP-1", number=1)
        await here.settle()
        (record,) = await here.records()
        other = record.trials[0].turn_id.replace("shadow_", "shadow_0", 1)[:-1]
        under_way = MirroredTrial(candidate=CandidateRecord(name="slow"), turn_id=other)
        await ShadowRecords(here.store, EVERY.keep).save(replace(record, trials=(*record.trials, under_way)))
        with await written(ShadowRun(here.store), tmp_path / "run") as store:
            assert [found.result.key.configuration for found in store.results()] == ["live", "v2"]


async def test_trials_of_what_a_candidate_was_before_are_left_out(tmp_path: Path) -> None:
    async with world() as here:
        await asked(here, "OPP-1", number=1)
        await here.settle()
        assert here.shadow is not None
        await here.shadow.stop()
        changed = EVERY.model_copy(
            update={"candidates": (Candidate(name="v2", model="candidate", prompt="assistant@v3"),)}
        )
        here.shadow = here.shadowing(changed)
        here.shadow.start()
        await asked(here, "OPP-2", number=2)
        await here.settle()
        run = ShadowRun(here.store)

        with await written(run, tmp_path / "run") as store:
            assert [case.messages[-2].content for _, case in store.cases()] == ["OPP-2"]
            assert store.meta.configurations[1].prompt_version == "v3"
        assert run.counts.outdated == 1


async def test_a_candidate_that_failed_is_a_result_that_says_why(tmp_path: Path) -> None:
    async with world() as here:
        await asked(here, "OPP-1")
        await here.settle()
        (mirrored,) = await here.records()
        key = mirrored.trial_key(mirrored.trials[0])
        kept = here.store._conversations[key.conversation].turns[key.turn_id]
        _fail(kept)

        with await written(ShadowRun(here.store), tmp_path / "run") as store:
            (_, _, candidate) = next(iter(store.pairs("live", "v2")))

    assert (candidate.result.failed, candidate.result.last.error_code) == (True, "upstream_failed")


def _fail(kept: HeldTurn) -> None:
    """As if the trial had ended by a failure."""
    assert kept.records is not None
    kept.turn = replace(kept.turn, state="failed")
    event = TurnFailed(
        turn_id=kept.turn.key.turn_id, seq=kept.turn.last_seq, code="upstream_failed", message="No.", retryable=True
    )
    kept.records[-1] = EventRecord.of(event)


async def test_only_the_tenants_that_are_named_and_what_is_new_enough(tmp_path: Path) -> None:
    async with world() as here:
        await asked(here, "OPP-1")
        await here.settle()
        (mirrored,) = await here.records()

        assert await ShadowRun(here.store, tenants=frozenset({"globex"})).read() == 0
        assert await ShadowRun(here.store, since=mirrored.at + 1).read() == 0
        assert await ShadowRun(here.store, tenants=frozenset({"acme"}), since=mirrored.at).read() == 1


async def test_a_folder_that_holds_a_run_is_not_written_into(tmp_path: Path) -> None:
    async with world() as here:
        await asked(here, "OPP-1")
        await here.settle()
        (await written(ShadowRun(here.store), tmp_path / "run")).close()

        with pytest.raises(ConfigError, match="already holds a run"):
            await written(ShadowRun(here.store), tmp_path / "run")
