"""A board as a value: the part, its memory ports, DDR settings, clocks, host costs and power.

It says nothing about an accelerator, computes no time and reads no file (`board` does).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from arch_models.fields import Coefficient, FieldError, nearest
from arch_models.power.dram import Dram

#: A file may round a rate: 142857000 Hz for 1 GHz / 7.
RATE_TOLERANCE_HZ = 1000
#: Parts (by the beginning of their names) whose DRAM controller, ports and host the models are
#: made for and were held against measurements.
CHECKED_PARTS = "xc7z"
#: What no measurement was held against on other parts.
UNCHECKED = ("DRAM controller", "ports", "host", "energy")


class PortKind(StrEnum):
    """What a port of the processing system is."""

    HP = "hp"  # non-coherent, straight to the DDR controller
    ACP = "acp"  # coherent, through the snoop unit and the L2 cache


@dataclass(frozen=True, slots=True)
class Part:
    """What the fabric offers. `fabric_delay`: how long cells and nets take, XC7Z020-1: 1."""

    name: str
    dsp: int
    bram36: int
    lut: int
    ff: int
    fabric_delay: float


@dataclass(frozen=True, slots=True)
class BoardPort:
    """One memory port that fabric masters may use.

    `ddr_port` is the port of the DDR controller behind it; ports with the same number share it.
    `read_accept`, `write_accept`: bursts the port takes ahead; `fifo_bytes`: its data FIFO, for
    each direction.
    """

    name: str
    kind: PortKind
    ddr_port: int
    widths_bits: tuple[int, ...]
    max_burst_beats: int
    read_accept: int
    write_accept: int
    fifo_bytes: int

    def nearest_width(self, bits: int) -> int:
        """Of the widths that it has, the one nearest to another."""
        return min(self.widths_bits, key=lambda legal: (abs(legal - bits), legal))


@dataclass(frozen=True, slots=True)
class Ddr:
    """DDR controller settings. `t_*` and latencies are DDR clocks; the rest as named.

    Field names are the register names in lower case. `column_low_bit` to `row_high_bit` give the
    address map (byte-address bits, inclusive). `bank_group_bits`: of DDR4, among the columns' bits
    from `bank_group_low_bit` on; 0: there are none. Then `t_rrd` and `wr2rd` hold between groups,
    `*_l` inside one.
    """

    clock_hz: int
    data_bus_bits: int
    size_bytes: int
    burst_length_beats: int
    t_rc: int
    t_rfc_min: int
    t_refi: int
    t_ras_min: int
    t_ras_max_x1024: int
    t_faw: int
    t_rcd: int
    t_rp: int
    t_rrd: int
    t_ccd_field: int
    read_latency: int
    write_latency: int
    rd2wr: int
    wr2rd: int
    rd2pre: int
    wr2pre: int
    t_xp: int
    t_cke: int
    page_close: int
    auto_precharge: int
    lpr_entries: int
    lpr_max_starve_x32: int
    wr_max_starve_x32: int
    lpr_transaction_run_length: int
    wr_transaction_run_length: int
    rdwr_idle_gap: int
    prefer_write: int
    port_priority: int
    page_match_mask: int
    column_low_bit: int
    column_high_bit: int
    bank_low_bit: int
    bank_high_bit: int
    row_low_bit: int
    row_high_bit: int
    interconnect_hz: int  # the clock between the ports and the controller (DDR_2x)
    bank_group_bits: int = 0
    bank_group_low_bit: int = 0
    t_ccd_l: int = 0
    t_rrd_l: int = 0
    wr2rd_l: int = 0

    @property
    def peak_bytes_per_s(self) -> float:
        """Both clock edges times the bus width."""
        return self.clock_hz * 2 * self.data_bus_bits / 8

    @property
    def row_bytes(self) -> int:
        """Consecutive bytes in one open row, or in one of each bank group."""
        return 1 << (self.column_high_bit + 1)

    @property
    def banks(self) -> int:
        """Banks that may have a row open (in each bank group)."""
        return 1 << (self.bank_high_bit - self.bank_low_bit + 1)


@dataclass(frozen=True, slots=True)
class Clocks:
    """Fabric clocks: a generator's rate over two whole dividers, between two bounds.

    `crystal_hz`: what the block design must know, so that the vendor's tool sets the dividers for
    the generator that the board has.

    Whether a design runs at a rate is `clock.predict`'s business.
    """

    minimum_hz: int
    maximum_hz: int
    generator_hz: int
    largest_divider: int
    crystal_hz: int = 0  # behind the processor's PLLs; 0: not known

    @property
    def rates_hz(self) -> tuple[int, ...]:
        """Every rate that can be made, slowest first, each rounded down to a hertz."""
        return _rates(self.generator_hz, self.largest_divider, self.minimum_hz, self.maximum_hz)

    def fastest_hz(self, limit_hz: float) -> int:
        """The fastest rate up to a limit; the slowest of all if none is."""
        rates = self.rates_hz
        return rates[max(0, bisect_right(rates, limit_hz) - 1)]

    def nearest_hz(self, wanted_hz: float) -> tuple[int, ...]:
        """The rates on both sides of a wanted one, or the only one beyond an end."""
        below = [rate for rate in self.rates_hz if rate <= wanted_hz]
        above = [rate for rate in self.rates_hz if rate > wanted_hz]
        return (*below[-1:], *above[:1])

    def makes(self, clock_hz: int) -> bool:
        """Whether a rate is one that can be made, to a kilohertz."""
        return any(abs(rate - clock_hz) <= RATE_TOLERANCE_HZ
                   for rate in self.nearest_hz(clock_hz))


@dataclass(frozen=True, slots=True)
class SoftwareCosts:
    """Nanoseconds an output element costs an operator left on the ARM, one core.

    Convolution and matmul: ns a multiply-accumulate. Reshape and concat cost nothing.
    """

    convolution_mac_ns: float
    matmul_mac_ns: float
    upsample_ns: float
    average_pool_ns: float
    max_pool_ns: float
    add_ns: float
    multiply_ns: float
    affine_ns: float
    lookup_ns: float
    softmax_ns: float
    grid_sample_ns: float
    heat_maps_ns: float
    displacements_ns: float
    sparse_flow_ns: float
    flow_sum_ns: float
    group_norm_ns: float
    requantize_ns: float
    sampler_ns: float
    transpose_ns: float


@dataclass(frozen=True, slots=True)
class Host:
    """The processor that drives the accelerator. `*_c` bare metal or C, `*_python` the driver.

    `wake_*`: from the interrupt to the driver, where the host sleeps meanwhile.
    """

    cpu_hz: int
    cores: int
    register_write_c_ns: float
    register_write_python_ns: float
    start_c_ns: float
    start_python_ns: float
    poll_ns: float
    wake_c_ns: float
    wake_python_ns: float
    cache_ns_per_byte: float
    cache_floor_ns: float
    software: SoftwareCosts


@dataclass(frozen=True, slots=True)
class Power:
    """Powers that do not depend on what the fabric computes, in watts, and the DRAM's devices.

    `vccint_v`: the fabric's core supply as set, `vccint_nominal_v` what the other numbers hold for;
    the board can set it from `vccint_lowest_v` to `vccint_highest_v`. `vccint_static_w`: leakage at
    the core supply; `aux_static_w`: the fabric's other supplies. The processor with all its pads:
    `ps_sleep_w` with its cores asleep, `ps_poll_w` while one core polls, `ps_work_w` while one core
    works; traffic of the fabric comes on top. `ddr_bus_w`: pads and termination of the DRAM's
    supply without traffic. `fabric_scale`: measured energy of the fabric over what the law says
    (1: nobody measured this board).
    """

    vccint_v: float
    vccint_nominal_v: float
    vccint_lowest_v: float
    vccint_highest_v: float
    vccint_static_w: float
    aux_static_w: float
    ps_sleep_w: float
    ps_poll_w: float
    ps_work_w: float
    ddr_bus_w: float
    dram: Dram
    fabric_scale: float = 1.0

    @property
    def vccint_ratio(self) -> float:
        """The core supply over its nominal value."""
        return self.vccint_v / self.vccint_nominal_v


@dataclass(frozen=True)
class Board:
    """A board. `coefficients` lists every number of the file with unit, source and status."""

    name: str
    title: str
    part: Part
    ports: tuple[BoardPort, ...]
    ddr: Ddr
    clocks: Clocks
    host: Host
    power: Power
    coefficients: tuple[Coefficient, ...] = ()

    @property
    def unchecked(self) -> tuple[str, ...]:
        """What of this board stands in for another family's and was never checked; empty on the
        family that the models are made for. Every output that is about the board says it."""
        return () if self.part.name.lower().startswith(CHECKED_PARTS) else UNCHECKED

    @property
    def label(self) -> str:
        """The name, marked if anything of the board is unchecked."""
        return f"{self.name} (unchecked)" if self.unchecked else self.name

    def port(self, name: str) -> BoardPort:
        """The port of that name; `FieldError` with the nearest name if the board lacks it."""
        for port in self.ports:
            if port.name == name:
                return port
        raise FieldError(f"board {self.name!r} has no port {name!r}; "
                         f"{nearest(name, [port.name for port in self.ports])}")

    def coefficient(self, name: str) -> Coefficient:
        """The number at a dotted path (e.g. `ddr.t_rcd`) with its evidence."""
        for item in self.coefficients:
            if item.name == name:
                return item
        raise FieldError(f"board {self.name!r} has no number {name!r}; "
                         f"{nearest(name, [item.name for item in self.coefficients])}")


@cache
def _rates(generator_hz: int, largest: int, least_hz: int, most_hz: int) -> tuple[int, ...]:
    """Rates of a generator behind two dividers, from `least_hz` to `most_hz`."""
    dividers = {first * second for first in range(1, largest + 1)
                for second in range(1, largest + 1)}
    found = {generator_hz // divider for divider in dividers}
    return tuple(sorted(rate for rate in found if least_hz <= rate <= most_hz))
