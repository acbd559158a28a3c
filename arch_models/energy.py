"""Turns counts (cycles, products, buffer accesses, bytes) into joules with coefficients from data.

It counts nothing itself and is calibrated to no headline figure; `data/energy.toml` says for
every coefficient where it comes from, guesses included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from arch_models.board import Board
from arch_models.engines.base import coefficients, values
from arch_models.fields import Coefficient
from arch_models.overlay import Overlay
from arch_models.resources import estimate
from arch_models.units import joules, joules_from_pj

FILE = "energy.toml"


@dataclass(frozen=True)
class Activity:
    """What happened in a stretch of time. Dictionaries are by unit (engine or master) name.

    `dsp_macs`: products that DSP slices computed, padding included. `beats`: positions of 8
    channels that a streaming engine handled. `bram_accesses`: reads and writes of 64 bits.
    `row_misses` None: a memory model without rows.
    """

    time_s: float
    cycles: int
    dsp_macs: int = 0
    beats: Mapping[str, int] = field(default_factory=dict)
    bram_accesses: int = 0
    bytes_read: Mapping[str, int] = field(default_factory=dict)
    bytes_written: Mapping[str, int] = field(default_factory=dict)
    row_misses: int | None = None


@dataclass(frozen=True)
class EnergySplit:
    """Joules by where they go. `engines_j`: dynamic energy of each engine, master and control."""

    ps_j: float
    pl_static_j: float
    engines_j: Mapping[str, float]
    bram_j: float
    ddr_j: float

    @property
    def pl_dynamic_j(self) -> float:
        """All fabric engines, masters and control together, without BRAM."""
        return _added(self.engines_j.values())

    @property
    def total_j(self) -> float:
        """The whole, as far as the split covers it."""
        return (self.ps_j + self.pl_static_j + _added(self.engines_j.values()) + self.bram_j
                + self.ddr_j)


def _added(values: Iterable[float]) -> float:
    """One after another. `sum` of floats rounds otherwise from Python 3.12 on, and otherwise than
    sums of arrays."""
    total = 0.0
    for value in values:
        total = total + value
    return total


def energy_coefficients() -> tuple[Coefficient, ...]:
    """Every energy coefficient with unit, source and status."""
    return coefficients(FILE)


def energy(activity: Activity, overlay: Overlay, board: Board) -> EnergySplit:
    """The energy of a stretch of time: powers times time, plus counts times coefficients.

    The clock of every part runs all the time, so it is booked on each part by its flip-flops.
    """
    table = values(FILE)
    parts = estimate(overlay).parts
    engines = {name.removeprefix("master "): joules_from_pj(
        sites.ff * table["clock_pj_per_ff_cycle"] * activity.cycles)
        for name, sites in parts if sites.ff}
    product = table["dsp_packed_mac_pj" if overlay.dsp_packing else "dsp_mac_pj"]
    _add(engines, "convolution", activity.dsp_macs * (product + table["adder_mac_pj"]))
    for name, beats in activity.beats.items():
        _add(engines, name, beats * table["stream_beat_pj"])
    for moved in (activity.bytes_read, activity.bytes_written):
        for name, size in moved.items():
            _add(engines, name, size * table["axi_byte_pj"])
    return EnergySplit(
        joules(board.power.ps_w, activity.time_s),
        joules(board.power.pl_static_w, activity.time_s),
        engines,
        joules_from_pj(activity.bram_accesses * table["bram_access_pj"]),
        _ddr_joules(activity, board, table))


def _add(engines: dict[str, float], name: str, energy_pj: float) -> None:
    engines[name] = engines.get(name, 0.0) + joules_from_pj(energy_pj)


def _ddr_joules(activity: Activity, board: Board, table: Mapping[str, float]) -> float:
    read, written = sum(activity.bytes_read.values()), sum(activity.bytes_written.values())
    misses: float
    if activity.row_misses is None:
        misses = (read + written) / table["ddr_flat_bytes_per_activate"]
    else:
        misses = activity.row_misses
    refreshes = activity.time_s * board.ddr.clock_hz / board.ddr.t_refi
    dynamic = (read * (table["ddr_read_pj_per_byte"] + table["ddr_io_pj_per_byte"])
               + written * (table["ddr_write_pj_per_byte"] + table["ddr_io_pj_per_byte"])
               + misses * table["ddr_activate_pj"] + refreshes * table["ddr_refresh_pj"])
    return joules_from_pj(dynamic) + joules(board.power.ddr_standby_w, activity.time_s)
