"""What can be ordered, and what it costs: ``configs/machines.yaml``. The prices in it are the operator's to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, ValidationError

from serve_app.errors import ConfigError
from serve_app.settings import PROJECT_ROOT
from serve_app.yaml_files import read_mapping


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Part):
    """``price_per_hour`` in the file's currency."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    vcpus: PositiveFloat
    memory_gib: PositiveFloat
    price_per_hour: NonNegativeFloat


class Reserved(_Part):
    """What a node keeps for itself."""

    cpus: NonNegativeFloat = 0.5
    memory_gib: NonNegativeFloat = 1.5


class CosmosPrice(_Part):
    price_per_100_rus_hour: NonNegativeFloat


class Machines(_Part):
    """The file. ``source`` is where it was read."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    reserved: Reserved = Reserved()
    machines: Annotated[tuple[Machine, ...], Field(min_length=1)]
    default: str | None = None
    cosmos: CosmosPrice | None = None
    source: str = ""

    def find(self, name: str | None) -> Machine:
        """The machine called ``name``, or the default. Raises ConfigError that lists what there is."""
        wanted = name or self.default or self.machines[0].name
        for machine in self.machines:
            if machine.name == wanted:
                if machine.vcpus <= self.reserved.cpus or machine.memory_gib <= self.reserved.memory_gib:
                    raise ConfigError(
                        f"The machine {wanted} is smaller than what a node keeps for itself; take another."
                    )
                return machine
        known = ", ".join(machine.name for machine in self.machines)
        raise ConfigError(f"No machine is called {wanted!r} in {self.source}; there are {known}.")


def load_machines(path: Path) -> Machines:
    """Reads the file. Raises ConfigError that names it and the key."""
    raw = read_mapping(path, "machines file", "a mapping with the key 'machines'")
    try:
        shown = path.relative_to(PROJECT_ROOT) if path.is_relative_to(PROJECT_ROOT) else path
        return Machines.model_validate({**raw, "source": str(shown)})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"The machines file {path} has a bad value at {place}: {first['msg']}.") from error
