"""``/v1/chat/completions`` and ``/v1/models``: for programs that speak OpenAI's API.

What fails before the first piece of an answer fails with its own status, which OpenAI's SDKs act on; what fails later is told in
the stream, which then ends without its end.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from serve_app.domain.generation import ModelInfo
from serve_app.ingress.chat import Sent
from serve_app.ingress.dependencies import Caller
from serve_app.ingress.openai_routes import (
    AnswerStream,
    Asked,
    OpenAi,
    answers,
    asked_of,
    client_left,
    gone,
    json_body,
    openai_problems,
    stream,
)
from serve_app.ingress.openai_turns import ASSISTANT, ClientLeft, OpenAiTurns, no_model
from serve_app.wire.openai_chat import Completion, CompletionChunks
from serve_app.wire.openai_chat_request import ChatCompletionRequest, given_prompt, parse_chat_completion

_EXAMPLE = {"model": "default", "messages": [{"role": "user", "content": "Say hello."}]}
_STREAM_EXAMPLE = (
    'data: {"id":"chatcmpl-01JC…","object":"chat.completion.chunk","created":1793525470,"model":"default",'
    '"choices":[{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
_COMPLETION = {
    "id": "chatcmpl-01JC…",
    "object": "chat.completion",
    "created": 1793525470,
    "model": "default",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
}
_MODEL = {"id": "default", "object": "model", "created": 0, "owned_by": "openai"}

router = APIRouter(tags=["openai"])


@router.post(
    "/v1/chat/completions",
    summary="Chat completion",
    response_class=Response,
    responses=answers("A chat completion, or its chunks", _COMPLETION, _STREAM_EXAMPLE) | openai_problems(404, 413),
    openapi_extra=json_body(_EXAMPLE, "model", "messages"),
)
async def chat_completions(request: Request, asked: Annotated[Asked, Depends(asked_of)], openai: OpenAi) -> Response:
    """As OpenAI's. `model` is a model, which is shown the messages and nothing else, or `assistant/<prompt>`, whose instructions
    come first and whose tools run inside. Calls of the request's own `tools` come back as tool calls.

    A client that leaves cancels its request. With an `Idempotency-Key` the same request again gives the same answer.
    `X-Priority: batch` says that nobody waits for it.
    """
    body = parse_chat_completion(asked.body)
    model_id, prompt = await openai.resolve(asked.caller, body.model)
    given = given_prompt(body, prompt)
    sent = await openai.send(
        asked.caller, given, model_id, key=asked.key, priority=asked.priority, request_id=asked.request_id
    )
    if body.stream:
        return await _chunks(request, asked, body, openai, sent, given.tool_names)
    return await _whole(request, asked, body, openai, sent, given.tool_names)


async def _whole(
    request: Request,
    asked: Asked,
    body: ChatCompletionRequest,
    openai: OpenAiTurns,
    sent: Sent,
    callers: frozenset[str],
) -> Response:
    completion = Completion(callers)
    try:
        await openai.answered(request, sent, completion)
    except ClientLeft:
        return client_left()
    if completion.ended is None:
        raise gone()
    return Response(
        completion.encode(completion.ended, body.model, sent.turn.created_at),
        media_type="application/json",
        headers=asked.headers,
    )


async def _chunks(
    request: Request,
    asked: Asked,
    body: ChatCompletionRequest,
    openai: OpenAiTurns,
    sent: Sent,
    callers: frozenset[str],
) -> Response:
    batches = sent.tail.__aiter__()
    try:
        shown = await openai.begun(request, sent, batches, Completion(callers))
    except ClientLeft:
        return client_left()
    chunks = CompletionChunks(
        sent.turn.key.turn_id, body.model, sent.turn.created_at, callers, include_usage=body.usage_wanted
    )
    return AnswerStream(
        openai,
        sent,
        stream(sent, shown, batches, chunks.encode, lambda: chunks.ended, chunks.fail),
        headers=asked.headers,
    )


@router.get(
    "/v1/models",
    summary="Models and assistants",
    responses=answers("A list of models", {"object": "list", "data": [_MODEL]}) | openai_problems(),
)
async def list_models(caller: Caller, openai: OpenAi) -> JSONResponse:
    """Models by their names and aliases, and as `assistant/<prompt>` the prompts the caller may use."""
    models, prompts = await openai.models(caller)
    data = [_model(name, model.provider) for model in models for name in (model.model_id, *model.aliases)]
    data += [_model(f"{ASSISTANT}{prompt}", "parley") for prompt in prompts]
    return JSONResponse({"object": "list", "data": data})


@router.get("/v1/models/{model:path}", summary="A model", responses=answers("A model", _MODEL) | openai_problems(404))
async def get_model(model: str, caller: Caller, openai: OpenAi) -> JSONResponse:
    model_id, _ = await openai.resolve(caller, model)
    if model_id is None:
        return JSONResponse(_model(model, "parley"))
    models, _ = await openai.models(caller)
    return JSONResponse(_model(model, _provider(model, models)))


def _provider(name: str, models: tuple[ModelInfo, ...]) -> str:
    """Raises NotFound for one that only a provider could know of."""
    for model in models:
        if name in {model.model_id, *model.aliases}:
            return model.provider
    raise no_model(name)


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}
