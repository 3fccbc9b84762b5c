"""Scripts: loading, mistakes, and which response comes when."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.companions.errors import CompanionError
from serve_app.companions.provider.failures import ProviderError
from serve_app.companions.provider.profile import model_from_name
from serve_app.companions.provider.script import Match, Response, Rule, Script, ScriptPlayer, load_script

EXAMPLE = Path(__file__).parents[3] / "configs" / "provider_script.example.yaml"


def player(*rules: Rule) -> ScriptPlayer:
    return ScriptPlayer(Script(rules=rules))


def texts(playing: ScriptPlayer, count: int, tool_round: int = 0) -> list[str | None]:
    answers = [playing.answer("hello", "m", tool_round) for _ in range(count)]
    return [answer[1].text if answer is not None else None for answer in answers]


def test_the_example_file_is_valid() -> None:
    assert len(load_script(EXAMPLE).rules) == 9


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("profile:\n  ttft: 3\n", "line 2, profile.ttft: Extra inputs"),
        ("rules:\n  - responses:\n      - text: a\n        ttft_ms: -1\n", "line 4, rules[0].responses[0].ttft_ms"),
        (
            "rules:\n- responses:\n  - failure: {kind: http,\n      status: 200}\n",
            "line 4, rules[0].responses[0].failure.status",
        ),
        ("rules:\n- match: {regex: '('}\n  responses: [{text: a}]\n", "line 2, rules[0].match.regex"),
        ("rules:\n- responses: []\n", "line 2, rules[0].responses"),
        ("rules:\n- responses: [{}]\n", "give a text, tool_calls or a failure"),
        ("rules: [\n", "line 2"),
        ('{"rules": 3}', "line 1, rules"),
    ],
)
def test_a_mistake_is_told_with_line_and_field(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(text)
    with pytest.raises(CompanionError) as error:
        load_script(path)
    assert says in str(error.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CompanionError, match="cannot be read"):
        load_script(tmp_path / "none.yaml")


def test_responses_come_in_order_and_the_last_stays() -> None:
    assert texts(player(Rule(responses=(Response(text="a"), Response(text="b")))), 4) == ["a", "b", "b", "b"]


def test_responses_may_repeat_or_pass_to_later_rules() -> None:
    two = (Response(text="a"), Response(text="b"))
    assert texts(player(Rule(responses=two, then="repeat")), 4) == ["a", "b", "a", "b"]
    assert texts(player(Rule(responses=two, then="pass")), 3) == ["a", "b", None]


def test_an_order_by_rounds_does_not_depend_on_other_conversations() -> None:
    playing = player(Rule(order="rounds", responses=(Response(text="a"), Response(text="b"))))
    assert texts(playing, 2) == ["a", "a"]
    assert texts(playing, 2, tool_round=1) == ["b", "b"]


def test_rewinding_starts_from_the_beginning() -> None:
    playing = player(Rule(responses=(Response(text="a"), Response(text="b"))))
    texts(playing, 2)
    playing.rewind()
    assert texts(playing, 1) == ["a"]


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        (Match(contains="HELLO"), True),
        (Match(contains="bye"), False),
        (Match(regex=r"^hel+o$"), True),
        (Match(model="gpt-*"), True),
        (Match(model="o1"), False),
        (Match(round=1), False),
        (Match(contains="hello", round=0), True),
    ],
)
def test_every_condition_must_hold(match: Match, fits: bool) -> None:
    assert match.fits("hello", "gpt-x", 0) is fits


def test_a_model_name_carries_load_behaviour() -> None:
    model = model_from_name("sim-t300-i20-n200-j10-e1-k2-m1")
    assert model is not None
    assert (model.profile.ttft_ms, model.profile.token_ms, model.profile.tokens) == (300, 20, 200)
    assert (model.profile.jitter, model.profile.error_rate, model.tool_rounds, model.markers) == (0.1, 0.01, 2, True)
    assert model_from_name("simulated-chat") is None


@pytest.mark.parametrize("name", ["sim-", "sim-x3", "sim-t", "sim-t3-", "sim-t99999999999"])
def test_a_malformed_load_name_is_an_unknown_model(name: str) -> None:
    with pytest.raises(ProviderError) as error:
        model_from_name(name)
    assert error.value.status == 404
