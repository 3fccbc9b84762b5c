"""What a run must show for a change to pass: the ``gate`` of a run file, or options of ``parley eval gate``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

Target = Annotated[str, StringConstraints(pattern=r"^[^@\s][^@]{0,99}(@[^@]{1,99})?$", strip_whitespace=True)]
"""A grader, or a grader among the cases of one tag: ``facts``, ``facts@hr``."""
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NoRegression(_Part):
    """No grader may show a configuration to be worse than the baseline."""

    alpha: float = Field(default=0.05, gt=0, le=0.5)
    """How often chance alone may look like a regression; Holm's correction is made within each family of tests."""
    graders: tuple[str, ...] = ()
    """Which graders are looked at; empty means all."""
    tags: bool = True
    """Whether each tag is looked at by itself, too."""
    must: tuple[str, ...] = ("must",)
    """Tags of cases of which not one may go from passed to not passed."""
    within: Share | None = None
    """Asks for more than no evidence of a regression: the interval of the difference must show that the score falls by no more
    than this, over all cases."""


def _switch(value: object) -> object:
    """``no_regression: true`` is one with its defaults."""
    if value is True:
        return NoRegression()
    return None if value is False else value


class GateConfig(_Part):
    """Every rule holds for each configuration but the baseline (for the only one, where there is one); an empty gate asks for
    nothing but a complete run."""

    min_score: dict[Target, Share] = {}
    """The least mean score, by grader or grader@tag."""
    min_pass_rate: dict[Target, Share] = {}
    """The least share of cases passed, by grader or grader@tag."""
    confident: bool = False
    """min_score and min_pass_rate are held against the lower end of the interval instead of the figure itself."""
    no_regression: Annotated[NoRegression | None, BeforeValidator(_switch)] = None
    max_flips: int | None = Field(default=None, ge=0)
    """How many cases may go from passed to not passed under any grader of words (not of time, cost or tokens)."""
    max_failed: Share | None = None
    """The share of results that may be failed turns."""
    max_cost_increase: float | None = Field(default=None, ge=-1)
    """By how much a case may cost more than under the baseline, as a share: 0.2 is a fifth more."""
    max_cost_usd: float | None = Field(default=None, ge=0)
    """What a case may cost on average, in US dollars."""
    max_p95_ms: float | None = Field(default=None, gt=0)
    """Nineteen of twenty turns end within this."""
    max_p95_increase: float | None = Field(default=None, ge=-1)
    """By how much the 95th percentile of a turn's time may be longer than the baseline's, as a share."""
    configurations: tuple[str, ...] = ()
    """Which configurations must pass; empty means all but the baseline."""
    incomplete: bool = False
    """Whether results, and grades of them, may be missing."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """All that is named of graders."""
        return (*self.min_score, *self.min_pass_rate, *(self.no_regression.graders if self.no_regression else ()))

    @property
    def named_must(self) -> tuple[str, ...]:
        """The tags of ``must`` that somebody has named: the default may be that of no case."""
        must = self.no_regression.must if self.no_regression else ()
        return tuple(tag for tag in must if tag not in NoRegression().must)

    @property
    def tags(self) -> tuple[str, ...]:
        """Those that min_score and min_pass_rate name."""
        return tuple(
            dict.fromkeys(tag for key in (*self.min_score, *self.min_pass_rate) if (tag := key.partition("@")[2]))
        )

    @property
    def compares(self) -> bool:
        """Whether anything is held against the baseline."""
        asked = (self.no_regression, self.max_flips, self.max_cost_increase, self.max_p95_increase)
        return any(rule is not None for rule in asked)
