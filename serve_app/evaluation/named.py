"""Names in a run file that nothing answers to, told before a run is paid for: its report would be late."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from serve_app.errors import ConfigError
from serve_app.evaluation.graders.config import GraderConfig
from serve_app.evaluation.run_file import RunFile


def check_gate(run: RunFile) -> None:
    """Raises ConfigError where the gate asks for a grader that the run has not. A run without any is graded later, by whatever
    `parley eval grade` is told."""
    names = [config.name for config in run.graders]
    unknown = [target for target in run.gate.targets if target.partition("@")[0] not in names]
    if names and unknown:
        raise ConfigError(
            f"The gate names the grader '{unknown[0].partition('@')[0]}', which the run file does not have; there are:"
            f" {', '.join(names)}."
        )


def check_configurations(graders: Sequence[GraderConfig], names: Sequence[str]) -> None:
    """Raises ConfigError where a grader is limited to a configuration that a run has not: it would grade nothing."""
    for config in graders:
        for name in config.configurations:
            if name not in names:
                raise ConfigError(
                    f"The grader {config.name} is for the configuration '{name}', which is not in this run; there are:"
                    f" {', '.join(names)}."
                )


def tags_not_there(run: RunFile, there: Collection[str]) -> tuple[str, ...]:
    """The tags that sample, graders and gate name and no case of the data set has, each once."""
    named = [
        *run.sample.tags,
        *run.sample.without,
        *(tag for config in run.graders for tag in config.tags),
        *run.gate.tags,
        *run.gate.named_must,
    ]
    return tuple(tag for tag in dict.fromkeys(named) if tag not in there)
