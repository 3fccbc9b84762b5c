"""What of a server's own words becomes an offered tool."""

from __future__ import annotations

from typing import Any

from mcp_types import ListToolsResult, Tool

from serve_app.tools.config import HttpServer
from serve_app.tools.listing import MAX_DESCRIPTION_CHARS, MAX_PAGES, MAX_TOOLS, ToolList

OBJECT: dict[str, Any] = {"type": "object"}


def listed(name: str, description: str = "d", **schema: Any) -> Tool:
    return Tool(name=name, description=description, input_schema=OBJECT | schema)


def tool_list(**keys: Any) -> ToolList:
    return ToolList(HttpServer(name="box", url="http://h", **keys))


def names(tools: ToolList) -> list[str]:
    return [tool.spec.name for tool in tools.tools]


class Pages:
    """A client whose list has that many pages of so many tools."""

    def __init__(self, pages: int, tools: int) -> None:
        self._pages, self._tools = pages, tools
        self.reads = 0

    async def list_tools(self, *, cursor: str | None = None) -> ListToolsResult:
        self.reads += 1
        page = int(cursor or 0)
        tools = [listed(f"p{page}t{number}") for number in range(self._tools)]
        return ListToolsResult(tools=tools, next_cursor=str(page + 1) if page + 1 < self._pages else None)


async def test_all_pages_are_read() -> None:
    tools = tool_list()
    await tools.read(Pages(3, 2))  # type: ignore[arg-type]
    assert names(tools) == ["box.p0t0", "box.p0t1", "box.p1t0", "box.p1t1", "box.p2t0", "box.p2t1"]


async def test_a_list_without_end_is_left_after_so_many_pages() -> None:
    tools, pages = tool_list(), Pages(10**9, 1)
    await tools.read(pages)  # type: ignore[arg-type]
    assert pages.reads == MAX_PAGES == len(tools.tools)


async def test_too_many_tools_are_cut_off() -> None:
    tools = tool_list()
    await tools.read(Pages(10, 100))  # type: ignore[arg-type]
    assert len(tools.tools) == MAX_TOOLS


async def test_tools_that_break_a_bound_are_left_out_and_the_others_stay() -> None:
    tools = tool_list()
    await tools.take(
        [
            listed("good"),
            listed("bad name"),
            listed("n" * 97),
            listed("big", properties={f"k{n}": {"description": "x" * 1000} for n in range(100)}),
            listed("broken", properties=[]),
            listed("also.good"),
        ]
    )
    assert names(tools) == ["box.good", "box.also.good"]


async def test_a_long_description_is_cut() -> None:
    tools = tool_list()
    await tools.take([listed("a", "x" * 10_000)])
    assert len(tools.tools[0].spec.description) == MAX_DESCRIPTION_CHARS


async def test_the_operator_says_what_is_idempotent_and_the_server_does_not() -> None:
    tools = tool_list(idempotent_tools=("a",))
    await tools.take([listed("a"), listed("b")])
    assert [tool.spec.idempotent for tool in tools.tools] == [True, False]


async def test_reading_the_same_again_changes_nothing_and_compiles_nothing() -> None:
    tools = tool_list()
    assert await tools.take([listed("a"), listed("b")])
    before = tools.tools
    assert not await tools.take([listed("a"), listed("b")])
    assert all(new is old for new, old in zip(tools.tools, before, strict=True))


async def test_any_change_of_name_words_or_schema_is_a_change() -> None:
    tools = tool_list()
    await tools.take([listed("a")])
    assert await tools.take([listed("a", "other words")])
    assert await tools.take([listed("a", "other words", properties={"x": {"type": "string"}})])
    assert await tools.take([listed("b", "other words", properties={"x": {"type": "string"}})])
    assert await tools.take([])
