"""What the DDR controller knows: its timing parameters and its state, as records with names.

It decides nothing; the rules are in `cosim.memory.ddr3`. All are int64 records, so that compiled
and plain Python code read and write the same fields of the same memory.

Times are DDR clocks. A pair has an entry for reads (0) and one for writes (1).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from arch_models.memory import MOST_BANK_GROUPS, Ddr3Timing, Memory


def record_type(*names: str, **arrays: int) -> np.dtype:
    """The type of a record of int64 fields; `arrays`: fields of so many entries.

    `ValueError` for a name that numpy's records have as a method: plain Python would find that.
    """
    taken = [name for name in (*names, *arrays) if hasattr(np.record, name)]
    if taken:
        raise ValueError(f"fields of a record can't be named {', '.join(taken)}")
    return np.dtype((np.record, [(name, np.int64) for name in names]
                     + [(name, np.int64, count) for name, count in arrays.items()]))


def one_record(kind: np.dtype, **values: Any) -> np.ndarray:
    """An array of one record of these values, zeros where none is named.

    A record by itself is slow to hand to compiled code, and slow to fill by its attributes.
    """
    made = np.zeros(1, kind)
    for name, value in values.items():
        made[name] = value
    return made


#: Parameters; `arch_models.memory.Ddr3Timing` says what each means. `clock` DDR clocks take as
#: long as `cycle` fabric cycles. `word` / `word_per`: clocks of 8 bytes through a controller port.
TIMING = record_type(
    "t_rcd", "t_rp", "t_ras", "t_rc", "t_rrd", "t_faw", "t_ccd", "t_cl", "t_rd2wr", "t_wr2rd",
    "t_rd2pre", "t_wr2pre", "t_refi", "t_rfc", "idle_gap", "bypass", "write_gap", "atom",
    "row_bytes", "banks", "clock", "cycle", "pipeline", "word", "word_per", "miss_gap",
    "atom_shift", "row_shift", "bank_shift", "group_mask", "group_shift", "group_bits",
    "t_ccd_l", "t_rrd_l", "wr2rd_l", starve=2, most_run=2, entries=2)
#: `now`: last event. `bus`: first free clock of the data bus. `column`: last column command of a
#: direction. `mode`: direction being served, `run`: transactions it moved, `switched`: when it
#: took over. `space`: when its window last got room.
#: `occupied`: transactions in a window. `bypassed`: transactions that overtook the oldest.
#: `debt`: eighths of a clock that writes owe. `refresh`: the next one is due. `activates`: the
#: last four. `inside`: bursts of the units in the controller. `seen`: refreshes up to their last
#: service. `in_line`, `in_window`, `unused`: lengths of the lists. `when`, `admit`: the next
#: event. `new_hits`, `new_misses`: of the last service. `group_*`: last commands of a bank group.
STATE = record_type(
    "now", "bus", "mode", "run", "switched", "bypassed", "debt", "refresh", "inside", "hits",
    "misses", "refreshes", "seen", "unused", "when", "admit", "new_hits", "new_misses",
    column=2, space=2, occupied=2, in_line=2, in_window=2, activates=4,
    group_column=MOST_BANK_GROUPS, group_write=MOST_BANK_GROUPS, group_activate=MOST_BANK_GROUPS)
BANK = record_type("row", "column_ready", "precharge_ready", "activate_ready")
#: A burst in the controller. `number`: of the burst in its operation; `traced`: of the operation
#: in a trace; `moved`: bytes; `atoms`: DRAM bursts.
BURST = record_type("arrival", "unit", "number", "address", "moved", "atoms", "write", "admitted",
                    "traced")
#: A source of background traffic: one burst out at most, the next a period later.
SOURCE = record_type("period", "moved", "write", "region", "next_at", "random", "out")


class Controller(NamedTuple):
    """A DDR controller at some clock. `lines`, `windows` (2, n), `free` (n): numbers of bursts.

    `t` and `s` are arrays of one record.
    """

    t: np.ndarray  # TIMING
    s: np.ndarray  # STATE
    banks: np.ndarray  # BANK
    pool: np.ndarray  # BURST
    lines: np.ndarray
    windows: np.ndarray
    free: np.ndarray
    sources: np.ndarray  # SOURCE


def controller(memory: Memory, in_flight: int) -> Controller:
    """The controller of a memory at clock 0; without banks if the memory is `flat`.

    `in_flight`: bursts that units may have outstanding together.
    """
    if memory.ddr is None or memory.model != "ddr3":
        return Controller(one_record(TIMING), one_record(STATE), np.zeros(0, BANK),
                          np.zeros(0, BURST), np.zeros((2, 0), np.int64),
                          np.zeros((2, 0), np.int64), np.zeros(0, np.int64), np.zeros(0, SOURCE))
    ddr, past = memory.ddr, -(10**6)
    banks = np.zeros(ddr.banks * ddr.bank_groups, BANK)
    banks["row"] = -1
    # Posted writes leave their unit's count when they enter the window, which they then fill.
    capacity = in_flight + ddr.read_entries + ddr.write_entries + len(memory.background)
    states = one_record(STATE, column=past, activates=past, group_column=past, group_write=past,
                        group_activate=past, refresh=ddr.t_refi, unused=capacity)
    sources = np.array([(item.period_clocks, item.burst_bytes, item.write, item.region_bytes,
                         0, index + 1, 0) for index, item in enumerate(memory.background)], SOURCE)
    return Controller(timing(ddr), states, banks, np.zeros(capacity, BURST),
                      np.zeros((2, capacity), np.int64), np.zeros((2, capacity), np.int64),
                      np.arange(capacity), sources)


#: Parameters that `Ddr3Timing` has by the same name.
_AS_NAMED = ("t_rcd", "t_rp", "t_ras", "t_rc", "t_rrd", "t_faw", "t_ccd", "t_refi", "t_rfc",
             "idle_gap", "row_bytes", "banks", "t_ccd_l", "t_rrd_l", "wr2rd_l")


def timing(ddr: Ddr3Timing) -> np.ndarray:
    """The parameters of a DDR memory as an array of one TIMING record."""
    common = math.gcd(ddr.clock_hz, ddr.fabric_hz)
    return one_record(
        TIMING, **{name: getattr(ddr, name) for name in _AS_NAMED},
        t_cl=ddr.read_latency, t_rd2wr=ddr.rd2wr, t_wr2rd=ddr.wr2rd,
        t_rd2pre=ddr.rd2pre, t_wr2pre=ddr.wr2pre,
        starve=(ddr.read_starve, ddr.write_starve), most_run=(ddr.read_run, ddr.write_run),
        entries=(ddr.read_entries, ddr.write_entries), bypass=ddr.bypass_transactions,
        write_gap=ddr.write_gap_eighths, miss_gap=ddr.miss_gap_clocks,
        pipeline=ddr.pipeline_clocks, word=ddr.word_clocks_numerator,
        word_per=ddr.word_clocks_denominator, clock=ddr.clock_hz // common,
        cycle=ddr.fabric_hz // common, atom=ddr.transaction_bytes,
        atom_shift=ddr.transaction_bytes.bit_length() - 1, group_mask=ddr.bank_groups - 1,
        group_shift=ddr.group_bit, group_bits=(ddr.bank_groups - 1).bit_length(),
        row_shift=ddr.row_bytes.bit_length() - 1, bank_shift=ddr.banks.bit_length() - 1)
