"""Identifiers: how they are made and what a valid one looks like.

A turn id is ``<conversation id>.<ulid>``: opaque to clients, yet it locates its own partition, so that a turn is read by
id alone without an index across partitions.
"""

from __future__ import annotations

import re

from msgspec import Struct
from ulid import ULID

from serve_app.domain.identity import Principal
from serve_app.errors import NotFound

CONVERSATION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Conversation ids may be chosen by clients (the AI SDK does), so their alphabet is fixed here."""

REQUEST_PREFIX = "v1_"
"""Begins the id of a conversation that is one request of a program, in no list of anybody's conversations; a ULID follows."""

TRIAL_PREFIX = "trial_"
"""The same for a turn that is run to see how a configuration answers."""

SHADOW_PREFIX = "shadow_"
"""The same for a trial that follows a live turn. Whoever made it keeps count of it: upkeep, which takes out other requests when
their log is old, leaves it alone."""

_UNLISTED_ID = re.compile(rf"(?:{REQUEST_PREFIX}|{TRIAL_PREFIX}|{SHADOW_PREFIX})[0-9A-HJKMNP-TV-Z]{{26}}")
_TURN_ID = re.compile(r"([A-Za-z0-9_-]{1,64})\.([0-9A-HJKMNP-TV-Z]{26})")


def new_id(prefix: str = "") -> str:
    """A unique id that sorts by time of making: 26 characters of Crockford base32 after ``prefix``."""
    return f"{prefix}{ULID()}"


class ConversationKey(Struct, frozen=True, kw_only=True):
    """Where a conversation lives. Keys are scoped by owner, so that another user's id looks like no id at all."""

    tenant_id: str
    user_id: str
    conversation_id: str

    @classmethod
    def of(cls, principal: Principal, conversation_id: str) -> ConversationKey:
        """The key of ``principal``'s conversation. Raises NotFound for an id no conversation can have."""
        if not CONVERSATION_ID.fullmatch(conversation_id):
            raise NotFound("There is no such conversation.")
        return cls(tenant_id=principal.tenant_id, user_id=principal.user_id, conversation_id=conversation_id)

    @property
    def listed(self) -> bool:
        """Whether it is among its user's conversations. Exact, since clients may have begun ids of theirs alike."""
        return _UNLISTED_ID.fullmatch(self.conversation_id) is None

    @property
    def trial(self) -> bool:
        """Whether it is that of a trial, or of what judges one. No client can choose such an id."""
        return self.conversation_id.startswith((TRIAL_PREFIX, SHADOW_PREFIX)) and not self.listed

    @property
    def passing(self) -> bool:
        """Whether it goes as a whole when its log is old: a request that nobody comes back to."""
        return not self.listed and not self.conversation_id.startswith(SHADOW_PREFIX)


class TurnKey(Struct, frozen=True, kw_only=True):
    """Where a turn lives: inside its conversation's partition."""

    conversation: ConversationKey
    turn_id: str

    @classmethod
    def new(cls, conversation: ConversationKey) -> TurnKey:
        """A key for a turn that does not exist yet."""
        return cls(conversation=conversation, turn_id=f"{conversation.conversation_id}.{ULID()}")

    @classmethod
    def of(cls, principal: Principal, turn_id: str) -> TurnKey:
        """The key of ``principal``'s turn. Raises NotFound for an id no turn can have."""
        match = _TURN_ID.fullmatch(turn_id)
        if match is None:
            raise NotFound("There is no such turn.")
        return cls(conversation=ConversationKey.of(principal, match[1]), turn_id=turn_id)

    @property
    def user_message_id(self) -> str:
        """Deterministic, so that a repeated accept writes the same document."""
        return f"msg_{self.turn_id.rpartition('.')[2]}_u"

    @property
    def assistant_message_id(self) -> str:
        return f"msg_{self.turn_id.rpartition('.')[2]}_a"
