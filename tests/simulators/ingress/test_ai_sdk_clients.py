"""The AI SDK's own readers, three major versions of them, accept what Parley streams.

Needs Node and the packages of ``tests/peers_ai_sdk`` (``npm ci`` there).
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from serve_app.domain.events import EventRecord
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.settings import Settings
from serve_app.turns.port import Notice, Title
from serve_app.wire.ai_sdk import Approvals, UiMessageStream
from tests.peers import REQUIRE, node
from tests.simulators.ingress.conftest import Server, serving
from tests.unit.ingress.obeying import obeying, tools
from tests.unit.ingress.stages import answered, make_stages, text, tool_finished, tool_started
from tests.unit.ingress.whole import real_turns
from tests.unit.wire.turn_logs import (
    TURN,
    answer,
    batches,
    cancelled,
    delta,
    encode_all,
    failed,
    log_of,
    reset,
    result,
    started,
    tool,
)

PEERS = Path(__file__).parents[2] / "peers_ai_sdk"
VERSIONS = ["ai5", "ai6", "ai7"]
RUN_S = 60


@pytest.fixture(autouse=True)
def command() -> list[str]:
    """Runs the readers; skips, or fails where peers are required, without them."""
    runs = node()
    if not (PEERS / "node_modules" / "ai7").is_dir():
        why = "the AI SDK is not installed: run `npm ci --prefix tests/peers_ai_sdk`"
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{why} ({REQUIRE} is 1)", pytrace=False)
        pytest.skip(why)
    return [runs, "read.mjs"]


def read(command: list[str], version: str, *streams: bytes) -> list[dict[str, Any]]:
    """What the SDK's reader makes of each stream."""
    request = json.dumps({"version": version, "streams": [stream.decode() for stream in streams]})
    done = subprocess.run(command, cwd=PEERS, input=request.encode(), capture_output=True, timeout=RUN_S)
    assert done.returncode == 0, done.stderr.decode()
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("version", VERSIONS)
def test_every_kind_of_turn_is_read_without_a_complaint(version: str, command: list[str]) -> None:
    whole, broken, stopped, again = read(
        command,
        version,
        encode_all(
            [
                log_of(
                    started(),
                    delta("Looking. "),
                    tool("c1", arguments={"name": "Contoso"}),
                    tool("c2"),
                    result("c2", ok=False, value="Down."),
                    result("c1", value={"id": 7, "none": None}),
                    delta("Found.", step=1),
                    answer(),
                ),
                [Title(title="Contoso")],
            ]
        ),
        encode_all([log_of(started(), delta("Hal"), failed("The provider failed."))]),
        encode_all([log_of(started(), delta("Hal"), cancelled())]),
        encode_all([log_of(started(), delta("Hal"), tool("c1"), reset(), delta("Hello"), answer("Hello"))]),
    )
    for reading in (whole, broken, stopped, again):
        assert reading["invalid"] == []
        assert reading["types"][-1] == "finish"
        assert reading["message"]["id"] == "msg_a"

    assert whole["errors"] == []
    parts = [part for part in whole["message"]["parts"] if part["type"] != "step-start"]
    assert [part["type"] for part in parts] == [
        "data-conversation",
        "data-model",
        "text",
        "tool-crm.find_account",
        "tool-crm.find_account",
        "text",
        "data-title",
    ]
    assert (parts[3]["state"], parts[3]["output"]) == ("output-available", {"id": 7, "none": None})
    assert (parts[4]["state"], parts[4]["errorText"]) == ("output-error", "Down.")
    assert all(part["state"] == "done" for part in parts if part["type"] == "text")

    assert broken["errors"] == ["Error: The provider failed."]
    assert stopped["errors"] == []
    void = next(part for part in again["message"]["parts"] if part["type"] == "data-step-reset")
    assert void["data"] == {"step": 0, "textIds": ["text-1"]}
    assert again["message"]["parts"][-1]["text"] == "Hello"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_warning_is_read_and_is_no_part_of_the_message(version: str, command: list[str]) -> None:
    stream = UiMessageStream("conv-1", TURN, "small")
    log = log_of(started(), delta("Hello"), answer("Hello"))
    out = stream.encode([*log[:2], Notice(message="'large' is away."), log[2]]) + stream.close()
    (reading,) = read(command, version, out)
    assert reading["invalid"] == []
    assert "data-warning" in reading["types"]
    assert all(part["type"] != "data-warning" for part in reading["message"]["parts"])
    assert "".join(part["text"] for part in reading["message"]["parts"] if part["type"] == "text") == "Hello"


@pytest.mark.parametrize("version", VERSIONS)
def test_any_log_is_read_without_a_complaint(version: str, command: list[str]) -> None:
    logs: list[list[list[EventRecord | Title]]] = []

    @settings(max_examples=100, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(batches())
    def gather(parts: list[list[EventRecord | Title]]) -> None:
        logs.append(parts)

    gather()  # one process reads them all
    approvals: Approvals = "data" if version == "ai5" else "native"
    for parts, reading in zip(
        logs, read(command, version, *(encode_all(parts, approvals=approvals) for parts in logs)), strict=True
    ):
        assert reading["invalid"] == [], parts
        told = [record for batch in parts for record in batch if isinstance(record, EventRecord) and record.terminal]
        failed_turn = not told or b'"turn.failed"' in told[0].body[:30]
        assert len(reading["errors"]) == int(failed_turn), (parts, reading["errors"])


async def run(command: list[str], request: dict[str, Any]) -> Any:
    """Runs a program of the peers while this loop serves it."""
    node = await asyncio.create_subprocess_exec(
        *command,
        cwd=PEERS,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(node.communicate(json.dumps(request).encode()), RUN_S)
    assert node.returncode == 0, err.decode()
    return json.loads(out)


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_sdks_own_transport_talks_to_the_server(version: str, server: Server, command: list[str]) -> None:
    server.stages.turns.script = (
        tool_started("c1"),
        tool_finished("c1", result={"id": 7}),
        text("Contoso has "),
        text("two."),
        answered("Contoso has two."),
        Title(title="Contoso"),
    )
    request = {
        "version": version,
        "api": f"{server.http}/api/chat",
        "chatId": "conv-1",
        "text": "Which?",
        "headers": {"x-dev-user": "ana"},
    }
    seen = await run(command, request)
    assert seen["errors"] == []
    assert "".join(part["text"] for part in seen["message"]["parts"] if part["type"] == "text") == "Contoso has two."
    assert seen["message"]["id"].startswith("msg_")
    assert seen["idleAfter"] is True


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_sdks_own_chat_asks_again_edits_and_goes_on(version: str, server: Server, command: list[str]) -> None:
    turns = server.stages.turns

    async def answers_in_turn(key: TurnKey) -> None:
        number = len(turns.runs)
        turns.script = (text("Answer "), text(str(number)), answered(f"Answer {number}"))

    turns.before_playing = answers_in_turn
    request = {
        "version": version,
        "api": f"{server.http}/api/chat",
        "chatId": "conv-1",
        "headers": {"x-dev-user": "ana"},
    }
    shown = await run([command[0], "chat.mjs"], request)
    assert [step["error"] for step in shown] == [None] * 6
    assert [step["texts"] for step in shown] == [
        ["Hi", "Answer 1"],
        ["Hi", "Answer 2"],
        ["Hello", "Answer 3"],
        ["Hello", "Answer 4"],
        ["Hello", "Answer 4", "More", "Answer 5"],
        ["Hello", "Answer 4", "More", "Answer 5"],
    ]
    key = ConversationKey.of(Principal(tenant_id="default", user_id="ana"), "conv-1")
    stored = (await server.stages.store.list_messages(key)).items
    assert [message.text for message in stored] == ["Hello", "Answer 4", "More", "Answer 5"]
    assert len((await server.stages.store.list_messages(key, replaced=True)).items) == 8


@pytest.mark.parametrize("approved", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
async def test_the_sdks_own_chat_answers_a_question_and_reads_on_in_the_same_message(
    version: str, approved: bool, command: list[str]
) -> None:
    scripted = tools()
    stages = make_stages()
    async with (
        real_turns(obeying(), scripted, Settings(store="memory"), stages) as services,
        serving(services, stages) as server,
    ):
        seen = await run(
            [command[0], "approve.mjs"],
            {
                "version": version,
                "api": f"{server.http}/api/chat",
                "approvals": f"{server.http}/api/approvals",
                "chatId": "conv-1",
                "headers": {"x-dev-user": "ana"},
                "approved": approved,
            },
        )
    assert seen["error"] is None
    assert seen["messages"] == 2
    assert seen["waiting"]["id"] == seen["message"]["id"]
    assert [call.name for call in scripted.calls] == (["crm.find", "crm.update"] if approved else ["crm.find"])
    parts = [part for part in seen["message"]["parts"] if part["type"] not in {"step-start", "data-paused"}]
    assert [part["type"] for part in parts if not part["type"].startswith("data-")] == [
        *("text", "tool-crm.find", "text", "tool-crm.update", "text")
    ]
    update = next(part for part in parts if part["type"] == "tool-crm.update")
    refused = "output-error" if version == "ai5" else "output-denied"
    assert update["state"] == ("output-available" if approved else refused)
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    assert text == "Looking. As told. Done."
