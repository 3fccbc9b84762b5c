"""An objective on the command line: ``ttft_p95=1.5s,turn_p95=20s,errors=1%``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import ValidationError

from serve_app.capacity.scenario import Slo
from serve_app.errors import ConfigError

_VALUE = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(ms|s|%)?")
_NAMES = {"ttft_p95": "ttft_p95_s", "turn_p95": "turn_p95_s", "errors": "errors"}
_UNITS = {"ms": 0.001, "s": 1.0, "%": 0.01, None: 1.0}


def parse_slo(texts: Sequence[str], otherwise: Slo) -> Slo:
    """``otherwise`` with what the texts name. Latencies are in seconds without a unit. Raises ConfigError with an example."""
    values: dict[str, float] = {}
    for term in ",".join(texts).split(","):
        name, _, text = (part.strip() for part in term.partition("="))
        found = _VALUE.fullmatch(text)
        if name not in _NAMES or found is None or (found[2] == "%") != (name == "errors" and found[2] is not None):
            raise ConfigError(
                f"Option --slo: {term.strip()!r} is no objective; write ttft_p95=1.5s,turn_p95=20s,errors=1%."
            )
        values[_NAMES[name]] = float(found[1]) * _UNITS[found[2]]
    try:
        return Slo.model_validate(otherwise.model_dump() | values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"Option --slo: {first['loc'][0]}: {first['msg']}.") from error
