"""What the Grafana dashboard and the Prometheus rules ask for: their expressions, and the metrics and labels in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from serve_app.settings import PROJECT_ROOT

DASHBOARD = PROJECT_ROOT / "configs" / "grafana" / "parley.json"
RULES = PROJECT_ROOT / "configs" / "prometheus" / "rules.yaml"
SCRAPE = PROJECT_ROOT / "configs" / "prometheus" / "scrape.yaml"

_SUFFIX = re.compile(r"_(bucket|sum|count)$")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"(?P<name>(?:ray|parley)[a-z0-9_:]*)\s*(?:\{(?P<matchers>[^}]*)\})?\s*(?P<range>\[[^\]]+\])?")
_MATCHER = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)")
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


@dataclass(frozen=True)
class Selector:
    """One metric as an expression asks for it. ``ranged``: over a time, as counters are."""

    name: str
    labels: frozenset[str]
    ranged: bool

    @property
    def family(self) -> str:
        """The metric's name without what a histogram's parts add to it."""
        return _SUFFIX.sub("", self.name)


@dataclass(frozen=True)
class Expression:
    """``place`` says where it stands, ``text`` is PromQL with the dashboard's variables filled in."""

    place: str
    text: str

    @property
    def selectors(self) -> list[Selector]:
        plain = _STRING.sub('""', self.text)
        found = []
        for match in _SELECTOR.finditer(_GROUPING.sub("", plain)):
            labels = frozenset(_MATCHER.findall(match["matchers"] or ""))
            found.append(Selector(match["name"], labels, match["range"] is not None))
        return found

    @property
    def grouped_by(self) -> frozenset[str]:
        listed = [name.strip() for names in _GROUPING.findall(self.text) for name in names.split(",")]
        return frozenset(name for name in listed if name)


@cache
def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return loaded


@cache
def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def variables(shown: Mapping[str, Any]) -> dict[str, str]:
    """The dashboard's variables as they are at first, and Grafana's own."""
    own = {each["name"]: str(each["current"].get("value", "")) for each in shown["templating"]["list"]}
    return own | {"__rate_interval": "1m"}


def expressions() -> Iterator[Expression]:
    shown = dashboard()
    chosen = variables(shown)
    for panel in shown["panels"]:
        for target in panel.get("targets", []):
            text = re.sub(r"\$(\w+)", lambda match: chosen[match[1]], target["expr"])
            yield Expression(f"panel {panel['title']!r}", text)
    for rule in rules():
        yield Expression(f"rule {rule.get('alert') or rule['record']}", rule["expr"])
