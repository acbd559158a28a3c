"""Where the beats that a master moves lie in a buffer: counters that move with the master.

They multiply and divide nothing while beats move, so a place is a register and meets the port of
a block RAM directly. They hold no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from cosim.program.table import Opcode
from hw.rtl.pipeline import delay, register
from hw.rtl.transfers.masters import ReadMaster, WriteMaster

PLACE_BITS = 16
#: Bits of a quotient that one cycle finds.
_QUOTIENT_BITS = 2


class Place(NamedTuple):
    """A word of a buffer and the beat in it."""

    word: Value
    lane: Value


def tile_places(m: Module, master: ReadMaster | WriteMaster, opcode: Opcode, lanes: int
                ) -> Sequence[Place]:
    """Of a tile's beats in a buffer of `lanes` beats a word, one for each slot of the master.

    Planes lie side by side in a word, `lanes` of them; `positions` words hold them all. Right
    whenever the master's counter is.
    """
    counter, shell = master.counter, master.shell
    assert counter is not None
    base = shell.argument(opcode, "base")[:PLACE_BITS]
    positions = shell.argument(opcode, "positions", PLACE_BITS)
    words = [Signal(PLACE_BITS, name=f"word_{slot}", reset_less=True)
             for slot in range(counter.slots)]
    group, behind = (Signal(PLACE_BITS, reset_less=True) for _ in range(2))
    lane = Signal(range(max(2, lanes)), reset_less=True)
    with m.If(shell.begins):
        m.d.sync += [group.eq(base), behind.eq(base + positions), lane.eq(0),
                     *(word.eq(base + slot) for slot, word in enumerate(words))]
    with m.Elif(counter.moves):
        opens = Mux(lane == lanes - 1, behind, group)
        m.d.sync += [word.eq(Mux(counter.plane_ends, opens, words[0] + counter.moved) + slot)
                     for slot, word in enumerate(words)]
    with m.If(~shell.begins & counter.plane_moves):
        with m.If(lane == lanes - 1):
            m.d.sync += [group.eq(behind), behind.eq(behind + positions), lane.eq(0)]
        with m.Else():
            m.d.sync += lane.eq(lane + 1)
    return [Place(word, lane) for word in words]


def entry_places(m: Module, master: ReadMaster, lanes: int) -> Sequence[Place]:
    """Of entries that lie one behind the other from `base` on, `lanes` of them a word."""
    counter, shell = master.counter, master.shell
    base = shell.argument(Opcode.LOAD, "base")[:PLACE_BITS]
    first, rest = _divide(m, base, lanes)
    settled = delay(m, shell.begins, _cycles(lanes))
    found = [Place(Signal(PLACE_BITS, name=f"entry_word_{slot}", reset_less=True),
                   Signal(range(max(2, lanes)), name=f"entry_lane_{slot}", reset_less=True))
             for slot in range(counter.slots)]
    for slot, (word, lane) in enumerate(found):
        # By so many beats on, the word ends: known from a register, as a carry chain comes behind.
        lasts = {count: Signal(name=f"entry_last_{slot}_{count}", reset_less=True)
                 for count in range(1, counter.slots + 1)}
        for when, by in ((settled, slot), *((counter.moves & (counter.moved == count), count)
                                            for count in lasts)):
            at_word, at_lane = (first, rest) if when is settled else (word, lane)
            wraps = _beyond(rest, 0, slot, lanes) if when is settled else lasts[by]
            ahead = at_lane + by
            with m.If(when):
                m.d.sync += [word.eq(at_word + (by if lanes == 1 else wraps)),
                             lane.eq(0 if lanes == 1 else Mux(wraps, ahead - lanes, ahead)),
                             *(last.eq(_beyond(at_lane, by, count, lanes))
                               for count, last in lasts.items())]
    return found


def _beyond(lane: Value, by: int, count: int, lanes: int) -> Value:
    """Whether the lane that lies `by` behind `lane` is one of the last `count` of a word.

    No sum is compared: that would be a carry chain.
    """
    return Cat(Const(0, 1), *(lane == one for one in range(lanes)
                              if (one + by) % lanes >= lanes - count)).any()


def _cycles(divisor: int) -> int:
    """Cycles of `_divide`."""
    return 0 if divisor & (divisor - 1) == 0 else -(-PLACE_BITS // _QUOTIENT_BITS)


def _divide(m: Module, value: Value, divisor: int) -> tuple[Value, Value]:
    """(quotient, rest) of a value that stands still, some bits a cycle; shifts cost no cycle."""
    if not _cycles(divisor):
        bits = divisor.bit_length() - 1
        return value[bits:], value[:bits] if bits else Value.cast(0)
    quotient: list[Value] = []
    rest: Value = Value.cast(0)
    for index, bit in enumerate(reversed(list(value))):
        wide = Cat(bit, rest)
        fits = wide >= divisor
        rest = Mux(fits, wide - divisor, wide)[: (divisor - 1).bit_length()]
        quotient.insert(0, fits)
        if index % _QUOTIENT_BITS == _QUOTIENT_BITS - 1:
            rest = register(m, rest)
    return Cat(quotient), rest
