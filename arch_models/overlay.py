"""The overlay: one accelerator as a frozen value, readable from a design file.

It maps no layer and computes no time; `check` says whether a board can hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from arch_models.fields import FieldError, between, build, identifier, label, one_of, prose
from arch_models.files import read_toml
from arch_models.literature import (
    AS_TILED,
    NOT_STATED,
    Loops,
    Origin,
    Phases,
    Reads,
    Sites,
    check_origin,
    filled_in,
)
from arch_models.output import toml_text, write_text
from arch_models.units import divisor_from

DESIGNS = Path(__file__).parent / "designs"
#: What an overlay without a board is counted at; every board that ships makes it.
NOMINAL_CLOCK_HZ = 100_000_000


class Rate(StrEnum):
    """Where an overlay's clock comes from."""

    PREDICTED = "predicted"  # the fastest rate of the board that the fabric is predicted to reach
    FIXED = "fixed"  # as it stands


class Engine(StrEnum):
    """The engines an overlay may have in fabric. What is not there runs on the host."""

    CONVOLUTION = "convolution"
    ELEMENTWISE = "elementwise"  # add, multiply, affine, flow sum
    LOOKUP = "lookup"
    POOL = "pool"
    UPSAMPLE = "upsample"
    SOFTMAX = "softmax"
    GRID_SAMPLE = "grid_sample"
    NORM = "norm"  # group norm in two passes
    DEPTHWISE = "depthwise"  # convolutions of one channel each


#: Engines that the weight master feeds, besides the convolution: sets of constants on chip.
PARAMETER_SETS = {Engine.ELEMENTWISE: 2, Engine.LOOKUP: 2, Engine.SOFTMAX: 1, Engine.NORM: 1,
                  Engine.DEPTHWISE: 2}
#: Units of a program that are no masters.
UNIT_NAMES = frozenset({*(engine.value for engine in Engine), "host"})


class Role(StrEnum):
    """What a memory master moves."""

    INPUT = "input"  # tiles into INPUT (and skip tiles into OUTPUT)
    WEIGHT = "weight"  # weights, parameters, tables
    OUTPUT = "output"  # tiles from OUTPUT
    FETCH = "fetch"  # descriptors


class Fusion(StrEnum):
    """What the convolution absorbs."""

    POOL = "pool"  # 2x2 average behind it
    UPSAMPLE = "upsample"  # nearest x2 in front of it
    ADD = "add"  # residual addition behind it


class Fetch(StrEnum):
    """Where the units' descriptors come from."""

    ON_CHIP = "on_chip"  # queues are filled ahead and never empty
    DRAM = "dram"  # a fetch master reads them


class Driver(StrEnum):
    """Who writes the registers."""

    C = "c"
    PYTHON = "python"


class Start(StrEnum):
    """How often the host starts the accelerator."""

    FRAME = "frame"  # once for each stretch of layers between host operators
    LAYER = "layer"


class Wait(StrEnum):
    """What the host does while the fabric works."""

    POLL = "poll"  # one core reads a status register
    SLEEP = "sleep"  # until the interrupt


class Layout(StrEnum):
    """How tensors are laid out in DRAM."""

    DENSE = "dense"  # 64-byte aligned, one behind the other, lifetimes reused
    ROW_ALIGNED = "row_aligned"  # every tensor starts a DRAM row
    BANK_SPREAD = "bank_spread"  # as row_aligned, neighbours start in different banks


@dataclass(frozen=True, slots=True)
class Master:
    """One AXI master. See `cosim.program.table.Unit` for the timing fields."""

    name: str
    role: Role
    port: str
    width_bits: int = 64
    outstanding: int = 8
    max_burst_beats: int = 16
    setup_cycles: int = 10
    tail_cycles: int = 4
    overlap_runs: bool = True
    run_setup_cycles: int = 0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Timing of one engine that replaces the coefficients of the overlay's backend."""

    engine: Engine
    fill_cycles: int
    interval_cycles: int = 1
    drain_cycles: int = 0


@dataclass(frozen=True, slots=True)
class Control:
    """How the host drives the accelerator."""

    driver: Driver = Driver.C
    start: Start = Start.FRAME
    register_writes: int = 8  # at each start
    cache_maintenance: bool = True  # flush and invalidate around operators left to the host
    wait: Wait = Wait.POLL


@dataclass(frozen=True, slots=True)
class Overlay:
    """The accelerator. Sizes of buffers are words of one bank; see docs/design.md.

    INPUT words hold `tn` values, OUTPUT words `tm`, WEIGHT words `tm * tn`. `columns`: output
    positions at once. `requantize_cycles`: cycles in which the results of those positions leave, at
    least; more cycles, fewer requantizers (`result_cycles`, `requantizers`). `dsp_packing`: two
    int8 MACs a DSP48. `narrow_weights`: convolutions with all weights in -8 .. 7 keep two a byte,
    in DRAM and WEIGHT. `zero_points`: each convolution pads with a value of its own, not with 0,
    and sums and products take zero points away. `channel_block`: channels that lie together in
    DRAM. `backend`: which timing coefficients hold: a table of `data/engines.toml`, or a file of
    `cosim calibrate`.
    `clock_gating`: the clock of an engine or a master stops while it has no operation; shells and
    memories go on. `headroom`: the share of every kind of site that must stay free. `build`: a file
    of `cosim calibrate --reports`, what a vendor's build reached. `rate`: what becomes of
    `clock_hz` on a board (`clock.clocked`). `parameter_entries`, `vector_entries`, `table_bytes`:
    bytes / 8, bytes / 8 and bytes. `most_in_words`, `most_out_words`: bound on the words of one
    convolution operation (0: as many as fit), for accelerators that make one pass a word;
    `tile_rows`, `tile_columns`: its output rows and columns, at most (0: the mapping chooses).
    `origin`, `phases`, `reads`, `sites`, `loops`: of somebody else's hardware (`literature`).
    `depthwise_taps`: of a kernel row, that the depthwise engine multiplies a cycle and channel.
    `tensor_memory_kib`: block RAM for tensors between layers (`arch_models.memory`); 0: none.
    """

    name: str
    tm: int
    tn: int
    engines: frozenset[Engine]
    masters: tuple[Master, ...]
    clock_hz: int = NOMINAL_CLOCK_HZ
    rate: Rate = Rate.PREDICTED
    columns: int = 1
    requantize_cycles: int = 8
    dsp_packing: bool = False
    data_bits: int = 8
    weight_bits: int = 8
    narrow_weights: bool = False
    zero_points: bool = False
    channel_block: int = 8
    input_words: int = 8192
    weight_words: int = 512
    output_words: int = 2048
    input_banks: int = 2
    weight_banks: int = 2
    output_banks: int = 2
    accumulator_words: int = 2048
    most_in_words: int = 0
    most_out_words: int = 0
    tile_rows: int = 0
    tile_columns: int = 0
    parameter_entries: int = 2048
    vector_entries: int = 512
    table_bytes: int = 1024
    depthwise_taps: int = 3
    tensor_memory_kib: int = 0
    fusions: frozenset[Fusion] = frozenset(Fusion)
    fetch: Fetch = Fetch.ON_CHIP
    control: Control = Control()
    layout: Layout = Layout.DENSE
    backend: str = "rtl"
    build: str = ""
    clock_gating: bool = False
    headroom: float = 0.0
    pipelines: tuple[Pipeline, ...] = ()
    origin: Origin = Origin.OWN
    phases: Phases = Phases.OVERLAPPED
    reads: Reads = Reads.FREE
    sites: Sites = NOT_STATED
    loops: Loops = AS_TILED

    def __post_init__(self) -> None:
        """Refuse values that describe no hardware; whether a board holds it is `check`."""
        for name, (least, most) in BOUNDS.items():
            between(name, getattr(self, name), least, most)
        one_of("columns", self.columns, (1, 2, 3, 4))
        one_of("tensor_memory_kib", self.tensor_memory_kib, TENSOR_MEMORIES_KIB)
        for name in ("input_banks", "weight_banks", "output_banks"):
            one_of(name, getattr(self, name), (1, 2))
        for name in ("data_bits", "weight_bits"):
            one_of(name, getattr(self, name), (8, 16, 32))
        for name in ("tm", "tn"):
            value = getattr(self, name)
            if value % self.channel_block:
                near = max(1, round(value / self.channel_block)) * self.channel_block
                raise FieldError(f"{name} is {value}, must be a multiple of channel_block "
                                 f"{self.channel_block}; nearest {near}")
        for name in ("dsp_packing", "narrow_weights", "zero_points"):
            if getattr(self, name) and (self.data_bits, self.weight_bits) != (8, 8):
                raise FieldError(f"{name} is true with data_bits {self.data_bits}, weight_bits "
                                 f"{self.weight_bits}; needs 8 and 8")
        for name in ("narrow_weights", "zero_points"):
            if getattr(self, name) and (self.channel_block, self.origin) != (8, Origin.OWN):
                raise FieldError(f"{name} is true; needs channel_block 8 and origin 'own'")
        label(self.name, "name")
        prose(self.backend, "backend")
        prose(self.build, "build")
        _check_parts(self)
        _check_masters(self)

    @property
    def position_bytes(self) -> int:
        """Bytes of one position of one channel block in DRAM."""
        return self.channel_block * self.data_bits // 8

    @property
    def macs_per_cycle(self) -> int:
        """Multiply-accumulates of the convolution engine in a cycle."""
        return self.tm * self.tn * self.columns

    @property
    def requantizers(self) -> int:
        """Channels that are requantized in a cycle: the fewest that divide `tm` and suffice."""
        return divisor_from(-(-self.tm // max(1, self.requantize_cycles // self.columns)), self.tm)

    @property
    def result_cycles(self) -> int:
        """Cycles in which the results of `columns` positions leave, one column after another."""
        return self.columns * self.tm // self.requantizers

    def masters_of(self, role: Role) -> tuple[Master, ...]:
        """The masters with a role, in file order."""
        return tuple(master for master in self.masters if master.role is role)


#: Least and most of a design's numbers. No FPGA comes near the upper ones; they keep every sum of
#: a simulation in 64 bits, and every loop over a size short.
MOST_WORDS, MOST_CYCLES, MOST_MASTERS = 1 << 24, 1 << 20, 32
BOUNDS = {
    "clock_hz": (1_000_000, 2_000_000_000), "tm": (1, 4096), "tn": (1, 4096), "headroom": (0, 0.9),
    "requantize_cycles": (1, MOST_CYCLES), "channel_block": (1, 4096), "depthwise_taps": (1, 7),
    **{name: (1, MOST_WORDS) for name in (
        "input_words", "weight_words", "output_words", "accumulator_words", "parameter_entries",
        "vector_entries", "table_bytes")},
    **{name: (0, MOST_WORDS) for name in (
        "most_in_words", "most_out_words", "tile_rows", "tile_columns")},
}
PORT_WIDTHS = tuple(1 << power for power in range(3, 11))
#: An address in the tensor memory counts modulo its size.
TENSOR_MEMORIES_KIB = (0, *(1 << power for power in range(2, 14)))
MASTER_BOUNDS = {
    "outstanding": (1, 4096), "max_burst_beats": (1, 4096), "setup_cycles": (0, MOST_CYCLES),
    "tail_cycles": (0, MOST_CYCLES), "run_setup_cycles": (0, MOST_CYCLES),
}


@dataclass(frozen=True, slots=True)
class Infeasible:
    """Why a design cannot be built or a layer cannot be mapped. A value, not an exception.

    `gap` is demand - bound (positive). `levers`: fields whose change would help, best first.
    """

    field: str
    demand: float
    bound: float
    unit: str
    levers: tuple[str, ...]
    where: str = ""

    @property
    def gap(self) -> float:
        """How much too much (or too little) it is."""
        return abs(self.demand - self.bound)

    def __str__(self) -> str:
        """One line for a person."""
        where = f"{self.where}: " if self.where else ""
        return (f"{where}{self.field} needs {self.demand:.10g} {self.unit}, bound "
                f"{self.bound:.10g} (gap {self.gap:.10g}); try: {', '.join(self.levers)}")


def _check_masters(overlay: Overlay) -> None:
    names = [identifier(master.name, f"masters[{index}].name")
             for index, master in enumerate(overlay.masters)]
    for name in names:
        if name in UNIT_NAMES:
            raise FieldError(f"masters: name {name!r} is an engine's or the host's, and what they "
                             f"do is counted by name; nearest {name + '_in'!r}")
    if len(set(names)) != len(names):
        raise FieldError(f"masters: names {names} must differ")
    for role in (Role.INPUT, Role.WEIGHT, Role.OUTPUT):
        if not overlay.masters_of(role):
            raise FieldError(f"masters: none has role {role.value!r}; add one")
    for role in (Role.WEIGHT, Role.FETCH):
        if len(overlay.masters_of(role)) > 1:
            raise FieldError(f"masters: {len(overlay.masters_of(role))} with role "
                             f"{role.value!r}, at most 1")
    if overlay.fetch is Fetch.DRAM and not overlay.masters_of(Role.FETCH):
        raise FieldError("fetch is 'dram', no master has role 'fetch'; add one or take 'on_chip'")
    for master in overlay.masters:
        one_of(f"masters.{master.name}.width_bits", master.width_bits, PORT_WIDTHS)
        for name, (least, most) in MASTER_BOUNDS.items():
            between(f"masters.{master.name}.{name}", getattr(master, name), least, most)


def _check_parts(overlay: Overlay) -> None:
    """Everything else that is counted or named."""
    check_origin(overlay.origin, overlay.phases, overlay.reads, overlay.sites, overlay.loops,
                 overlay.control.start.value)
    between("control.register_writes", overlay.control.register_writes, 0, MOST_CYCLES)
    if len(overlay.masters) > MOST_MASTERS:
        raise FieldError(f"masters: {len(overlay.masters)} of them, must be at most "
                         f"{MOST_MASTERS}")
    engines = [part.engine for part in overlay.pipelines]
    if len(set(engines)) != len(engines):
        raise FieldError("pipelines: engines must differ")
    for part in overlay.pipelines:
        for name in ("fill_cycles", "interval_cycles", "drain_cycles"):
            between(f"pipelines.{part.engine.value}.{name}", getattr(part, name),
                     int(name == "interval_cycles"), MOST_CYCLES)


def load_overlay(path: str | Path) -> Overlay:
    """An overlay from a design file (TOML), or a shipped design by name (`default`).

    Raises `FieldError` that names the file, the field, the value and the nearest legal choice.
    """
    text = str(path)
    shipped = DESIGNS / f"{text.replace('-', '_')}.toml"
    path = shipped if not text.endswith(".toml") and shipped.exists() else Path(text)
    try:
        return overlay_of_table(read_toml(path))
    except FieldError as error:
        if str(path) in str(error):
            raise
        raise FieldError(f"{path}: {error}") from None


def overlay_of_table(table: Mapping[str, Any], where: str = "") -> Overlay:
    """An overlay from the table of a design file; a rate that it gives is fixed."""
    return build(Overlay, {**({"rate": "fixed"} if "clock_hz" in table else {}),
                           **filled_in(table)}, where)


def save_overlay(overlay: Overlay, path: str | Path) -> None:
    """Write a design file that `load_overlay` reads back as an equal value."""
    write_text(Path(path), overlay_toml(overlay))


def overlay_toml(overlay: Overlay) -> str:
    """The design file of an overlay."""
    return toml_text(overlay, frozenset({"loops"}) if overlay.loops == AS_TILED else frozenset())


def default_overlay() -> Overlay:
    """The shipped design at its nominal clock, whatever a board may give it."""
    return replace(load_overlay("default"), rate=Rate.FIXED)
