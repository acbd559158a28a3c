"""Memory parameters: ports, the flat memory, the DDR controller and the tensor memory on chip.

It does not simulate; the rules that use these numbers are in `cosim.memory.bursts`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path

from arch_models.board import Board, BoardPort, PortKind
from arch_models.fields import Coefficient, FieldError, build, nearest
from arch_models.files import read_toml
from arch_models.literature import Origin
from arch_models.overlay import Infeasible, Overlay, Role
from arch_models.units import ceil_div, cycles_from_ns

DATA = Path(__file__).parent / "data" / "memory.toml"
MODELS = ("flat", "ddr3")
MOST_BANK_GROUPS = 4
AXI_BOUNDARY_BYTES = 4096  # no burst crosses a multiple of this
#: The tensor memory: block RAM that keeps what one layer hands to the next. It answers the input
#: and the output master in place of their ports, for addresses from here on, which count modulo
#: its size: a beat of their width a cycle, each way, whatever bursts a transfer is cut into.
WINDOW = 1 << 31
#: Cycles from a burst's request to its first beat, and from a write's last beat to its response:
#: of the RTL (`hw/rtl/transfers/tensor_memory.py`).
READ_LEAD, WRITE_LEAD, WRITE_TRAIL = 3, 2, 1


class MemoryParameterError(FieldError):
    """A memory parameter breaks a rule. The message names the field, the value and the rule."""


@dataclass(frozen=True, slots=True)
class Port:
    """One AXI slave port; a read and a write channel that work independently.

    All times are fabric cycles.
    `flat`: a read's first beat moves at least `read_latency_cycles` after its acceptance; a
    write's first beat moves at least `write_lead_cycles` after its acceptance and its response
    comes `write_latency_cycles` after its last beat.
    `ddr3`: a read reaches the controller `request_cycles` after its acceptance, a write
    `request_cycles` after its last beat; read data come `response_cycles` after the DRAM gave
    them, a write's response `write_response_cycles` after the controller took it. At most
    `read_accept` reads (`write_accept` writes) wait between acceptance and the controller.
    `controller_port`: ports with the same number share one port of the controller.
    """

    name: str
    width_bytes: int = 8
    read_latency_cycles: int = 20
    write_latency_cycles: int = 8
    write_lead_cycles: int = 1
    controller_port: int = 0
    request_cycles: int = 1
    response_cycles: int = 1
    write_response_cycles: int = 1
    read_accept: int = 14
    write_accept: int = 8

    def __post_init__(self) -> None:
        width = self.width_bytes
        if width < 1 or width & (width - 1) or width > AXI_BOUNDARY_BYTES:
            raise MemoryParameterError(f"port {self.name!r}: width_bytes is {width}, must be a "
                                       f"power of two from 1 to {AXI_BOUNDARY_BYTES}")
        least = {"write_latency_cycles": 0, "write_lead_cycles": 0, "controller_port": 0}
        for item in fields(self)[2:]:
            _at_least(f"port {self.name!r}", item.name, getattr(self, item.name),
                      least.get(item.name, 1))


@dataclass(frozen=True, slots=True)
class Ddr3Timing:
    """The DRAM and its controller. DDR clocks unless named otherwise.

    `clock_hz` and `fabric_hz` give the clock crossing. A transaction is one DRAM burst of
    `transaction_bytes`. The `*_gap`s: `idle_gap` before a switch of direction that the queue of
    the other direction did not ask for; `write_gap_eighths`: eighths of a clock lost after each
    written transaction (fitted). `bypass_transactions`: so many transactions may overtake the
    oldest burst of the window. `miss_gap_clocks`: bus clocks lost at each row that is opened, the
    slots of its commands (fitted). `pipeline_clocks`: controller and PHY, besides the read latency.
    A controller port moves one word of 8 bytes in `word_clocks_numerator / _denominator` clocks;
    a numerator of 0 means no limit.
    `bank_groups`: of DDR4, 1: none. Then `banks` are those of a group, whose number an address has
    from bit `group_bit` on, below its bank; `row_bytes` covers the open rows of all groups;
    `t_ccd`, `t_rrd` and `wr2rd` hold between groups, those that end in `_l` inside one.
    """

    clock_hz: int
    fabric_hz: int
    t_rcd: int
    t_rp: int
    t_ras: int
    t_rc: int
    t_rrd: int
    t_faw: int
    t_ccd: int
    read_latency: int
    rd2wr: int
    wr2rd: int
    rd2pre: int
    wr2pre: int
    t_refi: int
    t_rfc: int
    read_starve: int
    write_starve: int
    read_run: int
    write_run: int
    idle_gap: int
    read_entries: int
    write_entries: int
    bypass_transactions: int
    write_gap_eighths: int
    transaction_bytes: int
    row_bytes: int
    banks: int
    pipeline_clocks: int
    word_clocks_numerator: int
    word_clocks_denominator: int
    miss_gap_clocks: int = 0
    bank_groups: int = 1
    group_bit: int = 0
    t_ccd_l: int = 0
    t_rrd_l: int = 0
    wr2rd_l: int = 0

    def __post_init__(self) -> None:
        free = {"idle_gap", "write_gap_eighths", "pipeline_clocks", "word_clocks_numerator",
                "bypass_transactions", "miss_gap_clocks", "group_bit", "t_ccd_l", "t_rrd_l",
                "wr2rd_l"}
        for item in fields(self):
            _at_least("ddr", item.name, getattr(self, item.name), 0 if item.name in free else 1)
        for name in ("transaction_bytes", "row_bytes", "banks", "bank_groups"):
            value = getattr(self, name)
            if value & (value - 1):
                raise MemoryParameterError(f"ddr: {name} is {value}, must be a power of two")
        if self.row_bytes < self.transaction_bytes:
            raise MemoryParameterError(f"ddr: row_bytes is {self.row_bytes}, must be at least "
                                       f"transaction_bytes {self.transaction_bytes}")
        self._check_groups()

    def _check_groups(self) -> None:
        if self.bank_groups == 1:
            return
        if self.bank_groups > MOST_BANK_GROUPS:
            raise MemoryParameterError(f"ddr: bank_groups is {self.bank_groups}, must be at most "
                                       f"{MOST_BANK_GROUPS}")
        low = self.transaction_bytes.bit_length() - 1
        high = (self.row_bytes // self.bank_groups).bit_length() - 1
        if not low <= self.group_bit <= high:
            raise MemoryParameterError(
                f"ddr: group_bit is {self.group_bit}, must lie between {low} and {high}: above a "
                "transaction, below the bank")
        for name in ("t_ccd", "t_rrd", "wr2rd"):
            _at_least("ddr", f"{name}_l", getattr(self, f"{name}_l"), getattr(self, name))

    @property
    def peak_bytes_per_s(self) -> float:
        """What the data bus moves when every clock is used."""
        return self.transaction_bytes * self.clock_hz / self.t_ccd


@dataclass(frozen=True, slots=True)
class Traffic:
    """Background traffic of the processing system: single bursts at random addresses.

    It enters at the controller's queue, whose ports all have the same priority. One burst is
    outstanding; the next comes `period_clocks` DDR clocks after the one before
    arrived, or when it was served if that is later.
    """

    name: str
    period_clocks: int
    burst_bytes: int = 32
    write: bool = False
    region_bytes: int = 1 << 29


@dataclass(frozen=True, slots=True)
class Memory:
    """What an executor knows of the memory: a model (`flat` or `ddr3`), its ports, its DRAM."""

    model: str
    ports: tuple[Port, ...]
    ddr: Ddr3Timing | None = None
    background: tuple[Traffic, ...] = ()

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise MemoryParameterError(f"model is {self.model!r}; {nearest(self.model, MODELS)}")
        if self.model == "ddr3" and self.ddr is None:
            raise MemoryParameterError("ddr is None, must be given for the model 'ddr3'")


@dataclass(frozen=True, slots=True)
class PathTimes:
    """Times between a kind of port and the controller, see `data/memory.toml`."""

    request_ns: float
    response_ns: float
    write_response_ns: float
    write_lead_cycles: int


@dataclass(frozen=True, slots=True)
class ControllerCoefficients:
    """What the board's registers do not say about the controller."""

    pipeline_clocks: int
    write_entries: int
    bypass_transactions: int
    write_gap_eighths: int
    miss_gap_clocks: int
    cpu_period_clocks: int
    cpu_burst_bytes: int


@dataclass(frozen=True)
class MemoryCoefficients:
    """The tables of `data/memory.toml`; `evidence` lists every number with its source."""

    hp: PathTimes
    acp: PathTimes
    controller: ControllerCoefficients
    evidence: tuple[Coefficient, ...] = ()


def memory_coefficients(path: Path = DATA) -> MemoryCoefficients:
    """Read the coefficients; `FieldError` names what is wrong with the file."""
    found: list[Coefficient] = []
    read = build(MemoryCoefficients, read_toml(path), "", found)
    return replace(read, evidence=tuple(found))


@cache
def shipped_coefficients() -> MemoryCoefficients:
    """The coefficients of the file that ships, read once: a search makes many memories."""
    return memory_coefficients()


def flat_memory(ports: int = 4, width_bytes: int = 8, read_latency_cycles: int = 20,
                write_latency_cycles: int = 8) -> Memory:
    """A flat memory with equal ports, for teaching and tests."""
    return Memory("flat", tuple(
        Port(f"port{index}", width_bytes, read_latency_cycles, write_latency_cycles)
        for index in range(ports)))


def memory_for(board: Board, overlay: Overlay, model: str = "ddr3",
               background: tuple[Traffic, ...] = ()) -> Memory:
    """The memory of a board at an overlay's clock.

    `Memory.ports` are the board's ports in the board's order, so `Unit.port` is the index of a
    master's port in `board.ports`. A port is as wide as the masters on it (64 bits if none).
    Raises `FieldError` for an unknown model, port or width.
    """
    if model not in MODELS:
        raise MemoryParameterError(f"model is {model!r}; {nearest(model, MODELS)}")
    widths = _widths(board, overlay)
    return board_memory(board, overlay.clock_hz, model, widths, background)


def board_memory(board: Board, fabric_hz: int, model: str = "ddr3",
                 widths_bits: dict[str, int] | None = None,
                 background: tuple[Traffic, ...] = ()) -> Memory:
    """The memory of a board at a fabric clock; `widths_bits` by port name, else the widest."""
    coefficients = shipped_coefficients()
    ddr = ddr3_timing(board, fabric_hz, coefficients.controller)
    widths = widths_bits or {}
    ports = tuple(
        _port(port, widths.get(port.name, max(port.widths_bits)), ddr,
              coefficients.acp if port.kind is PortKind.ACP else coefficients.hp)
        for port in board.ports)
    return Memory(model, ports, ddr, background)


def cpu_traffic(coefficients: MemoryCoefficients | None = None) -> Traffic:
    """A processor that reads DRAM with its caches off (a guess; see `data/memory.toml`)."""
    given = (coefficients or memory_coefficients()).controller
    return Traffic("cpu", given.cpu_period_clocks, given.cpu_burst_bytes)


def ddr3_timing(board: Board, fabric_hz: int, given: ControllerCoefficients) -> Ddr3Timing:
    """Register values and coefficients as the integers the rules use."""
    ddr = board.ddr
    transaction = ddr.burst_length_beats * ddr.data_bus_bits // 8
    if not ddr.column_high_bit < ddr.bank_low_bit <= ddr.bank_high_bit < ddr.row_low_bit:
        raise MemoryParameterError(
            f"ddr: columns end at bit {ddr.column_high_bit}, banks {ddr.bank_low_bit} to "
            f"{ddr.bank_high_bit}, rows from {ddr.row_low_bit}; must be row, bank, column")
    return Ddr3Timing(
        clock_hz=ddr.clock_hz, fabric_hz=fabric_hz, t_rcd=ddr.t_rcd, t_rp=ddr.t_rp,
        t_ras=ddr.t_ras_min, t_rc=ddr.t_rc, t_rrd=ddr.t_rrd, t_faw=ddr.t_faw,
        # Two data beats a clock. (The register's field + 1 would cap the bus at 80 %, which the
        # vendor's 97 % rules out.)
        t_ccd=ddr.burst_length_beats // 2,
        read_latency=ddr.read_latency, rd2wr=ddr.rd2wr, wr2rd=ddr.wr2rd, rd2pre=ddr.rd2pre,
        wr2pre=ddr.wr2pre, t_refi=ddr.t_refi, t_rfc=ddr.t_rfc_min,
        read_starve=32 * ddr.lpr_max_starve_x32, write_starve=32 * ddr.wr_max_starve_x32,
        read_run=ddr.lpr_transaction_run_length, write_run=ddr.wr_transaction_run_length,
        idle_gap=ddr.rdwr_idle_gap, read_entries=ddr.lpr_entries,
        write_entries=given.write_entries, bypass_transactions=given.bypass_transactions,
        write_gap_eighths=given.write_gap_eighths, transaction_bytes=transaction,
        row_bytes=ddr.row_bytes, banks=ddr.banks, pipeline_clocks=given.pipeline_clocks,
        word_clocks_numerator=ddr.clock_hz // _common(ddr.clock_hz, ddr.interconnect_hz),
        word_clocks_denominator=ddr.interconnect_hz // _common(ddr.clock_hz, ddr.interconnect_hz),
        miss_gap_clocks=given.miss_gap_clocks, bank_groups=1 << ddr.bank_group_bits,
        group_bit=ddr.bank_group_low_bit, t_ccd_l=ddr.t_ccd_l, t_rrd_l=ddr.t_rrd_l,
        wr2rd_l=ddr.wr2rd_l)


def _common(first: int, second: int) -> int:
    while second:
        first, second = second, first % second
    return first


def _port(port: BoardPort, width_bits: int, ddr: Ddr3Timing, path: PathTimes) -> Port:
    request = max(1, cycles_from_ns(path.request_ns, ddr.fabric_hz))
    response = max(1, cycles_from_ns(path.response_ns, ddr.fabric_hz))
    write_response = max(1, cycles_from_ns(path.write_response_ns, ddr.fabric_hz))
    # The flat memory takes the unloaded path to an open row.
    dram = ddr.read_latency + ddr.t_ccd + ddr.pipeline_clocks
    dram_cycles = ceil_div(dram * ddr.fabric_hz, ddr.clock_hz)
    return Port(
        port.name, width_bits // 8, read_latency_cycles=request + dram_cycles + response,
        write_latency_cycles=request + write_response,
        write_lead_cycles=path.write_lead_cycles, controller_port=port.ddr_port,
        request_cycles=request, response_cycles=response, write_response_cycles=write_response,
        read_accept=port.read_accept, write_accept=port.write_accept)


def _widths(board: Board, overlay: Overlay) -> dict[str, int]:
    widths: dict[str, int] = {}
    for master in overlay.masters:
        port = board.port(master.port)
        if master.width_bits not in port.widths_bits:
            raise MemoryParameterError(
                f"master {master.name!r}: width_bits is {master.width_bits}, port {port.name} "
                f"has {', '.join(map(str, port.widths_bits))}; nearest "
                f"{port.nearest_width(master.width_bits)}")
        if widths.setdefault(port.name, master.width_bits) != master.width_bits:
            raise MemoryParameterError(
                f"master {master.name!r}: width_bits is {master.width_bits}, another master on "
                f"port {port.name} has {widths[port.name]}; a port has one width")
    return widths


def _at_least(where: str, name: str, value: int, least: int) -> None:
    if value < least:
        raise MemoryParameterError(f"{where}: {name} is {value}, must be at least {least}")


def tensor_bytes(overlay: Overlay) -> int:
    """Bytes of the tensor memory; 0: there is none."""
    return overlay.tensor_memory_kib * 1024


def tensor_word_bytes(overlay: Overlay) -> int:
    """Bytes that a master moves in a cycle."""
    return overlay.masters_of(Role.INPUT)[0].width_bits // 8


def tensor_misfit(overlay: Overlay) -> Infeasible | None:
    """Why a design can have no tensor memory; None if it can, or has none.

    A block RAM has a port for one reader and one for one writer, as wide as both.
    """
    if not overlay.tensor_memory_kib:
        return None
    levers = ("masters", "tensor_memory_kib")
    if overlay.origin is Origin.LITERATURE:
        return Infeasible("tensor_memory_kib", overlay.tensor_memory_kib, 0, "KiB", levers[1:],
                          "origin 'literature'")
    for role in (Role.INPUT, Role.OUTPUT):
        count = len(overlay.masters_of(role))
        if count > 1:
            return Infeasible("masters", count, 1, f"masters with role {role.value} at a tensor "
                              "memory", levers)
    (reader,), (writer,) = (overlay.masters_of(role) for role in (Role.INPUT, Role.OUTPUT))
    if reader.width_bits != writer.width_bits:
        return Infeasible("width_bits", writer.width_bits, reader.width_bits, "bits", levers,
                          f"masters.{writer.name}")
    for master in (reader, writer):
        if not master.overlap_runs or master.run_setup_cycles:
            return Infeasible("run_setup_cycles", max(1, master.run_setup_cycles), 0, "cycles",
                              levers, f"masters.{master.name}")
    return None
