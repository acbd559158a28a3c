"""Fits the coefficients of the resource model to a grid of Yosys runs, and checks whole designs.

`resource_grid` synthesizes; it places and routes nothing and checks no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from arch_models.engines.base import DATA, Resources, logic
from arch_models.overlay import load_overlay
from arch_models.resources import (
    UNPACK,
    buffer_sites,
    control_terms,
    estimate,
    master_terms,
    norm_memories,
    places_terms,
    unpack_terms,
)
from studies.plain.errors import unknown
from studies.plain.files import write_text
from studies.resources.resource_grid import (
    ENGINES,
    FORMS,
    GRID_FILE,
    PARTS,
    Sites,
    counted,
    points,
    read_grid,
    synthesize,
    top_of,
    whole,
    write_grid,
)

SITES_FILE = DATA / "engine_sites.toml"
#: What is counted exactly, and so not fitted.
EXACT = {("convolution", "dsp")}
#: Terms of `places_terms` without which no row is predicted worse from the others.
PLACES_LUT = ("input", "skip", "word_beat", "pair", "engine", "chosen", "pair_word")
PLACES_FF = ("input", "skip", "in_beat", "pair", "engine", "out_beat", "word_beat", "pair_word",
             "pair_beat")
#: Of `unpack_terms`: a packed array has registers for its weights.
UNPACK_LUT, UNPACK_FF = ("weight", "channel"), ("kept_weight", "channel")
#: Parts without coefficients: the model counts memories, and adds parts up.
UNFITTED = frozenset({"buffer", "whole"})


@dataclass(frozen=True)
class Fit:
    """Coefficients by term (`""`: the constant), and the worst relative error of rows that were
    left out one at a time; of a row without sites, the error itself."""

    part: str
    site: str
    coefficients: dict[str, float]
    rows: int
    cross_validated_error: float


Fits = Sequence[Fit]


def terms_of(row: Sites, site: str) -> dict[str, float]:
    """What the sites of a row may grow with: the terms of the resource model itself."""
    if row.part == "control":
        found = control_terms(row.overlay)
    elif row.part == "places":
        found = places_terms(row.overlay)
        found = {name: found[name] for name in (PLACES_FF if site == "ff" else PLACES_LUT)}
    elif row.part == UNPACK:
        found = unpack_terms(row.overlay)
        found = {name: found[name] for name in (UNPACK_FF if site == "ff" else UNPACK_LUT)}
    elif row.part in ("read_master", "write_master"):
        found = master_terms(row.width, row.channels)
    else:
        model = ENGINES[row.part]
        found = {**model.terms(row.overlay), "channel": row.channels}
        found = {name: found[name] for name in model.fitted.get(site, ())}
    return {"": 1.0, **found}


def memories_of(row: Sites) -> Resources:
    """The memories inside a part, which the model counts by their sizes."""
    if row.part == "buffer":
        return buffer_sites(row.depth, row.lanes, **FORMS[row.form])
    return norm_memories(row.depth) if row.part == "norm" else Resources()


def fit(rows: Sequence[Sites], part: str, site: str) -> Fit:
    """Least squares of relative errors; every row is also predicted from the others.

    Terms that no row has are left out, and the last ones if there are fewer rows than that needs.
    Raises ValueError with fewer than two rows.
    """
    mine = [row for row in rows if row.part == part]
    found = [terms_of(row, site) for row in mine]
    names = [name for name in (found[0] if found else {}) if any(item[name] for item in found)]
    if len(mine) < 2:
        raise ValueError(f"{part}: {len(mine)} rows, needs two at least")
    names = names[: len(mine) - 1]
    inputs = np.array([[item[name] for name in names] for item in found], np.float64)
    counts = np.array([getattr(row, site) for row in mine], np.float64)
    target = counts - [getattr(memories_of(row), site) for row in mine]
    weight = 1.0 / np.maximum(counts, 1.0)

    def solve(keep: np.ndarray) -> np.ndarray:
        scaled = inputs[keep] * weight[keep, None]
        return np.linalg.lstsq(scaled, (target * weight)[keep], rcond=None)[0]

    every = np.arange(len(mine))
    worst = max(abs(float(inputs[index] @ solve(every != index)) - target[index]) * weight[index]
                for index in every)
    # Adding zero makes the -0.0 of some processors' kernels the 0.0 of others.
    values = dict(zip(names, (round(float(item), 3) + 0.0 for item in solve(every == every)),
                      strict=True))
    return Fit(part, site, values, len(mine), round(float(worst), 4))


def fits(rows: Sequence[Sites]) -> list[Fit]:
    """DSP, LUT and FF of every part in the grid; block RAM of parts that have some."""
    found = dict.fromkeys(row.part for row in rows if row.part not in UNFITTED)
    return [fit(rows, part, site) for part in found for site in ("dsp", "bram36", "lut", "ff")
            if (part, site) not in EXACT and any(
                getattr(row, site) > getattr(memories_of(row), site)
                for row in rows if row.part == part)]


def array_dsp(row: Sites) -> int:
    """DSPs of the convolution: a product each or two, four a requantizer (two of them for the
    fused addition), four for addresses. Exact, so nothing is fitted."""
    products = row.overlay.macs_per_cycle
    return (-(-products // 2) if row.dsp_packing else products) + 4 * row.overlay.requantizers + 4


def modelled(row: Sites) -> Resources:
    """What the resource model says of a row."""
    if row.part == "whole":
        return estimate(row.overlay).total
    held = memories_of(row)
    if row.part == "buffer":
        return held
    found = logic(row.part, {name: value for site in ("dsp", "lut", "ff")
                             for name, value in terms_of(row, site).items()}) + held
    return replace(found, dsp=array_dsp(row)) if row.part == "convolution" else found


def sites_toml(rows: Sequence[Sites]) -> str:
    """The file of coefficients that the resource model reads."""
    lines = ["# Written by `cosim study resources --write`; do not edit.",
             "# Fitted to resource_grid.csv: Yosys synth_xilinx of parts of hw/rtl, not placed "
             "or routed.",
             "", "[convolution]"]
    for name, value in (("dsp", 4), ("dsp_per_requantizer", 2), ("dsp_per_adder", 2)):
        lines.append(_line(name, value, "counted on every row of resource_grid.csv, exact",
                           "computed"))
    last = "convolution"
    for item in fits(rows):
        if item.part != last:
            lines += ["", f"[{item.part}]"]
            last = item.part
        source = (f"least squares over {item.rows} rows of resource_grid.csv; a row left out is "
                  f"missed by at most {item.cross_validated_error:.1%}")
        lines += [_line(f"{item.site}_per_{term}" if term else item.site, value, source,
                        "computed") for term, value in item.coefficients.items()]
    return "\n".join(lines) + "\n"


def _line(name: str, value: float, source: str, status: str) -> str:
    unit = f"sites/{name.split('_per_')[1]}" if "_per_" in name else "sites"
    return (f'{name} = {{ value = {value:g}, unit = "{unit}", source = "{source}", '
            f'status = "{status}" }}')


@dataclass(frozen=True)
class Beside:
    """Sites of one kind: of a design synthesized as one IP, and as the model estimates."""

    site: str
    yosys: float
    model: float


Besides = Sequence[Beside]


def compare_whole(design: str) -> tuple[Beside, ...]:
    """Every kind of site of a design; `FieldError` for a design that cannot be read."""
    overlay = load_overlay(design)
    found, predicted = counted(Sites("whole"), synthesize(*whole(overlay))), estimate(overlay).total
    return tuple(Beside(name, getattr(found, name), getattr(predicted, name))
                 for name in ("dsp", "bram36", "lut", "ff"))


def told_whole(found: Sequence[Beside]) -> str:
    """The same as a table in text, with the model's error in percent."""
    lines = [f"{'site':8}{'Yosys':>10}{'model':>10}{'error %':>10}"]
    lines += [f"{item.site:8}{item.yosys:>10g}{item.model:>10g}"
              f"{100 * (item.model / max(item.yosys, 1) - 1):>10.1f}" for item in found]
    return "\n".join(lines)


def _grid(parts: Sequence[str], path: Path) -> Iterable[Sites]:
    """Rows of the grid: some parts synthesized now, the others as the file has them."""
    kept = read_grid(path) if path.exists() else []
    for part in PARTS:
        if part in parts:
            yield from (counted(row, synthesize(*top_of(row))) for row in points(part))
        else:
            yield from (row for row in kept if row.part == part)


def synthesize_parts(parts: Sequence[str], grid: Path = GRID_FILE) -> None:
    """Make the rows of some parts (all of them if none is named) of a grid file anew.

    Raises `UserError` for an unknown part, `RuntimeError` where Yosys fails; the file is then as
    it was.
    """
    for name in parts:
        if name not in PARTS:
            raise unknown("part", name, PARTS)
    write_grid(_grid(parts or PARTS, grid), grid)


def told(rows: Sequence[Sites]) -> str:
    """Each fit in a line: its terms, and the error on rows that were left out."""
    lines = []
    for item in fits(rows):
        terms = " + ".join(f"{value:g} {name or 'constant'}"
                           for name, value in item.coefficients.items())
        lines.append(f"{item.part:12} {item.site:6} {terms:60} left out: "
                     f"{item.cross_validated_error:.1%} of {item.rows} rows")
    return "\n".join(lines)


def write_coefficients(rows: Sequence[Sites]) -> None:
    """Write engine_sites.toml, which the resource model reads."""
    write_text(SITES_FILE, sites_toml(rows))
