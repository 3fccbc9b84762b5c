"""Copies that are stopped, and go on; that meet a busy store, and wait; that find something else than they left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from serve_app.cli import store_copy
from serve_app.cli.store_copy import AT_ONCE, CopyState, Phase, StateFile, StoreCopy
from serve_app.domain.conversation import Page
from serve_app.domain.ids import ConversationKey
from serve_app.domain.usage import UsageRow
from serve_app.errors import ConfigError, Conflict, Internal, NotFound, Overloaded, ParleyError
from serve_app.storage.memory.transfer import MemoryTransfer
from serve_app.storage.transfer import ConversationSnapshot, StoreCounts
from tests.contract.store_inputs import completed, conversation_key

HERE = ("SQLite in /data", "Cosmos DB parley")


class Source(MemoryTransfer):
    """Counts what is exported, and can make something happen at an export."""

    def __init__(self) -> None:
        super().__init__()
        self.exported: list[str] = []
        self.scanned: list[str | None] = []
        self.running = 0
        self.most = 0
        self.failing: dict[int, Exception] = {}

    async def scan_conversations(self, *, cursor: str | None = None, limit: int = 100) -> Page[ConversationKey]:
        self.scanned.append(cursor)
        return await super().scan_conversations(cursor=cursor, limit=limit)

    async def export_conversation(self, key: ConversationKey) -> ConversationSnapshot:
        self.exported.append(key.conversation_id)
        if error := self.failing.pop(len(self.exported), None):
            raise error
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        return await super().export_conversation(key)


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_copy, "PAGE_CONVERSATIONS", 10)
    monkeypatch.setattr(store_copy, "PAGE_ROWS", 10)


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "data" / "copy.json")


async def filled(conversations: int = 35) -> Source:
    source = Source()
    for number in range(conversations):
        await completed(source, conversation_key(f"c{number}"))
    await source.save_record("acme", "user", "ana", b"{}")
    return source


def ignore(_: Phase, __: int) -> None:
    return


async def copied(source: Source, target: MemoryTransfer, state: StateFile, *, restart: bool = False) -> bool:
    job = StoreCopy(source, target, state, patience_s=5.0)
    goes_on = await job.begin(*HERE, restart=restart)
    await job.run(ignore)
    had, has = await job.compare()
    assert had == has
    return goes_on


async def test_everything_is_copied_several_at_once_and_the_state_is_forgotten(state: StateFile) -> None:
    source, target = await filled(), MemoryTransfer()
    shown: list[tuple[Phase, int]] = []
    job = StoreCopy(source, target, state)
    assert not await job.begin(*HERE, restart=False)
    assert state.path.exists()
    await job.run(lambda phase, count: shown.append((phase, count)))
    assert await job.compare() == (StoreCounts(conversations=35, messages=70, turns=35, usage=35, records=1),) * 2
    assert not state.path.exists()
    assert 1 < source.most <= AT_ONCE
    assert [count for phase, count in shown if phase == "conversations"][-1] == 35
    assert [count for phase, count in shown if phase == "usage"][-1] == 35
    assert [count for phase, count in shown if phase == "records"][-1] == 1
    assert [count for phase, count in shown if phase == "conversations"] == sorted(
        count for phase, count in shown if phase == "conversations"
    )


async def test_a_copy_that_failed_goes_on_with_the_page_it_failed_in(state: StateFile) -> None:
    source, target = await filled(), MemoryTransfer()
    source.failing[25] = Internal("The disk is gone.")
    with pytest.raises(Internal):
        await copied(source, target, state)
    kept = state.read()
    assert kept is not None
    assert (kept.phase, kept.copied, kept.cursor) == ("conversations", 20, "20")
    source.exported.clear()
    source.scanned.clear()
    assert await copied(source, target, state)
    assert source.scanned == ["20", "30"]
    assert len(source.exported) == 15


async def test_a_copy_that_stopped_among_usage_copies_no_conversation_again(state: StateFile) -> None:
    class Full(MemoryTransfer):
        room = 2

        async def import_usage(self, rows: Sequence[UsageRow]) -> None:
            self.room -= 1
            if self.room < 0:
                raise Internal("Full.")
            await super().import_usage(rows)

    source, target = await filled(), Full()
    with pytest.raises(Internal):
        await copied(source, target, state)
    target.room = 99
    source.exported.clear()
    assert await copied(source, target, state)
    assert source.exported == []


async def test_restart_begins_anew(state: StateFile) -> None:
    source, target = await filled(), MemoryTransfer()
    source.failing[25] = Internal("The disk is gone.")
    with pytest.raises(Internal):
        await copied(source, target, state)
    source.scanned.clear()
    assert not await copied(source, target, state, restart=True)
    assert source.scanned[0] is None


async def test_a_source_that_has_changed_since_is_not_gone_on_with(state: StateFile) -> None:
    source, target = await filled(), MemoryTransfer()
    source.failing[25] = Internal("The disk is gone.")
    with pytest.raises(Internal):
        await copied(source, target, state)
    await completed(source, conversation_key("c1"))
    with pytest.raises(Conflict, match="--restart"):
        await copied(source, target, state)
    assert not await copied(source, target, state, restart=True)


async def test_the_state_of_a_copy_between_others_is_not_taken_for_ours(state: StateFile) -> None:
    other = CopyState(source="SQLite in /other", target=HERE[1], counted=StoreCounts())
    state.write(other)
    with pytest.raises(Conflict, match="SQLite in /other"):
        await copied(await filled(1), MemoryTransfer(), state)
    assert state.read() == other


async def test_a_store_that_is_busy_is_waited_for(state: StateFile) -> None:
    source, target = await filled(), MemoryTransfer()
    source.failing = {3: Overloaded("Busy."), 17: Overloaded("Busy.")}
    assert not await copied(source, target, state)


async def test_a_store_that_stays_away_ends_the_copy_with_a_word_about_going_on(state: StateFile) -> None:
    source = await filled()
    source.failing = {number: Overloaded("The database is busy.") for number in range(1, 100)}
    job = StoreCopy(source, MemoryTransfer(), state, patience_s=0.0)
    await job.begin(*HERE, restart=False)
    with pytest.raises(ParleyError, match=r"The database is busy\. The same command goes on"):
        await job.run(ignore)
    assert state.path.exists()


async def test_a_conversation_deleted_meanwhile_is_left_out(state: StateFile) -> None:
    source = await filled(3)
    source.failing[2] = NotFound("There is no such conversation.")
    job = StoreCopy(source, target := MemoryTransfer(), state)
    await job.begin(*HERE, restart=False)
    await job.run(ignore)
    assert (await target.count_all()).conversations == 2


async def test_an_empty_store_is_copied_too(state: StateFile) -> None:
    assert not await copied(Source(), MemoryTransfer(), state)


async def test_a_damaged_state_says_what_to_do(state: StateFile) -> None:
    state.path.parent.mkdir()
    state.path.write_text("{")
    with pytest.raises(ConfigError, match="--restart"):
        await copied(await filled(1), MemoryTransfer(), state)
    assert not await copied(await filled(1), MemoryTransfer(), state, restart=True)


async def test_a_state_that_cannot_be_written_is_said_before_anything_is_copied(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    target = MemoryTransfer()
    with pytest.raises(ConfigError, match="cannot be written"):
        await copied(await filled(1), target, StateFile(tmp_path / "file" / "copy.json"), restart=True)
    assert (await target.count_all()).conversations == 0
