"""Names, aliases and fallbacks."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.errors import InvalidInput
from serve_app.models.config import ModelConfig, ModelsConfig, OpenAIProviderConfig
from serve_app.models.routes import Routes


def provider(name: str, models: Any) -> OpenAIProviderConfig:
    return OpenAIProviderConfig(name=name, kind="openai", base_url="http://127.0.0.1:9/v1", models=models)


def routes(*models: ModelConfig, any_name: bool = False, **config: Any) -> Routes:
    providers = [provider("p", models)] if models else []
    if any_name:
        providers.append(provider("any", "*"))
    return Routes(ModelsConfig(providers=tuple(providers), **config))


def test_an_alias_means_the_model_and_an_id_comes_before_an_alias() -> None:
    found = routes(ModelConfig(id="big", aliases=("large", "small")), ModelConfig(id="small"))
    assert found.find("large").model.id == "big"
    assert found.find("small").model.id == "small"
    assert found.canonical("large") == "big"
    assert found.canonical("else") == "else"
    assert found.ids == ("big", "small")
    assert found.infos()[0].aliases == ("large", "small")


def test_a_model_with_an_alias_is_still_the_only_one() -> None:
    assert routes(ModelConfig(id="big", aliases=("large",))).only() == "big"


def test_a_default_that_is_an_alias_is_no_model_of_its_own() -> None:
    found = routes(ModelConfig(id="big", aliases=("large",)), any_name=True, chat_default="large")
    assert found.ids == ("big",)
    assert found.find("large").provider == "p"


def test_fallbacks_are_found_by_alias_once_each_and_never_the_model_itself() -> None:
    found = routes(
        ModelConfig(id="a", fallback=("bee", "b", "a", "c")), ModelConfig(id="b", aliases=("bee",)), ModelConfig(id="c")
    )
    assert [route.model.id for route in found.chain(found.find("a"))] == ["a", "b", "c"]
    assert [route.model.id for route in found.chain(found.find("bee"))] == ["b"]


def test_a_fallback_that_nobody_serves_is_left_out_unless_a_provider_takes_any_name() -> None:
    here = ModelConfig(id="a", fallback=("elsewhere",))
    alone = routes(here)
    assert [route.model.id for route in alone.chain(alone.find("a"))] == ["a"]
    with_any = routes(here, any_name=True)
    assert [(route.provider, route.model.id) for route in with_any.chain(with_any.find("a"))] == [
        ("p", "a"),
        ("any", "elsewhere"),
    ]


def test_a_made_up_name_is_no_model_of_the_file() -> None:
    found = routes(ModelConfig(id="a"), any_name=True)
    made_up = found.find("something")
    assert (made_up.provider, made_up.listed) == ("any", False)
    assert found.chain(made_up) == (made_up,)
    assert found.find("a").listed
    with pytest.raises(InvalidInput):
        routes(ModelConfig(id="a")).find("something")
