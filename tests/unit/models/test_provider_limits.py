"""How many calls at once the providers' quotas feed."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.models.config import ModelsConfig
from serve_app.models.provider_limits import HEADROOM, limits_of, useful_streams
from serve_app.rates.port import Rate


def config(*providers: dict[str, Any]) -> ModelsConfig:
    return ModelsConfig.model_validate(
        {
            "providers": [
                {"name": f"p{number}", "kind": "openai", "base_url": "http://127.0.0.1/v1"} | provider
                for number, provider in enumerate(providers)
            ]
        }
    )


TWO_MODELS = {"models": [{"id": "a", "quota": {"rpm": 60}}, {"id": "b", "quota": {"tpm": 6_000, "rpm": 600}}]}


def test_limits_are_those_of_the_file() -> None:
    made = config({"quota": {"tpm": 9}}, TWO_MODELS, {}, {"models": [{"id": "c"}], "quota": {}})
    assert limits_of(made) == {
        "p0": {"": Rate(tokens=9)},
        "p1": {"a": Rate(requests=60), "b": Rate(requests=600, tokens=6_000)},
    }


def streams(made: ModelsConfig, calls: dict[str, dict[str, tuple[float, float]]]) -> float | None:
    found = useful_streams(made, limits_of(made), calls)
    return None if found is None else found / HEADROOM


def test_as_many_calls_as_begin_in_a_second_times_the_seconds_they_take() -> None:
    assert streams(config({"quota": {"rpm": 120}}), {"p0": {"*": (10.0, 500.0)}}) == pytest.approx(20)
    assert streams(config({"quota": {"rpm": 120, "tpm": 30_000}}), {"p0": {"*": (10.0, 500.0)}}) == pytest.approx(10)


def test_models_and_providers_add_up_and_a_providers_own_limit_bounds_its_models() -> None:
    seen = {"a": (5.0, 100.0), "b": (20.0, 200.0)}  # five streams and ten
    assert streams(config(TWO_MODELS), {"p0": seen}) == pytest.approx(15)
    assert streams(config(TWO_MODELS, TWO_MODELS), {"p0": seen, "p1": seen}) == pytest.approx(30)
    assert streams(config(TWO_MODELS | {"quota": {"rpm": 30}}), {"p0": seen}) == pytest.approx(10)


def test_without_a_limit_somewhere_there_is_no_bound_and_none_before_anything_was_called() -> None:
    seen = {"p0": {"a": (5.0, 100.0)}}
    assert streams(config(TWO_MODELS, {}), seen) is None
    assert streams(config({"models": [{"id": "a", "quota": {"rpm": 1}}, "b"]}), seen) is None
    assert streams(config(TWO_MODELS), {}) is None
    assert streams(config({}), {}) is None
