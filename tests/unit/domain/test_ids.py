"""Identifiers: what a valid one looks like, and that none leads to somebody else's partition."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey, new_id
from serve_app.errors import NotFound

ANN = Principal(tenant_id="acme", user_id="ann", roles=("sales",))
ALPHABET = string.ascii_letters + string.digits + "_-"
ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

conversation_ids = st.text(ALPHABET, min_size=1, max_size=64)


@given(conversation_ids)
def test_a_conversation_id_of_the_alphabet_is_kept_as_it_is(conversation_id: str) -> None:
    key = ConversationKey.of(ANN, conversation_id)
    assert (key.tenant_id, key.user_id, key.conversation_id) == ("acme", "ann", conversation_id)


@pytest.mark.parametrize(
    "conversation_id",
    ["", "a" * 65, "a b", "a.b", "a/b", "../a", "a\n", "\na", "a\x00", "ä", "a:b", "a%2fb", "٣", "a" * 100_000],
)
def test_an_id_no_conversation_can_have_is_as_one_that_does_not_exist(conversation_id: str) -> None:
    with pytest.raises(NotFound, match=r"^There is no such conversation\.$"):
        ConversationKey.of(ANN, conversation_id)


@given(conversation_ids)
def test_a_turn_id_leads_back_to_its_conversation(conversation_id: str) -> None:
    key = TurnKey.new(ConversationKey.of(ANN, conversation_id))
    assert TurnKey.of(ANN, key.turn_id) == key
    assert key.conversation.conversation_id == conversation_id


@given(conversation_ids)
def test_a_turn_id_asked_for_by_somebody_else_never_leads_to_its_owners_partition(conversation_id: str) -> None:
    key = TurnKey.new(ConversationKey.of(ANN, conversation_id))
    for other in (Principal(tenant_id="acme", user_id="bob"), Principal(tenant_id="evil", user_id="ann")):
        got = TurnKey.of(other, key.turn_id).conversation
        assert (got.tenant_id, got.user_id) == (other.tenant_id, other.user_id)
        assert got != key.conversation


@pytest.mark.parametrize(
    "turn_id",
    [
        "",
        "c1",
        f".{ULID}",
        f"c1.{ULID[:-1]}",
        f"c1.{ULID}A",
        f"c1.{ULID.lower()}",
        f"c1.{ULID[:-1]}U",
        f"c1.{ULID[:-1]}I",
        f"c1.c2.{ULID}",
        f"c1/{ULID}",
        f"c1.{ULID}\n",
        f" c1.{ULID}",
        f"{'c' * 65}.{ULID}",
        f"../c1.{ULID}",
        f"c1.{ULID}.{ULID}",
    ],
)
def test_an_id_no_turn_can_have_is_as_one_that_does_not_exist(turn_id: str) -> None:
    with pytest.raises(NotFound, match=r"^There is no such turn\.$"):
        TurnKey.of(ANN, turn_id)


@given(st.text(max_size=100))
def test_whatever_a_client_sends_is_a_turn_of_the_asker_or_not_found(text: str) -> None:
    try:
        key = TurnKey.of(ANN, text)
    except NotFound:
        return
    assert (key.conversation.tenant_id, key.conversation.user_id) == ("acme", "ann")
    assert key.turn_id == text
    assert text.startswith(f"{key.conversation.conversation_id}.")


def test_a_turns_messages_have_ids_that_every_attempt_makes_alike() -> None:
    key = TurnKey.of(ANN, f"c1.{ULID}")
    assert key.user_message_id == f"msg_{ULID}_u"
    assert key.assistant_message_id == f"msg_{ULID}_a"
    other = TurnKey.new(key.conversation)
    assert len({key.user_message_id, key.assistant_message_id, other.user_message_id, other.assistant_message_id}) == 4


def test_new_ids_differ_and_fit_where_clients_may_choose_one() -> None:
    made = [new_id("conn_") for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(re.fullmatch(r"conn_[0-9A-HJKMNP-TV-Z]{26}", one) for one in made)
    assert ConversationKey.of(ANN, new_id()).conversation_id


@pytest.mark.parametrize(
    ("granted", "asked", "kept"),
    [
        (("sales", "hr"), None, ("sales", "hr")),
        (("sales", "hr"), "hr", ("hr",)),
        (("sales",), "admin", ()),
        ((), "sales", ()),
    ],
)
def test_asking_for_a_role_only_narrows(granted: tuple[str, ...], asked: str | None, kept: tuple[str, ...]) -> None:
    principal = Principal(tenant_id="acme", user_id="ann", roles=granted)
    narrowed = principal.narrowed_to(asked)
    assert narrowed == Principal(tenant_id="acme", user_id="ann", roles=kept)
