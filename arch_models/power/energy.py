"""Turns what happened (cycles, work by part, bytes, host time) into joules with 80 % limits.

It counts nothing itself and is calibrated to no headline figure. The fabric's law is `fabric`, the
DRAM's `dram`; powers are the board's; `data/fitted_energy.toml` says of every fitted coefficient
where it comes from and how far it is off.

Each joule is booked once, under a part of the system and under the coefficient it was counted with.
The fabric: leakage with time; the clock tree of every part with the cycles in which it is clocked;
activity with the cycles in which the part works. A part that waits while others work still sees
their operands and keeps a share of its activity; while the host works and the fabric has nothing
to do, the clock tree alone goes on. A memory that nobody reads or writes takes no activity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from arch_models.board import Board
from arch_models.engines.base import Resources, values
from arch_models.fields import Coefficient
from arch_models.overlay import Overlay, Wait
from arch_models.power.fabric import (
    BLOCK,
    CLOCK,
    FILE,
    LOGIC,
    SPINE,
    STALLED,
    dynamic_ratio,
    fabric_errors,
    fitted_coefficients,
    leakage_ratio,
)
from arch_models.power.intervals import (
    OWN_VARIANCE,
    Errors,
    error_of,
    limits,
    ratio_limits,
    spread,
    variances,
)
from arch_models.resources import parts_of
from arch_models.units import NS_PER_S, joules, joules_from_pj, seconds_from_cycles

PS, TRAFFIC, STATIC, TREE, DDR = "PS", "PS traffic", "PL static", "PL clock spine", "DDR"
FABRIC = "PL "
CONTROL, BUFFER = "control", "buffer "
PADS, PS_BYTE = "ddr.pads_pj_per_byte", "ps.traffic_pj_per_byte"
FLAT_ROW = "ddr.flat_bytes_per_activate"
SCALE = "power.fabric_scale"
#: Sites by part of the fabric.
Sites = tuple[tuple[str, Resources], ...]
#: Coefficients of the fabric: what it takes beyond leakage is `fabric.FAMILY`.
LEAKAGE = frozenset({"power.vccint_static_w", "power.aux_static_w"})


@dataclass(frozen=True)
class Activity:
    """What happened in a stretch of time.

    `cycles`: fabric cycles, the whole stretch; `host_s`: of it, seconds in which the processor
    works on operators, starts and cache upkeep. `working`: cycles by part of the design (the names
    of `resources.parts_of`) in which the part works; of a buffer, accesses over its width.
    `toggling`: the same of parts whose data are known, weighted by how much they toggle (1: noise).
    `clocked`: cycles in which an engine's clock goes on if it is gated, filling and draining too.
    `bytes_read`, `bytes_written`: DRAM traffic of
    the fabric. `row_misses` None: a memory model without rows.
    """

    cycles: Any
    clock_hz: Any
    host_s: float = 0.0
    working: Mapping[str, float] = field(default_factory=dict)
    toggling: Mapping[str, float] = field(default_factory=dict)
    bytes_read: int = 0
    bytes_written: int = 0
    row_misses: int | None = None
    clocked: Mapping[str, float] = field(default_factory=dict)


class Share(NamedTuple):
    """Joules of one part, counted with one coefficient; an array where the activity has some."""

    part: str
    coefficient: str
    joules: Any


@dataclass(frozen=True)
class Energy:
    """Joules of a stretch of time, by part and by coefficient; either adds up to the whole.

    `low`, `high`: 80 % limits of the whole, from the coefficients' errors. `sites`: of each part of
    the fabric, as far as known.
    """

    parts: Mapping[str, float]
    coefficients: Mapping[str, float] = field(default_factory=dict)
    low: float = 0.0
    high: float = 0.0
    sites: Sites = ()

    @property
    def total_j(self) -> float:
        """The whole."""
        return _added(self.parts.values())

    @property
    def ps_j(self) -> float:
        """The processor, with what the fabric's traffic takes in it."""
        return self.parts.get(PS, 0.0) + self.parts.get(TRAFFIC, 0.0)

    @property
    def pl_static_j(self) -> float:
        """Leakage and the other supplies of the fabric."""
        return self.parts.get(STATIC, 0.0)

    @property
    def pl_dynamic_j(self) -> float:
        """Clock tree and activity of the whole fabric."""
        return _added(value for name, value in self.parts.items()
                      if name.startswith(FABRIC) and name != STATIC)

    @property
    def ddr_j(self) -> float:
        """The DRAM's supply."""
        return self.parts.get(DDR, 0.0)


def _added(numbers: Iterable[float]) -> float:
    """One after another. `sum` of floats rounds otherwise from Python 3.12 on, and otherwise than
    sums of arrays."""
    total = 0.0
    for value in numbers:
        total = total + value
    return total


def energy_coefficients() -> tuple[Coefficient, ...]:
    """Every fitted energy coefficient with unit, source, status and error."""
    return fitted_coefficients()


def energy(activity: Activity, overlay: Overlay, board: Board) -> Energy:
    """The energy of a stretch of time, with its limits."""
    parts: dict[str, float] = {}
    by_coefficient: dict[str, float] = {}
    for part, name, value in shares(activity, overlay, board):
        parts[part] = parts.get(part, 0.0) + float(value)
        by_coefficient[name] = by_coefficient.get(name, 0.0) + float(value)
    low, high = limits(_added(parts.values()), spread(by_coefficient, errors(board)))
    return Energy(parts, by_coefficient, low, high, parts_of(overlay))


def total_joules(activity: Activity, overlay: Overlay, board: Board, sites: Sites | None = None
                 ) -> Any:
    """The whole of `energy` alone; arrays of cycles, clocks, counts and sites give arrays.

    It grows with every site, and with every count while `host_s` stays; with `host_s` it grows if
    the cycles grow by as much. So least sites and counts give least joules (`docs/proof.md`).
    """
    parts: dict[str, Any] = {}
    for part, _, value in shares(activity, overlay, board, sites):
        parts[part] = parts.get(part, 0.0) + value
    return _added(parts.values())


def shares(activity: Activity, overlay: Overlay, board: Board, sites: Sites | None = None
           ) -> list[Share]:
    """Every joule under its part and its coefficient, each once. `sites`: in place of those of
    `parts_of`."""
    time_s = seconds_from_cycles(activity.cycles, activity.clock_hz)
    return [*_processor(activity, overlay, board, time_s),
            *_fabric(activity, overlay, board, time_s, sites or parts_of(overlay)),
            *_dram(activity, board, time_s)]


def _processor(activity: Activity, overlay: Overlay, board: Board, time_s: Any) -> list[Share]:
    power = board.power
    name = "ps_sleep_w" if overlay.control.wait is Wait.SLEEP else "ps_poll_w"
    moved = activity.bytes_read + activity.bytes_written
    return [
        Share(PS, "power.ps_work_w", joules(power.ps_work_w, activity.host_s)),
        Share(PS, f"power.{name}", joules(getattr(power, name), time_s - activity.host_s)),
        Share(TRAFFIC, PS_BYTE, joules_from_pj(moved * values(FILE)[PS_BYTE]))]


def _fabric(activity: Activity, overlay: Overlay, board: Board, time_s: Any,
            found_sites: Sites) -> list[Share]:
    table, power = values(FILE), board.power
    volts = dynamic_ratio(power.vccint_ratio) * power.fabric_scale
    cycles, working_cycles = activity.cycles, activity.cycles - activity.host_s * activity.clock_hz
    found = [
        Share(STATIC, "power.vccint_static_w",
              joules(power.vccint_static_w * leakage_ratio(power.vccint_ratio), time_s)),
        Share(STATIC, "power.aux_static_w", joules(power.aux_static_w, time_s)),
        Share(TREE, SPINE, joules_from_pj(table[SPINE] * volts * cycles))]
    engines = {item.value for item in overlay.engines}
    for part, sites in found_sites:
        works = activity.working.get(part, 0.0)
        stops = overlay.clock_gating and part in engines
        clocked = np.maximum(activity.clocked.get(part, 0.0), works) if stops else cycles
        if part == CONTROL:
            works, waits = working_cycles, None
        elif part.startswith(BUFFER):
            waits = None
        else:
            waits = (clocked if stops else working_cycles) - works
        name = FABRIC + part
        active = activity.toggling.get(part, works)
        logic = table[LOGIC] * volts * sites.lut
        block = table[BLOCK] * volts * (sites.dsp + sites.bram36)
        if np.any(sites.ff):
            found.append(Share(name, CLOCK, joules_from_pj(table[CLOCK] * volts * sites.ff
                                                           * clocked)))
        if np.any(sites.lut):
            found.append(Share(name, LOGIC, joules_from_pj(logic * active)))
        if np.any(sites.dsp + sites.bram36):
            found.append(Share(name, BLOCK, joules_from_pj(block * active)))
        if waits is not None:
            found.append(Share(name, STALLED, joules_from_pj(
                table[STALLED] * (logic + block) * waits)))
    return found


def _dram(activity: Activity, board: Board, time_s: Any) -> list[Share]:
    table, power, ddr = values(FILE), board.power, board.ddr
    dram = power.dram
    read, written = activity.bytes_read, activity.bytes_written
    misses: float
    if activity.row_misses is None:
        misses = (read + written) / table[FLAT_ROW]
    else:
        misses = activity.row_misses
    row_pj = dram.activate_pj(*(clocks * NS_PER_S / ddr.clock_hz
                                for clocks in (ddr.t_ras_min, ddr.t_rp)))
    refreshes = time_s * ddr.clock_hz / ddr.t_refi
    return [
        Share(DDR, "power.dram.idd3n_ma", joules(dram.standby_w, time_s)),
        Share(DDR, "power.ddr_bus_w", joules(power.ddr_bus_w, time_s)),
        Share(DDR, "power.dram.idd5b_ma", joules_from_pj(refreshes * dram.refresh_pj)),
        Share(DDR, "power.dram.idd4r_ma", joules_from_pj(read * dram.read_pj_per_byte)),
        Share(DDR, "power.dram.idd4w_ma", joules_from_pj(written * dram.write_pj_per_byte)),
        Share(DDR, "power.dram.idd0_ma", joules_from_pj(misses * row_pj)),
        Share(DDR, PADS, joules_from_pj((read + written) * table[PADS]))]


@lru_cache(maxsize=64)
def errors(board: Board) -> Errors:
    """Errors of every coefficient that a joule on this board is counted with."""
    fabric = fabric_errors()
    of_board = {item.name: error_of(item) for item in board.coefficients
                if item.name.startswith("power.")}
    if SCALE in of_board:  # measured on this board: its error takes the place of the law's
        return Errors({**fabric.of, **dict.fromkeys(fabric.family, 0.0), **of_board},
                      design=of_board[SCALE], family=fabric.family)
    return Errors({**fabric.of, **of_board}, fabric.pair, fabric.correlation, fabric.design,
                  fabric.family)


def limits_of(found: Energy, board: Board, names: frozenset[str] | None = None
              ) -> tuple[float, float]:
    """The 80 % limits of the joules counted with some coefficients (None: all), together."""
    some = {name: value for name, value in found.coefficients.items()
            if names is None or name in names}
    return limits(_added(some.values()), spread(some, errors(board)))


def widest(found: Energy, board: Board) -> list[tuple[str, float]]:
    """What makes the width of the limits: coefficients with their part of the variance, most
    first; the parts add up to 1."""
    parts = variances(found.coefficients, errors(board))
    whole = sum(parts.values())
    if whole <= 0:
        return []
    return sorted(((name, value / whole) for name, value in parts.items()),
                  key=lambda item: -item[1])


@dataclass(frozen=True)
class Ratio:
    """One energy over another, with its 80 % limits."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """For a person."""
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(one: Energy, other: Energy, board: Board) -> Ratio:
    """one over other on one board: what both share cancels, so the limits are narrower.

    With the same sites they are one design, run in two ways: what sites do not tell is shared.
    """
    own = 0.0 if one.sites and one.sites == other.sites else OWN_VARIANCE
    return Ratio(*ratio_limits(one.coefficients, other.coefficients, errors(board), own))
