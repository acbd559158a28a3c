"""Converts clocks, times, sizes and energies; the one place with powers of ten and of two.

It holds no device numbers; those are coefficients with a source, see `board` and `data/`.
"""

from __future__ import annotations

import re
from functools import cache

#: What a letter behind a number multiplies it by.
SI = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
#: No clock of a board is slower: a smaller number of hertz has lost its unit.
SLOWEST_HZ = 1e5
MEBIBYTE = 1024 * 1024
NS_PER_S = 1_000_000_000
PJ_PER_J = 1_000_000_000_000
#: Sums of floats in another order differ by less; bounds give way by so much.
ROUNDING = 1e-9


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


@cache
def divisor_from(least: int, whole: int) -> int:
    """The smallest divisor of `whole` that is at least `least`."""
    return next(count for count in range(least, whole + 1) if whole % count == 0)


def hertz(text: str) -> int:
    """A frequency as a person writes it: 100M, 100 MHz, 0.1G, 100e6 or 100000000, in whole Hz.

    `ValueError` with the rule and the nearest legal text: for what is no number, and for a bare
    number too small for any clock, which has lost its unit.
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,2})?)\s*([kMG]?)(?:[hH][zZ])?\s*",
                         text)
    if found is None:
        raise ValueError("must be a frequency, for example 100M or 100 MHz")
    number, letter = found.groups()
    value = float(number) * SI[letter]
    if value < SLOWEST_HZ:
        raise ValueError(f"is {value:g} Hz, slower than any clock; nearest {number}M, that is "
                         f"{number} MHz" if not letter else
                         f"is {value:g} Hz, slower than any clock; nearest {SLOWEST_HZ:g}")
    return round(value)
