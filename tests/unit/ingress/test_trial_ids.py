"""An evaluation's conversations are nobody's to send to: what is counted by their id cannot be got round by choosing one."""

from __future__ import annotations

import pytest

from serve_app.domain.ids import SHADOW_PREFIX, TRIAL_PREFIX
from serve_app.settings import Settings
from serve_app.turns.trials import trial_key
from tests.scripted import Reply, ScriptedModels
from tests.simulators.turns.trial import OWNER
from tests.unit.ingress.asgi import Client
from tests.unit.ingress.stages import StubTools
from tests.unit.ingress.test_sse import asking
from tests.unit.ingress.whole import over_real_turns


@pytest.mark.parametrize("prefix", [TRIAL_PREFIX, SHADOW_PREFIX])
async def test_no_client_can_open_or_go_on_with_a_trials_conversation(prefix: str) -> None:
    trial = trial_key(OWNER, "run", "case", prefix=prefix).conversation.conversation_id
    models = ScriptedModels(Reply(pieces=("Yes",)))
    async with over_real_turns(models, StubTools(), Settings(store="memory")) as app:
        client = Client(app, {"x-dev-user": "ana"})
        owner = await Client(app, {"x-dev-user": OWNER.user_id}).request(
            "POST", "/api/chat", asking("Hi") | {"id": trial}
        )
        refused = await client.request("POST", "/api/chat", asking("Hi") | {"id": trial})
        taken = await client.request("POST", "/api/chat", asking("Hi") | {"id": f"{prefix}mine"})
    assert owner.status == 401, "nobody is called like who owns trials"
    assert (refused.status, refused.json()["code"]) == (422, "invalid_input")
    assert taken.status == 200, "an id that only begins alike is as good as any other"
    assert len(models.requests) == 1
