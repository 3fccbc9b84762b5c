"""The dashboard and the rules ask for metrics that there are, as they are; whoever is woken is told what to do."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from serve_app.telemetry import BUCKETS_MS, METRICS
from tests.watching import RULES, SCRAPE, Expression, Selector, dashboard, expressions, rules, variables

RAYS_OWN = {
    "ray_serve_deployment_replica_healthy": "gauge",
    "ray_node_cpu_utilization": "gauge",
    "ray_node_mem_used": "gauge",
    "ray_node_mem_total": "gauge",
    "ray_node_disk_utilization_percentage": "gauge",
}
"""That a graph exports these, ``tests/e2e/test_dashboards.py`` shows."""
OVER_TIME = ("min_over_time", "max_over_time", "avg_over_time", "deriv", "delta")
RAYS_LABELS = {"deployment", "replica", "application", "ip"}


def kind_of(name: str) -> str | None:
    if name in RAYS_OWN:
        return RAYS_OWN[name]
    declared = METRICS.get(name.removeprefix("ray_"))
    return declared[0] if declared else None


def wrong_in(expression: Expression) -> list[str]:
    """What is asked for that there is not."""
    wrong = []
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known_labels = {"le", *RAYS_LABELS}
    for selector in expression.selectors:
        if selector.name in recorded:
            known_labels |= {"outcome", "stage", "endpoint", "kind"}
            continue
        kind = kind_of(selector.name)
        if kind is None and kind_of(selector.family) == "histogram":
            kind = "part of a histogram"
        if kind in (None, "histogram"):
            wrong.append(f"no metric {selector.name}")
            continue
        wrong += _misused(selector, str(kind), expression.text)
        labels = set(METRICS.get(selector.family.removeprefix("ray_"), ("", "", ()))[2])
        labels |= set(METRICS.get(selector.name.removeprefix("ray_"), ("", "", ()))[2])
        known_labels |= labels
        allowed = labels | RAYS_LABELS | ({"le"} if selector.name.endswith("_bucket") else set())
        wrong += [f"{selector.name} has no label {label}" for label in selector.labels - allowed]
    wrong += [f"nothing has a label {label}" for label in expression.grouped_by - known_labels]
    return wrong


def _misused(selector: Selector, kind: str, text: str) -> list[str]:
    counts = kind in ("counter", "part of a histogram")
    if counts and not selector.ranged:
        return [f"{selector.name} is a {kind}: only its rate says anything"]
    if selector.ranged and not counts and not any(f"{name}({selector.name}" in text for name in OVER_TIME):
        return [f"{selector.name} is a gauge and has no rate"]
    return []


def rates(expression: Expression) -> list[str]:
    """Names within ``rate``."""
    return re.findall(r"\b(?:rate|irate|increase)\(\s*([a-z0-9_:]+)", expression.text)


def test_everything_that_is_asked_for_is_there_with_its_labels() -> None:
    wrong = {each.place: found for each in expressions() if (found := wrong_in(each))}
    assert wrong == {}


def test_rates_are_those_of_counters_and_quantiles_those_of_buckets() -> None:
    for each in expressions():
        for name in rates(each):
            assert kind_of(name) == "counter" or kind_of(re.sub(r"_(bucket|sum|count)$", "", name)) == "histogram", each
        for name in re.findall(r"histogram_quantile\([^(]*\([^(]*\(rate\(([a-z0-9_]+)", each.text):
            assert name.endswith("_bucket"), each
        if "histogram_quantile" in each.text:
            assert "le" in each.grouped_by, each


def test_thresholds_within_a_histogram_are_bounds_that_it_has() -> None:
    for each in expressions():
        for bound in re.findall(r'le="([^"]+)"', each.text):
            assert bound in {f"{float(bucket)}" for bucket in BUCKETS_MS}, each
    for variable in dashboard()["templating"]["list"]:
        if variable["name"].endswith("_ms"):
            assert {int(value) for value in variable["query"].split(",")} <= set(BUCKETS_MS)


def test_a_metric_that_is_gone_or_misspelt_is_found() -> None:
    for text in (
        "sum(rate(ray_parley_turn_total[5m]))",
        "sum(rate(ray_parley_turn_ms[5m]))",
        "ray_parley_turns_total",
        "sum(rate(ray_parley_stage_ongoing[5m]))",
        'sum(rate(ray_parley_turns_total{code="x"}[5m]))',
        "sum by (colour) (ray_parley_stage_ongoing)",
        "ray_parley_stage_ongoing_bucket",
    ):
        assert wrong_in(Expression("here", text)), text


def test_every_metric_that_is_exported_is_shown() -> None:
    asked = {selector.name.removeprefix("ray_") for each in expressions() for selector in each.selectors}
    asked |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert sorted(set(METRICS) - asked) == []


def test_every_expression_is_promql() -> None:
    parser = pytest.importorskip("promql_parser")
    for each in expressions():
        parser.parse(each.text)
    with pytest.raises(ValueError, match=r".+"):
        parser.parse("sum by (rate(x[5m])")


# The dashboard


def test_panels_say_what_they_show_and_lie_side_by_side() -> None:
    shown = dashboard()
    panels = shown["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}", "whoever imports it chooses where the data is"
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_variables_that_are_used_are_there() -> None:
    shown = dashboard()
    used = {
        name
        for panel in shown["panels"]
        for each in panel.get("targets", [])
        for name in re.findall(r"\$(\w+)", each["expr"])
    }
    assert used <= set(variables(shown))


def test_legends_name_labels_that_are_left() -> None:
    wrong = []
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            kept = Expression("", target["expr"]).grouped_by
            wrong += [
                (panel["title"], label)
                for label in re.findall(r"{{(\w+)}}", target["legendFormat"])
                if label not in kept
            ]
    assert wrong == []


# The rules


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_an_alert_says_what_is_wrong_and_what_to_do(alert: dict[str, Any]) -> None:
    assert re.fullmatch(r"Parley[A-Za-z]+", alert["alert"])
    assert alert["labels"]["severity"] in {"warning", "critical"}
    said = alert["annotations"]
    assert said["summary"].endswith(".")
    assert said["description"].endswith(".")
    assert set(alert) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+m", alert.get("for", "1m"))
    for label in re.findall(r"\$labels\.(\w+)", str(said)):
        expression = Expression("", alert["expr"])
        kept = expression.grouped_by | {
            name for each in expression.selectors for name in each.labels | _labels_of(each)
        }
        assert label in kept, f"{label} is nobody's"


def _labels_of(selector: Selector) -> set[str]:
    """Of a selector that nothing aggregates: a recorded one has what it was recorded by."""
    for rule in rules():
        if rule.get("record") == selector.name:
            return set(Expression("", rule["expr"]).grouped_by)
    return set(METRICS.get(selector.name.removeprefix("ray_"), ("", "", ()))[2])


def test_names_are_given_once() -> None:
    loaded = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    groups = [group["name"] for group in loaded["groups"]]
    names = [rule.get("alert") or rule["record"] for rule in rules()]
    assert len(set(groups)) == len(groups)
    assert len(set(names)) == len(names)


def test_what_is_recorded_is_used_or_named_for_people() -> None:
    for rule in rules():
        if "record" in rule:
            assert re.fullmatch(r"parley:[a-z_]+:[a-z0-9_]+", rule["record"])


# Scraping


def test_what_is_asked_for_is_kept_when_it_is_scraped() -> None:
    loaded = yaml.safe_load(SCRAPE.read_text(encoding="utf-8"))
    assert loaded["rule_files"] == [RULES.name], "beside it"
    needed = {selector.name for each in expressions() for selector in each.selectors if ":" not in selector.name}
    labels = {label for _, _, labels in METRICS.values() for label in labels} | RAYS_LABELS | {"le"}
    for job in loaded["scrape_configs"]:
        kept, dropped = job["metric_relabel_configs"]
        assert kept["action"] == "keep"
        assert [name for name in sorted(needed) if not re.fullmatch(kept["regex"], name)] == []
        assert dropped["action"] == "labeldrop"
        assert [name for name in sorted(labels) if re.fullmatch(dropped["regex"], name)] == []
        assert not re.fullmatch(kept["regex"], "ray_tasks")
