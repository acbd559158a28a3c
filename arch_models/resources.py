"""Estimates fabric sites of an overlay and says whether a board can hold it.

It times nothing. Block RAM follows exactly from widths and depths; DSP, LUT and FF are formulas
with coefficients in `data/resources.toml`.
"""

from __future__ import annotations

from dataclasses import dataclass

from .board import Board
from .engines import MODELS, Resources
from .engines.base import values
from .overlay import Engine, Fetch, Fusion, Infeasible, Master, Overlay
from .units import ceil_div

#: Shapes of a RAMB18 (depth, width); two make a RAMB36. AMD UG473, simple dual port.
RAMB18_SHAPES = ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36))
RAMB36_SHAPES = ((32768, 1), (16384, 2), (8192, 4), (4096, 9), (2048, 18), (1024, 36), (512, 72))
ACCUMULATOR_BITS = 32
ENTRY_BITS = 64


@dataclass(frozen=True)
class ResourceEstimate:
    """Sites by part of the design, and their sum."""

    parts: tuple[tuple[str, Resources], ...]

    @property
    def total(self) -> Resources:
        """All parts together."""
        found = Resources()
        for _, part in self.parts:
            found = found + part
        return found

    def part(self, name: str) -> Resources:
        """The sites of one part; none if the design has no such part."""
        return dict(self.parts).get(name, Resources())


def bram36(width_bits: int, depth: int) -> float:
    """Block RAMs of one memory in RAMB36 (halves are RAMB18): the best of all shapes."""
    halves = min(ceil_div(width_bits, width) * ceil_div(depth, deep)
                 for deep, width in RAMB18_SHAPES)
    wholes = min(ceil_div(width_bits, width) * ceil_div(depth, deep)
                 for deep, width in RAMB36_SHAPES)
    return min(float(wholes), halves / 2)


def buffers(overlay: Overlay) -> tuple[tuple[str, float], ...]:
    """RAMB36 of each on-chip memory. Banks are halves of one memory; lanes are memories.

    INPUT has a copy a column of unroll. With a fused addition the skip tile needs ports of its
    own, so OUTPUT is held twice.
    """
    lane_bits = overlay.position_bytes * 8
    lanes_in = overlay.tn // overlay.channel_block
    lanes_out = overlay.tm // overlay.channel_block
    word_bits = overlay.tm * overlay.tn * overlay.weight_bits
    output = lanes_out * bram36(lane_bits, overlay.output_words * overlay.output_banks)
    accumulator = overlay.columns * bram36(
        overlay.tm * ACCUMULATOR_BITS, ceil_div(overlay.accumulator_words, overlay.columns))
    found = [
        ("input", overlay.columns * lanes_in * bram36(
            lane_bits, overlay.input_words * overlay.input_banks)),
        ("weight", bram36(word_bits, overlay.weight_words * overlay.weight_banks)),
        ("output", output),
        ("skip", output if Fusion.ADD in overlay.fusions else 0.0),
        ("accumulator", accumulator),
        ("parameters", bram36(ENTRY_BITS, overlay.parameter_entries)),
    ]
    if Engine.ELEMENTWISE in overlay.engines:
        found.append(("vector parameters", bram36(ENTRY_BITS, overlay.vector_entries)))
    if Engine.NORM in overlay.engines:
        found.append(("norm parameters", bram36(ENTRY_BITS, overlay.vector_entries)))
        # Two sums, then multiplier, offset and shift of every channel of a block.
        found.append(("norm entries", bram36(ENTRY_BITS, overlay.vector_entries)))
    if overlay.engines & {Engine.LOOKUP, Engine.SOFTMAX}:
        found.append(("table", bram36(ENTRY_BITS, ceil_div(overlay.table_bytes, 8))))
    return tuple(found)


def estimate(overlay: Overlay) -> ResourceEstimate:
    """Sites of every part: engines, buffers, masters, control."""
    parts = [(model.engine.value, model.resources(overlay)) for model in MODELS
             if model.engine in overlay.engines]
    parts += [(f"buffer {name}", Resources(bram36=count)) for name, count in buffers(overlay)]
    parts += [(f"master {master.name}", _logic("master", master.width_bits))
              for master in overlay.masters]
    parts.append(("control", _logic("control", 1)))
    if overlay.fetch is Fetch.DRAM:
        parts.append(("fetch", _logic("fetch", 1)))
    return ResourceEstimate(tuple(parts))


def _logic(name: str, units: int) -> Resources:
    table = values("resources.toml")

    def site(kind: str) -> float:
        return (table.get(f"{name}.{kind}", 0)
                + table.get(f"{name}.{kind}_per_unit", 0) * units)

    return Resources(round(site("dsp")), site("bram36"), round(site("lut")), round(site("ff")))


#: What helps when a resource runs out, best first.
LEVERS = {
    "dsp": ("dsp_packing", "tm", "tn", "columns", "engines"),
    "bram36": ("input_words", "output_words", "weight_words", "accumulator_words", "columns",
               "fusions"),
    "lut": ("tm", "tn", "engines", "masters"),
    "ff": ("tm", "tn", "engines", "masters"),
}


def check(overlay: Overlay, board: Board) -> Infeasible | None:
    """The first thing that a board cannot give an overlay; None if it can hold it.

    Looked at in order: ports and their widths, bursts, clock, DSP, BRAM36, LUT, FF. Raises
    `FieldError` for a port that the board does not have.
    """
    return (check_masters(overlay.masters, board) or check_clock(overlay.clock_hz, board)
            or check_sites(estimate(overlay).total, board))


def check_masters(masters: tuple[Master, ...], board: Board) -> Infeasible | None:
    """Do the masters fit the board's ports?"""
    widths: dict[str, int] = {}
    for master in masters:
        port = board.port(master.port)
        where = f"masters.{master.name}"
        if master.width_bits not in port.widths_bits:
            near = min((abs(bits - master.width_bits), bits) for bits in port.widths_bits)[1]
            return Infeasible("width_bits", master.width_bits, near, "bits",
                              (f"{where}.width_bits", f"{where}.port"), where)
        if widths.setdefault(master.port, master.width_bits) != master.width_bits:
            return Infeasible("width_bits", master.width_bits, widths[master.port], "bits",
                              (f"{where}.width_bits", f"{where}.port"), where)
        if master.max_burst_beats > port.max_burst_beats:
            return Infeasible("max_burst_beats", master.max_burst_beats, port.max_burst_beats,
                              "beats", (f"{where}.max_burst_beats",), where)
    return None


def check_clock(clock_hz: int, board: Board) -> Infeasible | None:
    """Does the board give this clock?"""
    if clock_hz > board.clocks.usual_max_hz:
        return Infeasible("clock_hz", clock_hz, board.clocks.usual_max_hz, "Hz", ("clock_hz",))
    if clock_hz < board.clocks.minimum_hz:
        return Infeasible("clock_hz", clock_hz, board.clocks.minimum_hz, "Hz", ("clock_hz",))
    return None


def check_sites(total: Resources, board: Board) -> Infeasible | None:
    """Has the part so many sites?"""
    for name in ("dsp", "bram36", "lut", "ff"):
        need, have = getattr(total, name), getattr(board.part, name)
        if need > have:
            return Infeasible(name, need, have, "sites", LEVERS[name])
    return None
