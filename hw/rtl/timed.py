"""A unit that takes exactly fill + interval * trips + drain cycles and does nothing else.

It does not compute data: it stands for the host and for engines of designs that are not emitted.
"""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, Signal

from hw.interface.descriptors import TIMING
from hw.rtl.shell import Shell, read_field

DURATION_BITS = 40


class TimedUnit(Elaboratable):
    """A shell around a down counter; with `idle` set, of a unit that never gets a command."""

    def __init__(self, waits: int, signals: int) -> None:
        self.shell = Shell((field for field in TIMING if field.name != "macs"), waits, signals)
        self.shell.at_once = True
        self.idle = False

    def elaborate(self, platform: object) -> Module:
        """Build the counter; an operation of one cycle is done in its start cycle."""
        m = Module()
        m.submodules.shell = shell = self.shell
        if self.idle:
            return m
        cost = {field.name: read_field(shell.head, field) for field in TIMING}
        duration, left, now = (Signal(DURATION_BITS) for _ in range(3))
        m.d.comb += [
            duration.eq(cost["fill"] + cost["interval"] * cost["trips"] + cost["drain"]),
            now.eq(Mux(shell.start, duration, left)),
            shell.done.eq(now == 1),
        ]
        with m.If(shell.active):
            m.d.sync += left.eq(now - 1)
        return m
