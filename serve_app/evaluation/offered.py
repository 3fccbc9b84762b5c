"""Whether the tools that cases tell of are there: a tool server that is down offers nothing, and no answer would say so."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from serve_app.domain.identity import Principal, stands_for
from serve_app.evaluation.cases import Case
from serve_app.evaluation.run_store import RunStore
from serve_app.evaluation.trial_turns import Asking, acting_as
from serve_app.turns.trials import TrialGraph

LOOKED_AT = 500
"""Cases."""
MAX_PRINCIPALS = 20


async def tools_not_offered(store: RunStore, how: Asking, graph: TrialGraph) -> tuple[str, ...]:
    """Names of tools that cases have recorded or expect and that nobody whom they are asked as is offered now."""
    if all(one.tools == "none" for one in store.meta.configurations):
        return ()
    named: set[str] = set()
    asking_as: dict[Principal, None] = {}
    for _, case in islice(store.cases(), LOOKED_AT):
        named |= _named(case)
        if len(asking_as) < MAX_PRINCIPALS:
            asking_as[acting_as(how, case)] = None
    if not named:
        return ()
    return tuple(sorted(named - await _offered(asking_as, graph)))


async def only_not_offered(store: RunStore, how: Asking, graph: TrialGraph) -> tuple[str, ...]:
    """What configurations offer `only`, and that is no tool, and no server, of anybody whom cases are asked as: where a name is
    misspelt, a model without tools would be compared, and no answer would say so."""
    named = {name for one in store.meta.configurations if one.tools != "none" for name in one.only_tools or ()}
    if not named:
        return ()
    asking_as = dict.fromkeys(acting_as(how, case) for _, case in islice(store.cases(), LOOKED_AT))
    offered = await _offered(tuple(asking_as)[:MAX_PRINCIPALS], graph)
    return tuple(sorted(name for name in named if not any(stands_for(name, tool) for tool in offered)))


async def _offered(asking_as: Iterable[Principal], graph: TrialGraph) -> set[str]:
    return {tool.name for principal in asking_as for tool in (await graph.tools_for(principal)).tools}


def _named(case: Case) -> set[str]:
    recorded = {call.name for message in case.messages for call in message.tool_calls}
    return recorded | {call.name for call in case.expected.tool_calls or ()}
