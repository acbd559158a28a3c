"""One counter a token channel: what a unit gives in a cycle is there in the next cycle.

It does not know which unit waits for what; the shells' masks say so.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Elaboratable, Module, Signal

from hw.rtl.pipeline import register
from hw.rtl.transfers.queue import Tally

TOKEN_BITS = 16


class TokenBank(Elaboratable):
    """Counters of all channels. `initial` is loaded while `go` and `keep` were low a cycle ago; a
    reset of the units around the bank leaves the counters as they are.

    `overflow` rises and stays if a counter passes its range; no legal program lets it.
    """

    def __init__(self, channel_count: int) -> None:
        self.go = Signal()
        self.keep = Signal()
        self.initial = [Signal(TOKEN_BITS, name=f"initial_{number}")
                        for number in range(channel_count)]
        self.take = Signal(channel_count)
        self.give = Signal(channel_count)
        self.available = Signal(channel_count)
        self.coming = Signal(channel_count)  # may there be one in the next cycle?
        self.overflow = Signal()

    def elaborate(self, platform: object) -> Module:
        """Build the counters."""
        m = Module()
        loads, passes = Signal(), []
        m.d.sync += loads.eq(~self.go & ~self.keep)
        for number, initial in enumerate(self.initial):
            passes.append(self._channel(m, number, loads, initial))
        with m.If(Cat(passes).any()):
            m.d.sync += self.overflow.eq(1)
        return m

    def _channel(self, m: Module, number: int, loads: Signal, initial: Signal) -> Signal:
        """One counter; a register that says that it has passed its range."""
        tally = Tally(m, self.give[number], self.take[number], TOKEN_BITS, near=True)
        tally.load(m, loads, initial)
        m.d.comb += [self.available[number].eq(tally.some),
                     self.coming[number].eq(tally.some | self.give[number])]
        return register(m, tally.more & tally.count.all())


def join(m: Module, bank: TokenBank, shells: Sequence) -> None:
    """Connect every shell to the bank; a channel has one taker and one giver, so OR is exact."""
    take = give = 0
    for shell in shells:
        m.d.comb += [shell.available.eq(bank.available), shell.go.eq(bank.go)]
        take, give = take | shell.take, give | shell.give
    m.d.comb += [bank.take.eq(take), bank.give.eq(give)]


