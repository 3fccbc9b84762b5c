"""Names of tools on the wire: allowed there, and ours again when they come back."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from serve_app.models.tool_names import ToolNames

_ALLOWED = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def test_the_dot_becomes_two_underscores() -> None:
    names = ToolNames(["crm.find_account"])
    assert names.wire("crm.find_account") == "crm__find_account"
    assert names.full("crm__find_account") == "crm.find_account"


def test_names_that_would_collide_stay_apart() -> None:
    names = ToolNames(["a.b", "a__b", "a_.b", "ä.b", "ö.b"])
    wires = {names.wire(full) for full in ("a.b", "a__b", "a_.b", "ä.b", "ö.b")}
    assert len(wires) == 5
    assert all(names.full(names.wire(full)) == full for full in ("a.b", "a__b", "ä.b", "ö.b"))


def test_long_names_that_begin_alike_stay_apart() -> None:
    one, two = "server." + "x" * 80 + "1", "server." + "x" * 80 + "2"
    names = ToolNames([one, two])
    assert names.wire(one) != names.wire(two)
    assert names.full(names.wire(two)) == two


def test_a_name_the_model_made_up_comes_back_as_it_is() -> None:
    assert ToolNames(["crm.find"]).full("nonsense") == "nonsense"


@given(st.lists(st.text(min_size=1, max_size=100), unique=True, max_size=20))
def test_any_names_map_to_allowed_ones_and_back(full_names: list[str]) -> None:
    names = ToolNames(full_names)
    for full in full_names:
        assert _ALLOWED.fullmatch(names.wire(full))
        assert names.full(names.wire(full)) == full


def test_a_name_in_the_history_never_renames_a_tool_that_is_offered() -> None:
    names = ToolNames(["crm.find_account"], mentioned=["crm__find_account", "gone.tool", "x" * 80])
    assert names.wire("crm.find_account") == "crm__find_account"
    assert names.full("crm__find_account") == "crm.find_account"
    assert names.wire("crm__find_account") == "crm__find_account"
    assert names.wire("gone.tool") == "gone__tool"
    assert _ALLOWED.fullmatch(names.wire("x" * 80))
