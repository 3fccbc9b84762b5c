"""Names, keys and indexes: every text has an id the database takes, and nothing is asked for that has no index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import serve_app.storage.cosmos as package
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.storage.cosmos import layout


@given(st.text(max_size=300))
def test_any_text_has_an_id_that_the_database_takes(text: str) -> None:
    made = layout.quoted(text)
    assert re.fullmatch(r"[A-Za-z0-9_.~-]+", made)
    assert len(made) <= 255
    assert made.strip(".")


@given(st.text(max_size=40), st.text(max_size=40))
def test_two_texts_never_have_one_id(one: str, other: str) -> None:
    assert (layout.quoted(one) == layout.quoted(other)) == (one == other)


@pytest.mark.parametrize("texts", [("a" * 300, "a" * 301), ("ä" * 200, "ö" * 200), (".", "~."), ("", "~")])
def test_texts_that_look_alike_have_ids_of_their_own(texts: tuple[str, str]) -> None:
    assert layout.quoted(texts[0]) != layout.quoted(texts[1])


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_partition_leads_back_to_its_conversation_whatever_the_user_is_called(tenant: str, user: str) -> None:
    key = ConversationKey(tenant_id=tenant, user_id=user, conversation_id="c_1-x")
    assert layout.conversation_of(layout.conversation_partition(key)) == key
    turn = TurnKey.new(key)
    assert layout.turn_key(layout.conversation_partition(key), layout.turn_id(turn)) == turn


def test_two_users_conversations_of_one_id_have_partitions_of_their_own() -> None:
    keys = [("anna", "c1"), ("anna/c1", "c1"), ("bert", "c1")]
    partitions = {
        layout.conversation_partition(ConversationKey(tenant_id="acme", user_id=user, conversation_id=name))
        for user, name in keys
    }
    assert len(partitions) == 3


def test_log_keys_sort_by_seq_and_never_reach_into_another_turns() -> None:
    keys = [layout.log_key("01A", seq) for seq in (2, 10, 99, 100, 99_999_999)]
    assert keys == sorted(keys)
    assert layout.log_key("01A", 99_999_999) < layout.log_key("01B", 1)


def test_the_names_clients_give_sort_by_acceptance_within_the_name() -> None:
    prefix = layout.called_prefix("m1")
    keys = [layout.called_key("m1", answer) for answer in (2, 4, 100)]
    assert keys == sorted(keys)
    assert all(prefix < key < f"{prefix}~" for key in keys)
    assert not prefix < layout.called_key("m2", 2) < f"{prefix}~"


def test_every_field_that_a_query_asks_for_has_an_index() -> None:
    indexed = {path[1:] for container in layout.CONTAINERS for path in (*container.key, *container.indexed)}
    asked: set[str] = set()
    for module in Path(package.__file__).parent.glob("*.py"):
        for text in re.findall(r'f?"((?:[^"\\]|\\.)*\bc\.(?:[^"\\]|\\.)*)"', module.read_text()):
            if "FROM c WHERE" not in text or text.startswith("SELECT"):  # the condition of a patch needs none
                asked |= set(re.findall(r"\bc\.(\w+)", text))
    assert {"shownAt", "sort", "recordId", "logKey", "id"} <= asked, "the queries are not found any more"
    assert asked - indexed <= {"id"}, "these would be refused, or read the whole partition"


def test_the_paths_of_a_key_have_an_index_too_and_nothing_else_has() -> None:
    for container in layout.CONTAINERS:
        policy = container.indexing_policy
        assert policy["excludedPaths"] == [{"path": "/*"}]
        included = {path["path"] for path in policy["includedPaths"]}
        assert {f"{path}/?" for path in container.key} <= included
        assert "/id/?" not in included, "it is always indexed; a policy read back without it would differ for ever"
        assert container.partition_key["kind"] == "MultiHash"
