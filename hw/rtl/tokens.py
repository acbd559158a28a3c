"""One counter a token channel: what a unit gives in a cycle is there in the next cycle.

It does not know which unit waits for what; the shells' masks say so.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Elaboratable, Module, Signal

TOKEN_BITS = 16


class TokenBank(Elaboratable):
    """Counters of all channels. `initial` is loaded while `go` and `keep` are low; a reset of the
    units around the bank leaves the counters as they are.

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
        self.coming = Signal(channel_count)  # what `available` is in the next cycle
        self.overflow = Signal()

    def elaborate(self, platform: object) -> Module:
        """Build the counters."""
        m = Module()
        for number, initial in enumerate(self.initial):
            count = Signal(TOKEN_BITS, name=f"tokens_{number}", reset_less=True)
            some = Signal(name=f"some_{number}", reset_less=True)  # is the count not zero?
            m.d.comb += [self.available[number].eq(some), self.coming[number].eq(some)]
            m.d.sync += some.eq(self.coming[number])
            with m.If(~self.go & ~self.keep):
                m.d.sync += count.eq(initial)
                m.d.comb += self.coming[number].eq(initial != 0)
            with m.Elif(self.go):
                give, take = self.give[number], self.take[number]
                more = Signal(name=f"more_{number}")
                m.d.comb += more.eq(count[1:].any() | (count[0] & ~take))
                with m.If(give & ~take):
                    m.d.sync += count.eq(count + 1)
                with m.Elif(take & ~give):
                    m.d.sync += count.eq(count - 1)
                m.d.comb += self.coming[number].eq(give | more)
                with m.If(give & ~take & count.all()):
                    m.d.sync += self.overflow.eq(1)
        return m


def join(m: Module, bank: TokenBank, shells: Sequence) -> None:
    """Connect every shell to the bank; a channel has one taker and one giver, so OR is exact."""
    take = give = 0
    for shell in shells:
        m.d.comb += [shell.available.eq(bank.available), shell.go.eq(bank.go)]
        take, give = take | shell.take, give | shell.give
    m.d.comb += [bank.take.eq(take), bank.give.eq(give)]


