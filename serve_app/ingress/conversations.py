"""A user's conversations and their messages: list, change, archive, delete, react."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response

from serve_app.domain.ids import ConversationKey
from serve_app.errors import InvalidInput
from serve_app.ingress.dependencies import Caller, Services, problems
from serve_app.storage.port import MAX_PAGE
from serve_app.turns.shadow_records import forget_conversation, forget_user
from serve_app.wire.conversations import (
    Archived,
    ConversationPage,
    ConversationView,
    Deleted,
    MessagePage,
    MessageView,
)
from serve_app.wire.requests import ConversationPatch, ReactionPatch

Cursor = Annotated[str | None, Query(max_length=1_024, description="`next_cursor` of the page before")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]

router = APIRouter(prefix="/api/conversations", tags=["conversations"])


@router.get("", summary="List conversations", responses=problems())
async def list_conversations(
    caller: Caller, services: Services, archived: bool = False, cursor: Cursor = None, limit: Limit = 50
) -> ConversationPage:
    """Newest activity first; either the archived ones or the others."""
    return ConversationPage.of(
        await services.store.list_conversations(caller, archived=archived, cursor=cursor, limit=limit)
    )


@router.post("/archive", summary="Archive all conversations", responses=problems())
async def archive_all(caller: Caller, services: Services) -> Archived:
    return Archived(archived=await services.store.archive_all(caller))


@router.delete("", summary="Delete all conversations", responses=problems())
async def delete_all(caller: Caller, services: Services) -> Deleted:
    """Their messages and turns as well; running turns stop."""
    deleted = await services.store.delete_all(caller)
    await forget_user(services.store, caller)
    return Deleted(deleted=deleted)


@router.get("/{conversation_id}", summary="One conversation", responses=problems(404))
async def get_conversation(
    conversation_id: str, caller: Caller, services: Services, response: Response
) -> ConversationView:
    conversation = await services.store.get_conversation(ConversationKey.of(caller, conversation_id))
    response.headers["etag"] = f'"{conversation.etag}"'
    return ConversationView.of(conversation)


@router.patch("/{conversation_id}", summary="Rename, archive or restore", responses=problems(400, 404, 409))
async def patch_conversation(
    conversation_id: str,
    patch: ConversationPatch,
    caller: Caller,
    services: Services,
    response: Response,
    if_match: Annotated[
        str | None, Header(max_length=200, description="The etag read before; refused with 409 when it is not current")
    ] = None,
) -> ConversationView:
    if patch.title is None and patch.archived is None:
        raise InvalidInput("Give a title or archived.")
    conversation = await services.store.update_conversation(
        ConversationKey.of(caller, conversation_id),
        title=patch.title.strip() if patch.title is not None else None,
        archived=patch.archived,
        if_match=_etag(if_match),
    )
    response.headers["etag"] = f'"{conversation.etag}"'
    return ConversationView.of(conversation)


@router.delete("/{conversation_id}", status_code=204, summary="Delete a conversation", responses=problems(404))
async def delete_conversation(conversation_id: str, caller: Caller, services: Services) -> Response:
    """Its messages and turns as well; a running turn stops."""
    key = ConversationKey.of(caller, conversation_id)
    await services.store.delete_conversation(key)
    await forget_conversation(services.store, key)
    return Response(status_code=204)


@router.get("/{conversation_id}/messages", summary="List messages", responses=problems(404))
async def list_messages(
    conversation_id: str,
    caller: Caller,
    services: Services,
    cursor: Cursor = None,
    limit: Limit = 50,
    order: Literal["asc", "desc"] = "asc",
    replaced: bool = False,
) -> MessagePage:
    """In the AI SDK's shape, oldest first; `order=desc` starts at the newest. `replaced` shows those too that an edit or a new
    answer has taken the place of.
    """
    page = await services.store.list_messages(
        ConversationKey.of(caller, conversation_id),
        cursor=cursor,
        limit=limit,
        descending=order == "desc",
        replaced=replaced,
    )
    return MessagePage.of(page)


@router.get("/{conversation_id}/messages/{message_id}", summary="One message", responses=problems(404))
async def get_message(conversation_id: str, message_id: str, caller: Caller, services: Services) -> MessageView:
    return MessageView.of(await services.store.get_message(ConversationKey.of(caller, conversation_id), message_id))


@router.patch("/{conversation_id}/messages/{message_id}", summary="React to a message", responses=problems(400, 404))
async def react(
    conversation_id: str, message_id: str, patch: ReactionPatch, caller: Caller, services: Services
) -> MessageView:
    """`null` takes the reaction back."""
    key = ConversationKey.of(caller, conversation_id)
    return MessageView.of(await services.store.set_reaction(key, message_id, patch.reaction))


def _etag(header: str | None) -> str | None:
    """The etag inside an If-Match; ``*`` matches whatever there is."""
    if header is None or header.strip() == "*":
        return None
    return header.strip().removeprefix("W/").strip('"')
