"""A trial over the example tools, the same one each time it is made."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from serve_app.domain.identity import Principal
from serve_app.domain.trial import Trial, TrialTools
from serve_app.domain.turns import NewTurn, Query
from serve_app.turns.trials import EVALUATION_USER, trial_key

OWNER = Principal(tenant_id="acme", user_id=EVALUATION_USER)
SALES = Principal(tenant_id="acme", user_id="ann", roles=("sales",))
ACCOUNT = "Find the account Contoso."


def trial(case: str, model: str | None = None, tools: TrialTools | None = None, timeout_s: float = 60) -> NewTurn:
    key = trial_key(OWNER, "run", case)
    return NewTurn(
        key=key,
        principal=OWNER,
        query=Query(
            content=ACCOUNT, model_id=model, trial=Trial(run_id="run", acting=SALES, tools=tools or TrialTools())
        ),
        created_at=datetime.now(UTC),
        deadline=time.time() + timeout_s,
        client_turn_id=key.turn_id,
    )
