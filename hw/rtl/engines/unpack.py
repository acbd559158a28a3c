"""Weights of 4 bits as the array takes them: a half of a word of WEIGHT becomes a word of bytes.

It reads no memory and counts nothing; which half, and whether a word has halves, it is told.

A byte of a half holds two output channels of one input channel, `tm / 2` apart. So the memories of
an input channel keep their lag, and a word of bytes and one of halves are written alike. Of packed
products, WEIGHT holds bytes of even output channels with their sign bit inverted (see `array`): in
a half that is the sign of the channel above.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value

from hw.rtl.engines.array import lag
from hw.rtl.pipeline import late, register

_SIGN = 8  # of a weight of 4 bits


class Unpack(Elaboratable):
    """`bytes` are those of `words`: byte n * tm + channel a weight, each n lagging as `array.lag`.

    `halved`: the operation's words have halves. `half`: which one is wanted, a cycle before the
    word of channel 0 is there. One gate of five inputs lies between words and bytes, and where the
    array's first register is a DSP48's, far from the memories, another one: `cycles`.
    """

    def __init__(self, tm: int, tn: int, packed: bool) -> None:
        self.tm, self.tn, self.packed = tm, tn, packed
        self.words, self.bytes = Signal(8 * tm * tn), Signal(8 * tm * tn)
        self.halved, self.half = Signal(), Signal()
        self.cycles = 0 if packed else 1

    def elaborate(self, platform: object) -> Module:
        """Two bits a channel of input say what its weights are chosen from."""
        m = Module()
        found: list[Value] = [Value.cast(0)] * (self.tm * self.tn)
        for n in range(self.tn):
            upper = register(m, late(m, self.half, lag(n, self.packed)) & self.halved)
            narrow = register(m, self.halved)
            for channel in range(self.tm // 2):
                above = channel + self.tm // 2
                low, high = (self.words.word_select(n * self.tm + place, 8)
                             for place in (channel, above))
                flips = self.packed and channel % 2 == 0
                for place, whole, nibble in (
                        (channel, low, Mux(upper, high[:4], low[:4])),
                        (above, high, Mux(upper, high[4:], low[4:]) ^ (_SIGN if flips else 0))):
                    wide = Cat(nibble, nibble[3].replicate(4)) ^ (0x80 if flips else 0)
                    found[n * self.tm + place] = Mux(narrow, wide, whole)
        m.d.comb += self.bytes.eq(late(m, Cat(found), self.cycles))
        return m
