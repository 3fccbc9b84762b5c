"""Values between stages: ours arrive as they were, and nothing else is made of a peer's bytes."""

from __future__ import annotations

import os
import pickle
import subprocess
from datetime import UTC, date, datetime
from typing import Any

import pytest

from deployments.pickled import NotOurs, pack, unpack
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.records import Record
from serve_app.errors import ParleyError
from serve_app.telemetry import logger

KEY = TurnKey.new(ConversationKey.of(Principal(tenant_id="acme", user_id="ann", roles=("sales",)), "c1"))


@pytest.mark.parametrize(
    "value",
    [
        KEY,
        Principal(tenant_id="acme", user_id="ann", roles=("sales", "hr")),
        Record(tenant_id="acme", kind="k", record_id="r", body=b"{}", etag="1"),
        (date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        {"deep": [2**80, None, {"a": b"bytes"}, {1, 2}, frozenset({"x"})]},
    ],
)
def test_what_ports_pass_arrives_as_it_was(value: Any) -> None:
    assert unpack(pack(value)) == value


class _Runs:
    def __init__(self, call: Any, *args: Any) -> None:
        self._call, self._args = call, args

    def __reduce__(self) -> Any:
        return self._call, self._args


@pytest.mark.parametrize(
    "evil",
    [
        _Runs(os.system, "true"),
        _Runs(subprocess.run, ["true"]),
        _Runs(eval, "1"),
        _Runs(getattr, ParleyError, "__init__"),
        _Runs(__import__, "os"),
        _Runs(ParleyError, "not a value"),
    ],
)
def test_a_peers_bytes_run_nothing(evil: Any) -> None:
    with pytest.raises(NotOurs):
        unpack(pickle.dumps(evil))


@pytest.mark.parametrize("name", ["Principal", "Limits"])
def test_a_peers_bytes_change_no_class(name: str) -> None:
    state = pickle.dumps((None, {"tenant_id": "evil"}), 2)[2:-1]
    with pytest.raises(NotOurs):
        unpack(b"\x80\x02cserve_app.domain.identity\n" + name.encode() + b"\n" + state + b"b.")
    assert Principal(tenant_id="acme", user_id="ann").tenant_id == "acme"


def test_functions_of_ours_are_no_values() -> None:
    with pytest.raises(NotOurs):
        unpack(pickle.dumps(logger))


@pytest.mark.parametrize("data", [b"", b"nonsense", pickle.dumps(KEY)[:-3], b"\x80\x05."])
def test_what_is_no_value_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(NotOurs):
        unpack(data)


def test_what_cannot_be_carried_is_refused_before_it_leaves() -> None:
    with pytest.raises(NotOurs):
        pack(lambda: None)
