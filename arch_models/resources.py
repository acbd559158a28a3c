"""Estimates fabric sites of an overlay and says whether a board can hold it.

It times nothing. Memories follow from widths and depths; DSP, LUT and FF are formulas with
coefficients in `data/engine_sites.toml` (fitted to synthesis of the RTL) and `data/resources.toml`.
"""

from __future__ import annotations

from dataclasses import dataclass

from .board import Board
from .engines import MODELS, Resources
from .engines.base import logic
from .overlay import Engine, Fetch, Fusion, Infeasible, Master, Overlay
from .units import ceil_div

#: Shapes of a RAMB18 (depth, width); two make a RAMB36. AMD UG473, simple dual port.
RAMB18_SHAPES = ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36))
RAMB36_SHAPES = ((32768, 1), (16384, 2), (8192, 4), (4096, 9), (2048, 18), (1024, 36), (512, 72))
ACCUMULATOR_BITS = 32
ENTRY_BITS = 64
VECTOR_LANES = 8  # channels of a beat
SOFTMAX_LANES = 4  # channels that the softmax looks up in a cycle
DISTRIBUTED_WORDS = 64  # deeper memories become block RAM


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


def memory(bits: int, depth: int) -> Resources:
    """A memory of words written in parts of 64 bits: block RAM, or LUTs if it is shallow.

    Each part is a memory of its own. Up to 64 words, Yosys takes RAM32M (6 bits of 32 words in 4
    LUTs) or RAM64M (3 bits of 64 words) and a register behind; `resource_grid.csv` has the rows.
    """
    parts, width = ceil_div(bits, ENTRY_BITS), min(bits, ENTRY_BITS)
    if depth > DISTRIBUTED_WORDS:
        return Resources(bram36=parts * bram36(width, depth))
    bits_a_slice = 6 if depth <= DISTRIBUTED_WORDS // 2 else 3
    return Resources(lut=parts * 4 * ceil_div(width, bits_a_slice), ff=parts * width)


def buffers(overlay: Overlay) -> tuple[tuple[str, Resources], ...]:
    """Each on-chip memory. Banks are halves of one memory.

    INPUT and the accumulators have a memory for each column of unroll. With a fused addition the
    skip tile needs ports of its own, so OUTPUT is held twice. Parameters are read as words of one
    entry a requantizer. The lookup reads eight bytes of TABLE at once, from as many copies.
    """
    lane_bits = overlay.position_bytes * 8
    lanes_in = overlay.tn // overlay.channel_block
    lanes_out = overlay.tm // overlay.channel_block
    word_bits = overlay.tm * overlay.tn * overlay.weight_bits

    def lanes(count: int, depth: int) -> Resources:
        return count * memory(lane_bits, depth)

    output = lanes(lanes_out, overlay.output_words * overlay.output_banks)
    found = [
        ("input", lanes(overlay.columns * lanes_in, overlay.input_words * overlay.input_banks)),
        ("weight", memory(word_bits, overlay.weight_words * overlay.weight_banks)),
        ("output", output),
        ("skip", output if Fusion.ADD in overlay.fusions else Resources()),
        ("accumulator", overlay.columns * memory(
            overlay.tm * ACCUMULATOR_BITS, ceil_div(overlay.accumulator_words, overlay.columns))),
        ("parameters", memory(ENTRY_BITS * overlay.requantizers, ceil_div(
            overlay.parameter_entries, overlay.requantizers))),
    ]
    if Engine.ELEMENTWISE in overlay.engines:
        found.append(("vector parameters", memory(
            VECTOR_LANES * ENTRY_BITS, ceil_div(overlay.vector_entries, VECTOR_LANES))))
    if Engine.NORM in overlay.engines:
        one = Resources(bram36=bram36(ENTRY_BITS, overlay.vector_entries))
        # Two sums, then multiplier, offset and shift of every channel of a block.
        found += [("norm parameters", one), ("norm entries", one)]
    if overlay.engines & {Engine.LOOKUP, Engine.SOFTMAX}:
        copies = VECTOR_LANES if Engine.LOOKUP in overlay.engines else SOFTMAX_LANES
        found.append(("table", copies * memory(ENTRY_BITS, ceil_div(overlay.table_bytes, 8))))
    return tuple(found)


def estimate(overlay: Overlay) -> ResourceEstimate:
    """Sites of every part: engines, buffers, masters, control."""
    parts = [(model.engine.value, model.resources(overlay)) for model in MODELS
             if model.engine in overlay.engines]
    parts += [(f"buffer {name}", sites) for name, sites in buffers(overlay)]
    parts += [(f"master {master.name}", logic("master", {"unit": master.width_bits}))
              for master in overlay.masters]
    parts.append(("control", logic("control", {})))
    if overlay.fetch is Fetch.DRAM:
        parts.append(("fetch", logic("fetch", {})))
    return ResourceEstimate(tuple(parts))


#: What helps when a resource runs out, best first.
LEVERS = {
    "dsp": ("dsp_packing", "requantize_cycles", "tm", "tn", "columns", "engines"),
    "bram36": ("input_words", "output_words", "weight_words", "accumulator_words", "columns",
               "fusions"),
    "lut": ("requantize_cycles", "tm", "tn", "engines", "masters"),
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
