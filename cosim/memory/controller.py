"""What the DDR controller knows: its timing parameters and its state, as records with names.

It decides nothing; the rules are in `cosim.memory.ddr3`. All are int64 records, so that compiled
and plain Python code read and write the same fields of the same memory.

Times are DDR clocks. A pair has an entry for reads (0) and one for writes (1).
"""

from __future__ import annotations

import math
from typing import NamedTuple

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


def one_record(kind: np.dtype) -> np.ndarray:
    """An array of one record of zeros. A record by itself is slow to hand to compiled code."""
    return np.zeros(1, kind)


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
    states = one_record(STATE)
    if memory.ddr is None or memory.model != "ddr3":
        return Controller(one_record(TIMING), states, np.zeros(0, BANK), np.zeros(0, BURST),
                          np.zeros((2, 0), np.int64), np.zeros((2, 0), np.int64),
                          np.zeros(0, np.int64), np.zeros(0, SOURCE))
    timings, state = timing(memory.ddr), states[0]
    t = timings[0]
    state.column[:] = state.activates[:] = -(10**6)
    state.group_column[:] = state.group_write[:] = state.group_activate[:] = -(10**6)
    state.refresh = t.t_refi
    banks = np.zeros(t.banks * memory.ddr.bank_groups, BANK)
    banks["row"] = -1
    # Posted writes leave their unit's count when they enter the window, which they then fill.
    capacity = in_flight + int(t.entries.sum()) + len(memory.background)
    state.unused = capacity
    sources = np.zeros(len(memory.background), SOURCE)
    for index, item in enumerate(memory.background):
        sources[index] = (item.period_clocks, item.burst_bytes, item.write, item.region_bytes,
                          0, index + 1, 0)
    return Controller(timings, states, banks, np.zeros(capacity, BURST),
                      np.zeros((2, capacity), np.int64), np.zeros((2, capacity), np.int64),
                      np.arange(capacity), sources)


def timing(ddr: Ddr3Timing) -> np.ndarray:
    """The parameters of a DDR memory as an array of one TIMING record."""
    common = math.gcd(ddr.clock_hz, ddr.fabric_hz)
    made = one_record(TIMING)
    found = made[0]
    for name in ("t_rcd", "t_rp", "t_ras", "t_rc", "t_rrd", "t_faw", "t_ccd", "t_refi", "t_rfc",
                 "idle_gap", "row_bytes", "banks", "t_ccd_l", "t_rrd_l", "wr2rd_l"):
        setattr(found, name, getattr(ddr, name))
    found.t_cl, found.t_rd2wr, found.t_wr2rd = ddr.read_latency, ddr.rd2wr, ddr.wr2rd
    found.t_rd2pre, found.t_wr2pre = ddr.rd2pre, ddr.wr2pre
    found.starve[:] = ddr.read_starve, ddr.write_starve
    found.most_run[:] = ddr.read_run, ddr.write_run
    found.entries[:] = ddr.read_entries, ddr.write_entries
    found.bypass, found.write_gap = ddr.bypass_transactions, ddr.write_gap_eighths
    found.miss_gap, found.pipeline = ddr.miss_gap_clocks, ddr.pipeline_clocks
    found.word, found.word_per = ddr.word_clocks_numerator, ddr.word_clocks_denominator
    found.clock, found.cycle = ddr.clock_hz // common, ddr.fabric_hz // common
    found.atom = ddr.transaction_bytes
    found.atom_shift = ddr.transaction_bytes.bit_length() - 1
    found.group_mask, found.group_shift = ddr.bank_groups - 1, ddr.group_bit
    found.group_bits = (ddr.bank_groups - 1).bit_length()
    found.row_shift, found.bank_shift = ddr.row_bytes.bit_length() - 1, ddr.banks.bit_length() - 1
    return made
