"""``parley chat`` as a person at a terminal meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.cli.chat_server import AWAIT_ANSWER, AWAIT_CANCEL, ChatServer, Step, answer, running, text
from tests.e2e.cli.terminal import Terminal

TOOL: list[Step] = [
    {"type": "tool.started", "tool_call_id": "1", "name": "crm.find_account", "arguments": {"name": "Contoso"}},
    {"type": "tool.finished", "tool_call_id": "1", "name": "crm.find_account", "ok": True, "result": {}, "duration_ms": 12},
    {"type": "tool.started", "tool_call_id": "2", "name": "crm.list", "arguments": {}},
    {"type": "tool.finished", "tool_call_id": "2", "name": "crm.list", "ok": False, "result": "It is down.", "duration_ms": 5},
]  # fmt: skip


def test_a_person_asks_sees_tools_and_markdown_and_leaves_with_ctrl_d(tmp_path: Path) -> None:
    server = ChatServer([*TOOL, text("# Accounts\n\nThere is **Con"), text("toso**.\n"), answer("…")])
    with running(server), Terminal("chat", "--url", server.url, folder=tmp_path) as terminal:
        assert "you are ana (roles: hr; 1 tools)" in terminal.wait_for("Ctrl-D leaves.")
        terminal.wait_for("A simulated one answers.")
        terminal.wait_for("you> ")
        terminal.type("Which accounts?\r")
        shown = terminal.wait_for("you> ")
        assert "✓ crm.find_account(name: Contoso)  12 ms" in shown
        assert "✗ crm.list  5 ms  It is down." in shown
        assert "Accounts" in shown
        assert "# Accounts" not in shown
        assert "There is Contoso." in shown
        terminal.press_ctrl_d()
        assert terminal.exit_code() == 0
        assert "parley chat --session conv-1" in terminal.rest
    assert [query["content"] for query in server.queries] == ["Which accounts?"]


def test_commands_at_the_prompt(tmp_path: Path) -> None:
    with running(ChatServer([])) as server, Terminal("chat", "--url", server.url, folder=tmp_path) as terminal:
        for line, shown in [
            ("/help", "/title   the conversation's title"),
            ("/tools", "crm.find_account  Finds accounts."),
            ("/title", "Of accounts"),
            ("/nonsense", "There is no command /nonsense; /help lists them."),
            ("/new", "Ctrl-D leaves."),
        ]:
            terminal.wait_for("you> ")
            terminal.type(f"{line}\r")
            terminal.wait_for(shown)
        terminal.wait_for("you> ")
        terminal.type("/quit\r")
        assert terminal.exit_code() == 0
    assert [frame for frame in server.frames if frame["type"] != "session.update"] == []
    assert len(server.frames) == 2


def test_ctrl_c_stops_an_answer_and_the_conversation_goes_on(tmp_path: Path) -> None:
    server = ChatServer([text("Once upon\n\na time\n\n"), AWAIT_CANCEL, {"type": "turn.cancelled", "response": "…"}])
    with running(server), Terminal("chat", "--url", server.url, folder=tmp_path) as terminal:
        terminal.wait_for("you> ")
        terminal.type("A story\r")
        terminal.wait_for("Once upon")
        terminal.press_ctrl_c()
        terminal.wait_for("Stopped.")
        terminal.wait_for("you> ")
        terminal.press_ctrl_c_until("once more, leaves.")
        terminal.wait_for("you> ")
        terminal.press_ctrl_c_until("Go on later with: parley chat --session conv-1")
        assert terminal.exit_code() == 130
    assert {"type": "cancel", "turn_id": "t0"} in server.frames


def test_a_failed_turn_is_said_and_the_conversation_goes_on(tmp_path: Path) -> None:
    server = ChatServer([{"type": "turn.failed", "code": "x", "message": "The model is away.", "retryable": False}])
    with running(server), Terminal("chat", "--url", server.url, folder=tmp_path) as terminal:
        for _ in range(2):
            terminal.wait_for("you> ")
            terminal.type("Hello\r")
            terminal.wait_for("The model is away.")
        terminal.wait_for("you> ")
        terminal.press_ctrl_d()
        assert terminal.exit_code() == 0


def test_an_answer_that_still_runs_is_shown_when_its_conversation_is_opened(tmp_path: Path) -> None:
    server = ChatServer([text("Still here."), answer("Still here.")], active=True)
    with running(server), Terminal("chat", "--url", server.url, "--session", "c", folder=tmp_path) as terminal:
        terminal.wait_for("An answer is still running here:")
        terminal.wait_for("Still here.")
        terminal.wait_for("you> ")
    assert server.queries == []


def test_a_step_that_begins_again_is_marked_as_such(tmp_path: Path) -> None:
    server = ChatServer(
        [text("Bad begin\n\nx"), {"type": "step.reset", "step": 0}, text("Good end."), answer("Good end.")]
    )
    with running(server), Terminal("chat", "--url", server.url, "hi", folder=tmp_path) as terminal:
        assert terminal.exit_code() == 0
        _, marked, after = terminal.rest.rpartition("begins again:")
        assert marked
        assert "Good end." in after
        assert "Bad begin" not in after


@pytest.mark.parametrize("hostile", ["\x1b]0;owned\x07", "\x1b[2J", "\x9b2J"])
def test_what_a_model_or_tool_says_cannot_command_the_terminal(tmp_path: Path, hostile: str) -> None:
    tool: Step = {"type": "tool.started", "tool_call_id": "1", "name": f"t{hostile}", "arguments": {"a": hostile}}
    server = ChatServer([tool, text(f"Hi {hostile}there"), answer("…")])
    with running(server), Terminal("chat", "--url", server.url, "hi", folder=tmp_path) as terminal:
        assert terminal.exit_code() == 0
        assert "there" in terminal.rest
        assert hostile.encode() not in terminal.everything


@pytest.mark.parametrize(("typed", "approved"), [("y", True), ("", False), ("no", False)])
def test_a_call_that_waits_is_asked_for_at_the_terminal(tmp_path: Path, typed: str, approved: bool) -> None:
    question: Step = {
        "type": "tool.approval",
        "approval_id": "apr_1",
        "tool_call_id": "1",
        "name": "crm.update",
        "arguments": {"id": "OPP-1"},
        "reason": "It has read text that is not yours.",
    }
    finished: Step = {"type": "tool.finished", "tool_call_id": "1", "name": "crm.update", "ok": True, "result": {}}
    server = ChatServer([question, AWAIT_ANSWER, finished | {"duration_ms": 3}, text("Done."), answer("Done.")])
    with running(server), Terminal("chat", "--url", server.url, folder=tmp_path) as terminal:
        terminal.wait_for("you> ")
        terminal.type("Update it\r")
        shown = terminal.wait_for("Run it? [y/N] ")
        assert "crm.update(id: OPP-1)" in shown
        assert "It has read text that is not yours." in shown
        terminal.type(f"{typed}\r")
        terminal.wait_for("Done.")
        terminal.wait_for("you> ")
        terminal.press_ctrl_d()
        assert terminal.exit_code() == 0
    answers = [frame for frame in server.frames if frame["type"] == "approval"]
    assert answers == [{"type": "approval", "approval_id": "apr_1", "approved": approved}]
