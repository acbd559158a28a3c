"""How long a net between two cells of the fabric takes: by its kind, fan-out, and fabric used.

It knows no netlist and no cell; `studies.resources.paths` asks it for every hop of a path.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from math import hypot, log2
from pathlib import Path

from arch_models.fields import build
from arch_models.files import read_toml

CLOCK_FILE = Path(__file__).parent / "data" / "clock.toml"


class Net(Enum):
    """What a hop is made of."""

    GENERAL = "general"  # switch boxes and wires
    LOCAL = "local"  # within a slice: a LUT's output to its flip-flop or its carry
    CASCADE = "cascade"  # dedicated wires: carry chains, wide multiplexers, DSP columns


@dataclass(frozen=True)
class NetModel:
    """Delay of a hop in ns: `(base + doubling * log2(fan-out)) * (1 + share_factor * share)`.

    `base_ns`, `doubling_ns`: in an empty fabric. `share_factor`: how much longer at a full one.
    `uncertainty_ns`: what jitter and skew take from a period.
    """

    base_ns: float
    doubling_ns: float
    share_factor: float
    uncertainty_ns: float

    def delay_ns(self, net: Net, fan_out: int, share: float) -> float:
        """A hop with so many sinks, at a share (0 to 1) of the fabric's LUTs used."""
        if net is not Net.GENERAL:
            return 0.0
        found = self.base_ns + self.doubling_ns * log2(max(1, fan_out))
        return found * (1 + self.share_factor * share)


@dataclass(frozen=True)
class ClockErrors:
    """Natural logarithms of routed over predicted clocks: their mean, and standard deviations.

    `public`: of public designs analysed as netlists; `grid`: of a netlist against the grid's rows.
    """

    public_mean: float
    public_spread: float
    grid_spread: float

    @property
    def spread(self) -> float:
        """Both together, as if independent."""
        return hypot(self.public_spread, self.grid_spread)


@dataclass(frozen=True)
class ClockData:
    """The shipped figures."""

    net: NetModel
    errors: ClockErrors


@cache
def read_clock_data(path: Path = CLOCK_FILE) -> ClockData:
    """The figures of a file; `FieldError` for one that is none."""
    return build(ClockData, read_toml(path), "", [])


def read_net_model() -> NetModel:
    """The shipped net model."""
    return read_clock_data().net
