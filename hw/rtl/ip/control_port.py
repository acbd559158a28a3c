"""The AXI-Lite slave of the IP: one access at a time; start, done, idle, ready, the interrupt.

It runs nothing. Every answer and everything that an access does comes from registers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value

from hw.interface.registers import (
    CONTROL,
    FIRST_COUNTER,
    GLOBAL_INTERRUPT,
    INTERRUPT_ENABLE,
    INTERRUPT_STATUS,
    UNIT_STRIDE_BYTES,
)
from hw.rtl.pipeline import delay, register
from hw.rtl.ports import COUNTER_READ_CYCLES
from hw.rtl.shell import COUNTER_BITS

_COUNTER_BYTES = 8
_LOW = 6  # bits of an offset that one LUT compares


class ControlPort(Elaboratable):
    """`bus`: the port's signals by name; `values`: registers that the host writes, by name;
    `places`: their byte offsets.

    `started` pulses when the host starts the IP; `finished` ends that.
    """

    def __init__(self, bus: Mapping[str, Signal], values: Mapping[str, Signal],
                 places: Mapping[str, int]) -> None:
        self.bus, self.values, self.places = bus, values, places
        self.started, self.finished, self.working = Signal(), Signal(), Signal()
        self.overflow, self.interrupt = Signal(), Signal()
        self.counter_select = Signal(16)
        self.counter_value = Signal(COUNTER_BITS)

    def elaborate(self, platform: object) -> Module:
        """Connect the two channels to the registers."""
        m = Module()
        self.enabled, self.let_through, self.pending = Signal(), Signal(), Signal()
        done = Signal()
        place, data, taken = self._writes(m)

        asks = _asks(m, place)

        def written(offset: int) -> Value:
            return register(m, taken & asks(offset))

        starts = written(CONTROL) & data[0] & ~self.working
        clears = written(INTERRUPT_STATUS) & data[0]
        m.d.comb += self.interrupt.eq(self.let_through & self.pending)
        with m.If(written(GLOBAL_INTERRUPT)):
            m.d.sync += self.let_through.eq(data[0])
        with m.If(written(INTERRUPT_ENABLE)):
            m.d.sync += self.enabled.eq(data[0])
        for name, signal in self.values.items():
            with m.If(written(self.places[name])):
                m.d.sync += signal.eq(data)
        m.d.sync += [self.started.eq(starts),
                     self.working.eq((self.working | starts) & ~self.finished)]
        sees_done = self._reads(m, done)
        with m.If(self.finished):
            m.d.sync += done.eq(1)
        with m.Elif(self.started | sees_done):
            m.d.sync += done.eq(0)
        with m.If(self.finished & self.enabled):
            m.d.sync += self.pending.eq(1)
        with m.Elif(clears):
            m.d.sync += self.pending.eq(0)
        return m

    def _writes(self, m: Module) -> tuple[Signal, Signal, Signal]:
        """(Offset, data, they are written in the next cycle).

        The host holds its offset until it is taken, so a register has it a cycle before that.
        """
        bus = self.bus
        place, data = Signal.like(bus["AWADDR"]), Signal(32)
        ready, taken, writes = Signal(), Signal(), Signal()
        m.d.comb += [bus["AWREADY"].eq(ready), bus["WREADY"].eq(ready), bus["BRESP"].eq(0)]
        m.d.sync += [ready.eq(bus["AWVALID"] & bus["WVALID"]
                              & ~(ready | taken | writes | bus["BVALID"])),
                     taken.eq(ready), writes.eq(taken)]
        m.d.sync += place.eq(bus["AWADDR"])
        with m.If(ready):
            m.d.sync += data.eq(bus["WDATA"])
        with m.If(writes):
            m.d.sync += bus["BVALID"].eq(1)
        with m.Elif(bus["BREADY"]):
            m.d.sync += bus["BVALID"].eq(0)
        return place, data, taken

    def _reads(self, m: Module, done: Signal) -> Signal:
        """Answer a read once its counter is there; high in the cycle that takes `done`."""
        bus = self.bus
        place, ready, busy = Signal.like(bus["ARADDR"]), Signal(), Signal()
        value, takes = Signal(32), Signal()
        found = delay(m, ready, COUNTER_READ_CYCLES + 3)
        stride = UNIT_STRIDE_BYTES.bit_length() - 1
        low = _COUNTER_BYTES.bit_length() - 1
        asks = _asks(m, place)
        asks_control = register(m, asks(CONTROL))
        m.d.comb += [
            bus["ARREADY"].eq(ready), bus["RRESP"].eq(0),
            takes.eq(found & asks_control & value[1])]
        m.d.sync += [ready.eq(bus["ARVALID"] & ~ready & ~busy), self.counter_select.eq(Cat(
            place[low:stride], place[stride:] - (FIRST_COUNTER >> stride)))]
        with m.If(ready):
            m.d.sync += [place.eq(bus["ARADDR"]), busy.eq(1)]
        with m.Elif(bus["RVALID"] & bus["RREADY"]):
            m.d.sync += busy.eq(0)
        assert FIRST_COUNTER & (FIRST_COUNTER - 1) == 0
        counts = place[FIRST_COUNTER.bit_length() - 1 :].any()
        answer = Mux(register(m, counts),
                     Mux(place[low - 1], self.counter_value[32:], self.counter_value[:32]), 0)
        for offset, content in (
                (CONTROL, Cat(self.working, done, ~self.working, done)),
                (GLOBAL_INTERRUPT, self.let_through), (INTERRUPT_ENABLE, self.enabled),
                (INTERRUPT_STATUS, Cat(self.pending, self.overflow)),
                *((self.places[name], signal) for name, signal in self.values.items())):
            answer = answer | Mux(register(m, asks(offset)), content, 0)
        m.d.sync += value.eq(answer)
        with m.If(found):
            m.d.sync += [bus["RVALID"].eq(1), bus["RDATA"].eq(value)]
        with m.Elif(bus["RREADY"]):
            m.d.sync += bus["RVALID"].eq(0)
        return takes


def _asks(m: Module, place: Value) -> Callable[[int], Value]:
    """Is `place` this offset? A cycle later: its low bits and its high ones are compared apart."""
    low, high = place[:_LOW], place[_LOW:]
    return lambda offset: (register(m, low == offset % (1 << _LOW))
                           & register(m, high == offset >> _LOW))
