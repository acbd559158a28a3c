"""What the fabric takes in a cycle, from its sites: clock tree, activity, leakage, by voltage.

It counts no cycles and knows no network; `energy` multiplies. The coefficients are data
(`data/fitted_energy.toml`), fitted to measured rails and to a vendor's reports by
`studies.energy.fit`.

The law, at a core supply of 1 V and for one cycle in which everything works:

    energy = spine + clock * FF + logic * LUT + block * (DSP48 + RAMB36)

`spine` and `clock` run whether or not anything works. `logic` and `block` are the activity of a
cycle, with the nets that belong to it. Nine measured designs do not tell a DSP48 from a RAMB36, so
that both have one coefficient.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp

from arch_models.engines.base import Resources, coefficients, values
from arch_models.fields import Coefficient
from arch_models.power.intervals import Errors, error_of

FILE = "fitted_energy.toml"
#: The parts of the law: name, and the coefficient behind it.
SPINE, CLOCK = "fabric.spine_pj", "fabric.clock_pj"
LOGIC, BLOCK = "fabric.logic_pj", "fabric.block_pj"
#: A waiting engine sees the operands of others; the share of its activity that this costs.
STALLED = "fabric.stalled_share"
#: What the coefficients leave unexplained of a design, and how two of them hang together.
DESIGN, CORRELATION = "fabric.design", "fabric.logic_with_block"
#: What a design's own error is on.
FAMILY = frozenset({SPINE, CLOCK, LOGIC, BLOCK, STALLED})


def fitted_coefficients() -> tuple[Coefficient, ...]:
    """Every energy coefficient with unit, source, status and error."""
    return coefficients(FILE)


def with_flip_flops(dsp: float, bram36: float, lut: float, ff: float | None = None) -> Resources:
    """Sites of a design of which the flip-flops may be unknown (None: as many as is usual)."""
    known = lut * values(FILE)["fabric.ff_per_lut"] if ff is None else ff
    return Resources(round(dsp), bram36, round(lut), round(known))


def cycle_pj(sites: Resources, table: Mapping[str, float] | None = None) -> dict[str, float]:
    """Picojoules of a working cycle at 1 V by coefficient; together they are the whole."""
    known = table or values(FILE)
    return {SPINE: known[SPINE], CLOCK: known[CLOCK] * sites.ff,
            LOGIC: known[LOGIC] * sites.lut,
            BLOCK: known[BLOCK] * (sites.dsp + sites.bram36)}


def clock_pj(sites: Resources, table: Mapping[str, float] | None = None) -> float:
    """Picojoules of a cycle in which nothing works: the clock tree."""
    known = table or values(FILE)
    return known[SPINE] + known[CLOCK] * sites.ff


def fabric_errors() -> Errors:
    """The errors of the law's coefficients: for 80 % limits of what nobody measured.

    Those of `LOGIC` and `BLOCK` hang together: designs with many of the one have many of the
    other, so that a fit which gives one less gives the other more.
    """
    known = {item.name: item for item in fitted_coefficients()}
    return Errors({name: error_of(item) for name, item in known.items()}, (LOGIC, BLOCK),
                  known[CORRELATION].value, known[DESIGN].error, FAMILY)


def dynamic_ratio(volts: float, table: Mapping[str, float] | None = None) -> float:
    """Energy of a cycle over that at the nominal voltage; `volts` over the nominal ones."""
    known = table or values(FILE)
    return float(volts ** known["voltage.dynamic_exponent"])


def leakage_ratio(volts: float, table: Mapping[str, float] | None = None) -> float:
    """Static power over that at the nominal voltage: the voltage times an exponential of it."""
    known = table or values(FILE)
    return volts * exp(known["voltage.leakage_per_v"] * (volts - 1))


def speed_ratio(volts: float, table: Mapping[str, float] | None = None) -> float:
    """Highest clock over that at the nominal voltage: a straight line, zero below its foot."""
    known = table or values(FILE)
    return max(0.0, 1 - known["voltage.speed_per_v"] * (1 - volts))


def power_w(sites: Resources, clock_hz: float, vccint_v: float = 1.0,
            table: Mapping[str, float] | None = None) -> float:
    """Watts at the core supply of a measured design (1 V nominal), all of which works always."""
    known = table or values(FILE)
    active = sum(cycle_pj(sites, known).values()) * 1e-12 * clock_hz
    return (known["static.vccint_w"] * leakage_ratio(vccint_v, known)
            + active * dynamic_ratio(vccint_v, known))
