"""``/ws/chat`` on the running graph, by a client that knows only the protocol."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from tests.e2e.protocol_client import Api, ChatSocket, development_identity
from tests.e2e.server import ParleyServer

SLOW = "sim-t0-i20-n100"
"""A model whose answers take two seconds and more."""
ENDLESS = "sim-t0-i50-n1000"


async def test_four_turns_with_tools_on_one_socket_keep_to_the_protocol_and_are_stored(api: Api) -> None:
    async with api.socket() as chat:
        session = await chat.start_session()
        assert session["user_id"] == api.user
        assert session["roles"] == ["sales"]
        assert session["active_turn"] is None
        questions = [
            ("Which opportunities does Contoso have?", {}, {"crm.list_opportunities"}),
            ("And what is on file?", {"model_id": "parallel-tools"}, {"crm.find_account", "crm.list_opportunities"}),
            ("More about Fabrikam", {"model_id": "three-rounds"}, {"crm.find_account", "crm.get_opportunity"}),
            ("Find the account Contoso", {}, {"crm.find_account"}),
        ]
        for question, options, expected in questions:
            turn = await chat.ask(question, **options)
            assert turn.last["type"] == "chat_response", turn.last
            assert expected <= set(turn.tools)
            assert set(turn.tools) <= set(session["tools"])
            assert all(result["ok"] for result in turn.results)
            await api.check_stored(session["session_id"], turn)
        assert await chat.title()

    messages = await api.messages(session["session_id"])
    assert [message["role"] for message in messages] == ["user", "assistant"] * 4
    assert [m["parts"][0]["text"] for m in messages[::2]] == [question for question, _, _ in questions]
    conversation = await api.get(f"/api/conversations/{session['session_id']}")
    assert conversation["title"] == chat.titles[0]
    assert conversation["message_count"] == 8


async def test_parallel_calls_of_one_step_are_announced_together_and_all_reported(api: Api) -> None:
    async with api.socket() as chat:
        await chat.start_session()
        turn = await chat.ask("Look it up", model_id="parallel-tools")
    kinds = [event["type"] for event in turn.events]
    first = kinds.index("tool.started")
    assert kinds[first : first + 2] == ["tool.started", "tool.started"]
    assert len(turn.last["tool_feedback"]) == 2
    assert turn.last["response"] == "Let me look both up. Here is what I found: Ünïcode, 日本語 and 🦜 included."


async def test_conversations_on_several_sockets_at_once_do_not_mix(graph: ParleyServer) -> None:
    async def talk(word: str) -> None:
        async with Api.as_new_user(graph.url) as api, api.socket() as chat:
            await chat.start_session()
            turn = await chat.ask(f"Find the account {word}", model_id="parallel-tools")
            assert turn.last["type"] == "chat_response"
            stored = await api.messages(chat.session["session_id"])
            assert [m["parts"][0]["text"] for m in stored if m["role"] == "user"] == [f"Find the account {word}"]
            assert len((await api.get("/api/conversations"))["items"]) == 1

    await asyncio.gather(*(talk(word) for word in ("Contoso", "Fabrikam", "Adventure", "Northwind")))


async def test_two_turns_of_two_conversations_of_one_user_run_side_by_side(api: Api) -> None:
    async with api.socket() as one, api.socket() as other:
        await one.start_session()
        await other.start_session()
        first = await one.begin("Count", model_id=SLOW)
        second = await other.ask("Find the account Contoso")
        assert second.last["type"] == "chat_response"
        await one.finish(first)
        assert first.last["type"] == "chat_response"


async def test_a_query_while_a_turn_runs_is_a_conflict_and_harms_neither(api: Api) -> None:
    async with api.socket() as chat:
        await chat.start_session()
        turn = await chat.begin("Count slowly", model_id=SLOW)
        error = await chat.refused({"type": "query", "content": "And now?"})
        assert (error["code"], error["retryable"]) == ("conflict", False)
        await chat.finish(turn)
        assert turn.last["type"] == "chat_response"
        after = await chat.ask("Find the account Contoso")
        assert after.last["type"] == "chat_response"
    roles = [message["role"] for message in await api.messages(chat.session["session_id"])]
    assert roles == ["user", "assistant"] * 2


async def test_the_same_client_turn_id_gives_the_same_turn_again_and_other_content_a_conflict(api: Api) -> None:
    client_turn_id = str(uuid.uuid4())
    async with api.socket() as chat:
        session = await chat.start_session()
        turn = await chat.ask("Look it up", client_turn_id=client_turn_id, model_id="parallel-tools")
        before = dict(turn.raw)

        async with api.socket() as again:
            await again.start_session(session["session_id"])
            repeated = await again.ask("Look it up", client_turn_id=client_turn_id, model_id="parallel-tools")
            assert repeated.turn_id == turn.turn_id
            assert repeated.raw == before

            error = await again.refused(
                {"type": "query", "content": "Something else", "client_turn_id": client_turn_id}
            )
            assert error["code"] == "conflict"
    assert len(await api.messages(session["session_id"])) == 2


async def test_frames_that_cannot_be_read_get_an_error_and_the_socket_stays_open(api: Api) -> None:
    async with api.socket() as chat:
        early = await chat.refused({"type": "query", "content": "too early"})
        assert early["code"] == "invalid_input"
        await chat.start_session()
        for frame in (
            "{not json", "[]", '"text"', "", json.dumps({"no": "type"}), json.dumps({"type": "explode"}),
            json.dumps({"type": "query"}), json.dumps({"type": "query", "content": ""}),
        ):  # fmt: skip
            error = await chat.refused(frame)
            assert error["code"] == "invalid_input", frame
            assert error["retryable"] is False
        turn = await chat.ask("Find the account Contoso")
        assert turn.last["type"] == "chat_response"


async def test_binary_and_oversized_frames_are_refused_and_the_socket_stays_open(api: Api) -> None:
    async with api.socket() as chat:
        await chat.start_session()
        assert (await chat.refused(b'{"type":"ping"}'))["code"] == "invalid_input"
        big = json.dumps({"type": "query", "content": "x" * 65_536})
        assert (await chat.refused(big))["code"] == "too_large"
        wide = json.dumps({"type": "query", "content": "日" * 30_000}, ensure_ascii=False)
        assert (await chat.refused(wide))["code"] == "too_large"
        await chat.send({"type": "ping"})
        assert await chat.until("pong")


async def test_more_messages_than_allowed_are_refused_and_going_on_closes_with_1008(api: Api) -> None:
    async with api.socket() as chat:
        await chat.start_session()
        for _ in range(120):
            await chat.send({"type": "ping"})
        assert await chat.closed() == 1008
        assert {error["code"] for error in chat.errors} == {"quota_exceeded"}
        assert all(error["retryable"] for error in chat.errors)


async def test_cancel_ends_the_turn_and_keeps_what_was_said(api: Api) -> None:
    async with api.socket() as chat:
        session = await chat.start_session()
        turn = await chat.begin("Count for a long time", model_id=ENDLESS)
        await chat.until("text.delta")
        await chat.send({"type": "cancel", "turn_id": turn.turn_id})
        await chat.finish(turn)
        assert turn.last["type"] == "turn.cancelled"
        assert turn.last["response"]
        message = await api.check_stored(session["session_id"], turn)
        assert message["metadata"]["status"] == "cancelled"
        again = await chat.ask("Find the account Contoso")
        assert again.last["type"] == "chat_response"


async def test_another_connection_of_the_user_may_cancel(api: Api) -> None:
    async with api.socket() as chat, api.socket() as other:
        await chat.start_session()
        turn = await chat.begin("Count for a long time", model_id=ENDLESS)
        await other.send({"type": "cancel", "turn_id": turn.turn_id})
        await chat.finish(turn)
        assert turn.last["type"] == "turn.cancelled"


async def test_leaving_does_not_stop_a_turn_and_resuming_shows_the_same_bytes(api: Api) -> None:
    async with api.socket() as chat:
        session = await chat.start_session()
        turn = await chat.begin("Count", model_id=SLOW)
        while len(turn.raw) < 5:
            await chat.frame()
        seen = dict(turn.raw)
        await chat.drop()

    async with api.socket() as back:
        resumed_session = await back.start_session(session["session_id"])
        assert resumed_session["active_turn"] is not None, "the turn stopped when its client left"
        assert resumed_session["active_turn"]["turn_id"] == turn.turn_id
        from_start = await back.resume(turn.turn_id)
        await back.finish(from_start)
        assert from_start.last["type"] == "chat_response"
        assert {seq: from_start.raw[seq] for seq in seen} == seen

    async with api.socket() as third:
        rest = await third.resume(turn.turn_id, after_seq=7)
        while not rest.ended:
            await third.frame()
        assert rest.raw == {seq: raw for seq, raw in from_start.raw.items() if seq > 7}
    assert (await api.turn(turn.turn_id)).raw == from_start.raw
    await api.check_stored(session["session_id"], from_start)


async def test_two_watchers_of_one_turn_see_the_same(api: Api) -> None:
    async with api.socket() as chat, api.socket() as watcher:
        await chat.start_session()
        turn = await chat.begin("Count", model_id=SLOW)
        watched = await watcher.resume(turn.turn_id)
        await asyncio.gather(chat.finish(turn), watcher.finish(watched))
        assert watched.raw == turn.raw


async def test_a_step_that_breaks_off_is_reset_and_comes_again(api: Api) -> None:
    async with api.socket() as chat:
        session = await chat.start_session()
        turn = await chat.ask("Try", model_id=f"breaks-once-{uuid.uuid4().hex[:6]}")
        assert [event["type"] for event in turn.events].count("step.reset") == 1
        assert turn.last["response"] == "This is the answer."
        await api.check_stored(session["session_id"], turn)


@pytest.mark.parametrize(("model", "retryable"), [("always-breaks", True), ("no-credit", False), ("sim-x9", False)])
async def test_a_provider_that_fails_ends_the_turn_with_a_code_and_the_conversation_goes_on(
    api: Api, model: str, retryable: bool
) -> None:
    async with api.socket() as chat:
        session = await chat.start_session()
        turn = await chat.ask("Try", model_id=model)
        assert turn.last["type"] == "turn.failed", turn.last
        assert turn.last["retryable"] is retryable
        assert "Incorrect API key" not in turn.last["message"], "the provider's own words are for the log"
        message = await api.check_stored(session["session_id"], turn)
        assert message["metadata"]["status"] == "failed"
        again = await chat.ask("Find the account Contoso")
        assert again.last["type"] == "chat_response"


@pytest.mark.parametrize("model", ["bad-arguments", "invented-tool"])
async def test_a_bad_call_goes_back_to_the_model_as_a_tool_error(api: Api, model: str) -> None:
    async with api.socket() as chat:
        await chat.start_session()
        turn = await chat.ask("Try", model_id=model)
        assert turn.last["type"] == "chat_response"
        assert [result["ok"] for result in turn.results] == [False]
        assert isinstance(turn.results[0]["result"], str)


async def test_what_belongs_to_others_is_as_if_it_did_not_exist(graph: ParleyServer, api: Api) -> None:
    async with api.socket() as chat:
        await chat.start_session()
        turn = await chat.begin("Count for a long time", model_id=ENDLESS)
        async with ChatSocket.open(graph.ws_url, development_identity("mallory")) as other:
            await other.start_session()
            missing = f"{'c_' + 'A' * 26}.{'0' * 26}"
            for kind in ("resume", "cancel"):
                theirs = await other.refused({"type": kind, "turn_id": turn.turn_id})
                nobodys = await other.refused({"type": kind, "turn_id": missing})
                assert theirs | {"turn_id": None} == nobodys | {"turn_id": None}
                assert theirs["code"] == "not_found"
            taken = await other.start_session(chat.session["session_id"])
            assert taken["active_turn"] is None
        async with ChatSocket.open(graph.ws_url, development_identity(api.user, tenant="elsewhere")) as stranger:
            assert (await stranger.refused({"type": "resume", "turn_id": turn.turn_id}))["code"] == "not_found"
        await chat.send({"type": "cancel", "turn_id": turn.turn_id})
        await chat.finish(turn)
        assert turn.last["type"] == "turn.cancelled"


async def test_identity_by_query_works_as_by_headers(graph: ParleyServer) -> None:
    async with ChatSocket.open(graph.ws_url, development_identity("query.user", "hr"), by_query=True) as chat:
        session = await chat.start_session()
        assert (session["user_id"], session["roles"]) == ("query.user", ["hr"])


async def test_a_page_of_another_origin_may_not_connect(graph: ParleyServer) -> None:
    with pytest.raises(Exception, match=r"HTTP 403|4403"):
        async with ChatSocket.open(
            graph.ws_url, development_identity("u"), headers={"Origin": "https://evil.example"}
        ) as chat:
            await chat.start_session()


async def test_approvals_and_inputs_nobody_waits_for_are_not_found(api: Api) -> None:
    async with api.socket() as chat:
        await chat.start_session()
        approval = await chat.refused({"type": "approval", "approval_id": "a1", "approved": True})
        answer = await chat.refused({"type": "input", "request_id": "r1", "action": "decline"})
        assert approval["code"] == answer["code"] == "not_found"
