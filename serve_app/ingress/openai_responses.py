"""``/v1/responses``: OpenAI's responses over durable turns.

A response is the view of a turn's record, so it can be retrieved, streamed again from any event, cancelled and deleted from
anywhere. One that runs in the background goes on when its client leaves; any other is cancelled then.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from serve_app.domain.generation import ModelMessage
from serve_app.domain.identity import Principal
from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import Turn
from serve_app.errors import NotFound
from serve_app.ingress.chat import ChatService, Sent
from serve_app.ingress.dependencies import Caller, Chat, Services
from serve_app.ingress.openai_routes import (
    AnswerStream,
    Asked,
    OpenAi,
    answers,
    asked_of,
    client_left,
    json_body,
    openai_problems,
    stream,
)
from serve_app.ingress.openai_turns import HEARTBEAT_S, ClientLeft, OpenAiTurns
from serve_app.ingress.services import IngressServices
from serve_app.ingress.tail import Shown
from serve_app.wire.openai_body import size_bytes
from serve_app.wire.openai_chat import Completion
from serve_app.wire.openai_errors import invalid
from serve_app.wire.openai_ids import no_response, response_key
from serve_app.wire.openai_response import exchange_of, given_of, input_items, response_object
from serve_app.wire.openai_response_stream import ResponseEvents
from serve_app.wire.openai_responses_request import given_response_prompt, parse_response_request
from serve_app.wire.requests import MAX_SEQ

MAX_ITEMS = 100

_EXAMPLE = {"model": "default", "input": "Say hello."}
_STREAM_EXAMPLE = (
    'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","item_id":"msg_01JC…_0",'
    '"output_index":0,"content_index":0,"delta":"Hello","logprobs":[],"sequence_number":4}\n\n'
)
_RESPONSE = {
    "id": "resp_01JC…",
    "object": "response",
    "created_at": 1793525470,
    "status": "completed",
    "model": "default",
    "output": [
        {
            "id": "msg_01JC…_0",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}],
        }
    ],
}
_ITEM = {"type": "message", "id": "msg_01JC…_in_0", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
_ANSWERS = answers("A response, or its events", _RESPONSE, _STREAM_EXAMPLE)

router = APIRouter(prefix="/v1/responses", tags=["openai"])


@router.post(
    "",
    summary="Create a response",
    response_class=Response,
    responses=_ANSWERS | openai_problems(404, 413),
    openapi_extra=json_body(_EXAMPLE, "model", "input"),
)
async def create_response(
    request: Request, asked: Annotated[Asked, Depends(asked_of)], openai: OpenAi, services: Services
) -> Response:
    """As OpenAI's. `model` is a model or `assistant/<prompt>`, as for chat completions. `previous_response_id` carries that
    response's exchange. With `background` the answer is made whoever stays, and told by its id.
    """
    body = parse_response_request(asked.body)
    model_id, prompt = await openai.resolve(asked.caller, body.model)
    carried: Sequence[ModelMessage] = ()
    if body.previous_response_id is not None:
        carried = await _carried(asked.caller, body.previous_response_id, services)
    given = given_response_prompt(body, prompt, carried)
    background = bool(body.background)
    sent = await openai.send(
        asked.caller,
        given,
        model_id,
        key=asked.key,
        priority=asked.priority,
        request_id=asked.request_id,
        background=background,
    )
    if body.stream:
        return await _events(request, asked, openai, sent, background)
    if background:
        await openai.done(sent, background=True)
        return JSONResponse(response_object(sent.turn), headers=asked.headers)
    return await _whole(request, asked, openai, sent)


@router.get(
    "/{response_id}",
    summary="A response, or its events",
    response_class=Response,
    responses=_ANSWERS | openai_problems(404, 410),
)
async def get_response(
    response_id: str,
    caller: Caller,
    openai: OpenAi,
    chat: Chat,
    services: Services,
    stream: Annotated[bool, Query(description="Its events from the beginning, then live")] = False,
    starting_after: Annotated[
        int | None, Query(ge=0, le=MAX_SEQ, description="Only those after this `sequence_number`")
    ] = None,
) -> Response:
    key = response_key(caller, response_id)
    turn = await _stored(key, response_id, services)
    if stream:
        return await _again(turn, openai, chat, -1 if starting_after is None else starting_after)
    if starting_after is not None:
        raise invalid("starting_after", "starting_after: only allowed when stream is true.")
    return JSONResponse(await _view(openai, key))


@router.post(
    "/{response_id}/cancel",
    summary="Cancel a background response",
    responses=answers("The response", _RESPONSE) | openai_problems(404),
)
async def cancel_response(
    response_id: str, caller: Caller, openai: OpenAi, chat: Chat, services: Services
) -> JSONResponse:
    """One that has ended stays as it is. The answer comes once it has stopped, or says that it is about to."""
    key = response_key(caller, response_id)
    turn = await _stored(key, response_id, services)
    if not given_of(turn).shown.get("background"):
        raise invalid("response_id", "Only background responses can be cancelled.")
    await chat.cancel(caller, key.turn_id)
    await chat.has_stopped(key.conversation)
    return JSONResponse(await _view(openai, key))


@router.delete(
    "/{response_id}",
    summary="Delete a response",
    responses=answers("What is gone", {"id": "resp_01JC…", "object": "response", "deleted": True})
    | openai_problems(404),
)
async def delete_response(response_id: str, caller: Caller, services: Services) -> JSONResponse:
    """With all that is kept of it. One that runs is stopped by it."""
    key = response_key(caller, response_id)
    await _stored(key, response_id, services)
    try:
        await services.store.delete_conversation(key.conversation)
    except NotFound:
        raise no_response(response_id) from None
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


@router.get(
    "/{response_id}/input_items",
    summary="A response's input",
    responses=answers("A page of items", {"object": "list", "data": [_ITEM], "has_more": False}) | openai_problems(404),
)
async def list_input_items(
    response_id: str,
    caller: Caller,
    services: Services,
    limit: Annotated[int, Query(ge=1, le=MAX_ITEMS)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(max_length=128, description="The id of the last item already seen")] = None,
) -> JSONResponse:
    """Its own; what it carries of the responses before is theirs."""
    items = input_items(await _stored(response_key(caller, response_id), response_id, services))
    if order == "desc":
        items.reverse()
    if after is not None:
        found = [position for position, item in enumerate(items) if item["id"] == after]
        if not found:
            raise invalid("after", "after: there is no such item.")
        items = items[found[0] + 1 :]
    page = items[:limit]
    return JSONResponse(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(items) > limit,
        }
    )


async def _stored(key: TurnKey, response_id: str, services: IngressServices) -> Turn:
    """The response's turn. Raises NotFound, for one that was not to be stored, too."""
    try:
        turn = await services.store.get_turn(key)
    except NotFound:
        raise no_response(response_id) from None
    if not given_of(turn).shown.get("store"):
        raise no_response(response_id)
    return turn


async def _carried(caller: Principal, response_id: str, services: IngressServices) -> list[ModelMessage]:
    turn = await _stored_before(caller, response_id, services)
    if turn.state != "completed":
        raise invalid(
            "previous_response_id",
            f"Previous response '{response_id}' has no answer: it is {turn.state}.",
            "not_completed",
        )
    exchange = exchange_of(turn)
    # Each response is kept with all that it carries, so that a chain without a bound would take the square of its length.
    if size_bytes(exchange) > services.settings.limits.v1_body_bytes:
        raise invalid(
            "previous_response_id",
            "The responses before it are longer than a request may be; send what of them is still needed as input.",
            "context_length_exceeded",
        )
    return exchange


async def _stored_before(caller: Principal, response_id: str, services: IngressServices) -> Turn:
    try:
        return await _stored(response_key(caller, response_id), response_id, services)
    except NotFound:
        message = f"Previous response with id '{response_id}' not found."
        details = [{"field": "previous_response_id", "message": message, "code": "previous_response_not_found"}]
        raise NotFound(message, None, None, details) from None


async def _view(openai: OpenAiTurns, key: TurnKey) -> dict[str, Any]:
    turn, ended = await openai.ended(key)
    return response_object(turn, ended)


async def _whole(request: Request, asked: Asked, openai: OpenAiTurns, sent: Sent) -> Response:
    try:
        await openai.answered(request, sent, Completion(()))
    except ClientLeft:
        return client_left()
    return JSONResponse(await _view(openai, sent.turn.key), headers=asked.headers)


async def _events(request: Request, asked: Asked, openai: OpenAiTurns, sent: Sent, background: bool) -> Response:
    """Of one that does not run in the background a failure before its first event is told by the status."""
    batches = sent.tail.__aiter__()
    try:
        shown = [] if background else await openai.begun(request, sent, batches, Completion(()))
    except ClientLeft:
        return client_left()
    events = ResponseEvents(sent.turn)
    chunks = _chunks(openai, sent, shown, batches, events)
    return AnswerStream(openai, sent, chunks, background=background, headers=asked.headers)


async def _again(turn: Turn, openai: OpenAiTurns, chat: ChatService, after: int) -> Response:
    """The events of a response that is there already. Whoever reads them may leave; it goes on."""
    tail = await chat.resume(turn.principal, turn.key.turn_id, heartbeat_s=HEARTBEAT_S)
    sent = Sent(turn=turn, created=False, tail=tail, model_id=None)
    openai.joined(sent)
    chunks = _chunks(openai, sent, [], tail.__aiter__(), ResponseEvents(turn, after))
    return AnswerStream(openai, sent, chunks, background=True)


def _chunks(
    openai: OpenAiTurns, sent: Sent, shown: list[Shown], batches: AsyncIterator[list[Shown]], events: ResponseEvents
) -> AsyncGenerator[bytes]:
    """The events, and the last one with the response as it is then stored."""

    async def last() -> bytes:
        return events.finish(await _view(openai, sent.turn.key))

    return stream(sent, shown, batches, events.encode, lambda: events.ended, events.fail, last)
