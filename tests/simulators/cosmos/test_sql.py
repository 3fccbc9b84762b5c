"""The SQL that is modelled, evaluated through the SDK, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from azure.cosmos.aio import ContainerProxy
from azure.cosmos.exceptions import CosmosHttpResponseError

from tests.simulators.cosmos.conftest import KEY, document
from tests.simulators.cosmos.simulator import CosmosSimulator

DOCUMENTS: list[dict[str, Any]] = [
    document("a", position=1, rank="low", tags=["x", "y"], inner={"deep": True}),
    document("b", position=2, rank="low", tags=["y"], inner={"deep": 7}),
    document("c", position=3, rank="high", tags=[], inner={"deep": None}),
    document("d", position=4, rank="high", inner={"deep": "text"}),
    document("e", position=5, rank=None),
    document("f", position="6"),
]


@pytest.fixture
async def filled(container: ContainerProxy) -> ContainerProxy:
    await container.execute_item_batch([("create", (body,)) for body in DOCUMENTS], KEY)
    return container


async def ask(container: ContainerProxy, query: str, **parameters: Any) -> list[Any]:
    named = [{"name": f"@{name}", "value": value} for name, value in parameters.items()]
    found = container.query_items(query, parameters=named, partition_key=KEY)
    return [row async for row in found]


async def refusal(container: ContainerProxy, query: str, **parameters: Any) -> str:
    with pytest.raises(CosmosHttpResponseError) as error:
        await ask(container, query, **parameters)
    assert error.value.status_code == 400
    return str(error.value)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("c.position = 1", "a"),
        ("c.position != 1", "bcde"),
        ("c.position <> 1 AND c.position < 4", "bc"),
        ("c.position >= 2 and c.position <= 4", "bcd"),
        ("c.position > -1", "abcde"),
        ("c.position BETWEEN 2 AND 3", "bc"),
        ("c.position NOT BETWEEN 2 AND 3", "ade"),
        ("c.position IN (1, 3, '6')", "acf"),
        ("c.position NOT IN (1, 3)", "bde"),
        ("c.id IN ('a', 'nobody')", "a"),
        ("c.rank = 'low' OR c.rank = \"high\"", "abcd"),
        ("c.rank = 'low' OR c.rank = 'high' AND c.position = 4", "abd"),
        ("(c.rank = 'low' OR c.rank = 'high') AND c.position = 4", "d"),
        ("NOT (c.rank = 'low')", "cd"),
        ("c['rank'] = null", "e"),
        ("IS_NULL(c.rank)", "e"),
        ("IS_DEFINED(c.rank)", "abcde"),
        ("NOT IS_DEFINED(c.rank)", "f"),
        ("c.rank != 'low'", "cd"),
        ("c.rank != null", ""),
        ("c.tags[0] = 'y' OR c.rank != 'low'", "bcd"),
        ("c.inner.deep = true", "a"),
        ("c.inner.deep < 8", "b"),
        ("c.inner.deep = null", "c"),
        ("STARTSWITH(c.rank, 'hi')", "cd"),
        ("ARRAY_CONTAINS(c.tags, 'y')", "ab"),
        ("c.tenantId = 't' AND c.conversationId = 'u/c' AND c.position = 5.0", "e"),
        ("c.rank = 'it\\'s'", ""),
    ],
)
async def test_a_filter_keeps_what_is_true(filled: ContainerProxy, where: str, found: str) -> None:
    assert "".join(row["id"] for row in await ask(filled, f"SELECT * FROM c WHERE {where}")) == found  # noqa: S608


async def test_a_parameter_is_its_value_and_a_missing_one_is_refused(filled: ContainerProxy) -> None:
    query = "SELECT VALUE c.id FROM c WHERE c.rank = @rank AND c.position > @least"
    assert await ask(filled, query, rank="low", least=1) == ["b"]
    assert "@least" in await refusal(filled, query, rank="low")


@pytest.mark.parametrize(
    ("select", "row"),
    [
        ("c.id, c.position", {"id": "a", "position": 1}),
        ("c.id AS name, c.inner.deep", {"name": "a", "deep": True}),
        ("c.id, c.missing", {"id": "a"}),
        ("VALUE c.tags[1]", "y"),
        ("VALUE ARRAY_LENGTH(c.tags)", 2),
        ('VALUE {"n": c.position, "m": [c.id, 1]}', {"n": 1, "m": ["a", 1]}),
    ],
)
async def test_a_projection_has_what_is_asked(filled: ContainerProxy, select: str, row: Any) -> None:
    assert await ask(filled, f"SELECT {select} FROM c WHERE c.id = 'a'") == [row]  # noqa: S608


async def test_any_alias_names_the_document(filled: ContainerProxy) -> None:
    assert await ask(filled, "SELECT VALUE r.id FROM sessions r WHERE r.id = 'a'") == ["a"]
    assert await ask(filled, "SELECT VALUE r.id FROM sessions AS r WHERE r.id = 'a'") == ["a"]
    assert await ask(filled, "select value root.id from root where root.id = 'a'") == ["a"]


@pytest.mark.parametrize(
    ("aggregate", "value"),
    [
        ("COUNT(1)", [6]),
        ("COUNT(c.rank)", [5]),
        ("MIN(c.position)", [1]),
        ("MAX(c.position)", ["6"]),
        ("SUM(c.position)", []),
    ],
)
async def test_an_aggregate_is_one_row(filled: ContainerProxy, aggregate: str, value: list[Any]) -> None:
    assert await ask(filled, f"SELECT VALUE {aggregate} FROM c") == value  # noqa: S608


async def test_an_aggregate_without_value_is_a_named_row(filled: ContainerProxy) -> None:
    assert await ask(filled, "SELECT COUNT(1) AS n FROM c WHERE c.position < 3") == [{"n": 2}]


@pytest.mark.parametrize(
    ("tail", "found"),
    [
        ("ORDER BY c.position", "abcdef"),
        ("ORDER BY c.position DESC", "fedcba"),
        ("ORDER BY c.rank ASC, c.position DESC", "fedcba"),
        ("ORDER BY c.rank DESC, c.position ASC", "abcdef"),
        ("ORDER BY c.rank", "fecdab"),
        ("ORDER BY c._ts DESC OFFSET 1 LIMIT 2", "bc"),
        ("ORDER BY c.position OFFSET 4 LIMIT 5", "ef"),
    ],
)
async def test_rows_come_in_the_order_asked_for(filled: ContainerProxy, tail: str, found: str) -> None:
    assert "".join(await ask(filled, f"SELECT VALUE c.id FROM c {tail}")) == found  # noqa: S608


async def test_top_takes_the_first_and_a_parameter_may_say_how_many(filled: ContainerProxy) -> None:
    assert await ask(filled, "SELECT TOP 2 VALUE c.id FROM c ORDER BY c.position DESC") == ["f", "e"]
    assert await ask(filled, "SELECT TOP @n VALUE c.id FROM c", n=1) == ["a"]
    assert await ask(filled, "SELECT VALUE c.id FROM c OFFSET 0 LIMIT @n", n=2) == ["a", "b"]
    assert "at least 0" in await refusal(filled, "SELECT TOP @n * FROM c", n=-1)


@pytest.mark.parametrize(
    "query", ["SELECT", "SELECT * FROM c WHERE", "SELECT * FROM c WHERE c.id = ;", "SELECT x.id FROM c"]
)
async def test_what_is_no_query_is_a_syntax_error(filled: ContainerProxy, query: str) -> None:
    assert "Syntax error" in await refusal(filled, query) or query == "SELECT"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT DISTINCT c.id FROM c",
        "SELECT * FROM c JOIN t IN c.tags",
        "SELECT c.rank FROM c GROUP BY c.rank",
        "SELECT * FROM c WHERE c.rank LIKE 'l%'",
        "SELECT * FROM c WHERE UPPER(c.rank) = 'LOW'",
        "SELECT VALUE c.position + 1 FROM c",
        "SELECT COUNT(1) AS n, c.id FROM c",
        "SELECT t FROM t IN c.tags",
    ],
)
async def test_sql_that_is_not_modelled_is_refused(filled: ContainerProxy, query: str) -> None:
    message = await refusal(filled, query)
    assert "does not model" in message or "Syntax error" in message


# --- the indexing policy


async def test_a_filter_without_an_index_is_refused_by_name(filled: ContainerProxy) -> None:
    message = await refusal(filled, "SELECT * FROM c WHERE c.tenantId = 't' AND (c.title = 'x' OR c.inner.other = 1)")
    assert "/inner/other, /title" in message
    assert "/rank/below" in await refusal(filled, "SELECT * FROM c WHERE c.rank.below = 1")
    assert "ARRAY_LENGTH" in await refusal(filled, "SELECT * FROM c WHERE ARRAY_LENGTH(c.tags) = 1")


async def test_a_scan_that_is_allowed_is_done(sim: CosmosSimulator, filled: ContainerProxy) -> None:
    found = filled.query_items("SELECT * FROM c WHERE c.title = 'x'", partition_key=KEY, enable_scan_in_query=True)
    assert [row async for row in found] == []
    sim.strict = False
    assert await ask(filled, "SELECT VALUE c.id FROM c WHERE NOT IS_DEFINED(c.title) AND c.position = 1") == ["a"]


async def test_an_order_without_an_index_is_refused_as_azure_does(sim: CosmosSimulator, filled: ContainerProxy) -> None:
    sim.strict = False
    excluded = "The index path corresponding to the specified order-by item is excluded"
    assert excluded in await refusal(filled, "SELECT * FROM c ORDER BY c.title")
    composite = "does not have a corresponding composite index"
    for order in ("c.position, c.rank", "c.rank, c.position", "c.rank DESC, c.position DESC", "c.tenantId, c.position"):
        assert composite in await refusal(filled, f"SELECT * FROM c ORDER BY {order}")  # noqa: S608
