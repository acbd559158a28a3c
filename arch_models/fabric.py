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
from math import exp, sqrt

from .engines.base import Resources, coefficients, values
from .fields import Coefficient

FILE = "fitted_energy.toml"
#: The parts of the law: name, and the coefficient behind it.
SPINE, CLOCK = "fabric.spine_pj", "fabric.clock_pj"
LOGIC, BLOCK = "fabric.logic_pj", "fabric.block_pj"
#: A waiting engine sees the operands of others; the share of its activity that this costs.
STALLED = "fabric.stalled_share"
#: What the coefficients leave unexplained of a design, and how two of them hang together.
DESIGN, CORRELATION = "fabric.design", "fabric.logic_with_block"
NOMINAL_V = 1.0


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


def spread_pj(parts: Mapping[str, float]) -> float:
    """Standard deviation of the logarithm of a sum of parts, for a design nobody measured.

    `parts`: energy by coefficient. The errors of `LOGIC` and `BLOCK` hang together: designs with
    many of the one have many of the other, so that a fit which gives one less gives the other
    more.
    """
    errors = {item.name: item.error for item in fitted_coefficients()}
    total = sum(parts.values())
    if total <= 0:
        return 0.0
    shares = {name: errors[name] * part / total for name, part in parts.items()}
    both = 2 * values(FILE)[CORRELATION] * shares.get(LOGIC, 0.0) * shares.get(BLOCK, 0.0)
    return sqrt(max(0.0, sum(item * item for item in shares.values()) + both)
                + errors[DESIGN] ** 2)


def dynamic_ratio(vccint_v: float, table: Mapping[str, float] | None = None) -> float:
    """Energy of a cycle over that at 1 V: a power of the voltage."""
    known = table or values(FILE)
    return float((vccint_v / NOMINAL_V) ** known["voltage.dynamic_exponent"])


def leakage_ratio(vccint_v: float, table: Mapping[str, float] | None = None) -> float:
    """Static power over that at 1 V: the voltage times an exponential of it."""
    known = table or values(FILE)
    return vccint_v * exp(known["voltage.leakage_per_v"] * (vccint_v - NOMINAL_V))


def speed_ratio(vccint_v: float, table: Mapping[str, float] | None = None) -> float:
    """Highest clock over that at 1 V: a straight line, zero below its foot."""
    known = table or values(FILE)
    return max(0.0, 1 - known["voltage.speed_per_v"] * (NOMINAL_V - vccint_v))


def power_w(sites: Resources, clock_hz: float, vccint_v: float = NOMINAL_V,
            table: Mapping[str, float] | None = None) -> float:
    """Watts at the core supply of a design all of which works in every cycle."""
    known = table or values(FILE)
    active = sum(cycle_pj(sites, known).values()) * 1e-12 * clock_hz
    return (known["static.vccint_w"] * leakage_ratio(vccint_v, known)
            + active * dynamic_ratio(vccint_v, known))
