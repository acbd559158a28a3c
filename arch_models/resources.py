"""Estimates fabric sites of an overlay and says whether a board can hold it.

It times nothing. Memories follow from widths and depths; DSP, LUT and FF are formulas with
coefficients in `data/engine_sites.toml`, fitted to synthesis of the RTL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

from arch_models.board import Board
from arch_models.builds import Build, build_of
from arch_models.channels import channels, master_channels
from arch_models.engines import MODELS, EngineModel, Resources
from arch_models.engines.base import VECTOR_LANES, logic, values
from arch_models.literature import Origin
from arch_models.memory import tensor_bytes, tensor_misfit, tensor_word_bytes
from arch_models.overlay import Engine, Fusion, Infeasible, Master, Overlay, Role
from arch_models.units import ceil_div

Shapes = tuple[tuple[int, int], ...]
#: The name of a part, and what works its sites out.
Made = tuple[str, Callable[[], Resources]]
#: Shapes of a RAMB18 (depth, width); two make a RAMB36. AMD UG473, simple dual port; the widest is
#: none if both ports write.
RAMB18_SHAPES = ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36))
RAMB36_SHAPES = ((32768, 1), (16384, 2), (8192, 4), (4096, 9), (2048, 18), (1024, 36), (512, 72))
ACCUMULATOR_BITS = 32
ENTRY_BITS = 64
#: The part of a design whose WEIGHT holds narrow weights; the array alone works with it.
UNPACK = "unpack"
#: What pads with a value of its own each operation, in front of engines that pad, and what the
#: elementwise engine takes from operands and adds to sums.
ZERO_POINTS = "zero points"
#: LUTs of it a byte, and of the array's queue besides: synthesis of the convolution with 8 and 16
#: channels, one and two columns and packed products (84, 155, 148 and 75 LUTs), and of the
#: engine of groups (71). No part has more flip-flops for it than 8.
ZERO_POINT_LUT, ZERO_POINT_QUEUE_LUT = 8.9, 13
#: Of the elementwise engine: synthesis with and without (2,963 and 2,883 LUTs, 3,842 and 3,605
#: flip-flops, 18 DSP48 each).
ZERO_POINT_SUMS = Resources(lut=80, ff=237)
SOFTMAX_LANES = 4  # channels that the softmax looks up in a cycle
DISTRIBUTED_WORDS = 64  # deeper memories become block RAM
#: Of a tensor memory's logic, besides what grows with its words (`tensor_memory_sites`).
TENSOR_LUT, TENSOR_FF = 97, 61
#: LUTs a lane of a buffer that is written, or read, two beats a cycle; that two masters write, a
#: beat each a cycle, or two: `resource_grid.csv`.
PAIR_WRITE_LUT, PAIR_READ_LUT, BOTH_LUT, BOTH_PAIRS_LUT = 216, 130, 88, 668


@dataclass(frozen=True)
class ResourceEstimate:
    """Sites by part of the design, and their sum."""

    parts: tuple[tuple[str, Resources], ...]

    @property
    def total(self) -> Resources:
        """All parts together."""
        return sum((part for _, part in self.parts), Resources())

    def part(self, name: str) -> Resources:
        """The sites of one part; none if the design has no such part."""
        return dict(self.parts).get(name, Resources())


def bram36(width_bits: int, depth: int, small: Shapes = RAMB18_SHAPES,
           large: Shapes = RAMB36_SHAPES) -> float:
    """Block RAMs of one memory in RAMB36 (halves are RAMB18): the best of all shapes."""
    halves = min(ceil_div(width_bits, width) * ceil_div(depth, deep) for deep, width in small)
    wholes = min(ceil_div(width_bits, width) * ceil_div(depth, deep) for deep, width in large)
    return min(float(wholes), halves / 2)


def memory(bits: int, depth: int, grain_bits: int = ENTRY_BITS) -> Resources:
    """A memory of words written in parts of 64 bits: block RAM, or LUTs if it is shallow.

    Each part is a memory of its own. Up to 64 words, Yosys takes RAM32M (6 bits of 32 words in 4
    LUTs) or RAM64M (3 bits of 64 words), whole ones for `grain_bits` that are written alone, and a
    register behind; `resource_grid.csv` has the rows.
    """
    parts, width = ceil_div(bits, ENTRY_BITS), min(bits, ENTRY_BITS)
    if depth > DISTRIBUTED_WORDS:
        # Yosys takes no halves for words wider than one port of a RAMB36.
        one = bram36(width, depth)
        return Resources(bram36=parts * (ceil(one) if width > 36 else one))
    grain = min(width, grain_bits)
    bits_a_slice = 6 if depth <= DISTRIBUTED_WORDS // 2 else 3
    return Resources(lut=parts * ceil_div(width, grain) * 4 * ceil_div(grain, bits_a_slice),
                     ff=parts * width)


def buffer_sites(depth: int, lanes: int, writers: tuple[int, ...] = (1,), banks: int = 1,
                 pairs: bool = False, by_bytes: bool = False, bits: int = ENTRY_BITS
                 ) -> Resources:
    """A buffer of `depth` words of `lanes` parts of `bits`; arguments as `hw.rtl.buffers.Buffer`.

    Beats that come or go in pairs need two memories of even and odd words, and LUTs that join
    them. With two writers each bank is a memory of its own, whose ports both write, so that a
    block RAM has half the width.
    """
    both, slots = len(writers) > 1, max(writers)
    count = lanes * (banks if both else 1) * (2 if pairs or slots > 1 else 1)
    rows = max(2, ceil_div(depth * lanes, count))
    writes = ((0, PAIR_WRITE_LUT), (BOTH_LUT, BOTH_PAIRS_LUT))[both][slots > 1]
    joins = PAIR_READ_LUT * pairs + writes
    if both and rows > DISTRIBUTED_WORDS:
        one = Resources(bram36=bram36(bits, rows, RAMB18_SHAPES[:-1], RAMB36_SHAPES[:-1]))
    else:
        one = memory(bits, rows, 8 if by_bytes else ENTRY_BITS)
    return count * one + Resources(lut=lanes * joins)


def buffers(overlay: Overlay) -> tuple[tuple[str, Resources], ...]:
    """Each on-chip memory. Banks are halves of one memory, but for two input masters.

    INPUT and the accumulators have a memory for each column of unroll. OUTPUT is held once for
    each output master, and with a fused addition once more, for the skip tile. Parameters are
    read as words of one entry a requantizer; synthesis drops the bits that no engine reads. The
    lookup reads eight bytes of TABLE at once, from as many copies.
    """
    return tuple((name, made()) for name, made in _each_buffer(overlay))


def _each_buffer(overlay: Overlay) -> Iterator[Made]:
    lane_bits = overlay.position_bytes * 8
    lanes_out = overlay.tm // overlay.channel_block
    loads = tuple(_slots(master) for master in overlay.masters_of(Role.INPUT))
    constants = tuple(_slots(master) for master in overlay.masters_of(Role.WEIGHT))
    output_words = overlay.output_words * overlay.output_banks
    yield "input", lambda: overlay.columns * buffer_sites(
        overlay.input_words * overlay.input_banks, overlay.tn // overlay.channel_block, loads,
        overlay.input_banks, bits=lane_bits)
    yield "output", lambda: sum(
        (buffer_sites(output_words, lanes_out, pairs=_slots(master) > 1, bits=lane_bits)
         for master in overlay.masters_of(Role.OUTPUT)), Resources())
    if Engine.CONVOLUTION in overlay.engines:
        if Fusion.ADD in overlay.fusions:
            yield "skip", partial(buffer_sites, output_words, lanes_out, loads[:1],
                                  bits=lane_bits)
        word_bits = overlay.tm * overlay.tn * overlay.weight_bits
        yield "weight", partial(buffer_sites, overlay.weight_words * overlay.weight_banks,
                                ceil_div(word_bits, ENTRY_BITS), constants, by_bytes=True)
        yield "accumulator", lambda: overlay.columns * buffer_sites(
            ceil_div(overlay.accumulator_words, overlay.columns),
            ceil_div(overlay.tm * ACCUMULATOR_BITS, ENTRY_BITS))
    if overlay.tensor_memory_kib:
        yield "tensors", partial(tensor_memory_sites, overlay)
    for model in MODELS:
        if model.engine in overlay.engines:
            for item in model.memories(overlay):
                yield item.name, partial(buffer_sites, item.words, item.lanes, constants,
                                         bits=item.bits)
    if overlay.engines & {Engine.LOOKUP, Engine.SOFTMAX}:
        copies = VECTOR_LANES if Engine.LOOKUP in overlay.engines else SOFTMAX_LANES
        yield "table", lambda: copies * buffer_sites(
            ceil_div(overlay.table_bytes, 8), 1, constants)


def tensor_memory_sites(overlay: Overlay) -> Resources:
    """The tensor memory: words as wide as its masters, written in parts of 64 bits; its two walks
    with their queues, which grow with the bits of an address; and what it adds to both masters, a
    LUT for each bit that is read.

    Synthesis of it with 11 to 14 such bits, and of masters with and without: `test_rtl_resources`.
    """
    word = tensor_word_bytes(overlay)
    lanes, words = max(1, word * 8 // ENTRY_BITS), tensor_bytes(overlay) // word
    bits = (words - 1).bit_length()
    return buffer_sites(words, lanes, bits=min(word * 8, ENTRY_BITS)) + Resources(
        lut=TENSOR_LUT + ceil_div(7 * bits, 3) + word * 8, ff=TENSOR_FF + 2 * bits)


def _slots(master: Master) -> int:
    """Beats that a master moves in a cycle."""
    return max(1, master.width_bits // ENTRY_BITS)


def norm_memories(entries: int) -> Resources:
    """What the norm engine holds inside: sums and entries of so many channels.

    Registers behind LUT memories are the first ones of the engine's shift registers.
    """
    return 2 * replace(memory(VECTOR_LANES * ENTRY_BITS, ceil_div(entries, VECTOR_LANES)), ff=0)


def master_terms(width_bits: int, ends: int) -> dict[str, float]:
    """What the sites of a master grow with, besides a constant.

    `half`, `pair`: a port moves half a beat of 64 bits a cycle, or two; `channel`: `ends` there.
    """
    return {"half": float(width_bits < ENTRY_BITS), "pair": float(width_bits > ENTRY_BITS),
            "channel": float(ends)}


def control_terms(overlay: Overlay) -> dict[str, float]:
    """What registers, descriptor feed, tokens and counters grow with, besides a constant."""
    moving = [item for item in overlay.masters if item.role is not Role.FETCH]
    return {"unit": float(len(overlay.engines) + len(moving)), "master": float(len(moving)),
            "channel": float(channels(overlay))}


def places_terms(overlay: Overlay) -> dict[str, float]:
    """What the logic between masters, memories and engines grows with, besides a constant.

    Counters of places: `input`: masters; `skip`: OUTPUT words are wider or narrower than INPUT
    words, so that skip tiles have places of their own; `pair`: the weight master moves two beats a
    cycle. Bytes on their way: `in_beat`, `out_beat`, `word_beat`: 8 channels of an INPUT and of an
    OUTPUT word, 64 bytes of a WEIGHT word; `pair_beat`, `pair_word`: the first and the last by
    pairs; `chosen`: output masters that choose a beat of an OUTPUT word; `engine`: one chosen
    among so many.
    """
    beats_in, beats_out = overlay.tn / VECTOR_LANES, overlay.tm / VECTOR_LANES
    pair = max(map(_slots, overlay.masters_of(Role.WEIGHT))) > 1
    return {
        "input": float(len(overlay.masters_of(Role.INPUT))),
        "skip": float(Fusion.ADD in overlay.fusions and overlay.tm != overlay.tn),
        "pair": float(pair), "in_beat": beats_in, "word_beat": beats_in * beats_out,
        "pair_beat": beats_in * pair, "pair_word": beats_in * beats_out * pair,
        "engine": float(len(overlay.engines)), "out_beat": beats_out,
        "chosen": float(len(overlay.masters_of(Role.OUTPUT)) * (beats_out > 1)),
    }


def unpack_terms(overlay: Overlay) -> dict[str, float]:
    """What the logic that makes bytes of narrow weights grows with."""
    weights = float(overlay.tm * overlay.tn)
    return {"weight": weights, "channel": float(overlay.tn),
            "kept_weight": 0.0 if overlay.dsp_packing else weights}


def estimate(overlay: Overlay) -> ResourceEstimate:
    """Sites of every part: engines, buffers, masters, control.

    The descriptor feed of the control reads descriptors whether they are fetched or not, so a
    fetch master costs itself alone.
    """
    return ResourceEstimate(tuple((name, made()) for name, made in _each_part(overlay)))


def part_sites(overlay: Overlay, name: str) -> Resources:
    """As `estimate(overlay).part(name)`: no other part is worked out."""
    return next((made() for part, made in _each_part(overlay) if part == name), Resources())


def _each_part(overlay: Overlay) -> Iterator[Made]:
    for model in MODELS:
        if model.engine in overlay.engines:
            yield model.engine.value, partial(_engine_sites, model, overlay)
    if overlay.narrow_weights and Engine.CONVOLUTION in overlay.engines:
        yield UNPACK, lambda: logic(UNPACK, unpack_terms(overlay))
    if overlay.zero_points:
        yield ZERO_POINTS, partial(zero_point_sites, overlay)
    for name, made in _each_buffer(overlay):
        yield f"buffer {name}", made
    for master in overlay.masters:
        yield f"master {master.name}", partial(_master_sites, overlay, master)
    yield "control", lambda: (
        logic("control", control_terms(overlay)) + logic("places", places_terms(overlay)))


def _engine_sites(model: EngineModel, overlay: Overlay) -> Resources:
    held = norm_memories(overlay.vector_entries) if model.engine is Engine.NORM else Resources()
    return model.resources(overlay) + held


def _master_sites(overlay: Overlay, master: Master) -> Resources:
    kind = "write_master" if master.role is Role.OUTPUT else "read_master"
    return logic(kind, master_terms(master.width_bits, master_channels(overlay, master.role)))


def zero_point_sites(overlay: Overlay) -> Resources:
    """What chooses between a pixel and the padding, bit by bit, and what sums and products add."""
    padded = sum(model.padded_bytes(overlay) for model in MODELS if model.engine in overlay.engines)
    found = Resources(lut=round(ZERO_POINT_LUT * padded) + ZERO_POINT_QUEUE_LUT * (padded > 0))
    return found + ZERO_POINT_SUMS if Engine.ELEMENTWISE in overlay.engines else found


def block_design(overlay: Overlay) -> Resources:
    """What connects the masters and registers to the processor: `data/block_design.toml`, guesses.

    It is no part of `estimate`, which says what synthesis of the accelerator alone says.
    """
    table, masters = values("block_design.toml"), len(overlay.masters)
    return Resources(lut=round(table["fixed.lut"] + masters * table["master.lut"]),
                     ff=round(table["fixed.ff"] + masters * table["master.ff"]))


def whole_design(overlay: Overlay) -> Resources:
    """What the model says of a whole build: the accelerator and the block design."""
    return estimate(overlay).total + block_design(overlay)


def needed(overlay: Overlay) -> Resources:
    """All the sites that a design takes of a part: what the vendor's build that it names took, else
    `whole_design`. `FieldError` for a build of another design."""
    made = build_of(overlay)
    return whole_design(overlay) if made is None else Resources(
        round(made.dsp), made.bram36, round(made.lut), round(made.ff))


def parts_of(overlay: Overlay) -> tuple[tuple[str, Resources], ...]:
    """Sites by part, of which energy is counted: estimated, and where the design names a vendor's
    build, each kind in proportion to what that took."""
    parts, made = estimate(overlay).parts, build_of(overlay)
    return parts if made is None else tuple(
        (name, _scaled(sites, whole_design(overlay), made)) for name, sites in parts)


def _scaled(sites: Resources, whole: Resources, made: Build) -> Resources:
    """Sites of a part as the build's were to the model's; a kind that the model has none of stays.

    Whole sites, and halves of a block RAM.
    """
    dsp, bram, lut, ff = (
        getattr(sites, name) * (getattr(made, name) / getattr(whole, name)
                                if getattr(whole, name) else 1.0)
        for name in ("dsp", "bram36", "lut", "ff"))
    return Resources(round(dsp), round(2 * bram) / 2, round(lut), round(ff))


#: What helps when a resource runs out, best first.
LEVERS = {
    "dsp": ("dsp_packing", "requantize_cycles", "tm", "tn", "columns", "engines"),
    "bram36": ("input_words", "output_words", "weight_words", "accumulator_words", "columns",
               "fusions", "tensor_memory_kib"),
    "lut": ("requantize_cycles", "tm", "tn", "engines", "masters", "narrow_weights",
            "zero_points"),
    "ff": ("tm", "tn", "engines", "masters"),
}


def check(overlay: Overlay, board: Board) -> Infeasible | None:
    """The first thing that a board cannot give an overlay; None if it can hold it.

    Looked at in order: ports and their widths, bursts, masters of a tensor memory, clock, DSP,
    BRAM36, LUT, FF; the sites of our own RTL only, since a design of the literature was built.
    Raises `FieldError` for a port that the board does not have.
    """
    return (check_masters(overlay.masters, board) or tensor_misfit(overlay)
            or check_clock(overlay.clock_hz, board)
            or (check_sites(needed(overlay), board, overlay.headroom)
                if overlay.origin is Origin.OWN else None))


def check_masters(masters: tuple[Master, ...], board: Board) -> Infeasible | None:
    """Do the masters fit the board's ports?"""
    widths: dict[str, int] = {}
    for master in masters:
        port = board.port(master.port)
        where = f"masters.{master.name}"
        if master.width_bits not in port.widths_bits:
            return Infeasible("width_bits", master.width_bits,
                              port.nearest_width(master.width_bits), "bits",
                              (f"{where}.width_bits", f"{where}.port"), where)
        if widths.setdefault(master.port, master.width_bits) != master.width_bits:
            return Infeasible("width_bits", master.width_bits, widths[master.port], "bits",
                              (f"{where}.width_bits", f"{where}.port"), where)
        if master.max_burst_beats > port.max_burst_beats:
            return Infeasible("max_burst_beats", master.max_burst_beats, port.max_burst_beats,
                              "beats", (f"{where}.max_burst_beats",), where)
    return None


def check_clock(clock_hz: int, board: Board) -> Infeasible | None:
    """Does the board make this clock? If not, `available` is the rate nearest to it."""
    if board.clocks.makes(clock_hz):
        return None
    near = min(board.clocks.nearest_hz(clock_hz), key=lambda rate: abs(rate - clock_hz))
    return Infeasible("clock_hz", clock_hz, near, "Hz", ("clock_hz",))


def sites_of(overlay: Overlay) -> Resources:
    """The sites that an output shows: what the file states of a described design, else `needed`."""
    if not overlay.sites.stated:
        return needed(overlay)
    found = overlay.sites
    return Resources(dsp=found.dsp, bram36=found.bram36, lut=found.lut, ff=found.ff)


def sites_basis(overlay: Overlay) -> str:
    """Where those numbers come from, in words."""
    if overlay.sites.stated:
        return "stated in the design file"
    if overlay.origin is Origin.LITERATURE:
        return "as our RTL would take, not this design's"
    return "measured by a vendor's build" if overlay.build else "estimated"


def check_sites(total: Resources, board: Board, headroom: float = 0.0) -> Infeasible | None:
    """Has the part so many sites, with the share `headroom` of each kind left free?"""
    for name in ("dsp", "bram36", "lut", "ff"):
        need, have = getattr(total, name), getattr(board.part, name) * (1 - headroom)
        if need > have:
            levers = LEVERS[name] + (("headroom",) if headroom else ())
            return Infeasible(name, need, have, "sites", levers)
    return None
