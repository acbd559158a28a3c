"""The tensor memory: block RAM that answers a read and a write master in place of their ports.

It knows no tensor: who asks for an address of the window is answered, modulo its size. A side takes
a burst a cycle while its queue has room and moves a word a cycle, the first READ_LEAD (WRITE_LEAD)
cycles after the burst came to an empty queue; a write is answered WRITE_TRAIL cycles after its last
word. So the words of an operation follow one another, whatever its bursts.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Signal, Value, unsigned
from amaranth.lib.memory import Memory

from arch_models.memory import WINDOW
from hw.rtl.pipeline import delay
from hw.rtl.transfers.bursts import ADDRESS_BITS, LENGTH_BITS
from hw.rtl.transfers.queue import Queue

LANE_BITS = 64  # written alone
#: Address bit that says that a burst is not DRAM's.
WINDOW_BIT = WINDOW.bit_length() - 1


class Side:
    """What one master and the memory tell each other.

    `request` with `address` and `length` (words - 1) is taken while `ready`. A read: words of
    `data` come with `valid`, a burst's last one with `ends`. A write: the word that `offered` says
    is in `data` is taken while `takes`, those lanes alone that `strobe` names; `ends` answers the
    burst.
    """

    def __init__(self, name: str, word_bits: int) -> None:
        self.request, self.ready = Signal(name=f"{name}_request"), Signal(name=f"{name}_ready")
        self.address = Signal(ADDRESS_BITS, name=f"{name}_address")
        self.length = Signal(LENGTH_BITS, name=f"{name}_length")
        self.valid, self.ends = Signal(name=f"{name}_valid"), Signal(name=f"{name}_ends")
        self.data = Signal(word_bits, name=f"{name}_data")
        self.offered, self.takes = Signal(name=f"{name}_offered"), Signal(name=f"{name}_takes")
        self.strobe = Signal(max(1, word_bits // LANE_BITS), name=f"{name}_strobe")


class TensorMemory(Elaboratable):
    """`size_bytes`, a power of two, in words as wide as the masters' ports."""

    def __init__(self, size_bytes: int, word_bits: int) -> None:
        self.word_bits, self.words = word_bits, size_bytes * 8 // word_bits
        self.read, self.write = Side("tensor_read", word_bits), Side("tensor_write", word_bits)

    def elaborate(self, platform: object) -> Module:
        """A memory of one port to read and one to write, and the walk of each side."""
        m = Module()
        m.submodules.memory = memory = Memory(shape=unsigned(self.word_bits), depth=self.words,
                                              init=[])
        word, active, last = self._walk(m, "read", self.read, Value.cast(1))
        port = memory.read_port(domain="sync")
        m.d.comb += [port.addr.eq(word), port.en.eq(1), self.read.data.eq(port.data),
                     self.read.valid.eq(delay(m, active, 1)),
                     self.read.ends.eq(delay(m, active & last, 1))]
        word, active, last = self._walk(m, "write", self.write, self.write.offered)
        lanes = len(self.write.strobe)
        store = memory.write_port(granularity=self.word_bits // lanes)
        moves = active & self.write.offered
        m.d.comb += [self.write.takes.eq(active), store.addr.eq(word),
                     store.data.eq(self.write.data),
                     store.en.eq(self.write.strobe & moves.replicate(lanes)),
                     self.write.ends.eq(delay(m, moves & last, 1))]
        return m

    def _walk(self, m: Module, name: str, side: Side, moves: Value
              ) -> tuple[Signal, Signal, Signal]:
        """The word that moves, whether there is one, and whether it is its burst's last."""
        low = (self.word_bits // 8).bit_length() - 1
        bits = (self.words - 1).bit_length()
        queue = Queue(bits + LENGTH_BITS)
        m.submodules[f"{name}_bursts"] = queue
        word, left = Signal(bits, reset_less=True), Signal(LENGTH_BITS, reset_less=True)
        active, last, free = Signal(), Signal(), Signal()
        m.d.comb += [
            side.ready.eq(queue.room), queue.w_en.eq(side.request & queue.room),
            queue.w_data.eq(Cat(side.address[low : low + bits], side.length)),
            free.eq(~active | (last & moves)), queue.r_en.eq(free)]
        with m.If(free):
            m.d.sync += [active.eq(queue.r_rdy), Cat(word, left).eq(queue.r_data),
                         last.eq(queue.r_data[bits:] == 0)]
        with m.Elif(moves):
            m.d.sync += [word.eq(word + 1), left.eq(left - 1), last.eq(left == 1)]
        return word, active, last
