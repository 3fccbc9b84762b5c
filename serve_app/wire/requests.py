"""What clients send: WebSocket frames and HTTP bodies, every field bounded. The AI SDK's body is ``chat_request``'s.

Frames tolerate fields this server does not know, since their clients send more than it needs; the program's own HTTP
bodies refuse them, so that a misspelt or smuggled field is never ignored in silence.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from serve_app.domain.ids import CONVERSATION_ID
from serve_app.errors import InvalidInput

MAX_ATTACHMENTS = 32
MAX_TITLE_CHARS = 200
MAX_TOKEN_CHARS = 16_384
MAX_SEQ = 2**53 - 1
"""The largest integer every JSON reader keeps exactly."""

ConversationId = Annotated[str, Field(pattern=f"^{CONVERSATION_ID.pattern}$")]
ShortId = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
"""Ids that clients choose or repeat: printable ASCII without spaces."""
ModelId = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
AfterSeq = Annotated[int, Field(ge=0, le=MAX_SEQ)]


class _Frame(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class SessionUpdate(_Frame):
    """Attaches to a conversation; without ``session_id`` a new one is made. ``role`` can only narrow what was granted.

    ``access_token``: who one is, where the handshake has not said it, or again before it expires.
    """

    type: Literal["session.update"]
    session_id: ConversationId | None = None
    role: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    access_token: Annotated[str | None, Field(alias="accessToken", max_length=MAX_TOKEN_CHARS, repr=False)] = None


class QueryFrame(_Frame):
    type: Literal["query"]
    content: str
    client_turn_id: ShortId | None = None
    model_id: ModelId | None = None
    tool_id: ShortId | None = None
    attachments: Annotated[tuple[ShortId, ...], Field(max_length=MAX_ATTACHMENTS)] | None = None


class Resume(_Frame):
    type: Literal["resume"]
    turn_id: Annotated[str, Field(min_length=1, max_length=128)]
    after_seq: AfterSeq = 0


class Cancel(_Frame):
    type: Literal["cancel"]
    turn_id: Annotated[str, Field(min_length=1, max_length=128)]


class Approval(_Frame):
    type: Literal["approval"]
    approval_id: ShortId
    approved: bool
    reason: Annotated[str, Field(max_length=2_000)] | None = None


class InputAnswer(_Frame):
    type: Literal["input"]
    request_id: ShortId
    action: Literal["accept", "decline", "cancel"]
    content: dict[str, JsonValue] | None = None


class Ping(_Frame):
    type: Literal["ping"]


ClientFrame = SessionUpdate | QueryFrame | Resume | Cancel | Approval | InputAnswer | Ping
_FRAME: TypeAdapter[ClientFrame] = TypeAdapter(Annotated[ClientFrame, Field(discriminator="type")])


def parse_frame(text: str) -> ClientFrame:
    """A client's frame. Raises InvalidInput that names the first field at fault."""
    try:
        return _FRAME.validate_json(text)
    except ValidationError as error:
        raise InvalidInput(_frame_sentence(error)) from None


def _frame_sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=True)[0]
    match first["type"]:
        case "json_invalid":
            return "The message is not valid JSON."
        case "union_tag_invalid":
            return "The message's type is not known."
        case "union_tag_not_found":
            return "The message has no type."
        case "dict_type" | "model_type" | "model_attributes_type":
            return "The message must be a JSON object."
    # The first element of the location is the union's tag, which the client already knows.
    field = ".".join(str(part) for part in first["loc"][1:]) or "message"
    return f"{field}: {first['msg'][0].lower()}{first['msg'][1:]}."


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ConversationPatch(_Body):
    """What may be changed about a conversation; what is left out stays."""

    title: Annotated[str, Field(min_length=1, max_length=MAX_TITLE_CHARS, pattern=r"\S")] | None = None
    archived: bool | None = None

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"title": "Contoso renewal"}, {"archived": True}]}
    )


class ReactionPatch(_Body):
    reaction: Literal["up", "down"] | None

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [{"reaction": "up"}]})
