"""The parts of the RTL that the resource model sums, over a grid, synthesized with Yosys.

It fits nothing (`fit_resources` does), places and routes nothing and checks no clock:
`synth_xilinx` counts are before optimization by the vendor's tools.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Module, Signal

from arch_models.board import load_board
from arch_models.engines import MODELS
from arch_models.fields import with_value
from arch_models.overlay import Engine, Overlay, Role, default_overlay
from arch_models.resources import UNPACK
from cosim.lowering.wiring import wire
from cosim.program.table import ARGUMENT_COUNT, Column, Program
from hw.interface.configuration import COMMAND_DEPTH
from hw.rtl.buffers import Buffer
from hw.rtl.engines import BUILT
from hw.rtl.engines.unpack import Unpack
from hw.rtl.ip.axi_shell import AxiShell
from hw.rtl.overlay_top import OverlayTop
from hw.rtl.ports import READ_SIGNALS, WRITE_SIGNALS
from hw.rtl.transfers.bursts import MasterConfig
from hw.rtl.transfers.masters import ReadMaster, WriteMaster
from studies.resources.netlist import synthesized

GRID_FILE = Path(__file__).parents[2] / "arch_models" / "data" / "resource_grid.csv"
ENGINES = {model.engine.value: model for model in MODELS}
#: `places`: what an overlay has between masters, memories and engines. `control`: what is left.
#: `whole`: all of it.
PARTS = (*ENGINES, UNPACK, "read_master", "write_master", "control", "places", "buffer", "whole")
#: tm, tn, dsp_packing.
UNPACKS = ((8, 8, 0), (16, 8, 0), (8, 16, 0), (16, 16, 0), (24, 8, 0), (16, 16, 1), (16, 8, 1),
           (8, 8, 1), (8, 16, 1))
MASTERS = tuple((width, channels) for width in (32, 64, 128) for channels in (3, 7, 12))
#: engines, inputs, outputs, width of every port.
CONTROLS = ((1, 1, 1, 64), (2, 1, 1, 64), (4, 1, 1, 64), (7, 1, 1, 64), (8, 1, 1, 64),
            (4, 2, 1, 64), (4, 1, 2, 64), (4, 2, 2, 64), (4, 1, 1, 128), (7, 1, 1, 32))
#: tm, tn, columns, requantize_cycles, engines, inputs, outputs, width.
PLACED = (
    (8, 8, 1, 8, 1, 1, 1, 64), (8, 8, 1, 8, 4, 1, 1, 64), (8, 8, 1, 8, 8, 1, 1, 64),
    (16, 8, 1, 8, 4, 1, 1, 64), (8, 16, 1, 8, 4, 1, 1, 64), (16, 16, 1, 8, 4, 1, 1, 64),
    (16, 8, 1, 8, 7, 1, 1, 64), (24, 8, 1, 8, 4, 1, 1, 64), (8, 24, 1, 8, 4, 1, 1, 64),
    (8, 16, 3, 8, 8, 1, 1, 64), (16, 8, 2, 8, 4, 1, 1, 64), (8, 8, 1, 8, 4, 2, 2, 64),
    (16, 16, 1, 8, 4, 2, 2, 64), (16, 8, 1, 8, 4, 1, 1, 128), (8, 16, 1, 8, 7, 1, 1, 128),
    (16, 8, 1, 8, 4, 1, 1, 32), (16, 16, 1, 2, 4, 1, 1, 64), (32, 32, 1, 8, 7, 1, 1, 64),
    (8, 8, 1, 8, 4, 1, 1, 128), (16, 16, 1, 8, 7, 1, 1, 128), (16, 24, 1, 8, 4, 1, 1, 64),
    (24, 24, 1, 8, 7, 1, 1, 64), (16, 32, 1, 8, 4, 1, 1, 64), (32, 8, 1, 8, 4, 1, 1, 64))
BUFFER_DEPTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
#: tm, tn, engines: the design `default`; a small array with every engine.
WHOLE = ((16, 8, 7), (8, 8, 8))
#: form, lanes, words. Forms: one writer; of single bytes; of beats in pairs; both; a reader of
#: pairs; two writers, each of a beat or of a pair, for a buffer of two banks.
FORMS: dict[str, dict[str, Any]] = {
    "plain": {}, "bytes": {"by_bytes": True}, "pair": {"writers": (2,)},
    "pair_bytes": {"writers": (2,), "by_bytes": True}, "pairs_read": {"pairs": True},
    "two": {"writers": (1, 1), "banks": 2}, "two_pairs": {"writers": (2, 2), "banks": 2}}
BUFFERS = (
    *(("plain", 1, depth) for depth in BUFFER_DEPTHS),
    ("plain", 2, 4096), ("plain", 3, 2048), ("plain", 8, 1024), ("plain", 8, 64),
    ("bytes", 8, 32), ("bytes", 8, 64), ("bytes", 8, 512), ("bytes", 16, 1024), ("bytes", 2, 2048),
    ("bytes", 1, 4096), ("pair", 1, 128), ("pair", 2, 1024), ("pair", 1, 16384),
    ("pair_bytes", 8, 64), ("pair_bytes", 8, 1024), ("pairs_read", 2, 4096),
    ("pairs_read", 1, 1024), ("two", 1, 512), ("two", 1, 8192), ("two", 2, 2048), ("two", 3, 4096),
    ("two_pairs", 1, 2048), ("two_pairs", 2, 4096))
#: LUTs that a distributed memory or shift register takes.
_LUTS = {"RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "SRL16E": 1,
         "SRLC16E": 1, "SRLC32E": 1}


@dataclass(frozen=True)
class Sites:
    """What one synthesis took.

    `depth`: words of a buffer. `lanes`, `form`: of a buffer; of an engine, a form of its `Grid`.
    `width`: bits of a master's port, or of all of them. `channels`: that end, and that begin, at a
    unit. `engines`: so many of `MODELS`. 0 where a part has no such thing. What a column is of an
    engine: `Grid.own`.
    """

    part: str
    tm: int = 0
    tn: int = 0
    columns: int = 1
    dsp_packing: int = 0
    requantize_cycles: int = 8
    depth: int = 0
    form: str = ""
    lanes: int = 0
    width: int = 0
    channels: int = 0
    engines: int = 0
    inputs: int = 0
    outputs: int = 0
    dsp: int = 0
    bram36: float = 0.0
    lut: int = 0
    ff: int = 0

    @property
    def overlay(self) -> Overlay:
        """The default overlay with this row's array, engines and masters."""
        base = default_overlay()
        masters = base.masters
        if self.inputs:
            counts = {Role.INPUT: self.inputs, Role.WEIGHT: 1, Role.OUTPUT: self.outputs}
            masters = tuple(
                replace(item, name=f"{item.name}{index or ''}", width_bits=self.width)
                for item in masters for index in range(counts[item.role]))
        if self.part in ENGINES:
            own = ENGINES[self.part].grid.own
            base = replace(base, **{field: getattr(self, column) for column, field in own.items()})
            if self.form:
                base = with_value(base, self.form, True)
        return replace(
            base, tm=self.tm or base.tm, tn=self.tn or base.tn, columns=self.columns,
            dsp_packing=bool(self.dsp_packing), requantize_cycles=self.requantize_cycles,
            masters=masters,
            engines=frozenset(item.engine for item in MODELS[: self.engines or len(MODELS)]))


COLUMNS = tuple(item.name for item in fields(Sites))


class _Hollow(OverlayTop):
    """An overlay whose units are holes in its boundary: ports, with nothing inside.

    `places` holds what lies between units and memories, and the memories are holes too; the
    rest is left: tokens and counters.
    """

    def __init__(self, program: Program, overlay: Overlay) -> None:
        super().__init__(program.units, program.channels, overlay)
        self.memories: list[Buffer] = []
        self.places = Module()
        for unit in self.units:
            unit.elaborate = lambda platform: Module()
        for build in (OverlayTop._inputs, OverlayTop._outputs, OverlayTop._constants):
            build(self, self.places)

    def _inputs(self, m: Module) -> None:
        pass

    def _outputs(self, m: Module) -> None:
        pass

    def _constants(self, m: Module) -> None:
        pass

    def _buffer(self, m: Module, name: str, depth: int, lanes: int,
                writers: Sequence[ReadMaster] = (), **more: Any) -> Buffer:
        made = super()._buffer(Module(), name, depth, lanes, writers, **more)
        self.memories.append(made)
        return made


def signals_of(part: object, seen: set[int] | None = None) -> list[Signal]:
    """Every signal that a part or its parts name, each once."""
    seen = set() if seen is None else seen
    if id(part) in seen:
        return []
    seen.add(id(part))
    if isinstance(part, Signal):
        return [part]
    if isinstance(part, (list, tuple)):
        inside: Iterable[object] = part
    elif type(part).__module__.startswith("hw.rtl"):
        inside = vars(part).values()
    else:
        return []
    return [signal for item in inside for signal in signals_of(item, seen)]


def wiring_program(overlay: Overlay) -> Program:
    """A program of an overlay's units and channels, without operations."""
    wiring = wire(overlay, load_board("pynq-z1"))
    return Program("wiring", wiring.units, wiring.channels, (),
                   np.zeros((0, len(Column)), np.int64),
                   np.zeros((0, ARGUMENT_COUNT), np.int32), ())


def whole(overlay: Overlay) -> tuple[AxiShell, list[Signal]]:
    """The IP of an overlay, and its ports."""
    shell = AxiShell(wiring_program(overlay), overlay)
    return shell, [signal for signal, _ in shell.ports.values()]


def _engine(row: Sites) -> tuple[Any, list[Signal]]:
    top = BUILT[Engine(row.part)](row.overlay, row.channels, row.channels)
    starts = ("in_", "out_", "weight_", "parameter_", "partial_", "skip_", "table_")
    return top, [*_shell(top), *(signal for name, value in vars(top).items()
                                 if name.startswith(starts) for signal in signals_of(value))]


def _shell(unit: Any) -> list[Signal]:
    """The pins of a unit's shell, with a queue as deep as that of an emitted design."""
    shell = unit.shell
    shell.depth = COMMAND_DEPTH
    return [shell.go, shell.command, shell.command_valid, shell.command_ready, shell.available,
            shell.take, shell.give, shell.ends, shell.running, *shell.counters]


def _master(row: Sites) -> tuple[Any, list[Signal]]:
    config = MasterConfig(2, 2, 8, 2 * row.width, (row.width // 8).bit_length() - 1, 1, 0)
    reads = row.part == "read_master"
    top: Any = (ReadMaster(config, row.channels, row.channels, row.width) if reads
                else WriteMaster(config, row.channels, row.channels, port_bits=row.width))
    names = (*(READ_SIGNALS if reads else WRITE_SIGNALS), *(() if reads else ("fetch", "data")))
    counter = top.counter
    walker = top.walker
    pins = [counter.plane, counter.position, top.shell.head,
            *([counter.index] if reads else [walker.comes, walker.coming])]
    return top, [*_shell(top), *(getattr(top, name) for name in names), *pins,
                 *signals_of(top.beats if reads else [])]


def _buffer(row: Sites) -> tuple[Any, list[Signal]]:
    top = Buffer("buffer", row.depth, row.lanes, **FORMS[row.form])
    writes = [signal for writer in top.writes for port in writer
              for signal in (port.address, port.lanes, port.data)]
    return top, [*writes, top.read_address, top.read_data,
                 *([top.next_data] if top.pairs else [])]


def _unpack(row: Sites) -> tuple[Any, list[Signal]]:
    top = Unpack(row.tm, row.tn, bool(row.dsp_packing))
    return top, [top.words, top.halved, top.half, top.bytes]


def _around(row: Sites) -> tuple[Any, list[Signal]]:
    overlay = row.overlay
    program = wiring_program(overlay)
    top = _Hollow(program, overlay)
    holes = [signal for unit in top.units for signal in signals_of(unit)]
    if row.part == "control":
        shell, ports = whole(overlay)
        shell.top = top
        return shell, [*ports, *holes]
    return top.places, [*holes, *(signal for memory in top.memories
                                 for signal in signals_of(memory))]


def top_of(row: Sites) -> tuple[Any, list[Signal]]:
    """The module that a row synthesizes, and its ports."""
    if row.part == "buffer":
        return _buffer(row)
    if row.part == UNPACK:
        return _unpack(row)
    if row.part == "whole":
        return whole(row.overlay)
    if row.part in ("read_master", "write_master"):
        return _master(row)
    return _around(row) if row.part in ("control", "places") else _engine(row)


def synthesize(top: Any, ports: Sequence[Signal]) -> dict[str, int]:
    """Cells of a module by kind, of the netlist whose paths are timed; RuntimeError if Yosys
    fails."""
    return dict(Counter(cell.kind for cell in synthesized(top, ports).cells))


def counted(row: Sites, cells: dict[str, int]) -> Sites:
    """A row with DSP48E1, RAMB36 (halves are RAMB18), LUTs with distributed memory, FFs."""
    lut = sum(count * (_LUTS.get(name, 1 if name.startswith("LUT") else 0))
              for name, count in cells.items())
    return replace(row, dsp=cells.get("DSP48E1", 0), lut=lut,
                   bram36=cells.get("RAMB36E1", 0) + cells.get("RAMB18E1", 0) / 2,
                   ff=sum(count for name, count in cells.items() if name.startswith("FD")))


def sized(part: str, row: Sequence[int]) -> Sites:
    """A row of an engine's `Grid`, without counts."""
    named = dict(zip(ENGINES[part].grid.columns, row, strict=True))
    return Sites(part, **named)  # type: ignore[arg-type]


def points(part: str) -> list[Sites]:
    """The grid of a part, without counts."""
    if part in ENGINES:
        return [sized(part, row) for row in ENGINES[part].grid.sites]
    if part == UNPACK:
        return [Sites(part, tm, tn, dsp_packing=packed) for tm, tn, packed in UNPACKS]
    if part == "buffer":
        return [Sites(part, form=form, lanes=lanes, depth=depth) for form, lanes, depth in BUFFERS]
    if part == "whole":
        return [Sites(part, tm, tn, engines=engines, inputs=1, outputs=1, width=64)
                for tm, tn, engines in WHOLE]
    if part == "control":
        return [Sites(part, engines=engines, inputs=inputs, outputs=outputs, width=width)
                for engines, inputs, outputs, width in CONTROLS]
    if part == "places":
        return [Sites(part, tm, tn, columns, requantize_cycles=cycles, engines=engines,
                      inputs=inputs, outputs=outputs, width=width)
                for tm, tn, columns, cycles, engines, inputs, outputs, width in PLACED]
    return [Sites(part, width=width, channels=waits) for width, waits in MASTERS]


def write_grid(rows: Iterable[Sites], path: Path = GRID_FILE) -> None:
    """Write rows as CSV, whole or not at all; until then they grow in a `.part` beside it."""
    growing = path.with_suffix(".part")
    with growing.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([getattr(row, name) for name in COLUMNS])
            file.flush()
    growing.replace(path)


def read_grid(path: Path = GRID_FILE) -> list[Sites]:
    """The rows of the shipped grid."""
    kinds = {"part": str, "form": str, "bram36": float}
    with path.open(newline="") as file:
        return [Sites(**{name: kinds.get(name, int)(row[name]) for name in COLUMNS})
                for row in csv.DictReader(file)]
