"""The report for programs: report.json (its figures), results.jsonl (a line for each result) and junit.xml (for a CI's view).

Results are written as they are read: their number does not matter for memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from xml.sax.saxutils import escape, quoteattr

import msgspec

from serve_app.errors import ConfigError
from serve_app.evaluation.gate import GateResult
from serve_app.evaluation.report import Report
from serve_app.evaluation.run_folder import JUNIT, REPORT_JSON, RESULTS
from serve_app.evaluation.run_store import GradedResult, RunStore
from serve_app.evaluation.score_table import working_ms

_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
"""What XML cannot hold."""
MAX_XML_CHARS = 4000


def write_results(folder: Path, store: RunStore, report: Report) -> None:
    """All three files. Raises ConfigError where they cannot be written."""
    with _beside(folder / REPORT_JSON) as file:
        file.write(msgspec.json.format(msgspec.json.encode(report), indent=1))
        file.write(b"\n")
    with _beside(folder / RESULTS) as file:
        encoder = msgspec.json.Encoder()
        for one in store.results():
            file.write(encoder.encode(result_line(one)))
            file.write(b"\n")
    with _beside(folder / JUNIT) as file:
        for text in junit(report, store):
            file.write(text.encode())


def write_gate_junit(path: Path, name: str, gate: GateResult) -> None:
    """Only the rules: for a CI that is red where any test of a file failed."""
    with _beside(path) as file:
        file.write(b'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n')
        for text in _gate_suite(name, gate):
            file.write(text.encode())
        file.write(b"</testsuites>\n")


def result_line(one: GradedResult) -> dict[str, Any]:
    """What a line of results.jsonl says."""
    result, last = one.result, one.result.last
    usage = result.usage
    line: dict[str, Any] = {
        "case_id": result.key.case_id,
        "configuration": result.key.configuration,
        "repeat": result.key.repeat,
        "tags": result.tags,
        "state": last.state,
        "question": last.question,
        "answer": last.answer,
        "grades": {
            name: {"score": grade.score, "passed": grade.passed, "reason": grade.reason}
            for name, grade in one.grades.items()
        },
        "turns": len(result.turns),
        "steps": sum(len(turn.steps) for turn in result.turns),
        "turn_ms": [working_ms(turn) for turn in result.turns],
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.cost_microusd / 1e6,
        "attempts": result.attempts,
    }
    if result.failed:
        line["error"] = {"code": last.error_code, "message": last.error_message}
    if unrecorded := [name for turn in result.turns for name in turn.unrecorded]:
        line["unrecorded"] = unrecorded
    return line


def junit(report: Report, store: RunStore) -> Iterator[str]:
    """The gate's rules as one suite, and one suite for each configuration with a test for each result: failed where a grader did
    not pass, an error where the turn failed, skipped where nothing was graded."""
    name = report.run.meta.name
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield f"<testsuites name={_attribute(name)}>\n"
    if report.gate is not None:
        yield from _gate_suite(name, report.gate)
    for configuration in report.run.meta.names:
        tests, failures, errors, skipped, seconds = _counts(store.results(configuration))
        yield (
            f'<testsuite name={_attribute(f"{name}: {configuration}")} tests="{tests}" failures="{failures}" errors="{errors}"'
            f' skipped="{skipped}" time="{seconds:.3f}">\n'
        )
        for one in store.results(configuration):
            yield _test(f"{name}.{configuration}", one)
        yield "</testsuite>\n"
    yield "</testsuites>\n"


def _counts(results: Iterable[GradedResult]) -> tuple[int, int, int, int, float]:
    tests = failures = errors = skipped = 0
    seconds = 0.0
    for one in results:
        tests += 1
        seconds += _seconds(one)
        if one.result.failed:
            errors += 1
        elif any(grade.passed is False for grade in one.grades.values()):
            failures += 1
        elif not any(grade.passed for grade in one.grades.values()):
            skipped += 1
    return tests, failures, errors, skipped, seconds


def _seconds(one: GradedResult) -> float:
    return sum(working_ms(turn) for turn in one.result.turns) / 1000


def _test(suite: str, one: GradedResult) -> str:
    result, last = one.result, one.result.last
    case = result.key.case_id + (f" #{result.key.repeat + 1}" if result.key.repeat else "")
    head = f'<testcase classname={_attribute(suite)} name={_attribute(case)} time="{_seconds(one):.3f}"'
    if result.failed:
        code = last.error_code or last.state
        return f"{head}><error type={_attribute(code)} message={_attribute(last.error_message)}/></testcase>\n"
    missed = [(name, grade) for name, grade in one.grades.items() if grade.passed is False]
    if missed:
        message = ", ".join(name for name, _ in missed)
        body = "\n".join(
            [f"{name}: {grade.reason}" for name, grade in missed]
            + [f"Question: {last.question}", f"Answer: {last.answer}"]
        )
        return f"{head}><failure message={_attribute(message)}>{_text(body)}</failure></testcase>\n"
    if not any(grade.passed for grade in one.grades.values()):
        return f'{head}><skipped message="nothing was graded"/></testcase>\n'
    return f"{head}/>\n"


def _gate_suite(name: str, gate: GateResult) -> Iterator[str]:
    yield f'<testsuite name={_attribute(f"{name}: gate")} tests="{len(gate.rules)}" failures="{len(gate.broken)}">\n'
    for rule in gate.rules:
        title = rule.rule + (f" ({rule.configuration})" if rule.configuration else "")
        head = f"<testcase classname={_attribute(f'{name}.gate')} name={_attribute(title)}"
        if rule.held:
            yield f"{head}/>\n"
            continue
        body = "\n".join([rule.sentence, *rule.case_ids])
        yield f"{head}><failure message={_attribute(rule.sentence)}>{_text(body)}</failure></testcase>\n"
    yield "</testsuite>\n"


def _attribute(value: str) -> str:
    return quoteattr(_UNWRITABLE.sub("�", value[:MAX_XML_CHARS]))


def _text(value: str) -> str:
    return escape(_UNWRITABLE.sub("�", value[:MAX_XML_CHARS]))


@contextmanager
def _beside(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` once it is whole."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            yield file
        beside.replace(path)
    except OSError as error:
        raise ConfigError(f"The file {path} cannot be written ({error.strerror}).") from error
    finally:
        beside.unlink(missing_ok=True)
