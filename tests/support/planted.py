"""Faults, planted one at a time: where, what stands there, what replaces it, who must see it.

It runs nothing; see `tests/mutation`. `why` is empty but for a fault that lives, and then says why
nobody can see it.
"""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """One fault. `tests`: files of tests, of which one must fail; `options`: more for pytest."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    options: tuple[str, ...] = ()
    why: str = ""


_GATES = ("tests/theory/test_theory_ddr_gates.py", "tests/theory/test_theory_ddr_path.py")
_FLAT = ("tests/theory/test_theory_closed_forms.py",
         "tests/contracts/test_contract_memory.py::"
         "test_bursts_keep_to_the_axi_limits_and_cover_the_run")
_HOST = ("tests/theory/test_theory_host.py",)
_ENERGY = ("tests/arch_models/test_arch_energy.py",)
_VTA = ("tests/cosim/test_cosim_lower_vta.py",)
#: The SimPy executor alone: nothing is compiled. (Ten million repeats are the other's.)
_SLOW = ("-k", "not fast and not million")
_BITS = "tests/hw/test_rtl_pipeline.py"

DDR3, CROSSING, PORTS, BURSTS = (
    "cosim/memory/ddr3.py", "cosim/memory/crossing.py", "cosim/executors/des_memory.py",
    "cosim/memory/bursts.py")


def _of(file: str, tests: tuple[str, ...], options: tuple[str, ...],
        *changes: tuple[str, str]) -> list[Fault]:
    return [Fault(file, old, new, tests, options) for old, new in changes]


FAULTS = [
    # --- the DRAM's rules ---------------------------------------------------------------------
    *_of(
        DDR3, _GATES, _SLOW,
        # the precharge counted from the first column of a long burst
        ("last + (t.t_wr2pre if write else t.t_rd2pre)",
         "first + (t.t_wr2pre if write else t.t_rd2pre)"),
        ("(t.t_wr2pre if write else t.t_rd2pre)", "t.t_rd2pre"),
        # a refresh that does not wait: for rows, for the bus; and its own times
        ("start = max(start, banks[index].precharge_ready)", "start = start + 0"),
        ("start = max(s.refresh, s.bus)", "start = s.refresh"),
        ("ready = start + t.t_rfc + (t.t_rp if opened else 0)", "ready = start + t.t_rfc"),
        ("if s.refresh <= now:", "if s.refresh < now:"),
        # gates
        ("read + t.t_rd2wr", "read"),
        ("written + t.t_wr2rd", "written"),
        ("s.activates[0] + t.t_faw", "s.activates[1] + t.t_faw"),
        ("s.activates[3] + t.t_rrd", "s.activates[3]"),
        ("bank.activate_ready = activate + t.t_rc", "bank.activate_ready = activate"),
        ("bank.precharge_ready = activate + t.t_ras", "bank.precharge_ready = activate"),
        ("last = column + (ddr_atoms(t, address, size) - 1) * t.t_ccd", "last = column"),
        ("bus = last + t.t_ccd + gap", "bus = last + t.t_ccd"),
        ("s.debt += burst.atoms * t.write_gap", "s.debt += t.write_gap"),
        ("return ((address & edge) + size + edge) >> t.atom_shift",
         "return (size + edge) >> t.atom_shift"),
        ("clock = max(admitted, switched)", "clock = admitted"),
        # bank groups
        ("s.group_activate[group] + t.t_rrd_l", "s.group_activate[group]"),
        ("return s.group_column[group] + t.t_ccd_l", "return s.group_column[group]"),
        ("max(s.group_column[group] + t.t_ccd_l, s.group_write[group] + t.wr2rd_l)",
         "s.group_column[group] + t.t_ccd_l"),
        ("max(s.group_column[group] + t.t_ccd_l, s.group_write[group] + t.wr2rd_l)",
         "s.group_write[group] + t.wr2rd_l"),
        ("column = max(column, _group_at(dram, burst.address, write))", "column = column + 0"),
        ("size = min(size, t.atom - (address & (t.atom - 1)))", "size = min(size, t.atom)"),
        ("s.group_write[group_of(t, address)] = column", "s.group_write[0] = column"),
        ("return at(dram.banks, (bank << t.group_bits) + group_of(t, address))",
         "return at(dram.banks, bank << t.group_bits)"),
        # who is served
        ("starved = now - since >= at(t.starve, other)",
         "starved = now - since > at(t.starve, other)"),
        ("if starved and run >= at(t.most_run, mode):", "if starved:"),
        ("bypassed >= dram.t[0].bypass", "bypassed > dram.t[0].bypass"),
        ("s.bus = max(s.bus, now + dram.t[0].idle_gap)", "s.bus = max(s.bus, now)"),
        ("occupied + head.atoms > t.entries[write]", "occupied > t.entries[write]"),
    ),
    *_of(
        CROSSING, _GATES, _SLOW,
        # rounding between the clocks
        ("return _scaled(cycle, t[0].clock, t[0].cycle, 1)",
         "return _scaled(cycle, t[0].clock, t[0].cycle, 0)"),
        ("return _scaled(clock, t[0].cycle, t[0].clock, 1)",
         "return _scaled(clock, t[0].cycle, t[0].clock, 0)"),
        ("return _scaled(clock, t[0].cycle, t[0].clock, 0)",
         "return _scaled(clock, t[0].cycle, t[0].clock, 1)"),
        # last beat, port words, beats in order
        ("return max(begin + beats, to_fabric(last, t) + response)", "return begin + beats"),
        ("begin = max(to_fabric(first, t) + response, data_free)",
         "begin = to_fabric(first, t) + response"),
        ("((size + 7) >> 3) * t[0].word", "(size >> 3) * t[0].word"),
        ("_quotient(clocks + t[0].word_per - 1, t[0].word_per)",
         "_quotient(clocks, t[0].word_per)"),
        ("start = max(clock, free)", "start = clock"),
        ("return max(accepted + lead, data_free) + beats", "return accepted + lead + beats"),
    ),
    *_of(
        PORTS, _GATES, _SLOW,
        ("answered = to_fabric(clock, self.controller.dram.t) + self.port.write_response_cycles",
         "answered = to_fabric(clock, self.controller.dram.t) "
         "+ 4 * self.port.write_response_cycles"),
        ("if self.held >= self.depth:", "if self.held > self.depth:"),
        ("self.depth = port.write_accept if write else port.read_accept",
         "self.depth = 1 + (port.write_accept if write else port.read_accept)"),
        ("self.ready = int(t.t_cl + t.t_ccd + t.pipeline)", "self.ready = int(t.t_cl + t.t_ccd)"),
        ("end = max(end, last + self.ready)", "end = max(end, first + self.ready)"),
    ),
    # --- transfers on a flat memory -----------------------------------------------------------
    *_of(
        BURSTS, _FLAT, _SLOW,
        ("edge = BOUNDARY_BYTES - (address & (BOUNDARY_BYTES - 1))", "edge = BOUNDARY_BYTES"),
        ("count = max_beats * width - (address & (width - 1))", "count = max_beats * width"),
        ("return ((address & (width - 1)) + count + width - 1) // width",
         "return (count + width - 1) // width"),
        ("base = max(base, done)", "base = max(base, accepted)"),
        ("base += run_setup", "base += 0"),
        ("return accepted, max(accepted + lead, data_free)", "return accepted, accepted + lead"),
        ("accepted = max(request, last_accept + 1)", "accepted = max(request, last_accept)"),
    ),
    # --- the host, and frame after frame ------------------------------------------------------
    *_of(
        "cosim/lowering/host_times.py", _HOST, (),
        ("total += cache_ns(board, overlay.control, layouts.bytes_of(name))", "total += 0.0"),
        ("return max(1, cycles_from_ns(time_ns, clock_hz))", "return 1"),
    ),
    *_of(
        "cosim/lowering/lower.py", _HOST, (),
        ("self._tie(last.last[wiring.outputs[j]], first_host, wiring.release[j])", "pass"),
    ),
    *_of(
        "arch_models/engines/host.py", _HOST, (),
        ("host.start_c_ns + control.register_writes * host.register_write_c_ns",
         "host.start_c_ns"),
        ("host.start_python_ns + control.register_writes * host.register_write_python_ns",
         "host.start_python_ns"),
        ("return max(board.host.cache_floor_ns, transfer_bytes * board.host.cache_ns_per_byte)",
         "return board.host.cache_floor_ns"),
    ),
    # --- energy -------------------------------------------------------------------------------
    *_of(
        "arch_models/power/energy.py", _ENERGY, (),
        ("joules_from_pj(written * dram.write_pj_per_byte)",
         "joules_from_pj(written * dram.read_pj_per_byte)"),
        ("table[STALLED] * (logic + block) * waits", "table[STALLED] * logic * waits"),
        ("block = table[BLOCK] * volts * (sites.dsp + sites.bram36)",
         "block = table[BLOCK] * volts * (2 * sites.dsp + sites.bram36)"),
        ("joules_from_pj((read + written) * table[PADS])", "joules_from_pj(read * table[PADS])"),
        ("clocked = np.maximum(activity.clocked.get(part, 0.0), works) if stops else cycles",
         "clocked = cycles"),
        ("joules(power.ps_work_w, activity.host_s)", "joules(power.ps_work_w, time_s)"),
    ),
    # packed products at the price of whole ones
    Fault("arch_models/engines/convolution.py",
          "slices = ceil_div(macs, 2) if overlay.dsp_packing else macs", "slices = macs", _ENERGY),
    # --- VTA ----------------------------------------------------------------------------------
    *_of(
        "cosim/vta/lower.py", _VTA, (),
        ("row + timing.padded_row_cycles * padded", "row"),
        ("master(STORE_OUTPUT, UnitKind.WRITE, timing.store_row_cycles)",
         "master(STORE_OUTPUT, UnitKind.WRITE, 1)"),
        ("ahead = own[array.queue_depth:]", "ahead = own[2 * array.queue_depth:]"),
        ("wait = np.where(table[:, Field.KIND] == Kind.WEIGHT, weights, "
         "timing.miss_burst_cycles)", "wait = weights"),
    ),
    *_of(
        "cosim/vta/cache.py", _VTA, (),
        ("return min(1.0, max(0, touched - cache_bytes) / WAY_BYTES)",
         "return float(touched > cache_bytes)"),
        ("inputs if schedule.out_threads == 1 else 0.0", "inputs"),
    ),
    Fault("arch_models/vta.py", "return -(-8 * self.weight_block_bytes // BANK_BITS)", "return 2",
          _VTA),
    Fault("cosim/vta/instructions.py", "return prod(real[2:])", "return prod(real[1:])", _VTA),
    # --- RTL: what its smallest parts promise -------------------------------------------------
    *_of(
        "hw/rtl/pipeline.py", (_BITS,), (),
        # shifts above 23 are promised up to 47
        ("clips, shift = register(m, positive), register(m, Cat(shift, Const(0, 6))[:6])",
         "clips, shift = register(m, positive), register(m, Mux(shift > 23, 23, shift))"),
        ("up = now[0] & (sticky | now[1])", "up = now[0]"),
        ("over = register(m, over | (top ^ sign))", "over = register(m, over)"),
        ("rest.eq(Mux(fits, wide - divisor, wide))]", "rest.eq(wide)]"),
    ),
    # --- RTL: whole engines, compiled by Verilator --------------------------------------------
    Fault("hw/rtl/engines/results.py",
          "(total + entry[:SUM_BITS].as_signed())[:SUM_BITS].as_signed()",
          "(total + entry[:SUM_BITS].as_signed())[:24].as_signed()",
          ("tests/hw/test_rtl_overlay.py::test_tiles_through_every_engine",)),
    *_of(
        "hw/rtl/engines/norm_entries.py", ("tests/hw/test_rtl_norm_entries.py",), (),
        ("dividend ^ dividend[-1].replicate(BEAT_BITS)", "dividend"),  # a quotient below zero
        ("zip(sizes, (15, 31), strict=True)", "zip(sizes, (16, 31), strict=True)"),
        ("zip(sizes, (15, 31), strict=True)", "zip(sizes, (15, 32), strict=True)"),
        ("Mux(more, spread, 1) << 8", "spread << 8"),  # the least spread
        ("late(m, register(m, (2 * NORM_BITS - drop)[:6]), ROUND - 1)",
         "late(m, register(m, Const(2 * NORM_BITS, 6)), ROUND - 1)"),
    ),
    Fault("hw/rtl/engines/norm_entries.py", "more = register(m, ~spread[-1] & spread[1:].any())",
          "more = register(m, ~spread[-1] & spread.any())",
          ("tests/hw/test_rtl_norm_entries.py",),
          why="a spread of one is taken as itself or as one: the same number"),
    Fault("hw/rtl/transfers/masters.py",
          "m.d.comb += upper.eq(address)", "m.d.comb += upper.eq(0)",
          ("tests/hw/test_rtl_overlay.py::test_narrow_wide_and_several_masters",)),
    Fault("hw/rtl/transfers/places.py", "words = [Signal(PLACE_BITS, name=f\"word_{slot}\",",
          "words = [Signal(8, name=f\"word_{slot}\",",
          ("tests/hw/test_rtl_overlay.py::test_tiles_through_every_engine",)),
]
