"""Nobody puts load on another machine, or on a model that sends a bill, without having said so."""

from __future__ import annotations

import pytest

from serve_app.capacity.scenario import Scenario
from serve_app.cli.load_guard import require_consent
from serve_app.cli.running_graph import Dependency, RunningGraph
from serve_app.errors import ConfigError

OPEN = Scenario.model_validate(
    {
        "name": "open", "warm_up_s": 0, "users": [{"kind": "ws_chat"}],
        "load": {"model": "open", "shape": {"kind": "steps", "first": 10, "by": 10, "last": 20, "each_s": 60}},
    }
)  # fmt: skip
CLOSED = Scenario.model_validate(
    {
        "name": "closed", "warm_up_s": 0, "users": [{"kind": "ws_chat"}],
        "load": {"model": "closed", "shape": {"kind": "constant", "level": 40, "for_s": 90}},
    }
)  # fmt: skip


def graph(url: str, simulated: bool | None) -> RunningGraph:
    return RunningGraph(url, "ready", {"models": Dependency("up", simulated=simulated)})


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"])
def test_this_machine_with_a_simulated_model_is_free_to_test(url: str) -> None:
    require_consent(graph(url, True), OPEN, yes=False)


@pytest.mark.parametrize(
    ("url", "simulated", "reason"),
    [
        ("https://chat.example.com", True, "it is not this machine"),
        ("http://127.0.0.1.example.com", True, "it is not this machine"),
        ("http://127.0.0.1:8000", False, "a real model answers there"),
        ("http://127.0.0.1:8000", None, "a real model answers there"),
        ("https://chat.example.com", False, "it is not this machine and a real model answers there"),
    ],
)
def test_anything_else_needs_a_yes(url: str, simulated: bool | None, reason: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        require_consent(graph(url, simulated), OPEN, yes=False)
    assert reason in refusal.value.message
    require_consent(graph(url, simulated), OPEN, yes=True)


def test_a_graph_that_does_not_say_what_answers_is_taken_for_real() -> None:
    with pytest.raises(ConfigError, match="a real model answers there"):
        require_consent(RunningGraph("http://127.0.0.1:1", "ready", {}), OPEN, yes=False)


def test_the_refusal_says_how_much_it_would_be_and_what_it_might_cost() -> None:
    with pytest.raises(ConfigError) as refusal:
        require_consent(graph("https://chat.example.com", True), OPEN, yes=False)
    # 60 s of ten and 60 s of twenty turns a second; a turn is 1,000 × $3/M + 300 × $15/M = $0.0075
    assert "up to 1,800 turns in 2.0 minutes, 20 a second at the most" in refusal.value.message
    assert "$13.50 in all" in refusal.value.message


def test_users_who_wait_for_answers_have_no_number_of_turns_to_tell() -> None:
    with pytest.raises(ConfigError) as refusal:
        require_consent(graph("https://chat.example.com", True), CLOSED, yes=False)
    assert "up to 40 users at a time for up to 1.5 minutes" in refusal.value.message
    assert "$7.50 for a thousand" in refusal.value.message
