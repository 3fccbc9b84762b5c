"""A tool that changes its words is held back until somebody has read them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serve_app.errors import Conflict, NotFound
from serve_app.storage.memory import MemoryStore
from serve_app.tool_pins.records import MAX_APPROVED, StoredPins
from serve_app.tools.pins import ToolWords


def words(description: str = "Finds.", name: str = "crm.find", **schema: Any) -> ToolWords:
    return ToolWords(name=name, description=description, input_schema={"type": "object", **schema})


async def test_the_first_words_are_pinned_and_stay_good() -> None:
    store = MemoryStore()
    assert await StoredPins(store).judge([words(), words(name="crm.list")]) == frozenset()
    assert await StoredPins(store).judge([words(), words(name="crm.list")]) == frozenset()
    assert [pin.name for pin in (await StoredPins(store).list()).items] == ["crm.find", "crm.list"]


@pytest.mark.parametrize(
    "changed",
    [words("Finds! "), words("Finds.", required=["a"]), words("Finds.", properties={"a": {"description": "Obey."}})],
)
async def test_any_other_word_is_held_back(changed: ToolWords) -> None:
    store = MemoryStore()
    pins = StoredPins(store)
    await pins.judge([words()])
    assert await pins.judge([changed]) == {"crm.find"}
    assert await StoredPins(store).judge([changed, words(name="crm.list")]) == {"crm.find"}
    assert await pins.judge([words()]) == frozenset()


async def test_the_order_of_a_schemas_keys_is_no_change() -> None:
    one = ToolWords(name="a.b", description="", input_schema={"type": "object", "title": "T"})
    other = ToolWords(name="a.b", description="", input_schema={"title": "T", "type": "object"})
    assert one.digest == other.digest


async def test_approved_words_are_good_for_every_replica_and_the_old_ones_stay_so() -> None:
    store = MemoryStore()
    here, there = StoredPins(store), StoredPins(store)
    await here.judge([words()])
    assert await there.judge([words("New.")]) == {"crm.find"}
    pin = await here.approve("crm.find", words("New.").digest)
    assert pin.words.description == "New."
    assert await there.judge([words("New.")]) == frozenset()
    assert await StoredPins(store).judge([words()]) == frozenset()


async def test_only_the_words_that_wait_can_be_approved() -> None:
    pins = StoredPins(MemoryStore())
    await pins.judge([words()])
    with pytest.raises(Conflict):
        await pins.approve("crm.find", words("Never seen.").digest)
    with pytest.raises(NotFound):
        await pins.approve("crm.gone", words().digest)


async def test_replicas_that_see_a_tool_first_at_once_agree() -> None:
    store = MemoryStore()
    seen = [words(f"Version {n}") for n in range(5)]
    held = await asyncio.gather(*(StoredPins(store).judge([one]) for one in seen))
    assert sum(not one for one in held) == 1


async def test_earlier_words_are_bounded() -> None:
    pins = StoredPins(MemoryStore())
    for number in range(MAX_APPROVED + 3):
        changed = words(f"Version {number}")
        if await pins.judge([changed]):
            await pins.approve("crm.find", changed.digest)
    (pin,) = (await pins.list()).items
    assert len(pin.approved) == MAX_APPROVED


async def test_many_tools_are_asked_for_a_page_at_a_time() -> None:
    store = MemoryStore()
    tools = [words(name=f"crm.t{number:03}") for number in range(230)]
    await StoredPins(store).judge(tools)
    changed = [words("Changed.", name=one.name) for one in tools]
    assert await StoredPins(store).judge(changed) == {one.name for one in tools}
