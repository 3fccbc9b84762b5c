"""Every route and frame × everybody who might ask: who is answered, and that what is another's looks like nothing at all."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from fastapi import APIRouter

from serve_app.wire.requests import ClientFrame
from tests.security.policy import FRAMES, ROUTES, UNLISTED, UNLISTED_FOLDERS
from tests.security.world import World, make_world, without_ids
from tests.unit.ingress.asgi import Frame, Reply

SKIPPED_HEADERS = {"x-request-id", "date", "openai-processing-ms"}
OWNED = [(method, path, rule) for (method, path), rule in ROUTES.items() if rule.missing is not None]
TENANT_WIDE = frozenset({"admin", "platform"})


@pytest.fixture
async def world() -> World:
    return await make_world()


def shown(reply: Reply, world: World) -> tuple[int, dict[str, str], str]:
    """Everything of an answer that could tell two cases apart."""
    headers = {
        name: without_ids(value, world.theirs, world.missing)
        for name, value in reply.headers.items()
        if name not in SKIPPED_HEADERS
    }
    return reply.status, headers, without_ids(reply.body.decode(), world.theirs, world.missing)


# Everything has a rule


def test_every_route_has_a_policy_and_every_policy_a_route(world: World) -> None:
    found = {(method, path) for method, path, _ in world.routes()}
    assert found - set(ROUTES) == set(), "say in tests/security/policy.py who may use these"
    assert set(ROUTES) - found == set(), "these are gone"


def test_what_the_document_does_not_show_is_known(world: World) -> None:
    unlisted = {path for path in world.unlisted() if not path.startswith(UNLISTED_FOLDERS)}
    assert unlisted <= UNLISTED


def test_every_frame_has_a_policy() -> None:
    kinds = {kind.model_fields["type"].annotation.__args__[0] for kind in get_args(ClientFrame)}
    assert kinds == set(FRAMES)


def test_a_route_without_a_policy_is_found(world: World) -> None:
    router = APIRouter()

    @router.get("/api/new")
    async def new() -> None: ...

    world.app.openapi_schema = None
    world.app.include_router(router)
    with pytest.raises(AssertionError, match="say in"):
        test_every_route_has_a_policy_and_every_policy_a_route(world)


# Routes


@pytest.mark.parametrize(("who", "status"), [(None, 401), ("nobody", 401), ("expired", 401), ("removed", 403)])
async def test_without_good_credentials_there_is_one_answer_whatever_is_asked_for(
    world: World, who: str | None, status: int
) -> None:
    wrong = []
    for (method, path), rule in ROUTES.items():
        if rule.who in {"anyone", "secret"}:
            continue
        replies = [await world.ask(who, method, path, ids) for ids in (world.theirs, world.missing)]
        if [reply.status for reply in replies] != [status, status] or shown(replies[0], world) != shown(
            replies[1], world
        ):
            wrong.append((method, path, replies))
        if status == 401 and replies[0].headers.get("www-authenticate") != "Bearer":
            wrong.append((method, path, replies))
    assert wrong == []


async def test_what_anyone_may_ask_says_nothing_of_anybody(world: World) -> None:
    for (method, path), rule in ROUTES.items():
        if rule.who in {"anyone", "secret"}:
            reply = await world.ask(None, method, path, world.theirs)
            assert reply.status in {200, 204, 400, 401, 404, 422, 503}, (path, reply)
            told = reply.body.decode() + str(reply.headers)
            assert not any(value in told for value in world.theirs.values() if len(value) > 6), path


@pytest.mark.parametrize("who", ["bert", "namesake", "admin", "other-admin"])
async def test_what_is_anothers_is_answered_as_what_is_not_there(world: World, who: str) -> None:
    wrong = []
    for method, path, rule in OWNED:
        if rule.who != "member":
            continue
        theirs, missing = [await world.ask(who, method, path, ids) for ids in (world.theirs, world.missing)]
        if theirs.status != rule.missing or shown(theirs, world) != shown(missing, world):
            wrong.append((method, path, theirs, missing))
    assert wrong == []
    await nothing_has_changed(world)


@pytest.mark.parametrize("who", ["bert", "namesake", "admin", "other-admin"])
async def test_what_names_nothing_shows_and_changes_only_ones_own(world: World, who: str) -> None:
    for (method, path), rule in ROUTES.items():
        if rule.who == "member" and rule.missing is None:
            reply = await world.ask(who, method, path, world.theirs)
            assert reply.status < 300, (method, path, reply)
            told = reply.body.decode()
            for name in ("turn_id", "message_id", "file_id", "approval_id", "response_id"):
                assert world.theirs[name] not in told, (method, path)
            assert "What is Anna's" not in told
    await nothing_has_changed(world)


async def nothing_has_changed(world: World) -> None:
    """Everything of Anna's is there, for her."""
    for path in (
        "/api/conversations/{conversation_id}",
        "/api/conversations/{conversation_id}/messages/{message_id}",
        "/api/turns/{turn_id}",
        "/v1/responses/{response_id}",
        "/api/file/{file_id}/download",
    ):
        assert (await world.ask("anna", "GET", path, world.theirs)).status == 200, path
    assert (await world.ask("anna", "POST", "/api/approvals/{approval_id}", world.theirs)).status in {200, 409}


@pytest.mark.parametrize("who", ["anna", "bert", "namesake"])
async def test_administration_is_for_administrators(world: World, who: str) -> None:
    wrong = []
    for (method, path), rule in ROUTES.items():
        if rule.who in TENANT_WIDE:
            replies = [await world.ask(who, method, path, ids) for ids in (world.theirs, world.missing)]
            if [reply.status for reply in replies] != [403, 403] or shown(replies[0], world) != shown(
                replies[1], world
            ):
                wrong.append((method, path, replies))
    assert wrong == []


async def test_an_administrator_sees_of_another_tenant_what_a_missing_one_shows(world: World) -> None:
    wrong = []
    for method, path, rule in OWNED:
        if rule.who == "admin":
            theirs, missing = [
                await world.ask("other-admin", method, path, ids) for ids in (world.theirs, world.missing)
            ]
            if theirs.status != rule.missing or shown(theirs, world) != shown(missing, world):
                wrong.append((method, path, theirs, missing))
    assert wrong == []


@pytest.mark.parametrize("who", ["admin", "other-admin"])
async def test_what_is_the_platforms_is_not_a_tenants(world: World, who: str) -> None:
    for (method, path), rule in ROUTES.items():
        if rule.who == "platform":
            assert (await world.ask(who, method, path, world.theirs)).status in {403, 404}, (method, path)
    listed = (await world.ask(who, "GET", "/api/admin/tenants", {})).json()["items"]
    assert [one["tenant_id"] for one in listed] == ["acme" if who == "admin" else "globex"]


async def test_who_is_meant_is_let_in(world: World) -> None:
    """The matrix would hold of a server that refuses everybody."""
    for who, allowed in (("anna", {"member"}), ("admin", {"admin"}), ("operator", {"admin"}), ("platform", {"admin"})):
        for (method, path), rule in ROUTES.items():
            if method == "GET" and rule.who in allowed:
                ids = dict(world.theirs)
                reply = await world.ask(who, method, path, ids)
                assert reply.status in {200, 204}, (who, method, path, reply)


# Frames


def frame_of(kind: str, ids: dict[str, str]) -> Frame:
    bodies: dict[str, dict[str, Any]] = {
        "session.update": {"session_id": ids["conversation_id"]},
        "query": {"content": "Hi", "attachments": [ids["file_id"]]},
        "resume": {"turn_id": ids["turn_id"]},
        "cancel": {"turn_id": ids["turn_id"]},
        "approval": {"approval_id": ids["approval_id"], "approved": True},
        "input": {"request_id": "r1", "action": "accept"},
        "ping": {},
    }
    return {"type": kind, **bodies[kind]}


@pytest.mark.parametrize("who", ["bert", "namesake", "other-admin"])
async def test_a_frame_about_what_is_anothers_is_answered_as_one_about_nothing(world: World, who: str) -> None:
    for kind, rule in FRAMES.items():
        answers = []
        for ids in (world.theirs, world.missing):
            async with world.client(who).socket() as socket:
                await socket.accepted()
                if kind == "query":
                    await socket.open_session("one-of-my-own")
                socket.send(**frame_of(kind, ids))
                answers.append(without_ids(await socket.text(), world.theirs, world.missing))
        assert answers[0] == answers[1], kind
        refused = "not_found" in answers[0] or "invalid_input" in answers[0]
        assert refused is (rule.missing is not None or kind == "query"), kind
    await nothing_has_changed(world)


@pytest.mark.parametrize(("who", "status"), [("nobody", 401), ("expired", 401), ("removed", 403)])
async def test_no_socket_opens_without_good_credentials(world: World, who: str, status: int) -> None:
    async with world.client(who).socket() as socket:
        assert (await socket.message())["status"] == status


async def test_no_frame_does_anything_before_one_is_known(world: World) -> None:
    for kind in FRAMES:
        async with world.client(None).socket() as socket:
            await socket.accepted()
            socket.send(**frame_of(kind, world.theirs))
            assert (await socket.frame())["code"] == "unauthenticated"
            assert (await socket.message())["code"] == 4401
    await nothing_has_changed(world)
