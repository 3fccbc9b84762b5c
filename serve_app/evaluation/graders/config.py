"""What a run file says of its graders: one mapping each, told apart by ``type``.

graders:
  - {type: contains, name: facts}                     # the facts of the case
  - {type: tool_calls, mode: superset}
  - {type: numeric, tags: [figures], relative: 0.01}
  - {type: latency, limit_ms: 8000}
  - type: judge
    name: helpful
    rubric: The answer helps a salesperson and says nothing that the tools did not give.
    votes: 3
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

GraderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
Share = Annotated[float, Field(ge=0, le=1)]

MAX_GRADERS = 50
MAX_SCALE = 11


class _Part(BaseModel):
    """A mapping of the file: unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class _Grader(_Part):
    """What all graders have. An answer passes where its score, from 0 to 1, is at least ``threshold``."""

    name: GraderName = ""
    """What results call it; its type where nothing is said. No two of a run have the same."""
    tags: tuple[str, ...] = Field(default=(), max_length=100)
    """Only cases that have one of these tags are graded; none named: all."""
    configurations: tuple[str, ...] = Field(default=(), max_length=100)
    """Only answers of these configurations are graded; none named: all."""
    threshold: Share = 1.0

    @model_validator(mode="before")
    @classmethod
    def _is_called_by_its_type(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("name") and isinstance(values.get("type"), str):
            return {**values, "name": values["type"]}
        return values


class _Words(_Grader):
    """How texts are compared. White space, typographic quotes and dashes, and thousands separators never count."""

    ignore_case: bool = True


class ExactConfig(_Words):
    """The answer is the case's ``expected.answer``."""

    type: Literal["exact"]
    ignore_case: bool = False
    ignore_punctuation: bool = False


class ContainsConfig(_Words):
    """Texts that stand in the answer. The score is the share of them that do (``any``: 1 where one does)."""

    type: Literal["contains"]
    mode: Literal["all", "any"] = "all"
    values: tuple[Text, ...] = Field(default=(), max_length=1000)
    """The texts; none named: the facts of the case."""
    absent: tuple[Text, ...] = Field(default=(), max_length=1000)
    """Texts that must not be in it: one that is makes the score 0."""
    whole_words: bool = True
    """``5`` is not found in ``15``, nor ``Ann`` in ``annual``."""


class RegexConfig(_Grader):
    """A pattern is found in the answer. Patterns are Rust's (close to Python's, without look-around and back references): they
    take time proportional to the text, so that none can stop a run."""

    type: Literal["regex"]
    pattern: Text | None = None
    """None: the case's ``expected.pattern``."""
    ignore_case: bool = False
    full: bool = False
    """The whole answer must match, but for white space around it."""
    absent: bool = False
    """It must not be found."""


class JsonSchemaConfig(_Grader):
    """The answer, or the code block in it, is JSON and keeps a schema."""

    type: Literal["json_schema"]
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    """None: the case's ``expected.schema``."""
    fences: bool = True
    """JSON may stand in a code block, with words around it."""


class NumericConfig(_Grader):
    """A figure in the answer is the case's ``expected.number``, within a tolerance (the wider of both)."""

    type: Literal["numeric"]
    absolute: float = Field(default=0.0, ge=0)
    relative: float = Field(default=1e-9, ge=0, le=1)
    """Of the expected number: 0.01 is one percent."""
    pick: Literal["any", "first", "last", "only"] = "any"
    """Which figure counts; ``only``: there may be but one, however often."""
    unit: Annotated[str, StringConstraints(min_length=1, max_length=40)] | None = None
    """Only figures with this before or behind them count: ``EUR``, ``%``, ``days``."""
    decimal: Literal[".", ","] = "."
    """What stands before the decimals where it could be either: ``1.234``."""


class ToolCallsConfig(_Grader):
    """The tool calls that were made, compared with the case's ``expected.tool_calls``. Where those are none, none may be made.

    exact: the same ones in the same order; ordered: they are made in this order, others may come between; unordered: the same
    ones in any order; superset: all of them are made, and perhaps others; subset: none but them is made.
    """

    type: Literal["tool_calls"]
    mode: Literal["exact", "ordered", "unordered", "superset", "subset"] = "superset"
    arguments: Literal["exact", "subset", "ignore"] = "subset"
    """subset: those that are expected must be as expected, further ones may be given."""
    ignore_case: bool = False
    """Of texts among the arguments."""
    turns: Literal["last", "all"] = "last"
    """Of a case with several turns, whose calls count."""


class RefusalConfig(_Grader):
    """The answer refuses where the case says ``expected.refusal: true``, and does not where it says ``false``."""

    type: Literal["refusal"]
    phrases: tuple[Text, ...] = Field(default=(), max_length=1000)
    """Patterns (as of ``regex``, whatever the case) that show a refusal, beside those built in."""


class SimilarityConfig(_Grader):
    """How near the answer is in meaning to ``expected.answer``: the cosine of their embeddings."""

    type: Literal["similarity"]
    threshold: Share = 0.8
    """What is near depends on the model; look at some scores first."""
    model: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "words"
    """``words`` is built in: hashed words, needs no account, knows no synonyms. Else a model of the provider."""
    provider: Annotated[str, StringConstraints(min_length=1, max_length=41)] | None = None
    """Its name in the models file; None: the first there that can embed."""


class LatencyConfig(_Grader):
    """How long the answer took, without the time it waited for its turn to begin. Beyond the limit the score falls with it."""

    type: Literal["latency"]
    limit_ms: int = Field(gt=0, le=3_600_000)
    of: Literal["total", "first_delta"] = "total"


class CostConfig(_Grader):
    """What the answer cost, at the prices of the models file. Beyond the limit the score falls with it."""

    type: Literal["cost"]
    limit_usd: float = Field(gt=0)


class TokensConfig(_Grader):
    """How many tokens the answer took. Beyond the limit the score falls with it."""

    type: Literal["tokens"]
    limit: int = Field(gt=0)
    of: Literal["total", "input", "output"] = "total"


class Scale(_Part):
    """Whole numbers that a judge gives, the highest for the best."""

    min: int = Field(default=1, ge=0, le=100)
    max: int = Field(default=5, ge=0, le=100)

    @model_validator(mode="after")
    def _has_steps(self) -> Scale:
        if not 1 <= self.max - self.min < MAX_SCALE:
            raise ValueError(f"max must be above min, with at most {MAX_SCALE} steps")
        return self


class Criterion(_Part):
    """One thing the judge gives a score for."""

    name: GraderName
    description: Text
    weight: float = Field(default=1.0, gt=0, le=1000)


class JudgeSettings(_Part):
    """What is said to the judge's model; None leaves it to the provider."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    max_output_tokens: int | None = Field(default=None, gt=0)
    reasoning_effort: str | None = Field(default=None, min_length=1, max_length=40)


class JudgeConfig(_Grader):
    """A model reads the answer and gives a score by a rubric; or, ``pairwise``, says whether it is better than the baseline's.

    Pairwise scores are 1 where it is better, 0.5 as good, 0 worse; the baseline itself gets none.
    """

    type: Literal["judge"]
    threshold: Share = 0.75
    """Four of five. Pairwise it is 0.5: not worse."""
    mode: Literal["score", "pairwise"] = "score"
    model: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """None: the graph's default model. Best another one than those that are compared: models favour their own words."""
    rubric: Text
    criteria: tuple[Criterion, ...] = Field(default=(), max_length=20)
    """What is scored one by one, and weighed; none: the answer as a whole."""
    scale: Scale = Scale()
    votes: int = Field(default=1, ge=1, le=9)
    """How often the judge is asked; the middle score counts (pairwise: what more than half say)."""
    swap: bool | None = None
    """Pairwise: each vote is asked for with the answers in either order, and counts where both say the same. None: yes."""
    seed: int = Field(default=1, ge=0)
    """Draws the order of criteria and, without ``swap``, of answers."""
    reference: bool = True
    """The judge is shown what the case expects."""
    tools: bool = False
    """The judge is shown the tool calls and their results."""
    settings: JudgeSettings = JudgeSettings()

    @model_validator(mode="before")
    @classmethod
    def _pairwise_is_not_worse(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("mode") == "pairwise" and "threshold" not in values:
            return {**values, "threshold": 0.5}
        return values

    @property
    def swaps(self) -> bool:
        return self.mode == "pairwise" and self.swap is not False

    @model_validator(mode="after")
    def _fits_its_mode(self) -> JudgeConfig:
        if self.mode == "score" and self.swap:
            raise ValueError(
                "swap exchanges two answers, and mode: score shows one; write mode: pairwise or remove swap"
            )
        if self.mode == "pairwise" and self.criteria:
            raise ValueError("criteria are scored, and mode: pairwise compares; write them into the rubric")
        names = [criterion.name for criterion in self.criteria]
        if len(set(names)) < len(names):
            raise ValueError("two criteria have the same name; rename one")
        return self


class PythonConfig(_Grader):
    """A function of your own. It gets a ``Subject`` and gives a score from 0 to 1, a bool, ``(score, reason)``, a ``Grade``, or
    None where there is nothing to grade. It runs in a process of its own, which is ended when it takes too long."""

    type: Literal["python"]
    threshold: Share = 0.5
    function: Annotated[str, StringConstraints(pattern=r"^[^:\s][^:]*:[A-Za-z_][A-Za-z0-9_]*$", max_length=500)]
    """``module:function``, or ``file.py:function`` relative to the run file."""
    timeout_s: float = Field(default=10.0, gt=0, le=600)


GraderConfig = Annotated[
    ExactConfig
    | ContainsConfig
    | RegexConfig
    | JsonSchemaConfig
    | NumericConfig
    | ToolCallsConfig
    | RefusalConfig
    | SimilarityConfig
    | LatencyConfig
    | CostConfig
    | TokensConfig
    | JudgeConfig
    | PythonConfig,
    Field(discriminator="type"),
]


def _told_apart(configs: tuple[GraderConfig, ...]) -> tuple[GraderConfig, ...]:
    twice = [name for name, times in Counter(config.name for config in configs).items() if times > 1]
    if twice:
        raise ValueError(f"two graders are called '{twice[0]}'; give one of them another name")
    return configs


GraderConfigs = Annotated[tuple[GraderConfig, ...], Field(max_length=MAX_GRADERS), AfterValidator(_told_apart)]
"""The graders of a run file, each with a name of its own."""
