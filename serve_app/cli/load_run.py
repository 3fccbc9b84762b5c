"""One load test, from the scenario to a folder of figures: generator and sampler side by side, and what was run on what."""

from __future__ import annotations

import os
import platform
import shutil
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import msgspec
import psutil
from msgspec import Struct

from serve_app.capacity.busiest import Busy, busiest
from serve_app.capacity.run_folder import discard, new_folder, write_info
from serve_app.capacity.sampler import GraphSampler
from serve_app.capacity.samples import SCENARIO, SERVE_CONFIG, RunInfo
from serve_app.capacity.scenario import Scenario, adjusted, load_scenario, scenario_yaml
from serve_app.cli.interrupts import Interrupts
from serve_app.cli.load_generator import EXIT_FAILURES, Ended, GeneratorOptions, Progress, generate, require_extra
from serve_app.cli.load_target import Stages
from serve_app.errors import ConfigError

CPU_INFO = Path("/proc/cpuinfo")


class Screen(Protocol):
    """What whoever waits for the run sees."""

    def progress(self, line: Progress, busy: Busy | None) -> None:
        """How it goes, about once a second."""

    def say(self, sentence: str) -> None:
        """Something that stays to be read."""


class Silence:
    """For runs that nobody watches."""

    def progress(self, line: Progress, busy: Busy | None) -> None:
        pass

    def say(self, sentence: str) -> None:
        pass


class Changes(Struct, frozen=True, kw_only=True):
    """What of the scenario is other than in its file, and how it is run."""

    users: int | None = None
    rate_per_s: float | None = None
    duration_s: float | None = None
    seed: int | None = None
    processes: int = 1
    tenant: str | None = None
    token: str | None = None
    """What users show."""
    admin_token: str | None = None
    """What the sampler shows."""


class About(Struct, frozen=True, kw_only=True):
    """What the report says of the target beside its figures."""

    simulated: tuple[str, ...] = ()
    note: str = ""
    serve_config: Path | None = None
    """Copied into the report's folder."""


class Outcome(Struct, frozen=True):
    """``failed`` where more turns failed than the scenario's objective allows, or the run itself did."""

    info: RunInfo
    failed: bool


def planned(scenario: Path, changes: Changes) -> Scenario:
    """The scenario as it is run. Raises ConfigError."""
    return adjusted(
        load_scenario(scenario),
        rate_per_s=changes.rate_per_s,
        users=changes.users,
        duration_s=changes.duration_s,
        seed=changes.seed,
    )


def run_load(
    scenario: Path,
    target: str,
    report: Path,
    changes: Changes | None = None,
    about: About | None = None,
    screen: Screen | None = None,
) -> RunInfo:
    """As ``measure``, for whoever looks at the figures and not at how the run ended."""
    return measure(scenario, target, report, changes or Changes(), about or About(), screen or Silence()).info


def measure(scenario: Path, target: str, report: Path, changes: Changes, about: About, screen: Screen) -> Outcome:
    """Puts the scenario's load on ``target`` and writes everything into the folder ``report``, which it makes.

    A Ctrl-C (where this is the main thread) lets running turns end and is noted as ``interrupted``. Raises ConfigError where
    scenario, options or folder cannot be used; a run that fails otherwise is an outcome.
    """
    require_extra()
    chosen = planned(scenario, changes)
    folder = new_folder(report)
    try:
        (folder / SCENARIO).write_text(scenario_yaml(chosen), encoding="utf-8")
        if about.serve_config is not None:
            shutil.copyfile(about.serve_config, folder / SERVE_CONFIG)
    except OSError as error:
        raise ConfigError(f"The report folder {folder} cannot be filled ({error.strerror}).") from error
    info = _info(chosen, target, about)
    write_info(folder, info)
    options = GeneratorOptions(
        target=target,
        scenario=folder / SCENARIO,
        report=folder,
        seed=chosen.seed,
        processes=changes.processes,
        tenant=changes.tenant,
        token=changes.token,
    )
    stages = Stages(target, changes.admin_token)
    ended = Ended("failed", -1)
    with Interrupts() as interrupts:
        sampler = GraphSampler(stages.read, folder, tell=screen.say)
        try:
            with sampler:
                ended = generate(options, lambda line: screen.progress(line, _busy(sampler)), screen.say, interrupts)
        except ConfigError:
            discard(folder)  # no run, and the folder may be named again once the scenario is put right
            raise
        info = _finished(info, ended, sampler.problem)
        write_info(folder, info)
    if ended.how == "failed":
        screen.say(f"The run failed: {ended.why or f'the load generator ended with exit code {ended.code}.'}")
    return Outcome(info, failed=ended.how == "failed" or ended.code == EXIT_FAILURES)


def _busy(sampler: GraphSampler) -> Busy | None:
    span = sampler.span()
    return busiest(*span) if span is not None else None


def _info(scenario: Scenario, target: str, about: About) -> RunInfo:
    return RunInfo(
        name=scenario.name,
        target=target,
        began_at=time.time(),
        seed=scenario.seed,
        parley_version=parley_version(),
        machine=_machine(),
        cores=_cores(),
        memory_bytes=psutil.virtual_memory().total,
        simulated=about.simulated,
        note=about.note,
    )


def _finished(info: RunInfo, ended: Ended, problem: str) -> RunInfo:
    note = " ".join(filter(None, (info.note, problem, _sentence(ended.why))))
    return msgspec.structs.replace(info, ended_at=time.time(), ended=ended.how, note=note)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def parley_version() -> str:
    """Empty where it is run from its source folder."""
    try:
        return version("parley")
    except PackageNotFoundError:
        return ""


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _machine() -> str:
    """The processor by name where the system tells, and the system."""
    processor = platform.processor() or platform.machine()
    if CPU_INFO.is_file():
        named = [line for line in CPU_INFO.read_text(errors="replace").splitlines() if line.startswith("model name")]
        processor = named[0].partition(":")[2].strip() if named else processor
    return f"{processor}, {platform.system()} {platform.release()}"
