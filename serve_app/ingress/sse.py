"""Chat over HTTP: the AI SDK's request and stream, and any turn's log as server-sent events.

Whatever can fail before the first byte of a stream fails as a problem with its own status; later failures are told in the
stream.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from serve_app.domain import turns
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.priority import Priority
from serve_app.errors import Conflict, InvalidInput, NotFound, NotPermitted, ParleyError
from serve_app.ingress.branches import Branch, Branches
from serve_app.ingress.chat import ChatService
from serve_app.ingress.continuing import Continuation, continuation
from serve_app.ingress.dependencies import Caller, Chat, RequestId, Services, problems
from serve_app.ingress.limits import CHAT_PATH
from serve_app.ingress.services import IngressServices
from serve_app.ingress.tail import TurnTail
from serve_app.storage.rules import other_query
from serve_app.telemetry import logger
from serve_app.turns.port import Notice, Title
from serve_app.wire.ai_sdk import HEADERS, KEEP_ALIVE, Approvals, UiMessageStream, refused
from serve_app.wire.chat_request import ChatRequest, parse_chat_request
from serve_app.wire.requests import MAX_SEQ
from serve_app.wire.turns import Stopped, TurnView
from serve_app.wire.ws import INTERNAL_SENTENCE, ErrorFrame, TitleFrame, WarningFrame

HEARTBEAT_S = 15.0
TURN_ID_HEADER = "x-turn-id"
"""Names the turn a stream shows, for clients that go on over another route or the WebSocket."""
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

_REUSED_MESSAGE_ID = (
    "A message with this id was sent before with other text or settings; give every message an id of its own, or send "
    "an Idempotency-Key."
)
_REUSED_KEY = "This Idempotency-Key was used before with another query; use a new one for every message."

_log = logger("ingress.sse")
router = APIRouter(tags=["chat"])


def _stream_docs(example: str, description: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": description, "content": {"text/event-stream": {"example": example}}}}


async def chat_body(request: Request) -> ChatRequest:
    """The AI SDK's body, of which little has to be decoded. Raises RequestValidationError and InvalidInput."""
    if not _is_json(request.headers.get("content-type", "")):
        raise InvalidInput("The body must be JSON, and its content-type application/json.")
    try:
        return parse_chat_request(await request.body())
    except json.JSONDecodeError as error:
        raise RequestValidationError([{"type": "json_invalid", "loc": ("body",), "msg": error.msg}]) from None
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found]) from None


@router.post(
    CHAT_PATH,
    summary="Send a message and stream the answer",
    response_class=StreamingResponse,
    responses=_stream_docs(_AI_SDK_EXAMPLE, "An AI SDK UI message stream") | problems(400, 403, 404, 409, 413, 429),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{ChatRequest.__name__}"}}},
        }
    },
)
async def send_message(
    caller: Caller,
    body: Annotated[ChatRequest, Depends(chat_body)],
    chat: Chat,
    services: Services,
    request_id: RequestId,
    idempotency_key: Annotated[
        str | None,
        # Without an example: documentation pages send it as it stands, and the second query with it is a conflict.
        Header(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$", description="Any id, new for every message"),
    ] = None,
    x_priority: Annotated[
        Priority, Header(description="`batch`: nobody waits for the answer, so that live input goes first")
    ] = "live",
) -> Response:
    """The last user message is the query; earlier ones are the store's to know and are not read. `id` names the conversation,
    which is made if there is none. `model_id` names the model; without it the prompt's runs if it names one, else the
    configured default. The query with an `Idempotency-Key` (or else a message id) that was used before gives the same turn
    again; another query with it is refused with 409.

    `trigger: "regenerate-message"` answers again: the question or answer named by `messageId`, else the last one. A
    `messageId` without it names a question that this one takes the place of. What is replaced is kept and no longer shown.

    A `tool_id` that the caller may not use is told in the stream, as an `error` chunk.

    Where a tool call waits for approval and nothing else is left to show, the response ends (`data-paused`); the answer comes as
    versions 6 and 7 send it, with the assistant's message last, or to `/api/approvals/{id}`. Version 5 knows no such chunks: with
    `"approvals": "data"` the question is a data part and the stream stays open.
    """
    continued = await continuation(caller, body, chat.answers, services.store)
    if continued is not None:
        return await _continue(caller, continued, body, chat, services)
    text, message_id = body.query_text()
    query = turns.Query(content=text, model_id=body.model_id, tool_id=body.tool_id, attachments=body.file_ids())
    branch = await _branch(caller, body, query, chat, services)
    if isinstance(branch, str):
        tail = await chat.resume(caller, branch, heartbeat_s=HEARTBEAT_S)
        return _ui_stream(tail, tail.turn.query.model_id, body.approvals)
    if branch is not None:
        query = branch.query
    try:
        sent = await chat.send(
            caller,
            body.id,
            query,
            client_turn_id=idempotency_key or (message_id if branch is None else branch.client_turn_id),
            client_message_id=message_id if branch is None else branch.client_message_id,
            replaces=None if branch is None else branch.replaces,
            priority=x_priority,
            request_id=request_id,
            title_wait_s=services.settings.turn.title_wait_s,
            heartbeat_s=HEARTBEAT_S,
        )
    except NotPermitted as error:
        if body.tool_id is None:
            raise
        return StreamingResponse(iter([refused(error.message)]), headers=HEADERS)
    except Conflict as error:
        if error.message == other_query().message:
            raise Conflict(_REUSED_MESSAGE_ID if idempotency_key is None else _REUSED_KEY) from None
        raise
    return _ui_stream(sent.tail, sent.model_id, body.approvals)


@router.get(
    "/api/chat/{conversation_id}/stream",
    summary="Resume the running turn's stream",
    response_class=StreamingResponse,
    responses=_stream_docs(_AI_SDK_EXAMPLE, "The running turn from its start, then live")
    | {204: {"description": "No turn runs, or there is no such conversation"}}
    | problems(),
)
async def resume_stream(
    conversation_id: str,
    caller: Caller,
    chat: Chat,
    services: Services,
    approvals: Annotated[Approvals, Query(description="`data` for version 5 of the AI SDK")] = "native",
) -> Response:
    """What the AI SDK's client asks for when it comes to a page, be it a fresh one whose conversation is not made yet: a
    conversation that is not there is answered as one that runs nothing.
    """
    try:
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
    except NotFound:
        return Response(status_code=204)
    model_id = tail.turn.query.model_id
    with suppress(InvalidInput):  # the turn runs, though its model may have left the catalog meanwhile
        model_id = await chat.catalog.choose(model_id)
    return _ui_stream(tail, model_id, approvals)


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
    last_event_id: Annotated[str | None, Header(max_length=200)] = None,
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


async def _branch(
    caller: Principal, body: ChatRequest, query: turns.Query, chat: ChatService, services: IngressServices
) -> Branch | str | None:
    """What the body replaces; the id of a turn that it repeats; None for a plain message."""
    branches = Branches(services.store)
    if body.trigger == "regenerate-message":
        await chat.has_stopped(_key(caller, body))  # else the answer that is being stopped would not be there yet
        return await branches.regenerate(_key(caller, body), body.message_id, body.model_id)
    if body.message_id is not None:
        try:
            return await branches.edit(_key(caller, body), body.message_id, query)
        except NotFound:
            # Some clients name the new message itself.
            if body.message_id != body.messages[-1].id:
                raise
    return None


def _key(caller: Principal, body: ChatRequest) -> ConversationKey:
    if body.id is None:
        raise NotFound("There is no such message.")
    return ConversationKey.of(caller, body.id)


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _seq_of(last_event_id: str, turn_id: str) -> int:
    """Raises InvalidInput for what this server never sent."""
    named, _, seq = last_event_id.rpartition(":")
    if (named and named != turn_id) or not (seq.isascii() and seq.isdigit()) or int(seq) > MAX_SEQ:
        raise InvalidInput("Last-Event-ID must be the id of an event of this turn.")
    return int(seq)


async def _continue(
    caller: Principal, continued: Continuation, body: ChatRequest, chat: ChatService, services: IngressServices
) -> Response:
    """The stream after answers have come: the same message, from where the last response paused."""
    key = TurnKey.of(caller, continued.turn_id)
    tail = await chat.resume(
        caller,
        continued.turn_id,
        continued.after_seq,
        conversation=await services.store.get_conversation(key.conversation),
        title_wait_s=services.settings.turn.title_wait_s,
        heartbeat_s=HEARTBEAT_S,
    )
    return _ui_stream(tail, None, body.approvals, continued)


def _ui_stream(
    tail: TurnTail, model_id: str | None, approvals: Approvals, continued: Continuation | None = None
) -> StreamingResponse:
    headers = {**HEADERS, TURN_ID_HEADER: tail.turn.key.turn_id}
    key = tail.turn.key
    encoder = UiMessageStream(key.conversation.conversation_id, key.turn_id, model_id, approvals=approvals)
    if continued is not None:
        encoder.skip(continued.shown, continued.answered)
    return StreamingResponse(_ui_chunks(tail, encoder), headers=headers)


async def _ui_chunks(tail: TurnTail, encoder: UiMessageStream) -> AsyncGenerator[bytes]:
    """One bytes object per batch, and an end that the client's reader recognises whatever happens."""
    key = tail.turn.key
    try:
        if begun := encoder.encode(()):
            yield begun
        async for batch in tail:
            chunks = encoder.encode(batch) if batch else KEEP_ALIVE
            if chunks:
                yield chunks
            if encoder.waits and tail.cursor >= tail.turn.last_seq:
                yield encoder.pause()
                return
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
                elif isinstance(item, Notice):
                    warning = WarningFrame(turn_id=key.turn_id, message=item.message)
                    out.append(b"data: " + warning.text().encode() + b"\n\n")
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
