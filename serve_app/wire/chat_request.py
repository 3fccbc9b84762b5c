"""What the AI SDK's client posts to ``/api/chat``: the whole conversation each time, tool results included.

The store knows all of it but the last user message, so that is all that is decoded; the rest, which may be megabytes, is
only skipped over. Where the last message is the assistant's and carries the user's answers to questions about tool calls
(versions 6 and 7), that one is read instead. Fields that an application adds to the body are tolerated.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Raw, Struct
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from serve_app.errors import InvalidInput
from serve_app.files.port import FILE_ID
from serve_app.wire.approvals import MAX_REASON_CHARS
from serve_app.wire.requests import MAX_SEQ, ConversationId, ModelId, ShortId

MAX_MESSAGES = 10_000
MAX_PARTS = 1_000


class ApprovalResponse(BaseModel):
    """The user's answer, as version 6 and 7 keep it in the part of a tool call."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    approval_id: Annotated[ShortId, Field(validation_alias="id")]
    approved: bool
    reason: Annotated[str, Field(max_length=MAX_REASON_CHARS)] | None = None


class UiMessage(BaseModel):
    """A message as the AI SDK's client sends it. Only the last user message's text is read, or the last message's answers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Annotated[str, Field(max_length=256)] | None = None
    role: Annotated[str, Field(min_length=1, max_length=32)]
    parts: Annotated[list[dict[str, Any]], Field(max_length=MAX_PARTS)]


class ChatRequest(BaseModel):
    """The AI SDK's request. Fields of its own that an application adds to the body are tolerated."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        json_schema_extra={
            # Without an id for the message: who tries the example twice with other words would reuse it.
            "examples": [
                {
                    "id": "conv-42",
                    "trigger": "submit-message",
                    "messages": [
                        {"role": "user", "parts": [{"type": "text", "text": "Which opportunities does Contoso have?"}]}
                    ],
                }
            ]
        },
    )

    id: ConversationId | None = None
    """The conversation; made if there is none of that id, named by the server if none is given."""
    messages: Annotated[list[UiMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: Annotated[
        Annotated[str, Field(max_length=256)] | None, Field(validation_alias=AliasChoices("messageId", "message_id"))
    ] = None
    model_id: Annotated[ModelId | None, Field(validation_alias=AliasChoices("model_id", "modelId"))] = None
    tool_id: Annotated[ShortId | None, Field(validation_alias=AliasChoices("tool_id", "toolId"))] = None

    approvals: Literal["native", "data"] = "native"
    """How questions about tool calls are put: as versions 6 and 7 know them, or as data parts, for version 5."""

    def approval_answers(self) -> tuple[ApprovalResponse, ...]:
        """The user's answers to questions about tool calls, where they are what this request is about.

        Raises InvalidInput for one that cannot be read.
        """
        message = self.messages[-1]
        if message.role != "assistant":
            return ()
        try:
            return tuple(
                ApprovalResponse.model_validate(part.get("approval")) for part in message.parts if _is_answered(part)
            )
        except ValidationError:
            raise InvalidInput("messages: an approval needs an id, and approved must be true or false.") from None

    def paused_seq(self, turn_id: str) -> int | None:
        """How far the client has been shown the turn that it answers for, if it says so."""
        for part in reversed(self.messages[-1].parts):
            data = part.get("data")
            if part.get("type") == "data-paused" and isinstance(data, dict) and data.get("turn_id") == turn_id:
                seq = data.get("seq")
                return seq if isinstance(seq, int) and 0 <= seq <= MAX_SEQ else None
        return None

    def query_text(self) -> tuple[str, str | None]:
        """Text and id of the last message. Raises InvalidInput for text that cannot be read."""
        message = self.messages[-1]
        return _text_of(message), message.id or None

    def file_ids(self) -> tuple[str, ...]:
        """The files that go with the last message. Raises InvalidInput for one that was not uploaded here."""
        parts = self.messages[-1].parts
        return tuple(_file_id(part.get("url")) for part in parts if part.get("type") == "file")


_FILE_URL = re.compile(rf"/({FILE_ID.pattern})(?:/download)?(?:\?.*)?\Z")
"""Both addresses that an upload may be given: the download route, and a signed one at the Blob service."""

_READ = frozenset(
    ("id", "messages", "trigger", "messageId", "message_id", "model_id", "modelId", "tool_id", "toolId", "approvals"),
)


_ANSWERED = b"approval-responded"
"""The state of a tool call's part that the user has answered and nothing has come of yet."""


class _Head(Struct):
    """Enough of a message to know whose it is."""

    role: str


_DECODE_FIELDS = msgspec.json.Decoder(dict[str, Raw]).decode
_DECODE_MESSAGES = msgspec.json.Decoder(list[Raw]).decode
_DECODE_HEAD = msgspec.json.Decoder(_Head).decode
_DECODE = msgspec.json.Decoder().decode


def parse_chat_request(body: bytes) -> ChatRequest:
    """The request with its last user message alone.

    Raises json.JSONDecodeError for what is no JSON, InvalidInput where no message is the user's, and pydantic's
    ValidationError for the rest.
    """
    try:
        fields = _fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # No object, no JSON, or JSON with half of a surrogate pair, which does no harm in an earlier message.
        fields = _fields_of_lenient_json(body)
    return ChatRequest.model_validate(fields)


def _fields(body: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = {name: raw for name, raw in _DECODE_FIELDS(body).items() if name in _READ}
    messages = fields.pop("messages", None)
    fields = {name: _DECODE(raw) for name, raw in fields.items()}
    if messages is not None:
        is_list = bytes(memoryview(messages)[:1]) == b"["
        # What is no list need not be decoded to be refused.
        fields["messages"] = _last_of_user(_DECODE_MESSAGES(messages)) if is_list else None
    return fields


def _last_of_user(messages: list[Raw]) -> list[Any]:
    _check_count(messages)
    if messages and _ANSWERED in bytes(messages[-1]) and _answers(last := _DECODE(messages[-1])):
        return [last]
    for message in reversed(messages):
        try:
            head = _DECODE_HEAD(message)
        except msgspec.ValidationError:
            raise _shapeless() from None
        if head.role == "user":
            return [_DECODE(message)]
    if messages:
        raise _nobody_asks()
    return []


def _fields_of_lenient_json(body: bytes) -> Any:
    """The same for JSON that the strict decoder refuses. Slower, and rare."""
    try:
        fields = json.loads(body)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:  # bytes that are no text, digits or depth without end
        raise json.JSONDecodeError(type(error).__name__, "", 0) from None
    if not isinstance(fields, dict):
        return fields
    fields = {name: value for name, value in fields.items() if name in _READ}
    messages = fields.get("messages")
    if isinstance(messages, list) and messages:
        _check_count(messages)
        if not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages):
            raise _shapeless()
        if _answers(messages[-1]):
            fields["messages"] = messages[-1:]
            return fields
        asked = [message for message in messages if message["role"] == "user"]
        if not asked:
            raise _nobody_asks()
        fields["messages"] = asked[-1:]
    return fields


def _answers(message: Any) -> bool:
    """Whether a message is the assistant's and brings answers of the user."""
    if (
        not isinstance(message, dict)
        or message.get("role") != "assistant"
        or not isinstance(message.get("parts"), list)
    ):
        return False
    return any(isinstance(part, dict) and _is_answered(part) for part in message["parts"])


def _is_answered(part: dict[str, Any]) -> bool:
    return part.get("state") == _ANSWERED.decode()


def _check_count(messages: list[Any]) -> None:
    if len(messages) > MAX_MESSAGES:
        raise InvalidInput(f"messages: there may be at most {MAX_MESSAGES}.")


def _shapeless() -> InvalidInput:
    return InvalidInput("messages: each must be an object with a role.")


def _nobody_asks() -> InvalidInput:
    return InvalidInput("messages: none of them is the user's.")


def _text_of(message: UiMessage) -> str:
    texts: list[str] = []
    for part in message.parts:
        if part.get("type") == "text":
            texts.append(_checked_text(part.get("text")))
    return "\n".join(texts)


def _file_id(url: object) -> str:
    """Of a file part, the id in its address; whose file it is, its store knows."""
    found = _FILE_URL.search(url) if isinstance(url, str) else None
    if found is None:
        raise InvalidInput("messages: upload a file to /api/file first, and send the url that it is given.")
    return found[1]


def _checked_text(text: object) -> str:
    if not isinstance(text, str):
        raise InvalidInput("messages: a text part has no text.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("messages: a text part has half of a surrogate pair, which is no character.") from None
    return text
