"""Evaluation: what a design is predicted to do with a workload on a board, as frozen values.

It does not compute anything beyond sums and ratios; see `evaluate`. Everything in it is
predicted; what hardware said is `hw.board.measurement.Measurement`, another type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from arch_models.power.energy import Energy

MICROJOULES = 1e6
MILLISECONDS = 1e3


@dataclass(frozen=True)
class Resource:
    """One kind of fabric resource: estimated use against what the board has."""

    name: str
    used: float
    available: int

    @property
    def share(self) -> float:
        """Used over available."""
        return self.used / self.available


class Scored(Protocol):
    """What a search asks of a design: an `Evaluation`, or less that was worked out faster."""

    @property
    def latency_ms(self) -> float:
        """First in to last out, in milliseconds."""

    @property
    def energy_uj_per_pixel(self) -> float:
        """Whole-board energy of one frame over its pixels, in microjoules."""

    @property
    def resources(self) -> tuple[Resource, ...]:
        """Estimated use of every kind of fabric resource."""


@dataclass(frozen=True)
class UnitTime:
    """Cycles of one unit. busy + stalls + idle = the span they were counted over, exactly.

    `stalls` is by cause; `memory` is a transfer that runs while no beat of it moves.
    """

    name: str
    busy_cycles: int
    stalls: Mapping[str, int]
    idle_cycles: int

    @property
    def total_cycles(self) -> int:
        """Busy, stalled and idle cycles together."""
        return self.busy_cycles + sum(self.stalls.values()) + self.idle_cycles


@dataclass(frozen=True)
class LayerReport:
    """One layer of one frame. `absorbed` names the layers fused into it.

    `utilization` is useful MACs over the peak MACs of its cycles; `intensity` is MACs a byte
    moved (0 when nothing moved); `bound` names the unit that had the least slack, and why.
    """

    name: str
    operator: str
    engine: str
    absorbed: tuple[str, ...]
    start_cycles: int
    cycles: int
    macs: int
    bytes_read: int
    bytes_written: int
    utilization: float
    bound: str
    energy_j: float
    units: tuple[UnitTime, ...]

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written together."""
        return self.bytes_read + self.bytes_written

    @property
    def intensity(self) -> float:
        """Operational intensity: useful MACs a byte of DRAM traffic."""
        return self.macs / self.bytes_moved if self.bytes_moved else 0.0


@dataclass(frozen=True)
class ClockReport:
    """What stands behind a rate: `predicted` or `assumed`, and the predicted clock in MHz with
    its interval."""

    basis: str
    predicted_mhz: float
    low_mhz: float
    high_mhz: float

    @property
    def interval(self) -> str:
        """The prediction in words."""
        return f"{self.predicted_mhz:.0f} ({self.low_mhz:.0f} to {self.high_mhz:.0f})"


@dataclass(frozen=True)
class Displaced:
    """A layer that runs on the host although its engine is in fabric, and why."""

    layer: str
    engine: str
    why: str


@dataclass(frozen=True)
class Evaluation:
    """One design, one workload, one board: all predicted, by the memory model named here.

    `latency_cycles`: first in to last out of the first frame. `period_cycles`: steady frame to
    frame, None when one frame only was simulated. `energy` is of one frame by itself, from first
    in to last out. `layers` and `design_file` (the overlay as TOML) are
    empty unless detail was asked for. `step_cycles`: of one sampler step, None without detail or
    for a network without steps. `displaced`: layers that the fabric was meant to run and could not.
    `unchecked`: what of the board was held against no measurement (`Board.unchecked`).
    `sites_basis`: where the numbers of `resources` come from.
    `network`: a name of the library or an .onnx file, as it was asked for, of which `workload` is
    the graph's own name; "" where nobody asked by name.
    """

    workload: str
    board: str
    overlay: str
    memory_model: str
    clock_hz: int
    frames: int
    pixels: int
    latency_cycles: int
    period_cycles: int | None
    macs: int
    peak_macs_per_cycle: int
    bytes_read: int
    bytes_written: int
    bursts: int
    operations: int
    row_hits: int
    row_misses: int
    refreshes: int
    lower_bound_cycles: int
    energy: Energy
    resources: tuple[Resource, ...]
    units: tuple[UnitTime, ...]
    clock: ClockReport
    program_hash: str
    layers: tuple[LayerReport, ...] = field(default=())
    design_file: str = ""
    step_cycles: int | None = None
    displaced: tuple[Displaced, ...] = ()
    unchecked: tuple[str, ...] = ()
    sites_basis: str = "estimated"
    network: str = ""

    @property
    def board_label(self) -> str:
        """The board's name, marked if anything of it is unchecked (`Board.unchecked`)."""
        return f"{self.board} (unchecked)" if self.unchecked else self.board

    def newly_displaced(self, before: Evaluation) -> tuple[Displaced, ...]:
        """Layers that this design moves to the host and `before` does not."""
        known = {item.layer for item in before.displaced}
        return tuple(item for item in self.displaced if item.layer not in known)

    @property
    def frame_cycles(self) -> int:
        """Cycles a frame costs in a running stream: the period, or the latency without one."""
        return self.latency_cycles if self.period_cycles is None else self.period_cycles

    @property
    def latency_s(self) -> float:
        """First in to last out, in seconds."""
        return self.latency_cycles / self.clock_hz

    @property
    def period_s(self) -> float:
        """Steady frame to frame in seconds (the latency when one frame was simulated)."""
        return self.frame_cycles / self.clock_hz

    @property
    def latency_ms(self) -> float:
        """First in to last out, in milliseconds."""
        return self.latency_s * MILLISECONDS

    @property
    def period_ms(self) -> float:
        """Steady frame to frame, in milliseconds."""
        return self.period_s * MILLISECONDS

    @property
    def fps(self) -> float:
        """Frames a second in a running stream."""
        return 1 / self.period_s

    @property
    def energy_uj_per_pixel(self) -> float:
        """Energy of one frame over its pixels, in microjoules: processor, fabric and DRAM."""
        return self.energy.total_j / self.pixels * MICROJOULES

    @property
    def energy_limits_uj_per_pixel(self) -> tuple[float, float]:
        """The 80 % limits of the energy a pixel, in microjoules."""
        return (self.energy.low / self.pixels * MICROJOULES,
                self.energy.high / self.pixels * MICROJOULES)

    @property
    def utilization(self) -> float:
        """Useful MACs over peak MACs of the whole first frame."""
        return self.macs / (self.latency_cycles * self.peak_macs_per_cycle)

    def resource(self, name: str) -> Resource:
        """The resource of that name; KeyError if there is none."""
        for item in self.resources:
            if item.name == name:
                return item
        raise KeyError(name)
