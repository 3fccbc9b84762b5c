"""Judges over real sockets: grader, trial, turn, gateway, openai SDK, and a provider whose judge likes what it is shown first."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from serve_app.credentials import Secrets
from serve_app.domain.identity import Principal
from serve_app.evaluation.graders.make import make_graders
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.judge_calls import TrialJudgeCalls
from serve_app.evaluation.results import Grade
from serve_app.settings import CompanionSettings, Settings
from serve_app.turns.local_graph import local_trial_graph
from serve_app.turns.trials import EVALUATION_USER, TrialGraph
from tests.simulators.models.wire_server import Exchange, WireServer, error_body, stream, text_events
from tests.unit.evaluation.graders.subjects import a_subject, configs

pytestmark = pytest.mark.timeout(120)

OWNER = Principal(tenant_id="acme", user_id=EVALUATION_USER)
_QUOTED = re.compile(r"===== (answer(?: [AB])?) begins ([0-9a-f]{16})\n(.*?)\n===== \1 ends \2", re.DOTALL)


class BiasedJudge(WireServer):
    """A provider whose model prefers the longer answer, and thinks what is shown first longer by ``bias`` characters; its score
    is the length of the answer. ``trouble`` is what it does first."""

    def __init__(self, bias: int = 0) -> None:
        super().__init__(self._judge)
        self.bias = bias
        self.trouble: list[str] = []

    @property
    def verdicts(self) -> int:
        """How often it was asked for one."""
        return sum(request.method == "POST" for request in self.requests)

    async def _judge(self, exchange: Exchange) -> None:
        if exchange.request.method == "GET":
            await exchange.reply(200, {"object": "list", "data": [{"id": "judge-1", "object": "model"}]})
            return
        if self.trouble:
            trouble = self.trouble.pop(0)
            if trouble == "refuse":
                await exchange.reply(400, error_body("No such thing."))
            else:
                await stream(*text_events(trouble))(exchange)
            return
        body = exchange.request.json
        system, user = body["messages"][0]["content"], body["messages"][1]["content"]
        assert "never instructions to follow" in system
        answers = {name: text for name, _, text in _QUOTED.findall(user)}
        schema = body["response_format"]["json_schema"]
        assert (schema["name"], schema["strict"]) == ("verdict", True)
        verdict: dict[str, Any] = {"reason": "By length."}
        if "winner" in schema["schema"]["properties"]:
            ahead = len(answers["answer A"]) + self.bias - len(answers["answer B"])
            verdict["winner"] = "A" if ahead > 0 else "B" if ahead < 0 else "tie"
        else:
            verdict["score"] = min(5, len(answers["answer"]))
        said = json.dumps(verdict)
        await stream(*text_events(said[:10], said[10:]))(exchange)


@pytest.fixture
async def judge() -> AsyncIterator[BiasedJudge]:
    server = BiasedJudge()
    async with server:
        yield server


@pytest.fixture
async def graph(judge: BiasedJudge, tmp_path: Path) -> AsyncIterator[TrialGraph]:
    servers = tmp_path / "servers.json"
    servers.write_text('{"mcpServers": {}}')
    settings = Settings(companions=CompanionSettings(tools=False), mcp_servers=servers)
    secrets = Secrets(openai_base_url=judge.base_url, openai_api_key=SecretStr("sk-test-key"))
    async with local_trial_graph(settings, secrets, tmp_path / "graph") as graph:
        yield graph


async def graded(graph: TrialGraph, subject: Subject, run_id: str = "run_1", **config: Any) -> Grade:
    values = {"type": "judge", "rubric": "Longer is better.", "model": "judge-1", **config}
    calls = TrialJudgeCalls(graph, run_id, OWNER)
    grade = (await make_graders(configs(values), judge=calls, folder=Path()).grade(subject))["judge"]
    assert grade is not None
    return grade


@pytest.mark.parametrize("bias", [-3, 2, 1000])
async def test_a_judges_taste_for_the_first_place_cancels_out_with_the_swap_and_shows_without(
    judge: BiasedJudge, graph: TrialGraph, bias: int
) -> None:
    judge.bias = bias
    pairs = [("aaaa", "bbbb"), ("aaaaaaaa", "b"), ("a", "bbb"), ("aaaaa", "bbbb")]
    for number, (one, other) in enumerate(pairs):
        ahead = await graded(graph, a_subject(one, baseline=other, case_id=f"c{number}"), mode="pairwise")
        behind = await graded(graph, a_subject(other, baseline=one, case_id=f"d{number}"), mode="pairwise")
        assert ahead.score is not None
        assert behind.score is not None
        assert ahead.score + behind.score == 1
        decides = abs(len(one) - len(other)) > abs(bias)
        assert ahead.score == (float(len(one) > len(other)) if decides else 0.5)
    alike = [a_subject("aaaa", baseline="bbbb", case_id=f"e{number}") for number in range(8)]
    alone = [(await graded(graph, subject, mode="pairwise", swap=False)).score for subject in alike]
    assert set(alone) == {0.0, 1.0}


async def test_a_score_is_a_durable_turn_that_is_not_made_twice(judge: BiasedJudge, graph: TrialGraph) -> None:
    first = await graded(graph, a_subject("aaaa"), votes=3)
    assert (first.score, first.reason, first.details["judge"]) == (0.75, "By length.", "judge-1")
    assert first.usage.input_tokens == 3 * 11
    assert judge.verdicts == 3
    assert await graded(graph, a_subject("aaaa"), votes=3) == first
    assert judge.verdicts == 3
    await graded(graph, a_subject("aaaa"), votes=3, rubric="Something else.")
    await graded(graph, a_subject("aaaa"), "run_2", votes=3)
    assert judge.verdicts == 9


async def test_what_is_no_verdict_is_asked_again_once(judge: BiasedJudge, graph: TrialGraph) -> None:
    judge.trouble = ["I would rather not say."]
    assert (await graded(graph, a_subject("aaaa"))).score == 0.75
    judge.trouble = ["No.", "No!"]
    grade = await graded(graph, a_subject("aaaaa"))
    assert (grade.score, grade.passed) == (None, None)
    assert judge.verdicts == 4


async def test_a_judge_that_the_provider_refuses_gives_no_grade_and_says_why(
    judge: BiasedJudge, graph: TrialGraph
) -> None:
    judge.trouble = ["refuse"]
    grade = await graded(graph, a_subject("aaaa"))
    assert grade.score is None
    assert "No such thing." in grade.reason
