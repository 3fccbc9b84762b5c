"""What was run, beside its figures: for runs that nobody else takes note of.

``parley load run`` writes these files itself, and knows more of the target; what is there already is left as it is.
"""

from __future__ import annotations

import os
import platform
import time

import psutil
from msgspec.structs import replace

from load_tests.options import Options
from serve_app.capacity.run_folder import write_info
from serve_app.capacity.samples import RUN, SCENARIO, RunInfo
from serve_app.capacity.scenario import Scenario, scenario_yaml
from serve_app.errors import ConfigError


class RunNote:
    """``run.json`` and ``scenario.yaml`` of a report folder. Raises ConfigError where they cannot be written."""

    def __init__(self, options: Options, scenario: Scenario) -> None:
        self._folder = options.report
        self._info: RunInfo | None = None
        if self._folder is None:
            return
        try:
            if not (self._folder / SCENARIO).exists():
                (self._folder / SCENARIO).write_text(scenario_yaml(scenario), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"The report folder {self._folder} cannot be written ({error.strerror}).") from error
        if not (self._folder / RUN).exists():
            self._info = RunInfo(
                name=scenario.name, target=options.host, began_at=time.time(), seed=scenario.seed,
                machine=f"{platform.processor() or platform.machine()}, {platform.system()} {platform.release()}",
                cores=os.cpu_count() or 1, memory_bytes=psutil.virtual_memory().total,
            )  # fmt: skip
            write_info(self._folder, self._info)

    def end(self, how: str, why: str) -> None:
        """Notes the end, where the beginning was noted here."""
        if self._folder is not None and self._info is not None:
            write_info(self._folder, replace(self._info, ended_at=time.time(), ended=how, note=why))
