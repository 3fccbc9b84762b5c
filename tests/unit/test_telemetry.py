"""Logs and metrics: what a line holds, where it goes, and that every metric counted is one that is declared."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from serve_app.settings import PROJECT_ROOT, LogSettings
from serve_app.telemetry import METRICS, MemoryMetrics, configure_logging, logger


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging as it was: it is configured for the whole process."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_says_when_where_and_what(tmp_path: Path) -> None:
    configure_logging(LogSettings(), tmp_path, "Turns")
    logger("turns.stage").info("turn_ended", outcome="completed")
    (line,) = lines(tmp_path / "Turns.log")
    assert (line["event"], line["part"], line["level"], line["outcome"]) == (
        "turn_ended",
        "turns.stage",
        "info",
        "completed",
    )
    assert line["timestamp"].endswith("Z")


def test_the_request_id_that_is_bound_is_in_every_line(tmp_path: Path) -> None:
    configure_logging(LogSettings(), tmp_path)
    log = logger("ingress")
    with structlog.contextvars.bound_contextvars(request_id="req_1"):
        log.info("one")
        logger("store").warning("two")
    log.info("three")
    assert [line.get("request_id") for line in lines(tmp_path / "parley.log")] == ["req_1", "req_1", None]


@pytest.mark.parametrize(
    "key", ["authorization", "Authorization", "access_token", "accessToken", "API_KEY", "set-cookie"]
)
def test_a_secret_is_not_written(tmp_path: Path, key: str) -> None:
    configure_logging(LogSettings(), tmp_path)
    logger("edge").info("handshake", **{key: "sk-not-to-be-seen"}, user="ann")
    text = (tmp_path / "parley.log").read_text()
    assert "sk-not-to-be-seen" not in text
    (line,) = lines(tmp_path / "parley.log")
    assert (line[key], line["user"]) == ("[redacted]", "ann")


def test_an_exception_is_written_into_its_line(tmp_path: Path) -> None:
    configure_logging(LogSettings(), tmp_path)
    try:
        raise ValueError("what went wrong")
    except ValueError:
        logger("x").exception("crashed")
    (line,) = lines(tmp_path / "parley.log")
    assert line["level"] == "error"
    assert "ValueError: what went wrong" in line["exception"]


def test_lines_below_the_level_are_left_out(tmp_path: Path) -> None:
    configure_logging(LogSettings(level="warning"), tmp_path)
    log = logger("x")
    log.info("quiet")
    log.warning("loud")
    assert [line["event"] for line in lines(tmp_path / "parley.log")] == ["loud"]


def test_a_log_file_is_rotated_and_three_old_ones_are_kept(tmp_path: Path) -> None:
    configure_logging(LogSettings(file_bytes=500), tmp_path)
    for number in range(100):
        logger("x").info("line", number=number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["parley.log", "parley.log.1", "parley.log.2", "parley.log.3"]
    assert all((tmp_path / name).stat().st_size <= 500 for name in files)
    assert lines(tmp_path / "parley.log")[-1]["number"] == 99


def test_a_logger_made_before_logging_is_set_up_follows_it(tmp_path: Path) -> None:
    early = logger("early")
    configure_logging(LogSettings(), tmp_path / "one")
    early.info("first")
    configure_logging(LogSettings(), tmp_path / "two")
    early.info("second")
    assert [line["event"] for line in lines(tmp_path / "one" / "parley.log")] == ["first"]
    assert [line["event"] for line in lines(tmp_path / "two" / "parley.log")] == ["second"]


def test_the_console_format_is_for_people(tmp_path: Path) -> None:
    configure_logging(LogSettings(format="console"), tmp_path)
    logger("x").info("a thing happened", count=3)
    text = (tmp_path / "parley.log").read_text()
    assert "a thing happened" in text
    assert "count=3" in text
    assert "\x1b" not in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


def test_without_a_folder_lines_go_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings())
    logger("x").info("said aloud")
    captured = capfd.readouterr()
    assert json.loads(captured.err)["event"] == "said aloud"
    assert captured.out == ""


# -- metrics ---------------------------------------------------------------------------------------------------------


def test_memory_metrics_keep_what_was_counted_by_label() -> None:
    metrics = MemoryMetrics()
    metrics.count("parley_turns_total", outcome="completed")
    metrics.count("parley_turns_total", 2, outcome="completed")
    metrics.count("parley_turns_total", outcome="failed")
    metrics.gauge("parley_turns_running", 3)
    metrics.gauge("parley_turns_running", 2)
    metrics.observe("parley_append_ms", 1.5)
    metrics.observe("parley_append_ms", 2.5)
    assert metrics.counts[("parley_turns_total", "completed")] == 3
    assert metrics.counts[("parley_turns_total", "failed")] == 1
    assert metrics.gauges[("parley_turns_running",)] == 2
    assert metrics.observations[("parley_append_ms",)] == [1.5, 2.5]


def test_memory_metrics_keep_the_newest_observations_only() -> None:
    metrics = MemoryMetrics()
    for value in range(1200):
        metrics.observe("parley_append_ms", value)
    kept = metrics.observations[("parley_append_ms",)]
    assert (len(kept), kept[0], kept[-1]) == (1000, 200, 1199)


@pytest.mark.parametrize(
    ("method", "name", "labels"),
    [
        ("count", "parley_turn_total", {"outcome": "x"}),
        ("gauge", "parley_nothing", {}),
        ("observe", "parley_nothing", {}),
        ("count", "parley_turns_total", {}),
        ("observe", "parley_tool_ms", {"stage": "x"}),
    ],
)
def test_a_metric_nobody_declared_is_a_mistake_that_shows(method: str, name: str, labels: dict[str, str]) -> None:
    with pytest.raises(KeyError):
        getattr(MemoryMetrics(), method)(name, 1, **labels)


KIND_OF = {"count": "counter", "gauge": "gauge", "observe": "histogram"}


def uses() -> Iterator[tuple[str, str, frozenset[str], str]]:
    """Every metric used in the source: method, name, labels, place."""
    for folder in ("serve_app", "deployments"):
        for path in (PROJECT_ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                    continue
                name = node.args[0]
                if node.func.attr in KIND_OF and isinstance(name, ast.Constant) and isinstance(name.value, str):
                    labels = frozenset(keyword.arg for keyword in node.keywords if keyword.arg)
                    yield node.func.attr, name.value, labels, f"{path.name}:{node.lineno}"


def test_every_metric_that_is_used_is_declared_with_its_kind_and_labels() -> None:
    wrong = [
        (place, name)
        for method, name, labels, place in uses()
        if name.startswith("parley_")
        and (name not in METRICS or METRICS[name][0] != KIND_OF[method] or frozenset(METRICS[name][2]) != labels)
    ]
    assert wrong == []


def test_every_metric_that_is_declared_is_used() -> None:
    assert sorted(METRICS) == sorted({name for _, name, _, _ in uses() if name.startswith("parley_")})
