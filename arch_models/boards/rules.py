"""What a board file must hold beyond its types: ranges, orders and an address map that adds up.

It reads no files; `board.load_board` refuses a board with a problem, `cosim board check` lists all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from arch_models.boards.values import Board, BoardPort, Ddr
from arch_models.fields import FieldError, identifier, label, prose

#: DDR4 on 64 bits is the widest that ships; 8 bits is one device.
BUS_BITS = (8, 16, 32, 64)
#: DRAM standards: BC4 and BL8 of DDR3 and DDR4, BL16 of LPDDR4.
BURST_BEATS = (4, 8, 16)
#: AXI data widths and AXI4's longest burst.
WIDTHS_BITS = (8, 16, 32, 64, 128, 256, 512, 1024)
MOST_BURST_BEATS = 256
#: Rows must be refreshed: 8192 commands in 64 ms, postponed at most to nine intervals' worth.
MOST_REFRESH_NS = 9 * 7812.5
#: No DDR3, DDR4 or LPDDR4 speed grade opens, closes or cycles a row slower than this.
MOST_ROW_NS = 100.0
MOST_DIVIDER = 1024
#: No fabric is so much faster or slower than the timing model's.
FABRIC_DELAY = (0.05, 20.0)
HERTZ = {"ddr.clock_hz": (50_000_000, 3_200_000_000),
         "ddr.interconnect_hz": (50_000_000, 3_200_000_000),
         "clocks.minimum_hz": (1_000, 2_000_000_000),
         "clocks.generator_hz": (1_000, 10_000_000_000),
         "clocks.maximum_hz": (1_000, 2_000_000_000),
         "host.cpu_hz": (1_000_000, 10_000_000_000)}
#: The most that any number of a board may be, by the end of its name; and of those not named.
#: Far above every board; they keep what is computed of them in 64 bits.
MOST_BY_END = {"_ns": 1e9, "_ns_per_byte": 1e9, "_w": 1e4, "_hz": 1e10, "size_bytes": 2**40}
MOST = 2**24
#: Byte-address bits of a row's columns, and of its banks.
MOST_COLUMN_BIT, MOST_BANK_BITS = 20, 8
MOST_PORTS, MOST_CORES = 64, 1024
#: DDR4 has two or four bank groups, and no time inside one near so many clocks.
MOST_BANK_GROUP_BITS, MOST_GROUP_CLOCKS = 2, 1024


@dataclass(frozen=True, slots=True)
class Problem:
    """One number or list of a board that cannot be. `nearest`: a legal value, empty if none."""

    field: str
    value: str
    rule: str
    nearest: str = ""

    def __str__(self) -> str:
        """One line for a person."""
        near = f"; nearest {self.nearest}" if self.nearest else ""
        return f"{self.field} is {self.value}, {self.rule}{near}"


def problems(board: Board) -> tuple[Problem, ...]:
    """Everything that is wrong with a board, in the order of its file."""
    return tuple([*_names(board), *_evidence(board), *_part(board), *_ports(board), *_hertz(board),
                  *_dram(board.ddr), *_map(board.ddr), *_rest(board)])


def _names(board: Board) -> Iterator[Problem]:
    """Names go into scripts and pages."""
    rules = [("name", board.name, label), ("title", board.title, prose),
             ("part.name", board.part.name, label),
             *((f"ports[{index}].name", port.name, identifier)
               for index, port in enumerate(board.ports)),
             *((f"{item.name}.{field}", getattr(item, field), prose)
               for item in board.coefficients for field in ("unit", "source"))]
    for where, text, rule in rules:
        try:
            rule(text, where)
        except FieldError as error:
            shown, _, what = str(error).removeprefix(f"{where}: ").partition(", must be ")
            what, _, near = what.partition("; nearest ")
            yield Problem(where, shown, f"must be {what}", near)


def _evidence(board: Board) -> Iterator[Problem]:
    for item in board.coefficients:
        if not math.isfinite(item.value):
            yield Problem(item.name, str(item.value), "must be finite")
        elif item.value < 0:
            yield Problem(item.name, str(item.value), "must not be negative", "0")
        elif item.value > most(item.name):
            yield Problem(item.name, str(item.value), f"must be at most {most(item.name):.15g}",
                          f"{most(item.name):.15g}")
        for name in ("unit", "source"):
            if not getattr(item, name).strip():
                yield Problem(f"{item.name}.{name}", "empty", "must say something")


def most(name: str) -> float:
    """The most that a number of a board may be, by its name."""
    return next((bound for end, bound in MOST_BY_END.items() if name.endswith(end)), MOST)


def _part(board: Board) -> Iterator[Problem]:
    for name in ("dsp", "bram36", "lut", "ff"):
        yield from _least(f"part.{name}", getattr(board.part, name), 1)
    low, high = FABRIC_DELAY
    if not low <= board.part.fabric_delay <= high:
        yield Problem("part.fabric_delay", f"{board.part.fabric_delay:g}",
                      f"must lie between {low:g} and {high:g}",
                      f"{min(max(board.part.fabric_delay, low), high):g}")


def _ports(board: Board) -> Iterator[Problem]:
    if not board.ports:
        yield Problem("ports", "empty", "must hold at least one port")
    if len(board.ports) > MOST_PORTS:
        yield Problem("ports", f"{len(board.ports)} of them", f"must be at most {MOST_PORTS}")
    names = [port.name for port in board.ports]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield Problem("ports", f"{name} {names.count(name)} times", "names must differ")
    for port in board.ports:
        yield from _port(port)


def _port(port: BoardPort) -> Iterator[Problem]:
    where = f"ports.{port.name}"
    if not port.widths_bits:
        yield Problem(f"{where}.widths_bits", "empty", "must hold at least one width", "[64]")
    for width in port.widths_bits:
        yield from _among(f"{where}.widths_bits", width, WIDTHS_BITS)
    yield from _range(f"{where}.max_burst_beats", port.max_burst_beats, 1, MOST_BURST_BEATS)
    for name in ("read_accept", "write_accept", "fifo_bytes"):
        yield from _least(f"{where}.{name}", getattr(port, name), 1)


def _hertz(board: Board) -> Iterator[Problem]:
    for path, (least, most) in HERTZ.items():
        table, _, name = path.partition(".")
        yield from _range(path, getattr(getattr(board, table), name), least, most)
    clocks = board.clocks
    low, most = clocks.minimum_hz, clocks.maximum_hz
    yield from _range("clocks.largest_divider", clocks.largest_divider, 1, MOST_DIVIDER)
    if low > most:
        yield Problem("clocks.minimum_hz", str(low), f"must not be above maximum_hz {most}",
                      str(most))
    elif clocks.largest_divider <= MOST_DIVIDER and not clocks.rates_hz:
        yield Problem("clocks.generator_hz", str(clocks.generator_hz), "two dividers make no "
                      f"rate of it between minimum_hz {low} and maximum_hz {most}", str(most))


def _dram(ddr: Ddr) -> Iterator[Problem]:
    yield from _among("ddr.data_bus_bits", ddr.data_bus_bits, BUS_BITS)
    yield from _among("ddr.burst_length_beats", ddr.burst_length_beats, BURST_BEATS)
    clock = max(1, ddr.clock_hz)
    rows = int(MOST_ROW_NS * clock / 1e9)
    for name in ("t_rcd", "t_rp", "t_rrd", "t_faw", "t_ras_min", "t_rc"):
        yield from _range(f"ddr.{name}", getattr(ddr, name), 1, rows,
                          f" ({MOST_ROW_NS:g} ns at this clock)")
    for name in ("read_latency", "write_latency", "t_rfc_min", "lpr_entries"):
        yield from _least(f"ddr.{name}", getattr(ddr, name), 1)
    yield from _range("ddr.t_refi", ddr.t_refi, ddr.t_rfc_min + 1,
                      int(MOST_REFRESH_NS * clock / 1e9), " (after t_rfc_min; nine intervals of "
                      "7.8 us at this clock)")
    if ddr.t_rc <= ddr.t_ras_min:
        yield Problem("ddr.t_rc", str(ddr.t_rc), f"must be above t_ras_min {ddr.t_ras_min}",
                      str(ddr.t_ras_min + ddr.t_rp))
    if ddr.t_faw < ddr.t_rrd:
        yield Problem("ddr.t_faw", str(ddr.t_faw), f"must be at least t_rrd {ddr.t_rrd}",
                      str(ddr.t_rrd))
    yield from _groups(ddr)


def _groups(ddr: Ddr) -> Iterator[Problem]:
    """Bank groups: their bits lie above a DRAM burst, below the banks; times inside are longer."""
    yield from _range("ddr.bank_group_bits", ddr.bank_group_bits, 0, MOST_BANK_GROUP_BITS)
    if not 0 < ddr.bank_group_bits <= MOST_BANK_GROUP_BITS:
        return
    burst = max(1, ddr.burst_length_beats * ddr.data_bus_bits // 8)
    yield from _range("ddr.bank_group_low_bit", ddr.bank_group_low_bit, burst.bit_length() - 1,
                      ddr.column_high_bit + 1 - ddr.bank_group_bits,
                      " (above a DRAM burst, up to column_high_bit)")
    for name, least in (("t_ccd_l", ddr.burst_length_beats // 2), ("t_rrd_l", ddr.t_rrd),
                        ("wr2rd_l", ddr.wr2rd)):
        yield from _range(f"ddr.{name}", getattr(ddr, name), least, MOST_GROUP_CLOCKS,
                          " (not shorter than between groups)")


def _map(ddr: Ddr) -> Iterator[Problem]:
    """The address map: byte in word, column, bank, row, one behind the other, and no gap."""
    if ddr.data_bus_bits in BUS_BITS:
        yield from _equal("ddr.column_low_bit", ddr.column_low_bit,
                          (ddr.data_bus_bits // 8).bit_length() - 1,
                          f"the bytes of {ddr.data_bus_bits} bits lie below the columns")
    if not ddr.column_low_bit < ddr.column_high_bit <= MOST_COLUMN_BIT:
        yield Problem("ddr.column_high_bit", str(ddr.column_high_bit),
                      f"must be above column_low_bit {ddr.column_low_bit} and at most "
                      f"{MOST_COLUMN_BIT}")
    yield from _equal("ddr.bank_low_bit", ddr.bank_low_bit, ddr.column_high_bit + 1,
                      "banks begin where columns end")
    if not ddr.bank_low_bit <= ddr.bank_high_bit < ddr.bank_low_bit + MOST_BANK_BITS:
        yield Problem("ddr.bank_high_bit", str(ddr.bank_high_bit),
                      f"must be at least bank_low_bit {ddr.bank_low_bit}, and at most "
                      f"{MOST_BANK_BITS - 1} above it", str(ddr.bank_low_bit))
    yield from _equal("ddr.row_low_bit", ddr.row_low_bit, ddr.bank_high_bit + 1,
                      "rows begin where banks end")
    if ddr.size_bytes < 1 or ddr.size_bytes & (ddr.size_bytes - 1):
        yield Problem("ddr.size_bytes", str(ddr.size_bytes), "must be a power of two",
                      str(1 << max(0, round(math.log2(max(1, ddr.size_bytes))))))
    else:
        yield from _equal("ddr.row_high_bit", ddr.row_high_bit, ddr.size_bytes.bit_length() - 2,
                          f"{ddr.size_bytes} bytes need just these address bits")


def _rest(board: Board) -> Iterator[Problem]:
    yield from _range("host.cores", board.host.cores, 1, MOST_CORES)
    yield from _power(board)


def _power(board: Board) -> Iterator[Problem]:
    power, dram = board.power, board.power.dram
    low, high = power.vccint_lowest_v, power.vccint_highest_v
    if power.vccint_nominal_v <= 0:
        yield Problem("power.vccint_nominal_v", f"{power.vccint_nominal_v:g}", "must be positive")
    if not low <= power.vccint_v <= high:
        yield Problem("power.vccint_v", f"{power.vccint_v:g}",
                      f"must lie between {low:g} and {high:g}, which the board can set",
                      f"{min(max(power.vccint_v, low), high):g}")
    if not power.ps_sleep_w <= power.ps_poll_w <= power.ps_work_w:
        yield Problem("power.ps_poll_w", f"{power.ps_poll_w:g}",
                      f"must lie between ps_sleep_w {power.ps_sleep_w:g} and ps_work_w "
                      f"{power.ps_work_w:g}")
    yield from _least("power.dram.rated_mts", dram.rated_mts, 1)
    if dram.chips * dram.chip_bits != board.ddr.data_bus_bits:
        yield Problem("power.dram.chips", f"{dram.chips} of {dram.chip_bits} bits",
                      f"must fill the bus of {board.ddr.data_bus_bits} bits",
                      f"{max(1, board.ddr.data_bus_bits // max(1, dram.chip_bits))}")
    for name in ("idd4r_ma", "idd4w_ma", "idd5b_ma", "idd0_ma"):
        if getattr(dram, name) < dram.idd3n_ma * (name != "idd0_ma"):
            yield Problem(f"power.dram.{name}", f"{getattr(dram, name):g}",
                          f"must be at least idd3n_ma {dram.idd3n_ma:g}", f"{dram.idd3n_ma:g}")


def _least(field: str, value: int, least: int) -> Iterator[Problem]:
    if value < least:
        yield Problem(field, str(value), f"must be at least {least}", str(least))


def _range(field: str, value: int, least: int, most: int, why: str = "") -> Iterator[Problem]:
    if not least <= value <= most:
        yield Problem(field, str(value), f"must lie between {least} and {most}{why}",
                      str(min(max(value, least), most)))


def _among(field: str, value: int, legal: Sequence[int]) -> Iterator[Problem]:
    if value not in legal:
        near = min(legal, key=lambda item: abs(item - value))
        yield Problem(field, str(value), f"must be one of {', '.join(map(str, legal))}", str(near))


def _equal(field: str, value: int, wanted: int, why: str) -> Iterator[Problem]:
    if value != wanted:
        yield Problem(field, str(value), f"must be {wanted}: {why}", str(wanted))
