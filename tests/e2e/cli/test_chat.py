"""``parley chat`` against a server of the protocol on a real socket."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from typer.testing import CliRunner, Result

from serve_app.cli.main import app
from tests.e2e.cli.chat_server import AWAIT_CANCEL, DRAIN, DROP, INTERRUPT, ChatServer, Step, answer, running, text

TOOL_STARTED: Step = {
    "type": "tool.started", "tool_call_id": "1", "name": "crm.find_account", "arguments": {"name": "Contoso"},
}  # fmt: skip


class Start(Protocol):
    def __call__(self, *script: Step, **options: Any) -> ChatServer: ...


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server whose turns follow the script."""
    with ExitStack() as stack:
        yield lambda *script, **options: stack.enter_context(running(ChatServer(script, **options)))


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def chat(*arguments: str, piped: str | None = None) -> Result:
    return CliRunner().invoke(app, ["chat", *arguments], input=piped)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_answer_goes_to_standard_output_alone(start: Start) -> None:
    server = start(text("Hello "), text("there."), answer("Hello there."))
    result = chat("--url", server.url, "--model", "m1", "hi")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello there.\n", "")
    assert (server.queries[0]["content"], server.queries[0]["model_id"]) == ("hi", "m1")


def test_piped_text_is_the_question(start: Start) -> None:
    server = start(answer("Read."))
    assert chat("--url", server.url, piped="line one\nline two\n").stdout == "Read.\n"
    assert server.queries[0]["content"] == "line one\nline two\n"


def test_who_asks_and_in_which_conversation_is_told_to_the_server(start: Start) -> None:
    server = start(answer("Ok."))
    chat("--url", server.url, "--as", "ana", "--tenant", "acme", "--roles", "hr,sales", "--session", "conv-9", "hi")
    assert server.identities == [{"X-Dev-User": "ana", "X-Dev-Tenant": "acme", "X-Dev-Roles": "hr,sales"}]
    assert server.frames[0] == {"type": "session.update", "session_id": "conv-9"}


def test_a_client_sent_away_takes_the_answer_up_where_it_broke_off(start: Start) -> None:
    server = start(text("Hello "), DRAIN, text("again."), DRAIN, answer("Hello again."))
    result = chat("--url", server.url, "hi")
    assert (result.exit_code, result.stdout) == (0, "Hello again.\n")
    resumed = [(f["turn_id"], f["after_seq"]) for f in server.frames if f["type"] == "resume"]
    assert resumed == [("t0", 2), ("t0", 3)]
    assert [f.get("session_id") for f in server.frames if f["type"] == "session.update"] == [None, "conv-1", "conv-1"]


def test_a_connection_cut_in_mid_answer_costs_neither_text_nor_a_second_turn(start: Start) -> None:
    # What was sent last may be lost with the connection, so where it is taken up may differ.
    server = start(text("Hello "), DROP, text("again."), DROP, answer("Hello again."))
    result = chat("--url", server.url, "hi")
    assert (result.exit_code, result.stdout, len(server.logs)) == (0, "Hello again.\n", 1)


def test_a_server_that_is_being_replaced_is_waited_for_in_mid_answer(start: Start) -> None:
    away = ["handshake", "session", "handshake"]
    server = start(text("Hello "), DROP, text("again."), answer("Hello again."), away=away)
    result = chat("--url", server.url, "hi")
    assert (result.exit_code, result.stdout, result.stderr, len(server.logs)) == (0, "Hello again.\n", "", 1)


def test_a_query_the_server_cannot_take_just_now_is_sent_again_under_the_same_id(start: Start) -> None:
    busy = {"code": "overloaded", "message": "This server is being replaced; send it again.", "retryable": True}
    server = start(answer("Yes."), refuse=busy, refusals=2)
    result = chat("--url", server.url, "hi")
    assert (result.exit_code, result.stdout) == (0, "Yes.\n")
    first, *again = server.queries
    assert again == [first, first]


def test_a_query_the_server_never_takes_is_one_sentence_and_exits_with_1(start: Start) -> None:
    server = start(refuse={"code": "overloaded", "message": "Too many turns.", "retryable": True})
    result = chat("--url", server.url, "hi")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Too many turns.\n")
    assert len(server.queries) == 5


def test_missing_events_are_asked_for_again(start: Start) -> None:
    ahead = {"raw": {"type": "text.delta", "turn_id": "t0", "seq": 99, "delta": "lost"}}
    server = start(text("A"), ahead, text("B"), answer("AB"))
    assert chat("--url", server.url, "hi").stdout == "AB\n"
    assert [f["after_seq"] for f in server.frames if f["type"] == "resume"] == [2]


def test_errors_about_other_things_do_not_end_an_answer(start: Start) -> None:
    other = {"raw": {"type": "error", "code": "invalid_input", "message": "Not yours.", "turn_id": None}}
    server = start(text("A"), other, {"raw": {"type": "unheard.of"}}, answer("A"))
    assert chat("--url", server.url, "hi").stdout == "A\n"


def test_a_failed_turn_prints_what_there_is_says_why_and_exits_with_1(start: Start) -> None:
    failed = {"type": "turn.failed", "code": "upstream_failed", "message": "The model broke down.", "retryable": True}
    server = start(text("Half an ans"), failed | {"response": "Half an ans"})
    result = chat("--url", server.url, "hi")
    assert (result.exit_code, result.stdout) == (1, "Half an ans\n")
    assert result.stderr == "The model broke down. Trying again may help.\n"


def test_a_refused_query_is_one_sentence_and_exits_with_1(start: Start) -> None:
    server = start(refuse={"code": "invalid_input", "message": "There is no model 'x'."})
    result = chat("--url", server.url, "--model", "x", "hi")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "There is no model 'x'.\n")


def test_ctrl_c_stops_the_turn_at_the_server_and_exits_with_130(start: Start) -> None:
    cancelled = {"type": "turn.cancelled", "response": "So far"}
    server = start(text("So far"), INTERRUPT, AWAIT_CANCEL, cancelled)
    server.on_interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)
    result = chat("--url", server.url, "hi")
    assert (result.exit_code, result.stdout) == (130, "So far\n")
    assert {"type": "cancel", "turn_id": "t0"} in server.frames
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_the_connection_is_down_stops_the_turn_when_it_is_back(start: Start) -> None:
    cancelled = {"type": "turn.cancelled", "response": "So far"}
    server = start(text("So far"), DROP, INTERRUPT, AWAIT_CANCEL, cancelled, away=["session", "handshake"])
    server.on_interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)
    result = chat("--url", server.url, "hi")
    assert (result.exit_code, result.stdout) == (130, "So far\n")
    assert {"type": "cancel", "turn_id": "t0"} in server.frames


def test_a_second_ctrl_c_leaves_without_waiting_for_the_server(start: Start) -> None:
    server = start(text("So far"), INTERRUPT, AWAIT_CANCEL, INTERRUPT)
    server.on_interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)
    result = chat("--url", server.url, "hi")
    assert result.exit_code == 130


def test_a_server_that_is_not_there_is_one_sentence_with_what_to_do() -> None:
    port = free_port()
    result = chat("--url", f"http://127.0.0.1:{port}", "hi")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"No Parley answers at http://127.0.0.1:{port} (nothing listens there); "
        "start one with `parley serve`, or name another with --url.\n"
    )


def test_without_a_url_the_server_of_the_settings_is_asked(start: Start, tmp_path: Path) -> None:
    server = start(answer("Found."))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    result = CliRunner(env=environment | {"PARLEY_PORT": str(server.port)}).invoke(app, ["chat", "hi"])
    assert result.stdout == "Found.\n"


def test_another_program_at_the_address_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def reply() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=reply, daemon=True)
        thread.start()
        result = chat("--url", f"http://127.0.0.1:{port}", "hi")
        thread.join(10)
    assert result.exit_code == 1
    assert "offers no /ws/chat (it said 404); name Parley's address with --url." in result.stderr


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://there", "http://", "http://a b", "http://x:99999"])
def test_an_address_that_is_none_exits_with_2(url: str) -> None:
    result = chat("--url", url, "hi")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("Option --url: ")


def test_nothing_to_ask_exits_with_2() -> None:
    result = chat("--url", "http://127.0.0.1:9", piped="  \n")
    assert result.exit_code == 2
    assert "There is nothing to ask" in result.stderr
