"""What one process says of itself: what is under way, what is lost already, and what it writes of each turn."""

from __future__ import annotations

import msgspec
import pytest

from load_tests import process as process_module
from load_tests.answer import Answer
from load_tests.arrivals import Due
from load_tests.options import Options
from load_tests.process import LoadProcess, PhaseOrder
from serve_app.capacity.samples import TURNS, TurnSample
from serve_app.capacity.scenario import Scenario


def make(model: str = "open", **options: object) -> LoadProcess:
    scenario = Scenario.model_validate(
        {
            "name": "tried", "users": [{"kind": "ws_chat"}], "slo": {"ttft_p95_s": 1, "turn_p95_s": 5},
            "load": {"model": model, "shape": {"kind": "constant", "level": 1, "for_s": 10}},
        }
    )  # fmt: skip
    given = {"host": "http://h", "scenario": "", "report": None, "seed": None, "users_max": None, "tenant": None}
    return LoadProcess(scenario, msgspec.convert(given | options, Options))


def turns_of(process: LoadProcess) -> list[TurnSample]:
    return [msgspec.json.decode(line, type=TurnSample) for line in process.lines.fetch().get(TURNS, [])]


def test_turns_under_way_are_lost_as_soon_as_they_cannot_be_good_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    process = make("closed")
    process.begin(PhaseOrder(2, 1, 10))
    silent, talking = Answer(100.0), Answer(100.0)
    process.turn_began(Due(2, 100.0), silent)
    process.turn_began(Due(2, 100.0), talking)
    talking.came("x", 100.5)
    for at, lost in ((100.9, 0), (101.1, 1), (104.9, 1), (105.1, 2)):
        monkeypatch.setattr(process_module, "now", lambda at=at: at)
        live = process.live(users=2)
        assert (dict(live.due), dict(live.lost).get(2, 0), live.running) == ({2: 2}, lost, 2)
    process.turn_ended("u", Due(2, 100.0), 100.0, talking)
    process.turn_forgotten(silent)
    assert process.live(users=2).running == 0


def test_a_turn_is_written_with_latencies_from_when_it_was_due() -> None:
    process = make("closed")
    answer = Answer(100.0)
    answer.came("ab", 101.5)
    answer.came("c", 101.75)
    answer.end(102.0, "abc")
    process.turn_began(Due(3, 100.0), answer)
    process.turn_ended("u", Due(3, 100.0), 100.25, answer)
    (turn,) = turns_of(process)
    assert (turn.phase, turn.ttft_ms, turn.turn_ms, turn.late_ms) == (3, 1500, 2000, 250)
    assert (turn.gaps_ms, turn.text_bytes, turn.code) == ((250.0,), 3, "")
    assert turn.sent_at - turn.due_at == pytest.approx(0.25, abs=1e-5)


def test_what_waits_too_long_is_given_up_and_written_down_as_not_sent() -> None:
    process = make()
    process.begin(PhaseOrder(0, 1000, 0.05))
    assert process.arrivals is not None
    while not process.arrivals.due[0]:
        process.arrivals.take(0, 0.01)
    process.give_up_waiting(older_than_s=60)
    assert not turns_of(process)
    waiting = len(process.arrivals.waiting())
    process.drain()
    process.give_up_waiting()
    turns = turns_of(process)
    assert len(turns) >= waiting
    assert {turn.code for turn in turns} <= {"not_sent"}


def test_users_are_somebody_each_and_show_the_tokens_they_were_given_in_turn() -> None:
    names = [make("closed", tenant="acme").visitor()[0] for _ in range(1)]
    assert names[0].headers == {"X-Dev-User": names[0].user, "X-Dev-Tenant": "acme"}
    process = make("closed", tokens=("a", "b"))
    headers = [process.visitor("http://elsewhere")[0].headers for _ in range(3)]
    assert headers == [{"Authorization": f"Bearer {token}"} for token in ("a", "b", "a")]
    assert process.visitor("http://elsewhere")[0].base_url == "http://elsewhere"
    one, other = make("closed"), make("closed")
    assert [one.visitor()[1].random() for _ in range(3)] == [other.visitor()[1].random() for _ in range(3)]
