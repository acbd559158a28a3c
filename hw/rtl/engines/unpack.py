"""Weights of 4 bits as the array takes them: a half of a word of WEIGHT becomes a word of bytes.

It reads no memory and counts nothing; which half, and whether a word has halves, it is told.

A byte of a half holds two output channels of one input channel, `tm / 2` apart. So the memories of
an input channel keep their lag, and a word of bytes and one of halves are written alike. Of packed
products, WEIGHT holds bytes of even output channels with their sign bit inverted (see `array`): in
a half that is the sign of the channel above.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value

from hw.rtl.engines.array import lag
from hw.rtl.pipeline import late, register

_SIGN = 8  # of a weight of 4 bits


def unpacked(m: Module, words: Value, halved: Value, half: Value, tm: int, tn: int, packed: bool
             ) -> Value:
    """`words` a cycle later: byte n * tm + channel, each n lagging as `array.lag` says.

    `halved`: the operation's words have halves. `half`: which one is wanted, a cycle before the
    word of channel 0 is there.
    """
    found: list[Signal] = [Signal()] * (tm * tn)
    for n in range(tn):
        upper = register(m, late(m, half, lag(n, packed)) & halved)
        narrow = register(m, halved)
        for channel in range(tm // 2):
            low, high = (words.word_select(n * tm + place, 8)
                         for place in (channel, channel + tm // 2))
            flips = packed and channel % 2 == 0
            for place, here, nibble in (
                    (channel, low, Mux(upper, high[:4], low[:4])),
                    (channel + tm // 2, high,
                     Mux(upper, high[4:], low[4:]) ^ (_SIGN if flips else 0))):
                made = Signal(8, reset_less=True)
                wide = Cat(nibble, nibble[3].replicate(4)) ^ (0x80 if flips else 0)
                m.d.sync += made.eq(Mux(narrow, wide, here))
                found[n * tm + place] = made
    return Cat(found)
