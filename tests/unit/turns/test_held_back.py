"""An answer that broke off is asked for again, also where the gateway lets nobody through for a moment."""

from __future__ import annotations

import pytest

from serve_app.errors import UpstreamFailed
from tests.scripted import Reply, ScriptedModels
from tests.unit.turns.bench import bench, types

HELD_BACK = UpstreamFailed("It has been failing, so it is not asked for a moment.", True, 0.001)


async def test_a_second_attempt_that_is_held_back_is_made_a_moment_later() -> None:
    models = ScriptedModels(
        Reply(pieces=("Half an ans",), error=UpstreamFailed("dropped")),
        Reply(error=HELD_BACK),
        Reply(error=HELD_BACK),
        Reply(error=HELD_BACK),
        Reply(pieces=("A whole answer.",)),
    )
    async with bench(models) as b:
        key = await b.accept()
        await b.run(key)
        events = await b.events(key)
        assert types(events) == ["turn.started", "text.delta", "step.reset", "text.delta", "chat_response"]
        assert events[-1]["response"] == "A whole answer."


@pytest.mark.parametrize(
    ("first", "then", "asked"),
    [
        pytest.param(Reply(error=HELD_BACK), Reply(error=HELD_BACK), 1, id="nothing has broken off before"),
        pytest.param(
            Reply(pieces=("Half",), error=UpstreamFailed("dropped")), Reply(error=HELD_BACK), 5, id="for ever"
        ),
        pytest.param(
            Reply(pieces=("Half",), error=UpstreamFailed("dropped")),
            Reply(error=UpstreamFailed("Come back later.", True, 30.0)),
            2,
            id="for long",
        ),
    ],
)
async def test_it_is_waited_for_a_few_moments_and_only_by_who_was_answered_in_part(
    first: Reply, then: Reply, asked: int
) -> None:
    models = ScriptedModels(first, then)
    async with bench(models) as b:
        key = await b.accept()
        await b.run(key)
        failed = (await b.events(key))[-1]
        assert (failed["type"], failed["retryable"]) == ("turn.failed", True)
        assert len(models.requests) == asked
