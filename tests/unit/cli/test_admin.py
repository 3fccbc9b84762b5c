"""``parley admin`` against a running server: the first steps of an installation, and what is said when they fail."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
import uvicorn
from typer.testing import CliRunner, Result

from serve_app.cli.admin_api import TOKEN_VARIABLE, names, shown
from serve_app.cli.admin_usage import COLUMNS, By, shown_sums
from serve_app.cli.main import app
from serve_app.domain.identity import Identity, Principal
from serve_app.domain.usage import Usage, UsageRow
from serve_app.errors import NotPermitted
from serve_app.keys.ring import KeyRing
from serve_app.settings import LogSettings
from serve_app.telemetry import configure_logging
from tests.unit.cli.conftest import Run
from tests.unit.ingress.admin_bench import ADMIN_TOKEN, NEW_KEY, OLD_KEY, AdminBench

START_S = 10.0


class Served:
    """The bench behind a real socket, in a thread of its own; ``argv`` are the options that lead there."""

    def __init__(self) -> None:
        self.bench = AdminBench(keys=KeyRing.parse(f"{NEW_KEY},{OLD_KEY}"))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(self.bench.app, log_level="critical", lifespan="off"))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening.set()
        await self._server.serve(sockets=[self._socket])

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._listening.wait(START_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(START_S)
        assert not self._thread.is_alive()

    def comes_in(self, **identity: Any) -> Principal:
        assert self._loop is not None
        given = Identity(issuer="https://idp", expires_at=2e9, **identity)
        return asyncio.run_coroutine_threadsafe(self.bench.access.resolve(given), self._loop).result(START_S)

    def consumed(self, tenant_id: str, user_id: str, model_id: str, usage: Usage) -> None:
        row = UsageRow(
            tenant_id=tenant_id,
            user_id=user_id,
            conversation_id="c1",
            turn_id="c1.01JC0000000000000000000001",
            model_id=model_id,
            usage=usage,
            at=datetime.now(UTC),
            purpose="title",
        )
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self.bench.stages.store.add_usage([row]), self._loop).result(START_S)


@pytest.fixture
def served() -> Iterator[Served]:
    before = structlog.get_config()
    configure_logging(LogSettings(level="error"))  # it shares the commands' process, and their standard output
    with Served() as running:
        yield running
    structlog.configure(**before)


@pytest.fixture
def admin(served: Served, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv(TOKEN_VARIABLE, ADMIN_TOKEN)
    return lambda *arguments: run("admin", "--url", served.url, *arguments)


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_first_steps_let_the_first_user_in(served: Served, admin: Run) -> None:
    ok(admin("tenant", "create", "contoso", "--name", "Contoso Ltd"))
    ok(admin("user", "create", "ana", "--tenant", "contoso", "--roles", "sales,admin", "--subject", "s1"))
    ok(admin("provision", "add", "domain", "contoso.com", "--tenant", "contoso", "--roles", "hr"))
    assert served.comes_in(tenant="contoso", subject="s1").roles == ("sales", "admin")
    assert served.comes_in(tenant="contoso", subject="s2", email="ben@contoso.com").roles == ("hr",)
    listed = ok(admin("user", "list", "--tenant", "contoso"))
    assert "ana" in listed
    assert "sales, admin" in listed
    log = ok(admin("audit", "--tenant", "contoso"))
    for action in ("tenant.create", "user.create", "provisioning.create", "user.provision"):
        assert action in log


def test_what_is_not_said_stays(admin: Run) -> None:
    ok(admin("tenant", "create", "contoso"))
    ok(admin("tenant", "change", "contoso", "--default-tools", "crm, hr", "--model", "large", "--temperature", "0.5"))
    ok(admin("tenant", "change", "contoso", "--name", "Contoso", "--max-output-tokens", "100"))
    ok(admin("tenant", "limits", "contoso", "--together", "--tokens-per-minute", "9000"))
    ok(admin("tenant", "limits", "contoso", "--together", "--concurrent-turns", "4"))
    told = json.loads(ok(admin("--json", "tenant", "show", "contoso")))
    assert told["default_tools"] == ["crm", "hr"]
    assert told["choices"] == {"model_id": "large", "temperature": 0.5, "max_output_tokens": 100}
    assert told["tenant_limits"] == {"requests_per_minute": None, "concurrent_turns": 4, "tokens_per_minute": 9000}
    ok(admin("tenant", "change", "contoso", "--all-tools", "--model", ""))
    told = json.loads(ok(admin("--json", "tenant", "show", "contoso")))
    assert (told["default_tools"], told["choices"]["model_id"], told["choices"]["temperature"]) == (None, None, 0.5)


def test_a_user_is_changed_linked_and_removed(served: Served, admin: Run) -> None:
    ok(admin("tenant", "create", "contoso"))
    ok(admin("user", "create", "ana", "--tenant", "contoso", "--roles", "sales"))
    ok(admin("user", "link", "ana", "a/b|c", "--tenant", "contoso"))
    ok(admin("user", "change", "ana", "--tenant", "contoso", "--denied-tools", "crm.change", "--concurrent-turns", "1"))
    principal = served.comes_in(tenant="contoso", subject="a/b|c")
    assert (principal.roles, principal.terms.denied_tools) == (("sales",), ("crm.change",))
    assert principal.terms.user_limits.concurrent_turns == 1
    told = json.loads(ok(admin("--json", "user", "show", "ana", "--tenant", "contoso")))
    assert told["subjects"] == ["a/b|c"]
    ok(admin("user", "unlink", "ana", "a/b|c", "--tenant", "contoso"))
    with pytest.raises(NotPermitted):
        served.comes_in(tenant="contoso", subject="a/b|c")
    ok(admin("user", "remove", "ana", "--tenant", "contoso"))
    assert "no user yet" in ok(admin("user", "list", "--tenant", "contoso"))


def test_a_providers_key_comes_by_standard_input_and_is_never_printed(
    served: Served, admin: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(admin("tenant", "create", "contoso"))
    arguments = ["admin", "--url", served.url, "key", "set", "openai", "--tenant", "contoso"]
    result = CliRunner().invoke(app, arguments, input="sk-secret-0123456789-wxyz\n")
    assert "wxyz" in ok(result)
    for said in (
        result.output,
        ok(admin("key", "list", "--tenant", "contoso")),
        ok(admin("audit", "--tenant", "contoso")),
    ):
        assert "sk-secret" not in said
    assert "had_the_newest" in ok(admin("key", "rotate"))
    empty = CliRunner().invoke(app, arguments, input="\n")
    assert (empty.exit_code, "no key" in empty.stderr) == (2, True)
    ok(admin("key", "remove", "openai", "--tenant", "contoso"))


def test_a_made_key_is_one_that_can_be_used(run: Run) -> None:
    first, second = ok(run("admin", "key", "make")).strip(), ok(run("admin", "key", "make")).strip()
    assert first != second
    KeyRing.parse(f"{first},{second}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tenant", "show", "nobody"), "There is no such tenant."),
        (("user", "list"), "tenant_id: say which tenant."),
        (("tenant", "create", "a b"), "tenant_id"),
    ],
)
def test_a_refusal_is_the_servers_sentence(admin: Run, arguments: tuple[str, ...], said: str) -> None:
    result = admin(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr


def test_a_wrong_token_gets_nowhere(served: Served, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("admin", "--url", served.url, "--token", "wrong" * 10, "tenant", "list")
    assert (result.exit_code, result.stderr) == (1, "Only administrators may do this.\n")
    assert run("admin", "--url", served.url, "--token", "two words", "tenant", "list").exit_code == 2


def test_in_development_no_token_is_needed(served: Served, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert "There is no tenant yet." in ok(run("admin", "--url", served.url, "tenant", "list"))


def test_a_token_that_others_can_read_on_its_way_is_pointed_out(run: Run) -> None:
    result = run("admin", "--url", "http://parley.invalid", "--token", "t" * 40, "tenant", "list")
    assert result.exit_code == 1
    assert "plain text" in result.stderr


def test_long_lists_are_read_page_by_page(admin: Run) -> None:
    for number in range(5):
        ok(admin("tenant", "create", f"t{number}"))
    told = json.loads(ok(admin("--json", "tenant", "list", "--limit", "3")))
    assert [tenant["tenant_id"] for tenant in told] == ["t0", "t1", "t2"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        (True, "yes"),
        (["a", "b"], "a, b"),
        ({"a": None, "b": 2}, "b 2"),
        ("\x1b[2J", "[2J"),
    ],
)
def test_values_are_shown_on_one_line_and_cannot_move_the_cursor(value: Any, text: str) -> None:
    assert shown(value) == text


def test_usage_is_added_up_the_largest_first(admin: Run) -> None:
    ok(admin("tenant", "create", "contoso"))
    assert "Nothing yet." in ok(admin("usage", "--tenant", "contoso", "--day", "2026-11-02", "--by", "model"))
    found = [
        {
            "group": who,
            "turns": 1,
            "input_tokens": tokens,
            "cached_input_tokens": 0,
            "output_tokens": 1,
            "cost_usd": cost,
        }
        for who, tokens, cost in (("a", 1, 0.0), ("b", 9, 0.0), (None, 2, 0.5))
    ]
    assert [row["who"] for row in shown_sums(found, By.user)] == ["-", "b", "a"]
    assert [row["who"] for row in shown_sums(found, By.day)] == ["a", "b", "-"]


def test_usage_shows_tokens_and_cost(admin: Run, served: Served) -> None:
    ok(admin("tenant", "create", "contoso"))
    spent = Usage(input_tokens=12, output_tokens=3, cached_input_tokens=4, cost_microusd=1_500)
    served.consumed("contoso", "ana", "m1", spent)
    shown_ = ok(admin("usage", "--tenant", "contoso", "--by", "model"))
    assert shown_.split() == [*COLUMNS, "m1", "0", "12", "4", "3", "0.0015"]
    rows = json.loads(ok(admin("--json", "usage", "--tenant", "contoso", "--from", "2026-01-01", "--to", "2026-01-31")))
    assert rows == []


def test_names_are_split_by_commas() -> None:
    assert names(" a, b ,,c") == ["a", "b", "c"]
    assert names("") == []
