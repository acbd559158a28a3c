"""A clock of its own for each engine and master, which stops while no operation is with it.

It counts no energy (`arch_models.power`), and stops no shell: a command must be taken and a
counter go on at any time. What a body hands over lies still in registers while its clock does, so
the clock goes on for HOLD_CYCLES after an operation's end, by when every pipeline is empty.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import (
    ClockDomain,
    ClockSignal,
    DomainRenamer,
    Elaboratable,
    Instance,
    Module,
    ResetSignal,
    Signal,
)

from arch_models.engines.base import HOLD_CYCLES
from hw.rtl.shell import ALWAYS


class ClockGate(Elaboratable):
    """The part's clock buffer with an enable, which is a register: `soon` says a cycle ahead
    that the unit has an operation."""

    def __init__(self, soon: Signal) -> None:
        self.soon, self.clock = soon, Signal()

    def elaborate(self, platform: object) -> Module:
        """The buffer, and the cycles since the last operation."""
        m = Module()
        awake = Signal(HOLD_CYCLES + 1)
        m.d.sync += awake.eq(awake << 1 | self.soon)
        # A reset is a register of one cycle, which the stopped body must see.
        m.submodules.buffer = Instance("BUFGCE", i_I=ClockSignal(), o_O=self.clock,
                                       i_CE=awake.any() | ResetSignal())
        return m


def on_gated_clock(m: Module, unit: Any, name: str) -> Elaboratable:
    """`unit` on a clock of its own, made in `m`; its shell stays on that of `m`."""
    domain = f"{name}_clock"
    m.domains += ClockDomain(domain)
    m.submodules[f"{name}_gate"] = gate = ClockGate(unit.shell.soon)
    m.d.comb += [ClockSignal(domain).eq(gate.clock), ResetSignal(domain).eq(ResetSignal())]
    return DomainRenamer({"sync": domain, ALWAYS: "sync"})(unit)
