"""The outside of a top module: command queues, AXI masters, counters, start and end marks.

It holds no logic but the counter read-out and the gates of units' clocks, and no bus protocol for
registers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value

from hw.rtl.gate import on_gated_clock
from hw.rtl.pipeline import late, register
from hw.rtl.shell import COUNTER_BITS
from hw.rtl.transfers.masters import ReadMaster, WriteMaster

CONFIG_BITS = 32
MARK_BITS = 64  # one bit a unit in `started` and `ended`
READ_SIGNALS = ("ar_valid", "ar_ready", "ar_address", "ar_length", "r_valid", "r_data", "r_last")
WRITE_SIGNALS = ("aw_valid", "aw_ready", "aw_address", "aw_length", "w_valid", "w_ready",
                 "w_data", "w_strobe", "b_valid")
#: Places of a unit's counters: busy, idle, memory stall, stall of each of up to 16 channels.
COUNTER_STRIDE = 32
COUNTER_READ_CYCLES = 3  # from `counter_select` to `counter_value`


class Ports:
    """Signals of a top module by the names they have in Verilog.

    `u<i>_command`, `_command_valid`, `_command_ready` and the AXI signals of unit i;
    `counter_select` = unit * COUNTER_STRIDE + number chooses `counter_value`.
    """

    def __init__(self, units: Sequence[Any], config: Mapping[str, Signal]) -> None:
        self.units = units
        self.config = dict(config)
        self.go = Signal(name="go")
        self.overflow = Signal(name="overflow")
        self.started = Signal(MARK_BITS, name="started")
        self.ended = Signal(MARK_BITS, name="ended")
        self.counter_select = Signal(16, name="counter_select")
        self.counter_value = Signal(COUNTER_BITS, name="counter_value")
        self.by_unit: list[dict[str, Signal]] = []
        for index, unit in enumerate(units):
            found = {name: getattr(unit.shell, name)
                     for name in ("command", "command_valid", "command_ready")}
            names = (READ_SIGNALS if isinstance(unit, ReadMaster)
                     else WRITE_SIGNALS if isinstance(unit, WriteMaster) else ())
            found.update({name: getattr(unit, name) for name in names})
            self.by_unit.append({name: Signal(len(signal), name=f"u{index}_{name}")
                                 for name, signal in found.items()})

    def all(self) -> list[Signal]:
        """Every signal that crosses the top module's boundary, but clock and reset."""
        return [self.go, self.overflow, self.started, self.ended, self.counter_select,
                self.counter_value, *self.config.values(),
                *(signal for unit in self.by_unit for signal in unit.values())]


def connect_units(m: Module, ports: Ports) -> None:
    """Add the units as submodules and tie their outside signals to the ports."""
    places = COUNTER_STRIDE.bit_length() - 1
    number, of_unit = ports.counter_select[:places], late(m, ports.counter_select[places:], 1)
    asked = [register(m, number == index)
             for index in range(max(len(unit.shell.counters) for unit in ports.units))]
    found: Value = Value.cast(0)
    for index, unit in enumerate(ports.units):
        name = f"u{index}"
        m.submodules[name] = on_gated_clock(m, unit, name) if unit.shell.gated else unit
        m.d.comb += [unit.shell.go.eq(ports.go),
                     ports.started[index].eq(unit.shell.start),
                     ports.ended[index].eq(unit.shell.ends)]
        for name, outside in ports.by_unit[index].items():
            inside = getattr(unit.shell if name.startswith("command") else unit, name)
            goes_in = name in ("command", "command_valid") or name in (
                "ar_ready", "r_valid", "r_data", "r_last", "aw_ready", "w_ready", "b_valid")
            m.d.comb += inside.eq(outside) if goes_in else outside.eq(inside)
        mine = register(m, _either(zip(asked, unit.shell.counters, strict=False)))
        found = found | Mux(register(m, of_unit == index), mine, 0)
    m.d.sync += ports.counter_value.eq(found)


def _either(values: Iterable[tuple[Value, Value]]) -> Value:
    """The value whose flag is set, of which one is at most."""
    found: Value = Value.cast(0)
    for flag, value in values:
        found = found | Mux(flag, value, 0)
    return found
