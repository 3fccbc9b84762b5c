"""What the database looks like: its containers, their keys and indexes, and how documents are called. Data, not code that runs.

    sessions  /tenantId /conversationId   head, prompt, messages, turns, log: all that one conversation is, in one partition
    inbox     /tenantId /userId           one row per conversation of a user, in the order of the list of conversations
    groups    /tenantId /groupId          made, not used yet
    jobs      /tenantId /kind             the projection's lease and place in the change feed, the turns it has seen open;
                                          what a tenant consumed on days that are over
    usage     /tenantId /day              one row per ended turn, and per title
    authz     /tenantId /kind             configuration records

Everything is found by a full partition key. An index costs with every write, so only the paths that a query filters or sorts by
have one; the paths of the key are named too, because a key is not indexed by itself. The id is, whatever a policy says.
"""

from __future__ import annotations

import hashlib
from typing import Any

from msgspec import Struct

from serve_app.domain.ids import ConversationKey, TurnKey

Partition = tuple[str, str]
"""The values of a container's two key paths."""

SYSTEM_TENANT = "_system"
"""Stands for the tenant in rows that belong to the program itself, in a container where no tenant has any."""


class Container(Struct, frozen=True):
    """``indexed`` are the paths that queries use beside the key. TTL is on: a document that says ``ttl`` is gone that many
    seconds after its last write."""

    name: str
    key: tuple[str, str]
    indexed: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, str]:
        """The fields of the key."""
        return self.key[0][1:], self.key[1][1:]

    @property
    def partition_key(self) -> dict[str, Any]:
        """As the service wants it when the container is made. It can never be changed."""
        return {"paths": list(self.key), "kind": "MultiHash", "version": 2}

    @property
    def indexing_policy(self) -> dict[str, Any]:
        """As the service wants it; it can be changed at any time."""
        included = [{"path": f"{path}/?"} for path in (*self.key, *self.indexed)]
        return {
            "indexingMode": "consistent",
            "automatic": True,
            "includedPaths": included,
            "excludedPaths": [{"path": "/*"}],
        }

    @property
    def default_ttl(self) -> int:
        return -1


SESSIONS = Container(
    "sessions",
    ("/tenantId", "/conversationId"),
    ("/messageId", "/position", "/shownAt", "/logKey", "/calledKey"),
)
INBOX = Container("inbox", ("/tenantId", "/userId"), ("/sort",))
GROUPS = Container("groups", ("/tenantId", "/groupId"))
JOBS = Container("jobs", ("/tenantId", "/kind"))
USAGE = Container("usage", ("/tenantId", "/day"), ("/userId",))
AUTHZ = Container("authz", ("/tenantId", "/kind"), ("/recordId",))
CONTAINERS = (SESSIONS, INBOX, GROUPS, JOBS, USAGE, AUTHZ)

HEAD = "head"
PROMPT = "prompt"
_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")
_LONGEST_ID = 255


def conversation_partition(key: ConversationKey) -> Partition:
    """Ids of conversations are chosen by clients and scoped by owner, so the owner is part of the key's second value."""
    return key.tenant_id, f"{key.user_id}/{key.conversation_id}"


def conversation_of(partition: Partition) -> ConversationKey:
    """The reverse; a conversation's id has no slash, a user's may."""
    user_id, _, conversation_id = partition[1].rpartition("/")
    return ConversationKey(tenant_id=partition[0], user_id=user_id, conversation_id=conversation_id)


def ulid_of(turn_id: str) -> str:
    return turn_id.rpartition(".")[2]


def turn_id(key: TurnKey) -> str:
    """The id of a turn's document."""
    return f"t-{ulid_of(key.turn_id)}"


def turn_key(partition: Partition, document_id: str) -> TurnKey:
    conversation = conversation_of(partition)
    return TurnKey(conversation=conversation, turn_id=f"{conversation.conversation_id}.{document_id[2:]}")


def idempotency_id(client_turn_id: str) -> str:
    """The document that answers 409 to a second accept of one input."""
    return f"k-{hashlib.sha256(client_turn_id.encode()).hexdigest()[:40]}"


def message_id(message_id: str) -> str:
    return f"m-{quoted(message_id)}"


def log_key(ulid: str, seq: int) -> str:
    """Sorts the log's entries of a turn by the last record they hold."""
    return f"{ulid}-{seq:08d}"


def called_key(client_message_id: str, answer: int) -> str:
    """Sorts the turns whose message a client calls the same by when they were accepted."""
    return f"{called_prefix(client_message_id)}{answer:012d}"


def called_prefix(client_message_id: str) -> str:
    return f"{hashlib.sha256(client_message_id.encode()).hexdigest()[:24]}-"


def quoted(text: str) -> str:
    """Any text as an id: documents may not be called with slashes, question or number signs, nor at great length."""
    plain = "".join(
        character if character in _SAFE else "".join(f"~{byte:02X}" for byte in character.encode())
        for character in text
    )
    if plain.startswith(".") or not plain:
        plain = f"~{plain}"
    if len(plain) > _LONGEST_ID:
        plain = f"{plain[:64]}~~{hashlib.sha256(text.encode()).hexdigest()}"
    return plain
