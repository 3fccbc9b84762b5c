"""Chat over HTTP: the AI SDK's request and stream, and any turn's log as server-sent events.

Whatever can fail before the first byte of a stream fails as a problem with its own status; later failures are told in the
stream.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from serve_app.domain import turns
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.errors import InvalidInput, ParleyError
from serve_app.ingress.dependencies import Caller, Chat, RequestId, Services, problems
from serve_app.ingress.tail import TurnTail
from serve_app.telemetry import logger
from serve_app.turns.port import Title
from serve_app.wire.ai_sdk import HEADERS, KEEP_ALIVE, UiMessageStream
from serve_app.wire.requests import MAX_SEQ, ChatRequest
from serve_app.wire.turns import Stopped, TurnView
from serve_app.wire.ws import INTERNAL_SENTENCE, ErrorFrame, TitleFrame

HEARTBEAT_S = 15.0
EVENT_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
    "connection": "keep-alive",
    "x-accel-buffering": "no",
}

_AI_SDK_EXAMPLE = (
    'data: {"type":"start","messageId":"msg_01JC_a"}\n\n'
    'data: {"type":"data-conversation","data":{"id":"conv-42"}}\n\n'
    'data: {"type":"start-step"}\n\n'
    'data: {"type":"text-start","id":"text-1"}\n\n'
    'id: conv-42.01JC:2\ndata: {"type":"text-delta","id":"text-1","delta":"Contoso has"}\n\n'
    'data: {"type":"text-end","id":"text-1"}\n\n'
    'data: {"type":"finish-step"}\n\n'
    'id: conv-42.01JC:3\ndata: {"type":"finish","finishReason":"stop"}\n\n'
    "data: [DONE]\n\n"
)
_EVENTS_EXAMPLE = (
    'id: conv-42.01JC:2\ndata: {"type":"text.delta","turn_id":"conv-42.01JC","seq":2,"delta":"Contoso has"}\n\n'
)

_log = logger("ingress.sse")
router = APIRouter(tags=["chat"])


def _stream_docs(example: str, description: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": description, "content": {"text/event-stream": {"example": example}}}}


@router.post(
    "/api/chat",
    summary="Send a message and stream the answer",
    response_class=StreamingResponse,
    responses=_stream_docs(_AI_SDK_EXAMPLE, "An AI SDK UI message stream") | problems(400, 403, 409, 413, 429),
)
async def send_message(
    body: ChatRequest,
    caller: Caller,
    chat: Chat,
    services: Services,
    request_id: RequestId,
    idempotency_key: Annotated[
        str | None, Header(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$", examples=["4f9c1b1e"])
    ] = None,
) -> Response:
    """The last user message is the query; earlier ones are the store's to know. `id` names the conversation, which is made
    if there is none. A repeated `Idempotency-Key` (or else a repeated id of the user's message) gives the same turn again.
    """
    if body.trigger == "regenerate-message":
        raise InvalidInput("trigger: regenerate-message is not supported yet; send the question again.")
    text, message_id = body.query_text()
    conversation = await chat.ensure_conversation(caller, body.id)
    sent = await chat.send(
        caller,
        conversation,
        turns.Query(content=text, model_id=body.model_id, tool_id=body.tool_id),
        client_turn_id=idempotency_key or message_id,
        request_id=request_id,
        title_wait_s=services.settings.turn.title_wait_s,
        heartbeat_s=HEARTBEAT_S,
    )
    return _ui_stream(sent.tail, sent.model_id)


@router.get(
    "/api/chat/{conversation_id}/stream",
    summary="Resume the running turn's stream",
    response_class=StreamingResponse,
    responses=_stream_docs(_AI_SDK_EXAMPLE, "The running turn from its start, then live")
    | {204: {"description": "No turn runs"}}
    | problems(404),
)
async def resume_stream(conversation_id: str, caller: Caller, chat: Chat, services: Services) -> Response:
    """What the AI SDK's client asks for when it comes back to a page."""
    conversation = await services.store.get_conversation(ConversationKey.of(caller, conversation_id))
    if conversation.active_turn_id is None:
        return Response(status_code=204)
    tail = await chat.resume(
        caller,
        conversation.active_turn_id,
        conversation=conversation,
        title_wait_s=services.settings.turn.title_wait_s,
        heartbeat_s=HEARTBEAT_S,
    )
    return _ui_stream(tail, await chat.catalog.choose(tail.turn.query.model_id))


@router.post("/api/chat/{conversation_id}/stop", summary="Cancel the running turn", responses=problems(404))
async def stop_turn(conversation_id: str, caller: Caller, chat: Chat) -> Stopped:
    """The AI SDK's own stop only disconnects, and leaving does not stop a turn; this does."""
    turn = await chat.cancel_active(caller, conversation_id)
    return Stopped(turn_id=None if turn is None or turn.ended else turn.key.turn_id)


@router.get("/api/turns/{turn_id}", summary="A turn and where it spent its time", responses=problems(404))
async def get_turn(turn_id: str, caller: Caller, services: Services) -> TurnView:
    return TurnView.of(await services.store.get_turn(TurnKey.of(caller, turn_id)))


@router.get(
    "/api/turns/{turn_id}/events",
    summary="A turn's events, then live",
    response_class=StreamingResponse,
    responses=_stream_docs(_EVENTS_EXAMPLE, "The WebSocket's JSON as server-sent events")
    | {204: {"description": "The turn has ended and nothing comes after that event"}}
    | problems(400, 404, 410),
)
async def turn_events(
    turn_id: str,
    caller: Caller,
    chat: Chat,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="The last `seq` already seen")] = 0,
    last_event_id: Annotated[str | None, Header(max_length=200, examples=["conv-42.01JC:12"])] = None,
) -> Response:
    """Events after `after`. `Last-Event-ID` (`turn_id:seq` or `seq`), which browsers send when they reconnect, wins over it.
    204 tells a browser's EventSource not to come again.
    """
    after_seq = after if last_event_id is None else _seq_of(last_event_id, turn_id)
    tail = await chat.resume(caller, turn_id, after_seq, heartbeat_s=HEARTBEAT_S)
    if tail.turn.ended and after_seq >= tail.turn.last_seq:
        await tail.aclose()
        return Response(status_code=204)
    return StreamingResponse(_events(tail), headers=EVENT_HEADERS)


def _seq_of(last_event_id: str, turn_id: str) -> int:
    """Raises InvalidInput for what this server never sent."""
    named, _, seq = last_event_id.rpartition(":")
    if (named and named != turn_id) or not (seq.isascii() and seq.isdigit()) or int(seq) > MAX_SEQ:
        raise InvalidInput("Last-Event-ID must be the id of an event of this turn.")
    return int(seq)


def _ui_stream(tail: TurnTail, model_id: str | None) -> StreamingResponse:
    return StreamingResponse(_ui_chunks(tail, model_id), headers=HEADERS)


async def _ui_chunks(tail: TurnTail, model_id: str | None) -> AsyncGenerator[bytes]:
    """One bytes object per batch, and an end that the client's reader recognises whatever happens."""
    key = tail.turn.key
    encoder = UiMessageStream(key.conversation.conversation_id, key.turn_id, model_id)
    try:
        async for batch in tail:
            chunks = encoder.encode(batch) if batch else KEEP_ALIVE
            if chunks:
                yield chunks
        yield encoder.close()
    except ParleyError as error:
        yield encoder.fail(ErrorFrame.of(error).message)
    except Exception:
        _log.exception("stream_failed", turn_id=key.turn_id)
        yield encoder.fail(INTERNAL_SENTENCE)
    finally:
        await tail.aclose()


async def _events(tail: TurnTail) -> AsyncGenerator[bytes]:
    key = tail.turn.key
    prefix = f"id: {key.turn_id}:".encode()
    try:
        async for batch in tail:
            if not batch:
                yield KEEP_ALIVE
                continue
            out: list[bytes] = []
            for item in batch:
                if isinstance(item, Title):
                    title = TitleFrame(session_id=key.conversation.conversation_id, title=item.title)
                    out.append(b"data: " + title.text().encode() + b"\n\n")
                else:
                    out.append(b"%b%d\ndata: %b\n\n" % (prefix, item.seq, item.body))
            yield b"".join(out)
    except ParleyError as error:
        yield _error_event(ErrorFrame.of(error, key.turn_id))
    except Exception:
        _log.exception("stream_failed", turn_id=key.turn_id)
        yield _error_event(ErrorFrame(code="internal", message=INTERNAL_SENTENCE, retryable=False, turn_id=key.turn_id))
    finally:
        await tail.aclose()


def _error_event(frame: ErrorFrame) -> bytes:
    return b"data: " + frame.text().encode() + b"\n\n"
