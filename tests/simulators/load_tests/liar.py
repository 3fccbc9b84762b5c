"""A server that speaks all three ways in, and breaks the promise that the question names.

``right`` and anything it does not know is answered as promised: `` tok0 tok1 …`` in pieces, as a simulated model's text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

PIECES = tuple(f" tok{index}" for index in range(6))
WHOLE = "".join(PIECES)
MODEL = f"sim-t0-i0-n{len(PIECES)}"
_numbers = count(1)


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def turn_events(lie: str, turn_id: str, client_turn_id: str | None) -> list[dict[str, Any]]:
    """A turn's events as the WebSocket shows them."""
    pieces, response = list(PIECES), WHOLE
    if lie == "lost piece":  # and nothing else gives it away
        del pieces[3]
        response = "".join(pieces)
    elif lie == "doubled piece":
        pieces.insert(3, pieces[3])
        response = "".join(pieces)
    elif lie == "other answer":
        response = WHOLE[:-1]
    bodies: list[dict[str, Any]] = [{"type": "turn.started", "message_id": "m", "client_turn_id": client_turn_id}]
    bodies += [{"type": "text.delta", "delta": piece} for piece in pieces]
    usage = {"input_tokens": 5, "output_tokens": len(PIECES)}
    end: dict[str, Any] = {"type": "chat_response", "message_id": "m", "response": response, "usage": usage}
    if lie == "failed":
        end = {"type": "turn.failed", "code": "upstream_failed", "message": "gone", "retryable": True, "response": ""}
    if lie != "no end":
        bodies.append(end)
    events = [{**body, "turn_id": turn_id, "seq": seq} for seq, body in enumerate(bodies, 1)]
    match lie:
        case "gap":
            del events[3]
        case "doubled event":
            events.insert(3, events[3])
        case "second end":
            events.append(events[-1])
        case "late piece":
            events.append({**events[2], "seq": len(events) + 1})
        case "another turn":
            events[3] = {**events[3], "turn_id": "somebody-elses"}
        case "no beginning":
            del events[0]
    return events


async def chat_socket(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(_encode({"type": "connection.ack", "connection_id": "c", "protocol": 1}))
    try:
        while True:
            frame = msgspec.json.decode(await socket.receive_text())
            match frame["type"]:
                case "session.update":
                    created = {"type": "session.created", "session_id": frame.get("session_id", "s"), "user_id": "u"}
                    await socket.send_text(_encode(created))
                case "ping":
                    await socket.send_text(_encode({"type": "pong"}))
                case "query":
                    await _answer(socket, frame)
    except (WebSocketDisconnect, WebSocketDisconnected):
        return


async def _answer(socket: WebSocket, frame: dict[str, Any]) -> None:
    lie = frame["content"]
    if lie == "hang up":
        await socket.close(1011)
        return
    if lie == "refusal":
        await socket.send_text(_encode({"type": "error", "code": "overloaded", "message": "later", "retryable": True}))
        return
    if lie == "no JSON":
        await socket.send_text('{"type":"turn.st')
        return
    for event in turn_events(lie, f"t{next(_numbers)}", frame.get("client_turn_id")):
        await socket.send_text(_encode(event))


async def ui_stream(request: Request) -> Response:
    body = await request.json()
    lie = body["messages"][-1]["parts"][0]["text"]
    if lie == "refusal":
        return JSONResponse({"code": "overloaded", "detail": "later"}, 503)
    turn_id = f"t{next(_numbers)}"
    events = turn_events(lie, turn_id, None)
    begin = ({"type": "start-step"}, {"type": "text-start", "id": "text-1"})
    out = [f"id: {turn_id}:1\n" + _data({"type": "start"}), *map(_data, begin)]
    for event in events[1:]:
        if event["type"] == "text.delta":
            chunk = {"type": "text-delta", "id": "text-1", "delta": event["delta"]}
            out.append(f"id: {turn_id}:{event['seq']}\n" + _data(chunk))
    if lie == "no number":
        out.append(f"id: {turn_id}:{'9' * 5000}\n" + _data({"type": "text-delta", "id": "text-1", "delta": "x"}))
    if lie == "outside its part":
        out.append(_data({"type": "text-delta", "id": "text-2", "delta": "x"}))
    out += [_data({"type": "text-end", "id": "text-1"}), _data({"type": "finish-step"})]
    if lie == "failed":
        out.append(_data({"type": "error", "errorText": "gone"}))
    if lie != "no end":
        out.append(_data({"type": "finish", "finishReason": "error" if lie == "failed" else "stop"}))
    if lie == "second end":
        out.append(out[-1])
    if lie != "no end":
        out.append("data: [DONE]\n\n")
    if lie == "late piece":
        out.append(_data({"type": "text-delta", "id": "text-1", "delta": "x"}))
    return StreamingResponse(_slowly(out), media_type="text/event-stream", headers={"x-turn-id": turn_id})


async def completions(request: Request) -> Response:
    body = await request.json()
    lie = body["messages"][-1]["content"]
    if lie == "refusal":
        return JSONResponse({"error": {"message": "later", "code": "overloaded"}}, 503)
    pieces = [event["delta"] for event in turn_events(lie, "", None) if event["type"] == "text.delta"]
    chunk_id = f"chatcmpl-{next(_numbers)}"
    chunks = [{"id": chunk_id, "choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    if lie == "another turn":
        chunks[2]["id"] = "chatcmpl-somebody-elses"
    finish = {"id": chunk_id, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    out = [_data(chunk) for chunk in chunks]
    if lie == "failed":
        out.append(_data({"error": {"message": "gone", "code": "upstream_failed"}}))
    elif lie != "no end":
        out += [
            _data(finish),
            _data({"id": chunk_id, "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6}}),
        ]
    if lie == "late piece":
        out.append(_data(chunks[0]))
    if lie == "second end":
        out.append(_data(finish))
    if lie not in ("no end", "failed"):
        out.append("data: [DONE]\n\n")
    return StreamingResponse(_slowly(out), media_type="text/event-stream")


async def turn_log(request: Request) -> Response:
    """Nothing is kept here."""
    return JSONResponse({"code": "not_found", "detail": "no such turn"}, 404)


async def _slowly(out: list[str]) -> AsyncIterator[str]:
    for part in out:
        yield part
        await asyncio.sleep(0)


def _data(value: Any) -> str:
    return f"data: {_encode(value)}\n\n"


def make_liar() -> Starlette:
    return Starlette(
        routes=[
            WebSocketRoute("/ws/chat", chat_socket),
            Route("/api/chat", ui_stream, methods=["POST"]),
            Route("/api/turns/{turn_id}/events", turn_log),
            Route("/v1/chat/completions", completions, methods=["POST"]),
        ]
    )
