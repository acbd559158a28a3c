"""Converts clocks, times, sizes and energies; the one place with powers of ten and of two.

It holds no device numbers; those are coefficients with a source, see `board` and `data/`.
"""

from __future__ import annotations

KIBIBYTE = 1024
MEBIBYTE = 1024 * 1024
NS_PER_S = 1_000_000_000
PJ_PER_J = 1_000_000_000_000


def cycles_from_ns(time_ns: float, clock_hz: int) -> int:
    """Whole clock cycles that cover a time, rounded up."""
    # Work in integer femtoseconds: 0.1 ns steps times a clock are not exact in binary floats.
    femtoseconds = round(time_ns * 1_000_000)
    return -(-femtoseconds * clock_hz // (NS_PER_S * 1_000_000))


def seconds_from_cycles(cycles: int, clock_hz: int) -> float:
    """The time of a number of cycles, in seconds."""
    return cycles / clock_hz


def joules_from_pj(energy_pj: float) -> float:
    """Picojoules to joules."""
    return energy_pj / PJ_PER_J


def joules(power_w: float, time_s: float) -> float:
    """The energy of a constant power over a time."""
    return power_w * time_s


def megahertz(clock_hz: int) -> float:
    """Hertz to megahertz, for people."""
    return clock_hz / 1e6


def ceil_div(value: int, step: int) -> int:
    """The smallest integer at least `value / step`."""
    return -(-value // step)
