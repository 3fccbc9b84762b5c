"""Prices of a models file are found without anybody's keys, and a file that cannot be used is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.errors import ConfigError
from serve_app.models.price_list import read_prices
from serve_app.settings import PROJECT_ROOT

MODELS = """\
providers:
  - name: azure
    kind: azure
    enabled_by: [AZURE_OPENAI_ENDPOINT]
    models:
      - id: ${CHAT:-big}
        aliases: [big-latest]
        price: {input: 2, output: 8, cached_input: 0.5}
    chat_default: ${CHAT:-big}
  - name: other
    kind: openai
    models: [small, {id: big, price: {input: 99, output: 99}}]
    chat_default: small
"""


def test_prices_are_found_by_model_and_alias_and_the_first_mention_counts(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(MODELS)
    default, prices = read_prices(path, {"AZURE_OPENAI_ENDPOINT": "https://x"}.get)
    assert default == "big" and set(prices) == {"big", "big-latest", "small"}
    big = prices["big"]
    assert big is not None and (big.input, big.output, big.cached_input) == (2, 8, 0.5)
    assert prices["big-latest"] == big and prices["small"] is None


def test_the_default_is_that_of_a_provider_that_is_configured_here(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(MODELS)
    assert read_prices(path, lambda _: None)[0] == "small"
    assert read_prices(path, {"CHAT": "mine", "AZURE_OPENAI_ENDPOINT": "https://x"}.get)[0] == "mine"


def test_the_file_that_comes_along_is_read_whoever_is_configured() -> None:
    default, prices = read_prices(PROJECT_ROOT / "configs" / "models.yaml", lambda _: None)
    assert default == "" and not any(prices.values())


@pytest.mark.parametrize("text", ["- a", "a: [", "providers: [{models: [{id: a, price: {input: x, output: 1}}]}]"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"models\.yaml"):
        read_prices(path, lambda _: None)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prices(tmp_path / "absent.yaml", lambda _: None)
